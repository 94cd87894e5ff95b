"""The experiments: what they share, and a small run of each."""

import importlib
import json
import math
import os
import re
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl  # noqa: F401  # sets an environment variable when it is imported

import nn
import tensorlib as tl
from models.architectures.transformer import AddNorm, Transformer, TransformerConfig
from models.text.batching import make_batch
from models.text.tokens import BOS, EOS
from tests import ROOT

EXPERIMENTS = ROOT / "examples" / "experiments"


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports a file of the experiments; their modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    for path in EXPERIMENTS.glob("*.py"):
        monkeypatch.setitem(sys.modules, path.stem, None)
        del sys.modules[path.stem]  # monkeypatch takes what is imported in its place away again
    return importlib.import_module


@pytest.fixture
def page(load):
    return load("page")


def test_a_result_is_measured_once(page, tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    assert page.Results(path, {"width": 8}).measure("lstm", lambda: {"loss": 1.5}) == {"loss": 1.5}
    assert page.Results(path, {"width": 8}).measure("lstm", lambda: pytest.fail("again")) == {"loss": 1.5}
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"settings": {"width": 8}},
        {"name": "lstm", "value": {"loss": 1.5}},
    ]


def test_results_of_other_settings_are_refused(page, tmp_path):
    page.Results(tmp_path / "results.jsonl", {"width": 8}).measure("lstm", lambda: 1)
    with pytest.raises(SystemExit, match=r'same settings are required.*"width": 8.*"width": 16.*another --out'):
        page.Results(tmp_path / "results.jsonl", {"width": 16})


def test_results_with_any_separators_are_read_again(page, tmp_path):
    text = "a\u2028b\x85c\x0bd\r"
    page.Results(tmp_path / "results.jsonl", {}).measure(text, lambda: [text])
    assert page.Results(tmp_path / "results.jsonl", {}).measure(text, lambda: pytest.fail("again")) == [text]


@pytest.mark.parametrize("damage", [b'{"name": "a', b"\xff\n", b"5\n", b'{"name": "a"}\n', b"[" * 100_000])
def test_damaged_results_are_refused_in_one_line(page, tmp_path, damage):
    path = tmp_path / "results.jsonl"
    page.Results(path, {"width": 8}).measure("lstm", lambda: 1)
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(SystemExit, match=r"^\S+results\.jsonl: .*damaged; delete it, or choose another --out$"):
        page.Results(path, {"width": 8})
    path.write_bytes(b"")
    with pytest.raises(SystemExit, match="damaged"):
        page.Results(path, {"width": 8})


def test_a_file_in_place_of_the_directory_is_refused_before_anything_is_measured(page, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit, match=r"out: a directory for the results is required; .* choose another --out$"):
        page.Results(tmp_path / "out" / "results.jsonl", {})


