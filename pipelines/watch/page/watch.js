"use strict";
// What is happening now: events of the server drawn as they come, all of the last SPAN seconds and no more.

const at = (id) => document.getElementById(id);
const SPAN = 30; // seconds of the traces
const TRAIL = 4; // seconds of the circumplex
const GAP = 1; // seconds without a value after which a curve is not drawn on
const LEFT = 64; // px, of the traces
const LANE = 16; // px, the height of a bar for what is missing
const opened = Date.now() / 1000;
const state = { facts: null, values: [], words: [], delays: [], picture: null, box: null, paused: false, dirty: false };

const tone = (name) =>
  getComputedStyle(document.documentElement)
    .getPropertyValue("--" + name)
    .trim();
const known = ["valence", "arousal"];
const toneOf = (target) => tone(known.includes(target) ? target : "other-" + (state.facts.targets.indexOf(target) % 2));
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

/** A canvas's pen, as many pixels as are shown of it, in units of CSS; wiped. */
function pen(canvas) {
  const ratio = devicePixelRatio || 1,
    [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  return [context, width, height];
}

function drawPicture() {
  const { picture, box } = state,
    canvas = at("picture");
  if (!picture) return;
  canvas.style.aspectRatio = picture.naturalWidth + " / " + picture.naturalHeight;
  canvas.style.width = (24 * picture.naturalWidth) / picture.naturalHeight + "rem"; // 24 rem high, where there is room
  const [context, width, height] = pen(canvas);
  context.drawImage(picture, 0, 0, width, height);
  if (!box) return;
  const [left, top, right, bottom] = box;
  context.lineWidth = 2;
  context.strokeStyle = "#ffe28a";
  context.strokeRect(left * width, top * height, (right - left) * width, (bottom - top) * height);
}

function drawCircumplex() {
  const canvas = at("circumplex");
  canvas.hidden = !known.every((target) => state.facts.targets.includes(target));
  if (canvas.hidden) return;
  const [context, side] = pen(canvas),
    middle = side / 2,
    reach = middle - 10;
  context.strokeStyle = tone("line");
  context.fillStyle = tone("raised");
  context.beginPath();
  context.arc(middle, middle, reach, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
  context.beginPath();
  context.moveTo(middle - reach, middle);
  context.lineTo(middle + reach, middle);
  context.moveTo(middle, middle - reach);
  context.lineTo(middle, middle + reach);
  context.stroke();
  context.fillStyle = tone("valence");
  context.textAlign = "right";
  context.fillText("valence", middle + reach - 4, middle + 10);
  context.fillStyle = tone("arousal");
  context.textAlign = "left";
  context.fillText("arousal", middle + 6, middle - reach + 10);
  const now = state.values.at(-1);
  if (!now) return;
  const place = ({ values }) => [middle + reach * values.valence, middle - reach * values.arousal];
  const trail = state.values.filter((value) => value.time >= now.time - TRAIL);
  context.strokeStyle = tone("ink");
  context.lineWidth = 2;
  trail.slice(1).forEach((value, i) => {
    context.globalAlpha = 1 - (now.time - value.time) / TRAIL;
    context.beginPath();
    context.moveTo(...place(trail[i]));
    context.lineTo(...place(value));
    context.stroke();
  });
  context.globalAlpha = 1;
  context.fillStyle = now.valid ? tone("cursor") : tone("quiet");
  context.beginPath();
  context.arc(...place(now), 7, 0, 2 * Math.PI);
  context.fill();
}

function drawTraces() {
  const [context, width, height] = pen(at("traces")),
    { targets, lanes } = state.facts,
    end = state.values.at(-1)?.time ?? 0,
    room = (height - lanes.length * LANE - 22) / targets.length,
    x = (time) => LEFT + (1 + (time - end) / SPAN) * (width - LEFT - 8);
  context.textAlign = "right";
  targets.forEach((target, i) => {
    const middle = (i + 0.5) * room,
      reach = room / 2 - 8,
      y = (value) => middle - reach * value;
    context.strokeStyle = tone("line");
    context.lineWidth = 1;
    for (const value of [-1, 0, 1]) {
      context.beginPath();
      context.moveTo(LEFT, y(value));
      context.lineTo(width - 8, y(value));
      context.stroke();
    }
    context.fillStyle = tone("quiet");
    context.fillText("1", LEFT - 6, y(1));
    context.fillText("−1", LEFT - 6, y(-1));
    context.fillStyle = context.strokeStyle = toneOf(target);
    context.fillText(target, LEFT - 6, middle);
    context.lineWidth = 2;
    context.beginPath();
    state.values.forEach((value, k) => {
      const apart = k === 0 || value.time - state.values[k - 1].time > GAP;
      context[apart ? "moveTo" : "lineTo"](x(value.time), y(value.values[target]));
    });
    context.stroke();
  });
  lanes.forEach((lane, i) => {
    const top = targets.length * room + i * LANE;
    context.fillStyle = tone("quiet");
    context.fillText("no " + lane, LEFT - 6, top + LANE / 2);
    context.fillStyle = tone("missing");
    state.values.forEach((value, k) => {
      if (value.present[lane]) return;
      const next = state.values[k + 1]?.time ?? end;
      const until = next - value.time > GAP ? value.time : next;
      context.fillRect(x(value.time), top + 4, Math.max(1, x(until) - x(value.time)), LANE - 8);
    });
  });
  context.fillStyle = tone("quiet");
  context.textAlign = "center";
  for (let back = SPAN; back > 0; back -= 10) context.fillText("−" + back + " s", x(end - back) + 8, height - 8);
  context.textAlign = "right";
  context.fillText("now", width - 8, height - 8);
}

function pairs(id, rows) {
  at(id).replaceChildren(
    ...rows.map(([what, how]) => {
      const row = document.createElement("div");
      for (const [name, text] of [
        ["dt", what],
        ["dd", how],
      ]) {
        const part = document.createElement(name);
        part.textContent = text;
        row.append(part);
      }
      return row;
    }),
  );
}

function showReadings() {
  const now = state.values.at(-1);
  const missing = now ? state.facts.lanes.filter((lane) => !now.present[lane]) : [];
  pairs("readings", [
    ...state.facts.targets.map((target) => [target, now ? signed(now.values[target]) : "–"]),
    ...(missing.length ? [["missing", missing.join(", ")]] : []),
  ]);
  at("circumplex").setAttribute(
    "aria-label",
    "Valence to the right, arousal upwards" +
      (now ? ": " + state.facts.targets.map((target) => `${target} ${signed(now.values[target])}`).join(", ") : ""),
  );
}

function showCounts(counts) {
  const sorted = state.delays.map((delay) => delay[1]).sort((a, b) => a - b),
    quantile = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const delay = sorted.length ? `${quantile(0.5).toFixed(2)} s, of 95 % at most ${quantile(0.95).toFixed(2)} s` : "–";
  pairs("counts", [
    ["delay", delay],
    ["frames", counts.frames.toLocaleString("en")],
    ["dropped", counts.dropped.toLocaleString("en")],
    ["values", counts.shown.toLocaleString("en")],
  ]);
}

function draw() {
  if (state.dirty && state.facts && !state.paused) {
    state.dirty = false;
    drawPicture();
    drawCircumplex();
    drawTraces();
    showReadings();
    const line = state.words.map((word) => word[0]).join(" ");
    if (at("words").textContent !== line) at("words").textContent = line;
    // Delays are of values that came while the page was open, from their picture until it has drawn them.
    const drawn = Date.now() / 1000;
    for (const value of state.values) {
      if (value.taken >= opened && !value.drawn) state.delays.push([drawn, drawn - value.taken]);
      value.drawn = true;
    }
    while (state.delays.length && state.delays[0][0] < drawn - SPAN) state.delays.shift();
  }
  requestAnimationFrame(draw);
}

function keep(value) {
  state.values.push(value);
  while (state.values[0].time < value.time - SPAN) state.values.shift();
}

const hear = {
  facts(facts) {
    Object.assign(state, { facts, values: [], words: [], delays: [] });
    document.title = "affuse: " + facts.source;
    at("name").textContent = facts.source;
    at("untrained").hidden = !facts.untrained.length;
    at("untrained").textContent = "Untrained backbones: " + facts.untrained.join(", ") + ". The values mean nothing.";
  },
  value: keep,
  words(words) {
    state.words = words.slice(-24);
  },
  picture({ jpeg, box }) {
    const picture = new Image();
    picture.onload = () => Object.assign(state, { picture, box, dirty: true });
    picture.src = "data:image/jpeg;base64," + jpeg;
  },
  state: showCounts,
};

const events = new EventSource("events");
for (const [kind, listen] of Object.entries(hear)) {
  events.addEventListener(kind, (event) => {
    listen(JSON.parse(event.data));
    state.dirty = true;
  });
}
events.addEventListener("open", () => (at("status").textContent = "live"));
events.addEventListener("error", () => (at("status").textContent = "The watch cannot be reached. Has it ended?"));
events.addEventListener("end", () => {
  events.close();
  at("status").textContent = "ended";
});
at("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  state.dirty = true;
  at("pause").textContent = state.paused ? "Go on" : "Pause";
  at("pause").setAttribute("aria-pressed", String(state.paused));
});
addEventListener("resize", () => (state.dirty = true));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (state.dirty = true));
requestAnimationFrame(draw);
