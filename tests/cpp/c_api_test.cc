// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// c.h: what comes out is JSON and right; whatever goes in, an answer or an error comes out.
#include "nearfield/c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "problem_family.h"

namespace {

using nearfield::testing::Rng;
using nearfield::testing::tries;

std::string taken(char* text) {
  EXPECT_NE(text, nullptr);
  const std::string copy = text ? text : "";
  nf_free(text);
  return copy;
}

// A reader of JSON that knows only whether a text is one value.
class Json {
 public:
  explicit Json(const std::string& text) : at_(text.c_str()), end_(at_ + text.size()) {}
  bool valid() { return value() && at_ == end_; }

 private:
  void space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n')) ++at_;
  }
  bool take(char c) {
    space();
    return at_ != end_ && *at_ == c ? ++at_, true : false;
  }
  bool string() {
    if (!take('"')) return false;
    for (; at_ != end_ && *at_ != '"'; ++at_) {
      if (static_cast<unsigned char>(*at_) < 0x20 || static_cast<unsigned char>(*at_) > 0x7e) return false;
      if (*at_ != '\\') continue;
      if (++at_ == end_) return false;
      if (*at_ == 'u') {
        for (int i = 0; i < 4; ++i)
          if (++at_ == end_ || !std::isxdigit(static_cast<unsigned char>(*at_))) return false;
      } else if (!std::strchr("\"\\/bfnrt", *at_)) {
        return false;
      }
    }
    return at_ != end_ && (++at_, true);
  }
  bool list(char close, bool named) {
    space();
    if (take(close)) return true;
    do {
      if (named && !(string() && take(':'))) return false;
      if (!value()) return false;
    } while (take(','));
    return take(close);
  }
  bool value() {
    space();
    if (at_ == end_) return false;
    if (*at_ == '"') return string();
    if (take('{')) return list('}', true);
    if (take('[')) return list(']', false);
    for (const char* word : {"true", "false", "null"}) {
      const std::size_t length = std::strlen(word);
      if (static_cast<std::size_t>(end_ - at_) >= length && std::strncmp(at_, word, length) == 0)
        return at_ += length, true;
    }
    char* stop = nullptr;
    if (*at_ != '-' && !std::isdigit(static_cast<unsigned char>(*at_))) return false;  // no inf, no nan
    std::strtod(at_, &stop);
    return stop > at_ && (at_ = stop, true);
  }
  const char *at_, *end_;
};

void expect_ok(const std::string& json, std::initializer_list<const char*> parts) {
  EXPECT_TRUE(Json(json).valid()) << json;
  EXPECT_EQ(json.rfind("{\"ok\": ", 0), 0u) << json;
  for (const char* part : parts) EXPECT_NE(json.find(part), std::string::npos) << json << "\nlacks " << part;
}

void expect_error(const std::string& json, const char* part = "expected") {
  EXPECT_TRUE(Json(json).valid()) << json;
  EXPECT_EQ(json.rfind("{\"error\": ", 0), 0u) << json;
  EXPECT_NE(json.find(part), std::string::npos) << json;
}

TEST(CApi, Info) {
  expect_ok(taken(nf_info()),
            {"\"version\": \"0.1.0\"", "\"backends\": [", "\"cpu\"", "\"reference\"", "\"cuda_sm80\"",
             "\"cpu_target\": ", "\"cpu_targets\": [", "\"functions\": [\"na1d\", "});
  nf_free(nullptr);
  expect_ok(taken(nf_device_class("reference")), {"\"ok\": \"reference\""});
  expect_error(taken(nf_device_class("gpu")), "`gpu`");
  expect_error(taken(nf_device_class(nullptr)), "");
}

TEST(CApi, Plan) {
  const std::string plan = taken(nf_plan("na:fwd:f32:b1h1kv1d8:9:k3", 0));
  expect_ok(plan, {"\"backend\": \"cuda_sm90\"", "\"refusal\": ", "\"backend\": \"reference\"",
                   "\"chosen\": true"});
  expect_ok(taken(nf_plan("na:fwd:f32:b1h1kv1d8:9:k3@reference", 0)),
            {"\"kernel\": \"plain loops", "\"chosen\": true"});
  expect_ok(taken(nf_plan("na:fwd:f32:b1h1kv1d8:9:k3@cpu", 1)), {"runs on CPU tensors"});
  for (const char* bad : {"na", "na:fwd:f32:b1h1kv1d8:9:k3@gpu", "na:fwd:f32:b1h1kv1d8:9:k3@cpu,q"})
    expect_error(taken(nf_plan(bad, 0)));
  expect_error(taken(nf_plan(nullptr, 0)));
}

