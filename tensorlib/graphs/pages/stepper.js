// ---- the film: start, each op forward, the seed, each op backward, the end ------------------------------------------

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const film = [
  { kind: "start", phase: "" },
  ...data.nodes.map((_, node) => ({ kind: "forward", phase: "forward", node })),
  { kind: "seed", phase: "backward" },
  ...data.backward.map((pass) => ({ kind: "backward", phase: "backward", ...pass })),
  { kind: "end", phase: "backward" },
];
const SEED = data.nodes.length + 1;
const backwardStep = new Map(data.backward.map((pass, i) => [pass.node, SEED + 1 + i]));
const slotOf = (source) => "leaf" in source ? `l${source.leaf}` : "node" in source ? `n${source.node}.${source.output}` : "";
const contributions = new Map();  // by slot, in the order of arrival: {step, node, position, dx, total}
data.outputs.forEach((source, i) => contribute(slotOf(source), { step: SEED, node: null, ...data.begun[i] }));
film.forEach((pass, step) => {
  if (pass.kind !== "backward") return;
  pass.dxs.forEach((given, position) => {
    if (given) contribute(slotOf(data.nodes[pass.node].inputs[position]), { step, node: pass.node, position, ...given });
  });
});
const shown = { step: 0, open: new Set(), leaves: data.leaves.length <= 24, pinned: null };

function contribute(slot, one) {
  if (!contributions.has(slot)) contributions.set(slot, []);
  contributions.get(slot).push(one);
}
function arrived(slot, step) { return (contributions.get(slot) ?? []).filter((one) => one.step <= step); }
function gradientOf(slot, step) { return arrived(slot, step).at(-1)?.total; }

function nameOf(source) {
  if ("number" in source) return source.number;
  if ("leaf" in source) {
    const leaf = data.leaves[source.leaf];
    return leaf.name || `${leaf.kind} ${source.leaf}`;
  }
  const node = data.nodes[source.node], single = node.frame !== null && isSingle(node.frame) ? data.frames[node.frame].title : "";
  const which = node.outputs.length > 1 ? ` [${source.output}]` : "";
  return node.names[source.output] || `${single || data.ops[node.op].name} #${source.node + 1}${which}`;
}
function gradientName(source) {
  const result = data.outputs.length === 1 && "node" in data.outputs[0] ? data.nodes[data.outputs[0].node].names[data.outputs[0].output] : "";
  return result ? `d ${clipped(result, 30)} / d ${clipped(nameOf(source), 60)}` : `gradient of ${clipped(nameOf(source), 60)}`;
}
function titleOf(number) {
  const node = data.nodes[number], names = node.names.filter((name) => name).map((name) => clipped(name, 60)).join(", ");
  return `${names ? `${names} = ` : ""}${data.ops[node.op].name} #${number + 1}`;
}
function valueOf(source) { return "leaf" in source ? data.leaves[source.leaf].value : data.nodes[source.node].outputs[source.output]; }

// ---- what is visible: the open modules, and boxes in them -----------------------------------------------------------

let view = null;  // {boxes, edges, boxOf: slot or node -> box}

const MOST_ARROWS = 12;  // from one leaf; one that is used more often is drawn at each of its uses

function isSingle(frame) { return data.frames[frame].ops === 1; }  // nothing to see inside

function framesAround(frame) {  // outermost first, without those of one op
  const around = [];
  for (let f = frame; f !== null; f = data.frames[f].parent) if (!isSingle(f)) around.unshift(f);
  return around;
}

