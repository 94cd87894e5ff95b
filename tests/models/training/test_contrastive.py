"""Training by contrast: which texts are negatives, that it learns, and that a resumed training gives the same bytes."""

from dataclasses import replace

import numpy as np
import pytest

import models.training.contrastive as module
import tensorlib as tl
from models.architectures.sentence_encoder import SentenceEncoder, SentenceEncoderConfig
from models.system.errors import CheckpointError, UserError
from models.text.subwords import Tokenizer
from models.training import contrastive_config
from models.training.contrastive import ContrastiveConfig, ContrastiveTrainer
from tests.edges import refused
from tests.forgery import HOSTILE, check_message, write_forged

WORDS = ["rot", "grün", "blau", "gelb", "weiß"], ["red", "green", "blue", "yellow", "white"]
THINGS = ["Hund", "Katze", "Haus", "Auto"], ["dog", "cat", "house", "car"]
PAIRS = [(f"{WORDS[0][i]} {THINGS[0][j]}", f"{THINGS[1][j]} {WORDS[1][i]}") for i in range(5) for j in range(4)]
VALID = PAIRS[::3]

SETTINGS = ContrastiveConfig(steps=9, batch=5, warmup=2, learning_rate=0.01, mine_every=3, candidates=4, save_every=2)
KINDS = {
    "in-batch": {},
    "two in the batch": {"in_batch": 2},
    "uniform": {"in_batch": 0, "uniform": 3},
    "hard": {"in_batch": 0, "hard": 2},
    "all": {"in_batch": 1, "uniform": 2, "hard": 1, "loss": "triplet"},
    "margin": {"loss": "margin"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(PAIRS, vocabulary_size=300)


def trainer(tokenizer, kind="in-batch", path=None, pairs=PAIRS, encoder=None, **settings):
    tl.seed(7)
    size = {"width": 16, "layers": 1, "heads": 2, "feed_forward": 16, "max_length": 16} | (encoder or {})
    encoder = SentenceEncoder(SentenceEncoderConfig(**size), tokenizer, tl.default_generator())
    return ContrastiveTrainer(encoder, pairs, VALID, replace(SETTINGS, **KINDS[kind], **settings), path)


# ---- negatives -------------------------------------------------------------------------------------------------------


MORE = [(PAIRS[0][0], "a second translation"), *PAIRS]  # so that a pair's texts have different numbers


def pools(trained, batch, monkeypatch):
    """Return, for each direction, the negatives that a step compares each anchor with, after checking the positives."""
    found, texts = [], []

    def encoded(rows, side):
        texts.append([trained.encoder.tokenizer.source.decode(row) for row in rows])
        return tl.Tensor([[1000.0 * len(texts) + i] for i in range(len(rows))])  # says which text it is

    def text_of(number):
        return texts[int(number) // 1000 - 1][int(number) % 1000]

    def loss(anchors, positives, pool, excluded):
        pairs = [(text_of(a), text_of(p)) for (a,), (p,) in zip(anchors.numpy(), positives.numpy(), strict=True)]
        rows = [{text_of(number) for (number,) in pool.numpy()[~row]} for row in excluded]
        found.append((pairs, rows))
        return (anchors * positives).sum()

    monkeypatch.setattr(trained, "loss", loss)
    monkeypatch.setattr(trained.encoder, "forward_rows", encoded)
    trained._loss(batch)
    own = [[trained.texts[s][i] for i in batch[s]] for s in (0, 1)]
    assert [pairs for pairs, _ in found] == [[*zip(own[1 - s], own[s], strict=True)] for s in (0, 1)]
    return [rows for _, rows in found]


def test_in_batch_negatives_are_the_other_pairs(tokenizer, monkeypatch):
    trained = trainer(tokenizer)
    batch = trained._batch(0)
    sources, targets = ([trained.texts[s][i] for i in batch[s]] for s in (0, 1))
    to_source, to_target = pools(trained, batch, monkeypatch)
    assert to_target == [{*targets} - {target} for target in targets]
    assert to_source == [{*sources} - {source} for source in sources]


@pytest.mark.parametrize(("kind", "least", "most"), [("two in the batch", 2, 2), ("uniform", 1, 3), ("hard", 1, 2)])
def test_as_many_negatives_as_asked_for(kind, least, most, tokenizer, monkeypatch):
    """Fewer, if one is drawn twice, or is the positive."""
    trained = trainer(tokenizer, kind)
    trained.mined = [np.eye(20)[:, :7], np.eye(20)[:, :7]]
    found = pools(trained, trained._batch(0), monkeypatch)
    assert all(least <= len(negatives) <= most for direction in found for negatives in direction)


def test_hard_negatives_are_those_that_score_highest(tokenizer, monkeypatch):
    trained = trainer(tokenizer, "hard", pairs=MORE, candidates=400)  # of 20 texts: all are among them
    rng = np.random.default_rng(0)
    trained.mined = [rng.standard_normal((20, 6)), rng.standard_normal((21, 6))]
    batch = trained._batch(0)
    found = pools(trained, batch, monkeypatch)
    for s in (0, 1):
        scores = trained.mined[1 - s][batch[1 - s]] @ trained.mined[s].T
        for row, anchor in zip(scores, batch[1 - s], strict=True):
            known = [pair[s] for pair in MORE if pair[1 - s] == trained.texts[1 - s][anchor]]
            row[[trained.texts[s].index(text) for text in known]] = -np.inf
        hardest = [trained.texts[s][i] for i in scores.argmax(axis=1)]
        assert all(text in negatives for text, negatives in zip(hardest, found[s], strict=True))


@every_kind
def test_another_translation_is_never_a_negative(kind, tokenizer, monkeypatch):
    pairs = [("eins", "one"), ("eins", "an"), ("ein", "an"), ("zwei", "two"), ("drei", "three"), ("zwei", "two")]
    trained = trainer(tokenizer, kind, pairs=pairs, batch=6, candidates=64)
    trained.mined = [np.ones((4, 3)), np.ones((4, 3))]
    for step in range(3):
        trained.progress.step = step
        batch = trained._batch(step)
        for s, direction in enumerate(pools(trained, batch, monkeypatch)):
            for anchor, negatives in zip(batch[1 - s], direction, strict=True):
                text = trained.texts[1 - s][anchor]
                assert not negatives & {pair[s] for pair in pairs if pair[1 - s] == text}


def test_every_pair_is_in_one_batch_of_an_epoch(tokenizer):
    trained = trainer(tokenizer)
    seen = [pair for step in range(4) for pair in zip(*trained._batch(step), strict=True)]
    assert len({*seen}) == 20 and {(trained.texts[0][i], trained.texts[1][j]) for i, j in seen} == {*PAIRS}
    again = [pair for step in range(4, 8) for pair in zip(*trained._batch(step), strict=True)]
    assert {*again} == {*seen} and again != seen


# ---- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["info-nce", "triplet", "margin"])
@pytest.mark.parametrize("layers", [0, 1])
def test_it_learns(layers, loss, tokenizer):
    trained = trainer(tokenizer, encoder={"layers": layers}, steps=80, batch=10, learning_rate=0.02, loss=loss)
    before, records = trained.validate(), []
    record = trained.train(report=records.append)
    assert record == records[-1] and record.step == 80 and record.loss > 0
    assert min(record.to_target, record.to_source) > max(0.85, before.to_target, before.to_source)


def test_the_mean_loss_is_that_since_the_last_validation(tokenizer):
    trained, records = trainer(tokenizer, validate_every=4), []
    losses = []
    step, trained.step = trained.step, lambda: losses.append(step())
    trained.train(report=records.append)
    assert [record.step for record in records] == [4, 8, 9]
    parts = (losses[:4], losses[4:8], losses[8:])
    assert [record.loss for record in records] == pytest.approx([np.mean(part) for part in parts])


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@every_kind
def test_a_resumed_training_gives_the_same_bytes(kind, tokenizer, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    record = trainer(tokenizer, kind, whole, validate_every=4).train()
    for until in (1, 3, 4, 8, None):
        resumed = trainer(tokenizer, kind, parts, validate_every=4).train(until)
    assert parts.read_bytes() == whole.read_bytes() and resumed == record
    finished = trainer(tokenizer, kind, parts, validate_every=4)
    assert finished.train().to_target == record.to_target and parts.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "uniform"}, r"training.in_batch is None in it, now 0"),
        ({"learning_rate": 0.02}, "training.learning_rate is 0.01 in it, now 0.02"),
        ({"encoder": {"width": 32}}, "encoder.width is 16 in it, now 32"),
        ({"pairs": PAIRS[1:]}, "text is '"),
    ],
)
def test_the_checkpoint_of_another_training_is_refused(change, message, tokenizer, tmp_path):
    trainer(tokenizer, path=tmp_path / "saved").train(2)
    with pytest.raises(CheckpointError, match=message):
        trainer(tokenizer, path=tmp_path / "saved", **change)


