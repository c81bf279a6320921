"use strict";
// Draws the answers of the page. All text of models becomes text nodes, never HTML.
// A unit is what has a colour: a token, or a step where the norms of tokens are not known.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SHADES = 10;
const byId = (id) => document.getElementById(id);
const shown = { layer: "all", measure: "usual", paint: "token" };
const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const percent = (share) => `${Math.round(share * 100)} %`;

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// --- How much: 0 to 1 for each unit, or null -------------------------------------------------------------------------

const sorted = new Map();

/** The norms of all answers in a layer, ascending, without attention sinks: what there is to compare with. */
function normsOf(layer) {
  if (!sorted.has(layer)) {
    const norms = DATA.answers.flatMap((answer) => {
      const column = answer.norms[answer.layers.indexOf(layer)] ?? [];
      return column.filter((norm, unit) => norm !== null && !answer.sinks.includes(unit));
    });
    sorted.set(layer, Float64Array.from(norms).sort());
  }
  return sorted.get(layer);
}

/** Number of values below `value` in an ascending list; with `orEqual`, also of those equal to it. */
function numBelow(values, value, orEqual) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value || (orEqual && values[middle] === value)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The share of a normal distribution below z (Abramowitz and Stegun 26.2.17). */
function normalShare(z) {
  const t = 1 / (1 + 0.2316419 * Math.abs(z));
  const tail = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  const above = (tail * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI);
  return z > 0 ? 1 - above : above;
}

/** Whether it is known of all answers what is usual in what is shown: of steps, only of all layers together. */
const knowsUsual = () => DATA.answers.every((answer) =>
  answer.percentiles || (shown.layer === "all" && answer.intensities?.some((v) => v !== null)));
let isUsual = knowsUsual();

const MEASURES = {
  usual: {
    get label() { return isUsual ? "percentile of the norm" : "rank of the norm on this page"; },
    get numbers() { return isUsual ? "percentiles, 0 to 100" : "ranks on this page, 0 to 100"; },
    get help() {
      return isUsual
        ? "Percentile: the share of all norms that this model usually has in the layer that are smaller."
        : "Of what is shown it is not known what is usual for this model, so norms are compared with the others on this page.";
    },
    low: "small norms", high: "large norms",
    says: (share) => `larger than ${share} of ${isUsual ? "those that this model usually has" : "the others on this page"}`,
    of(answer, i, unit) {
      if (isUsual && answer.percentiles) return answer.percentiles[i][unit] / 1000;
      const [norms, norm] = [normsOf(answer.layers[i]), answer.norms[i][unit]];
      return (numBelow(norms, norm, false) + numBelow(norms, norm, true)) / 2 / norms.length;
    },
  },
  token: {
    label: "relative to the same token",
    low: "smaller than usual", high: "larger than usual", numbers: "percentiles among norms of the same tokens, 0 to 100",
    help: "Relative to the same token: some tokens have large norms wherever they stand. Here each is compared only with itself elsewhere.",
    says: (share) => `larger than ${share} of those that the same tokens usually have`,
    of: (answer, i, unit) => normalShare(answer.distances[i][unit] / 100),
  },
  norm: {
    label: "the norm itself",
    low: "least norm", high: "greatest norm", numbers: "0 for the least norm and 100 for the greatest",
    help: "The norm itself, from the least to the greatest of each layer on this page.",
    says: (share) => `${share} of the way from the least to the greatest`,
    of(answer, i, unit) {
      const norms = normsOf(answer.layers[i]);
      const [least, greatest] = [norms[0], norms[norms.length - 1]];
      return greatest > least ? (answer.norms[i][unit] - least) / (greatest - least) : 0.5;
    },
  },
};

/** Indices of the layers of an answer that are shown. */
const shownLayers = (answer) =>
  [...answer.layers.keys()].filter((i) => shown.layer === "all" || answer.layers[i] === +shown.layer);

function heatOf(answer, unit, layers = shownLayers(answer)) {
  if (!layers.length || answer.sinks.includes(unit) || !(answer.norms[0][unit] > 0)) return null;
  const given = shown.layer === "all" && shown.measure === "usual" && isUsual ? answer.intensities?.[unit] : null;
  if (typeof given === "number") return given;
  const measure = MEASURES[shown.measure];
  let sum = 0;
  for (const i of layers) sum += measure.of(answer, i, unit);
  return sum / layers.length;
}

const shadeOf = (heat) => `h${Math.min(SHADES - 1, Math.floor(heat * SHADES))}`;

