"""The frames of the phrasebook: sentences with gaps, in both languages, with one function for each family of frames.

A frame is written as `Chinese = English`. The words come from `phrasebook_words`, as does the English agreement that
Chinese does not express. Every Chinese sentence has exactly one English translation. The file is long because it is a
table, one family after the other.
"""

from collections.abc import Iterator
from itertools import permutations, product
from typing import NamedTuple

from models.text.corpora import phrasebook_words as w

ONE, DAYS = w.AMOUNTS[0], w.TIMES[::3]  # DAYS: yesterday, tomorrow, every day
OTHERS = w.SUBJECTS[1:]  # the people one asks about: everyone except oneself
OWNED = w.nouns("pet farm print paper tool furniture vehicle clothes accessory person")
SMALL = w.nouns("pet print paper tool clothes accessory fruit")  # things that may be on a table


class Sentence(NamedTuple):
    """A sentence pair, its frame, and its combination, which is held out as a whole or not at all."""

    frame: str
    combination: str
    zh: str
    en: str


def say(words: tuple[object, ...], frames: dict[str, str]) -> Iterator[Sentence]:
    """Yield the sentences of `Chinese = English` frames, with a capital letter and a question mark where needed."""
    about = "|".join(map(str, words))
    for frame, pair in frames.items():
        zh, en = pair.split(" = ")
        yield Sentence(frame, f"{frame}|{about}", zh, en[0].upper() + en[1:] + ("?" if zh[-1] == "？" else ""))


def pairs_of_people() -> Iterator[tuple[w.Subject, w.Subject]]:
    """Yield two different people or groups that do not overlap, unlike "I" and "we", or "they" and "the children"."""
    groups = {"we": "I", "the children": "they", "the students": "they"}
    for first, second in permutations(w.SUBJECTS, 2):
        if groups.get(first.en, first.en) != groups.get(second.en, second.en):
            yield first, second


# ------------------------------------------------------------------------------------ having and being


def having() -> Iterator[Sentence]:
    """我有一只猫 I have a cat: number, measure word, a or an, have or has."""
    for s, n in product(w.SUBJECTS, OWNED):
        if n.kind == "person" and s.en in {"the children", "the students"}:
            continue
        has = s.does("have")
        for amount in w.FEW_AMOUNTS if n.kind == "person" else w.AMOUNTS:
            thing = n.counted(amount)
            yield from say((s, n), {"have": f"{s.zh}有{thing.zh} = {s} {has} {thing}"})
        for adjective in w.ATTRIBUTES.get(n.kind, ()):
            thing = n.counted(ONE, adjective)
            yield from say((s, n), {"have such": f"{s.zh}有{thing.zh} = {s} {has} {thing}"})
        frames = {"have no": f"{s.zh}没有{n.zh} = {s} {s.do}n't have {n.any}"}
        if s in OTHERS:
            frames["have?"] = f"{s.zh}有{n.zh}吗？ = {s.do} {s} have {n.any}"
            frames["have how many?"] = f"{s.zh}有几{n.measure}{n.zh}？ = how many {n.units} {s.do} {s} have"
        yield from say((s, n), frames)
    for n in OWNED:
        yield from say((n,), {"who has?": f"谁有{n.zh}？ = who has {n.any}"})


def professions() -> Iterator[Sentence]:
    """她是医生 She is a doctor, 他们不是医生 They aren't doctors, 他是我的老师 He is my teacher."""
    for s, job in product(w.SUBJECTS, w.JOBS):
        title = w.plural(job.en) if s.many else w.with_article(job.en)
        frames = {
            "be": f"{s.zh}是{job.zh} = {s} {s.be} {title}",
            "be not": f"{s.zh}不是{job.zh} = {s} {s.is_not} {title}",
            "want to be": f"{s.zh}想当{job.zh} = {s} {s.does('want')} to be {title}",
        }
        if s in OTHERS:
            frames["be?"] = f"{s.zh}是{job.zh}吗？ = {s.be} {s} {title}"
        yield from say((s, job), frames)
    for (s, other), relation in product(pairs_of_people(), w.RELATIONS):
        role = w.plural(relation.en) if s.many else relation.en
        pair = f"{s.zh}是{other.zh}的{relation.zh} = {s} {s.be} {other.possessive} {role}"
        yield from say((s, other, relation), {"be someone's": pair})


