"""What pictures say and how they look: values, gradients, colors, repeats drawn once, sizes, pages, notebooks."""

import html
import re
import xml.dom.minidom

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.graphs import notebook, rendering
from tensorlib.graphs.colors import color_of_norm
from tensorlib.graphs.rolling import rolled_up
from tensorlib.graphs.text_width import width_of
from tensorlib.graphs.titles import crossed_titles
from tests.graphs.test_repeats import loop, recurrent, stack_of_layers
from tests.recorded import leaf, network


def expression():
    a = tl.Tensor(2.0, requires_grad=True)
    return 2 * a**3 + 1, {"a": a}


def dot_text(y, tmp_path, *arguments, **options):
    return tl.draw(y, tmp_path / "g.dot", *arguments, **options).read_text()


def svg_of(y, tmp_path, *arguments, **options):
    if rendering.find_renderer() is None:
        pytest.skip("no renderer is installed: pip install graphviz-pure")
    return tl.draw(y, tmp_path / "g.svg", *arguments, **options).read_text()


def lines_of_boxes(text):
    """Return the lines of each box, without the markup, by the box's key."""
    boxes = {}
    for key, label in re.findall(r"^\t*(\w+) \[.*?label=<(.*)> [a-z]+=", text, re.MULTILINE):
        texts = [html.unescape(part).strip() for part in re.split(r"<[^>]*>", label)]
        boxes[key] = [part for part in texts if part]
    return boxes


# ---- what boxes say --------------------------------------------------------------------------------------------------


def test_a_scalar_expression_shows_its_numbers_and_data_and_grad_of_every_box(tmp_path):
    y, names = expression()
    boxes = lines_of_boxes(dot_text(y, tmp_path, names=names, show=("values", "gradients")))
    assert boxes["l0"] == ["a", "data 2", "grad 24"]
    assert boxes["n0"] == ["power", "data 8", "grad 2"]
    assert boxes["n1"] == ["multiply", "data 16", "grad 1"]
    assert boxes["n2"] == ["add", "data 17", "grad 1"]
    assert [boxes[key] for key in ("n0c1", "n1c0", "n2c1")] == [["3"], ["2"], ["1"]]


def test_numbers_are_text_in_the_boxes_of_a_larger_picture(tmp_path):
    text = dot_text(loop(25), tmp_path, depth=None)
    assert text.count(">with 0.001</font>") == 25 and "c1" not in text


def test_large_arrays_show_range_and_norm_and_small_ones_their_elements(tmp_path):
    x = tl.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    boxes = lines_of_boxes(dot_text(x.sum(axis=1) * 2, tmp_path, names={"x": x}, show=("values", "gradients")))
    assert boxes["l0"] == ["x", "(2, 3)", "data 0 … 5", f"grad norm {2 * 6**0.5:.4g}"]
    assert boxes["n1"] == ["multiply", "(2,)", "data [6, 24]", "grad [1, 1]"]


def test_memory_operations_and_statistics_are_shown_on_request(tmp_path):
    y = tl.exp(leaf(10, 100))
    boxes = lines_of_boxes(dot_text(y, tmp_path, show=("memory", "operations", "statistics")))
    assert boxes["n0"] == ["exp", "(10, 100)", "data 2.718", "mean 2.718, std 0", "keeps 4 kB", "1,000 operations"]
    assert "1,000 floating-point operations forward" in dot_text(y, tmp_path, show="operations")


def test_a_folded_module_shows_the_gradient_of_its_results_and_of_its_parameters(tmp_path):
    y = network()
    g = tl.graph(y, gradients=True)
    text = dot_text(g, tmp_path, 0, show="gradients")
    y.backward()
    norm = sum(g.gradients["leaf", one.number, 0].norm ** 2 for one in g.parameters) ** 0.5
    assert f"grad of parameters: norm {norm:.4g}" in text


def test_options_of_ops_are_shown_but_not_what_shapes_say(tmp_path):
    text = dot_text(tl.softmax(leaf(2, 3).reshape(3, 2), axis=0), tmp_path)
    assert ">axis=0</font>" in text and "shape=(3" not in text


def test_names_of_intermediate_tensors_are_titles(tmp_path):
    x = leaf(2)
    h = tl.tanh(x)
    assert "<b>h = tanh</b>" in dot_text(tl.exp(h), tmp_path, names=locals())


# ---- colors ----------------------------------------------------------------------------------------------------------


def test_colors_go_from_blue_to_red_and_zero_and_nan_have_their_own():
    reds = [int(color_of_norm(10.0**power)[1:3], 16) for power in range(-9, 1)]
    blues = [int(color_of_norm(10.0**power)[5:7], 16) for power in range(6)]
    assert reds == sorted(reds) and blues == sorted(blues, reverse=True)
    assert color_of_norm(1e-30) == color_of_norm(1e-8) and color_of_norm(1e30) == color_of_norm(1e4)
    assert len({color_of_norm(x) for x in (0.0, float("nan"), 1e-8, 1e4)}) == 4
    assert color_of_norm(float("inf")) == color_of_norm(float("nan"))


