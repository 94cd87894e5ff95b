"""The table of a run in Markdown, and what failed in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu.goals import Comparison, comparison

__all__ = ["failures", "markdown"]

HEADS = ("part", "case", "side", "figure", "compared", "goal")
UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 0.0))

Row = Mapping[str, Any]
Parts = Mapping[str, Mapping[str, Any]]


def markdown(results: Mapping[str, Any]) -> str:
    """Return the report: what it ran on, a summary, and one table with a row for each result of each part."""
    parts, rehearsal = results["parts"], results["rehearsal"]
    compared = [
        (name, row, Comparison() if rehearsal else comparison(name, row, parts))
        for name, part in parts.items()
        for row in part["rows"]
    ]
    lines = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    for name, part in parts.items():
        if part["error"]:
            lines.append(line(name, "", "", f"{part['state']}: {part['error']}", "", ""))
        lines += [
            line(name, row["case"], row["side"], figure(row), found.text, goal(found))
            for part_name, row, found in compared
            if part_name == name
        ]
    missed = [f"{name}: {row['case']}, {row['side']}" for name, row, found in compared if found.reached is False]
    reached = sum(found.reached is True for *_, found in compared)
    summary = [
        f"{results['seconds']:.0f} s: " + ", ".join(f"{name} {part['seconds']:.0f}" for name, part in parts.items()),
        f"goals: {reached} reached, {len(missed)} missed{': ' if missed else ''}{'; '.join(missed)}",
        f"failed: {'; '.join(failures(parts)) or 'nothing'}",
    ]
    title = "# A rehearsal on the CPU: no figure means anything" if rehearsal else "# On a GPU"
    return "\n".join([title, "", *machine(results["about"]), "", *summary, "", *lines, ""]).replace("\n\n\n", "\n\n")


def failures(parts: Parts) -> list[str]:
    """Return what failed or ran out of time; what is missing is no failure."""
    found = [f"{name} ({part['state']})" for name, part in parts.items() if part["error"]]
    for name, part in parts.items():
        found += [f"{name}: {row['case']}, {row['side']}" for row in part["rows"] if "failed" in row]
    return found


def machine(about: Mapping[str, Any]) -> list[str]:
    """Return lines about the card, its clocks, and the versions."""
    card = ", ".join(f"{name} {value}" for name, value in about["card"].items()) or "no card that nvidia-smi knows"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return [card, f"{about['machine']}, Python {about['python']}, {versions}", f"commit {about['commit'] or 'unknown'}"]


def line(*cells: str) -> str:
    """Return a row of the table."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def goal(found: Comparison) -> str:
    """Return the goal, and whether it is reached."""
    if found.reached is None:
        return found.goal
    return f"{found.goal}: {'reached' if found.reached else '**missed**'}"


def figure(row: Row) -> str:
    """Return the figure of a row as text, or why there is none."""
    for kind in ("failed", "missing"):
        if kind in row:
            return f"{kind}: {row[kind]}"
    if "text" in row:
        return row["text"]
    text = amount(row["value"], row["unit"])
    if "least" in row and row["value"]:
        text += f" ({amount(row['least'], 's')} .. {amount(row['most'], 's')})"
    if "tokens" in row:
        text += f", {row['tokens'] / row['value']:,.0f} tokens/s"
    if row.get("generated"):
        text += f", {row['result'] / row['value']:,.0f} tokens/s"
    if "flops" in row:
        text += f", {amount(row['flops'] / row['value'], 'FLOP/s')}"
    if row.get("clocks"):
        text += f", at {row['clocks']['clocks.sm']}"
    if "seconds" in row:
        text += f", {amount(row['seconds'], 's')}"
    return text


def amount(value: float, unit: str) -> str:
    """Return a number with its unit, in three digits: 3.41 ms, 2.95 TB/s, 812 MB."""
    if unit == "s":
        scales = ((1, "s", 1), (1e3, "ms", 1e-3), (1e6, "us", 0))
        factor, unit = next((f, u) for f, u, least in scales if value >= least)
        return f"{value * factor:.3g} {unit}" if value * factor < 1000 else f"{value * factor:.0f} {unit}"
    if unit not in ("B", "B/s", "FLOP/s"):
        return f"{value:.4g} {unit}"
    prefix, scale = next((p, s) for p, s in UNITS if value >= s)
    return f"{value / (scale or 1):.3g} {prefix}{unit}"
