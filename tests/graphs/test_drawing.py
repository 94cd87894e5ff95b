"""The graph as a picture: its text, its renderers, and that a file is written as a whole or not at all."""

import html
import importlib.metadata
import re
import stat
import subprocess
import sys
import xml.dom.minidom

import pytest

import tensorlib as tl
from tensorlib.graphs import drawing, rendering
from tests.recorded import leaf, network


def dot_text(y, tmp_path, **options):
    return tl.draw(y, tmp_path / "g.dot", **options).read_text()


# ---- the text of the picture -----------------------------------------------------------------------------------


def test_a_leaf_alone_is_a_graph_and_a_picture(tmp_path):
    assert len(tl.graph(leaf(3)).leaves) == 1
    assert "(3,)" in dot_text(leaf(3), tmp_path)


def test_a_long_chain_needs_no_recursion_and_is_folded_where_it_cannot_be_drawn(tmp_path):
    y = leaf(1)
    for _ in range(20_000):
        y = tl.tanh(y)
    g = tl.graph(y)
    assert len(g) == 20_000 and g.nodes[-1].inputs[0].node == 19_998
    svg = tl.draw(g, tmp_path / "g.svg", depth=None).read_text()
    assert "steps ×20000" in svg and "20,001 boxes at depth=None are more than the 1,000 that can be drawn" in svg
    assert dot_text(g, tmp_path, depth=None).count(" -> ") == 20_000
    assert dot_text(g, tmp_path).count(" -> ") == 3  # the leaf, the first op, 19,998 more, the last op


def test_frames_nest_and_boxes_are_in_the_frame_of_their_module(tmp_path):
    text = dot_text(network(), tmp_path, depth=2)
    encoder = text.index("<b>encoder</b>")
    assert encoder < text.index("<b>layers.0</b>") < text.index("<b>attention</b>")
    assert text.count("subgraph cluster") == 3
    assert text.count("<b>attention</b>") == 2 and text.count("5 ops · 144 parameters") == 2
    assert "<b>matmul</b>" not in text
    assert "<b>matmul</b>" in dot_text(network(), tmp_path, depth=None)


def test_boxes_show_name_and_shape_and_only_the_uncommon_dtype(tmp_path):
    w = leaf(8, 4, name="layer.weight")
    with tl.module_scope("layer"):
        y = tl.relu(leaf(2, 8) @ w)
    text = dot_text(y.astype("float64"), tmp_path)
    assert "<weight<br/>" in text and "<layer.weight<br/>" not in text  # the frame already shows "layer"
    assert "(8, 4)</font>" in text and "(2, 4) float64</font>" in text
    assert "float32 unless marked" in text
    assert 'style="rounded,filled"' in text and text.count("penwidth") == 1


def test_arrows_show_output_numbers_and_counts(tmp_path):
    a, b = tl.split(leaf(2, 5), [2], axis=-1)
    text = dot_text((a + a).sum() + b.sum(), tmp_path)
    assert "[0] (2, 2) ×2>" in text and "[1] (2, 3)>" in text
    assert "3 × (2, 4)</font>" in dot_text(sum(tl.split(leaf(2, 12), 3, axis=-1)), tmp_path)


def test_names_from_locals_and_source_lines_are_shown(tmp_path):
    data = leaf(3)
    with tl.record_source():
        y = tl.exp(data)
    text = dot_text(y, tmp_path, names=locals())
    assert "label=<data<br/>" in text
    assert re.search(r">test_drawing\.py:\d+</font>", text)


NASTY = "a\"b<c>&amp;\\N\\G\n\x00'é中{|}<b>x</b>]]>-->;//"
SHOWN = NASTY.replace("\n", "\\n").replace("\x00", "\\x00")


def nasty_graph():
    with tl.module_scope(f"outer.{NASTY}"):
        return leaf(2, 2, name=f"outer.{NASTY}.{NASTY}") @ leaf(2, 2, name=" ") * leaf(2, 2)


@pytest.mark.parametrize("depth", [1, None])
def test_any_name_is_shown_literally(tmp_path, depth, any_renderer):
    svg = tl.draw(nasty_graph(), tmp_path / "g.svg", depth=depth).read_text()
    xml.dom.minidom.parseString(svg)
    texts = [html.unescape(t).replace("\xa0", " ") for t in re.findall(r"<text[^>]*>(.*?)</text>", svg)]
    assert SHOWN in texts
    tips = [html.unescape(t) for t in re.findall(r'xlink:title="(.*?)"', svg)]
    assert any(SHOWN.replace("\\", "⧵") in tip for tip in tips)
    assert "<b>" not in svg


