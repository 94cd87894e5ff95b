"""The command line as a user meets it: what it prints, its exit status, and what it leaves behind."""

import fcntl
import json
import os
import pty
import re
import resource
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import tensorlib as tl
from models.cli.main import COMMANDS, main
from models.cli.pages import attention as attention_page
from models.runs.checkpoint import read_checkpoint
from models.system.terminal import command, printable
from models.text.subwords import Subwords

SMALL = {
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "model.feed-forward": 16,
    "model.max-length": 24,
    "model.dropout": 0.1,
    "model.norm": "post",
    "best-by": "loss",
    "optim.learning-rate": 5e-4,
    "optim.schedule": "inverse-sqrt",
    "optim.warmup": 1000,
    "tokenizer.vocabulary": 300,
    "batch-sentences": 8,
    "validate-every": 0,
    "save-every": 0,
}
TEXT = {"train-tsv": "train.tsv", "valid-tsv": "valid.tsv"}


def train_command(steps, **changes):
    """Return the arguments of a small run on the text that `write_pairs` wrote; `_` stands for `-`, `__` for `.`."""
    changes = {name.replace("__", ".").replace("_", "-"): value for name, value in changes.items()}
    options = TEXT | SMALL | {"steps": steps} | changes
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["train", "--model.no-tie-embeddings", *words]


TENSORLIB = [sys.executable, "-c", "import sys; from models.cli.main import main; sys.exit(main())"]