def test_a_damaged_checkpoint_is_refused(tokenizer, tmp_path):
    path = tmp_path / "saved"
    trainer(tokenizer, path=path).train(2)
    data = path.read_bytes()
    for at in range(0, len(data), len(data) // 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(CheckpointError, match="saved"):
            trainer(tokenizer, path=path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"is damaged.*remove it to start again"):
        trainer(tokenizer, path=path)


def test_a_forged_checkpoint_is_refused_or_holds_what_it_says(tokenizer, tmp_path):
    path = tmp_path / "saved"
    trainer(tokenizer, "hard", path).train(2)
    tensors, metadata = tl.load_with_metadata(path)
    del metadata["digest"]
    variants = [(tensors, metadata | {"progress": metadata["progress"] | {key: value}})
                for key in metadata["progress"] for value in HOSTILE]  # fmt: skip
    variants += [(tensors, metadata | {key: value}) for key in (*metadata, "other") for value in HOSTILE[:12]]
    for name in (*[*tensors][:3], "mined.source"):
        for array in (tensors[name][:1], tensors[name] * np.nan, tensors[name].astype("float16")):
            variants.append((tensors | {name: array}, metadata))
        variants.append(({key: array for key, array in tensors.items() if key != name}, metadata))
    refused = 0
    for forged, values in variants:
        write_forged(path, forged, values)
        try:
            resumed = trainer(tokenizer, "hard", path)
        except CheckpointError as error:
            check_message(str(error), path)
            refused += 1
        else:
            p = resumed.progress
            assert all(isinstance(x, int) and x >= 0 for x in (p.step, p.mined, p.validated, *p.random))
            assert p.validated <= p.step <= 9
    assert refused > len(variants) // 2


def test_weights_that_are_not_finite_are_not_saved(tokenizer, tmp_path):
    trained = trainer(tokenizer, path=tmp_path / "saved", learning_rate=1e30, clip=1e30, warmup=0)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="at step"):
        trained.train()
    assert not (tmp_path / "saved").exists() or np.isfinite([*map(np.sum, tl.load(tmp_path / "saved").values())]).all()


