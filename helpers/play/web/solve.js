// Solve it yourself: a shuffled board to put right by swapping tiles, what the swaps mean as an answer (a placement, not an order),
// the reward of that answer as it changes, and what the models said to the same board. Click two tiles, drag one onto another, or
// move with the arrow keys. The answer and the models' words are hidden until asked for; asking first costs the point.
// Models answer once and unseen: beside them only those boards count that were handed in before their reward was ever shown.
"use strict";
(() => {
  const { el, svg, put, text } = kit;
  const OWN = "your own picture";
  const EDGE = 288, SMALL = 128; // pixels of the board, and of the two small pictures
  const TERMS = [["hit rate", "#0072b2"], ["exact match", "#007a59"], ["format", "#8a5a00"]];
  const range = (n) => [...Array(n).keys()];

  // Placements and orders are arrays from slot or place 1 on; `invert` turns one into the other.
  const invert = (numbers) => numbers.reduce((found, to, from) => { found[to - 1] = from + 1; return found; }, []);
  const equal = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
  const hits = (answer, truth) => answer.filter((place, slot) => place === truth[slot]).length / truth.length;
  const written = (answer) => `<answer>${answer.join(" ")}<${"/"}answer>`;

  function fewest(placement) { // swaps that put a board right: tiles less cycles
    const seen = new Set();
    let cycles = 0;
    placement.forEach((_, slot) => {
      if (seen.has(slot)) return;
      for (cycles++; !seen.has(slot); slot = placement[slot] - 1) seen.add(slot);
    });
    return placement.length - cycles;
  }

  function shuffled(n) { // never its own inverse: placement and order are then two different answers
    const numbers = range(n).map((i) => i + 1);
    do for (let i = n - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [numbers[i], numbers[j]] = [numbers[j], numbers[i]];
    } while (equal(numbers, invert(numbers)));
    return numbers;
  }

  // The game: which board, how its tiles lie now, and what was won. `order[place]` is the slot whose tile lies there.
  class Game {
    constructor(data) {
      this.data = data;
      this.sources = [...data.sources.map((source) => source.name), OWN];
      this.own = kit.recall("own", null);
      this.won = kit.recall("won", {});
      this.bared = kit.recall("bared", {}); // boards whose reward was shown before an answer was handed in
      const kept = kit.recall("state", {});
      this.source = this.sources.includes(kept.source) ? kept.source : this.sources[0];
      this.grid = data.grids[kept.grid] ? kept.grid : Object.keys(data.grids)[0];
      this.once = kept.once === true;
      this.numbers = kept.numbers ?? {};
      this.shuffles = kept.shuffles ?? {};
      this.open(kept);
    }

    get shape() { return this.data.grids[this.grid]; }
    get answer() { return invert(this.order); }
    get record() { return this.won[this.id]; }
    get compared() { return Object.values(this.won).filter((one) => one.blind); }
    get empty() { return this.picture === BLANK; } // no picture was chosen yet
    get settled() { return Boolean(this.record?.solved || this.record?.handed); }
    get shown() { return !this.once || Boolean(this.record?.handed); } // whether the reward may be seen
    get exact() { return equal(this.answer, this.board.placement); }
    get terms() { return this.reward(this.answer); }

    reward(answer) { return [hits(answer, this.board.placement), Number(equal(answer, this.board.placement)), 1]; }

    // Puts the board on the table; `kept`: what is remembered of it, where it is the same board.
    open(kept = {}) {
      const key = `${this.source} ${this.grid}`, number = this.numbers[key] ?? 0;
      const source = this.data.sources.find((one) => one.name === this.source);
      const listed = source?.boards[this.grid], pictures = source?.pictures ?? [this.own ?? BLANK];
      this.board = listed ? listed[number % listed.length] : this.drawn(`${key} ${number}`, number % pictures.length);
      this.picture = pictures[this.board.picture];
      this.place = listed ? `board ${(number % listed.length) + 1} of ${listed.length}` : `board ${number + 1}`;
      this.id = `${this.source} ${this.picture.name ?? this.board.picture} ${this.board.placement.join(" ")}`;
      this.start = range(this.board.placement.length).map((i) => i + 1);
      const same = kept.id === this.id;
      this.order = same ? kept.order : this.start;
      this.swaps = same ? kept.swaps : 0;
      this.looking = same && kept.looking;
      this.asked = same && kept.asked;
      [this.picked, this.cursor] = [null, 0];
    }

    drawn(key, picture) {
      const n = this.shape.rows * this.shape.cols;
      if (this.shuffles[key]?.length !== n) this.shuffles[key] = shuffled(n);
      return { picture, placement: this.shuffles[key], tries: [] };
    }

    choose(change) { Object.assign(this, change); this.open(); }
    next() { const key = `${this.source} ${this.grid}`; this.numbers[key] = (this.numbers[key] ?? 0) + 1; this.open(); }
    restart() { [this.order, this.swaps, this.picked] = [this.start, 0, null]; }

    took(file) {
      [this.own, this.source, this.numbers[`${OWN} ${this.grid}`]] = [file, OWN, 0];
      this.shuffles = Object.fromEntries(Object.entries(this.shuffles).filter(([key]) => !key.startsWith(OWN)));
      this.open();
    }

    tried() { // the board counts from its first swap, look or answer on
      if (this.empty) return {};
      return (this.won[this.id] ??= { solved: false, looked: false, handed: false,
        chance: this.shape.exact,
        right: this.board.tries.map((one) => one.terms[1]) });
    }

    swap(a, b) {
      this.picked = null;
      if (a === b) return;
      this.order = this.order.map((slot, place) => this.order[place === a ? b : place === b ? a : place]);
      this.swaps++;
      const record = this.tried();
      if (!this.once && !record.handed) record.solved ||= this.exact;
    }

    hand() { // the answer of this board; where its reward was shown it is practice, and does not count beside the models
      const record = this.tried();
      if (record.handed) return;
      Object.assign(record, { handed: true, blind: !this.bared[this.id], solved: record.solved || this.exact, answer: this.answer });
    }
    answerOnce(now) { // a board that lies right already has nothing left to answer
      this.once = now;
      if (now && !this.empty && this.exact) this.next();
    }
    look(what, now) { if (now && !this.settled) this.tried().looked = true; this[what] = now; }

    keep() {
      if (!this.once && !this.record?.handed) this.bared[this.id] = true;
      const { source, grid, once, numbers, shuffles, id, order, swaps, looking, asked } = this;
      kit.remember("state", { source, grid, once, numbers, shuffles, id, order, swaps, looking, asked });
      kit.remember("won", this.won);
      kit.remember("bared", this.bared);
    }
  }

  // Pictures: data addresses, loaded once ---------------------------------------------------------------------------
  const BLANK = { name: "none", words: "no picture chosen yet", image: "", sharp: false };
  const loaded = new Map();
  function load(picture, ready) {
    if (!picture.image) return null;
    if (!loaded.has(picture.image)) loaded.set(picture.image, Object.assign(new Image(), { src: picture.image }));
    const image = loaded.get(picture.image);
    if (image.complete && image.naturalWidth) return image;
    kit.listen(image, "load", ready, { once: true });
    return null;
  }

  // A file as a square picture of at most 216 pixels: cut out of the middle, as the models' pictures are.
  async function read(file) {
    const image = new Image(), address = URL.createObjectURL(file), bad = (why) => new Error(`${file.name} ${why}`);
    try {
      image.src = address;
      await image.decode().catch(() => { throw bad("cannot be read as a picture: choose a JPEG, PNG or WebP file."); });
      const side = Math.min(image.naturalWidth, image.naturalHeight);
      if (side < 6) throw bad("is too small to be cut: choose a picture of 6 pixels or more each way.");
      const cut = middle(image, side).toDataURL("image/jpeg", 0.85);
      return { name: `${file.name} ${file.size}`, words: file.name, image: cut, sharp: false };
    } finally { URL.revokeObjectURL(address); }
  }
  function middle(image, side) {
    const canvas = el("canvas", { width: 216, height: 216 }), pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.fillStyle = "#fff"; // what lies behind a transparent picture
    pen.fillRect(0, 0, 216, 216);
    pen.drawImage(image, (image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2, side, side, 0, 0, 216, 216);
    return canvas;
  }

  // A board drawn small: with the grid that the models know, as large as they see it (64 pixels).
  function miniature(canvas, image, { rows, cols }, placement) {
    const seen = rows * cols === 4 ? 64 : SMALL;
    const whole = el("canvas", { width: seen, height: seen });
    Object.assign(whole.getContext("2d"), { imageSmoothingQuality: "high" }).drawImage(image, 0, 0, seen, seen);
    kit.drawBoard(canvas, whole, { rows, cols, placement, size: seen });
  }

  // The board: one button a place, each with the slot that its tile came from ----------------------------------------
  class Board {
    constructor(game, act) {
      [this.game, this.act] = [game, act];
      this.node = el("div", { class: "board", role: "group", "aria-label": "your board" });
      this.tiles = [];
      kit.listen(document, "pointermove", (event) => this.drag(event));
      kit.listen(document, "pointerup", (event) => (this.held?.moved ? kit.react(event, () => this.drop(event)) : this.let()));
      kit.listen(document, "pointercancel", () => this.let());
    }

    build() {
      const { rows, cols } = this.game.shape;
      this.node.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${cols}, 1fr)`;
      this.tiles = this.game.order.map((_, place) => el("button", {
        type: "button", class: "tile", onclick: () => this.act(place), onfocus: () => { this.game.cursor = place; this.rove(); },
        onpointerdown: (event) => { if (event.button === 0) this.held = { place, x: event.clientX, y: event.clientY }; },
      }, el("span", { class: "badge" })));
      put(this.node, this.tiles);
    }

    drag(event) {
      if (!this.held) return;
      const [dx, dy] = [event.clientX - this.held.x, event.clientY - this.held.y];
      if (Math.hypot(dx, dy) < 6 && !this.held.moved) return;
      this.held.moved = true;
      const tile = this.tiles[this.held.place];
      tile.classList.add("dragged");
      tile.style.transform = `translate(${dx}px, ${dy}px)`;
    }

    drop(event) {
      const held = this.held;
      this.let();
      const below = document.elementsFromPoint(event.clientX, event.clientY).map((node) => this.tiles.indexOf(node.closest("button")));
      const to = below.find((place) => place >= 0 && place !== held.place);
      if (to !== undefined) this.act(to, held.place);
    }

    let() {
      if (!this.held) return;
      Object.assign(this.tiles[this.held.place].style, { transform: "" });
      this.tiles[this.held.place].classList.remove("dragged");
      this.held = null;
    }

    rove() { this.tiles.forEach((tile, place) => { tile.tabIndex = place === this.game.cursor ? 0 : -1; }); }

    move(by) {
      const { cols } = this.game.shape, { cursor } = this.game, to = cursor + by;
      const inside = to >= 0 && to < this.tiles.length && (Math.abs(by) !== 1 || Math.floor(to / cols) === Math.floor(cursor / cols));
      this.tiles[inside ? to : cursor].focus();
    }

    draw() {
      const { game } = this, { rows, cols } = game.shape, image = load(game.picture, () => this.draw());
      if (this.tiles.length !== game.order.length || this.grid !== game.grid) { this.build(); this.grid = game.grid; }
      const at = (part, parts) => `${(100 * part) / (parts - 1)}%`;
      this.tiles.forEach((tile, place) => {
        const true_ = game.board.placement[game.order[place] - 1] - 1;
        tile.style.backgroundImage = image ? `url(${image.src})` : "";
        tile.style.backgroundSize = `${cols * 100}% ${rows * 100}%`;
        tile.style.backgroundPosition = `${at(true_ % cols, cols)} ${at(Math.floor(true_ / cols), rows)}`;
        tile.style.imageRendering = game.picture.sharp ? "pixelated" : "auto";
        tile.firstChild.textContent = game.order[place];
        tile.setAttribute("aria-pressed", String(game.picked === place));
        tile.setAttribute("aria-label", `place ${place + 1}: the tile of slot ${game.order[place]}`);
      });
      this.node.classList.toggle("whole", game.shown && game.exact);
      this.rove();
    }
  }

  // What the swaps mean: the answer, slot by slot, the order beside it, and the reward --------------------------------
  function meaning(game) {
    const { answer, order } = game, n = order.length;
    const row = (head, cells, name) => el("tr", { class: name }, el("th", { scope: "row" }, head), cells.map((cell) => el("td", {}, cell)));
    const grid = (name, ...rows) => el("table", { class: `map ${n > 6 ? "tight" : ""}`, "aria-label": name }, rows);
    const swapped = game.shown && !game.empty ? `hits ${text(hits(order, game.board.placement))}` : "is another answer";
    return [
      el("h3", {}, "What you say now"),
      el("p", { class: `words said ${n > 6 ? "long" : ""}` }, written(answer)),
      grid("placement", row("slot of the board", range(n).map((i) => i + 1)), row("its tile is at place", answer, "main")),
      el("p", { class: "quiet line" }, "This is the placement: the answer that a model must write."),
      grid("order", row("place", range(n).map((i) => i + 1)), row("holds tile of slot", order)),
      el("p", { class: "quiet line" }, equal(answer, order) ? "This is the order. Just now both read the same."
        : `This is the order, its inverse: your board read off. Written as the answer it ${swapped}.`),
    ];
  }

  function rewards(game) {
    const shown = game.shown && !game.empty, values = shown ? game.terms : [0, 0, 0], sum = values.reduce((a, b) => a + b, 0);
    const told = [...values, sum].map((value) => el("td", {}, shown ? text(value) : game.empty ? "–" : "?"));
    const key = (colour) => el("span", { class: "key", style: `background:${colour}` });
    const heads = [...TERMS.map(([name, colour]) => [key(colour), name]), ["reward"]].map((head) => el("th", { scope: "col" }, head));
    const bar = svg("svg", { viewBox: "0 0 300 10", class: "bar", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { width: 300, height: 10, fill: "#eee" }));
    values.reduce((left, value, i) => {
      bar.append(svg("rect", { x: left * 100, width: value * 100, height: 10, fill: TERMS[i][1] }));
      return left + value;
    }, 0);
    const table = el("table", { class: "terms" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, el("tr", {}, told)));
    return [el("h3", {}, "What it earns"), table, bar];
  }

  function status(game) {
    const { record } = game, least = fewest(game.board.placement), swaps = (n) => `${n} swap${n === 1 ? "" : "s"}`;
    if (game.empty) return "Choose a file: a JPEG, PNG or WebP. It stays in this page.";
    const seen = record?.looked ? " You had looked: no point." : "";
    const apart = record?.handed && !record.blind ? " Not counted beside the models: its reward was shown." : "";
    if (record?.handed && record.solved) return `${apart ? "Handed in, right." : "Right, in your one answer."}${seen || apart}`;
    if (record?.handed) return apart ? `Handed in, wrong.${apart}` : "Wrong: that was your one answer. Mend it, look, or go on.";
    if (game.shown && game.exact) return `Solved in ${swaps(game.swaps)}; ${swaps(least)} would do.${seen}`;
    if (game.picked !== null) return `Tile of place ${game.picked + 1} picked: choose the one to swap it with.`;
    if (game.once && game.bared[game.id]) return "Its reward was shown: it will not count beside the models. The next board will.";
    if (game.once) return "Put the tiles right, then hand in your one answer: the models have no more.";
    return game.swaps ? `${swaps(game.swaps)} so far.` : "Click two tiles to swap them, or drag one onto another.";
  }

  // The table of all who tried this board: you, a guess, and the models ------------------------------------------------
  const cell = (words, name) => el("td", { class: name }, words);
  const marked = (right) => cell(right ? "✓ right" : "✗ wrong", right ? "right" : "wrong");
  const summed = (terms, digits) =>
    cell(`${terms.map((value) => text(value, digits)).join(" + ")} = ${text(terms.reduce((a, b) => a + b, 0))}`);
  const oneLine = (said) => el("td", { class: "says", title: said }, kit.spoken(said));
  const counted = (won, n) => cell(n ? `${text(won, 2)} of ${n}` : "–");
  const who = ({ name, asked, colour, marker }) => el("th", { scope: "row" },
    svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, marker ? kit.mark(6, 6, { colour, marker, size: 4.5 }) : null),
    name, asked ? el("span", { class: "quiet" }, `, ${asked}`) : null);

  function ways(game) {
    const records = game.compared, { shape } = game;
    const points = records.filter((one) => one.solved && !one.looked).length;
    const mine = game.record?.answer ?? game.answer; // what was handed in, else what lies there
    const earned = game.reward(mine), unseen = game.empty ? "–" : "?", shown = game.shown && !game.empty;
    const you = el("tr", { class: "you" }, who({ name: "you" }), game.empty ? cell("–") : oneLine(written(mine)),
      shown ? [marked(earned[1] === 1), summed(earned)] : [cell(unseen), cell(unseen)], cell("–"), counted(points, records.length));
    const luck = records.reduce((sum, one) => sum + one.chance, 0);
    const any = `any of the ${text(shape.placements)} placements that can occur`;
    const guess = el("tr", {}, who({ name: "a guess" }), el("td", { class: "says", title: any }, any),
      cell(`1 in ${text(shape.placements)}`), summed([shape.hit, shape.exact, 1], 2),
      cell(text(-Math.log(shape.placements))), cell(records.length ? `${kit.fixed(luck)} expected` : "–"));
    const rows = game.data.solvers.map((solver, i) => {
      const own = game.board.tries[i], common = records.filter((one) => one.right.length > i);
      const cells = own && game.asked ? [oneLine(own.said), marked(own.terms[1] === 1), summed(own.terms), cell(text(own.logp))]
        : [cell(own ? "hidden until you ask" : "–", "quiet says"), cell(""), cell(""), cell("")];
      return el("tr", {}, who(solver), cells, counted(common.filter((one) => one.right[i]).length, common.length));
    });
    const heads = ["who", "says", "right?", "hit + exact + format", "log-prob of true answer", "right, boards you handed in"];
    const top = heads.map((head) => el("th", { scope: "col" }, kit.term(head)));
    return [el("thead", {}, el("tr", {}, top)), el("tbody", {}, you, guess, rows)];
  }

  // What was won, and how many boards compare with the models.
  function score(game) {
    const records = Object.values(game.won), count = (test) => records.filter(test).length, compared = game.compared.length;
    return scoreOf({ records, count, compared });
  }
  function scoreOf({ records, count, compared }) {
    const told = `Boards tried ${records.length}, handed in ${count((one) => one.handed)}, solved ${count((one) => one.solved)}, `
      + `of these without a look ${count((one) => one.solved && !one.looked)}. `;
    const beside = compared ? `${compared} handed in unseen: the last column counts ${compared === 1 ? "that one" : "those"}.`
      : "None handed in unseen: nothing compares with the models yet (choose “one answer only”).";
    return el("p", { class: "score number" }, told, el("span", { class: "quiet" }, beside));
  }

  const LONGEST_NOTE = "To your own picture the models answer in a live notebook, in the panel that goes with this view.";
  function note(game) {
    if (game.grid !== "2x2") return "The models have learned boards of 2 x 2 tiles only: choose that grid to see them try.";
    if (!game.board.tries.length) return LONGEST_NOTE;
    if (game.source !== game.data.sources[0].name) return "Photographs are new to these models: they have learned on drawn scenes alone.";
    return "Each answers once, with its likeliest words: asked for the answer alone (direct), or to think first (think).";
  }

  const STYLE = `
    .columns { margin-top: 6px; }
    .board { display: grid; gap: 3px; width: ${EDGE}px; height: ${EDGE}px; padding: 3px;
      border: 3px solid #bbb; border-radius: 6px; background: #ddd; }
    .board.whole { border-color: #007a59; background: #007a59; }
    .tile { position: relative; padding: 0; border: 0; border-radius: 2px; touch-action: none; min-width: 0; background: #ccc no-repeat; }
    .tile:hover:not(:disabled), .tile[aria-pressed="true"] { background-color: #ccc; }
    .tile[aria-pressed="true"] { box-shadow: inset 0 0 0 5px #ffd23f, inset 0 0 0 7px #222; }
    .tile:focus-visible { outline: 4px solid #0072b2; outline-offset: 0; z-index: 2; }
    .tile.dragged { z-index: 3; opacity: 0.85; pointer-events: none; }
    .badge { position: absolute; left: 8px; top: 8px; min-width: 20px; padding: 0 4px; border-radius: 10px;
      background: #222; color: #fff; font-size: 13px; line-height: 20px; }
    .status { height: 40px; margin: 4px 0; width: ${EDGE}px; line-height: 20px; }
    .said { font-size: 15px; font-weight: 600; margin: 0 0 4px; height: 21px; line-height: 21px; }
    .said.long { font-size: 12.3px; }
    .map { table-layout: fixed; font-size: 13px; }
    .map th { text-align: left; width: 140px; padding-left: 0; }
    .map td { width: 24px; padding: 1px 2px; text-align: center; }
    .map.tight th { width: 112px; font-size: 11.5px; }
    .map.tight td { width: 16px; padding: 1px 0; }
    .map .main td { font-weight: 700; background: #e8f1f8; }
    .line { margin: 2px 0 6px; font-size: 12px; min-height: 34px; }
    .terms { width: 100%; max-width: 360px; table-layout: fixed; }
    .terms th, .terms td { text-align: left; padding: 1px 4px 1px 0; font-size: 12px; white-space: nowrap; }
    .terms th { font-size: 11.5px; }
    .terms td { font-size: 15px; }
    .terms th:nth-child(2) { width: 35%; }
    .bar { width: 100%; max-width: 360px; height: 10px; }
    .key { display: inline-block; width: 8px; height: 8px; margin-right: 3px; }
    .score { margin-top: 8px; }
    .side { width: ${SMALL + 4}px; }
    .side button { margin-bottom: 6px; padding: 3px 6px; font-size: 13px; }
    .small { width: ${SMALL}px; height: ${SMALL}px; background: #eee; }
    .cap { font-size: 12px; line-height: 1.3; height: 48px; margin: 2px 0 4px; overflow: hidden; }
    .cap.low { height: 32px; margin-bottom: 0; }
    .asking { margin: 4px 0; }
    .tries table { width: 100%; table-layout: fixed; }
    .tries td, .tries th { text-align: left; padding: 2px 5px; font-size: 12.5px; line-height: 18px; vertical-align: top; }
    .tries th svg { display: inline-block; vertical-align: -1px; margin-right: 4px; }
    .tries tbody th { color: #222; }
    .tries .you { background: #f2f7fb; }
    .tries .says { overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
    .says .words { font-size: 12px; line-height: 1; white-space: pre; }
    .tries thead th { font-size: 11.5px; line-height: 1.3; vertical-align: bottom; }
    .tries col:nth-child(1) { width: 22%; }
    .tries tbody td { white-space: nowrap; } .tries col:nth-child(3) { width: 90px; }
    .tries col:nth-child(4) { width: 184px; }
    .tries col:nth-child(5), .tries col:nth-child(6) { width: 84px; }
    .asking > div { flex: 1 1 0; min-width: 0; }
    .keys { margin: 6px 0 0; }
    .hide { visibility: hidden; }
    input[type=file] { width: 205px; font-size: 12px; }
    @media (max-width: 700px) {
      .columns { flex-wrap: wrap; } .told { order: 3; flex: 1 0 100%; }
      .tries tr > :nth-child(4), .tries col:nth-child(4) { display: none; }
      .tries col:nth-child(1) { width: 21%; } .tries col:nth-child(3) { width: 94px; }
    }`;

  function controls(game, act) {
    const took = (own) => { kit.remember("own", own); act(() => game.took(own)); };
    const file = el("input", { type: "file", accept: "image/*", "aria-label": "your own picture", onchange: () => {
      if (file.files[0]) read(file.files[0]).then(took, (error) => act(() => { game.trouble = error.message; }));
    } });
    const pick = (label, what, options, name) =>
      kit.select({ label, options, name, value: game[what], act: (to) => act(() => game.choose({ [what]: to })) });
    const source = pick("pictures", "source", game.sources);
    const grid = pick("tiles", "grid", Object.keys(game.data.grids), (name) => name.replace("x", " x "));
    const once = kit.check({ label: "one answer only", value: game.once, act: (now) => act(() => game.answerOnce(now)) });
    return { node: el("div", { class: "row" }, source, grid, once, file), draw: () => file.classList.toggle("hide", game.source !== OWN) };
  }

  function view(data, root) {
    const game = new Game(data), say = kit.announcer(root);
    const act = (change) => { game.trouble = ""; change(); draw(); };
    const choose = (place, from = game.picked) => act(() => {
      if (from === null) game.picked = place; else game.swap(from, place);
      game.cursor = place;
    });
    const board = new Board(game, choose), head = controls(game, act);
    const buttons = {
      restart: kit.button("Restart", () => act(() => game.restart())),
      next: kit.button("Next board", () => act(() => game.next())),
      hand: kit.button("Hand in", () => act(() => game.hand())),
      look: kit.toggle("Show the answer", false, (now) => act(() => game.look("looking", now))),
      ask: kit.toggle("Let the models try", false, (now) => act(() => game.look("asked", now))),
    };
    const names = ["status", "meaning", "rewards", "note", "score", "given", "seen"];
    const parts = Object.fromEntries(names.map((name) => [name, el("div", {})]));
    const [model, solved] = [0, 1].map(() => el("canvas", { class: "small pixels", role: "img" }));
    const table = el("table", {});
    lay(root, { board, head, buttons, parts, model, solved, table });
    const draw = () => { drawAll({ game, board, head, buttons, parts, model, solved, table, say, draw }); game.keep(); };
    draw();
    const digit = (i) => () => { if (i < game.order.length) { choose(i); board.tiles[i].focus(); } };
    const press = (name) => () => { if (!buttons[name].disabled) buttons[name].click(); };
    kit.keys({
      ArrowLeft: () => board.move(-1), ArrowRight: () => board.move(1),
      ArrowUp: () => board.move(-game.shape.cols), ArrowDown: () => board.move(game.shape.cols),
      ...Object.fromEntries(range(9).map((i) => [String(i + 1), digit(i)])),
      a: press("look"), m: press("ask"), n: press("next"), r: press("restart"), h: press("hand"),
    }, board.node);
  }

  function lay(root, { board, head, buttons, parts, model, solved, table }) {
    parts.status.className = "status";
    const keys = "Keys: arrows move, Enter or Space picks and swaps, 1 to 9 pick a place; "
      + "on the board a answer, m models, h hand in, r restart, n next.";
    root.append(
      el("style", {}, STYLE), head.node,
      el("div", { class: "columns" },
        el("div", { class: "fixed" }, board.node, parts.status, el("div", { class: "row" }, buttons.restart, buttons.next, buttons.hand)),
        el("div", { class: "grow told" }, parts.meaning, parts.rewards, parts.score),
        el("div", { class: "fixed side" }, el("h3", {}, "All a model sees"), model, parts.seen, buttons.look, solved, parts.given)),
      el("div", { class: "row asking" }, buttons.ask, parts.note),
      el("div", { class: "tries", role: "group", "aria-label": "all answers to this board" }, table),
      el("p", { class: "quiet keys" }, keys));
    reserve(parts);
  }

  // Room for the longest words of each part.
  function reserve(parts) {
    const nine = range(9).map((i) => i + 1), many = { length: 100 };
    const board = { placement: [2, 1, 3, ...nine.slice(3)] };
    kit.room(parts.meaning, () => meaning({ answer: nine, order: [...nine].reverse(), shown: true, board }));
    kit.room(parts.score, () => [scoreOf({ records: many, count: () => 100, compared: 0 })]);
    kit.room(parts.note, () => [el("span", { class: "quiet" }, LONGEST_NOTE)]);
  }

  function drawAll({ game, board, head, buttons, parts, model, solved, table, say, draw }) {
    board.draw();
    head.draw();
    const colour = game.trouble ? "wrong" : game.shown && game.exact ? "right" : "";
    put(parts.status, el("span", { class: colour }, game.trouble || status(game)));
    put(parts.meaning, meaning(game));
    put(parts.rewards, rewards(game));
    put(parts.note, el("span", { class: "quiet" }, note(game)));
    put(parts.score, score(game));
    drawSide({ game, parts, model, solved, draw });
    buttons.look.set(Boolean(game.looking));
    buttons.ask.set(Boolean(game.asked));
    buttons.ask.disabled = !game.board.tries.length;
    buttons.hand.disabled = game.empty || Boolean(game.record?.handed);
    put(table, el("colgroup", {}, range(6).map(() => el("col", {}))), ways(game));
    say(`${game.trouble || status(game)} ${written(game.answer)}${game.shown ? `, hit rate ${text(game.terms[0])}` : ""}`);
  }

  function drawSide({ game, parts, model, solved, draw }) {
    const image = load(game.picture, draw), { placement } = game.board;
    for (const canvas of [model, solved]) canvas.width = canvas.height = SMALL; // which wipes it
    if (image) miniature(model, image, game.shape, placement);
    if (image && game.looking) miniature(solved, image, game.shape, game.start);
    model.setAttribute("aria-label", "the shuffled board, as a model sees it");
    solved.setAttribute("aria-label", game.looking ? "the picture put right" : "the picture, hidden until you ask");
    put(parts.seen, el("p", { class: "quiet cap" }, `${game.place}; ${game.picture.words}`));
    const given = game.looking ? `placement ${placement.join(" ")}` : "Hidden. Asking first costs the point.";
    put(parts.given, el("p", { class: "quiet cap low" }, given));
  }

  kit.start(view, { snug: true });
})();