def write_pairs(folder):
    lines = [f"{'a b c d e'[: 1 + i % 9]} {i}\t{'e d c b a'[: 1 + i % 9]} {i}" for i in range(24)]
    for name, part in (("train", lines), ("valid", lines[:4])):
        (folder / f"{name}.tsv").write_text("\n".join(part) + "\n")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty directory, with text to train on."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a directory in which a small run was trained, and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    write_pairs(folder)
    done = tensorlib(*train_command(4), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def in_trained(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    return trained[0]


def tensorlib(*arguments, cwd=None, stdin=b"", **environment):
    """Run the command in a separate process."""
    env = os.environ | environment
    return subprocess.run([*TENSORLIB, *arguments], cwd=cwd, input=stdin, env=env, capture_output=True, timeout=120)


def refusal(capsys, *arguments, status=2):
    """Return the one line on standard error with which `arguments` are refused."""
    capsys.readouterr()
    assert main(list(arguments)) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("tensorlib: ")
    return lines[0]


# ---- help ----


def test_help_comes_at_once_and_names_every_command():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = tensorlib("--help").stdout.decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(name in text for name in COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.6  # whatever else the machine does


def test_help_does_not_import_the_engine():
    code = "import sys; from models.cli.main import main; main(['--help']); sys.exit(int('numpy' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert "Usage: " in capsys.readouterr().out


def test_the_help_of_train_tells_the_presets(capsys):
    main(["train", "--help"])
    words = " ".join(re.sub("[│\n]", " ", capsys.readouterr().out).split())
    assert "--optim.learning-rate" in words
    assert "[phrasebook 128; own text: by its size]" in words
    assert "[phrasebook 64; own text 256]" in words


def test_the_help_of_train_is_whole_and_in_groups(capsys):
    main(["train", "--help"])
    text = capsys.readouterr().out
    words = " ".join(re.sub("[│\n]", " ", text).split())
    assert "Defaults are in brackets" in words and "the command line overrides it" in words
    assert all(f"─ {title} ─" in text for title in ("Run", "Text", "Tokenizer", "Model", "Optimizer"))
    assert "equal bytes. [0]" in words and "--no-resume" not in words and "batch_tokens" not in words


def test_the_help_of_a_command_is_its_whole_docstring(capsys):
    main(["check", "--help"])
    assert "The exit status is 1 if any gradient is wrong." in capsys.readouterr().out


# ---- bad use ----


def test_options_under_other_names_lead_to_options_that_exist():
    from models.cli.main import _app
    from models.runs.other_names import _FACTS, _FACTS_WITH_BEAM, _OURS

    arguments = [a for name in COMMANDS for a in _app([name])[name].assemble_argument_collection()]
    options = {name for argument in arguments for name in argument.names}
    named = {option for text in (*_OURS, *_FACTS, *_FACTS_WITH_BEAM) for option in re.findall(r"--[a-z.-]+", text)}
    assert named <= options
    for table in (_OURS, _FACTS, _FACTS_WITH_BEAM):
        names = " ".join(table.values()).split()
        assert sorted(set(names)) == sorted(names)


OTHERS = {  # what users of other programs type, and a part of the answer
    "fairseq": """
        train --max-update --steps
        train --update-freq --optim.accumulate
        train --warmup-updates --optim.warmup
        train --share-all-embeddings --model.tie-embeddings
        train --encoder-embed-dim --model.width
        train --encoder-ffn-embed-dim --model.feed-forward
        train --encoder-normalize-before --model.norm
        train --activation-dropout --model.feed-forward-dropout
        train --adam-eps --optim.eps
        train --best-checkpoint-metric --best-by
        train --keep-last-epochs --keep
        train --arch --model
        train --criterion cross-entropy
        train --fp16 float32
        train --source-lang languages
        train --distributed-world-size device
        train --tensorboard-logdir log.jsonl
        translate --path --run
        translate --lenpen --length-penalty
        translate --sampling-topk --top-k
        translate --remove-bpe subwords
        translate --interactive typed
        translate -i --input
        translate --max-tokens lengths""",
    "OpenNMT": """
        train -train_steps --steps
        train -rnn_size --model.width
        train -transformer_ff --model.feed-forward
        train -decay_method --optim.schedule
        train -adam_beta2 --optim.betas
        train -save_checkpoint_steps --save-every
        train -train_from --resume
        train -share_vocab --tokenizer.shared
        train -gpu_ranks --backend
        train -src_vocab subwords
        translate -src --input
        translate -model --run
        translate -replace_unk unknown
        translate -random_sampling_temp --temperature""",
    "Sockeye": """
        train --initial-learning-rate --optim.learning-rate
        train --transformer-model-size --model.width
        train --transformer-dropout-attention --model.attention-dropout
        train --max-num-checkpoint-not-improved --patience
        train --checkpoint-interval --save-every
        train --validation-source --valid-source
        train --weight-tying --model.tie-embeddings
        train --amp float32
        train --overwrite-output overwritten
        translate -m --run
        translate -b --beam
        translate --nbest-size --n-best
        translate --max-output-length --max-length""",
    "JoeyNMT": """
        train --learning_rate_min --optim.final-learning-rate
        train --learning_rate_warmup --optim.warmup
        train --batch_multiplier --optim.accumulate
        train --validation_freq --validate-every
        train --print_valid_sents --samples
        train --voc_limit --tokenizer.vocabulary
        train --ff_size --model.feed-forward
        train --load_model --resume
        train --model_dir --out
        train --random_seed --seed
        translate --beam_alpha --length-penalty
        translate --ckpt --run""",
    "Hugging Face": """
        train --per_device_train_batch_size --batch-sentences
        train --num_train_epochs --epochs
        train --gradient_accumulation_steps --optim.accumulate
        train --label_smoothing_factor --optim.label-smoothing
        train --lr_scheduler_type --optim.schedule
        train --save_total_limit --keep
        train --early_stopping_patience --patience
        train --train_file --train-tsv
        train --validation_file --valid-tsv
        train --output_dir --out
        train --logging_steps log.jsonl
        train --do_train command
        translate --num_return_sequences --n-best
        translate --max_new_tokens --max-length
        translate --do_sample --sample
        evaluate --metric chrF""",
    "a similar name": """
        train --layers --model.layers
        train --dropout --model.dropout
        train --attention-dropout --model.attention-dropout
        train --momentum --optim.momentum
        train --lable-smoothing --optim.label-smoothing
        train --batch-sentence --batch-sentences""",
}


@pytest.mark.parametrize("tool", OTHERS)
def test_names_of_other_programs_get_the_right_word(here, capsys, tool):
    for called, option, answer in map(str.split, OTHERS[tool].strip().splitlines()):
        said = refusal(capsys, called, option, "7").removeprefix(f"tensorlib: Unknown option: {option}.")
        assert re.search(rf"(?<![\w.-]){re.escape(answer)}(?![\w.]*-?\w)", said.partition(" See `")[0]), (option, said)


@pytest.mark.parametrize("option", ["--quiet", "--updates", "--ampere", "--task_set", "--levels", "--add"])
def test_nothing_is_suggested_that_is_not_similar(here, capsys, option):
    assert "Did you mean" not in refusal(capsys, "train", option, "7")


BAD = {
    "unknown command": ("trian", 'Did you mean "train"?'),
    "unknown option": ("train --modle.layers 3", "--modle.layers. Did you mean --model.layers?"),
    "lr": ("train --lr 1", "Unknown option: --lr. It is --optim.learning-rate here. See `tensorlib train --help`"),
    "lr in its section": ("train --optim.lr=3", "Unknown option: --optim.lr. It is --optim.learning-rate here."),
    "after an argument": ("translate ein --unknown x", "Unknown option: --unknown. See `tensorlib translate --help`"),
    "gpu": ("train --gpu", "Unknown option: --gpu. It is --backend cupy here."),
    "gpu for another command": ("translate --gpu hello", "Unknown option: --gpu. It is --backend cupy here."),
    "batch size": ("train --batch_size 3", "It is --batch-sentences N, or --batch-tokens N here."),
    "a name that means a section": ("train --optimizer adam", "Unknown option: --optimizer. It is --optim.name here."),
    "a name for each command": ("translate --checkpoint x", "It is --run DIR or FILE here."),
    "beam": ("evaluate --num-beams 4", "It is --beam here."),
    "an option like no other": ("translate --zzz 4", "Unknown option: --zzz. See `tensorlib translate --help`"),
    "an argument too many": ("train foo", "unexpected argument foo; a file needs an option that names it. See `"),
    "a run as an argument": ("train --resume there", "unexpected argument there; did you mean --out there? See `"),
    "a part of an epoch": ("train --epochs 0.5", "--epochs: a whole number is required, got 0.5. See `"),
    "a part of a layer": ("train --model.layers 2.7", "--model.layers: a whole number is required, got 2.7. See `"),
    "a part of a target": ("translate --beam 2.5 a", "--beam: a whole number is required, got 2.5. See `"),
    "a part of a checkpoint": ("average --last 2.5", "--last: a whole number is required, got 2.5. See `"),
    "a part of a level": ("draw --depth 0.5", "--depth: a whole number is required, got 0.5. See `"),
    "no value": ("train --steps --seed 3", "tensorlib: --steps needs a value that does not begin with a dash. See `"),
    "a dash for a value": ("train --train-source -", "--train-source needs a value that does not begin with a dash."),
    "one value of two": ("train --optim.betas 0.9 --seed 3", "--optim.betas needs 2 values that do not begin with a"),
    "a value too many": ("train --resume=there", "tensorlib: --resume takes no value. See `"),
    "an option of the parser": ("train --optim.empty-betas", "--optim.empty-betas. Did you mean --optim.betas?"),
    "an option twice": ("train --model.norm pre --seed 3 --model.norm post", "--model.norm is given twice. See"),
    "a switch and its opposite": (
        "train --no-capture --capture",
        "-capture contradict each other; give one of them. See `tensorlib train --help`",
    ),
    "a switch of a section and its opposite": (
        "train --model.tie-embeddings --seed 3 --model.no-tie-embeddings",
        "tie-embeddings contradict each other; give one of them.",
    ),
    "not a number": ("train --steps many", "--steps"),
    "nothing after an option": ("average --last", "tensorlib: --last needs a value. See `"),
    "a comma between two values": ("train --optim.betas 0.9,0.98", "needs 2 values, with a space between them. See `"),
    "no text to prepare": ("data", "tensorlib: NAME is required. See `tensorlib data --help`"),
    "no directory for the text": ("data reverse", "tensorlib: DIRECTORY is required. See `"),
    "no checkpoint to inspect": ("inspect", "tensorlib: CHECKPOINT is required. See `"),
    "no- before a section": ("train --no-tokenizer.shared", "Did you mean --tokenizer.no-shared? See `"),
    "no- before another name": ("train --no-tie-weights", "It is --model.no-tie-embeddings here. See `"),
    "no- before a section and another name": ("train --no-model.tie-weights", "It is --model.no-tie-embeddings here."),
    "false after a switch": (
        "train --tokenizer.shared false",
        "--tokenizer.shared takes no value; its opposite is --tokenizer.no-shared. See `",
    ),
    "true after a negative switch": ("train --model.no-tie-embeddings true", "opposite is --model.tie-embeddings."),
    "true after a switch without an opposite": ("train --resume true", "tensorlib: --resume takes no value. See `"),
    "several translations to evaluate": (
        "evaluate --n-best 3",
        "--n-best. `tensorlib translate` has such options; here the best translation of a beam search is scored",
    ),
    "samples to evaluate": ("evaluate --sample", "`tensorlib translate` has such options; here the best translation"),
    "several validations": ("train --n-best 3", "has such options; validation translates greedily."),
    "a run to draw": ("draw there", "unexpected argument there; did you mean --run there? See `"),
    "a run to evaluate": ("evaluate there", "unexpected argument there; did you mean --run there? See `"),
    "a text to evaluate": ("evaluate two", "unexpected argument two; a file needs an option that names it. See `"),
    "two runs to average": ("average a b", "unexpected argument b; average takes one argument, RUN. See `"),
    "two files to inspect": ("inspect a b", "unexpected argument b; inspect takes one argument, CHECKPOINT. See `"),
    "three arguments": ("data reverse a b", "unexpected argument b; data takes 2 arguments, NAME and DIRECTORY."),
    "an argument of none": ("info a", "unexpected argument a; info takes none. See `"),
    "checkpoints to average": ("average --checkpoints a", "Unknown option: --checkpoints. It is --run DIR here. See `"),
    "an option for the argument": ("inspect --checkpoint a", "CHECKPOINT is given without an option. See `"),
    "a depth": ("draw --depth -1", "tensorlib: draw: --depth must be at least 0, got -1; a large number opens"),
    "a file to resume from": ("train --train-from a", "Unknown option: --train-from. It is --resume --out DIR here."),
    "a file to restore": ("train --restore-file a", "It is --resume --out DIR here."),
    "fine-tuning": ("train --finetune", "A new run begins with random weights; --resume continues a run on its own"),
    "weights to begin with": ("train --init-from a", "A new run begins with random weights;"),
    "a text as a run": (
        "translate --run two a",
        "--run two: a run's directory, or a checkpoint in it, is required; this is another file",
    ),
    "a huge rate": ("train --optim.learning-rate 1e30", "--optim.learning-rate must be from 0 to 9.2e+18, got 1e+30"),
    "a beam": ("translate --beam 0 a", "--beam must be at least 1, got 0"),
    "a huge beam": ("translate --beam 9223372036854775808 a", "--beam must be at most 9223372036854775807, got"),
    "infinity": ("train --optim.learning-rate inf", "optim.learning_rate must be a finite number, got inf"),
    "infinity in TOML": ("train --config inf.toml", "config inf.toml: optim.clip must be a finite number, got inf"),
    "a huge number": ("train --steps 99999999999999999999", "--steps must be"),
    "a range in TOML": ("train --config range.toml", "config range.toml: --keep must be at least 1, got 0"),
    "a config that is a fifo": ("train --config fifo", "config fifo: a readable file is required; it is a fifo"),
    "an empty file name": ("train --train-source= --train-target=", "--train-source needs a value; got an empty one"),
    "unknown option value": ("train --optim.name adm", "adm"),
    "missing file": ("train --train-tsv none.tsv --valid-tsv valid.tsv", "none.tsv: a readable file is required"),
    "a directory": ("train --train-tsv . --valid-tsv valid.tsv", "it is a directory"),
    "an empty file": ("train --train-tsv empty --valid-tsv valid.tsv", "empty: at least one line"),
    "only blank lines": ("train --train-tsv blank --valid-tsv valid.tsv", "blank: a sentence"),
    "unequal line counts": (
        "train --train-source three --train-target two --valid-tsv valid.tsv",
        "/two has 2; find the line",
    ),
    "invalid UTF-8": ("train --train-source latin --train-target two --valid-tsv valid.tsv", "latin:2: UTF-8"),
    "one column": ("train --train-tsv two --valid-tsv valid.tsv", "two:1: two tab-separated columns"),
    "no validation text": ("train --train-tsv train.tsv", "--valid-source and --valid-target"),
    "unknown key in TOML": ("train --config bad.toml", "config bad.toml: unknown key model.layer; did you mean"),
    "wrong type in TOML": ("train --config type.toml", "config type.toml: steps must be a whole number, got 'x'"),
    "broken TOML": ("train --config two", "config two: valid TOML is required"),
    "missing TOML": ("train --config none.toml", "config none.toml: a readable file is required"),
    "an existing directory": (
        "train --out there",
        "there: a new directory is required; this one exists; name another",
    ),
    "an unwritable place": (
        "train --train-tsv train.tsv --valid-tsv valid.tsv --tokenizer.vocabulary 300 --out two/run",
        "two",
    ),
    "heads": ("train --model.heads 3", "heads must divide width, got 3 and 128"),
    "a vocabulary too small": ("train --train-tsv train.tsv --valid-tsv valid.tsv --tokenizer.vocabulary 5", "size 5"),
    "a place in a file": ("train --out two/run", "--out two/run: a place for a new directory is required; this is in"),
    "characters left out": ("train --tokenizer.coverage 0.5", "--tokenizer.coverage must be from 0.98 to 1, got 0.5"),
    "all sentences too long": (
        "train --train-tsv train.tsv --valid-tsv valid.tsv --model.max-length 2 --tokenizer.vocabulary 300",
        "--model.max-length",
    ),
    "unknown backend": ("train --backend tpu", "--backend tpu"),
    "nothing to resume": ("train --resume", "there is none in"),
    "a directory without a run": ("train --resume --out there", "--out there"),
    "translating without a run": ("translate hello", "there is none in"),
    "translating with no such run": ("translate --run none hello", "--run none"),
    "evaluating half": ("evaluate --source two", "--source and --reference are required together"),
    "evaluating two texts": ("evaluate --source two --reference two --tsv two", "got --source and --tsv two"),
    "drawing two things": ("draw --run there --model transformer", "only one of --run and --model"),
    "a page of steps with numbers": ("draw --step --model rnn --show values", "--step takes no option of pictures"),
    "drawing to nowhere": ("draw --model transformer --out none/g.svg", "none"),
    "a page that is a picture": (
        "draw --model rnn --step --out g.svg",
        "step_through: the suffix of g.svg must be .html",
    ),
    "an unknown picture": ("draw --model transformer --out g.txt", ".txt"),
    "checking no op": ("check sofmax", "sofmax"),
    "inspecting nothing": ("inspect none", "checkpoint none: a readable file is required"),
    "inspecting text": ("inspect train.tsv", "checkpoint train.tsv: a .safetensors file of `tensorlib train`"),
    "inspecting a directory": ("inspect there", "checkpoint there: a readable file is required; it is a directory"),
    "inspecting a fifo": ("inspect fifo", "checkpoint fifo: a readable file is required; it is a fifo"),
    "no place for the output": (
        "evaluate --source two --reference two --output none/out",
        "--output none/out: a directory to write to is required; make none first",
    ),
    "no place for the page": (
        "translate --attention none/a.html a",
        "--attention none/a.html: a directory to write to is required; make none first",
    ),
    "a text for the page": (
        "translate --attention hello",
        "--attention hello: the name of a page to write, FILE.html, is required",
    ),
    "no text beside an output that is there": (
        "evaluate --source none --reference two --output two",
        "reading text none: a readable file is required",
    ),
    "the reference as output": (
        "evaluate --source two --reference two --output two",
        "--output two: a file other than the text is required",
    ),
    "a length penalty out of range": (
        "translate --length-penalty 500 a",
        "--length-penalty must lie in [-10, 10]",
    ),
    "a fifo for the page": (
        "translate --attention fifo.html a",
        "--attention fifo.html: a regular file is required; this is a link or a device",
    ),
    "fewer errors than none": (
        "evaluate --errors=-1",
        "--errors: a number of sentences, 0 or more, is required; got -1",
    ),
    "errors that are not a number": ("evaluate --errors many", '"many"'),
    "a directory for the output": ("evaluate --source two --reference two --output there", "it is a directory"),
}


NEW = {name: bad for name, bad in BAD.items() if bad[0].startswith("train ") and "--resume" not in bad[0]}
DRY = {f"{name}, in a dry run": (f"{arguments} --dry-run", said) for name, (arguments, said) in NEW.items()}


@pytest.mark.parametrize("arguments, said", (BAD | DRY).values(), ids=BAD | DRY)
def test_bad_use_gives_one_line_and_status_2_and_leaves_nothing(here, capsys, arguments, said):
    (here / "two").write_text("a\nb\n")
    (here / "three").write_text("a\nb\nc\n")
    (here / "latin").write_bytes(b"a\ncaf\xe9\n")
    (here / "empty").write_bytes(b"")
    (here / "blank").write_bytes(b"\n\n")
    (here / "bad.toml").write_text("[model]\nlayer = 3\n")
    (here / "type.toml").write_text("steps = 'x'\n")
    (here / "range.toml").write_text("keep = 0\n")
    (here / "inf.toml").write_text("[optim]\nclip = inf\n")
    (here / "there").mkdir()
    os.mkfifo(here / "fifo")
    os.mkfifo(here / "fifo.html")
    before = sorted(here.rglob("*"))
    assert said in refusal(capsys, *arguments.split())
    assert sorted(here.rglob("*")) == before


def test_cupy_without_a_gpu_is_one_line(here, capsys):
    try:
        tl.get_backend("cupy")
    except RuntimeError:
        for command in ("train", "check"):
            assert refusal(capsys, command, "--backend", "cupy").startswith("tensorlib: --backend cupy: needs ")
        assert not (here / "runs").exists()
    else:
        pytest.skip("there is a GPU")


def test_a_text_that_begins_with_a_dash_follows_two(in_trained, capsys):
    for text in ("- a b", "-"):
        assert "A text that begins with a dash follows the word --. See" in refusal(capsys, "translate", text)
    assert main(["translate", "--", "- a b"]) == 0


def test_the_average_of_one_checkpoint_is_its_step(in_trained, capsys):
    assert main(["average", "--last", "1"]) == 0
    (path,) = Path().glob("runs/*/average-1.safetensors")
    assert capsys.readouterr().out == f"{path}: the weights of step 4\n"
    assert main(["inspect", str(path)]) == 0 and "\nthe weights of step 4\n" in capsys.readouterr().out
    path.unlink()


def test_what_to_type_next_is_short(here, capsys):
    lines = (here / "valid.tsv").read_text().splitlines()
    (here / "valid.tsv").write_text("\n".join([f"{'a b ' * 9}\ta", *lines[1:], *lines[:1]]) + "\n")
    assert main(train_command(1)) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(' "a 0"')


def test_a_file_name_cannot_break_the_line(here, capsys):
    assert "no\\nsuch\\x1b[31m" in refusal(capsys, "inspect", "no\nsuch\x1b[31m")


def test_a_separate_process_shows_no_traceback(here):
    done = tensorlib("train", "--train-tsv", "none.tsv", "--valid-tsv", "valid.tsv", cwd=here)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert not (here / "runs").exists()


# ---- train ----


def test_train_ends_with_scores_samples_and_what_to_type_next(trained):
    folder, done = trained
    out = done.stdout.decode()
    assert re.search(r"validation BLEU \d+\.\d+  nrefs:1\|", out) and re.search(r"validation chrF \d", out)
    run = f"runs/{folder.name}-transformer-1"
    assert f"saved in {run} after 0:" in out and f'tensorlib translate --run {run} "a 0"' in out
    names = {path.name for path in (folder / run).iterdir()}
    wanted = {"config.toml", "tokenizer.model", "log.jsonl", "speed.jsonl", "best.safetensors"}
    assert names >= wanted | {"step-00000004.safetensors"} and not any(name.startswith(".") for name in names)


def test_train_shows_lines_where_there_is_no_terminal(trained):
    err = trained[1].stderr.decode()
    assert "24 pairs to train on, 4 to validate" in err and "step 3/4  validation loss" in err
    assert "\r" not in err and "\x1b" not in err


def test_a_dry_run_says_what_the_run_then_does_and_writes_nothing(here, capsys):
    changes = {"train_tsv": "wide.tsv", "optim__warmup": 9, "out": "none/run"}
    (here / "wide.tsv").write_text("".join(f"{line}\t1\n" for line in (here / "train.tsv").read_text().splitlines()))
    before = sorted(here.rglob("*"))
    assert main([*train_command(5, **changes), "--dry-run"]) == 0
    assert sorted(here.rglob("*")) == before
    *lines, last = capsys.readouterr().out.splitlines()
    assert re.match(r"about 5 steps of \S+ s on this machine \(3 were timed\): 1 s, .*; nothing was written$", last)
    assert main(train_command(5, **changes)) == 0
    shown = [line.removeprefix("none/run: ") for line in capsys.readouterr().err.splitlines()]
    said = ["3 columns; only the first two", "24 pairs to train on, 4 to validate, 300 subwords", "rises for 9 steps"]
    assert all(any(text in line for line in lines) for text in said)
    assert [line for line in shown if line in lines] == lines


def test_a_dry_run_refuses_a_tokenizer_that_is_not_installed(here, capsys, monkeypatch):
    monkeypatch.setattr("models.evaluation.metrics._is_installed", lambda name: name != "ko-mecab")
    arguments = train_command(1, bleu_tokenize="ko-mecab")
    said = refusal(capsys, *arguments)
    assert "--bleu-tokenize ko-mecab: MeCab" in said and refusal(capsys, *arguments, "--dry-run") == said


def test_a_dry_run_of_one_step_speaks_of_one(here, capsys):
    assert main([*train_command(1), "--dry-run"]) == 0
    assert "about 1 step of " in capsys.readouterr().out


def test_without_samples_none_are_printed(here, capsys):
    assert main(train_command(1, samples=0)) == 0
    captured = capsys.readouterr()
    assert " -> " not in captured.out + captured.err and "translate --run runs/" in captured.out


def test_train_on_the_phrasebook_reports_held_out_sentences(here, capsys):
    small = [
        word for name, value in (SMALL | {"tokenizer.vocabulary": 2000}).items() for word in (f"--{name}", str(value))
    ]
    assert main(["train", "--steps", "1", *small]) == 0
    out = capsys.readouterr().out
    assert re.search(r"held-out sentences translated exactly: \d+\.\d% of [\d,]+", out)
    assert "\n    我有一只猫 -> " in out and 'runs/phrasebook-transformer-1 "我有一只猫"' in out
    assert main(["evaluate"]) == 0
    assert "exact " in capsys.readouterr().out


def test_each_run_gets_the_next_number(here, capsys):
    for _ in range(2):
        assert main(train_command(1)) == 0
    (here / "runs" / f"{here.name}-transformer-7").mkdir()
    assert main(train_command(1)) == 0
    runs = {path.name.rpartition("-")[2] for path in (here / "runs").iterdir()}
    assert runs == {"1", "2", "7", "8"}


def test_an_existing_out_is_refused_without_resume(in_trained, capsys):
    run = str(next((in_trained / "runs").iterdir()))
    assert "add --resume to continue it" in refusal(capsys, *train_command(1, out=run))


def test_resume_with_another_model_is_refused(in_trained, capsys):
    run = str(next((in_trained / "runs").iterdir()))
    line = refusal(capsys, "train", "--resume", "--out", run, "--model.layers", "2")
    assert "--model.layers is required to stay 1" in line
    line = refusal(capsys, "train", "--resume", "--out", run, "--model.kind", "gru")
    assert "--model.kind is required to stay 'transformer', as when the run began; got 'gru'" in line


def test_resume_continues_to_more_steps(here, capsys):
    assert main(train_command(2, out="run")) == 0
    assert main(["train", "--resume", "--out", "run", "--steps", "5"]) == 0
    assert "resuming after step 2" in capsys.readouterr().err
    assert read_checkpoint(here / "run" / "step-00000005.safetensors").progress.step == 5


def test_resuming_a_finished_run_says_how_to_continue(here, capsys):
    assert main(train_command(4, out="run")) == 0
    config = (here / "run" / "config.toml").read_bytes()
    # The first two succeed, so that a script that resumes until it succeeds comes to an end.
    for steps, status in (((), 0), (("--steps", "4"), 0), (("--steps", "2"), 2)):
        capsys.readouterr()
        assert main(["train", "--resume", "--out", "run", *steps]) == status
        shown = capsys.readouterr()
        assert "run run: finished at step 4; to continue, use --steps N above 4" in shown.err
        assert ("validation chrF" in shown.out) == (status == 0)
        assert (here / "run" / "config.toml").read_bytes() == config


def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(here, capsys):
    diverges = {"optim__learning_rate": "1e18", "optim__schedule": "constant", "optim__warmup": 0}
    assert main(train_command(40, optim__max_skipped=2, out="run", **diverges)) == 2
    captured = capsys.readouterr()
    assert "lower --optim.learning-rate" in captured.err and "Warning" not in captured.err
    assert not (here / "run").exists()


def test_a_run_without_weights_does_not_hide_an_older_one(here, capsys):
    assert main(train_command(1, out="runs/a-1")) == 0
    shutil.copytree(here / "runs" / "a-1", here / "runs" / "a-2", ignore=shutil.ignore_patterns("*.safetensors"))
    assert main(["translate", "a"]) == 0
    shutil.rmtree(here / "runs" / "a-1")
    assert "found 1 without a checkpoint in" in refusal(capsys, "translate", "a")


def test_a_reader_that_leaves_does_not_end_training(here):
    line = " ".join([*map(shlex.quote, [*TENSORLIB, *train_command(3, out="run")]), "2>&1 | head -1"])
    done = subprocess.run(line, shell=True, capture_output=True, timeout=60)
    assert done.stdout.count(b"\n") == 1 and done.stderr == b""
    assert read_checkpoint(here / "run" / "step-00000003.safetensors").progress.step == 3


def test_it_works_without_standard_streams_and_in_any_encoding(in_trained):
    closed = " ".join([*map(shlex.quote, [*TENSORLIB, "translate", "a b"]), "0<&- 1>&- 2>&-"])
    assert subprocess.run(closed, shell=True, timeout=60).returncode == 0
    book = tensorlib("evaluate", "--help", PYTHONIOENCODING="ascii")
    assert book.returncode == 0 and "│" in book.stdout.decode("utf-8")


def test_the_command_to_type_is_one_that_works(tmp_path, monkeypatch):
    script = tmp_path / "bin" / "tensorlib"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(script)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert command() == "bin/tensorlib"
    monkeypatch.chdir(script.parent)
    assert command() == "./tensorlib"
    monkeypatch.setenv("PATH", str(script.parent))
    assert command() == "tensorlib"


def test_the_command_to_type_after_python_m_is_that_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "site" / "tensorlib" / "__main__.py")])
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert command() == ".venv/bin/python -m tensorlib"


