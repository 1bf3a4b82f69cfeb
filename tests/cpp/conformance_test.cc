// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Every backend against the oracle, forward and backward: hand-picked problems that name what the
// specification names, and a random sweep. A failure prints the problem string.
//
// NEARFIELD_TEST_SWEEP sets the number of random problems (default 400), NEARFIELD_TEST_SEED the first.
#include <cstdlib>

#include "conformance.h"
#include "problem_family.h"

namespace nearfield {
namespace {

using testing::expect_all;
using testing::expect_conforms;

Index number_from(const char* name, Index otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoll(text) : otherwise;
}

TEST(Conformance, Windows1D) {
  expect_all({
      "na:fwd:f32:b1h1kv1d8:1:k1",
      "na:fwd:f32:b1h1kv1d8:2:k1:lse",
      "na:fwd:f32:b1h1kv1d8:10:k3:lse",
      "na:fwd:f32:b1h1kv1d8:10:k2:lse",
      "na:fwd:f32:b1h2kv2d8:10:k4:s3",
      "na:fwd:f32:b1h2kv2d8:10:k5:s2:lse",
      "na:fwd:f32:b1h2kv2d8:12:k5:s5:lse",
      "na:fwd:f32:b1h2kv2d8:11:k4:s4:c1:lse",
      "na:fwd:f32:b1h2kv2d8:10:k5:s2:c1:lse",
      "na:fwd:f32:b1h2kv2d8:10:k3:d3:lse",
      "na:fwd:f32:b1h2kv2d8:10:k2:d4",
      "na:fwd:f32:b1h2kv2d8:7:k2:s2:d3:c1:lse",
      "na:fwd:f32:b1h2kv2d8:7:k1:d7",
      "na:fwd:f32:b1h1kv1d16:17:k17:s5",
      "na:fwd:f32:b1h1kv1d16:17:k17:s17:c1",
      "na:fwd:f32:b2h2kv1d32:333:k63:lse",
      "na:fwd:f32:b1h1kv1d64:700:k255:c1:lse",
      "na:fwd:f32:b1h1kv1d16:517:k128:s128",
      "na:fwd:f32:b1h1kv1d16:300:k65:s7:d4:c1:lse",
  });
}

TEST(Conformance, Windows2D) {
  expect_all({
      "na:fwd:f32:b1h1kv1d8:1x1:k1x1:lse",
      "na:fwd:f32:b1h1kv1d8:1x9:k1x3:lse",
      "na:fwd:f32:b1h1kv1d8:9x1:k4x1:lse",
      "na:fwd:f32:b2h2kv2d16:8x9:k3x5:lse",
      "na:fwd:f32:b1h2kv1d16:9x8:k9x8:lse",
      "na:fwd:f32:b1h2kv1d16:9x8:k9x8:c11:lse",
      "na:fwd:f32:b1h1kv1d32:19x21:k7x7:lse",
      "na:fwd:f32:b1h1kv1d32:16x16:k4x4:s4x4",
      "na:fwd:f32:b1h1kv1d32:18x17:k8x6:s3x5:c10:lse",
      "na:fwd:f32:b1h2kv2d16:15x13:k3x2:s2x1:d4x5:c01:lse",
      "na:fwd:f32:b1h1kv1d64:33x35:k13x13:lse",
      "na:fwd:f32:b1h1kv1d8:5x67:k5x33:d1x2:c01",
  });
}

TEST(Conformance, Windows3D) {
  expect_all({
      "na:fwd:f32:b1h1kv1d8:1x1x1:k1x1x1:lse",
      "na:fwd:f32:b1h1kv1d8:3x4x5:k2x3x2:s1x2x1:lse",
      "na:fwd:f32:b2h4kv2d16v24:4x5x6:k3x3x3:s1x3x2:d1x1x2:c100:add=3:lse",
      "na:fwd:f32:b1h1kv1d16:6x7x8:k3x5x3:c111:lse",
      "na:fwd:f32:b1h1kv1d16:8x8x8:k8x7x7:c100:lse",
      "na:fwd:f32:b1h1kv1d16:7x9x10:k2x4x3:s2x4x1:d3x2x3:c010:lse",
      "na:fwd:f32:b1h1kv1d32:5x12x12:k5x5x5",
      "na:fwd:f32:b1h2kv1d8:1x6x1:k1x3x1:lse",
  });
}

TEST(Conformance, Dense) {
  expect_all({
      "att:fwd:f32:b1h1kv1d8:1,1:lse",
      "att:fwd:f32:b2h3kv3d16:7,13:lse",
      "att:fwd:f32:b1h2kv2d64:130,67:lse",
      "att:fwd:f32:b1h1kv1d32:15,600:lse",
      "att:fwd:f32:b1h1kv1d32:600,15",
      "att:fwd:f32:b1h2kv1d16:33,33:ctl:lse",
      "att:fwd:f32:b1h2kv1d16:33,70:ctl:lse",
      "att:fwd:f32:b1h2kv1d16:70,33:ctl:lse",
      "att:fwd:f32:b1h2kv1d16:33,33:cbr:lse",
      "att:fwd:f32:b1h2kv1d16:33,70:cbr:lse",
      "att:fwd:f32:b1h2kv1d16:70,33:cbr:lse",  // the first 37 queries see nothing
      "att:fwd:f32:b1h2kv1d16:70,1:cbr:lse",
      "att:fwd:f32:b1h2kv1d16:1,70:cbr:lse",
      "att:fwd:f32:b1h2kv1d16:1,70:ctl:lse",
      "att:fwd:f32:b1h1kv1d16:40,33:cbr:add=5:lse",
  });
}

TEST(Conformance, Empty) {
  expect_all({
      "att:fwd:f32:b0h2kv1d16:5,5:lse",
      "att:fwd:f32:b1h2kv1d16:0,5:lse",
      "att:fwd:f32:b1h2kv1d16:5,0:lse",
      "att:fwd:f32:b2h2kv1d16:5,0:cbr",
      "att:fwd:f32:b1h2kv1d16:0,0:ctl:lse",
      "att:fwd:f32:b2h2kv1d16:5,0:add=3:lse",
      "att:fwd:f32:b1h2kv1d16:0,5:add=3:lse",
      "na:fwd:f32:b0h2kv1d16:5x5:k3x3:add=2:lse",
      "att:fwd:f32:b1h2kv1d16:+:lse",
      "att:fwd:f32:b1h2kv1d16:+:tail=4,3:lse",
      "att:fwd:f32:b1h2kv1d16:0,0+0,0:lse",
      "na:fwd:f32:b1h2kv1d16:+:k3x3:tail=2,2:lse",
  });
}

TEST(Conformance, HeadDims) {
  for (const int d :
       {1, 2, 3, 7, 8, 9, 15, 16, 17, 20, 24, 31, 32, 33, 48, 64, 65, 80, 96, 128, 130, 200, 256, 300}) {
    const std::string dim = "d" + std::to_string(d);
    expect_conforms("na:fwd:f32:b1h2kv1" + dim + ":21:k5:lse");
    expect_conforms("att:fwd:f32:b1h1kv1" + dim + "v5:19,18:lse");
    expect_conforms("na:fwd:f32:b1h1kv1d5v" + std::to_string(d) + ":5x5:k3x3:lse");
  }
}

TEST(Conformance, HeadsShareKeys) {
  expect_all({
      "na:fwd:f32:b2h8kv8d8:12:k5:lse",
      "na:fwd:f32:b2h8kv4d8:12:k5:lse",
      "na:fwd:f32:b2h8kv2d8:12:k5:lse",
      "na:fwd:f32:b2h8kv1d8:12:k5:lse",
      "na:fwd:f32:b1h6kv3d20v33:5x6:k3x3:add=4:lse",
      "att:fwd:f32:b3h9kv3d8:10,11:cbr:lse",
      "att:fwd:f32:b1h12kv1d8:40,41:add=3",
  });
}

TEST(Conformance, AdditionalKeys) {
  expect_all({
      "na:fwd:f32:b1h1kv1d8:9:k3:add=0:lse",
      "na:fwd:f32:b1h1kv1d8:9:k3:add=1:lse",
      "na:fwd:f32:b2h2kv2d8:9:k3:add=64:lse",
      "na:fwd:f32:b2h4kv2d16v24:9x8:k3x3:d2x2:add=77:lse",
      "na:fwd:f32:b1h1kv1d8:40:k5:c1:add=200",
      "na:fwd:f32:b1h1kv1d33:6x6x6:k3x3x3:add=17:lse",
      "att:fwd:f32:b1h2kv1d16:30,40:cbr:add=9:lse",
  });
}

TEST(Conformance, DTypes) {
  for (const std::string dtype : {"f64", "f32", "bf16", "f16"})
    for (const char* rest : {":b1h2kv2d16:37:k9:lse", ":b2h4kv2d32v20:9x10:k5x3:s2x1:d1x2:c10:add=5:lse",
                             ":b1h1kv1d33:5x5x5:k3x3x3:c100", ":b1h2kv1d64:40,33:lse"}) {
      const bool dense = std::string(rest).find("33:lse") != std::string::npos;
      expect_conforms((dense ? "att:fwd:" : "na:fwd:") + dtype + rest);
    }
  expect_all({
      "att:fwd:f64:b1h2kv1d24:70,33:cbr:lse",
      "att:fwd:bf16:b1h2kv1d24:9,7+0,3+20,20+4,0:ctl:tail=3,1:lse",
      "na:fwd:f16:b1h2kv1d24:9x7+5x5:k3x3+5x5:tail=3,1:lse",
      "na:fwd:f64:b1h3kv1d3v7:9x7+5x5:k3x3+5x5:tail=3,1:lse",
      "na:fwd:bf16:b1h1kv1d32:500:k301:lse",
      "att:fwd:f64:b1h1kv1d1:1,1:lse",
  });
}

TEST(Conformance, VarlenAttention) {
  expect_all({
      "att:fwd:f32:b1h1kv1d8:5,5+:lse",
      "att:fwd:f32:b1h2kv1d16:5,5+7,7:lse",
      "att:fwd:f32:b1h2kv1d16:0,5+7,0+0,0+3,3:lse",
      "att:fwd:f32:b1h2kv1d16:5,9+70,3+1,1+33,34:ctl:lse",
      "att:fwd:f32:b1h2kv1d16:5,9+70,3+1,1+33,34:cbr:tail=5,9:lse",
      "att:fwd:f32:b1h1kv1d8:1,1+1,1+1,1+1,1+1,1+2,2+1,1:lse",
      "att:fwd:f32:b1h2kv2d16:3,4:tail=0,0",
      "att:fwd:f32:b1h2kv2d16:3,4+5,5:tail=0,7:lse",
      "att:fwd:f32:b1h2kv2d16:3,4+5,5:tail=7,0:lse",
  });
}

TEST(Conformance, VarlenWindows) {
  expect_all({
      "na:fwd:f32:b1h1kv1d8:9+:k3:lse",
      "na:fwd:f32:b1h2kv1d16:9+5+33:k3:lse",
      "na:fwd:f32:b1h2kv1d16:9+5+33:k3+5+9:s1+5+2:d2+1+3:c1+0+1:tail=2,2:lse",
      "na:fwd:f32:b1h2kv2d16:8x9+5x7+16x4:k3x3:lse",
      "na:fwd:f32:b1h2kv2d16:8x9+5x7+16x4:k3x3+5x7+2x4:s1x2+1x1+2x1:d2x3+1x1+4x1:c00+10+01:lse",
      "na:fwd:f32:b1h2kv1d8:2x3x4+4x3x2+5x5x5:k2x2x2+3x3x2+5x3x1:c100:tail=1,4:lse",
      "na:fwd:f32:b1h1kv1d8:1x1+1x5+5x1:k1x1+1x3+3x1:lse",
  });
}

TEST(Conformance, Ranges) {
  expect_all({
      "na:fwd:f32:b1h1kv1d8:40:k7:q=10-20:kv=7-23:lse",   // a shard with its whole halo
      "na:fwd:f32:b1h1kv1d8:40:k7:q=10-20:kv=10-20:lse",  // cut windows
      "na:fwd:f32:b1h1kv1d8:40:k7:q=10-20:kv=30-40:lse",  // nothing visible
      "na:fwd:f32:b1h1kv1d8:40:k7:q=10-20:kv=20-20:lse",  // no keys
      "na:fwd:f32:b1h1kv1d8:40:k7:q=10-10:kv=0-40:lse",   // no queries
      "na:fwd:f32:b1h1kv1d8:40:k7:q=33-40:lse",
      "na:fwd:f32:b1h1kv1d8:40:k7:kv=0-5:lse",
      "na:fwd:f32:b1h1kv1d8:40:k4:s3:d5:c1:q=11-29:kv=2-20:lse",
      "na:fwd:f32:b2h2kv1d16:20x12:k5x3:s2x1:d1x2:q=8-16x0-12:kv=6-18x0-12:lse",
      "na:fwd:f32:b1h2kv1d16:20x12:k5x3:q=8-16x3-7:kv=10-11x5-6:lse",
      "na:fwd:f32:b1h2kv1d16:20x12:k5x3:q=8-16x3-7:kv=10-11x5-6:add=3:lse",
      "na:fwd:f32:b1h1kv1d8:6x7x8:k3x3x3:c100:q=2-5x0-7x4-8:kv=0-6x1-6x3-8:lse",
      "att:fwd:f32:b1h2kv1d16:40,50:q=10-30:kv=20-50:lse",
      "att:fwd:f32:b1h2kv1d16:40,50:cbr:q=10-30:kv=20-50:lse",
      "att:fwd:f32:b1h2kv1d16:40,50:ctl:q=0-20:kv=15-50:lse",
      "att:fwd:f32:b1h2kv1d16:50,40:cbr:q=5-25:kv=0-8:lse",
  });
}

TEST(Conformance, Strides) {
  expect_all({
      // heads first, as other libraries store them
      "na:fwd:f32:b2h3kv3d8:9:k3:lse:str=q~216,8,72,1~k~216,8,72,1~v~216,8,72,1~o~216,8,72,1~lse~27,1,9",
      // gaps behind every row; sizes that are no multiple of a vector
      "na:fwd:f32:b1h2kv1d7v5:4x6:k3x3:lse:str=q~2000,200,30,11,1~k~900,90,14,9,1~v~900,90,14,6,1~o~2000,200,"
      "30,12,1",
      // channels two apart, channels slowest
      "na:fwd:f32:b1h2kv2d16:11:k5:lse:str=q~704,64,32,2~k~704,64,32,2~v~352,2,1,22~o~704,64,32,2",
      // broadcast over batch, tokens, heads, channels
      "na:fwd:f32:b2h4kv2d8:11:k5:lse:str=q~0,32,8,1~k~176,0,8,1~v~88,8,0,1",
      "na:fwd:f32:b2h4kv2d8:11:k5:lse:str=q~352,32,8,0~k~0,0,0,0~v~0,0,0,1",
      // axes in another order
      "na:fwd:f32:b2h2kv2d8:5x6:k3x3:lse:str=q~480,16,80,8,1~k~16,96,480,8,1~v~480,96,16,8,1~o~480,16,80,8,1",
      // the gradients' own
      "na:bwd:f32:b2h2kv1d8:9:k3:add=2:lse:str=do~0,16,8,1~dlse~1,4,2~dq~500,50,20,2~dk~8,16,8,1~dv~200,20,"
      "10,1~dak~40,20,9,1~dav~16,32,8,1",
      "na:bwd:bf16:b1h2kv1d8:9:k3:lse:str=do~144,2,1,18~lse~40,4,2~dlse~18,1,9~dq~500,50,20,2~dk~144,16,8,2",
      "att:bwd:f16:b1h2kv1d8:5,4+3,3:tail=1,1:lse:str=q~300,20,9,1~do~144,2,1,18~o~400,30,10,3~dq~500,50,20,"
      "2~dk~144,16,8,2~dv~1,1,1,9",
      "att:bwd:f64:b2h2kv1d8:5,4:lse:str=q~16,32,8,1~k~0,8,8,1~dq~16,32,8,1",
      "na:fwd:f32:b1h1kv1d8:3x3x3:k2x2x2:lse:str=q~999,333,66,11,8,1~o~400,12,36,108,9,1~lse~200,64,16,5,1",
  });
}

TEST(Conformance, Scales) {
  expect_all({
      "na:fwd:f32:b1h1kv1d16:20:k5:scale=0:lse",
      "na:fwd:f32:b1h1kv1d16:20:k5:scale=1:lse",
      "na:fwd:f32:b1h1kv1d16:20:k5:scale=-0.7:lse",
      "na:fwd:f32:b1h1kv1d16:20:k5:scale=1e-20:lse",
      "att:fwd:f16:b1h1kv1d16:20,30:scale=0:lse",
  });
}

// Kernels that may add in varying order, where a backend has them.
TEST(Conformance, Nondeterministic) {
  expect_all({"na:fwd:f32:b2h4kv2d16:19x21:k7x5:d1x2:add=5:bias:nondet:lse",
              "att:fwd:bf16:b1h2kv1d16:5,9+70,3+33,34:cbr:nondet:lse"});
}

// The permission to multiply in bf16, of use or not.
TEST(Conformance, Bf16Arithmetic) {
  expect_all({"na:fwd:bf16:b2h4kv2d16:19x21:k7x5:d1x2:add=5:bias:prec=bf16:lse",
              "na:fwd:bf16:b1h2kv1d40v24:6x7x8:k3x3x5:c100:prec=bf16",
              "att:fwd:bf16:b1h2kv1d64:5,9+70,3+33,34+90,150:cbr:prec=bf16:lse",
              "att:fwd:bf16:b1h2kv2d32:70,130:drop=0.3:prec=bf16:lse",
              "att:fwd:f16:b1h2kv1d16:20,9:cbr:prec=bf16", "na:fwd:f32:b1h1kv1d8:9:k3:prec=bf16",
              "na:fwd:f64:b1h1kv1d8:9:k3:prec=bf16"});
}

// The backward pass without a gradient of lse, and the forward pass without lse.
TEST(Conformance, WithoutLse) {
  expect_all({"na:fwd:f32:b1h2kv1d16:20:k5", "att:fwd:bf16:b1h2kv1d16:20,9:cbr",
              "na:fwd:f64:b1h1kv1d4:5x5:k3x3:add=2"});
}

TEST(Conformance, RandomSweep) {
  const Index first = number_from("NEARFIELD_TEST_SEED", 0), count = number_from("NEARFIELD_TEST_SWEEP", 400);
  for (Index i = first; i < first + count; ++i) {
    testing::Rng rng(static_cast<std::uint64_t>(i) * 7919 + 11);
    const std::string text = to_string(testing::random_runnable_problem(rng));
    SCOPED_TRACE("NEARFIELD_TEST_SEED=" + std::to_string(i) + " NEARFIELD_TEST_SWEEP=1: " + text);
    expect_conforms(text);
    if (HasFatalFailure()) return;
  }
}

// The harness knows every kernel of `cpu`, and each serves something.
TEST(Conformance, EveryKernelIsUnderTest) {
  if (testing::backends_under_test().back() != "cpu") GTEST_SKIP() << "of another backend";
  std::string names;
  for (const char* kernel : testing::kKernels) names += (names.empty() ? "" : ", ") + std::string(kernel);
  PlanOptions options;
  options.backend = "cpu/none";
  try {
    make_plan(parse_problem("na:fwd:f32:b1h1kv1d8:9:k3"), options);
    ADD_FAILURE() << "cpu/none is served";
  } catch (const Unsupported& e) {
    const std::string message = e.what();
    EXPECT_EQ(message.substr(message.rfind("there are ")), "there are " + names)
        << "kKernels of conformance.h is not the list of kernels";
  }
  std::string served;
  for (const char* text : {"na:fwd:f32:b1h1kv1d32:64x64:k7x7", "na:bwd:f32:b1h1kv1d32:64x64:k7x7"}) {
    options.backend = "cpu";
    served += make_plan(parse_problem(text), options).plan->kernel + " ";
    for (const std::string& run : testing::runs_under_test(parse_problem(text))) served += run + " ";
  }
  std::string target;
  for (const Backend* b : backends())
    if (b->name() == "cpu") target = b->targets()[0];
  const bool stencil = target == "avx512" || target == "avx2";  // the others do not compile it
  for (const char* kernel : testing::kKernels) {
    if (!stencil && std::string(kernel) == "s2") continue;
    EXPECT_NE(served.find(kernel), std::string::npos) << kernel << " serves neither problem: " << served;
  }
}

// What the specification says and no backend of the host serves yet is refused with a reason.
TEST(Conformance, WhatIsNotServedIsRefusedWithAReason) {
  if (testing::tests_cuda()) GTEST_SKIP() << "about the table of backends";
  struct Refused {
    const char *text, *word;
  };
  for (const Refused& r : {Refused{"na:fwd:f32:b1h1kv1d8:9:k3:prec=tf32", "prec"},
                           Refused{"att:fwd:f32:b1h1kv1d8:var=1,2,3,4,5", "offsets"}})
    for (std::string backend : {"", "reference", "cpu", "cuda_sm80", "cuda_sm90"}) {
      PlanOptions options;
      options.backend = backend;
      try {
        make_plan(parse_problem(r.text), options);
        ADD_FAILURE() << r.text << "@" << backend << " is served: add it to the conformance lists";
      } catch (const Unsupported& e) {
        const std::string message = e.what();
        EXPECT_EQ(message.rfind("[", 0), 0u) << message;
        EXPECT_NE(message.find("got "), std::string::npos) << message;
        EXPECT_TRUE(backend.rfind("cuda", 0) == 0 || message.find(r.word) != std::string::npos) << message;
        EXPECT_NE(message.find(backend), std::string::npos) << message;
      }
    }
}

}  // namespace
}  // namespace nearfield
