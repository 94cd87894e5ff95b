// ---- search, play, pointer, keyboard ----------------------------------------------------------------------------------

const matches = new Set();  // keys of boxes

function search(text) {
  matches.clear();
  const wanted = text.trim().toLowerCase(), list = byId("found");
  const has = (...texts) => texts.some((t) => t.toLowerCase().includes(wanted));
  const nodes = wanted ? data.nodes.flatMap((node, n) => has(titleOf(n), node.path, node.source, ...node.names) ? [n] : []) : [];
  const leaves = wanted ? data.leaves.flatMap((leaf, n) => has(leaf.name, leaf.kind) ? [n] : []) : [];
  for (const n of nodes) matches.add(view.nodeBoxes[n].key);
  for (const n of leaves) matches.add(`l${n}`);
  const rows = [
    ...nodes.map((n) => [`${nameOf({ node: n, output: 0 })}  ${data.nodes[n].path}`, () => runTo(n)]),
    ...leaves.map((n) => [`${nameOf({ leaf: n })}  ${data.leaves[n].kind}`, () => pin(n)]),
  ].slice(0, 60).map(([label, run]) => {
    const button = element("button", { type: "button" }, clipped(label, 90));
    button.addEventListener("click", () => { endSearch(); run(); });
    return element("li", {}, button);
  });
  if (wanted && !rows.length) rows.push(element("li", { className: "soft" }, "nothing of this name"));
  list.replaceChildren(...rows);
  list.hidden = !wanted;
  showState();
}

function endSearch() {
  byId("search").value = "";
  byId("found").hidden = true;
  matches.clear();
  byId("search").blur();
  showState();
}

let timer = null;

function play(on = timer === null) {
  clearInterval(timer);
  timer = null;
  if (on) {
    if (shown.step === film.length - 1) goTo(0);
    timer = setInterval(() => {
      goTo(shown.step + 1);
      if (shown.step === film.length - 1) play(false);
    }, Number(byId("speed").value));
  }
  byId("play").textContent = on ? "Pause" : "Play";
}

function switchTheme() {
  const root = document.documentElement, next = { auto: "light", light: "dark", dark: "auto" }[root.dataset.theme ?? "auto"];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  byId("theme").textContent = `Theme: ${next}`;
  showPanel();
}

function showLeaves(on) {
  shown.leaves = byId("leaves").checked = on;
  build();
  fit();
  showState();
}

function hand(step) { play(false); goTo(step); }  // a person has taken over

const buttons = {
  first: () => hand(0), back: () => hand(shown.step - 1), next: () => hand(shown.step + 1), last: () => hand(film.length - 1),
  play: () => play(), closer: () => zoom(1.3), farther: () => zoom(1 / 1.3), fit, theme: switchTheme, keys: () => byId("help").showModal(),
};
for (const [id, action] of Object.entries(buttons)) byId(id).addEventListener("click", action);
byId("slider").addEventListener("input", () => hand(Number(byId("slider").value)));
byId("speed").addEventListener("change", () => { if (timer !== null) play(true); });
byId("search").addEventListener("input", () => search(byId("search").value));
byId("search").addEventListener("keydown", (event) => {
  event.stopPropagation();
  if (event.key === "Escape") endSearch();
  if (event.key === "Enter") byId("found").querySelector("button")?.click();
  if (event.key === "ArrowDown") byId("found").querySelector("button")?.focus();
});
byId("leaves").addEventListener("change", () => showLeaves(byId("leaves").checked));
byId("depth").addEventListener("change", () => openTo(Number(byId("depth").value)));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open || event.target.matches?.("select, input[type=search]")) return;
  const keys = {
    ArrowRight: () => { play(false); event.shiftKey ? nextBox(1) : goTo(shown.step + 1); },
    ArrowLeft: () => { play(false); event.shiftKey ? nextBox(-1) : goTo(shown.step - 1); },
    Home: () => hand(0), End: () => hand(film.length - 1), b: () => hand(SEED), " ": () => play(), "/": () => byId("search").focus(),
    "?": () => byId("help").showModal(), "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), f: fit,
    p: () => showLeaves(!shown.leaves), t: switchTheme,
  };
  if (!(event.key in keys) || (event.key === " " && event.target.matches?.("button, summary"))) return;
  event.preventDefault();
  keys[event.key]();
});

const pointers = new Map();
const stage = byId("graph");
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { left, top } = stage.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - left, event.clientY - top);
}, { passive: false });
stage.addEventListener("pointerdown", (event) => {
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  dragged = false;
});
addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
  if (!dragged && Math.hypot(dx, dy) < 4) return;
  dragged = true;
  stage.classList.add("dragged");
  const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (!others.length) return look({ x: camera.x + dx, y: camera.y + dy });
  const distance = ([x, y]) => Math.hypot(x - others[0][0], y - others[0][1]) || 1;
  const { left, top } = stage.getBoundingClientRect();
  zoom(distance([event.clientX, event.clientY]) / distance(before), (event.clientX + others[0][0]) / 2 - left, (event.clientY + others[0][1]) / 2 - top);
});
for (const kind of ["pointerup", "pointercancel"]) {
  addEventListener(kind, (event) => {
    pointers.delete(event.pointerId);
    stage.classList.remove("dragged");
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showPanel);
addEventListener("hashchange", () => goTo(stepInAddress()));

function stepInAddress() {
  const step = Number(/#.*\bstep=(\d+)/.exec(location.hash)?.[1] ?? shown.step);
  return Number.isFinite(step) ? step : 0;
}

// ---- beginning --------------------------------------------------------------------------------------------------------

byId("headline").textContent = data.headline;
byId("slider").max = film.length - 1;
byId("leaves").checked = shown.leaves;
const deepest = Math.max(0, ...data.frames.filter((frame) => frame.ops > 1).map((frame) => frame.level + 1));
for (let depth = 0; depth <= deepest; depth++) {
  byId("depth").append(element("option", { value: depth, selected: depth === Math.min(data.depth, deepest) }, depth === 0 ? "folded" : depth === deepest ? "all open" : `open to level ${depth}`));
}
byId("depths").hidden = deepest === 0;
openTo(data.depth);
begin();
goTo(stepInAddress());
