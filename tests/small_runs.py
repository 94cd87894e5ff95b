"""Training runs of a few steps on a few sentences, for tests of whole runs."""

import io
import json
import signal

from models.cli.display import Display
from models.runs.config_layers import config_from
from models.system.stopping import Stopped, Stopper
from models.training.corpus import read_corpus
from models.training.loop import Trainer
from models.training.start import Plan, resume_run, start_run

MODEL = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 16, "dropout": 0.2, "max_length": 24}
OPTIM = {"learning_rate": 5e-4, "accumulate": 2, "warmup": 3, "schedule": "cosine"}
MODEL |= {"norm": "post", "tie_embeddings": False}  # settings that would otherwise follow the size of the text


class StopsAt(Stopper):
    """Stops at the nth check."""

    def __init__(self, number, at_once=False):
        super().__init__()
        self.left, self.at_once = number, at_once

    def check(self):
        self.left -= 1
        if self.left == 0:
            raise Stopped(signal.SIGTERM, at_once=self.at_once)


def write_pairs(folder, count=26):
    """Write sentences of very different lengths, so that batches differ in their number of tokens."""
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    lines = [f"{' '.join(words[: 1 + i % 7])} {i}\t{' '.join(words[1 + i % 7 :: -1])} {i}" for i in range(count)]
    for name, part in (("train", lines), ("valid", lines[:5])):
        (folder / f"{name}.tsv").write_text("\n".join(part) + "\n")


def config_maker(folder):
    write_pairs(folder)

    def make(**given):
        standard = {
            "train_tsv": str(folder / "train.tsv"),
            "valid_tsv": str(folder / "valid.tsv"),
            "steps": 13,
            "batch_sentences": 5,
            "validate_every": 4,
            "save_every": 3,
            "keep": 99,
            "best_by": "loss",
            "tokenizer": {"vocabulary": 300},
            "optim": OPTIM | given.pop("optim", {}),
            "model": MODEL | given.pop("model", {}),
        }
        return config_from(("test", standard | given))

    return make


LANGUAGE = {"kind": "language", "layers": 1, "width": 16, "heads": 2, "feed_forward": 16, "dropout": 0.2}


def write_text(folder, lines=60):
    """Write a text of lines of different lengths, some of them empty."""
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    text = [f"{' '.join(words[: i % 8])} {i}" if i % 8 else "" for i in range(lines)]
    for name, part in (("train", text), ("valid", [f"{line} more" for line in text[: lines // 6]])):
        (folder / f"{name}.txt").write_text("\n".join(part) + "\n")


def language_config_maker(folder):
    write_text(folder)

    def make(**given):
        standard = {
            "train_text": str(folder / "train.txt"),
            "valid_text": str(folder / "valid.txt"),
            "steps": 13,
            "batch_sentences": 5,
            "validate_every": 4,
            "save_every": 3,
            "keep": 99,
            "tokenizer": {"vocabulary": 300} | given.pop("tokenizer", {}),
            "optim": OPTIM | given.pop("optim", {}),
            "model": LANGUAGE | {"max_length": 12} | given.pop("model", {}),
        }
        return config_from(("test", standard | given))

    return make


def trainer_for(config, out, stopper=None):
    stopper = stopper or Stopper()
    return Trainer(start_run(Plan(config, read_corpus(config)), out, stopper), Display(io.StringIO()), stopper)


def train(config, out, stopper=None):
    trainer = trainer_for(config, out, stopper)
    trainer.train()
    return trainer


def resume(out, stopper=None):
    stopper = stopper or Stopper()
    trainer = Trainer(resume_run(out, stopper), Display(io.StringIO()), stopper)
    trainer.train()
    return trainer


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