// Counts of whole axes against the list of all tile pairs.
TEST(CApi, Tiles) {
  for (const std::string problem : {"8x9:k3x5", "7x12:k3x4:s2x3", "9x11:k3x2:d1x2", "8x8:k4x4:c10"}) {
    const std::string call = "na:fwd:f32:b1h1kv1d8:" + problem + "@cpu,q2x3,kv4x2";
    std::size_t marks[3] = {0, 0, 0};
    for (int group = 0; group < (problem.find(":d") == std::string::npos ? 1 : 2); ++group) {
      const std::string json = taken(nf_tiles(call.c_str(), 0, group, 1));
      expect_ok(json, {"\"query_tile\": [2, 3]", "\"key_tile\": [4, 2]"});
      const std::string cover = json.substr(json.find("\"cover\""));
      for (const char c : cover) marks[0] += c == '.', marks[1] += c == '+', marks[2] += c == '#';
    }
    const std::string all = taken(nf_tiles(call.c_str(), 0, 0, 0));
    expect_ok(all, {("\"skipped\": " + std::to_string(marks[0]) + ",").c_str(),
                    ("\"partial\": " + std::to_string(marks[1]) + ",").c_str(),
                    ("\"full\": " + std::to_string(marks[2]) + ",").c_str()});
    EXPECT_EQ(all.find("cover"), std::string::npos);
  }
  for (const auto& [sequence, group] : {std::pair{1, 0}, {-1, 0}, {0, 1}, {0, -1}})
    expect_error(taken(nf_tiles("na:fwd:f32:b1h1kv1d8:9:k3@cpu,q2,kv2", sequence, group, 0)));
  expect_error(taken(nf_tiles("na:fwd:f32:b1h1kv1d8:9:k3@cpu,q0,kv2", 0, 0, 0)));
  expect_error(taken(nf_tiles("na:fwd:f32:b1h1kv1d8:9000:k3@cpu,q1,kv1", 0, 0, 1)), "2**20");
  expect_error(taken(nf_tiles(nullptr, 0, 0, 0)));
}

TEST(CApi, TunerAndCollection) {
  expect_ok(taken(nf_tuner_problems("na:fwd:f32:b1h1kv1d8:9+7:k3")), {"[\"na:fwd:f32:b1h1kv1d8:9:k3\", "});
  expect_ok(taken(nf_tuner("", "none")), {"0"});
  expect_error(taken(nf_tuner("{", "broken")), "broken:1");
  expect_error(taken(nf_tuner("", nullptr)));
  expect_ok(taken(nf_tuner(nullptr, nullptr)), {"0"});
  expect_ok(taken(nf_collect(1)), {"[]"});
  expect_ok(taken(nf_collect(0)), {"[]"});
}

TEST(CApi, Fma) {
  EXPECT_GT(nf_fma("scalar", 1, 0.1), 0);
  EXPECT_LT(nf_fma("no such", 1, 0.1), 0);
  EXPECT_LT(nf_fma(nullptr, 1, 0.1), 0);
  EXPECT_LT(nf_fma("scalar", 0, 0.1), 0);
}

TEST(CApi, Problem) {
  expect_ok(taken(nf_problem("na:fwd:f32:b2h4kv2d16v8:9x8:k3x3:s1x1:c00:add=1")),
            {"\"problem\": \"na:fwd:f32:b2h4kv2d16v8:9x8:k3x3:add=1\"", "\"rank\": 2", "\"sequences\": 1",
             "\"pairs\": 1440", "\"flops\": 276480", "\"sparsity\": "});
  const std::string info = taken(nf_info());
  if (info.find("cpu_target") != std::string::npos)  // the CPU backend is built
    expect_ok(taken(nf_problem("na:bwd:f32:b1h1kv1d8:5:k3")),
              {"\"seconds\": ", "\"kernels\": [{\"name\": \"b16\", \"seconds\": ", "\"counts\": [1, ",
               "{\"name\": \"general\", "});
  expect_ok(taken(nf_problem("att:fwd:f32:b1h1kv1d8:5,5+0,3:ctl")), {"\"sequences\": 2", "\"pairs\": 15"});
  expect_ok(taken(nf_problem("att:fwd:f32:b1h1kv1d8:5,0")), {"\"pairs\": 0", "\"sparsity\": 1"});
  expect_ok(taken(nf_problem("att:fwd:f32:b1h1kv1d8:var=4,100,120,40,50")),
            {"\"problem\": \"att:fwd:f32:b1h1kv1d8:var=4,100,120,40,50\""});
  expect_error(taken(nf_problem("na:fwd:f32:b1h1kv1d8:9:k10")), "kernel_size 10");
  expect_error(taken(nf_problem("na:\"\\\n\x01\xff")));
  expect_error(taken(nf_problem("")));
  expect_error(taken(nf_problem(nullptr)));
}

