"""What other programs call our options, so that the error for an unknown option can name ours."""

from __future__ import annotations

from collections.abc import Container
from difflib import get_close_matches

__all__ = ["our_option"]

# By name without dashes: our options, of which the first that the command has is meant; words after it are shown too.
_OURS = {
    ("lr", "learning-rate", "learningrate"): ["--optim.learning-rate"],
    ("gpu", "gpus", "cuda", "use-cuda", "use-gpu", "ngpu"): ["--backend cupy"],
    ("cpu", "no-cuda", "no-gpu"): ["--backend numpy"],
    ("device", "accelerator", "platform"): ["--backend numpy or cupy"],
    ("b", "bs", "batch", "batch-size", "minibatch-size", "train-batch-size"): [
        "--batch-sentences N, or --batch-tokens N",
    ],
    ("max-tokens", "tokens-per-batch"): ["--batch-tokens"],
    ("e", "epoch", "num-epochs", "max-epochs", "n-epochs", "nepochs", "num-train-epochs"): ["--epochs"],
    ("step", "max-steps", "num-steps", "train-steps", "max-update", "iterations", "iters"): ["--steps"],
    ("optimizer", "optim", "opt"): ["--optim.name"],
    ("scheduler", "lr-scheduler", "lr-schedule"): ["--optim.schedule"],
    ("warmup", "warmup-steps", "warmup-updates", "num-warmup-steps"): ["--optim.warmup"],
    ("clip", "clip-norm", "max-grad-norm", "grad-clip", "gradient-clip", "clip-grad-norm"): ["--optim.clip"],
    ("wd",): ["--optim.weight-decay"],
    ("accum", "update-freq", "accum-count", "grad-accum", "gradient-accumulation-steps"): ["--optim.accumulate"],
    ("smoothing",): ["--optim.label-smoothing"],
    ("adam-betas", "betas"): ["--optim.betas"],
    ("vocab", "vocab-size", "vocabulary"): ["--tokenizer.vocabulary"],
    ("d-model", "dim", "hidden-size", "hidden", "embed-dim", "embedding-dim", "word-vec-size"): ["--model.width"],
    ("nhead", "n-heads", "num-heads", "attention-heads"): ["--model.heads"],
    ("n-layers", "nlayers", "num-layers", "encoder-layers", "decoder-layers"): ["--model.layers"],
    ("ffn", "ffn-dim", "dim-feedforward", "d-ff"): ["--model.feed-forward"],
    ("src", "source", "train-src", "source-file", "trainpref"): [
        "--train-source FILE",
        "--source FILE",
        "--input FILE",
    ],
    ("tgt", "trg", "target", "train-tgt", "target-file"): ["--train-target FILE", "--reference FILE"],
    ("val-src", "valid-src", "dev-src", "validpref"): ["--valid-source FILE"],
    ("val-tgt", "valid-tgt", "dev-tgt"): ["--valid-target FILE"],
    ("ref", "references"): ["--reference FILE"],
    ("i", "in", "input-file"): ["--input FILE"],
    ("o", "output", "output-dir", "save-dir", "save-path", "log-dir", "save-model"): ["--out DIR", "--output FILE"],
    ("i", "input", "file"): ["--source FILE"],
    ("model", "model-path", "path", "checkpoint", "ckpt", "m", "model-dir"): ["--run DIR or FILE", "--resume"],
    ("resume-from", "restore", "load", "continue", "resume-from-checkpoint", "restore-file"): ["--resume"],
    ("save-interval", "save-steps", "checkpoint-every"): ["--save-every"],
    ("eval-every", "eval-steps", "valid-every", "eval-interval", "valid-steps"): ["--validate-every"],
    ("beams", "beam-size", "num-beams", "beam-width", "k"): ["--beam"],
    ("nbest", "num-return-sequences"): ["--n-best"],
    ("lenpen", "alpha"): ["--length-penalty"],
    ("max-len", "max-new-tokens", "max-decoding-length"): ["--max-length"],
    ("t", "temp"): ["--temperature"],
    ("random-seed", "manual-seed"): ["--seed"],
    ("early-stopping", "early-stop"): ["--patience"],
}
_BY_NAME = {name: ours for names, ours in _OURS.items() for name in names}


def our_option(given: str, options: Container[str]) -> str:
    """Return our option for the one that was given, as "--lr" or "--optim.lr=3", or "" if there is none.

    options: those of the called command, with their dashes.
    """
    name = given.partition("=")[0].lstrip("-").replace("_", "-").lower()
    for candidate in (name, name.rpartition(".")[2]):
        for ours in _BY_NAME.get(candidate, []):
            if ours.split(" ")[0] in options:
                return ours
    return ""


def close_option(given: str, options: list[str]) -> str:
    """Return the option with the most similar name, "" if none is similar."""
    return next(iter(get_close_matches(given.partition("=")[0], options, 1)), "")
