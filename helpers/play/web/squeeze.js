// Twenty words and one softmax: plain gradient steps on the advantages that the reader gives to words. Buttons of words cycle
// through 0, down and up; sliders set rate, peak and cosine; the player walks through the steps. Left or above: every word's
// probability and log-prob before and now, and the next step, measured (bars) and predicted by A K G (crosses).
"use strict";

kit.start((data, root) => {
  const { words, colours, steps, lessons, begin, roll } = data;
  const FLOOR = -14; // log-probs below are drawn at the edge, as open triangles
  const WORDS = Array.from({ length: words }, (_, place) => place + 1);
  const LAYOUTS = { 1: "one softmax", 3: "three prompts" };
  const PROMPTS = ["trained", "neighbour", "stranger"];
  const OWN = "my own";
  const chosen = (name) => WORDS.map((word) => Object.fromEntries(lessons[name])[word] ?? 0);
  const state = kit.recall("state", { ...begin, advantages: chosen(begin.lesson) });

  // The mathematics of helpers/toys/softmax.py ---------------------------------------------------------------------
  const logSoftmax = (logits) => {
    const top = Math.max(...logits), total = Math.log(logits.reduce((sum, z) => sum + Math.exp(z - top), 0)) + top;
    return logits.map((z) => z - total);
  };
  const startLogits = (prompt) => WORDS.map((_, place) => -state.peak * Math.log(1 + ((place - roll * prompt + words) % words)));
  function residual(logits) {
    const told = state.advantages.reduce((sum, advantage) => sum + advantage, 0);
    return logSoftmax(logits).map((logp, place) => told * Math.exp(logp) - state.advantages[place]);
  }
  // -rate A K G: K is `alike` times the identity.
  function predicted(observed, pull, alike) {
    const moved = pull.map((value) => -state.rate * alike * value);
    const mean = logSoftmax(observed).reduce((sum, logp, place) => sum + Math.exp(logp) * moved[place], 0);
    return moved.map((value) => value - mean);
  }
  // Per prompt and step the log-probs, and what A K G says of the step that follows.
  function train() {
    const alike = [1, state.cosine, 0];
    let logits = alike.map((_, prompt) => startLogits(prompt));
    const runs = alike.map(() => ({ logps: [], forecast: [] }));
    for (let step = 0; step <= steps + 1; step++) {
      const pull = residual(logits[0]);
      runs.forEach((run, prompt) => {
        run.logps.push(logSoftmax(logits[prompt]));
        run.forecast.push(predicted(logits[prompt], pull, alike[prompt]));
      });
      logits = logits.map((own, prompt) => own.map((z, place) => z - state.rate * alike[prompt] * pull[place]));
    }
    return runs;
  }

  // Drawing --------------------------------------------------------------------------------------------------------
  const wordAxis = { domain: [0.3, words + 0.7], ticks: [1, 5, 10, 15, 20] };
  const plot = (width, y, alt, last) => kit.axes({ width, height: last ? 162 : 140, x: { label: last ? "word" : "", ...wordAxis }, y, alt,
    bottom: last ? 38 : 18, top: 14, right: 10, left: 62 });
  function bar(own, word, value, colour) {
    const wide = 0.62 * (own.px(2) - own.px(1)), [high, low] = [own.py(Math.max(0, value)), own.py(Math.min(0, value))];
    return kit.svg("rect", { x: own.px(word) - wide / 2, width: wide, y: high, height: Math.max(0.5, low - high), fill: colour,
      "data-word": word, "data-value": value });
  }
  const open = { fill: "#fff", stroke: colours.before, "stroke-width": 1.4 };
  const cross = (x, y, value) => kit.svg("path", { d: `M${x - 3.5} ${y - 3.5}l7 7m0 -7l-7 7`, stroke: "#000", "stroke-width": 1.4,
    fill: "none", "data-forecast": value });

  const below = { fill: "#fff", stroke: colours.after, "stroke-width": 1.5 };
  const sign = (advantage) => (advantage > 0 ? "▲" : advantage < 0 ? "▼" : "");
  const pushes = (own) => state.advantages.map((advantage, place) =>
    kit.svg("text", { x: own.px(place + 1), y: 11, "text-anchor": "middle" }, sign(advantage)));

  function probabilities(run, prompt, width) {
    const most = Math.max(...runs.map((each) => Math.max(...each.logps.map((logps) => Math.exp(Math.max(...logps))))));
    const y = { label: "probability", domain: [0, Math.min(1, most * 1.06)] };
    const own = plot(width, y, `${PROMPTS[prompt]}: probability of each word before and now`);
    const layer = own.layer();
    WORDS.forEach((word, place) => {
      const now = Math.exp(run.logps[state.step][place]), before = Math.exp(run.logps[0][place]);
      layer.append(bar(own, word, now, colours.after), kit.mark(own.px(word), own.py(before), { size: 3.2, attributes: open }));
    });
    if (prompt === 0) layer.append(...pushes(own));
    return own.node;
  }

  function logProbabilities(run, prompt, width) {
    const y = { label: "log-prob (nats)", domain: [FLOOR, 0] };
    const own = plot(width, y, `${PROMPTS[prompt]}: log-prob of each word before and now`);
    const layer = own.layer(), at = (logp) => own.py(Math.max(FLOOR, logp));
    WORDS.forEach((word, place) => {
      const x = own.px(word), now = run.logps[state.step][place], [y1, y2] = [at(run.logps[0][place]), at(now)];
      const look = now < FLOOR ? { marker: "v", size: 4.5, attributes: { ...below, "data-logp": now } }
        : { colour: colours.after, marker: "s", size: 3, attributes: { "data-logp": now } };
      layer.append(kit.svg("line", { x1: x, x2: x, y1, y2, stroke: colours.after }), kit.mark(x, y1, { size: 3.2, attributes: open }),
        kit.mark(x, y2, look));
    });
    return own.node;
  }

  function nextStep(run, prompt, width) {
    const most = 1.1 * Math.max(0.01, ...runs.flatMap((each) => each.forecast.flat().map(Math.abs)));
    const y = { label: "next step (nats)", domain: [-most, most] };
    const own = plot(width, y, `${PROMPTS[prompt]}: change of each log-prob in the next step (bars), and A K G (crosses)`, true);
    const layer = own.layer(), level = own.py(0);
    layer.append(kit.svg("line", { class: "axis", x1: own.left, x2: own.width - own.right, y1: level, y2: level }));
    WORDS.forEach((word, place) => {
      const change = run.logps[state.step + 1][place] - run.logps[state.step][place], said = run.forecast[state.step][place];
      layer.append(bar(own, word, change, change > 0 ? colours.up : colours.down), cross(own.px(word), own.py(said), said));
    });
    return own.node;
  }

  function winner(run) {
    const gains = run.logps[state.step].map((logp, place) => Math.exp(logp) - Math.exp(run.logps[0][place]));
    return gains.indexOf(Math.max(...gains));
  }

  function overSteps(run, width) {
    const x = { domain: [0, steps], label: "steps", ticks: [0, 10, 20, 30, 40, 50] }, y = { label: "log-prob (nats)", domain: [FLOOR, 0] };
    const alt = "log-prob of each word, step by step";
    const own = kit.axes({ width, height: 442, x, y, alt, right: 66, top: 14, left: 62, bottom: 38 }), layer = own.layer();
    const taught = state.advantages.flatMap((advantage, place) => (advantage ? [place] : []));
    const line = (place) => run.logps.slice(0, steps + 1).map((logps, step) => [step, logps[place] < FLOOR ? null : logps[place]]);
    WORDS.forEach((_, place) => layer.append(kit.path(own, line(place), { colour: "#b0b0b0", width: 1 })));
    const named = [...new Set([winner(run), ...taught])];
    for (const place of named) {
      const colour = state.advantages[place] < 0 ? colours.down : colours.up;
      layer.append(kit.path(own, line(place), { colour, width: 2.4, dash: state.advantages[place] ? "6 3" : "" }));
    }
    labels(own, layer, named, run);
    layer.append(kit.path(own, [[state.step, FLOOR], [state.step, 0]], { colour: "#000", dash: "2 3", width: 1 }));
    return own.node;
  }

  // Names at the right edge, moved apart where lines end together; a line that left by the floor is named there.
  function labels(own, layer, named, run) {
    const end = (place) => own.py(Math.max(FLOOR, run.logps[steps][place])), ends = [...named].sort((one, two) => end(one) - end(two));
    let last = -20;
    const spots = ends.map((place) => [place, (last = Math.max(end(place) + 4, last + 14))]);
    const over = Math.max(0, last - (own.height - own.bottom + 4));
    for (const [place, y] of spots) layer.append(
      kit.svg("text", { x: own.width - own.right + 5, y: y - over }, `word ${place + 1} ${sign(state.advantages[place])}`));
  }

  function key() {
    const square = (fill) => kit.svg("rect", { x: 4, y: 2, width: 8, height: 11, fill });
    const items = [[kit.mark(8, 7, { size: 3.6, attributes: open }), "before"], [square(colours.after), "now"],
      [square(colours.up), "next step: rises"], [square(colours.down), "falls"], [cross(8, 7), "predicted by A K G"],
      [kit.mark(8, 7, { marker: "v", size: 4.5, attributes: below }), `below ${FLOOR} nats`]];
    const item = ([mark, words]) => kit.el("span", { style: "display:inline-flex;gap:3px;align-items:center" },
      kit.svg("svg", { width: 16, height: 14, "aria-hidden": "true" }, mark), words);
    return kit.el("div", { class: "row quiet", style: "height:20px" }, items.map(item));
  }

  // Words ------------------------------------------------------------------------------------------------------------
  function list(found) {
    if (found.length === 0 || found.length > 6) return found.length ? `${found.length} words` : "no word";
    return `word${found.length > 1 ? "s" : ""} ${found.join(", ")}`;
  }

  function bystanders(run, before, now) {
    const others = WORDS.map((_, place) => place).filter((place) => place !== winner(run) && !state.advantages[place]);
    const shifts = others.map((place) => run.logps[state.step][place] - run.logps[0][place]);
    const lost = others.reduce((sum, place) => sum + Math.max(0, before[place] - now[place]), 0);
    const span = `${signed(Math.min(...shifts))} to ${signed(Math.max(...shifts))}`;
    return `Words nobody spoke of lose ${kit.text(lost)} together; they move by ${span} nats.`;
  }

  function sentences(run) {
    const [before, now] = [run.logps[0], run.logps[state.step]].map((logps) => logps.map(Math.exp)), first = winner(run);
    const change = (place) => `word ${place + 1}, ${kit.text(before[place])} to ${kit.text(now[place])}`;
    const pushed = WORDS.filter((word) => state.advantages[word - 1]), few = pushed.slice(0, 4).map((word) => change(word - 1));
    const rising = WORDS.filter((_, place) => run.logps[state.step + 1][place] - run.logps[state.step][place] > 1e-12);
    const sum = state.advantages.reduce((total, value) => total + value, 0);
    return [
      `After ${state.step} step${state.step === 1 ? "" : "s"}, pushed: ${few.join("; ") || "no word"}${pushed[4] ? "; and more" : ""}.`,
      state.step && pushed.length ? `Gains most: ${change(first)}. ${bystanders(run, before, now)}` : "Nothing has moved yet.",
      `The next step raises ${list(rising)}. The advantages sum to ${kit.text(sum)}.`,
    ];
  }
  const signed = (value) => (value > 0 ? "+" : "") + kit.text(value);

  // Controls ---------------------------------------------------------------------------------------------------------
  const picture = kit.el("div", { class: "columns", style: "height:464px;gap:8px" });
  const told = kit.el("div", { class: "number", style: "height:84px;overflow:hidden" });
  const say = kit.announcer(root);
  const step = kit.player({ label: "step", length: steps + 1, value: state.step, pause: 120, show: (value) => `${value} of ${steps}`,
    act: (value) => { state.step = value; draw(); } });
  const lesson = kit.select({ label: "lesson", options: [...Object.keys(lessons), OWN], value: state.lesson, act: (name) => {
    if (name !== OWN) state.advantages = chosen(name);
    state.lesson = name;
    change();
  } });
  const layout = kit.select({ label: "on", options: [1, 3], value: state.prompts, name: (count) => LAYOUTS[count],
    act: (count) => { state.prompts = count; change(); } });
  const number = (label, key, low, high, size) => kit.slider({ label, low, high, step: size, value: state[key], width: 110,
    act: (value) => { state[key] = value; change(); } });
  const cosine = number("neighbour's cosine", "cosine", -0.9, 0.9, 0.1);
  const buttons = WORDS.map((word) => kit.button("", () => cycle(word), { style: "padding:2px 0;width:29px;font-size:12px" }));

  function cycle(word) {
    const now = state.advantages[word - 1];
    state.advantages[word - 1] = now === 0 ? -1 : now < 0 ? 1 : 0;
    state.lesson = OWN;
    lesson.set(OWN);
    change();
  }
  function showButtons() {
    buttons.forEach((node, place) => {
      const advantage = state.advantages[place];
      node.textContent = `${place + 1}${sign(advantage)}`;
      node.setAttribute("aria-label", `word ${place + 1}, advantage ${advantage}`);
      node.style.background = advantage > 0 ? "#d5e8f4" : advantage < 0 ? "#f6ddcc" : "";
    });
  }

  let runs = null;
  function change() { runs = train(); showButtons(); cosine.input.disabled = state.prompts === 1; draw(); }
  function draw() {
    kit.remember("state", state);
    const three = state.prompts === 3, wide = Math.max(690, root.clientWidth - 8), width = Math.floor(wide / (three ? 3 : 2)) - 8;
    const column = (run, prompt) => kit.el("div", { style: `width:${width}px` },
      kit.el("h3", {}, three ? `${PROMPTS[prompt]} prompt` : "every word, before and now"),
      probabilities(run, prompt, width), logProbabilities(run, prompt, width), nextStep(run, prompt, width));
    const along = () => kit.el("div", {}, kit.el("h3", {}, "along the steps"), overSteps(runs[0], width));
    kit.put(picture, three ? runs.map(column) : [column(runs[0], 0), along()]);
    const lines = sentences(runs[0]);
    kit.put(told, lines.map((line) => kit.el("div", {}, line)));
    say(lines.join(" "));
  }

  const push = { class: "row", role: "group", "aria-label": "advantages of the words", style: "gap:2px;margin:5px 0" };
  const sizes = [number("rate", "rate", 0.05, 2, 0.05), number("peak of the start", "peak", 0, 3, 0.25), cosine];
  root.append(kit.el("div", { class: "row" }, lesson, layout, sizes),
    kit.el("div", push, kit.el("span", { style: "margin-right:6px" }, "push"), buttons), step, picture, key(), told);
  kit.listen(window, "resize", draw);
  change();
});
