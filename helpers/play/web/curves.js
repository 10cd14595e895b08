// Learning curves with bands over seeds. Choose the measure and what it is drawn against, switch arms off and on in the table;
// point at the picture, or move the slider or the arrow keys, and the table says every arm's value there.
"use strict";

kit.start((data, root) => {
  const AGAINST = { "boards seen": 1, steps: 0 }, [MEAN, LOW, HIGH, SEEDS] = [2, 3, 4, 5];
  const BASE = { colour: "#555", dash: "8 3" }, CHANCE = { colour: "#555", dash: "1.5 3" };
  const HELP = "Point at the picture, or press ← and →: the table reads every arm at its last test up to there. Band: 95 % over seeds.";
  const measures = Object.keys(data.measures), arms = Object.keys(data.arms);
  const state = kit.recall("state", { measure: measures[0], against: "boards seen", off: [], place: 1e9 });
  if (!data.measures[state.measure]) state.measure = measures[0];

  const points = (arm) => data.measures[state.measure][arm] ?? [];
  const isLevel = (arm) => Object.values(data.measures).every((own) => (own[arm] ?? []).length < 2); // the untrained base
  const lines = arms.filter((arm) => !isLevel(arm)), levels = arms.filter(isLevel);
  const shown = () => lines.filter((arm) => !state.off.includes(arm));
  const where = (point) => point[AGAINST[state.against]];
  const spots = () => [...new Set(lines.flatMap((arm) => points(arm).map(where)))].sort((one, two) => one - two);
  const place = () => Math.min(state.place, spots().length - 1);
  const cursor = () => spots()[place()] ?? 0;
  const last = (arm) => points(arm).filter((point) => isLevel(arm) || where(point) <= cursor()).at(-1);

  // The picture ------------------------------------------------------------------------------------------------------
  // A logarithmic axis with room for 0 at its left.
  function scale(width) {
    const all = spots(), least = all.find((value) => value > 0) ?? 1, most = all.at(-1) ?? 1;
    const log = (value) => Math.log10(value > 0 ? value : least / 10 ** 0.35), domain = [log(all[0] ?? 0), log(most * 1.06)];
    const pixels = (value) => ((log(value) - domain[0]) / (domain[1] - domain[0])) * width, kept = [0];
    for (const value of kit.ticks([least, most], true)) if (pixels(value) - pixels(kept.at(-1)) > 44) kept.push(value);
    const show = (spot) => kit.text(kept.find((value) => log(value) === spot));
    return { log, axis: { label: `${state.against} (logarithmic)`, domain, ticks: kept.map(log), show } };
  }

  function band(plot, log, arm) {
    const known = points(arm).filter((point) => point[LOW] !== null), [low, high] = plot.domain;
    const at = (point, k) => `${plot.px(log(where(point))).toFixed(1)} ${plot.py(Math.min(high, Math.max(low, point[k]))).toFixed(1)}`;
    const outline = [...known.map((point) => at(point, HIGH)), ...known.reverse().map((point) => at(point, LOW))];
    return known.length > 1 ? kit.svg("path", { d: `M${outline.join("L")}Z`, fill: data.arms[arm].colour, opacity: 0.14 }) : "";
  }
  function line(plot, log, arm) {
    const { colour, dash, marker } = data.arms[arm], own = points(arm), read = last(arm);
    const dot = (point) => kit.mark(plot.px(log(where(point))), plot.py(point[MEAN]), { colour, marker, size: point === read ? 6 : 3.6 });
    return [kit.path(plot, own.map((point) => [log(where(point)), point[MEAN]]), { colour, dash }), ...own.map(dot)];
  }

  function draw() {
    const width = Math.max(300, root.clientWidth - 416), { log, axis } = scale(width - 76), domain = [0, 1];
    const alt = `${state.measure} over ${state.against}, a line per arm`;
    const plot = { ...kit.axes({ width, height: 330, x: axis, y: { label: state.measure, domain }, alt }), domain };
    const layer = plot.layer(), across = (value, look) => kit.path(plot, axis.domain.map((x) => [x, value]), { ...look, width: 1.3 });
    layer.append(...levels.filter((arm) => points(arm).length).map((arm) => across(points(arm)[0][MEAN], BASE)));
    if (state.measure in data.chance) layer.append(across(data.chance[state.measure], CHANCE));
    layer.append(...shown().map((arm) => band(plot, log, arm)), ...shown().flatMap((arm) => line(plot, log, arm)),
      kit.path(plot, domain.map((y) => [log(cursor()), y]), { colour: "#000", dash: "2 3", width: 1 }));
    plot.node.addEventListener("pointermove", (event) => kit.react(event, () => point(plot, log, event)));
    kit.put(picture, plot.node);
    tell();
    kit.remember("state", state);
  }
  function point(plot, log, event) {
    const box = plot.node.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * plot.width;
    const far = (value) => Math.abs(plot.px(log(value)) - x), all = spots();
    move(all.reduce((best, value, k) => (far(value) < far(all[best]) ? k : best), 0));
  }
  function move(wanted) {
    const to = Math.max(0, Math.min(spots().length - 1, wanted));
    if (to === place()) return;
    state.place = to;
    slide.set(cursor());
    draw();
  }

  // The table: made once; only its cells change, so that a box that has the focus keeps it -------------------------------
  const cells = {};
  function sample({ colour, dash, marker }) {
    const stroke = { stroke: colour, "stroke-dasharray": dash, "stroke-width": 2 };
    return kit.svg("svg", { width: 38, height: 14, "aria-hidden": "true", style: "flex:none" },
      kit.svg("line", { x1: 0, x2: 38, y1: 7, y2: 7, ...stroke }), marker ? kit.mark(19, 7, { colour, marker, size: 4 }) : "");
  }
  function row(name, look, box) {
    cells[name] = [0, 1, 2, 3].map(() => kit.el("td", { style: "padding:1px 4px;white-space:nowrap" }));
    const label = kit.el(box ? "label" : "span", { style: "display:flex;gap:5px;align-items:center" }, box, sample(look), name);
    return kit.el("tr", { "data-arm": name, style: "height:26px" }, kit.el("td", { style: "padding:1px 2px" }, label), cells[name]);
  }
  const toggle = (arm) => kit.el("input", { type: "checkbox", checked: !state.off.includes(arm), onchange: (event) => {
    state.off = event.target.checked ? state.off.filter((name) => name !== arm) : [...state.off, arm];
    draw();
  } });
  function words(arm) {
    const own = last(arm);
    if (state.off.includes(arm) || !own) return ["–", "–", "–", "–"];
    const interval = own[LOW] === null || own[SEEDS] === 1 ? "–" : `${kit.text(own[LOW])} to ${kit.text(own[HIGH])}`;
    return [kit.text(where(own)), kit.text(own[MEAN]), interval, kit.text(own[SEEDS])];
  }
  function tell() {
    for (const arm of arms) words(arm).forEach((text, k) => { cells[arm][k].textContent = text; });
    if (cells.chance) cells.chance[1].textContent = kit.text(data.chance[state.measure]);
    const read = [...shown(), ...levels].map((arm) => `${arm} ${words(arm)[1]}`);
    say(`${state.measure} at ${kit.text(cursor())} ${state.against}: ${read.join(", ")}`);
  }
  function table() {
    const head = ["arm", "at", "mean", "95 % interval", "seeds"].map((name, k) =>
      kit.el("th", { scope: "col", style: `width:${[138, 52, 48, 116, 46][k]}px;padding:1px 4px` }, name));
    return kit.el("table", { class: "fixed", style: "table-layout:fixed;width:400px;font-size:13px" }, kit.el("tr", {}, head),
      lines.map((arm) => row(arm, data.arms[arm], toggle(arm))), levels.map((arm) => row(arm, BASE)),
      Object.keys(data.chance).length ? row("chance", CHANCE) : null);
  }

  // Controls -----------------------------------------------------------------------------------------------------------
  const say = kit.announcer(root), picture = kit.el("div", { class: "fixed", style: "height:334px" }), stops = kit.el("div");
  let slide = null;
  function setStops() { // the stops of the slider are those of the axis
    const act = (value) => { state.place = spots().indexOf(value); draw(); };
    slide = kit.slider({ label: `read at ${state.against}`, values: spots(), value: cursor(), width: 200, act });
    kit.put(stops, slide);
  }
  const menu = (label, key, options) => kit.select({ label, options, value: state[key], act: (value) => {
    const share = place() / Math.max(1, spots().length - 1);
    state[key] = value;
    state.place = Math.round(share * (spots().length - 1));
    setStops();
    draw();
  } });
  setStops();
  const menus = [menu("measure", "measure", measures), menu("against", "against", Object.keys(AGAINST))];
  root.append(kit.el("div", { class: "row", style: "margin-bottom:4px" }, menus, stops),
    kit.el("div", { class: "columns", style: "gap:8px" }, picture, table()),
    kit.el("p", { class: "quiet", style: "margin:2px 0 0" }, HELP));
  kit.keys({ ArrowLeft: () => move(place() - 1), ArrowRight: () => move(place() + 1) });
  kit.listen(window, "resize", draw);
  draw();
});
