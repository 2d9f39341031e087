// The whole page: which video is looked at, and what happens at the first moment.

function drawAll() {
  tones = { cursor: tone("cursor"), ink: tone("ink") };
  drawForest();
  drawHistories();
  drawCoverage();
  for (const place of [at("histories"), at("coverage-plots")]) fit(place);
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
  const unseen = "No video is shown: --video-dir, its folder, would bring it here. The moment moves all the same.";
  return facts.media[clip.id] ? notes : [...notes, unseen];
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
    clip.thinned
      ? `Drawn of ${clip.frames.toLocaleString("en")} frames: of every stretch the lowest and the highest values.`
      : "",
    "A click on the curves takes you to that moment.",
  ]
    .filter(Boolean)
    .join(" ");
  loadPlayer(clip);
  showTranscript(clip);
  showTable();
}

function listed(id, pairs) {
  at(id).hidden = !pairs.length;
  at(id + "-list").replaceChildren(...pairs.flatMap(([what, how]) => [make("dt", what), make("dd", how)]));
}

const KINDS = {
  predictions: "Predictions",
  run: "A run and its predictions of validation videos",
  store: "A feature store",
  comparison: "Models trained and scored alike",
};

function showHead() {
  const failed = Object.keys(facts.failed).length,
    models = facts.kind === "comparison" ? facts.comparison.rows : null,
    many = models ? count(models.length, "model") : count(facts.clips.length, "video"),
    poles = facts.kind === "store" ? [] : facts.targets.filter((target) => POLES[target]);
  at("name").textContent = facts.name;
  at("made").textContent =
    `${KINDS[facts.kind]}: ${many}${failed ? `, ${failed} failed (see the end)` : ""}. ${facts.made}.`;
  at("meaning").hidden = !poles.length;
  at("meaning").textContent =
    poles.map((target) => `${target} runs from ${POLES[target][0]} (−1) to ${POLES[target][1]} (1)`).join(", ") +
    ": how somebody looks and sounds to raters, not what the person feels.";
  at("untrained").hidden = !facts.untrained.length;
  at("untrained").textContent =
    `Untrained backbones: ${facts.untrained.join(", ")}. ` +
    "What is predicted with them says nothing about real people: it shows that the machinery works.";
}

function start() {
  showHead();
  listed("about", facts.about);
  listed("failures", Object.entries(facts.failed));
  buildTable();
  showScores();
  showAttention();
  showCompared();
  at("choice").replaceChildren(...facts.clips.map((clip, i) => make("option", clip.id, { value: i })));
  at("skip").hidden = at("watch").hidden = at("summary").hidden = !facts.clips.length;
  if (facts.clips.length) choose(facts.clips[0]);
  drawAll();
}

at("choice").addEventListener("change", (event) => {
  choose(facts.clips[Number(event.target.value)]);
  drawClip();
});
at("play").addEventListener("click", () => play(!state.playing));
at("curves-frame").addEventListener("click", (event) =>
  seek(momentAt(event.clientX - at("curves-frame").getBoundingClientRect().left)),
);
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
