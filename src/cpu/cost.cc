// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/band_scratch.h"
#include "cpu/cost_table.h"
#include "cpu/lane_tile.h"
#include "cpu/stencil.h"
#include "plan/tiles.h"

namespace nearfield::cpu {
namespace {

constexpr double kSharedBytes = 4 << 20;  // of the L3 cache, that a core can count on while others use it
constexpr double kNearBytes = 2 << 20, kFarBytes = 16 << 20;  // L2, and what one core has of the L3 cache

constexpr Index kSample = 64;  // tiles of an axis that are looked at

double number(Index n) { return static_cast<double>(n); }
double vectors(Index channels, Index floats) { return number(ceil_div(channels, floats)); }
// Of `bytes` in use, the share that a cache does not hold.
double beyond(double bytes, double cache) { return bytes > cache ? 1 - cache / bytes : 0; }

// The register tiles of score-inl.h: keys of one, and accumulators that hide the latency of an FMA.
struct Shape {
  Index floats, keys, vectors;
  double busy;
};
Shape shape_of(Machine m, int lanes, std::size_t pitch) {
  Shape s{};
  s.floats = m == Machine::kAvx2                          ? 8
             : m == Machine::kSse4 || m == Machine::kNeon ? 4
             : m == Machine::kScalar                      ? 1
                                                          : 16;
  s.vectors = min_of(lanes / s.floats, m == Machine::kNeon ? 4 : 2);
  s.busy = s.floats == 16 ? 4 : 8;
  const bool known = pitch <= 256 && (pitch & (pitch - 1)) == 0;
  s.keys = !known                  ? 4
           : s.floats == 16        ? (s.vectors == 1 ? 16 : 12)
           : s.vectors == 1        ? 12
           : m == Machine::kScalar ? 2
           : m == Machine::kNeon   ? 5
                                   : 6;
  return s;
}

// Sums over the tiles of one axis, all dilation groups.
struct Sums {
  double tiles = 0, span = 0;
  double pieces = 0, calls = 0, steps = 0;  // of spans cut into pieces of at most `most` keys