function build() {
  const root = { key: "root", children: [], title: "" }, frames = new Map(), boxes = new Map();
  const home = (frame) => {  // the folded box around, or the frame to put a box into
    let parent = root;
    for (const f of framesAround(frame)) {
      if (!shown.open.has(f)) return { folded: f, parent };
      if (!frames.has(f)) {
        frames.set(f, { key: `f${f}`, frame: f, children: [], title: data.frames[f].title, titleWidth: width(clipped(data.frames[f].title, 40), 12) + 40 });
        parent.children.push(frames.get(f));
      }
      parent = frames.get(f);
    }
    return { folded: null, parent };
  };
  const add = (key, parent, make) => {
    if (!boxes.has(key)) {
      boxes.set(key, sized({ key, parent, ...make() }));
      parent.children.push(boxes.get(key));
    }
    return boxes.get(key);
  };
  const nodeBoxes = data.nodes.map((node, number) => {
    const { folded, parent } = home(node.frame);
    const box = folded === null ? add(`n${number}`, parent, () => opBox(number)) : add(`m${folded}`, parent, () => moduleBox(folded));
    (box.nodes ??= []).push(number);
    return box;
  });
  const users = data.leaves.map(() => new Set());
  data.nodes.forEach((node, n) => node.inputs.forEach((source) => users[source.leaf]?.add(nodeBoxes[n])));
  const leafBoxes = data.leaves.map((leaf, number) => {
    const { folded, parent } = home(leaf.frame);
    if (folded !== null || (!shown.leaves && leaf.kind !== "input")) return () => null;
    if (users[number].size <= MOST_ARROWS) {
      const box = add(`l${number}`, parent, () => leafBox(number));
      return () => box;
    }
    return (user) => add(`l${number} ${user.key}`, user.parent, () => leafBox(number));  // a copy beside each user
  });
  const edges = new Map();
  data.nodes.forEach((node, number) => node.inputs.forEach((source, position) => {
    if ("number" in source) return;
    const to = nodeBoxes[number], from = "leaf" in source ? leafBoxes[source.leaf](to) : nodeBoxes[source.node];
    if (!from || from === to) return;
    const copy = to.kind === "op" ? node.inputs.slice(0, position).filter((other) => slotOf(other) === slotOf(source)).length : 0;
    const key = `${from.key}>${to.key}>${copy}`;
    if (!edges.has(key)) edges.set(key, { from, to, copy, uses: [] });
    edges.get(key).uses.push([number, position]);
  }));
  place(root, [...edges.values()]);
  view = { root, boxes: [...boxes.values()], edges: [...edges.values()], nodeBoxes };
  draw();
}

const ruler = document.createElement("canvas").getContext("2d");
function width(text, size, bold = true) {
  ruler.font = `${bold ? "600 " : ""}${size}px system-ui, "Noto Sans", "DejaVu Sans", sans-serif`;
  return ruler.measureText(text).width;
}

function clipped(text, most) {  // by its middle
  const letters = [...text];
  return letters.length <= most ? text : `${letters.slice(0, most / 2).join("")}…${letters.slice(-most / 2).join("")}`;
}

function sized(box) {
  const texts = [[box.title, 13, true], ...box.lines.map((line) => [line, 11.5, false])];
  box.w = Math.max(56, ...texts.map(([text, size, bold]) => width(text, size, bold))) + 22;
  box.h = 14 + 17 * texts.length;
  return box;
}

function opBox(number) {
  const node = data.nodes[number], op = data.ops[node.op].name;
  const single = node.frame !== null && isSingle(node.frame) ? data.frames[node.frame].title : "";
  const name = node.names.find((text) => text);
  const title = clipped(name ? `${name} = ${op}` : single || op, 28);
  const lines = single && !name && single !== op ? [op] : [];
  const slots = node.outputs.map((_, output) => `n${number}.${output}`);
  return { kind: "op", number, title, lines: [...lines, ...valueLines(node.outputs, slots)], slots, valueAt: lines.length + 1,
    hasShape: data.arrays[node.outputs[0]].values?.length !== 1 };
}

function leafBox(number) {
  const leaf = data.leaves[number], frame = leaf.frame === null ? "" : data.frames[leaf.frame].path;
  const title = clipped((frame && leaf.name.startsWith(`${frame}.`) ? leaf.name.slice(frame.length + 1) : leaf.name) || leaf.kind, 28);
  return { kind: leaf.kind, leaf: true, number, title, lines: valueLines([leaf.value], [`l${number}`], leaf.gradient !== null), slots: [`l${number}`] };
}

function moduleBox(frame) {
  return { kind: "module", frame, title: `+ ${clipped(data.frames[frame].title, 26)}`, lines: [`${data.frames[frame].ops} ops`], slots: [] };
}

function valueLines(arrays, slots, graded = true) {  // the last one is the place of the gradient, as wide as it will be
  const lines = arrays.slice(0, 2).map((number) => valueText(data.arrays[number]));
  if (arrays.length > 2) lines[1] = `and ${arrays.length - 1} more`;
  return graded ? [...lines, gradientText(slots[0], film.length) || " "] : lines;
}

function valueText(array) { return array.values?.length === 1 ? short(array.values[0]) : shapeText(array); }

