"""The built-in phrasebook: a small grammar that says everyday things in Chinese and in English.

Each function below is one family of frames.  A frame is a sentence with gaps: `{subject}有{thing}` beside
`{subject} {has} {thing}`; the words come from `phrasebook_words`, and so does the English agreement that Chinese
leaves unsaid.  Every Chinese sentence has exactly one English translation.

The held-out part asks for compositional generalisation.  A sentence has a *combination*, its frame and the content
words that fill it, numbers and time words left out: (have, I, cat).  Some combinations are held out whole, so that
我有一只猫 is never trained on, nor is 我有两只猫, while 他有一只猫 and 我有一只狗 are.  No word is ever held out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import permutations, product
from typing import NamedTuple

from models import phrasebook_words as w

SALT = "tensorlib phrasebook 0"  # chosen so that 我有一只猫 is in the test part
HELD_OUT = 0.04  # share of the combinations
VALID = 1 / 3  # share of the held-out combinations that go to `valid`, the others go to `test`
FRAME_SIZE = (
    550  # a frame with more sentences keeps a sample of this size, so that no frame drowns the others
)
SMALL_FRAME = 50  # a frame with fewer has none to spare: it is trained on whole
LARGE_FRAMES = {"have": 5000, "do to": 3500, "activity": 2500}

ONE = w.AMOUNTS[0]
OTHERS = w.SUBJECTS[1:]  # whom one asks about: everyone but oneself
OWNED = w.nouns("pet farm print paper tool furniture vehicle clothes accessory person")
TOO = {
    "big",
    "small",
    "old",
    "expensive",
    "hot",
    "busy",
    "tired",
}  # 太…了 means "so" with praise, "too" with these
CARRIED = w.nouns("pet print paper tool clothes accessory fruit")  # what lies about on tables


class Sentence(NamedTuple):
    """A pair with the frame that it is made of and the combination that is trained on or held out as a whole."""

    frame: str
    combination: str
    zh: str
    en: str


def say(frame: str, *words: object, zh: str, en: str) -> Sentence:
    """Finish a sentence: a capital letter, and the question mark if the Chinese has one."""
    ending = "?" if zh.endswith("？") else ""
    return Sentence(frame, "|".join([frame, *map(str, words)]), zh, en[0].upper() + en[1:] + ending)


# ------------------------------------------------------------------------------------------------ having and being


def having() -> Iterator[Sentence]:
    """我有一只猫 I have a cat: number, measure word, a/an, have/has."""
    for s, n in product(w.SUBJECTS, OWNED):
        if n.kind == "person" and s.en in {"the children", "the students"}:
            continue
        for amount in w.FEW_AMOUNTS if n.kind == "person" else w.AMOUNTS:
            thing = n.counted(amount)
            yield say("have", s, n, zh=f"{s.zh}有{thing.zh}", en=f"{s} {s.does('have')} {thing}")
        yield say("have not", s, n, zh=f"{s.zh}没有{n.zh}", en=f"{s} {s.do}n't have {n.any}")
        for adjective in w.ATTRIBUTES.get(n.kind, ()):
            thing = n.counted(ONE, adjective)
            yield say("have such", s, n, zh=f"{s.zh}有{thing.zh}", en=f"{s} {s.does('have')} {thing}")
    for s, n in product(OTHERS, OWNED):
        yield say("have?", s, n, zh=f"{s.zh}有{n.zh}吗？", en=f"{s.do} {s} have {n.any}")
        yield say(
            "have how many?",
            s,
            n,
            zh=f"{s.zh}有几{n.measure}{n.zh}？",
            en=f"how many {n.units} {s.do} {s} have",
        )
    for n in OWNED:
        yield say("who has?", n, zh=f"谁有{n.zh}？", en=f"who has {n.any}")


def professions() -> Iterator[Sentence]:
    """她是医生 She is a doctor, 他们不是医生 They aren't doctors; 想当 want to be."""
    for s, job in product(w.SUBJECTS, w.JOBS):
        many = s.en in {"we", "they"} or s.zh.endswith("们")
        title = w.plural(job.en) if many else w.with_article(job.en)
        yield say("be", s, job, zh=f"{s.zh}是{job.zh}", en=f"{s} {s.be} {title}")
        yield say("be not", s, job, zh=f"{s.zh}不是{job.zh}", en=f"{s} {s.is_not} {title}")
        yield say("want to be", s, job, zh=f"{s.zh}想当{job.zh}", en=f"{s} {s.does('want')} to be {title}")
        if s in OTHERS:
            yield say("be?", s, job, zh=f"{s.zh}是{job.zh}吗？", en=f"{s.be} {s} {title}")


