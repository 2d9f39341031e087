// The table of all videos, sorted by any column.

const columns = ["video", ...new Set(facts.clips.flatMap((clip) => Object.keys(clip.summary)))];
const cell = (clip, column) => (column === "video" ? clip.id : (clip.summary[column] ?? null));

function written(column, value) {
  if (value === null || value === undefined) return "–";
  if (column.endsWith(" seen")) return (100 * value).toFixed(0) + " %";
  if (column.endsWith(" mean")) return signed(value);
  if (column === "frames" || column === "words") return value.toLocaleString("en");
  return minus(value, column === "seconds" ? 1 : 2);
}

function sorted() {
  const { order, falling } = state,
    clips = [...facts.clips];
  if (order === null) return clips;
  return clips.sort((one, other) => {
    const [a, b] = [cell(one, order), cell(other, order)];
    if (a === null || b === null) return (a === null) - (b === null);
    const rising = order === "video" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
    return falling ? -rising : rising;
  });
}

function showTable() {
  at("table").tBodies[0].replaceChildren(
    ...sorted().map((clip) => {
      const row = make("tr"),
        name = make("th", undefined, { scope: "row" }),
        button = make("button", clip.id, { type: "button" });
      if (clip === state.clip) row.setAttribute("aria-current", "true");
      button.addEventListener("click", () => open(clip));
      name.append(button);
      row.append(name, ...columns.slice(1).map((column) => make("td", written(column, cell(clip, column)))));
      return row;
    }),
  );
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
  at("table").tHead.rows[0].replaceChildren(
    ...columns.map((column) => {
      const head = make("th", undefined, { scope: "col" }),
        button = make("button", column, { type: "button" });
      head.dataset.column = column;
      button.addEventListener("click", () => sortBy(column));
      head.append(button);
      return head;
    }),
  );
  const targets =
    facts.targets.length && facts.kind !== "store"
      ? "Mean and spread (standard deviation) of what is predicted; seen: "
      : "Seen: ";
  at("summary-note").textContent = targets + "the share of frames with it. A heading sorts, a name opens the video.";
}
