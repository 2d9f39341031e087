"use strict";
// The page: one state (which video, which moment) and what shows it. A moment moves overlays only; plots stay as drawn.

const facts = JSON.parse(document.getElementById("facts").textContent);
const at = (id) => document.getElementById(id);
const [LEFT, RIGHT, TOP, BOTTOM] = [58, 14, 8, 42]; // margins of every plot, px
const TRAIL = 4; // seconds
const EPSILON = 0.001; // seconds; a player may stop that much before where it was sent
const [TARGET_HEIGHT, LANE_HEIGHT, SPACE] = [150, 20, 16]; // px
const MANY = 30; // videos; of more, coverage is drawn sorted
const RANKED = 10; // videos named at each end
const AGREES = "CCC is agreement with the truth in shape, level and spread: 1 is perfect, 0 is none.";
const POLES = { valence: ["unpleasant", "pleasant"], arousal: ["calm", "excited"] };
const LANES = ["face", "sound", "words"];

const state = { clip: null, t: 0, playing: false, since: 0, player: false, order: null, falling: false, word: -1 };
const video = at("video");
let blob = null; // the address of an embedded video
let tones = {}; // colours that overlays draw with

// ---- small things

function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** A text as plotly's labels take it, which know some tags. */
const literal = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const minus = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
/** With its sign, which what rounds to nothing has none of. */
function signed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const nothing = Number(value.toFixed(digits)) === 0;
  return nothing ? (0).toFixed(digits) : (value < 0 ? "" : "+") + minus(value, digits);
}
const tone = (name) =>
  getComputedStyle(document.documentElement)
    .getPropertyValue("--" + name)
    .trim();
const known = ["valence", "arousal"];
const toneOf = (target) => tone(known.includes(target) ? target : "other-" + (facts.targets.indexOf(target) % 2));

const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

function stamp(seconds) {
  const whole = Math.floor(seconds),
    two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600),
    rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return (hours ? hours + ":" : "") + rest + "." + Math.floor((seconds - whole) * 10);
}

/** Index of the last of rising numbers that is not above x; −1 where none is. */
function last(rising, x, key = (value) => value) {
  let low = 0,
    high = rising.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (key(rising[middle]) <= x) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** A curve's value at a moment, on the line between its rows; null where it has none. */
function valueAt(curves, name, t) {
  const time = curves.time,
    values = curves[name];
  if (!values || !time.length) return null;
  const i = Math.max(last(time, t), 0),
    j = Math.min(i + 1, time.length - 1);
  if (values[i] === null || values[j] === null || time[j] === time[i]) return values[i];
  const share = Math.min(Math.max((t - time[i]) / (time[j] - time[i]), 0), 1);
  return values[i] + share * (values[j] - values[i]);
}

function inGap(spans, t) {
  const i = last(spans, t, (span) => span[0]);
  return i >= 0 && t < spans[i][1];
}
