// Models side by side: a forest plot of how far each is from the reference, and the same as a table.

const ROW = 44; // px of a model in the plot
const LONG = 40; // letters of a name in the plot

const spread = (mean, sd) => minus(mean, 3) + (sd === null ? "" : ` ± ${minus(sd, 3)}`);
const less = ({ difference, low, high }) =>
  difference === null ? "–" : signed(difference, 3) + (low === null ? "" : ` [${signed(low, 3)}, ${signed(high, 3)}]`);

function showCompared() {
  const compared = facts.comparison;
  at("compared").hidden = !compared;
  if (!compared) return;
  const { reference, rows, verdict, notes, seeds } = compared;
  const columns = [
    ["mean CCC", (row) => spread(row.mean, row.mean_sd)],
    [`mean less that of ${reference} [95 %]`, less],
    ...facts.targets.map((target) => [target, (row) => spread(row[target], row[target + "_sd"])]),
    ["videos", (row) => row.videos.toLocaleString("en")],
    ["parameters", (row) => row.parameters.toLocaleString("en")],
    ["seconds per epoch", (row) => minus(row.seconds_per_epoch)],
  ];
  at("compared-verdict").textContent = verdict;
  at("forest-note").textContent =
    `${AGREES} Here it is that on the validation videos` +
    (seeds > 1 ? `, mean ± standard deviation over ${seeds} seeds` : "") +
    ". The best epoch of every run was chosen by these same videos. " +
    `A dot is a model's mean CCC less that of ${reference}, a bar its 95 % interval: where the bar crosses the line, ` +
    "the videos do not tell the two apart.";
  at("compared-notes").replaceChildren(...notes.map((text) => make("li", text)));
  at("compared-table").tHead.rows[0].replaceChildren(
    ...["model", ...columns.map(([head]) => head)].map((text) => make("th", text, { scope: "col" })),
  );
  at("compared-table").tBodies[0].replaceChildren(
    ...rows.map((row) => {
      const line = make("tr");
      line.append(make("th", row.model, { scope: "row" }), ...columns.map(([, of]) => make("td", of(row))));
      return line;
    }),
  );
}

/** What stands over a model's bar. */
const headOf = ({ model, mean, mean_sd }) =>
  `<b>${literal(model.length > LONG ? model.slice(0, LONG - 1) + "…" : model)}</b>  ${spread(mean, mean_sd)}`;

function drawForest() {
  const compared = facts.comparison;
  if (!compared) return;
  const { reference, rows } = compared,
    apart = (row) => row.difference ?? 0,
    reach = (row, end) => (row[end] === null ? 0 : Math.abs(row[end] - row.difference));
  const marks = {
    type: "scatter",
    mode: "markers",
    x: rows.map(apart),
    y: rows.map((_, i) => i),
    text: rows.map((row) => `${literal(row.model)}: ${row.difference === null ? "the reference" : less(row)}`),
    hovertemplate: "%{text}<extra></extra>",
    marker: {
      size: 9,
      color: tone("valence"),
      symbol: rows.map((row) => (row.model === reference ? "diamond-open" : "circle")),
      line: { width: 2, color: tone("valence") },
    },
    error_x: {
      type: "data",
      symmetric: false,
      array: rows.map((row) => reach(row, "high")),
      arrayminus: rows.map((row) => reach(row, "low")),
      color: tone("valence"),
      thickness: 2,
      width: 5,
    },
  };
  const layout = {
    height: ROW * rows.length + BOTTOM + RIGHT,
    margin: { l: RIGHT, r: RIGHT, t: RIGHT, b: BOTTOM },
    xaxis: {
      title: { text: literal(`mean CCC less that of ${reference}`), standoff: 6 },
      tickformat: "+.2f",
      nticks: 6,
      zeroline: false,
    },
    yaxis: { visible: false, range: [rows.length - 0.6, -0.75] },
    shapes: [
      { type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: tone("quiet"), dash: "dash" } },
    ],
    annotations: rows.map((row, i) => ({
      xref: "paper",
      x: 0,
      xanchor: "left",
      y: i,
      yshift: 15,
      text: headOf(row),
      showarrow: false,
      bgcolor: tone("ground"),
      borderpad: 1,
    })),
  };
  const label = `How far each model is from ${reference}; the table below says the same`;
  widePlot(at("forest"), "forest", [marks], layout, label);
}
