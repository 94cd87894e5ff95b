"""The sentence encoder: padding changes nothing, pooling, towers, the bag, and gradients to second order."""

import numpy as np
import pytest

import models
import nn
import tensorlib as tl
from models.architectures.sentence_encoder import SentenceEncoder, SentenceEncoderConfig, pooled
from models.system.digests import digest
from models.system.errors import CheckpointError
from models.text.subwords import Tokenizer
from tensorlib.exchange.safetensors import load_with_metadata
from tests.edges import refused
from tests.strict import STRICT

PAIRS = [("ein Hund läuft", "a dog runs"), ("zwei Katzen", "two cats"), ("ein Haus am See", "a house at the lake")]
TEXTS = [source for source, _ in PAIRS] + ["", "ein ein ein ein ein ein Hund"]
SMALL = {"layers": 2, "width": 8, "heads": 2, "feed_forward": 8, "max_length": 24}
KINDS = {
    "mean": {},
    "max": {"pooling": "max"},
    "first": {"pooling": "first"},
    "projected": {"projection": 6},
    "post-norm": {"norm": "post"},
    "towers": {"towers": "separate"},
    "bag": {"layers": 0},
    "projected bag": {"layers": 0, "projection": 3},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(PAIRS, vocabulary_size=300)


def built(tokenizer, kind="mean", dtype="float64", **settings):
    config = SentenceEncoderConfig(**{**SMALL, **KINDS[kind], **settings})
    return SentenceEncoder(config, tokenizer, tl.Generator(3)).astype(dtype).eval()


# ---- vectors ---------------------------------------------------------------------------------------------------------


@every_kind
def test_a_sentence_gets_the_same_vector_alone_and_in_a_batch(kind, tokenizer):
    encoder = built(tokenizer, kind)
    for side in ("source", "target"):
        rows = encoder.encode_texts(TEXTS, side)
        alone = np.concatenate([encoder(row[None], side).numpy() for row in rows])
        longest = max(map(len, rows)) + 3
        padded = np.stack([np.pad(row, (0, longest - len(row))) for row in rows])
        for found in (
            encoder(padded, side).numpy(),
            encoder.forward_rows(rows, side).numpy(),
            encoder.forward_rows(rows, side, positions=12).numpy(),
            encoder.embed(TEXTS, side),
            encoder.embed(TEXTS[::-1], side)[::-1],
        ):
            np.testing.assert_allclose(found, alone, atol=1e-14)
        np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1)
        assert alone.shape == (5, encoder.width)


@every_kind
def test_one_formula_on_every_backend(kind, tokenizer, backend):
    encoder = built(tokenizer, kind)
    expected = encoder.embed(TEXTS)
    np.testing.assert_allclose(encoder.to(backend).embed(TEXTS), expected, atol=1e-12)


def test_the_bag_is_the_mean_of_its_embeddings_in_any_order(tokenizer):
    encoder = built(tokenizer, "bag")
    (ids,) = encoder.encode_texts(["ein Hund läuft"])
    mean = encoder.towers[0].embedding.weight.numpy()[ids].mean(axis=0)
    np.testing.assert_allclose(encoder(ids[None]).numpy()[0], mean / np.linalg.norm(mean), atol=1e-14)
    np.testing.assert_allclose(encoder(ids[None, ::-1]).numpy(), encoder(ids[None]).numpy(), atol=1e-14)
    with_layers = built(tokenizer)
    assert np.abs(with_layers(ids[None, ::-1]).numpy() - with_layers(ids[None]).numpy()).max() > 0.01
    assert encoder.parameter_count() == tokenizer.source_size * 8


def test_one_tower_reads_both_languages_alike_and_two_do_not(tokenizer):
    one, two = built(tokenizer), built(tokenizer, "towers")
    assert len(one.towers) == 1 and two.parameter_count() == 2 * one.parameter_count()
    np.testing.assert_array_equal(one.embed(["ein Hund"]), one.embed(["ein Hund"], "target"))
    assert not np.allclose(two.embed(["ein Hund"]), two.embed(["ein Hund"], "target"))
    separate = Tokenizer.train(PAIRS, vocabulary_size=290, shared=False)
    encoder = built(separate, "towers")
    assert [len(tower.embedding.weight) for tower in encoder.towers] == [separate.source_size, separate.target_size]


def test_long_sentences_are_cut_off(tokenizer):
    encoder = built(tokenizer, "first", max_length=4)
    (ids,) = encoder.encode_texts(["ein Hund läuft ein Hund läuft"])
    assert len(ids) == 4 and ids[0] == 2 and ids[-1] == 3