def belonging() -> Iterator[Sentence]:
    """这是我的书 This is my book, 那把雨伞是她的 That umbrella is hers: possessives, this/these."""
    for s, n in product(w.SUBJECTS, w.nouns("pet print paper tool furniture vehicle clothes accessory")):
        pair = n.unit == "pair"
        this, that, be = ("these", "those", "are") if pair else ("this", "that", "is")
        for zh, en in (("这", this), ("那", that)):
            yield say("this is mine", s, n, zh=f"{zh}是{s.zh}的{n.zh}", en=f"{en} {be} {s.possessive} {n}")
            whose = f"{en} {n.one} is {s.pronoun}"
            yield say("this one is mine", s, n, zh=f"{zh}{n.measure}{n.zh}是{s.zh}的", en=whose)
            denied = f"{en} {be}n't {s.possessive} {n}"
            yield say("this is not mine", s, n, zh=f"{zh}不是{s.zh}的{n.zh}", en=denied)
        for zh, en in (("这些", "these"), ("那些", "those")):
            yield say(
                "these are mine", s, n, zh=f"{zh}{n.zh}是{s.zh}的", en=f"{en} {n.in_general} are {s.pronoun}"
            )
            denied = f"{en} {n.in_general} aren't {s.pronoun}"
            yield say("these are not mine", s, n, zh=f"{zh}{n.zh}不是{s.zh}的", en=denied)
        yield say("where is mine?", s, n, zh=f"{s.zh}的{n.zh}在哪里？", en=f"where {be} {s.possessive} {n}")


def relations() -> Iterator[Sentence]:
    """他是我的老师 He is my teacher, 她们是安娜的朋友 They are Anna's friends."""
    for s, owner in others_in_pairs():
        for relation in w.RELATIONS:
            many = s.en in {"we", "they"} or s.zh.endswith("们")
            role = w.plural(relation.en) if many else relation.en
            zh = f"{s.zh}是{owner.zh}的{relation.zh}"
            yield say("be someone's", s, relation, owner, zh=zh, en=f"{s} {s.be} {owner.possessive} {role}")


def others_in_pairs() -> Iterator[tuple[w.Subject, w.Subject]]:
    """Two different people or groups; I and we, or they and they, would be the same."""
    groups = {"we": "I", "the children": "they", "the students": "they"}
    for first, second in permutations(w.SUBJECTS, 2):
        if groups.get(first.en, first.en) != groups.get(second.en, second.en):
            yield first, second


# ----------------------------------------------------------------------------------------------------------- places


