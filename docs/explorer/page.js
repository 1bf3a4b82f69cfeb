// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The controls of docs/explorer.md: a state goes in, pictures and text come out, and the link keeps it.
"use strict";

(async () => {
  const root = document.getElementById("nf-explorer");
  if (!root) return;
  const find = (name) => root.querySelector(`[data-nf="${name}"]`);
  const model = await Model.load();
  const numbers = [
    ["extent", "extent"], ["window", "window"], ["stride", "stride"], ["dilation", "dilation"],
    ["queryTile", "query tile"], ["keyTile", "key tile"],
  ];
  // `pinned`: a pointer that only passes over the pictures moves nothing.
  let state, under = {}, pinned = false, writing = 0;

  // Inputs per axis; they stay while the rank does, and so does the focus.
  function inputs() {
    const table = find("axes");
    const head = ["axis", ...numbers.slice(0, 4).map(([, title]) => title), "causal", ...numbers.slice(4).map(([, title]) => title)];
    table.innerHTML = `<thead><tr>${head.map((h) => `<th>${h}</th>`).join("")}</tr></thead>`;
    const body = table.createTBody();
    for (let a = 0; a < state.rank; ++a) {
      const row = body.insertRow();
      row.insertCell().textContent = a;
      const number = ([name, title]) => {
        const input = Object.assign(document.createElement("input"), {type: "number", min: 1});
        if (name === "extent") input.max = kMaxExtent[state.rank];
        input.setAttribute("aria-label", `${title} of axis ${a}`);
        Object.assign(input.dataset, {name, axis: a});
        input.addEventListener("change", () => {
          const wanted = structuredClone(state);
          if (Number.isFinite(input.valueAsNumber)) {
            wanted[name][a] = input.valueAsNumber;
            take(wanted);
          } else {
            take(wanted, {notes: [`axis ${a}: expected a number for the ${title}, ${state[name][a]} stays`]});
          }
        });
        row.insertCell().append(input);
      };
      numbers.slice(0, 4).forEach(number);
      const causal = Object.assign(document.createElement("input"), {type: "checkbox"});
      causal.setAttribute("aria-label", `causal on axis ${a}`);
      Object.assign(causal.dataset, {name: "causal", axis: a});
      causal.addEventListener("change", () => {
        const wanted = structuredClone(state);
        wanted.causal[a] = causal.checked;
        take(wanted);
      });
      row.insertCell().append(causal);
      numbers.slice(4).forEach(number);
    }
  }

  function controls() {
    if (find("axes").querySelectorAll("tbody tr").length !== state.rank) inputs();
    find("limits").textContent = `At most ${Array(state.rank).fill(kMaxExtent[state.rank]).join(" × ")} tokens here; ` +
      `the matrix is drawn of up to ${kMatrixTokens} tokens.`;
    for (const input of find("axes").querySelectorAll("input")) {
      const value = state[input.dataset.name][input.dataset.axis];
      if (input.type === "checkbox") input.checked = value;
      else input.value = value;
    }
    for (const button of root.querySelectorAll("[data-rank]"))
      button.setAttribute("aria-pressed", String(Number(button.dataset.rank) === state.rank));
    for (const name of ["view", "show"])
      for (const radio of root.querySelectorAll(`input[name="nf-${name}"]`)) radio.checked = radio.value === state[name];
  }

  function words() {
    const counts = model.counts(), number = (x) => x.toLocaleString("en");
    const percent = (100 * counts.pairs) / counts.all;
    const share = percent >= 10 ? percent.toFixed(0) : percent.toPrecision(2);
    const keys = state.show === "keys", other = keys ? "keys" : "queries";
    find("counts").innerHTML = [
      ["visible pairs", `${number(counts.pairs)} of ${number(counts.all)} (${share} %)`],
      ["tile pairs", `${number(counts.skipped)} skipped, ${number(counts.partial)} partial, ${number(counts.full)} full`],
      ["waste of these tile pairs", counts.tileWaste.toFixed(2)],
      ["waste of gathered hulls", counts.hullWaste.toFixed(2)],
    ].map(([name, value]) => `<tr><th>${name}</th><td>${value}</td></tr>`).join("");
    find("seen").innerHTML = `<thead><tr><th>axis</th><th>${keys ? "query" : "key"}</th><th>${other}</th></tr></thead>` +
      state.query.map((t, a) => {
        const tokens = model.tokensOf(a, t, state.show);
        return `<tr data-axis="${a}"><td>${a}</td><td>${t}</td><td>${tokens.join(" ")}</td></tr>`;
      }).join("");
    find("problem").textContent = problemString(state);
    find("call").textContent = pythonCall(state);
    find("link").textContent = address();
    find("seen-title").textContent = keys ? "The query and what it sees" : "The key and who sees it";
    find("this").textContent = keys ? "this query" : "this key";
    find("sight").textContent = keys ? "keys it sees" : "queries that see it";
    find("alike").textContent = keys ? "queries with the same window" : "keys seen by the same queries";
    find("pin").textContent = pinned
      ? `Pinned: ${keys ? "query" : "key"} ${state.query.join(", ")}. A click on it lets go, one elsewhere pins that token.`
      : "A click pins the token under the pointer.";
    for (const part of root.querySelectorAll("[data-view]")) part.hidden = part.dataset.view !== state.view;
  }

  function draw() {
    const wide = find("pictures").clientWidth, column = wide > 760 ? (wide - 32) / 2 : wide;
    const stacked = state.rank === 1 || model.tokens > kMatrixTokens;
    under.layout = drawLayout(find("layout"), model, stacked ? wide : column);
    under.matrix = drawMatrix(find("matrix"), model, column);
    find("pictures").classList.toggle("nf-stacked", stacked);
    find("matrix").hidden = under.matrix === null;
    find("too-many").hidden = under.matrix !== null;
  }

  const address = () => `${location.href.split("#")[0]}#${toHash(state)}`;

  // Browsers allow few changes of the address in a time, so it waits until the moves end.
  function writeLink() {
    if (writing) history.replaceState(null, "", address());
    clearTimeout(writing);
    writing = 0;
  }
  function writeLinkLater() {
    clearTimeout(writing);
    writing = setTimeout(writeLink, 200);
  }

  // Makes a state legal and shows it. The link follows, without a step in the browser's history.
  function take(wanted, {said, notes = [], moved = false} = {}) {
    const {state: legal, changes} = model.legal(wanted, said);
    state = legal;
    model.set(state);
    if (!moved) {
      controls();
      find("note").textContent = [...notes, ...changes].join("; ");
    }
    words();
    draw();
    writeLinkLater();
  }
  // A state from elsewhere: nobody has pinned its query yet.
  function takeNew(wanted, options) {
    pinned = false;
    take(wanted, options);
  }

  function over(name, event) {
    const box = find(name).getBoundingClientRect();
    const token = under[name]?.token(event.clientX - box.left, event.clientY - box.top);
    return token && {token, same: String(token) === String(state.query)};
  }

  for (const name of ["layout", "matrix"]) {
    // Fingers do not hover, so they need no pin: they tap, or draw sideways; up and down they scroll.
    let touch = false, left = 0;
    find(name).addEventListener("pointerdown", (event) => {
      touch = event.pointerType === "touch";
      left = event.clientX;
    });
    find(name).addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch" && Math.abs(event.clientX - left) < 10) return;
      const at = over(name, event);
      if (at && !at.same && !pinned) take({...state, query: at.token}, {moved: true});
    });
    find(name).addEventListener("click", (event) => {
      const at = over(name, event);
      if (!at) return;
      pinned = !touch && !(pinned && at.same);
      take({...state, query: at.token}, {moved: true});
    });
    find(name).addEventListener("keydown", (event) => {
      const last = state.rank - 1, page = state.rank - 3;
      const moves = {
        ArrowRight: [last, 1], ArrowLeft: [last, -1], ArrowDown: [last - 1, 1], ArrowUp: [last - 1, -1],
        PageDown: [page, 1], PageUp: [page, -1],
      };
      const [axis, step] = moves[event.key] ?? [-1, 0];
      if (axis < 0) return;
      event.preventDefault();
      const query = [...state.query];
      query[axis] += step;
      take({...state, query}, {moved: true});
    });
  }
  for (const button of root.querySelectorAll("[data-rank]"))
    button.addEventListener("click", () => {
      const rank = Number(button.dataset.rank);
      if (rank !== state.rank) takeNew(defaultState(rank));
    });
  for (const link of root.querySelectorAll("[data-state]"))
    link.addEventListener("click", () => takeNew(fromHash(link.dataset.state).state));
  for (const name of ["view", "show"])
    for (const radio of root.querySelectorAll(`input[name="nf-${name}"]`))
      radio.addEventListener("change", () => take({...state, [name]: radio.value}));
  for (const button of root.querySelectorAll("[data-copy]"))
    button.addEventListener("click", async () => {
      const text = find(button.dataset.copy);
      writeLink();
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "copied";
      } catch {  // no clipboard on plain http, or no leave to use it
        text.hidden = false;
        getSelection().selectAllChildren(text);
        button.textContent = "press Ctrl-C";
      }
      setTimeout(() => (button.textContent = "copy"), 2500);
    });
  const start = () => {
    const {state: wanted, ...options} = fromHash(location.hash);
    takeNew(wanted, options);
  };
  window.addEventListener("hashchange", () => saysSomething(location.hash) && start());
  for (const leaving of ["blur", "pagehide"]) window.addEventListener(leaving, writeLink);
  window.addEventListener("resize", drawLater());
  new MutationObserver(() => draw()).observe(document.body, {attributeFilter: ["data-md-color-scheme"]});
  start();
  root.dataset.ready = "1";

  function drawLater() {
    let waiting = 0;
    return () => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => draw());
    };
  }

  // For tests: [begin, end) of every token of every axis, as the page has them.
  globalThis.nearfieldExplorer = {
    intervals: (show) => state.extent.map((n, a) => Array.from({length: n}, (_, t) => model.interval(a, t, show))),
    state: () => structuredClone(state),
    counts: () => model.counts(),
    corner: (token) => under.layout.corner(token),
    cell: () => [under.layout.wide, under.layout.high],
  };
})();
