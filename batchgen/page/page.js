// The answers of the page: search, filters, and three views. What models and people wrote is set
// as text and never read as HTML.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 50;
const state = { q: "", status: "", reason: "", axes: {}, view: "list", shown: PAGE };
const find = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}

// -- where cards come from: the page itself, or the server of `batchgen view` -----------------------

const embedded = {
  cards: (data.cards || []).map((card) => ({ card, text: words(card) })),
  async query() {
    const found = this.cards.filter(({ card, text }) => matches(card, text)).map(({ card }) => card);
    return { cards: found.slice(0, state.shown), total: found.length, more: found.length > state.shown };
  },
};

const served = {
  async query() {
    const query = { q: state.q, status: state.status, reason: state.reason, limit: state.shown };
    for (const [name, value] of Object.entries(state.axes)) if (value !== "") query[`axis.${name}`] = value;
    const reply = await fetch(`${data.api}?${new URLSearchParams(query)}`);
    if (!reply.ok) throw new Error(`the server of batchgen view answered ${reply.status}`);
    return reply.json();
  },
};

const source = data.api ? served : embedded;

function words(card) {
  const texts = (card.turns || []).map((turn) => turn.text || turn.file || "");
  return [card.id, card.thread, card.message, card.reason, ...texts].join("\n").toLowerCase();
}

function matches(card, text) {
  return (
    (!state.status || card.status === state.status) &&
    (!state.reason || card.reason === state.reason) &&
    Object.entries(state.axes).every(([name, value]) => value === "" || shown((card.axes || {})[name]) === value) &&
    state.q.toLowerCase().split(/\s+/).every((word) => text.includes(word))
  );
}

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

// -- one card --------------------------------------------------------------------------------------

// The text with the words of the search marked.
function marked(text) {
  const element = make("div", { class: "text" });
  const wanted = state.q.split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const parts = wanted.length ? text.split(new RegExp(`(${wanted.join("|")})`, "gi")) : [text];
  parts.forEach((part, index) => element.append(index % 2 ? make("mark", {}, part) : part));
  return element;
}

function structured(text) {
  if (!/^\s*\{/.test(text)) return null;
  let value;
  try { value = JSON.parse(text); } catch { return null; }
  const rows = Object.entries(value).map(([name, each]) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, marked(shown(each)))));
  return make("table", { class: "fields" }, make("tbody", {}, ...rows));
}

function picture(turn) {
  const full = turn.full || turn.picture;
  const image = make("img", { src: turn.thumbnail || full, alt: "", loading: "lazy" });
  return make("button", { class: "picture", type: "button", "aria-label": "Show the picture large", onclick: () => large(full, turn.thumbnail) }, image);
}

function large(full, thumbnail) {
  const image = find("large").querySelector("img");
  image.onerror = () => { image.onerror = null; if (thumbnail) image.src = thumbnail; };
  image.src = full;
  find("large").showModal();
}

function content(turn) {
  if (turn.picture) return picture(turn);
  if (turn.file) return turn.thumbnail ? picture({ ...turn, picture: turn.full }) : make("div", { class: "text" }, `${turn.field}: ${turn.file}`);
  return (turn.role === "assistant" && structured(turn.text || "")) || marked(turn.text || "");
}

function turnElement(turn) {
  const role = turn.role + (turn.old ? ", an answer from before the change" : "");
  return make("div", { class: `turn ${turn.role}` }, make("div", { class: "role" }, role), content(turn));
}

function heading(card) {
  const axes = Object.entries(card.axes || {}).map(([name, value]) => `${name}: ${shown(value)}`).join(", ");
  return make("h3", {}, card.thread || card.id || `line ${card.line}`, axes ? make("span", { class: "axes" }, ` ${axes}`) : null,
    make("span", { class: `status ${card.status}` }, card.status));
}

function problem(card) {
  return card.reason ? make("p", { class: "problem" }, card.message ? `${card.reason}: ${card.message}` : card.reason) : null;
}