def whereabouts() -> Iterator[Sentence]:
    """她昨天在家 She was at home yesterday: am/is/are, was/were, will be, and where."""
    for s, place in product(w.SUBJECTS, w.PLACES):
        yield say("be at", s, place, zh=f"{s.zh}现在在{place.zh}", en=f"{s} {s.be} {place} now")
        yield say("be not at", s, place, zh=f"{s.zh}现在不在{place.zh}", en=f"{s} {s.is_not} {place} now")
        for t in w.TIMES:
            if t.tense == "past":
                yield say(
                    "was at", s, place, zh=f"{s.zh}{t.zh}在{place.zh}", en=f"{s} {s.was} {place} {t.en}"
                )
                yield say(
                    "was not at",
                    s,
                    place,
                    zh=f"{s.zh}{t.zh}不在{place.zh}",
                    en=f"{s} {s.was}n't {place} {t.en}",
                )
            elif t.tense == "future":
                yield say(
                    "will be at", s, place, zh=f"{s.zh}{t.zh}会在{place.zh}", en=f"{s} will be {place} {t.en}"
                )
        if s in OTHERS:
            yield say("be at?", s, place, zh=f"{s.zh}现在在{place.zh}吗？", en=f"{s.be} {s} {place} now")
    for s in OTHERS:
        yield say("where?", s, zh=f"{s.zh}在哪里？", en=f"where {s.be} {s}")
        yield say("where then?", s, zh=f"{s.zh}昨天在哪里？", en=f"where {s.was} {s} yesterday")
    for place in w.PLACES:
        yield say("who is at?", place, zh=f"谁在{place.zh}？", en=f"who is {place}")


def existence() -> Iterator[Sentence]:
    """桌子上有三本书 There are three books on the table; is there any, there isn't any, how many are there."""
    scenes = [
        *product(CARRIED, w.SPOTS),
        *product(w.nouns("drink dish"), w.SPOTS[:1]),
        *product(w.nouns("people pet"), w.AREAS),
    ]
    for n, spot in scenes:
        for amount in w.AMOUNTS:
            thing = n.counted(amount)
            be = "is" if amount is ONE or (n.mass and amount.zh == "很多") else "are"
            frame = "there is someone" if n.kind == "people" else "there is"
            yield say(frame, n, spot, zh=f"{spot.zh}有{thing.zh}", en=f"there {be} {thing} {spot}")
        be = "is" if n.mass else "are"
        general = n.in_general
        yield say("there is no", n, spot, zh=f"{spot.zh}没有{n.zh}", en=f"there {be}n't any {general} {spot}")
        yield say("is there?", n, spot, zh=f"{spot.zh}有{n.zh}吗？", en=f"{be} there any {general} {spot}")
        how_many = f"how many {n.units} are there {spot}"
        yield say("how many?", n, spot, zh=f"{spot.zh}有几{n.measure}{n.zh}？", en=how_many)
    for s, (n, spot) in product(w.SUBJECTS, product(CARRIED, w.SPOTS)):
        mine = f"{s.possessive} {n} {n.bare_be} {spot}"
        yield say("mine is on", s, n, spot, zh=f"{s.zh}的{n.zh}在{spot.zh}", en=mine)
    for spot in (*w.SPOTS, *w.AREAS):
        yield say("what is on?", spot, zh=f"{spot.zh}有什么？", en=f"what is {spot}")


# ------------------------------------------------------------------------------------------------- doing, in all tenses


def finite(s: w.Subject, verb: str, tense: str) -> str:
    """Put a verb phrase into a tense: swam, will swim, swims."""
    return (
        s.say({"past": w.past(verb), "future": "will " + verb}[tense]) if tense != "habit" else s.does(verb)
    )


def finite_zh(verb: str, rest: str, tense: str) -> str:
    """Mark the tense as Chinese does: 喝了茶 for the w.past, 会喝茶 for the future, 都喝茶 after every day."""
    return {"past": f"{verb}了{rest}", "future": f"会{verb}{rest}", "habit": f"都{verb}{rest}"}[tense]


