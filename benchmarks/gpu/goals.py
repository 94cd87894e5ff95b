"""What each row is compared with, and the goal that it has to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Comparison", "comparison"]

OURS, CAPTURED, EAGER = "tensorlib", "tensorlib, captured", "PyTorch eager"
COMPILED, JAX, MARIAN = "torch.compile", "JAX jit", "MarianMT"
BLEU = {"de-en, ten epochs, greedy": 38.32, "de-en, ten epochs, beam 4": 39.34}  # on a CPU: benchmarks/RESULTS.md

Row = Mapping[str, Any]
Parts = Mapping[str, Mapping[str, Any]]


class Comparison(NamedTuple):
    """What the table says beside a figure, the goal in words, and whether it is reached (None: there is no goal)."""

    text: str = ""
    goal: str = ""
    reached: bool | None = None


def comparison(part: str, row: Row, parts: Parts) -> Comparison:
    """Return the comparison of a row with others of the same run."""
    if row.get("value") is None or part not in COMPARED:
        return Comparison()
    return COMPARED[part](row, parts)


def value_of(parts: Parts, part: str, case: str, side: str) -> float | None:
    """Return a value of the run, or None."""
    rows: Sequence[Row] = parts.get(part, {}).get("rows", ())
    return next((r["value"] for r in rows if (r["case"], r["side"]) == (case, side) and r.get("value")), None)


def at_least(ratio: float, goal: float | None, whose: str) -> Comparison:
    """Return a comparison of two times, whose ratio should be at least the goal."""
    text = f"{whose} is {ratio:.2f} times as fast"
    return Comparison(text) if goal is None else Comparison(text, f"at least {goal}", ratio >= goal)


def step_goal(case: str, side: str) -> float | None:
    """Return how many times as fast as a peer a captured step should be."""
    size, precision = case.split(", ")
    if side == EAGER:
        exact = {"small": 3.5, "base": 2.2}.get(size)
        if exact:
            return {"float32": exact, "tf32": 3.0, "bf16": 3.0}.get(precision)
        return 1.0 if (size, precision) == ("d 1024", "bf16") else None
    return 0.9 if size in ("small", "base") else None


def of_step(row: Row, parts: Parts) -> Comparison:
    case, side = row["case"], row["side"]
    if side == OURS:
        eager = value_of(parts, "step", case, EAGER)
        goal = 1.0 if case == "small, float32" else None
        return at_least(eager / row["value"], goal, "uncaptured") if eager else Comparison()
    if side == CAPTURED:
        return share(row["flops"] / row["value"], row["precision"], parts)
    ours = value_of(parts, "step", case, CAPTURED)
    whose = "captured"
    if not ours:
        ours, whose = value_of(parts, "step", case, OURS), "tensorlib"
    if not ours:
        return Comparison()
    found = at_least(row["value"] / ours, step_goal(case, side), whose)
    return found if whose == "captured" else Comparison(found.text, found.goal and f"{found.goal}, captured", None)


def share(rate: float, ceiling: str, parts: Parts, goal: float | None = None) -> Comparison:
    """Return the share of a ceiling that was measured in the same run."""
    most = value_of(parts, "ceilings", ceiling, "ceiling")
    if most is None:
        return Comparison()
    text = f"{rate / most:.0%} of {ceiling}"
    return Comparison(text) if goal is None else Comparison(text, f"{goal:.0%}, or a reason", rate >= goal * most)


def of_kernel(row: Row, parts: Parts) -> Comparison:
    if row["unit"] == "B/s":
        return share(row["value"], "copy", parts, goal=0.7)
    return share(row["value"], row["precision"], parts)


def of_decoding(row: Row, parts: Parts) -> Comparison:
    ours = value_of(parts, "decode", row["case"], OURS)
    if row["side"] != MARIAN or not ours:
        return Comparison()
    return at_least(row["value"] / ours, 2.0 if "small, greedy" in row["case"] else None, "tensorlib")


def of_long(row: Row, parts: Parts) -> Comparison:
    case, side = row["case"], row["side"]
    if row["unit"] == "B":
        count = int(case.partition(" ")[0].replace(",", ""))
        half = value_of(parts, "long", case.replace(f"{count:,}", f"{count // 2:,}", 1), side)
        if not half:
            return Comparison()
        text = f"{row['value'] / half:.2f} times that of half the length"
        return Comparison(text, "at most 2.2", row["value"] <= 2.2 * half) if side == OURS else Comparison(text)
    ours = value_of(parts, "long", case, OURS)
    return at_least(row["value"] / ours, None, "tensorlib") if side != OURS and ours else Comparison()


def of_memory(row: Row, parts: Parts) -> Comparison:
    eager = value_of(parts, "memory", row["case"], EAGER)
    return Comparison(f"{row['value'] / eager:.2f} of PyTorch's") if row["side"] != EAGER and eager else Comparison()


def of_multi30k(row: Row, parts: Parts) -> Comparison:
    if row["case"] not in BLEU:
        return Comparison()
    cpu = BLEU[row["case"]]
    return Comparison(f"{row['value'] - cpu:+.2f} from the CPU's", "within 0.5", abs(row["value"] - cpu) <= 0.5)


COMPARED = {
    "step": of_step,
    "kernels": of_kernel,
    "decode": of_decoding,
    "long": of_long,
    "memory": of_memory,
    "multi30k": of_multi30k,
}
