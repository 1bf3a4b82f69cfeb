// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What decides how the CUDA backend runs a problem besides the problem: the class of the device, a tuner file, and
// what precision the caller allows.
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "conformance.h"
#include "cuda/sm80/emulated.h"
#include "cuda/sm80/run.h"
#include "nearfield/c.h"
#include "plan/tuner.h"

namespace nearfield {
namespace {

// A tuner file is heeded by the class of the device: a description of one is enough to plan for it.
class Described final : public sm80::Launcher {
 public:
  Described(std::string device_class) : device_class_(std::move(device_class)) {}
  std::span<const sm80::Kernel> kernels() const override { return kernels_; }
  std::string device_class() const override { return device_class_; }
  void launch(const sm80::Kernel&, Index, const sm80::Arguments&, std::span<const sm80::Span>,
              Executor&) const override {
    throw std::runtime_error("there is no device");
  }
  void upload(std::span<const sm80::Item>, sm80::Item*, Executor&) const override {}

 private:
  std::string device_class_;
  std::vector<sm80::Kernel> kernels_ = {
      {sm80::Task::kForward, DType::kBFloat16, 64, 128, 64, 128, 50000, nullptr}};
};

std::shared_ptr<const Tuner> tuner_of(const char* problem, const char* device, const char* choice) {
  char* info = nf_info();
  std::string version = info;
  nf_free(info);
  version = version.substr(version.find("\"version\": \"") + 12);
  version = version.substr(0, version.find('"'));
  return std::make_shared<const Tuner>(R"({"nearfield_tuner": 1, "problem": ")" + std::string(problem) +
                                           R"(", "device": ")" + device + R"(", "version": ")" + version +
                                           R"(", "choice": ")" + choice + "\"}\n",
                                       "file");
}

constexpr const char* kTuned = "na:fwd:bf16:b1h2kv1d32:9x40:k3x5";

TEST(Tuner, CountsForItsDevice) {
  for (const std::string device : {"sm80", "sm90"}) {
    const Described launcher(device);
    const std::unique_ptr<Backend> backend = sm80::make_backend(launcher, Device::kCuda);
    EXPECT_EQ(backend->device_class(), device);
    const auto tiles = [&](const char* problem, const std::shared_ptr<const Tuner>& tuner, Index i = 0) {
      PlanOptions options;
      options.tuner = tuner;
      const Plan plan = backend->plan(parse_problem(problem), options);
      EXPECT_EQ(plan.note.find("tuner") != std::string::npos, plan.query_tile(i) == TileShape({1, 2, 16}));
      return plan.query_tile(i);
    };
    const TileShape own = tiles(kTuned, nullptr), asked = {1, 2, 16};
    ASSERT_NE(own, asked);
    for (const char* other : {"sm80", "sm90", "sm120", "cuda_sm80"}) {
      const auto tuner = tuner_of(kTuned, other, "cuda_sm80,q2x16,kv4x16");
      EXPECT_EQ(tiles(kTuned, tuner), other == device ? asked : own) << device << " " << other;
      EXPECT_EQ(tiles("na:fwd:bf16:b7h2kv1d32:9x40:k3x5:lse", tuner), other == device ? asked : own);
      EXPECT_EQ(tiles("na:fwd:bf16:b1h2kv1d32:5x40+9x40:k3x5", tuner, 1), other == device ? asked : own);
    }
    EXPECT_EQ(tiles(kTuned, tuner_of(kTuned, device.c_str(), "cpu,q2x8")), own);  // of another backend
    const char* dense = "att:fwd:bf16:b1h2kv1d32:90,90";  // tiled alike in lists whose lengths nobody knows
    EXPECT_EQ(tiles(dense, tuner_of(dense, device.c_str(), "cuda_sm80,q16")), tiles(dense, nullptr));
    for (const char* bad : {"cuda_sm80,q2x128", "cuda_sm80,kv9x9", "cuda_sm80/b16"}) {
      try {
        tiles(kTuned, tuner_of(kTuned, device.c_str(), bad));
        ADD_FAILURE() << bad;
      } catch (const std::invalid_argument& e) {
        EXPECT_EQ(std::string(e.what()).rfind("[tuner] got file:1", 0), 0u) << e.what();
      }
    }
  }
}

// A plan of the emulated backend, to run `p` with.
Choice planned(const Problem& p, const Problem& planned_for, const PlanOptions& options = {}) {
  const Backend& backend = emulated_sm80_backend();
  Plan plan = backend.plan(planned_for, options);
  plan.problem = to_string(p);
  return {&backend, std::make_shared<const Plan>(std::move(plan))};
}

TEST(Tuner, ChangesTilesAndNoAnswers) {
  PlanOptions options;
  options.tuner = tuner_of(kTuned, "emulated", "cuda_sm80,q2x16,kv4x16");
  testing::Case c(kTuned);
  const Problem p = c.direction(Direction::kForward);
  const Choice tuned = planned(p, p, options);
  EXPECT_EQ(tuned.plan->query_tile(0), (TileShape{1, 2, 16}));
  EXPECT_EQ(tuned.plan->key_tile(0), (TileShape{1, 4, 16}));
  SerialExecutor serial;
  EXPECT_TRUE(c.agrees(c.run(Direction::kForward, tuned, serial), "cuda_sm80"));
}

// TF32 is allowed, and not used: the same bits.
TEST(Precision, Tf32IsNotUsed) {
  SerialExecutor serial;
  for (const Direction d : {Direction::kForward, Direction::kBackward}) {
    testing::Case c("na:fwd:f32:b1h2kv1d40:9x8:k3x5:lse");
    const Problem full = c.direction(d);
    Problem allowed = full;
    allowed.precision = Precision::kTF32;
    const Choice a = planned(full, full), b = planned(full, allowed);
    EXPECT_EQ(a.plan->note.find("TF32"), std::string::npos);
    EXPECT_NE(b.plan->note.find("TF32 is allowed, and not used"), std::string::npos);
    EXPECT_TRUE(testing::same_bits(c.run(d, a, serial), c.run(d, b, serial)));
  }
  testing::expect_conforms("na:fwd:f32:b1h2kv1d40:9x8:k3x5:lse:prec=tf32");
}

}  // namespace
}  // namespace nearfield
