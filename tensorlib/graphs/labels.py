"""What the boxes of a picture say: the options of `tl.draw`, and the lines of text that they ask for."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tensorlib.graphs.folding import Box
from tensorlib.graphs.graph import Graph, GraphNode, GraphValue, ValueRef
from tensorlib.graphs.measuring import Measured, joined
from tensorlib.messages import shown_bytes

__all__ = ["SHOWN", "Look", "attribute_line", "extra_lines", "gradient_norm", "value_lines"]

SHOWN = ("shapes", "values", "gradients", "statistics", "memory", "operations")


@dataclass(frozen=True)
class Look:
    """How a picture looks; see `tl.draw` for the options. `headline` and `note` are lines of text below it."""

    show: frozenset[str] = field(default_factory=frozenset)
    color: str = "kind"
    direction: str = "down"
    size: tuple[float, float] | None = None  # in inches
    headline: str = ""  # of the whole graph, if only a part is drawn
    note: str = ""
    right_titles: frozenset[str] = frozenset()  # the names of clusters whose titles are not at the left

    @property
    def measures(self) -> bool:
        """Whether boxes show numbers of values or gradients."""
        return bool(self.show & {"values", "gradients", "statistics"})


def value_lines(values: Sequence[GraphValue], common_dtype: str) -> list[str]:
    """Return one line for each distinct value, at most four, with the dtype unless it is the common one."""

    def text(value: GraphValue) -> str:
        shape = str(value.shape) if value.shape else "scalar"
        return shape if value.dtype == common_dtype else f"{shape} {value.dtype}"

    counted = Counter(values)
    lines = [f"{n} × {text(value)}" if n > 1 else text(value) for value, n in counted.items()]
    return lines if len(lines) <= 4 else [*lines[:3], f"and {len(lines) - 3} other shapes"]


_WHERE = ("condition", "index", "visible")  # arrays that say which elements are meant
_ARRAY = re.compile(r"\) (bool|u?int|float)\d*$")
_NOT_SHOWN = {"key", "draw", "shape", "sizes", "heads", "pattern", "targets", "counted", "drop", "grid"}


def attribute_line(node: GraphNode) -> str:
    """Return the options of an op that its shapes do not show, as "axis=1, keepdims=True"; "" without any."""
    shown = [(name, text) for name, text in node.attributes.items() if name not in _NOT_SHOWN]
    return ", ".join(
        f"{name}={text}"
        for name, text in shown
        if text not in ("None", "False", "0.0")
        and (len(text) <= 36 if name in _WHERE else len(text) <= 24 and not _ARRAY.search(text))
    )


def extra_lines(box: Box, graph: Graph, show: frozenset[str]) -> list[str]:
    """Return the lines about numbers, memory and operations in a box."""
    lines = []
    if show & {"values", "statistics"}:
        lines += _measured_lines("data", _measured_in(box, graph.values), show, _numbers(box, graph.values))
    if "gradients" in show or ("statistics" in show and graph.gradients):
        lines += _measured_lines("grad", _measured_in(box, graph.gradients), show, _numbers(box, graph.gradients))
        if own := [m for leaf in box.leaves if (m := graph.gradients.get(("leaf", leaf, 0)))]:
            several = any(m.arrays > 1 for m in own) or (box.repeat is not None and len(own) > 1)
            both = min(m.least_norm for m in own), max(m.norm for m in own)
            lines.append(
                f"grad of each parameter: norm {_range(*both)}"
                if several
                else f"grad of parameters: norm {number_text(total_norm(own))}"
            )
    if "memory" in show and box.saved_bytes:
        lines.append(f"keeps {shown_bytes(box.saved_bytes)}")
    if "operations" in show and box.flops:
        lines.append("1 operation" if box.flops == 1 else f"{count_text(box.flops)} operations")
    return lines


def refs_of(box: Box) -> list[ValueRef]:
    """Return references to the values that leave a box."""
    if box.node and box.kind in ("op", "module") and not box.refs:
        return [ValueRef(box.node.number, None, k, value) for k, value in enumerate(box.node.outputs)]
    return [ValueRef(None, box.leaf.number, 0, box.leaf.value)] if box.leaf else box.refs


def _numbers(box: Box, found: Mapping[tuple[str, int | None, int], Measured]) -> list[int]:
    """Return the numbers of an op's outputs of which something is known, if it has several outputs."""
    several = box.kind == "op" and box.node is not None and len(box.node.outputs) > 1
    return [ref.output for ref in refs_of(box) if ref.slot in found] if several else []


