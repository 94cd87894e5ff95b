"""The record as a picture: data flows down, modules are frames, and what lies deeper than asked is folded."""

from __future__ import annotations

import html
import os
import shutil
import sysconfig
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorlib.exchange.safetensors import write_atomically
from tensorlib.graphs.folding import Arrow, Box, Frame, View, fold, levels_of
from tensorlib.graphs.graph import Graph, Value, graph, plural
from tensorlib.tensor import Tensor

__all__ = ["draw"]

LIMIT = 1000  # boxes: dot takes 1 s for 735 of a Transformer, 20 s for 1,343, 200 s for 1,935; and who can read them?

_SOURCE = (".dot", ".gv")
_RENDERED = {"dot": (".svg", ".png", ".pdf", ".jpg"), "graphviz-pure": (".svg", ".png", ".jpg")}

_INK, _FAINT = "#1e293b", "#64748b"
_BREAK = '<br/><font point-size="2"> <br/></font>'  # with a little air, or underscores touch the line below
_STYLES: dict[str, dict[str, str]] = {
    "op": {"shape": "box", "style": "rounded,filled", "fillcolor": "#f1f5f9", "color": "#94a3b8"},
    "module": {"shape": "box", "style": "rounded,filled", "fillcolor": "#e0e7ff", "color": "#6366f1"},
    "parameter": {"shape": "box", "style": "filled", "fillcolor": "#fef3c7", "color": "#d97706"},
    "input": {"shape": "box", "style": "rounded,filled", "fillcolor": "#dcfce7", "color": "#16a34a"},
    "constant": {"shape": "box", "style": "rounded,filled,dashed", "fillcolor": "white", "color": "#94a3b8"},
}


def draw(
    y: Tensor | Sequence[Tensor] | Graph,
    path: str | os.PathLike[str],
    depth: int | None = 2,
    *,
    names: Mapping[str, Any] | None = None,
) -> Path:
    """Draw how `y` was computed, before ``backward()`` releases the record, and return the path of the picture.

    Args:
        y: a Tensor, several, or a `Graph`.
        path: the file to write. Its suffix tells the format: .svg, .png, .jpg, .pdf (not with graphviz-pure), or .dot
            and .gv for Graphviz source, which needs no renderer.
        depth: so many levels of modules are shown as frames, nested ones in them, and those deeper are folded into
            one box each. None folds nothing. In "encoder.layers.0.norm", "layers.0" is one level.
        names: names for leaves that no module has named: ``names={"x": x}``, or simply ``names=locals()``.
    """
    target = Path(path)
    if depth is not None and (not isinstance(depth, int) or depth < 0):
        raise ValueError(f"draw: depth must be a whole number from 0, or None for everything; got {depth!r}")
    command = None if target.suffix.lower() in _SOURCE else _renderer_for(target)
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"draw: {target}: there is no folder {target.parent}")
    record = y if isinstance(y, Graph) else graph(y, names)
    view = fold(record, depth)
    if command is not None and len(view.boxes) > LIMIT:
        raise ValueError(_too_many(record, view, depth))
    source = _Picture(record, view).digraph()
    write_atomically(target, source.source.encode() if command is None else _render(source, target, command))
    return target


def _too_many(record: Graph, view: View, depth: int | None) -> str:
    message = f"draw: {len(view.boxes):,} boxes at depth={depth} are more than the {LIMIT:,} that can be drawn; "
    deepest = max((len(levels_of(node.path)) for node in record), default=0)
    for fewer in reversed(range(deepest if depth is None else min(depth, deepest))):
        if (n := len(fold(record, fewer).boxes)) <= LIMIT:
            return message + f"pass depth={fewer}, which shows {n:,}, or write a .dot file"
    return message + "no smaller depth folds enough of them away; draw a smaller part, or write a .dot file"


# ---- rendering -----------------------------------------------------------------------------------------------

