"""How BLEU splits text into words is chosen by the script of the references, and said."""

import pytest

from models.evaluation import metrics
from models.evaluation.metrics import bleu_tokenizer, scores
from models.system.errors import UserError

REFERENCES = {
    "English": ["I have a cat.", "He reads a book."],
    "Chinese": ["我有一只猫。", "他在看书。"],
    "Japanese": ["私は猫を飼っています。", "彼は本を読む。"],
    "Korean": ["저는 고양이가 있어요.", "그는 책을 읽는다."],
    "Thai": ["ฉันมีแมว", "เขาอ่านหนังสือ"],
}


@pytest.mark.parametrize(
    "language, with_mecab, without",
    [
        ("English", "13a", "13a"),
        ("Chinese", "zh", "zh"),
        ("Japanese", "ja-mecab", "char"),
        ("Korean", "ko-mecab", "char"),
        ("Thai", "char", "char"),
    ],
)
def test_the_script_of_the_references_chooses(language, with_mecab, without, monkeypatch):
    for installed, expected in ((True, with_mecab), (False, without)):
        monkeypatch.setattr(metrics, "_is_installed", lambda name, ok=installed: ok or not name.endswith("mecab"))
        chosen, reason = bleu_tokenizer("auto", REFERENCES[language], "--tokenize")
        assert chosen == expected
        if language == "English":
            assert reason == ""
        else:
            said = f"BLEU: words found by {expected}, because the references are in {language}"
            assert reason.startswith(said) and ("pip install sacrebleu[" in reason) == (with_mecab != expected)


def test_what_is_asked_for_is_used_and_a_misfit_is_said():
    for asked in ("13a", "none", "intl", "char", "zh"):
        assert bleu_tokenizer(asked, REFERENCES["English"], "--tokenize") == (asked, "")
        assert bleu_tokenizer(asked, REFERENCES["Korean"], "--tokenize") == (asked, "")
        chosen, reason = bleu_tokenizer(asked, REFERENCES["Chinese"], "--bleu-tokenize")
        misfit = f"BLEU: --bleu-tokenize {asked} looks for words between spaces, which text in Chinese lacks"
        assert (chosen, reason.partition(";")[0]) == (asked, misfit if asked in ("13a", "intl") else "")
        assert reason == "" or reason.endswith("use --bleu-tokenize zh")


def test_a_tokenizer_without_its_package_is_refused_with_the_package(monkeypatch):
    monkeypatch.setattr(metrics, "_is_installed", lambda name: not name.endswith("mecab"))
    with pytest.raises(UserError, match=r'--tokenize ja-mecab: MeCab.*pip install "sacrebleu\[ja\]", or use'):
        bleu_tokenizer("ja-mecab", REFERENCES["Japanese"], "--tokenize")


def test_a_package_that_is_missing_is_noticed(monkeypatch):
    from sacrebleu.tokenizers import tokenizer_ja_mecab

    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    assert metrics._is_installed("char") and not metrics._is_installed("ja-mecab")


@pytest.mark.parametrize("language", ["Chinese", "Thai"])
def test_a_nearly_right_translation_has_a_score_where_13a_gives_none(language):
    references = REFERENCES[language]
    outputs = [f"{reference}{reference[:3]}" for reference in references]
    assert scores(outputs, references, "13a").bleu == 0.0
    auto = scores(outputs, references, "auto")
    assert auto.bleu > 30 and f"|tok:{bleu_tokenizer('auto', references, '')[0]}|" in auto.bleu_signature


def test_english_keeps_its_score():
    outputs = ["I have a cat!", "He read a book."]
    assert scores(outputs, REFERENCES["English"], "auto") == scores(outputs, REFERENCES["English"], "13a")
