"""The page that steps through a graph: its data against the engine, what it shows, and that nothing breaks out."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.text.batching import make_batch
from models.text.tokens import PAD
from tensorlib.engine.recording import Watch, recording
from tensorlib.graphs.array_summaries import ArrayTable, summary_of
from tensorlib.graphs.building import recorded_nodes
from tensorlib.graphs.op_texts import op_text
from tensorlib.graphs.stepping import film_of
from tests import chromium

HOSTILE = "a\"b'<c>&amp;\n\x00\u202e</script><script>document.title='broken'</script><img src=x onerror=alert(1)>]]>-->"


def leaf(values, dtype="float32"):
    return tl.Tensor(np.array(values, dtype), requires_grad=True)


def chain():
    a = leaf(1.0)
    b = a + a
    c = b + b
    return a, b, c


def transformer_loss(formulas=True, dropout=0.1):
    """Return a Transformer of two layers and its loss on one sentence pair."""
    tl.seed(3)
    model = Transformer(
        TransformerConfig(20, 20, layers=2, width=16, heads=2, feed_forward=32, max_length=16, dropout=dropout)
    )
    batch = make_batch([([4, 5, 6, 3], [7, 8, 9])])
    with recording(formulas=formulas):
        loss = tl.cross_entropy(model.train()(batch.source_BS, batch.target_in_BT), batch.target_out_BT, ignore_index=PAD)
    return model, loss


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


# ---- the data ---------------------------------------------------------------------------------------------------------


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
    x = leaf([[1.0, 2.0]])
    mask = tl.Tensor([[True, False]])
    y = tl.where(mask, (2 * x**3).sum(axis=1, keepdims=True), 0.0)
    film = film_of(y, {"x": x, "mask": mask})
    ops = [film["ops"][node["op"]]["name"] for node in film["nodes"]]
    assert ops == ["power", "multiply", "sum", "where"]
    power, multiply, total, _ = film["nodes"]
    assert {"number": "3"} in power["inputs"] and {"number": "2"} in multiply["inputs"]
    assert {"name": "axis", "text": "1"} in total["attributes"] or {"name": "axis", "text": "(1,)"} in total["attributes"]
    assert [item["name"] for item in film["leaves"] if item["kind"] == "constant"] == ["mask"]
    assert "not a scalar" in film["notes"][0]


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
    class Once(tl.Function):
        calls: list[int] = []

        def forward(self, x):
            self.calls.append(1)
            return x[: len(x) if len(self.calls) == 1 else 1] * 2

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


# ---- arrays -----------------------------------------------------------------------------------------------------------


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


# ---- the file ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags of a page, and the texts of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags[-1][0] in ("script", "style"):
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
    assert all(c.isprintable() for c in data["leaves"][0]["name"] + data["nodes"][0]["path"] + data["nodes"][0]["names"][0])
    assert len(text) < 200_000


def test_a_loop_of_thousands_of_ops_is_refused_and_a_long_one_is_fast(tmp_path, monkeypatch):
    y = leaf([1.0])
    for _ in range(3001):
        y = tl.tanh(y)
    with pytest.raises(ValueError, match=r"step_through: 3,001 ops are more than the 3,000 that a page can show; record"):
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


# ---- in a browser -----------------------------------------------------------------------------------------------------


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
    assert page.run("document.querySelector('.sum').innerText").split() == (
        "from c input 1 scalar 1 + from c input 2 scalar 1 = sum scalar 2".split()
    )
    for _ in range(9):
        page.press("ArrowLeft")
    assert page.run("document.body.dataset.step") == "0"
    assert page.run("document.querySelectorAll('.graded').length") == 0
    assert page.problems() == []


def test_the_numbers_on_the_page_are_the_engines(page, tmp_path):
    x, w = leaf(np.linspace(-1, 1, 6).reshape(2, 3)), leaf(np.linspace(0, 2, 6).reshape(3, 2))
    h = x @ w
    y = tl.softmax(h)
    loss = -tl.log(y[:, 0]).mean()
    page.open(tl.step_through(loss, tmp_path / "steps.html", names=dict(x=x, w=w, h=h, y=y, loss=loss)).as_uri())
    numbers = "[...document.querySelectorAll('#panel figure')].map(f => [...f.querySelectorAll('td')].map(c => Number(c.title)))"
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
