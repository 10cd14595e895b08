// What a reward teaches. Above: weights and a shape for the hit term, and the reward of all 24 answers to one board, each drawn
// as the picture that it would put together; click one to make it the true one. Below: a group of completions that can be
// changed one by one, their rewards, and the advantages that GRPO makes of them. Arrow keys walk over the 24.
"use strict";

kit.start((data, root) => {
  const { el, put, text, fixed, mean } = kit;
  const { placements, rows, cols, epsilon, groups, pictures } = data;
  const tiles = rows * cols, SOLVED = 0; // the first placement is the solved board, which is never a puzzle
  const NAMES = placements.map((placement) => placement.join(" "));
  const size = groups[0].said.length, HALF = Math.floor(size / 2);
  const indexOf = (placement) => (placement ? NAMES.indexOf(placement.join(" ")) : -1); // -1: no valid placement
  const recorded = (k) => groups[k].said.map((placement, i) => ({ guess: indexOf(placement), form: groups[k].form[i] }));
  const STUDY = { weights: data.weights, shape: "hit rate", scaled: true };
  const state = kit.recall("state", { ...structuredClone(STUDY), from: 0, truth: indexOf(groups[0].truth), group: recorded(0) });
  const say = kit.announcer(root);

  const STYLE = `
    .row { min-height: 32px; margin-bottom: 4px; column-gap: 12px; }
    .lane { display: flex; align-items: center; height: 96px; } .level { flex: none; width: 52px; line-height: 1.25; }
    .cards { display: flex; gap: 4px; flex: 1; min-width: 0; }
    .card { flex: 0 1 64px; min-width: 0; height: 94px; padding: 3px 0; background: #fff; border-color: #d0d0d0; color: #222;
      font-size: 12px; line-height: 14px; display: flex; flex-direction: column; align-items: center; gap: 1px; }
    .card:disabled { color: #595959; } .card canvas { flex: none; }
    .card[aria-pressed="true"], .card[aria-pressed="true"]:hover:not(:disabled) {
      background: #e2f3ec; border: 2px solid #00664c; color: #222; padding: 2px 0; }
    .track { width: 46px; height: 6px; background: #ececec; } .track i { display: block; height: 6px; background: #0072b2; }
    .beside { flex: none; width: 258px; } .beside p { margin-bottom: 5px; }
    .facts { min-height: 100px; font-variant-numeric: tabular-nums; }
    .presets { margin-top: 6px; } .answers { display: flex; gap: 6px; }
    .answer { flex: 1 1 0; min-width: 0; display: flex; flex-direction: column; align-items: center; gap: 3px; }
    .answer p { margin: 0; font-size: 12.5px; } .answer select { width: 100%; font-size: 12.5px; } .answer .control { width: 100%; gap: 0; }
    .answer button { width: 100%; padding: 1px 2px; font-size: 12px; }
    .answer button[aria-pressed="true"], .answer button[aria-pressed="true"]:hover:not(:disabled) {
      background: #f3f3f3; color: #222; border-color: #767676; }
    .answer button[aria-pressed="false"] { color: #a33a00; border-color: #a33a00; } .gained { font-weight: 600; }
    .numbers { width: 470px; white-space: pre-wrap; } .rule { margin: 0; } .told { margin: 0 0 4px; } .card canvas { max-width: 100%; }
    @media (max-width: 900px) { .beside { width: 170px; font-size: 12.5px; }
      .level { width: 40px; font-size: 11.5px; } .cards { gap: 2px; } .card { font-size: 11.5px; } }
    @media (max-width: 700px) { .columns { flex-direction: column; gap: 6px; } .columns > * { width: 100%; }
      .beside { display: grid; grid-template-columns: 122px 1fr; gap: 2px 10px; } .beside canvas { grid-row: 1 / span 2; }
      .beside > p:last-child { grid-column: 1 / span 2; } .facts { min-height: 0; }
      .answers { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px 6px; }
      .numbers { width: auto; min-height: 40px; flex: 1 0 100%; } }`;

  // Scores, rewards, advantages ------------------------------------------------------------------------------------
  const matching = (guess, truth) => placements[guess].filter((place, slot) => place === placements[truth][slot]).length;
  const hits = (guess, truth) => (guess < 0 ? 0 : matching(guess, truth) / tiles);

  // Picture made by believing a guess: at each place the tile (1..n) that comes to lie there.
  const together = (guess, truth) => placements[guess].map((_, place) => placements[truth][placements[guess].indexOf(place + 1)]);

  // Share of neighbours, side by side or one above the other, that are neighbours in the true picture too.
  function neighbours(guess, truth) {
    if (guess < 0) return 0;
    const tile = together(guess, truth).map((place) => place - 1);
    let right = 0, pairs = 0;
    tile.forEach((own, place) => {
      if ((place + 1) % cols) { pairs += 1; right += tile[place + 1] === own + 1 && (own + 1) % cols !== 0; }
      if (place + cols < tiles) { pairs += 1; right += tile[place + cols] === own + cols; }
    });
    return right / pairs;
  }
  const SHAPES = {
    "hit rate": hits,
    "hit rate squared": (guess, truth) => hits(guess, truth) ** 2,
    "all or nothing": (guess, truth) => Number(hits(guess, truth) === 1),
    neighbours,
  };
  function reward({ guess, form }, truth = state.truth) {
    const [hit, exact, format] = state.weights;
    return hit * SHAPES[state.shape](guess, truth) + exact * Number(hits(guess, truth) === 1) + format * form;
  }
  function advantages(rewards) {
    const average = mean(rewards), scale = state.scaled ? kit.spread(rewards) + epsilon : 1;
    return rewards.map((value) => (value - average) / scale);
  }
  const differ = (rewards) => Math.max(...rewards) - Math.min(...rewards) > 1e-9;

  // Chance that answers drawn blindly, in form, differ in reward: 1 minus the chance that all earn the same.
  function blind(values) {
    const counts = {};
    for (const value of values) counts[value.toFixed(9)] = (counts[value.toFixed(9)] ?? 0) + 1;
    return 1 - Object.values(counts).reduce((sum, count) => sum + (count / values.length) ** size, 0);
  }
  const base = () => groups.filter((group) => {
    const truth = indexOf(group.truth);
    return differ(group.said.map((placement, i) => reward({ guess: indexOf(placement), form: group.form[i] }, truth)));
  }).length;

  // The 24 answers -------------------------------------------------------------------------------------------------
  const picture = new Image();
  const ready = () => picture.complete && picture.naturalWidth > 0;
  // Draws what a guess puts together, where it is not drawn already.
  function draw(canvas, guess, edge) {
    const key = `${state.from} ${guess} ${state.truth}`;
    if (!ready() || canvas.key === key) return;
    canvas.key = key;
    kit.drawBoard(canvas, picture, { rows, cols, placement: together(guess, state.truth), size: edge });
  }
  const CARD = 50;
  const cards = placements.map((_, guess) => {
    const canvas = el("canvas", { class: "pixels", width: CARD, height: CARD });
    const bar = el("i", {}), number = el("span", { class: "number" });
    const shown = [canvas, el("span", {}, NAMES[guess]), el("span", { class: "track" }, bar), number];
    const node = kit.button(shown, () => { state.truth = guess; update(); }, { class: "card", disabled: guess === SOLVED });
    node.set = (value, most) => {
      draw(canvas, guess, CARD);
      bar.style.width = `${most ? (100 * value) / most : 0}%`;
      number.textContent = fixed(value);
      node.dataset.reward = value;
      node.setAttribute("aria-pressed", String(guess === state.truth));
      node.tabIndex = guess === state.truth ? 0 : -1;
      const role = guess === SOLVED ? "never a puzzle" : guess === state.truth ? "the true one" : "make it the true one";
      node.setAttribute("aria-label", `${NAMES[guess]}, reward ${fixed(value)}: ${role}`);
    };
    return node;
  });

  const LEVELS = [tiles, tiles - 2, tiles - 3, 0]; // a permutation never has all but one in place
  const lanes = LEVELS.map((level) => el("div", { class: "lane" }, el("span", { class: "quiet level" }, `${level} of ${tiles} right`),
    el("div", { class: "cards" })));
  const STRIDES = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
  function walk(event) { // from card to card, in the order in which they stand
    const open = [...root.querySelectorAll(".card:not(:disabled)")], at = open.indexOf(document.activeElement);
    if (at < 0 || !(event.key in STRIDES)) return;
    event.preventDefault();
    open[(at + STRIDES[event.key] + open.length) % open.length].focus();
  }

  function setCards() {
    const values = placements.map((_, guess) => reward({ guess, form: 1 })), most = Math.max(...values, 1e-9);
    const focused = document.activeElement;
    LEVELS.forEach((level, lane) => {
      const own = placements.map((_, guess) => guess).filter((guess) => Math.round(hits(guess, state.truth) * tiles) === level);
      own.sort((a, b) => values[b] - values[a] || a - b);
      const line = lanes[lane].lastChild, order = own.join();
      if (line.order !== order) put(line, own.map((guess) => cards[guess]));
      line.order = order;
    });
    cards.forEach((card, guess) => card.set(values[guess], most));
    if (focused.matches(".card") && focused !== document.activeElement) focused.focus(); // a card that moves to another row keeps the focus
    return values;
  }

  // The group ------------------------------------------------------------------------------------------------------
  const BROKEN = "no placement";
  const columns = Array.from({ length: size }, (_, i) => {
    const canvas = el("canvas", { class: "pixels", width: 44, height: 44 }), bar = el("div", {});
    const earned = el("p", { class: "number" }), gained = el("p", { class: "number gained" });
    const guess = kit.select({ label: "", options: [...placements.keys(), -1], value: state.group[i].guess,
      name: (k) => (k < 0 ? BROKEN : NAMES[k]), act: (value) => { state.group[i].guess = value; update(); } });
    guess.querySelector("select").setAttribute("aria-label", `answer ${i + 1}`);
    const form = kit.toggle("form", true, (now) => { state.group[i].form = Number(now); update(); });
    form.title = "In form: written with the right layout, whatever its numbers are.";
    const node = el("div", { class: "answer" }, canvas, guess, form, earned, bar, gained);
    node.set = (one, value, advantage, most) => {
      guess.set(one.guess);
      form.set(Boolean(one.form));
      put(form, one.form ? "in form ✓" : "form ✗");
      form.setAttribute("aria-label", `answer ${i + 1} in form`);
      if (one.guess < 0) canvas.width = canvas.height = 44;
      canvas.key = one.guess < 0 ? null : canvas.key;
      if (one.guess >= 0) draw(canvas, one.guess, 44);
      canvas.style.outline = one.guess === state.truth ? "3px solid #00664c" : "1px solid #c4c4c4";
      earned.textContent = `reward ${fixed(value)}`;
      put(bar, kit.balance(advantage, most, 84, 16));
      gained.textContent = (advantage > 0.005 ? "+" : "") + fixed(Math.abs(advantage) < 5e-10 ? 0 : advantage);
      Object.assign(node.dataset, { reward: value, advantage });
    };
    return node;
  });

  // Presets: wrong answers are drawn in a fixed way from those without a right tile or with some.
  const wrongs = () => placements.map((_, guess) => guess).filter((guess) => guess !== state.truth);
  const someWrong = (i) => wrongs()[(i * 7 + 3) % wrongs().length];
  const none = () => wrongs().find((guess) => hits(guess, state.truth) === 0);
  const fill = (make) => { state.group = Array.from({ length: size }, (_, i) => ({ guess: make(i), form: 1 })); update(); };
  function sampled() {
    const next = (state.from + 1) % pictures.length;
    Object.assign(state, { from: next, truth: indexOf(groups[next].truth), group: recorded(next) });
    update();
  }
  const presets = [
    kit.button("all equally wrong", () => fill(none)), kit.button("all wrong, not alike", () => fill(someWrong)),
    kit.button("one right", () => fill((i) => (i ? someWrong(i) : state.truth))),
    kit.button("half right", () => fill((i) => (i < HALF ? state.truth : someWrong(i)))),
    kit.button("all right", () => fill(() => state.truth)), kit.button("as the base wrote ▶", sampled),
  ];

  // Everything at once ---------------------------------------------------------------------------------------------
  const change = (key) => (value) => { state[key] = value; update(); };
  const weights = ["hit", "exact", "format"].map((label, place) => kit.slider({ label, high: 3, step: 0.25, value: state.weights[place],
    width: 74, show: (value) => fixed(value), act: (value) => { state.weights[place] = value; update(); } }));
  const shape = kit.select({ label: "Hit term", options: Object.keys(SHAPES), value: state.shape, act: change("shape") });
  const scaled = kit.check({ label: "divide by the spread", value: state.scaled, act: change("scaled") });
  const reset = kit.button("as in the study", () => { Object.assign(state, structuredClone(STUDY)); update(); });
  const board = el("canvas", { class: "pixels", role: "img", width: 112, height: 112 }), truth = el("b", {});
  const facts = el("div", { class: "facts" }), numbers = el("span", { class: "numbers number" }), told = el("p", { class: "told" });
  const rule = el("p", { class: "quiet rule" });

  function setBoard(values) {
    if (ready()) kit.drawBoard(board, picture, { rows, cols, placement: placements[state.truth], size: 112 });
    board.setAttribute("aria-label", `the board; its tiles belong at ${NAMES[state.truth]}`);
    truth.textContent = NAMES[state.truth];
    const share = el("b", { class: "blind" }, `${fixed(100 * blind(values), 1)} %`), some = el("b", { class: "base" }, base());
    put(facts, el("p", {}, "Answers with the right layout, drawn blindly, earn ", el("b", {}, fixed(mean(values))), " on average, and ",
      share, ` of groups of ${size} have a `, kit.term("with a signal", "signal"), ": not all the same reward."),
    el("p", {}, "Of ", groups.length, " groups that the base wrote in RFT's first step, ", some, " have one."));
  }

  const ruleOf = (divided) => (divided
    ? `Advantage = (reward − mean) / (standard deviation + ${epsilon}), as TRL computes it, the deviation over n − 1. `
    : "Advantage = reward − mean, not divided by the spread (TRL's scale_rewards = \"none\"). ")
    + "A KL term would be added to the loss, not to the reward: it is left out here.";

  function setGroup() {
    const rewards = state.group.map((one) => reward(one)), gains = advantages(rewards);
    const whole = state.weights.reduce((sum, value) => sum + value, 0);
    const most = state.scaled ? (size - 1) / Math.sqrt(size) : Math.max(0.25, whole);
    columns.forEach((column, i) => column.set(state.group[i], rewards[i], gains[i], most));
    const moved = gains.filter((gain) => Math.abs(gain) > 0.01).length;
    const spread = differ(rewards) ? kit.spread(rewards) : 0;
    const words = { mean: fixed(mean(rewards), 3), "standard deviation": fixed(spread, 3), "pushed up or down": `${moved} of ${size}` };
    numbers.textContent = Object.entries(words).map((pair) => pair.join(" ")).join("   ");
    rule.textContent = ruleOf(state.scaled);
    told.textContent = kit.lesson(rewards, gains, state.group.map((one) => one.guess === state.truth));
  }

  function update() {
    kit.remember("state", state);
    weights.forEach((slider, place) => slider.set(state.weights[place]));
    shape.set(state.shape);
    scaled.set(state.scaled);
    if (picture.src !== pictures[state.from]) picture.src = pictures[state.from];
    setBoard(setCards());
    setGroup();
    say(`${numbers.textContent}. ${told.textContent}`);
  }

  root.append(
    el("style", {}, STYLE),
    el("div", { class: "row" }, el("b", {}, "Reward"), weights, shape, reset),
    el("div", { class: "columns" }, el("div", { class: "grow", onkeydown: walk }, lanes),
      el("div", { class: "beside" }, board, el("p", {}, "The board. Truth ", truth), facts,
        el("p", { class: "quiet" }, "Each small picture is what its answer would put together. Click one, or walk there with the arrow ",
          `keys and press Enter: it becomes the true one. ${NAMES[SOLVED]} never is: no puzzle is solved already.`))),
    el("div", { class: "row presets" }, el("b", {}, "Group"), presets),
    el("div", { class: "answers" }, columns), el("div", { class: "row" }, numbers, scaled), told, rule);
  kit.room(told, () => [kit.lesson([1, 1.25, 1.5], [-1, 0, 1], [false, false, false])]);
  kit.room(rule, () => [ruleOf(true)]);
  kit.listen(picture, "load", update);
  update();
}, { snug: true });
