// What attention and gates did to each modality: a sentence and bars of it.

/** Parts of a bar, each as long as its share; the first step is grey, the later the darker. */
function bar(shares, first, steps, whole) {
  const element = make("div", undefined, { class: "bar" });
  for (const [i, share] of shares.entries()) element.append(part(i + first, steps, (100 * share) / whole + "%"));
  return element;
}

function part(step, steps, width) {
  const element = make("span", undefined, { class: step ? "step attended" : "step" });
  element.style.width = width;
  if (step) element.style.opacity = 0.35 + (0.65 * step) / (steps - 1);
  return element;
}

function showAttention() {
  const told = facts.attention;
  at("attention").hidden = !told;
  if (!told) return;
  const { modalities, steps } = told,
    most = Math.max(1, ...modalities.map(({ changed }) => changed.reduce((a, b) => a + b, 0))),
    gated = modalities.some(({ taken }) => taken.length),
    looked = told.videos < told.of ? `${told.videos} of ${count(told.of, "video")}` : count(told.of, "video"),
    models = told.models > 1 ? `, and of ${count(told.models, "model")}` : "";
  at("attention-note").textContent =
    told.reason ||
    `Means over the frames in which each is there, of ${looked}${models}. ` +
      (gated ? "Upper bar: what is used. Lower bar" : "Bar") +
      `: how much attention changes; its whole width is ${Math.round(100 * most)} % of the features' size before it.`;
  at("attention-key").hidden = at("attention-limits").hidden = !modalities.length;
  at("attention-key").replaceChildren(
    ...steps.slice(gated ? 0 : 1).map((step, i) => {
      const item = make("li", step);
      item.prepend(part(i + (gated ? 0 : 1), steps.length, "0.9rem"));
      return item;
    }),
  );
  at("attention-list").replaceChildren(
    ...modalities.flatMap(({ name, taken, changed, said }) => {
      const how = make("dd", said),
        bars = make("div", undefined, { class: "bars", "aria-hidden": "true" });
      if (taken.length) bars.append(bar(taken, 0, steps.length, 1));
      bars.append(bar(changed, 1, steps.length, most));
      how.prepend(bars);
      return [make("dt", name), how];
    }),
  );
}
