"""Rolling up: of equal consecutive steps, as a loop or a stack of layers records them, one remains, marked with "×6".

The result is a smaller graph, which is folded and drawn as any other. What goes from one step to the next is not drawn;
what comes after the steps follows the one that remains. Values and gradients of this one are ranges over all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tensorlib.graphs.folding import calls_of, levels_of
from tensorlib.graphs.graph import Graph, GraphLeaf, GraphNode, Slot, ValueRef
from tensorlib.graphs.measuring import Measured, joined
from tensorlib.graphs.repeats import Run, find_runs

__all__ = ["common_levels", "rolled_up"]

_NESTED = 3  # how often rolled-up steps are searched for steps of their own


def rolled_up(graph: Graph) -> Graph:
    """Return `graph` with one step of each run: of at least two in numbered modules, or of three of a loop."""
    for _ in range(_NESTED):
        runs = _runs(graph)
        if not runs:
            break
        graph = _Rolling(graph, runs).run()
    return graph


def _runs(graph: Graph) -> list[Run]:
    calls = calls_of(graph, None)
    deepest = max(map(len, calls), default=0)
    for same_shapes in (True, False):
        runs = find_runs(graph, calls, deepest, same_shapes=same_shapes, fewest=2)
        whole = [run._replace(stop=run.start + run.steps * run.period) for run in runs]
        looped = [run for run in whole if _numbered(graph, run) or (run.steps >= 3 and _feeds_the_next(graph, run))]
        if chosen := sorted(looped):
            return chosen
    return []


def _numbered(graph: Graph, run: Run) -> bool:
    """Return whether all nodes of a step are in a module whose number the next step's nodes do not have."""
    return all(
        graph.nodes[n].path != graph.nodes[n + run.period].path for n in range(run.start, run.start + run.period)
    )


def _feeds_the_next(graph: Graph, run: Run) -> bool:
    """Return whether a step uses what the one before it has computed: others only happen to be equal ops."""
    before = range(run.start, run.start + run.period)
    return any(ref.node in before for n in before for ref in graph.nodes[n + run.period].inputs)


