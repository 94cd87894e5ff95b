"""How much work it is for Graphviz to place a view, estimated before it is started."""

from __future__ import annotations

from itertools import accumulate

from tensorlib.graphs.folding import View

__all__ = ["rows_of_boxes", "work_to_place"]


def work_to_place(view: View) -> int:
    """Return the sum over all rows of the square of the number of arrows that pass the row.

    Graphviz puts boxes into rows. An arrow that passes a row takes a place of its own there, and the places of a row
    are compared in pairs, again and again. Arrows between neighboring rows cost little: 1,000 boxes are placed in a
    second where no arrow passes a row. Measured with Graphviz 2.43 (graphviz-pure takes a fifth to all of its time), in
    seconds: 70,000 for 0.3 (a loop that uses one leaf in each of its 60 steps) and for 0.4 (6 layers of a Transformer,
    unfolded), 170,000 for 1.5 (80 steps) and 3.5 (25 steps of a recurrent network), 330,000 for 9 (100 steps), and
    1.1 million for 297 (150 steps).
    """
    rows = rows_of_boxes(view)
    changes = [0] * (max(rows.values(), default=0) + 2)
    for arrow in view.arrows:
        upper, lower = sorted((rows[arrow.tail.key], rows[arrow.head.key]))
        changes[min(upper + 1, lower)] += 1
        changes[lower] -= 1
    return sum(passing * passing for passing in accumulate(changes))


def rows_of_boxes(view: View) -> dict[str, int]:
    """Return the row of each box: below all boxes that point to it. A box that nothing points to is above its heads."""
    heads: dict[str, list[str]] = {box.key: [] for box in view.boxes}
    waits_for = {box.key: 0 for box in view.boxes}
    for arrow in view.arrows:
        heads[arrow.tail.key].append(arrow.head.key)
        waits_for[arrow.head.key] += 1
    first = [key for key, n in waits_for.items() if n == 0]
    rows, pending = dict.fromkeys(heads, 1), list(first)
    while pending:
        key = pending.pop()
        for head in heads[key]:
            rows[head] = max(rows[head], rows[key] + 1)
            waits_for[head] -= 1
            if waits_for[head] == 0:
                pending.append(head)
    for key in first:
        rows[key] = min([rows[head] for head in heads[key]], default=1) - 1
    return rows
