"""The words of the phrasebook, and the English grammar that inflects them.

First come the agreement rules (plural, third person, past, "-ing", comparative, "a" or "an"), each with a table of its
exceptions, then the kinds of word, then the words, as plain text. Chinese does not inflect: its half of the grammar is
word order, particles and measure words. The file is long because most of it is word lists.
"""

from dataclasses import dataclass
from typing import NamedTuple

# ------------------------------------------------------------------------------------- agreement rules

IRREGULAR_PLURALS = {
    "child": "children", "man": "men", "woman": "women", "mouse": "mice", "sheep": "sheep", "fish": "fish",
    "knife": "knives", "scarf": "scarves", "potato": "potatoes", "tomato": "tomatoes",
}  # fmt: skip
IRREGULAR_PASTS = {
    "buy": "bought", "sell": "sold", "see": "saw", "find": "found", "lose": "lost", "eat": "ate",
    "run": "ran", "drink": "drank", "draw": "drew", "write": "wrote", "read": "read", "take": "took",
    "swim": "swam", "sing": "sang", "go": "went", "get": "got", "have": "had", "do": "did", "ride": "rode",
}  # fmt: skip
DOUBLING = {"swim", "run", "get"}  # the last consonant doubles before "-ing"
LONG_ADJECTIVES = {
    "expensive",
    "beautiful",
    "interesting",
    "useful",
    "important",
}  # compared with "more", not "-er"
VOWEL_LETTERS = "aeiou"
CONSONANT_SOUNDS = ("useful",)  # with a vowel letter, but a consonant sound, first: a useful book


def ends_in_consonant_y(word: str) -> bool:
    """Return whether a final "y" becomes "i" before an ending, as in "strawberry", but not in "key"."""
    return word.endswith("y") and word[-2] not in VOWEL_LETTERS


def add_s(word: str) -> str:
    """Add the "-s" of plurals and third persons: cat -> cats, watch -> watches, study -> studies."""
    if ends_in_consonant_y(word):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def plural(noun: str) -> str:
    """Inflect the last word of a noun: older sister -> older sisters, mouse -> mice."""
    *before, head = noun.split(" ")
    return " ".join([*before, IRREGULAR_PLURALS.get(head) or add_s(head)])


def third_person(verb: str) -> str:
    """Inflect the first word of a verb phrase for "he", "she" or "it": go home -> goes home, have -> has."""
    head, space, rest = verb.partition(" ")
    return {"have": "has", "go": "goes", "do": "does"}.get(head, add_s(head)) + space + rest


def past(verb: str) -> str:
    """Put the first word of a verb phrase into the simple past: go home -> went home, study -> studied."""
    head, space, rest = verb.partition(" ")
    regular = head[:-1] + "ied" if ends_in_consonant_y(head) else head.removesuffix("e") + "ed"
    return IRREGULAR_PASTS.get(head, regular) + space + rest


def gerund(verb: str) -> str:
    """Return the "-ing" form of a verb phrase: write letters -> writing letters, swim -> swimming."""
    head, space, rest = verb.partition(" ")
    stem = head + head[-1] if head in DOUBLING else head if head.endswith("ee") else head.removesuffix("e")
    return stem + "ing" + space + rest


def comparative(adjective: str) -> str:
    """Return the comparative of an adjective: big -> bigger, busy -> busier, expensive -> more expensive."""
    if adjective in LONG_ADJECTIVES:
        return "more " + adjective
    if ends_in_consonant_y(adjective):
        return adjective[:-1] + "ier"
    doubled = adjective + adjective[-1] if adjective in {"big", "hot"} else adjective.removesuffix("e")
    return doubled + "er"


def with_article(phrase: str) -> str:
    """Prepend "a" or "an", according to the sound that follows: an old book, a useful book, an umbrella."""
    vowel = phrase[0] in VOWEL_LETTERS and not phrase.startswith(CONSONANT_SOUNDS)
    return ("an " if vowel else "a ") + phrase


# --------------------------------------------------------------------------------------- kinds of word


class Phrase(NamedTuple):
    """A piece of a sentence in both languages."""

    zh: str
    en: str

    def __str__(self) -> str:
        """Return the English text, so that a phrase can be used in an f-string."""
        return self.en


