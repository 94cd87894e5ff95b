"""A folded graph in Graphviz's language: data flows down, modules are frames, and colors show the kinds of boxes."""

from __future__ import annotations

import html
import os
from collections import Counter
from typing import Any

from tensorlib.graphs.backward_graph import is_backward
from tensorlib.graphs.colors import color_of_norm, ink_on
from tensorlib.graphs.folding import Arrow, Box, Frame, View, levels_of
from tensorlib.graphs.graph import Graph
from tensorlib.graphs.labels import Look, attribute_line, extra_lines, gradient_norm, number_text, value_lines
from tensorlib.graphs.legend import FAINT, INK, STYLES, cell, legend
from tensorlib.graphs.repeats import Repeat
from tensorlib.graphs.text_width import width_of
from tensorlib.messages import plural

__all__ = ["digraph", "import_graphviz"]

_BREAK = '<br/><font point-size="2"> <br/></font>'  # its gap keeps underscores off the next line
_MARGIN = 0.16 * 72  # of a box, on each side, in points
MOST_WITH_NUMBERS = 40  # boxes of a picture in which Python numbers are boxes, too; in larger ones they are text


def import_graphviz() -> Any:
    """Return the package graphviz, which only drawing needs. Raises ImportError with the remedy if it is missing."""
    try:
        import graphviz
    except ImportError:
        raise ImportError("draw: needs the Python package graphviz; pip install graphviz") from None
    return graphviz


def digraph(graph: Graph, view: View, look: Look | None = None) -> Any:
    """Return `view`, a folding of `graph`, as a ``graphviz.Digraph``."""
    return _Picture(graph, view, look or Look()).digraph()