function gradientText(slot, step) {
  const number = gradientOf(slot, step);
  if (number === undefined) return "";
  const array = data.arrays[number];
  return array.values?.length === 1 ? `grad ${short(array.values[0])}` : `grad ‖${short(array.norm ?? "nan")}‖`;
}

// ---- drawing --------------------------------------------------------------------------------------------------------

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function draw() {
  const frames = svg("g", {}), edges = svg("g", {}), boxes = svg("g", {});
  (function visit(item) {
    for (const child of item.children ?? []) {
      if (!child.children) continue;
      const name = svg("text", { class: "name", x: child.x + 12, y: child.y + 17 }, `− ${clipped(child.title, 40)}`);
      name.addEventListener("click", () => toggle(child.frame));
      frames.append(svg("g", { class: "frame" }, svg("rect", { x: child.x, y: child.y, width: child.w, height: child.h, rx: 10 }), name));
      visit(child);
    }
  })(view.root);
  const pair = (edge) => `${edge.from.key}>${edge.to.key}`, copiesOf = new Map();
  for (const edge of view.edges) copiesOf.set(pair(edge), (copiesOf.get(pair(edge)) ?? 0) + 1);
  for (const edge of view.edges) {
    const copies = copiesOf.get(pair(edge));
    edge.path = svg("path", { class: "edge", d: curve(edge.points, (edge.copy - (copies - 1) / 2) * 14) });
    edges.append(edge.path);
  }
  for (const box of view.boxes) boxes.append(drawnBox(box));
  byId("world").replaceChildren(frames, edges, boxes);
}

function drawnBox(box) {
  const middle = box.x + box.w / 2;
  const at = { x: box.x, y: box.y, width: box.w, height: box.h, rx: box.kind === "parameter" ? 2 : 8 };
  const texts = [box.title, ...box.lines].map((text, i) => svg("text", { x: middle, y: box.y + 20 + 17 * i, class: i ? "" : "title" }, text));
  if (box.kind !== "module" && (!box.leaf || data.leaves[box.number].gradient !== null)) {
    box.gradient = texts.at(-1);
    box.gradient.setAttribute("class", "gradient");
  }
  const tip = box.kind === "module" ? data.frames[box.frame].path : box.leaf ? nameOf({ leaf: box.number }) : `${titleOf(box.number)} ${data.nodes[box.number].path}`;
  if (box.kind === "op") box.value = texts[box.valueAt];
  box.group = svg("g", { class: "box", tabindex: 0, role: "button", "aria-label": tip }, svg("title", {}, tip),
    svg("rect", { ...at, x: at.x - 4, y: at.y - 4, width: at.width + 8, height: at.height + 8, class: "ring" }), svg("rect", at), ...texts);
  box.group.addEventListener("click", () => { if (!dragged) choose(box); });
  box.group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.stopPropagation();
    choose(box);
  });
  return box.group;
}

function choose(box) {
  if (box.kind === "module") toggle(box.frame);
  else if (box.leaf) pin(box.number);
  else runTo(box.number);
}

function runTo(number) {
  const inBackward = shown.step >= SEED && backwardStep.has(number);
  goTo(inBackward ? backwardStep.get(number) : number + 1);
}

function pin(leaf) {
  shown.pinned = leaf;
  showPanel();
  showState();
}

function toggle(frame) {
  const anchor = (key) => view.boxes.find((box) => box.key === key) ?? framesIn(view.root).find((item) => item.key === key);
  const opens = !shown.open.has(frame), before = anchor(opens ? `m${frame}` : `f${frame}`);
  const [x, y] = [before.x + before.w / 2, before.y];
  if (opens) shown.open.add(frame);
  else for (const other of [...shown.open]) if (framesAround(other).includes(frame)) shown.open.delete(other);
  build();
  const after = anchor(opens ? `f${frame}` : `m${frame}`);
  if (after) look({ x: camera.x + camera.k * (x - after.x - after.w / 2), y: camera.y + camera.k * (y - after.y) });
  showState();
}

function framesIn(item) { return (item.children ?? []).filter((child) => child.children).flatMap((child) => [child, ...framesIn(child)]); }

function openTo(depth) {
  shown.open = new Set(data.frames.map((_, f) => f).filter((f) => data.frames[f].level < depth));
  build();
  fit();
  showState();
}

// ---- one step -------------------------------------------------------------------------------------------------------

