// A policy of two bells learns a new mode by SFT (forward KL) and by REINFORCE (reverse KL): what is left of the old one?
// Every change trains both anew, here in the page; the player walks through the steps. Draws come from a generator with a
// seed (mulberry32; three numbers a draw: two for a normal one by Box and Muller, one that chooses the mode).
"use strict";

kit.start((data, root) => {
  const [oldWeight, oldMean, oldSd] = data.old, [newWeight, newSd] = data.new, [leastWeight, mostWeight, leastSd] = data.limits;
  const [low, high, count] = data.grid, gap = (high - low) / (count - 1), grid = Array.from({ length: count }, (_, k) => low + k * gap);
  const NAMES = ["SFT", "REINFORCE"], EXACT = 0;
  const state = kit.recall("state", { ...data.begin, draws: "new mode", samples: data.samples, seed: 0, step: data.steps });

  // The mathematics of helpers/toys/mixture.py ---------------------------------------------------------------------
  const logNormal = (x, mean, sd) => -0.5 * ((x - mean) / sd) ** 2 - Math.log(sd) - 0.5 * Math.log(2 * Math.PI);
  const logAdd = (one, two) => Math.max(one, two) + Math.log1p(Math.exp(-Math.abs(one - two)));
  const logTarget = (x) => logNormal(x, state.place, newSd);

  // Points with weights that the learner looks at: draws of the target or of the policy, or the whole grid.
  function looked(run) {
    const { policy, name, random } = run, sft = name === "SFT";
    if (state.samples === EXACT) {
      const density = sft ? logTarget : (x) => logAdd(...modeLogs(x, policy));
      return { points: grid, weights: grid.map((x) => Math.exp(density(x)) * gap) };
    }
    const inOld = sft || state.draws === "new mode" ? 0 : policy[0], [mean, sd] = sft ? [state.place, newSd] : [policy[3], policy[4]];
    const points = Array.from({ length: state.samples }, () => {
      const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
      return random() < inOld ? policy[1] + policy[2] * normal : mean + sd * normal;
    });
    return { points, weights: points.map(() => 1 / state.samples) };
  }
  const modeLogs = (x, [weight, mean, sd, mean2, sd2]) =>
    [Math.log(weight) + logNormal(x, mean, sd), Math.log1p(-weight) + logNormal(x, mean2, sd2)];

  // What a point is worth to REINFORCE: importance weight times reward.
  function worth(x, old, fresh) {
    const only = state.draws === "new mode", sampled = only ? fresh : logAdd(old, fresh);
    const reward = logTarget(x) - sampled - Math.log(data.beta);
    return only ? reward * (1 + Math.exp(old - fresh)) : reward;
  }

  // The gradient in weight, old mean, old sd, new mean, new sd.
  function ascent(run) {
    const { points, weights } = looked(run), [weight, mean, sd, mean2, sd2] = run.policy, sums = [0, 0, 0, 0, 0, 0];
    const logs = [Math.log(weight) - Math.log(sd), Math.log1p(-weight) - Math.log(sd2)], half = 0.5 * Math.log(2 * Math.PI);
    points.forEach((x, place) => {
      const [one, two] = [x - mean, x - mean2];
      const old = logs[0] - 0.5 * (one / sd) ** 2 - half, fresh = logs[1] - 0.5 * (two / sd2) ** 2 - half;
      const whole = weights[place] * (run.name === "SFT" ? 1 : worth(x, old, fresh)), isNew = 1 / (1 + Math.exp(old - fresh));
      const [a, b] = [whole * (1 - isNew), whole * isNew];
      [a, a * one, a * one * one, b, b * two, b * two * two].forEach((part, k) => { sums[k] += part; });
    });
    return [(weight > 0 ? sums[0] / weight : 0) - sums[3] / (1 - weight), sums[1] / sd ** 2, sums[2] / sd ** 3 - sums[0] / sd,
      sums[4] / sd2 ** 2, sums[5] / sd2 ** 3 - sums[3] / sd2];
  }

  // Overlap with the old and with the new mode, each as a share of that mode's area.
  function accuracy(policy) {
    const held = grid.map((x) => modeLogs(x, policy).reduce((sum, logp) => sum + Math.exp(logp), 0));
    return [[oldWeight, oldMean, oldSd], [newWeight, state.place, newSd]].map(([weight, mean, sd]) =>
      grid.reduce((sum, x, k) => sum + Math.min(weight * Math.exp(logNormal(x, mean, sd)), held[k]), 0) * gap / weight);
  }

  function begin(name) {
    const [, mean, sd] = data.start, policy = state.modes === 2 ? data.start : [0, mean, sd, mean, sd];
    return { name, policy, random: kit.generator(state.seed), policies: [policy], scores: [accuracy(policy)], reached: false };
  }
  const ended = (run) => run.reached || run.policies.length > data.steps;
  function advance(run) {
    const rate = run.name === "SFT" ? state.sft : state.reinforce, slow = state.modes === 2 ? state.slow : 0;
    const climb = ascent(run), moved = run.policy.map((part, k) => part + rate * (k < 3 ? slow : 1) * climb[k]);
    if (state.modes === 2) moved[0] = Math.min(mostWeight, Math.max(leastWeight, moved[0]));
    for (const k of [2, 4]) moved[k] = Math.max(leastSd, moved[k]);
    run.policy = moved;
    run.policies.push(moved);
    run.scores.push(accuracy(moved));
    run.reached = run.scores.at(-1)[1] - run.scores[0][1] >= data.gain;
  }

  // Training, a few milliseconds at a time, so that the page answers while it trains -----------------------------------
  let runs = [], earlier = [], training = 0;
  function train(keep) {
    earlier = keep ? [...earlier, ...runs].slice(-16) : [];
    runs = NAMES.map(begin);
    const mine = ++training;
    const work = () => {
      if (mine !== training) return;
      const until = performance.now() + 8;
      while (performance.now() < until && !runs.every(ended)) runs.filter((run) => !ended(run)).forEach(advance);
      draw();
      if (!runs.every(ended)) requestAnimationFrame(() => setTimeout(work)); // after what was drawn has been painted
    };
    work();
  }

  // Drawing --------------------------------------------------------------------------------------------------------
  const at = (run) => Math.min(state.step, run.policies.length - 1);
  const style = (name) => ({ colour: data.looks[name].colour, dash: data.looks[name].dash });

  const modesToHold = () => [["old mode", oldWeight, oldMean, oldSd], ["new mode", newWeight, state.place, newSd]];
  const density = (policy) => (x) => modeLogs(x, policy).reduce((sum, logp) => sum + Math.exp(logp), 0);
  const LEFT = -7.5, RIGHT = 8.5, MOST = 0.72, shownGrid = grid.filter((x, k) => k % 2 === 0 && x >= LEFT && x <= RIGHT);
  const line = (height) => shownGrid.map((x) => [x, Math.min(MOST, height(x))]);

  function densities(width) {
    const x = { label: "x", domain: [LEFT, RIGHT], ticks: [-6, -3, 0, 3, 6] }, y = { label: "density", domain: [0, MOST] };
    const alt = "the two modes to hold, and the density of both policies";
    const plot = kit.axes({ width, height: 330, x, y, alt }), layer = plot.layer();
    for (const [name, weight, mean, sd] of modesToHold()) {
      const area = kit.path(plot, line((point) => weight * Math.exp(logNormal(point, mean, sd))), GOAL);
      area.setAttribute("fill", "#ececec");
      layer.append(area, kit.svg("text", { x: plot.px(mean), y: plot.py(0.68), "text-anchor": "middle" }, name));
    }
    layer.append(kit.path(plot, line(density(runs[0].policies[0])), BEFORE));
    for (const run of runs) {
      const own = line(density(run.policies[at(run)])), first = run.name === "SFT" ? 2 : 8;
      const marked = own.filter(([, value], k) => k % 12 === first && value > 0.004);
      layer.append(kit.path(plot, own, { ...style(run.name), width: 2.4 }),
        ...marked.map(([a, b]) => kit.mark(plot.px(a), plot.py(b), { ...data.looks[run.name], size: 3.6 })));
    }
    return plot.node;
  }
  const BEFORE = { colour: "#555", dash: "1 3", width: 1.5 }, GOAL = { colour: "#555", dash: "3 3", width: 1 };

  // Steps on a logarithmic axis that begins at 0.
  const spot = (step) => Math.log10(1 + step), STEPS = [0, 10, 100, 1000].filter((step) => step <= data.steps);
  const drawnAt = (step, k, all) => step === all.length - 1 || step < 30 || step % Math.ceil(step / 30) === 0;
  function curve(which, label, last, width) {
    const show = (value) => kit.text(Math.round(10 ** value - 1));
    const x = { label: last ? "step" : "", domain: [0, spot(data.steps)], ticks: STEPS.map(spot), show }, y = { label, domain: [0, 1] };
    const plot = kit.axes({ width, height: last ? 176 : 154, x, y, alt: label, bottom: last ? 38 : 16 }), layer = plot.layer();
    const level = which ? data.gain : runs[0].scores[0][0];
    layer.append(kit.path(plot, [[0, level], [spot(data.steps), level]], which ? GOAL : BEFORE));
    for (const run of [...earlier, ...runs]) {
      const now = runs.includes(run), value = (step) => run.scores[step][which] - (which ? run.scores[0][1] : 0);
      const taken = run.scores.map((_, step) => step).filter(drawnAt), shown = now ? at(run) : run.scores.length - 1;
      const look = { ...style(run.name), width: now ? 2.2 : 1, opacity: now ? 1 : 0.45 };
      layer.append(kit.path(plot, taken.map((step) => [spot(step), value(step)]), look),
        kit.mark(plot.px(spot(shown)), plot.py(value(shown)), { ...data.looks[run.name], size: now ? 5 : 2.5 }));
    }
    return plot.node;
  }

  const HEAD = ["", "step", "kept on the old", "gained on the new", "weight of the old", "old mode at", "its sd", "new mode at", "its sd"];
  function row(run) {
    const step = at(run), scores = run.scores[step], lacking = state.modes === 1 ? [3, 4, 5] : [];
    const values = [step, scores[0], scores[1] - run.scores[0][1], ...run.policies[step]];
    const name = kit.el("span", { style: "display:inline-flex;gap:6px;align-items:center" }, sample(run.name), run.name);
    return kit.el("tr", { "data-learner": run.name }, kit.el("td", {}, name),
      values.map((value, k) => kit.el("td", { "data-value": value }, lacking.includes(k) ? "–" : kit.text(value))));
  }
  function sample(name) {
    const { colour, dash } = data.looks[name], look = { stroke: colour, "stroke-dasharray": dash, "stroke-width": 2.2 };
    return kit.svg("svg", { width: 34, height: 12, style: "flex:none", "aria-hidden": "true" },
      kit.svg("line", { x1: 0, x2: 34, y1: 6, y2: 6, ...look }), kit.mark(17, 6, { ...data.looks[name], size: 4 }));
  }

  function sentence() {
    if (!runs.every(ended)) return `Training: step ${kit.text(Math.max(...runs.map((run) => run.policies.length - 1)))}.`;
    const missed = runs.filter((run) => !run.reached).map((run) => run.name).join(" and ");
    if (missed) return `${missed} did not gain ${data.gain} in ${kit.text(data.steps)} steps: nothing compares at equal gain.`;
    const [sft, reinforce] = runs.map((run) => run.scores.at(-1)[0]);
    const ends = `SFT keeps ${kit.text(sft)}, REINFORCE ${kit.text(reinforce)}; before training ${kit.text(runs[0].scores[0][0])}`;
    return `At equal gain (${data.gain}) on the old mode: ${ends}.`;
  }

  const KEY = "Grey: the two modes to hold. Dotted: before training. A run ends where it has gained enough (dashed). Faint: earlier draws.";
  const picture = kit.el("div", { class: "columns", style: "height:334px;gap:8px" });
  const table = kit.el("table", { style: "width:100%;table-layout:fixed" });
  const said = kit.el("p", { class: "number", style: "height:40px;margin:4px 0 0" }), say = kit.announcer(root);
  function draw() {
    kit.remember("state", state);
    const width = Math.floor((Math.max(690, root.clientWidth - 8) - 8) / 2);
    const curves = [curve(0, "kept on the old", false, width), curve(1, "gained on the new", true, width)];
    kit.put(picture, densities(width), kit.el("div", {}, curves));
    const heads = HEAD.map((name, k) => kit.el("th", { scope: "col", style: k ? "" : "width:134px" }, name));
    kit.put(table, kit.el("tr", {}, heads), runs.map(row));
    said.textContent = sentence();
    root.dataset.trained = runs.every(ended) ? "yes" : "no";
    if (runs.every(ended)) say(said.textContent);
  }

  // Controls ---------------------------------------------------------------------------------------------------------
  const frames = [...new Set(Array.from({ length: 121 }, (_, k) => Math.round(10 ** ((k / 120) * spot(data.steps)) - 1)))];
  const frame = () => { const found = frames.findIndex((step) => step >= state.step); return found < 0 ? frames.length - 1 : found; };
  const player = kit.player({ label: "step", length: frames.length, value: frame(), pause: 60,
    show: (place) => (frames[place] === data.steps ? "the end" : kit.text(frames[place])), act: (place) => {
      state.step = frames[place];
      if (runs.every((run) => ended(run) && state.step >= run.policies.length - 1)) player.set(place); // nothing more to see
      draw();
    } });
  const number = (label, key, values) => kit.slider({ label, values, value: state[key], width: 120,
    act: (value) => { state[key] = value; train(); } });
  const range = (from, step, length) => Array.from({ length }, (_, k) => Number((from + k * step).toPrecision(6)));
  const menu = (label, key, options, name) => kit.select({ label, options, value: state[key], name,
    act: (value) => { state[key] = value; settle(key); train(); } });
  const draws = menu("REINFORCE draws from its", "draws", ["new mode", "whole"], (name) => (name === "whole" ? "whole policy" : name));
  const samples = menu("draws a step", "samples", [10, 100, 1000, EXACT], (size) => (size === EXACT ? "exact integrals" : kit.text(size)));
  const modes = menu("modes of the policy", "modes", [2, 1]);
  const slow = number("slow factor of the old mode", "slow", data.slows);

  // Settings that cannot stand together: draws of the new mode only have no exact integral, and one mode has no other.
  function settle(changed) {
    if (state.modes === 1) state.draws = "whole";
    if (state.draws === "new mode" && state.samples === EXACT && changed === "samples") state.draws = "whole";
    else if (state.draws === "new mode" && state.samples === EXACT) state.samples = data.samples;
    draws.set(state.draws);
    samples.set(state.samples);
    for (const node of [slow.input, draws.querySelector("select")]) node.disabled = state.modes === 1;
  }

  const again = kit.button("other draws", () => { state.seed += 1; train(true); });
  const rates = [number("rate of SFT", "sft", range(0.01, 0.01, 30)), number("rate of REINFORCE", "reinforce", range(0.0025, 0.0025, 20))];
  root.append(kit.el("div", { class: "row" }, slow, rates, number("new mode at", "place", range(2.5, 0.25, 17))),
    kit.el("div", { class: "row", style: "margin:5px 0" }, draws, samples, modes, again), player, picture,
    kit.el("p", { class: "quiet", style: "margin:0" }, KEY), table, said);
  kit.listen(window, "resize", draw);
  settle("modes");
  train();
});
