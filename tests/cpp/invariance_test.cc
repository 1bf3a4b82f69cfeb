// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What must not change a single bit: who runs the tasks and in which order, the other entries of the
// batch, the other sequences of a packed list, inputs that share memory, how often it is run.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "conformance.h"
#include "problem_family.h"

namespace nearfield {
namespace {

using testing::Case;
using testing::Memory;
using testing::Outputs;
using testing::same_bits;

constexpr Direction kDirections[] = {Direction::kForward, Direction::kBackward};

constexpr const char* kProblems[] = {
    "na:fwd:f32:b1h2kv1d32:19x21:k7x7:lse",
    "na:fwd:f32:b2h4kv2d16v24:9x8:k3x3:s2x1:d1x2:c01:add=5:lse",
    "na:fwd:f64:b1h2kv1d20:7x6x5:k3x3x3:c100:lse",
    "na:fwd:bf16:b1h4kv1d24:130:k31:lse",
    "att:fwd:f16:b2h4kv2d33:70,130:cbr:lse",
    "att:fwd:f32:b1h4kv2d32:150,90:lse",
    "na:fwd:f32:b1h2kv1d16:8x9+5x7+16x4:k3x3+5x7+2x4:c00+10+01:tail=2,3:lse",
    "att:fwd:f32:b1h2kv1d16:5,9+70,3+0,4+33,34:cbr:tail=5,9:lse",
    "na:fwd:f32:b1h2kv1d16:20x12:k5x3:q=8-16x0-12:kv=6-18x0-12:lse",
    "na:fwd:f32:b2h4kv2d16:19x21:k7x5:d1x2:add=5:bias:lse",
    "na:fwd:bf16:b3h2kv1d16:130:k31:bias:drop=0.3:lse",
    "att:fwd:f32:b1h4kv2d32:150,90:drop=0.3:lse",
    "na:fwd:f32:b1h2kv1d16:8x9+5x7:k3x3:drop=0.3:lse",
    "na:fwd:f32:b1h2kv1d16:9x14:k3x4:s2x3:c01:qgrid=20x5:add=3:lse",
};

// Long enough for several bands, which more threads cut shorter.
constexpr const char* kLongProblems[] = {
    "na:fwd:f32:b1h2kv2d32:70x20:k7x7:lse",
    "na:fwd:f32:b1h4kv2d20:700:k31:lse",
    "na:fwd:bf16:b1h3kv3d16:10x8x12:k3x3x5:c100:add=3:lse",
    "na:fwd:f32:b1h4kv2d16:24x24:k6x6:s6x3:lse",
};

void expect_same_bits_on_any_threads(const char* text, bool reference) {
  Case c(text);
  for (const Direction d : kDirections)
    for (const std::string& backend : c.runs(d)) {
      if (backend == "reference" && !reference) continue;
      const Outputs serial = c.run(d, backend);
      for (const int threads : backend == "reference" ? std::vector<int>{3} : std::vector<int>{1, 2, 3, 7}) {
        const auto pool = make_executor(threads);
        EXPECT_EQ(pool->workers(), threads);
        EXPECT_TRUE(same_bits(serial, c.run(d, backend, *pool)))
            << text << "@" << backend << " on " << threads << " threads";
        testing::ShuffledExecutor shuffled(threads, static_cast<std::uint64_t>(threads));
        EXPECT_TRUE(same_bits(serial, c.run(d, backend, shuffled)))
            << text << "@" << backend << ", " << threads << " workers shuffled";
      }
      EXPECT_TRUE(same_bits(serial, c.run(d, backend))) << text << "@" << backend << " again";
    }
}

TEST(Invariance, ThreadsAndOrderOfTasks) {
  for (const char* text : kProblems) expect_same_bits_on_any_threads(text, true);
  const char* forced = std::getenv("NEARFIELD_CPU_TARGET");
  const std::string target = forced ? forced : "";
  if (target == "sse4" || target == "scalar" || target == "neon") return;  // the same code, minutes
  for (const char* text : kLongProblems) expect_same_bits_on_any_threads(text, false);
}

// Rows [begin, begin + count) of axis `axis` of a dense tensor.
std::vector<double> rows_of(const Memory& m, std::size_t axis, Index begin, Index count) {
  const std::vector<double> all = m.values();
  std::vector<double> rows;
  Index inner = 1;
  for (std::size_t a = axis + 1; a < m.size().size(); ++a) inner *= m.size()[a];
  const Index block = inner * m.size()[axis];
  for (Index i = 0; i < m.elements(); i += block)
    rows.insert(rows.end(), all.begin() + i + begin * inner, all.begin() + i + (begin + count) * inner);
  return rows;
}

void copy_rows(const Memory& from, Memory& to, std::size_t axis, Index begin) {
  if (!to.present()) return;
  const std::vector<double> rows = rows_of(from, axis, begin, to.size()[axis]);
  ASSERT_EQ(rows.size(), static_cast<std::size_t>(to.elements()));
  for (std::size_t i = 0; i < rows.size(); ++i) to.set(static_cast<Index>(i), rows[i]);
}

bool is_key_role(Role r) {
  return r == Role::kKey || r == Role::kValue || r == Role::kGradKey || r == Role::kGradValue;
}

bool serves(const Case& c, Direction d, const std::string& backend) {
  const std::vector<std::string> runs = c.runs(d);
  return std::find(runs.begin(), runs.end(), backend) != runs.end();
}

// A case of several parts, run once in every way, however many parts are compared.
struct Whole {
  Case c;
  std::map<std::pair<Direction, std::string>, Outputs> runs;