def test_nothing_but_padding_gives_zeros(tokenizer):
    for kind in ("mean", "max", "bag", "projected bag"):
        encoder = built(tokenizer, kind)
        vectors = encoder([[0, 0], [5, 3]])
        assert not vectors.numpy()[0].any() and np.isfinite(vectors.numpy()).all()
        vectors.sum().backward()
        assert all(np.isfinite(p.grad.numpy()).all() for p in encoder.parameters() if p.grad is not None)


def test_pooling():
    x, visible = tl.Tensor([[[1.0, -1.0], [3.0, -5.0], [9.0, 9.0]]]), tl.Tensor([[True, True, False]])
    assert pooled(x, visible, "mean").numpy().tolist() == [[2.0, -3.0]]
    assert pooled(x, visible, "max").numpy().tolist() == [[3.0, -1.0]]
    assert pooled(x, visible, "first").numpy().tolist() == [[1.0, -1.0]]


def test_embedding_takes_no_dropout_and_restores_the_mode(tokenizer):
    encoder = built(tokenizer, dropout=0.5).train()
    np.testing.assert_array_equal(encoder.embed(TEXTS), encoder.embed(TEXTS))
    assert encoder.training and encoder.embed([]).shape == (0, 8)


# ---- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mean", "max", "first", "bag"])
def test_gradients_to_second_order(kind, tokenizer):
    """Along one random direction for each parameter: each of their elements would take minutes."""
    encoder = built(tokenizer, kind, layers=int("bag" not in kind), width=4, projection=2)
    rng = np.random.default_rng(0)
    at = {name: p.numpy() + 0.3 * rng.standard_normal(p.shape) for name, p in encoder.named_parameters()}
    along = [rng.standard_normal(x.shape) for x in at.values()]
    ids = {"source": [[4, 5, 3], [5, 3, 0]], "target": [[6, 3, 0], [4, 4, 3]]}

    def vectors(distances):
        given = {name: x + distances[i] * along[i] for i, (name, x) in enumerate(at.items())}
        return tl.stack([nn.functional_call(encoder, given, ids[side], side) for side in ids])

    tl.gradcheck(vectors, np.zeros(len(along)), order=2)


def test_gradients_reach_both_sides_and_every_parameter(tokenizer):
    encoder = built(tokenizer, "towers", projection=4, dtype="float32").to(STRICT)
    a, p = (
        encoder.forward_rows(encoder.encode_texts(t, s), s) for t, s in ((TEXTS[:3], "source"), (TEXTS[2:], "target"))
    )
    nn.InfoNCELoss(symmetric=True)(a, p).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.numpy().any()] == []


# ---- errors ----------------------------------------------------------------------------------------------------------


def one_tower_for_two_vocabularies():
    SentenceEncoder(SentenceEncoderConfig(), Tokenizer.train(PAIRS, vocabulary_size=290, shared=False))


def small():
    return built(Tokenizer.train(PAIRS, vocabulary_size=290), "bag")


def config(**settings):
    return SentenceEncoderConfig(**settings).check


test_what_is_impossible_is_refused = refused(
    [
        (config(layers=-1), ValueError, "SentenceEncoderConfig: layers must be at least 0, got -1"),
        (config(width=0, dropout=1.5), ValueError, r"width must be at least 1, got 0; dropout must lie in \[0, 1\)"),
        (config(width=9, heads=3), ValueError, "width must be even"),
        (config(pooling="last"), ValueError, "pooling must be 'mean' or 'max' or 'first', got 'last'"),
        (config(layers=0, pooling="max"), ValueError, "pooling 'max' needs layers"),
        (config(towers="both", max_length=1), ValueError, "max_length must be at least 2, got 1; towers must be"),
        (one_tower_for_two_vocabularies, ValueError, "one tower needs one vocabulary.*towers='separate'"),
        (lambda: small().embed("ein Hund"), TypeError, r"a list of texts is required, got 'ein Hund'; pass \[text\]"),
        (lambda: small().embed(["ein Hund"], "german"), ValueError, "side must be 'source' or 'target', got 'german'"),
        (lambda: small()([5, 3]), ValueError, r"ids must be \(sentences, length\), got shape \(2,\)"),
    ]
)  # fmt: skip


def test_it_is_public():
    assert models.SentenceEncoder is SentenceEncoder and models.SentenceEncoderConfig is SentenceEncoderConfig


