"""A folded graph in Graphviz's language: data flows down, modules are frames, and colors show the kinds of boxes."""

from __future__ import annotations

import html
import os
from collections import Counter
from typing import Any

from tensorlib.graphs.folding import Arrow, Box, Frame, View, levels_of
from tensorlib.graphs.graph import Graph, GraphValue
from tensorlib.graphs.repeats import Repeat
from tensorlib.messages import plural

__all__ = ["digraph", "import_graphviz"]

_INK, _FAINT = "#1e293b", "#64748b"
_BREAK = '<br/><font point-size="2"> <br/></font>'  # its gap keeps underscores off the next line
_STYLES: dict[str, dict[str, str]] = {
    "op": {"shape": "box", "style": "rounded,filled", "fillcolor": "#f1f5f9", "color": "#94a3b8"},
    "module": {"shape": "box", "style": "rounded,filled", "fillcolor": "#e0e7ff", "color": "#6366f1"},
    "repeat": {
        "shape": "box",
        "style": "rounded,filled",
        "fillcolor": "#f3e8ff",
        "color": "#9333ea",
        "peripheries": "2",
    },
    "parameter": {"shape": "box", "style": "filled", "fillcolor": "#fef3c7", "color": "#d97706"},
    "input": {"shape": "box", "style": "rounded,filled", "fillcolor": "#dcfce7", "color": "#16a34a"},
    "constant": {"shape": "box", "style": "rounded,filled,dashed", "fillcolor": "white", "color": "#94a3b8"},
}


def import_graphviz() -> Any:
    """Return the package graphviz, which only drawing needs. Raises ImportError with the remedy if it is missing."""
    try:
        import graphviz
    except ImportError:
        raise ImportError("draw: needs the Python package graphviz; pip install graphviz") from None
    return graphviz


def digraph(graph: Graph, view: View) -> Any:
    """Return `view`, a folding of `graph`, as a ``graphviz.Digraph``."""
    return _Picture(graph, view).digraph()


class _Picture:
    def __init__(self, graph: Graph, view: View) -> None:
        self.graph, self.view = graph, view
        values = [value for node in graph for value in node.outputs] + [leaf.value for leaf in graph.leaves]
        self.dtype = Counter(value.dtype for value in values).most_common(1)[0][0]  # shown in the legend alone

    def digraph(self) -> Any:
        dot = import_graphviz().Digraph("tensorlib")
        dot.attr(rankdir="TB", bgcolor="white", fontname="Helvetica", pad="0.25", nodesep="0.25", ranksep="0.35")
        dot.attr(label=self.legend(), labelloc="b", labeljust="l", fontsize="10", fontcolor=_FAINT)
        dot.attr("node", fontname="Helvetica", fontsize="12", fontcolor=_INK, margin="0.16,0.08", height="0.3")
        dot.attr("edge", color=_FAINT, fontname="Helvetica", fontsize="9", fontcolor=_FAINT, arrowsize="0.6")
        self.write_frame(dot, self.view.root, 0)
        for arrow in self.view.arrows:
            dot.edge(arrow.tail.key, arrow.head.key, **self.arrow_attributes(arrow))
        return dot

    def write_frame(self, dot: Any, frame: Frame, level: int) -> None:
        for box in frame.boxes:
            dot.node(box.key, **self.box_attributes(box))
        for number, inner in enumerate(frame.frames):
            with dot.subgraph(name=f"cluster_{number}" if level == 0 else f"{dot.name}_{number}") as cluster:
                cluster.attr(
                    label=f"<<b>{_text(inner.title)}</b>>", tooltip=_plain(inner.path), labeljust="l", labelloc="t"
                )
                cluster.attr(style="rounded,filled", fillcolor="#f8fafc" if level % 2 == 0 else "#ffffff")
                cluster.attr(color="#cbd5e1", fontsize="11", fontcolor=_FAINT, margin="10")
                self.write_frame(cluster, inner, level + 1)

    # ---- boxes ----

    def box_attributes(self, box: Box) -> dict[str, str]:
        title = _text(_title(box))
        lines = [f"<b>{title}</b>" if box.kind in ("op", "module", "repeat") else title]
        lines += [_small(_text(line), _INK) for line in self.value_lines(box.outputs)]
        if box.kind in ("module", "repeat"):
            parts = [*self.folded_ops(box), *_parameter_count(box), *_hidden_leaves(box)]
            lines += [_small(_text(" · ".join(parts)), _FAINT)] if parts else []
        if box.node and box.node.source:
            lines.append(_small(_text(os.path.basename(box.node.source)), _FAINT))
        attributes = {"label": f"<{_BREAK.join(lines)}>", "tooltip": _plain(_tooltip(box)), **_STYLES[box.kind]}
        return attributes | ({"penwidth": "2.5"} if box.is_output else {})

    def folded_ops(self, box: Box) -> list[str]:
        """Return the number of ops in a folded module, or its only op, unless the title already names this op.

        For a repeat, return the ops of one step, or their number.
        """
        if box.repeat:
            ops = box.repeat.ops
            of_one_step = ", ".join(ops) if len(ops) <= 4 else plural(len(ops), "op")
            return [f"{box.repeat.steps} × {of_one_step}"] if ops else []
        if box.ops > 1:
            return [plural(box.ops, "op")]
        return [box.node.op] if box.node and box.node.op != _title(box) else []

    def value_lines(self, values: list[GraphValue]) -> list[str]:
        """Return one line for each distinct value, at most four."""
        counted = Counter(values)
        lines = [f"{n} × {self.value_text(value)}" if n > 1 else self.value_text(value) for value, n in counted.items()]
        return lines if len(lines) <= 4 else [*lines[:3], f"and {len(lines) - 3} other shapes"]

    def value_text(self, value: GraphValue) -> str:
        shape = str(value.shape) if value.shape else "scalar"
        return shape if value.dtype == self.dtype else f"{shape} {value.dtype}"

    # ---- arrows and legend ----

    def arrow_attributes(self, arrow: Arrow) -> dict[str, str]:
        """Label an arrow with what its ends do not show: which of several outputs it carries, and how many edges."""
        parts = []
        several = len(arrow.tail.outputs) > 1
        if several and arrow.tail.node:
            parts.append(", ".join(f"[{n}]" for n in sorted(ref.output for ref in arrow.values)))
        if several and len(set(arrow.tail.outputs)) > 1:
            parts += self.value_lines([ref.value for ref in arrow.values])
        elif len(arrow.values) > 1 and not arrow.tail.node:
            parts.append(f"×{len(arrow.values)}")
        if len(arrow.values) == 1 and arrow.edges > 1 and arrow.head.node:
            parts.append(f"×{arrow.edges}")  # a + a
        faint = {"style": "dashed"} if arrow.tail.kind == "constant" else {}
        return ({"label": f"<&#160;{_text(' '.join(parts))}>"} if parts else {}) | faint

    def legend(self) -> str:
        """Return a row with a swatch of each kind that occurs, and a line about the whole graph."""
        kinds = {box.kind for box in self.view.boxes}
        cells = []
        for kind, style in _STYLES.items():
            if kind in kinds:
                name = {"module": "folded module", "repeat": "folded repeats"}.get(kind, kind)
                look = ",".join(word for word in style["style"].split(",") if word != "filled")
                look = f'style="{look}"' if look else ""
                cells.append(
                    f'<td border="1" color="{style["color"]}" bgcolor="{style["fillcolor"]}" {look}>{name}</td>'
                )
        cells.append("<td>bold rim: result</td>")
        swatches = f'<table border="0" cellspacing="5" cellpadding="3"><tr>{"".join(cells)}</tr></table>'
        about = html.escape(f"{self.graph.headline()}; {self.dtype} unless marked")
        rows = "".join(f'<tr><td align="left">{row}</td></tr>' for row in (swatches, about))
        return f'<<table border="0" cellspacing="0" cellpadding="0">{rows}</table>>'


