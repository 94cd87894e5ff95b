"""Which titles of frames an arrow crosses. Graphviz does not avoid it, but a title can move to the other corner."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from tensorlib.graphs.text_width import width_of

__all__ = ["crossed_titles"]

_GROUP = re.compile(r'<g id="[^"]*" class="(cluster|edge)">\s*<title>([^<]*)</title>(.*?)</g>', re.DOTALL)
_TITLE = re.compile(r'<text [^>]*x="([-\d.]+)" y="([-\d.]+)"[^>]* font-size="([\d.]+)"[^>]*>([^<]*)</text>')
_PATH = re.compile(r'<path [^>]*d="M([^"]*)"')
_SAMPLES = 24  # points of each curve of an arrow that are looked at

Point = tuple[float, float]


def crossed_titles(svg: str) -> frozenset[str]:
    """Return the names of the clusters in a picture of Graphviz whose titles an arrow crosses."""
    groups = _GROUP.findall(svg)
    points = [point for kind, _, inner in groups if kind == "edge" for point in _points(inner)]
    crossed = set()
    for kind, name, inner in groups:
        if kind == "cluster" and (found := _TITLE.search(inner)):
            x, y, size = map(float, found.groups()[:3])
            right = x + width_of(html.unescape(found.group(4)), size, bold=True)
            if any(x - 2 <= px <= right + 2 and y - size <= py <= y + 2 for px, py in points):
                crossed.add(name)
    return frozenset(crossed)


def _points(inner: str) -> Iterator[Point]:
    """Yield points of the curves of an arrow: "x,y" of the start, then three points for each cubic curve."""
    for path in _PATH.findall(inner):
        numbers = [float(x) for x in re.findall(r"-?[\d.]+", path)]
        ends = list(zip(numbers[::2], numbers[1::2], strict=True))
        for i in range(0, len(ends) - 3, 3):
            a, b, c, d = ends[i : i + 4]
            for step in range(_SAMPLES + 1):
                t = step / _SAMPLES
                weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
                (x, y) = [sum(w * p[k] for w, p in zip(weights, (a, b, c, d), strict=True)) for k in (0, 1)]
                yield x, y
