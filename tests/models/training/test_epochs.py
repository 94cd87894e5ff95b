"""What each epoch trains on: the same sentences in all, and with BPE-dropout cut anew in each, as the seed has it."""

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


# ---- cutting at random ----


def test_a_text_cut_at_random_is_the_same_text(tokenizer, texts):
    strange = ["", " ", "\u2581 \x1b1", "żółć 猫 \U0001f408", "</s>", "a" * 300]
    for text, ids in zip([*texts, *strange], tokenizer.target.sample([*texts, *strange], 0.3, seed=1), strict=True):
        assert tokenizer.target.decode(ids) == text
        assert min(ids, default=EOS + 1) > EOS  # nothing special


def test_without_dropout_nothing_is_cut_otherwise(tokenizer):
    """All of the phrasebook, and text of parts of words, spaces, bytes and specials thrown together at random."""
    rng = np.random.default_rng(0)
    parts = [*" ▁éż猫\U0001f408\x1b\u2585<>\n\x00", "</s>", "<0x41>", "<pad>", "the", "ing", "stud", "aaaa", "我有"]
    strange = ["".join(rng.choice(parts, rng.integers(0, 12))) for _ in range(2000)]
    texts = [*strange, *(side for pair in phrasebook().train[:3000] for side in pair)]
    assert tokenizer.source.sample(texts, 0.0, seed=1) == tokenizer.source.encode(texts)


def test_dropout_cuts_into_more_pieces_the_more_of_it(tokenizer, texts):
    pieces = [sum(map(len, tokenizer.target.sample(texts, p, seed=1))) for p in (0.0, 0.1, 0.3, 0.6)]
    assert pieces == sorted(pieces) and pieces[1] > 1.05 * pieces[0]


def test_the_seed_alone_decides_how_a_text_is_cut(tokenizer, texts):
    once = tokenizer.target.sample(texts, 0.2, seed=5)
    assert tokenizer.target.sample(texts, 0.2, seed=6) != once
    assert tokenizer.target.sample(texts, 0.2, seed=5) == once
    assert Subwords(tokenizer.target.model).sample(texts, 0.2, seed=5) == once
    assert tokenizer.target.sample([texts[0]] * 50, 0.2, seed=5) != [once[0]] * 50  # each time drawn anew


CUT = """
import hashlib
from models.text.corpora.phrasebook import phrasebook
from models.text.subwords import Tokenizer
target = Tokenizer.train(phrasebook().train[:3000], vocabulary_size=1500).target
ids = target.sample([t for _, t in phrasebook().train[:500]], 0.2, seed=5)
print(hashlib.sha256(str(ids).encode()).hexdigest())
"""


def test_another_process_cuts_alike(tokenizer, texts):
    ours = hashlib.sha256(str(tokenizer.target.sample(texts, 0.2, seed=5)).encode()).hexdigest()
    done = subprocess.run([sys.executable, "-c", CUT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [ours]


def test_each_possible_merge_is_left_out_as_often_as_is_asked():
    """Of "ab" and its one merge: of 10,000 words about 3,000 stay in two, give or take 46."""
    subwords = Tokenizer.train([("ab", "ab")], vocabulary_size=264).source
    assert subwords.pieces(subwords.encode(["ab"])[0]) in (["▁ab"], ["▁a", "b"], ["▁", "ab"])
    (whole,) = subwords.encode(["ab"])
    merges = 3 - len(whole)
    kept = [len(ids) == len(whole) for ids in subwords.sample(["ab"] * 10_000, 0.3, seed=0)]
    assert merges and abs(np.mean(kept) - 0.7**merges) < 0.02


# ---- epochs ----


@pytest.fixture
def run(tmp_path):
    """Return a run whose training text is cut anew in each epoch."""
    config = config_maker(tmp_path)(tokenizer={"vocabulary": 330, "dropout": 0.4}, batch_sentences=4)
    return trainer_for(config, tmp_path / "run").run


def examples_of(epochs, number):
    return [
        (tuple(source[source > 0]), tuple(target[target > 0]))
        for batch in epochs.batches(number, 0, epochs.count(number))
        for source, target in zip(batch.source_BS, batch.target_out_BT, strict=True)
    ]


def test_every_epoch_has_every_pair_once_cut_anew(run):
    epochs = Epochs(run)
    cut = [examples_of(epochs, number) for number in range(3)]
    for examples in cut:
        said = [tuple(run.tokenizer.decode_target(ids) for ids in pair) for pair in examples]
        assert sorted(said) == sorted(run.corpus.train)
    assert sorted(cut[0]) != sorted(cut[1]) != sorted(cut[2])
    plain = [(tuple(source), (*target, EOS)) for source, target in run.examples.train]
    assert sorted(cut[0]) != sorted(plain)


def test_an_epoch_is_the_same_whatever_came_before_it(run):
    epochs, other = Epochs(run), Epochs(run)
    first, second = examples_of(epochs, 0), examples_of(epochs, 1)
    assert examples_of(other, 1) == second and examples_of(other, 0) == first
    other_seed = dataclasses.replace(run, config=dataclasses.replace(run.config, seed=1))
    assert sorted(examples_of(Epochs(other_seed), 0)) != sorted(first)


def test_a_pair_that_becomes_too_long_stays_as_it_was(run):
    longest = max(max(len(source), len(target) + 1) for source, target in run.examples.train)
    config = dataclasses.replace(run.config, model=dataclasses.replace(run.config.model, max_length=longest))
    tight = Epochs(dataclasses.replace(run, config=config))
    assert max(len(side) for pair in examples_of(Epochs(run), 0) for side in pair) > longest  # else nothing is shown
    examples = examples_of(tight, 0)
    assert max(len(side) for pair in examples for side in pair) <= longest
    assert len(examples) == len(run.corpus.train)


def test_the_ids_are_small_integers(run):
    epochs = Epochs(run)
    epochs.count(0)
    assert all(ids.dtype == np.int32 for example in epochs._examples for ids in example)


def test_validation_is_never_cut_at_random(run):
    assert [list(source) for source, _ in run.examples.valid] == run.tokenizer.encode_source(
        [source for source, _ in run.corpus.valid]
    )