def belonging() -> Iterator[Sentence]:
    """这是我的书 This is my book, 那把雨伞是她的 That umbrella is hers: possessives, this and these."""
    for s, n in product(w.SUBJECTS, w.nouns("pet print paper tool furniture vehicle clothes accessory")):
        mine = f"{s.possessive} {n}"
        for this_zh, this, these in (("这", "this", "these"), ("那", "that", "those")):
            here, they = f"{these} are" if n.pair else f"{this} is", f"{these} {n.general}"
            one_zh = f"{this_zh}{n.measure}{n.zh}"
            yield from say(
                (s, n),
                {
                    "this is mine": f"{this_zh}是{s.zh}的{n.zh} = {here} {mine}",
                    "this is not mine": f"{this_zh}不是{s.zh}的{n.zh} = {here}n't {mine}",
                    "this one is mine": f"{one_zh}是{s.zh}的 = {this} {n.one} is {s.pronoun}",
                    "these are mine": f"{this_zh}些{n.zh}是{s.zh}的 = {they} are {s.pronoun}",
                    "these are not mine": f"{this_zh}些{n.zh}不是{s.zh}的 = {they} aren't {s.pronoun}",
                },
            )
        yield from say((s, n), {"where is mine?": f"{s.zh}的{n.zh}在哪里？ = where {n.be} {mine}"})
    for s, n, spot in product(w.SUBJECTS, SMALL, w.SPOTS):
        pair = f"{s.zh}的{n.zh}在{spot.zh} = {s.possessive} {n} {n.be} {spot}"
        yield from say((s, n, spot), {"mine is on": pair})


# ---------------------------------------------------------------------------------------------- places


def whereabouts() -> Iterator[Sentence]:
    """她昨天在家 She was at home yesterday: am, is and are, was and were, will be, and where."""
    for s, place in product(w.SUBJECTS, w.PLACES):
        frames = {
            "be at": f"{s.zh}现在在{place.zh} = {s} {s.be} {place} now",
            "be not at": f"{s.zh}现在不在{place.zh} = {s} {s.is_not} {place} now",
        }
        if s in OTHERS:
            frames["be at?"] = f"{s.zh}现在在{place.zh}吗？ = {s.be} {s} {place} now"
        yield from say((s, place), frames)
        for t in w.PAST_TIMES:
            past = {
                "was at": f"{s.zh}{t.zh}在{place.zh} = {s} {s.was} {place} {t}",
                "was not at": f"{s.zh}{t.zh}不在{place.zh} = {s} {s.was}n't {place} {t}",
            }
            yield from say((s, place), past)
        for t in w.FUTURE_TIMES:
            yield from say((s, place), {"will be at": f"{s.zh}{t.zh}会在{place.zh} = {s} will be {place} {t}"})
    for s in OTHERS:
        yield from say((s,), {"where?": f"{s.zh}在哪里？ = where {s.be} {s}"})
        for t in w.PAST_TIMES:
            yield from say((s,), {"where then?": f"{s.zh}{t.zh}在哪里？ = where {s.was} {s} {t}"})
    for place in w.PLACES:
        yield from say((place,), {"who is at?": f"谁在{place.zh}？ = who is {place}"})


