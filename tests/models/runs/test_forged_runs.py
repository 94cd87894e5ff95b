"""Every way in which a forged file enters: each command, config.toml, the tokenizer, and the log."""

import json
import random
import re
import shutil
from dataclasses import fields

import pytest

import models
import tensorlib as tl
from models.cli.main import main
from models.runs.checkpoint import step_checkpoints
from models.runs.directory import read_config
from models.system.errors import CheckpointError, UserError
from models.text import subwords
from models.text.subwords import Subwords, Tokenizer
from models.training.curves import write_curves, write_samples
from models.training.log import RunLog
from tests.forgery import HOSTILE, bounded_memory, check_message, deadline, rewrite, write_forged
from tests.small_runs import config_maker, train


@pytest.fixture(autouse=True)
def bounded():
    with bounded_memory():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forged")
    train(config_maker(folder)(steps=4), folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


# ---- the commands ----------------------------------------------------------------------------------------------------


def forge(path, change):
    tensors, metadata = tl.load(path), tl.load_metadata(path)
    change(tensors, metadata)
    del metadata["digest"]
    write_forged(path, tensors, metadata)


FORGED = {
    "a billion layers": lambda t, m: m["model"].update(layers=10**9),
    "layers that are true": lambda t, m: m["model"].update(layers=True),
    "a longer model": lambda t, m: m["model"].update(max_length=2**20),
    "a model of text": lambda t, m: m.update(model="\x1b[31m\n"),
    "an epoch that is no integer": lambda t, m: m["progress"].update(epoch=1e30),
    "no random state": lambda t, m: m["progress"].update(random=[]),
    "a config without its optimizer's name": lambda t, m: m["config"].update(optim={"name": 5}),
    "integer weights": lambda t, m: t.update({n: a.astype("int64") for n, a in t.items() if n.startswith("model.")}),
    "a count as a vector": lambda t, m: t.update({n: a.reshape(1) for n, a in t.items() if n.endswith(".steps")}),
    "a weight too many": lambda t, m: t.update(extra=t["model.output.weight"]),
    "no weights": lambda t, m: t.clear(),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_every_command_refuses_a_forged_checkpoint_by_name(run, capsys, forged):
    files = [run / "best.safetensors", *step_checkpoints(run)]
    for path in files:
        forge(path, forged)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(CheckpointError, match=re.escape(str(files[0]))):
        models.load(run)
    best = str(files[0])
    for arguments, named in (
        (["translate", "--run", str(run), "one"], best),
        (["translate", "--run", best, "one"], best),
        (["evaluate", "--run", str(run), "--tsv", str(run.parent / "none.tsv")], None),  # the text is read first
        (["draw", "--run", best, "--out", str(run.parent / "graph.dot")], best),
        (["average", str(run), "--last", "2"], str(files[-1])),
        (["train", "--resume", "--out", str(run)], None),  # each is named in a warning, and then the run
        *([] if forged is FORGED["a longer model"] else [(["inspect", best], best)]),
    ):
        if arguments[0] == "average" and forged is FORGED["a longer model"]:
            continue  # the mean of these weights is one; the run's config.toml refuses it afterwards
        with deadline():
            assert main(arguments) == 2, arguments
        captured = capsys.readouterr()
        line = captured.err.splitlines()[-1]
        check_message(line, named or "none" if arguments[0] == "evaluate" else named or run)
        assert captured.out == "" and "Traceback" not in captured.err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"epoch": 1e30}, "metadata: progress.epoch must be a whole number, got 1e+30"),
        ({"step": 2**62}, f"the step that its name says is required; got step {2**62}"),
        ({"validated": 5}, "metadata: progress.validated must be at most 4, the step; got 5"),
    ],
)
def test_a_forged_newest_checkpoint_is_named_and_the_one_before_is_used(run, capsys, changed, said):
    *_, used, newest = step_checkpoints(run)
    forge(newest, lambda t, m: m["progress"].update(changed))
    assert main(["train", "--resume", "--out", str(run)]) == 0
    aside = newest.name.replace("step", "unusable")
    said = f"checkpoint {newest}: {said}; set aside as {aside}; training continues from {used.name}\n"
    assert said in capsys.readouterr().err and (run / aside).exists()


def test_a_checkpoint_without_a_copy_of_its_config_is_inspected(run, capsys):
    path = run / "best.safetensors"
    forge(path, lambda t, m: m.update(config={}))
    assert main(["inspect", str(path)]) == 0
    assert "optimizer: unknown, " in capsys.readouterr().out


def test_a_batch_beyond_its_epoch_is_refused(run, capsys):
    for path in step_checkpoints(run):
        forge(path, lambda t, m: m["progress"].update(batch=1000))
    (run / "config.toml").write_text((run / "config.toml").read_text().replace("steps = 4", "steps = 9"))
    assert main(["train", "--resume", "--out", str(run)]) == 2
    check_message(capsys.readouterr().err.splitlines()[-1], step_checkpoints(run)[-1])


# ---- config.toml -----------------------------------------------------------------------------------------------------

TOML = [
    "true", "-1", "0", "1", "1001", "1048577", "9223372036854775807", "9223372036854775808", "-0x1", "9" * 400,
    "9" * 5000, "0x" + "f" * 5000, "nan", "inf", "-inf", "1e400", "1e308", "0.5", "-0.5", "2.0", '""', '"x"',
    '"' + "x" * 10_000 + '"', '"\\u001b[31m\\n\\u0000"', '"../../etc/passwd"', "[]", "[1]", "[0.5, 2]", "[true, true]",
    "[" * 10_000, "[" * 200 + "]" * 200, "{}", "{os = 1}", "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "",
]  # fmt: skip


