"use strict";
// Layout: boxes in rows, data flowing down, open modules as frames around their own rows (Sugiyama, Tagawa, Toda 1981).
//
// place(root, edges) sets x, y, w, h of every item below `root` and `points` of every edge. An item is a box
// {key, w, h, leaf} or a frame {key, children, title}; an edge is {from, to}, two boxes. Each frame is laid out by
// itself. An edge that leaves or enters it passes a port on its border, so that no edge crosses a box.

const GAP = { row: 26, column: 16, pad: 14, title: 22, lane: 9 };

function place(root, edges) {
  const chains = new Map();
  (function visit(item, chain) {
    const own = [...chain, item];
    chains.set(item, own);
    if (item.children) Object.assign(item, { links: new Map(), routes: new Map() });
    for (const child of item.children ?? []) visit(child, own);
  })(root, []);
  for (const edge of edges) splitAtFrames(edge, chains.get(edge.from), chains.get(edge.to));
  placeFrame(root);
  (function move(item, x, y) {
    item.x += x;
    item.y += y;
    for (const child of item.children ?? []) move(child, item.x, item.y);
  })(root, 0, 0);
  for (const edge of edges) {
    edge.points = edge.legs.flatMap(([frame, key]) => frame.routes.get(key).map(([x, y]) => [x + frame.x, y + frame.y]));
  }
}

function splitAtFrames(edge, up, down) {  // up, down: the items around both ends, outermost first
  let n = 0;
  while (up[n + 1] === down[n + 1]) n++;
  const source = edge.from.key;
  edge.legs = [];
  const leg = (frame, a, b) => {
    const key = `${a}|${b}|${source}`;
    frame.links.set(key, { a, b, source });
    edge.legs.push([frame, key]);
  };
  for (let i = up.length - 2; i > n; i--) leg(up[i], up[i + 1].key, `out ${source}`);
  leg(up[n], up[n + 1].key, down[n + 1].key);
  for (let i = n + 1; i < down.length - 1; i++) leg(down[i], `in ${source}`, down[i + 1].key);
}

function placeFrame(frame) {
  for (const child of frame.children) if (child.children) placeFrame(child);
  const vertices = new Map(frame.children.map((item) => [item.key, vertex(item.w, item.h, item)]));
  for (const { a, b } of frame.links.values()) {
    if (!vertices.has(a)) vertices.set(a, vertex(GAP.lane, 0, null, "in"));
    if (!vertices.has(b)) vertices.set(b, vertex(GAP.lane, 0, null, "out"));
  }
  const links = [...frame.links].map(([key, { a, b, source }]) => ({ key, a: vertices.get(a), b: vertices.get(b), source }));
  rank([...vertices.values()], links);
  const rows = rowsOf([...vertices.values()], links);
  order(rows);
  spread(rows);
  finish(frame, rows, links);
}

function vertex(w, h, item = null, port = "") {
  return { w, h, item, port, row: 0, x: 0, above: [], below: [] };
}

// ---- rows ----

function rank(vertices, links) {
  const waits = new Map(vertices.map((v) => [v, 0])), heads = new Map(vertices.map((v) => [v, []]));
  for (const { a, b } of links) {
    waits.set(b, waits.get(b) + 1);
    heads.get(a).push(b);
  }
  for (const v of vertices) v.row = v.port === "in" ? 0 : 1;
  const free = vertices.filter((v) => waits.get(v) === 0), first = [...free];
  while (free.length) {
    const v = free.pop();
    for (const head of heads.get(v)) {
      head.row = Math.max(head.row, v.row + 1);
      waits.set(head, waits.get(head) - 1);
      if (waits.get(head) === 0) free.push(head);
    }
  }
  for (const v of first) {  // what nothing points to is above its first user
    if (v.item && heads.get(v).length) v.row = Math.max(1, Math.min(...heads.get(v).map((head) => head.row)) - 1);
  }
  const last = Math.max(0, ...vertices.filter((v) => v.item).map((v) => v.row)) + 1;
  for (const v of vertices) if (v.port === "out") v.row = last;
}