def activities() -> Iterator[Sentence]:
    """孩子们昨天游泳了 The children swam yesterday: tense by time word, do-support in questions and negations."""
    for s, a, t in product(w.SUBJECTS, (*w.ACTIVITIES, *w.WASHING), w.TIMES):
        if a in w.WASHING and t.tense != "habit":
            continue
        yield say(
            "activity",
            s,
            a,
            zh=f"{s.zh}{t.zh}{finite_zh(a.zh, '', t.tense)}",
            en=f"{s} {finite(s, a.en, t.tense)} {t.en}",
        )
    for s, a, t in product(w.SUBJECTS, w.ACTIVITIES, w.TIMES):
        base = s.say(a.en)
        not_zh, did_not = {"past": ("没", "didn't"), "future": ("不会", "won't"), "habit": ("", "")}[t.tense]
        if not_zh:
            yield say(
                "not activity", s, a, zh=f"{s.zh}{t.zh}{not_zh}{a.zh}", en=f"{s} {did_not} {base} {t.en}"
            )
        did, ma = {"past": ("did", "了吗"), "future": ("will", "吗"), "habit": (s.do, "吗")}[t.tense]
        will_zh = {"past": "", "future": "会", "habit": "都"}[t.tense]
        if s in OTHERS:
            yield say(
                "activity?", s, a, zh=f"{s.zh}{t.zh}{will_zh}{a.zh}{ma}？", en=f"{did} {s} {base} {t.en}"
            )


def moods() -> Iterator[Sentence]:
    """正在 is doing, 经常 often, 从来不 never, 喜欢 like, 想 want to; and their negations and questions."""
    for s, a in product(w.SUBJECTS, (*w.ACTIVITIES, *w.WASHING)):
        base, doing = s.say(a.en), s.say(w.gerund(a.en))
        yield say("is doing", s, a, zh=f"{s.zh}正在{a.zh}", en=f"{s} {s.be} {doing}")
        yield say("is not doing", s, a, zh=f"{s.zh}没在{a.zh}", en=f"{s} {s.is_not} {doing}")
        yield say("likes doing", s, a, zh=f"{s.zh}喜欢{a.zh}", en=f"{s} {s.does('like')} {doing}")
        yield say("does not like doing", s, a, zh=f"{s.zh}不喜欢{a.zh}", en=f"{s} {s.do}n't like {doing}")
        yield say("wants to", s, a, zh=f"{s.zh}想{a.zh}", en=f"{s} {s.does('want')} to {base}")
        yield say("does not want to", s, a, zh=f"{s.zh}不想{a.zh}", en=f"{s} {s.do}n't want to {base}")
        yield say("often", s, a, zh=f"{s.zh}经常{a.zh}", en=f"{s} often {s.does(a.en)}")
        yield say("never", s, a, zh=f"{s.zh}从来不{a.zh}", en=f"{s} never {s.does(a.en)}")
        if s in OTHERS:
            yield say("is doing?", s, a, zh=f"{s.zh}在{a.zh}吗？", en=f"{s.be} {s} {doing}")
            yield say("likes doing?", s, a, zh=f"{s.zh}喜欢{a.zh}吗？", en=f"{s.do} {s} like {doing}")
            yield say("wants to?", s, a, zh=f"{s.zh}想{a.zh}吗？", en=f"{s.do} {s} want to {base}")
    for s, (venue, acts) in product(w.SUBJECTS, w.VENUES):
        for a in (a for a in w.ACTIVITIES if a.zh in acts.split()):
            doing = s.say(w.gerund(a.en))
            yield say(
                "is doing at", s, a, venue, zh=f"{s.zh}正在{venue.zh}{a.zh}", en=f"{s} {s.be} {doing} {venue}"
            )
            often = f"{s} often {s.does(a.en)} {venue}"
            yield say("often at", s, a, venue, zh=f"{s.zh}经常在{venue.zh}{a.zh}", en=often)
    for s, skill in product(w.SUBJECTS, w.SKILLS):
        yield say("can", s, skill, zh=f"{s.zh}会{skill.zh}", en=f"{s} can {skill}")
        yield say("can not", s, skill, zh=f"{s.zh}不会{skill.zh}", en=f"{s} can't {skill}")
        if s in OTHERS:
            yield say("can?", s, skill, zh=f"{s.zh}会{skill.zh}吗？", en=f"can {s} {skill}")