def test_config_toml_can_be_fed_back(in_trained, capsys, tmp_path):
    run = next((in_trained / "runs").iterdir())
    assert main(["train", "--config", str(run / "config.toml"), "--out", str(tmp_path / "again")]) == 0
    for name in ("config.toml", "log.jsonl", "best.safetensors", "step-00000004.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes(), name


def test_equal_seeds_give_equal_bytes_whatever_the_surroundings(trained, tmp_path):
    folder, _ = trained
    run = next((folder / "runs").iterdir())
    files = {"train_tsv": folder / "train.tsv", "valid_tsv": folder / "valid.tsv", "out": "other"}
    surroundings = {"PYTHONHASHSEED": "77", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    done = tensorlib(*train_command(4, **files), cwd=tmp_path, **surroundings)
    assert done.returncode == 0, done.stderr
    for name in ("log.jsonl", "best.safetensors", "step-00000004.safetensors"):
        assert (tmp_path / "other" / name).read_bytes() == (run / name).read_bytes(), name


def test_other_seeds_give_other_weights(in_trained, tmp_path):
    assert main(train_command(4, seed=1, out=tmp_path / "run")) == 0
    run = next((in_trained / "runs").iterdir())
    assert (tmp_path / "run" / "best.safetensors").read_bytes() != (run / "best.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_resume_which_works(here, number):
    arguments = [*TENSORLIB, *train_command(1000000, save_every=1000000, out="my run")]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    for line in process.stderr:
        if b"validation loss" in line:
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    last = err.decode().splitlines()[-1]
    found = re.search(r"stopped by SIG\w+ at step (\d+); saved (.*); resume with: tensorlib (.*)", last)
    assert found and "Traceback" not in err.decode()
    step = int(found[1])
    assert read_checkpoint(here / found[2]).progress.step == step
    assert found[3] == "train --resume --out 'my run'"
    done = tensorlib("train", "--resume", "--out", "my run", "--steps", str(step + 2), cwd=here)
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (here / "my run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if entry["kind"] == "train"] == list(range(1, step + 3))


def test_a_full_disk_is_one_line_and_no_temporary_is_left(here, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "no space left on device" in refusal(capsys, *train_command(1), status=1).lower()
    assert not [path for path in here.rglob("*") if path.name.startswith(".")]


# ---- translate, evaluate ----


def test_n_lines_in_n_lines_out(in_trained):
    lines = [
        b"a b 1",
        b"",
        b"  ",
        b"caf\xe9 \xff",
        "a\u2028b\x0bc\x85d".encode(),
        b"a\rb",
        b"x" * 300_000,
        b"</s> <pad>",
    ]
    lines += ["我有一只猫".encode(), b"a\0b", b"\t", *[b"a %d" % i for i in range(600)], b"last \r"]
    done = tensorlib("translate", stdin=b"\n".join(lines), cwd=in_trained)
    assert done.returncode == 0, done.stderr
    out = done.stdout.split(b"\n")
    assert len(out) == len(lines) + 1 and out[-1] == b""
    assert out[1] == out[2] == out[10] == b""
    assert b"line 7: longer than 24 subwords" in done.stderr
    again = tensorlib("translate", "a b 1", "", "a 5", cwd=in_trained).stdout.split(b"\n")
    assert again == [out[0], b"", out[11 + 5], b""]


def typed(folder, keys, stdout=None):
    """Type keys at a terminal, one part after each prompt; return the status, what it showed, and standard output."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [*TENSORLIB, "translate"],
        cwd=folder,
        stdin=inside,
        stderr=inside,
        stdout=stdout or inside,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env=os.environ | {"TERM": "dumb"},
    )
    os.close(inside)
    shown, sent, keys, end = b"", b"", list(keys), time.monotonic() + 60
    while True:
        if not select.select([terminal], [], [], 2)[0]:
            # A signal that comes between the prompt and readline's waiting is heard at the next key: Python's own race.
            assert time.monotonic() < end, f"nothing more after {shown}"
            if sent == b"\x03":
                os.write(terminal, sent)
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
        if shown.endswith(b"> ") and keys:
            sent = keys.pop(0)
            os.write(terminal, sent)
    out, _ = process.communicate(timeout=30)
    os.close(terminal)
    return process.returncode, shown.decode().replace("\r\n", "\n"), out


def test_at_a_terminal_there_is_a_prompt_until_control_d(in_trained):
    (answer,) = tensorlib("translate", "a b 1", cwd=in_trained).stdout.decode().splitlines()
    status, shown, _ = typed(in_trained, [b"a b 1\n", b"\n", b"caf\xe9\n", b"\x04"])
    assert status == 0 and shown.count("> ") == 4
    said = shown.split("> ")
    assert said[0].endswith("Type a sentence and press Enter; Ctrl-D ends.\n")
    assert said[1].splitlines() == ["a b 1", answer] and said[2].splitlines() == ["", ""]


def test_a_prompt_is_no_output(in_trained):
    answers = tensorlib("translate", "a b 1", "", "a 2", cwd=in_trained).stdout
    status, shown, out = typed(in_trained, [b"a b 1\n", b"\n", b"a 2\n", b"\x04"], stdout=subprocess.PIPE)
    assert (status, out) == (0, answers) and shown.count("> ") == 4


def test_control_c_leaves_the_prompt(in_trained):
    status, shown, _ = typed(in_trained, [b"a\n", b"\x03"])
    assert status == 130 and shown.splitlines()[-1] == "tensorlib: stopped by SIGINT" and "Traceback" not in shown


def test_the_attention_page_is_of_what_was_translated(in_trained, tmp_path):
    page = tmp_path / "a.html"
    page.write_text("old")
    done = tensorlib("translate", "--attention", str(page), stdin=b"a b 1\n\na 2\n", cwd=in_trained)
    assert done.returncode == 0 and done.stdout.count(b"\n") == 3
    assert f"attention of 2 of 3 sentences: {page}" in done.stderr.decode()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])
    outputs = [printable(line) for line in done.stdout.decode().split("\n")]
    assert [(s["source"], s["target"]) for s in data["sentences"]] == [("a b 1", outputs[0]), ("a 2", outputs[2])]
    ends = data["sentences"][0]["written"]
    assert ends[-1] == "</s>" or len(ends) == 24  # the model's greatest length: it was broken off


def test_a_sentence_that_has_no_room_on_the_page_leaves_room_for_the_next(in_trained, monkeypatch, capsys, tmp_path):
    page, texts = tmp_path / "a.html", ["a", "a b c " * 3, "b"]
    monkeypatch.setattr(attention_page, "weight_count", lambda config, source, written: source**3)
    monkeypatch.setattr(attention_page, "MOST_WEIGHTS", 200)  # of `a` and `b` some 8 to 64, of the long one over 700
    assert main(["translate", "--attention", str(page), *texts]) == 0
    assert f"attention of 2 of 3 sentences: {page}; 1 more would have made it slow" in capsys.readouterr().err


def test_no_lines_give_no_lines(in_trained):
    assert tensorlib("translate", cwd=in_trained).stdout == b""
    assert tensorlib("translate", stdin=b"\n", cwd=in_trained).stdout == b"\n"


def test_a_line_is_answered_before_the_next_one_comes(in_trained):
    process = subprocess.Popen([*TENSORLIB, "translate"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for _ in range(2):
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"\n"  # would hang if it waited for more
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_reader_that_leaves_ends_it_without_a_word(in_trained):
    process = subprocess.Popen(
        [*TENSORLIB, "translate"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    process.stdin.write(b"a b\n" * 10)
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141


def test_a_run_or_one_of_its_checkpoints_can_be_named(in_trained, capfdbinary):
    run = next((in_trained / "runs").iterdir())
    for path in (run, run / "best.safetensors", run / "step-00000004.safetensors"):
        assert main(["translate", "--run", str(path), "a b"]) == 0
    assert capfdbinary.readouterr().out.count(b"\n") == 3


def test_evaluate_prints_scores_with_signatures(in_trained, capsys, tmp_path):
    for side, text in (("source", f"a 0\n{'a  1' * 30}\n\n"), ("reference", "e 0\ne  1\n\n")):
        (tmp_path / side).write_text(text)
    arguments = ["evaluate", "--source", str(tmp_path / "source"), "--reference", str(tmp_path / "reference")]
    assert main([*arguments, "--tokenize", "none", "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "3 sentences, 1 cut at 24 subwords" in out
    assert re.search(r"BLEU +\d+\.\d\d  nrefs:1\|case:mixed\|eff:no\|tok:none\|smooth:exp\|version:", out)
    assert re.search(r"chrF +\d+\.\d\d  nrefs:1\|", out)
    loss, perplexity = (float(re.search(rf"{word} +([\d.]+)", out)[1]) for word in ("loss", "perplexity"))
    assert perplexity == pytest.approx(2.718281828**loss, rel=1e-3)
    assert (tmp_path / "out").read_bytes().count(b"\n") == 3


def test_evaluate_reads_both_languages_from_one_file(in_trained, capsys):
    pairs = [line.split("\t") for line in (in_trained / "valid.tsv").read_text().splitlines()]
    for name, side in zip(("source", "reference"), zip(*pairs, strict=True), strict=True):
        (in_trained / name).write_text("\n".join(side))
    assert main(["evaluate", "--source", "source", "--reference", "reference"]) == 0
    apart = capsys.readouterr().out
    assert main(["evaluate", "--tsv", "valid.tsv"]) == 0
    assert capsys.readouterr().out == apart


def test_evaluate_says_which_columns_it_does_not_use(in_trained, capsys, tmp_path):
    (tmp_path / "text.tsv").write_text("a 0\te 0\t12\n")
    assert main(["evaluate", "--tsv", str(tmp_path / "text.tsv")]) == 0
    assert "text.tsv: 3 columns; only the first two are used, as in a 0 -> e 0" in capsys.readouterr().err


def test_evaluate_lists_errors_when_asked(in_trained, capsys, tmp_path):
    for side, text in (("source", "a 0\na b 1\n"), ("reference", "e 0\ne d 1 x\n")):
        (tmp_path / side).write_text(text)
    arguments = ["evaluate", "--source", str(tmp_path / "source"), "--reference", str(tmp_path / "reference")]
    found = {}
    for errors in ((), ("--errors",), ("--errors", "1"), ("--errors", "0")):
        assert main([*arguments, *errors]) == 0
        out = capsys.readouterr().out
        found[errors] = ("errors      2 of 2 sentences differ" in out, len(re.findall(r"(?m)^line \d: ", out)))
    assert list(found.values()) == [(False, 0), (True, 2), (True, 1), (True, 0)]


def test_evaluate_encodes_each_text_once_and_measures_the_loss_of_those_that_fit(
    in_trained, capsys, tmp_path, monkeypatch
):
    encoded, encode = [], Subwords.encode
    monkeypatch.setattr(Subwords, "encode", lambda self, texts: encoded.append(len(texts)) or encode(self, texts))
    pairs = [("a 0", "e 0"), ("a  1" * 30, "e 1"), ("b 2", "e d c b a 1 2 " * 9), ("", ""), ("a b 1", "e d")]
    losses = []
    for kept in (pairs, [pairs[i] for i in (0, 3, 4)]):
        (tmp_path / "text.tsv").write_text("".join(f"{source}\t{reference}\n" for source, reference in kept))
        assert main(["evaluate", "--tsv", str(tmp_path / "text.tsv"), "--errors"]) == 0
        losses.append(re.search("loss .*", capsys.readouterr().out)[0])
    assert encoded == [5, 5, 3, 3]
    assert losses[0] == f"{losses[1]}, without 2 longer sentences"


def test_evaluate_finds_words_as_the_run_does_unless_given_another_way(in_trained, capsys, tmp_path):
    (run,) = Path("runs").iterdir()
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace('bleu_tokenize = "13a"', 'bleu_tokenize = "none"'))
    for arguments, used in (((), "none"), (("--tokenize", "char"), "char")):
        assert main(["evaluate", "--tsv", "valid.tsv", "--run", str(tmp_path / "run"), *arguments]) == 0
        assert f"|tok:{used}|" in capsys.readouterr().out


def test_evaluate_needs_files_for_a_run_on_files(in_trained, capsys):
    assert "has no test part" in refusal(capsys, "evaluate")


def test_one_of_a_thing_is_called_one(here, capfd):
    """Whatever there is once: a pair, a sentence, a step, a validation, a checkpoint."""
    (here / "train.tsv").write_text("a b\tb a\n \tc\na 1\t1 a" + " x" * 99 + "\n")
    (here / "valid.tsv").write_text("a b\tb a\n")
    few = {"tokenizer__vocabulary": 280, "keep": 1, "out": "run"}
    own = ["--train-tsv", "valid.tsv", "--valid-tsv", "valid.tsv", "--dry-run", "--tokenizer.vocabulary", "280"]
    assert main([*train_command(1, **few), "--dry-run"]) == main(["train", *own, "--steps", "1"]) == 0
    assert main(train_command(1, **few)) == 0
    assert main([*train_command(9, **few | {"out": "early"}), "--patience", "1"]) == 0
    for path in (here / "run").glob("step-*"):
        assert main(["inspect", str(path)]) == 0
        path.unlink()
    assert main(["average", "run", "--last", "1"]) == 2
    (here / "a").write_text("a b\n")
    (here / "three").write_text("a b\na\na\n")
    assert main(["evaluate", "--run", "run", "--tsv", "valid.tsv", "--errors"]) == 0
    assert main(["translate", "--run", "run", "a b", "--attention", "page.html"]) == 0
    assert main(["train", "--train-source", "a", "--train-target", "three", "--valid-tsv", "valid.tsv"]) == 2
    shown = "".join(capfd.readouterr())
    assert "left out 1 pair with an empty side" in shown and "left out 1 pair longer than 24 subwords" in shown
    several = "pairs|sentences|steps|lines|validations|checkpoints|times|threads|batches"
    assert re.findall(rf"(?<![\d.,-])1 (?:\w+ )?(?:{several})\b", shown) == []


# ---- checkpoints that don't belong ----


def test_a_checkpoint_of_another_model_is_refused(here, capsys):
    assert main(train_command(1, out="one")) == 0
    assert main(train_command(1, out="two", model__layers=2)) == 0
    assert main(train_command(1, out="three", tokenizer__vocabulary=290)) == 0
    for other, said in (("two", "layers 2 instead of 1"), ("three", "different subwords")):
        best = (here / other / "best.safetensors").read_bytes()
        (here / "one" / "best.safetensors").write_bytes(best)
        assert said in refusal(capsys, "translate", "--run", "one", "a")
        (here / "one" / "step-00000001.safetensors").write_bytes(best)
        assert main(["train", "--resume", "--out", "one", "--steps", "2"]) == 2
        assert "step-00000001.safetensors" in capsys.readouterr().err.splitlines()[-1]


def test_a_damaged_checkpoint_is_refused(here, capsys):
    assert main(train_command(1, out="run")) == 0
    best = here / "run" / "best.safetensors"
    data = bytearray(best.read_bytes())
    data[-1] ^= 1
    best.write_bytes(data)
    for arguments in (["inspect", str(best)], ["translate", "--run", "run", "a"]):
        assert f"{best.name}: an undamaged file is required" in refusal(capsys, *arguments)
    (here / "run" / "tokenizer.model").write_bytes(b"broken")
    assert "tokenizer.model" in refusal(capsys, "translate", "--run", "run", "a")


def test_inspect_tells_what_is_in_a_checkpoint(in_trained, capsys):
    best = next((in_trained / "runs").glob("*/best.safetensors"))
    assert main(["inspect", str(best)]) == 0
    out = capsys.readouterr().out
    assert "whole" in out and "step " in out and "source_embedding.weight" in out


# ---- draw, check, info ----


def test_draw_writes_a_picture(here, capsys):
    assert main(["draw", "--model", "transformer", "--out", "graph.dot", "--depth", "1"]) == 0
    assert "digraph" in (here / "graph.dot").read_text()


def test_draw_has_the_options_of_pictures(here, capsys):
    options = (
        "--passes both --show gradients --show memory --color gradient --direction right --formulas --fold-repeats"
    )
    assert main(["draw", "--model", "transformer", "--out", "graph.dot", "--depth", "2", *options.split()]) == 0
    text = (here / "graph.dot").read_text()
    for expected in ("rankdir=LR", "<b>backward</b>", "layers ×2", "grad norm", "norm of the gradient", "keeps "):
        assert expected in text
    assert main(["draw", "--model", "lstm", "--out", "sheet.svg", "--size", "slide", "--depth", "9"]) == 0
    assert "do not fit the size" in (here / "sheet.svg").read_text()


def test_draw_draws_a_run(in_trained, capsys, tmp_path):
    assert main(["draw", "--out", str(tmp_path / "graph.dot")]) == 0
    assert (tmp_path / "graph.dot").exists()


@pytest.mark.parametrize("model", ["transformer", "lstm", "language"])
def test_draw_step_writes_a_page_that_steps_through_one_sentence(here, capsys, model):
    assert main(["draw", "--step", "--model", model]) == 0
    assert "parameters on one sentence pair, forward and backward" in capsys.readouterr().out
    page = (here / "steps.html").read_text()
    assert '"formula":' in page and '"backward":[' in page


def test_draw_step_takes_a_run(in_trained, capsys, tmp_path):
    assert main(["draw", "--step", "--out", str(tmp_path / "run.html"), "--depth", "1"]) == 0
    assert '"depth":1' in (tmp_path / "run.html").read_text()


def test_check_prints_a_row_for_each_op(capsys):
    assert main(["check", "add", "softmax"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("op") and lines[2].startswith("softmax")


def test_check_takes_whole_models(capsys):
    assert main(["check", "rnn-translator", "language-model", "tanh"]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == ["tanh", "language-model", "rnn-translator"]
    assert "and transformer, language-model, rnn-translator" in refusal(capsys, "check", "lstm-model")


def test_check_of_a_wrong_gradient_fails(capsys, monkeypatch):
    from tensorlib.ops.trigonometric import Tanh

    monkeypatch.setattr(Tanh, "backward", lambda self, dy: dy * 1.001 * (1 - self.saved[0] * self.saved[0]))
    assert main(["check", "tanh", "exp"]) == 1
    captured = capsys.readouterr()
    assert "WRONG" in captured.out and captured.err.startswith("tensorlib: check: tanh")


def test_info_names_backends_and_blas():
    out = tensorlib("info").stdout.decode()  # in a separate process: threadpoolctl sets an environment variable
    assert "backend numpy: yes" in out and "backend cupy: " in out and "blas: " in out
    program = (
        "from threadpoolctl import threadpool_info; import models.training.loop\n"
        "for pool in threadpool_info(): print(pool['user_api'], pool['num_threads'])"
    )
    pools = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    shown = re.findall(r"(?m)^(\w+): .*, (\d+) threads?$", out)
    assert sorted(shown) == sorted(tuple(line.split()) for line in pools.splitlines())


def test_info_runs_without_a_package_that_training_needs():
    program = (
        "import sys; sys.modules['sentencepiece'] = None; from models.cli.main import main; sys.exit(main(['info']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and "blas: " in done.stdout
