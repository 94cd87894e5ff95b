"""`tl.draw`: a graph as a picture; the file is written completely or not at all, and within bounded time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorlib.exchange.safetensors import write_atomically
from tensorlib.graphs.building import graph
from tensorlib.graphs.dot_text import digraph
from tensorlib.graphs.folding import View, fold, levels_of
from tensorlib.graphs.graph import Graph
from tensorlib.graphs.placing import work_to_place
from tensorlib.graphs.rendering import find_renderer, render
from tensorlib.tensor import Tensor

__all__ = ["draw"]

MOST_BOXES = 1000  # placed in about a second, if the work for their arrows is within its limit, too
MOST_WORK = 200_000  # as `work_to_place` counts it; within it, no measured graph took more than 15 s
SECONDS = 60.0  # for one picture, in case the estimate is wrong or the machine is slow

_DOT_SUFFIXES = (".dot", ".gv")
_RENDERED_SUFFIXES = {"dot": (".svg", ".png", ".pdf", ".jpg"), "graphviz-pure": (".svg", ".png", ".jpg")}


def draw(
    y: Tensor | Sequence[Tensor] | Graph,
    path: str | os.PathLike[str],
    depth: int | None = 2,
    *,
    names: Mapping[str, Any] | None = None,
) -> Path:
    """Draw the graph of the computation of `y`, and return the path of the picture.

    Call it before ``y.backward()``, which releases the graph, or pass ``retain_graph=True`` to it.

    Args:
        y: one Tensor, several Tensors, or a `Graph`.
        path: the file to write. Its suffix chooses the format: .svg, .png, .jpg, .pdf (not with graphviz-pure), or .dot
            and .gv for Graphviz source, which needs no renderer.
        depth: the number of levels of modules that are shown as nested frames. Each deeper module is folded into one
            box. In "encoder.layers.0.norm", "layers.0" is one level. In a picture that would have more than 60 boxes,
            equal steps of a loop and equal layers are folded, too: the first, the last, and one box for those between
            them. None folds nothing.
        names: names for leaves that no module has named: ``names={"x": x}``, or simply ``names=locals()``.

    Raises ValueError for an unknown suffix, a wrong depth, or a graph that a renderer would need minutes to place,
    FileNotFoundError if the folder does not exist, RuntimeError if no renderer is installed, if it fails or takes more
    than a minute, or if the graph was released.

    >>> import tempfile
    >>> x = tl.Tensor([1.0, 2.0], requires_grad=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     picture = tl.draw(tl.softmax(x), f"{folder}/softmax.dot", names={"x": x})
    ...     picture.name, picture.read_text().count("->")
    ('softmax.dot', 1)
    """
    target = Path(path)
    if depth is not None and (not isinstance(depth, int) or depth < 0):
        raise ValueError(f"draw: depth must be a whole number from 0, or None for everything; got {depth!r}")
    command = None if target.suffix.lower() in _DOT_SUFFIXES else _renderer_for(target)
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"draw: {target}: there is no folder {target.parent}")
    drawn = y if isinstance(y, Graph) else graph(y, names)
    view = fold(drawn, depth)
    boxes = f"draw: {len(view.boxes):,} boxes at depth={depth}"
    if command is not None and (obstacle := _obstacle(view)):
        raise ValueError(f"{boxes} {obstacle}; {_advice(drawn, depth)}")
    text = digraph(drawn, view).source
    try:
        picture = text.encode() if command is None else render(text, target.suffix.lower()[1:], command, SECONDS)
    except TimeoutError as error:
        remedy = "pass a smaller depth, draw a smaller graph, or write a .dot file"
        raise RuntimeError(f"{boxes}: {error}; {remedy}") from None
    write_atomically(target, picture)
    return target


def _obstacle(view: View) -> str:
    """Return why no renderer can place the boxes of a view in time, or "" if it can."""
    if len(view.boxes) > MOST_BOXES:
        return f"are more than the {MOST_BOXES:,} that can be drawn"
    if work_to_place(view) > MOST_WORK:
        return "with so many long arrows between them would take minutes to place"
    return ""


def _advice(drawn: Graph, depth: int | None) -> str:
    """Return what to do about a graph that cannot be drawn at `depth`."""
    deepest = max((len(levels_of(node.path)) for node in drawn), default=0)
    others: list[int | None] = [*reversed(range(deepest + 1 if depth is None else min(depth, deepest)))]
    for other in others if depth is None else [*others, None]:
        view = fold(drawn, other)
        if not _obstacle(view):
            return f"pass depth={other}, which shows {len(view.boxes):,}, or write a .dot file"
    return "no other depth helps; draw a smaller graph, such as fewer steps of a loop, or write a .dot file"


def _renderer_for(target: Path) -> str:
    found = find_renderer()
    suffixes = _RENDERED_SUFFIXES[found[0]] if found else (".svg", ".png", ".jpg")
    if target.suffix.lower() not in suffixes:
        accepted = ", ".join(suffixes + _DOT_SUFFIXES)
        by = f" with the installed renderer, {found[0]}" if found else ""
        raise ValueError(f"draw: the suffix of {target} must be one of {accepted}{by}; got {target.suffix or 'none'}")
    if found is None:
        raise RuntimeError(
            f"draw: {target} needs Graphviz or graphviz-pure, and neither is installed; "
            "pip install graphviz-pure (or install Graphviz, for its `dot`), or write a .dot file"
        )
    return found[1]
