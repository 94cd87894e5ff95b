"""A graph in a notebook: its picture, or text if no picture can be made."""

from __future__ import annotations

import html

from tensorlib.graphs.drawing import picture_of
from tensorlib.graphs.graph import Graph
from tensorlib.graphs.labels import Look
from tensorlib.graphs.rendering import find_renderer
from tensorlib.graphs.viewing import inline

__all__: list[str] = []

_DEPTH = 2


def svg_of(graph: Graph) -> str | None:
    """Return the picture of a graph as an SVG element; None if no renderer is installed or it fails."""
    found = find_renderer()
    if found is None:
        return None
    try:
        return inline(picture_of(graph, _DEPTH, None, Look(), "svg", found[1]).decode())
    except Exception:  # a notebook shows the text instead; `tl.draw` says what is wrong
        return None


def html_of(graph: Graph) -> str:
    """Return the picture of a graph in a box that scrolls, or its summary as text; never raises."""
    svg = svg_of(graph)
    if svg is None:
        return f"<pre>{html.escape(graph.summary())}</pre>"
    return f'<div style="max-height: 40em; overflow: auto; background: white">{svg}</div>'


Graph.show = staticmethod(html_of)