@dataclass(frozen=True)
class Subject:
    """A possible subject, with its inflected forms: he, him, his."""

    zh: str
    en: str
    be: str  # "am", "is" or "are", which determines person and number
    object: str  # him
    own: str  # the possessive that refers back to the subject: Anna washes *her* hands
    possessive: str  # before a noun: his, Anna's
    pronoun: str  # instead of a noun: his, Anna's

    def __str__(self) -> str:
        """Return the English nominative."""
        return self.en

    @property
    def singular(self) -> bool:
        """Whether the verb takes the third-person "-s"."""
        return self.be == "is"

    @property
    def many(self) -> bool:
        """Whether the subject is several people; "you" counts as one person."""
        return self.zh.endswith("们")

    @property
    def do(self) -> str:
        """The auxiliary of questions: "do" you, "does" he."""
        return "does" if self.singular else "do"

    @property
    def was(self) -> str:
        """The past tense of "be"."""
        return "were" if self.be == "are" else "was"

    @property
    def is_not(self) -> str:
        """The negated form of "be"; "am not" has no standard contraction."""
        return "am not" if self.be == "am" else self.be + "n't"

    def does(self, verb: str) -> str:
        """Conjugate a verb phrase in the present: they swim, he swims, she washes her hands."""
        return self.fill(third_person(verb) if self.singular else verb)

    def fill(self, verb: str) -> str:
        """Fill in the possessive of an already inflected verb phrase: washing {own} hands."""
        return verb.format(own=self.own)

    def finite(self, verb: str, tense: str) -> str:
        """Put a verb phrase into a tense: swam, will swim, swims."""
        if tense == "habit":
            return self.does(verb)
        return self.fill(past(verb) if tense == "past" else "will " + verb)


@dataclass(frozen=True)
class Noun:
    """A thing with its measure word; tea and shoes are counted by a unit: a cup of tea, a pair of shoes."""

    zh: str
    measure: str
    en: str
    kind: str
    unit: str = ""  # cup, pair; empty for a noun that is counted directly

    def __str__(self) -> str:
        """Return the English noun."""
        return self.en

    @property
    def mass(self) -> bool:
        """Whether the noun has no plural: tea, rice."""
        return bool(self.unit) and not self.pair

    @property
    def pair(self) -> bool:
        """Whether the noun is always plural: shoes, trousers."""
        return self.unit == "pair"

    @property
    def general(self) -> str:
        """The noun as the object of "like": cats, tea, shoes."""
        return self.en if self.unit else plural(self.en)

    @property
    def any(self) -> str:
        """The English of a bare Chinese object after a negation or in a question: any tea, any apples, but a car."""
        takes_any = self.unit or self.kind in {"fruit", "person"}
        return "any " + self.general if takes_any else with_article(self.en)

    @property
    def units(self) -> str:
        """The counted unit in the plural: cats, cups of tea."""
        return f"{plural(self.unit)} of {self.en}" if self.unit else plural(self.en)

    @property
    def one(self) -> str:
        """The counted unit in the singular: cat, cup of tea."""
        return f"{self.unit} of {self.en}" if self.unit else self.en

    @property
    def be(self) -> str:
        """The form of "be" after the noun without a number: my book is, my shoes are."""
        return "are" if self.pair else "is"

    def counted(self, amount: Phrase, adjective: Phrase = Phrase("", "")) -> Phrase:  # noqa: B008
        """Count the noun, with its measure word: 两杯茶 two cups of tea, 一本旧书 an old book."""
        measure = "" if amount.zh == "很多" else self.measure
        zh = amount.zh + measure + adjective.zh + self.zh
        many = amount.en != "a"
        word = self.en if self.unit else plural(self.en) if many else self.en
        described = f"{adjective} {word}" if adjective.en else word
        if self.unit and measure:
            described = f"{plural(self.unit) if many else self.unit} of {described}"
        return Phrase(zh, f"{amount} {described}" if many else with_article(described))


