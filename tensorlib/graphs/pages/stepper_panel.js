// ---- the panel: what happens in this step ---------------------------------------------------------------------------

function link(source) {
  if ("number" in source) return element("b", {}, source.number);
  const made = element("button", { className: "link", type: "button", title: "run to it" }, clipped(nameOf(source), 80));
  made.addEventListener("click", () => "leaf" in source ? pin(source.leaf) : runTo(source.node));
  return made;
}

function showPanel() {
  const now = film[shown.step], panel = byId("panel");
  const parts = shown.pinned !== null ? leafPanel(shown.pinned)
    : { start: startPanel, forward: forwardPanel, seed: seedPanel, backward: backwardPanel, end: endPanel }[now.kind](now);
  panel.replaceChildren(...parts.filter(Boolean));
  panel.scrollTop = 0;
}

function heading(phase, label, title, where = "") {
  return element("div", {}, element("div", { className: `phase ${phase}` }, label), element("h2", {}, title),
    where ? element("p", { className: "where" }, where) : null);
}

function opHeading(phase, label, number) {
  const node = data.nodes[number];
  return heading(phase, label, titleOf(number), [node.path ? `in ${node.path}` : "", node.source].filter(Boolean).join(" · "));
}

function startPanel() {
  return [
    heading("", "Start", "What is given"),
    element("p", {}, `The leaves have values. Now ${count(data.nodes.length, "op")} run forward, then the gradient flows back. Press → for a step, ? for all keys.`),
    ...data.notes.map((note) => element("p", { className: "soft" }, note)),
    ...leafFigures((leaf) => leaf.value),
  ];
}

function leafFigures(numberOf) {
  const kept = data.leaves.map((leaf, i) => [leaf, i]).filter(([leaf]) => numberOf(leaf) !== null);
  const first = kept.slice(0, 12).map(([leaf, i]) => figure([link({ leaf: i })], numberOf(leaf), leaf.name ? ` ${leaf.kind}` : ""));
  return kept.length > 12 ? [...first, element("p", { className: "soft" }, `and ${kept.length - 12} more: click their boxes`)] : first;
}

function forwardPanel({ node: number }) {
  const node = data.nodes[number], op = data.ops[node.op];
  return [
    opHeading("forward", `Forward, op ${number + 1} of ${data.nodes.length}`, number),
    rule("Formula", "forward", op.formula),
    attributes(node),
    element("h3", {}, node.outputs.length > 1 ? "Results" : "Result"),
    ...node.outputs.map((array, output) => figure([element("b", {}, nameOf({ node: number, output }))], array)),
    element("h3", {}, node.inputs.length > 1 ? "Inputs" : "Input"),
    ...node.inputs.map((source) => "number" in source ? element("p", {}, link(source)) : figure([link(source)], valueOf(source))),
    code(op, ["forward"]),
    hop(number, "Run to its gradient", backwardStep.get(number)),
  ];
}

function seedPanel() {
  return [
    heading("backward", "Backward begins", data.outputs.map((source) => `${gradientName(source)} = 1`).join(", ")),
    element("p", {}, "The gradient of the result with respect to itself. From here it flows back, from each op to its inputs, in the reverse of the order in which the ops ran: an op runs when all its consumers have delivered."),
    ...data.notes.map((note) => element("p", { className: "soft" }, note)),
    ...data.outputs.map((source, i) => figure([link(source)], data.begun[i].dx)),
  ];
}

function backwardPanel({ node: number, dys, dxs }) {
  const node = data.nodes[number], op = data.ops[node.op], place = shown.step - SEED;
  return [
    opHeading("backward", `Backward, op ${place} of ${data.backward.length}`, number),
    rule("Formula, and the gradient rule", "forward", op.formula),
    op.gradient ? rule("", "backward", op.gradient) : null,
    attributes(node),
    element("h3", {}, dys.length > 1 ? "Gradients that arrive" : "Gradient that arrives"),
    ...dys.flatMap((array, output) => incoming({ node: number, output }, array)),
    element("h3", {}, "Gradients that it passes on"),
    ...dxs.map((given, position) => given ? outgoing(node.inputs[position], given, position, number) : null),
    dxs.some((given) => !given) ? element("p", { className: "soft" }, `No gradient is wanted for ${node.inputs.filter((_, i) => !dxs[i]).map((source) => clipped(nameOf(source), 60)).join(", ")}.`) : null,
    details("Values", [
      ...node.outputs.map((array, output) => figure([element("b", {}, nameOf({ node: number, output }))], array, " result")),
      ...node.inputs.filter((source) => !("number" in source)).map((source) => figure([link(source)], valueOf(source), " input")),
    ]),
    code(op, ["backward"]),
    hop(number, "Run back to its forward step", number + 1),
  ];
}