TEST(CApi, Explain) {
  expect_ok(taken(nf_explain("na:fwd:f32:b1h1kv1d8:9:k3", 0)), {"cpu", "reference", "cuda_sm90"});
  expect_ok(taken(nf_explain("na:fwd:f32:b1h1kv1d8:9:k3@cpu,q4", 1)), {"cpu"});
  for (const int device : {-1, 2, 1000})
    EXPECT_TRUE(Json(taken(nf_explain("na:fwd:f32:b1h1kv1d8:9:k3", device))).valid());
  expect_error(taken(nf_explain(nullptr, 0)));
  expect_error(taken(nf_explain("@", 0)));
}

TEST(CApi, Intervals) {
  expect_ok(taken(nf_intervals("na:fwd:f32:b1h1kv1d8:10:k3", 0, 0)),
            {"\"dilation\": 1", "\"begin\": [0, 0, 1, 2, 3, 4, 5, 6, 7, 7]",
             "\"end\": [3, 3, 4, 5, 6, 7, 8, 9, 10, 10]"});
  expect_ok(taken(nf_intervals("na:fwd:f32:b1h1kv1d8:9x10:k3x3:d1x3", 0, 1)),
            {"\"dilation\": 3", "\"begin\": [0, 1, 2, 0, 1, 2, 3, 1, 2, 3]",
             "\"end\": [7, 8, 9, 7, 8, 9, 10, 8, 9, 10]"});
  expect_ok(taken(nf_intervals("na:fwd:f32:b1h1kv1d8:9x10:k3x3:q=2-4x0-10", 0, 0)),
            {"\"begin\": [1, 2]", "\"end\": [4, 5]"});
  expect_ok(taken(nf_intervals("att:fwd:f32:b1h1kv1d8:9,9+2,3:cbr", 1, 0)),
            {"\"begin\": [0, 0]", "\"end\": [2, 3]"});
  expect_ok(taken(nf_intervals("att:fwd:f32:b1h1kv1d8:0,9", 0, 0)), {"\"begin\": []"});
  for (const std::int64_t sequence : {std::int64_t{-1}, std::int64_t{1}, INT64_MAX, INT64_MIN})
    expect_error(taken(nf_intervals("na:fwd:f32:b1h1kv1d8:10:k3", sequence, 0)));
  for (const int axis : {-1, 1, 3, INT32_MAX, INT32_MIN})
    expect_error(taken(nf_intervals("na:fwd:f32:b1h1kv1d8:10:k3", 0, axis)));
  expect_error(taken(nf_intervals("na:fwd:f32:b1h1kv1d8:2147483647:k3", 0, 0)));  // a list of 2**31 numbers
  expect_error(taken(nf_intervals("att:fwd:f32:b1h1kv1d8:+", 0, 0)));
  expect_error(taken(nf_intervals("att:fwd:f32:b1h1kv1d8:var=4,100,120,40,50", 0, 0)));
  expect_error(taken(nf_intervals(nullptr, 0, 0)));
}

TEST(CApi, InnerQueries) {
  const std::int64_t box[] = {4, 12, 0, 8, 4, 12, 0, 8}, elsewhere[] = {4, 8, 0, 8, 10, 12, 0, 8};
  expect_ok(taken(nf_inner_queries("na:fwd:f32:b1h1kv1d8:20x8:k5x3", box, 8)), {"[[6, 10], [0, 8]]"});
  expect_ok(taken(nf_inner_queries("na:fwd:f32:b1h1kv1d8:20x8:k5x3:c10", box, 8)), {"[[8, 12], [0, 8]]"});
  expect_ok(taken(nf_inner_queries("na:fwd:f32:b1h1kv1d8:20x8:k5x3", elsewhere, 8)), {"[[0, 0], [0, 0]]"});
  const std::int64_t outside[] = {4, 12, 0, 8, 4, 21, 0, 8};
  expect_error(taken(nf_inner_queries("na:fwd:f32:b1h1kv1d8:20x8:k5x3", outside, 8)));
  for (const int n : {-1, 0, 4, 7, 12})
    expect_error(taken(nf_inner_queries("na:fwd:f32:b1h1kv1d8:20x8:k5x3", box, n)));
  expect_error(taken(nf_inner_queries(nullptr, box, 8)));
}

