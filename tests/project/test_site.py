"""The site of docs/: every link leads somewhere, nothing is loaded from elsewhere, every public name has an entry.

The Markdown of the site is tested always, the built site if the extra `docs` is installed.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import models
import nn
import tensorlib as tl
from tests import ROOT
from tests.chromium import COMMAND, Chromium

BUILD = ROOT / "docs" / "build.py"


def run_build(*arguments, script=BUILD):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return the folder with the Markdown of the site."""
    folder = tmp_path_factory.mktemp("source")
    run = run_build(folder, "--source-only")
    assert run.returncode == 0, run.stderr
    return folder / "source"


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """Return the folder of the built site."""
    pytest.importorskip("zensical", reason="needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    run = run_build(folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def build():
    """Return the module docs/build.py."""
    sys.path.insert(0, str(BUILD.parent))
    try:
        specification = importlib.util.spec_from_file_location("build", BUILD)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(BUILD.parent))
    return module


# ---- Markdown --------------------------------------------------------------------------------------------------------


def public_names():
    """Return the dotted name of everything that tensorlib, nn, its modules and models export."""
    exported = {n for n, v in vars(tl).items() if not n.startswith("_") and not isinstance(v, ModuleType)}
    names = {f"tl.{name}" for name in exported - {"TYPE_CHECKING", "register_kernels"}}
    for name in nn.__all__:
        value = getattr(nn, name)
        names |= {f"nn.{name}.{part}" for part in value.__all__} if isinstance(value, ModuleType) else {f"nn.{name}"}
    return names | {f"models.{name}" for name in models.__all__}


def headings(folder):
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.md"))
    return {heading.replace("\\", "") for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)}


def test_every_public_name_has_an_entry(source):
    names = public_names()
    assert len(names) > 250 and {"tl.softmax", "nn.optim.Adam", "models.load"} <= names
    assert names <= headings(source / "ops") | headings(source / "api")


def test_an_op_has_signature_example_derivation_and_source(source):
    text = (source / "ops" / "softmax.md").read_text(encoding="utf-8").partition("## tl.softmax")[2]
    assert "```python\ntl.softmax(x: TensorLike, axis: int = -1, visible: TensorLike | None = None) -> Tensor" in text
    assert "```pycon\n>>> tl.softmax([0.0, 1.0, 2.0])" in text
    assert "```text\ndy_i/dx_j = y_i (1[i=j] - y_j)  =>  dx = y (dy - <dy, y>).\n```" in text
    line = int(re.search(r"tensorlib/ops/softmax.py.md#__span-0-(\d+)\)", text)[1])
    assert (
        (ROOT / "tensorlib/ops/softmax.py")
        .read_text(encoding="utf-8")
        .splitlines()[line - 1]
        .startswith(("@derivation", "def softmax"))
    )


def test_no_signature_shows_help_texts_or_addresses(source):
    pages = [*(source / "api").glob("*.md"), *(source / "ops").glob("*.md")]
    signatures = [part for page in pages for part in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)]
    assert len(signatures) > 250
    assert not [part for part in signatures if "Annotated" in part or " at 0x" in part]


def test_every_page_of_docs_is_in_the_navigation(source):
    config = tomllib.loads((source.parent / "zensical.toml").read_text(encoding="utf-8"))

    def pages(nav):
        for name in nav:
            for value in name.values():
                yield from pages(value) if isinstance(value, list) else [value]

    listed = list(pages(config["project"]["nav"]))
    written = {path.relative_to(source).as_posix() for path in source.rglob("*.md")}
    assert {name for name in written if not name.startswith("repository/")} == set(listed)
    assert len(listed) == len(set(listed)) and listed[0] == "index.md"


def test_files_outside_of_docs_are_shown(source):
    shown = (source / "repository/examples/01_gradients.py.md").read_text(encoding="utf-8")
    assert (ROOT / "examples/01_gradients.py").read_text(encoding="utf-8") in shown
    assert "(repository/examples/10_derive.py.md)" in (source / "derivations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "1. a\n\n   ```sh\n   x\n   ```\n\n   - b\n     c\n",
            "1. a\n\n    ```sh\n    x\n    ```\n\n    - b\n        c\n",
        ),
        ("text:\n- a\n- b\n", "text:\n\n- a\n- b\n"),
        ("the result is\n0. Then\n", "the result is\n0. Then\n"),
        ("- a\n  b\n\nc\n\n    d\n", "- a\n    b\n\nc\n\n    d\n"),
        ("```\na\n- b\n  c\n```\n", "```\na\n- b\n  c\n```\n"),
        ("| `a\\|b` | c\\|d |\n", "| `a|b` | c\\|d |\n"),
    ],
)
def test_markdown_of_code_hosts_becomes_that_of_the_generator(build, text, expected):
    assert build.for_generator(text) == expected


