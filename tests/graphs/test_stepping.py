"""What the page that steps through a graph is made of: its data against the engine, and what it refuses."""

import base64
import json
import re

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.engine.recording import Watch, recording
from tensorlib.graphs.array_summaries import ArrayTable, summary_of
from tensorlib.graphs.building import recorded_nodes
from tensorlib.graphs.op_texts import op_text
from tensorlib.graphs.stepping import film_of
from tests.stepped import chain, leaf, transformer_loss


def contributions(film):
    """Return for each value, by (kind, number, output), what was delivered to its gradient, as (dx, total)."""
    found = {}
    for source, given in zip(film["outputs"], film["begun"], strict=True):
        found.setdefault(key(source), []).append((given["dx"], given["total"]))
    for step in film["backward"]:
        for source, given in zip(film["nodes"][step["node"]]["inputs"], step["dxs"], strict=True):
            if given:
                found.setdefault(key(source), []).append((given["dx"], given["total"]))
    return found


def key(source):
    return ("leaf", source["leaf"], 0) if "leaf" in source else ("node", source["node"], source["output"])


# ---- the data ----------------------------------------------------------------------------------------------------


def test_contributions_to_one_gradient_add_up_and_flow_on_once():
    a, b, c = chain()
    film = film_of(c, {"a": a, "b": b, "c": c})
    number = [array["values"][0] for array in film["arrays"]]
    found = {name: [(number[dx], number[total]) for dx, total in parts] for name, parts in contributions(film).items()}
    assert found["node", 0, 0] == [(1, 1), (1, 2)]  # b: 1 + 1 = 2
    assert found["leaf", 0, 0] == [(2, 2), (2, 4)]  # a: 2 + 2 = 4
    assert [number[step["dys"][0]] for step in film["backward"]] == [1, 2]
    assert [step["node"] for step in film["backward"]] == [1, 0]
    assert [node["names"] for node in film["nodes"]] == [["b"], ["c"]]
    assert film["leaves"][0]["name"] == "a" and number[film["leaves"][0]["gradient"]] == 4


@pytest.mark.parametrize("formulas", [False, True])
def test_values_and_gradients_of_a_transformer_are_the_engines(formulas, monkeypatch):
    model, loss = transformer_loss(formulas)
    kept = {}
    add = ArrayTable.add

    def remember(table, array):
        number = add(table, array)
        kept[number] = np.array(array)
        return number

    monkeypatch.setattr(ArrayTable, "add", remember)
    film = film_of(loss, {"loss": loss})
    assert kept[film["nodes"][-1]["outputs"][0]] == loss.numpy()
    loss.backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    assert len(film["leaves"]) >= len(gradients) > 20
    for item in film["leaves"]:
        if item["kind"] == "parameter":
            np.testing.assert_array_equal(kept[item["gradient"]], gradients.pop(item["name"]))
    assert not gradients
    for (kind, number, output), parts in contributions(film).items():
        total = kept[parts[0][0]]
        for dx, running in parts[1:]:
            total = total + kept[dx]
            np.testing.assert_array_equal(kept[running], total)
        if kind == "node":  # what arrived in parts is what the op was given
            (step,) = [step for step in film["backward"] if step["node"] == number]
            np.testing.assert_array_equal(kept[step["dys"][output]], total)


def test_values_are_those_of_the_forward_pass_also_with_dropout_and_several_outputs(monkeypatch):
    seen = {}

    class Seen(Watch):
        def forward(self, node, inputs, outputs):
            seen[id(node)] = (node, [y.numpy().copy() for y in outputs])

    with recording(watch=Seen()):
        x = leaf(np.arange(12.0).reshape(2, 6))
        parts = tl.split(tl.dropout(tl.tanh(x), 0.5, tl.Generator(1)), 3, axis=-1)
        y = (parts[0] * parts[1] + parts[2].astype("float64")).sum()
    film = film_of(y)
    expected = [outputs for node, outputs in sorted(seen.values(), key=lambda pair: pair[0].serial) if node.edges]
    assert len(expected) == len(film["nodes"]) == 7
    for node, outputs in zip(film["nodes"], expected, strict=True):
        for number, value in zip(node["outputs"], outputs, strict=True):
            assert film["arrays"][number] == summary_of(value)


