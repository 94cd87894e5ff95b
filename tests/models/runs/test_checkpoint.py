"""A checkpoint is whole or refused: a torn, corrupted or foreign file is never accepted."""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy

import tensorlib as tl
from models.architectures.build import build_model
from models.architectures.transformer import TransformerConfig
from models.runs.checkpoint import (
    Checkpoint,
    Progress,
    digest,
    load_weights,
    newest_checkpoint,
    prune,
    read_checkpoint,
    step_path,
    write_checkpoint,
)
from models.system.errors import UserError
from nn import optim

TINY = TransformerConfig(9, 8, layers=1, width=4, heads=2, feed_forward=4, max_length=8)


def a_checkpoint(step=5):
    model = build_model(TINY, tl.Generator(1))
    progress = Progress(step=step, epoch=1, batch=2, random=(7, 9), best_step=1, best_loss=0.1 + 0.2)
    optimizer = optim.Adam(model.named_parameters())
    optimizer.load_state_dict(optimizer.state_dict() | {f"{name}.steps": step for name in optimizer.parameters})
    return Checkpoint(model.state_dict(), optimizer.state_dict(), TINY, progress, {"seed": 7}, "tok", "text")


def same(one, other):
    arrays = [one.model | one.optimizer, other.model | other.optimizer]
    equal = arrays[0].keys() == arrays[1].keys() and all(
        a.dtype == arrays[1][name].dtype and np.array_equal(a, arrays[1][name]) for name, a in arrays[0].items()
    )
    rest = [dataclasses.replace(c, model={}, optimizer={}) for c in (one, other)]
    return equal and rest[0] == rest[1]


def test_reading_returns_what_was_written(tmp_path):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, a_checkpoint())
    assert same(read_checkpoint(path), a_checkpoint())


def test_optional_parts_are_read_too(tmp_path):
    path, written = tmp_path / "c.safetensors", a_checkpoint()
    latest = {name: array + 1 for name, array in written.model.items()}
    write_checkpoint(path, dataclasses.replace(written, latest=latest, averaged=[3, 5]))
    found = read_checkpoint(path)
    assert found.averaged == [3, 5] and found.latest.keys() == latest.keys()
    assert all(np.array_equal(found.latest[name], array) for name, array in latest.items())
    assert same(dataclasses.replace(found, latest={}, averaged=[]), written)


def test_equal_checkpoints_give_equal_bytes(tmp_path):
    for name in "ab":
        write_checkpoint(tmp_path / name, a_checkpoint())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, a_checkpoint())
    data, whole = path.read_bytes(), read_checkpoint(path)
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    positions = [*range(8), *rng.integers(8, header, 150), *rng.integers(header, len(data), 150)]
    for position in positions:
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            found = read_checkpoint(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:  # a change without meaning, such as a different space between two JSON tokens
            assert same(found, whole), position


def test_a_torn_file_is_noticed_at_every_length(tmp_path):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, a_checkpoint())
    data = path.read_bytes()
    for length in [*range(20), *range(20, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"c\.safetensors: an undamaged file is required"):
            read_checkpoint(path)


def test_missing_files_and_directories_are_named(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError, match="a readable file is required"):
            read_checkpoint(path)


def test_a_file_of_tensors_alone_is_not_a_checkpoint(tmp_path):
    tl.save({"x": np.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="this one lacks its metadata"):
        read_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("metadata", [{"format": 2}, {"format": 1}, {"format": 1, "digest": "0"}, {"format": None}])
def test_another_format_or_digest_is_refused(tmp_path, metadata):
    tl.save({"x": np.zeros(2)}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(UserError, match=r"x\.safetensors"):
        read_checkpoint(tmp_path / "x.safetensors")


FORGED = {
    "no progress": lambda m: m.pop("progress"),
    "no config": lambda m: m.pop("config"),
    "a text for a number": lambda m: m["progress"].update(step="5"),
    "a negative number": lambda m: m["progress"].update(batch=-1),
    "a random state of one": lambda m: m["progress"].update(random=[1]),
    "a random state of none": lambda m: m["progress"].update(random=None),
    "a list for the model": lambda m: m.update(model=[]),
    "an unknown field": lambda m: m["model"].update(os="system"),
    "a best loss of text": lambda m: m["progress"].update(best_loss="1"),
    "a best BLEU of text": lambda m: m["progress"].update(best_bleu="1"),
    "a mean of no steps": lambda m: m.update(averaged=["x"]),
    "a mean of a number": lambda m: m.update(averaged=7),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_strange_metadata_with_a_correct_digest_is_refused(tmp_path, forge):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, a_checkpoint())
    tensors, metadata = tl.load(path), tl.load_metadata(path)
    forge(metadata)
    del metadata["digest"]
    tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})
    with pytest.raises(UserError, match=r"c\.safetensors: metadata"):
        read_checkpoint(path)


@pytest.mark.parametrize("text", ["[]", "5", "null", "[" * 100_000])
def test_metadata_that_is_not_an_object_is_refused(tmp_path, text):
    path = tmp_path / "c.safetensors"
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(2)}, {"tensorlib": text}))
    with pytest.raises(UserError, match=r"c\.safetensors"):
        read_checkpoint(path)


def test_weights_of_another_model_are_refused_with_what_differs(tmp_path):
    other = build_model(dataclasses.replace(TINY, width=8, norm="pre"))
    before = other.state_dict()
    with pytest.raises(
        UserError, match=r"c: weights of this run's model .* width 4 instead of 8, norm post instead of pre"
    ):
        load_weights(other, a_checkpoint(), tmp_path / "c")
    assert all(np.array_equal(a, before[name]) for name, a in other.state_dict().items())


def test_weights_that_lack_a_name_are_refused(tmp_path):
    checkpoint = a_checkpoint()
    lost, _ = checkpoint.model.popitem()
    with pytest.raises(UserError, match=f"missing {lost}"):
        load_weights(build_model(TINY), checkpoint, tmp_path / "c")


# ---- several ----


def a_run(run, *steps):
    for step in steps:
        write_checkpoint(step_path(run, step), a_checkpoint(step))


def test_the_newest_is_found_and_a_damaged_one_skipped_with_a_warning(tmp_path):
    a_run(tmp_path, 9, 10, 100)
    warnings = []
    path, found = newest_checkpoint(tmp_path, warnings.append)
    assert (path, found.progress.step, warnings) == (step_path(tmp_path, 100), 100, [])
    path.write_bytes(path.read_bytes()[:-1])
    _, found = newest_checkpoint(tmp_path, warnings.append)
    assert found.progress.step == 10
    assert len(warnings) == 1 and str(path) in warnings[0]


def test_only_damaged_ones_are_an_error_and_none_at_all_is_none(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    a_run(tmp_path, 1, 2)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="found 2, none usable"):
        newest_checkpoint(tmp_path)


def test_pruning_keeps_the_newest(tmp_path):
    a_run(tmp_path, 5, 99999999, 100000000)
    (tmp_path / "best.safetensors").write_bytes(b"kept")
    prune(tmp_path, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"step-100000000.safetensors", "best.safetensors"}
