"""`tensorlib evaluate`: scores of a trained model on text with reference translations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from models.architectures.language import LanguageModel
from models.cli.display import bar, note
from models.cli.options import BeamOptions, search_of
from models.decoding.settings import Search
from models.evaluation.checks import require_translator
from models.evaluation.error_analysis import error_report, find_cases
from models.evaluation.metrics import bleu_tokenizer, exact_match, scores, token_loss
from models.evaluation.text_model import TextLoss, stream_loss
from models.evaluation.translator import Translator
from models.runs.config import BleuTokenize
from models.runs.loading import Loaded, load_run
from models.system.errors import UserError
from models.system.files import require_replaceable
from models.system.numbers import shown_loss, shown_perplexity
from models.text.batching import Example
from models.text.corpora.phrasebook import phrasebook
from models.text.lines import Pair, read_lines, read_parallel, read_tsv
from models.text.size import utf8_length
from models.text.stream import encode_lines
from tensorlib.exchange.safetensors import write_atomically
from tensorlib.messages import plural

__all__ = ["evaluate"]

DEFAULT_ERRORS = 20  # number of sentences that --errors lists if it is given without one


def evaluate(
    *,
    source: Path | None = None,
    reference: Path | None = None,
    tsv: Path | None = None,
    text: Path | None = None,
    run: Path | None = None,
    options: BeamOptions | None = None,  # type: ignore[valid-type]
    tokenize: BleuTokenize | None = None,
    output: Path | None = None,
    errors: Annotated[int | bool, Parameter(negative="", show_default=False)] = False,
    backend: str = "numpy",
) -> int:
    """Measure BLEU and chrF (sacrebleu, with signatures), loss and perplexity on text with known translations.

    Of a language model, measure loss and perplexity on a text: --text.

    Args:
        source: a file of sentences, one on each line. [for a run on the phrasebook: its held-out test part]
        reference: a file with the translations of the sentences, line by line.
        tsv: one file instead of these two: on each line a sentence, a tab and its translation.
        text: for a run of a language model: a file of text.
        run: the run's directory, or one checkpoint in it. [the newest in runs/, its best weights]
        options: how translations are searched for.
        tokenize: how BLEU splits text into words; auto: by the script of the references, with 13a if they have spaces;
            "none" is for text whose words are already separated by spaces. [the run's --bleu-tokenize]
        output: a file to write the translations to, atomically.
        errors: list the N wrong translations that the model's score sets furthest apart from their reference, and say
            what went wrong. [N: 20]
        backend: numpy (CPU) or cupy (a CUDA GPU).
    """
    search = search_of(options)
    if errors < 0:
        raise UserError(f"evaluate --errors: a number of sentences, 0 or more, is required; got {errors}")
    if text:
        others: dict[str, object] = {"--source": source, "--reference": reference, "--tsv": tsv, "--output": output}
        others |= {"--tokenize": tokenize, "--errors": errors or None, "an option of beam search": options}
        return _evaluate_text(text, run, backend, [name for name, value in others.items() if value is not None])
    pairs = _read_pairs(source, reference, tsv, output)
    loaded = load_run(run, backend, note)
    require_translator(loaded.model, "evaluate")
    if pairs is None and loaded.config.data != "phrasebook":
        raise UserError(
            f"evaluate: --source and --reference, or --tsv, are required; the run of {loaded.path} has no test part"
        )
    pairs = phrasebook().test if pairs is None else pairs
    words = bleu_tokenizer(tokenize or loaded.config.bleu_tokenize, [target for _, target in pairs], "--tokenize")
    _evaluate_translations(loaded, pairs, search, words, output, errors)
    return 0


def _evaluate_translations(
    loaded: Loaded,
    pairs: Sequence[Pair],
    search: Search,
    words: tuple[BleuTokenize, str],
    output: Path | None,
    errors: int | bool,
) -> None:
    """Translate the sources, and write and print what the options of `evaluate` ask for."""
    texts, references = [source for source, _ in pairs], [reference for _, reference in pairs]
    cut: list[int] = []
    with bar("translating", len(pairs)) as progress:
        translator = Translator(loaded.model, loaded.tokenizer, cut.append, progress.update, search)
        sources, targets = translator.encode(texts), loaded.tokenizer.encode_target(references)
        found = [hypotheses[0] for hypotheses in translator.hypotheses(texts, sources)]
    examples = list(zip(sources, targets, strict=True))
    outputs = [translator.text(hypothesis) for hypothesis in found]
    if output:
        write_atomically(output, b"".join(line.encode() + b"\n" for line in outputs))
    _print_scores(loaded, references, outputs, words, examples, cut)
    if errors is not False:
        cases, unscored = find_cases(translator, pairs, examples, found)
        count = DEFAULT_ERRORS if errors is True else errors
        print("", *error_report(cases, count, len(pairs), unscored, words[0]), sep="\n")


def _evaluate_text(text: Path, run: Path | None, backend: str, others: Sequence[str]) -> int:
    """Print the loss of a language model on a text, and its perplexity. `others` are other options that are given."""
    if others:
        raise UserError(f"evaluate --text {text}: no option for translations is allowed; got {others[0]}; leave it out")
    lines = read_lines(text)
    loaded = load_run(run, backend, note)
    if not isinstance(loaded.model, LanguageModel):
        raise UserError(
            f"evaluate --text {text}: a language model is required; the run of {loaded.path} translates; use --source "
            "and --reference, or --tsv"
        )
    result = stream_loss(loaded.model, encode_lines(loaded.tokenizer.target, lines))
    _require_finite(result.loss, loaded)
    found = TextLoss(result.loss, result.tokens, utf8_length(lines))
    print(
        f"{loaded.path}: {plural(len(lines), 'line')}, {plural(found.bytes, 'byte')}, {plural(found.tokens, 'token')}"
    )
    print(f"loss        {shown_loss(found.loss)} nats per token")
    print(f"perplexity  {shown_perplexity(found.perplexity, 3)} per token")
    print(f"            {shown_perplexity(found.byte_perplexity, 4)} per byte ({found.bits_per_byte:.4f} bits)")
    return 0


def _require_finite(loss: float, loaded: Loaded) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"evaluate: a finite loss is required, got {loss}; the weights of {loaded.path} are spoilt, or far "
            "too large: use an earlier checkpoint"
        )


def _read_pairs(
    source: Path | None, reference: Path | None, tsv: Path | None, output: Path | None
) -> list[Pair] | None:
    """Return the text that the options name, or None if they name none.

    Raises `UserError` for options that don't fit together, and for an output that can't be written or would overwrite
    the text. Such an output would otherwise be noticed only after all the work.
    """
    if (source is None) != (reference is None):
        raise UserError("evaluate: --source and --reference are required together; got only one of them")
    if tsv and source:
        raise UserError(f"evaluate: text from one place is required; got --source and --tsv {tsv}; give one of them")
    if output:
        require_replaceable(output, "evaluate --output")
    pairs = read_parallel(source, reference, note) if source and reference else read_tsv(tsv, note) if tsv else None
    if output and output.exists() and any(text and output.samefile(text) for text in (source, reference, tsv)):
        raise UserError(f"evaluate --output {output}: a file other than the text is required; name another")
    return pairs


def _print_scores(
    loaded: Loaded,
    references: Sequence[str],
    outputs: Sequence[str],
    words: tuple[BleuTokenize, str],
    examples: Sequence[Example],
    cut: Sequence[int],
) -> None:
    """Print every measure. The loss covers only examples that fit the model; `cut` has the indices of long sources.

    words: how BLEU finds words, and why. Errors: `UserError` for a loss that is not finite.
    """
    longest = loaded.model.config.max_length
    longer = {*cut, *(i for i, (_, target) in enumerate(examples) if len(target) + 1 > longest)}
    result = token_loss(loaded.model, [example for i, example in enumerate(examples) if i not in longer])
    _require_finite(result.loss, loaded)
    score = scores(outputs, references, words[0])
    too_long = f", {len(cut):,} cut at {longest} subwords" if cut else ""
    print(f"{loaded.path}: {plural(len(references), 'sentence')}{too_long}")
    print(f"BLEU        {score.bleu:.2f}  {score.bleu_signature}")
    if words[1]:
        print(f"            {words[1].removeprefix('BLEU: ')}")
    print(f"chrF        {score.chrf:.2f}  {score.chrf_signature}")
    left_out = f", without {plural(len(longer), 'longer sentence')}" if longer else ""
    known = result.tokens > 0
    print(f"loss        {shown_loss(result.loss) if known else '-'} nats per subword, over {result.tokens:,}{left_out}")
    print(f"perplexity  {shown_perplexity(result.perplexity, 3) if known else '-'}")
    print(f"exact       {exact_match(outputs, references):.1%}")
