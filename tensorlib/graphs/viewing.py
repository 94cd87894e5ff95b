"""A rendered picture for viewers: text that stays in its box in any font, and a page that zooms without a network."""

from __future__ import annotations

import base64
import hashlib
import html
import re

__all__ = ["page", "readable_everywhere"]

FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

# Percent of the size of the font, for the printable ASCII characters; Graphviz places text by these widths.
_HELVETICA = (
    (28, 28, 36, 56, 56, 89, 67, 19, 33, 33, 39, 58, 28, 33, 28, 28)
    + (56,) * 10
    + (28, 28, 58, 58, 58, 56, 102)
    + (67, 67, 72, 72, 67, 61, 78, 72, 28, 50, 67, 56, 83, 72, 78, 67, 78, 72, 67, 61, 72, 67, 94, 67, 67, 61)
    + (28, 28, 28, 47, 56, 33)
    + (56, 56, 50, 56, 56, 28, 56, 56, 22, 22, 50, 22, 83, 56, 56, 56, 56, 33, 50, 28, 56, 50, 72, 50, 50, 50)
    + (33, 26, 33, 58)
)
_HELVETICA_BOLD = (
    (28, 33, 47, 56, 56, 89, 72, 24, 33, 33, 39, 58, 28, 33, 28, 28)
    + (56,) * 10
    + (33, 33, 58, 58, 58, 61, 98)
    + (72, 72, 72, 72, 67, 61, 78, 72, 28, 56, 72, 61, 83, 72, 78, 67, 78, 72, 67, 61, 72, 67, 94, 67, 67, 61)
    + (33, 28, 33, 58, 56, 33)
    + (56, 61, 56, 61, 56, 33, 61, 61, 28, 28, 56, 28, 89, 61, 61, 61, 61, 39, 56, 33, 61, 56, 78, 56, 56, 50)
    + (39, 28, 39, 58)
)
_KNOWN = "×·…−≤≥\N{NO-BREAK SPACE}"
_LONGEST_IN_LEGEND = 22  # characters of the name of a kind or color; a longer text is a line
_GROUP = re.compile(r'(<g id="[^"]*" class="(?:node|cluster|edge)">)')
_TEXT = re.compile(r'<text ([^>]*)text-anchor="start" x="([-\d.]+)"([^>]*) font-size="([\d.]+)"([^>]*)>([^<]*)</text>')


def readable_everywhere(svg: str) -> str:
    """Return a picture of Graphviz whose texts are centered in their boxes, in the font of the viewer.

    A text that begins where Graphviz placed it would leave its box to the right where the font is wider. Titles of
    frames and lines below the picture begin at the left, where there is room for them.
    """
    parts = _GROUP.split(svg)  # the text before each group of a box, frame or arrow, and the kind of the group
    parts[0] = _TEXT.sub(lambda found: _centered(found, _LONGEST_IN_LEGEND), parts[0])
    for i in range(1, len(parts), 2):
        if 'class="node"' in parts[i]:
            parts[i + 1] = _TEXT.sub(_centered, parts[i + 1])
    return "".join(parts).replace('font-family="Helvetica,sans-Serif"', f'font-family="{FONTS}"')


def _centered(found: re.Match[str], longest: int = 1000) -> str:
    """Return a text that is centered where Graphviz centered it; unchanged if Graphviz may have measured otherwise."""
    before, x, between, size, after, text = found.groups()
    plain = html.unescape(text)
    if len(plain) > longest or not all(c in _KNOWN or " " <= c <= "~" for c in plain):
        return found.group()
    table = _HELVETICA_BOLD if "bold" in between + after else _HELVETICA
    width = sum(table[ord(c) - 32] if " " <= c <= "~" else 56 for c in plain) * float(size) / 100
    middle = float(x) + width / 2
    return f'<text {before}text-anchor="middle" x="{middle:.2f}"{between} font-size="{size}"{after}>{text}</text>'


def page(svg: str, title: str) -> str:
    """Return a self-contained page with the picture, which fits the window, and zooms by wheel, keys and buttons."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()  # no other script may run
    start, _, end = _PAGE.replace("SCRIPT", _SCRIPT).replace("HASH", digest).partition("PICTURE")
    return start.replace("TITLE", html.escape(title)) + inline(svg) + end


def inline(svg: str) -> str:
    """Return the element of a picture, without the declarations that only a file of its own may have."""
    return svg[svg.index("<svg") :]


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'sha256-HASH'">
<title>TITLE</title>
<style>
html, body { margin: 0; height: 100%; overflow: hidden; background: #fff; font: 14px sans-serif; }
#view { position: absolute; inset: 0; overflow: auto; cursor: grab; }
#view svg { display: block; margin: auto; }
#tools { position: fixed; top: 8px; right: 8px; background: #fffd; border: 1px solid #cbd5e1; border-radius: 6px; }
#tools button { font: inherit; border: 0; background: none; padding: 6px 10px; cursor: pointer; }
@media print { #tools { display: none; } #view { position: static; overflow: visible; } }
</style>
</head>
<body>
<div id="view">
PICTURE
</div>
<div id="tools">
<button data-zoom="0.8" title="smaller (-)">−</button>
<button data-zoom="1.25" title="larger (+)">+</button>
<button data-zoom="0" title="fit the window (0)">fit</button>
</div>
<script>SCRIPT</script>
</body>
</html>
"""

_SCRIPT = """
const view = document.getElementById("view"), picture = view.querySelector("svg");
const box = picture.viewBox.baseVal;
let scale = 1;
function show(factor, x, y) {
  const bounds = view.getBoundingClientRect();
  const fit = Math.min(bounds.width / box.width, bounds.height / box.height, 1.5);
  const next = factor ? Math.min(Math.max(scale * factor, 0.02), 20) : fit;
  const ratio = next / scale;
  const left = (view.scrollLeft + x) * ratio - x, top = (view.scrollTop + y) * ratio - y;
  scale = next;
  picture.setAttribute("width", box.width * scale);
  picture.setAttribute("height", box.height * scale);
  view.scrollTo(left, top);
}
const middle = () => [view.clientWidth / 2, view.clientHeight / 2];
for (const button of document.querySelectorAll("button"))
  button.addEventListener("click", () => show(Number(button.dataset.zoom), ...middle()));
view.addEventListener("wheel", event => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  show(event.deltaY < 0 ? 1.1 : 1 / 1.1, event.clientX, event.clientY);
}, { passive: false });
document.addEventListener("keydown", event => {
  const factor = { "+": 1.25, "=": 1.25, "-": 0.8, "0": 0 }[event.key];
  if (factor !== undefined && !event.ctrlKey && !event.metaKey) show(factor, ...middle());
});
let from = null;
view.addEventListener("pointerdown", event => {
  from = [event.clientX + view.scrollLeft, event.clientY + view.scrollTop];
});
addEventListener("pointerup", () => { from = null; });
view.addEventListener("pointermove", event => {
  if (from && event.buttons) view.scrollTo(from[0] - event.clientX, from[1] - event.clientY);
});
show(0, 0, 0);
"""