def company() -> Iterator[Sentence]:
    """我昨天和她一起游泳了 I swam with her yesterday: the objective case."""
    together = [a for a in w.ACTIVITIES if "own" not in a.en]
    for (s, other), a, t in product(others_in_pairs(), together, (w.YESTERDAY, w.TOMORROW, w.EVERY_DAY)):
        will_zh = {"past": "", "future": "会", "habit": "都"}[t.tense]
        le = "了" if t is w.YESTERDAY else ""
        zh = f"{s.zh}{t.zh}{will_zh}和{other.zh}一起{a.zh}{le}"
        yield say("with", s, other, a, zh=zh, en=f"{s} {finite(s, a.en, t.tense)} with {other.object} {t.en}")


def comings_and_goings() -> Iterator[Sentence]:
    """他每天七点起床 He gets up at seven every day, 我明天坐火车去北京 I will go to Beijing by train tomorrow."""
    for s, a, hour, t in product(w.SUBJECTS, w.ROUTINES, w.HOURS, (w.YESTERDAY, w.TOMORROW, w.EVERY_DAY)):
        mark = {"past": "", "future": "会", "habit": "都"}[t.tense]
        zh = f"{s.zh}{t.zh}{mark}{hour.zh}点{a.zh}"
        yield say("at", s, a, hour, zh=zh, en=f"{s} {finite(s, a.en, t.tense)} at {hour} {t.en}")
    for s, by, place, t in product(
        w.SUBJECTS, w.TRANSPORT, w.PLACES[1:], (w.YESTERDAY, w.TOMORROW, w.EVERY_DAY)
    ):
        go = {"past": "去了", "future": "去", "habit": "去"}[t.tense]
        mark = {"past": "", "future": "会", "habit": "都"}[t.tense]
        to = "to " + place.en.partition(" ")[2]
        far = place.zh == "北京"
        if (not far or (by.zh == "坐火车" and t is not w.EVERY_DAY)) and (by.zh, place.zh) != (
            "坐火车",
            "火车站",
        ):
            zh = f"{s.zh}{t.zh}{mark}{by.zh}{go}{place.zh}"
            yield say("go", s, by, place, zh=zh, en=f"{s} {finite(s, 'go', t.tense)} {to} {by} {t.en}")
    for s, a in product(OTHERS, w.ROUTINES):
        yield say("when?", s, a, zh=f"{s.zh}明天几点{a.zh}？", en=f"what time will {s} {a} tomorrow")
        yield say(
            "when usually?", s, a, zh=f"{s.zh}每天几点{a.zh}？", en=f"what time {s.do} {s} {a} every day"
        )


def doing_to() -> Iterator[Sentence]:
    """她昨天买了两本书 She bought two books yesterday: a verb, its object and how many of it, in every tense."""
    for s, v, n in transitive():
        for t, amount in product((w.YESTERDAY, w.TOMORROW, w.EVERY_DAY), w.FEW_AMOUNTS):
            if t.tense in v.uses:
                thing = n.counted(amount)
                zh = f"{s.zh}{t.zh}{finite_zh(v.zh, thing.zh, t.tense)}"
                yield say("do to", s, v, n, zh=zh, en=f"{s} {finite(s, v.en, t.tense)} {thing} {t.en}")
        thing = n.counted(ONE)
        if "now" in v.uses:
            yield say(
                "is doing to",
                s,
                v,
                n,
                zh=f"{s.zh}正在{v.zh}{thing.zh}",
                en=f"{s} {s.be} {w.gerund(v.en)} {thing}",
            )
        if "want" in v.uses:
            yield say(
                "wants to do to",
                s,
                v,
                n,
                zh=f"{s.zh}想{v.zh}{thing.zh}",
                en=f"{s} {s.does('want')} to {v} {thing}",
            )
        if "bare" in v.uses:
            yield say(
                "did not", s, v, n, zh=f"{s.zh}昨天没{v.zh}{n.zh}", en=f"{s} didn't {v} {n.any} yesterday"
            )
            yield say(
                "does not want",
                s,
                v,
                n,
                zh=f"{s.zh}不想{v.zh}{n.zh}",
                en=f"{s} {s.do}n't want to {v} {n.any}",
            )
            if s in OTHERS:
                yield say(
                    "did?", s, v, n, zh=f"{s.zh}昨天{v.zh}{n.zh}了吗？", en=f"did {s} {v} {n.any} yesterday"
                )
                yield say(
                    "wants?", s, v, n, zh=f"{s.zh}想{v.zh}{n.zh}吗？", en=f"{s.do} {s} want to {v} {n.any}"
                )