// --- Building ---------------------------------------------------------------------------------------------------------

/** Text as it can be seen: line breaks have a mark, control characters a picture, nothing at all a dot. */
function visible(text, isLast) {
  if (text === "") return "\u00b7";
  const marked = text.replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
  const end = isLast ? marked.search(/\n*$/) : marked.length;
  return marked.slice(0, end).replace(/\n/g, "\u21b5\n") + "\u21b5".repeat(marked.length - end);
}

function addToken(parent, answer, unit, isLast) {
  const token = make("span", "token", visible(answer.texts[unit], isLast));
  token.setAttribute("role", "option");
  token.setAttribute("aria-selected", "false");
  token.tabIndex = -1;
  token.dataset.unit = unit;
  answer.nodes[unit] = token;
  parent.append(token);
}

/** Steps with the units between them, in order: `number` is null for units that belong to no step. */
function spansOf(answer) {
  const spans = [];
  let next = 0;
  answer.steps.map((step, i) => ({ ...step, number: i + 1 })).sort((a, b) => a.start - b.start).forEach((step) => {
    if (step.start > next) spans.push({ start: next, end: step.start, kind: "outside of steps", number: null });
    spans.push(step);
    next = Math.max(next, step.end);
  });
  if (answer.texts.length > next) spans.push({ start: next, end: answer.texts.length, kind: "outside of steps", number: null });
  return spans;
}

function buildStep(answer, span) {
  const section = make("div", "step");
  section.setAttribute("role", "group");
  const gutter = make("div", "gutter");
  gutter.setAttribute("aria-hidden", "true");
  span.bar = make("i");
  span.value = make("span");
  if (span.number) {
    const bar = make("span", "bar");
    bar.append(span.bar);
    gutter.append(make("span", "", span.number), bar, span.value);
  }
  const text = make("div", "text");
  text.dir = "auto";
  let end = span.end; // of what is not white space: the line breaks after it need no lines
  while (end > span.start && !answer.texts[end - 1].trim()) end--;
  for (let unit = span.start; unit < span.end; unit++) addToken(text, answer, unit, unit >= end - 1);
  section.append(gutter, text);
  span.node = section;
  return section;
}

function buildAnswer(answer, index) {
  const section = make("section", answer.is_chosen ? "answer chosen" : "answer");
  if (answer.name) section.append(make("h2", "", answer.name));
  section.append(make("p", "facts", answer.facts.join(" · ")));
  answer.reports.forEach((line) => section.append(make("p", "reports", line)));
  answer.verdict = make("div", "verdict");
  answer.strip = make("div", "strip");
  answer.strip.setAttribute("aria-hidden", "true");
  answer.list = make("div", "list");
  answer.list.setAttribute("role", "listbox");
  answer.list.setAttribute("aria-label", `${answer.name || "Answer"}: its ${answer.unit}s`);
  answer.nodes = [];
  answer.spans = spansOf(answer);
  let kind = null;
  for (const span of answer.spans) {
    if (span.kind !== kind && span.number) {
      kind = span.kind;
      const label = make("div", "kind", kind.replace("_", " "));
      label.setAttribute("role", "presentation");
      answer.list.append(label);
    }
    if (span.number) {
      const bar = make("i");
      bar.dataset.unit = span.start;
      answer.strip.append(bar);
      span.stripBar = bar;
    }
    answer.list.append(buildStep(answer, span));
  }
  if (answer.nodes.length) answer.nodes[0].tabIndex = 0;
  answer.caption = make("p", "caption");
  section.append(answer.verdict, answer.strip, answer.caption, answer.list);
  section.dataset.answer = index;
  return section;
}

// --- Colours ----------------------------------------------------------------------------------------------------------

