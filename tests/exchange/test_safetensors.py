"""Arrays in files: loading gives what was saved, files are whole or absent, equal contents give equal bytes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.exchange.safetensors import write_atomically

CONTENTS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.array([1.5, -0.0, np.inf, np.nan]),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 4), np.float16),
    "mask": np.array([True, False]),
    "bytes": np.arange(5, dtype=np.uint8),
}


def test_load_returns_what_was_saved(tmp_path):
    path = tmp_path / "file.safetensors"
    tl.save({**CONTENTS, "tensor": tl.Tensor([1.0, 2.0], requires_grad=True)}, path, {"step": 7, "语": ["ä", None]})
    loaded = tl.load(path)
    assert set(loaded) == {*CONTENTS, "tensor"}
    for name, array in CONTENTS.items():
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape, name
        np.testing.assert_array_equal(loaded[name], array)
    np.testing.assert_array_equal(loaded["tensor"], [1, 2])
    assert tl.load_metadata(path) == {"step": 7, "语": ["ä", None]}
    tl.save({}, path)
    assert tl.load(path) == {} and tl.load_metadata(path) == {}


def test_tensors_of_any_backend(tmp_path, backend):
    tl.save({"x": tl.Tensor([1.0, 2.0], backend=backend)}, tmp_path / "x")
    np.testing.assert_array_equal(tl.load(tmp_path / "x")["x"], [1, 2])


@pytest.mark.parametrize(
    "make", [lambda a: a.T, lambda a: a[::-1], lambda a: a[:, ::2], lambda a: np.broadcast_to(a[0], (5, 4))]
)
def test_arrays_that_are_not_contiguous(tmp_path, make):
    """Safetensors writes raw memory and would silently save wrong values of such an array."""
    array = make(np.arange(12.0).reshape(3, 4))
    assert not array.flags.c_contiguous
    tl.save({"x": array, "y": tl.from_numpy(array)}, tmp_path / "x")
    for name in "xy":
        np.testing.assert_array_equal(tl.load(tmp_path / "x")[name], array)


def test_big_endian_numbers(tmp_path):
    array = np.arange(3, dtype=">f4")
    tl.save({"x": array}, tmp_path / "x")
    np.testing.assert_array_equal(tl.load(tmp_path / "x")["x"], [0, 1, 2])


def test_equal_contents_give_equal_bytes(tmp_path):
    metadata = {"b": 1, "a": {"d": 2, "c": [3]}}
    tl.save(CONTENTS, tmp_path / "one", metadata)
    tl.save(dict(reversed(CONTENTS.items())), tmp_path / "two", dict(reversed(metadata.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    code = (
        "import sys, numpy as np, tensorlib as tl\n"
        "tl.save({n: np.full(3, i) for i, n in enumerate('abcdef')}, sys.argv[1], dict.fromkeys('zyx', 1))"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / f"hash{seed}")], env=environment, check=True)
    assert (tmp_path / "hash1").read_bytes() == (tmp_path / "hash2").read_bytes()


def test_incomplete_and_damaged_files(tmp_path):
    path = tmp_path / "file.safetensors"
    tl.save(CONTENTS, path, {"step": 1})
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[:100], whole[:-1], whole + b"x", b"\xff" * 100, b"\x00" * 100,
                    (2**40).to_bytes(8, "little") + whole[8:], whole.replace(b"F32", b"F99")):  # fmt: skip
        path.write_bytes(damaged)
        for read in (tl.load, tl.load_metadata):
            with pytest.raises(ValueError, match=r"load: .*file\.safetensors is damaged or not a safetensors file: "):
                read(path)


def file_of(header, data=b"", metadata=None):
    """Return the bytes of a safetensors file with any header; `metadata` is the text that `save` keeps JSON in."""
    if metadata is not None:
        header = {**header, "__metadata__": {"tensorlib": metadata}}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


FORGED = {
    "eight-bit floats": file_of({"a": tensor("F8_E4M3", [4])}, b"1234"),
    "bfloat16": file_of({"a": tensor("BF16", [2])}, b"1234"),
    "an unknown dtype": file_of({"a": tensor("F\n\x1b[31m" + "9" * 10_000)}, b"1234"),
    "bools of 7": file_of({"a": tensor("BOOL", [4])}, b"\1\0\7\1"),
    "a negative size": file_of({"a": tensor(shape=[-1])}, b"1234"),
    "a shape that overflows": file_of({"a": tensor(shape=[2**40, 2**40], offsets=(0, 0))}),
    "no elements, and a huge size": file_of({"a": tensor(shape=[0, 2**62], offsets=(0, 0))}),
    "100 axes": file_of({"a": tensor(shape=[1] * 100)}, b"1234"),
    "overlapping tensors": file_of({"a": tensor(), "b": tensor()}, b"1234"),
    "a gap": file_of({"a": tensor(offsets=(4, 8))}, b"12345678"),
    "offsets backwards": file_of({"a": tensor(offsets=(4, 0))}, b"1234"),
    "a field twice": file_of(b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
    "a header of another encoding": file_of(b'{"\xff":{}}'),
    "a deep header": file_of(b'{"a":' * 100_000),
    "a header without end": (2**63).to_bytes(8, "little") + b"{}",
    "metadata nested too deeply": file_of({}, metadata="[" * 100_000),
    "metadata nested too deeply in objects": file_of({}, metadata='{"a":' * 5000),
    "NaN": file_of({}, metadata='{"a": NaN}'),
    "infinity": file_of({}, metadata='{"a": [-Infinity]}'),
    "a number too large": file_of({}, metadata='{"a": 1e999}'),
    "an integer of 5,000 digits": file_of({}, metadata='{"a": ' + "9" * 5000 + "}"),
    "a key twice": file_of({}, metadata='{"a": {"b": 1, "b": 1}}'),
    "metadata that is a list": file_of({}, metadata="[1]"),
    "metadata that is null": file_of({}, metadata="null"),
    "no metadata at all": file_of({}, metadata=""),
}


@pytest.mark.parametrize("data", FORGED.values(), ids=FORGED)
def test_a_forged_file_is_refused_with_its_name_on_one_line(tmp_path, data):
    path = tmp_path / "file.safetensors"
    path.write_bytes(data)
    for read in (tl.load, tl.load_metadata):
        with pytest.raises(ValueError, match=r"^load: .*file\.safetensors") as refused:
            read(path)
        assert str(refused.value).isprintable() and len(str(refused.value)) < 600


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "file"
    tl.save({"x": np.arange(8.0)}, path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is damaged or not a safetensors file"):
            tl.load(path)


def test_files_that_do_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"load: .*nowhere: no such file"):
        tl.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no such file"):
        tl.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        tl.save({}, tmp_path / "no" / "such" / "folder")


def test_metadata_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    tl.save({}, tmp_path / "x", {"step": 1})
    for metadata in ({"loss": float("nan")}, {"thing": object()}):
        with pytest.raises((TypeError, ValueError)):
            tl.save({}, tmp_path / "x", metadata)
    assert tl.load_metadata(tmp_path / "x") == {"step": 1}


def test_after_an_interruption_the_old_file_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    for name in ("fsync", "replace", "chmod"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space left"):
                write_atomically(path, b"new")
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"], name
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_paths_may_be_strings(tmp_path):
    tl.save(CONTENTS, str(tmp_path / "名 前"))
    assert set(tl.load(str(tmp_path / "名 前"))) == set(CONTENTS)
    assert [Path(p).name for p in os.listdir(tmp_path)] == ["名 前"]


@pytest.mark.parametrize(
    "tensors, metadata, said",
    [
        (
            {"model": {"w": np.ones(1)}},
            None,
            "save: model must hold real numbers, got dict of dtype object; save nested",
        ),
        ({"w": np.ones(1, complex)}, None, "save: w must hold real numbers, got "),
        ({"w": "text"}, None, "save: w must hold real numbers, got "),
        ({"__metadata__": np.ones(1)}, None, "the name __metadata__ belongs to the format"),
        ({}, {"loss": float("nan")}, "save: metadata that JSON can hold is required"),
        ({}, {"loss": np.float32(1)}, "save: metadata that JSON can hold is required"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, tensors, metadata, said):
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        tl.save(tensors, tmp_path / "f.safetensors", metadata)
    assert not list(tmp_path.iterdir())