def experiment(name, *options, cwd):
    environment = {**os.environ, "PYTHONUTF8": "1", "TENSORLIB_THREADS": "1"}
    command = [sys.executable, EXPERIMENTS / f"{name}.py", "--out", cwd / "out", *options]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gradients", ["--lengths", "1"], "--lengths: a whole number of at least 2 is required; got '1'"),
        ("positions", ["--longest", "1"], "--longest: a whole number of at least 2 is required; got '1'"),
        (
            "parts",
            ["--width", "0"],
            "--width: a whole number of at least 8 that is a multiple of 8 is required; got '0'",
        ),
        ("feeding", ["--lengths", "256"], "--lengths: at least one of at most 128 is required; got [256]"),
        ("parts", ["--tokenize", "words"], "--tokenize: invalid choice: 'words' (choose from"),
        ("ladder", ["--train-tsv", "a"], "ladder: either --train-tsv, --valid-tsv and --test-tsv or none of them"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(tmp_path, name, options, message):
    run = experiment(name, *options, cwd=tmp_path)
    assert run.returncode == 2 and message in run.stderr.splitlines()[-1] and "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["parts", "feeding", "ladder", "negatives"])
@pytest.mark.parametrize("content", [None, b"\xff\t\xff\n"])
def test_text_that_cannot_be_read_is_refused_before_anything_is_measured(tmp_path, text, name, content):
    (tmp_path / "test.tsv").unlink()
    if content:
        (tmp_path / "test.tsv").write_bytes(content)
    run = experiment(name, *text, cwd=tmp_path)
    assert run.returncode == 2 and "test.tsv" in run.stderr and len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_text_that_changed_is_refused(tmp_path, text):
    assert experiment("parts", *TINY["parts"], *text, cwd=tmp_path).returncode == 0
    (tmp_path / "train.tsv").write_text("one two .\ttwo one .\n")
    run = experiment("parts", *TINY["parts"], *text, cwd=tmp_path)
    assert run.returncode == 1 and "same settings are required" in run.stderr and len(run.stderr.splitlines()) == 1


def test_a_page_is_self_contained_and_escaped(page, tmp_path):
    made = page.Page("a < b")
    made.findings(["1 < 2 & 3"])
    made.text("one\nparagraph\n\nanother")
    made.table(["<i>", "n"], [["<b>", 1]])
    figure, (axes,) = page.figure()
    axes.plot([1, 2, 3])
    made.figure(figure, "a line")
    made.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<h1>a &lt; b</h1>" in text and "<li>1 &lt; 2 &amp; 3</li>" in text and "<td>&lt;b&gt;</td>" in text
    assert text.index('findings"') < text.index("<p>one paragraph</p>\n<p>another</p>") < text.index("<svg")
    assert not re.search(r'(?:src|href)="(?!#)', text)  # nothing is loaded from elsewhere
    assert "Made by <code>python " in text and "NumPy" in text


TINY = {
    "gradients": ["--steps", "3", "--lengths", "4", "6", "--blanks", "3", "--width", "8", "--batch", "4"],
    "positions": ["--steps", "3", "--longest", "4", "--width", "8", "--batch", "4"],
    "parts": ["--steps", "2", "--layers", "1", "--width", "8", "--batch-tokens", "64"],
    "feeding": ["--steps", "2", "--width", "8", "--lengths", "4", "6", "--sentences", "2", "--repeats", "1"],
    "negatives": [
        *[
            "--steps",
            "6",
            "--long-steps",
            "8",
            "--long-width",
            "8",
            "--batch",
            "4",
            "--width",
            "8",
            "--vocabulary",
            "300",
        ],
        *["--numbers", "1", "2", "--hard", "1"],
    ],
    "ladder": ["--epochs", "1", "--width", "8", "--batch-tokens", "256", "--warmup", "1", "--vocabulary", "300"],
}
WITH_TEXT = ("parts", "feeding", "ladder", "negatives")


@pytest.fixture
def text(tmp_path):
    """Return the options that name small files of text."""
    pairs = list(pairwise(["one", "two", "three", "four", "five", "six", "seven", "eight"]))
    lines = [f"{a} {b} .\t{b} {a} .\n" for a, b in pairs] * 5
    options = []
    for part, count in (("train", 32), ("valid", 5), ("test", 5)):
        (tmp_path / f"{part}.tsv").write_text("".join(lines[:count]))
        options += [f"--{part}-tsv", str(tmp_path / f"{part}.tsv")]
    return options


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.py")))
def test_an_experiment_writes_its_page_and_measures_nothing_twice(name, tmp_path, text):
    if name in ("page", "runs", "learning"):
        pytest.skip("shared by the experiments")
    out = tmp_path / "out"
    command = [sys.executable, EXPERIMENTS / f"{name}.py", "--out", out, *TINY[name]]
    command += text if name in WITH_TEXT else []
    environment = {**os.environ, "PYTHONUTF8": "1", "TENSORLIB_THREADS": "1"}
    for expected in ("...", "wrote"):
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert expected in run.stdout
    assert "..." not in run.stdout  # the second time, all results are known
    page = (out / "page.html").read_text()
    assert page.index("<h1>") < page.index('class="findings"') < page.index("<svg")
    assert "<table>" in page
    assert f"examples/experiments/{name}.py" in page


# ---- what they measure ----


def test_the_gradient_of_an_rnn_halves_with_each_step(load):
    gradients = load("gradients")
    model = gradients.Reader("RNN", 2, 4, 1)
    cell = model.layers.cells[0]
    cell.weight_x.replace(1e-3 * cell.weight_x.numpy())  # so that tanh is linear
    cell.weight_h.replace(0.5 * np.eye(4, dtype=np.float32))
    flow = gradients.flow(model, 12, seed=0)
    np.testing.assert_allclose(flow, 0.5 ** np.arange(11, -1, -1.0), rtol=1e-3)


def test_only_a_given_length_changes_the_biases_of_the_gates(load):
    gradients = load("gradients")
    usual, given = (gradients.Reader("LSTM", 2, 8, 1, length).layers.cells[0].bias.numpy() for length in (None, 100))
    np.testing.assert_array_equal(usual, np.repeat([0, 1, 0, 0], 8))
    np.testing.assert_array_equal(given[:8], -given[8:16])
    assert given[8:16].min() >= 0 and 1 < given[8:16].max() <= math.log(100)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "Transformer"])
