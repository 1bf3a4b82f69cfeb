// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Canonical string -> Problem (grammar: problem.h). Whatever is parsed is also checked.
#include <algorithm>
#include <charconv>

#include "nearfield/problem.h"
#include "problem/message.h"

namespace nearfield {
namespace {

using std::string;
using std::string_view;

constexpr std::size_t kMaxText = 1 << 20;

[[noreturn]] void refuse_part(string_view part, const string& expected) {
  refuse("problem string", "`" + string(part.substr(0, 80)) + "`", expected,
         "for instance na:fwd:f32:b1h8kv8d64:64x64:k7x7");
}

std::vector<string_view> split(string_view text, char separator) {
  std::vector<string_view> parts;
  for (;;) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

template <class Number>
Number number(string_view text, string_view part, const char* what) {
  Number n{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) refuse_part(part, what);
  return n;
}

Index integer(string_view text, string_view part) {
  if (text.empty() || text[0] == '-') refuse_part(part, "non-negative whole numbers");
  return number<Index>(text, part, "non-negative whole numbers");
}

std::vector<Index> integers(string_view text, char separator, string_view part) {
  std::vector<Index> numbers;
  for (const string_view piece : split(text, separator)) numbers.push_back(integer(piece, part));
  return numbers;
}

// `b1h8kv8d64v32`: reads `name` and the number behind it.
Index take(string_view& text, string_view name, string_view part) {
  const char* expected = "bBhHkvGdD or bBhHkvGdDvV";
  if (!text.starts_with(name)) refuse_part(part, expected);
  text.remove_prefix(name.size());
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const Index n = number<Index>(text.substr(0, digits), part, expected);
  text.remove_prefix(digits);
  return n;
}

void parse_heads(string_view part, Problem& p) {
  string_view text = part;
  p.batch = take(text, "b", part);
  p.heads = take(text, "h", part);
  p.kv_heads = take(text, "kv", part);
  p.head_dim = take(text, "d", part);
  p.value_dim = text.empty() ? p.head_dim : take(text, "v", part);
  if (!text.empty()) refuse_part(part, "bBhHkvGdD or bBhHkvGdDvV");
}

void parse_grids(string_view part, Problem& p) {
  const bool attention = p.operation == Operation::kAttention;
  if (part.starts_with("var=")) {
    const std::vector<Index> n = integers(part.substr(4), ',', part);
    if (n.size() != 5 || !attention) refuse_part(part, "var=N,TOTALQ,TOTALKV,MAXQ,MAXKV, in attention");
    p.offsets = DeviceOffsets{n[0], n[1], n[2], n[3], n[4]};
    p.varlen = true;
    return;
  }
  p.varlen = part.find('+') != string_view::npos;
  string_view text = part;
  if (p.varlen && text.back() == '+') text.remove_suffix(1);
  p.rank = attention ? 1 : 0;
  if (p.varlen && text.empty()) return;
  for (const string_view grid : split(text, '+')) {
    const std::vector<Index> n = integers(grid, attention ? ',' : 'x', part);
    Layout layout;
    if (attention) {
      if (n.size() != 2) refuse_part(part, "LQ,LKV for every sequence");
      layout.query_extent[0] = n[0];
      layout.extent[0] = n[1];
    } else {
      if (n.size() > kMaxRank || (p.rank != 0 && n.size() != static_cast<std::size_t>(p.rank)))
        refuse_part(part, "one to three extents, as many for every sequence");
      p.rank = static_cast<int>(n.size());
      std::copy(n.begin(), n.end(), layout.extent.begin());
      layout.query_extent = layout.extent;
    }
    p.layouts.push_back(layout);
  }
}

// `7x7+3x3`: one entry per layout, or one for all.
void parse_axes(string_view text, string_view part, Problem& p, std::array<Index, kMaxRank> Layout::*member) {
  const std::vector<string_view> entries = split(text, '+');
  if (entries.size() != 1 && entries.size() != p.layouts.size())
    refuse_part(part, "one entry, or one for each token layout");
  if (p.rank == 0)
    p.rank =
        static_cast<int>(std::min<std::ptrdiff_t>(std::count(text.begin(), text.end(), 'x') + 1, kMaxRank));
  for (std::size_t i = 0; i < std::max(p.layouts.size(), std::size_t{1}); ++i) {
    const std::vector<Index> n = integers(entries[entries.size() == 1 ? 0 : i], 'x', part);
    if (n.size() != static_cast<std::size_t>(p.rank)) refuse_part(part, "one number per axis");
    if (i < p.layouts.size()) std::copy(n.begin(), n.end(), (p.layouts[i].*member).begin());
  }
}

void parse_causal(string_view text, string_view part, Problem& p) {
  if (p.operation == Operation::kAttention) {
    if (text == "tl") p.causal_type = CausalType::kTopLeft;
    else if (text == "br") p.causal_type = CausalType::kBottomRight;
    else if (text != "0") refuse_part(part, "c0, ctl or cbr");
    return;
  }
  const std::vector<string_view> entries = split(text, '+');
  if (entries.size() != 1 && entries.size() != p.layouts.size())
    refuse_part(part, "one entry, or one for each token layout");
  for (std::size_t i = 0; i < std::max(p.layouts.size(), std::size_t{1}); ++i) {
    const string_view digits = entries[entries.size() == 1 ? 0 : i];
    if (digits.size() != static_cast<std::size_t>(p.rank) ||
        digits.find_first_not_of("01") != string_view::npos)
      refuse_part(part, "one digit, 0 or 1, per axis");
    if (i < p.layouts.size())
      for (std::size_t a = 0; a < digits.size(); ++a) p.layouts[i].causal[a] = digits[a] == '1';
  }
}

Box parse_range(string_view text, string_view part, const Problem& p) {
  const std::vector<string_view> entries = split(text, 'x');
  if (entries.size() != static_cast<std::size_t>(p.rank)) refuse_part(part, "BEGIN-END for every axis");
  Box box;
  for (std::size_t a = 0; a < entries.size(); ++a) {
    const std::vector<Index> n = integers(entries[a], '-', part);
    if (n.size() != 2) refuse_part(part, "BEGIN-END for every axis");
    box.axis[a] = {n[0], n[1]};
  }
  return box;
}

void parse_strides(string_view text, string_view part, Problem& p) {
  const std::vector<string_view> pieces = split(text, '~');
  if (pieces.size() % 2 != 0) refuse_part(part, "str=NAME~S,S,...");
  for (std::size_t i = 0; i < pieces.size(); i += 2) {
    int role = 0;
    while (role < kRoles && name_of(static_cast<Role>(role)) != pieces[i]) ++role;
    if (role == kRoles)
      refuse_part(pieces[i],
                  "a tensor: q, k, v, ak, av, bias, o, lse, do, dlse, dq, dk, dv, dak, dav or dbias");
    if (!p.strides[static_cast<std::size_t>(role)].empty()) refuse_part(part, "each tensor once");
    p.strides[static_cast<std::size_t>(role)] = integers(pieces[i + 1], ',', part);
  }
}

void parse_option(string_view part, Problem& p) {
  const std::size_t at = part.find('=');
  const string_view name = part.substr(0, at),
                    value = at == string_view::npos ? string_view() : part.substr(at + 1);
  const bool windows = p.operation == Operation::kNeighborhood;
  if (at == string_view::npos) {
    if (part == "bias") p.bias = true;
    else if (part == "lse") p.lse = true;
    else if (part == "nondet") p.nondeterministic = true;
    else if (part.starts_with("c")) parse_causal(part.substr(1), part, p);
    else if (windows && part.starts_with("k")) parse_axes(part.substr(1), part, p, &Layout::window);
    else if (windows && part.starts_with("s")) parse_axes(part.substr(1), part, p, &Layout::stride);
    else if (windows && part.starts_with("d")) parse_axes(part.substr(1), part, p, &Layout::dilation);
    else refuse_part(part, "a known option");
    return;
  }
  if (name == "add") p.additional = integer(value, part);
  else if (name == "q") p.query_range = parse_range(value, part, p);
  else if (name == "kv") p.key_range = parse_range(value, part, p);
  else if (name == "qgrid" && windows)
    p.query_layout = true, parse_axes(value, part, p, &Layout::query_extent);
  else if (name == "drop") p.dropout = number<double>(value, part, "a number");
  else if (name == "scale") p.scale = number<double>(value, part, "a number");
  else if (name == "prec" && value == "tf32") p.precision = Precision::kTF32;
  else if (name == "prec" && value == "bf16") p.precision = Precision::kBF16;
  else if (name == "str") parse_strides(value, part, p);
  else if (name == "tail") {
    const std::vector<Index> n = integers(value, ',', part);
    if (n.size() != 2) refuse_part(part, "tail=Q,KV");
    p.tail_query = n[0], p.tail_key = n[1];
  } else refuse_part(part, "a known option");
}

// What may stand only once: `k`, `s`, `d`, `c` by their letter, options by their name.
string_view key_of(string_view part) {
  const std::size_t at = part.find('=');
  if (at != string_view::npos) return part.substr(0, at + 1);
  return part == "bias" || part == "lse" || part == "nondet" ? part : part.substr(0, 1);
}

}  // namespace

Problem parse_problem(string_view text) {
  if (text.size() > kMaxText)
    refuse("problem string", std::to_string(text.size()) + " characters", "at most 2**20");
  const std::vector<string_view> parts = split(text, ':');
  if (parts.size() < 5) refuse_part(text, "at least OP:DIRECTION:DTYPE:HEADS:GRIDS");
  Problem p;
  if (parts[0] == "att") p.operation = Operation::kAttention;
  else if (parts[0] != "na") refuse_part(parts[0], "na or att");
  if (parts[1] == "bwd") p.direction = Direction::kBackward;
  else if (parts[1] != "fwd") refuse_part(parts[1], "fwd or bwd");
  int dtype = 0;
  while (dtype < 4 && name_of(static_cast<DType>(dtype)) != parts[2]) ++dtype;
  if (dtype == 4) refuse_part(parts[2], "f32, f64, bf16 or f16");
  p.dtype = static_cast<DType>(dtype);
  parse_heads(parts[3], p);
  parse_grids(parts[4], p);
  std::vector<string_view> seen;
  for (std::size_t i = 5; i < parts.size(); ++i) {
    const string_view key = key_of(parts[i]);
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) refuse_part(parts[i], "each option once");
    seen.push_back(key);
    parse_option(parts[i], p);
  }
  if (p.operation == Operation::kNeighborhood && std::find(seen.begin(), seen.end(), "k") == seen.end())
    refuse_part(text, "a window, such as k7x7");
  if (p.layouts.empty()) p.query_layout = false;
  check(p, "problem string");
  return p;
}

}  // namespace nearfield
