// What a run or a store has besides: scores, learning curves, coverage.

const FLATTERED =
  "Where an epoch or a ridge was chosen, it was by these same videos, so that the numbers flatter a little.";

function showScores() {
  const { scores } = facts,
    names = ["ccc", "pearson", "rmse"].filter((name) => scores[name]);
  if (!names.length) return;
  at("scores").hidden = false;
  const heads = { ccc: "CCC", pearson: "Pearson r", rmse: "RMSE" };
  at("scores-table").tHead.rows[0].replaceChildren(
    ...["target", ...names.map((name) => heads[name])].map((text) => make("th", text, { scope: "col" })),
  );
  at("scores-table").tBodies[0].replaceChildren(
    ...Object.keys(scores.ccc).map((target) => {
      const row = make("tr");
      row.append(make("th", target, { scope: "row" }), ...names.map((name) => make("td", withInterval(name, target))));
      return row;
    }),
  );
  at("scores-note").textContent = scores.interval_method
    ? `${AGREES} Over ${scores.frames.toLocaleString("en")} annotated rows of ${count(scores.videos, "video")}.` +
      (scores.interval.ccc ? ` In brackets: ${scores.interval_method}.` : "")
    : "The validation CCC as training left it. Give labels for intervals and truth.";
  if (facts.kind === "run") at("scores-note").textContent += " " + FLATTERED;
  showRanking();
}

function withInterval(name, target) {
  const { scores } = facts,
    span = scores.interval && scores.interval[name] && scores.interval[name][target];
  return minus(scores[name][target], 3) + (span ? ` [${span.map((end) => minus(end)).join(", ")}]` : "");
}

function showRanking() {
  const ranked = facts.clips.filter((clip) => "CCC" in clip.summary).sort((a, b) => b.summary.CCC - a.summary.CCC);
  const rows = ranked.map((clip, i) => [clip, i]).filter(([, i]) => i < RANKED || i >= ranked.length - RANKED);
  at("ranking").hidden = at("ranking-title").hidden = at("scatter-part").hidden = !ranked.length;
  at("ranking").replaceChildren(
    ...rows.map(([clip, i]) => {
      const item = make("li", undefined, { value: i + 1 }),
        button = make("button", clip.id, { type: "button" });
      button.addEventListener("click", () => open(clip));
      item.append(button, ` CCC ${minus(clip.summary.CCC)}`);
      return item;
    }),
  );
}

function drawScatter(clip) {
  const scale = { range: [-1.05, 1.05], tickvals: [-1, 0, 1] },
    judged = Object.keys(clip.pairs).length > 0;
  at("scatter-title").textContent = judged ? `Truth and prediction of ${clip.id}` : `There is no truth of ${clip.id}`;
  at("scatter").hidden = !judged;
  for (const [target, [truth, predicted]] of Object.entries(clip.pairs)) {
    squarePlot(
      at("scatter"),
      target,
      [
        {
          x: [-1, 1],
          y: [-1, 1],
          type: "scatter",
          mode: "lines",
          line: { color: tone("quiet"), width: 1, dash: "dash" },
          hoverinfo: "skip",
        },
        {
          x: truth,
          y: predicted,
          type: "scatter",
          mode: "markers",
          marker: { color: toneOf(target), size: 5, opacity: 0.5 },
          hovertemplate: "true %{x:.2f}, predicted %{y:.2f}<extra></extra>",
        },
      ],
      {
        ...titled(`${target}, CCC ${minus(clip.summary[target + " CCC"])}`),
        xaxis: { ...scale, title: { text: "true", standoff: 4 } },
        yaxis: { ...scale, title: { text: "predicted", standoff: 4 } },
      },
      `Predicted ${target} against the true one`,
    );
  }
}

const DASHES = ["solid", "dash", "dot", "dashdot"];

function historyTraces(column) {
  const seeds = Object.entries(facts.histories),
    traces = [];
  seeds.forEach(([seed, history], i) => {
    const names = Object.keys(history).filter((name) =>
      column === "loss" ? name === "loss" : /^ccc_/.test(name) && (seeds.length === 1 || name === "ccc_mean"),
    );
    for (const name of names) {
      const target = name.replace("ccc_", ""),
        plain = seeds.length > 1 || target === "loss" || target === "mean";
      traces.push({
        x: history.epoch || history[name].map((_, k) => k + 1),
        y: history[name],
        type: "scatter",
        mode: history[name].length > 1 ? "lines" : "markers",
        name: literal(seeds.length > 1 ? "seed " + seed : target),
        line: { color: plain ? tone("ink") : toneOf(target), width: 2, dash: DASHES[i % DASHES.length] },
        hovertemplate: "%{y:.3f}",
      });
    }
  });
  return traces;
}

/** What a row of a learning curve is: an epoch, or one of the ridges that were tried. */
const stepOf = () => (Object.values(facts.histories)[0]?.ridge ? "candidate" : "epoch");