function incoming(source, array) {
  const parts = arrived(slotOf(source), shown.step);
  const name = gradientName(source);
  if (parts.length < 2) return [figure([element("b", {}, name), parts[0] ? from(parts[0]) : " (none: zeros)"], array)];
  return [element("p", {}, element("b", {}, name), `: ${parts.length} contributions add up, and flow on once`), sum(parts, array)];
}

function from(part) {
  if (part.node === null) return " the seed";
  return element("span", {}, " from ", link({ node: part.node, output: 0 }), data.nodes[part.node].inputs.length > 1 ? ` input ${part.position + 1}` : "");
}

function sum(parts, total) {
  const terms = parts.slice(0, 6).flatMap((part, i) => [i ? element("b", {}, "+") : null, figure([from(part)], part.dx, "", true)]);
  if (parts.length > 6) terms.push(element("b", {}, `+ … (${parts.length - 6} more)`));
  return element("div", { className: "sum" }, ...terms, element("b", {}, "="), figure([element("b", {}, "sum")], total, "", true));
}

function outgoing(source, given, position, number) {
  const all = contributions.get(slotOf(source)), index = all.findIndex((part) => part.step === shown.step && part.position === position);
  const inputs = data.nodes[number].inputs.length;
  const box = element("div", { className: "adds" }, figure(["to ", link(source), inputs > 1 ? ` (input ${position + 1})` : ""], given.dx));
  if (all.length < 2) return box;
  box.append(element("p", { className: "soft" }, `${ordinal(index + 1)} of ${all.length} contributions to this gradient${index ? "; the sum is now:" : "; others follow"}`));
  if (index) box.append(sum(all.slice(0, index + 1), given.total));
  return box;
}

function endPanel() {
  return [
    heading("backward", "End", "The gradients of the leaves"),
    element("p", {}, "This is what backward() adds to .grad."),
    ...leafFigures((leaf) => leaf.gradient),
  ];
}

function leafPanel(number) {
  const leaf = data.leaves[number], parts = arrived(`l${number}`, shown.step), all = contributions.get(`l${number}`) ?? [];
  const uses = data.nodes.flatMap((node, n) => node.inputs.some((source) => source.leaf === number) ? [n] : []);
  return [
    heading("", leaf.kind, nameOf({ leaf: number })),
    figure([element("b", {}, "value")], leaf.value),
    element("p", { className: "soft" }, "used by ", ...uses.slice(0, 8).flatMap((n, i) => [i ? ", " : "", link({ node: n, output: 0 })]), uses.length > 8 ? ` and ${uses.length - 8} more` : ""),
    leaf.gradient === null ? element("p", { className: "soft" }, "It gets no gradient.") : element("h3", {}, `Gradient: ${parts.length} of ${count(all.length, "contribution")} so far`),
    parts.length > 1 ? sum(parts, parts.at(-1).total) : parts.length ? figure([from(parts[0])], parts[0].dx) : null,
  ];
}

function rule(title, phase, text) {
  const lines = text.replace(/([^;:\n])\n(?!=>|\n)/g, "$1 ");  // without the source's line ends, which do not fit here
  const box = element("div", { className: `rule ${phase}` }, lines || "This op has no docstring: see its source below.");
  return title ? element("div", {}, element("h3", {}, title), box) : box;
}

function attributes(node) {
  if (!node.attributes.length) return null;
  return element("dl", { className: "attributes" }, ...node.attributes.flatMap(({ name, text, array }) => [
    element("dt", {}, name), element("dd", {}, array === undefined ? text : picture(data.arrays[array])),
  ]));
}

function code(op, first) {
  const sorted = [...op.code].sort((a, b) => first.includes(b.title) - first.includes(a.title));
  return details("Source", [
    ...sorted.flatMap(({ place, text }) => [element("div", { className: "soft" }, place), element("pre", {}, text)]),
    sorted.length ? null : element("p", { className: "soft" }, "The source of this op is not in a file."),
    op.notes ? element("p", { className: "soft" }, op.notes) : null,
  ]);
}

const opened = new Set();  // the folds that stay open from step to step

function details(title, children) {
  const made = element("details", { open: opened.has(title) }, element("summary", {}, title), ...children);
  made.addEventListener("toggle", () => made.open ? opened.add(title) : opened.delete(title));
  return made;
}

function hop(number, label, step) {
  if (step === undefined) return null;
  const made = element("button", { type: "button" }, label);
  made.addEventListener("click", () => goTo(step));
  return element("p", {}, made);
}

function count(n, noun) { return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`; }
function ordinal(n) { return `${n}${["th", "st", "nd", "rd"][n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] ?? "th"}`; }
