"""The settings of a training run, and their values for each kind of data.

Each setting is both a key of config.toml and a flag of the command line: `batch_tokens = 4096` is
`--batch-tokens 4096`, and `layers = 3` under `[model]` is `--model.layers 3`. `tensorlib train --help` prints the text
beside each type.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from models.architectures.language import LanguageConfig
from models.architectures.recurrent import RecurrentConfig
from models.architectures.transformer import TransformerConfig
from models.runs.nested_dicts import settable, variant_of

__all__ = [
    "PRESETS", "TEXT_FILES", "BleuTokenize", "OptimConfig", "SamplingConfig", "TokenizerConfig", "TrainConfig",
    "model_keys",
]  # fmt: skip

BleuTokenize = Literal["auto", "13a", "none", "intl", "char", "zh", "ja-mecab", "ko-mecab"]
"""How BLEU splits text into words: sacrebleu's names, and "auto"."""

TEXT_FILES = (
    "train_source", "train_target", "train_tsv", "train_text", "valid_source", "valid_target", "valid_tsv",
    "valid_text",
)  # fmt: skip

# Values of the settings that neither a TOML file nor the command line sets. Settings missing here keep the default of
# their dataclass; the defaults of the model give the base model of Vaswani et al. 2017.
PRESETS: dict[str, dict[str, Any]] = {
    "phrasebook": {
        "steps": 800,
        "batch_tokens": 1024,
        "validate_every": 200,
        "save_every": 200,
        "tokenizer": {"vocabulary": 2000},
        "model": {"layers": 2, "width": 128, "heads": 4, "feed_forward": 256, "dropout": 0.05, "max_length": 64},
        "optim": {"learning_rate": 3e-3, "schedule": "cosine", "warmup": 100},
    },
    "files": {"model": {"max_length": 256}},  # the others are chosen by the size of the text: models/runs/defaults.py
}


@dataclass(frozen=True)
class TokenizerConfig:
    """How text is split into subwords."""

    vocabulary: Annotated[
        int, "Maximum number of subwords in a vocabulary, including special tokens, bytes and characters."
    ] = 8000
    shared: Annotated[bool, "Use one vocabulary for both languages instead of one for each."] = True
    type: Annotated[Literal["bpe", "unigram"], "Byte-pair encoding, or subwords of a unigram language model."] = "bpe"
    coverage: Annotated[
        float, "Fraction of all characters in the text that the vocabulary covers; others are spelled in bytes."
    ] = 1.0
    dropout: Annotated[
        float,
        "BPE-dropout: probability of leaving out each merge, so that every epoch splits the training text "
        "differently; 0.1 is common, 0 turns it off.",
    ] = 0.0


@dataclass(frozen=True)
class OptimConfig:
    """How parameters are updated."""

    name: Annotated[Literal["adam", "adamw", "sgd"], "The optimizer."] = "adam"
    learning_rate: Annotated[float, "Peak of the learning rate; with the noam schedule, its factor."] = 5e-4
    schedule: Annotated[
        Literal["inverse-sqrt", "cosine", "noam", "constant"], "How the learning rate changes after the warmup."
    ] = "inverse-sqrt"
    warmup: Annotated[int, "Steps over which the learning rate rises."] = 1000
    final_learning_rate: Annotated[float, "Learning rate at the end of the cosine schedule."] = 0.0
    betas: Annotated[tuple[float, float], "Decay rates of the two moments of Adam and AdamW."] = (0.9, 0.98)
    eps: Annotated[float, "Constant added to the denominator of Adam and AdamW."] = 1e-9
    momentum: Annotated[float, "Momentum of SGD."] = 0.9
    weight_decay: Annotated[float, "Weight decay: an L2 penalty; with AdamW, decoupled."] = 0.0
    clip: Annotated[float, "Maximum norm of the gradient; 0: no limit."] = 1.0
    label_smoothing: Annotated[float, "Fraction of the target's probability that is spread over all subwords."] = 0.1
    accumulate: Annotated[int, "Number of batches whose gradients are accumulated for one step."] = 1
    ema: Annotated[
        float,
        "Decay of a moving average of the weights, used for everything but training itself; 0.999 is common, 0: off.",
    ] = 0.0
    max_skipped: Annotated[
        int, "Steps with a non-finite loss or gradient are skipped; training fails after this many in a row."
    ] = 10