function rowsOf(vertices, links) {  // with a lane for each edge in each row that it passes; edges of one source share it
  const rows = [];
  const add = (v) => (rows[v.row] ??= []).push(v);
  vertices.forEach(add);
  const lanes = new Map();
  for (const link of links) {
    link.lanes = [];
    let upper = link.a;
    for (let row = link.a.row + 1; row < link.b.row; row++) {
      const key = `${row} ${link.source}`;
      let lane = lanes.get(key);
      if (!lane) {
        lanes.set(key, lane = vertex(GAP.lane, 0));
        lane.row = row;
        add(lane);
        join(upper, lane, link.source);
      }
      link.lanes.push(upper = lane);
    }
    join(upper, link.b, link.source);
  }
  return Array.from(rows, (row) => row ?? []);
}

function join(upper, lower, source) {
  const from = upper.item?.children ? upper.item.exits.get(source) ?? 0 : 0;
  const to = lower.item?.children ? lower.item.entries.get(source) ?? 0 : 0;
  upper.below.push({ v: lower, own: from, other: to });
  lower.above.push({ v: upper, own: to, other: from });
}

function order(rows) {  // by the mean place of neighbours, downwards and upwards in turn; the best of all is kept
  rows.forEach((row) => row.forEach((v, i) => { v.place = i; }));
  let best = crossings(rows), kept = rows.map((row) => [...row]);
  for (let round = 0; round < 12 && best > 0; round++) {
    const down = round % 2 === 0, side = down ? "above" : "below";
    for (const row of down ? rows : [...rows].reverse()) {
      for (const v of row) {
        v.want = v[side].length ? v[side].reduce((sum, end) => sum + endPlace(end, rows), 0) / v[side].length : place01(v, rows);
      }
      row.sort((a, b) => a.want - b.want || a.place - b.place).forEach((v, i) => { v.place = i; });
    }
    const now = crossings(rows);
    if (now < best) [best, kept] = [now, rows.map((row) => [...row])];
  }
  kept.forEach((row, i) => { rows[i] = row; });
  rows.forEach((row) => row.forEach((v, i) => { v.place = i; }));
}

function endPlace({ v, other }, rows) {  // of a frame: of its port
  return place01(v, rows) + other / Math.max(v.w, 1) / rows[v.row].length;
}

function place01(v, rows) { return (v.place + 0.5) / rows[v.row].length; }

function crossings(rows) {
  let found = 0;
  for (const row of rows) {
    const port = (x, v) => x / Math.max(v.w, 1) * 0.9;
    const ends = row.flatMap((v) => v.below.map(({ v: w, own, other }) => [v.place + port(own, v), w.place + port(other, w)])).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    if (ends.length > 400) continue;  // counting them would take longer than it is worth
    for (let i = 0; i < ends.length; i++) {
      for (let j = 0; j < i; j++) if (ends[j][0] < ends[i][0] && ends[j][1] > ends[i][1]) found++;
    }
  }
  return found;
}

// ---- columns ----

function spread(rows) {  // near the neighbours, in the given order, without overlap
  for (const row of rows) {
    let x = 0;
    for (const v of row) {
      v.x = x + v.w / 2;
      x += v.w + gapAfter(v);
    }
    for (const v of row) v.x -= x / 2;
  }
  for (let round = 0; round < 16; round++) {
    const down = round % 2 === 0;
    for (const row of down ? rows : [...rows].reverse()) {
      const wants = row.map((v) => {
        const side = down ? v.above : v.below;
        const ends = sameKind(v, round < 14 && side.length ? side : [...v.above, ...v.below]);
        return ends.length ? ends.reduce((sum, { v: w, own, other }) => sum + w.x + other - own, 0) / ends.length : v.x;
      });
      nearest(row, wants).forEach((x, i) => { row[i].x = x; });
    }
  }
}

const WEIGHTS = { op: 1, port: 1, lane: 0.2, leaf: 0.005 };  // ops stay below each other, others make way

function kind(v) { return v.item ? (v.item.leaf ? "leaf" : "op") : v.port ? "port" : "lane"; }

function sameKind(v, ends) {  // ops below ops, lanes below lanes: otherwise a column drifts sideways, row after row
  const same = ends.filter((end) => (kind(end.v) === "lane") === (kind(v) === "lane") && kind(end.v) !== "leaf");
  return same.length ? same : ends;
}

function gapAfter(v) { return v.item ? GAP.column : GAP.lane; }

