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
  let state, under = {};

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
    const other = state.show === "keys" ? "keys" : "queries";
    find("counts").innerHTML = [
      ["visible pairs", `${number(counts.pairs)} of ${number(counts.all)} (${share} %)`],
      ["tile pairs", `${number(counts.skipped)} skipped, ${number(counts.partial)} partial, ${number(counts.full)} full`],
      ["waste of these tile pairs", counts.tileWaste.toFixed(2)],
      ["waste of gathered hulls", counts.hullWaste.toFixed(2)],
    ].map(([name, value]) => `<tr><th>${name}</th><td>${value}</td></tr>`).join("");
    find("seen").innerHTML = `<thead><tr><th>axis</th><th>${state.show === "keys" ? "query" : "key"}</th><th>${other}</th></tr></thead>` +
      state.query.map((t, a) => {
        const tokens = model.tokensOf(a, t, state.show);
        return `<tr data-axis="${a}"><td>${a}</td><td>${t}</td><td>${tokens.join(" ")}</td></tr>`;
      }).join("");
    find("problem").textContent = problemString(state);
    find("call").textContent = pythonCall(state);
    find("seen-title").textContent = state.show === "keys" ? "The query and what it sees" : "The key and who sees it";
    for (const part of root.querySelectorAll("[data-view]")) part.hidden = part.dataset.view !== state.view;
  }

  function draw() {
    const wide = find("pictures").clientWidth, column = wide > 760 ? (wide - 32) / 2 : wide;
    under.layout = drawLayout(find("layout"), model, state.rank === 1 ? wide : column);
    under.matrix = drawMatrix(find("matrix"), model, column);
    find("pictures").classList.toggle("nf-stacked", state.rank === 1);
    find("matrix").hidden = under.matrix === null;
    find("too-many").hidden = under.matrix !== null;
  }

  // Makes a state legal and shows it. The link follows, without a step in the browser's history.
  function take(wanted, {keep = false, notes = []} = {}) {
    const {state: legal, changes} = model.legal(wanted);
    state = legal;
    model.set(state);
    if (!keep) {
      controls();
      find("note").textContent = [...notes, ...changes].join("; ");
    }
    words();
    draw();
    history.replaceState(null, "", `#${toHash(state)}`);
  }

  function over(name, event) {
    const canvas = find(name), box = canvas.getBoundingClientRect();
    const token = under[name]?.(event.clientX - box.left, event.clientY - box.top);
    if (token && String(token) !== String(state.query)) take({...state, query: token}, {keep: true});
  }

  for (const name of ["layout", "matrix"]) {
    find(name).addEventListener("pointermove", (event) => over(name, event));
    find(name).addEventListener("pointerdown", (event) => over(name, event));
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
      take({...state, query}, {keep: true});
    });
  }
  for (const button of root.querySelectorAll("[data-rank]"))
    button.addEventListener("click", () => take(defaultState(Number(button.dataset.rank))));
  for (const link of root.querySelectorAll("[data-state]"))
    link.addEventListener("click", () => take(fromHash(link.dataset.state).state));
  for (const name of ["view", "show"])
    for (const radio of root.querySelectorAll(`input[name="nf-${name}"]`))
      radio.addEventListener("change", () => take({...state, [name]: radio.value}));
  for (const button of root.querySelectorAll("[data-copy]"))
    button.addEventListener("click", async () => {
      const what = button.dataset.copy;
      await navigator.clipboard.writeText(what === "link" ? location.href : find(what).textContent);
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "copy"), 1200);
    });
  const start = () => {
    const {state: wanted, notes} = fromHash(location.hash);
    take(wanted, {notes});
  };
  window.addEventListener("hashchange", start);
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
  };
})();