# ---- errors ----------------------------------------------------------------------------------------------------------


def checked(**settings):
    return ContrastiveConfig(**settings).check


test_impossible_settings_are_refused = refused(
    [
        (checked(steps=0), UserError, "ContrastiveConfig: steps must be at least 1, got 0"),
        (checked(in_batch=-1), UserError, "in_batch must be at least 0, got -1"),
        (checked(hard=9, candidates=3), UserError, "candidates must be at least 9, got 3"),
        (checked(temperature=0.0), UserError, "temperature must be positive and finite, got 0.0"),
        (checked(learning_rate=float("nan")), UserError, "learning_rate must be positive and finite, got nan"),
        (checked(loss="mse"), UserError, "loss must be info-nce, triplet or margin, got 'mse'"),
        (checked(in_batch=0), UserError, "negatives are required; in_batch, uniform and hard are 0"),
        (checked(batch=1), UserError, "negatives are required; a batch of 1 has none"),
        (checked(batch=1, in_batch=3), UserError, "negatives are required; a batch of 1 has none"),
    ]
)


def test_too_few_pairs_are_refused(tokenizer):
    with pytest.raises(UserError, match=r"at least 21 pairs, a batch, are required.*got 20 and 7"):
        trainer(tokenizer, batch=21)


def test_more_hard_negatives_than_there_are_texts_are_refused(tokenizer):
    assert trainer(tokenizer, "hard", pairs=PAIRS[:3], batch=3, candidates=64).step() > 0
    with pytest.raises(UserError, match="3 for the setting hard; a text has 2; use a smaller number, or more pairs"):
        trainer(tokenizer, pairs=PAIRS[:3], batch=3, hard=3)


def test_a_path_may_be_text_and_one_that_cannot_be_written_is_refused_before_training(tokenizer, tmp_path):
    trainer(tokenizer, path=str(tmp_path / "saved")).train(1)
    assert (tmp_path / "saved").is_file()
    with pytest.raises(UserError, match=r"a directory to write to is required; make .*missing first"):
        trainer(tokenizer, path=tmp_path / "missing" / "saved")
    with pytest.raises(UserError, match="it is a directory; name a file in it"):
        trainer(tokenizer, path=str(tmp_path))


@pytest.mark.parametrize("layers", [0, 1])
def test_the_embeddings_have_a_learning_rate_of_their_own(layers, tokenizer):
    """Adam's first step moves each number by the learning rate, whatever the gradient, in the embeddings times k."""
    trained = trainer(tokenizer, encoder={"layers": layers, "dropout": 0.0}, embedding_rate=10.0, warmup=0)
    before = {name: np.array(array) for name, array in trained.encoder.state_dict().items()}
    rate = trained.schedule(1)
    trained.step()
    for name, array in trained.encoder.state_dict().items():
        largest = np.abs(array - before[name]).max()
        if largest > 0:
            assert largest == pytest.approx(rate * (10 if "embedding" in name else 1), rel=0.02), name


def test_the_examples_run():
    import doctest

    import models

    for part in (module, contrastive_config):
        assert doctest.testmod(part, extraglobs={"tl": tl, "models": models}).failed == 0