@dataclass(frozen=True)
class Verb:
    """A transitive verb, the kinds of noun it takes, and the frames in which it is used."""

    zh: str
    en: str
    kinds: str
    uses: str  # past, future, now, habit, want, bare (its object may be bare when negated or asked about)

    def __str__(self) -> str:
        """Return the English infinitive."""
        return self.en

    def takes(self, noun: Noun) -> bool:
        """Return whether the noun makes sense as the object."""
        return noun.kind in self.kinds.split() or noun.en in self.kinds.split()


@dataclass(frozen=True)
class Time:
    """A time word and the tense it requires: past, future or habit."""

    zh: str
    en: str
    tense: str

    def __str__(self) -> str:
        """Return the English text."""
        return self.en

    @property
    def lead(self) -> str:
        """The words before the Chinese verb: 昨天, 明天会, 每天都."""
        return self.zh + {"past": "", "future": "会", "habit": "都"}[self.tense]

    @property
    def le(self) -> str:
        """The aspect particle after the verb: 了 for the past."""
        return "了" if self.tense == "past" else ""


# ---------------------------------------------------------------------------------------------- tables


def phrases(table: str) -> tuple[Phrase, ...]:
    """Read a table of `Chinese English, Chinese English, ...`."""
    return tuple(Phrase(*entry.split(maxsplit=1)) for entry in table.split(","))


def _subject(line: str) -> Subject:
    zh, en, *forms = (cell.strip().replace("_", " ") for cell in line.split())
    return Subject(zh, en, *forms)


#   Chinese  English  be  object  own  possessive  pronoun; _ is a space
_SUBJECTS = """
    我 I am me my my mine
    你 you are you your your yours
    他 he is him his his his
    她 she is her her her hers
    我们 we are us our our ours
    他们 they are them their their theirs
    她们 they are them their their theirs
    汤姆 Tom is Tom his Tom's Tom's
    安娜 Anna is Anna her Anna's Anna's
    我妈妈 my_mother is my_mother her my_mother's my_mother's
    我爸爸 my_father is my_father his my_father's my_father's
    我弟弟 my_little_brother is my_little_brother his my_little_brother's my_little_brother's
    我奶奶 my_grandmother is my_grandmother her my_grandmother's my_grandmother's
    孩子们 the_children are the_children their the_children's the_children's
    学生们 the_students are the_students their the_students' the_students'
"""
SUBJECTS = tuple(map(_subject, _SUBJECTS.strip().split("\n")))

_NOUNS = {
    "pet": "猫 只 cat, 狗 只 dog, 鸟 只 bird, 兔子 只 rabbit, 老鼠 只 mouse",
    "farm": "羊 只 sheep, 马 匹 horse, 牛 头 cow, 鱼 条 fish",
    "print": "书 本 book, 词典 本 dictionary, 报纸 份 newspaper",
    "paper": "信 封 letter, 照片 张 photo, 票 张 ticket",
    "tale": "故事 个 story",
    "tool": "刀 把 knife, 雨伞 把 umbrella, 钥匙 把 key, 手表 块 watch, 手机 部 phone, 相机 台 camera,"
    "电脑 台 computer, 杯子 个 cup",
    "furniture": "桌子 张 table, 椅子 把 chair, 床 张 bed, 盒子 个 box, 包 个 bag",
    "vehicle": "汽车 辆 car, 自行车 辆 bike",
    "clothes": "衬衫 件 shirt, 毛衣 件 sweater, 大衣 件 coat, 裤子 条 pair of trousers, 鞋 双 pair of shoes,"
    "袜子 双 pair of socks",
    "accessory": "围巾 条 scarf, 帽子 顶 hat, 手套 双 pair of gloves",
    "fruit": "苹果 个 apple, 橙子 个 orange, 鸡蛋 个 egg,土豆 个 potato, 西红柿 个 tomato, 草莓 颗 strawberry",
    "dish": "米饭 碗 bowl of rice, 沙拉 盘 plate of salad, 蛋糕 块 piece of cake, 面包 片 slice of bread",
    "drink": "茶 杯 cup of tea, 咖啡 杯 cup of coffee, 水 杯 glass of water, 牛奶 杯 glass of milk,"
    "果汁 杯 glass of juice",
    "person": "孩子 个 child, 朋友 个 friend, 儿子 个 son, 女儿 个 daughter, 姐姐 个 older sister",
    "people": "男人 个 man, 女人 个 woman, 孩子 个 child, 学生 个 student, 老师 个 teacher",
}