def test_a_forged_config_is_refused_by_name_or_means_what_it_says(run):
    path = run / "config.toml"
    lines, accepted, count = path.read_text().splitlines(), 0, 0
    for i, line in enumerate(lines):
        key, equals, _ = line.partition(" = ")
        # Every third of the values for each key, from a different one on: every value comes with many keys.
        variants = [f"{key} = {value}" for value in TOML[i % 3 :: 3]] if equals else ["[os]", "[[model]]", "[m"]
        variants += [f"{line}\n{line}", f"{line}\nos = 1", f"{key}.{'a.' * 400}a = 1", "", "\0", "\x1b[31m = 1"]
        for variant in variants:
            rewrite(path, "\n".join([*lines[:i], variant, *lines[i + 1 :]]).encode())
            count += 1
            try:
                with deadline():
                    config = read_config(run)
            except UserError as error:
                check_message(str(error), path)
            else:
                accepted += 1
                check_fields(config)
    for data in (b"\xff\xfe" + "\n".join(lines).encode("utf-16-le"), b"#" * 2**20, b"a." * 2**20 + b"a = 1"):
        rewrite(path, data)
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_config(run)
    assert count > 700 and 50 < accepted < count / 2, (count, accepted)


def check_fields(config):
    for field in fields(config):
        value, default = getattr(config, field.name), getattr(type(config)(), field.name)
        if hasattr(value, "__dataclass_fields__"):
            check_fields(value)
        elif default is not None:
            assert type(value) is type(default), field.name
            assert not isinstance(value, int | float) or 0 <= value < 2**63, field.name


def test_a_config_of_a_larger_model_is_refused_before_the_model_is_built(run, capsys):
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(re.sub(r"(?m)^width = .*$", "width = 1048576", text))
    for arguments in (["translate", "--run", str(run), "one"], ["train", "--resume", "--out", str(run)]):
        assert main(arguments) == 2
        check_message(capsys.readouterr().err.splitlines()[-1], run)


# ---- the tokenizer ---------------------------------------------------------------------------------------------------


def forged_models(model):
    """Yield serialized SentencePiece models with bits flipped, bytes changed, parts removed, repeated and cut off."""
    rng = random.Random(0)
    yield from (b"\0", b"\xff" * 100, model[:-1], model * 2)
    yield model.replace(b"identity", b"nmt_nfkc")
    yield model.replace(b"<0x41>", b"<0x42>")
    for number in range(600):
        data = bytearray(model)
        for _ in range(rng.choice([1, 3])):
            at = rng.randrange(rng.choice([40, len(data)]))
            end = at + rng.choice([1, 12, 200])
            match number % 5:
                case 0 | 1:
                    data[at] ^= 1 << rng.randrange(8)
                case 2:
                    data[at:at] = data[at:end]
                case 3:
                    del data[at:end]
                case 4:
                    del data[at:]
            data = data or bytearray(1)
        yield bytes(data)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_a_forged_tokenizer_is_refused_by_name_or_loses_no_text(tmp_path, capfd, model_type):
    path = tmp_path / "tokenizer.model"
    pairs = [("a b c dd ee", "b a f g"), ("c a", "a c")]
    model = Tokenizer.train(pairs, vocabulary_size=270, model_type=model_type).source.model
    texts = ["a b  c dd", "", " \u6211\u6709 \x1b1 </s><unk>\0x\u2581", "ab" * 500]
    accepted = 0
    for forged in forged_models(model):
        rewrite(path, forged + subwords._digest(forged))
        try:
            with deadline():
                loaded = Subwords.load(path)
        except UserError as error:
            check_message(str(error), path)
        else:
            accepted += 1
            assert [loaded.decode(ids) for ids in loaded.encode(texts)] == texts
    assert 10 < accepted < 300
    for forged in (b"", *(model.replace(name, name.upper()) for name in (b"<pad>", b"<s>", b"</s>"))):
        rewrite(path, forged + subwords._digest(forged))
        with pytest.raises(UserError, match=re.escape(str(path))):
            Subwords.load(path)
    assert capfd.readouterr().err == ""  # where SentencePiece would complain


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_strange_lines_of_the_log_are_dropped_when_a_run_resumes(run):
    log = run / "log.jsonl"
    whole = log.read_bytes()
    entries = [json.loads(line) for line in whole.splitlines()]
    lines = [b"", b"{", b"[]", b"5", b"null", b'"x"', b"[" * 100_000, b"\xff\xfe", b"9" * 5000, b'{"kind":\r"train"}']
    for entry in (entries[0], entries[-1]):
        for key in entry:
            lines += [json.dumps(entry | {key: value}).encode() for value in HOSTILE]
            lines.append(json.dumps({k: v for k, v in entry.items() if k != key}).encode())
    valid = entries[-1]
    for value in HOSTILE:
        lines.append(json.dumps(valid | {"samples": [{**valid["samples"][0], "output": value}]}).encode())
        lines.append(json.dumps(valid | {"samples": [value]}).encode())
    log.write_bytes(whole + b"\n".join(lines) + b"\n")
    warnings = []
    RunLog(run, 4, 4, warnings.append).close()
    assert log.read_bytes().startswith(whole)
    assert len(warnings) > len(lines) / 2 and all(text.startswith(f"{log}: left out line ") for text in warnings)
    write_curves(run)
    write_samples(run)