def existence() -> Iterator[Sentence]:
    """桌子上有三本书 There are three books on the table: is there, there isn't, how many are there."""
    on_the_table = product(w.nouns("drink dish"), w.SPOTS[:1])
    for n, spot in (*product(SMALL, w.SPOTS), *on_the_table, *product(w.nouns("people pet"), w.AREAS)):
        for amount in w.AMOUNTS:
            thing = n.counted(amount)
            be = "is" if amount is ONE or (n.mass and amount.zh == "很多") else "are"
            frame = "there is someone" if n.kind == "people" else "there is"
            yield from say((n, spot), {frame: f"{spot.zh}有{thing.zh} = there {be} {thing} {spot}"})
        be = "is" if n.mass else "are"
        yield from say(
            (n, spot),
            {
                "there is no": f"{spot.zh}没有{n.zh} = there {be}n't any {n.general} {spot}",
                "is there?": f"{spot.zh}有{n.zh}吗？ = {be} there any {n.general} {spot}",
                "how many?": f"{spot.zh}有几{n.measure}{n.zh}？ = how many {n.units} are there {spot}",
            },
        )
    for spot in (*w.SPOTS, *w.AREAS):
        yield from say((spot,), {"what is on?": f"{spot.zh}有什么？ = what is {spot}"})


# ----------------------------------------------------------------------------------------------- doing


def activities() -> Iterator[Sentence]:
    """孩子们昨天游泳了 The children swam yesterday: tense by time word, and do-support."""
    for s, a, t in product(w.SUBJECTS, w.ACTIVITIES, w.TIMES):
        frames = {"do": f"{s.zh}{t.lead}{a.zh}{t.le} = {s} {s.finite(a.en, t.tense)} {t}"}
        if s in OTHERS:
            did = {"past": "did", "future": "will", "habit": s.do}[t.tense]
            frames["do?"] = f"{s.zh}{t.lead}{a.zh}{t.le}吗？ = {did} {s} {s.fill(a.en)} {t}"
        if t.tense != "habit":
            not_zh, did_not = ("没", "didn't") if t.tense == "past" else ("不会", "won't")
            frames["do not"] = f"{s.zh}{t.zh}{not_zh}{a.zh} = {s} {did_not} {s.fill(a.en)} {t}"
        yield from say((s, a), frames)
    shared = w.ACTIVITIES[:-1:2]  # half are enough; the last, homework, is not shared
    for (s, other), a, t in product(pairs_of_people(), shared, DAYS):
        does = f"{s.finite(a.en, t.tense)} with {other.object}"
        pair = f"{s.zh}{t.lead}和{other.zh}一起{a.zh}{t.le} = {s} {does} {t}"
        yield from say((s, other, a), {"do with": pair})


def moods() -> Iterator[Sentence]:
    """正在 is doing, 经常 often, 从来不 never, 喜欢 like, 想 want to; their negations and questions."""
    for s, a in product(w.SUBJECTS, (*w.ACTIVITIES, *w.WASHING)):
        base, doing = s.fill(a.en), s.fill(w.gerund(a.en))
        frames = {
            "is doing": f"{s.zh}正在{a.zh} = {s} {s.be} {doing}",
            "is not doing": f"{s.zh}没在{a.zh} = {s} {s.is_not} {doing}",
            "likes doing": f"{s.zh}喜欢{a.zh} = {s} {s.does('like')} {doing}",
            "does not like doing": f"{s.zh}不喜欢{a.zh} = {s} {s.do}n't like {doing}",
            "wants to": f"{s.zh}想{a.zh} = {s} {s.does('want')} to {base}",
            "does not want to": f"{s.zh}不想{a.zh} = {s} {s.do}n't want to {base}",
            "often": f"{s.zh}经常{a.zh} = {s} often {s.does(a.en)}",
            "never": f"{s.zh}从来不{a.zh} = {s} never {s.does(a.en)}",
        }
        if s in OTHERS:
            frames |= {
                "is doing?": f"{s.zh}在{a.zh}吗？ = {s.be} {s} {doing}",
                "likes doing?": f"{s.zh}喜欢{a.zh}吗？ = {s.do} {s} like {doing}",
                "wants to?": f"{s.zh}想{a.zh}吗？ = {s.do} {s} want to {base}",
            }
        yield from say((s, a), frames)
    for s, (venue, a) in product(w.SUBJECTS, w.VENUES):
        frames = {
            "is doing at": f"{s.zh}正在{venue.zh}{a.zh} = {s} {s.be} {s.fill(w.gerund(a.en))} {venue}",
            "often at": f"{s.zh}经常在{venue.zh}{a.zh} = {s} often {s.does(a.en)} {venue}",
        }
        yield from say((s, a, venue), frames)
    for s, skill in product(w.SUBJECTS, w.SKILLS):
        frames = {
            "can": f"{s.zh}会{skill.zh} = {s} can {skill}",
            "can not": f"{s.zh}不会{skill.zh} = {s} can't {skill}",
        }
        if s in OTHERS:
            frames["can?"] = f"{s.zh}会{skill.zh}吗？ = can {s} {skill}"
        yield from say((s, skill), frames)


