// Every run in the plane of puzzle accuracy (to the right: learned) and prior score lost (up: forgot). The slider moves a
// line of equal accuracy; a run's marker stands where it first crosses that line. Click or Enter pins a run: its settings,
// its curves, and what that model said there. Arrow keys up and down go from marker to marker, left and right move the line.
(() => {
  const { el, svg, put, mean, curveOf } = kit;
  const ALL = "all tasks",
    ANY = "all",
    NEAR = 7; // pixels within which markers lie on each other
  const ACCURACIES = [...Array(96).keys()].map((k) => (k + 5) / 100);
  const PLOT = { width: 470, height: 372 };

  // Reading off -----------------------------------------------------------------------------------------------------
  // Where a run first reaches an accuracy, as the suite's `crossings` has it: between two evaluations; null where it never does.
  function crossing(run, accuracy) {
    const curve = curveOf(run),
      after = curve.findIndex((value) => value >= accuracy);
    if (after < 0) return null;
    const before = Math.max(after - 1, 0),
      rise = curve[after] - curve[before];
    return { before, after, share: rise > 0 ? (accuracy - curve[before]) / rise : 1 };
  }
  const between = (values, { before, after, share }) => values[before] + share * (values[after] - values[before]);
  const end = (run) => ({ before: run.step.length - 1, after: run.step.length - 1, share: 1 });

  // The fall of each task, and of all of them, evaluation by evaluation.
  function withLosses(run, tasks) {
    run.lost = Object.fromEntries(tasks.map((task, t) => [task, run.prior.map((scores) => run.start[t] - scores[t])]));
    run.lost[ALL] = run.prior.map((scores) => mean(scores.map((score, t) => run.start[t] - score)));
    run.kept = run.prior.map(mean);
    return run;
  }

  function domainOf(study, task) {
    const values = study.runs.flatMap((run) => run.lost[task]);
    const [low, high] = [Math.min(0, ...values), Math.max(0.1, ...values)];
    return [low - 0.04 * (high - low), high + 0.04 * (high - low)];
  }

  // The view --------------------------------------------------------------------------------------------------------
  const longestOf = (list, length) => list.reduce((one, other) => (length(other) > length(one) ? other : one));
  const PILE = (place, n) => `${place} of ${n} markers here: click again for the next.`;

  class Plane {
    constructor(data, root) {
      Object.assign(this, { data, root, picture: kit.album(data.pictures) });
      for (const study of data.studies) study.runs.forEach((run) => withLosses(run, study.tasks));
      this.state = {
        study: data.studies.at(-1).name,
        task: ALL,
        place: ANY,
        rate: null,
        accuracy: 0.7,
        off: {},
        pinned: {},
        turn: 0,
        ...kit.recall("state", {}),
      };
      this.say = kit.announcer(root);
      this.build();
      this.choose({});
    }

    get study() {
      return this.data.studies.find(({ name }) => name === this.state.study) ?? this.data.studies[0];
    }
    isOn(arm) {
      return this.state.off[`${this.study.name}/${arm}`] ?? this.study.arms[arm]?.shown ?? true;
    }

    build() {
      this.slider = kit.slider({
        label: "at accuracy",
        values: ACCURACIES,
        value: this.state.accuracy,
        show: (value) => kit.fixed(value),
        act: (accuracy) => this.choose({ accuracy }),
        width: 190,
      });
      this.first = kit.select({
        label: "study",
        options: this.data.studies.map(({ name }) => name),
        value: this.state.study,
        act: (study) => this.choose({ study, task: ALL, place: ANY, rate: null, turn: 0 }),
      });
      const above = { controls: "row", arms: "row arms", sentence: "sentence" };
      const below = { plot: "fixed", panel: "grow panel", readout: "readout", cards: "said" };
      const parts = Object.entries({ ...above, ...below });
      this.parts = Object.fromEntries(parts.map(([name, kind]) => [name, el("div", { class: kind })]));
      const { controls, arms, sentence, plot, panel, readout, cards } = this.parts;
      arms.setAttribute("role", "group");
      arms.setAttribute("aria-label", "arms shown");
      const columns = el("div", { class: "columns" }, plot, panel);
      const help = "Keys: Tab to a marker, ↑ ↓ from marker to marker, Enter pins; ← → move the line.";
      const reading = el("div", { class: "quiet" }, kit.term("prior score", "Prior score"),
        ": the mean of what the base could do before. ", kit.readings(this.data.studies));
      this.root.append(controls, arms, sentence, columns, readout, cards, reading, el("div", { class: "quiet" }, help));
      const widest = longestOf(this.data.studies, (study) => Object.keys(study.arms).join("").length);
      kit.room(arms, () => Object.keys(widest.arms).map((arm) => this.armToggle(arm, widest)));
      const names = Object.keys(widest.arms).sort((one, other) => other.length - one.length);
      const [one, other = one] = names;
      kit.room(sentence, () => [`At accuracy 0.00, on 00 bases, ${one} has lost 0.00 of the prior score `
        + `(100% of it in rank_brightness, down 0.00), `
        + `${other} 0.00. On 1 base, two-form-0, ${one} 0.00, ${other} 0.00. Not there: 00 of 00 runs.`]);
      const most = `${one}, two-form-5, rate 6e-5: reaches 0.00 after 00,000 boards; rank_brightness lost 0.00. ${PILE(0, 0)}`;
      kit.room(readout, () => [most]);
      kit.keys({ ArrowLeft: () => this.nudge(-0.01), ArrowRight: () => this.nudge(0.01) });
    }

    nudge(by) {
      const accuracy = Math.round((this.state.accuracy + by) * 100) / 100;
      if (accuracy < ACCURACIES[0] || accuracy > 1) return;
      this.slider.set(accuracy);
      this.choose({ accuracy });
    }

    // Something was chosen: everything is drawn again.
    choose(change) {
      Object.assign(this.state, change);
      const { study, state } = this,
        rates = [...new Set(study.runs.map((run) => run.rate))];
      if (state.rate !== ANY && !rates.includes(state.rate)) state.rate = rates.includes(study.rate) ? study.rate : ANY;
      kit.remember("state", state);
      if (!("accuracy" in change)) this.drawControls(rates);
      this.runs = study.runs.filter(
        (run) => this.isOn(run.arm) && [ANY, run.place].includes(state.place) && [ANY, run.rate].includes(state.rate),
      );
      this.read();
      this.drawPlot();
      this.tell();
      this.drawPinned();
    }

    drawControls(rates) {
      const { study, state } = this,
        places = [...new Set(study.runs.map((run) => run.place))].sort();
      const menu = (label, key, options, name) =>
        options.length < 3 && options.length > 0 && options[0] === ANY
          ? null
          : kit.select({ label, options, value: state[key], name, act: (value) => this.choose({ [key]: value, turn: 0 }) });
      const held = document.activeElement?.getAttribute("aria-label");
      put(
        this.parts.controls,
        this.first,
        menu("task", "task", [ALL, ...study.tasks]),
        menu(study.place, "place", [ANY, ...places]),
        menu("rate", "rate", [ANY, ...rates.sort((a, b) => b - a)], (rate) => (rate === ANY ? ANY : kit.rate(rate))),
        this.slider,
      );
      const arms = Object.keys(study.arms);
      put(
        this.parts.arms,
        arms.map((arm) => this.armToggle(arm)),
      );
      if (held) [...this.root.querySelectorAll("select, button")].find((node) => node.getAttribute("aria-label") === held)?.focus();
    }

    armToggle(arm, study = this.study) {
      const look = study.arms[arm];
      const swatch = svg(
        "svg",
        { width: 34, height: 14, "aria-hidden": "true" },
        svg("line", { x1: 1, x2: 33, y1: 7, y2: 7, stroke: look.colour, "stroke-width": 2, "stroke-dasharray": look.dash }),
        kit.mark(17, 7, { ...look, size: 4.5 }),
      );
      const set = (on) => this.choose({ off: { ...this.state.off, [`${this.study.name}/${arm}`]: on } });
      const node = kit.toggle("", this.isOn(arm), set, { "aria-label": `${arm}: ${look.words}`, title: look.words, class: "arm" });
      node.append(swatch, el("span", {}, arm));
      return node;
    }

    // Each run's place on the line: where it crosses it, else its end.
    read() {
      for (const run of this.runs) {
        const mark = crossing(run, this.state.accuracy);
        run.mark = mark ?? end(run);
        run.there = mark !== null;
        run.x = run.there ? this.state.accuracy : curveOf(run).at(-1);
        run.y = between(run.lost[this.state.task], run.mark);
      }
      this.runs.sort((a, b) => b.y - a.y);
    }

    drawPlot() {
      const { state, study } = this,
        of = state.task === ALL ? "prior score" : state.task,
        held = document.activeElement?.dataset?.run;
      const plot = kit.axes({
        ...PLOT,
        x: { label: "puzzle accuracy (exact match)", domain: [0, 1], show: (value) => kit.fixed(value, 1) },
        y: { label: `${of} lost (up: forgot more)`, domain: domainOf(study, state.task) },
        alt: `${of} lost against puzzle accuracy, run by run`,
      });
      plot.node.setAttribute("role", "group");
      const [lines, markers] = [plot.layer(), plot.layer()];
      lines.append(
        svg("line", { x1: plot.left, x2: plot.width - plot.right, y1: plot.py(0), y2: plot.py(0), stroke: "#767676" }),
        svg("line", {
          x1: plot.px(state.accuracy),
          x2: plot.px(state.accuracy),
          y1: plot.top,
          y2: plot.height - plot.bottom,
          stroke: "#222",
          "stroke-dasharray": "2 3",
        }),
      );
      lines.append(...[...new Set(study.runs.map((run) => run.chance))].map((x) => kit.chance(plot, { x })));
      for (const run of [...this.runs].reverse()) this.drawRun(run, plot, lines, markers);
      put(this.parts.plot, plot.node);
      const first = this.runs.find((run) => run.name === held) ?? this.runs[0];
      if (first) first.node.setAttribute("tabindex", "0");
      if (held && first) first.node.focus();
      else this.readOut(null);
    }

    drawRun(run, plot, lines, markers) {
      const look = this.study.arms[run.arm],
        pairs = curveOf(run).map((x, frame) => [x, run.lost[this.state.task][frame]]);
      const shown = { onmouseenter: () => this.readOut(run), onmouseleave: () => this.readOut(null), onclick: () => this.pin(run) };
      run.at = [plot.px(run.x), plot.py(run.y)];
      run.line = kit.path(plot, pairs, { ...look, width: 1.4, opacity: 0.4 });
      const near = kit.path(plot, pairs, { colour: "transparent", width: 9 });
      for (const [name, act] of Object.entries(shown)) near.addEventListener(name.slice(2), (event) => kit.react(event, act));
      near.style.cursor = "pointer";
      lines.append(run.line, near);
      run.node = svg(
        "g",
        {
          tabindex: -1,
          role: "button",
          "aria-label": this.words(run),
          "data-run": run.name,
          "data-drop": run.y,
          "data-there": String(run.there),
          style: "cursor:pointer",
          ...shown,
          onclick: () => this.pin(this.nextOf(run)),
          onfocus: () => this.readOut(run),
          onkeydown: (event) => this.step(event, run),
        },
        kit.mark(plot.px(run.x), plot.py(run.y), { ...look, size: 6, attributes: run.there ? {} : { opacity: 0.45 } }),
      );
      markers.append(run.node);
    }

    // Keys of a marker: the next one up or down, or pin it.
    step(event, run) {
      const by = { ArrowUp: -1, ArrowDown: 1 }[event.key],
        place = this.runs.indexOf(run);
      if (by) {
        const next = this.runs[Math.min(Math.max(place + by, 0), this.runs.length - 1)];
        run.node.setAttribute("tabindex", "-1");
        next.node.setAttribute("tabindex", "0");
        next.node.focus();
      } else if (event.key === "Enter" || event.key === " ") this.pin(run);
      else return;
      event.preventDefault();
    }

    // The runs whose markers lie on one's, itself among them; and which of them a click there pins: the one after the pinned.
    pileOf(run) {
      return this.runs.filter(({ at }) => Math.hypot(at[0] - run.at[0], at[1] - run.at[1]) <= NEAR);
    }
    nextOf(run) {
      const pile = this.pileOf(run),
        place = pile.findIndex(({ name }) => name === this.state.pinned[this.study.name]);
      return place < 0 ? run : pile[(place + 1) % pile.length];
    }

    words(run) {
      const boards = kit.text(Math.round(between(run.samples, run.mark))),
        rate = this.study.rate ? `, rate ${kit.rate(run.rate)}` : "";
      const where = run.there
        ? `reaches ${kit.fixed(this.state.accuracy)} after ${boards} boards`
        : `ends at ${kit.fixed(run.x)}, before ${kit.fixed(this.state.accuracy)}`;
      const of = this.state.task === ALL ? "prior score" : this.state.task;
      return `${run.arm}, ${run.place}${rate}: ${where}; ${of} lost ${kit.fixed(run.y)}`;
    }

    readOut(run) {
      for (const each of this.runs) {
        const strong = each === run || (!run && each === this.pinned);
        each.line.setAttribute("opacity", strong ? 1 : run ? 0.2 : 0.4);
        each.line.setAttribute("stroke-width", strong ? 2.6 : 1.4);
      }
      put(
        this.parts.readout,
        run
          ? this.words(run) + this.piled(run)
          : el(
              "span",
              { class: "quiet" },
              "Point at a line or a marker to read it; click to pin it. Faint markers stand at the ends of runs that do not get there.",
            ),
      );
    }

    piled(run) {
      const pile = this.pileOf(run);
      return pile.length > 1 ? `. ${PILE(pile.indexOf(run) + 1, pile.length)}` : "";
    }

    pin(run) {
      this.state.pinned[this.study.name] = run.name;
      kit.remember("state", this.state);
      this.drawPinned();
      this.readOut(run);
      this.say(`pinned: ${this.words(run)}`);
    }

    // What is seen: of the arms that can be compared, which lost more at this accuracy, and in which task.
    tell() {
      const there = this.runs.filter((run) => run.there),
        at = kit.fixed(this.state.accuracy),
        never = this.runs.length - there.length;
      let words = !this.runs.length
        ? "No run is shown: switch an arm on, or choose another base, seed or rate."
        : !there.length
          ? `No run shown reaches accuracy ${at}: every marker stands where its run ended.`
          : `At accuracy ${at}, ${this.compared(there)}`;
      if (there.length && never) words += ` Not there: ${never} of ${this.runs.length} runs.`;
      this.parts.sentence.textContent = words;
      this.say(words);
    }

    // Only runs on one base (or seed) at one rate compare: the pair of arms that share most of them, and a pair that differs more.
    compared(there) {
      const pairs = this.pairsOf(there),
        of = this.state.task === ALL ? "of the prior score" : `in ${this.state.task}`;
      if (!pairs.length) {
        const own = there.filter(({ arm }) => arm === there[0].arm),
          lost = mean(own.map((run) => run.y)),
          alone = own.length < there.length ? " No two arms shown have runs on the same base and rate." : "";
        const count = own.length === 1 ? "1 run" : `mean of ${own.length} runs`;
        return `${own[0].arm} has lost ${kit.fixed(lost)} ${of} (${count}${this.carried({ own, lost }, (share, down) => `, ${share} (${down})`)}).${alone}`;
      }
      const broad = pairs.reduce((one, other) => (other.n > one.n || (other.n === one.n && other.gap > one.gap) ? other : one));
      const wide = pairs.reduce((one, other) => (other.gap > one.gap ? other : one));
      const carried = this.carried(broad.more, (share, down) => ` (${share}, ${down})`);
      const first = `on ${broad.on}, ${broad.more.arm} has lost ${kit.fixed(broad.more.lost)} ${of}${carried}, ${this.saidOf(broad.less)}.`;
      return wide === broad ? first : `${first} On ${wide.on}, ${this.saidOf(wide.more)}, ${this.saidOf(wide.less)}.`;
    }
    saidOf({ arm, lost }) {
      return `${arm} ${kit.fixed(lost)}`;
    }

    // Every two arms with runs on the same places and rates: what each has lost on those, the one that lost more first.
    pairsOf(there) {
      const key = ({ place, rate }) => `${place} ${this.study.rate ? rate : ""}`,
        arms = [...new Set(there.map(({ arm }) => arm))];
      const both = arms.flatMap((one, i) => arms.slice(i + 1).map((other) => [one, other]));
      return both.flatMap((names) => {
        const sides = names.map((arm) => there.filter((run) => run.arm === arm));
        const common = sides[0].map(key).filter((each) => sides[1].some((run) => key(run) === each));
        if (!common.length) return [];
        const told = sides.map((runs, side) => {
          const own = runs.filter((run) => common.includes(key(run)));
          return { arm: names[side], own, lost: mean(own.map((run) => run.y)) };
        });
        const [more, less] = told.sort((a, b) => b.lost - a.lost);
        return [{ more, less, n: common.length, gap: more.lost - less.lost, on: this.onWhich(more.own) }];
      });
    }

    // "4 bases", "1 base, two-form-5", "10 pairs of base and rate".
    onWhich(own) {
      const { place } = this.study,
        places = new Set(own.map((run) => run.place));
      if (places.size < own.length) return `${own.length} pairs of ${place} and rate`;
      return own.length > 1 ? `${own.length} ${place}s` : `1 ${place}, ${own[0].place}`;
    }

    // The task that carries most of an arm's loss.
    carried({ own, lost }, worded) {
      if (this.state.task !== ALL || lost < 0.005) return "";
      const falls = this.study.tasks
        .map((task) => [task, mean(own.map((run) => between(run.lost[task], run.mark)))])
        .sort((a, b) => b[1] - a[1]);
      const share = Math.round((100 * falls[0][1]) / (lost * falls.length));
      return worded(`${share > 100 ? "all" : `${share}%`} of it in ${falls[0][0]}`, `down ${kit.fixed(falls[0][1])}`);
    }

    // The pinned run --------------------------------------------------------------------------------------------------
    drawPinned() {
      const wanted = this.state.pinned[this.study.name];
      this.pinned = this.runs.find((run) => run.name === wanted) ?? this.runs.find((run) => run.there) ?? this.runs[0];
      if (!this.pinned) return void [this.parts.panel, this.parts.cards].forEach((part) => put(part));
      for (const run of this.runs)
        run.node.firstChild.setAttribute(
          "stroke",
          run === this.pinned ? "#000" : this.study.arms[run.arm].hollow ? this.study.arms[run.arm].colour : "#fff",
        );
      const run = this.pinned,
        at = kit.fixed(this.state.accuracy),
        most = run.there ? `lost most of those at ${at}` : `none at ${at}: lost most at its end`,
        chosen = run.name === wanted ? "pinned" : most;
      const settings = Object.entries(run.set).map(([name, value]) =>
        el(
          "tr",
          {},
          el("td", {}, kit.term(name)),
          el("td", {}, name === "rate" ? kit.rate(value) : typeof value === "number" ? kit.text(value) : value),
        ),
      );
      put(
        this.parts.panel,
        el("h3", { style: "height:38px" }, `${run.arm}, ${run.place}`, el("span", { class: "quiet" }, ` (${chosen})`)),
        el(
          "div",
          { class: "pinned" },
          this.curves(run),
          el("div", { class: "settings" }, el("table", {}, settings)),
          this.byTask(run),
        ),
      );
      this.drawCards(run);
      this.readOut(null);
    }

    curves(run) {
      const plot = kit.overBoards([run], { width: 226, height: 190 }),
        lines = plot.layer();
      const pairs = (values) => run.samples.map((seen, k) => [plot.at(seen), values[k]]);
      const now = plot.px(plot.at(between(run.samples, run.mark)));
      lines.append(
        kit.path(plot, pairs(run.exact), { colour: "#222", width: 2 }),
        kit.path(plot, pairs(run.kept), { colour: "#222", width: 2, dash: "5 3" }),
        svg("line", { x1: now, x2: now, y1: plot.top, y2: plot.height - plot.bottom, stroke: "#222", "stroke-dasharray": "2 3" }),
      );
      return el("div", { class: "fixed" }, plot.node, el("div", { class: "quiet" }, "— accuracy   - - prior score"));
    }

    // What each task lost there, in two columns.
    byTask(run) {
      const { tasks } = this.study,
        half = Math.ceil(tasks.length / 2),
        node = svg("svg", { width: 480, height: 17 * half + 16, class: "wide", role: "img", "aria-label": "loss of each task" });
      node.append(svg("text", { x: 0, y: 11 }, "lost of each task (bar: 0 to 1)"));
      tasks.forEach((task, place) => {
        const [x, y] = [place < half ? 0 : 245, 16 + 17 * (place % half)],
          lost = between(run.lost[task], run.mark);
        node.append(
          svg("text", { x, y: y + 11 }, task),
          svg("rect", { x: x + 106, y: y + 2, width: 80, height: 10, fill: "#f0f0f0" }),
          svg("rect", {
            x: x + 106,
            y: y + 2,
            width: 80 * Math.max(0, Math.min(lost, 1)),
            height: 10,
            fill: this.study.arms[run.arm].colour,
          }),
          svg("text", { x: x + 225, y: y + 11, "text-anchor": "end" }, kit.fixed(lost)),
        );
      });
      return node;
    }

    drawCards(run) {
      const frame = run.mark.after,
        items = this.data.items[run.asked] ?? [],
        turn = this.state.turn;
      const which = run.there ? `the first at ${kit.fixed(this.state.accuracy)} or above` : "its end";
      const when = `step ${kit.text(run.step[frame])} (${which}, accuracy ${kit.text(run.exact[frame])})`;
      if (!run.said.length)
        return put(
          this.parts.cards,
          el("h3", {}, `Said at ${when}`),
          el(
            "p",
            { class: "quiet" },
            "No answers were recorded in this study, only scores: choose the study on several bases to read what models said.",
          ),
        );
      const every = items.map((item, place) => ({ ...item, place })),
        boards = every.filter((item) => item.task === "puzzle");
      const prior = this.byLoss(every.filter((item) => item.task !== "puzzle"));
      const three = (list, n) =>
        list
          .slice((n * 3) % list.length)
          .concat(list)
          .slice(0, Math.min(3, list.length));
      const chosen = this.state.task === ALL ? three(prior, turn) : prior.filter((item) => item.task === this.state.task);
      this.other ??= kit.button("other items", () => {
        this.state.turn += 1;
        this.drawCards(this.pinned);
        this.other.focus();
      });
      const order = this.state.task === ALL ? "Questions: those first that most runs end wrong on. Boards: as they were drawn." : "";
      put(
        this.parts.cards,
        el(
          "div",
          { class: "row heading" },
          el("h3", {}, `Said at ${when}`),
          this.other,
          el("span", { class: "quiet order" }, order),
        ),
        el(
          "div",
          { class: "cards" },
          [...chosen, ...three(boards, turn)].map((item) => this.card(item, run, frame)),
        ),
      );
    }

    // Prior items, one of each task before the others, those first that most runs end with a wrong answer to: for every run the same.
    byLoss(prior) {
      const told = this.study.runs.filter((run) => run.said.length);
      const wrong = ({ place }) => told.filter((run) => !this.data.items[run.asked][place].right.includes(run.said[place].at(-1))).length;
      const ranked = prior
        .map((item) => [wrong(item), item])
        .sort((a, b) => b[0] - a[0])
        .map(([, item]) => item);
      const isFirst = (item, place) => ranked.findIndex(({ task }) => task === item.task) === place;
      return [...ranked.filter(isFirst), ...ranked.filter((item, place) => !isFirst(item, place))];
    }

    card(item, run, frame) {
      const [begun, now] = [0, frame].map((at) => kit.saidAt(run.said[item.place], at));
      const [was, is] = [begun, now].map((text) => item.right.includes(text)),
        said = this.data.texts[now];
      const verdict = is
        ? was
          ? "✓ right, as at the start"
          : "✓ learned: wrong at the start"
        : was
          ? "✗ forgot: right at the start"
          : "✗ wrong, as at the start";
      const board = item.task === "puzzle",
        size = board ? 38 : 48;
      const picture = this.picture(
        item.picture,
        size,
        board ? `board ${item.place + 1}` : `picture of question ${item.place + 1}, ${item.task}`,
      );
      const head = board
        ? kit.putBack(picture, said, { size })
        : el("div", {}, el("b", {}, item.task), el("br"), el("span", { class: is ? "right" : "wrong" }, verdict));
      return el(
        "div",
        { class: "card" },
        el("div", { class: "row top" }, picture, head),
        board ? el("p", { class: `verdict ${is ? "right" : "wrong"}` }, verdict) : null,
        el("p", { class: "says", title: said }, "says ", kit.spoken(said)),
        el("p", { class: "truth", title: item.truth }, "truth ", el("b", { class: "words" }, item.truth)),
        board ? null : el("p", { class: "ask", title: item.text }, item.text),
      );
    }
  }

  const STYLE = `
    .arms { align-content: flex-start; gap: 5px 6px; margin: 4px 0; padding: 2px; }
    .sentence { margin-bottom: 4px; }
    .readout { margin: 2px 0; font-variant-numeric: tabular-nums; }
    .arm { display: inline-flex; gap: 6px; align-items: center; padding: 2px 8px 2px 6px; background: #fff; white-space: nowrap; }
    button.arm[aria-pressed="true"] { background: #fff; color: #222; border: 2px solid #0072b2; padding: 1px 7px 1px 5px; }
    button.arm[aria-pressed="false"] { color: #595959; border-style: dashed; }
    button.arm[aria-pressed="false"] svg { opacity: .35; }
    g:focus { outline: none; }
    g:focus > * { stroke: #0072b2; stroke-width: 4px; paint-order: stroke; }
    .panel { min-height: ${PLOT.height}px; }
    .panel h3 { height: 38px; }
    .panel h3 .quiet { font-weight: 400; }
    .pinned { display: flex; flex-wrap: wrap; gap: 2px 14px; align-content: flex-start; }
    .settings { flex: 1 1 180px; min-height: 212px; font-size: 12px; }
    .settings td { text-align: left; overflow-wrap: anywhere; padding: 0 8px 0 0; }
    .heading { height: 30px; flex-wrap: nowrap; }
    .said { min-height: 236px; }
    .said h3, .said button { flex: none; }
    .order { line-height: 1.2; min-width: 0; }
    .cards { display: grid; grid-template-columns: repeat(3, 1.35fr) repeat(3, 1fr); gap: 8px; }
    .card { border: 1px solid #c4c4c4; border-radius: 4px; padding: 5px; height: 200px; overflow: hidden; font-size: 12px; min-width: 0; }
    .card p { margin: 3px 0 0; overflow-wrap: anywhere; line-height: 16px; overflow: hidden;
      display: -webkit-box; -webkit-box-orient: vertical; }
    .card .words { font-size: 12px; }
    .card .verdict { height: 32px; } .card .says { max-height: 48px; -webkit-line-clamp: 3; }
    .card .truth { max-height: 32px; -webkit-line-clamp: 2; } .card .ask { color: #595959; max-height: 32px; -webkit-line-clamp: 2; }
    .top { gap: 6px; flex-wrap: nowrap; }
    .top > div { min-width: 0; font-size: 11.8px; overflow-wrap: anywhere; line-height: 1.2; }
    @media (max-width: 900px) { .wide { display: none; } .cards { grid-template-columns: repeat(3, 1fr); }
      .settings { min-height: 180px; } .card:nth-child(n + 4) { height: 160px; }
      .said { min-height: 402px; } .said h3, .order { flex: 1 1 0; line-height: 1.15; } .heading { height: 34px; } }
    @media (max-width: 700px) { .columns { flex-direction: column; gap: 4px; } .panel { width: 100%; } .wide { display: block; }
      .cards { grid-template-columns: repeat(2, 1fr); } .said { min-height: 660px; } .heading { height: 50px; }
      .card { height: 190px; } .card:nth-child(n + 4) { height: 190px; } }`;

  kit.start((data, root) => {
    root.append(el("style", {}, STYLE));
    new Plane(data, root);
  }, { snug: true });
})();
