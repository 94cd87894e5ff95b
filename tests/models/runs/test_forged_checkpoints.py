"""A forged checkpoint, whose digest fits, is refused with its name, or holds exactly what it says.

Every value of the metadata is replaced by values that are wrong in every way, keys are removed and added, tensors are
changed, and each time the digest is computed again. Nothing may happen but a `CheckpointError` on one line that names
the file; what is accepted must be of the right type and build a model with the file's weights. Time and memory of each
variant are bounded.
"""

import json
import math
import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import tensorlib as tl
from models.architectures.build import build_model, parameter_shapes_of
from models.architectures.language import LanguageConfig
from models.architectures.transformer import TransformerConfig
from models.runs.checkpoint import (
    FORMAT,
    Checkpoint,
    Progress,
    digest,
    load_weights,
    parts,
    read_checkpoint,
    write_checkpoint,
)
from models.runs.config import OptimConfig, TrainConfig
from models.runs.nested_dicts import to_dict
from models.system.errors import CheckpointError
from models.training.optimizer import make_optimizer
from nn import optim
from tests.forgery import (
    DEEP,
    HOSTILE,
    STRANGE_KEYS,
    bounded_memory,
    check_message,
    deadline,
    rewrite,
    serialized,
    write_forged,
)

TINY = TransformerConfig(9, 8, layers=1, width=4, heads=2, feed_forward=4, max_length=8)
LANGUAGE = LanguageConfig(9, layers=1, width=4, heads=2, feed_forward=4, max_length=8)


@pytest.fixture(autouse=True)
def bounded():
    with bounded_memory():
        yield


# ---- the checkpoint, and its variants --------------------------------------------------------------------------------


def a_checkpoint(full=False, config=TINY):
    """Return a checkpoint with a copy of its whole config; if `full`, also with an optimizer and a moving average."""
    model = build_model(config, tl.Generator(1))
    weights = model.state_dict()
    optimizer = optim.Adam(model.named_parameters())
    optimizer.load_state_dict(optimizer.state_dict() | {f"{name}.steps": 4 for name in optimizer.parameters})
    progress = Progress(5, 1, 2, (7, 9), 1, 4, 4, 0.1 + 0.2, 12.5, 0)
    run_config = to_dict(TrainConfig(model=config))
    state = (optimizer.state_dict(), {name: array + 1 for name, array in weights.items()}) if full else ({}, {})
    return Checkpoint(weights, state[0], config, progress, run_config, "5" * 64, "7" * 64, state[1], [3, 5])