_DOT_BINARY = threading.Lock()


def _find_renderer() -> tuple[str, str] | None:
    """Return the name and the command of the renderer that is there: `dot`, else graphviz-pure; None if neither is."""
    if command := shutil.which("dot"):
        return "dot", command
    beside_python = sysconfig.get_path("scripts")  # not on the PATH if a virtual environment is not activated
    if command := shutil.which("graphviz-pure") or shutil.which("graphviz-pure", path=beside_python):
        return "graphviz-pure", command
    return None


def _renderer_for(target: Path) -> str:
    found = _find_renderer()
    suffixes = _RENDERED[found[0]] if found else (".svg", ".png", ".jpg")
    if target.suffix.lower() not in suffixes:
        known = ", ".join(suffixes + _SOURCE)
        by = f" with the renderer here, {found[0]}" if found else ""
        raise ValueError(f"draw: the suffix of {target} must be one of {known}{by}; got {target.suffix or 'none'}")
    if found is None:
        raise RuntimeError(
            f"draw: {target} needs Graphviz or graphviz-pure, and neither is installed; "
            "pip install graphviz-pure (or install Graphviz, for its `dot`), or write a .dot file"
        )
    return found[1]


def _graphviz() -> Any:
    try:
        import graphviz
    except ImportError:
        raise ImportError("draw: needs the Python package graphviz; pip install graphviz") from None
    return graphviz


def _render(source: Any, target: Path, command: str) -> bytes:
    """Return the picture. graphviz reads the command to run from a module global: it is put back at once."""
    graphviz = _graphviz()
    from graphviz.backend import dot_command

    with _DOT_BINARY:
        before = dot_command.DOT_BINARY
        dot_command.DOT_BINARY = Path(command)
        try:
            return source.pipe(format=target.suffix.lower().lstrip("."), quiet=True)
        except graphviz.CalledProcessError as error:
            said = (error.stderr or b"").decode(errors="replace").split("\n")[0]
            raise RuntimeError(f"draw: {command} failed with status {error.returncode}: {said}") from None
        finally:
            dot_command.DOT_BINARY = before


# ---- a view in Graphviz's language ---------------------------------------------------------------------------


