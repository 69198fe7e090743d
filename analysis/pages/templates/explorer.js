// Contexts and trials: chosen by the reader, filled in from what `analysis.pages.explorer` packed.
"use strict";
const at = (id) => document.getElementById(id);
const dash = "–";
let data, context = 0, file = null, trial = 0;

// An element with its class, text and children.
function make(tag, kind = "", text = "", children = []) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.textContent = text;
  made.append(...children);
  return made;
}

const written = (value, digits = 0) => (value === null || value === undefined ? dash : value.toFixed(digits).replace("-", "−"));
const plain = (name) => name.replaceAll("_", " ");

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function fill(select, options) {
  select.replaceChildren(...options);
}

function option(value, text) {
  const made = make("option", "", text);
  made.value = value;
  return made;
}

function bar(kind, value) {
  if (value === null || value === undefined) return [];
  const made = make("span", kind), end = Math.max(-100, Math.min(100, value)) / 2;
  made.style.left = `${50 + Math.min(0, end)}%`;
  made.style.width = `max(1px, ${Math.abs(end)}%)`;
  return [made];
}

function single(value) {
  const made = make("span", "single");
  made.style.left = `${50 + Math.max(-100, Math.min(100, value)) / 2}%`;
  return made;
}

// The weights of one arm: a row an attribute, with bars and numbers.
function weightsOf(arm, about) {
  const reports = arm.reports || [];
  const head = ["attribute", "", "target", "learned", "reported"].map((name, i) => make("th", i > 1 ? "figure" : "", name));
  const rows = about.attributes.map((attribute, i) => {
    const [target, learned, reported] = [about.target, arm.learned, arm.reported].map((of) => (of ? of[i] : null));
    const bars = make("div", "bars", "", [
      ...bar("target", target), ...bar("learned", learned), ...bar("reported", reported), ...reports.map((report) => single(report[i])),
    ]);
    const cells = [target, learned, reported].map((value) => make("td", "figure", written(value)));
    return make("tr", "", "", [make("th", "", attribute.name), make("td", "", "", [bars]), ...cells]);
  });
  const told = [];
  if (arm.whose && arm.whose !== arm.arm) told.push(`learned: ${plain(arm.whose)}`);
  if (arm.whose && arm.learned.every((value) => value === null)) told.push("its decisions determine no weights");
  if (arm.asked) told.push(`${reports.length} of ${arm.asked} reports readable`);
  const caption = make("caption", "", plain(arm.arm) + " ", [make("span", "", told.join("; "))]);
  return make("table", "", "", [caption, make("thead", "", "", [make("tr", "", "", head)]), make("tbody", "", "", rows)]);
}

function showContext() {
  const about = data.contexts[context], files = Object.keys(about.trials);
  at("context").value = context;
  at("scene").textContent = about.scene;
  at("weights").replaceChildren(...about.arms.map((arm) => weightsOf(arm, about)));
  fill(at("file"), files.map((number) => option(number, `${data.files[number].measure} of ${plain(data.files[number].asked)}`)));
  if (!files.includes(file)) [file, trial] = [files[0] ?? null, 0];
  at("file").value = file;
  document.dispatchEvent(new CustomEvent("context-chosen", { detail: context }));
  showFile();
}

function showFile() {
  const shown = data.contexts[context].trials[file];
  if (!shown) return at("orders").replaceChildren(make("p", "soft", "No trials of this context."));
  trial = Math.min(trial, shown.index.length - 1);
  fill(at("trial"), shown.index.map((index, row) => option(row, `${index}: ${inShort(shown, row)}`)));
  showTrial();
}

// The choice of an order in words, or why there is none.
function choice(shown, row) {
  const said = shown.said[row];
  if (said !== "A" && said !== "B") return plain(said);
  return `${said}, the ${(said === "A") === shown.firstAsA[row] ? "first" : "second"} option`;
}

function inShort(shown, row) {
  if (shown.reply) return shown.reason[row] === null ? "read" : plain(shown.reason[row]);
  const [one, other] = [2 * row, 2 * row + 1].map((place) => choice(shown, place).replace(/^[AB], the /, ""));
  return one === other ? `${one} in both orders` : `${one}, then ${other}`;
}

// Which option some weights prefer, from the numbers as they are written.
function favoured(weights, values, attributes) {
  if (!weights || weights.some((weight) => weight === null)) return null;
  const width = attributes.length;
  const gain = attributes.reduce((sum, a, i) => sum + (weights[i] * (values[i] - values[i + width])) / a.span, 0);
  return Math.abs(gain) < 1e-9 ? "neither" : gain > 0 ? "the first option" : "the second option";
}

// A prompt as messages, with the values of both options in their places.
function messages(cut, values, firstAsA, said) {
  const half = values.length / 2, shown = firstAsA ? values : [...values.slice(half), ...values.slice(0, half)];
  return cut.map(([role, parts]) => [role, role === "assistant" ? said : parts.map((part) => (typeof part === "number" ? shown[part] : part)).join("")]);
}

