"""Where a logit comes to depend on a token that it must not see: the op, its module and its line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorlib as tl

__all__ = ["Leak", "Token", "described"]


class Token(NamedTuple):
    """What was read at a position of an embedding's output."""

    side: str
    """source, target or padding."""
    sentence: int
    place: int
    """The place in the sentence, -1 for <s>; of padding, the position."""

    def hidden_from(self, sentence: int, predicted: int | None) -> str | None:
        """Return why the logits of a sentence that predict its token number `predicted` must not see this token.

        None if they may. `predicted` is None where nothing is predicted, at padding.
        """
        if self.sentence != sentence:
            return "another sentence"
        if predicted is None:
            return None
        if self.side == "padding":
            return "padding"
        return "a later token" if self.side == "target" and self.place >= predicted else None

    def __str__(self) -> str:
        if self.side == "padding":
            return f"the padding at position {self.place} of sentence {self.sentence}"
        name = "<s>" if self.place < 0 else f"token {self.place}"
        return f"{self.side} {name} of sentence {self.sentence}"


class Leak(NamedTuple):
    """A logit that depends on a token that it must not see."""

    kind: str
    sentence: int
    position: int
    token: Token
    dependence: tl.Dependence
    at: tuple[int, ...]
    """The position in `dependence`."""
    since: int
    """In decoding, the number of the first op of the step that computed the logit, in the order of recording."""

    def place(self, sizes: tuple[int, int, int]) -> tl.DependenceStep:
        """Return the op on the way from the token to the logit that first brings the token where it must not be.

        If the sizes of axes do not tell where the values before it belong, it is the first op that computed such a one.
        If all belong where they are, the token was read in the wrong place: it is the embedding.
        """
        path = self.dependence.path(*self.at)
        belongs = [self._belongs(step, path[0], sizes) for step in path]
        wrong = belongs.index(False) if False in belongs else 0 if belongs[-1] else len(path) - 1
        while wrong > 0 and belongs[wrong - 1] is None:
            wrong -= 1
        return path[wrong]

    def _belongs(self, step: tl.DependenceStep, first: tl.DependenceStep, sizes: tuple[int, int, int]) -> bool | None:
        """Return whether an element of a value is where the token may be, and None if that is unknown."""
        home, at = Home.of(step, sizes), Home.of(first, sizes)
        if self.since and self.kind != "another sentence" and not at.sources:
            return step.serial < self.since  # all that this step computes is for the logit; the token came from another
        if self.kind == "another sentence":
            return None if home.sentence is None else home.sentence == self.token.sentence
        if not home.sources and not home.targets:
            return False if self.since and step.serial >= self.since else None  # a step computes a single position
        if self.kind == "padding":
            return bool(home.sources & at.sources if at.sources else home.targets & at.targets)
        return None if not home.targets else max(home.targets) > self.token.place


class Home(NamedTuple):
    """The position that an element of a value belongs to, as told by the sizes of the axes."""

    sentence: int | None
    sources: frozenset[int]
    targets: frozenset[int]
    """Positions of source and target along all axes of that size: attention's scores have two."""

    @classmethod
    def of(cls, step: tl.DependenceStep, sizes: tuple[int, int, int]) -> Home:
        """Return the position of a step's element. `sizes` are those of batch, source and target."""
        sentences, source, target = sizes
        axes = list(zip(step.shape, step.element, strict=True))
        sentence: int | None = None
        if axes and axes[0][0] in (sentences, sentences * source, sentences * target):
            size, i = axes.pop(0)
            sentence, rest = divmod(i, size // sentences)
            if size > sentences:
                axes.append((size // sentences, rest))
        sources = frozenset(i for size, i in axes if size == source and source)
        targets = {i for size, i in axes if size == target}
        if source:  # a language model reads <s>, the prompt and the rest of the target as one sequence
            targets |= {max(i - source, 0) for size, i in axes if size == source + target}
        return cls(sentence, sources, frozenset(targets))


def described(leaks: Sequence[Leak], sizes: tuple[int, int, int], shown: int) -> list[str]:
    """Return a line for each kind of leak and each place of up to `shown` leaks of that kind, the first op first."""
    lines: list[str] = []
    for kind in dict.fromkeys(leak.kind for leak in leaks):
        those = [leak for leak in leaks if leak.kind == kind]
        places: dict[str, tuple[int, Leak]] = {}
        for leak in those[:: max(1, len(those) // shown)][:shown]:
            step = leak.place(sizes)
            places.setdefault(str(step).partition(": element")[0], (step.serial, leak))
        for place, (_, leak) in sorted(places.items(), key=lambda item: item[1][0]):  # in the order of computation
            lines.append(
                f"logits can depend on {kind} ({len(those)} pairs): those of sentence {leak.sentence} at position "
                f"{leak.position} on {leak.token}, by {place}{_unknown(leak)}"
            )
    return lines


def _unknown(leak: Leak) -> str:
    """Return which ops have no rule, so that they may be the only reason."""
    ops = leak.dependence.without_rule
    return f"; no rule is known for {', '.join(ops)}" if ops else ""
