// What all views share: elements, controls, axes and marks, what is remembered, and how long an answer takes.
// A view is one function: view((data, root) => { ... }). Every control answers through `react`, which times it.
"use strict";

const kit = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const latencies = []; // milliseconds from an input to the frame that shows it, the last few hundred; the browser tests read them
  const KEPT = 400;
  window.latencies = latencies;

  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), (event) => react(event, value));
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  };
  const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  // Acts on an input and times it, where it changed something in the page. What one act sets off (a click) is part of it, and a focus
  // is what a press or a key sets off: neither is an input of its own.
  let acting = false;
  function react(event, act) {
    if (acting || event.type === "focus") return act(event);
    const changes = new MutationObserver(() => {}), focused = document.activeElement;
    changes.observe(document.documentElement, { subtree: true, childList: true, attributes: true, characterData: true });
    acting = true;
    try { act(event); } finally {
      acting = false;
      if (changes.takeRecords().length || document.activeElement !== focused) time(event);
      changes.disconnect();
    }
  }
  function time(event) {
    requestAnimationFrame(() => {
      const drawn = new MessageChannel(); // its message comes after the frame was painted
      drawn.port1.onmessage = () => { if (latencies.push(performance.now() - event.timeStamp) > KEPT) latencies.shift(); };
      drawn.port2.postMessage(0);
    });
  }

  // A listener outside the view's own elements; it ends with the drawing that it belongs to.
  let life = new AbortController();
  const listen = (target, name, act, options) => target.addEventListener(name, act, { ...options, signal: life.signal });

  const put = (node, ...children) => { node.replaceChildren(...children.flat().filter((child) => child ?? false)); return node; };

  // Numbers -------------------------------------------------------------------------------------------------------
  // Three significant digits, so that .0025 and .005 are told apart; a missing value is a dash.
  function text(value, digits = 3) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (value === 0 || Number.isInteger(value)) return value.toLocaleString("en");
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-4) return value.toExponential(Math.max(0, digits - 1)).replace("e+", "e");
    return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
  }
  // With so many decimals; never -0.00.
  const fixed = (value, places = 2) => (value === null || value === undefined ? "–" : value.toFixed(places).replace(/^-(0\.?0*)$/, "$1"));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  // The standard deviation of a sample: over n - 1, as GRPO takes it.
  const spread = (values) => Math.sqrt(values.reduce((sum, value) => sum + (value - mean(values)) ** 2, 0) / (values.length - 1));

  // What a reader set stays while the page lives in a tab: a notebook takes a cell out and puts it back on scrolling. Notebooks
  // of one tab share its memory, so that a slot has the view's name and a digest of its data (FNV-1a).
  const source = () => document.getElementById("data").textContent;
  function digest(words) {
    let hash = 0x811c9dc5;
    for (let at = 0; at < words.length; at++) hash = Math.imul(hash ^ words.charCodeAt(at), 0x01000193);
    return (hash >>> 0).toString(36);
  }
  const own = (() => { let known; return () => (known ??= `jigsaw/${data().view}/${digest(source())}/`); })();
  const slot = (key) => own() + key;
  function forget() { // whether there was anything to forget
    try {
      const kept = Object.keys(sessionStorage).filter((key) => key.startsWith(own()));
      kept.forEach((key) => sessionStorage.removeItem(key));
      return kept.length > 0;
    } catch { return false; }
  }
  function remember(key, value) { try { sessionStorage.setItem(slot(key), JSON.stringify(value)); } catch { /* not allowed here */ } }
  function recall(key, otherwise) {
    try { return JSON.parse(sessionStorage.getItem(slot(key))) ?? otherwise; } catch { return otherwise; }
  }

  // Numbers from 0 to 1 that a seed decides (mulberry32), so that a picture is the same whenever it is drawn.
  function generator(seed) {
    let now = seed | 0;
    return () => {
      now = (now + 0x6d2b79f5) | 0;
      let mixed = Math.imul(now ^ (now >>> 15), 1 | now);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  }

  // Controls ------------------------------------------------------------------------------------------------------
  const button = (label, act, attributes) => el("button", { type: "button", onclick: act, ...attributes }, label);

  function toggle(label, pressed, act, attributes) {
    const node = button(label, () => { const now = node.getAttribute("aria-pressed") !== "true"; node.set(now); act(now); }, attributes);
    node.set = (now) => node.setAttribute("aria-pressed", String(now));
    node.set(pressed);
    return node;
  }

  // `values`: a slider over these instead of low..high by step. Returns the label; .value and .set(value) on it.
  function slider({ label, low = 0, high = 1, step = 1, value, values, show = text, act, width = 160 }) {
    const at = (place) => (values ? values[place] : place);
    const place = (wanted) => (values ? Math.max(0, values.indexOf(wanted)) : wanted);
    const range = values ? { min: 0, max: values.length - 1, step: 1 } : { min: low, max: high, step };
    const said = el("output", {});
    const input = el("input", { type: "range", ...range, style: `width:${width}px`, "aria-label": label, oninput: () => { tell(); act(node.value); } });
    const tell = () => { node.value = at(Number(input.value)); said.textContent = show(node.value); input.setAttribute("aria-valuetext", said.textContent); };
    const node = el("label", { class: "control" }, label, input, said);
    node.set = (wanted) => { input.value = place(wanted); tell(); };
    node.input = input;
    node.set(value);
    return node;
  }

  function select({ label, options, value, act, name = String }) {
    const menu = el("select", { "aria-label": label, onchange: () => { node.value = options[menu.selectedIndex]; act(node.value); } },
      options.map((option) => el("option", {}, name(option))));
    const node = el("label", { class: "control" }, label, menu);
    node.set = (wanted) => { menu.selectedIndex = Math.max(0, options.indexOf(wanted)); node.value = options[menu.selectedIndex]; };
    node.set(value);
    return node;
  }

  function check({ label, value, act }) {
    const box = el("input", { type: "checkbox", onchange: () => { node.value = box.checked; act(node.value); } });
    const node = el("label", { class: "control" }, box, label);
    node.set = (wanted) => { box.checked = wanted; node.value = wanted; };
    node.set(value);
    return node;
  }

  // A slider over `length` frames with a play button; it stops at the end, and when it is taken out of the page.
  function player({ label, length, value = 0, show, act, pause = 500 }) {
    const last = Math.max(0, length - 1);
    let timer = null;
    const stop = () => { clearInterval(timer); timer = null; start.textContent = "▶ play"; start.setAttribute("aria-label", `play ${label}`); };
    const go = (to) => {
      if (to >= last) stop();
      bar.set(Math.min(to, last));
      act(Math.min(to, last));
    };
    const tick = () => (node.isConnected ? go(bar.value + 1) : stop());
    const start = button("▶ play", () => {
      if (timer !== null) return stop();
      start.textContent = "❚❚ pause";
      start.setAttribute("aria-label", `pause ${label}`);
      timer = setInterval(tick, pause); // before the first step, which may be the last and stops it
      go(bar.value >= last ? 0 : bar.value + 1);
    }, { "aria-label": `play ${label}` });
    const bar = slider({ label, high: last, value, show, width: 260, act: (to) => { stop(); act(to); } });
    const node = el("div", { class: "row" }, start, bar);
    node.set = (to) => { stop(); bar.set(to); };
    return node;
  }

  // Keys of a whole view: { ArrowLeft: act, ... }; a control that has the focus keeps its own, and an area that scrolls the keys
  // that scroll it. Letters act where nothing has the focus, or something in `home`: elsewhere they are typed by mistake.
  const SCROLLING = /^(Arrow|Home|End|Page)/;
  const scrolls = (node) => node !== document.body && /auto|scroll/.test(getComputedStyle(node).overflow);
  function isKept({ key, target }, home) {
    if (target.closest?.("input, select, textarea")) return true;
    if (SCROLLING.test(key)) return scrolls(target);
    return /^[a-z]$/i.test(key) && target !== document.body && !home?.contains(target);
  }
  function keys(acts, home) {
    listen(document, "keydown", (event) => {
      const act = acts[event.key];
      if (!act || isKept(event, home) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      react(event, act);
    });
  }

  // What changed, for a screen reader; nothing is seen of it.
  function announcer(root) {
    const node = el("p", { class: "unseen", role: "status" });
    root.append(node);
    return (words) => { node.textContent = words; };
  }

  // Plots ---------------------------------------------------------------------------------------------------------
  function ticks([low, high], log, count = 5) {
    if (log) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
        for (const part of [1, 2, 5]) if (part * 10 ** power >= low * 0.999 && part * 10 ** power <= high * 1.001) found.push(part * 10 ** power);
      return found.length > 7 ? found.filter((value) => /^1/.test(value.toExponential())) : found;
    }
    const raw = (high - low) / count, size = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((part) => part * size).find((part) => part >= raw * 0.999);
    const found = [];
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) found.push(Number(value.toPrecision(12)));
    return found;
  }

  // Axes with room for marks. x, y: { label, domain: [low, high], log, ticks, show }. Returns px, py (data to pixels) and
  // layer(): a group to draw into, under what is drawn later.
  function axes({ width = 460, height = 300, x, y, alt, left = 52, bottom = 40, top = 10, right = 24 }) {
    const scale = ({ domain: [low, high], log }, from, to) => {
      const at = log ? Math.log : (value) => value;
      return (value) => from + ((at(value) - at(low)) / (at(high) - at(low))) * (to - from);
    };
    const px = scale(x, left, width - right), py = scale(y, height - bottom, top);
    const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": alt });
    for (const value of x.ticks ?? ticks(x.domain, x.log, width / 80)) node.append(
      svg("line", { class: "grid", x1: px(value), x2: px(value), y1: top, y2: height - bottom }),
      svg("text", { x: px(value), y: height - bottom + 15, "text-anchor": "middle" }, (x.show ?? text)(value)));
    for (const value of y.ticks ?? ticks(y.domain, y.log)) node.append(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: py(value), y2: py(value) }),
      svg("text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, (y.show ?? text)(value)));
    node.append(
      svg("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - right}` }),
      svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.label),
      svg("text", { transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label));
    const layer = () => node.appendChild(svg("g", {}));
    return { node, px, py, layer, left, right, top, bottom, width, height };
  }

  // A line through [x, y] pairs; a pair without a number breaks it.
  function path(plot, points, { colour = "#444", dash = "", width = 1.8, opacity = 1 } = {}) {
    let pen = "M", d = "";
    for (const [x, y] of points) {
      if (x === null || y === null) { pen = "M"; continue; }
      d += `${pen}${plot.px(x).toFixed(1)} ${plot.py(y).toFixed(1)}`;
      pen = "L";
    }
    return svg("path", { d, fill: "none", stroke: colour, "stroke-dasharray": dash, "stroke-width": width, opacity });
  }

  // The markers that matplotlib's letters stand for, about `size` pixels from centre to edge.
  const OUTLINES = {
    o: null, s: [[-1, -1], [1, -1], [1, 1], [-1, 1]], D: [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]], d: [[0, -1.3], [0.8, 0], [0, 1.3], [-0.8, 0]],
    "^": [[0, -1.2], [1.15, 0.95], [-1.15, 0.95]], v: [[0, 1.2], [1.15, -0.95], [-1.15, -0.95]],
    "<": [[-1.2, 0], [0.95, -1.15], [0.95, 1.15]], ">": [[1.2, 0], [-0.95, -1.15], [-0.95, 1.15]],
    P: [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]],
    X: [[-1.2, -0.7], [-0.7, -1.2], [0, -0.5], [0.7, -1.2], [1.2, -0.7], [0.5, 0], [1.2, 0.7], [0.7, 1.2], [0, 0.5], [-0.7, 1.2], [-1.2, 0.7], [-0.5, 0]],
    p: [0, 1, 2, 3, 4].map((k) => [1.2 * Math.sin((k * 2 * Math.PI) / 5), -1.2 * Math.cos((k * 2 * Math.PI) / 5)]),
    h: [0, 1, 2, 3, 4, 5].map((k) => [1.2 * Math.sin((k * Math.PI) / 3), -1.2 * Math.cos((k * Math.PI) / 3)]),
    H: [0, 1, 2, 3, 4, 5].map((k) => [1.2 * Math.cos((k * Math.PI) / 3), 1.2 * Math.sin((k * Math.PI) / 3)]),
    8: [...Array(8).keys()].map((k) => [1.2 * Math.sin(((k + 0.5) * Math.PI) / 4), -1.2 * Math.cos(((k + 0.5) * Math.PI) / 4)]),
    "*": [...Array(10).keys()].map((k) => [(k % 2 ? 0.55 : 1.35) * Math.sin((k * Math.PI) / 5), -(k % 2 ? 0.55 : 1.35) * Math.cos((k * Math.PI) / 5)]),
  };
  // A hollow one has its colour at the edge only; "$k$" is the letter k, which is hollow where it is thin.
  function mark(x, y, { colour = "#444", marker = "o", size = 5, hollow = false, attributes = {} } = {}) {
    const corners = OUTLINES[marker];
    const filling = hollow ? { fill: "#fff", stroke: colour, "stroke-width": 1.6 } : { fill: colour, stroke: "#fff", "stroke-width": 0.8 };
    const common = { ...filling, ...attributes };
    if (marker.startsWith("$")) return svg("text", { x, y: y + size, "text-anchor": "middle", ...attributes,
      style: `fill:${colour};font-size:${3 * size}px;font-weight:${hollow ? 400 : 700}` }, marker.slice(1, -1));
    if (!corners) return svg("circle", { cx: x, cy: y, r: size, ...common });
    return svg("path", { d: `M${corners.map(([a, b]) => `${(x + a * size).toFixed(1)} ${(y + b * size).toFixed(1)}`).join("L")}Z`, ...common });
  }

  // A line as a plot draws it, with its marker: for a table or a key.
  const sample = ({ colour, dash = "", marker }, width = 34) => svg("svg", { width, height: 14, style: "flex:none", "aria-hidden": "true" },
    svg("line", { x1: 0, x2: width, y1: 7, y2: 7, stroke: colour, "stroke-dasharray": dash, "stroke-width": 2.2 }),
    marker ? mark(width / 2, 7, { colour, marker, size: 4 }) : "");

  // Black or white, whichever can be read on a colour (#rrggbb).
  function ink(hex) {
    const [red, green, blue] = [1, 3, 5].map((k) => (parseInt(hex.slice(k, k + 2), 16) / 255) ** 2.2);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000" : "#fff";
  }

  // Groups --------------------------------------------------------------------------------------------------------
  // A bar to the right of the middle for a value above 0, to the left for one below; `most` fills a half.
  function balance(value, most, width = 90, height = 14) {
    const middle = width / 2, long = Math.min(1, Math.abs(value) / most) * (middle - 1);
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
      svg("rect", { x: middle - (value < 0 ? long : 0), y: 2, width: long, height: height - 4, fill: value < 0 ? "#d55e00" : "#0072b2" }),
      svg("path", { class: "axis", d: `M${middle} 0V${height}` }));
  }

  // What a group of completions teaches, in words. `right[i]`: whether completion i is right.
  function lesson(rewards, advantages, right) {
    const count = (some) => (some === 1 ? "1 is" : `${some} are`);
    const n = rewards.length, average = text(mean(rewards));
    const [up, down] = [1, -1].map((sign) => advantages.map((a, i) => (a * sign > 0.01 ? i : -1)).filter((i) => i >= 0));
    const solved = right.filter(Boolean).length;
    if (!up.length) {
      const why = solved === n ? "All are right" : solved ? "Right or wrong" : "None is right";
      return `${why}, and all ${n} earn ${average}: every advantage is 0, and nothing is learned from this board.`;
    }
    const above = `${count(up.length)} above it and made more probable`;
    const moved = `The mean is ${average}: ${above}, ${count(down.length)} made less probable.`;
    if (!solved) return `${moved} None is right: wrong answers are learned here, because they earn more than the others.`;
    const wrong = up.filter((i) => !right[i]).length, lost = down.filter((i) => right[i]).length;
    if (lost) return `${moved} Of the right ones ${count(lost)} pushed down too, for earning less than the mean.`;
    if (wrong) return `${moved} Beside what is right, ${wrong === 1 ? "a wrong answer is" : `${wrong} wrong answers are`} pushed up too.`;
    return `${moved} Only what is right is pushed up${solved < n / 4 ? ", and hard, because it is rare" : ""}.`;
  }

  // A board of tiles on a canvas. `tiles[place]` of the picture are shown slot by slot: slot i shows tile placement[i] (from 1).
  // `image`: an <img> that is loaded, or a canvas.
  function drawBoard(canvas, image, { rows, cols, placement, size }) {
    canvas.width = canvas.height = size;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    const [w, h] = [(image.naturalWidth ?? image.width) / cols, (image.naturalHeight ?? image.height) / rows], [W, H] = [size / cols, size / rows];
    placement.forEach((tile, place) => pen.drawImage(image, ((tile - 1) % cols) * w, Math.floor((tile - 1) / cols) * h, w, h,
      (place % cols) * W, Math.floor(place / cols) * H, W, H));
  }

  // Runs ----------------------------------------------------------------------------------------------------------
  // What was said at a frame. `changes`: frame and text, frame and text, ..., wherever it is another text than before.
  function saidAt(changes, frame) {
    let found = null;
    for (let place = 0; place < changes.length && changes[place] <= frame; place += 2) found = changes[place + 1];
    return found;
  }

  // The accuracies by which a run has reached one: its rising curve, where it is read on that.
  const curveOf = (run) => (run.reach.length ? run.reach : run.exact);

  // On which of the two curves the accuracies of each study are read, in a sentence.
  function readings(studies) {
    const rising = ({ runs }) => runs.every((run) => run.reach.length);
    const told = (some, how) => (some.length ? [`in ${some.map(({ name }) => `“${name}”`).join(", ")} ${how}`] : []);
    const ways = [...told(studies.filter(rising), "by the rising curve nearest to the evaluations"),
      ...told(studies.filter((study) => !rising(study)), "by the evaluations themselves")];
    return `An accuracy is reached: ${ways.join("; ")}.`;
  }

  // What guesses would get right, as a dotted line: { y } across, or { x } upright.
  function chance(plot, { x, y }) {
    const upright = x !== undefined, at = upright ? plot.px(x) : plot.py(y);
    const ends = upright ? { x1: at, x2: at, y1: plot.top, y2: plot.height - plot.bottom }
      : { x1: plot.left, x2: plot.width - plot.right, y1: at, y2: at };
    const spot = upright ? { x: at + 4, y: plot.top + 10 } : { x: plot.width - plot.right - 3, y: at - 4, "text-anchor": "end" };
    return svg("g", { class: "chance" }, svg("line", { ...ends, stroke: "#555", "stroke-width": 1.3, "stroke-dasharray": "1.5 3" }),
      svg("text", { ...spot, stroke: "#fff", "stroke-width": 3, "paint-order": "stroke" }, "chance"));
  }

  // Axes of shares over the boards that runs have seen, on a log scale; .at(samples): where a number lies, 0 at the left edge.
  function overBoards(runs, size) {
    const least = Math.min(...runs.map((run) => run.samples.find((seen) => seen > 0))) / 2;
    const most = Math.max(...runs.map((run) => run.samples.at(-1)));
    const thousands = (value) => (value >= 1000 ? `${value / 1000}k` : text(value));
    const plot = axes({ ...size, left: 46, right: 10, alt: "accuracy and prior score over boards seen",
      y: { label: "share right", domain: [0, 1] },
      x: { label: "boards seen (log; 0: left edge)", domain: [least, most], log: true, show: thousands } });
    plot.layer().append(...[...new Set(runs.map((run) => run.chance))].map((y) => chance(plot, { y })));
    return { ...plot, at: (samples) => Math.max(samples, least) };
  }

  // Pictures by number, as images of a size; each is made once, so that it is not decoded anew when it is shown again.
  function album(sources) {
    const made = new Map();
    return (number, size, alt) => {
      const key = `${number} ${size} ${alt}`;
      if (!made.has(key)) made.set(key, el("img", { src: sources[number], class: "pixels", width: size, height: size, alt }));
      return made.get(key);
    };
  }

  // What was said: its answer first, in bold, then its think in grey, so that what is cut off is think; as it is where it has
  // another form. The whole of it stands in the title.
  function spoken(text) {
    const parts = /^\s*(?:<think>([^<]*)<\/think>)?\s*<answer>([^<]*)<\/answer>\s*$/.exec(text);
    if (!parts) return el("span", { class: "words", title: text }, text);
    const think = parts[1] ? el("span", { class: "quiet" }, ` (think: ${parts[1].trim()})`) : null;
    return el("span", { class: "words", title: text }, el("b", {}, parts[2].trim()), think);
  }

  // Words of the lab that a reader may not know, each with what it means under the pointer.
  const MEANINGS = {
    "prior score": "The mean score on the prior tasks: what the base could do before it learned the puzzle (1: all right).",
    "form asked": "How the prompt asks for an answer: direct (the answer alone), think (thoughts first), plain (no form named), sentences.",
    "form written": "The form of the answers that the training shows or rewards.",
    "KL weight": "How strongly the training holds the model to the words of its base (0: not at all).",
    "with a signal": "Not all answers of the group earn the same reward: only then is there an advantage to learn from.",
    "log-prob of true answer": "The natural logarithm of the probability that the model gives the true answer: 0 is certain, −3.1 is 1 in 23.",
  };
  const term = (word, shown = word) => (MEANINGS[word] ? el("abbr", { title: MEANINGS[word] }, shown) : shown);

  // A learning rate: 6e-5.
  const rate = (value) => value.toExponential().replace("e+0", "");

  // A board put back as an answer says, on a canvas; nothing but a grey field where the answer is no placement.
  function putBack(image, said, { rows = 2, cols = 2, size }) {
    const told = (/<answer>([^<]*)<\/answer>/.exec(said)?.[1] ?? "").trim().split(/\s+/).map(Number);
    const tiles = [...Array(rows * cols).keys()];
    const whole = told.length === tiles.length && tiles.every((tile) => told.includes(tile + 1));
    const canvas = el("canvas", { class: "pixels", width: size, height: size, role: "img",
      "aria-label": whole ? `the board put back as ${told.join(" ")}` : "no placement to put it back by", style: "background:#d9d9d9" });
    const draw = () => drawBoard(canvas, image, { rows, cols, placement: tiles.map((tile) => told.indexOf(tile + 1) + 1), size });
    if (whole) image.complete ? draw() : image.addEventListener("load", draw);
    return canvas;
  }

  const data = (() => { let read; return () => (read ??= JSON.parse(source())); })();

  // A frame takes the height that its content needs at its width, once it is drawn and whenever that width changes; never while
  // values change. So parts whose words change keep room: `room(node, longest)`, where `longest()` makes the most that may stand in
  // it. Where the page around the frame cannot be reached (a sandbox), the frame keeps the height that it came with, and scrolls.
  // A view without `snug` may need more than it has at first: its frame only grows.
  let rooms = [], fitted = 0, snugly = false;
  const room = (node, longest) => { rooms.push([node, longest]); return node; };
  function keepRoom([node, longest]) {
    if (!node.offsetParent) return; // not shown just now
    const twin = put(node.cloneNode(false), longest());
    Object.assign(twin.style, { height: "auto", visibility: "hidden" });
    node.replaceWith(twin);
    const height = Math.ceil(twin.getBoundingClientRect().height);
    twin.replaceWith(node);
    node.style.height = `${height}px`;
  }
  const refit = () => { fitted = 0; fit(); }; // where a reader asked for another arrangement
  function fit() {
    if (!window.innerWidth || window.innerWidth === fitted) return;
    fitted = window.innerWidth;
    rooms.forEach(keepRoom);
    let frame = null;
    try { frame = window.frameElement; } catch { /* another origin's page */ }
    if (!frame) return;
    document.documentElement.classList.add("fitted");
    const least = snugly ? 0 : frame.clientHeight;
    frame.style.height = `${Math.max(least, Math.ceil(document.getElementById("view").getBoundingClientRect().height))}px`;
  }

  // Draws the view; where what was remembered cannot be drawn, it is forgotten, and the view begins anew.
  function start(draw, { snug = false } = {}) {
    snugly = snug;
    const root = document.getElementById("view");
    const begin = () => {
      life.abort();
      life = new AbortController();
      [rooms, fitted] = [[], 0];
      root.removeAttribute("class");
      root.replaceChildren();
      draw(data(), root);
      listen(window, "resize", fit);
      fit();
    };
    try {
      try { begin(); } catch (error) {
        if (!forget()) throw error;
        console.warn(`What was remembered of this view could not be drawn: ${error.message}`);
        begin();
      }
    } catch (error) {
      root.append(el("p", { class: "wrong", role: "alert" }, `This view could not be drawn: ${error.message}`));
      throw error;
    }
    root.dataset.ready = "yes";
  }

  return { el, svg, put, react, listen, text, fixed, mean, spread, generator, remember, recall, button, toggle, slider, select, check, player, keys, announcer,
    ticks, axes, path, mark, sample, ink, balance, lesson, drawBoard, saidAt, curveOf, readings, chance, overBoards, album, spoken, rate,
    putBack, room, refit, term, start };
})();
