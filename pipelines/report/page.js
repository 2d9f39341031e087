"use strict";
// The page: one state (which video, which moment) and what shows it. A moment moves overlays only; plots stay as drawn.

const facts = JSON.parse(document.getElementById("facts").textContent);
const at = (id) => document.getElementById(id);
const LEFT = 58, RIGHT = 14, TOP = 8, BOTTOM = 42; // margins of every plot, px
const TRAIL = 4; // seconds
const EPSILON = 0.001; // seconds; a player may stop that much before where it was sent
const TARGET_HEIGHT = 150, LANE_HEIGHT = 20, SPACE = 16; // px
const MANY = 30; // videos; of more, coverage is drawn sorted
const RANKED = 10; // videos named at each end
const LANES = ["face", "sound", "words"];

const state = { clip: null, t: 0, playing: false, since: 0, player: false, order: null, falling: false, word: -1 };
const video = at("video");
let blob = null, tones = {};

// ---- small things

function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const literal = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // for plotly's labels
const minus = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
const signed = (value) => (value === null || value === undefined ? "–" : (value < 0 ? "" : "+") + minus(value));
const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const known = ["valence", "arousal"];
const toneOf = (target) => tone(known.includes(target) ? target : "other-" + (facts.targets.indexOf(target) % 2));

const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

function stamp(seconds) {
  const whole = Math.floor(seconds), two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600), rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return (hours ? hours + ":" : "") + rest + "." + Math.floor((seconds - whole) * 10);
}

/** Index of the last of rising numbers that is not above x; −1 where none is. */
function last(rising, x, key = (value) => value) {
  let low = 0, high = rising.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (key(rising[middle]) <= x) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** A curve's value at a moment, on the line between its rows; null where it has none. */
function valueAt(curves, name, t) {
  const time = curves.time, values = curves[name];
  if (!values || !time.length) return null;
  const i = Math.max(last(time, t), 0), j = Math.min(i + 1, time.length - 1);
  if (values[i] === null || values[j] === null || time[j] === time[i]) return values[i];
  const share = Math.min(Math.max((t - time[i]) / (time[j] - time[i]), 0), 1);
  return values[i] + share * (values[j] - values[i]);
}

function inGap(spans, t) {
  const i = last(spans, t, (span) => span[0]);
  return i >= 0 && t < spans[i][1];
}

// ---- plots

function look(extra) {
  const axis = { gridcolor: tone("line"), zerolinecolor: tone("line"), linecolor: tone("line"), automargin: false, fixedrange: true };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
    font: { family: "system-ui, sans-serif", size: 12, color: tone("ink") },
    hoverlabel: { bgcolor: tone("raised"), bordercolor: tone("line"), font: { color: tone("ink") } },
    margin: { l: LEFT, r: RIGHT, t: TOP, b: BOTTOM }, xaxis: {}, yaxis: {}, ...extra,
  };
  for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key)) layout[key] = { ...axis, ...layout[key] };
  return layout;
}

function draw(element, traces, layout) {
  return Plotly.react(element, traces, look(layout), { displayModeBar: false, responsive: true });
}

function curveTraces(clip, target, axis) {
  const { time } = clip.curves, of = (suffix) => clip.curves[target + suffix], colour = toneOf(target);
  const line = { x: time, yaxis: axis, mode: "lines", type: "scatter", connectgaps: false };
  const traces = [];
  if (of(" low")) {
    traces.push({ ...line, y: of(" low"), line: { width: 0 }, hoverinfo: "skip" });
    traces.push({ ...line, y: of(" high"), line: { width: 0 }, fill: "tonexty", fillcolor: colour + "33", hoverinfo: "skip" });
  }
  const told = (name) => ({ name, hovertemplate: `%{y:.2f} ${literal(name)}<extra></extra>` });
  if (of(" truth")) traces.push({ ...line, y: of(" truth"), line: { color: tone("truth"), width: 1.5, dash: "dot" }, ...told("true " + target) });
  if (of("")) traces.push({ ...line, y: of(""), line: { color: colour, width: 1.8 }, ...told(target) });
  return traces;
}