def test_boxes_have_the_color_of_their_gradient_and_the_legend_explains_it(tmp_path):
    x = leaf(1)
    y = x
    for _ in range(10):
        y = y * 1e-2
    text = dot_text(y, tmp_path, color="gradient")
    assert f'fillcolor="{color_of_norm(1e-20)}"' in text and f'fillcolor="{color_of_norm(1.0)}"' in text
    assert "≤ 1e-8 vanishes" in text and "≥ 1e4 explodes" in text


# ---- repeats drawn once ----------------------------------------------------------------------------------------------


def test_equal_layers_are_drawn_once_with_their_number(tmp_path):
    text = dot_text(stack_of_layers(6), tmp_path, depth=3, fold_repeats=True)
    assert "<b>layers ×6</b>" in text and text.count("<b>tanh</b>") == 1
    assert "432 parameters in 12 tensors" in text  # the line below the picture is about all layers


def test_two_layers_are_drawn_once_but_two_equal_ops_are_not(tmp_path):
    assert "<b>layers ×2</b>" in dot_text(stack_of_layers(2), tmp_path, depth=3, fold_repeats=True)
    assert "×" not in dot_text(tl.tanh(tl.tanh(leaf(3))), tmp_path, fold_repeats=True)


def test_an_unrolled_loop_is_one_step_with_inputs_of_its_own(tmp_path):
    g = rolled_up(tl.graph(recurrent(150)[-1]))
    assert [node.op for node in g] == ["matmul", "matmul", "add", "tanh"]
    assert {node.path for node in g} == {"steps ×150"}
    assert len(g.leaves) == 4  # the input of a step, the first state, and two weights


def test_rolling_up_keeps_numbers_as_ranges_and_sums(tmp_path):
    x = leaf(1)
    y = x
    for _ in range(5):
        y = y * 2
    whole = tl.graph(y, values=True, gradients=True)
    g = rolled_up(whole)
    assert len(g) == 1 and g.flops == whole.flops and g.saved_bytes == whole.saved_bytes
    value, gradient = g.values["node", 0, 0], g.gradients["node", 0, 0]
    assert (value.low, value.high) == (2.0, 32.0)
    assert (gradient.least_norm, gradient.norm, gradient.arrays) == (1.0, 16.0, 5)
    assert "data 2 … 32" in dot_text(whole, tmp_path, fold_repeats=True, show="values")


def test_false_folds_no_repeats(tmp_path):
    assert dot_text(loop(150), tmp_path, fold_repeats=False).count("<b>add</b>") == 150


# ---- functions, options, errors --------------------------------------------------------------------------------------


def test_a_function_is_drawn_with_its_inputs_and_the_inside_of_composite_functions(tmp_path):
    text = dot_text(lambda x: x.mean(axis=0), tmp_path, inputs=(np.ones((2, 3)),), formulas=True)
    assert "<b>mean()</b>" in text and "label=<x<br/>" in text
    assert "<b>divide</b>" not in dot_text(lambda x: x.mean(), tmp_path, 0, inputs=(np.ones(3),), formulas=True)


def test_a_fused_op_is_drawn_as_the_ops_of_its_formula(tmp_path):
    weights = [np.ones(shape, "float32") for shape in [(4, 8), 8, (8, 4), 4]]

    def sub_layer(x):
        return tl.feed_forward(x, *weights)

    assert "<b>feed_forward</b>" in dot_text(sub_layer, tmp_path, inputs=(np.ones((2, 4)),))
    assert "<b>linear" in dot_text(sub_layer, tmp_path, inputs=(np.ones((2, 4)),), formulas=True)