def test_links_lead_to_where_the_site_has_the_files(build):
    linked = []
    text = (
        "[a](../README.md#two-commands) [b](map.md) ![c](pictures/map.svg) [d](../nn/attention.py#L3) [e](https://f.g)"
    )
    expected = (
        "[a](repository/about.md#two-commands) [b](map.md) ![c](pictures/map.svg) "
        "[d](repository/nn/attention.py.md#__span-0-3) [e](https://f.g)"
    )
    assert build.relinked(text, "docs/engine.md", linked) == expected
    assert linked == ["README.md", "docs/map.md", "docs/pictures/map.svg", "nn/attention.py"]
    assert build.relinked("`[a](b.md)`", "docs/engine.md", []) == "`[a](b.md)`"


@pytest.mark.parametrize("target", ["nothing.md", "../../outside.md", "../nothing/"])
def test_a_link_to_nothing_stops_the_build(build, target):
    with pytest.raises(SystemExit, match=r"docs/engine\.md: a link to an existing file is required, got"):
        build.relinked(f"[a]({target})", "docs/engine.md", [])


# ---- the built site --------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The links, anchors and loaded files of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.loads = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if given.get("src"):
            self.loads.append(given["src"])
        if tag == "link" and given.get("href") and given.get("rel") not in ("canonical", "next", "prev", "alternate"):
            self.loads.append(given["href"])
        self.loads += re.findall(r"url\(([^)]+)\)", given.get("style") or "")


def broken_links(folder):
    """Return the links and loaded files of a site that lead nowhere or elsewhere; links may lead elsewhere."""
    pages = {path: Page(path) for path in folder.rglob("*.html") if path.name != "404.html"}
    broken = []
    for path, page in pages.items():
        for target in [*page.links, *page.loads]:
            parts = urlsplit(target)
            file = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if parts.scheme or parts.netloc:
                wrong = parts.scheme != "data" and target in page.loads
            else:
                wrong = not file.is_file() or (
                    file in pages
                    and parts.fragment not in ("", "__skip")
                    and unquote(parts.fragment) not in pages[file].anchors
                )
            broken += [f"{path.relative_to(folder)}: {target}"] if wrong else []
    return broken


def test_every_link_of_the_site_leads_somewhere_and_nothing_is_loaded_from_elsewhere(html):
    assert len(list(html.rglob("*.html"))) > 100
    assert not broken_links(html)
    assert not [target for target in Page(html / "404.html").loads if urlsplit(target).netloc]
    for style in html.rglob("*.css"):
        loaded = re.findall(r"url\(\s*['\"]?(https?:|//)|@import", style.read_text(encoding="utf-8"))
        assert not loaded, style


@pytest.mark.parametrize(
    "planted",
    ['<a href="nothing.html">', '<a href="map.html#nothing">', '<script src="https://a.b/c.js">', '<img src="a.png">'],
)
def test_a_planted_error_is_found(html, tmp_path, planted):
    for name in ("map.html", "404.html"):
        (tmp_path / name).write_text("<p id='here'>" + planted * (name == "map.html"))
    assert broken_links(tmp_path) == ["map.html: " + planted.split('"')[1]]


@pytest.mark.skipif(COMMAND is None, reason="needs Chromium")
@pytest.mark.parametrize("page, width, dark", [("index.html", 1280, False), ("ops/softmax.html", 390, True)])
def test_a_browser_loads_nothing_from_elsewhere_and_no_page_is_wider_than_the_screen(html, page, width, dark):
    with Chromium() as browser:
        browser.open((html / page).as_uri(), width=width, dark=dark)
        assert not browser.problems()
        assert browser.run("document.documentElement.scrollWidth") <= width
        scheme = browser.run("document.body.getAttribute('data-md-color-scheme')")
        assert scheme == ("slate" if dark else "default")


def eventually(condition):
    """Return a script that waits until a condition holds, or for ten seconds, and gives whether it holds."""
    return """new Promise((done) => {
      let left = 100;
      const look = () => (CONDITION ? done(true) : left-- ? setTimeout(look, 100) : done(false));
      look();
    })""".replace("CONDITION", condition)


TYPING = "document.activeElement.shadowRoot?.activeElement?.tagName === 'INPUT'"
FOUND = "document.activeElement.shadowRoot.querySelector('a[href$=\"ops/reduce.html#tllogsumexp\"]')"


@pytest.mark.skipif(COMMAND is None, reason="needs Chromium")
def test_the_search_works_on_pages_opened_from_a_disk(html):
    with Chromium() as browser:
        browser.open((html / "index.html").as_uri())
        browser.run("document.querySelector('.md-search__button').click()")
        assert browser.run(eventually(TYPING))
        browser.send("Input.insertText", {"text": "logsumexp"})
        assert browser.run(eventually(FOUND))