function entry(term, ...told) {
  return [make("dt", "", term), ...told.map((what) => make("dd", "", "", [what]))];
}

const likelihood = (logp) => (logp === null ? "not finite" : `${written(logp, 4)} (${(100 * Math.exp(logp)).toFixed(1)}%)`);

function decided(shown, row) {
  const [a, b] = shown.logps[row], said = shown.said[row], why = data.words[said];
  const read = why ? `no decision: ${plain(said)}. ${why}` : choice(shown, row);
  return [...entry("log P(A)", likelihood(a)), ...entry("log P(B)", likelihood(b)), ...entry("read as", read)];
}

function reported(shown, row, attributes) {
  const raw = (text) => make("pre", "reply", text === null ? "no reply" : text);
  const why = shown.reason[row];
  const read = why ? `missing: ${plain(why)}. ${data.words[why]}` : attributes.map((a, i) => `${a.name} ${written(shown.read[row][i], Number.isInteger(shown.read[row][i]) ? 0 : 2)}`).join(", ");
  const found = [...entry("raw reply", raw(shown.reply[row])), ...entry("read as", read)];
  if (!shown.opening) return found;
  found.push(...entry("opens its reply so by itself, probability", written(shown.opening[row], 4)));
  if (!shown.freeSampled[row]) return found;
  const free = shown.freeReason[row];
  return [...found, ...entry("free reply", raw(shown.freeReply[row])), ...entry("free reply read", free ? `missing: ${plain(free)}. ${data.words[free]}` : "yes")];
}

function article(about, shown, place) {
  const isReport = Boolean(shown.reply), pair = isReport ? place : place >> 1, firstAsA = shown.firstAsA[place];
  const said = shown.said ? shown.said[place] : null;
  const prompt = messages(about.prompts[file], shown.values[pair], firstAsA, said);
  const shownAs = make("h3", "", `The pair's first option as ${firstAsA ? "A" : "B"}`);
  const words = prompt.flatMap(([role, content]) => [make("div", "role", role), make("pre", "message", content)]);
  const answer = [...(shown.logps ? decided(shown, place) : []), ...(isReport ? reported(shown, place, about.attributes) : [])];
  return make("article", "", "", [shownAs, ...words, make("dl", "", "", answer)]);
}

function showTrial() {
  const about = data.contexts[context], shown = about.trials[file];
  at("trial").value = trial;
  const places = shown.reply ? [trial] : [2 * trial, 2 * trial + 1];
  at("orders").replaceChildren(...places.map((place) => article(about, shown, place)));
  const arm = about.arms.find((found) => found.arm === data.files[file].asked);
  const told = [["target", about.target], ["learned", arm && arm.learned], ["reported", arm && arm.reported]]
    .map(([name, weights]) => [name, favoured(weights, shown.values[trial], about.attributes)])
    .filter(([, which]) => which);
  at("favoured").textContent = told.length ? `Preferred here, by weights: ${told.map(([name, which]) => `${name} ${which}`).join(", ")}.` : "";
}

function chooseContext(place) {
  context = (place + data.contexts.length) % data.contexts.length;
  showContext();
}

function chooseTrial(place) {
  const count = at("trial").options.length;
  if (!count) return;
  trial = (place + count) % count;
  showTrial();
}

function listen() {
  const steps = { "[": () => chooseContext(context - 1), "]": () => chooseContext(context + 1), ",": () => chooseTrial(trial - 1), ".": () => chooseTrial(trial + 1) };
  at("context").addEventListener("change", (event) => chooseContext(Number(event.target.value)));
  at("file").addEventListener("change", (event) => { file = event.target.value; trial = 0; showFile(); });
  at("trial").addEventListener("change", (event) => chooseTrial(Number(event.target.value)));
  at("context-before").addEventListener("click", steps["["]);
  at("context-after").addEventListener("click", steps["]"]);
  at("trial-before").addEventListener("click", steps[","]);
  at("trial-after").addEventListener("click", steps["."]);
  at("explorer").addEventListener("keydown", (event) => {
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    steps[event.key]();
  });
}

function chooseFrom(contexts) {
  const groups = new Map();
  contexts.forEach((about, place) => {
    if (!groups.has(about.group)) {
      const group = make("optgroup");
      group.label = `${plain(about.group)} contexts`;
      groups.set(about.group, group);
    }
    groups.get(about.group).append(option(place, plain(about.name)));
  });
  fill(at("context"), [...groups.values()]);
}

async function start() {
  const packed = at("packed") ? at("packed").textContent : window.packedTrials;
  const told = at("unpacking");
  if (!packed) return (told.textContent = "The trials of this run are in trials.js, which does not lie beside this page. Put it there and load the page again.");
  if (!window.DecompressionStream) return (told.textContent = "This browser cannot unpack the trials; one of 2023 or later can.");
  told.textContent = "Unpacking the trials …";
  data = await unpack(packed);
  told.textContent = "";
  chooseFrom(data.contexts);
  listen();
  at("explore").hidden = false;
  showContext();
  document.dispatchEvent(new CustomEvent("trials-open", { detail: data }));
}
start();
