// Groups of completions, one group for one board: who wrote, at which step, the board and its truth, and what each completion
// earned. A slider goes to a step, the buttons (or arrow keys) from group to group, menus choose which groups and which
// completions; "two side by side" lays a second group beside the first, on the same board where its writer met that board.
"use strict";

kit.start((data, root) => {
  const { el, put, text, fixed } = kit;
  const { runs, boards, texts, prompts } = data;
  const FIELDS = ["said", "hit", "exact", "format", "reward", "advantage", "policy", "base", "tokens"];
  const named = (values, i) => ({ number: i + 1, ...Object.fromEntries(FIELDS.map((name, place) => [name, values[place]])) });
  const groups = data.groups.map(([run, step, board, prompt, rows]) => ({ run, step, board, prompt, rows: rows.map(named) }));
  const state = kit.recall("state", { at: 0, signal: "all", kind: "all", sort: "as drawn", two: false, other: null });
  const say = kit.announcer(root);
  const OWN_BOARD = "Its own board: it has no group here on the left one.";

  const STYLE = `
    .row { min-height: 32px; margin-bottom: 4px; column-gap: 8px; } .slot { width: 320px; white-space: nowrap; } .count { width: 206px; }
    label.control select { max-width: 350px; } .second select { max-width: 480px !important; }
    .panels { display: flex; gap: 18px; } .panel { flex: 1 1 0; min-width: 0; display: flex; gap: 12px; }
    .panel + .panel, .row.second { display: none; } .two .panel + .panel, .two .row.second { display: flex; }
    .side { flex: none; width: 128px; } .side img { width: 128px; height: 128px; } .side canvas { width: 96px; height: 96px; }
    figure { margin: 0 0 8px; } figcaption { font-size: 12px; color: #595959; } .facts { min-width: 0; }
    .truth { margin: 0 0 4px; font-size: 15px; } .note { margin: 0 0 2px; font-size: 12.5px; color: #0a4f78; }
    .two .panel { flex-direction: column; gap: 4px; } .two .side { width: auto; display: flex; gap: 10px; min-height: 118px; }
    .two .side img { width: 96px; height: 96px; }
    .panel table { table-layout: fixed; width: 100%; }
    .panel th { font-size: 12px; vertical-align: bottom; padding: 1px 3px; height: 34px; }
    .panel td { padding: 0 3px; height: 52px; font-size: 12.5px; } .panel .said { text-align: left; padding-left: 6px; }
    td .words { font-size: 12px; line-height: 15px; display: -webkit-box; -webkit-box-orient: vertical; overflow: hidden; }
    td .answer { font-size: 13.5px; line-height: 18px; display: block; white-space: pre; text-overflow: ellipsis; }
    td .think { -webkit-line-clamp: 2; } td .raw { -webkit-line-clamp: 3; }
    .at { text-decoration: underline; } tr.dim td, tr.dim td * { color: #6f6f6f; background: #f6f6f6; } .malformed { color: #a33a00; }
    td.advantage svg { display: inline-block; vertical-align: middle; } td.advantage span { display: inline-block; width: 42px; }
    .strip { min-height: 176px; } .two .strip { display: none; } .strip [data-at] { cursor: pointer; }
    .told { margin: 6px 0 4px; }
    @media (max-width: 900px) {
      .slot { width: 320px; } label.control select { max-width: 330px; }
      .second select { max-width: 420px !important; } .strip { display: none; }
      .panel { flex-direction: column; gap: 4px; } .side { width: auto; display: flex; gap: 10px; min-height: 118px; }
      .side img { width: 96px; height: 96px; } .two .panels { gap: 8px; } .panel > .grow { width: 100%; }
      .two td.advantage svg { display: none; } .two th.advantage { width: 66px !important; }
      .two .side canvas { display: none; } .two figure + figure { display: none; }
    }
    @media (max-width: 700px) {
      .panels { flex-direction: column; } .count { width: auto; flex: 1 0 100%; order: 9; }
      .two .side canvas, .two figure + figure { display: block; }
      .hit, .exact, .format, .policy, .base, .tokens { display: none; } .panel th.advantage { width: 110px !important; }
    }`;

  // Which groups ---------------------------------------------------------------------------------------------------
  const taught = (group) => group.rows.some((row) => Math.abs(row.advantage) > 0.01);
  const SIGNALS = { all: () => true, "with a signal": taught, "without a signal": (group) => !taught(group) };
  const KINDS = { right: "✓", wrong: "✗", malformed: "⚠" };
  const SORTS = {
    "as drawn": (row) => row.number, reward: (row) => -row.reward,
    "log-prob now": (row) => -row.policy, "log-prob base": (row) => -(row.base ?? -Infinity),
  };
  const kindOf = (row) => (row.format < 1 ? "malformed" : row.exact === 1 ? "right" : "wrong");
  const wanted = (row) => state.kind === "all" || kindOf(row) === state.kind;
  const fits = (group) => SIGNALS[state.signal](group) && group.rows.some(wanted);
  const every = (run) => groups.map((_, i) => i).filter((i) => groups[i].run === run);
  const listed = (run) => every(run).filter((i) => fits(groups[i]));
  const stepsOf = (list) => [...new Set(list.map((i) => groups[i].step))];
  const twin = (run) => groups.findIndex((group, i) => i !== state.at && group.run === run && group.board === groups[state.at].board);
  const nearest = (list, distance) => list.reduce((best, i) => (distance(i) < distance(best) ? i : best));
  const nearStep = (run, step) => nearest(every(run), (i) => Math.abs(groups[i].step - step));

  // One group ------------------------------------------------------------------------------------------------------
  // The answer on a line of its own, its numbers that stand at their true place underlined; below it the think, shortened, with the
  // whole in the title. What has another form stands as it is.
  function marked(row, board) {
    const whole = texts[row.said], parts = /^\s*(?:<think>([^<]*)<\/think>)?\s*<answer>([^<]*)<\/answer>\s*$/.exec(whole);
    if (!parts) return [el("div", { class: "words raw", title: whole }, whole)];
    let slot = 0;
    const atHome = (piece) => /[0-9]/.test(piece) && Number(piece) === boards[board].truth[slot++] && row.hit;
    const pieces = parts[2].trim().split(/([0-9]+)/).map((piece) => (atHome(piece) ? el("b", { class: "right at" }, piece) : piece));
    return [el("b", { class: "words answer", title: whole }, pieces),
      el("div", { class: "words think quiet", title: whole }, parts[1]?.trim() ?? "")];
  }
  const badge = (kind) => el("span", { class: kind, role: "img", "aria-label": kind, title: kind }, KINDS[kind]);

  const bare = (value) => el("span", {}, fixed(value));

  const COLUMNS = [ // key, heading, width in one panel, width in one of two (0: left out), content
    ["number", "#", 24, 20, (row) => row.number],
    ["kind", "", 22, 22, (row) => badge(kindOf(row))],
    ["said", "answer, and think", null, null, (row, group) => marked(row, group.board)],
    ["hit", "hit", 40, 0, (row) => text(row.hit)],
    ["exact", "exact", 44, 0, (row) => text(row.exact)],
    ["format", "format", 52, 0, (row) => text(row.format)],
    ["reward", "reward", 54, 54, (row) => text(row.reward)],
    ["advantage", "advantage", 128, 104, (row, _, wide) => [kit.balance(row.advantage, 2.5, wide ? 72 : 50), bare(row.advantage)]],
    ["policy", "log-prob now", 64, 0, (row) => fixed(row.policy)],
    ["base", "log-prob base", 64, 0, (row) => fixed(row.base)],
    ["moved", "now − base", 54, 54, (row) => fixed(row.base === null ? null : row.policy - row.base)],
    ["tokens", "tokens", 52, 0, (row) => row.tokens],
  ];

  function tableOf(group, wide) {
    const columns = COLUMNS.filter((column) => column[wide ? 2 : 3] !== 0);
    const heads = columns.map(([key, head, one, two]) => {
      const width = wide ? one : two;
      return el("th", { scope: "col", class: key, style: width && `width:${width}px` }, head);
    });
    const rows = [...group.rows].sort((a, b) => SORTS[state.sort](a) - SORTS[state.sort](b));
    const lines = rows.map((row) => el("tr", { class: wanted(row) ? null : "dim", "data-number": row.number },
      columns.map((column) => el("td", { class: column[0] }, column[4](row, group, wide)))));
    return el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, lines));
  }

  const factsOf = (board, note, prompt) => [el("p", { class: "truth" }, "Truth ", el("b", {}, board.truth.join(" "))),
    note ? el("p", { class: "note" }, note) : "", el("p", { class: "quiet" }, `Board ${board.number}. ${prompt}`)];
  function lessonOf(group) {
    const own = (field) => group.rows.map((row) => row[field]), right = group.rows.map((row) => kindOf(row) === "right");
    return (runs[group.run].unit === "step" ? "" : "Not trained on; if it were: ") + kit.lesson(own("reward"), own("advantage"), right);
  }
  const longestOf = (list) => list.reduce((one, other) => (other.length > one.length ? other : one), "");
  const longestLesson = () => [longestOf(groups.map(lessonOf))];
  const longestFacts = () => factsOf({ truth: longestOf(boards.map(({ truth }) => truth)), number: 100000 }, OWN_BOARD, longestOf(prompts));

  function panel(name) {
    const board = el("img", { class: "pixels" }), whole = el("canvas", { class: "pixels", role: "img" });
    const facts = el("div", { class: "facts" }), table = el("div", {}), told = el("p", { class: "told" });
    const framed = (picture, words) => el("figure", {}, picture, el("figcaption", {}, words));
    const side = el("div", { class: "side" }, framed(board, "the board"), framed(whole, "put together"), facts);
    const node = el("section", { class: "panel", "aria-label": name }, side, el("div", { class: "grow" }, table, told));
    Object.assign(node, { told, facts });
    node.set = (group, wide, note) => {
      const shown = boards[group.board], own = (field) => group.rows.map((row) => row[field]);
      board.onload = () => kit.drawBoard(whole, board, { rows: shown.rows, cols: shown.cols, placement: shown.order, size: 96 });
      board.src = shown.image;
      board.alt = `board ${shown.number}; its tiles belong at ${shown.truth.join(" ")}`;
      whole.setAttribute("aria-label", `board ${shown.number} put together`);
      put(facts, factsOf(shown, note, prompts[group.prompt]));
      put(table, tableOf(group, wide));
      told.textContent = lessonOf(group);
    };
    return node;
  }

  // The writer's groups along its run: the mean reward of each; a click goes there. Drawn anew for another writer or choice
  // only; a diamond moves to the group that is shown.
  const meanOf = (group) => kit.mean(group.rows.map((row) => row.reward));
  const along = el("div", { class: "strip" });

  function axesOf(run, list) {
    const { unit, label, weights } = runs[run], last = Math.max(...list.map((i) => groups[i].step)), log = unit === "step" && last > 10;
    const y = { label: "mean reward", domain: [0, 1.05 * weights.reduce((sum, weight) => sum + weight, 0)] };
    const x = { label: unit, log, domain: log ? [0.9, last * 1.15] : [0.5, last + 0.5], ticks: log ? null : stepsOf(list) };
    return kit.axes({ width: 850, height: 172, left: 56, right: 12, bottom: 36, x, y, alt: `mean reward of the groups of ${label}` });
  }

  function setStrip(run, act) {
    const key = [run, state.signal, state.kind].join();
    if (along.key !== key) {
      const list = every(run), plot = axesOf(run, list), dots = plot.layer();
      for (const i of list) {
        const colour = fits(groups[i]) ? "#0072b2" : "#8a8a8a", fill = taught(groups[i]) ? colour : "#fff";
        const attributes = { stroke: colour, "stroke-width": 1.4, "data-at": i, onclick: () => act(i) };
        dots.append(kit.mark(plot.px(groups[i].step), plot.py(meanOf(groups[i])), { colour: fill, attributes }));
      }
      Object.assign(along, { key, plot, here: plot.layer() });
      put(along, plot.node);
    }
    const { plot, here } = along, group = groups[state.at], at = [plot.px(group.step), plot.py(meanOf(group))];
    put(here, kit.mark(...at, { colour: "#d55e00", marker: "D", size: 7, attributes: { stroke: "#222", "pointer-events": "none" } }));
  }

  // Controls -------------------------------------------------------------------------------------------------------
  const all = runs.map((_, i) => i);
  const writer = (label, value, act) => kit.select({ label, options: all, value, act, name: (i) => runs[i].label });

  // The slider over the steps of a list of groups; a new one only where the steps are others, so that it keeps the focus.
  function setSlider(slot, list, here, act) {
    const steps = stepsOf(list), key = `${here.run} ${steps}`, unit = runs[here.run].unit;
    if (slot.key !== key) {
      slot.key = key;
      slot.bar = steps.length && kit.slider({ label: unit, values: steps, value: steps[0], width: 150, act: (step) => slot.act(step) });
      put(slot, slot.bar || el("span", { class: "quiet" }, `no ${unit} in this page has such a group`));
    }
    slot.act = (step) => act(list.find((i) => groups[i].step === step));
    if (slot.bar) slot.bar.set(steps.includes(here.step) ? here.step : steps[0]);
  }

  function go(at) {
    if (at === undefined) return;
    state.at = at;
    update();
  }
  const move = (by) => {
    const list = listed(groups[state.at].run), place = list.indexOf(state.at);
    go(list[place + by]);
  };
  const leap = (by) => {
    const list = listed(groups[state.at].run), steps = stepsOf(list), step = steps[steps.indexOf(groups[state.at].step) + by];
    go(list.find((i) => groups[i].step === step));
  };
  function settle(run) { // the group nearest to the one that is shown, among those that the menus let through
    const list = listed(run), step = groups[state.at].step;
    if (list.includes(state.at)) return update();
    go(list.length ? nearest(list, (i) => Math.abs(groups[i].step - step) + Math.abs(i - state.at) / 1e6) : nearStep(run, step));
  }
  // Two writers on one board: others that met this one; where none did, the first two of the page that met one, models before runs
  // (the base beside what it became).
  const met = (run, board) => groups.some((group) => group.run === run && group.board === board);
  const others = (at) => all.filter((run) => run !== groups[at].run && met(run, groups[at].board));
  function beside(two) {
    state.two = two;
    if (two && !others(state.at).length) {
      const models = groups.map((_, i) => i).sort((a, b) => (runs[groups[a].run].unit === "step") - (runs[groups[b].run].unit === "step"));
      state.left = state.at; // to come back to
      state.at = models.find((i) => others(i).length) ?? state.at;
    } else if (!two) state.at = state.left ?? state.at;
    if (!two) state.left = null;
    const [first] = others(state.at);
    if (two) state.other = first === undefined ? state.other ?? every(groups[state.at].run).at(-1) : twin(first);
    update();
    kit.refit();
  }
  function rivalled(run) {
    state.other = twin(run) >= 0 ? twin(run) : nearStep(run, groups[state.at].step);
    update();
  }

  const left = panel("group"), right = panel("second group");
  const who = writer("Who wrote", groups[state.at].run, settle), rival = writer("Beside it", groups[state.other ?? 0].run, rivalled);
  const slot = el("div", { class: "slot" }), second = el("div", { class: "slot" }), count = el("span", { class: "quiet count" });
  const back = kit.button("◀ group", () => move(-1), { "aria-label": "previous group" });
  const on = kit.button("group ▶", () => move(1), { "aria-label": "next group" });
  const two = kit.toggle("two side by side", state.two, beside);
  const choose = (label, key, options) => kit.select({ label, options, value: state[key],
    act: (value) => { state[key] = value; settle(groups[state.at].run); } });
  const menus = [choose("Groups", "signal", Object.keys(SIGNALS)), choose("Completions", "kind", ["all", ...Object.keys(KINDS)]),
    choose("Sort by", "sort", Object.keys(SORTS))];
  menus[0].firstChild.replaceWith(kit.term("with a signal", "Groups"));

  // Everything at once ---------------------------------------------------------------------------------------------
  function note(own, here) {
    if (own.run === here.run) return "The same writer, at another group.";
    if (own.board !== here.board) return OWN_BOARD;
    const same = own.rows.every((row, i) => row.said === here.rows[i]?.said);
    return same ? "The same board, and the same words: the two hardly differ yet." : "The same board.";
  }
  function pair(here) {
    let run = groups[state.other].run;
    if (twin(run) >= 0) state.other = twin(run);
    const own = groups[state.other], menu = rival.querySelector("select"), same = own.board === here.board;
    all.forEach((i) => { menu.options[i].textContent = (twin(i) >= 0 ? "same board: " : "") + runs[i].label; });
    rival.set(run);
    setSlider(second, same ? [state.other] : every(run), own, (i) => { state.other = i; update(); });
    right.set(own, false, note(own, here));
  }

  function update() {
    const here = groups[state.at], run = runs[here.run], list = listed(here.run), place = list.indexOf(state.at);
    root.classList.toggle("two", state.two);
    kit.remember("state", state);
    who.set(here.run);
    setSlider(slot, list, here, go);
    back.disabled = place <= 0;
    on.disabled = place < 0 || place === list.length - 1;
    const among = place < 0 ? "no such group in this page" : `group ${place + 1} of ${list.length} in this page`;
    count.textContent = `${among}; the record has ${text(run.recorded)} groups`;
    left.set(here, !state.two, "");
    if (!state.two) setStrip(here.run, go);
    if (state.two) pair(here);
    const good = here.rows.filter((row) => kindOf(row) === "right").length;
    const found = `${count.textContent}: ${good} of ${here.rows.length} right`;
    say(`${run.label}, ${run.unit} ${text(here.step)}, ${found}. ${left.told.textContent}`);
  }

  root.append(
    el("style", {}, STYLE),
    el("div", { class: "row" }, who, slot, two), el("div", { class: "row" }, back, on, count, menus),
    el("div", { class: "row second" }, rival, second), el("div", { class: "panels" }, left, right), along,
    el("p", { class: "quiet" },
      "Keys: ← → group, ↑ ↓ step, c two side by side. ✓ right, ✗ wrong, ⚠ malformed; numbers at their true place are ",
      el("b", { class: "right at" }, "underlined"),
      ". Advantage above 0 (blue): made more probable. ", kit.term("with a signal", "Signal"),
      ": not all answers of the group earn the same reward. In the plot: ◆ this group, ○ without a signal; click to go."));
  kit.room(left.told, longestLesson);
  kit.room(right.told, longestLesson);
  [left, right].forEach(({ facts }) => kit.room(facts, longestFacts));
  kit.keys({ ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowDown: () => leap(-1), ArrowUp: () => leap(1),
    c: () => { two.set(!state.two); beside(!state.two); } }, root);
  update();
}, { snug: true });