def _measured_in(box: Box, found: Mapping[tuple[str, int | None, int], Measured]) -> list[Measured]:
    """Return what is known of the values that leave a box; of a repeat, one range over the results of all its steps."""
    if box.repeat and box.repeat.nodes:
        length = len(box.repeat.nodes) // box.repeat.steps
        results = box.repeat.nodes[length - 1 :: length]
        steps = [m for node in results if (m := found.get(("node", node.number, 0)))]
        return [joined(steps)] if steps else []
    return [found[ref.slot] for ref in refs_of(box) if ref.slot in found]


def _measured_lines(
    title: str, known: Sequence[Measured], show: frozenset[str], numbers: Sequence[int] = ()
) -> list[str]:
    """Return the lines about what is known; `numbers` are those of an op's outputs, if it has several."""
    if not known:
        return []
    marks = [f" [{number}]" for number in numbers] or [""] * len(known)
    lines = [f"{title}{mark} {measured_text(one, title)}" for mark, one in zip(marks[:3], known[:3], strict=True)]
    lines += [f"and {len(known) - 3} others"] if len(known) > 3 else []
    if "statistics" in show:
        lines += [
            f"mean {number_text(m.mean)}, std {number_text(m.std)}" for m in known[:1] if m.size > 1 or m.arrays > 1
        ]
    return lines


def measured_text(m: Measured, title: str) -> str:
    """Return the elements of a small array, the range of a large value, or the norm of a large gradient."""
    bad = f", {m.not_finite:,} not finite" if m.not_finite else ""
    if m.arrays > 1:
        low, high = (m.least_norm, m.norm) if title == "grad" else (m.low, m.high)
        return f"{'norm ' if title == 'grad' else ''}{_range(low, high)}{bad}"
    if m.elements:
        texts = [number_text(x) for x in m.elements]
        return texts[0] if not m.shape else f"[{', '.join(texts)}]"
    if title == "grad":
        return f"norm {number_text(m.norm)}{bad}"
    return f"{_range(m.low, m.high)}{bad}"


def _range(low: float, high: float) -> str:
    texts = number_text(low), number_text(high)
    return " … ".join(texts if texts[0] != texts[1] else texts[:1])


def gradient_norm(box: Box, graph: Graph) -> float | None:
    """Return the norm of all gradients of the values that leave a box; None if there is none.

    Of several steps, it is the smallest or the largest norm, whichever is further from 1, so that a picture does not
    hide what vanishes or explodes.
    """
    known = _measured_in(box, graph.gradients)
    if len(known) == 1 and known[0].arrays > 1:
        return max(known[0].least_norm, known[0].norm, key=lambda x: abs(math.log10(x)) if x > 0 else math.inf)
    return total_norm(known) if known else None


def total_norm(parts: Sequence[Measured]) -> float:
    """Return the norm of several arrays together."""
    return math.hypot(*[part.norm for part in parts])


def number_text(x: float) -> str:
    """Return a number of four digits, with a minus sign of the width of a plus."""
    return f"{x:.4g}".replace("-", "−", 1 if x < 0 else 0) if isinstance(x, float) else str(x)


def count_text(n: int) -> str:
    """Return a count as 1.2 million."""
    for size, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if n >= 10 * size or (n >= size and size > 1000):
            return f"{n / size:.3g} {name}"
    return f"{n:,}"