function laneTrace(clip, lane, row, axis) {
  const x = [], y = [], text = [];
  for (const [from, to] of clip.gaps[lane]) {
    x.push(from, to, null);
    y.push(row, row, null);
    text.push(...Array(3).fill(`no ${lane} from ${from.toFixed(2)} to ${to.toFixed(2)} s`));
  }
  return { x, y, text, yaxis: axis, mode: "lines", type: "scatter", line: { color: tone("missing"), width: 11, simplify: false }, name: "no " + lane,
    hovertemplate: "%{text}<extra></extra>" };
}

const shownTargets = (clip) => facts.targets.filter((target) => clip.curves[target] || clip.curves[target + " truth"]);
const lanesOf = (clip) => LANES.filter((lane) => lane in clip.gaps);

/** Every target in a row of its own and under them a lane for each of face, sound and words, on one axis of time. */
function drawCurves(clip) {
  const targets = shownTargets(clip), lanes = lanesOf(clip);
  const heights = [...targets.map(() => TARGET_HEIGHT), ...(lanes.length ? [lanes.length * LANE_HEIGHT] : [])];
  const inside = heights.reduce((sum, height) => sum + height + SPACE, -SPACE);
  const layout = { height: inside + TOP + BOTTOM, hovermode: "x", xaxis: { range: [0, clip.seconds || 1], title: { text: "seconds" }, zeroline: false } };
  const traces = [];
  let top = inside;
  heights.forEach((height, row) => {
    const axis = "y" + (row ? row + 1 : ""), name = "yaxis" + (row ? row + 1 : "");
    const domain = [Math.max(top - height, 0) / inside, top / inside];
    layout.xaxis.anchor = axis;
    top -= height + SPACE;
    if (row < targets.length) {
      layout[name] = { domain, range: [-1.05, 1.05], title: { text: literal(targets[row]), standoff: 6 }, tickvals: [-1, 0, 1] };
      traces.push(...curveTraces(clip, targets[row], axis));
    } else {
      layout[name] = { domain, range: [lanes.length - 0.5, -0.5], tickvals: lanes.map((_, i) => i), ticktext: lanes, zeroline: false, showgrid: false };
      lanes.forEach((lane, i) => traces.push(laneTrace(clip, lane, i, axis)));
    }
  });
  at("curves").setAttribute("aria-label", `${targets.join(" and ") || "Gaps"} over time. ${lanes.map((lane) => `${lane} missing ${count(clip.gaps[lane].length, "time")}`).join(", ")}.`);
  at("curves").style.height = layout.height + "px";
  draw("curves", traces, layout);
  const cursor = at("cursor");
  cursor.style.top = TOP + "px";
  cursor.style.height = inside + "px";
}

const hasCircumplex = (clip) => clip.curves.valence && clip.curves.arousal;

function drawCircumplex(clip) {
  at("circumplex-figure").hidden = !hasCircumplex(clip);
  at("circumplex-note").textContent = `The dot is what is predicted, with a trail of ${TRAIL} s` + (clip.curves["valence truth"] ? "; the ring is the truth." : ".");
  if (!hasCircumplex(clip)) return;
  const angle = Array.from({ length: 91 }, (_, i) => (i * Math.PI) / 45), round = { type: "scatter", mode: "lines", hoverinfo: "skip" };
  const scale = { range: [-1.08, 1.08], tickvals: [-1, -0.5, 0, 0.5, 1] };
  draw("circumplex", [
    { ...round, x: angle.map(Math.cos), y: angle.map(Math.sin), line: { color: tone("quiet"), width: 1 } },
    { type: "scatter", mode: "markers", x: clip.curves.valence, y: clip.curves.arousal, hoverinfo: "skip",
      marker: { size: 4, color: tone("quiet"), opacity: 0.28 } },
  ], { xaxis: { ...scale, title: { text: "valence", standoff: 4 } }, yaxis: { ...scale, title: { text: "arousal", standoff: 4 } },
    margin: { l: LEFT, r: RIGHT, t: RIGHT, b: LEFT } });
}

