// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// What a state of the page means. Every question about windows and tiles goes to geometry.h, compiled to
// WebAssembly (bindings/wasm/geometry.cc; geometry.js holds its bytes): there is no rule here.
//
// A state: {rank, extent, window, stride, dilation, causal, queryTile, keyTile, query (arrays, one entry per axis,
// slowest first), view: "raster" | "tiles", show: "keys" | "queries"}.
"use strict";

const kAxes = 3;                       // of geometry.h; those of lower ranks lead with extent 1
const kMaxExtent = [0, 256, 64, 32];   // of the page, by rank
const kCover = {skip: 0, partial: 1, full: 2};

class Model {
  static async load() {
    const bytes = Uint8Array.from(atob(globalThis.nearfieldGeometry), (c) => c.charCodeAt(0));
    const {instance} = await WebAssembly.instantiate(bytes);
    return new Model(instance.exports);
  }

  constructor(geometry) {
    this.geometry = geometry;
    this.version = 0;  // of the problem: what is made of it may be kept while this stays
  }

  // A legal state as near as may be, and in words what of `said`, the names somebody chose, had to change.
  legal(wanted, said = Object.keys(kShort)) {
    const state = structuredClone(wanted), changes = [];
    const within = (name, a, low, high) => {
      const value = Number.isFinite(state[name][a]) ? Math.round(state[name][a]) : low;
      state[name][a] = Math.min(Math.max(value, low), high);
      if (wanted[name][a] !== state[name][a] && name !== "query" && said.includes(name))
        changes.push(`axis ${a}: ${kWords[name] ?? name} ${wanted[name][a]} is ${state[name][a]} here`);
    };
    for (let a = 0; a < state.rank; ++a) {
      within("extent", a, 1, kMaxExtent[state.rank]);
      within("dilation", a, 1, state.extent[a]);
      within("window", a, 1, this.geometry.largest_window(state.extent[a], state.dilation[a]));
      within("stride", a, 1, state.window[a]);
      within("queryTile", a, 1, state.extent[a]);
      within("keyTile", a, 1, state.extent[a]);
      within("query", a, 0, state.extent[a] - 1);
    }
    return {state, changes};
  }

  set(state) {
    this.state = state;
    const {query, view, show, ...problem} = state, text = JSON.stringify(problem);
    if (text === this.problem) return;
    this.problem = text;
    ++this.version;
    this.known = null;
    const lead = kAxes - state.rank;
    for (let axis = 0; axis < kAxes; ++axis) {
      const a = axis - lead;
      if (a < 0) {
        this.geometry.set_axis(axis, 1, 1, 1, 1, 0);
        for (const side of [0, 1]) this.geometry.set_tile(side, axis, 1);
      } else {
        const {extent, window, stride, dilation, causal} = state;
        this.geometry.set_axis(axis, extent[a], window[a], stride[a], dilation[a], causal[a] ? 1 : 0);
        this.geometry.set_tile(0, axis, state.queryTile[a]);
        this.geometry.set_tile(1, axis, state.keyTile[a]);
      }
    }
    this.lead = lead;
    this.tables = state.extent.map((n, a) => this.#table(a, n));
  }

  // sees[q * extent + k] of an axis.
  #table(a, n) {
    const table = new Uint8Array(n * n);
    for (let q = 0; q < n; ++q)
      for (let k = 0; k < n; ++k) table[q * n + k] = this.geometry.sees(a + this.lead, q, k);
    return table;
  }
  sees(a, query, key) {
    return this.tables[a][query * this.state.extent[a] + key] === 1;
  }
  // [begin, end) in tokens: the keys of a query, or the queries of a key.
  interval(a, token, show) {
    const [begin, end] = show === "queries"
      ? [this.geometry.queries_begin, this.geometry.queries_end]
      : [this.geometry.keys_begin, this.geometry.keys_end];
    return [begin(a + this.lead, token), end(a + this.lead, token)];
  }
  tokensOf(a, token, show) {
    const [begin, end] = this.interval(a, token, show), tokens = [];
    for (let t = begin; t < end; t += this.state.dilation[a]) tokens.push(t);
    return tokens;
  }

  get tokens() {
    return this.state.extent.reduce((n, extent) => n * extent, 1);
  }
  counts() {
    return (this.known ??= this.#counts());
  }
  #counts() {
    const g = this.geometry, pairs = g.visible_pairs(), all = this.tokens * this.tokens;
    return {
      pairs, all,
      skipped: g.tile_pairs(kCover.skip), partial: g.tile_pairs(kCover.partial), full: g.tile_pairs(kCover.full),
      tileWaste: g.tile_computed() / pairs, hullWaste: g.hull_computed() / pairs,
    };
  }

  // The tile of a side that a token of an axis is in: tokens, slowest first.
  tileOf(side, a, token) {
    const {geometry: g, lead, state} = this, group = token % state.dilation[a];
    for (let i = 0; i < g.tiles(side, a + lead, group); ++i) {
      const tokens = this.#tile(side, a, group, i);
      if (tokens.includes(token)) return tokens;
    }
    return [];
  }
  #tile(side, a, group, i) {
    const begin = this.geometry.tile_begin(side, a + this.lead, group, i);
    const size = this.geometry.tile_size(side, a + this.lead, group, i);
    return Array.from({length: size}, (_, n) => begin + n * this.state.dilation[a]);
  }
  // Tiles of one axis, group by group: [{group, i, tokens}].
  #axisTiles(side, a) {
    const found = [];
    for (let group = 0; group < this.state.dilation[a]; ++group)
      for (let i = 0; i < this.geometry.tiles(side, a + this.lead, group); ++i)
        found.push({group, i, tokens: this.#tile(side, a, group, i)});
    return found;
  }
  // Tiles of the whole layout: [{axes: one entry per axis of #axisTiles, tokens: coordinates, in raster order}].
  tiles(side) {
    let found = [{axes: [], tokens: [[]]}];
    for (let a = 0; a < this.state.rank; ++a)
      found = found.flatMap((tile) => this.#axisTiles(side, a).map((next) => ({
        axes: [...tile.axes, next],
        tokens: tile.tokens.flatMap((t) => next.tokens.map((x) => [...t, x])),
      })));
    const byGroup = (t) => t.axes.map((x) => x.group);
    return found.sort((a, b) => compare(byGroup(a), byGroup(b)));  // stable: groups first, then raster order
  }
  cover(queryTile, keyTile) {
    let all = kCover.full;
    for (let a = 0; a < this.state.rank; ++a) {
      const q = queryTile.axes[a], k = keyTile.axes[a];
      if (q.group !== k.group) return kCover.skip;
      const one = this.geometry.tile_cover(a + this.lead, q.group, q.i, k.i);
      if (one === kCover.skip) return one;
      if (one === kCover.partial) all = one;
    }
    return all;
  }
}

function compare(a, b) {
  for (let i = 0; i < a.length; ++i) if (a[i] !== b[i]) return a[i] - b[i];
  return 0;
}
