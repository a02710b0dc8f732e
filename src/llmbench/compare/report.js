"use strict";
// The explorer of single answers. Text goes into the page as text nodes only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const STEP = 20;
const get = (id) => document.getElementById(id);
const LABELS = Object.fromEntries([...get("metric").options].map((option) => [option.value, option.textContent]));
let wanted = STEP;

function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Text that a model, a user or a document wrote: its own direction, whatever that of its neighbours.
function written(tag, name, ...children) {
  const element = make(tag, name, ...children);
  element.dir = "auto";
  return element;
}

function outcome(value) {
  if (value === 1) return ["right", "\u2713 right"];
  if (value === 0) return ["wrong", "\u2717 wrong"];
  if (value > 0 && value < 1) return ["none", `\u25d0 ${Math.round(100 * value)}%`];
  return ["none", "not measured"];
}

// The answer with the expected value marked and each citation coloured by whether it is the right page.
function said(text, question, sources) {
  const place = written("p", "said");
  const pages = new Map(sources.map(([n, , right]) => [String(n), right]));
  for (const part of text.split(/(\[\d+(?:\s*,\s*\d+)*\])/)) {
    if (/^\[\d/.test(part)) {
      const numbers = part.match(/\d+/g);
      place.append(make("span", numbers.every((n) => pages.get(n)) ? "cite ok" : "cite", part));
      continue;
    }
    const at = question.v ? part.toLowerCase().indexOf(question.v.toLowerCase()) : -1;
    if (at < 0) place.append(part);
    else place.append(part.slice(0, at), make("mark", "", part.slice(at, at + question.v.length)), part.slice(at + question.v.length));
  }
  return place;
}

function passages(sources) {
  if (!sources.length) return null;
  const list = make("details", "", make("summary", "", sources.length === 1 ? "1 passage" : `${sources.length} passages`));
  for (const [n, i, right] of sources) {
    const [page, text] = data.passages[i];
    list.append(written("p", "passage", written("b", "", `[${n}] ${page}${right ? "  \u2713 the page" : ""}`), text));
  }
  return list;
}

function answer(question, i, metric) {
  const [name, colour] = data.variants[i];
  const given = question.of[i];
  const label = make("span", "name", make("i", ""), make("bdi", "", name));
  const box = make("div", `answer v${colour}`);
  if (!given || given.err) {
    box.append(make("header", "", label, make("span", "none", "no answer")), written("p", "said", given ? given.err : "not asked"));
    return box;
  }
  const [kind, words] = outcome(given.m[metric]);
  const marks = make("ul", "marks");
  for (const [key, value] of Object.entries(given.m)) {
    if (key === metric || value === null || !LABELS[key]) continue;
    const [how, text] = outcome(value);
    marks.append(make("li", "", make("span", how, text[0]), ` ${LABELS[key]}`));
  }
  marks.append(make("li", "", `${given.sec} s`));
  box.append(make("header", "", label, make("span", kind, words)), said(given.t, question, given.s), marks);
  const list = passages(given.s);
  if (list) box.append(list);
  return box;
}

// What judges said of these answers, in the order in which they were shown.
function opinions(said) {
  if (!said.length) return null;
  const list = make("details", "", make("summary", "", said.length === 1 ? "1 judgement" : `${said.length} judgements`));
  for (const [judge, shown, label, reason] of said) {
    const names = shown.map((i) => data.variants[i][0]);
    const won = { first: names[0], second: names[1] }[label] || label;
    list.append(written("p", "passage", written("b", "", `${judge} on ${names.join(", then ")}: ${won}`), reason ? ` ${reason}` : ""));
  }
  return list;
}

function card(question, metric) {
  const expected = question.told ? question.a || question.v || "" : question.a || "not in the documents";
  const page = question.page ? ` (${question.page})` : question.told ? "" : " (not in the documents)";
  const answers = make("div", "answers", ...data.variants.map((_, i) => answer(question, i, metric)));
  const line = expected ? `${question.id}: expected \u201c${expected}\u201d${page}` : question.id;
  return make("article", "card", written("h3", "", question.q), written("p", "expected", line), answers, opinions(question.j || []));
}

function matches(question) {
  const metric = get("metric").value, variant = get("variant").value, outcome = get("outcome").value, kind = get("kind").value;
  if (kind && question.told !== (kind === "1")) return false;
  const given = Object.values(question.of);
  const values = given.map((one) => one.m[metric]);
  if (outcome === "split" && new Set(values.filter((value) => value != null)).size < 2) return false;
  if (outcome === "0" || outcome === "1") {
    const right = (value) => value === Number(outcome);
    if (variant === "any" && !values.some(right)) return false;
    if (variant === "all" && !values.every(right)) return false;
    if (variant !== "any" && variant !== "all" && !(question.of[variant] && right(question.of[variant].m[metric]))) return false;
  }
  const words = get("search").value.toLowerCase().trim();
  if (!words) return true;
  return [question.id, question.q, question.a, question.page, ...given.map((one) => one.t)].join("\n").toLowerCase().includes(words);
}

function draw() {
  const found = data.questions.filter(matches);
  const metric = get("metric").value;
  const first = found.length > wanted ? `, of which the first ${wanted} are shown` : "";
  get("count").textContent = `${found.length} of ${data.questions.length} questions${first}`;
  get("cards").replaceChildren(...found.slice(0, wanted).map((question) => card(question, metric)));
  get("more").hidden = found.length <= wanted;
}

get("tools").addEventListener("input", () => { wanted = STEP; draw(); });
get("tools").addEventListener("submit", (event) => event.preventDefault());
get("more").addEventListener("click", () => { wanted += STEP; draw(); });
draw();
