// ---- values: numbers in a table, large arrays as heat maps --------------------------------------------------------

function element(tag, properties = {}, ...children) {  // children: elements or text, never markup
  const { className = "", ...others } = properties;
  const made = Object.assign(document.createElement(tag), others);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function short(x) {  // four digits
  if (typeof x === "string") return { nan: "NaN", inf: "∞", "-inf": "−∞" }[x] ?? x;
  if (Number.isInteger(x) && Math.abs(x) < 1e6) return String(x).replace("-", "−");
  const size = Math.abs(x);
  const text = size >= 1e5 || size < 1e-3 ? x.toExponential(2).replace("e+", "e") : String(Number(x.toPrecision(4)));
  return text.replace(/-/g, "−");
}

function shapeText(array) { return array.shape.length ? `(${array.shape.join(", ")}${array.shape.length === 1 ? "," : ""})` : "scalar"; }

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function colour(t) {  // t from -1 to 1: blue, paper, orange
  const paper = isDark() ? [29, 33, 38] : [250, 250, 250];
  const full = t < 0 ? (isDark() ? [77, 155, 255] : [28, 92, 190]) : (isDark() ? [255, 150, 80] : [204, 84, 8]);
  const weight = Math.min(1, Math.abs(t)) ** 0.8;
  return paper.map((c, i) => Math.round(c + (full[i] - c) * weight));
}

function ink(rgb) { return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140 ? "#111" : "#fff"; }

function picture(array, most = 190) { return array.values ? table(array) : heatMap(array, most); }

function table(array) {
  const columns = array.shape.at(-1) ?? 1, rows = columns ? array.values.length / columns : 0;
  const inBlock = array.shape.length > 2 ? array.shape.at(-2) : 0;
  const top = Math.max(...array.values.map((x) => typeof x === "number" ? Math.abs(x) : 0), 1e-300);
  const body = element("table");
  for (let row = 0; row < rows; row++) {
    const line = element("tr", { className: inBlock && row && row % inBlock === 0 ? "gap" : "" });
    for (let column = 0; column < columns; column++) {
      const x = array.values[row * columns + column];
      const cell = element("td", { title: String(x), className: array.values.length === 1 ? "single" : "" }, short(x));
      if (array.values.length > 1) {
        const rgb = colour(typeof x === "number" ? x / top : 0);
        cell.style.background = typeof x === "number" ? `rgb(${rgb})` : "repeating-linear-gradient(45deg, #c33 0 3px, #0000 3px 6px)";
        cell.style.color = typeof x === "number" ? ink(rgb) : "";
      }
      line.append(cell);
    }
    body.append(line);
  }
  return element("div", { className: "numbers" }, array.values.length ? body : "no elements");
}

function heatMap(array, most) {  // most: pixels
  const { rows, columns, top, data } = array.cells;
  const levels = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const size = Math.max(3, Math.min(14, Math.floor(most / Math.max(rows, columns))));
  const isWhole = rows === array.shape.slice(0, -1).reduce((a, b) => a * b, 1);
  const inBlock = isWhole && array.shape.length > 2 ? array.shape.at(-2) : rows, gap = 4;  // between matrices
  const topOf = (row) => row * size + Math.floor(row / inBlock) * gap;
  const canvas = element("canvas", { width: columns * size, height: topOf(rows - 1) + size });
  const context = canvas.getContext("2d");
  levels.forEach((level, i) => {
    const row = Math.floor(i / columns), column = i % columns;
    context.fillStyle = level ? `rgb(${colour((level - 128) / 127)})` : (row + column) % 2 ? "#c33" : "#fcc";
    context.fillRect(column * size, topOf(row), size, size);
  });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `heat map of ${shapeText(array)}: ${statistics(array)}`);
  canvas.addEventListener("pointermove", (event) => {
    const column = Math.min(columns - 1, Math.floor(event.offsetX / canvas.clientWidth * columns));
    const y = event.offsetY / canvas.clientHeight * canvas.height;
    const row = Math.max(0, Array.from({ length: rows }, (_, r) => r).findLastIndex((r) => topOf(r) <= y));
    const level = levels[row * columns + column];
    canvas.title = `row ${row}, column ${column} of ${rows} x ${columns} cells: ${level ? `about ${short((level - 128) / 127 * top)}` : "not finite"}`;
  });
  return canvas;
}

function statistics(array) {
  const parts = ["min", "max", "mean"].filter((name) => name in array).map((name) => `${name} ${short(array[name])}`);
  if ("norm" in array) parts.push(`norm ${short(array.norm)}`);
  if (array.nonfinite) parts.push(`${array.nonfinite} not finite`);
  return parts.join(" · ");
}

function figure(caption, number, extra = "", inSum = false) {
  const array = data.arrays[number];
  const many = !array.values || array.values.length > 1;
  return element("figure", { className: "value" },
    element("figcaption", {}, ...caption, " ", element("span", { className: "shape" },
      shapeText(array) + (array.dtype === "float32" ? "" : ` ${array.dtype}`) + extra)),
    picture(array, inSum ? 130 : 190), many ? element("div", { className: "stats" }, inSum ? `norm ${short(array.norm ?? "nan")}` : statistics(array)) : null);
}
