"""The page that steps through a graph: one file from which nothing breaks out, and what it shows in a browser."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import tensorlib as tl
from tests import chromium
from tests.stepped import chain, leaf, transformer_loss

HOSTILE = "a\"b'<c>&amp;\n\x00\u202e</script><script>document.title='broken'</script><img src=x onerror=alert(1)>]]>-->"


# ---- the file ----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags of a page, and the texts of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.texts.append((self.tags[-1], data))


def data_in(page):
    (text,) = [text for (tag, attributes), text in page.texts if attributes.get("id") == "data"]
    return json.loads(text)


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path):
    text = tl.step_through(chain()[2], tmp_path / "steps.html").read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not [tag for tag, attributes in page.tags if {"src", "href", "style"} & set(attributes)]
    without_namespace = text.replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in without_namespace and "https:" not in without_namespace and "@import" not in text
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert "@" not in re.sub(r"@media|@keyframes", "", text.partition("<body>")[0])
    script = re.findall(r"<script>(.*)</script>", text, re.DOTALL)[-1]
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script and "document.write" not in script


@pytest.mark.parametrize("name", [HOSTILE, "x" * 10_000, "\ud800", "@DATA@ @SCRIPT@"])
def test_hostile_names_stay_data(tmp_path, name):
    a = leaf(1.0)
    with tl.module_scope(f"outer.{name}"):
        b = a + a
    text = tl.step_through(b * b, tmp_path / "steps.html", names={name: a, f"{name} ": b}).read_text()
    plain = Page(tl.step_through(chain()[2], tmp_path / "plain.html").read_text())
    page = Page(text)
    assert page.tags == plain.tags
    data = data_in(page)
    assert data["leaves"][0]["name"] and len(data["leaves"][0]["name"]) < 900
    assert all(
        c.isprintable() for c in data["leaves"][0]["name"] + data["nodes"][0]["path"] + data["nodes"][0]["names"][0]
    )
    assert len(text) < 200_000


# ---- in a browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page():
    if chromium.COMMAND is None:
        pytest.skip("Chromium is not installed")
    with chromium.Chromium() as page:
        yield page


def test_the_film_runs_to_the_end_and_back_in_a_browser(page, tmp_path):
    a, b, c = chain()
    page.open(tl.step_through(c, tmp_path / "steps.html", names={"a": a, "b": b, "c": c}).as_uri())
    seen = []
    for _ in range(6):
        page.press("ArrowRight")
        seen.append(page.run("[...document.querySelectorAll('.box text')].map(t => t.textContent)"))
    assert seen[0] == ["b = add", "2", "", "c = add", "", "", "a", "1", ""]
    assert seen[2] == ["b = add", "2", "", "c = add", "4", "grad 1", "a", "1", ""]
    assert seen[5] == ["b = add", "2", "grad 2", "c = add", "4", "grad 1", "a", "1", "grad 4"]
    page.press("ArrowLeft")
    shown = " ".join(page.run("document.querySelector('.sum').innerText").split())
    assert shown == "from c input 1 scalar 1 + from c input 2 scalar 1 = sum scalar 2"
    shown = " ".join(page.run("[...document.querySelectorAll('.adds .sum')].map(sum => sum.innerText).join()").split())
    assert shown == "from b input 1 scalar 2 + from b input 2 scalar 2 = sum scalar 4"
    for _ in range(9):
        page.press("ArrowLeft")
    assert page.run("document.body.dataset.step") == "0"
    assert page.run("document.querySelectorAll('.box.graded').length") == 0
    assert page.problems() == []


def test_the_numbers_on_the_page_are_the_engines(page, tmp_path):
    x, w = leaf(np.linspace(-1, 1, 6).reshape(2, 3)), leaf(np.linspace(0, 2, 6).reshape(3, 2))
    h = x @ w
    y = tl.softmax(h)
    loss = -tl.log(y[:, 0]).mean()
    names = {"x": x, "w": w, "h": h, "loss": loss}
    page.open(tl.step_through(loss, tmp_path / "steps.html", names=names).as_uri())
    cells = "[...figure.querySelectorAll('td')].map(cell => Number(cell.title))"
    numbers = f"[...document.querySelectorAll('#panel figure')].map(figure => {cells})"
    page.press("ArrowRight")
    assert np.float32(page.run(numbers)[0]).tolist() == h.numpy().ravel().tolist()
    loss.backward()
    page.press("End")
    shown = page.run(numbers)
    assert np.float32(shown[0]).tolist() == x.grad.numpy().ravel().tolist()
    assert np.float32(shown[1]).tolist() == w.grad.numpy().ravel().tolist()
    assert page.problems() == []


def test_keys_search_and_folding_in_a_browser(page, tmp_path):
    _, loss = transformer_loss()
    page.open(tl.step_through(loss, tmp_path / "steps.html").as_uri() + "#step=12", dark=True)
    assert page.run("document.body.dataset.step") == "12"
    open_boxes = page.run("view.boxes.length")
    page.run("openTo(0)")
    assert page.run("view.boxes.length") < open_boxes
    page.run("view.boxes.find(box => box.title === '+ encoder').group.dispatchEvent(new MouseEvent('click'))")
    assert page.run("view.boxes.some(box => box.title === '+ layers.0')")
    page.press("/")
    for letter in "cross_entropy":
        page.press(letter)
    page.press("Enter")
    assert "cross_entropy" in page.run("document.querySelector('#panel h2').textContent")
    page.press("b")
    assert page.run("document.body.dataset.phase") == "backward"
    start = int(page.run("document.body.dataset.step"))
    page.press("ArrowRight", shift=True)
    assert int(page.run("document.body.dataset.step")) > start
    page.press("?")
    assert page.run("document.getElementById('help').open")
    assert page.problems() == []


def test_boxes_do_not_overlap_and_edges_cross_none(page, tmp_path):
    _, loss = transformer_loss()
    page.open(tl.step_through(loss, tmp_path / "steps.html").as_uri())
    page.run("showLeaves(true)")
    page.run("openTo(9)")
    boxes = page.run("view.boxes.map(b => [b.x, b.y, b.w, b.h])")
    assert len(boxes) > 150
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:i]:
            assert x + w <= x2 + 1e-3 or x2 + w2 <= x + 1e-3 or y + h <= y2 + 1e-3 or y2 + h2 <= y + 1e-3
    edges = page.run("view.edges.map(e => [e.from.key, e.to.key, e.points])")
    keys = page.run("view.boxes.map(b => b.key)")
    for tail, head, points in edges:
        for name, (x, y, w, h) in zip(keys, boxes, strict=True):
            if name not in (tail, head):
                assert not any(x < px < x + w and y < py < y + h for px, py in points)


def test_hostile_names_do_not_run_in_a_browser(page, tmp_path):
    a = leaf(1.0)
    with tl.module_scope(HOSTILE):
        b = a + a
        c = b * b
    page.open(tl.step_through(c, tmp_path / "steps.html", names={HOSTILE: a}).as_uri())
    page.press("End")
    assert page.run("document.title") == "Step through a graph"
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.querySelectorAll('script').length") == 2
    assert page.problems() == []
