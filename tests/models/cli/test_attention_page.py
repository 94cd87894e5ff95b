"""What the heads look at: the weights, the page that holds them, and the page as a browser shows it."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import tensorlib as tl
from models.architectures.transformer import Transformer, TransformerConfig
from models.cli.pages.attention import UNIT, attention_page, sentence_data
from models.evaluation.attention_weights import attention_weights
from models.runs.config import TrainConfig
from models.runs.loading import Loaded
from models.text.subwords import Tokenizer
from models.text.tokens import BOS, EOS

SOURCE, TARGET = [7, 9, 4, 8, EOS], [BOS, 5, 10, 6]
VARIANTS = [{}, {"norm": "pre", "positions": "learned"}, {"tie_embeddings": True}]


def make(size=11, **options):
    """Return a model whose weights are large, so that each row and head of attention is another."""
    sizes = {"layers": 2, "width": 16, "heads": 4, "feed_forward": 16, "dropout": 0.5, "max_length": 200}
    model = Transformer(TransformerConfig(size, size, **(sizes | options)), tl.Generator(1)).astype("float64")
    for parameter in model.parameters():
        parameter.replace(parameter.numpy() * 2)
    return model


# ---- weights ----


def by_hand(module, x_TD, memory_SD, causal):
    """Return softmax(q k^T / sqrt(K)), written out a head at a time."""
    width, heads = x_TD.shape[1], module.heads
    matrix, bias = module.projection.weight.numpy(), module.projection.bias.numpy()
    q_TD = x_TD @ matrix[:, :width] + bias[:width]
    k_SD = memory_SD @ matrix[:, width : 2 * width] + bias[width : 2 * width]
    found = []
    for h in range(heads):
        own = slice(h * width // heads, (h + 1) * width // heads)
        scores_TS = q_TD[:, own] @ k_SD[:, own].T / np.sqrt(width // heads)
        exp_TS = np.exp(scores_TS) * (np.tri(*scores_TS.shape) if causal else 1)
        found.append(exp_TS / exp_TS.sum(axis=1, keepdims=True))
    return np.array(found)


@pytest.mark.parametrize("options", VARIANTS)
def test_weights_are_the_softmax_of_what_each_attention_was_given(options):
    model, given = make(**options).eval(), {}
    for name, module in model.named_modules():
        if name.endswith("attention"):
            module.register_forward_pre_hook(lambda m, args, name=name: given.update({name: (m, args)}) or None)
    found = attention_weights(model, SOURCE, TARGET)
    assert len(given) == 6
    for layer in range(2):
        for name, weights in (
            (f"encoder.layers.{layer}.attention", found.encoder_LHSS),
            (f"decoder.layers.{layer}.attention", found.decoder_LHTT),
            (f"decoder.layers.{layer}.cross_attention", found.cross_LHTS),
        ):
            module, args = given[name]
            x_TD = args[0].numpy()[0]
            memory_SD = args[1].numpy()[0] if "cross" in name else x_TD
            expected = by_hand(module, x_TD, memory_SD, causal=name.startswith("decoder") and "cross" not in name)
            np.testing.assert_allclose(weights[layer], expected, rtol=1e-9, atol=1e-12)


def test_rows_sum_to_one_and_no_row_sees_what_comes_later(backend):
    found = attention_weights(make().astype("float32").to(backend), SOURCE, TARGET)
    shapes = {"encoder_LHSS": (2, 4, 5, 5), "decoder_LHTT": (2, 4, 4, 4), "cross_LHTS": (2, 4, 4, 5)}
    for name, shape in shapes.items():
        weights = getattr(found, name)
        assert isinstance(weights, np.ndarray) and weights.shape == shape
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
    assert np.all(found.decoder_LHTT * (1 - np.tri(4)) == 0) and np.any(found.decoder_LHTT[..., 3, :3])


def test_a_row_depends_on_what_was_written_before_it_alone():
    model = make()
    whole, part = (attention_weights(model, SOURCE, target) for target in (TARGET, TARGET[:2]))
    np.testing.assert_allclose(whole.cross_LHTS[:, :, :2], part.cross_LHTS, rtol=1e-12)
    np.testing.assert_allclose(whole.decoder_LHTT[:, :, :2, :2], part.decoder_LHTT, rtol=1e-12)


def test_the_model_is_left_as_it_was():
    model = make().train()
    first, again = (attention_weights(model, SOURCE, TARGET) for _ in range(2))
    np.testing.assert_array_equal(first.cross_LHTS, again.cross_LHTS)  # without dropout
    assert model.training and not any(module._hooks for module in model.modules())


# ---- the page ----

SCRIPT = '</script><script>document.title = "broken"</script>'
ODD = "\u202eb \u05d0 &amp;\"'\x07\u2028\ud800 d"
SHOWN = "\\u202eb \u05d0 &amp;\"'\\x07\\u2028\\ud800 d"  # what can't be seen is named
TEXTS = ["a b c", SCRIPT, ODD, "d c b a"]


@pytest.fixture(scope="module")
def loaded():
    pairs = [("a b c d", "d c b a"), ('<>/"scriptdocument.title=broken', "b a \u05d0 &amp;'")] * 4
    tokenizer = Tokenizer.train(pairs, vocabulary_size=320)
    config = TransformerConfig(tokenizer.source_size, tokenizer.target_size, 2, 16, 4, 16, max_length=200)
    model = Transformer(config, tl.Generator(1)).eval()
    for parameter in model.parameters():
        parameter.replace(parameter.numpy() * 2)
    return Loaded(Path("run/</title>.safetensors"), TrainConfig(), tokenizer, model)


@pytest.fixture(scope="module")
def read(loaded):
    """Return for each text the ids that the model reads and those that it is said to have written."""
    sources = loaded.tokenizer.encode_source(TEXTS)
    return [(source, [*source[-3::-1], EOS]) for source in sources]  # one token less: no map is square


@pytest.fixture(scope="module")
def page(loaded, read):
    sentences = [sentence_data(loaded, text, *ids) for text, ids in zip(TEXTS, read, strict=True)]
    return attention_page(str(loaded.path), sentences).decode()


class Elements(HTMLParser):
    """Collects the tags, their attributes, and the text of each script, as a browser would part them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def test_the_page_holds_the_weights_and_the_tokens(page, loaded, read):
    data = json.loads(Elements(page).scripts[0])
    assert data["unit"] == UNIT and len(data["sentences"]) == len(TEXTS)
    for sentence, (source_ids, target_ids) in zip(data["sentences"], read, strict=True):
        found = attention_weights(loaded.model, source_ids, [BOS, *target_ids[:-1]])
        for name, weights in zip(("encoder", "decoder", "cross"), vars(found).values(), strict=True):
            held = sentence["weights"][name]
            held = np.array(held["values"]).reshape(held["shape"]) / UNIT
            np.testing.assert_allclose(held, weights, rtol=0, atol=0.51 / UNIT)
        assert sentence["written"] == [*sentence["fed"][1:], "</s>"] and sentence["fed"][0] == "<s>"
        assert [len(sentence[name]) for name in ("read", "written")] == [len(source_ids), len(target_ids)]
    first, last = data["sentences"][0], data["sentences"][-1]
    assert (first["source"], first["target"]) == ("a b c", "b a") and first["read"][-1] == "</s>"
    assert "".join(last["read"][:-1]).replace("▁", " ").strip() == "d c b a"