def comings_and_goings() -> Iterator[Sentence]:
    """他每天都七点起床 He gets up at seven every day, 我昨天走路去了公园 I went to the park on foot."""
    for s, a, hour, t in product(w.SUBJECTS, w.ROUTINES, w.HOURS, DAYS):
        pair = f"{s.zh}{t.lead}{hour.zh}点{a.zh} = {s} {s.finite(a.en, t.tense)} at {hour} {t}"
        yield from say((s, a, hour), {"do at": pair})
    for s, by, place, t in product(w.SUBJECTS, w.TRANSPORT, w.PLACES[1:], DAYS):
        if place.zh == "北京" and (by.zh != "坐火车" or t.tense == "habit"):
            continue  # too far to go otherwise, or every day
        to = "to " + place.en.partition(" ")[2]
        pair = f"{s.zh}{t.lead}{by.zh}去{t.le}{place.zh} = {s} {s.finite('go', t.tense)} {to} {by} {t}"
        if (by.zh, place.zh) != ("坐火车", "火车站"):
            yield from say((s, by, place), {"go": pair})
    for s, a in product(OTHERS, w.ROUTINES):
        frames = {
            "when?": f"{s.zh}明天几点{a.zh}？ = what time will {s} {a} tomorrow",
            "when usually?": f"{s.zh}每天几点{a.zh}？ = what time {s.do} {s} {a} every day",
        }
        yield from say((s, a), frames)


def doing_to() -> Iterator[Sentence]:
    """她昨天买了两本书 She bought two books yesterday: verb, object and number, in every tense."""
    for s, v, n in ((s, v, n) for s, v, n in product(w.SUBJECTS, w.VERBS, w.NOUNS) if v.takes(n)):
        for t, amount in product(DAYS, w.AMOUNTS[:3]):
            if t.tense in v.uses:
                thing = n.counted(amount)
                pair = f"{s.zh}{t.lead}{v.zh}{t.le}{thing.zh} = {s} {s.finite(v.en, t.tense)} {thing} {t}"
                yield from say((s, v, n), {"do to": pair})
        thing, frames = n.counted(ONE), {}
        if "now" in v.uses:
            frames["is doing to"] = f"{s.zh}正在{v.zh}{thing.zh} = {s} {s.be} {w.gerund(v.en)} {thing}"
        if "want" in v.uses:
            frames["wants to do to"] = f"{s.zh}想{v.zh}{thing.zh} = {s} {s.does('want')} to {v} {thing}"
        if "bare" in v.uses:
            frames["did not do to"] = f"{s.zh}昨天没{v.zh}{n.zh} = {s} didn't {v} {n.any} yesterday"
            frames["wants not do to"] = f"{s.zh}不想{v.zh}{n.zh} = {s} {s.do}n't want to {v} {n.any}"
            if s in OTHERS:
                frames["did do to?"] = f"{s.zh}昨天{v.zh}{n.zh}了吗？ = did {s} {v} {n.any} yesterday"
                frames["wants to do to?"] = f"{s.zh}想{v.zh}{n.zh}吗？ = {s.do} {s} want to {v} {n.any}"
        yield from say((s, v, n), frames)


