// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The picture of the attention matrix.
"use strict";

const kMatrixTokens = 1024;  // the matrix of more is not drawn

// A colour as the 32 bits that ImageData holds.
function pixel(text) {
  const n = parseInt(text.slice(1), 16);
  return new Uint32Array(new Uint8ClampedArray([n >> 16, (n >> 8) & 255, n & 255, 255]).buffer)[0];
}

// Tokens in the order of rows or columns, and where tiles begin.
function order(model, side) {
  if (model.state.view !== "tiles") return {tiles: [], tokens: product(model.state.extent.map(count)), owner: []};
  const tiles = model.tiles(side);
  return {tiles, tokens: tiles.flatMap((t) => t.tokens), owner: tiles.flatMap((t, i) => t.tokens.map(() => i))};
}

// The whole matrix, a pixel per pair.
function pairs(model, rows, columns, color) {
  const n = model.tokens, tiled = model.state.view === "tiles";
  const paint = Object.fromEntries(Object.entries(color).map(([name, text]) => [name, pixel(text)]));
  const image = new ImageData(n, n), words = new Uint32Array(image.data.buffer);
  const covers = tiled ? rows.tiles.map((q) => columns.tiles.map((k) => model.cover(q, k))) : null;
  for (let i = 0; i < n; ++i)
    for (let j = 0; j < n; ++j) {
      const cover = tiled ? covers[rows.owner[i]][columns.owner[j]] : kCover.skip;
      const sees = () => rows.tokens[i].every((q, a) => model.sees(a, q, columns.tokens[j][a]));
      if (cover === kCover.full) words[i * n + j] = paint.full;
      else words[i * n + j] = sees() ? paint.seen : cover === kCover.partial ? paint.waste : paint.plain;
    }
  const small = new OffscreenCanvas(n, n);
  small.getContext("2d").putImageData(image, 0, 0);
  return small;
}

// Returns what token the row (or the column) under a point is, token(x, y); null where there is no picture.
function drawMatrix(canvas, model, width) {
  const {state} = model, n = model.tokens, color = colors(canvas);
  if (n > kMatrixTokens) return null;
  // All of it depends on the problem alone: a move of the query only moves the frame.
  const {rows, columns, small} = keep(canvas, [model.version, state.view, color], () => {
    const rows = order(model, 0), columns = order(model, 1);
    return {rows, columns, small: pairs(model, rows, columns, color)};
  });
  const whole = Math.min(Math.floor((2 * width) / n) / 2, 16);  // half pixels, where there are so many
  const size = whole >= 1 ? whole : width / n, side = n * size;
  const context = fit(canvas, side, side);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, side, side);
  if (state.view === "tiles") {
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
  return {token: (px, py) => list.tokens[Math.floor((state.show === "keys" ? py : px) / size)] ?? null};
}