def test_states_and_outputs_agree(load, kind):
    gradients = load("gradients")
    model, x_BTC = gradients.Reader(kind, 2, 8, 3, 6), gradients.adding(2, 6, np.random.default_rng(0))[0]
    states, last = model.states(x_BTC)
    assert len(states) == 6
    np.testing.assert_allclose(last.numpy(), model(x_BTC).numpy()[:, -1], rtol=1e-5, atol=1e-6)


def test_the_adding_problem_has_one_mark_in_each_half(load):
    x_BTC, sum_B = load("gradients").adding(50, 7, np.random.default_rng(0))
    numbers, marks = np.moveaxis(x_BTC.numpy(), -1, 0)
    assert (marks[:, :3].sum(axis=1) == 1).all() and (marks[:, 3:].sum(axis=1) == 1).all()
    np.testing.assert_allclose(sum_B.numpy(), (numbers * marks).sum(axis=1))


def test_an_untrained_network_copies_as_well_as_a_guess(load):
    found = load("gradients").run_copying("LSTM", 3, SimpleNamespace(width=8, batch=4, steps=1))
    assert abs(found["right"] - 1 / 8) < 0.05


class Chain:
    """Predicts after each word the next number, except 9 after 7; a word that follows a wrong one is wrong too."""

    def __init__(self):
        self.next = np.eye(16, dtype=np.float32)[[*range(1, 16), 15]]
        self.next[BOS] = np.eye(16)[6]
        self.next[7] = np.eye(16)[9]

    def evaluating(self):
        return tl.no_grad()

    def visible(self, source):
        return None

    def encode(self, source, visible):
        return None

    def start(self, memory, visible):
        return None

    def decode_step(self, ids_B, state):
        return tl.Tensor(self.next[ids_B]), state

    def __call__(self, source, ids_BT):
        return tl.Tensor(self.next[ids_BT])


def test_errors_by_position_are_those_of_a_hand_computed_case(load):
    feeding = load("feeding")
    # Targets 6 7 8 9 </s>. Reading true words: 6 7 9 9 10. Reading its own: 6 7 9 10 11.
    batches = [make_batch([([5, EOS], [6, 7, 8, 9])] * 20)]
    assert feeding.by_position(Chain(), batches, free=False) == [0, 0, 1, 0, 1]
    assert feeding.by_position(Chain(), batches, free=True) == [0, 0, 1, 1, 1]


CONFIG = TransformerConfig(20, 20, 1, 8, 2, 16, dropout=0.0, norm="pre")


