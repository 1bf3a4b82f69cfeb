// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The two pictures of the page: the layout with what one token sees, and the attention matrix.
"use strict";

const kMatrixTokens = 1024;  // the matrix of more is not drawn

// Colours are those of explorer.css, light or dark.
function colors(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(
    ["plain", "seen", "query", "shared", "full", "waste", "line"].map((n) => [n, style.getPropertyValue(`--nf-${n}`).trim()]),
  );
}

function fit(canvas, width, height) {
  const dense = window.devicePixelRatio || 1;
  canvas.width = Math.ceil(width * dense);
  canvas.height = Math.ceil(height * dense);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(dense, dense);
  return context;
}

// Where the cells of a layout lie: 3-D layouts are drawn slice by slice, side by side.
function places(state, width) {
  const [slices, rows, columns] = [...Array(3 - state.rank).fill(1), ...state.extent];
  const gap = 18, title = slices > 1 ? 16 : 0;
  const least = 6, most = state.rank === 1 ? 26 : 28;
  let across = Math.min(slices, Math.max(1, Math.floor((width + gap) / (columns * (slices > 1 ? 11 : least) + gap))));
  const cell = Math.max(3, Math.min(most, Math.floor((width + gap) / across - gap) / columns));
  const size = Math.floor(cell * 2) / 2;
  across = Math.min(slices, Math.max(1, Math.floor((width + gap) / (columns * size + gap))));
  const at = (slice) => ({
    left: (slice % across) * (columns * size + gap),
    top: title + Math.floor(slice / across) * (rows * size + gap + title),
  });
  const height = Math.ceil(slices / across) * (rows * size + gap + title) - gap;
  return {slices, rows, columns, size, at, width: across * (columns * size + gap) - gap, height, title};
}

function drawLayout(canvas, model, width) {
  const {state} = model, where = places(state, width), color = colors(canvas);
  const context = fit(canvas, where.width, where.height + 1);
  const lead = Array(3 - state.rank).fill(0);
  const seen = state.query.map((t, a) => new Set(model.tokensOf(a, t, state.show)));
  const tile = state.query.map((t, a) => new Set(model.tileOf(state.show === "keys" ? 0 : 1, a, t)));
  // Who has the same window, axis by axis: the same interval of the same dilation group.
  const alike = state.query.map((t, a) => {
    const mine = String(model.interval(a, t, state.show));
    return new Set(Array.from({length: state.extent[a]}, (_, o) => o).filter((o) => String(model.interval(a, o, state.show)) === mine));
  });
  const inset = Math.max(0.5, where.size / 24);
  const square = (place, y, x, fill, border) => {
    context.fillStyle = fill;
    context.fillRect(place.left + x * where.size + border, place.top + y * where.size + border,
                     where.size - 2 * border, where.size - 2 * border);
  };
  for (let z = 0; z < where.slices; ++z) {
    const place = where.at(z);
    if (where.title) {
      context.fillStyle = color.line;
      context.font = "12px sans-serif";
      context.fillText(String(z), place.left, place.top - 4);
    }
    for (let y = 0; y < where.rows; ++y)
      for (let x = 0; x < where.columns; ++x) {
        const token = [z, y, x].slice(lead.length);
        const isSeen = token.every((t, a) => seen[a].has(t));
        square(place, y, x, isSeen ? color.seen : color.plain, inset);
        if (token.every((t, a) => t === state.query[a])) square(place, y, x, color.query, where.size * 0.16);
        else if (token.every((t, a) => alike[a].has(t))) square(place, y, x, color.shared, where.size * 0.32);
        if (state.view === "tiles" && token.every((t, a) => tile[a].has(t))) {
          context.strokeStyle = color.query;
          context.lineWidth = Math.max(1, where.size / 14);
          context.strokeRect(place.left + x * where.size + 1, place.top + y * where.size + 1, where.size - 2, where.size - 2);
        }
      }
  }
  return (px, py) => {  // the token under a point, or null
    for (let z = 0; z < where.slices; ++z) {
      const place = where.at(z), x = Math.floor((px - place.left) / where.size), y = Math.floor((py - place.top) / where.size);
      if (x >= 0 && x < where.columns && y >= 0 && y < where.rows) return [z, y, x].slice(lead.length);
    }
    return null;
  };
}

function rgb(text) {
  const n = parseInt(text.slice(1), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}

// Tokens in the order of rows or columns, and where tiles begin.
function order(model, side) {
  if (model.state.view === "tiles") {
    const tiles = model.tiles(side);
    return {tiles, tokens: tiles.flatMap((t) => t.tokens), owner: tiles.flatMap((t, i) => t.tokens.map(() => i))};
  }
  let tokens = [[]];
  for (const n of model.state.extent) tokens = tokens.flatMap((t) => Array.from({length: n}, (_, x) => [...t, x]));
  return {tiles: [], tokens, owner: []};
}

function drawMatrix(canvas, model, width) {
  const {state} = model, n = model.tokens, color = colors(canvas);
  if (n > kMatrixTokens) return null;
  const rows = order(model, 0), columns = order(model, 1), tiled = state.view === "tiles";
  const whole = Math.min(Math.floor((2 * width) / n) / 2, 16);  // half pixels, where there are so many
  const size = whole >= 1 ? whole : width / n, side = n * size;
  const context = fit(canvas, side, side);
  const paint = Object.fromEntries(Object.entries(color).map(([name, text]) => [name, rgb(text)]));
  const image = new ImageData(n, n);
  const covers = tiled ? rows.tiles.map((q) => columns.tiles.map((k) => model.cover(q, k))) : null;
  for (let i = 0; i < n; ++i)
    for (let j = 0; j < n; ++j) {
      const sees = rows.tokens[i].every((q, a) => model.sees(a, q, columns.tokens[j][a]));
      const cover = tiled ? covers[rows.owner[i]][columns.owner[j]] : kCover.skip;
      const name = cover === kCover.full ? "full" : sees ? "seen" : cover === kCover.partial ? "waste" : "plain";
      image.data.set([...paint[name], 255], 4 * (i * n + j));
    }
  const small = new OffscreenCanvas(n, n);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, side, side);
  if (tiled) {
    context.strokeStyle = color.line;
    context.lineWidth = 0.5;
    context.globalAlpha = 0.55;
    context.beginPath();
    rows.owner.forEach((o, i) => i > 0 && o !== rows.owner[i - 1] && (context.moveTo(0, i * size), context.lineTo(side, i * size)));
    columns.owner.forEach((o, i) => i > 0 && o !== columns.owner[i - 1] && (context.moveTo(i * size, 0), context.lineTo(i * size, side)));
    context.stroke();
    context.globalAlpha = 1;
  }
  // The row of the query, or the column of the key.
  const list = state.show === "keys" ? rows : columns;
  const mine = list.tokens.findIndex((t) => t.every((x, a) => x === state.query[a]));
  context.strokeStyle = color.query;
  context.lineWidth = 1.5;
  if (state.show === "keys") context.strokeRect(0.75, mine * size, side - 1.5, size);
  else context.strokeRect(mine * size, 0.75, size, side - 1.5);
  return (px, py) => list.tokens[Math.floor((state.show === "keys" ? py : px) / size)] ?? null;
}
