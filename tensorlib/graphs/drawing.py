"""`tl.draw`: draw a graph by Graphviz or graphviz-pure; the file is written completely or not at all."""

from __future__ import annotations

import os
import shutil
import sysconfig
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorlib.exchange.safetensors import write_atomically
from tensorlib.graphs.building import graph
from tensorlib.graphs.dot_text import digraph, import_graphviz
from tensorlib.graphs.folding import View, fold, levels_of
from tensorlib.graphs.graph import Graph
from tensorlib.tensor import Tensor

__all__ = ["draw"]

LIMIT = 1000  # boxes; for graphs of a Transformer dot takes 1 s for 735 of them, 20 s for 1,343, 200 s for 1,935

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
            box. None folds nothing. In "encoder.layers.0.norm", "layers.0" is one level.
        names: names for leaves that no module has named: ``names={"x": x}``, or simply ``names=locals()``.

    Raises ValueError for an unknown suffix, a wrong depth, or more boxes than a renderer can place, FileNotFoundError
    if the folder does not exist, RuntimeError if no renderer is installed or the graph was released.

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
    if command is not None and len(view.boxes) > LIMIT:
        raise ValueError(_too_many_boxes(drawn, view, depth))
    dot = digraph(drawn, view)
    write_atomically(target, dot.source.encode() if command is None else _render(dot, target, command))
    return target


def _too_many_boxes(drawn: Graph, view: View, depth: int | None) -> str:
    message = f"draw: {len(view.boxes):,} boxes at depth={depth} are more than the {LIMIT:,} that can be drawn; "
    deepest = max((len(levels_of(node.path)) for node in drawn), default=0)
    for fewer in reversed(range(deepest if depth is None else min(depth, deepest))):
        if (n := len(fold(drawn, fewer).boxes)) <= LIMIT:
            return message + f"pass depth={fewer}, which shows {n:,}, or write a .dot file"
    return message + "no smaller depth folds enough of them; draw a smaller part, or write a .dot file"


# ---- rendering -----------------------------------------------------------------------------------------------

_DOT_BINARY = threading.Lock()


def _find_renderer() -> tuple[str, str] | None:
    """Return name and command of the renderer: `dot` if it is installed, or graphviz-pure; None without either."""
    if command := shutil.which("dot"):
        return "dot", command
    beside_python = sysconfig.get_path("scripts")  # not on the PATH unless the virtual environment is activated
    if command := shutil.which("graphviz-pure") or shutil.which("graphviz-pure", path=beside_python):
        return "graphviz-pure", command
    return None


def _renderer_for(target: Path) -> str:
    found = _find_renderer()
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


def _render(dot: Any, target: Path, command: str) -> bytes:
    """Return the picture. graphviz reads the renderer's command from a module global, which is restored later."""
    graphviz = import_graphviz()
    from graphviz.backend import dot_command

    with _DOT_BINARY:
        before = dot_command.DOT_BINARY
        dot_command.DOT_BINARY = Path(command)
        try:
            return dot.pipe(format=target.suffix.lower().lstrip("."), quiet=True)
        except graphviz.CalledProcessError as error:
            message = (error.stderr or b"").decode(errors="replace").split("\n")[0]
            raise RuntimeError(f"draw: {command} failed with status {error.returncode}: {message}") from None
        finally:
            dot_command.DOT_BINARY = before
