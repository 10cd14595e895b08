// What can RFT reinforce? Left: how often the base gives each placement, sharpened or flattened by a slider; click a bar to make it
// the true one. Right: how many groups hold a right answer, and how many have no signal, computed exactly. Below: one group that is
// drawn (mulberry32, with a seed), its rewards and the advantages that GRPO makes of them. Arrow keys sharpen, d draws again.
"use strict";

kit.start((data, root) => {
  const { el, svg, put, fixed, mean } = kit;
  const { placements, temperatures, epsilon } = data, [fewest, most] = data.groups, tiles = placements[0].length;
  const NAMES = placements.map((placement) => placement.join(" "));
  const isSolved = (place) => placements[place].every((tile, slot) => tile === slot + 1); // it is never a puzzle
  const truths = placements.map((_, place) => place).filter((place) => !isSolved(place));
  const FOUND = { colour: "#0072b2", marker: "o" }, SILENT = { colour: "#b34700", marker: "s", dash: "6 3" };
  const REWARDS = ["hit + exact + format", "exact match alone"], AGAINST = ["temperature", "group size"];
  const middle = truths[Math.floor(truths.length / 2)];
  const state = kit.recall("state", { ...data.begin, truth: middle, reward: REWARDS[0], against: AGAINST[0], seed: 0 });
  const say = kit.announcer(root);

  function percent(share) { // all and none are said of these alone
    if (share > 0 && share < 0.0005) return "< 0.1 %";
    return share < 1 && share > 0.9995 ? "> 99.9 %" : `${fixed(100 * share, 1)} %`;
  }

  // The mathematics ------------------------------------------------------------------------------------------------
  // Measured shares to the power 1/T, as shares of all valid answers; through logarithms, so that no power vanishes.
  const top = Math.max(...data.shares);
  function sharpened(temperature) {
    const raised = data.shares.map((share) => (share > 0 ? Math.exp(Math.log(share / top) / temperature) : 0));
    const whole = raised.reduce((sum, value) => sum + value, 0);
    return raised.map((value) => value / whole);
  }
  // What a placement earns, in form, where another one is true.
  function reward(guess, truth) {
    const hit = placements[guess].filter((tile, slot) => tile === placements[truth][slot]).length / tiles, exact = Number(hit === 1);
    const [forHit, forExact, forFormat] = data.weights;
    return state.reward === REWARDS[0] ? forHit * hit + forExact * exact + forFormat : exact;
  }
  // By reward: how probable an answer is that earns it.
  function kinds(shares, truth) {
    const found = new Map();
    shares.forEach((share, guess) => found.set(reward(guess, truth), (found.get(reward(guess, truth)) ?? 0) + share));
    return found;
  }
  // Of groups of `size`: how many hold a right answer, how many earn one reward throughout, how many hold a right one and others.
  function outcome(shares, truth, size) {
    const silent = [...kinds(shares, truth).values()].reduce((sum, share) => sum + share ** size, 0);
    const found = 1 - (1 - shares[truth]) ** size;
    return { found, silent, both: found - shares[truth] ** size };
  }
  function onAverage(shares, size) {
    const every = truths.map((truth) => outcome(shares, truth, size));
    return Object.fromEntries(Object.keys(every[0]).map((key) => [key, mean(every.map((one) => one[key]))]));
  }

  // A group of placements; with one seed a group changes only where the shares do.
  function drawn(shares) {
    const random = kit.generator(state.seed), last = shares.findLastIndex((share) => share > 0);
    return Array.from({ length: state.size }, () => {
      let left = random(), guess = 0;
      while (guess < last && left >= shares[guess]) left -= shares[guess++];
      return guess;
    });
  }
  function advantages(rewards) {
    const average = mean(rewards), scale = kit.spread(rewards) + epsilon;
    return rewards.map((value) => (value - average) / scale);
  }

  // Pictures -------------------------------------------------------------------------------------------------------
  const HIGH = 236;
  const ceiling = (value) => [0.1, 0.2, 0.5, 1].find((limit) => value <= limit * 0.97) ?? 1;
  function bars(shares, width) {
    const measured = sharpened(1), y = { label: "share of valid answers", domain: [0, ceiling(Math.max(...shares, ...measured))] };
    const x = { label: "placement given", domain: [-0.5, shares.length - 0.5], ticks: [] };
    const alt = `share of each of ${shares.length} placements; true is ${NAMES[state.truth]}, with ${percent(shares[state.truth])}`;
    const plot = kit.axes({ width, height: HIGH, x, y, alt, bottom: 68, left: 50, right: 4 }), layer = plot.layer();
    const wide = plot.px(1) - plot.px(0), floor = plot.py(0);
    shares.forEach((share, place) => {
      const at = plot.px(place), isTrue = place === state.truth, colour = isTrue ? "#00664c" : isSolved(place) ? "#c4c4c4" : "#6f9bbd";
      const node = svg("g", { "data-share": share, onclick: () => choose(place), style: isSolved(place) ? "" : "cursor:pointer" },
        svg("rect", { x: at - wide / 2, y: plot.top, width: wide, height: HIGH - plot.top, fill: "transparent" }),
        svg("rect", { x: at - 0.4 * wide, y: plot.py(share), width: 0.8 * wide, height: floor - plot.py(share), fill: colour }),
        svg("path", { d: `M${at - wide / 2} ${plot.py(measured[place])}h${wide}`, stroke: "#222", "stroke-width": 1.4 }),
        svg("text", { transform: `translate(${at + 4} ${floor + 5}) rotate(-90)`, "text-anchor": "end",
          style: isTrue ? "font-weight:700;fill:#00664c" : "" }, NAMES[place]),
        isTrue ? kit.mark(at, plot.py(Math.max(share, measured[place])) - 7, { colour, marker: "v", size: 5 }) : null);
      layer.append(node);
    });
    layer.append(...uniform(plot, shares.length));
    return plot.node;
  }
  function uniform(plot, count) { // what a blind choice among all placements would give, as a line across
    const at = [-0.5, count - 0.5].map((x) => [x, 1 / count]), spot = { x: plot.width - plot.right - 3, y: plot.py(1 / count) - 4 };
    return [kit.path(plot, at, { colour: "#555", dash: "1.5 3", width: 1.3 }),
      svg("text", { ...spot, "text-anchor": "end", stroke: "#fff", "stroke-width": 3, "paint-order": "stroke" }, "uniform")];
  }

  function curves(width) {
    const byHeat = state.against === AGAINST[0], stops = byHeat ? temperatures : sizes;
    const heats = { domain: [temperatures[0], temperatures.at(-1)], log: true, ticks: [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5] };
    const x = byHeat ? { label: "temperature T (log): sharp to flat", ...heats }
      : { label: "answers in a group", domain: [fewest, most], ticks: [2, 8, 16, 24, 32] };
    const alt = `share of groups that hold a right answer, and that have no signal, over ${state.against}`;
    const plot = kit.axes({ width, height: HIGH, x, y: { label: "share of groups", domain: [0, 1] }, alt, left: 50, right: 14 });
    const layer = plot.layer(), now = sharpened(state.temperature), here = byHeat ? state.temperature : state.size;
    const at = (stop) => (byHeat ? outcome(sharpened(stop), state.truth, state.size) : outcome(now, state.truth, stop));
    const all = stops.map((stop) => [stop, at(stop)]), own = at(here);
    layer.append(kit.path(plot, [[here, 0], [here, 1]], { colour: "#000", dash: "2 3", width: 1 }));
    for (const [key, look] of [["silent", SILENT], ["found", FOUND]])
      layer.append(kit.path(plot, all.map(([stop, value]) => [stop, value[key]]), { ...look, width: 2.4 }),
        kit.mark(plot.px(here), plot.py(own[key]), { ...look, size: 6 }));
    return plot.node;
  }

  // What is seen, in words -------------------------------------------------------------------------------------------
  function verdict(shares) {
    const { found, silent, both } = outcome(shares, state.truth, state.size), common = Math.max(...shares);
    const allRight = shares[state.truth] ** state.size;
    if (silent < 0.5 && both >= 0.5) return "Most groups hold a right answer beside others that earn less: it can be reinforced.";
    if (silent < 0.5) return "Most groups differ, but hold nothing right: what is pushed up there is less wrong than the rest.";
    if (allRight >= 0.5) return "Too sharp, on the right answer: most groups are all right, and nothing is left to learn from them.";
    if (silent - allRight < 0.5) return "Most groups earn one reward: all are right, or all equally wrong. RFT learns nothing from these.";
    const why = common >= 0.5 ? `Too sharp: ${percent(common)} of answers are ${NAMES[shares.indexOf(common)]}` : "Too rare";
    return `${why}. Most groups hold only wrong answers that earn alike, so RFT learns nothing from them.`;
  }
  const ROWS = { found: "hold a right answer", silent: "have no signal", both: "right and others" };
  const LOOKS = { found: FOUND, silent: SILENT };
  const heads = ["", "this truth", `mean of all ${truths.length}`].map((name) => el("th", { scope: "col" }, name)), values = {};
  const facts = el("table", { class: "fixed" }, el("tr", {}, heads), Object.entries(ROWS).map(([key, name]) => {
    values[key] = [el("td", { "data-what": key }), el("td", { "data-what": `${key} on average` })];
    const sign = LOOKS[key] ? kit.sample(LOOKS[key], 28) : el("span", { style: "width:28px;height:14px;flex:none" });
    return el("tr", {}, el("td", {}, el("span", { class: "key" }, sign, name)), values[key]);
  }));
  function tell(shares) {
    const own = outcome(shares, state.truth, state.size), all = onAverage(shares, state.size);
    heads[0].textContent = `of groups of ${state.size}`;
    for (const key of Object.keys(ROWS)) [own, all].forEach((one, k) => {
      values[key][k].textContent = percent(one[key]);
      values[key][k].dataset.value = one[key];
    });
    said.textContent = `${verdict(shares)} The true placement is ${percent(shares[state.truth])} of valid answers.`;
  }

  function cards(shares) {
    const group = drawn(shares), rewards = group.map((guess) => reward(guess, state.truth)), gains = advantages(rewards);
    put(answers, group.map((guess, k) => {
      const right = guess === state.truth, gain = gains[k], sign = gain > 0.005 ? "▲" : gain < -0.005 ? "▼" : "";
      return el("div", { class: `answer ${right ? "right" : ""}`, "data-reward": rewards[k], "data-advantage": gain },
        el("b", {}, NAMES[guess]), el("span", {}, right ? `✓ ${fixed(rewards[k])}` : fixed(rewards[k])),
        el("span", { class: sign === "▼" ? "down" : sign ? "up" : "" }, `${sign}${fixed(Math.abs(gain))}`));
    }));
    lesson.textContent = kit.lesson(rewards, gains, group.map((guess) => guess === state.truth));
  }

  // Everything at once -----------------------------------------------------------------------------------------------
  const picture = el("div", { class: "pictures" }), answers = el("div", { class: "group" });
  const said = el("p", { class: "said" }), lesson = el("p", { class: "lesson" });
  function draw() {
    kit.remember("state", state);
    const shares = sharpened(state.temperature), whole = root.clientWidth - 8, width = whole < 680 ? whole : Math.floor((whole - 8) / 2);
    put(picture, bars(shares, width), curves(width));
    tell(shares);
    cards(shares);
    say(`${said.textContent} ${lesson.textContent}`);
  }
  const set = (key) => (value) => { state[key] = value; draw(); };
  const menu = (label, key, options, name) => kit.select({ label, options, value: state[key], act: set(key), name });
  const sizes = Array.from({ length: most - fewest + 1 }, (_, k) => fewest + k);
  const heat = kit.slider({ label: "temperature", values: temperatures, value: state.temperature, width: 200, act: set("temperature") });
  const size = kit.slider({ label: "answers in a group", values: sizes, value: state.size, width: 150, act: set("size") });
  const truth = menu("true placement", "truth", truths, (place) => NAMES[place]);
  function choose(place) {
    if (isSolved(place)) return;
    truth.set(place);
    set("truth")(place);
  }
  function turn(by) {
    const to = temperatures.indexOf(state.temperature) + by;
    if (!(to in temperatures)) return;
    heat.set(temperatures[to]);
    set("temperature")(temperatures[to]);
  }
  const again = kit.button("draw again", () => set("seed")(state.seed + 1));

  const invalid = 1 - data.shares.reduce((sum, share) => sum + share, 0);
  const NOTE = `Bars: the measured shares to the power 1/T; black lines: as measured (T = 1). It is a picture of sharpness, not the
    model's own: a model's temperature acts token by token, and on one board it may be surer than these shares, which are over many.
    Left out: ${percent(Math.max(0, invalid))} of completions that gave no valid placement. All others count as in form.`;
  const STYLE = `.pictures { display: flex; gap: 8px; height: 240px; } .key { display: inline-flex; gap: 6px; align-items: center; }
    .row { margin-bottom: 5px; } .facts { gap: 14px; margin: 4px 0; } .facts table { font-size: 13px; table-layout: fixed; width: 400px; }
    .facts th, .facts td { white-space: nowrap; height: 25px; padding: 1px 4px; } .facts th:first-child { width: 186px; }
    .key { vertical-align: middle; }
    .said { margin: 2px 0 0; height: 102px; }
    .group { display: grid; grid-template-columns: repeat(16, minmax(0, 1fr)); grid-auto-rows: 58px; gap: 4px 3px; height: 120px; }
    .answer { border: 1px solid #c4c4c4; border-radius: 4px; font-size: 12px; line-height: 18px; text-align: center; white-space: nowrap;
      font-variant-numeric: tabular-nums; display: flex; flex-direction: column; }
    h3 { height: 20px; } .up { color: #0072b2; font-weight: 600; }
    .answer.right { border: 2px solid #00664c; line-height: 17.3px; background: #e2f3ec; }
    .down { color: #a33a00; } .lesson { height: 40px; margin: 0 0 4px; } .note { margin: 0 0 3px; line-height: 1.35; }
    @media (max-width: 900px) { .facts table { width: 392px; } .facts th:first-child { width: 178px; } .said { font-size: 13px; }
      .group { grid-template-columns: repeat(11, minmax(0, 1fr)); height: 182px; } }
    @media (max-width: 690px) { h3 { height: 40px; } .pictures { flex-direction: column; height: 480px; } .facts { flex-direction: column; }
      .said { height: 62px; } .group { grid-template-columns: repeat(8, minmax(0, 1fr)); height: 244px; } .lesson { height: 60px; } }`;
  root.append(el("style", {}, STYLE), el("div", { class: "row" }, heat, size, menu("reward", "reward", REWARDS)),
    el("div", { class: "row" }, truth, menu("curves over", "against", AGAINST), again), picture,
    el("div", { class: "columns facts" }, facts, said), el("p", { class: "quiet note" }, NOTE),
    el("p", { class: "quiet note" }, "Keys: ← sharper, → flatter, d draws again. Click a bar to make its placement the true one."),
    el("h3", {}, "One group: each placement, its reward, and its advantage (▲ made more probable, ▼ less)"), lesson, answers);
  kit.keys({ ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), d: () => again.click() }, root);
  kit.listen(window, "resize", draw);
  draw();
}, { snug: true });