/** The epoch or candidate that a run kept, of its one learning curve; null of several. */
function keptEpoch() {
  const [history, ...others] = Object.values(facts.histories);
  return others.length || !history?.best ? null : (history.epoch[history.best.lastIndexOf(1)] ?? null);
}

function drawHistories() {
  const place = at("histories"),
    kept = keptEpoch();
  at("learning").hidden = !Object.keys(facts.histories).length;
  at("learning-note").textContent = kept === null ? "" : `The line stands at the ${stepOf()} that was kept, ${kept}.`;
  const line = {
    type: "line",
    x0: kept,
    x1: kept,
    yref: "paper",
    y0: 0,
    y1: 1,
    line: { color: tone("quiet"), width: 1, dash: "dash" },
  };
  const shared = {
    hovermode: "x unified",
    xaxis: { title: { text: stepOf() }, zeroline: false },
    shapes: kept === null ? [] : [line],
  };
  for (const [column, text] of [
    ["loss", "training loss"],
    ["ccc", "validation CCC"],
  ]) {
    const traces = historyTraces(column);
    const layout = { ...titled(text), ...above, ...shared };
    if (traces.length) widePlot(place, column, traces, layout, `${text} by ${stepOf()}`);
  }
}

const seenOf = (clip, lane) => clip.summary[lane + " seen"] ?? 0;

function coverageTraces() {
  const clips = facts.clips,
    tones = [tone("valence"), tone("missing"), tone("other-1")];
  return LANES.map((lane, i) => {
    const shares = clips.map((clip) => 100 * seenOf(clip, lane)),
      mark = { name: lane, type: "bar", marker: { color: tones[i] } };
    if (clips.length <= MANY)
      return { ...mark, orientation: "h", x: shares, y: clips.map((_, k) => k), hovertemplate: "%{x:.0f} %" };
    return {
      ...mark,
      type: "scatter",
      mode: "lines",
      line: { color: tones[i] },
      x: shares.map((_, k) => k + 1),
      y: shares.sort((a, b) => b - a),
      hovertemplate: "%{y:.0f} %",
    };
  });
}

/** The next of 1, 2, 5, 10, 20 … times `least`. */
function roundUp(number, least = 1e-3) {
  const power = 10 ** Math.floor(Math.log10(Math.max(number, least)));
  return [1, 2, 5, 10].map((by) => by * power).find((step) => step >= Math.max(number, least) * (1 - 1e-9));
}

/** How many videos are how long: bins of a round size, where each begins, and its count. */
function lengths(clips) {
  const seconds = clips.map((clip) => clip.seconds),
    [least, most] = [Math.min(...seconds), Math.max(...seconds)],
    size = roundUp((most - least) / Math.min(Math.ceil(Math.sqrt(clips.length)), 20) || 1, 0.1),
    first = Math.floor(least / size),
    counts = Array(Math.floor(most / size) - first + 1).fill(0);
  for (const second of seconds) counts[Math.floor(second / size) - first] += 1;
  return { edges: counts.map((_, i) => (first + i) * size), size, counts };
}

function drawCoverage() {
  const place = at("coverage-plots"),
    clips = facts.clips,
    few = clips.length <= MANY;
  at("coverage").hidden = facts.kind !== "store" || !clips.length;
  if (at("coverage").hidden) return;
  const { edges, size, counts } = lengths(clips);
  const short = (id) => literal(id.length > 16 ? "…" + id.slice(-15) : id);
  const share = { range: [0, 102], title: { text: "% of frames" } };
  widePlot(
    place,
    "coverage",
    coverageTraces(),
    few
      ? {
          ...titled("share of frames with each"),
          ...above,
          height: 110 + 34 * clips.length,
          margin: { l: 120, r: RIGHT, t: 54, b: BOTTOM },
          xaxis: share,
          yaxis: {
            tickvals: clips.map((_, k) => k),
            ticktext: clips.map((clip) => short(clip.id)),
            range: [clips.length - 0.5, -0.5],
          },
        }
      : {
          ...titled("share of frames, videos sorted by each"),
          ...above,
          height: 320,
          yaxis: share,
          xaxis: { title: { text: "videos" } },
        },
    "Coverage by video",
  );
  widePlot(
    place,
    "durations",
    [
      {
        type: "bar",
        x: edges.map((edge) => edge + size / 2),
        y: counts,
        width: 0.95 * size,
        text: edges.map((edge) => `${Number(edge.toFixed(3))} to ${Number((edge + size).toFixed(3))} s`),
        textposition: "none",
        marker: { color: tone("valence") },
        hovertemplate: "%{text}: %{y}<extra></extra>",
      },
    ],
    {
      ...titled("durations"),
      xaxis: { title: { text: "seconds" } },
      yaxis: { title: { text: "videos", standoff: 4 }, dtick: roundUp(Math.max(...counts) / 5, 1) },
      margin: { l: LEFT, r: RIGHT, t: 30, b: BOTTOM },
    },
    "How many videos are how long",
  );
}
