// The moment: what shows it, what moves it, and the words that are said.

function plotPlace(t) {
  const [from, to] = at("curves").layout.xaxis.range;
  return LEFT + ((t - from) / (to - from)) * (at("curves-frame").clientWidth - LEFT - RIGHT);
}

function momentAt(place) {
  const [from, to] = at("curves").layout.xaxis.range;
  return from + ((place - LEFT) / (at("curves-frame").clientWidth - LEFT - RIGHT)) * (to - from);
}

function showFace(t) {
  const boxes = state.clip.boxes,
    face = at("face"),
    i = last(boxes, t + EPSILON, (row) => row[0]);
  face.hidden = i < 0 || boxes[i].length < 5 || !state.player || !video.videoWidth;
  if (face.hidden) return;
  const here = boxes[i],
    next = boxes[i + 1] && boxes[i + 1].length === 5 ? boxes[i + 1] : here;
  const share = next[0] > here[0] ? Math.min((t - here[0]) / (next[0] - here[0]), 1) : 0;
  const [left, top, right, bottom] = [1, 2, 3, 4].map((k) => here[k] + share * (next[k] - here[k]));
  const scale = Math.min(video.clientWidth / video.videoWidth, video.clientHeight / video.videoHeight);
  const aside = (video.clientWidth - scale * video.videoWidth) / 2,
    down = (video.clientHeight - scale * video.videoHeight) / 2;
  face.style.transform = `translate(${aside + scale * left}px, ${down + scale * top}px)`;
  face.style.width = scale * (right - left) + "px";
  face.style.height = scale * (bottom - top) + "px";
}

function showTrail(t) {
  const canvas = at("trail"),
    curves = state.clip.curves,
    ratio = window.devicePixelRatio || 1;
  if (!hasCircumplex(state.clip)) return;
  const width = canvas.clientWidth,
    height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio))
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const x = (v) => LEFT + ((v + 1.08) / 2.16) * (width - LEFT - RIGHT),
    y = (a) => RIGHT + ((1.08 - a) / 2.16) * (height - LEFT - RIGHT);
  const rows = [];
  for (let i = last(curves.time, t); i >= 0 && curves.time[i] > t - TRAIL; i--)
    rows.unshift([curves.time[i], curves.valence[i], curves.arousal[i]]);
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
  const truth = ["valence truth", "arousal truth"].map((name) => valueAt(curves, name, t)),
    [, v, a] = rows[rows.length - 1];
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
  const i = wordAt(state.clip.words, t),
    pane = at("words");
  if (i === state.word) return;
  const [before, now] = [pane.children[state.word], pane.children[i]];
  if (before) before.removeAttribute("aria-current");
  state.word = i;
  if (!now) return;
  now.setAttribute("aria-current", "true");
  rove(now);
  const top = now.offsetTop - pane.clientHeight / 2;
  if (now.offsetTop < pane.scrollTop || now.offsetTop + now.offsetHeight > pane.scrollTop + pane.clientHeight)
    pane.scrollTop = top;
}

function reading(t) {
  const { curves, gaps } = state.clip,
    told = [];
  for (const target of shownTargets(state.clip)) {
    if (curves[target]) told.push([target, signed(valueAt(curves, target, t))]);
    if (curves[target + " truth"]) told.push(["true " + target, signed(valueAt(curves, target + " truth", t))]);
  }
  const missing = lanesOf(state.clip).filter((lane) => inGap(gaps[lane], t));
  told.push(["missing", missing.join(", ") || "nothing"]);
  return told;
}

function showReadings(t) {
  const told = reading(t),
    list = at("readings");
  if (list.children.length !== told.length || list.dataset.of !== state.clip.id) {
    list.dataset.of = state.clip.id;
    list.replaceChildren(
      ...told.map(([name]) => {
        const pair = make("div");
        pair.append(make("dt", name), make("dd"));
        return pair;
      }),
    );
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
  at("notes").append(
    make(
      "li",
      `This browser cannot play ${facts.media[state.clip.id].name}, or it is gone. The rest goes without it.`,
    ),
  );
  seek(state.t);
}

function source(media) {
  if (media.link !== undefined) return media.link;
  const text = atob(at("media-" + media.embedded).textContent),
    bytes = new Uint8Array(text.length);
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
  pane.replaceChildren(
    ...clip.words.map(([, , word], i) => make("button", word, { type: "button", tabindex: i ? -1 : 0 })),
  );
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
  const pane = at("words"),
    i = indexOfWord(event.target);
  const to = {
    ArrowRight: i + 1,
    ArrowDown: i + 1,
    ArrowLeft: i - 1,
    ArrowUp: i - 1,
    Home: 0,
    End: pane.children.length - 1,
  }[event.key];
  if (i < 0 || to === undefined) return;
  event.preventDefault();
  const next = pane.children[Math.min(Math.max(to, 0), pane.children.length - 1)];
  rove(next);
  next.focus();
});
