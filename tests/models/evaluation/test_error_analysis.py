"""`evaluate --errors`: scores, alignment, kinds of error and words, compared with results by hand."""

from dataclasses import replace

import numpy as np
import pytest

import tensorlib as tl
from models.architectures.transformer import Transformer, TransformerConfig
from models.decoding.forced import force_decode
from models.decoding.settings import Search
from models.evaluation.error_analysis import Case, align, error_report, find_cases, repetition
from models.evaluation.metrics import sentence_log_probs
from models.evaluation.translator import Translator
from models.text.subwords import Tokenizer
from models.text.tokens import BOS, EOS

PAIRS = [("a b c", "c b a"), ("b", "b c"), ("a\x1b[31m", "a"), ("", "a"), ("c", ""), ("a", "b " * 40), ("c a", "a c")]


def case(**changes):
    """Return a case with a single wrong word."""
    facts = {"line": 1, "source": "s", "reference": "a b c d", "hypothesis": "a x c d"}
    scores = {"reference_log_prob": -4.0, "hypothesis_log_prob": -2.0, "reference_tokens": 4, "hypothesis_tokens": 4}
    return Case(**(facts | scores | {"unknown": 0} | changes))


@pytest.fixture(scope="module")
def model_and_tokenizer():
    tokenizer = Tokenizer.train(PAIRS * 3, vocabulary_size=280)
    config = TransformerConfig(tokenizer.source_size, tokenizer.target_size, 1, 16, 2, 16, max_length=30)
    model = Transformer(config, tl.Generator(3)).astype("float64").eval()
    model.output.weight.replace(model.output.weight.numpy() * 3)  # more confident than a new model
    return model, tokenizer


def test_log_probabilities_are_those_of_each_token_one_sentence_at_a_time(model_and_tokenizer):
    model, _ = model_and_tokenizer
    examples = [([5, 6, 7, EOS], [8, 9]), ([5, EOS], []), ([9, 8, EOS], [7, 7, 7, 7])]
    expected = []
    for source, target in examples:
        logits_TV = model(np.array([source]), np.array([[BOS, *target]])).numpy()[0]
        probs_TV = np.exp(logits_TV) / np.exp(logits_TV).sum(axis=1, keepdims=True)
        expected.append(sum(np.log(probs_TV[t, token]) for t, token in enumerate([*target, EOS])))
    np.testing.assert_allclose(sentence_log_probs(model, examples), expected, rtol=1e-9)
    assert sentence_log_probs(model, []) == []


