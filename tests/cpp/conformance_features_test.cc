// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Every backend against the oracle, as in conformance_test.cc: relative position bias, dropout on the
// weights, queries on another layout than the keys.
#include "conformance.h"

namespace nearfield {
namespace {

using testing::backends_under_test;
using testing::Case;
using testing::expect_all;
using testing::expect_conforms;

TEST(Conformance, Bias) {
  expect_all({
      "na:fwd:f32:b1h1kv1d8:1:k1:bias:lse",
      "na:fwd:f32:b1h1kv1d8:10:k3:bias:lse",
      "na:fwd:f32:b2h4kv2d16:10:k4:s3:bias:lse",
      "na:fwd:f32:b1h2kv1d16:11:k4:s4:c1:bias",
      "na:fwd:f32:b1h2kv2d8:20:k3:s2:d3:c1:bias:lse",
      "na:fwd:f32:b1h2kv2d8:17:k17:s5:bias:lse",
      "na:fwd:f32:b1h3kv1d16:9x8:k9x8:bias:lse",
      "na:fwd:f32:b2h4kv2d16v24:9x8:k3x2:s2x1:d1x3:c01:add=5:bias:lse",
      "na:fwd:f32:b1h1kv1d33:19x21:k7x7:bias:lse",
      "na:fwd:f32:b1h2kv1d16:7x9x10:k2x4x3:s2x4x1:d3x2x3:c010:bias:lse",
      "na:fwd:f32:b1h1kv1d8:1x6x1:k1x3x1:bias:lse",
      "na:fwd:f32:b3h2kv2d32:333:k63:bias:lse",
      "na:fwd:f32:b0h2kv1d8:5x6:k3x3:bias:lse",
      "na:fwd:f32:b1h1kv1d32:700:k255:c1:bias:lse",
      "na:fwd:f32:b1h2kv1d16:33x35:k13x13:d1x2:bias:drop=0.1:lse",
      "na:fwd:f32:b1h2kv1d8:40:k7:q=10-20:kv=10-20:bias:lse",  // a shard: its offsets are those of the whole
      "na:fwd:f32:b1h2kv1d8:40:k7:q=10-20:kv=30-40:bias:lse",  // nothing visible
      "na:fwd:f32:b1h2kv1d16:20x12:k5x3:d1x2:q=8-16x3-7:kv=6-18x0-12:add=3:bias:lse",
      "na:fwd:f32:b1h2kv1d8:12:k5:scale=0:bias:lse",
      "na:fwd:f32:b1h2kv1d8:12:k5:scale=-0.7:bias",
      "na:bwd:f32:b1h2kv1d8:6x7:k3x2:bias:lse:str=bias~40,1,7~dbias~1,2,20",
  });
  for (const std::string dtype : {"f64", "bf16", "f16"}) {
    expect_conforms("na:fwd:" + dtype + ":b1h2kv2d16:37:k9:bias:lse");
    expect_conforms("na:fwd:" + dtype + ":b2h4kv2d33v20:9x10:k5x3:s2x1:d1x2:c10:add=5:bias:lse");
    expect_conforms("na:fwd:" + dtype + ":b1h1kv1d8:5x5x5:k3x3x3:c100:bias");
  }
}

TEST(Conformance, Dropout) {
  expect_all({
      "na:fwd:f32:b1h1kv1d8:10:k3:drop=0.5:lse",
      "na:fwd:f32:b1h1kv1d8:10:k3:drop=0.99:lse",  // some queries keep nothing
      "na:fwd:f32:b1h1kv1d8:10:k3:drop=1e-300:lse",
      "na:fwd:f32:b2h4kv2d16v24:9x8:k3x3:s2x1:d1x2:c01:add=5:drop=0.3:lse",
      "na:fwd:f32:b1h2kv1d33:7x9x10:k2x4x3:s2x4x1:d3x2x3:c010:drop=0.1",
      "na:fwd:f32:b2h2kv1d32:333:k63:drop=0.2:lse",
      "na:fwd:f32:b1h1kv1d16:19x21:k7x7:drop=0.25:bias:lse",
      "na:fwd:f32:b1h2kv1d8:12:k5:scale=0:drop=0.5:lse",
      "att:fwd:f32:b2h3kv3d16:7,13:drop=0.5:lse",
      "att:fwd:f32:b1h2kv2d64:130,67:drop=0.1:lse",
      "att:fwd:f32:b1h4kv1d16:70,33:cbr:drop=0.4:lse",
      "att:fwd:f32:b1h2kv1d16:33,70:ctl:add=9:drop=0.4:lse",
      "att:fwd:f32:b2h2kv1d16:5,0:add=3:drop=0.5:lse",
      "att:fwd:f32:b0h2kv1d16:5,5:drop=0.5:lse",
      // of a sequence of a list: its number stands for the batch, its own raster for the tokens
      "att:fwd:f32:b1h2kv1d16:5,9+70,3+0,4+33,34:cbr:tail=5,9:drop=0.3:lse",
      "na:fwd:f32:b1h2kv2d16:8x9+5x7+16x4:k3x3+5x7+2x4:s1x2+1x1+2x1:d2x3+1x1+4x1:c00+10+01:drop=0.3:lse",
      "na:fwd:f32:b1h1kv1d8:9+5+5:k3:drop=0.5:tail=2,2:lse",
      // of a shard: the raster is that of the whole layout, additional keys come behind all of it
      "na:fwd:f32:b1h1kv1d8:40:k7:q=10-20:kv=7-23:drop=0.5:lse",
      "na:fwd:f32:b2h2kv1d16:20x12:k5x3:s2x1:d1x2:q=8-16x0-12:kv=6-18x0-12:add=3:drop=0.5:lse",
      "att:fwd:f32:b1h2kv1d16:40,50:cbr:q=10-30:kv=20-50:add=2:drop=0.3:lse",
  });
  for (const std::string dtype : {"f64", "bf16", "f16"}) {
    expect_conforms("na:fwd:" + dtype + ":b2h4kv2d32v20:9x10:k5x3:s2x1:d1x2:c10:add=5:drop=0.3:lse");
    expect_conforms("att:fwd:" + dtype + ":b1h2kv1d64:40,33:drop=0.1:lse");
  }
}

// Another seed, or another entry of the bias, than the oracle was told of is found out.
TEST(Conformance, SeedAndBiasMatter) {
  for (const Direction d : {Direction::kForward, Direction::kBackward})
    for (const std::string& backend : backends_under_test()) {
      Case c("na:fwd:f32:b1h2kv1d8:12:k5:bias:drop=0.3:lse");
      EXPECT_TRUE(c.agrees(c.run(d, backend), backend));
      for (const std::int64_t bit : {std::int64_t{1}, std::int64_t{1} << 32, INT64_MIN}) {
        c.seed() ^= bit;
        EXPECT_FALSE(c.agrees(c.run(d, backend), backend));
        c.seed() ^= bit;
      }
      c.input(Role::kBias).set(13, 5.0);
      EXPECT_FALSE(c.agrees(c.run(d, backend), backend));
    }
}

TEST(Conformance, QueryLayouts) {
  expect_all({
      "na:fwd:f32:b1h1kv1d8:9:k3:qgrid=4:lse",
      "na:fwd:f32:b1h1kv1d8:9:k3:qgrid=18:lse",
      "na:fwd:f32:b1h1kv1d8:9:k3:qgrid=1:lse",
      "na:fwd:f32:b1h1kv1d8:1:k1:qgrid=20:lse",
      "na:fwd:f32:b2h4kv2d16:33:k7:s3:qgrid=70:lse",
      "na:fwd:f32:b2h4kv2d16:33:k7:s3:c1:qgrid=70:lse",
      "na:fwd:f32:b1h2kv1d16:100:k4:s4:c1:qgrid=21",
      "na:fwd:f32:b1h1kv1d16:200:k63:qgrid=9:lse",
      "na:fwd:f32:b1h1kv1d16:17:k17:s5:qgrid=40:lse",
      "na:fwd:f32:b1h2kv1d8:40:k5:d3:qgrid=40:lse",
      "na:fwd:f32:b1h2kv2d16v24:12x10:k5x3:qgrid=6x5:lse",
      "na:fwd:f32:b1h2kv2d16v24:6x5:k5x3:qgrid=12x10:add=4:lse",
      "na:fwd:f32:b1h2kv1d33:9x14:k3x4:s2x3:c01:qgrid=20x5:add=3:lse",
      "na:fwd:f32:b1h2kv1d16:9x14:k3x4:d3x1:qgrid=9x5:lse",  // the dilated axis keeps its layout
      "na:fwd:f32:b1h2kv1d16:9x14:k9x14:qgrid=3x3:lse",
      "na:fwd:f32:b1h1kv1d16:4x5x6:k3x3x3:qgrid=8x10x12:lse",
      "na:fwd:f32:b1h1kv1d16:8x6x7:k3x4x2:s3x2x1:c100:qgrid=3x9x7:lse",
      "na:fwd:f32:b1h2kv1d16:20:k7:qgrid=50:q=11-31:kv=4-14:lse",
      "na:fwd:f32:b1h2kv1d16:20:k7:qgrid=50:q=0-11:kv=14-20:lse",
      "na:fwd:f32:b1h2kv1d16:20x9:k5x3:s2x1:c10:qgrid=7x18:q=2-6x3-11:kv=5-19x0-8:add=2:lse",
      "na:fwd:f32:b0h2kv1d16:6x5:k3x3:qgrid=3x9:lse",
      "na:fwd:f32:b1h2kv1d16:6x5:k3x3:qgrid=0x9:add=3:lse",
      "na:fwd:f32:b1h1kv1d32:33x35:k13x13:qgrid=50x20:lse",
      "na:fwd:f32:b1h1kv1d32:60:k60:qgrid=700:lse",
      "na:fwd:f32:b1h1kv1d32:700:k31:s31:qgrid=60:drop=0.1:lse",
      "na:fwd:f32:b1h1kv1d16:9x10x11:k5x3x7:c010:qgrid=5x20x3:lse",
      "na:fwd:f32:b2h2kv1d16:6x5:k3x3:s2x1:qgrid=3x9:add=3:drop=0.3:lse",
      "na:fwd:f32:b1h2kv1d16:20:k7:qgrid=50:q=11-31:kv=4-14:add=3:drop=0.3:lse",
      "na:bwd:f32:b2h2kv1d8:9:k3:qgrid=4:lse:str=q~70,17,8,1~do~0,16,8,1~dq~70,17,8,1~dk~8,16,8,1",
  });
  for (const std::string dtype : {"f64", "bf16", "f16"}) {
    expect_conforms("na:fwd:" + dtype + ":b1h2kv1d24:9x14:k3x4:s2x3:c01:qgrid=20x5:add=3:lse");
    expect_conforms("na:fwd:" + dtype + ":b1h2kv1d24:33:k9:qgrid=7");
  }
}

}  // namespace
}  // namespace nearfield