function measures(card) {
  const parts = [];
  if (card.model) parts.push(card.model);
  if (card.cost !== undefined) parts.push(`$${Number(card.cost.toPrecision(4))}`);
  if (card.input_tokens || card.output_tokens) parts.push(`${card.input_tokens} + ${card.output_tokens} tokens`);
  if (card.seconds) parts.push(`${card.seconds} s`);
  if (card.attempts > 1) parts.push(`${card.attempts} attempts`);
  if (card.at) parts.push(new Date(card.at * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC");
  return parts.length ? make("p", { class: "measures" }, parts.join(" · ")) : null;
}

function cardElement(card) {
  const turns = card.turns || [];
  const last = turns.map((turn) => turn.role).lastIndexOf("assistant");
  // A short thread is open; of a long one the answers are what people came for.
  const asked = turns.filter((turn) => turn.role !== "assistant");
  const single = turns.length - asked.length <= 1;
  const body = single
    ? [make("details", { open: last < 0 }, make("summary", {}, summary(asked)), ...asked.map(turnElement)), ...turns.filter((turn) => turn.role === "assistant").map(turnElement)]
    : turns.map(turnElement);
  return make("article", { class: "card", "data-id": card.id }, heading(card), problem(card), ...body, measures(card));
}

function summary(asked) {
  const own = asked.filter((turn) => turn.role !== "system" && turn.role !== "developer").pop() || asked[0];
  const text = own ? own.text || own.file || "" : "";
  return text.length > 140 ? `${text.slice(0, 140)}…` : text || "prompt";
}

// -- the views -------------------------------------------------------------------------------------

function listView(cards) {
  return make("div", {}, ...cards.map(cardElement));
}

function galleryView(cards) {
  return make("div", { class: "gallery" }, ...cards.map((card) => {
    const turns = card.turns || [];
    const prompts = turns.filter((turn) => turn.role !== "assistant" && turn.text);
    return make("article", { class: "card", "data-id": card.id },
      ...turns.filter((turn) => turn.picture || turn.thumbnail).map((turn) =>
        turn.field ? make("div", {}, make("div", { class: "role" }, turn.field), content(turn)) : content(turn)),
      heading(card), problem(card), ...prompts.map((turn) => marked(turn.text)), measures(card));
  }));
}

// One line for each row of the prompts, one column for each combination of the axes.
function gridView(cards) {
  const columns = new Map();
  const lines = new Map();
  for (const card of cards) {
    const column = Object.values(card.axes || {}).map(shown).join(" · ");
    columns.set(column, true);
    const name = card.thread || card.id;
    if (!lines.has(card.line)) lines.set(card.line, { name, cells: new Map() });
    lines.get(card.line).cells.set(column, card);
  }
  const head = make("tr", {}, make("th", { scope: "col" }, "row"), ...[...columns.keys()].map((name) => make("th", { scope: "col" }, name)));
  const body = [...lines.values()].map(({ name, cells }) => make("tr", {}, make("th", { scope: "row" }, name),
    ...[...columns.keys()].map((column) => {
      const card = cells.get(column);
      if (!card) return make("td");
      return make("td", {}, card.status === "succeeded" ? null : make("span", { class: `status ${card.status}` }, card.status),
        problem(card), ...(card.turns || []).filter((turn) => turn.role === "assistant").map(content), measures(card));
    })));
  return make("div", { class: "grid" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

const VIEWS = { list: listView, gallery: galleryView, grid: gridView };

// -- filters ---------------------------------------------------------------------------------------

function choice(label, values, set) {
  const select = make("select", { "aria-label": label, onchange: (event) => { set(event.target.value); restart(); } },
    make("option", { value: "" }, `${label}: all`), ...values.map((value) => make("option", { value }, value)));
  find("choices").append(select);
  return select;
}

function restart() {
  state.shown = PAGE;
  return show();
}

let asked = 0;

async function show() {
  const turn = ++asked;
  let result;
  try { result = await source.query(); } catch (error) {
    find("found").textContent = String(error.message || error);
    return;
  }
  if (turn !== asked) return;
  const { cards, total, more } = result;
  find("answers").replaceChildren(VIEWS[state.view](cards));
  const found = total === undefined ? `${cards.length} shown${more ? ", there are more" : ""}` : `${total.toLocaleString("en")} found${more ? `, ${cards.length} shown` : ""}`;
  find("found").textContent = `${found}. ${data.note || ""}`;
  find("more").hidden = !more;
  update(result);
}

// -- a run that is going on, in the page of `batchgen view` ------------------------------------------

let standing = "";

function update({ counts, cost }) {
  if (!counts) return;
  standing = JSON.stringify(counts);
  for (const [status, count] of Object.entries(counts)) {
    const tile = document.querySelector(`.tiles .${CSS.escape(status)} dd`);
    if (tile) tile.textContent = count.toLocaleString("en");
  }
  find("cost").textContent = cost.replace(/^cost /, "");
}

async function follow() {
  if (document.hidden) return;
  let reply;
  try { reply = await (await fetch(`${data.api}?limit=0`)).json(); } catch { return; }
  if (JSON.stringify(reply.counts) === standing) return;
  // A status that no tile has yet needs the page anew.
  if (Object.keys(reply.counts).every((status) => document.querySelector(`.tiles .${CSS.escape(status)}`))) show();
  else location.reload();
}

function examples() {
  for (const row of document.querySelectorAll("tr[data-reason]")) {
    const reason = row.dataset.reason;
    const found = (data.examples || {})[reason] || ((data.cards || []).find((card) => card.reason === reason) || {});
    const text = [found.id, found.message].filter(Boolean).join(": ");
    const choose = () => { state.reason = reason; reasonSelect.value = reason; restart(); find("filters").scrollIntoView(); };
    if (text) row.querySelector(".example").append(make("button", { class: "link", type: "button", onclick: choose }, text.slice(0, 200)));
  }
}

const statuses = [...document.querySelectorAll(".tiles div[class]")].map((tile) => tile.className);
const reasons = [...document.querySelectorAll("tr[data-reason]")].map((row) => row.dataset.reason);
if (statuses.length > 1) choice("status", statuses, (value) => { state.status = value; });
const reasonSelect = choice("reason", reasons, (value) => { state.reason = value; });
reasonSelect.hidden = reasons.length === 0;
for (const [name, values] of Object.entries(data.axes || {})) choice(name, values.map(shown), (value) => { state.axes[name] = value; });

const draws = data.draws;
const views = ["list", ...(draws ? ["gallery"] : []), ...(Object.keys(data.axes || {}).length ? ["grid"] : [])];
state.view = draws ? "gallery" : "list";
if (views.length > 1) for (const name of views) {
  find("views").append(make("button", { type: "button", "data-view": name, "aria-pressed": String(name === state.view), onclick: () => {
    state.view = name;
    for (const button of find("views").children) button.setAttribute("aria-pressed", String(button.dataset.view === name));
    show();
  } }, name));
}

let typing;
find("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => { state.q = event.target.value.trim(); restart(); }, 120);
});
find("filters").addEventListener("submit", (event) => event.preventDefault());
find("more").addEventListener("click", () => { state.shown += 4 * PAGE; show(); });
find("large").addEventListener("click", (event) => { if (event.target === find("large")) find("large").close(); });
examples();
show();
if (data.api) setInterval(follow, 3000);
