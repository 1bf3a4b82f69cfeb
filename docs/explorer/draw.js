// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The picture of the layout with what one token sees, and what both pictures share.
"use strict";

// Colours are those of explorer.css, light or dark.
function colors(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(
    ["plain", "seen", "query", "shared", "full", "waste", "line"].map((n) => [n, style.getPropertyValue(`--nf-${n}`).trim()]),
  );
}

const density = () => window.devicePixelRatio || 1;

// An empty canvas of that size, to be drawn on in CSS pixels.
function fit(canvas, width, height) {
  const dense = density(), pixels = [Math.ceil(width * dense), Math.ceil(height * dense)];
  // Setting a size allocates the pixels anew, which a move of the query need not.
  if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
  if (canvas.style) [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// keep(canvas, key, make): what make() gave for this key, made again only when the key is another.
const kept = new WeakMap();
function keep(canvas, key, make) {
  const text = JSON.stringify(key);
  if (kept.get(canvas)?.text !== text) kept.set(canvas, {text, value: make()});
  return kept.get(canvas).value;
}

// The cells of a layout: {wide, high} of one, {width, height} of all, corner(token) and token(x, y), in CSS pixels.
function places(state, width) {
  return state.rank === 1 ? strip(state.extent[0], width) : slices(state, width);
}

// One axis is a strip of cells that are never lower than a finger or pointer needs; where they would be too
// narrow for the page it goes on in further lines.
function strip(n, width) {
  const least = width < 400 ? 6 : 4, most = 26, gap = 18;
  const lines = Math.ceil(n / Math.floor(width / least)), across = Math.ceil(n / lines);
  const wide = Math.min(most, Math.floor(width / across)), high = Math.max(wide, 22), title = lines > 1 ? 16 : 0;
  const top = (line) => title + line * (high + gap);
  return {
    wide, high, width: across * wide, height: top(lines - 1) + high,
    titles: lines > 1 ? Array.from({length: lines}, (_, i) => [i * across, 0, top(i)]) : [],
    corner: ([x]) => [(x % across) * wide, top(Math.floor(x / across))],
    token(px, py) {
      const line = Math.floor((py - title) / (high + gap)), x = Math.floor(px / wide), y = py - top(line);
      const token = line * across + x;
      return line >= 0 && y < high && x >= 0 && x < across && token < n ? [token] : null;
    },
  };
}

// Volumes lie slice by slice, side by side, in the largest cells with which all of them are seen at once.
function slices(state, width) {
  const [count, rows, columns] = [...Array(3 - state.rank).fill(1), ...state.extent];
  const title = count > 1 ? 16 : 0, tall = width < 400 ? 600 : Math.min(width, 640), least = 3;
  let size = 29, gap, across, height;
  do {
    --size;
    gap = size < 12 ? 10 : 18;
    across = Math.min(count, Math.floor((width + gap) / (columns * size + gap)));
    height = Math.ceil(count / across) * (rows * size + gap + title) - gap;
  } while (size > least && (across < 1 || height > tall));
  across = Math.max(across, 1);
  const at = (z) => [
    (z % across) * (columns * size + gap), title + Math.floor(z / across) * (rows * size + gap + title),
  ];
  const lead = 3 - state.rank;
  return {
    wide: size, high: size, width: across * (columns * size + gap) - gap, height,
    titles: title ? Array.from({length: count}, (_, z) => [z, ...at(z)]) : [],
    corner(token) {
      const [z, y, x] = [...Array(lead).fill(0), ...token], [left, top] = at(z);
      return [left + x * size, top + y * size];
    },
    token(px, py) {
      for (let z = 0; z < count; ++z) {
        const [left, top] = at(z), x = Math.floor((px - left) / size), y = Math.floor((py - top) / size);
        if (x >= 0 && x < columns && y >= 0 && y < rows) return [z, y, x].slice(lead);
      }
      return null;
    },
  };
}

// All tokens with one coordinate of each list, in raster order.
function product(lists) {
  let tokens = [[]];
  for (const list of lists) tokens = tokens.flatMap((t) => list.map((x) => [...t, x]));
  return tokens;
}
const count = (n) => Array.from({length: n}, (_, i) => i);

// A mark that fills a share of a cell. Pixels are whole ones: small cells would blur.
function mark(context, where, token, color, share) {
  const [left, top] = where.corner(token);
  const [wide, high] = [where.wide, where.high].map((n) => Math.max(1, Math.round((n - Math.max(1, n / 12)) * share)));
  context.fillStyle = color;
  context.fillRect(left + Math.floor((where.wide - wide) / 2), top + Math.floor((where.high - high) / 2), wide, high);
}

// Returns the places of the cells.
function drawLayout(canvas, model, width) {
  const {state} = model, color = colors(canvas);
  // Cells of which nothing is said yet: they stay while the query moves.
  const {where, plain} = keep(canvas, [state.extent, width, color, density()], () => {
    const where = places(state, width), plain = new OffscreenCanvas(1, 1);
    const context = fit(plain, where.width, where.height + 1);
    for (const token of product(state.extent.map(count))) mark(context, where, token, color.plain, 1);
    context.fillStyle = color.line;
    context.font = "12px sans-serif";
    for (const [title, left, top] of where.titles) context.fillText(String(title), left, top - 4);
    return {where, plain};
  });
  const context = fit(canvas, where.width, where.height + 1);
  context.drawImage(plain, 0, 0, plain.width / density(), plain.height / density());
  const seen = state.query.map((t, a) => model.tokensOf(a, t, state.show));
  for (const token of product(seen)) mark(context, where, token, color.seen, 1);
  // Who has the same window, axis by axis: the same interval of the same dilation group.
  const alike = state.query.map((t, a) => {
    const mine = String(model.interval(a, t, state.show));
    return count(state.extent[a]).filter((o) => String(model.interval(a, o, state.show)) === mine);
  });
  for (const token of product(alike))
    if (String(token) !== String(state.query)) mark(context, where, token, color.shared, 0.4);
  mark(context, where, state.query, color.query, where.wide < 9 ? 1 : 0.74);
  if (state.view === "tiles") {
    context.strokeStyle = color.query;
    context.lineWidth = where.wide < 9 ? 1 : Math.max(2, where.wide / 10);
    context.lineCap = "square";
    // Around the tile, not around each cell of it: small cells would vanish under their frames.
    const tile = state.query.map((t, a) => model.tileOf(state.show === "keys" ? 0 : 1, a, t));
    const {wide, high} = where, last = state.rank - 1;
    const sides = [[last, -1, 0, 0, 0, high], [last, 1, wide, 0, wide, high], [last - 1, -1, 0, 0, wide, 0],
                   [last - 1, 1, 0, high, wide, high]];
    context.beginPath();
    for (const token of product(tile)) {
      const [left, top] = where.corner(token);
      for (const [axis, step, x, y, toX, toY] of sides) {
        if (axis >= 0 && tile[axis].includes(token[axis] + step)) continue;
        context.moveTo(left + x, top + y);
        context.lineTo(left + toX, top + toY);
      }
    }
    context.stroke();
  }
  return where;
}
