// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A state of the page as text: the link (behind the #), the problem string, the call in Python.
"use strict";

const kDefaults = {
  1: {extent: [32], window: [7], query: [12], queryTile: [4], keyTile: [4]},
  2: {extent: [12, 12], window: [5, 5], query: [5, 6], queryTile: [4, 4], keyTile: [4, 4]},
  3: {extent: [6, 10, 10], window: [3, 5, 5], query: [3, 4, 5], queryTile: [2, 4, 4], keyTile: [2, 4, 4]},
};
const kShort = {
  extent: "x", window: "k", stride: "s", dilation: "d", causal: "c", query: "q", queryTile: "tq", keyTile: "tk",
};

const kWords = {queryTile: "query tile", keyTile: "key tile"};  // other names are words

function defaultState(rank) {
  const all = (x) => Array(rank).fill(x);
  const own = structuredClone(kDefaults[rank]);
  return {rank, stride: all(1), dilation: all(1), causal: all(false), view: "raster", show: "keys", ...own};
}

// "x=12x12&k=5x5&q=5x6": what is default is left out, but not the layout.
function toHash(state) {
  const standard = defaultState(state.rank), parts = [];
  for (const [name, short] of Object.entries(kShort)) {
    const text = name === "causal" ? state.causal.map(Number).join("") : state[name].join("x");
    const usual = name === "causal" ? standard.causal.map(Number).join("") : standard[name].join("x");
    if (text !== usual || name === "extent") parts.push(`${short}=${text}`);
  }
  for (const name of ["view", "show"]) if (state[name] !== standard[name]) parts.push(`${name}=${state[name]}`);
  return parts.join("&");
}

// A hash without any NAME=VALUE is a heading's: it says nothing about a state.
const saysSomething = (text) => text.includes("=");

// {state, said, notes}: what the text says, the names it says it of, and in words what of it could not be read; that
// stays default.

function fromHash(text) {
  const given = new URLSearchParams(text.replace(/^#/, "")), notes = [], said = [];
  const numbers = (short) => (given.get(short) ?? "").split("x").map((n) => (/^\d+$/.test(n) ? Number(n) : NaN));
  const rank = numbers("x").length;
  if (!(rank in kDefaults) || numbers("x").some(Number.isNaN)) {
    if (saysSomething(text))
      notes.push(`the link has no layout that can be read (x=12x12, say): this is ${kDefaults[2].extent.join("x")}`);
    return {state: defaultState(2), said, notes};
  }
  const state = defaultState(rank);
  for (const [name, short] of Object.entries(kShort)) {
    if (!given.has(short)) continue;
    const value = given.get(short), causal = name === "causal";
    const read = causal ? (/^[01]*$/.test(value) ? [...value].map((c) => c === "1") : []) : numbers(short);
    if (read.length === rank && !read.some(Number.isNaN)) {
      state[name] = read;
      said.push(name);
    } else {
      notes.push(`the link's ${short}=${value} is no ${kWords[name] ?? name} of ${rank} ${rank > 1 ? "axes" : "axis"}`);
    }
  }
  for (const [name, values] of [["view", ["raster", "tiles"]], ["show", ["keys", "queries"]]]) {
    if (values.includes(given.get(name))) state[name] = given.get(name);
    else if (given.has(name)) notes.push(`the link's ${name}=${given.get(name)} is not ${values.join(" or ")}`);
  }
  const known = [...Object.values(kShort), "view", "show"];
  for (const name of given.keys()) if (!known.includes(name)) notes.push(`the link's ${name} means nothing here`);
  return {state, said, notes};
}

function problemString(state) {
  const axes = (mark, values, usual) =>
    values.some((v) => v !== usual) ? `:${mark}${values.map(Number).join(mark === "c" ? "" : "x")}` : "";
  return `na:fwd:f32:b1h4kv4d64:${state.extent.join("x")}:k${state.window.join("x")}` +
    axes("s", state.stride, 1) + axes("d", state.dilation, 1) + axes("c", state.causal, false);
}

function pythonCall(state) {
  const word = (v) => (v === true ? "True" : v === false ? "False" : String(v));
  const value = (values) =>
    values.every((v) => v === values[0]) ? word(values[0]) : `(${values.map(word).join(", ")})`;
  let call = `nf.na${state.rank}d(q, k, v, kernel_size=${value(state.window)}`;
  for (const [name, argument, usual] of [
    ["stride", "stride", 1], ["dilation", "dilation", 1], ["causal", "is_causal", false],
  ])
    if (state[name].some((v) => v !== usual)) call += `, ${argument}=${value(state[name])}`;
  return `${call})`;
}