class _Picture:
    def __init__(self, record: Graph, view: View) -> None:
        self.record, self.view = record, view
        values = [value for node in record for value in node.outputs] + [leaf.value for leaf in record.leaves]
        self.dtype = Counter(value.dtype for value in values).most_common(1)[0][0]  # said once, in the legend

    def digraph(self) -> Any:
        dot = _graphviz().Digraph("tensorlib")
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
        lines = [f"<b>{title}</b>" if box.kind in ("op", "module") else title]
        lines += [_small(_text(line), _INK) for line in self.value_lines(box.outputs)]
        if box.kind == "module":
            parts = [*self.folded(box), *_parameter_count(box)]
            lines += [_small(_text(" · ".join(parts)), _FAINT)] if parts else []
        if box.node and box.node.source:
            lines.append(_small(_text(os.path.basename(box.node.source)), _FAINT))
        attributes = {"label": f"<{_BREAK.join(lines)}>", "tooltip": _plain(_tooltip(box)), **_STYLES[box.kind]}
        return attributes | ({"penwidth": "2.5"} if box.is_output else {})

    def folded(self, box: Box) -> list[str]:
        """Say what a folded module does: its one op, unless it is called like it (dropout: dropout), or how many."""
        if box.ops > 1:
            return [plural(box.ops, "op")]
        return [box.node.op] if box.node and box.node.op != _title(box) else []

    def value_lines(self, values: list[Value]) -> list[str]:
        """Return one line for each distinct value, four at most."""
        counted = Counter(values)
        lines = [f"{n} × {self.value_text(value)}" if n > 1 else self.value_text(value) for value, n in counted.items()]
        return lines if len(lines) <= 4 else [*lines[:3], f"and {len(lines) - 3} other shapes"]

    def value_text(self, value: Value) -> str:
        shape = str(value.shape) if value.shape else "scalar"
        return shape if value.dtype == self.dtype else f"{shape} {value.dtype}"

    # ---- arrows and legend ----

    def arrow_attributes(self, arrow: Arrow) -> dict[str, str]:
        """Label an arrow with what its ends do not show: which output of several, and how many edges it stands for."""
        parts = []
        several = len(arrow.tail.outputs) > 1
        if several and arrow.tail.node:
            parts.append(", ".join(f"[{n}]" for n in sorted(source.output for source in arrow.values)))
        if several and len(set(arrow.tail.outputs)) > 1:
            parts += self.value_lines([source.value for source in arrow.values])
        elif len(arrow.values) > 1 and not arrow.tail.node:
            parts.append(f"×{len(arrow.values)}")
        if len(arrow.values) == 1 and arrow.edges > 1 and arrow.head.node:
            parts.append(f"×{arrow.edges}")  # a + a
        faint = {"style": "dashed"} if arrow.tail.kind == "constant" else {}
        return ({"label": f"<&#160;{_text(' '.join(parts))}>"} if parts else {}) | faint

    def legend(self) -> str:
        """Return a row of coloured samples of the kinds that occur, and a line about the whole graph."""
        kinds = {box.kind for box in self.view.boxes}
        cells = []
        for kind, style in _STYLES.items():
            if kind in kinds:
                name = "folded module" if kind == "module" else kind
                look = ",".join(word for word in style["style"].split(",") if word != "filled")
                look = f'style="{look}"' if look else ""
                cells.append(
                    f'<td border="1" color="{style["color"]}" bgcolor="{style["fillcolor"]}" {look}>{name}</td>'
                )
        cells.append("<td>bold rim: result</td>")
        samples = f'<table border="0" cellspacing="5" cellpadding="3"><tr>{"".join(cells)}</tr></table>'
        about = html.escape(f"{self.record.headline()}; {self.dtype} unless marked")
        rows = "".join(f'<tr><td align="left">{row}</td></tr>' for row in (samples, about))
        return f'<<table border="0" cellspacing="0" cellpadding="0">{rows}</table>>'


def _title(box: Box) -> str:
    """Return the name a box bears, without what the frame around it already says."""
    if box.kind == "op" and box.node:
        return box.node.op
    name = box.leaf.name or box.kind if box.leaf else box.path
    return name.removeprefix(f"{box.frame.path}.") if box.frame.path else name


def _parameter_count(box: Box) -> list[str]:
    return [plural(box.parameters, "parameter")] if box.parameters else []


def _tooltip(box: Box) -> str:
    if box.leaf:
        return f"{box.kind} {box.leaf.name} {box.leaf.value}"
    if not box.node:
        return ", ".join([f"module {box.path}: {plural(box.ops, 'op')}", *_parameter_count(box)])
    where = f" in {box.path}" if box.path else ""
    line = f" at {box.node.source}" if box.node.source else ""
    return f"{box.node.op}{where}{line}, keeps {box.node.saved_bytes:,} bytes for backward"


def _small(markup: str, color: str) -> str:
    return f'<font point-size="10" color="{color}">{markup}</font>'


def _printable(text: str, limit: int) -> str:
    """Write control characters as Python does, and cut the middle out of what is far too long."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def _text(text: str) -> str:
    """Return any text such that it stands literally in an HTML-like label, where Graphviz still expands backslashes."""
    return html.escape(_printable(text, 60)).replace("\\", "\\\\") or "&#160;"


def _plain(text: str) -> str:
    """Return any text for a tooltip. Graphviz expands backslashes there once or twice: a look-alike is safe from it."""
    return _graphviz().escape(html.escape(_printable(text, 400)).replace("\\", "\N{REVERSE SOLIDUS OPERATOR}"))