def test_a_graph_without_numbers_cannot_show_them(tmp_path):
    with pytest.raises(ValueError, match=r"draw: the graph must have gradients .*tl\.graph\(y, gradients=True\)"):
        dot_text(tl.graph(leaf(2) * 2), tmp_path, show="gradients")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"show": ("values", "colours")}, "show must be some of shapes, values, .*; got 'colours'"),
        ({"color": "red"}, "color must be 'kind' or 'gradient'; got 'red'"),
        ({"direction": "up"}, "direction must be 'down' or 'right'; got 'up'"),
        ({"size": "poster"}, r"size must be 'page', 'slide' or \(width, height\) in inches; got 'poster'"),
        ({"size": (0, 3)}, r"got \(0, 3\)"),
    ],
)
def test_unknown_options_are_named(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        dot_text(leaf(2) * 2, tmp_path, **options)


def test_data_flows_right_on_request(tmp_path):
    assert "rankdir=LR" in dot_text(leaf(2) * 2, tmp_path, direction="right")
    assert "rankdir=TB" in dot_text(leaf(2) * 2, tmp_path)


def size_in_points(svg):
    return [float(x) for x in re.search(r'<svg width="([\d.]+)pt" height="([\d.]+)pt"', svg).groups()]


def test_a_picture_fits_its_size_and_is_folded_until_it_can_be_read(tmp_path):
    width, height = size_in_points(svg_of(stack_of_layers(30), tmp_path, None, size="page"))
    assert width <= 7.3 * 72 + 1 and height <= 10.7 * 72 + 1
    svg = svg_of(stack_of_layers(6), tmp_path, None, size=(4, 5))
    assert "layers ×6" in svg and "do not fit the size" in svg
    small = svg_of(leaf(2) * 2, tmp_path, size="slide")
    assert "folded" not in small and size_in_points(small)[0] < 500  # nothing is made larger


# ---- viewers ---------------------------------------------------------------------------------------------------------


def test_text_stays_in_its_box_in_the_widest_usual_font(tmp_path):
    x = leaf(2, name="a_parameter_of_a_long_name_WWWWWWWWWW")
    svg = svg_of(tl.exp(x), tmp_path, names={"我有一只猫": x})
    boxes = re.findall(r'<polygon fill="#fef3c7" stroke="#d97706" points="([-\d., ]+)"', svg)
    xs = [float(pair.split(",")[0]) for pair in boxes[0].split()]
    texts = re.findall(r'text-anchor="middle" x="([-\d.]+)"[^>]* font-size="([\d.]+)"[^>]*>(a_par[^<]*)<', svg)
    assert len(texts) == 1
    for middle, size, text in texts:
        half = width_of(text, float(size)) / 2
        assert min(xs) < float(middle) - half and float(middle) + half < max(xs)


def test_widths_of_texts():
    assert width_of("WWW", 10) > width_of("iii", 10)
    assert width_of("word", 10, bold=True) > width_of("word", 10)
    assert width_of("猫", 10) == 10 and width_of("e\u0301", 10) == width_of("e", 10)


NASTY = ["\"'</title></svg></script><script>alert(1)</script>", "]]>-->;&amp;\\N\n\x00\u202e", "x" * 10_000]


def nasty_graph():
    y = leaf(2, name=NASTY[1])
    for name in NASTY:
        with tl.module_scope(name):
            y = tl.exp(y * leaf(2, name=f"{name}.{name}"))
    return y, {NASTY[0]: y, NASTY[2]: leaf(2)}


def test_nothing_breaks_out_of_a_page(tmp_path):
    y, names = nasty_graph()
    svg = svg_of(y, tmp_path, names=names, show=("values", "gradients"), color="gradient")
    xml.dom.minidom.parseString(svg)
    page = tl.draw(y, tmp_path / "g.html", names=names).read_text()
    for text in (svg, page, tl.graph(y, names=names)._repr_html_()):
        assert "<script>alert" not in text and "x" * 1000 not in text and "\x00" not in text
    assert page.count("<script") == 1 and page.count("</svg>") == 1


def test_a_page_is_complete_and_loads_nothing(tmp_path):
    page = tl.draw(network(), tmp_path / "g.html") if rendering.find_renderer() else pytest.skip("no renderer")
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>") and "default-src 'none'" in text
    assert not re.search(r'(src|href)="(?!#)', text.replace("xlink:href", ""))


def test_a_notebook_shows_the_picture_or_else_the_summary(monkeypatch):
    g = tl.graph(network())
    if rendering.find_renderer():
        shown = g._repr_html_()
        assert shown.startswith("<div") and "<svg" in shown and "<?xml" not in shown
    monkeypatch.setattr(notebook, "find_renderer", lambda: None)
    assert g._repr_html_() == f"<pre>{html.escape(g.summary())}</pre>"
    monkeypatch.setattr(notebook, "find_renderer", lambda: ("dot", "/does/not/exist"))
    assert g._repr_html_().startswith("<pre>")
    assert tl.Graph()._repr_html_().startswith("<pre>")


def test_no_arrow_crosses_the_title_of_a_frame(tmp_path):
    def loss(x):
        return tl.exp(x.mean())

    svg = svg_of(loss, tmp_path, inputs=(np.ones((4, 4)),), formulas=True)
    assert not crossed_titles(svg)


def test_a_crossed_title_is_noticed():
    title = '<text x="10" y="20" font-size="11.00">mean()</text>'
    frame = f'<g id="clust1" class="cluster">\n<title>cluster_0</title>\n{title}</g>'
    arrow = '<g id="edge1" class="edge">\n<title>a</title>\n<path fill="none" d="M{0},0C{0},10 {0},20 {0},40"/></g>'
    assert crossed_titles(frame + arrow.format(20)) == {"cluster_0"}
    assert crossed_titles(frame + arrow.format(200)) == frozenset()


def test_steps_in_one_box_show_the_gradient_that_vanishes(tmp_path):
    w, h = tl.Tensor(np.eye(4) * 0.5, requires_grad=True), tl.Tensor(np.ones((1, 4)))
    for _ in range(70):
        h = tl.tanh(h @ w)
    text = tl.draw(h.sum(), tmp_path / "h.dot", show="gradients", color="gradient").read_text()
    box = next(line for line in text.splitlines() if "68 more steps" in line)
    assert re.search(r"grad norm \S+e-\d\d … 1<", box.replace("−", "-"))
    assert f'fillcolor="{color_of_norm(1e-20)}"' in box
