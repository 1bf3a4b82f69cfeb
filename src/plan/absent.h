// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A backend that this build does not have: it says so, and callers need no #ifdef.
#pragma once

#include <stdexcept>
#include <string>

#include "nearfield/plan.h"

namespace nearfield {

class Absent final : public Backend {
 public:
  Absent(std::string_view name, Device device, std::string reason)
      : name_(name), device_(device), reason_(std::move(reason)) {}
  std::string_view name() const override { return name_; }
  Device device() const override { return device_; }
  std::optional<std::string> refusal(const Problem&, const PlanOptions&) const override { return reason_; }
  Plan plan(const Problem&, const PlanOptions&) const override { throw Unsupported(reason_); }
  void run(const Problem&, const Plan&, const Tensors&, Executor&, std::byte*) const override {
    throw Unsupported(reason_);
  }

 private:
  std::string_view name_;
  Device device_;
  std::string reason_;
};

}  // namespace nearfield