def places(value, path=()):
    """Yield the path of every value below a nested value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def changed(metadata, path, change):
    """Return a copy of the metadata; `change(parent, key)` has changed the parent of the value at the path."""
    forged = json.loads(json.dumps(metadata))
    change(at(forged, path[:-1]), path[-1])
    return forged


def written(checkpoint):
    """Return the tensors and the metadata that a file of the checkpoint has."""
    tensors, metadata = parts(checkpoint)
    return tensors, json.loads(json.dumps(metadata))


def forged_metadata(metadata):
    """Yield (what was done, the metadata after it)."""
    for path in places(metadata):
        for value in HOSTILE[::4] if path[0] == "config" else HOSTILE:  # the copy of the config is only shown
            yield (
                (path, value),
                changed(metadata, path, lambda parent, key, value=value: parent.__setitem__(key, value)),
            )
        yield (path, "removed"), changed(metadata, path, lambda parent, key: parent.pop(key))
    for path in [(), *places(metadata)]:
        if isinstance(at(metadata, path), dict):
            for key in STRANGE_KEYS:
                for value in (1, "x", DEEP):
                    yield (
                        (path, "added", key),
                        changed(metadata, (*path, key), lambda parent, key, value=value: parent.setdefault(key, value)),
                    )


RETYPED = ["float16", "float64", "int64", "int32", "uint8", "bool", "complex64"]


def forged_tensors(tensors, names):
    """Yield (what was done, the tensors after it)."""

    def replaced(name, array):
        return {**tensors, name: array}

    for name in names:
        array = tensors[name]
        rest = {other: a for other, a in tensors.items() if other != name}
        yield (name, "dropped"), rest
        for new in (
            f"{name}.x",
            name.replace(".", "/", 1),
            name.upper(),
            "",
            "x" * 10_000,
            "a\nb\x1b",
            "model.",
            f"model.{name}",
        ):
            yield (name, "renamed", new), rest | {new: array}
            yield (name, "copied", new), tensors | {new: array}
        for shape in (
            (1, *array.shape),
            (*array.shape, 1),
            (-1,),
            () if array.size == 1 else (1, -1),
            array.shape[::-1],
        ):
            yield (
                (name, "reshaped", shape),
                replaced(name, np.ascontiguousarray(array.reshape(shape)).reshape(array.reshape(shape).shape)),
            )
        for shape in ((0,), (), (0, 2**40), (3,), (2**18,), (1,) * 40):
            yield (name, "resized", shape), replaced(name, np.zeros(shape, array.dtype))
        for dtype in RETYPED:
            yield (name, "retyped", dtype), replaced(name, array.astype(dtype))
        for value in (math.nan, math.inf, -1e38, -1):
            with np.errstate(invalid="ignore"):
                yield (name, "filled", value), replaced(name, np.full_like(array, value))
    for prefix in ("model.", "latest.", "optimizer."):
        yield (prefix, "dropped"), {name: a for name, a in tensors.items() if not name.startswith(prefix)}
        yield (prefix, "retyped"), {n: a.astype("float64") if n.startswith(prefix) else a for n, a in tensors.items()}
        yield (prefix, "many"), tensors | {f"{prefix}x.{i}": np.zeros(1, np.float32) for i in range(300)}
    yield ("none",), {}


# ---- what must be true of each ---------------------------------------------------------------------------------------


def checked(path, tensors, metadata):
    """Read a forged file. Return 0 if it is refused; return 1 if it holds what it says and its model can be built."""
    with deadline():
        try:
            found = read_checkpoint(path)
        except CheckpointError as error:
            check_message(str(error), path)
            return 0
        arrays, values = written(found)
        assert values | {"format": metadata["format"]} == metadata  # an old checkpoint may have every key of a new one
        assert arrays.keys() == tensors.keys()
        assert all(same_array(arrays[name], array) for name, array in tensors.items())
        model = built(found.model_config)
        load_weights(model, found, path)
        assert all(same_array(array, found.model[name]) for name, array in model.state_dict().items())
        return 1


@cache
def built(config):
    return build_model(config)


def same_array(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def check_types(original, forged, where=()):
    """Check that accepted values are of the original's types: a bool is no int, and no number is NaN."""
    if isinstance(original, dict):
        assert isinstance(forged, dict), where
        for key in original.keys() & forged.keys():
            check_types(original[key], forged[key], (*where, key))
    elif isinstance(original, list):
        assert isinstance(forged, list), where
        assert all(type(item) in (int, float) and 0 <= item < 2**63 for item in forged), where
    elif isinstance(original, float) or original is None:
        optional = where[-1] in ("best_loss", "best_bleu") or "_dropout" in where[-1]
        assert (forged is None and optional) or (type(forged) in (int, float) and math.isfinite(forged)), where
    else:
        assert type(forged) is type(original), where
        assert isinstance(forged, str | bool) or 0 <= forged < 2**63, where


def check_tensor_types(original, forged):
    """Check that accepted tensors have the original's names, shapes and dtypes, and finite numbers.

    The optimizer or the moving average may be absent as a whole, as after `tensorlib average`.
    """
    missing = {name.split(".")[0] for name in original.keys() - forged.keys()}
    assert missing <= {"optimizer", "latest"} and not missing & {name.split(".")[0] for name in forged}
    for name, array in forged.items():
        assert (array.shape, array.dtype) == (original[name].shape, original[name].dtype), name
        assert np.isfinite(array).all(), name
        assert not name.endswith(".steps") or 0 <= array <= 5, name


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_forged_metadata_is_refused_or_means_what_it_says(tmp_path):
    path = tmp_path / "c.safetensors"
    tensors, metadata = written(a_checkpoint())
    accepted = count = 0
    for what, forged in forged_metadata(metadata):
        write_forged(path, tensors, forged)
        try:
            if checked(path, tensors, forged):
                check_types(metadata, forged)
                accepted += 1
        except Exception as error:
            raise AssertionError(f"{str(what)[:200]}: {type(error).__name__}: {error}") from error
        count += 1
    assert count > 2500 and 100 < accepted < count / 4, (count, accepted)
    assert listing(tmp_path) == ["c.safetensors"]


