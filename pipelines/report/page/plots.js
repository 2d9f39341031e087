// Plots: what they look like, the curves over time, the plane of valence and arousal.

function look(extra) {
  const axis = {
    gridcolor: tone("line"),
    zerolinecolor: tone("line"),
    linecolor: tone("line"),
    automargin: false,
    fixedrange: true,
  };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false,
    dragmode: false,
    font: { family: "system-ui, sans-serif", size: 12, color: tone("ink") },
    hoverlabel: { bgcolor: tone("raised"), bordercolor: tone("line"), font: { color: tone("ink") } },
    margin: { l: LEFT, r: RIGHT, t: TOP, b: BOTTOM },
    xaxis: {},
    yaxis: {},
    ...extra,
  };
  for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key)) layout[key] = { ...axis, ...layout[key] };
  return layout;
}

function draw(element, traces, layout) {
  return Plotly.react(element, traces, look(layout), { displayModeBar: false, responsive: true });
}

function curveTraces(clip, target, axis) {
  const { time } = clip.curves,
    of = (suffix) => clip.curves[target + suffix],
    colour = toneOf(target);
  const line = { x: time, yaxis: axis, mode: "lines", type: "scatter", connectgaps: false };
  const traces = [];
  if (of(" low")) {
    traces.push({ ...line, y: of(" low"), line: { width: 0 }, hoverinfo: "skip" });
    traces.push({
      ...line,
      y: of(" high"),
      line: { width: 0 },
      fill: "tonexty",
      fillcolor: colour + "33",
      hoverinfo: "skip",
    });
  }
  const told = (name) => ({ name, hovertemplate: `%{y:.2f} ${literal(name)}<extra></extra>` });
  if (of(" truth"))
    traces.push({
      ...line,
      y: of(" truth"),
      line: { color: tone("truth"), width: 1.5, dash: "dot" },
      ...told("true " + target),
    });
  if (of("")) traces.push({ ...line, y: of(""), line: { color: colour, width: 1.8 }, ...told(target) });
  return traces;
}

function laneTrace(clip, lane, row, axis) {
  const x = [],
    y = [],
    text = [];
  for (const [from, to] of clip.gaps[lane]) {
    x.push(from, to, null);
    y.push(row, row, null);
    text.push(...Array(3).fill(`no ${lane} from ${from.toFixed(2)} to ${to.toFixed(2)} s`));
  }
  return {
    x,
    y,
    text,
    yaxis: axis,
    mode: "lines",
    type: "scatter",
    line: { color: tone("missing"), width: 11, simplify: false },
    name: "no " + lane,
    hovertemplate: "%{text}<extra></extra>",
  };
}

const shownTargets = (clip) => facts.targets.filter((target) => clip.curves[target] || clip.curves[target + " truth"]);
const lanesOf = (clip) => LANES.filter((lane) => lane in clip.gaps);

/** Every target in a row of its own and under them a lane for each of face, sound and words, on one axis of time. */
function drawCurves(clip) {
  const targets = shownTargets(clip),
    lanes = lanesOf(clip);
  const heights = [...targets.map(() => TARGET_HEIGHT), ...(lanes.length ? [lanes.length * LANE_HEIGHT] : [])];
  const inside = heights.reduce((sum, height) => sum + height + SPACE, -SPACE);
  const layout = {
    height: inside + TOP + BOTTOM,
    hovermode: "x",
    xaxis: { range: [0, clip.seconds || 1], title: { text: "seconds" }, zeroline: false },
  };
  const traces = [];
  let top = inside;
  heights.forEach((height, row) => {
    const axis = "y" + (row ? row + 1 : ""),
      name = "yaxis" + (row ? row + 1 : "");
    const domain = [Math.max(top - height, 0) / inside, top / inside];
    layout.xaxis.anchor = axis;
    top -= height + SPACE;
    if (row < targets.length) {
      layout[name] = {
        domain,
        range: [-1.05, 1.05],
        title: { text: literal(targets[row]), standoff: 6 },
        tickvals: [-1, 0, 1],
      };
      traces.push(...curveTraces(clip, targets[row], axis));
    } else {
      layout[name] = {
        domain,
        range: [lanes.length - 0.5, -0.5],
        tickvals: lanes.map((_, i) => i),
        ticktext: lanes,
        zeroline: false,
        showgrid: false,
      };
      lanes.forEach((lane, i) => traces.push(laneTrace(clip, lane, i, axis)));
    }
  });
  const missing = lanes.map((lane) => `${lane} missing ${count(clip.gaps[lane].length, "time")}`);
  at("curves").setAttribute("aria-label", `${targets.join(" and ") || "Gaps"} over time. ${missing.join(", ")}.`);
  at("curves").style.height = layout.height + "px";
  draw("curves", traces, layout);
  const cursor = at("cursor");
  cursor.style.top = TOP + "px";
  cursor.style.height = inside + "px";
}

const hasCircumplex = (clip) => clip.curves.valence && clip.curves.arousal;

function drawCircumplex(clip) {
  at("circumplex-figure").hidden = !hasCircumplex(clip);
  at("circumplex-note").textContent =
    `The dot is what is predicted, with a trail of ${TRAIL} s` +
    (clip.curves["valence truth"] ? "; the ring is the truth." : ".");
  if (!hasCircumplex(clip)) return;
  const angle = Array.from({ length: 91 }, (_, i) => (i * Math.PI) / 45),
    round = { type: "scatter", mode: "lines", hoverinfo: "skip" };
  const scale = { range: [-1.08, 1.08], tickvals: [-1, -0.5, 0, 0.5, 1] };
  draw(
    "circumplex",
    [
      { ...round, x: angle.map(Math.cos), y: angle.map(Math.sin), line: { color: tone("quiet"), width: 1 } },
      {
        type: "scatter",
        mode: "markers",
        x: clip.curves.valence,
        y: clip.curves.arousal,
        hoverinfo: "skip",
        marker: { size: 4, color: tone("quiet"), opacity: 0.28 },
      },
    ],
    {
      xaxis: { ...scale, title: { text: `${POLES.valence[0]} – valence – ${POLES.valence[1]}`, standoff: 4 } },
      yaxis: { ...scale, title: { text: `${POLES.arousal[0]} – arousal – ${POLES.arousal[1]}`, standoff: 4 } },
      margin: { l: LEFT, r: RIGHT, t: RIGHT, b: LEFT },
    },
  );
}

/** The child of this name in a place of several plots, made where it is not there: plots are redrawn, not removed. */
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

/** Bring plots to the width of their columns, of which there are as many as plots: known once all of them are there. */
function fit(place) {
  if (place.offsetParent) for (const plot of place.children) Plotly.Plots.resize(plot);
}

const above = { showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" } };
const titled = (text) => ({
  title: { text: literal(text), font: { size: 13 }, x: 0, xref: "paper", y: 0.985, yanchor: "top" },
});
