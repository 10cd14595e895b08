// Models on the straight line from the base's weights to the end of each arm: what the puzzle gains and what the prior tasks lose on
// the way. Choose what is held equal (share of the way, exact match, or the length of RFT's update), move the slider or press the
// arrow keys, and the table reads every arm there. Thick: mean over seeds; thin: each seed.
"use strict";

kit.start((data, root) => {
  const { el, put, text, fixed, mean } = kit, { shares, chance } = data, arms = Object.keys(data.arms);
  const [SHARE, EXACT, LENGTH] = ["an equal share of the way", "equal exact match", "the length of RFT's update"];
  const range = (from, to, step) =>
    Array.from({ length: Math.round((to - from) / step) + 1 }, (_, k) => Number((from + k * step).toFixed(4)));
  const STOPS = { [SHARE]: range(0, 1, 0.05), [EXACT]: range(0.1, 0.95, 0.05) };
  const state = kit.recall("state", { at: SHARE, share: 0.5, exact: 0.5, worth: 1, off: [] });
  const say = kit.announcer(root), shown = () => arms.filter((arm) => !state.off.includes(arm));
  const MEASURES = { exact: "puzzle exact match", score: "mean prior score" };

  // Reading --------------------------------------------------------------------------------------------------------
  // A run's value at a share of the way, on the straight line between the two measured ones around it.
  function read(values, share) {
    const next = Math.max(1, shares.findIndex((one) => one >= share)), [from, to] = [shares[next - 1], shares[next]];
    return values[next - 1] + ((share - from) / (to - from)) * (values[next] - values[next - 1]);
  }
  // The first share of the way at which values, followed from the base, reach a level; null where they never do.
  function reached(values, level) {
    const next = values.findIndex((value) => value >= level);
    if (next <= 0) return next === 0 ? shares[0] : null;
    const [from, to] = [values[next - 1], values[next]];
    return shares[next - 1] + ((level - from) / (to - from)) * (shares[next] - shares[next - 1]);
  }
  function place(run) { // where a run is read: [share of the way, exact match, prior score], or null
    if (state.at === LENGTH) return run.length;
    const share = state.at === SHARE ? state.share : reached(run.exact, state.exact);
    return share === null ? null : [share, read(run.exact, share), read(run.score, share)];
  }
  function summary(arm) {
    const found = data.runs[arm].map((run) => [place(run), run]).filter(([spot]) => spot);
    if (!found.length) return null;
    const [share, exact, score] = [0, 1, 2].map((k) => mean(found.map(([spot]) => spot[k])));
    return { share, exact, score, drop: mean(found.map(([spot, run]) => run.score[0] - spot[2])), seeds: found.length };
  }
  const measured = () => state.at === LENGTH || (state.at === SHARE && shares.includes(state.share));
  const average = (arm, measure) => shares.map((_, k) => mean(data.runs[arm].map((run) => run[measure][k])));

  // Whether half of what is lost at the end is lost before half of what is gained is gained; null where either is nothing.
  function losesFirst({ exact, score }) {
    const lost = score.map((value) => score[0] - value), gained = exact.map((value) => value - exact[0]);
    if (lost.at(-1) <= 0 || gained.at(-1) <= 0) return null;
    return reached(lost, lost.at(-1) / 2) < reached(gained, gained.at(-1) / 2);
  }
  const losers = (arm) => data.runs[arm].map(losesFirst).filter((first) => first !== null);

  // The best of the measured places, where a point of prior score is worth so many of exact match.
  function best(arm) {
    const [exact, score] = [average(arm, "exact"), average(arm, "score")];
    const worths = exact.map((value, k) => value + state.worth * score[k]);
    return shares[worths.indexOf(Math.max(...worths))];
  }
  const named = (share) => (share === 0 ? "base" : share === 1 ? "end" : text(share));

  // Pictures -------------------------------------------------------------------------------------------------------
  const farthest = Math.max(1, ...arms.flatMap((arm) => data.runs[arm].map((run) => run.length?.[0] ?? 0)));
  function panel(measure, width) {
    const x = { label: "share of the way from the base", domain: [0, farthest * 1.02], ticks: shares };
    const y = { label: MEASURES[measure], domain: [0, 1] };
    const plot = kit.axes({ width, height: 266, x, y, alt: `${MEASURES[measure]} over the share of the way, a line per arm`, right: 12 });
    const layer = plot.layer(), dotted = { colour: "#000", dash: "2 3", width: 1 };
    layer.append(kit.chance(plot, { y: chance[measure] }));
    const level = state.at === SHARE ? [[state.share, 0], [state.share, 1]] : [[0, state.exact], [x.domain[1], state.exact]];
    if (state.at === SHARE || (state.at === EXACT && measure === "exact")) layer.append(kit.path(plot, level, dotted));
    for (const arm of shown()) layer.append(...data.runs[arm].map((run) =>
      kit.path(plot, shares.map((share, k) => [share, run[measure][k]]), { colour: data.arms[arm].colour, width: 0.8, opacity: 0.45 })));
    for (const arm of shown()) layer.append(...line(plot, arm, measure));
    return plot.node;
  }
  function line(plot, arm, measure) {
    const look = data.arms[arm], spots = average(arm, measure).map((value, k) => [shares[k], value]), here = summary(arm);
    const dots = spots.map(([x, y]) => kit.mark(plot.px(x), plot.py(y), { ...look, size: 2.6 }));
    const big = { ...look, size: 6.5, hollow: !measured(), attributes: { "data-at": arm } };
    return [kit.path(plot, spots, { ...look, width: 2.4 }), ...dots,
      ...(here ? [kit.mark(plot.px(here.share), plot.py(here[measure]), big)] : [])];
  }

  // The table: made once; only its cells change, so that a box that has the focus keeps it -----------------------------
  const HEADS = ["arm", "share of the way", "exact match", "prior score", "drop", "seeds", "loses first", "best place"];
  const cells = {};
  function row(arm) {
    cells[arm] = HEADS.slice(1).map(() => el("td", {}));
    const box = el("input", { type: "checkbox", checked: !state.off.includes(arm), onchange: (event) => {
      state.off = event.target.checked ? state.off.filter((name) => name !== arm) : [...state.off, arm];
      draw();
    } });
    return el("tr", { "data-arm": arm }, el("td", {}, el("label", { class: "name" }, box, kit.sample(data.arms[arm]), arm)), cells[arm]);
  }
  function words(arm) {
    const here = summary(arm), all = data.runs[arm].length, first = losers(arm);
    const values = here ? [fixed(here.share), ...["exact", "score", "drop"].map((key) => fixed(here[key], 3)), `${here.seeds} of ${all}`]
      : ["–", "–", "–", "–", `0 of ${all}`];
    return state.off.includes(arm) ? HEADS.slice(1).map(() => "–")
      : [...values, `${first.filter(Boolean).length} of ${first.length}`, named(best(arm))];
  }

  function where() {
    if (state.at === SHARE) return state.share === 1 ? "At the end" : `At ${text(state.share)} of the way`;
    return state.at === EXACT ? `Where exact match reaches ${text(state.exact)}` : "Where its update is as long as RFT's of the same seed";
  }
  function sentence() {
    const here = shown().map((arm) => ({ arm, ...summary(arm) })).filter(({ seeds }) => seeds).sort((one, two) => one.drop - two.drop);
    if (!here.length) return `${where()} no arm that is shown can be read.`;
    const told = ({ arm, drop, exact }) => `${arm} (drop ${fixed(drop, 3)}, exact match ${fixed(exact, 3)})`;
    const span = here.length > 1 ? `${told(here[0])} has lost least, ${told(here.at(-1))} most` : `${told(here[0])} stands alone`;
    const early = shown().filter((arm) => losers(arm).filter(Boolean).length > losers(arm).length / 2);
    const partial = here.filter(({ arm, seeds }) => seeds < data.runs[arm].length);
    const some = partial.length ? ` Not every seed gets there: ${partial.map(({ arm }) => arm).join(", ")}.` : "";
    return `${where()}, ${span}.${some} In most seeds these lose before they gain: ${early.join(", ") || "none"}. ${places()}`;
  }
  function places() { // where each arm is best
    const isEnd = (share) => share === 1, isBase = (share) => share === 0, isInside = (share) => !isEnd(share) && !isBase(share);
    const spots = [["at the end", isEnd], ["on the way", isInside], ["at the base", isBase]];
    const told = spots.map(([name, fits]) => [name, shown().filter((arm) => fits(best(arm)))]).filter(([, some]) => some.length);
    const worth = `With a point of prior score worth ${text(state.worth)} of exact match, the best model stands`;
    return told.length ? `${worth} ${told.map(([name, some]) => `${name} for ${some.join(", ")}`).join("; ")}.` : "";
  }

  // Everything at once -----------------------------------------------------------------------------------------------
  const picture = el("div", { class: "pictures" }), said = el("p", { class: "said number" });
  function draw() {
    kit.remember("state", state);
    const whole = root.clientWidth - 8, width = whole < 680 ? whole : Math.floor((whole - 8) / 2);
    put(picture, Object.keys(MEASURES).map((measure) => panel(measure, width)));
    for (const arm of arms) words(arm).forEach((word, k) => { cells[arm][k].textContent = word; });
    share.input.disabled = state.at !== SHARE;
    exact.input.disabled = state.at !== EXACT;
    said.textContent = sentence();
    say(said.textContent);
  }
  const set = (key) => (value) => { state[key] = value; draw(); };
  const slider = (label, key, values, width) => kit.slider({ label, values, value: state[key], width, act: set(key) });
  const share = slider("share of the way", "share", STOPS[SHARE], 170), exact = slider("exact match", "exact", STOPS[EXACT], 130);
  const worth = slider("a point of prior score is worth", "worth", range(0, 8, 0.5), 110);
  const options = [SHARE, EXACT, ...(arms.some((arm) => data.runs[arm].some((run) => run.length)) ? [LENGTH] : [])];
  const compared = kit.select({ label: "compare at", options, value: state.at, act: set("at") });
  function step(by) {
    const [bar, key] = state.at === SHARE ? [share, "share"] : [exact, "exact"], stops = STOPS[state.at];
    const to = (stops ?? []).indexOf(state[key]) + by;
    if (!stops || !(to in stops)) return;
    bar.set(stops[to]);
    set(key)(stops[to]);
  }

  const KEY = `Small marks: measured. A large mark is filled where it was measured, hollow where it is read on the straight line
    between two measured ones. Loses first: seeds that have lost half of what they lose at the end before they have gained half of what
    they gain. Best place: of the measured ones, by exact match plus prior score times its worth. Keys: ← back, → on.`;
  const STYLE = `.row { margin-bottom: 5px; } .pictures { display: flex; gap: 8px; height: 270px; } .said { height: 82px; }
    .said { margin: 5px 0 2px; } table { width: 100%; table-layout: fixed; font-size: 13px; } th, td { padding: 1px 6px; }
    th { vertical-align: bottom; line-height: 1.2; }
    th:first-child { width: 168px; } .name { display: flex; gap: 5px; align-items: center; height: 23px; white-space: nowrap; }
    @media (max-width: 900px) { .said { height: 102px; } }
    @media (max-width: 690px) { .pictures { flex-direction: column; height: 540px; } .said { height: 122px; } table { font-size: 12px; }
      th, td { padding: 1px 3px; } th:first-child { width: 142px; } }`;
  root.append(el("style", {}, STYLE), el("div", { class: "row" }, compared, share, exact), el("div", { class: "row" }, worth), picture,
    el("table", {}, el("tr", {}, HEADS.map((head) => el("th", { scope: "col" }, head))), arms.map(row)), said,
    el("p", { class: "quiet", style: "margin:0;line-height:1.35" }, KEY));
  kit.keys({ ArrowLeft: () => step(-1), ArrowRight: () => step(1) });
  kit.listen(window, "resize", draw);
  draw();
}, { snug: true });