def _title(box: Box) -> str:
    """Return the title of a box, without the path that the title of its frame already shows."""
    if box.kind == "op" and box.node:
        return box.node.op
    if box.repeat:
        return _repeat_title(box, box.repeat)
    name = box.leaf.name or box.kind if box.leaf else box.path
    return name.removeprefix(f"{box.frame.path}.") if box.frame.path else name


def _repeat_title(box: Box, repeat: Repeat) -> str:
    """Return "layers.1 … layers.10" if each step is a module of its own, otherwise how many steps there are."""
    if not repeat.nodes:
        return f"{repeat.steps} more {next(iter(box.hidden))}s"
    level = len(levels_of(box.frame.path))
    first, last = [levels_of(node.path)[level : level + 1] for node in (repeat.nodes[0], repeat.nodes[-1])]
    return f"{first[0]} … {last[0]}" if first and last and first != last else f"{repeat.steps} more steps"


def _hidden_leaves(box: Box) -> list[str]:
    """Return the numbers of inputs and constants in a repeat of steps; of parameters, the elements are counted."""
    if not box.repeat or not box.repeat.nodes:
        return []
    return [plural(n, kind) for kind, n in box.hidden.items() if kind != "parameter"]


def _parameter_count(box: Box) -> list[str]:
    return [plural(box.parameters, "parameter")] if box.parameters else []


def _tooltip(box: Box) -> str:
    if box.leaf:
        return f"{box.kind} {box.leaf.name} {box.leaf.value}"
    if box.repeat:
        return ", ".join([_title(box), plural(box.ops, "op"), *_parameter_count(box), *_hidden_leaves(box)])
    if not box.node:
        return ", ".join([f"module {box.path}: {plural(box.ops, 'op')}", *_parameter_count(box)])
    where = f" in {box.path}" if box.path else ""
    line = f" at {box.node.source}" if box.node.source else ""
    return f"{box.node.op}{where}{line}, keeps {box.node.saved_bytes:,} bytes for backward"


def _small(markup: str, color: str) -> str:
    return f'<font point-size="10" color="{color}">{markup}</font>'


def _printable(text: str, limit: int) -> str:
    """Escape control characters as Python does, and cut the middle out of a text over `limit` characters."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def _text(text: str) -> str:
    """Escape any text for an HTML-like label, where Graphviz still expands backslashes."""
    return html.escape(_printable(text, 60)).replace("\\", "\\\\") or "&#160;"


def _plain(text: str) -> str:
    """Escape text for a tooltip, where Graphviz expands backslashes once or twice, so a look-alike replaces them."""
    return import_graphviz().escape(html.escape(_printable(text, 400)).replace("\\", "\N{REVERSE SOLIDUS OPERATOR}"))
