"""What other programs call our options, so that the error for an unknown option or key can name ours.

The names are those of fairseq, OpenNMT-py, Sockeye, JoeyNMT, Marian, Hugging Face and PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

__all__ = ["close_option", "our_fact", "our_key", "our_option"]

# By our option, what others call it, without dashes. "A | B": A, or B if the command has no A. Words may follow a name.
_OURS = {
    "--optim.learning-rate": (
        "lr learning-rate learn-rate initial-learning-rate init-lr lr-init base-lr max-lr peak-lr learning-rate-peak "
        "learning-rate-factor"
    ),
    "--optim.final-learning-rate": "min-lr lr-min stop-min-lr end-lr final-lr learning-rate-min",
    "--backend cupy": (
        "gpu gpus gpuid gpu-id gpu-ids gpu-ranks n-gpu ngpu use-gpu cuda use-cuda cuda-device device-id device-ids "
        "devices"
    ),
    "--backend numpy": "cpu use-cpu force-cpu no-cuda no-gpu",
    "--backend numpy or cupy": "device accelerator platform",
    "--batch-sentences N, or --batch-tokens N": (
        "bs batch batch-size mini-batch minibatch minibatch-size train-batch-size train-bs "
        "per-device-train-batch-size per-gpu-train-batch-size per-device-batch-size batch-type"
    ),
    "--batch-sentences": "max-sentences sentences-per-batch",
    "--batch-tokens": "max-tokens tokens-per-batch mini-batch-words batch-words",
    "--epochs": (
        "e epoch n-epochs nepochs num-epochs max-epoch max-epochs max-num-epochs num-train-epochs train-epochs "
        "after-epochs"
    ),
    "--steps": (
        "step nsteps num-steps max-steps train-steps total-steps num-train-steps max-train-steps max-update "
        "max-updates updates num-updates iterations iters max-iters max-iter after-batches"
    ),
    "--optim.name": "optimizer optim opt optimizer-type",
    "--optim.schedule": (
        "scheduler scheduling lr-scheduler lr-schedule lr-scheduler-type learning-rate-scheduler-type decay-method "
        "lr-decay learning-rate-decay"
    ),
    "--optim.warmup": (
        "warmup warm-up warmup-steps warmup-updates warmup-ratio num-warmup-steps lr-warmup learning-rate-warmup"
    ),
    "--optim.clip": (
        "clip clip-norm clip-grad clip-grad-norm clip-grad-val clip-gradient grad-clip grad-clip-norm grad-norm "
        "gradient-clip gradient-clip-val gradient-clipping gradient-clipping-threshold max-grad-norm max-norm"
    ),
    "--optim.weight-decay": "wd l2",
    "--optim.accumulate": (
        "accum accum-count grad-accum accumulation-steps gradient-accumulation gradient-accumulation-steps "
        "accumulate-grad-batches update-freq update-interval batch-multiplier optimizer-delay"
    ),
    "--optim.label-smoothing": "smoothing ls label-smoothing-factor",
    "--optim.betas": "betas adam-betas optimizer-betas beta1 beta2 adam-beta1 adam-beta2",
    "--optim.eps": "adam-eps adam-epsilon epsilon",
    "--optim.ema": "ema-decay average-decay exponential-smoothing",
    "--tokenizer.vocabulary": (
        "vocab vocab-size vocabulary n-vocab num-words nwordssrc nwordstgt src-vocab-size tgt-vocab-size voc-limit "
        "dim-vocabs num-merges num-operations bpe-operations bpe-size"
    ),
    "--tokenizer.shared": ("share-vocab share-vocabulary shared-vocab joined-dictionary joint-dictionary joint-vocab"),
    "--tokenizer.type": "bpe unigram spm sentencepiece tokenizer-type",
    "--tokenizer.dropout": "bpe-dropout spm-dropout subword-dropout",
    "--tokenizer.coverage": "character-coverage",
    "--model.width": (
        "d-model dim dim-emb model-dim model-size transformer-model-size hidden hidden-size hidden-dim hid-dim "
        "rnn-size embed-dim embedding-dim embedding-size emb-dim emb-size num-embed word-vec-size encoder-embed-dim "
        "decoder-embed-dim"
    ),
    "--model.heads": (
        "nhead n-head n-heads num-heads num-attention-heads attention-heads encoder-attention-heads "
        "decoder-attention-heads transformer-heads transformer-attention-heads"
    ),
    "--model.layers": (
        "n-layer n-layers nlayers num-layers depth enc-layers dec-layers enc-depth dec-depth encoder-layers "
        "decoder-layers num-encoder-layers num-decoder-layers"
    ),
    "--model.feed-forward": (
        "ffn ffn-dim d-ff d-ffn dff ff-dim ff-size pf-dim dim-feedforward intermediate-size transformer-ff "
        "transformer-dim-ffn transformer-feed-forward-num-hidden encoder-ffn-embed-dim decoder-ffn-embed-dim"
    ),
    "--model.norm pre or post": (
        "layer-norm layernorm norm-first pre-norm prenorm normalize-before encoder-normalize-before "
        "decoder-normalize-before transformer-preprocess transformer-postprocess"
    ),
    "--model.positions": "position-encoding positional-encoding",
    "--model.tie-embeddings": (
        "tie tied tie-weights weight-tying weight-tying-type tied-embeddings tied-embeddings-all tied-softmax "
        "share-embeddings share-all-embeddings share-decoder-embeddings share-decoder-input-output-embed"
    ),
    "--model.dropout": "drop dropout dropout-rate transformer-dropout transformer-dropout-prepost",
    "--model.attention-dropout": "attn-dropout transformer-dropout-attention",
    "--model.feed-forward-dropout": "activation-dropout relu-dropout transformer-dropout-act",
    "--model.embedding-dropout": "emb-dropout embed-dropout",
    "--max-length | --model.max-length": (
        "max-len max-seq-len max-seq-length seq-len max-input-length max-output-length max-source-length "
        "max-target-length max-source-positions max-target-positions src-seq-length tgt-seq-length max-new-tokens "
        "max-decoding-length max-len-a max-len-b generation-max-length"
    ),
    "--min-length": "min-len min-output-length min-decoding-length",
    "--train-source FILE and --train-target FILE, or --train-tsv FILE": (
        "train train-file train-data train-path train-sets dataset dataset-name data-path data-dir"
    ),
    "--valid-source FILE and --valid-target FILE, or --valid-tsv FILE": (
        "valid val dev validation valid-file val-file validation-file dev-file valid-data valid-sets"
    ),
    "--train-source FILE | --source FILE | --input FILE": "s src source train-src source-file trainpref",
    "--train-target FILE | --reference FILE": "tgt trg target train-tgt target-file",
    "--valid-source FILE": "val-src valid-src dev-src validation-source vs validpref",
    "--valid-target FILE": "val-tgt valid-tgt dev-tgt validation-target vt",
    "--reference FILE": "ref refs references reference-path",
    "--input FILE | --source FILE": "i in input input-file input-path file text test test-file test-src",
    "--out DIR | --output FILE": (
        "o output output-dir output-file output-path outdir out-dir destdir save-dir save-path save-model "
        "results-path name run-name"
    ),
    "--run DIR or FILE | --resume --out DIR": (
        "weights load-weights model models model-path model-name-or-path path checkpoint checkpoints ckpt ckpt-path m "
        "p params"
    ),
    "--run DIR or FILE | --out DIR": "model-dir",
    "--run DIR or FILE | --config FILE": "c",
    "--resume --out DIR | --run DIR or FILE": (
        "resume-from resume-from-checkpoint resume-training restore restore-file reload load load-model train-from "
        "continue"
    ),
    "--save-every": (
        "save-interval save-interval-updates save-steps save-freq save-strategy save-checkpoint-steps "
        "checkpoint-every checkpoint-interval"
    ),
    "--keep": (
        "keep-checkpoint keep-last-epochs keep-interval-updates keep-best-checkpoints keep-last-params "
        "keep-last-ckpts keep-best-ckpts save-total-limit max-checkpoints max-to-keep"
    ),
    "--validate-every": (
        "eval-every eval-steps eval-interval eval-freq eval-strategy evaluation-strategy valid-every valid-steps "
        "valid-freq validation-freq validate-interval validate-interval-updates val-every"
    ),
    "--bleu-sentences": "eval-bleu decode-and-evaluate predict-with-generate",
    "--tokenize | --bleu-tokenize": "tok tokenize eval-bleu-detok sacrebleu-tokenize",
    "--best-by": (
        "best-checkpoint-metric metric-for-best-model load-best-model-at-end early-stopping-metric "
        "early-stopping-criteria optimized-metric monitor eval-metric eval-metrics"
    ),
    "--samples": "eval-bleu-print-samples print-valid-sents n-samples",
    "--patience": "early-stop early-stopping early-stopping-patience max-num-checkpoint-not-improved",
    "--seed": "random-seed manual-seed rng-seed data-seed",
    "--beam": "beams beam-size num-beams beam-width generation-num-beams k",
    "--beam 1": "greedy",
    "--n-best": "nbest nbest-size num-return-sequences n",
    "--length-penalty": "lenpen alpha beam-alpha length-alpha length-penalty-alpha normalize",
    "--temperature | --train-target FILE": "t temp sampling-temp random-sampling-temp softmax-temperature",
    "--top-k": "topk sampling-topk random-sampling-topk",
    "--top-p": "topp nucleus sampling-topp random-sampling-topp",
    "--sample": "sampling do-sample",
    "--scores": "score score-path print-scores output-scores return-prob word-scores",
    "--attention FILE.html": (
        "alignment print-alignment report-align save-attention output-attentions attention-plot plot"
    ),
    "--batch-sentences N, or --batch-tokens N | --beam": "b",
}

# By the reason why there is no such option, the names of such options.
_FACTS = {
    "Everything is computed in float32, except products with --precision bf16, or tf32 or fp16 on a GPU.": (
        "fp16 bf16 tf32 amp apex-amp half half-precision float16 mixed-precision memory-efficient-fp16 dtype "
        "model-dtype"
    ),
    "The environment variable TENSORLIB_THREADS sets the number of threads.": (
        "threads num-threads n-threads cpu-threads"
    ),
    "There are no worker processes.": "workers num-workers dataloader-num-workers jobs j",
    "Only one device is used.": (
        "world-size distributed-world-size local-rank ddp-backend use-ddp multi-gpu distributed dist horovod deepspeed"
    ),
    "The languages are not named, only the files of their text.": (
        "source-lang target-lang src-lang tgt-lang lang langs lang-pair"
    ),
    "Progress is shown on standard error; a run's log.jsonl has all losses.": (
        "tensorboard tensorboard-logdir wandb report-to log-interval log-every log-file log-dir log-format log-level "
        "loglevel logging-dir logging-freq logging-steps logging-strategy report-every disp-freq print-every verbose "
        "v quiet q no-progress-bar disable-tqdm debug level"
    ),
    "Without a text or --input, each line that is typed is translated.": "interactive",
    "Text is read and written as it is; a run has its own subwords, learned from its text.": (
        "remove-bpe post-process detokenize lowercase lc pretokenizer tokenizer-name sentencepiece-model spm-model "
        "bpe-codes bpe tokenizer"
    ),
    "A run learns its subwords from its text.": ("srcdict tgtdict src-vocab tgt-vocab voc-file vocab-file vocabs"),
    "No word is unknown: characters without a subword are spelled in bytes.": (
        "replace-unk unk-replace unkpen strip-unknown-words generate-unk"
    ),
    "A run is never overwritten.": "overwrite overwrite-output overwrite-output-dir force f",
    "The text is shuffled anew in each epoch.": "shuffle",
    "Each is a command: train, evaluate, translate.": "do-train do-eval do-predict",
    "`tensorlib evaluate` measures on text to test with.": "testpref test test-file",
    "The model is a Transformer; the options that begin with --model set its size.": (
        "arch a task encoder decoder encoder-type decoder-type architecture"
    ),
    "The loss is the cross-entropy; --optim.label-smoothing smooths it.": "criterion loss",
    "BLEU and chrF are both measured.": "metric metrics sacrebleu bleu chrf scoring",
    "Sentences are grouped by their lengths.": (
        "batch-size bs batch per-device-eval-batch-size eval-batch-size max-tokens"
    ),
    "The translations are those of the run's model.": "hyp hypotheses predictions",
    "`tensorlib translate` has such options; validation translates greedily.": (
        "beam beams beam-size num-beams beam-alpha n-best nbest nbest-size sampling do-sample generation-num-beams "
        "temperature top-k topk top-p topp length-penalty lenpen min-length"
    ),
    "A new run begins with random weights; --resume continues a run on its own text.": (
        "finetune fine-tune finetuning finetune-from finetune-from-model finetune-on pretrained pretrained-model "
        "pretrained-weights from-pretrained init init-from init-model init-params init-checkpoint initialize-from "
        "init-weights initial-weights warm-start warm-start-from load-pretrained freeze"
    ),
}

# The same for a command that has --beam.
_FACTS_WITH_BEAM = {
    "`tensorlib translate` has such options; here the best translation of a beam search is scored (--beam).": (
        "n-best nbest nbest-size num-return-sequences sample sampling do-sample temperature temp top-k topk "
        "sampling-topk top-p topp sampling-topp nucleus seed min-length min-len scores"
    ),
}

_OURS_BY_NAME = {name: ours.split(" | ") for ours, names in _OURS.items() for name in names.split()}
_FACT_BY_NAME = {name: fact for fact, names in _FACTS.items() for name in names.split()}
_FACT_WITH_BEAM_BY_NAME = {name: fact for fact, names in _FACTS_WITH_BEAM.items() for name in names.split()}


def our_option(given: str, options: Collection[str]) -> str:
    """Return our option for the one that was given, as "--lr" or "--optim.lr=3", or "" if there is none.

    options: those of the called command, with their dashes.
    """
    for name in _names(given):
        for ours in _OURS_BY_NAME.get(name, []):
            if ours.split(" ")[0] in options:
                return ours
        for ours in _OURS_BY_NAME.get(name.removeprefix("no-"), []) if name.startswith("no-") else ():
            section, dot, last = ours.rpartition(".")
            if (opposite := f"{section}{dot}no-{last}") in options:
                return opposite
    return ""


def our_fact(given: str, options: Collection[str]) -> str:
    """Return a sentence that says why the command with these options lacks the given one, "" if there is none."""
    facts = _FACT_BY_NAME | (_FACT_WITH_BEAM_BY_NAME if "--beam" in options else {})
    return next((facts[name] for name in _names(given) if name in facts), "")


def close_option(given: str, options: Iterable[str]) -> str:
    """Return the option with the most similar name, its section counted or not; "" if none is similar."""
    full = {option.lstrip("-"): option for option in options}
    last = {name.rpartition(".")[2]: option for name, option in reversed(full.items())}
    names = last | full
    near = get_close_matches(_names(given)[0], names, 1, 0.75)
    return names[near[0]] if near else ""


def our_key(given: str, keys: Collection[str]) -> str:
    """Return the dotted key of a config that is meant by `given`, such as "lr" or "learning-rate", or ""."""
    options = {"--" + key.replace("_", "-"): key for key in sorted(keys)}
    return options.get(our_option(given, options).split(" ")[0] or close_option(given, options), "")


def _names(given: str) -> tuple[str, str]:
    """Return the name without dashes, and its last part; --no-model.bias is model.no-bias."""
    name = given.partition("=")[0].lstrip("-").replace("_", "-").lower()
    name = re.sub(r"^no-(.+\.)", r"\1no-", name)
    return name, name.rpartition(".")[2]