  explicit Whole(const char* text) : c(text) {}
  const Outputs& run(Direction d, const std::string& backend) {
    const auto [at, fresh] = runs.try_emplace({d, backend});
    if (fresh) at->second = c.run(d, backend);
    return at->second;
  }
};

// `alone` gets its inputs from `whole`, o and lse included, and must give the same bits as that part.
void expect_same_part(Whole& of, Case& alone, std::size_t axis, Index first_query, Index first_key,
                      const std::string& what) {
  Case& whole = of.c;
  whole.answer();
  alone.answer();
  for (int r = 0; r < kRoles; ++r) {
    const Role role = static_cast<Role>(r);
    if (whole.input(role).present())
      copy_rows(whole.input(role), alone.input(role), axis, is_key_role(role) ? first_key : first_query);
  }
  for (const Direction d : kDirections)
    for (const std::string& backend : alone.runs(d)) {
      if (!serves(whole, d, backend)) continue;
      const Outputs &all = of.run(d, backend), one = alone.run(d, backend);
      for (const auto& [role, memory] : one) {
        const Index first = is_key_role(role) ? first_key : first_query;
        const std::vector<double> part = rows_of(all.at(role), axis, first, memory.size()[axis]);
        // Equal as numbers of their dtype, and no zero of another sign: equal bits.
        for (std::size_t i = 0; i < part.size(); ++i) {
          const double x = memory.get(static_cast<Index>(i));
          ASSERT_TRUE(x == part[i] && std::signbit(x) == std::signbit(part[i]))
              << what << "@" << backend << ": " << name_of(role) << "[" << i << "] alone " << x
              << ", in company " << part[i];
        }
      }
    }
}

TEST(Invariance, PackedSequencesAreThoseAlone) {
  for (const char* text : {
           "na:fwd:f32:b1h2kv1d16:8x9+5x7+16x4:k3x3+5x7+2x4:s1x1+2x3+1x2:d2x3+1x1+4x1:c00+10+01:tail=2,3:lse",
           "na:fwd:f32:b1h2kv1d40:130+7+300+33:k31+7+49+3:lse",
           "na:fwd:bf16:b1h2kv2d16:3x4x5+6x6x6:k3x3x3:c100:lse",
           "na:fwd:bf16:b1h2kv1d40:130+7+300+33:k31+7+48+3:prec=bf16:lse",
           "att:fwd:bf16:b1h2kv1d24:5,9+70,70+64,65:ctl:prec=bf16:lse",
           "na:fwd:f64:b1h2kv2d16:3x40+40x3:k3x3:lse",
           "att:fwd:f32:b1h2kv1d16:5,9+70,3+0,4+33,34+1,150:lse",
           "att:fwd:f32:b1h4kv1d24:5,9+70,3+3,0+33,200:cbr:tail=5,9:lse",
           "att:fwd:f16:b1h2kv1d16:5,9+70,70+64,64:ctl:lse",
       }) {
    Whole packed(text);
    const Problem& p = packed.c.problem();
    Index first_query = 0, first_key = 0;
    for (const Layout& l : p.layouts) {
      Problem one = p;
      one.varlen = false;
      one.layouts = {l};
      one.tail_query = one.tail_key = 0;
      // A list of one sequence is packed, and that sequence alone without packing has the same bits.
      for (const bool as_list : {false, true}) {
        if (!as_list && p.rank > 1) continue;  // another rank of tensor: compared through the list
        one.varlen = as_list;
        Case alone(to_string(one));
        expect_same_part(packed, alone, 1, first_query, first_key, to_string(one) + " of " + text);
      }
      Index queries = 1, keys = 1;
      for (std::size_t a = 0; a < static_cast<std::size_t>(p.rank); ++a)
        queries *= l.query_extent[a], keys *= l.extent[a];
      first_query += queries;
      first_key += keys;
    }
  }
}

// The same for layouts of rank 2 and 3: a list of one grid against the plain tensor of that rank.
TEST(Invariance, AListOfOneGridIsTheGrid) {
  for (const char* text :
       {"na:fwd:f32:b1h2kv1d16:9x11:k3x5:s1x2:d2x1:c10:lse", "na:fwd:f32:b1h1kv1d24:5x6x7:k3x3x3:c100:lse"}) {
    Case plain(text);
    Problem p = plain.problem();
    p.varlen = true;
    Case list(to_string(p));
    plain.answer();
    list.answer();
    for (int r = 0; r < kRoles; ++r) {
      const Role role = static_cast<Role>(r);
      for (Index i = 0; plain.input(role).present() && i < plain.input(role).elements(); ++i)
        list.input(role).set(i, plain.input(role).get(i));
    }
    for (const Direction d : kDirections)
      for (const std::string& backend : plain.runs(d)) {
        const Outputs a = plain.run(d, backend), b = list.run(d, backend);
        for (const auto& [role, memory] : a)
          EXPECT_EQ(memory.values(), b.at(role).values()) << text << "@" << backend << " " << name_of(role);
      }
  }
}

TEST(Invariance, BatchEntriesAreThoseAlone) {
  for (const char* text :
       {"na:fwd:f32:b5h2kv1d16:8x9:k3x3:add=5:lse", "na:fwd:f32:b3h2kv2d16:100:k33:d2:lse",
        "att:fwd:bf16:b4h2kv1d16:70,33:cbr:lse", "na:fwd:bf16:b5h2kv1d16:8x9:k3x4:add=5:prec=bf16:lse",
        "na:fwd:f32:b70h1kv1d8:6x6:k3x3:lse", "na:fwd:f32:b3h1kv1d24:17x30:k9x13:lse",
        "att:fwd:f32:b3h1kv1d16:150,170:ctl:lse"}) {
    Whole batch(text);
    Problem one = batch.c.problem();
    one.batch = 1;
    for (const Index b : {Index{0}, batch.c.problem().batch - 1}) {
      Case alone(to_string(one));
      expect_same_part(batch, alone, 0, b, b, to_string(one) + " of " + text);
    }
  }
}

TEST(Invariance, LseOrNotGivesTheSameOut) {
  for (const char* text : kProblems) {
    Case c(text);
    for (const std::string& backend : c.runs(Direction::kForward)) {
      Problem p = c.direction(Direction::kForward);
      const Outputs with = c.run(Direction::kForward, backend);
      p.lse = false;
      Memory out(p.dtype, testing::shape_for(p, Role::kOut), {}, true);
      Tensors tensors;
      for (const Role r : {Role::kQuery, Role::kKey, Role::kValue, Role::kAdditionalKey,
                           Role::kAdditionalValue, Role::kBias})
        tensors[r] = c.input(r).view();
      tensors[Role::kOut] = out.view();
      tensors.seed = &c.seed();
      PlanOptions options;
      options.backend = backend;
      SerialExecutor serial;
      testing::execute(p, testing::plan_for(p, options), tensors, serial);
      EXPECT_EQ(out.bytes(), with.at(Role::kOut).bytes()) << text << "@" << backend;
    }
  }
}

TEST(Invariance, InputsMayAlias) {
  for (const char* text : {"na:fwd:f32:b1h2kv2d16:9x8:k3x3:lse", "att:fwd:f16:b2h2kv2d24:33,33:ctl:lse"}) {
    Case apart(text);
    Memory& q = apart.input(Role::kQuery);
    for (const Role r : {Role::kKey, Role::kValue})
      for (Index i = 0; i < q.elements(); ++i) apart.input(r).set(i, q.get(i));
    for (const std::string& backend : apart.runs(Direction::kForward)) {
      const Problem p = apart.direction(Direction::kForward);
      const Outputs expected = apart.run(Direction::kForward, backend);
      EXPECT_TRUE(apart.agrees(expected, backend));
      Memory out(p.dtype, testing::shape_for(p, Role::kOut), {}, true);
      Tensors tensors;
      tensors[Role::kQuery] = tensors[Role::kKey] = tensors[Role::kValue] = q.view();
      tensors[Role::kOut] = out.view();
      PlanOptions options;
      options.backend = backend;
      SerialExecutor serial;
      testing::execute(p, testing::plan_for(p, options), tensors, serial);
      EXPECT_EQ(out.bytes(), expected.at(Role::kOut).bytes()) << text << "@" << backend;
    }
  }
}

// Tiles that the user asks for change the speed, not the answer; those that no backend can use are refused.
TEST(Invariance, TilesOfTheUser) {
  if (testing::tests_cuda()) GTEST_SKIP() << "the CUDA kernels' are in cuda_test.cc";
  for (const char* text :
       {"na:fwd:f32:b1h2kv1d16:12x13:k5x3:s2x1:d1x2:c01:lse", "na:fwd:f32:b1h2kv1d16:200:k63:lse",
        "na:bwd:f32:b1h2kv1d16:12x13:k5x3:s2x1:d1x2:c01:add=3:lse",
        "na:bwd:f32:b1h1kv1d16:5x6x7:k3x3x3:lse"}) {
    Case c(text);
    const Problem& p = c.problem();
    const Direction d = p.direction;
    for (const TileShape& tile :
         {TileShape{1, 1, 1}, TileShape{1, 1, 7}, TileShape{1, 4, 4}, TileShape{1, 16, 1}, TileShape{2, 2, 4},
          TileShape{1, 1, 1000}, TileShape{0, 1, 1}, TileShape{-4, -4, 1}, TileShape{INT64_MAX, 2, 2}}) {
      if (tile[0] > 1 && p.rank < 3) continue;  // leading axes have extent 1
      for (const bool of_keys : {false, true}) {
        PlanOptions options;
        options.backend = "cpu";
        (of_keys ? options.key_tile : options.query_tile) = tile;
        Choice choice;
        try {
          choice = make_plan(c.direction(d), options);
        } catch (const Unsupported& e) {
          EXPECT_NE(std::string(e.what()).find("tile"), std::string::npos) << e.what();
          EXPECT_TRUE(of_keys || tile[0] < 1 || tile[0] > 16 || tile[0] * tile[1] * tile[2] > 16) << e.what();
          continue;
        }
        SerialExecutor serial;
        EXPECT_TRUE(c.agrees(c.run(d, choice, serial), "cpu"))
            << "tile " << tile[0] << "x" << tile[1] << "x" << tile[2]
            << (of_keys ? " of keys" : " of queries");
      }
    }
  }
}

}  // namespace
}  // namespace nearfield