def test_forged_settings_of_a_language_model_are_refused_or_mean_what_they_say(tmp_path):
    path = tmp_path / "c.safetensors"
    tensors, metadata = written(a_checkpoint(config=LANGUAGE))
    accepted = count = 0
    for what, forged in forged_metadata({"model": metadata["model"]}):
        forged = metadata | forged
        write_forged(path, tensors, forged)
        try:
            if checked(path, tensors, forged):
                check_types(metadata, forged)
                accepted += 1
        except Exception as error:
            raise AssertionError(f"{str(what)[:200]}: {type(error).__name__}: {error}") from error
        count += 1
    assert count > 500 and 10 < accepted < count / 4, (count, accepted)


def test_forged_tensors_are_refused_or_mean_what_they_say(tmp_path):
    path = tmp_path / "c.safetensors"
    tensors, metadata = written(a_checkpoint(full=True))
    few = [name for name in tensors if "encoder.layers.0.attention.projection" in name]
    accepted, count = [], 0
    for what, forged in forged_tensors(tensors, few):
        write_forged(path, forged, metadata)
        try:
            count += 1
            if checked(path, forged, metadata):
                accepted.append(what)
                check_tensor_types(tensors, forged)
        except Exception as error:
            raise AssertionError(f"{str(what)[:200]}: {type(error).__name__}: {error}") from error
    assert count > 300 and 20 < len(accepted) < count / 5, (count, len(accepted))
    assert listing(tmp_path) == ["c.safetensors"]


def test_10000_malformed_files_are_refused_or_change_nothing(tmp_path):
    """Bits flipped, bytes changed, inserted, removed, repeated, cut off: most of them in the header."""
    path = tmp_path / "c.safetensors"
    checkpoint = a_checkpoint(config=replace(TINY, width=2, heads=1, feed_forward=1))
    tensors, metadata = written(checkpoint)
    write_checkpoint(path, checkpoint)
    whole, rng = path.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    refusals = 0
    for number in range(10_000):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.randrange(rng.choice([9, header, header, len(data)]))
            end = at + rng.choice([1, 2, 8, 100])
            match number % 6:
                case 0 | 1:
                    data[at] ^= 1 << rng.randrange(8)
                case 2:
                    data[at] = rng.choice(b'0123456789"{}[],:.-eE \\\0\xff')
                case 3:
                    data[at:at] = rng.choice([b"0", b"9" * 30, b"[", b'"', b"null", b"NaN", b"\xff\xfe", data[at:end]])
                case 4:
                    del data[at:end]
                case 5:
                    del data[at:]
            data = data or bytearray(1)
        rewrite(path, data)
        try:
            refusals += 1 - checked(path, tensors, metadata)
        except Exception as error:
            raise AssertionError(f"variant {number}: {type(error).__name__}: {error}") from error
    assert refusals > 9500
    assert listing(tmp_path) == ["c.safetensors"]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format":' * 5000, '{"format": ' + "9" * 5000 + "}", "NaN", '{"a": 1, "a": 2}', ""]
)
def test_strange_json_is_refused(tmp_path, text):
    path = tmp_path / "c.safetensors"
    rewrite(path, serialized({}, text))
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(path)
    check_message(str(refused.value), path)