class _Rolling:
    def __init__(self, graph: Graph, runs: Sequence[Run]) -> None:
        self.graph = graph
        self.kept = list(range(len(graph)))  # for each node, the one that stands for it
        self.steps = [1] * len(graph)
        self.paths = [node.path for node in graph.nodes]
        self.leaf_for = list(range(len(graph.leaves)))
        self.leaf_names = [leaf.name for leaf in graph.leaves]
        self.users: list[list[int]] = [[] for _ in graph.leaves]
        for node in graph.nodes:
            for ref in node.inputs:
                if ref.leaf is not None and node.number not in self.users[ref.leaf][-1:]:
                    self.users[ref.leaf].append(node.number)
        for run in runs:
            self.roll(run)
        self.numbers = {n: k for k, n in enumerate(n for n, kept in enumerate(self.kept) if n == kept)}

    def roll(self, run: Run) -> None:
        first = range(run.start, run.start + run.period)
        common = common_levels([levels_of(self.graph.nodes[n].path) for n in first])
        for n in first:
            self.paths[n] = self.path_of(n, run, common)
            for later in range(n + run.period, run.stop, run.period):
                self.kept[later] = n
                self.steps[n] += 1
        self.roll_leaves(run)

    def path_of(self, number: int, run: Run, common: tuple[str, ...]) -> str:
        """Return the path with "layers ×6" for "layers.0", or with a level of its own for the steps of a loop."""
        own, other = [levels_of(self.graph.nodes[n].path) for n in (number, number + run.period)]
        mark = f"×{run.steps}"
        for k, (a, b) in enumerate(zip(own, other, strict=False)):
            if a != b:
                name = a.rpartition(".")[0] or a
                return ".".join([*own[:k], f"{name} {mark}", *own[k + 1 :]])
        return ".".join([*common, f"steps {mark}", *own[len(common) :]])

    def roll_leaves(self, run: Run) -> None:
        """Let a leaf that only one step uses stand for those that the other steps use in its place."""
        for n in range(run.start, run.start + run.period):
            for position, ref in enumerate(self.graph.nodes[n].inputs):
                if ref.leaf is None or self.steps_that_use(ref.leaf, run) != {0}:
                    continue
                for step in range(1, run.steps):
                    other = self.graph.nodes[n + step * run.period].inputs[position].leaf
                    if other is not None and self.steps_that_use(other, run) == {step}:
                        self.leaf_for[other] = ref.leaf
                name, path = self.leaf_names[ref.leaf], self.graph.nodes[n].path
                levels, marked = levels_of(path), levels_of(self.paths[n])
                for k, (a, b) in enumerate(zip(levels, marked, strict=False)):
                    old, new = ".".join(levels[: k + 1]), ".".join(marked[: k + 1])
                    if a != b and name.startswith(f"{old}."):
                        self.leaf_names[ref.leaf] = f"{new}.{name[len(old) + 1 :]}"
                        break

    def steps_that_use(self, leaf: int, run: Run) -> set[int]:
        """Return the steps of the run that use a leaf; -1 alone if a node outside the run uses it."""
        users = self.users[leaf]
        if users[0] < run.start or users[-1] >= run.stop:  # most leaves of a loop, such as its weights, at once
            return {-1}
        return {(n - run.start) // run.period for n in users}

    def run(self) -> Graph:
        graph = Graph(passes=self.graph.passes)
        inputs: dict[int, list[ValueRef]] = {n: [] for n in self.numbers}
        for node in self.graph.nodes:
            inputs[self.kept[node.number]] += self.inputs_of(node, inputs[self.kept[node.number]])
        used = {ref.leaf for refs in inputs.values() for ref in refs} | {ref.leaf for ref in self.graph.outputs}
        leaf_numbers: dict[int | None, int | None] = {None: None}
        for leaf in self.graph.leaves:
            if leaf.number in used and self.leaf_for[leaf.number] == leaf.number:
                leaf_numbers[leaf.number] = len(graph.leaves)
                graph.leaves.append(self.leaf(leaf, len(graph.leaves)))

        def moved(ref: ValueRef) -> ValueRef:
            node = None if ref.node is None else self.numbers[self.kept[ref.node]]
            return ref._replace(node=node, leaf=leaf_numbers[ref.leaf])

        for n, number in self.numbers.items():
            node, times = self.graph.nodes[n], self.steps[n]
            refs = tuple([moved(ref) for ref in inputs[n]])
            bytes_, flops = node.saved_bytes * times, node.flops * times
            changed = replace(node, number=number, path=self.paths[n], inputs=refs, saved_bytes=bytes_, flops=flops)
            changed.times *= times
            graph.nodes.append(changed)
        graph.outputs = tuple(dict.fromkeys(moved(ref) for ref in self.graph.outputs))
        graph.values = self.measured(self.graph.values, leaf_numbers)
        graph.gradients = self.measured(self.graph.gradients, leaf_numbers)
        return graph

    def inputs_of(self, node: GraphNode, present: Sequence[ValueRef]) -> list[ValueRef]:
        """Return the inputs of a kept node; of one that it stands for, those that come from elsewhere."""
        refs = [ref if ref.leaf is None else ref._replace(leaf=self.leaf_for[ref.leaf]) for ref in node.inputs]
        kept = self.kept[node.number]
        if kept == node.number:
            return refs
        known = {(ref.leaf, None if ref.node is None else self.kept[ref.node]) for ref in present}
        outside = [ref for ref in refs if ref.number is None and (ref.leaf is not None or ref.node is not None)]
        return [
            ref
            for ref in outside
            if (ref.leaf, None if ref.node is None else self.kept[ref.node]) not in known
            and (ref.node is None or self.kept[ref.node] < kept)  # not what the step before it delivers
        ]

    def leaf(self, leaf: GraphLeaf, number: int) -> GraphLeaf:
        times = sum(self.graph.leaves[n].times for n, kept in enumerate(self.leaf_for) if kept == leaf.number)
        return replace(leaf, number=number, name=self.leaf_names[leaf.number], times=times)

    def measured(self, found: dict[Slot, Measured], leaf_numbers: dict[int | None, int | None]) -> dict[Slot, Measured]:
        parts: dict[Slot, list[Measured]] = {}
        for (kind, number, output), one in found.items():
            assert number is not None
            if kind == "node":
                parts.setdefault(("node", self.numbers[self.kept[number]], output), []).append(one)
            elif (leaf := leaf_numbers.get(self.leaf_for[number])) is not None:
                parts.setdefault(("leaf", leaf, 0), []).append(one)
        return {slot: joined(ones) for slot, ones in parts.items()}


def common_levels(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the levels that all paths begin with."""
    shortest = min(paths, key=len)
    n = 0
    while n < len(shortest) and all(path[n] == shortest[n] for path in paths):
        n += 1
    return shortest[:n]
