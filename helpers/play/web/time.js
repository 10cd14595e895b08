// A training seen evaluation by evaluation: the puzzle is learned, and prior tasks are kept or lost. Drag the slider, press
// play, or use the arrow keys. Beside the scores stand what the model said to fixed boards and questions, and what changed
// since the evaluation before: forgot (right, now wrong) and learned (wrong, now right). A second run can run beside it.
(() => {
  const { el, svg, put } = kit;
  const NONE = "none", BOARDS = "boards seen", LEVEL = "accuracy";
  const SIZE = { width: 340, height: 172 };
  const ROW = 27; // pixels of a task
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const curveOf = (run) => (run.reach.length ? run.reach : run.exact);
  const last = (values, holds) => values.reduce((found, value, place) => (holds(value) ? place : found), 0);

  // Which evaluation of a run a frame shows: the last one by then, or the first one that reaches the accuracy (else the end).
  function evaluationAt(run, by, value) {
    if (by === BOARDS) return last(run.samples, (seen) => seen <= value);
    const first = curveOf(run).findIndex((reached) => reached >= value);
    return first < 0 ? run.step.length - 1 : first;
  }

  function framesOf(runs, by) {
    if (by === BOARDS) return [...new Set(runs.flatMap((run) => run.samples))].sort((a, b) => a - b);
    const most = Math.max(...runs.map((run) => Math.max(...curveOf(run))));
    return [...Array(20).keys()].map((k) => (k + 1) / 20).filter((level) => level <= most);
  }

  // How often an evaluation changed an item: lost and gained of each task, the puzzle last.
  const flipsOf = (run, frame, place) => (run.flips.length ? run.flips[frame].slice(2 * place, 2 * place + 2) : null);

  class Machine {
    constructor(data, root) {
      Object.assign(this, { data, root, pictures: data.pictures.map((src) => Object.assign(new Image(), { src })) });
      for (const study of data.studies) for (const run of study.runs) run.kept = run.prior.map(mean);
      this.state = { study: data.studies.at(-1).name, chosen: {}, by: BOARDS, number: 0, frame: 0, ...kit.recall("state", {}) };
      this.say = kit.announcer(root);
      this.build();
      this.choose({});
    }

    get study() { return this.data.studies.find(({ name }) => name === this.state.study) ?? this.data.studies[0]; }

    build() {
      this.first = kit.select({ label: "study", options: this.data.studies.map(({ name }) => name), value: this.state.study,
        act: (study) => this.choose({ study, frame: 0 }) });
      const part = (style, kind = "div", more = {}) => el(kind, { style, ...more });
      this.parts = { controls: part("", "div", { class: "row" }), player: part("height:34px"), sentence: part("height:58px;margin:2px 0", "p"),
        curves: part(`height:${SIZE.height}px`), key: part("height:40px;margin:0", "p", { class: "quiet" }), tasks: part(""), boards: part("height:158px"),
        asked: part("height:342px;border-top:1px solid #c4c4c4", "div", { class: "scroll", tabindex: 0, "aria-label": "prior questions and what was said" }) };
      const { controls, player, sentence, curves, key, tasks, boards, asked } = this.parts;
      this.other = kit.button("the other question of each task", () => { this.state.number = 1 - this.state.number; this.show(this.state.frame); });
      const left = el("div", { class: "fixed", style: `width:${SIZE.width}px` }, curves, key, tasks);
      const right = el("div", { class: "grow" }, boards, el("div", { class: "row", style: "height:32px" }, el("h3", {}, "Prior questions"), this.other), asked);
      this.root.append(controls, player, sentence, el("div", { class: "columns", style: "height:540px" }, left, right),
        el("p", { class: "quiet", style: "margin:0" }, "Keys: ← → one evaluation back or on, Home and End; with the slider in focus too."));
      const to = (frame) => () => this.go(frame());
      kit.keys({ ArrowLeft: to(() => this.state.frame - 1), ArrowRight: to(() => this.state.frame + 1), Home: to(() => 0), End: to(() => this.frames.length - 1) });
    }

    go(frame) {
      const within = Math.min(Math.max(frame, 0), this.frames.length - 1);
      this.player.set(within);
      this.show(within);
    }

    // Runs -----------------------------------------------------------------------------------------------------------
    // Runs or what they run in step by were chosen: frames, controls and curves are made anew.
    choose(change) {
      Object.assign(this.state, change);
      const { study, state } = this, known = (name) => study.runs.find((run) => run.name === name);
      const at = (arm) => study.runs.find((run) => run.arm === arm && (!study.rate || run.rate === study.rate)) ?? study.runs.find((run) => run.arm === arm);
      const arms = Object.keys(study.arms), [one, two] = state.chosen[study.name] ?? [];
      const first = known(one) ?? at(arms.find((arm) => arm.startsWith("sft-answer")) ?? arms[0]);
      const beside = study.runs.find((run) => run.arm.startsWith("rft") && run.place === first.place && run.rate === first.rate);
      this.runs = [first, two === NONE ? null : known(two) ?? beside ?? null].filter((run) => run);
      state.chosen[study.name] = [first.name, this.runs[1]?.name ?? NONE];
      this.frames = framesOf(this.runs, this.by);
      this.drawControls();
      this.drawCurves();
      this.player = kit.player({ label: "the training", length: this.frames.length, value: 0, pause: 700, act: (frame) => this.show(frame),
        show: (frame) => (this.by === BOARDS ? `${kit.text(this.frames[frame])} boards` : `accuracy ${kit.fixed(this.frames[frame])}`) });
      this.player.querySelector("output").style.minWidth = "9em";
      put(this.parts.player, this.player);
      this.go(state.frame);
    }

    get by() { return this.runs.length > 1 ? this.state.by : BOARDS; }

    drawControls() {
      const held = document.activeElement?.getAttribute("aria-label"), two = this.runs.length > 1;
      put(this.parts.controls, this.first, this.runMenus(0), this.runMenus(1), kit.select({ label: "in step by", options: [BOARDS, LEVEL], value: this.by,
        act: (by) => this.choose({ by, frame: 0 }) }));
      this.parts.controls.lastChild.firstElementChild.disabled = !two;
      if (held) [...this.root.querySelectorAll("select")].find((node) => node.getAttribute("aria-label") === held)?.focus();
    }

    // The two menus of a side: its arm, and which of its runs.
    runMenus(side) {
      const { study } = this, run = this.runs[side], label = side ? "beside it" : "run";
      const called = (each) => `${each.place}${study.rate ? `, rate ${kit.rate(each.rate)}` : ""}`;
      const pick = (each) => { const now = [...this.state.chosen[study.name]]; now[side] = each?.name ?? NONE; this.choose({ chosen: { ...this.state.chosen, [study.name]: now } }); };
      const twin = (arm) => { const of = study.runs.filter((each) => each.arm === arm), like = run ?? this.runs[0];
        return of.find((each) => each.place === like.place && each.rate === like.rate) ?? of.find((each) => each.place === like.place) ?? of[0]; };
      const arms = kit.select({ label, options: [...(side ? [NONE] : []), ...Object.keys(study.arms)], value: run?.arm ?? NONE, act: (arm) => pick(arm === NONE ? null : twin(arm)) });
      const own = run ? study.runs.filter((each) => each.arm === run.arm) : [null];
      const which = kit.select({ label: side ? "which of them beside it" : "which of them", options: own, value: run ?? null, name: (each) => (each ? called(each) : "–"), act: pick });
      which.firstChild.remove(); // the words before it say enough; the menu keeps them as its label
      which.firstElementChild.disabled = !run;
      return [arms, which];
    }

    colour(side) { return this.study.arms[this.runs[side].arm].colour; }
    called(side) { const run = this.runs[side], twins = this.runs.length > 1 && this.runs[0].arm === this.runs[1].arm;
      return twins ? `${run.arm} (${run.place}${this.study.rate ? `, ${kit.rate(run.rate)}` : ""})` : run.arm; }

    drawCurves() {
      const seen = (run) => run.samples.map((value) => Math.max(value, this.least));
      this.least = Math.min(...this.runs.map((run) => run.samples.find((value) => value > 0))) / 2;
      const most = Math.max(...this.runs.map((run) => run.samples.at(-1)));
      const plot = kit.axes({ ...SIZE, left: 46, right: 10, x: { label: "boards seen (log; left edge: 0)", domain: [this.least, most], log: true,
        show: (value) => (value >= 1000 ? `${value / 1000}k` : kit.text(value)) }, y: { label: "share right", domain: [0, 1] }, alt: "accuracy and prior score over boards seen" });
      const lines = plot.layer();
      this.runs.forEach((run, side) => { for (const [values, dash] of [[run.exact, ""], [run.kept, "5 3"]])
        lines.append(kit.path(plot, seen(run).map((x, k) => [x, values[k]]), { colour: this.colour(side), dash, width: side ? 1.3 : 2.4 })); });
      Object.assign(this, { plot, dots: plot.layer() });
      put(this.parts.curves, plot.node);
      put(this.parts.key, "— accuracy   - - prior score   ● / ■ now", el("br"), this.runs.map((run, side) => el("b", { style: `color:${this.colour(side)}` },
        `${side ? "   □ thin: " : "■ thick: "}${this.called(side)}`)));
    }

    // Frames ---------------------------------------------------------------------------------------------------------
    show(frame) {
      this.state.frame = frame;
      kit.remember("state", this.state);
      this.at = this.runs.map((run) => evaluationAt(run, this.by, this.frames[frame]));
      put(this.dots, this.runs.flatMap((run, side) => [run.exact, run.kept].map((values) => kit.mark(this.plot.px(Math.max(run.samples[this.at[side]], this.least)),
        this.plot.py(values[this.at[side]]), { colour: this.colour(side), marker: side ? "s" : "o", size: 5, hollow: side > 0 }))));
      this.drawTasks();
      this.drawBoards();
      this.drawAsked();
      this.tell();
    }

    drawTasks() {
      const { tasks } = this.study, node = svg("svg", { width: SIZE.width, height: ROW * tasks.length + 18, role: "img", "aria-label": "score of each prior task" });
      node.append(svg("text", { x: 112, y: 12 }, "score, from 0 to 1; | at the start"), svg("text", { x: SIZE.width, y: 12, "text-anchor": "end" }, "▼forgot ▲learned"));
      tasks.forEach((task, place) => {
        const top = 18 + ROW * place;
        node.append(svg("text", { x: 0, y: top + 16 }, task));
        this.runs.forEach((run, side) => node.append(...this.bar(run, side, place, this.runs.length > 1 ? top + 1 + 12 * side : top + 6)));
      });
      put(this.parts.tasks, node);
    }

    bar(run, side, place, y) {
      const frame = this.at[side], value = run.prior[frame][place], wide = 90, x = 112, colour = this.colour(side), start = x + wide * run.start[place];
      const flips = flipsOf(run, frame, place), changed = flips && flips.some((n) => n > 0);
      return [svg("rect", { x, y, width: wide, height: 11, fill: "#f0f0f0" }),
        svg("rect", { x: x + 0.5, y: y + 1.5, width: Math.max(0, wide * value - 1), height: 8, fill: side ? "#fff" : colour, stroke: colour }),
        svg("line", { x1: start, x2: start, y1: y - 0.5, y2: y + 11.5, stroke: "#000", "stroke-width": 1.5 }),
        svg("text", { x: x + wide + 40, y: y + 10, "text-anchor": "end", class: "number" }, kit.fixed(value)),
        svg("text", { x: SIZE.width - 42, y: y + 10, "text-anchor": "end", style: "fill:#a33a00" }, changed && flips[0] ? `▼${flips[0]}` : ""),
        svg("text", { x: SIZE.width, y: y + 10, "text-anchor": "end", style: "fill:#00664c" }, changed && flips[1] ? `▲${flips[1]}` : "")];
    }

    // What a side said to an item, and what became of it since the evaluation before.
    answer(side, place) {
      const run = this.runs[side], frame = this.at[side], { right } = this.data.items[run.asked][place];
      const [was, now] = [Math.max(frame - 1, 0), frame].map((at) => kit.saidAt(run.said[place], at)), [before, is] = [was, now].map((text) => right.includes(text));
      const words = is ? (before ? "✓ right" : "▲ learned") : before ? "▼ forgot" : "✗ wrong";
      return { text: this.data.texts[now], is, words, flipped: is !== before };
    }
    verdict({ is, words, flipped }) { return el("span", { class: `${is ? "right" : "wrong"}${flipped ? " flipped" : ""}` }, words); }
    get told() { return this.runs.every((run) => run.said.length); }
    items(of) { return (this.data.items[this.runs[0].asked] ?? []).map((item, place) => ({ ...item, place })).filter(({ task }) => (task === "puzzle") === of); }

    drawBoards() {
      if (!this.told) return put(this.parts.boards, el("h3", {}, "Boards"), el("p", { class: "quiet" }, "No answers were recorded in this study, only scores."));
      const shown = this.items(true).slice(0, 6);
      put(this.parts.boards, el("h3", {}, `Boards, and put back as it says${this.runs.length > 1 ? ` (upper: ${this.called(0)}, lower: ${this.called(1)})` : ""}`),
        el("div", { class: "boards" }, shown.map((item) => this.board(item))));
    }

    board(item) {
      const image = this.pictures[item.picture], sides = this.runs.map((_, side) => this.answer(side, item.place));
      return el("div", { class: "board" }, el("img", { src: image.src, width: 44, height: 44, class: "pixels", alt: `board ${item.place + 1}, right answer ${item.truth}` }),
        sides.map((own) => el("div", { class: `put${own.flipped ? ` flip ${own.is ? "right" : "wrong"}` : ""}` }, kit.putBack(image, own.text, { size: 36 }), this.verdict(own))));
    }

    drawAsked() {
      if (!this.told) return put(this.parts.asked, el("p", { class: "quiet" }, "Choose the study on several bases to read what models said to prior questions."));
      const seen = {}, shown = this.items(false).filter(({ task }) => (seen[task] = (seen[task] ?? -1) + 1) === this.state.number);
      put(this.parts.asked, el("table", { class: "asked" }, shown.map((item) => this.question(item))));
    }

    question(item) {
      const image = this.pictures[item.picture], own = this.runs.map((_, side) => this.answer(side, item.place));
      return el("tr", {}, el("td", { style: "width:52px" }, el("img", { src: image.src, width: 44, height: 44, class: "pixels", alt: `picture of a question of ${item.task}` })),
        el("td", {}, el("div", { class: "ask", title: item.text }, item.text), "truth: ", el("b", {}, item.truth)),
        own.map((each) => el("td", { class: `said${each.flipped ? ` flip ${each.is ? "right" : "wrong"}` : ""}` }, el("div", { class: "ask" }, kit.spoken(each.text)), this.verdict(each))));
    }

    // What is seen: where each run stands, and what changed since its evaluation before.
    tell() {
      const boards = (run, side) => kit.text(run.samples[this.at[side]]);
      const words = this.runs.map((run, side) => {
        const frame = this.at[side], lost = mean(run.start) - run.kept[frame], ended = frame === run.step.length - 1 ? ", its end" : "";
        return `${this.called(side)} after ${boards(run, side)} boards${ended}: accuracy ${kit.fixed(run.exact[frame])}, prior score ${kit.fixed(run.kept[frame])} `
          + `(${lost >= 0 ? "lost" : "gained"} ${kit.fixed(Math.abs(lost))})${this.changes(run, frame)}.`;
      });
      put(this.parts.sentence, words.map((text) => el("span", { style: "display:block" }, text)));
      this.say(words.join(" "));
    }

    changes(run, frame) {
      if (!run.flips.length) return "";
      if (!frame) return "; this is the start";
      const { tasks } = this.study, lost = tasks.map((task, place) => [task, ...flipsOf(run, frame, place)]).sort((a, b) => b[1] - a[1]);
      const sum = (k) => lost.reduce((total, row) => total + row[k], 0), most = lost[0];
      return `; since the evaluation before ▼${sum(1)} prior items forgot${most[1] > 1 ? ` (${most[1]} in ${most[0]})` : ""}, ▲${sum(2)} learned`;
    }
  }

  const STYLE = `.boards { display: grid; grid-template-columns: repeat(6, 1fr); gap: 6px; font-size: 11.5px; }
    .board img { margin-bottom: 3px; } .put { display: flex; gap: 4px; align-items: center; height: 42px; border: 2px solid transparent; line-height: 1.1; }
    .flip { border: 2px solid currentColor !important; } .flip.wrong { border-style: dashed !important; } .flipped { font-weight: 700; }
    .asked { width: 100%; table-layout: fixed; font-size: 12px; border-collapse: separate; border-spacing: 2px; } .asked td { text-align: left; vertical-align: top; padding: 2px 4px; }
    .ask { height: 32px; overflow: hidden; line-height: 16px; color: #222; } .asked .words { font-size: 12px; } select:disabled { color: #767676; }`;

  kit.start((data, root) => {
    root.append(el("style", {}, STYLE));
    new Machine(data, root);
  });
})();