def _noun(entry: str, kind: str) -> Noun:
    zh, measure, en = entry.split(maxsplit=2)
    unit, _, thing = en.rpartition(" of ")
    return Noun(zh, measure, thing, kind, unit)


NOUNS = tuple(_noun(entry, kind) for kind, table in _NOUNS.items() for entry in table.split(","))


def nouns(kinds: str) -> tuple[Noun, ...]:
    """Return all nouns of the given kinds."""
    return tuple(noun for noun in NOUNS if noun.kind in kinds.split())


AMOUNTS = phrases("一 a, 两 two, 三 three, 四 four, 五 five, 十 ten, 几 a few, 很多 a lot of")
FEW_AMOUNTS = AMOUNTS[:4]

VERBS = (
    Verb(
        "买",
        "buy",
        "pet print ticket tool furniture vehicle clothes accessory fruit dish drink",
        "past future want bare",
    ),
    Verb("卖", "sell", "farm vehicle furniture watch phone camera computer", "past future"),
    Verb("看见", "see", "pet farm people", "past"),
    Verb("找到", "find", "print paper tool accessory", "past"),
    Verb("丢", "lose", "tool accessory ticket dictionary", "past"),
    Verb("吃", "eat", "fruit dish", "past future now habit want bare"),
    Verb("喝", "drink", "drink", "past future now habit want bare"),
    Verb("洗", "wash", "clothes accessory apple potato tomato strawberry cup vehicle", "past future now"),
    Verb("画", "draw", "pet farm", "past future now habit want bare"),
    Verb("读", "read", "book letter newspaper story", "past future now habit want"),
    Verb("写", "write", "letter story", "past future now want bare"),
    Verb("修", "fix", "vehicle watch phone camera computer table chair", "past future now want"),
    Verb("拍", "take", "photo", "past future want"),
)

# What people do. {own} is the subject's possessive.
ACTIVITIES = phrases(
    "游泳 swim, 跑步 run, 唱歌 sing, 跳舞 dance, 做饭 cook, 看电视 watch TV, 听音乐 listen to music,"
    "学英语 study English, 打篮球 play basketball, 踢足球 play football, 打网球 play tennis,"
    "弹钢琴 play the piano, 骑自行车 ride a bike, 爬山 hike, 骑马 ride a horse, 做作业 do {own} homework"
)
SKILLS = phrases(
    "游泳 swim, 唱歌 sing, 跳舞 dance, 做饭 cook, 打篮球 play basketball, 踢足球 play football,"
    "打网球 play tennis, 弹钢琴 play the piano, 骑马 ride a horse, 开车 drive, 说英语 speak English"
)
WASHING = phrases("洗手 wash {own} hands, 洗脚 wash {own} feet, 刷牙 brush {own} teeth, 洗头 wash {own} hair")
ROUTINES = phrases(
    "起床 get up, 睡觉 go to bed, 吃早饭 have breakfast, 吃晚饭 have dinner, 回家 go home, 上班 go to work"
)
HOURS = phrases("六 six, 七 seven, 八 eight, 九 nine, 十 ten")
VENUES = tuple(
    (Phrase(*venue.split(maxsplit=1)), activity)
    for venue, done in {
        "公园 in the park": "跑步 跳舞 唱歌 骑自行车 踢足球",
        "学校 at school": "唱歌 跳舞 打篮球 踢足球 打网球 弹钢琴 学英语",
        "家里 at home": "看电视 听音乐 做饭 弹钢琴 做作业 学英语",
        "图书馆 in the library": "学英语 做作业",
    }.items()
    for activity in ACTIVITIES
    if activity.zh in done.split()
)
TIMES = (
    Time("昨天", "yesterday", "past"),
    Time("昨天晚上", "last night", "past"),
    Time("上个周末", "last weekend", "past"),
    Time("明天", "tomorrow", "future"),
    Time("明天早上", "tomorrow morning", "future"),
    Time("下个周末", "next weekend", "future"),
    Time("每天", "every day", "habit"),
    Time("每天早上", "every morning", "habit"),
    Time("每个周末", "every weekend", "habit"),
)
PAST_TIMES, FUTURE_TIMES = TIMES[:3], TIMES[3:6]