def test_the_graph_the_gradients_and_the_hooks_stay_as_they_were():
    x, calls = leaf([1.0, 2.0]), []
    x.register_hook(lambda dx: calls.append(1))
    h = tl.tanh(x)
    h.retain_grad()
    region = tl.checkpoint(lambda t: tl.exp(t) * t, h)
    y = region.sum()
    x.grad = tl.Tensor([5.0, 5.0])
    before = [(id(node), list(vars(node))) for node in recorded_nodes([y], "test")]
    saved = tl.graph(y).saved_bytes
    film = film_of(y)
    assert "Hooks" in film["notes"][0] and not calls
    assert x.grad.numpy().tolist() == [5.0, 5.0] and h.grad is None
    assert [(id(node), list(vars(node))) for node in recorded_nodes([y], "test")] == before
    assert tl.graph(y).saved_bytes == saved  # the checkpoint keeps its inputs alone, as before
    y.backward()
    assert calls == [1] and h.grad is not None


def test_numbers_attributes_and_constants_are_shown():
    x, factor = leaf([[1.0, 2.0]]), tl.Tensor([3.0, 4.0])
    y = tl.where([[True], [False]], (2 * x**3).sum(axis=1, keepdims=True) * factor, 0.0)
    film = film_of(y, {"x": x, "factor": factor})
    assert [film["ops"][node["op"]]["name"] for node in film["nodes"]] == [
        "power",
        "multiply",
        "sum",
        "multiply",
        "where",
    ]
    power, multiply, total, scaled, where = film["nodes"]
    assert {"number": "3"} in power["inputs"] and {"number": "2"} in multiply["inputs"]
    assert {"name": "axis", "text": "1"} in total["attributes"]
    assert [(item["kind"], item["name"]) for item in film["leaves"][:2]] == [("input", "x"), ("constant", "factor")]
    assert scaled["inputs"][1] == {"leaf": 1} and film["leaves"][1]["gradient"] is None
    (condition,) = [one for one in where["attributes"] if "array" in one]
    assert film["arrays"][condition["array"]]["values"] == [1, 0]
    assert "not a scalar" in film["notes"][0]


def test_a_line_is_named_without_the_folders_around_it(tmp_path, monkeypatch):
    with tl.record_source():
        y = tl.tanh(leaf(1.0))
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(r"test_stepping\.py:\d+", film_of(y)["nodes"][0]["source"])


def test_formula_and_rule_are_those_of_the_source():
    film = film_of(tl.softmax(leaf([1.0, 2.0])))
    (op,) = film["ops"]
    assert op["formula"].startswith("y_i = exp(x_i)") and "dx = " in op["gradient"]
    assert [code["title"] for code in op["code"]][:2] == ["forward", "backward"]
    assert "def backward(self, dy" in op["code"][1]["text"]
    assert re.fullmatch(r"tensorlib/ops/softmax\.py:\d+", op["code"][1]["place"])
    assert any(code["title"] == "softmax_gradient" for code in op["code"])  # what backward calls is one hop away


def test_every_op_has_a_formula_and_a_gradient_rule():
    waiting, seen = [tl.Function], []
    while waiting:
        waiting += (below := waiting.pop().__subclasses__())
        seen += [cls for cls in below if cls.__module__.startswith("tensorlib.ops.") and cls.differentiable]
    assert len(seen) > 80
    texts = [op_text(cls) for cls in seen]
    assert [text["class"] for text in texts if not text["formula"]] == []
    assert [text["class"] for text in texts if not text["gradient"] and "CrossAttention" not in text["class"]] == []
    assert all(len(text["code"]) >= 2 and text["notes"] for text in texts)


def test_an_op_of_the_user_without_a_docstring_shows_its_code():
    class Twice(tl.Function):
        def forward(self, x):
            return x + x

        def backward(self, dy):
            return dy + dy

    film = film_of(Twice.apply(leaf(1.0)))
    (op,) = film["ops"]
    assert (op["name"], op["formula"], op["gradient"]) == ("twice", "", "")
    assert op["code"][0]["text"].splitlines() == ["def forward(self, x):", "    return x + x"]
    assert op["code"][0]["place"].startswith("test_stepping.py:")


def test_an_op_that_cannot_be_run_again_is_named():
    calls = []

    class Once(tl.Function):
        def forward(self, x):
            calls.append(1)
            return x[: len(x) if len(calls) == 1 else 1] * 2

        def backward(self, dy):
            return 2 * dy

    with pytest.raises(RuntimeError, match=r"the op once, run again, must give shape \(3,\), got \(1,\)"):
        film_of(Once.apply(leaf([1.0, 2.0, 3.0])).sum())


def test_modules_are_frames_and_leaves_are_inside_them():
    _, loss = transformer_loss()
    film = film_of(loss)
    frames = film["frames"]
    assert {"encoder", "decoder", "encoder.layers.0", "decoder.layers.1.attention"} <= {f["path"] for f in frames}
    by_path = {frame["path"]: frame for frame in frames}
    assert frames[by_path["encoder.layers.0"]["parent"]]["path"] == "encoder"
    weight = next(item for item in film["leaves"] if item["name"] == "encoder.layers.1.attention.output.weight")
    assert frames[weight["frame"]]["path"].startswith("encoder.layers.1.attention")
    assert sum(node["frame"] is None for node in film["nodes"]) < 10
    assert film["depth"] == 2 and film_of(loss, depth=0)["depth"] == 0