class _Picture:
    def __init__(self, graph: Graph, view: View, look: Look) -> None:
        self.graph, self.view, self.look = graph, view, look
        values = [value for node in graph for value in node.outputs] + [leaf.value for leaf in graph.leaves]
        self.dtype = Counter(value.dtype for value in values).most_common(1)[0][0]  # shown in the legend alone
        self.draws_numbers = len(view.boxes) <= MOST_WITH_NUMBERS

    def digraph(self) -> Any:
        dot = import_graphviz().Digraph("tensorlib")
        rankdir = {"down": "TB", "right": "LR"}[self.look.direction]
        dot.attr(rankdir=rankdir, bgcolor="white", fontname="Helvetica", pad="0.25", nodesep="0.25", ranksep="0.35")
        if self.look.size:
            dot.attr(size=",".join(f"{inches:g}" for inches in self.look.size))
        dot.attr(label=legend(self.graph, self.view, self.look, self.dtype), labelloc="b", labeljust="l")
        dot.attr(fontsize="10", fontcolor=FAINT)
        dot.attr("node", fontname="Helvetica", fontsize="12", fontcolor=INK, margin="0.16,0.08", height="0.3")
        dot.attr("edge", color=FAINT, fontname="Helvetica", fontsize="9", fontcolor=FAINT, arrowsize="0.6")
        self.write_frame(dot, self.view.root, 0)
        for arrow in self.view.arrows:
            if self.graph.passes and is_backward(
                arrow.head.path
            ):  # gradients flow upwards, beside the forward pass that flows down
                dot.edge(arrow.head.key, arrow.tail.key, dir="back", **self.arrow_attributes(arrow))
            else:
                dot.edge(arrow.tail.key, arrow.head.key, **self.arrow_attributes(arrow))
        return dot

    def write_frame(self, dot: Any, frame: Frame, level: int) -> None:
        for box in frame.boxes:
            dot.node(box.key, **self.box_attributes(box))
            for position, number in self.numbers_of(box) if self.draws_numbers else ():
                key = f"{box.key}c{position}"
                text = _text(number_text(number))
                dot.node(key, label=f"<{text}>", tooltip=f"the number {text}", **STYLES["number"])
                dot.edge(key, box.key, style="dashed")
        for number, inner in enumerate(frame.frames):
            with dot.subgraph(name=f"cluster_{number}" if level == 0 else f"{dot.name}_{number}") as cluster:
                side = "r" if cluster.name in self.look.right_titles else "l"
                label = cell(f"<b>{_text(inner.title)}</b>", width_of(printable(inner.title), 11, bold=True))
                cluster.attr(label=f"<{label}>", tooltip=_plain(inner.path), labeljust=side, labelloc="t")
                cluster.attr(style="rounded,filled", fillcolor="#f8fafc" if level % 2 == 0 else "#ffffff")
                cluster.attr(color="#cbd5e1", fontsize="11", fontcolor=FAINT, margin="10")
                self.write_frame(cluster, inner, level + 1)

    # ---- boxes ----

    def box_attributes(self, box: Box) -> dict[str, str]:
        title, bold = _title(box), box.kind in ("op", "module", "repeat")
        style = dict(STYLES[box.kind])
        ink, faint = INK, FAINT
        if self.look.color == "gradient":
            norm = gradient_norm(box, self.graph)
            style["fillcolor"] = "white" if norm is None else color_of_norm(norm)
            ink = ink_on(style["fillcolor"] if norm is not None else "#ffffff", INK)
            faint = ink if norm is not None else FAINT
        small = [(line, ink) for line in self.lines_about_values(box)]
        small += [(line, faint) for line in self.faint_lines(box)]
        lines = [f"<b>{_text(title)}</b>" if bold else _text(title)]
        lines += [_small(_text(line), color) for line, color in small]
        widths = [width_of(printable(title), 12, bold), *[width_of(printable(line), 10) for line, _ in small]]
        attributes = {"label": f"<{_BREAK.join(lines)}>", "tooltip": _plain(_tooltip(box)), **style}
        attributes |= {"width": f"{(max(widths) + 2 * _MARGIN) / 72:.2f}"}
        attributes |= {"fontcolor": ink} if ink != INK else {}
        return attributes | ({"penwidth": "2.5"} if box.is_output else {})

    def lines_about_values(self, box: Box) -> list[str]:
        """Return the shapes of what leaves a box, but of scalars only their numbers if these are shown."""
        scalars = self.look.measures and all(value.shape == () for value in box.outputs)
        shapes = [] if scalars else value_lines(box.outputs, self.dtype)
        return shapes + extra_lines(box, self.graph, self.look.show)

    def faint_lines(self, box: Box) -> list[str]:
        lines = []
        if box.kind in ("module", "repeat"):
            parts = [*self.folded_ops(box), *_parameter_count(box), *_hidden_leaves(box)]
            lines += [" · ".join(parts)] if parts else []
        if box.node:
            lines += [line] if (line := attribute_line(box.node)) else []
            numbers = [number_text(number) for _, number in self.numbers_of(box)]
            lines += [f"with {', '.join(numbers)}"] if numbers and not self.draws_numbers else []
            lines += [os.path.basename(box.node.source)] if box.node.source else []
        return lines

    def numbers_of(self, box: Box) -> list[tuple[int, float]]:
        """Return the Python numbers among the inputs of a single op, with their positions."""
        inputs = box.node.inputs if box.node else ()
        return [(position, ref.number) for position, ref in enumerate(inputs) if ref.number is not None]

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

    # ---- arrows ----

    def arrow_attributes(self, arrow: Arrow) -> dict[str, str]:
        """Label an arrow with what its ends do not show: which of several outputs it carries, and how many edges."""
        parts = []
        several = len(arrow.tail.outputs) > 1
        if several and arrow.tail.node:
            parts.append(", ".join(f"[{n}]" for n in sorted(ref.output for ref in arrow.values)))
        if several and len(set(arrow.tail.outputs)) > 1:
            parts += value_lines([ref.value for ref in arrow.values], self.dtype)
        elif len(arrow.values) > 1 and not arrow.tail.node:
            parts.append(f"×{len(arrow.values)}")
        if len(arrow.values) == 1 and arrow.edges > 1 and arrow.head.node:
            parts.append(f"×{arrow.edges}")  # a + a
        faint = {"style": "dashed"} if arrow.tail.kind == "constant" else {}
        return ({"label": f"<&#160;{_text(' '.join(parts))}>"} if parts else {}) | faint


def _title(box: Box) -> str:
    """Return the title of a box, without the path that the title of its frame already shows."""
    if box.kind == "op" and box.node:
        names = " ".join(name for name in box.node.names if name)
        return f"{names} = {box.node.op}" if names else box.node.op
    if box.repeat:
        return _repeat_title(box, box.repeat)
    if box.leaf and not box.leaf.name and box.leaf.scalar is not None:
        return number_text(box.leaf.scalar)
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


def printable(text: str, limit: int = 60) -> str:
    """Escape control characters as Python does, and cut the middle out of a text over `limit` characters."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def _text(text: str) -> str:
    """Escape any text for an HTML-like label, where Graphviz still expands backslashes."""
    return html.escape(printable(text)).replace("\\", "\\\\") or "&#160;"


def _plain(text: str) -> str:
    """Escape text for a tooltip, where Graphviz expands backslashes once or twice, so a look-alike replaces them."""
    return import_graphviz().escape(html.escape(printable(text, 400)).replace("\\", "\N{REVERSE SOLIDUS OPERATOR}"))