def test_the_embeddings_are_scaled_by_the_root_of_the_width(tokenizer):
    """Their scale against the positions' matters: with sqrt(D) left out, the layers read something else."""
    encoder = built(tokenizer)
    (tower,) = encoder.towers
    ids_BS = encoder.encode_texts(TEXTS[:1])[0][None]
    x_BSD = tl.Tensor(tower.embedding.weight.numpy()[ids_BS] * np.sqrt(8))
    visible = tl.Tensor(np.ones((1, 1, 1, ids_BS.shape[1]), bool))
    y_BSD = tower.encoder(tower.positions(x_BSD), visible)
    y_BD = x_BSD.numpy().mean(axis=1) + y_BSD.numpy().mean(axis=1)
    np.testing.assert_allclose(encoder(ids_BS).numpy(), y_BD / np.linalg.norm(y_BD), atol=1e-12)
    bag = built(tokenizer, "bag").towers[0]
    np.testing.assert_allclose(bag(ids_BS).numpy(), bag.embedding.weight.numpy()[ids_BS].mean(axis=1) * np.sqrt(8))


# ---- files -----------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_encoder_gives_the_same_vectors(kind, dtype, tokenizer, tmp_path):
    encoder, path = built(tokenizer, kind, dtype, dropout=0), tmp_path / "encoder.safetensors"
    encoder.save(path)
    loaded = SentenceEncoder.load(str(path))
    assert loaded.config == encoder.config and not loaded.training
    for side in ("source", "target"):
        found = loaded.embed(TEXTS, side)
        assert found.dtype == dtype and (found == encoder.embed(TEXTS, side)).all()
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_two_vocabularies_are_saved(tmp_path):
    tokenizer = Tokenizer.train(PAIRS, vocabulary_size=290, shared=False)
    encoder, path = built(tokenizer, "towers"), tmp_path / "encoder"
    encoder.save(path)
    loaded = SentenceEncoder.load(path)
    assert not loaded.tokenizer.shared
    assert (loaded.embed(["a dog"], "target") == encoder.embed(["a dog"], "target")).all()


def test_a_damaged_or_other_file_is_refused(tokenizer, tmp_path):
    path = tmp_path / "encoder"
    with pytest.raises(CheckpointError, match="no such file"):
        SentenceEncoder.load(path)
    built(tokenizer).save(path)
    data = path.read_bytes()
    for at in np.linspace(0, len(data) - 1, 60).astype(int):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(CheckpointError, match=r"a file that SentenceEncoder\.save wrote is required"):
            SentenceEncoder.load(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="encoder"):
        SentenceEncoder.load(path)
    tl.save({"x": np.zeros(3)}, path, {})
    with pytest.raises(CheckpointError, match="digest"):
        SentenceEncoder.load(path)


@pytest.mark.parametrize("key", ["layers", "width", "heads", "feed_forward", "projection", "max_length", "dropout"])
@pytest.mark.parametrize("value", [None, "a", True, -1, 2**40, 0.5, [], {}])
def test_a_forged_config_is_refused(key, value, tokenizer, tmp_path):
    if (key, value) == ("dropout", 0.5):
        return  # possible
    path = tmp_path / "encoder"
    built(tokenizer).save(path)
    tensors, metadata = load_with_metadata(path)
    del metadata["digest"]
    metadata["config"][key] = value
    tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})
    with pytest.raises(CheckpointError, match=r"a file that SentenceEncoder\.save wrote is required"):
        SentenceEncoder.load(path)


@pytest.mark.parametrize("change", ["nan", "integers", "shape", "missing", "more", "no tokenizer", "tokenizer"])
def test_forged_tensors_are_refused(change, tokenizer, tmp_path):
    path = tmp_path / "encoder"
    built(tokenizer).save(path)
    tensors, metadata = load_with_metadata(path)
    del metadata["digest"]
    name = next(name for name in tensors if "embedding" in name)
    array = tensors[name]
    if change == "nan":
        tensors[name] = array * np.nan
    elif change == "integers":
        tensors |= {key: tensors[key].astype("int64") for key in tensors if key.startswith("model.")}
    elif change == "shape":
        tensors[name] = array[1:]
    elif change == "missing":
        del tensors[name]
    elif change == "more":
        tensors["x"] = array
    elif change == "no tokenizer":
        del tensors["tokenizer.source"]
    else:
        tensors["tokenizer.source"] = tensors["tokenizer.source"][:-1]
    tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})
    with pytest.raises(CheckpointError, match=r"a file that SentenceEncoder\.save wrote is required"):
        SentenceEncoder.load(path)