def test_long_names_are_cut_in_the_middle_and_whole_in_the_tooltip(tmp_path):
    text = dot_text(leaf(2, name="begin" + "x" * 200 + "end").sum(), tmp_path)
    assert re.search(r"label=<begin\w{25}…\w{27}end<br/>", text)
    assert "begin" + "x" * 200 + "end" in text


# ---- renderers and files ---------------------------------------------------------------------------------------


def only_pure(monkeypatch):
    """Leave graphviz-pure as the only renderer, or skip."""
    which = rendering.shutil.which
    monkeypatch.setattr(rendering.shutil, "which", lambda name, **kw: None if name == "dot" else which(name, **kw))
    try:
        importlib.metadata.distribution("graphviz-pure")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("graphviz-pure is not installed: pip install graphviz-pure")


@pytest.fixture(params=["dot", "graphviz-pure"])
def any_renderer(request, monkeypatch):
    """Each renderer in turn; a skip names the missing one."""
    if request.param == "graphviz-pure":
        only_pure(monkeypatch)
    elif rendering.shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed: no `dot`")


def test_the_suffix_chooses_the_format(tmp_path, any_renderer):
    g = tl.graph(network())
    assert b"<svg" in tl.draw(g, tmp_path / "g.svg").read_bytes()
    assert tl.draw(g, str(tmp_path / "g.PNG")).read_bytes().startswith(b"\x89PNG")
    assert tl.draw(g, tmp_path / "g.gv").read_text().startswith("digraph")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.PNG", "g.gv", "g.svg"]


def test_without_dot_graphviz_pure_renders(tmp_path, monkeypatch):
    only_pure(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))  # found next to Python even if the environment is not activated
    assert b"graphviz-pure" in tl.draw(network(), tmp_path / "g.svg").read_bytes()
    with pytest.raises(ValueError, match=r"g\.pdf must be one of \.svg, \.png, .*graphviz-pure; got \.pdf") as caught:
        tl.draw(network(), tmp_path / "g.pdf")
    assert "\n" not in str(caught.value)


def test_without_any_renderer_one_line_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(rendering.shutil, "which", lambda *args, **kw: None)
    with pytest.raises(RuntimeError, match=r"draw: .*g\.svg needs Graphviz.*pip install graphviz-pure") as caught:
        tl.draw(network(), tmp_path / "g.svg")
    assert "\n" not in str(caught.value)
    assert tl.draw(network(), tmp_path / "g.dot").exists()


@pytest.mark.parametrize("name", ["g.xyz", "g"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name} must be one of \.svg, \.png, .*\.dot, \.gv.*got (\.xyz|none)"):
        tl.draw(network(), tmp_path / name)


@pytest.mark.parametrize("depth", [-1, 1.5, "2"])
def test_a_wrong_depth_is_named(tmp_path, depth):
    with pytest.raises(ValueError, match=rf"depth must be .*got {depth!r}"):
        tl.draw(network(), tmp_path / "g.dot", depth=depth)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        tl.draw(network(), tmp_path / "nowhere" / "g.dot")


def test_too_many_boxes_are_folded_as_little_as_needed_and_the_picture_says_so(tmp_path, monkeypatch, any_renderer):
    monkeypatch.setattr(drawing, "MOST_BOXES", 8)
    svg = tl.draw(network(), tmp_path / "g.svg", depth=None).read_text()
    assert "folded at depth=2, fold_repeats=True: 28 boxes at depth=None are more than the 8" in html.unescape(svg)
    monkeypatch.setattr(drawing, "MOST_BOXES", 1)
    with pytest.raises(ValueError, match=r"28 boxes at depth=None are more than the 1 .* no folding helps;"):
        tl.draw(network(), tmp_path / "g.svg", depth=None)


def test_a_renderer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    failing = tmp_path / "bin" / "dot"
    failing.parent.mkdir()
    failing.write_text("#!/bin/sh\ncat > /dev/null\necho half\necho broken pipe dream >&2\nexit 3\n")
    failing.chmod(failing.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(rendering.shutil, "which", lambda *args, **kw: str(failing))
    (tmp_path / "g.svg").write_text("old")
    with pytest.raises(RuntimeError, match=r"dot failed with status 3: broken pipe dream$"):
        tl.draw(network(), tmp_path / "g.svg")
    assert (tmp_path / "g.svg").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "g.svg"]


def test_importing_tensorlib_does_not_import_graphviz():
    code = "import sys, tensorlib; sys.exit('graphviz' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
