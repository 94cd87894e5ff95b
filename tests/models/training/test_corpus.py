"""What reading the text of a run says about it."""

import dataclasses

import pytest

from models.training.corpus import read_corpus
from tests.small_runs import config_maker


@pytest.mark.parametrize(
    "train, valid, said",
    [
        ("a\tb\nc\td\n", "a\tb\nc\td\n", "valid: 2 of 2 pairs are also in the training text"),
        ("a\tb\nc\td\n", "a\tb\ne\tf\n", None),
        ("a\ta\nb\tb\nc\td\n", "x\ty\n", "train: in most pairs the translation is the sentence itself"),
        ("a\ta\nb\tc\n", "x\ty\n", None),
        ("a\tb\n", "x\tx\n", "valid: in most pairs the translation is the sentence itself"),
        ("ein hund\ta dog\n", "dogs a\thunde ein\n", "valid: the source looks like the target of the training text"),
        ("我有一只猫\tI have a cat\n", "I have\t我有\n", "check whether the validation files are swapped"),
        ("ein hund\ta dog\n", "hunde ein\tdogs a\n", None),
        ("ein hund\ta dog\n", "a dog\ta cat\n", None),  # only one side is of the other language
        ("1 2 3\t3 2 1\n4 5 6\t6 5 4\n", "5 4 3\t3 4 5\n", None),  # both sides are of one language
        ("a\tb\t1\n", "x\ty\n", "train.tsv: 3 columns; only the first two are used, as in a -> b"),
        ("a\tb\n", "x\ty\t1\n", "valid.tsv: 3 columns; only the first two are used, as in x -> y"),
    ],
)
def test_text_that_is_probably_not_meant_is_said(tmp_path, train, valid, said):
    config = config_maker(tmp_path)()
    (tmp_path / "train.tsv").write_text(train)
    (tmp_path / "valid.tsv").write_text(valid)
    notes = read_corpus(config).notes
    assert len(notes) == (said is not None) and (not said or said in notes[0])


def test_a_tsv_file_among_parallel_ones_is_said(tmp_path):
    config = config_maker(tmp_path)()
    tsv, valid = str(tmp_path / "train.tsv"), str(tmp_path / "valid.tsv")
    config = dataclasses.replace(config, train_tsv="", train_source=tsv, train_target=tsv, valid_tsv=valid)
    assert [note for note in read_corpus(config).notes if "most lines have tabs" in note]