def transitive() -> Iterator[tuple[w.Subject, w.Verb, w.Noun]]:
    """Every subject with every verb and every object that the verb takes."""
    for s, v, n in product(w.SUBJECTS, w.VERBS, w.NOUNS):
        if v.takes(n):
            yield s, v, n


def asking() -> Iterator[Sentence]:
    """他昨天买了什么？ What did he buy yesterday?  谁, 什么, 为什么, 在做什么."""
    for s, v in product(OTHERS, w.VERBS):
        yield say("what did?", s, v, zh=f"{s.zh}昨天{v.zh}了什么？", en=f"what did {s} {v} yesterday")
        if "want" in v.uses:
            yield say("what wants?", s, v, zh=f"{s.zh}想{v.zh}什么？", en=f"what {s.do} {s} want to {v}")
    for s in OTHERS:
        yield say("what is doing?", s, zh=f"{s.zh}正在做什么？", en=f"what {s.be} {s} doing")
        for feeling in w.FEELINGS:
            yield say(
                "why so?", s, feeling, zh=f"{s.zh}为什么这么{feeling.zh}？", en=f"why {s.be} {s} so {feeling}"
            )
    for v, n, amount in product(w.VERBS, w.NOUNS, w.FEW_AMOUNTS):
        if v.takes(n):
            thing = n.counted(amount)
            yield say(
                "who did?", v, n, zh=f"谁昨天{v.zh}了{thing.zh}？", en=f"who {w.past(v.en)} {thing} yesterday"
            )
    for a in w.ACTIVITIES[:-1]:
        yield say("who wants?", a, zh=f"谁想{a.zh}？", en=f"who wants to {a}")
        yield say("let us", a, zh=f"我们一起{a.zh}吧", en=f"let's {a} together")


def liking() -> Iterator[Sentence]:
    """她不喜欢猫 She doesn't like cats: the bare plural of things in general, and two of them at once."""
    liked = w.nouns("pet farm fruit dish drink")
    for s, n in product(w.SUBJECTS, liked):
        yield say("like", s, n, zh=f"{s.zh}喜欢{n.zh}", en=f"{s} {s.does('like')} {n.in_general}")
        yield say("not like", s, n, zh=f"{s.zh}不喜欢{n.zh}", en=f"{s} {s.do}n't like {n.in_general}")
        yield say("also like", s, n, zh=f"{s.zh}也喜欢{n.zh}", en=f"{s} also {s.does('like')} {n.in_general}")
        if s in OTHERS:
            yield say("like?", s, n, zh=f"{s.zh}喜欢{n.zh}吗？", en=f"{s.do} {s} like {n.in_general}")
            why = f"why {s.do} {s} like {n.in_general}"
            yield say("why like?", s, n, zh=f"{s.zh}为什么喜欢{n.zh}？", en=why)
            why_not = f"why {s.do}n't {s} like {n.in_general}"
            yield say("why not like?", s, n, zh=f"{s.zh}为什么不喜欢{n.zh}？", en=why_not)
    for s, (n, m) in product(w.SUBJECTS, permutations(liked, 2)):
        if n.kind == m.kind:
            both = f"{s} {s.does('like')} {n.in_general} and {m.in_general}"
            yield say("like both", s, n, m, zh=f"{s.zh}喜欢{n.zh}和{m.zh}", en=both)


