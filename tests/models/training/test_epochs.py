"""The examples of each epoch: always the same sentences, with BPE-dropout split differently each time."""

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from models.text.corpora.phrasebook import phrasebook
from models.text.subwords import Subwords, Tokenizer
from models.text.tokens import EOS
from models.training.epochs import Epochs
from tests.small_runs import config_maker, trainer_for


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(phrasebook().train[:3000], vocabulary_size=1500)


@pytest.fixture(scope="module")
def texts():
    return [target for _, target in phrasebook().train[:500]]


# ---- splitting at random ----


def test_a_text_split_at_random_is_the_same_text(tokenizer, texts):
    strange = ["", " ", "\u2581 \x1b1", "żółć 猫 \U0001f408", "</s>", "a" * 300]
    every = [*texts, *strange]
    for text, ids in zip(every, tokenizer.target.encode_with_dropout(every, 0.3, seed=1), strict=True):
        assert tokenizer.target.decode(ids) == text
        assert min(ids, default=EOS + 1) > EOS  # nothing special


def test_without_dropout_nothing_is_split_differently(tokenizer):
    """Part of the phrasebook, and random mixtures of word parts, spaces, bytes and special tokens."""
    rng = np.random.default_rng(0)
    parts = [*" ▁éż猫\U0001f408\x1b\u2585<>\n\x00", "</s>", "<0x41>", "<pad>", "the", "ing", "stud", "aaaa", "我有"]
    strange = ["".join(rng.choice(parts, rng.integers(0, 12))) for _ in range(2000)]
    texts = [*strange, *(side for pair in phrasebook().train[:3000] for side in pair)]
    assert tokenizer.source.encode_with_dropout(texts, 0.0, seed=1) == tokenizer.source.encode(texts)


def test_more_dropout_splits_into_more_pieces(tokenizer, texts):
    pieces = [sum(map(len, tokenizer.target.encode_with_dropout(texts, p, seed=1))) for p in (0.0, 0.1, 0.3, 0.6)]
    assert pieces == sorted(pieces) and pieces[1] > 1.05 * pieces[0]


def test_the_seed_alone_determines_how_a_text_is_split(tokenizer, texts):
    once = tokenizer.target.encode_with_dropout(texts, 0.2, seed=5)
    assert tokenizer.target.encode_with_dropout(texts, 0.2, seed=6) != once
    assert tokenizer.target.encode_with_dropout(texts, 0.2, seed=5) == once
    assert Subwords(tokenizer.target.model).encode_with_dropout(texts, 0.2, seed=5) == once
    assert tokenizer.target.encode_with_dropout([texts[0]] * 50, 0.2, seed=5) != [once[0]] * 50  # each time drawn again


SPLIT = """
import hashlib
from models.text.corpora.phrasebook import phrasebook
from models.text.subwords import Tokenizer
target = Tokenizer.train(phrasebook().train[:3000], vocabulary_size=1500).target
ids = target.encode_with_dropout([t for _, t in phrasebook().train[:500]], 0.2, seed=5)
print(hashlib.sha256(str(ids).encode()).hexdigest())
"""


def test_another_process_splits_alike(tokenizer, texts):
    ours = hashlib.sha256(str(tokenizer.target.encode_with_dropout(texts, 0.2, seed=5)).encode()).hexdigest()
    done = subprocess.run([sys.executable, "-c", SPLIT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [ours]


def test_each_possible_merge_is_left_out_with_the_given_probability():
    """With one merge in "ab", about 3,000 of 10,000 words stay in two pieces, with a standard deviation of 46."""
    subwords = Tokenizer.train([("ab", "ab")], vocabulary_size=264).source
    assert subwords.pieces(subwords.encode(["ab"])[0]) in (["▁ab"], ["▁a", "b"], ["▁", "ab"])
    (whole,) = subwords.encode(["ab"])
    merges = 3 - len(whole)
    kept = [len(ids) == len(whole) for ids in subwords.encode_with_dropout(["ab"] * 10_000, 0.3, seed=0)]
    assert merges and abs(np.mean(kept) - 0.7**merges) < 0.02


# ---- epochs ----


@pytest.fixture
def run(tmp_path):
    """Return a run whose training text is split again in each epoch."""
    config = config_maker(tmp_path)(tokenizer={"vocabulary": 330, "dropout": 0.4}, batch_sentences=4)
    return trainer_for(config, tmp_path / "run").run


def examples_of(epochs, number):
    return [
        (tuple(source[source > 0]), tuple(target[target > 0]))
        for batch in epochs.batches(number, 0, epochs.count(number))
        for source, target in zip(batch.source_BS, batch.target_out_BT, strict=True)
    ]


def test_every_epoch_has_every_pair_once_split_differently(run):
    epochs = Epochs(run)
    split = [examples_of(epochs, number) for number in range(3)]
    for examples in split:
        decoded = [tuple(run.tokenizer.decode_target(ids) for ids in pair) for pair in examples]
        assert sorted(decoded) == sorted(run.corpus.train)
    assert sorted(split[0]) != sorted(split[1]) != sorted(split[2])
    plain = [(tuple(source), (*target, EOS)) for source, target in run.examples.train]
    assert sorted(split[0]) != sorted(plain)


def test_an_epoch_does_not_depend_on_the_epochs_before_it(run):
    epochs, other = Epochs(run), Epochs(run)
    first, second = examples_of(epochs, 0), examples_of(epochs, 1)
    assert examples_of(other, 1) == second and examples_of(other, 0) == first
    other_seed = dataclasses.replace(run, config=dataclasses.replace(run.config, seed=1))
    assert sorted(examples_of(Epochs(other_seed), 0)) != sorted(first)


def test_a_pair_that_becomes_too_long_keeps_its_ordinary_split(run):
    longest = max(max(len(source), len(target) + 1) for source, target in run.examples.train)
    config = dataclasses.replace(run.config, model=dataclasses.replace(run.config.model, max_length=longest))
    tight = Epochs(dataclasses.replace(run, config=config))
    assert (
        max(len(side) for pair in examples_of(Epochs(run), 0) for side in pair) > longest
    )  # otherwise this tests nothing
    examples = examples_of(tight, 0)
    assert max(len(side) for pair in examples for side in pair) <= longest
    assert len(examples) == len(run.corpus.train)


def test_a_pair_that_is_too_long_is_left_out_with_its_text(tmp_path):
    config = config_maker(tmp_path)(tokenizer={"vocabulary": 330, "dropout": 0.4}, model={"max_length": 6})
    run = trainer_for(config, tmp_path / "run").run
    assert 0 < len(run.examples.train) < len(run.corpus.train)
    encoded = [tuple(run.tokenizer.decode_target(ids) for ids in pair) for pair in run.examples.train]
    assert encoded == run.examples.train_pairs
    split = [tuple(run.tokenizer.decode_target(ids) for ids in pair) for pair in examples_of(Epochs(run), 0)]
    assert sorted(split) == sorted(encoded)


def test_the_ids_are_small_integers(run):
    epochs = Epochs(run)
    epochs.count(0)
    assert all(ids.dtype == np.int32 for example in epochs._items._examples for ids in example)


def test_validation_is_never_split_at_random(run):
    assert [list(source) for source, _ in run.examples.valid] == run.tokenizer.encode_source(
        [source for source, _ in run.corpus.valid]
    )