function goTo(step) {
  shown.step = Math.max(0, Math.min(film.length - 1, step));
  shown.pinned = null;
  const now = film[shown.step];
  document.body.dataset.step = shown.step;
  document.body.dataset.phase = now.phase;
  byId("slider").value = shown.step;
  byId("count").textContent = `step ${shown.step} of ${film.length - 1}`;
  try { history.replaceState(null, "", `#step=${shown.step}`); } catch { /* a page that may not change its address */ }
  showState();
  showPanel();
  follow();
}

function boxNow() { return "node" in film[shown.step] ? view.nodeBoxes[film[shown.step].node] : null; }

function showState() {
  const { step } = shown, now = film[step], active = boxNow();
  for (const box of view.boxes) {
    const known = box.leaf || (box.nodes ?? []).every((number) => number < step);
    const graded = box.kind === "module" ? box.nodes.every((number) => step >= (backwardStep.get(number) ?? Infinity))
      : box.slots.some((slot) => gradientOf(slot, step) !== undefined);
    const classes = ["box", box.kind, box.leaf ? "leaf" : "", known ? "known" : "", graded ? "graded" : ""];
    if (box === active || (box.leaf && box.number === shown.pinned) || (now.kind === "seed" && data.outputs.some((source) => view.nodeBoxes[source.node] === box))) classes.push(`now-${now.phase || "forward"}`);
    if (matches.has(box.leaf ? `l${box.number}` : box.key)) classes.push("match");
    box.group.setAttribute("class", classes.filter(Boolean).join(" "));
    if (box.value) box.value.textContent = step > box.number || box.hasShape ? box.lines[box.valueAt - 1] : "";
    if (box.gradient) box.gradient.textContent = gradientText(box.slots[0], step);
  }
  for (const edge of view.edges) {
    const used = "node" in now && edge.uses.some(([node, position]) => node === now.node && (now.kind === "forward" || now.dxs[position]));
    const known = edge.uses.some(([node]) => node < step);
    edge.path.setAttribute("class", `edge${used ? ` now-${now.phase}` : ""}${known ? " known" : ""}`);
    if (used) edge.path.parentNode.append(edge.path);
  }
}

function nextBox(direction) {  // skips the other steps in a folded module
  const from = boxNow();
  let step = shown.step + direction;
  while (step > 0 && step < film.length - 1 && from && from.kind === "module" && view.nodeBoxes[film[step].node] === from) step += direction;
  goTo(step);
}

// ---- looking: zoom and move -----------------------------------------------------------------------------------------

const camera = { x: 0, y: 0, k: 1 };
let dragged = false;

function look(change, glide = false) {
  Object.assign(camera, change);
  byId("world").setAttribute("class", glide ? "gliding" : "");
  byId("world").style.transform = `translate(${camera.x}px, ${camera.y}px) scale(${camera.k})`;
}

function fit() {
  const { clientWidth, clientHeight } = byId("stage"), { w, h } = view.root;
  const k = Math.min(1.6, (clientWidth - 40) / w, (clientHeight - 70) / h);
  look({ k, x: (clientWidth - k * w) / 2, y: Math.max(15, (clientHeight - 30 - k * h) / 2) });
}

function begin() {  // readable, if need be without showing all
  fit();
  const least = Math.min(0.8, (byId("stage").clientWidth - 20) / view.root.w);
  if (camera.k < 0.6) look({ k: Math.max(camera.k, least, 0.45), y: 20 });
  look({ x: (byId("stage").clientWidth - camera.k * view.root.w) / 2 });
}

function zoom(factor, x = byId("stage").clientWidth / 2, y = byId("stage").clientHeight / 2) {
  const k = Math.max(0.03, Math.min(5, camera.k * factor));
  look({ k, x: x - (x - camera.x) * k / camera.k, y: y - (y - camera.y) * k / camera.k });
}

function follow() {  // moves only if the box of this step is not in sight
  const box = boxNow();
  if (!box) return;
  const { clientWidth, clientHeight } = byId("stage"), margin = 30;
  const [left, top] = [camera.x + camera.k * box.x, camera.y + camera.k * box.y];
  const [right, bottom] = [left + camera.k * box.w, top + camera.k * box.h];
  const outside = left < margin || top < margin || right > clientWidth - margin || bottom > clientHeight - margin;
  if (outside) look({ x: camera.x + clientWidth / 2 - (left + right) / 2, y: camera.y + clientHeight / 2 - (top + bottom) / 2 }, true);
}