/** The child of this name in a place of several plots, made where it is not there: a plot is drawn anew, never removed. */
function slot(parent, name, label) {
  const there = [...parent.children].find((child) => child.dataset.name === name);
  const element = there || make("div", undefined, { role: "img" });
  element.dataset.name = name;
  element.setAttribute("aria-label", label);
  if (!there) parent.append(element);
  return element;
}

function squarePlot(parent, name, traces, layout, label) {
  const element = slot(parent, name, label);
  element.className = "square";
  draw(element, traces, { margin: { l: LEFT, r: RIGHT, t: 30, b: BOTTOM }, ...layout });
}

function widePlot(parent, name, traces, layout, label) {
  const element = slot(parent, name, label);
  element.style.height = (layout.height || 260) + "px";
  draw(element, traces, { height: 260, margin: { l: LEFT, r: RIGHT, t: 54, b: BOTTOM }, ...layout });
}

const above = { showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" } };
const titled = (text) => ({ title: { text: literal(text), font: { size: 13 }, x: 0, xref: "paper", y: 0.985, yanchor: "top" } });

// ---- the moment

function plotPlace(t) {
  const [from, to] = at("curves").layout.xaxis.range;
  return LEFT + ((t - from) / (to - from)) * (at("curves-frame").clientWidth - LEFT - RIGHT);
}

function momentAt(place) {
  const [from, to] = at("curves").layout.xaxis.range;
  return from + ((place - LEFT) / (at("curves-frame").clientWidth - LEFT - RIGHT)) * (to - from);
}

function showFace(t) {
  const boxes = state.clip.boxes, face = at("face"), i = last(boxes, t + EPSILON, (row) => row[0]);
  face.hidden = i < 0 || boxes[i].length < 5 || !state.player || !video.videoWidth;
  if (face.hidden) return;
  const here = boxes[i], next = boxes[i + 1] && boxes[i + 1].length === 5 ? boxes[i + 1] : here;
  const share = next[0] > here[0] ? Math.min((t - here[0]) / (next[0] - here[0]), 1) : 0;
  const [left, top, right, bottom] = [1, 2, 3, 4].map((k) => here[k] + share * (next[k] - here[k]));
  const scale = Math.min(video.clientWidth / video.videoWidth, video.clientHeight / video.videoHeight);
  const aside = (video.clientWidth - scale * video.videoWidth) / 2, down = (video.clientHeight - scale * video.videoHeight) / 2;
  face.style.transform = `translate(${aside + scale * left}px, ${down + scale * top}px)`;
  face.style.width = scale * (right - left) + "px";
  face.style.height = scale * (bottom - top) + "px";
}

function showTrail(t) {
  const canvas = at("trail"), curves = state.clip.curves, ratio = window.devicePixelRatio || 1;
  if (!hasCircumplex(state.clip)) return;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const x = (v) => LEFT + ((v + 1.08) / 2.16) * (width - LEFT - RIGHT), y = (a) => RIGHT + ((1.08 - a) / 2.16) * (height - LEFT - RIGHT);
  const rows = [];
  for (let i = last(curves.time, t); i >= 0 && curves.time[i] > t - TRAIL; i--) rows.unshift([curves.time[i], curves.valence[i], curves.arousal[i]]);
  rows.push([t, valueAt(curves, "valence", t), valueAt(curves, "arousal", t)]);
  pen.strokeStyle = pen.fillStyle = tones.cursor;
  pen.lineWidth = 2.5;
  pen.lineCap = "round";
  for (let i = 1; i < rows.length; i++) {
    pen.globalAlpha = Math.max(1 - (t - rows[i][0]) / TRAIL, 0.05);
    pen.beginPath();
    pen.moveTo(x(rows[i - 1][1]), y(rows[i - 1][2]));
    pen.lineTo(x(rows[i][1]), y(rows[i][2]));
    pen.stroke();
  }
  const truth = ["valence truth", "arousal truth"].map((name) => valueAt(curves, name, t)), [, v, a] = rows[rows.length - 1];
  pen.globalAlpha = 1;
  pen.beginPath();
  pen.arc(x(v), y(a), 6, 0, 7);
  pen.fill();
  if (truth.includes(null)) return;
  pen.strokeStyle = tones.ink;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(x(truth[0]), y(truth[1]), 6, 0, 7);
  pen.stroke();
}

/** Which word is spoken at a moment; of several, the one that starts last; −1 for none. */
function wordAt(words, t) {
  const i = last(words, t + EPSILON, (word) => word[0]);
  return i >= 0 && t < words[i][1] ? i : -1;
}

function showWord(t) {
  const i = wordAt(state.clip.words, t), pane = at("words");
  if (i === state.word) return;
  const [before, now] = [pane.children[state.word], pane.children[i]];
  if (before) before.removeAttribute("aria-current");
  state.word = i;
  if (!now) return;
  now.setAttribute("aria-current", "true");
  rove(now);
  const top = now.offsetTop - pane.clientHeight / 2;
  if (now.offsetTop < pane.scrollTop || now.offsetTop + now.offsetHeight > pane.scrollTop + pane.clientHeight) pane.scrollTop = top;
}

function reading(t) {
  const { curves, gaps } = state.clip, told = [];
  for (const target of shownTargets(state.clip)) {
    if (curves[target]) told.push([target, signed(valueAt(curves, target, t))]);
    if (curves[target + " truth"]) told.push(["true " + target, signed(valueAt(curves, target + " truth", t))]);
  }
  const missing = lanesOf(state.clip).filter((lane) => inGap(gaps[lane], t));
  told.push(["missing", missing.join(", ") || "nothing"]);
  return told;
}

function showReadings(t) {
  const told = reading(t), list = at("readings");
  if (list.children.length !== told.length || list.dataset.of !== state.clip.id) {
    list.dataset.of = state.clip.id;
    list.replaceChildren(...told.map(([name]) => {
      const pair = make("div");
      pair.append(make("dt", name), make("dd"));
      return pair;
    }));
  }
  told.forEach(([, value], i) => {
    const place = list.children[i].lastChild;
    if (place.textContent !== value) place.textContent = value;
  });
  const slider = at("slider");
  slider.value = t;
  slider.setAttribute("aria-valuetext", `${t.toFixed(1)} seconds: ${told.map((pair) => pair.join(" ")).join(", ")}`);
  at("moment").textContent = `${stamp(t)} / ${stamp(state.clip.seconds)}`;
}

function show() {
  const t = state.t;
  at("cursor").style.transform = `translateX(${plotPlace(t) - 1}px)`;
  showFace(t);
  showTrail(t);
  showWord(t);
  showReadings(t);
}

// ---- playing

function seek(t) {
  state.t = Math.min(Math.max(t, 0), state.clip.seconds);
  state.since = performance.now();
  if (state.player) video.currentTime = state.t;
  show();
}

function tick(now) {
  if (!state.playing) return;
  if (state.player) state.t = Math.min(video.currentTime, state.clip.seconds);
  else {
    state.t += (now - state.since) / 1000;
    state.since = now;
    if (state.t >= state.clip.seconds) play(false);
    state.t = Math.min(state.t, state.clip.seconds);
  }
  show();
  requestAnimationFrame(tick);
}

function play(on) {
  if (state.player) return void (on ? video.play().catch(() => going(false)) : video.pause());
  if (on && state.t >= state.clip.seconds) state.t = 0;
  going(on);
}

function going(on) {
  const before = state.playing;
  state.playing = on;
  state.since = performance.now();
  at("play").textContent = on ? "Pause" : "Play";
  if (on && !before) requestAnimationFrame(tick);
}

function noPlayer() {
  if (!state.player) return;
  state.player = false;
  going(false);
  at("stage").hidden = true;
  at("notes").append(make("li", `This browser cannot play ${facts.media[state.clip.id].name}, or it is not there any more. The rest goes without it.`));
  seek(state.t);
}

function source(media) {
  if (media.link !== undefined) return media.link;
  const text = atob(at("media-" + media.embedded).textContent), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return (blob = URL.createObjectURL(new Blob([bytes], { type: media.type })));
}

function loadPlayer(clip) {
  const media = facts.media[clip.id];
  if (blob) URL.revokeObjectURL(blob);
  blob = null;
  state.player = Boolean(media);
  at("stage").hidden = !media;
  if (media) video.src = source(media);
  else video.removeAttribute("src");
}

// ---- words

function rove(button) {
  const before = at("words").querySelector('[tabindex="0"]');
  if (before) before.tabIndex = -1;
  button.tabIndex = 0;
}

function showTranscript(clip) {
  const pane = at("words");
  state.word = -1;
  at("words-pane").hidden = !clip.words.length;
  pane.replaceChildren(...clip.words.map(([, , word], i) => make("button", word, { type: "button", tabindex: i ? -1 : 0 })));
  pane.scrollTop = 0;
}

function indexOfWord(button) {
  return Array.prototype.indexOf.call(at("words").children, button);
}

at("words").addEventListener("click", (event) => {
  const i = indexOfWord(event.target);
  if (i >= 0) seek(state.clip.words[i][0] + EPSILON);
});
at("words").addEventListener("keydown", (event) => {
  const pane = at("words"), i = indexOfWord(event.target);
  const to = { ArrowRight: i + 1, ArrowDown: i + 1, ArrowLeft: i - 1, ArrowUp: i - 1, Home: 0, End: pane.children.length - 1 }[event.key];
  if (i < 0 || to === undefined) return;
  event.preventDefault();
  const next = pane.children[Math.min(Math.max(to, 0), pane.children.length - 1)];
  rove(next);
  next.focus();
});

// ---- the table

const columns = ["video", ...new Set(facts.clips.flatMap((clip) => Object.keys(clip.summary)))];
const cell = (clip, column) => (column === "video" ? clip.id : clip.summary[column] ?? null);

function written(column, value) {
  if (value === null || value === undefined) return "–";
  if (column.endsWith(" seen")) return (100 * value).toFixed(0) + " %";
  if (column.endsWith(" mean")) return signed(value);
  if (column === "frames" || column === "words") return value.toLocaleString("en");
  return minus(value, column === "seconds" ? 1 : 2);
}

function sorted() {
  const { order, falling } = state, clips = [...facts.clips];
  if (order === null) return clips;
  return clips.sort((one, other) => {
    const [a, b] = [cell(one, order), cell(other, order)];
    if (a === null || b === null) return (a === null) - (b === null);
    const rising = order === "video" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
    return falling ? -rising : rising;
  });
}

function showTable() {
  at("table").tBodies[0].replaceChildren(...sorted().map((clip) => {
    const row = make("tr"), name = make("th", undefined, { scope: "row" }), button = make("button", clip.id, { type: "button" });
    if (clip === state.clip) row.setAttribute("aria-current", "true");
    button.addEventListener("click", () => open(clip));
    name.append(button);
    row.append(name, ...columns.slice(1).map((column) => make("td", written(column, cell(clip, column)))));
    return row;
  }));
  for (const head of at("table").tHead.rows[0].cells) {
    const mine = head.dataset.column === state.order;
    head.setAttribute("aria-sort", mine ? (state.falling ? "descending" : "ascending") : "none");
  }
}

function sortBy(column) {
  state.falling = state.order === column ? !state.falling : column !== "video";
  state.order = column;
  showTable();
}

function buildTable() {
  at("table").tHead.rows[0].replaceChildren(...columns.map((column) => {
    const head = make("th", undefined, { scope: "col" }), button = make("button", column, { type: "button" });
    head.dataset.column = column;
    button.addEventListener("click", () => sortBy(column));
    head.append(button);
    return head;
  }));
  const targets = facts.targets.length && facts.kind !== "store" ? "Mean and spread (standard deviation) of what is predicted; seen: " : "Seen: ";
  at("summary-note").textContent = targets + "the share of frames with it. A heading sorts, a name opens the video.";
}

// ---- scores, learning, coverage

function showScores() {
  const { scores } = facts, names = ["ccc", "pearson", "rmse"].filter((name) => scores[name]);
  if (!names.length) return;
  at("scores").hidden = false;
  const heads = { ccc: "CCC", pearson: "Pearson r", rmse: "RMSE" };
  at("scores-table").tHead.rows[0].replaceChildren(...["target", ...names.map((name) => heads[name])].map((text) => make("th", text, { scope: "col" })));
  at("scores-table").tBodies[0].replaceChildren(...Object.keys(scores.ccc).map((target) => {
    const row = make("tr");
    row.append(make("th", target, { scope: "row" }), ...names.map((name) => make("td", withInterval(name, target))));
    return row;
  }));
  at("scores-note").textContent = scores.interval_method
    ? `Over ${scores.frames.toLocaleString("en")} annotated rows of ${count(scores.videos, "video")}.` + (scores.interval.ccc ? ` In brackets: ${scores.interval_method}.` : "")
    : "The validation CCC of the epoch that was kept, which it chose. Give labels for intervals and truth.";
  showRanking();
}

function withInterval(name, target) {
  const { scores } = facts, span = scores.interval && scores.interval[name] && scores.interval[name][target];
  return minus(scores[name][target], 3) + (span ? ` [${span.map((end) => minus(end)).join(", ")}]` : "");
}

function showRanking() {
  const ranked = facts.clips.filter((clip) => "CCC" in clip.summary).sort((a, b) => b.summary.CCC - a.summary.CCC);
  const rows = ranked.map((clip, i) => [clip, i]).filter(([, i]) => i < RANKED || i >= ranked.length - RANKED);
  at("ranking").hidden = at("ranking-title").hidden = at("scatter-part").hidden = !ranked.length;
  at("ranking").replaceChildren(...rows.map(([clip, i]) => {
    const item = make("li", undefined, { value: i + 1 }), button = make("button", clip.id, { type: "button" });
    button.addEventListener("click", () => open(clip));
    item.append(button, ` CCC ${minus(clip.summary.CCC)}`);
    return item;
  }));
}

function drawScatter(clip) {
  const scale = { range: [-1.05, 1.05], tickvals: [-1, 0, 1] }, known = Object.keys(clip.pairs).length > 0;
  at("scatter-title").textContent = known ? `Truth and prediction of ${clip.id}` : `There is no truth of ${clip.id}`;
  at("scatter").hidden = !known;
  for (const [target, [truth, predicted]] of Object.entries(clip.pairs)) {
    squarePlot(at("scatter"), target, [
      { x: [-1, 1], y: [-1, 1], type: "scatter", mode: "lines", line: { color: tone("quiet"), width: 1, dash: "dash" }, hoverinfo: "skip" },
      { x: truth, y: predicted, type: "scatter", mode: "markers", marker: { color: toneOf(target), size: 5, opacity: 0.5 },
        hovertemplate: "true %{x:.2f}, predicted %{y:.2f}<extra></extra>" },
    ], { ...titled(`${target}, CCC ${minus(clip.summary[target + " CCC"])}`), xaxis: { ...scale, title: { text: "true", standoff: 4 } },
      yaxis: { ...scale, title: { text: "predicted", standoff: 4 } } },
    `Predicted ${target} against the true one`);
  }
}

const DASHES = ["solid", "dash", "dot", "dashdot"];

function historyTraces(column) {
  const seeds = Object.entries(facts.histories), traces = [];
  seeds.forEach(([seed, history], i) => {
    const names = Object.keys(history).filter((name) => (column === "loss" ? name === "loss" : /^ccc_/.test(name) && (seeds.length === 1 || name === "ccc_mean")));
    for (const name of names) {
      const target = name.replace("ccc_", ""), plain = seeds.length > 1 || target === "loss" || target === "mean";
      traces.push({ x: history.epoch || history[name].map((_, k) => k + 1), y: history[name], type: "scatter", mode: "lines",
        name: literal(seeds.length > 1 ? "seed " + seed : target), line: { color: plain ? tone("ink") : toneOf(target), width: 2, dash: DASHES[i % DASHES.length] },
        hovertemplate: "%{y:.3f}" });
    }
  });
  return traces;
}

/** The epoch that a run kept, of its one learning curve; null of several. */
function keptEpoch() {
  const [history, ...others] = Object.values(facts.histories);
  return others.length || !history?.best ? null : history.epoch[history.best.lastIndexOf(1)] ?? null;
}

function drawHistories() {
  const place = at("histories"), kept = keptEpoch();
  at("learning").hidden = !Object.keys(facts.histories).length;
  at("learning-note").textContent = kept === null ? "" : `The line stands at the epoch that was kept, ${kept}.`;
  const line = { type: "line", x0: kept, x1: kept, yref: "paper", y0: 0, y1: 1, line: { color: tone("quiet"), width: 1, dash: "dash" } };
  const shared = { hovermode: "x unified", xaxis: { title: { text: "epoch" }, zeroline: false }, shapes: kept === null ? [] : [line] };
  for (const [column, text] of [["loss", "training loss"], ["ccc", "validation CCC"]]) {
    const traces = historyTraces(column);
    if (traces.length) widePlot(place, column, traces, { ...titled(text), ...above, ...shared }, text + " by epoch");
  }
}

const seenOf = (clip, lane) => clip.summary[lane + " seen"] ?? 0;

function coverageTraces() {
  const clips = facts.clips, tones = [tone("valence"), tone("missing"), tone("other-1")];
  return LANES.map((lane, i) => {
    const shares = clips.map((clip) => 100 * seenOf(clip, lane)), mark = { name: lane, type: "bar", marker: { color: tones[i] } };
    if (clips.length <= MANY) return { ...mark, orientation: "h", x: shares, y: clips.map((_, k) => k), hovertemplate: "%{x:.0f} %" };
    return { ...mark, type: "scatter", mode: "lines", line: { color: tones[i] }, x: shares.map((_, k) => k + 1), y: shares.sort((a, b) => b - a), hovertemplate: "%{y:.0f} %" };
  });
}

function drawCoverage() {
  const place = at("coverage-plots"), clips = facts.clips, few = clips.length <= MANY;
  at("coverage").hidden = facts.kind !== "store" || !clips.length;
  if (at("coverage").hidden) return;
  const short = (id) => literal(id.length > 16 ? "…" + id.slice(-15) : id);
  const share = { range: [0, 102], title: { text: "% of frames" } };
  widePlot(place, "coverage", coverageTraces(), few
    ? { ...titled("share of frames with a face, sound, words"), ...above, height: 110 + 34 * clips.length, margin: { l: 120, r: RIGHT, t: 54, b: BOTTOM }, xaxis: share,
        yaxis: { tickvals: clips.map((_, k) => k), ticktext: clips.map((clip) => short(clip.id)), range: [clips.length - 0.5, -0.5] } }
    : { ...titled("share of frames, videos sorted by each"), ...above, height: 320, yaxis: share, xaxis: { title: { text: "videos" } } }, "Coverage by video");
  widePlot(place, "durations", [{ type: "histogram", x: clips.map((clip) => clip.seconds), marker: { color: tone("valence") }, hovertemplate: "%{x} s: %{y}<extra></extra>" }],
    { ...titled("durations"), xaxis: { title: { text: "seconds" } }, yaxis: { title: { text: "videos", standoff: 4 } }, bargap: 0.05, margin: { l: LEFT, r: RIGHT, t: 30, b: BOTTOM } }, "How many videos are how long");
}

// ---- the whole

function drawAll() {
  tones = { cursor: tone("cursor"), ink: tone("ink") };
  drawHistories();
  drawCoverage();
  if (state.clip) drawClip();
}

function drawClip() {
  drawCurves(state.clip);
  drawCircumplex(state.clip);
  drawScatter(state.clip);
  show();
}

function notesOf(clip) {
  const notes = Object.entries(clip.reasons).map(([name, why]) => `${name}: ${why}`);
  return facts.media[clip.id] ? notes : [...notes, "No video is shown with this page; the moment moves all the same."];
}

function open(clip) {
  choose(clip);
  drawClip();
  at("watch").focus();
}

function choose(clip) {
  play(false);
  going(false);
  Object.assign(state, { clip, t: 0 });
  at("choice").value = String(facts.clips.indexOf(clip));
  at("slider").max = clip.seconds;
  at("notes").replaceChildren(...notesOf(clip).map((text) => make("li", text)));
  at("curves-note").textContent = [
    shownTargets(clip).some((target) => clip.curves[target + " truth"]) ? "Dotted: the truth." : "",
    shownTargets(clip).some((target) => clip.curves[target + " low"]) ? "The band is to hold nine truths of ten." : "",
    lanesOf(clip).length ? "Bars stand where face, sound or words are missing." : "",
    clip.thinned ? `Drawn of ${clip.frames.toLocaleString("en")} frames: of every stretch the lowest and the highest values.` : "",
    "A click on the curves takes you to that moment.",
  ].filter(Boolean).join(" ");
  loadPlayer(clip);
  showTranscript(clip);
  showTable();
}

function listed(id, pairs) {
  at(id).hidden = !pairs.length;
  at(id + "-list").replaceChildren(...pairs.flatMap(([what, how]) => [make("dt", what), make("dd", how)]));
}

function start() {
  const kinds = { predictions: "Predictions", run: "A run and its predictions of validation videos", store: "A feature store" };
  at("name").textContent = facts.name;
  at("made").textContent = `${kinds[facts.kind]}: ${count(facts.clips.length, "video")}. ${facts.made}.`;
  listed("about", facts.about);
  listed("failures", Object.entries(facts.failed));
  buildTable();
  showScores();
  at("choice").replaceChildren(...facts.clips.map((clip, i) => make("option", clip.id, { value: i })));
  at("watch").hidden = at("summary").hidden = !facts.clips.length;
  if (facts.clips.length) choose(facts.clips[0]);
  drawAll();
}

at("choice").addEventListener("change", (event) => {
  choose(facts.clips[Number(event.target.value)]);
  drawClip();
});
at("play").addEventListener("click", () => play(!state.playing));
at("curves-frame").addEventListener("click", (event) => seek(momentAt(event.clientX - at("curves-frame").getBoundingClientRect().left)));
at("slider").addEventListener("input", (event) => seek(Number(event.target.value)));
at("slider").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
  if (!by) return;
  event.preventDefault();
  seek(state.t + (event.shiftKey ? 0.1 : 1) * by);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || !(event.target === document.body || event.target === at("watch"))) return;
  event.preventDefault();
  play(!state.playing);
});
video.addEventListener("play", () => going(true));
video.addEventListener("pause", () => going(false));
video.addEventListener("error", () => noPlayer());
for (const name of ["seeking", "seeked", "timeupdate", "loadedmetadata"]) {
  video.addEventListener(name, () => {
    if (!state.player) return;
    state.t = Math.min(video.currentTime, state.clip.seconds);
    show();
  });
}
new ResizeObserver(() => state.clip && show()).observe(at("watch"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
start();