def giving_and_wearing() -> Iterator[Sentence]:
    """他昨天给了我一本书 He gave me a book yesterday; 请给我一杯茶 Please give me a cup of tea; 穿 and 戴 wear."""
    gifts = w.nouns("print paper tool fruit dish drink")
    for (s, other), n, amount in product(others_in_pairs(), gifts, w.AMOUNTS[:2]):
        thing = n.counted(amount)
        gave = f"{s} gave {other.object} {thing} yesterday"
        yield say("gave", s, other, n, zh=f"{s.zh}昨天给了{other.zh}{thing.zh}", en=gave)
    for s, n, amount in product(w.SUBJECTS, gifts, w.FEW_AMOUNTS):
        thing = n.counted(amount)
        if s.en != "you":
            yield say("give", s, n, zh=f"请给{s.zh}{thing.zh}", en=f"please give {s.object} {thing}")
    for s, n in product(w.SUBJECTS, w.nouns("clothes accessory")):
        for look in w.ATTRIBUTES[n.kind]:
            thing, wear = n.counted(ONE, look), "戴" if n.kind == "accessory" else "穿"
            yield say(
                "wear", s, n, look, zh=f"{s.zh}今天{wear}着{thing.zh}", en=f"{s} {s.be} wearing {thing} today"
            )


# --------------------------------------------------------------------------------------------------------- adjectives


def feelings() -> Iterator[Sentence]:
    """他昨天很累 He was very tired yesterday; 有点 a little, 不 not, 太…了 too; what one thinks of others."""
    for s, f in product(w.SUBJECTS, (*w.FEELINGS, *w.STATURES)):
        if f in w.FEELINGS:
            yield say("was", s, f, zh=f"{s.zh}昨天很{f.zh}", en=f"{s} {s.was} very {f} yesterday")
            yield say("a little", s, f, zh=f"{s.zh}今天有点{f.zh}", en=f"{s} {s.be} a little {f} today")
        yield say("very", s, f, zh=f"{s.zh}很{f.zh}", en=f"{s} {s.be} very {f}")
        yield say("not very", s, f, zh=f"{s.zh}不{f.zh}", en=f"{s} {s.is_not} {f}")
        if s in OTHERS:
            yield say("so?", s, f, zh=f"{s.zh}{f.zh}吗？", en=f"{s.be} {s} {f}")
    for (s, other), f in product(others_in_pairs(), (*w.FEELINGS, *w.STATURES)):
        thought = f"{s} {s.does('think')} {other} {other.be} very {f}"
        yield say("think", s, other, f, zh=f"{s.zh}觉得{other.zh}很{f.zh}", en=thought)
    for (s, other), f in product(others_in_pairs(), w.STATURES):
        more = w.comparative(f.en)
        yield say(
            "than", s, other, f, zh=f"{s.zh}比{other.zh}{f.zh}", en=f"{s} {s.be} {more} than {other.object}"
        )
        much = f"{s} {s.be} much {more} than {other.object}"
        yield say("much than", s, other, f, zh=f"{s.zh}比{other.zh}{f.zh}得多", en=much)
        less = f"{s} {s.is_not} as {f} as {other.object}"
        yield say("less than", s, other, f, zh=f"{s.zh}没有{other.zh}{f.zh}", en=less)