@dataclass(frozen=True)
class SamplingConfig:
    """With --feeding scheduled-sampling: which fraction of the decoder's input words is true, rather than predicted."""

    decay: Annotated[
        Literal["linear", "exponential", "inverse-sigmoid", "constant"] | None,
        "How the fraction of true words falls during training, linear by default; constant: it is --sampling.truth.",
    ] = None
    truth: Annotated[float | None, "Least fraction of true words, 0 by default; constant needs it."] = None
    halfway: Annotated[
        int | None, "Number of steps after which half of the words are true; by default half of the run's steps."
    ] = None


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run, except the text itself."""

    data: Annotated[
        Literal["phrasebook", "files"], 'The built-in phrasebook, or text files; naming a file implies "files".'
    ] = "phrasebook"
    train_source: Annotated[str, "Sentences to train on, one per line, UTF-8."] = ""
    train_target: Annotated[str, "Translations of the sentences to train on, line by line."] = ""
    train_tsv: Annotated[str, "One file instead of these two: on each line a sentence, a tab, its translation."] = ""
    train_text: Annotated[str, "Any text, for a language model to train on: see --model.kind language."] = ""
    valid_source: Annotated[str, "Validation sentences: kept out of training, to measure progress."] = ""
    valid_target: Annotated[str, "Translations of the validation sentences, line by line."] = ""
    valid_tsv: Annotated[str, "One file instead of these two, in the format of --train-tsv."] = ""
    valid_text: Annotated[str, "Text for a language model to validate on."] = ""
    backend: Annotated[str, "Array library: numpy (CPU) or cupy (a CUDA GPU)."] = "numpy"
    precision: Annotated[
        str,
        "Operands of the matrix products in training: float32, or less exact and faster: tf32, bf16 or fp16 on a GPU, "
        "bf16 on a CPU that multiplies it.",
    ] = "float32"
    capture: Annotated[
        bool,
        "On a GPU, record a step for each of a few shapes of batches, to which all are padded, and replay it without "
        "Python. --no-capture needs less memory.",
    ] = True
    seed: Annotated[int, "Seed of all randomness; equal runs with equal seeds write equal bytes."] = 0
    steps: Annotated[int, "Number of steps after which training ends; 0: no such limit."] = 0
    epochs: Annotated[int, "Number of passes over the text after which training ends; 0: no such limit."] = 0
    batch_tokens: Annotated[int, "Maximum number of positions, including padding, on the longer side of a batch."] = 0
    batch_sentences: Annotated[int, "Number of sentences in a batch; replaces --batch-tokens."] = 0
    validate_every: Annotated[int, "Steps between validations; 0: at the end of each epoch."] = 0
    save_every: Annotated[int, "Steps between checkpoints; 0: at the end of each epoch."] = 0
    keep: Annotated[int, "How many of the newest checkpoints to keep."] = 3
    samples: Annotated[
        int,
        "Number of validation sentences whose translations are shown at each validation; of a language model, "
        "continuations.",
    ] = 3
    bleu_sentences: Annotated[int, "Number of sentences translated for BLEU at each validation; 0: no BLEU."] = 0
    bleu_tokenize: Annotated[
        BleuTokenize,
        "How BLEU splits text into words. auto: by the script of the translations, 13a if they have spaces; the "
        'run keeps what was chosen. "none" is for text whose words are already separated by spaces.',
    ] = "auto"
    best_by: Annotated[
        Literal["loss", "bleu"],
        "The measure by which a validation is the best: best.safetensors has its weights, --patience counts from it.",
    ] = "loss"
    feeding: Annotated[
        Literal["teacher-forcing", "free-running", "scheduled-sampling"],
        "What the decoder reads in training: the true words so far, its own predictions, or a mixture.",
    ] = "teacher-forcing"
    patience: Annotated[int, "Training ends after this many validations in a row without a new best; 0: no limit."] = 0
    tokenizer: Annotated[TokenizerConfig, "The subword models."] = field(default_factory=TokenizerConfig)
    model: Annotated[TransformerConfig | RecurrentConfig | LanguageConfig, "The model."] = field(
        default_factory=TransformerConfig
    )
    sampling: Annotated[SamplingConfig, "The mixture of true and predicted words."] = field(
        default_factory=SamplingConfig
    )
    optim: Annotated[OptimConfig, "The optimizer."] = field(default_factory=OptimConfig)


def model_keys(given: Mapping[str, Any]) -> Collection[str]:
    """Return the settings that a model has, whose kind is that in `given` or the default one.

    Errors: `UserError` for an unknown kind.
    """
    return settable(variant_of(settable(TrainConfig)["model"], given))