TEST(CApi, NeededKeys) {
  const std::int64_t shard[] = {4, 6, 0, 8};
  expect_ok(taken(nf_needed_keys("na:fwd:f32:b1h1kv1d8:20x8:k5x3", shard, 4)), {"[[2, 8], [0, 8]]"});
  expect_ok(taken(nf_needed_keys("na:fwd:f32:b1h1kv1d8:20x8:k5x3:d2x1:c10", shard, 4)), {"[[0, 6], [0, 8]]"});
  const std::int64_t empty[] = {4, 4, 0, 8}, outside[] = {4, 21, 0, 8}, backwards[] = {6, 4, 0, 8},
                     huge[] = {INT64_MIN, INT64_MAX, 0, 8};
  expect_ok(taken(nf_needed_keys("na:fwd:f32:b1h1kv1d8:20x8:k5x3", empty, 4)), {"[[0, 0], [0, 0]]"});
  for (const std::int64_t* bad : {outside, backwards, huge})
    expect_error(taken(nf_needed_keys("na:fwd:f32:b1h1kv1d8:20x8:k5x3", bad, 4)));
  for (const int n : {-1, 0, 2, 3, 5, 6})
    expect_error(taken(nf_needed_keys("na:fwd:f32:b1h1kv1d8:20x8:k5x3", shard, n)));
  expect_error(taken(nf_needed_keys("na:fwd:f32:b1h1kv1d8:20x8:k5x3", nullptr, 4)));
  expect_error(taken(nf_needed_keys("na:fwd:f32:b1h1kv1d8:20x8+9x8:k5x3", shard, 4)));
  expect_error(taken(nf_needed_keys("na:fwd:f32:b1h1kv1d8:+:k5x3", shard, 4)));
  expect_error(taken(nf_needed_keys("att:fwd:f32:b1h1kv1d8:var=4,100,120,40,50", shard, 2)));
  expect_error(taken(nf_needed_keys(nullptr, shard, 4)));
}

std::vector<std::int64_t> words_of_a_call() {
  std::vector<std::int64_t> w;
  const auto add = [&w](std::initializer_list<std::int64_t> list) { w.insert(w.end(), list); };
  for (int i = 0; i < 3; ++i)
    add({1, 0, 0, 0, 4, 2, 30, 4, 8});               // q, k, v: present, dtype, device, index, rank, sizes
  for (int i = 0; i < 5; ++i) add({0, 0, 0, 0, 0});  // no additional keys, bias, offsets
  add({0, 0, 0});                                    // no scale, dropout 0
  add({0, 0, 0});                                    // na1d
  add({4, 7, 1, 1, 0});                              // window, stride, dilation, causal
  add({0, 0});                                       // no ranges, no grids
  return w;
}

TEST(CApi, CheckGivesTheProblemOrTheOperatorsError) {
  std::vector<std::int64_t> w = words_of_a_call();
  const auto check = [&w] { return taken(nf_check(w.data(), static_cast<std::int64_t>(w.size()))); };
  expect_ok(check(), {"\"na:fwd:f32:b2h4kv4d8:30:k7\""});
  w[w.size() - 6] = 31;
  expect_error(check(), "[na1d] got kernel_size 31");
  expect_error(taken(nf_check(nullptr, 0)));
  expect_error(taken(nf_check(nullptr, 1000)));
  expect_error(taken(nf_check(w.data(), -1)));
  for (std::size_t n = 0; n < w.size(); ++n)
    expect_error(taken(nf_check(w.data(), static_cast<std::int64_t>(n))));
}