function paint() {
  isUsual = knowsUsual();
  byId("measure").options[0].textContent = MEASURES.usual.label;
  for (const answer of DATA.answers) {
    const layers = shownLayers(answer);
    const heats = answer.nodes.map((_, unit) => heatOf(answer, unit, layers));
    for (const span of answer.spans) {
      const known = heats.slice(span.start, span.end).filter((heat) => heat !== null);
      span.heat = span.number ? mean(known) : null;
    }
    const ranked = answer.spans.filter((span) => span.heat !== null).sort((a, b) => b.heat - a.heat);
    for (const span of answer.spans) {
      const isHardest = ranked.length > 1 && span === ranked[0];
      span.node.classList.toggle("hardest", isHardest);
      for (let unit = span.start; unit < span.end; unit++) {
        const heat = shown.paint === "step" ? span.heat : heats[unit];
        const acted = answer.acts[unit] ? " acted" : "";
        answer.nodes[unit].className = `token ${heat === null ? "unread" : shadeOf(heat)}${acted}`;
      }
      if (!span.number) continue;
      const says = span.heat === null ? "no norms" : percent(span.heat);
      span.value.textContent = span.heat === null ? "–" : Math.round(span.heat * 100);
      span.node.setAttribute("aria-label", `Step ${span.number}, ${span.kind.replace("_", " ")}, ${says}${isHardest ? ", the hardest" : ""}`);
      for (const [bar, side] of [[span.bar, "width"], [span.stripBar, "height"]]) {
        bar.className = span.heat === null ? "" : shadeOf(span.heat);
        bar.style[side] = span.heat === null ? "0" : `${Math.max(4, span.heat * 100)}%`;
      }
    }
    answer.hardest = ranked.length ? ranked[0].start : 0;
    answer.caption.textContent = `Each bar is a step; the higher, the larger its norms. Numbers are ${MEASURES[shown.measure].numbers}.`;
    sayVerdict(answer, ranked);
  }
  const measure = MEASURES[shown.measure];
  byId("legend-low").textContent = measure.low;
  byId("legend-high").textContent = measure.high;
  byId("measure-help").textContent = measure.help;
  byId("answers").classList.toggle("plain", !byId("steps").checked);
}

function sayVerdict(answer, ranked) {
  answer.verdict.replaceChildren();
  answer.verdict.hidden = ranked.length < 2; // of one step, there is nothing to say
  if (answer.verdict.hidden) return;
  const count = Math.min(3, ranked.length - 1);
  answer.verdict.append(make("p", "", count > 1 ? "The model worked hardest in these steps:" : "The model worked hardest here:"));
  const list = make("ol");
  for (const span of ranked.slice(0, count)) {
    const button = make("button");
    button.type = "button";
    button.dataset.unit = span.start;
    const text = answer.texts.slice(span.start, span.end).join("").replace(/\s+/g, " ").trim();
    button.append(make("b", "", `Step ${span.number}`), make("span", "", Math.round(span.heat * 100)), make("q", "", text.slice(0, 200)));
    button.title = `Its norms are ${MEASURES[shown.measure].says(percent(span.heat))}`;
    const item = make("li");
    item.append(button);
    list.append(item);
  }
  answer.verdict.append(list);
}

// --- The numbers of one unit -------------------------------------------------------------------------------------------

let selected = null;

function showDetail(answer, unit) {
  selected?.setAttribute("aria-selected", "false");
  selected = answer.nodes[unit];
  selected.setAttribute("aria-selected", "true");
  const panel = byId("detail");
  const span = answer.spans.find((each) => each.start <= unit && unit < each.end);
  const isToken = answer.unit === "token";
  const close = make("button", "", "\u00d7");
  close.type = "button";
  close.id = "close";
  close.setAttribute("aria-label", "Close");
  panel.replaceChildren(close, make("h2", "", isToken ? `\u201c${visible(answer.texts[unit], true)}\u201d` : `Step ${unit + 1}`));
  const where = isToken ? [`Token ${unit + 1} of ${answer.tokens}`] : [`Tokens ${span.tokens[0] + 1} to ${span.tokens[1]}`];
  if (span.number && isToken) where.push(`step ${span.number}`);
  where.push(span.kind.replace("_", " "));
  panel.append(make("p", "", where.join(", ")));
  const heat = heatOf(answer, unit);
  const says = (share) => MEASURES[shown.measure].says(percent(share));
  if (heat !== null) panel.append(make("p", "", `Its norms are ${says(heat)}.`));
  if (isToken && span.heat !== null) panel.append(make("p", "", `Those of its step: ${percent(span.heat)}${span.low ? ", low" : ""}.`));
  const logprob = answer.logprobs?.[unit];
  if (logprob !== undefined) {
    panel.append(make("p", "", `Log-probability ${logprob.toFixed(2)}: the model gave it ${percent(Math.exp(logprob))}`));
  }
  if (answer.acts[unit]) {
    const list = make("ul");
    answer.acts[unit].forEach((line) => list.append(make("li", "", line)));
    panel.append(list);
  }
  const hasNorms = answer.layers.length && answer.norms[0][unit] !== undefined && answer.norms[0][unit] !== null;
  if (answer.sinks.includes(unit)) panel.append(make("p", "", "An attention sink: its norms are far above all others and count nowhere."));
  panel.append(hasNorms ? normTable(answer, unit) : make("p", "", "It was not run through the model, so it has no norms."));
  panel.hidden = false;
}