def qualities() -> Iterator[Sentence]:
    """这些书很贵 These books are very expensive, 这只猫比那只大 This cat is bigger than that one."""
    for n in w.NOUNS:
        for q in w.QUALITIES.get(n.kind, ()):
            for zh, en in (("这", "this"), ("那", "that")):
                it, it_zh = f"{en} {n.one} is", f"{zh}{n.measure}{n.zh}"
                yield say("it is", n, q, zh=f"{it_zh}很{q.zh}", en=f"{it} very {q}")
                yield say("it is not", n, q, zh=f"{it_zh}不{q.zh}", en=f"{it}n't {q}")
                if q.en in TOO:
                    yield say("it is too", n, q, zh=f"{it_zh}太{q.zh}了", en=f"{it} too {q}")
                yield say("is it?", n, q, zh=f"{it_zh}{q.zh}吗？", en=f"is {en} {n.one} {q}")
            for zh, en, zh_2, en_2 in (("这", "this", "那", "that"), ("那", "that", "这", "this")):
                compared = f"{zh}{n.measure}{n.zh}比{zh_2}{n.measure}{q.zh}"
                than = f"{en} {n.one} is {w.comparative(q.en)} than {en_2} one"
                yield say("it is more", n, q, zh=compared, en=than)
            for zh, en in (("这些", "these"), ("那些", "those")):
                if not n.mass:
                    they = f"{en} {n.in_general} are"
                    yield say("they are", n, q, zh=f"{zh}{n.zh}很{q.zh}", en=f"{they} very {q}")
                    yield say("they are not", n, q, zh=f"{zh}{n.zh}不{q.zh}", en=f"{they}n't {q}")
                    yield say(
                        "are they?", n, q, zh=f"{zh}{n.zh}{q.zh}吗？", en=f"are {en} {n.in_general} {q}"
                    )
        if n.kind in w.QUALITIES and n.kind not in {"people", "tale"}:
            yield say("how much?", n, zh=f"这{n.measure}{n.zh}多少钱？", en=f"how much is this {n.one}")
            if not n.mass:
                yield say(
                    "how much are?", n, zh=f"这些{n.zh}多少钱？", en=f"how much are these {n.in_general}"
                )
    for (s, other), n in product(others_in_pairs(), w.nouns("pet vehicle")):
        for q in w.QUALITIES[n.kind]:
            more = f"{s.possessive} {n} is {w.comparative(q.en)} than {other.pronoun}"
            yield say("mine is more", s, other, n, q, zh=f"{s.zh}的{n.zh}比{other.zh}的{q.zh}", en=more)


# ---------------------------------------------------------------------------------------------------------- the split

FAMILIES = (
    having,
    professions,
    belonging,
    relations,
    whereabouts,
    existence,
    activities,
    moods,
    company,
    comings_and_goings,
    doing_to,
    asking,
    liking,
    giving_and_wearing,
    feelings,
    qualities,
)


@dataclass(frozen=True)
class Phrasebook:
    """Chinese-English pairs; the three parts share no sentence in either language."""

    train: list[tuple[str, str]]
    valid: list[tuple[str, str]]
    test: list[tuple[str, str]]


def draw(text: str) -> float:
    """Draw a number in [0, 1) that depends on the text alone, not on the process (PYTHONHASHSEED) or the order."""
    return int.from_bytes(blake2b((SALT + text).encode(), digest_size=7).digest()) / 2**56


def sentences() -> Iterator[Sentence]:
    """All frames, each thinned to a fixed size: the sentences whose draw is smallest stay."""
    frames: dict[str, list[tuple[float, Sentence]]] = {}
    for family in FAMILIES:
        for sentence in family():
            frames.setdefault(sentence.frame, []).append((draw(sentence.zh), sentence))
    for frame, drawn in frames.items():
        for _, sentence in sorted(drawn)[: LARGE_FRAMES.get(frame, FRAME_SIZE)]:
            yield sentence if len(drawn) >= SMALL_FRAME else sentence._replace(combination="")


def phrasebook() -> Phrasebook:
    """Build the phrasebook, the same in every process; training pairs come shuffled.

    Whether a sentence is held out depends on its combination alone, so that all its near copies go with it.
    """
    book = Phrasebook([], [], [])
    for sentence in sorted(sentences(), key=lambda sentence: draw(sentence.zh + "order")):
        share = draw(sentence.combination) / HELD_OUT if sentence.combination else 1
        part = book.train if share >= 1 else book.valid if share < VALID else book.test
        part.append((sentence.zh, sentence.en))
    return book