def asking() -> Iterator[Sentence]:
    """他昨天买了什么？ What did he buy yesterday?: who, what and why; 我们一起唱歌吧 Let's sing together."""
    for s, v, t in product(OTHERS, w.VERBS, w.PAST_TIMES):
        yield from say((s, v), {"what did?": f"{s.zh}{t.zh}{v.zh}了什么？ = what did {s} {v} {t}"})
        if "want" in v.uses and t is DAYS[0]:
            yield from say((s, v), {"what wants?": f"{s.zh}想{v.zh}什么？ = what {s.do} {s} want to {v}"})
    for s in OTHERS:
        yield from say((s,), {"what is doing?": f"{s.zh}正在做什么？ = what {s.be} {s} doing"})
        for f in w.FEELINGS:
            yield from say((s, f), {"why so?": f"{s.zh}为什么这么{f.zh}？ = why {s.be} {s} so {f}"})
    for v, n, amount in product(w.VERBS, w.NOUNS, w.FEW_AMOUNTS):
        if v.takes(n):
            thing = n.counted(amount)
            pair = f"谁昨天{v.zh}了{thing.zh}？ = who {w.past(v.en)} {thing} yesterday"
            yield from say((v, n), {"who did?": pair})
    for a in w.ACTIVITIES[:-1]:
        frames = {
            "who wants to?": f"谁想{a.zh}？ = who wants to {a}",
            "let us": f"我们一起{a.zh}吧 = let's {a} together",
        }
        yield from say((a,), frames)


def liking() -> Iterator[Sentence]:
    """她不喜欢猫 She doesn't like cats: the bare plural of things in general, and two of them at once."""
    liked = w.nouns("pet farm fruit dish drink")
    for s, n in product(w.SUBJECTS, liked):
        frames = {
            "like": f"{s.zh}喜欢{n.zh} = {s} {s.does('like')} {n.general}",
            "not like": f"{s.zh}不喜欢{n.zh} = {s} {s.do}n't like {n.general}",
            "also like": f"{s.zh}也喜欢{n.zh} = {s} also {s.does('like')} {n.general}",
        }
        if s in OTHERS:
            frames |= {
                "like?": f"{s.zh}喜欢{n.zh}吗？ = {s.do} {s} like {n.general}",
                "why like?": f"{s.zh}为什么喜欢{n.zh}？ = why {s.do} {s} like {n.general}",
                "why not like?": f"{s.zh}为什么不喜欢{n.zh}？ = why {s.do}n't {s} like {n.general}",
            }
        yield from say((s, n), frames)
    for s, (n, m) in product(w.SUBJECTS, permutations(liked, 2)):
        if n.kind == m.kind:
            pair = f"{s.zh}喜欢{n.zh}和{m.zh} = {s} {s.does('like')} {n.general} and {m.general}"
            yield from say((s, n, m), {"like both": pair})


def giving_and_wearing() -> Iterator[Sentence]:
    """请给我一杯茶 Please give me a cup of tea: the objective case; 穿 for clothes, 戴 for accessories."""
    gifts = w.nouns("print paper tool fruit dish drink")
    for (s, other), n, amount in product(pairs_of_people(), gifts, w.AMOUNTS[:2]):
        thing = n.counted(amount)
        pair = f"{s.zh}昨天给了{other.zh}{thing.zh} = {s} gave {other.object} {thing} yesterday"
        yield from say((s, other, n), {"gave": pair})
    for s, n, amount in product(w.SUBJECTS, gifts, w.FEW_AMOUNTS):
        thing = n.counted(amount)
        if s.en != "you":
            yield from say((s, n), {"give": f"请给{s.zh}{thing.zh} = please give {s.object} {thing}"})
    for s, n in product(w.SUBJECTS, w.nouns("clothes accessory")):
        wear = "戴" if n.kind == "accessory" else "穿"
        for look in w.ATTRIBUTES[n.kind]:
            thing = n.counted(ONE, look)
            pair = f"{s.zh}今天{wear}着{thing.zh} = {s} {s.be} wearing {thing} today"
            yield from say((s, n, look), {"wear": pair})


# ------------------------------------------------------------------------------------------ adjectives