function normTable(answer, unit) {
  const table = make("table");
  const columns = [["layer", (i) => answer.layers[i]], ["norm", (i) => answer.norms[i][unit]]];
  if (!answer.sinks.includes(unit) && (answer.percentiles || answer.unit === "token" || !isUsual)) {
    columns.push([isUsual ? "percentile" : "rank", (i) => percent(MEASURES.usual.of(answer, i, unit))]);
  }
  if (answer.distances) columns.push(["z of token", (i) => (answer.distances[i][unit] / 100).toFixed(2)]);
  const head = table.createTHead().insertRow();
  columns.forEach(([name]) => {
    const cell = make("th", "", name);
    cell.scope = "col";
    head.append(cell);
  });
  const body = table.createTBody();
  answer.layers.forEach((_, i) => {
    const row = body.insertRow();
    columns.forEach(([, valueOf]) => (row.insertCell().textContent = valueOf(i)));
  });
  return table;
}

// --- Controls ----------------------------------------------------------------------------------------------------------

const unitOf = (target) => {
  const node = target.closest("[data-unit]");
  return node && [DATA.answers[+node.closest("[data-answer]").dataset.answer], +node.dataset.unit];
};

function go(answer, unit) {
  const bounded = Math.max(0, Math.min(answer.nodes.length - 1, unit));
  answer.list.querySelector('[tabindex="0"]').tabIndex = -1;
  answer.nodes[bounded].tabIndex = 0;
  answer.nodes[bounded].focus();
}

function onKey(event) {
  if (event.key === "Escape") byId("detail").hidden = true;
  if (!event.target.classList.contains("token") || event.ctrlKey || event.altKey || event.metaKey) return;
  const [answer, unit] = unitOf(event.target);
  const place = answer.spans.findIndex((span) => span.start <= unit && unit < span.end);
  const moves = {
    ArrowRight: () => unit + 1,
    ArrowLeft: () => unit - 1,
    ArrowDown: () => answer.spans[place + 1]?.start ?? answer.nodes.length - 1,
    ArrowUp: () => (unit > answer.spans[place].start ? answer.spans[place].start : answer.spans[place - 1]?.start ?? 0),
    Home: () => 0,
    End: () => answer.nodes.length - 1,
  };
  if (!(event.key in moves)) return;
  event.preventDefault();
  go(answer, moves[event.key]());
}

function addOptions(select, options) {
  for (const [value, label] of options) select.append(new Option(label, value));
}

function start() {
  byId("title").textContent = DATA.title;
  byId("note").textContent = DATA.note;
  byId("note").hidden = !DATA.note;
  for (let i = 0; i < SHADES; i++) byId("scale").append(make("i", `h${i}`));
  const layers = [...new Set(DATA.answers.flatMap((answer) => answer.layers))].sort((a, b) => a - b);
  addOptions(byId("layer"), [["all", `mean of ${layers.length} layers`], ...layers.map((layer) => [layer, `layer ${layer}`])]);
  const names = ["usual", ...(DATA.answers.every((answer) => answer.distances) ? ["token"] : []), "norm"];
  addOptions(byId("measure"), names.map((name) => [name, MEASURES[name].label]));
  const main = byId("answers");
  main.classList.toggle("beside", DATA.answers.length > 1);
  DATA.answers.forEach((answer, index) => main.append(buildAnswer(answer, index)));
  for (const name of ["layer", "measure", "paint"]) {
    byId(name).addEventListener("change", (event) => {
      shown[name] = event.target.value;
      paint();
    });
  }
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("steps").addEventListener("change", paint);
  main.addEventListener("pointerover", (event) => event.target.classList.contains("token") && showDetail(...unitOf(event.target)));
  main.addEventListener("focusin", (event) => event.target.classList.contains("token") && showDetail(...unitOf(event.target)));
  main.addEventListener("click", (event) => unitOf(event.target) && go(...unitOf(event.target)));
  byId("detail").addEventListener("click", (event) => event.target.id === "close" && (byId("detail").hidden = true));
  document.addEventListener("keydown", onKey);
  paint();
  const first = DATA.answers[0];
  if (first.nodes.length && window.matchMedia("(min-width: 70rem)").matches) showDetail(first, first.hardest);
}

start();