  Sums(const Axis& axis, TileSide side, Index length, Index most = 0, const Shape* shape = nullptr) {
    for_each_run_of_groups(axis, side, length, kSample, [&](Interval, Interval seen, double times) {
      const Index n = seen.size();
      tiles += times;
      span += times * number(n);
      if (shape) add_pieces(n, most, *shape, times);
    });
  }
  void add_pieces(Index n, Index most, const Shape& shape, double times) {
    const auto piece = [&](Index keys, double count) {
      const double runs = vectors(keys, shape.keys), wide = number(shape.vectors);
      pieces += count;
      calls += count * runs;
      steps += count * runs * std::max(number(keys) / runs, shape.busy / wide);
    };
    if (n >= most) piece(most, times * number(n / most));
    if (n % most > 0) piece(n % most, times);
  }
};

struct Dims {
  double q, v, heads, kv_heads;
  bool backward;
  explicit Dims(const Problem& p)
      : q(number(p.head_dim)), v(number(p.value_dim)), heads(number(p.heads)), kv_heads(number(p.kv_heads)),
        backward(p.direction == Direction::kBackward) {}
};

double product(const Grid& grid, const TileShape& boxes) {
  double spans = 1;
  for (int a = 0; a < kMaxRank; ++a)
    spans *= Sums(grid.axis[a], TileSide::kQueries, boxes[static_cast<std::size_t>(a)]).span;
  return spans;
}

double tokens(const Grid& grid, bool queries) {
  const Box box = queries ? grid.queries() : grid.keys();
  return number(box.axis[0].size()) * number(box.axis[1].size()) * number(box.axis[2].size());
}

// Storage in 16 bits is converted.
void add_conversion(const Problem& p, Counts& c) {
  if (p.dtype == DType::kBFloat16 || p.dtype == DType::kFloat16)
    c[Count::kConvert] = c[Count::kQuery] + c[Count::kPack];
}

// The stencil kernel: key rows are loaded once per tile and shift, and nothing is masked out.
Counts stencil_counts(const Problem& p, const Grid& grid, const Cut& cut, Machine m) {
  const Dims d(p);
  const StencilCut& s = *cut.stencil;
  const Index floats = shape_of(m, kLanes, 32).floats;
  const auto sums = [&](int a, Index length) { return Sums(grid.axis[a], TileSide::kQueries, length); };
  const Sums t = sums(0, 1), y = sums(1, 1), y2 = sums(1, 2), y4 = sums(1, kStencilRows), x = sums(2, floats);
  const double window = number(s.columns.window), v_vectors = vectors(p.value_dim, floats),
               passes = vectors(static_cast<Index>(v_vectors), floats == 16 ? 4 : 2),
               lanes = x.tiles * number(floats), key_rows = t.span * y4.span,
               pairs = t.span * y.span * x.tiles * window;
  const double tiles = t.tiles * y4.tiles, of_tile = key_rows / std::max(tiles, 1.0),
               chunks = std::ceil(of_tile / number(s.chunk_rows));
  // Query rows of a tile that see a key row, and the shifts of a register tile.
  const double active = std::max(t.span * y.span / std::max(key_rows, 1.0), 1.0),
               room = floats == 16 ? 24 : 10, calls = std::ceil(window * active / room),
               busy = floats == 16 ? 4 : 8;
  Counts c;
  c[Count::kCall] = 1;
  c[Count::kTask] = sums(0, cut.band[0]).tiles * sums(1, cut.band[1]).tiles * sums(2, cut.band[2]).tiles *
                    d.kv_heads / number(cut.heads);
  c[Count::kTile] = tiles;
  c[Count::kPiece] = key_rows * x.tiles * calls * d.heads;
  c[Count::kHead] = tiles * x.tiles * d.heads;
  c[Count::kChunk] = tiles * chunks * lanes * kStencilRows * v_vectors * d.heads;
  c[Count::kScore] = key_rows * x.tiles * calls * std::max(active * window / calls, busy) * d.q * d.heads;
  c[Count::kScoreRun] = key_rows * x.tiles * window * d.q * d.heads;
  c[Count::kExp] = pairs * d.heads;
  c[Count::kWeigh] = pairs * number(floats) * v_vectors * d.heads;
  c[Count::kWeighRow] = t.span * y2.span * lanes / 2 * (window + 1) * passes * d.heads;
  c[Count::kSpan] = t.tiles * y2.tiles * chunks * lanes / 2 * passes * d.heads;
  c[Count::kQuery] = tiles * kStencilRows * lanes * (d.q + d.v) * d.heads;
  double columns = 0, keys = 0;  // packed for the bands along x: with and without padding
  for_each_run_of_groups(grid.axis[2], TileSide::kQueries, cut.band[2], kSample,
                         [&](Interval run, Interval seen, double times) {
                           keys += times * number(seen.size());
                           const Index wide = ceil_div(run.size(), floats) * floats + s.columns.window - 1;
                           columns += times * number(ceil_div(wide, Index{16}) * 16);
                         });
  const double packed = sums(0, cut.band[0]).span * sums(1, cut.band[1]).span * d.kv_heads;
  c[Count::kPack] = packed * keys * (d.q + d.v);
  c[Count::kSpreadRow] = packed * columns * vectors(p.head_dim, floats);
  c[Count::kSegment] = tiles * kStencilRows * x.tiles;
  const double ring = number(static_cast<Index>(stencil_scratch(p, cut))),
               read = key_rows * x.tiles * (number(floats) + window) * (d.q + d.v) * d.heads;
  c[Count::kRing] = read * beyond(ring, kNearBytes);
  c[Count::kRingFar] = read * beyond(ring, kSharedBytes);
  add_conversion(p, c);
  return c;
}

}  // namespace

Counts counts_of(const Problem& p, const Grid& grid, const Cut& cut, Machine m) {
  if (cut.stencil) return stencil_counts(p, grid, cut, m);
  const Dims d(p);
  const std::size_t k_pitch = cut.bf16 ? pair_pitch(p.head_dim) : packed_pitch(p.head_dim);
  const double per_step = number(cut.keys_per_row());  // products of a multiply-add
  const Shape shape = shape_of(m, cut.lanes, k_pitch);
  const double lane_vectors = vectors(cut.lanes, shape.floats), q_vectors = vectors(p.head_dim, shape.floats),
               v_vectors = vectors(p.value_dim, shape.floats);
  const double out_vectors = d.backward ? q_vectors : v_vectors,
               passes = vectors(static_cast<Index>(out_vectors),
                                shape.floats == 16 || m == Machine::kNeon ? 4 : 2);
  const auto sums = [&](const TileShape& s, int a) {
    return Sums(grid.axis[a], TileSide::kQueries, s[static_cast<std::size_t>(a)]);
  };
  const Index most =
      cut.ring_axis == 2 && !cut.streamed ? min_of(cut.chunk_keys, max_of(cut.slots, 1)) : cut.chunk_keys;
  const Sums t = sums(cut.tile, 0), y = sums(cut.tile, 1),
             x(grid.axis[2], TileSide::kQueries, cut.tile[2], most, &shape);
  Sums more(Axis(), TileSide::kQueries, 1);  // the additional keys of a tile
  more.pieces = more.calls = more.steps = 0;
  if (p.additional > 0) more.add_pieces(p.additional, cut.chunk_keys, shape, 1);
  const double tiles = t.tiles * y.tiles * x.tiles, rows = t.span * y.span, added = number(p.additional),
               keys = rows * x.span + tiles * added;
  double pieces = rows * x.pieces + tiles * more.pieces;

  // Chunks of a tile, and what is packed how often.
  double chunks, packed, shared = 0;
  const double row = d.q + d.v, chunk_keys = number(cut.chunk_keys);
  if (cut.streamed) {
    const Sums mt = sums(cut.macro, 0), my = sums(cut.macro, 1), mx = sums(cut.macro, 2);
    const double macros = std::max(mt.tiles * my.tiles * mx.tiles, 1.0), of_tiles = std::max(tiles, 1.0),
                 width = mx.span / std::max(mx.tiles, 1.0), depth = t.span / std::max(t.tiles, 1.0),
                 height = y.span / std::max(y.tiles, 1.0), own = x.span / std::max(x.tiles, 1.0);
    const double all = mt.span * my.span * mx.span / macros / chunk_keys + 1;
    chunks = of_tiles * std::min(all, depth * ((std::max(height - 1, 0.0) * width + own) / chunk_keys + 1));
    packed = (mt.span * my.span * mx.span + macros * added) * d.heads * row;
    pieces += rows * x.span / chunk_keys;  // where a block ends
    if (d.backward) shared = (product(grid, cut.band) + added) * d.kv_heads * row;
    pieces *= d.heads;  // looked up by every head
  } else {
    chunks = std::max(tiles, rows * x.span / chunk_keys + tiles * 0.5);
    const double spans = product(grid, cut.band);
    packed = (spans + added) * d.kv_heads * row;
    if (d.backward) shared = 2 * std::max(spans - tokens(grid, false), 0.0) * d.kv_heads * row;
  }
  chunks += tiles * more.pieces;

  Counts c;
  c[Count::kCall] = 1;
  double tasks = 1;
  for (int a = 0; a < kMaxRank; ++a) tasks *= sums(cut.streamed ? cut.macro : cut.band, a).tiles;
  c[Count::kTask] = tasks * d.kv_heads / number(cut.heads);
  c[Count::kTile] = tiles;
  c[Count::kPiece] = pieces;
  c[Count::kHead] = tiles * d.heads;
  c[Count::kChunk] = chunks * d.heads * number(cut.lanes) * out_vectors;
  const double wide = number(shape.vectors), groups = lane_vectors / wide,
               depth = d.backward ? d.q + d.v : d.q, products = d.backward ? 2 : 1;
  const double steps = rows * x.steps + tiles * more.steps, calls = rows * x.calls + tiles * more.calls;
  c[Count::kScore] = steps * wide * groups * depth * d.heads / per_step;
  c[Count::kScoreRun] = calls * groups * products * d.heads;
  c[Count::kExp] = keys * lane_vectors * d.heads;

  const Sums pt = sums(cut.pack, 0), py = sums(cut.pack, 1), px = sums(cut.pack, 2);
  const double packs = pt.tiles * py.tiles * px.tiles, pack_rows = pt.span * py.span,
               pack_keys = (pack_rows * px.span + packs * added) * d.heads;
  c[Count::kWeigh] = pack_keys * kPack * out_vectors / per_step;
  c[Count::kWeighRow] = pack_keys * passes / per_step;
  c[Count::kSpan] = (pack_rows * px.tiles + packs * more.pieces) * passes * d.heads;
  if (d.backward) {
    const double in_x = px.tiles / std::max(x.tiles, 1.0);  // groups of a tile along x
    c[Count::kSpread] =
        (pack_rows * x.span * in_x + packs * added) * kPack * (q_vectors + v_vectors) * d.heads;
    c[Count::kSpreadRow] = keys * (q_vectors + v_vectors) * d.heads;
  }
  c[Count::kQuery] =
      (tiles * number(cut.lanes) + tokens(grid, true)) * (d.backward ? 1.5 : 0.5) * row * d.heads;
  c[Count::kPack] = packed;
  const double head_rows = d.backward ? 5 : 2;  // of a query and head; streamed keys are packed head by head
  c[Count::kRow] = tokens(grid, true) * d.heads * head_rows + (cut.streamed ? 2 * packed / row : 0);
  c[Count::kSegment] = t.tiles * y.tiles * x.tiles * number(cut.tile[0] * cut.tile[1]);
  c[Count::kShared] = shared;
  if (!cut.streamed) {
    const double ring = number(cut.slots) * number(cut.rows_per_slot * cut.heads) *
                        number(static_cast<Index>(k_pitch + packed_pitch(p.value_dim))) *
                        (d.backward ? 8 : 4);
    c[Count::kRing] = keys * d.heads * row * beyond(ring, kNearBytes);
    c[Count::kRingFar] = keys * d.heads * row * beyond(ring, kSharedBytes);
  }
  add_conversion(p, c);
  return c;
}

Counts general_counts(const Problem& p, const Grid& grid, const TileShape& query_tile,
                      const TileShape& key_tile, Machine m) {
  const Dims d(p);
  const Index floats = max_of(shape_of(m, kLanes, 32).floats / (p.dtype == DType::kFloat64 ? 2 : 1), 1);
  const double lane_vectors = vectors(kLanes, floats), q_vectors = vectors(p.head_dim, floats),
               v_vectors = vectors(p.value_dim, floats), row = d.q + d.v;
  Counts c;
  c[Count::kCall] = 1;
  // One pass: `scored` channels are multiplied lane by lane, `summed` vectors row by row.
  const auto pass = [&](TileSide side, const TileShape& tile, double scored, double summed, double heads) {
    Index strip[kMaxRank] = {tile[0], tile[1], tile[2]};
    for (int a = 0; a < kMaxRank; ++a) {
      const Axis one = group(grid.axis[a], 0);
      if ((side == TileSide::kQueries ? one.queries : one.keys).size() <= strip[a]) continue;
      strip[a] *= kMaxTiles;
      break;
    }
    double tiles = 1, span = 1, strips = 1, strip_span = 1, rows = 1, group_span = 1;
    for (int a = 0; a < kMaxRank; ++a) {
      const Sums of(grid.axis[a], side, tile[static_cast<std::size_t>(a)]),
          whole(grid.axis[a], side, strip[a]);
      tiles *= of.tiles, span *= of.span, strips *= whole.tiles, strip_span *= whole.span;
      rows *= a == 2 ? of.tiles : of.span;
      // Four lanes in a row of the tile, a whole row if that is shorter.
      const Index length = a == 2 ? min_of(tile[2], kLaneGroup) : 1;
      group_span *= Sums(grid.axis[a], side,
                         a == 2 || tile[2] >= kLaneGroup ? length : tile[static_cast<std::size_t>(a)])
                        .span;
    }
    const double added = side == TileSide::kQueries ? number(p.additional) : 0;
    const double keys = span + tiles * added;
    c[Count::kTask] += strips;
    c[Count::kTile] += tiles;
    c[Count::kPiece] += (rows + tiles) * heads;
    c[Count::kHead] += tiles * heads;
    c[Count::kChunk] += (keys / kMaxRows + tiles) * kLanes * summed * heads;
    c[Count::kScore] += keys * lane_vectors * scored * heads;
    c[Count::kExp] += keys * lane_vectors * heads;
    const double groups = number(kGroups) * (tiles * added);
    c[Count::kWeigh] += (std::min(group_span, span * kGroups) + groups) * kLaneGroup * summed * heads;
    c[Count::kSpan] += rows * kGroups * heads;
    c[Count::kQuery] += tiles * kLanes * (scored + summed * number(floats)) * heads;
    c[Count::kPack] += (strip_span + strips * added) * row * heads;
    c[Count::kRow] += (tiles * kLanes + strip_span + strips * added) * 2 * heads;
    c[Count::kSegment] += tiles * number(tile[0] * tile[1]) * heads;
    if (p.bias)
      c[Count::kBias] += keys * lane_vectors * heads * (d.backward && side == TileSide::kQueries ? 2 : 1);
    if (p.dropout > 0) c[Count::kDraw] += keys * lane_vectors * heads;
  };
  if (d.backward) {
    pass(TileSide::kQueries, query_tile, row, q_vectors, d.heads);
    pass(TileSide::kKeys, key_tile, row, q_vectors + v_vectors, d.heads);
    const double lanes = number(ceil_div(p.additional, kLanes) * kLanes);  // additional keys as lanes
    const double seen = lanes / number(floats) * tokens(grid, true) * d.heads;
    c[Count::kScore] += seen * row;
    c[Count::kExp] += seen;
    c[Count::kWeigh] += lanes * tokens(grid, true) * d.heads * (q_vectors + v_vectors);
    c[Count::kPack] += number(ceil_div(p.additional, kLanes)) * tokens(grid, true) * d.heads * row;
  } else {
    pass(TileSide::kQueries, query_tile, d.q, v_vectors, d.heads);
  }
  add_conversion(p, c);
  return c;
}

double tensor_bytes(const Problem& p, const Grid& grid) {
  const Dims d(p);
  return number(size_of(p.dtype)) * (d.backward ? 2 : 1) * (d.q + d.v) *
         (tokens(grid, true) * d.heads + tokens(grid, false) * d.kv_heads);
}

Counts in_memory(const Problem& p, Counts c, double bytes) {
  const double near = std::sqrt(beyond(bytes, kNearBytes)),
               moved = (c[Count::kQuery] + c[Count::kPack]) * number(size_of(p.dtype)) / 4;
  c[Count::kNear] = moved * near;
  c[Count::kNearRow] = c[Count::kRow] * near;
  c[Count::kNearSegment] = c[Count::kSegment] * near;
  c[Count::kFar] = moved * beyond(bytes, kFarBytes);
  return c;
}

double seconds_of(const Counts& counts, std::string_view kernel, Direction direction, Machine m) {
  for (const CostRow& row : kCosts) {
    if (row.machine != m || row.direction != direction || row.kernel != kernel) continue;
    double picoseconds = 0;
    for (std::size_t i = 0; i < kCounts; ++i) picoseconds += row.weight[i] * counts.of[i];
    return picoseconds * 1e-12;
  }
  return std::numeric_limits<double>::infinity();  // without constants nothing is chosen
}

}  // namespace nearfield::cpu