def test_no_text_breaks_out_of_the_page(page):
    elements = Elements(page)
    assert len(elements.scripts) == 2 and elements.tags.count("title") == 1
    data = json.loads(elements.scripts[0])
    assert data["sentences"][1]["source"] == SCRIPT
    assert data["sentences"][2]["source"] == SHOWN
    assert "<" not in elements.scripts[0] and elements.scripts[0].isascii()


def test_the_page_asks_for_nothing_from_elsewhere(page):
    elements = Elements(page)
    assert not {"link", "img", "iframe", "base"} & set(elements.tags)
    assert not {"src", "href", "action"} & {name for name, _ in elements.attributes}
    assert not re.search(r"https?:|//\w|url\(|@import|fetch\(|XMLHttp|innerHTML|eval\(", page)
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    assert ("content", policy) in elements.attributes


# ---- in a browser ----

BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, which is not installed")

# What is done to the page, and what is then seen in it, as the text of an element that the test reads.
PROBE = """<pre id="seen"></pre><script>
const at = (row, column) => {  // the middle of a cell, in the window
  const box = byId("map").getBoundingClientRect(), side = box.width / shape()[3];
  return {clientX: box.left + (column + 0.5) * side, clientY: box.top + (row + 0.5) * side, bubbles: true};
};
const texts = (query) => [...document.querySelectorAll(query)].map((element) => element.textContent);
const pick = (id, value) => { byId(id).value = value; byId(id).dispatchEvent(new Event("change")); };
const seen = () => {
  const canvas = document.querySelector("#map canvas"), {width, height} = canvas;
  return {
    title: byId("one-title").textContent, readout: byId("readout").textContent, hash: location.hash,
    page: document.title,
    rows: texts("#rows span"), columns: texts("#columns span"), marked: texts("#scroll .on"), size: [height, width],
    numbers: texts("#numbers tbody tr").length && [...document.querySelectorAll("#numbers tbody tr")].map(
      (row) => [...row.querySelectorAll("td")].map((cell) => Number(cell.textContent))),
    pressed: [...document.querySelectorAll("#heads [aria-pressed=true]")].map((button) => button.ariaLabel),
    red: [...canvas.getContext("2d").getImageData(0, 0, width, height).data].filter((_, i) => i % 4 === 0),
    across: byId("map").getBoundingClientRect().width / width, wide: document.documentElement.scrollWidth,
  };
};
const steps = [];
STEPS
byId("seen").textContent = JSON.stringify(steps);
</script>"""


