"""`tl.draw`: a graph as a picture; the file is written completely or not at all, and within bounded time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorlib.exchange.safetensors import write_atomically
from tensorlib.graphs.backward_graph import PASSES, with_passes
from tensorlib.graphs.building import graph
from tensorlib.graphs.dot_text import digraph
from tensorlib.graphs.folding import fold, levels_of
from tensorlib.graphs.graph import Graph
from tensorlib.graphs.labels import Look
from tensorlib.graphs.looks import look_of
from tensorlib.graphs.placing import work_to_place
from tensorlib.graphs.rendering import find_renderer, render
from tensorlib.graphs.rolling import rolled_up
from tensorlib.graphs.titles import crossed_titles
from tensorlib.graphs.viewing import page, readable_everywhere
from tensorlib.ops.arguments import check_flag
from tensorlib.tensor import Tensor

__all__ = ["draw"]

MOST_BOXES = 1000  # placed in about a second, if the work for their arrows is within its limit, too
MOST_WORK = 200_000  # as `work_to_place` counts it; within it, no measured graph took more than 15 s
SECONDS = 60.0  # for one picture, in case the estimate is wrong or the machine is slow
LEAST_SCALE = 0.5  # of a picture that has to fit a size: text of 5 points is small, but can be read on paper

_DOT_SUFFIXES = (".dot", ".gv")
_RENDERED_SUFFIXES = {
    "dot": (".svg", ".png", ".html", ".pdf", ".jpg"),
    "graphviz-pure": (".svg", ".png", ".html", ".jpg"),
}


def draw(
    y: Tensor | Sequence[Tensor] | Graph | Callable[..., Any],
    path: str | os.PathLike[str],
    depth: int | None = 2,
    *,
    names: Mapping[str, Any] | None = None,
    inputs: Sequence[Any] = (),
    formulas: bool = False,
    passes: str = "forward",
    fold_repeats: bool | None = None,
    show: str | Sequence[str] = (),
    color: str = "kind",
    direction: str = "down",
    size: str | tuple[float, float] | None = None,
) -> Path:
    """Draw the graph of the computation of `y`, and return the path of the picture.

    Call it before ``y.backward()``, which releases the graph, or pass ``retain_graph=True`` to it.

    Args:
        y: one Tensor, several Tensors, a `Graph`, or a module or function, which is called with `inputs`.
        path: the file to write. Its suffix chooses the format: .svg, .png, .jpg, .html (a page that zooms and needs no
            network), .pdf (not with graphviz-pure), or .dot and .gv for Graphviz source, which needs no renderer.
        depth: the number of levels of modules that are shown as nested frames. Each deeper module is folded into one
            box. In "encoder.layers.0.norm", "layers.0" is one level. None opens everything.
        names: names for Tensors that no module has named: ``names={"x": x}``, or simply ``names=locals()``.
        inputs: what to call a module or function with; see `graph`.
        formulas: draw a fused op, such as softmax or a sub-layer, as a frame around the ops of its formula, and, in the
            graph of a module or function, also a function such as `mean`; see `graph`.
        passes: "forward", "backward", or "both" side by side: in the backward pass gradients flow against the data,
            each op is replaced by its gradient, and contributions to one gradient are added.
        fold_repeats: True draws one of several equal steps of a loop or equal layers, marked with their number, such as
            "layers ×6"; its numbers are ranges over all of them. False draws all. None folds only pictures of more than
            60 boxes, unless `depth` is None: the first step, the last, and one box for those between them.
        show: what the boxes say besides shapes, any of "values", "gradients" (both: elements of small arrays, otherwise
            the range of values and the norm of a gradient), "statistics" (mean and standard deviation), "memory" (bytes
            kept for backward) and "operations" (floating-point operations). Values are computed again, and gradients
            are those of the sum of `y`; a `Graph` has to be made with them.
        color: "kind" of box, or "gradient", the norm of the gradient: from blue, where it vanishes, to red, where it
            explodes.
        direction: "down" or "right", in which data flows.
        size: "page" (A4, upright), "slide" (16:9), or (width, height) in inches. The picture is folded further until it
            fits with text that can be read, then made smaller.

    A graph that a renderer would need minutes to place is folded further, too, and the picture says so.

    Raises ValueError for an unknown suffix or option, or if no folding can be drawn, FileNotFoundError if the folder
    does not exist, RuntimeError if no renderer is installed, if it fails or takes more than a minute, or if the graph
    was released.

    >>> import tempfile
    >>> x = tl.Tensor([1.0, 2.0], requires_grad=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     picture = tl.draw(tl.softmax(x), f"{folder}/softmax.dot", names={"x": x})
    ...     picture.name, picture.read_text().count("->")
    ('softmax.dot', 1)
    """
    target = Path(path)
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise ValueError(f"draw: depth must be a whole number from 0, or None for everything; got {depth!r}")
    look = look_of(show, color, direction, size)
    check_flag("draw", "formulas", formulas)
    if passes not in PASSES:
        raise ValueError(f"draw: passes must be one of {', '.join(map(repr, PASSES))}; got {passes!r}")
    command = None if target.suffix.lower() in _DOT_SUFFIXES else _renderer_for(target)
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"draw: {target}: there is no folder {target.parent}")
    forward = _graph_of(y, inputs, names, formulas, look)
    look = replace(look, headline=forward.headline())
    drawn = with_passes(forward, passes)
    depth = None if depth is None else depth + _frames_around(drawn)
    if command is None:
        view = _View(drawn, depth, fold_repeats)
        write_atomically(target, digraph(view.graph, view.view, look).source.encode())
    else:
        write_atomically(target, picture_of(drawn, depth, fold_repeats, look, target.suffix.lower()[1:], command))
    return target


def _graph_of(y: Any, inputs: Sequence[Any], names: Mapping[str, Any] | None, formulas: bool, look: Look) -> Graph:
    """Return the graph to draw, with the values and gradients that `look` needs."""
    values = bool(look.show & {"values", "statistics"})
    gradients = "gradients" in look.show or look.color == "gradient"
    if not isinstance(y, Graph):
        return graph(y, *inputs, names=names, formulas=formulas, values=values, gradients=gradients)
    if formulas or names or inputs:
        given = "formulas=True" if formulas else "names" if names else "inputs"
        raise ValueError(f"draw: a Graph is drawn as it is, got {given}; pass the Tensor, or give them to tl.graph")
    missing = [what for what, wanted in (("values", values), ("gradients", gradients)) if wanted and not vars(y)[what]]
    if missing:
        raise ValueError(
            f"draw: the graph must have {' and '.join(missing)} to show them; "
            f"pass the Tensor, or make the graph with tl.graph(y, {', '.join(f'{what}=True' for what in missing)})"
        )
    return y


class _View:
    """A graph folded in one of several ways, finer or coarser."""

    def __init__(self, drawn: Graph, depth: int | None, fold_repeats: bool | None) -> None:
        self.depth, self.fold_repeats, self.around = depth, fold_repeats, _frames_around(drawn)
        self.graph = rolled_up(drawn) if fold_repeats else drawn
        self.view = fold(self.graph, depth, repeats=fold_repeats is None)

    def obstacle(self) -> str:
        """Return why no renderer can place the boxes in time, or "" if it can."""
        if len(self.view.boxes) > MOST_BOXES:
            return f"are more than the {MOST_BOXES:,} that can be drawn"
        if work_to_place(self.view) > MOST_WORK:
            return "with so many long arrows between them would take minutes to place"
        return ""

    def __str__(self) -> str:
        depth = self.depth if self.depth is None else self.depth - self.around
        return f"depth={depth}" + (f", fold_repeats={self.fold_repeats}" if self.fold_repeats is not None else "")


def _frames_around(drawn: Graph) -> int:
    """Return 1 if each pass is a frame around its modules, otherwise 0."""
    return int(drawn.passes)


def _coarser(drawn: Graph, first: _View) -> Iterator[_View]:
    """Yield views of the graph from the one that was asked for to ever coarser ones."""
    yield first
    rolled = rolled_up(drawn)
    deepest = max((len(levels_of(node.path)) for node in rolled), default=0)
    depths = [*reversed(range(first.around, deepest + 1 if first.depth is None else min(first.depth, deepest)))]
    for depth in (first.depth, *depths):
        view = _View(rolled, depth, None)
        view.fold_repeats = True
        yield view


def picture_of(
    drawn: Graph, depth: int | None, fold_repeats: bool | None, look: Look, form: str, command: str
) -> bytes:
    """Return the picture in this form, folded further than asked for if it cannot be drawn in time or does not fit."""
    chosen, look = _chosen_view(drawn, _View(drawn, depth, fold_repeats), look, command)
    deadline = time.monotonic() + SECONDS
    try:
        if form not in ("svg", "html"):
            look = _with_free_titles(chosen, look, command, deadline)[0] if chosen.view.root.frames else look
            return _rendered(chosen, look, form, command, deadline)
        svg = readable_everywhere(_with_free_titles(chosen, look, command, deadline)[1])
    except TimeoutError as error:
        remedy = "pass a smaller depth, draw a smaller graph, or write a .dot file"
        raise RuntimeError(f"draw: {len(chosen.view.boxes):,} boxes at {chosen}: {error}; {remedy}") from None
    return (page(svg, drawn.headline()) if form == "html" else svg).encode()


def _chosen_view(drawn: Graph, first: _View, look: Look, command: str) -> tuple[_View, Look]:
    """Return the finest view that can be drawn in time and fits, with a note in the look if it is not the first."""
    asked, why = f"{len(first.view.boxes):,} boxes at {first}", first.obstacle()
    best: tuple[float, _View, Look] | None = None
    for candidate in _coarser(drawn, first):
        if candidate.obstacle():
            continue
        told = look if candidate is first else replace(look, note=f"folded at {candidate}: {asked} {why or _UNFIT}")
        scale = _scale(candidate, told, command)
        if best is None or scale > best[0]:
            best = (scale, candidate, told)
        if scale >= LEAST_SCALE:
            break
    if best is None:
        raise ValueError(
            f"draw: {asked} {why}; no folding helps; draw a smaller graph, such as fewer steps of a loop, or write a "
            ".dot file"
        )
    return best[1:]


def _rendered(chosen: _View, look: Look, form: str, command: str, deadline: float) -> bytes:
    source = digraph(chosen.graph, chosen.view, look).source
    return render(source, form, command, max(0.1, deadline - time.monotonic()))


def _with_free_titles(chosen: _View, look: Look, command: str, deadline: float) -> tuple[Look, str]:
    """Return a look in which titles that an arrow crosses have moved to the right, if fewer are crossed then; the SVG.

    This takes a second layout, which is not begun if the first has taken a quarter of the time that is left.
    """
    start = time.monotonic()
    svg = _rendered(chosen, look, "svg", command, deadline).decode()
    crossed = crossed_titles(svg)
    if crossed and time.monotonic() - start < (deadline - start) / 4:
        other = replace(look, right_titles=crossed)
        moved = _rendered(chosen, other, "svg", command, deadline).decode()
        if len(crossed_titles(moved)) < len(crossed):
            return other, moved
    return look, svg


_UNFIT = "do not fit the size"


def _scale(candidate: _View, look: Look, command: str) -> float:
    """Return by what factor the picture has to be made smaller to fit its size; 1 if it has none or fits."""
    if look.size is None:
        return 1.0
    source = digraph(candidate.graph, candidate.view, replace(look, size=None)).source
    try:
        svg = render(source, "svg", command, SECONDS / 4).decode()
    except TimeoutError:
        return 0.0
    found = re.search(r'<svg width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert found is not None
    return min(1.0, *[72 * inches / float(points) for inches, points in zip(look.size, found.groups(), strict=True)])


def _renderer_for(target: Path) -> str:
    found = find_renderer()
    suffixes = _RENDERED_SUFFIXES[found[0]] if found else (".svg", ".png", ".html", ".jpg")
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