TEST(CApi, CheckLengths) {
  const std::int64_t good[] = {3, 0, 7}, negative[] = {3, -1, 8}, huge[] = {INT64_MAX, 1};
  const auto check = [](const std::int64_t* lengths, std::int64_t n, std::int64_t total) {
    return taken(nf_check_lengths("attention", "seqlens_Q", lengths, n, total, "query"));
  };
  expect_ok(check(good, 3, 10), {"3"});
  expect_ok(check(nullptr, 0, 0), {"0"});
  expect_error(check(good, 3, 11),
               "[attention] got seqlens_Q that add up to 10, expected 11, the packed total");
  expect_error(check(negative, 3, 10), "seqlens_Q with length -1 for sequence 1, expected lengths from 0 on");
  expect_error(check(huge, 2, INT64_MIN), "add up to 2**63 or more");
  expect_error(check(good, -1, 0));
  expect_error(check(nullptr, 2, 0));
  expect_error(taken(nf_check_lengths(nullptr, "x", good, 3, 10, "query")));
}

TEST(CApi, Kept) {
  const std::int64_t query[] = {0x13198a2e, 5}, key[] = {0x03707344, 5};
  std::uint8_t kept[2] = {7, 7};
  const double p = double(0xd16cfe09u) / 0x1p32;  // the generator's known answer for digits of pi
  const auto seed = static_cast<std::int64_t>(0x299f31d0a4093822u);
  nf_kept(seed, p, 0x243f6a88, 0x85a308d3, query, key, 1, kept);
  EXPECT_EQ(kept[0], 1);
  nf_kept(seed, p + 0x1p-32, 0x243f6a88, 0x85a308d3, query, key, 1, kept);
  EXPECT_EQ(kept[0], 0);
  EXPECT_EQ(kept[1], 7);
}

TEST(CApiFuzz, WhateverGoesIn) {
  Rng rng(21);
  constexpr std::int64_t kOdd[] = {-1,  0,       1,          2,          3,         8,
                                   100, 1 << 20, 2147483647, 2147483648, INT64_MAX, INT64_MIN};
  for (int i = 0; i < tries(20000); ++i) {
    std::vector<std::int64_t> w = words_of_a_call();
    for (auto n = rng.in(1, 4); n > 0; --n) {
      w[static_cast<std::size_t>(rng.in(0, static_cast<std::int64_t>(w.size()) - 1))] =
          rng.chance(80) ? kOdd[rng.in(0, 11)] : static_cast<std::int64_t>(rng.next());
    }
    if (rng.chance(10)) w.resize(static_cast<std::size_t>(rng.in(1, static_cast<std::int64_t>(w.size()))));
    const std::string json = taken(nf_check(w.data(), static_cast<std::int64_t>(w.size())));
    ASSERT_TRUE(Json(json).valid()) << json;
  }
  for (int i = 0; i < tries(5000); ++i) {
    std::string text = nearfield::to_string(nearfield::testing::random_problem(rng));
    for (auto n = rng.in(0, 2); n > 0; --n)
      text[static_cast<std::size_t>(rng.in(0, static_cast<std::int64_t>(text.size()) - 1))] =
          static_cast<char>(rng.in(1, 255));
    std::int64_t shard[6];
    for (std::int64_t& x : shard) x = rng.in(-1, 12);
    for (const std::string& json :
         {taken(nf_problem(text.c_str())), taken(nf_explain(text.c_str(), static_cast<int>(rng.in(0, 1)))),
          taken(nf_intervals(text.c_str(), rng.in(0, 2), static_cast<int>(rng.in(0, 2)))),
          taken(nf_needed_keys(text.c_str(), shard, static_cast<int>(rng.in(1, 3)) * 2))})
      ASSERT_TRUE(Json(json).valid()) << text << "\n" << json;
  }
}

// The largest extents are counted and described at once, not walked through.
TEST(CApi, HugeExtentsAreQuick) {
  for (const char* text :
       {"na:fwd:f32:b1h1kv1d1:2147483647:k3:c1", "na:fwd:f32:b1h1kv1d1:2147483647:k1000:s7:d1000",
        "att:fwd:f32:b1h1kv1d1:2147483647,2147483647:cbr", "att:bwd:f32:b1h1kv1d1:2147483647,2147483647:cbr",
        "na:fwd:f32:b1h1kv1d1:65536x65536x65536:k3x3x3", "na:bwd:f32:b1h1kv1d1:65536x65536x65536:k3x3x3"})
    expect_ok(taken(nf_problem(text)), {"\"pairs\": "});
}

}  // namespace