def browse(page, folder, address, script="steps.push(seen());"):
    """Return what `seen()` found each time that the script looked, in the page opened at the address."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", PROBE.replace("STEPS", script) + "</body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1000,800", "--dump-dom", f"{file.as_uri()}#{address}"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    dom = done.stdout.decode()
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert found and found[1], done.stderr.decode()[-1000:]
    return json.loads(unescape(found[1]))


@in_browser
def test_the_page_shows_the_right_tokens_and_weights(page, loaded, read, tmp_path):
    source_ids, target_ids = read[0]
    data = json.loads(Elements(page).scripts[0])["sentences"][0]
    found = attention_weights(loaded.model, source_ids, [BOS, *target_ids[:-1]])
    expected = {
        "encoder": (found.encoder_LHSS, data["read"], data["read"], "Encoder self-attention"),
        "decoder": (found.decoder_LHTT, data["written"], data["fed"], "Decoder self-attention"),
        "cross": (found.cross_LHTS, data["written"], data["read"], "Cross-attention"),
    }
    script = "".join(f'pick("attention", "{name}"); steps.push(seen());' for name in expected)
    steps = browse(page, tmp_path, "layer=2&head=3&numbers=1", script)
    for shown, (weights_LHTS, rows, columns, title) in zip(steps, expected.values(), strict=True):
        assert shown["title"] == f"{title}, layer 2, head 3"
        assert (shown["rows"], shown["columns"]) == (rows, columns)
        np.testing.assert_allclose(shown["numbers"], weights_LHTS[1, 2], rtol=0, atol=1.01e-4)
        assert shown["size"] == list(weights_LHTS.shape[2:]) and shown["pressed"][0].startswith("layer 2, head 3: ")
        # Light paper, dark ink: the larger a weight, the less red there is in its cell.
        red = np.array(shown["red"]).reshape(shown["size"])
        order = np.argsort(weights_LHTS[1, 2], axis=None)
        assert np.all(np.diff(red.ravel()[order]) <= 1) and np.ptp(red) > 100


@in_browser
def test_pointing_clicking_keys_and_the_head_grid(page, loaded, read, tmp_path):
    script = """
    byId("map").dispatchEvent(new PointerEvent("pointermove", at(2, 1))); steps.push(seen());
    byId("map").dispatchEvent(new PointerEvent("pointerleave", {})); steps.push(seen());
    byId("map").dispatchEvent(new MouseEvent("click", at(1, 0))); steps.push(seen());
    for (const key of ["ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp"]) {
      byId("map").dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    }
    steps.push(seen());
    document.querySelectorAll("#heads button")[4].click(); steps.push(seen());
    """
    hovered, left, clicked, moved, mean = browse(page, tmp_path, "sentence=4&layer=2&head=2", script)
    source_ids, target_ids = read[3]
    cross_HTS = attention_weights(loaded.model, source_ids, [BOS, *target_ids[:-1]]).cross_LHTS[1]
    tokens = json.loads(Elements(page).scripts[0])["sentences"][3]

    def says(row, column):
        written, looked_at = tokens["written"][row], tokens["read"][column]
        return f"writing “{written}”, it looks at “{looked_at}”: {cross_HTS[1, row, column]:.4f}"

    assert hovered["readout"] == says(2, 1)
    assert sorted(hovered["marked"]) == sorted([tokens["written"][2], tokens["read"][1]])
    assert left["readout"].strip() == "" and left["marked"] == []
    assert clicked["readout"] == says(1, 0) and clicked["hash"].endswith("row=2&column=1")
    assert moved["readout"] == says(1, 2) and moved["hash"].endswith("row=2&column=3")
    assert mean["title"] == "Cross-attention, layer 1, mean of its 4 heads" and "head=mean" in mean["hash"]


@in_browser
def test_an_address_that_names_what_there_is_not_shows_something_near(page, tmp_path):
    (shown,) = browse(page, tmp_path, "sentence=99&attention=%3Cb%3E&layer=x&head=77&row=900&column=-1&scale=__proto__")
    assert shown["title"] == "Cross-attention, layer 1, head 4" and shown["readout"].strip() == ""


@in_browser
def test_text_stays_text_in_the_browser(page, tmp_path):
    (shown,) = browse(page, tmp_path, "sentence=2")
    assert shown["page"].startswith("Cross-attention: ")
    assert "".join(shown["columns"][:-1]).replace("▁", " ").strip() == SCRIPT


@in_browser
def test_a_long_sentence_scrolls_in_its_map_and_its_labels_can_be_read(loaded, tmp_path):
    source_ids = [*np.random.default_rng(0).integers(260, loaded.tokenizer.source_size, 119).tolist(), EOS]
    page = attention_page("long", [sentence_data(loaded, "long", source_ids, source_ids)]).decode()
    (shown,) = browse(page, tmp_path, "layer=1&head=1&row=118&column=119")
    assert len(shown["rows"]) == len(shown["columns"]) == 120 and shown["across"] >= 16
    assert shown["wide"] <= 1000  # the page itself doesn't scroll sideways