def feelings() -> Iterator[Sentence]:
    """他昨天很累 He was very tired yesterday: very, a little, not; what one thinks of others; than."""
    for s, f in product(w.SUBJECTS, (*w.FEELINGS, *w.STATURES)):
        frames = {
            "very": f"{s.zh}很{f.zh} = {s} {s.be} very {f}",
            "not very": f"{s.zh}不{f.zh} = {s} {s.is_not} {f}",
        }
        if f in w.FEELINGS:
            frames["was"] = f"{s.zh}昨天很{f.zh} = {s} {s.was} very {f} yesterday"
            frames["a little"] = f"{s.zh}今天有点{f.zh} = {s} {s.be} a little {f} today"
        if s in OTHERS:
            frames["so?"] = f"{s.zh}{f.zh}吗？ = {s.be} {s} {f}"
        yield from say((s, f), frames)
    for (s, other), f in product(pairs_of_people(), (*w.FEELINGS, *w.STATURES)):
        pair = f"{s.zh}觉得{other.zh}很{f.zh} = {s} {s.does('think')} {other} {other.be} very {f}"
        yield from say((s, other, f), {"think": pair})
    for (s, other), f in product(pairs_of_people(), w.STATURES):
        more, than = w.comparative(f.en), f"than {other.object}"
        frames = {
            "than": f"{s.zh}比{other.zh}{f.zh} = {s} {s.be} {more} {than}",
            "much more than": f"{s.zh}比{other.zh}{f.zh}得多 = {s} {s.be} much {more} {than}",
            "less than": f"{s.zh}没有{other.zh}{f.zh} = {s} {s.is_not} as {f} as {other.object}",
        }
        yield from say((s, other, f), frames)


def qualities() -> Iterator[Sentence]:
    """这些书很贵 These books are very expensive, 这只猫比那只大 This cat is bigger than that one."""
    near_and_far = (("这", "this", "these"), ("那", "that", "those"))
    for n, ((here, this, these), (there, that, _)) in product(w.NOUNS, permutations(near_and_far)):
        it_zh, it = f"{here}{n.measure}{n.zh}", f"{this} {n.one}"
        they_zh, they = f"{here}些{n.zh}", f"{these} {n.general}"
        for q in w.QUALITIES.get(n.kind, ()):
            more = w.comparative(q.en)
            frames = {
                "it is": f"{it_zh}很{q.zh} = {it} is very {q}",
                "it is not": f"{it_zh}不{q.zh} = {it} isn't {q}",
                "is it?": f"{it_zh}{q.zh}吗？ = is {it} {q}",
                "it is more": f"{it_zh}比{there}{n.measure}{q.zh} = {it} is {more} than {that} one",
            }
            if q.en in w.TOO:
                frames["it is too"] = f"{it_zh}太{q.zh}了 = {it} is too {q}"
            if not n.mass:
                frames["they are"] = f"{they_zh}很{q.zh} = {they} are very {q}"
                frames["they are not"] = f"{they_zh}不{q.zh} = {they} aren't {q}"
                frames["are they?"] = f"{they_zh}{q.zh}吗？ = are {they} {q}"
            yield from say((n, q), frames)
        if n.kind in w.GOODS.split():
            frames = {"how much?": f"{it_zh}多少钱？ = how much is {it}"}
            if not n.mass:
                frames["how much are?"] = f"{they_zh}多少钱？ = how much are {they}"
            yield from say((n,), frames)


def comparing_belongings() -> Iterator[Sentence]:
    """我的猫比你的大 My cat is bigger than yours: possessive determiners and pronouns."""
    for (s, other), n in product(pairs_of_people(), w.nouns("pet vehicle")):
        for q in w.QUALITIES[n.kind]:
            more = f"{s.possessive} {n} is {w.comparative(q.en)} than {other.pronoun}"
            yield from say((s, other, n, q), {"mine is more": f"{s.zh}的{n.zh}比{other.zh}的{q.zh} = {more}"})


# ------------------------------------------------------------------------------------------- the split

FAMILIES = (
    having, professions, belonging, whereabouts, existence, activities, moods, comings_and_goings, doing_to,
    asking, liking, giving_and_wearing, feelings, qualities, comparing_belongings,
)  # fmt: skip