PLACES = phrases(
    "家 at home, 学校 at school, 公园 in the park, 图书馆 in the library, 医院 at the hospital,"
    "办公室 in the office, 火车站 at the train station, 机场 at the airport,"
    "商店 at the shop, 北京 in Beijing"
)
TRANSPORT = phrases("坐公共汽车 by bus, 坐火车 by train, 坐出租车 by taxi, 骑自行车 by bike, 走路 on foot")
SPOTS = phrases(
    "桌子上 on the table, 椅子上 on the chair, 床上 on the bed, 桌子下面 under the table,"
    "床下面 under the bed, 盒子里 in the box, 包里 in the bag, 厨房里 in the kitchen, 门后面 behind the door"
)
AREAS = phrases(
    "公园里 in the park, 图书馆里 in the library, 商店里 in the shop, 花园里 in the garden,房间里 in the room"
)
JOBS = phrases(
    "老师 teacher, 医生 doctor, 护士 nurse, 工程师 engineer, 艺术家 artist, 司机 driver, 警察 police officer,"
    "农民 farmer, 演员 actor, 厨师 cook"
)
RELATIONS = phrases("朋友 friend, 老师 teacher, 学生 student, 邻居 neighbour, 同事 colleague")

FEELINGS = phrases("累 tired, 忙 busy, 饿 hungry, 渴 thirsty, 高兴 happy, 生气 angry, 难过 sad")
STATURES = phrases("高 tall, 聪明 smart, 强壮 strong, 有钱 rich, 漂亮 beautiful")
_FASHION = "新 new, 旧 old, 贵 expensive, 便宜 cheap, 漂亮 beautiful"
QUALITIES = {  # adjectives after be, for each kind of noun: This car is very expensive
    "pet": phrases("大 big, 小 small, 可爱 cute, 聪明 smart, 漂亮 beautiful"),
    "farm": phrases("大 big, 小 small, 漂亮 beautiful, 便宜 cheap"),
    "print": phrases("新 new, 旧 old, 有用 useful, 有意思 interesting"),
    "paper": phrases("旧 old, 重要 important"),
    "tale": phrases("有意思 interesting"),
    "people": phrases("高 tall, 忙 busy, 强壮 strong, 聪明 smart"),
    "tool": phrases(_FASHION),
    "furniture": phrases(_FASHION + ", 大 big, 小 small"),
    "vehicle": phrases(_FASHION),
    "clothes": phrases(_FASHION),
    "accessory": phrases(_FASHION),
    "fruit": phrases("大 big, 小 small, 好吃 tasty, 新鲜 fresh, 便宜 cheap"),
    "dish": phrases("好吃 tasty"),
    "drink": phrases("热 hot, 贵 expensive, 便宜 cheap"),
}
TOO = {"big", "small", "old", "expensive", "hot", "busy"}  # 太 means too with these; with praise it means so
GOODS = "pet farm print paper tool furniture vehicle clothes accessory fruit dish drink"  # has a price
COLOURS = phrases("红色的 red, 黑色的 black, 白色的 white, 蓝色的 blue, 橙色的 orange")
ATTRIBUTES = {  # adjectives before a noun, for each kind: an old car
    "pet": phrases("大 big, 黑色的 black, 白色的 white, 可爱的 cute"),
    "farm": phrases("大 big, 黑色的 black, 白色的 white"),
    "print": phrases("新 new, 旧 old, 有用的 useful, 有意思的 interesting"),
    "paper": phrases("旧 old, 重要的 important"),
    "tool": phrases("新 new, 旧 old, 漂亮的 beautiful"),
    "furniture": phrases("新 new, 旧 old, 大 big, 漂亮的 beautiful"),
    "vehicle": phrases("新 new, 旧 old, 红色的 red, 蓝色的 blue"),
    "clothes": COLOURS + phrases("新 new, 旧 old, 漂亮的 beautiful"),
    "accessory": COLOURS + phrases("新 new, 旧 old, 漂亮的 beautiful"),
}