# ---- arrays ------------------------------------------------------------------------------------------------------


def test_small_arrays_are_numbers_with_all_their_digits():
    x = np.array([[0.1, np.nan], [-np.inf, 1 / 3]], "float32")
    shown = summary_of(x)
    assert shown["values"] == [0.1, "nan", "-inf", 0.33333334] and shown["nonfinite"] == 2
    assert np.float32(shown["values"][3]) == x[1, 1]
    assert (shown["min"], shown["max"]) == (0.1, 0.33333334) or shown["max"] == pytest.approx(1 / 3)
    assert summary_of(np.array([2**60, 3]))["values"] == [str(2**60), 3]
    assert summary_of(np.array([True, False]))["values"] == [1, 0]
    assert summary_of(np.zeros((0, 3)))["values"] == []
    json.dumps(shown, allow_nan=False)


def test_large_arrays_are_heat_maps_of_means():
    x = np.zeros((2, 50, 64), "float32")
    x[1, 49, 62:] = -2.0
    x[0, 0, 0] = np.nan
    cells = summary_of(x)["cells"]
    levels = np.frombuffer(base64.b64decode(cells["data"]), np.uint8).reshape(cells["rows"], cells["columns"])
    assert levels.shape == (32, 32)
    assert levels[0, 0] == 0  # not finite
    assert levels[-1, -1] == 1 and cells["top"] == pytest.approx(2 / 4)  # one of the four rows of the block
    assert (np.delete(levels.ravel(), [0, 32 * 32 - 1]) == 128).all()
    odd = summary_of(np.arange(70.0).reshape(10, 7))["cells"]
    levels = np.frombuffer(base64.b64decode(odd["data"]), np.uint8).astype(float).reshape(10, 7)
    np.testing.assert_allclose((levels - 128) / 127 * odd["top"], np.arange(70.0).reshape(10, 7), atol=0.5 * 69 / 127)


def test_equal_arrays_are_stored_once():
    table = ArrayTable()
    assert table.add(np.zeros(3)) == table.add(np.zeros(3)) != table.add(np.zeros(3, "float32"))
    assert len(table.summaries) == 2


# ---- limits and errors -------------------------------------------------------------------------------------------


def test_a_loop_of_thousands_of_ops_is_refused_and_a_long_one_is_fast(tmp_path, monkeypatch):
    y = leaf([1.0])
    for _ in range(3001):
        y = tl.tanh(y)
    with pytest.raises(
        ValueError, match=r"step_through: 3,001 ops are more than the 3,000 that a page can show; record"
    ):
        tl.step_through(y, tmp_path / "steps.html")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_shown_is_an_error_of_one_line(tmp_path):
    _, _, c = chain()
    with pytest.raises(ValueError, match=r"the suffix of \S+steps\.svg must be \.html; got \.svg$"):
        tl.step_through(c, tmp_path / "steps.svg")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        tl.step_through(c, tmp_path / "none" / "steps.html")
    for depth in (-1, 1.5, True):
        with pytest.raises(ValueError, match="depth must be a whole number from 0, or None; got"):
            tl.step_through(c, tmp_path / "steps.html", depth=depth)
    with pytest.raises(ValueError, match="step_through: nothing was recorded for the Tensor of shape"):
        tl.step_through(tl.Tensor(1.0), tmp_path / "steps.html")
    with pytest.raises(TypeError, match="step_through: needs a Tensor or a sequence of Tensors, got 3"):
        tl.step_through(3, tmp_path / "steps.html")
    with pytest.raises(ValueError, match="step_through: needs at least one Tensor"):
        tl.step_through([], tmp_path / "steps.html")
    c.backward()
    with pytest.raises(RuntimeError, match="step_through: the graph behind add was released"):
        tl.step_through(c, tmp_path / "steps.html")
    assert not list(tmp_path.iterdir())


def test_several_results_and_a_leaf_alone(tmp_path):
    a, b, c = chain()
    film = film_of([c, b])  # b is a result, too: the seed is one of three contributions to its gradient
    number = [array["values"][0] for array in film["arrays"]]
    parts = contributions(film)["node", 0, 0]
    assert [number[total] for _, total in parts] == [1, 2, 3]
    alone = film_of(a)
    assert alone["nodes"] == [] and alone["leaves"][0]["gradient"] is not None
    tl.step_through(a, tmp_path / "steps.html")
