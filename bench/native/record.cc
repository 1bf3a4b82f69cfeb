// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "record.h"

#include <algorithm>

namespace nearfield::bench {
namespace {

std::string quoted(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') json += '\\';
    json += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return json + "\"";
}

double quantile(std::vector<double> x, double q) {
  std::sort(x.begin(), x.end());
  const double at = q * static_cast<double>(x.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  const double part = at - static_cast<double>(low);
  return low + 1 < x.size() ? x[low] * (1 - part) + x[low + 1] * part : x[low];
}

}  // namespace

std::vector<Sample> kept(const Record& r) {
  std::vector<Sample> fair;
  for (const Sample& s : r.samples)
    if (s.waited <= 0.05 && std::min(s.fma[0] / s.fma_one[0], s.fma[1] / s.fma_one[1]) >= 0.9 * r.threads)
      fair.push_back(s);
  return fair;
}

void print_header(std::FILE* to) {
  std::fprintf(to, "%-8s %-3s %2s %10s %5s %7s %6s %8s %9s  %-14s %s\n", "", "", "T", "ms", "+-%", "GF/s",
               "peak%", "MiB", "max error", "kernel", "call");
}

void print_line(std::FILE* to, const Record& r) {
  std::fprintf(to, "%-8s %-3s ", r.name.c_str(), r.direction.c_str());
  if (!r.refusal.empty()) {
    std::fprintf(to, "%s: %s\n", r.problem.c_str(), r.refusal.c_str());
    return;
  }
  std::vector<Sample> samples = kept(r);
  const bool noisy = samples.empty();
  if (noisy) samples = r.samples;
  std::vector<double> times, shares;
  for (const Sample& s : samples) {
    times.push_back(s.seconds);
    shares.push_back(r.flops / s.seconds * 1e-9 / std::max(s.fma[0], s.fma[1]));
  }
  const double median = quantile(times, 0.5);
  char error[16] = "";
  if (r.error >= 0) std::snprintf(error, sizeof error, "%.1e", r.error);
  std::fprintf(to, "%2d %9.4f%c %5.1f %7.1f %6.1f %8.2f %9s  %-14s %s\n", r.threads, median * 1e3,
               noisy ? '~' : ' ', 50 * (quantile(times, 0.75) - quantile(times, 0.25)) / median,
               r.flops / median * 1e-9, 100 * quantile(shares, 0.5),
               static_cast<double>(r.workspace) / (1 << 20), error, r.kernel.c_str(), r.problem.c_str());
  std::fflush(to);
}

void print_json(std::FILE* to, const Record& r) {
  std::string line = "{\"kind\": " + quoted(r.refusal.empty() ? "row" : "absent") +
                     ", \"name\": " + quoted(r.name) + ", \"direction\": " + quoted(r.direction) +
                     ", \"by\": " + quoted(r.by) + ", \"process\": " + std::to_string(r.process);
  if (!r.refusal.empty()) {
    std::fprintf(to, "%s, \"why\": %s}\n", line.c_str(), quoted(r.refusal).c_str());
    return;
  }
  char text[320];
  line += ", \"problem\": " + quoted(r.problem) + ", \"kernel\": " + quoted(r.kernel);
  std::snprintf(text, sizeof text, ", \"threads\": %d, \"flops\": %.17g, \"workspace\": %zu, \"samples\": [",
                r.threads, r.flops, r.workspace);
  line += text;
  for (const Sample& s : r.samples) {
    std::snprintf(text, sizeof text,
                  "%s{\"s\": %.6g, \"waited\": %.4g, \"fma1\": [%.5g, %.5g], \"fma\": [%.5g, %.5g]}",
                  &s == r.samples.data() ? "" : ", ", s.seconds, s.waited, s.fma_one[0], s.fma_one[1],
                  s.fma[0], s.fma[1]);
    line += text;
  }
  line += "]";
  if (r.predicted >= 0) {
    std::snprintf(text, sizeof text, ", \"predicted\": %.6g", r.predicted);
    line += text;
  }
  if (r.error >= 0) {
    std::snprintf(text, sizeof text, ", \"error\": %.3g", r.error);
    line += text + (", \"error_of\": " + quoted(r.error_of));
  }
  std::fprintf(to, "%s}\n", line.c_str());
  std::fflush(to);
}

}  // namespace nearfield::bench