def drawn(*shape):
    return tl.Tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_without_residual_connections_only_the_sublayer_remains(load, norm):
    parts = load("parts")
    model = parts.without_residual(TransformerConfig(20, 20, 1, 8, 2, 16, dropout=0.0, norm=norm))
    sums = [part for layer in [*model.encoder.layers, *model.decoder.layers] for _, part in layer.named_children()
            if isinstance(part, AddNorm)]  # fmt: skip
    assert len(sums) == 5 and all(type(part) is parts.WithoutResidual for part in sums)
    x, norm_of = drawn(2, 3, 8), sums[0].norm
    expected = norm_of(x * 3) if norm == "post" else norm_of(x) * 3
    np.testing.assert_allclose(sums[0](x, lambda y: y * 3).numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_unscaled_attention_is_the_formula(load):
    attention, x_BTD = load("parts").UnscaledAttention(8, 2, 0.0, tl.Generator(0)), drawn(2, 3, 8)
    q, k, v = (drawn(2, 2, 3, 4) * n for n in (1, 2, 3))
    scores = q.numpy() @ k.numpy().swapaxes(-1, -2)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    heads = weights / weights.sum(axis=-1, keepdims=True) @ v.numpy()
    expected = attention.output(tl.Tensor(heads.swapaxes(1, 2).reshape(2, 3, 8)))
    np.testing.assert_allclose(attention.attend(q, k, v, None).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    usual = nn.MultiHeadAttention(8, 2, 0.0, generator=tl.Generator(0))
    assert not np.allclose(attention(x_BTD, x_BTD).numpy(), usual(x_BTD, x_BTD).numpy())


def _embedded(model):
    return model._embed(model.source_embedding, model.source_positions, np.array([[5, 6, 3]])).numpy()


def test_the_usual_variant_is_a_transformer_and_the_others_differ_from_it(load):
    parts, inputs = load("parts"), ([[5, 6, 3]], [[2, 7, 8]])
    usual = parts.usual(CONFIG)(*inputs).numpy()
    np.testing.assert_array_equal(usual, Transformer(CONFIG, tl.Generator(0))(*inputs).numpy())
    model = parts.without_scores_scaled(CONFIG)
    attentions = [part for part in model.modules() if isinstance(part, nn.MultiHeadAttention)]
    assert len(attentions) == 3 and all(type(part) is parts.UnscaledAttention for part in attentions)
    embedded = [_embedded(make(CONFIG, tl.Generator(0))) for make in (Transformer, parts.UnscaledEmbeddings)]
    positions = nn.SinusoidalPositions(8)(tl.zeros((1, 3, 8))).numpy()
    np.testing.assert_allclose(embedded[0] - positions, (embedded[1] - positions) * 8**0.5, rtol=1e-4, atol=1e-5)


def test_permuting_the_source_changes_nothing_without_positions(load):
    positions, o = load("positions"), SimpleNamespace(width=8, longest=4)
    changes = {kind: positions.change(positions.new_model(kind, o), o) for kind in ("none", "sinusoidal")}
    assert changes["none"] < 1e-5 < 1e-3 < changes["sinusoidal"]


# ---- findings: true sentences, whatever the numbers ----


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ((0.001, 0.2, 0.001, 0.2), "by RNN, LSTM; not solved by GRU, Transformer. An"),
        ((0.2,) * 4, "by no network; not solved by RNN, GRU, LSTM, Transformer. An"),
        ((0.001,) * 4, "by RNN, GRU, LSTM, Transformer. An"),
    ],
)
def test_findings_about_gradients(load, errors, expected):
    gradients, flow = load("gradients"), {"flow": [0.5, 1.0]}
    results = {f"adding, {kind}, length 2": {"error": error, "steps": 3, "before": [0.0, 1.0]}
               for kind, error in zip(gradients.KINDS, errors, strict=True)}  # fmt: skip
    results |= {f"new {kind}, usual biases, length 2": flow for kind in gradients.GATED}
    results["adding, LSTM, usual biases, length 2"] = {"error": 0.3, "steps": 9}
    results["no clipping"] = {"norms": [1.0, math.inf], "losses": [4.0, math.nan]}
    results["clipping at 1"] = {"norms": [2.0], "losses": [4.0, 3.0]}
    flows, _, adding, clipping = gradients.findings(results, SimpleNamespace(lengths=[2]))
    assert "RNN 0; GRU, usual biases 0.5; GRU, biases for this length 0;" in flows
    assert expected in adding and "usual biases ends with an error of 0.3000 (9 steps)" in adding
    assert clipping.count("more than float32 can hold") == 2 and clipping.endswith("the largest loss is 4.")


