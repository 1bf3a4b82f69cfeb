// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Random numbers of the tests: a fixed sequence for every seed, the same with every standard library.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string_view>

namespace nearfield::testing {

class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}

  // The splitmix64 sequence.
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // low <= x <= high
  std::int64_t in(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return in(0, 99) < percent; }
  template <class T>
  T pick(std::initializer_list<T> list) {
    return list.begin()[in(0, static_cast<std::int64_t>(list.size()) - 1)];
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double normal() {  // Box and Muller
    return std::sqrt(-2.0 * std::log(uniform() + 0x1p-60)) * std::cos(6.283185307179586 * uniform());
  }

 private:
  std::uint64_t state_;
};

// How often a fuzz test tries: n times, or NEARFIELD_TEST_FUZZ percent of that (make test, under sanitizers).
inline int tries(int n) {
  static const char* text = std::getenv("NEARFIELD_TEST_FUZZ");
  static const int percent = text ? std::atoi(text) : 100;
  return n / 100 * percent;
}

inline std::uint64_t hash_of(std::string_view text) {
  std::uint64_t h = 1469598103934665603u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return h;
}

}  // namespace nearfield::testing
