"""The phrasebook: the guarantees of its split, and the agreement of its grammar."""

import os
import re
import subprocess
import sys
from collections import Counter
from hashlib import sha256

import pytest

from models.text.corpora import phrasebook_words as w
from models.text.corpora.phrasebook import phrasebook, sentences
from tests import ROOT

BOOK = phrasebook()
HELD_OUT = BOOK.valid + BOOK.test
ALL = BOOK.train + HELD_OUT
FINGERPRINT = (
    "from models.text.corpora.phrasebook import phrasebook; from hashlib import sha256;"
    "print(sha256(repr(phrasebook()).encode()).hexdigest())"
)


def words(en: str) -> list[str]:
    """Split English into word forms, case folded."""
    return re.findall(r"[\w']+", en.lower())


# ----------------------------------------------------------------------------------------- the split


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_is_the_same_in_every_process(hash_seed):
    """Two runs that train on the phrasebook must train on the same sentences in the same order."""
    root = ROOT
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    there = subprocess.run(
        [sys.executable, "-c", FINGERPRINT], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == sha256(repr(BOOK).encode()).hexdigest()


def test_sizes():
    """Tens of thousands of training pairs, and enough held out to measure a difference of one percent."""
    assert 30_000 <= len(BOOK.train) <= 45_000
    assert 400 <= len(BOOK.valid) <= 700
    assert 800 <= len(BOOK.test) <= 1300


def test_training_pairs_are_shuffled():
    """Neighbors in the file come from different frames, so any part of it is a fair sample."""
    asks = [zh.endswith("？") for zh, _ in BOOK.train]
    share = sum(asks) / len(asks)
    for start in range(0, len(asks) - 2000, 2000):
        assert abs(sum(asks[start : start + 2000]) / 2000 - share) < 0.06


def test_every_chinese_sentence_occurs_once():
    """Neither duplicates nor second translations: there is exactly one right answer."""
    repeated = [zh for zh, count in Counter(zh for zh, _ in ALL).items() if count > 1]
    assert repeated == []


@pytest.mark.parametrize("side", [0, 1], ids=["zh", "en"])
def test_parts_share_no_sentence(side):
    """Held-out sentences are unseen in both languages."""
    train, valid, test = ({pair[side] for pair in part} for part in (BOOK.train, BOOK.valid, BOOK.test))
    assert not train & valid
    assert not train & test
    assert not valid & test


def test_the_cat_is_held_out_with_its_near_copies():
    """The README's sentence is translated by composition, not from memory."""
    assert ("我有一只猫", "I have a cat") in BOOK.test
    trained = dict(BOOK.train)
    assert not [zh for zh in trained if re.fullmatch("我有(.只|几只|很多)猫", zh)]
    assert trained["他有一只猫"] == "He has a cat"
    assert trained["我有一只狗"] == "I have a dog"


def test_combinations_are_held_out_whole():
    """No combination of a frame and its words occurs on both sides of the split."""
    trained = {zh for zh, _ in BOOK.train}
    sides: dict[str, set[bool]] = {}
    for sentence in sentences():
        if sentence.combination:
            sides.setdefault(sentence.combination, set()).add(sentence.zh in trained)
    assert [combination for combination, seen in sides.items() if len(seen) > 1] == []


def test_every_word_of_the_held_out_part_is_trained_on():
    """Only combinations are new: every word form and character is trained on at least ten times."""
    english = Counter(word for _, en in BOOK.train for word in words(en))
    chinese = Counter(character for zh, _ in BOOK.train for character in zh)
    assert {word: english[word] for _, en in HELD_OUT for word in words(en) if english[word] < 10} == {}
    assert {character for zh, _ in HELD_OUT for character in zh if chinese[character] < 10} == set()


def test_every_frame_is_trained_on():
    """A frame that is held out is also trained on, at least eight times as often."""
    trained = {zh for zh, _ in BOOK.train}
    counts: dict[str, Counter] = {}
    for sentence in sentences():
        counts.setdefault(sentence.frame, Counter())[sentence.zh in trained] += 1
    assert [frame for frame, seen in counts.items() if seen[True] < 8 * max(seen[False], 1)] == []


def test_vocabulary_is_small():
    """A small model learns it in minutes only if there is little to learn."""
    assert len({word for _, en in ALL for word in words(en)}) < 500
    assert len({character for zh, _ in ALL for character in zh}) < 350
    assert max(len(words(en)) for _, en in ALL) <= 14


# ----------------------------------------------------------------------------------------- the spelling


def test_spelling():
    """Capital first, single spaces, no full stop; a question mark in both languages or in neither."""
    english = re.compile(r"[A-Z][A-Za-z']*(?: [A-Za-z']+)*\??")
    chinese = re.compile(r"[一-鿿]+？?")
    assert [en for _, en in ALL if not english.fullmatch(en)] == []
    assert [zh for zh, _ in ALL if not chinese.fullmatch(zh)] == []
    assert [pair for pair in ALL if pair[0].endswith("？") != pair[1].endswith("?")] == []


@pytest.mark.parametrize(
    "mistake",
    [
        r"\b[Aa] [aeio]",
        r"\b[Aa]n [^aeiou]",
        r"^(He|She|Tom|Anna|My (mother|father|grandmother)) (have|want|like|don't|are|were|go|wash)\b",
        r"\b(I|You|We|They|The children|The students) (has|wants|likes|doesn't|is|goes|washes)\b",
        r"\b(does|did|do|didn't|doesn't|don't|can|can't|will|won't) (\w+ )?(has|had|wants|goes|went|was)\b",
        r"\b(two|three|four|five|ten|few) (cat|dog|mouse|book|knife|child|woman|shoe|tea|cup)\b",
        r"(childs|mouses|mans\b|womans|sheeps|fishs|knifes|scarfs|potatos|tomatos|buyed|goed|eated)",
        r"\b(this|that) \w+s (is|are)\b",
        r"\b(these|those) \w+ is\b",
        r"\bthere is (two|three|four|five|ten|a few)\b",
        r"\b(teas|coffees|milks|waters|rices|breads|a shoes|a trousers)\b",
        r"[{}=|]",
    ],
)
def test_no_sentence_makes_the_mistake(mistake):
    """Search every sentence for mistakes that a rule with a missing exception would make."""
    assert [en for _, en in ALL if re.search(mistake, en)][:5] == []


# ----------------------------------------------------------------------------------------- the agreement

RULES = {
    w.plural: "cat cats, child children, mouse mice, sheep sheep, fish fish, knife knives, box boxes,"
    "watch watches, strawberry strawberries, key keys, potato potatoes, dictionary dictionaries, woman women",
    w.third_person: "have has, do does, go goes, watch watches, wash washes, study studies, fix fixes",
    w.past: "buy bought, see saw, eat ate, go went, study studied, play played, dance danced, draw drew",
    w.gerund: "swim swimming, run running, write writing, see seeing, study studying, draw drawing",
    w.comparative: "big bigger, busy busier, tall taller, cute cuter, hot hotter, old older, smart smarter",
}


@pytest.mark.parametrize(
    ("rule", "word", "form"),
    [(rule, *entry.split()) for rule, table in RULES.items() for entry in table.split(",")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_inflection(rule, word, form):
    """One row for each rule of English and for each kind of exception to it."""
    assert rule(word) == form


def test_inflection_of_phrases():
    """Verb phrases inflect their first word, nouns their last; the article depends on an adjective's sound."""
    assert w.past("go home") == "went home"
    assert w.third_person("watch TV") == "watches TV"
    assert w.gerund("ride a horse") == "riding a horse"
    assert w.plural("older sister") == "older sisters"
    assert w.comparative("expensive") == "more expensive"
    assert [w.with_article(x) for x in ("old book", "useful book", "umbrella")] == [
        "an old book",
        "a useful book",
        "an umbrella",
    ]


TRANSLATIONS = {
    "他有两只老鼠": "He has two mice",
    "孩子们有三把刀": "The children have three knives",
    "汤姆没有雨伞": "Tom doesn't have an umbrella",
    "他们没有孩子": "They don't have any children",
    "我妈妈有几双鞋": "My mother has a few pairs of shoes",
    "安娜经常刷牙": "Anna often brushes her teeth",
    "他们正在洗脚": "They are washing their feet",
    "我正在唱歌": "I am singing",
    "她昨天游泳了": "She swam yesterday",
    "我们明天会跑步": "We will run tomorrow",
    "她每天都游泳": "She swims every day",
    "他不是工程师": "He isn't an engineer",
    "她们是演员": "They are actors",
    "她会弹钢琴吗？": "Can she play the piano?",
    "你在哪里？": "Where are you?",
    "他为什么不喜欢鱼？": "Why doesn't he like fish?",
    "她喜欢茶吗？": "Does she like tea?",
    "我昨天很累": "I was very tired yesterday",
    "这杯茶很热": "This cup of tea is very hot",
}


def test_translations():
    """A table of agreement problems in any part of the phrasebook; a few may not be sampled."""
    pairs = dict(ALL)
    wrong = {zh: pairs.get(zh) for zh, en in TRANSLATIONS.items() if pairs.get(zh) not in (en, None)}
    assert wrong == {}
    assert len(TRANSLATIONS.keys() & pairs.keys()) >= len(TRANSLATIONS) - 3