function nearest(row, wants) {  // least squares without overlap: pool neighbours that would collide
  const offsets = [0];
  for (let i = 1; i < row.length; i++) {
    const gap = Math.max(gapAfter(row[i - 1]), gapAfter(row[i]));
    offsets.push(offsets[i - 1] + row[i - 1].w / 2 + gap + row[i].w / 2);
  }
  const pools = [];
  wants.forEach((want, i) => {
    const weight = WEIGHTS[kind(row[i])];
    let pool = { sum: weight * (want - offsets[i]), weight, count: 1 };
    while (pools.length && pools.at(-1).sum / pools.at(-1).weight > pool.sum / pool.weight) {
      const left = pools.pop();
      pool = { sum: left.sum + pool.sum, weight: left.weight + pool.weight, count: left.count + pool.count };
    }
    pools.push(pool);
  });
  return pools.flatMap((pool) => Array(pool.count).fill(pool.sum / pool.weight)).map((x, i) => x + offsets[i]);
}

// ---- coordinates ----

function finish(frame, rows, links) {
  const all = rows.flat();
  const left = Math.min(...all.map((v) => v.x - v.w / 2)), right = Math.max(...all.map((v) => v.x + v.w / 2));
  const inside = Math.max(right - left, (frame.titleWidth ?? 0));
  frame.w = inside + 2 * GAP.pad;
  for (const v of all) v.x += GAP.pad - left + (inside - (right - left)) / 2;
  let y = frame.title ? GAP.title + GAP.pad / 2 : 0;
  rows.forEach((row, i) => {
    const height = Math.max(0, ...row.map((v) => v.h)), isPorts = row.every((v) => v.port);
    if (row.some((v) => v.port === "in")) row.top = row.bottom = 0;
    else if (isPorts && row.length) row.top = row.bottom = y - GAP.row + GAP.pad;
    else if (row.length) {
      [row.top, row.bottom] = [y, y + height];
      y += height + GAP.row;
    }
    for (const v of row) {
      v.top = row.top + (v.item?.leaf ? height - v.h : (height - v.h) / 2);
      if (v.item) Object.assign(v.item, { x: v.x - v.w / 2, y: v.top });
    }
  });
  frame.h = Math.max(y - GAP.row, 0) + GAP.pad;
  for (const row of rows) if (row.length && row.every((v) => v.port === "out")) row.top = row.bottom = frame.h;
  frame.x = frame.y = 0;
  const center = frame.w / 2;
  frame.entries = new Map();
  frame.exits = new Map();
  for (const { a, b, source } of links) {
    if (a.port === "in") frame.entries.set(source, a.x - center);
    if (b.port === "out") frame.exits.set(source, b.x - center);
  }
  fanIn(links);
  for (const link of links) frame.routes.set(link.key, route(link, rows));
}

function fanIn(links) {  // edges into one box end beside each other, in the order in which they come
  const into = new Map();
  for (const link of links) if (link.b.item && !link.b.item.children) into.set(link.b, [...(into.get(link.b) ?? []), link]);
  for (const [box, arriving] of into) {
    arriving.sort((p, q) => (p.lanes.at(-1) ?? p.a).x - (q.lanes.at(-1) ?? q.a).x);
    const step = Math.min(14, (box.w - 16) / arriving.length);
    arriving.forEach((link, i) => { link.end = (i - (arriving.length - 1) / 2) * step; });
  }
}

function route({ a, b, source, lanes, end = 0 }, rows) {
  const from = a.x + (a.item?.children ? a.item.exits.get(source) ?? 0 : 0);
  const to = b.x + (b.item?.children ? b.item.entries.get(source) ?? 0 : end);
  const points = [[from, a.item ? a.top + a.h : rows[a.row].bottom], [from, rows[a.row].bottom]];
  for (const lane of lanes) points.push([lane.x, rows[lane.row].top], [lane.x, rows[lane.row].bottom]);
  points.push([to, rows[b.row].top], [to, b.item ? b.top : rows[b.row].top]);
  return points;
}

function curve(points, shift = 0) {  // straight within a row, curved between rows
  let d = "", last = null;
  for (const [px, y] of points) {
    const x = px + shift;
    if (last && Math.abs(x - last[0]) < 0.05 && Math.abs(y - last[1]) < 0.05) continue;  // an arrowhead needs a direction
    if (!last) d = `M${x.toFixed(1)} ${y.toFixed(1)}`;
    else if (Math.abs(x - last[0]) < 0.5) d += `L${x.toFixed(1)} ${y.toFixed(1)}`;
    else {
      const middle = ((y + last[1]) / 2).toFixed(1);
      d += `C${last[0].toFixed(1)} ${middle} ${x.toFixed(1)} ${middle} ${x.toFixed(1)} ${y.toFixed(1)}`;
    }
    last = [x, y];
  }
  return d;
}
