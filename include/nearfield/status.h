// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What nearfield throws, and nothing else:
//   std::invalid_argument  the caller's input breaks a rule: `[op] got X, expected Y; hint`
//   Unsupported            the input is legal, but the backend asked for cannot serve it (or none can);
//                          the message gives the reason
//   std::bad_alloc         as ever
// Whatever is thrown is thrown before the first byte of the caller's memory is written.
#pragma once

#include <stdexcept>
#include <string>

#if defined(_WIN32)
#define NF_API
#else
#define NF_API __attribute__((visibility("default")))
#endif

namespace nearfield {

// A legal problem that the chosen backend cannot serve. An invalid_argument too, because the caller
// can mend it by another argument (in Python both are a ValueError).
class NF_API Unsupported : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

}  // namespace nearfield
