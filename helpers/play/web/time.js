// A training seen evaluation by evaluation: the puzzle is learned, and prior tasks are kept or lost. Drag the slider, press
// play, or use the arrow keys. Beside the scores stand what the model said to fixed boards and questions, and what changed
// since the evaluation before: forgot (right, now wrong) and learned (wrong, now right). A second run can run beside it.
(() => {
  const { el, svg, put, mean, curveOf } = kit;
  const NONE = "none",
    BOARDS = "boards seen",
    LEVEL = "accuracy";
  const SIZE = { width: 340, height: 172 };
  const ROW = 27; // pixels of a task
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

  // In which settings runs differ, as pairs of a setting's name and its values; of one run alone, all its settings.
  function differences([one, other]) {
    const names = [...new Set([one, other].flatMap((run) => Object.keys(run?.set ?? {})))];
    const told = (name, held) => (name === "rate" ? kit.rate(held) : typeof held === "string" ? held : kit.text(held));
    const value = (run, name) => told(name, run.set[name]);
    if (!other) return names.map((name) => [name, value(one, name)]);
    const arms = one.arm === other.arm ? [] : [["arm", `${one.arm} | ${other.arm}`]];
    return arms.concat(
      names.filter((name) => one.set[name] !== other.set[name]).map((name) => [name, `${value(one, name)} | ${value(other, name)}`]),
    );
  }
  const lengthOf = (pairs) => pairs.flat().join(" ").length;
  const longestOf = (list, length) => list.reduce((one, other) => (length(other) > length(one) ? other : one));
  const told = (pairs) => pairs.flatMap(([name, words], place) => [place ? ", " : "", kit.term(name), ` ${words}`]);

  const mostOf = (list, name) => longestOf(list.map(name), (words) => words.length);
  const linesOf = (words) => words.map((text) => el("span", { style: "display:block" }, text));

  class Machine {
    constructor(data, root) {
      Object.assign(this, { data, root, picture: kit.album(data.pictures) });
      for (const study of data.studies) for (const run of study.runs) run.kept = run.prior.map(mean);
      this.state = { study: data.studies.at(-1).name, chosen: {}, by: BOARDS, number: 0, frame: 0, ...kit.recall("state", {}) };
      this.say = kit.announcer(root);
      this.build();
      this.choose({});
    }

    get study() {
      return this.data.studies.find(({ name }) => name === this.state.study) ?? this.data.studies[0];
    }

    build() {
      this.first = kit.select({
        label: "study",
        options: this.data.studies.map(({ name }) => name),
        value: this.state.study,
        act: (study) => this.choose({ study, frame: 0 }),
      });
      this.other = kit.button("other question of each", () => {
        this.state.number = 1 - this.state.number;
        this.turn += 1;
        this.show(this.state.frame);
      });
      const above = { controls: "row sides", differ: "quiet differ", player: "player", sentence: "sentence" };
      const below = { curves: "curves", key: "quiet keys", tasks: "tasks", boards: "pictures", asked: "scroll questions" };
      const parts = Object.entries({ ...above, ...below });
      this.parts = Object.fromEntries(parts.map(([name, kind]) => [name, el("div", { class: kind })]));
      const { controls, differ, player, sentence, curves, key, tasks, boards, asked } = this.parts;
      asked.tabIndex = 0; // so that keys can scroll it
      asked.ariaLabel = "prior questions and what was said";
      this.asking = el("h3", {});
      const left = el("div", { class: "fixed left" }, curves, key, tasks);
      const right = el("div", { class: "grow" }, boards, el("div", { class: "row heading" }, this.asking, this.other), asked);
      const help = "▼ ▲: since the evaluation before. Keys: ← → one step back or on, Home, End.";
      const meaning = el("div", { class: "quiet" }, kit.term("prior score", "Prior score"),
        ": the mean of what the base could do before. ", kit.readings(this.data.studies));
      this.root.append(controls, differ, player, sentence, el("div", { class: "columns" }, left, right), meaning,
        el("div", { class: "quiet" }, help));
      kit.room(sentence, () => this.longest());
      kit.room(differ, () => {
        const pairs = this.data.studies.flatMap(({ runs }) => runs.flatMap((one) => runs.map((other) => [one, other])));
        return told(longestOf(pairs.map(differences), lengthOf));
      });
      const to = (frame) => () => this.go(frame());
      const [back, on, end] = [() => this.state.frame - 1, () => this.state.frame + 1, () => this.frames.length - 1];
      kit.keys({ ArrowLeft: to(back), ArrowRight: to(on), Home: to(() => 0), End: to(end) });
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
      this.turn = (this.turn ?? 0) + 1; // so that what is drawn is drawn anew, whatever the frame
      const { study, state } = this,
        known = (name) => study.runs.find((run) => run.name === name);
      const at = (arm) =>
        study.runs.find((run) => run.arm === arm && (!study.rate || run.rate === study.rate)) ?? study.runs.find((run) => run.arm === arm);
      const arms = Object.keys(study.arms),
        [one, two] = state.chosen[study.name] ?? [];
      const [opened, rival] = study.opening ?? [];
      const first = known(one) ?? known(opened) ?? at(arms[0]);
      const beside = first.name === opened ? known(rival) : null;
      this.runs = [first, two === NONE ? null : (known(two) ?? beside ?? null)].filter((run) => run);
      state.chosen[study.name] = [first.name, this.runs[1]?.name ?? NONE];
      this.frames = framesOf(this.runs, this.by);
      const held = this.drawControls();
      this.drawCurves();
      this.player = kit.player({
        label: "the training",
        length: this.frames.length,
        value: 0,
        pause: 700,
        act: (frame) => this.show(frame),
        show: (frame) => (this.by === BOARDS ? `${kit.text(this.frames[frame])} boards` : `accuracy ${kit.fixed(this.frames[frame])}`),
      });
      this.player.querySelector("output").style.minWidth = "8em";
      this.player.querySelector("input").style.width = "180px";
      this.player.append(this.step, this.first);
      put(this.parts.player, this.player);
      this.focusOn(held);
      this.go(state.frame);
    }

    get by() {
      return this.runs.length > 1 ? this.state.by : BOARDS;
    }

    drawControls() {
      const held = document.activeElement?.getAttribute("aria-label"),
        two = this.runs.length > 1;
      const side = (menus) => el("div", { class: "side" }, menus);
      put(this.parts.controls, side(this.runMenus(0)), side(this.runMenus(1)));
      put(this.parts.differ, two ? "Settings that differ: " : "Settings: ", this.differing(two));
      this.step = kit.select({ label: "in step by", options: [BOARDS, LEVEL], value: this.by, act: (by) => this.choose({ by, frame: 0 }) });
      this.step.firstElementChild.disabled = !two;
      return held;
    }

    differing(two) {
      const pairs = differences(this.runs);
      return pairs.length ? told(pairs) : two ? "none, it is the same run." : "";
    }

    // Menus are made anew; the one that was used keeps the focus.
    focusOn(held) {
      if (held) [...this.root.querySelectorAll("select")].find((node) => node.getAttribute("aria-label") === held)?.focus();
    }

    // The two menus of a side: its arm, and which of its runs.
    runMenus(side) {
      const { study } = this,
        run = this.runs[side],
        label = side ? "beside it" : "run";
      const called = (each) => `${each.place}${study.rate ? `, rate ${kit.rate(each.rate)}` : ""}`;
      const pick = (each) => {
        const now = [...this.state.chosen[study.name]];
        now[side] = each?.name ?? NONE;
        this.choose({ chosen: { ...this.state.chosen, [study.name]: now } });
      };
      const twin = (arm) => {
        const of = study.runs.filter((each) => each.arm === arm),
          like = run ?? this.runs[0];
        return (
          of.find((each) => each.place === like.place && each.rate === like.rate) ?? of.find((each) => each.place === like.place) ?? of[0]
        );
      };
      const arms = kit.select({
        label,
        options: [...(side ? [NONE] : []), ...Object.keys(study.arms)],
        value: run?.arm ?? NONE,
        act: (arm) => pick(arm === NONE ? null : twin(arm)),
      });
      const own = run ? study.runs.filter((each) => each.arm === run.arm) : [null];
      const which = kit.select({
        label: side ? "which of them beside it" : "which of them",
        options: own,
        value: run ?? null,
        name: (each) => (each ? called(each) : "–"),
        act: pick,
      });
      which.firstChild.remove(); // the words before it say enough; the menu keeps them as its label
      which.firstElementChild.disabled = !run;
      return [arms, which];
    }

    symbol(side) {
      return el("b", { style: `color:${this.colour(side)}` }, side ? "□" : "■");
    }
    colour(side) {
      return this.study.arms[this.runs[side].arm].colour;
    }
    called(side) {
      const run = this.runs[side],
        twins = this.runs.length > 1 && this.runs[0].arm === this.runs[1].arm;
      return twins ? `${run.place}${this.study.rate ? `, ${kit.rate(run.rate)}` : ""}` : run.arm;
    }

    drawCurves() {
      const plot = kit.overBoards(this.runs, SIZE),
        lines = plot.layer();
      const draw = (run, side, values, dash) => {
        const pairs = run.samples.map((seen, k) => [plot.at(seen), values[k]]);
        lines.append(kit.path(plot, pairs, { colour: this.colour(side), dash, width: side ? 1.3 : 2.4 }));
      };
      this.runs.forEach((run, side) => {
        draw(run, side, run.exact, "");
        draw(run, side, run.kept, "5 3");
      });
      Object.assign(this, { plot, dots: plot.layer() });
      put(this.parts.curves, plot.node);
      put(
        this.parts.key,
        "— accuracy   - - prior score   ● / ■ now",
        el("br"),
        this.runs.map((run, side) =>
          el("span", { class: "key" }, this.symbol(side), `${side ? " thin: " : " thick: "}${this.called(side)}`),
        ),
      );
    }

    // Frames ---------------------------------------------------------------------------------------------------------
    show(frame) {
      this.state.frame = frame;
      kit.remember("state", this.state);
      const before = this.at;
      this.at = this.runs.map((run) => evaluationAt(run, this.by, this.frames[frame]));
      if (before && before.drawn === this.turn && this.at.every((at, side) => at === before[side])) return void (this.at.drawn = this.turn);
      this.at.drawn = this.turn;
      put(
        this.dots,
        this.runs.flatMap((run, side) =>
          [run.exact, run.kept].map((values) =>
            kit.mark(this.plot.px(this.plot.at(run.samples[this.at[side]])), this.plot.py(values[this.at[side]]), {
              colour: this.colour(side),
              marker: side ? "s" : "o",
              size: 5,
              hollow: side > 0,
            }),
          ),
        ),
      );
      this.drawTasks();
      this.drawBoards();
      this.drawAsked();
      this.tell();
    }

    drawTasks() {
      const { tasks } = this.study,
        node = svg("svg", { width: SIZE.width, height: ROW * tasks.length + 18, role: "img", "aria-label": "score of each prior task" });
      node.append(
        svg("text", { x: 112, y: 12 }, "score; | start"),
        svg("text", { x: SIZE.width, y: 12, "text-anchor": "end" }, "▼ forgot ▲ learned"),
      );
      tasks.forEach((task, place) => {
        const top = 18 + ROW * place;
        node.append(svg("text", { x: 0, y: top + 16 }, task));
        this.runs.forEach((run, side) => node.append(...this.bar(run, side, place, this.runs.length > 1 ? top + 1 + 12 * side : top + 6)));
      });
      put(this.parts.tasks, node);
    }

    bar(run, side, place, y) {
      const frame = this.at[side],
        value = run.prior[frame][place],
        wide = 90,
        x = 112,
        colour = this.colour(side),
        start = x + wide * run.start[place];
      const flips = flipsOf(run, frame, place),
        changed = flips && flips.some((n) => n > 0);
      return [
        svg("rect", { x, y, width: wide, height: 11, fill: "#f0f0f0" }),
        svg("rect", {
          x: x + 0.5,
          y: y + 1.5,
          width: Math.max(0, wide * value - 1),
          height: 8,
          fill: side ? "#fff" : colour,
          stroke: colour,
        }),
        svg("line", { x1: start, x2: start, y1: y - 0.5, y2: y + 11.5, stroke: "#000", "stroke-width": 1.5 }),
        svg("text", { x: x + wide + 40, y: y + 10, "text-anchor": "end", class: "number" }, kit.fixed(value)),
        svg(
          "text",
          { x: SIZE.width - 42, y: y + 10, "text-anchor": "end", style: "fill:#a33a00" },
          changed && flips[0] ? `▼${flips[0]}` : "",
        ),
        svg("text", { x: SIZE.width, y: y + 10, "text-anchor": "end", style: "fill:#00664c" }, changed && flips[1] ? `▲${flips[1]}` : ""),
      ];
    }

    // What a side said to an item, and what became of it since the evaluation before.
    answer(side, place) {
      const run = this.runs[side],
        frame = this.at[side],
        { right } = this.data.items[run.asked][place];
      const [was, now] = [Math.max(frame - 1, 0), frame].map((at) => kit.saidAt(run.said[place], at)),
        [before, is] = [was, now].map((text) => right.includes(text));
      const words = is ? (before ? "✓ right" : "▲ learned") : before ? "▼ forgot" : "✗ wrong";
      return { text: this.data.texts[now], is, words, flipped: is !== before };
    }
    verdict({ is, words, flipped }) {
      return el("span", { class: `${is ? "right" : "wrong"}${flipped ? " flipped" : ""}` }, words);
    }
    get told() {
      return this.runs.every((run) => run.said.length);
    }
    items(of) {
      return (this.data.items[this.runs[0].asked] ?? [])
        .map((item, place) => ({ ...item, place }))
        .filter(({ task }) => (task === "puzzle") === of);
    }

    drawBoards() {
      if (!this.told)
        return put(
          this.parts.boards,
          el("h3", {}, "Boards"),
          el("p", { class: "quiet" }, "No answers were recorded in this study, only scores."),
        );
      const shown = this.items(true).slice(0, 6);
      put(
        this.parts.boards,
        el("h3", {}, "Boards, put back", this.runs.length > 1 ? [" (", this.symbol(0), " above, ", this.symbol(1), " below)"] : ""),
        el(
          "div",
          { class: "boards" },
          shown.map((item) => this.board(item)),
        ),
      );
    }

    board(item) {
      const image = this.picture(item.picture, 44, `board ${item.place + 1}, right answer ${item.truth}`),
        sides = this.runs.map((_, side) => this.answer(side, item.place));
      return el(
        "div",
        { class: "board" },
        image,
        sides.map((own) =>
          el(
            "div",
            { class: `put${own.flipped ? ` flip ${own.is ? "right" : "wrong"}` : ""}` },
            kit.putBack(image, own.text, { size: 36 }),
            this.verdict(own),
          ),
        ),
      );
    }

    drawAsked() {
      const alike = this.runs.every((run) => run.asked === this.runs[0].asked);
      this.asking.textContent = alike ? "Prior questions" : "Prior questions, worded as for ■";
      if (!this.told)
        return put(
          this.parts.asked,
          el("p", { class: "quiet" }, "Choose the study on several bases to read what models said to prior questions."),
        );
      const seen = {},
        shown = this.items(false).filter(({ task }) => (seen[task] = (seen[task] ?? -1) + 1) === this.state.number);
      put(
        this.parts.asked,
        el(
          "table",
          { class: "asked" },
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              el("th", {}),
              el("th", {}),
              this.runs.map((_, side) => el("th", {}, this.symbol(side), ` ${this.called(side)}`)),
            ),
          ),
          el(
            "tbody",
            {},
            this.telling(shown).map((item) => this.question(item)),
          ),
        ),
      );
    }

    // Questions whose answers changed just now come first, then those that are wrong now.
    telling(items) {
      const rank = ({ place }) => {
        const own = this.runs.map((_, side) => this.answer(side, place));
        return own.some(({ flipped }) => flipped) ? 0 : own.some(({ is }) => !is) ? 1 : 2;
      };
      return items.map((item) => [rank(item), item]).sort((a, b) => a[0] - b[0]).map(([, item]) => item);
    }

    question(item) {
      const image = this.picture(item.picture, 44, `picture of question ${item.place + 1}, ${item.task}`),
        own = this.runs.map((_, side) => this.answer(side, item.place));
      return el(
        "tr",
        {},
        el("td", {}, image),
        el("td", {}, el("div", { class: "ask", title: item.text }, item.text), "truth: ", el("b", {}, item.truth)),
        own.map((each) =>
          el(
            "td",
            { class: `said${each.flipped ? ` flip ${each.is ? "right" : "wrong"}` : ""}` },
            el("div", { class: "ask", title: each.text }, kit.spoken(each.text)),
            this.verdict(each),
          ),
        ),
      );
    }

    // What is seen: where each run stands, and what changed since its evaluation before.
    tell() {
      const words = this.runs.map((run, side) => this.stand(run, side));
      if (this.state.frame === this.frames.length - 1) words.push(this.ending());
      put(this.parts.sentence, linesOf(words));
      this.say(words.join(". "));
    }

    // What each has lost, at the last frame.
    ending() {
      const lost = this.runs.map((run, side) => [this.called(side), mean(run.start) - run.kept[this.at[side]]]);
      const words = lost.map(([who, by], side) => `${who} ${side ? "" : "has lost "}${kit.fixed(by)}`);
      return `At the end ${words.join(", ")} of the prior score.`;
    }

    // The most that may be said of two runs: what room is kept for.
    longest() {
      const { runs } = longestOf(this.data.studies, (study) => mostOf(study.runs, ({ arm }) => arm).length);
      const { tasks } = longestOf(this.data.studies, (study) => mostOf(study.tasks, String).length);
      const who = mostOf(runs, ({ arm }) => arm), task = mostOf(tasks, String);
      const line = `${who}, 00,000 boards (its end): accuracy 0.00, prior score down 0.00; ▼ 00 forgotten (00 in ${task}), ▲ 00 learned`;
      return linesOf([line, line, `At the end ${who} has lost 0.00, ${who} 0.00 of the prior score.`]);
    }

    stand(run, side) {
      const frame = this.at[side],
        who = this.called(side),
        accuracy = `accuracy ${kit.fixed(run.exact[frame])}`;
      if (!frame) return `${who}, at its start: ${accuracy}, prior score ${kit.fixed(run.kept[0])}`;
      const lost = mean(run.start) - run.kept[frame],
        size = kit.fixed(Math.abs(lost));
      const when = `${kit.text(run.samples[frame])} boards${frame === run.step.length - 1 ? " (its end)" : ""}`;
      return `${who}, ${when}: ${accuracy}, prior score ${lost < -0.005 ? "up" : "down"} ${size}${this.changes(run, frame)}`;
    }

    changes(run, frame) {
      if (!run.flips.length || !frame) return "";
      const { tasks } = this.study,
        lost = tasks.map((task, place) => [task, ...flipsOf(run, frame, place)]).sort((a, b) => b[1] - a[1]);
      const sum = (k) => lost.reduce((total, row) => total + row[k], 0),
        most = lost[0];
      return `; ▼ ${sum(1)} forgotten${most[1] > 1 ? ` (${most[1]} in ${most[0]})` : ""}, ▲ ${sum(2)} learned`;
    }
  }

  const STYLE = `
    .sides { gap: 4px 14px; } .side { display: flex; gap: 6px; white-space: nowrap; } .sides select { width: 170px; }
    .side .control + .control select { width: 178px; }
    .differ { margin: 3px 0; }
    .sentence { margin: 4px 0; font-size: 12.6px; font-variant-numeric: tabular-nums; }
    .player .row { gap: 4px 12px; }
    .left { width: ${SIZE.width}px; }
    .curves { height: ${SIZE.height}px; }
    .keys { min-height: 40px; }
    .key { margin-right: 14px; color: #222; }
    .pictures { height: 158px; }
    .heading { height: 34px; flex-wrap: nowrap; }
    .questions { height: 366px; border-top: 1px solid #c4c4c4; }
    .boards { display: grid; grid-template-columns: repeat(6, 1fr); gap: 6px; font-size: 11.5px; }
    .board img { margin-bottom: 3px; }
    .put { display: flex; gap: 4px; align-items: center; height: 42px; border: 2px solid transparent; line-height: 1.1; }
    .flip { border: 2px solid currentColor !important; }
    .flip.wrong { border-style: dashed !important; }
    .flipped { font-weight: 700; }
    .asked { width: 100%; table-layout: fixed; font-size: 12px; border-collapse: separate; border-spacing: 2px; }
    .asked td { text-align: left; vertical-align: top; padding: 2px 4px; border: 2px solid transparent; }
    .asked th { text-align: left; padding: 1px 4px; position: sticky; top: 0; background: #fff; }
    .asked th:first-child { width: 52px; }
    .asked .words { font-size: 12px; }
    .ask { height: 32px; line-height: 16px; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
    select:disabled { color: #767676; }
    @media (max-width: 900px) {
      .boards { grid-template-columns: repeat(3, 1fr); }
      .board:nth-child(n + 4) { display: none; }
    }
    @media (max-width: 700px) {
      .columns { flex-direction: column; gap: 4px; } .grow { width: 100%; flex: none; }
      .board:nth-child(n) { display: block; } .pictures { height: 316px; }
    }`;

  kit.start((data, root) => {
    root.append(el("style", {}, STYLE));
    new Machine(data, root);
  }, { snug: true });
})();