@pytest.mark.parametrize(
    "layers, width, vocabulary", [(1000, 2**20, 2**20), (1000, 1, 1), (1, 2**20, 1), (1, 2, 2**20)]
)
def test_a_model_larger_than_the_file_is_refused_before_it_is_built(tmp_path, layers, width, vocabulary):
    path = tmp_path / "c.safetensors"
    tensors, metadata = written(a_checkpoint())
    sizes = {"layers": layers, "width": width, "heads": 1, "feed_forward": width, "max_length": 2**20}
    sizes |= {"source_vocabulary": vocabulary, "target_vocabulary": vocabulary, "positions": "learned"}
    metadata["model"] |= sizes
    write_forged(path, tensors, metadata)
    assert checked(path, tensors, metadata) == 0


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_state_of_every_optimizer_is_read(tmp_path, name):
    path = tmp_path / "c.safetensors"
    model = build_model(TINY)
    state = make_optimizer(TrainConfig(optim=OptimConfig(name=name)), model).state_dict()
    write_checkpoint(path, replace(a_checkpoint(), optimizer=state))
    assert read_checkpoint(path).optimizer.keys() == state.keys()


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "none"])
@pytest.mark.parametrize("tie", [False, True])
def test_the_shapes_of_a_model_are_known_before_it_is_built(norm, positions, tie):
    sizes = {"layers": 3, "width": 6, "heads": 3, "feed_forward": 10, "max_length": 11}
    sizes |= {"norm": norm, "positions": positions, "tie_embeddings": tie}
    for config in (TransformerConfig(9, 9 if tie else 8, **sizes), LanguageConfig(9, **sizes)):
        shapes = {name: parameter.shape for name, parameter in build_model(config).named_parameters()}
        assert parameter_shapes_of(config) == shapes


# ---- the digest, and checkpoints of format 1 -------------------------------------------------------------------------

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array(7)}


def test_the_digest_tells_every_shape_and_dtype_from_every_other():
    def of(**arrays):
        return digest(arrays, {"format": FORMAT})

    a = np.arange(4, dtype=np.int32)
    different = [
        of(a=a),
        of(b=a),
        of(a=a.reshape(2, 2)),
        of(a=a.reshape(1, 4)),
        of(a=a.reshape(4, 1)),
        of(a=a.view("f4")),
    ]
    different += [of(a=np.array(1)), of(a=np.array([1])), of(a=np.array([[1]])), of(a=np.array(1.0)), of(), of(a=a[:0])]
    different += [of(a=a[:2], b=a[2:]), of(a=a[:1], b=a[1:]), of(a=a.astype("i8")), of(a=a.view("i8"))]
    assert len(set(different)) == len(different)
    assert of(a=np.asfortranarray(a.reshape(2, 2))) == of(a=a.reshape(2, 2))
    assert digest({}, {"format": FORMAT, "x": 1}) != digest({}, {"format": FORMAT, "x": 1.0})


def test_the_digest_of_format_1_stays_what_it_was():
    known = "eab63386199768749410739f1bf9c5fc19a0f943297241932e257dfed2207543"
    assert digest(ARRAYS, {"format": 1, "step": 3, "x": None}) == known


@pytest.mark.parametrize("removed", [(), ("best_bleu", "waited"), ("attention_dropout", "embedding_dropout")])
def test_a_checkpoint_of_format_1_is_read(tmp_path, removed):
    path, checkpoint = tmp_path / "c.safetensors", a_checkpoint(full=True)
    checkpoint = replace(checkpoint, averaged=[], progress=replace(checkpoint.progress, best_bleu=None))
    tensors, metadata = written(checkpoint)
    del metadata["averaged"]
    old = metadata | {"format": 1, "config": {"seed": 7}}
    for key in removed:
        (old["progress"] if key in old["progress"] else old["model"]).pop(key)
    write_forged(path, tensors, old)
    found = read_checkpoint(path)
    assert (found.progress, found.model_config, found.averaged) == (checkpoint.progress, checkpoint.model_config, [])
    assert all(same_array(found.optimizer[name], array) for name, array in checkpoint.optimizer.items())
    if removed:
        write_forged(path, tensors, old | {"format": FORMAT, "averaged": []})
        with pytest.raises(CheckpointError, match=f"{removed[0]} is required; it is missing"):
            read_checkpoint(path)
