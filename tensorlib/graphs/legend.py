"""The legend of a picture, the styles of its boxes, and the scale of its colors."""

from __future__ import annotations

import html

from tensorlib.graphs.backward_graph import is_backward
from tensorlib.graphs.colors import SCALE, color_of_norm, ink_on
from tensorlib.graphs.folding import View
from tensorlib.graphs.graph import Graph
from tensorlib.graphs.labels import Look, count_text
from tensorlib.graphs.text_width import width_of

__all__ = ["FAINT", "INK", "STYLES", "cell", "legend"]

INK, FAINT = "#1e293b", "#64748b"
STYLES: dict[str, dict[str, str]] = {
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
    "number": {"shape": "ellipse", "style": "filled", "fillcolor": "white", "color": "#cbd5e1", "margin": "0.03,0.02"},
}


_SIZE = 10  # of the legend's font, in points


def cell(markup: str, width: float) -> str:
    """Return a table of one cell for a text that may become `width` points wide in another font than Helvetica."""
    inner = f'<td align="left" width="{width:.0f}">{markup}</td>'
    return f'<table border="0" cellspacing="0" cellpadding="0"><tr>{inner}</tr></table>'


def legend(graph: Graph, view: View, look: Look, dtype: str) -> str:
    """Return a row with a swatch of each kind that occurs, the scale of colors, and lines about the whole graph."""
    rows = [f'<table border="0" cellspacing="5" cellpadding="3"><tr>{_kinds(view, look)}</tr></table>']
    if look.color == "gradient":
        rows.append(f'<table border="0" cellspacing="0" cellpadding="3"><tr>{_scale()}</tr></table>')
    about = [f"{look.headline or graph.headline()}; {dtype} unless marked"]
    if "operations" in look.show:
        about.append(f"{count_text(graph.flops)} floating-point operations forward")
    backward = [graph.passes and y.node is not None and is_backward(graph.nodes[y.node].path) for y in graph.outputs]
    results = [y for y, of_backward in zip(graph.outputs, backward, strict=True) if not of_backward]
    if look.measures and graph.gradients and (results[1:] or any(y.value.shape for y in results)):
        about.append("gradients are those of the sum of all results")
    about += [look.note] if look.note else []
    rows += [cell(html.escape(line).replace("\\", "\\\\"), width_of(line, _SIZE)) for line in about]
    table = "".join(f'<tr><td align="left">{row}</td></tr>' for row in rows)
    return f'<<table border="0" cellspacing="0" cellpadding="0">{table}</table>>'


def _kinds(view: View, look: Look) -> str:
    kinds = {box.kind for box in view.boxes}
    cells = []
    for kind, style in STYLES.items():
        if kind in kinds:
            name = {"module": "folded module", "repeat": "folded repeats"}.get(kind, kind)
            words = ",".join(word for word in style["style"].split(",") if word != "filled")
            words = f'style="{words}"' if words else ""
            fill = "white" if look.color == "gradient" else style["fillcolor"]
            width = width_of(name, _SIZE) + 6
            cells.append(
                f'<td border="1" color="{style["color"]}" bgcolor="{fill}" width="{width:.0f}" {words}>{name}</td>'
            )
    return "".join([*cells, f'<td width="{width_of("bold rim: result", _SIZE):.0f}">bold rim: result</td>'])


def _scale() -> str:
    """Return cells in the colors of the powers of ten, from gradients that vanish to those that explode."""
    texts = [("norm of the gradient:", "#ffffff"), ("0", color_of_norm(0.0))]
    for power, _ in SCALE:
        text = f"1e{power}" if power else "1"
        text = f"≤ {text} vanishes" if power == SCALE[0][0] else f"≥ {text} explodes" if power == SCALE[-1][0] else text
        texts.append((text, color_of_norm(10.0**power)))
    texts.append(("NaN, Inf", color_of_norm(float("nan"))))
    return "".join(
        f'<td bgcolor="{color}" width="{width_of(text, _SIZE) + 6:.0f}">'
        f'<font color="{ink_on(color, INK)}">{text}</font></td>'
        for text, color in texts
    )
