// What one update on a corpus (row) does to the log-prob of each probe (column), in thousandths of a nat per token. Click a cell, or
// walk with the arrow keys and press Enter: below stand what was learned from, what was asked, and the numbers behind the cell.
"use strict";

kit.start((data, root) => {
  const { kinds, steps, unit } = data, corpora = Object.keys(data.corpora);
  const mean = ({ corpus, kind }) => data.cells[steps.at(-1)][corpus][kind][0];
  const pairs = corpora.flatMap((corpus) => kinds.map((kind) => ({ corpus, kind })));
  const lowered = pairs.reduce((best, pair) => (mean(pair) < mean(best) ? pair : best)); // the cell that is open at first
  const state = kit.recall("state", { step: steps.at(-1), ...lowered, probe: 0, sample: 0 });
  const cell = (corpus = state.corpus, kind = state.kind) => data.cells[state.step][corpus][kind];
  const decided = ([, low, high]) => low !== null && (low > 0 || high < 0);
  const probes = () => data.probes.map((_, k) => k).filter((k) => data.probes[k].kind === state.kind);
  const samples = () => data.corpora[state.corpus].samples;

  // The map ------------------------------------------------------------------------------------------------------------
  function short(value) { // two digits, so that a cell holds them
    const size = Math.abs(value);
    return size < 0.01 ? "0" : value.toFixed(size >= 9.95 ? 0 : size >= 0.995 ? 1 : 2).replace(/^(-?)0\./, "$1.");
  }
  const label = (own) => (decided(own) ? short(own[0] / unit) : `(${short(own[0] / unit)})`);
  const top = () => Math.max(1e-12, ...pairs.map(({ corpus, kind }) => Math.abs(cell(corpus, kind)[0])));
  function colour(value, most) { // logarithmic on both sides of 0, as in the static figure
    const share = (Math.sign(value) * Math.log1p((300 * Math.abs(value)) / most)) / Math.log1p(300);
    return data.colours[Math.round(((share + 1) / 2) * (data.colours.length - 1))];
  }

  const buttons = new Map(), key = (corpus, kind) => `${corpus}\n${kind}`;
  const BUTTON = "width:100%;height:25px;padding:0;border:1px solid #fff;border-radius:0;font-size:11.5px";
  const HEAD = "padding:0 0 4px;height:118px;vertical-align:bottom;text-align:center;border:0";
  const UPRIGHT = "writing-mode:vertical-rl;transform:rotate(180deg);font-size:12px";
  const SIDE = "text-align:left;font-size:12.5px;padding:0 4px;border:0", BARE = "padding:0;border:0";
  function makeMap() {
    const head = kinds.map((kind) => kit.el("th", { scope: "col", style: HEAD }, kit.el("span", { style: UPRIGHT }, kind)));
    const button = (corpus, kind) => {
      const node = kit.button("", () => open(corpus, kind), { tabindex: "-1", style: BUTTON, "data-corpus": corpus, "data-kind": kind });
      buttons.set(key(corpus, kind), node);
      return kit.el("td", { style: BARE }, node);
    };
    const name = (corpus) => kit.el("th", { scope: "row", style: SIDE }, corpus);
    const line = (corpus) => kit.el("tr", {}, name(corpus), kinds.map((kind) => button(corpus, kind)));
    const corner = kit.el("td", { style: `${BARE};width:106px` });
    return kit.el("table", { style: "width:100%;table-layout:fixed" }, kit.el("tr", {}, corner, head), corpora.map(line));
  }
  function colourMap() {
    const most = top();
    for (const [name, node] of buttons) {
      const [corpus, kind] = name.split("\n"), own = cell(corpus, kind), back = colour(own[0], most);
      node.textContent = label(own);
      node.style.background = back;
      node.style.color = kit.ink(back);
      node.setAttribute("aria-label", `${corpus} on ${kind}: ${kit.text(own[0] / unit)}${decided(own) ? "" : ", undecided"}`);
      node.dataset.value = own[0];
    }
  }
  let at = null;
  function focus(corpus, kind, really) {
    at?.setAttribute("tabindex", "-1");
    at = buttons.get(key(corpus, kind));
    at.setAttribute("tabindex", "0");
    if (really) at.focus();
  }
  function walk(rows, columns) {
    const { corpus, kind } = document.activeElement?.dataset.kind ? document.activeElement.dataset : at.dataset;
    const next = (names, name, by) => names[Math.min(names.length - 1, Math.max(0, names.indexOf(name) + by))];
    focus(next(corpora, corpus, rows), next(kinds, kind, columns), true);
  }

  // The pair -----------------------------------------------------------------------------------------------------------
  const [learned, probed] = [0, 1].map(() => kit.el("div", { style: "flex:1 1 0" })), told = kit.el("div", { style: "flex:0 0 292px" });
  function card(node, title, own, [count, place], act) {
    const turn = (sign, by, words) =>
      kit.button(sign, () => act((place + by + count) % count), { "aria-label": `${title}, ${words}`, style: "padding:0 7px" });
    const turns = count > 1 ? [turn("◀", -1, "the one before"), `${place + 1} of ${count}`, turn("▶", 1, "the next one")] : [];
    const picture = { class: "pixels fixed", width: 80, height: 80, src: data.pictures[own.picture], alt: "the picture asked about" };
    const weight = own.weight === 1 ? "" : `advantage ${signed(own.weight)}`;
    const had = document.activeElement?.ariaLabel; // a button that was pressed keeps the focus when its card is drawn anew
    kit.put(node, kit.el("h3", { style: "height:20px" }, title),
      kit.el("div", { class: "row number", style: "height:28px;gap:8px;white-space:nowrap;flex-wrap:nowrap" }, turns, weight),
      kit.el("div", { class: "columns", style: "gap:8px" }, kit.el("img", picture),
        kit.el("div", { class: "scroll", style: "height:262px" },
          kit.el("p", { class: "quiet" }, own.asked), kit.el("p", { class: "words" }, own.text))));
    [...node.querySelectorAll("button")].find((one) => one.ariaLabel === had)?.focus();
  }
  function numbers() {
    const [change, low, high, batches] = cell(), all = probes(), total = (name) => all.reduce((sum, k) => sum + data.probes[k][name], 0);
    const own = data.probes[all[state.probe]], moved = data.moved[state.step][state.corpus][all[state.probe]];
    const line = (name, ...values) => kit.el("tr", {}, [name, ...values].map((words) => kit.el("td", { style: "padding:1px 4px" }, words)));
    const row = (name, start, by) => line(name, start.toFixed(5), signed(by), (start + by).toFixed(5));
    const head = ["per token", "before", "change", "after"].map((name) => kit.el("th", { scope: "col", style: "padding:1px 4px" }, name));
    const verdict = decided(cell()) ? (change > 0 ? "more probable" : "less probable") : "undecided";
    const span = low === null ? "" : `, 95 % ${signed(low / unit)} to ${signed(high / unit)}`;
    kit.put(told, kit.el("h3", { style: "height:20px" }, `${state.corpus} on ${state.kind}`),
      kit.el("table", { style: "width:100%;font-size:13px" }, kit.el("tr", {}, head),
        row(all.length > 1 ? `all ${all.length}` : "the probe", total("before") / total("tokens"), change),
        all.length > 1 ? row("this one", own.before / own.tokens, moved / own.tokens) : null),
      kit.el("p", { class: "number", style: "margin-top:6px" }, `${verdict}: ${signed(change / unit)} thousandths of a nat${span}. By batch:`),
      kit.el("p", { class: "number quiet" }, batches.map((value) => signed(value / unit)).join(", ")));
    say(`${state.corpus} on ${state.kind}: ${verdict}, ${kit.text(change / unit)} thousandths of a nat per token`);
  }
  const signed = (value) => (value > 0 ? "+" : "") + kit.text(value);

  function open(corpus, kind) {
    Object.assign(state, { corpus, kind, probe: 0, sample: 0 });
    focus(corpus, kind, true);
    drawPair();
  }
  function drawPair() {
    kit.remember("state", state);
    const chosen = key(state.corpus, state.kind), RING = "inset 0 0 0 2px #000, inset 0 0 0 3px #fff";
    for (const [name, node] of buttons) node.style.boxShadow = name === chosen ? RING : "";
    const set = (name) => (value) => { state[name] = value; drawPair(); };
    card(learned, `learned from: ${state.corpus}`, samples()[state.sample], [samples().length, state.sample], set("sample"));
    card(probed, `asked: ${state.kind}`, data.probes[probes()[state.probe]], [probes().length, state.probe], set("probe"));
    numbers();
  }

  const HELP = "Purple: more probable, orange: less; in brackets: undecided over batches. Click a cell, or arrow keys and Enter.";
  const say = kit.announcer(root);
  const rule = kit.select({ label: "one step of", options: steps, value: state.step,
    act: (name) => { state.step = name; colourMap(); drawPair(); } });
  const pair = { class: "columns", style: "margin-top:8px;border-top:1px solid #ccc;padding-top:6px" };
  root.append(kit.el("div", { class: "row" }, rule, kit.el("span", { class: "quiet" }, HELP)), makeMap(),
    kit.el("div", pair, learned, probed, told));
  kit.keys({ ArrowLeft: () => walk(0, -1), ArrowRight: () => walk(0, 1), ArrowUp: () => walk(-1, 0), ArrowDown: () => walk(1, 0) });
  colourMap();
  focus(state.corpus, state.kind);
  drawPair();
});