@pytest.mark.parametrize(("bleu", "best"), [((1, 2, 3, 2), "4 heads"), ((0, 3.01, 2.99, 0), "2 heads and 4 heads")])
def test_findings_about_heads(load, bleu, best):
    parts = load("parts")
    found = {name: {"bleu": 0.0} for name in parts.VARIANTS}
    found |= {name: {"bleu": value} for name, value in zip(parts.VARIANTS, bleu, strict=False)}
    assert parts.findings(found)[0].endswith(f"The highest is that of {best}.")


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_findings_about_positions(load, right):
    positions, o = load("positions"), SimpleNamespace(longest=4)
    one = {"tested": {str(n): right for n in positions.tested_lengths(o)}, "change": 0.5}
    found = {(task, kind): one for task in positions.TASKS for kind in positions.POSITIONS}
    tasks, changed, longer = positions.findings(found, o)
    assert f"without positions {right:.0%} are copied, {right:.0%} are reversed, {right:.0%} are sorted" in tasks
    assert "in 20 sequences" in changed and "tested on 5" in longer


def test_findings_about_the_ladder(load):
    ladder, o = load("ladder"), SimpleNamespace(epochs=1)
    found = {name: {"bleu": float(i), "curve": [{"bleu": float(i), "seconds": 10.0 * i + 9}]}
             for i, name in enumerate(ladder.MODELS)}  # fmt: skip
    bleu, equal = ladder.findings(found, o)
    assert "after 1 epoch," in bleu and bleu.endswith("LSTM with attention 3.0, Transformer 4.0.")
    assert "model RNN, took this many minutes: less than one." in equal
    assert equal.endswith("within that time: RNN 0.0; no validation yet of the others.")


def test_findings_about_feeding(load):
    feeding, o = load("feeding"), SimpleNamespace(lengths=[8, 256])
    seconds = {(name, way, 8): 0.5 * (i + 1) ** 2 for name in feeding.MODELS for i, way in enumerate(feeding.WAYS)}
    found = {(name, way): {"bleu": float(i)} for name in feeding.MODELS for i, way in enumerate(feeding.FEEDINGS)}
    transformer, lstm, bleu, _ = feeding._findings(seconds, found, o)
    assert "for 8 words" in transformer and "4.0 times as long" in transformer and "9.0 times without" in transformer
    assert lstm.startswith("LSTM") and bleu.startswith("Transformer: BLEU 0.0 with teacher forcing, 1.0 with")


def test_findings_about_negatives(load):
    negatives = load("negatives")
    o = SimpleNamespace(batch=8, numbers=[1, 4], hard=[1, 3], long_steps=9, long_width=16)
    names = ["in batch 1", "in batch 7", "uniform 4", "uniform 7", "hard 3", "triplet in batch 7", "margin in batch 7"]
    found = {name: {"seconds": 1.0 + i, "distracted": {"accuracy_1": i / 10, "candidates": 50}}
             for i, name in enumerate(names)}  # fmt: skip
    for name, right in (("long", 0.9), ("long bag", 0.8)):
        measured = {"accuracy_1": right, "candidates": 10}
        found[name] = {"seconds": 10 * right, "test": measured, "distracted": measured | {"candidates": 50}}
    long, bag, number, kind, loss = negatives.findings(found, SimpleNamespace(options=o))
    assert long.endswith(
        "finds the translation of 90.0 % of the test sentences among 10, and of 90.0 % among 50 sentences."
    )
    assert long.startswith("After 9 steps an encoder of width 16 ")
    assert "finds 80.0 % and 80.0 % in 88.9 % of the time" in bag
    assert "1 negative(s) in the batch give 0.0 %" in number and "all 7 give 10.0 %" in number
    assert "7 uniform ones, which have to be encoded, give 30.0 % in 2.0 times the time; 3 hard ones 40.0 %" in kind
    assert "against 20.0 % with 4 uniform ones" in kind
    assert loss.endswith("InfoNCE 10.0 %, triplet 50.0 %, margin 60.0 %.")