def test_cases_are_the_wrong_ones_that_can_be_scored_the_largest_difference_first(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    texts, translator = [source for source, _ in PAIRS], Translator(model, tokenizer)
    sources = translator.encode(texts)
    hypotheses = [best for (best,) in translator.hypotheses(texts, sources)]
    (right,) = tokenizer.encode_target(["a c"])
    hypotheses[6] = replace(hypotheses[6], tokens=tuple(right))  # as if the model had translated this one correctly
    worst = int(model(np.array([sources[2]]), np.array([[BOS]])).numpy().argmin())
    (hypotheses[2],) = force_decode(model, [sources[2]], [(worst,) * 9])  # and this one as badly as possible
    examples = list(zip(sources, tokenizer.encode_target([reference for _, reference in PAIRS]), strict=True))
    cases, unscored = find_cases(translator, PAIRS, examples, hypotheses)
    assert sorted(found.line for found in cases) == [1, 2, 3] and unscored == 3  # two blank sides, one too long
    differences = [abs(found.difference) for found in cases]
    assert differences == sorted(differences, reverse=True) and len(set(differences)) == 3
    assert min(found.difference for found in cases[:-1]) < 0 < max(found.difference for found in cases)
    for found in cases:
        i = found.line - 1
        own, (reference,) = hypotheses[i], tokenizer.encode_target([PAIRS[i][1]])
        scores = [*sentence_log_probs(model, [(sources[i], reference)]), own.log_prob]
        assert [found.reference_log_prob, found.hypothesis_log_prob] == pytest.approx(scores, rel=1e-12)
        assert (found.reference_tokens, found.hypothesis_tokens) == (len(reference) + 1, len(own.tokens) + own.ended)
        assert found.hypothesis == tokenizer.decode_target(own.tokens)


def test_a_reference_that_no_search_may_reach_is_not_a_search_error(model_and_tokenizer):
    pair = ("a b c", "c b a")  # the reference is three subwords and </s>
    for most, count in ((3, 0), (4, 1)):
        translator = Translator(*model_and_tokenizer, search=Search(beam=1, max_length=most))
        sources = translator.encode([pair[0]])
        (found,) = translator.hypotheses([pair[0]], sources)
        targets = translator.tokenizer.encode_target([pair[1]])
        cases, unscored = find_cases(translator, [pair], [(sources[0], targets[0])], found)
        assert (len(cases), unscored) == (count, 1 - count)


def test_a_hypothesis_that_was_cut_has_the_score_it_was_cut_with(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    translator = Translator(model, tokenizer, search=Search(beam=1, max_length=4))
    sources = translator.encode(["a b c"])
    (cut,) = force_decode(model, sources, [(5, 6, 7, 8)], ended=[False])
    ((case,), _) = find_cases(
        translator, [("a b c", "c b a")], list(zip(sources, tokenizer.encode_target(["c b a"]), strict=True)), [cut]
    )
    assert (case.hypothesis_log_prob, case.hypothesis_tokens) == (cut.log_prob, 4)
    (nothing,) = force_decode(model, sources, [()], ended=[False])  # cut before its first token
    assert (nothing.log_prob, nothing.log_probs) == (0, ())


def test_the_kind_of_error_depends_on_the_sentence_and_the_rank_on_the_token():
    long = case(hypothesis_log_prob=-5.0, hypothesis_tokens=10)  # likelier per token, but not as a whole
    assert long.difference == pytest.approx(-0.5 + 1.0) and long.search_error
    assert not case().search_error and case().difference == pytest.approx(0.5)


def test_the_kind_of_error_depends_on_the_score_with_length_penalty():
    # By probability the reference wins, -4 against -4.2; divided by (10/6)^0.6 and (15/6)^0.6 the longer hypothesis.
    longer = {"reference_tokens": 5, "hypothesis_log_prob": -4.2, "hypothesis_tokens": 10}
    assert case(**longer).search_error and not case(**longer, alpha=0.6).search_error


def test_repetition_counts_pairs_of_words_that_occurred_before():
    assert repetition("the the the the") == pytest.approx(2 / 3)
    assert repetition("a b c") == repetition("a") == repetition("") == 0
    assert repetition("我我我") == pytest.approx(1 / 2)  # a character is a word where no spaces are
    assert case(hypothesis="a b a b a b").repeating and not case(hypothesis="a b a b", reference="c d c d").repeating


def test_equal_words_are_aligned():
    columns = [("a", "a", ""), ("b", "x", "S"), ("c", "", "D"), ("d", "d", ""), ("", "e", "I")]
    assert align("a b c d", "a x d e") == columns
    assert align("我有猫", "我有一只猫")[2:4] == [("", "一", "I"), ("", "只", "I")]
    assert align("", "") == []


def test_the_report_gives_the_numbers_and_shows_the_words():
    short = case(line=7, hypothesis="a", reference_log_prob=-1.0, unknown=2, source="s\x1b[31m\n")
    cases = [short, case(hypothesis="a b a b a b a b")]
    lines = list(error_report(cases, 1, sentences=9, unscored=3, width=80))
    summary = {line[2:16].strip(): int(line[16:23]) for line in lines[1:7]}
    assert lines[0].endswith("5 of 9 sentences differ from their reference; 3 of them blank or too long to score")
    assert list(summary) == ["search errors", "model errors", "too short", "too long", "repeating", "unknown"]
    assert list(summary.values()) == [1, 1, 1, 1, 1, 1]
    text = "\n".join(lines[7:])
    assert "line 7: search error, difference -0.250" in text and "length ratio 0.25" in text and "unknown 2" in text
    assert "source      s\\x1b[31m\\n" in text and "line 1:" not in text and "\x1b" not in text
    assert "  reference   a b c d\n  hypothesis  a\n                D D D" in text
    assert "log p       -1.00 / 4 = -0.250  reference" in text


def test_a_difference_in_spaces_alone_is_called_that():
    for hypothesis, called in (("a bcd", False), ("a b  c d", True)):
        text = "\n".join(error_report([case(hypothesis=hypothesis)], 1, 1, 0, width=80))
        assert ("only spaces differ" in text) == called


def test_long_and_wide_words_keep_their_columns():
    lines = list(error_report([case(reference="我有猫 " * 9, hypothesis="我有x猫 " * 9)], 1, 1, 0, width=40))
    rows = [line for line in lines if line.startswith(("  reference", "  hypothesis"))]
    assert len(rows) > 2 and all(len(row) + sum(char in "我有猫" for char in row) <= 40 for row in rows)
    assert rows[0].startswith("  reference   我 有   猫") and rows[1].startswith("  hypothesis  我 有 x 猫")


def test_only_terminals_get_colors(monkeypatch):
    for terminal, no_colour in ((True, False), (True, True), (False, False)):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal, raising=False)
        monkeypatch.setenv("NO_COLOR", "1") if no_colour else monkeypatch.delenv("NO_COLOR", raising=False)
        coloured = "\x1b[33mx\x1b[0m" in "\n".join(error_report([case()], 1, 1, 0, width=80))
        assert coloured == (terminal and not no_colour)
    monkeypatch.undo()
