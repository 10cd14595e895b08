// Texts as rows of tokens, coloured by how probable a model finds each, or by how much training moved it. Point at a token, or go
// along them with ← and →: the table says its log-prob under every model. ↑ and ↓ go to the text before and after.
"use strict";

kit.start((data, root) => {
  const [first, ...others] = data.models, kinds = [...new Set(data.texts.map((text) => text.kind))];
  const RANGE = { logp: [-6, 0], change: [-3, 3] }; // nats; beyond them the colour stays, the number tells
  const VIEWS = [...data.models.map((name) => ({ name, change: false })), ...others.map((name) => ({ name, change: true }))];
  const named = ({ name, change }) => (change ? `${name} minus ${first}` : `log-prob under ${name}`);
  const state = kit.recall("state", { text: 0, view: 0, token: 0 });
  state.text = Math.min(state.text, data.texts.length - 1);
  state.view = Math.min(state.view, VIEWS.length - 1);

  const text = () => data.texts[state.text], siblings = () => data.texts.map((_, k) => k).filter((k) => data.texts[k].kind === text().kind);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const logps = (name) => text().logps[data.models.indexOf(name)];
  const values = ({ name, change }) => (change ? logps(name).map((value, k) => value - logps(first)[k]) : logps(name));
  const signed = (value) => (value >= 0.005 ? "+" : "") + near(value);
  const near = (value) => (Math.abs(value) < 0.005 ? "0" : Math.abs(value) < 10 ? value.toFixed(2) : value.toFixed(1));

  function colour(value, change) {
    const [low, high] = RANGE[change ? "change" : "logp"], scale = data.scales[change ? "change" : "logp"];
    return scale[Math.round(Math.min(1, Math.max(0, (value - low) / (high - low))) * (scale.length - 1))];
  }

  // Tokens -------------------------------------------------------------------------------------------------------------
  const row = kit.el("div", { role: "group", "aria-label": "tokens", class: "scroll grow", style: "height:310px;padding:3px" });
  let boxes = [];
  const BOX = "font-size:11.5px;padding:2px 5px;margin:0 2px 4px 0;min-width:46px;border-color:#888;line-height:1.25;";
  function box(token, value, k, change) {
    const back = colour(value, change), said = change ? signed(value) : near(value);
    const about = { type: "button", tabindex: "-1", "aria-label": `${token}: ${said} nats`, "data-value": value };
    const acts = { onclick: () => choose(k), onpointerenter: () => choose(k), onfocus: () => k !== state.token && choose(k) };
    const shown = [kit.el("span", { class: "words", style: "display:block" }, token), kit.el("span", { class: "number" }, said)];
    return kit.el("button", { ...about, ...acts, style: `${BOX}background:${back};color:${kit.ink(back)}` }, shown);
  }
  function drawTokens() {
    const view = VIEWS[state.view], had = row.contains(document.activeElement);
    boxes = values(view).map((value, k) => box(text().tokens[k], value, k, view.change));
    state.token = Math.min(state.token, boxes.length - 1);
    kit.put(row, boxes);
    choose(state.token, had);
  }
  function choose(k, focus) {
    boxes[state.token]?.setAttribute("tabindex", "-1");
    if (boxes[state.token]) boxes[state.token].style.boxShadow = "";
    state.token = Math.max(0, Math.min(boxes.length - 1, k));
    boxes[state.token].setAttribute("tabindex", "0");
    boxes[state.token].style.boxShadow = "0 0 0 2px #fff, 0 0 0 4px #000";
    if (focus) boxes[state.token].focus();
    drawTable();
    kit.remember("state", state);
  }

  // Numbers ------------------------------------------------------------------------------------------------------------
  const table = kit.el("table", { style: "width:100%;table-layout:fixed;margin-top:6px" });
  const HEAD = ["model", "sum (nats)", "per token", "change of the sum", "this token", "its probability", "its change"];
  function drawTable() {
    const k = state.token, base = logps(first);
    const cells = (name) => {
      const own = logps(name), moved = name === first ? [null, null] : [sum(own) - sum(base), own[k] - base[k]];
      return [sum(own), sum(own) / own.length, moved[0], own[k], Math.exp(own[k]), moved[1]];
    };
    const shown = VIEWS[state.view].name, style = (name) => (name === shown ? "font-weight:600" : "");
    const line = (name) => kit.el("tr", { "data-model": name, style: style(name) }, kit.el("td", {}, name === shown ? `${name} ◀` : name),
      cells(name).map((value) => kit.el("td", { "data-value": value }, kit.text(value))));
    const head = HEAD.map((name, place) => kit.el("th", { scope: "col", style: place ? "" : "width:190px" }, name));
    kit.put(table, kit.el("tr", { style: "height:44px" }, head), data.models.map(line));
    const value = values(VIEWS[state.view])[k];
    say(`${text().tokens[k]}, token ${k + 1} of ${boxes.length}: ${kit.text(value)} nats, ${named(VIEWS[state.view])}`);
  }

  // The text -----------------------------------------------------------------------------------------------------------
  const picture = kit.el("img", { class: "pixels", width: 128, height: 128, alt: "" });
  const asked = kit.el("p", { class: "quiet scroll", style: "height:164px;margin:6px 0 0" });
  const count = kit.el("span", { class: "number", style: "min-width:4.5em;text-align:center" });
  function drawText() {
    picture.src = data.pictures[text().picture];
    picture.alt = `the picture asked about: ${text().asked}`;
    asked.textContent = text().asked;
    count.textContent = `${siblings().indexOf(state.text) + 1} of ${siblings().length}`;
    kind.set(text().kind);
    drawTokens();
  }
  function turn(by) {
    state.text = (state.text + by + data.texts.length) % data.texts.length;
    drawText();
  }
  function legend() {
    const { change } = VIEWS[state.view], which = change ? "change" : "logp", [low, high] = RANGE[which];
    const look = `width:130px;height:12px;border:1px solid #888;background:linear-gradient(90deg,${data.scales[which].join(",")})`;
    const end = (words, side) => kit.el("span", { style: `width:7em;text-align:${side}` }, words);
    kit.put(bounds, end(change ? `${low}, less` : `${low}, surprising`, "right"), kit.el("span", { style: look }),
      end(change ? `+${high}, more` : `${high}, certain`, "left"));
  }

  // Controls -----------------------------------------------------------------------------------------------------------
  const HELP = "Point at a token, or press ← and →; ↑ and ↓ for another text. Boards are of the training set, from which the kept runs "
    + "have learned; old questions are held out.";
  const bounds = kit.el("span", { class: "quiet number", style: "display:inline-flex;gap:6px;align-items:center" });
  const say = kit.announcer(root);
  const kind = kit.select({ label: "text", options: kinds, value: text().kind,
    act: (name) => { state.text = data.texts.findIndex((own) => own.kind === name); drawText(); } });
  const view = kit.select({ label: "show", options: VIEWS.map((_, k) => k), value: state.view, name: (k) => named(VIEWS[k]),
    act: (k) => { state.view = k; legend(); drawTokens(); } });
  const [before, after] = [["◀", -1, "text before"], ["▶", 1, "text after"]].map(([sign, by, label]) =>
    kit.button(sign, () => turn(by), { "aria-label": label }));
  root.append(kit.el("div", { class: "row", style: "margin-bottom:6px" }, kind, before, count, after, view, bounds),
    kit.el("div", { class: "columns" }, kit.el("div", { class: "fixed", style: "width:136px" }, picture, asked), row), table,
    kit.el("p", { class: "quiet", style: "margin:4px 0 0" }, HELP));
  const go = (by) => choose(state.token + by, true);
  kit.keys({ ArrowLeft: () => go(-1), ArrowRight: () => go(1), ArrowUp: () => turn(-1), ArrowDown: () => turn(1) });
  legend();
  drawText();
});
