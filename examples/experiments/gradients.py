"""Vanishing and exploding gradients: how far back a recurrent network can learn, and why.

The adding problem (Hochreiter and Schmidhuber 1997): a sequence of random numbers, two of them marked; the answer is
the sum of the two. Copying from memory: five symbols, then many blanks; the answer is the five symbols. Both need the
beginning of the sequence at its end, and a longer sequence makes them harder.

    python examples/experiments/gradients.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from learning import fit, smooth
from page import Page, Results, arguments, figure, whole
from page import run as experiment
from runs import settings

import nn
import tensorlib as tl
from models.architectures.transformer import Encoder, TransformerConfig
from nn import optim

KINDS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM, "Transformer": None}
COLORS = dict(zip(KINDS, ("tab:red", "tab:orange", "tab:blue", "tab:green"), strict=True))
GATED = ("GRU", "LSTM")
SOLVED = 0.01  # mean squared error; always answering the mean, 1, gives 1/6
SYMBOLS, REMEMBERED = 8, 5


class Reader(nn.Module):
    """Reads a sequence (B, T, C) with one recurrent layer, or two Transformer layers, then applies a linear layer.

    With a `length` T, the biases of the gates of a GRU or LSTM let memory last for times up to T (Tallec and Ollivier
    2018, section 2): forget = -input = log u with u uniform on [1, T), to T - 1 in the paper. Without one, they are the
    library's usual ones.
    """

    def __init__(self, kind: str, channels: int, width: int, outputs: int, length: int | None = None) -> None:
        self.kind, generator = kind, tl.Generator(0)
        if kind == "Transformer":
            config = TransformerConfig(1, 1, 2, width, 4, 2 * width, dropout=0.0, norm="pre")
            self.input = nn.Linear(channels, width, generator=generator)
            self.positions = nn.SinusoidalPositions(width)
            self.layers = Encoder(config, generator)
        else:
            self.layers = KINDS[kind](channels, width, generator=generator)
            if length and kind in GATED:
                times = np.log(np.random.default_rng(0).uniform(1, length, width)).astype(np.float32)
                zeros = np.zeros(width, np.float32)
                gates = {"GRU": [zeros, times, zeros], "LSTM": [-times, times, zeros, zeros]}
                self.layers.cells[0].bias.replace(np.concatenate(gates[kind]))
        self.output = nn.Linear(width, outputs, generator=generator)

    def states(self, x_BTC: tl.Tensor) -> tuple[list[list[tl.Tensor]], tl.Tensor]:
        """Return the state after each step, as the Tensors that hold it, and the last step's output.

        A Transformer's state at a step is the output of its first layer there.
        """
        steps = x_BTC.shape[1]
        if self.kind == "Transformer":
            first, second = self.layers.layers
            visible = tl.ones((1, 1, 1, steps), dtype="bool")
            parts = tl.split(first(self.positions(self.input(x_BTC)), visible), steps, axis=1)
            h_BTH = self.layers.norm(second(tl.concatenate(parts, axis=1), visible))
            return [[part] for part in parts], self.output(h_BTH[:, -1])
        states, state = [], None
        for t in range(steps):
            _, state = self.layers(x_BTC[:, t : t + 1], state)
            states.append(list(state) if isinstance(state, tuple) else [state])
        return states, self.output(states[-1][0][0])

    def forward(self, x_BTC: tl.Tensor) -> tl.Tensor:
        """Return the outputs (B, T, O)."""
        if self.kind != "Transformer":
            return self.output(self.layers(x_BTC)[0])
        visible = tl.ones((1, 1, 1, x_BTC.shape[1]), dtype="bool")
        return self.output(self.layers(self.positions(self.input(x_BTC)), visible))


def adding(count: int, length: int, random: np.random.Generator) -> tuple[tl.Tensor, tl.Tensor]:
    """Return sequences (B, T, 2) of numbers and marks, one mark in each half, and the sums (B) of what is marked."""
    x = np.zeros((count, length, 2), np.float32)
    x[..., 0] = random.random((count, length))
    half = length // 2
    for column in (random.integers(half, size=count), random.integers(half, length, size=count)):
        x[np.arange(count), column, 1] = 1
    return tl.Tensor(x), tl.Tensor((x[..., 0] * x[..., 1]).sum(axis=1))


def copying(count: int, blanks: int, random: np.random.Generator) -> tuple[tl.Tensor, np.ndarray]:
    """Return one-hot sequences of symbols, blanks and a request for each symbol, and the symbols (B, 5)."""
    symbols = random.integers(SYMBOLS, size=(count, REMEMBERED))
    ids = np.full((count, blanks + 2 * REMEMBERED), SYMBOLS)
    ids[:, :REMEMBERED], ids[:, -REMEMBERED:] = symbols, SYMBOLS + 1
    return tl.Tensor(np.eye(SYMBOLS + 2, dtype=np.float32)[ids]), symbols


def adding_loss(model: Reader, count: int, length: int, random: np.random.Generator) -> tl.Tensor:
    """Return the mean squared error of the last output on new sequences."""
    x_BTC, sum_B = adding(count, length, random)
    return ((model(x_BTC)[:, -1, 0] - sum_B) ** 2).mean()


def flow(model: Reader, length: int, seed: int) -> list[float]:
    """Return the norm of d loss / d state at each step of the adding problem, relative to the last step's.

    It is the mean of the norms of 32 sequences.
    """
    count = 32
    x_BTC, sum_B = adding(count, length, np.random.default_rng(seed))
    states, last_B1 = model.states(x_BTC)
    for state in states:
        for part in state:
            part.retain_grad()
    ((last_B1[:, 0] - sum_B) ** 2).sum().backward()
    norms = []
    for state in states:
        # In float64, because the squares of the smallest ones are below what float32 can hold.
        gradients = [part.grad.numpy().reshape(count, -1).astype(float) for part in state if part.grad is not None]
        norms.append(float(np.mean(np.sqrt(sum((g * g).sum(axis=1) for g in gradients)))))
    model.zero_grad()
    return [norm / norms[-1] for norm in norms]


def run_adding(kind: str, length: int, o: Any, long_memory: bool = True) -> dict[str, Any]:
    """Train on the adding problem; measure the flow of gradients before and after.

    With `long_memory` the biases of the gates are chosen for this length.
    """
    random = np.random.default_rng(1)
    model = Reader(kind, 2, o.width, 1, length if long_memory else None)
    before = flow(model, length, seed=2)
    found = fit(
        model,
        lambda step: adding_loss(model, o.batch, length, random),
        o.steps,
        rate=3e-3,
        good_enough=SOLVED / 3,
        falling=False,
    )
    with tl.no_grad():
        error = float(adding_loss(model, 1000, length, np.random.default_rng(3)).item())
    flows = {"before": before, "after": flow(model, length, seed=2)}
    return {
        "error": error,
        "steps": len(found["losses"]),
        "seconds": found["seconds"],
        "losses": found["losses"],
        **flows,
    }


def run_copying(kind: str, blanks: int, o: Any) -> dict[str, Any]:
    """Train on copying from memory; measure the fraction of symbols that are right."""
    random = np.random.default_rng(1)
    model = Reader(kind, SYMBOLS + 2, o.width, SYMBOLS, blanks)

    def loss(step: int) -> tl.Tensor:
        x_BTC, symbols = copying(o.batch, blanks, random)
        return tl.cross_entropy(model(x_BTC)[:, -REMEMBERED:], symbols)

    found = fit(model, loss, o.steps, rate=3e-3, good_enough=0.02, falling=False)
    x_BTC, symbols = copying(500, blanks, np.random.default_rng(3))
    with tl.no_grad():
        right = float((model(x_BTC)[:, -REMEMBERED:].argmax(axis=-1).numpy() == symbols).mean())
    return {"right": right, "steps": len(found["losses"]), "seconds": found["seconds"]}


def run_clipping(clip: float, o: Any) -> dict[str, Any]:
    """Train an RNN of rectified units that begins with the identity (Le, Jaitly and Hinton 2015), by plain SGD.

    Measure the flow of gradients before and after.
    """
    random = np.random.default_rng(1)
    width, length, rate = 32, 50, 0.01
    model = Reader("RNN", 2, width, 1, length)
    model.layers = nn.RNN(2, width, activation="relu", generator=tl.Generator(0))
    model.layers.cells[0].weight_h.replace(np.eye(width, dtype=np.float32))
    before = flow(model, length, seed=2)
    found = fit(
        model,
        lambda step: adding_loss(model, o.batch, length, random),
        min(o.steps, 1000),
        rate,
        warmup=1,
        clip=clip,
        optimizer=optim.SGD,
        falling=False,
    )
    after = flow(model, length, seed=2)
    return {"losses": found["losses"], "norms": found["norms"], "before": before, "after": after}


def new_flows(results: dict[str, Any], longest: int) -> dict[str, list[float]]:
    """Return the flow of the gradient in new networks, GRU and LSTM with both kinds of biases."""
    flows = {}
    for kind in KINDS:
        found = results[f"adding, {kind}, length {longest}"]["before"]
        if kind in GATED:
            flows |= {f"{kind}, usual biases": results[f"new {kind}, usual biases, length {longest}"]["flow"]}
        flows[f"{kind}, biases for this length" if kind in GATED else kind] = found
    return flows


def findings(results: dict[str, Any], o: Any) -> list[str]:
    """Return what was found, in sentences that hold whatever the numbers are."""
    longest = o.lengths[-1]
    errors = {kind: results[f"adding, {kind}, length {longest}"]["error"] for kind in KINDS}
    solved = [kind for kind in KINDS if errors[kind] < SOLVED]
    failed = [kind for kind in KINDS if kind not in solved]
    first = {name: _short(flow[0]) for name, flow in new_flows(results, longest).items()}
    usual, given = (results[f"adding, LSTM, {name}length {longest}"] for name in ("usual biases, ", ""))
    clipped, free = results["clipping at 1"], results["no clipping"]
    return [
        f"The gradient at the first of {longest} steps, relative to that at the last one, before any training: "
        f"{'; '.join(f'{name} {value}' for name, value in first.items())}.",
        f"The GRU and LSTM that were trained have biases for this length: their initialisation knows that the task "
        f"has {longest} steps. The RNN and the Transformer know nothing of it.",
        f"The adding problem at length {longest}: solved, which is a mean squared error below {SOLVED}, by "
        f"{', '.join(solved) or 'no network'}{'; not solved by ' + ', '.join(failed) if failed else ''}. An LSTM with "
        f"the usual biases ends with an error of {_error(usual)}, with biases for this length {_error(given)}.",
        f"An RNN of rectified units without clipping: the largest norm of a gradient is {_most(free['norms'])}, the "
        f"largest loss {_most(free['losses'])}, that of the first step {_short(free['losses'][0])}. Clipped at 1, the "
        f"largest loss is {_most(clipped['losses'])}.",
    ]


def show(results: dict[str, Any], o: Any) -> None:
    """Write the page."""
    page, longest = Page("How far back can a recurrent network learn?"), o.lengths[-1]
    added = {(kind, n): results[f"adding, {kind}, length {n}"] for kind in KINDS for n in o.lengths}
    copied = {(kind, n): results[f"copying, {kind}, {n} blanks"] for kind in KINDS for n in o.blanks}
    clipped, free, flows = results["clipping at 1"], results["no clipping"], new_flows(results, longest)
    page.findings(findings(results, o))
    page.heading("The gradient on its way back")
    page.text(
        f"""The norm of d loss / d h at each step of the adding problem, where h is everything the network keeps from
        one step to the next (for an LSTM h and c; for a Transformer the output of its first layer at that position). A
        step multiplies the gradient by the Jacobian of one step. If its largest singular value is below 1, the product
        shrinks exponentially with distance. Attention reaches every position in one step.

        A gate does not keep the gradient by itself: its bias decides the factor. An LSTM's cell is c = f c' + i g with
        f = sigmoid(b + ...), so that the gradient of c' is about sigmoid(b) of that of c; a GRU's update gate is the
        same. With the usual bias, 0 for the GRU and 1 for the LSTM, that is 0.50 and 0.73; the power of {longest} of
        either is small. The factors in the table are those of all paths together, through h too. The networks that are
        trained here have b = log u instead, with u drawn uniformly from 1 to the number of steps, so that
        sigmoid(b) = u / (1 + u), and some units forget hardly anything over the whole sequence (Tallec and Ollivier
        2018). Such biases need to know how long the task is.

        The factor of a step in the table is the geometric mean over all steps. A gradient of 0 is smaller than float32
        can hold."""
    )
    rows = [[name, _short(flow[0]), _factor(flow)] for name, flow in flows.items()]
    page.table([f"new networks, length {longest}", "gradient at the first step", "factor of a step"], rows)
    made, axes = figure(2, sharey=True)
    trained = {kind: added[kind, longest]["after"] for kind in KINDS}
    for ax, title, drawn in zip(axes, ("new networks", "trained networks"), (flows, trained), strict=True):
        for name, flow in drawn.items():
            norms = np.array(flow)
            norms[norms == 0] = np.nan  # smaller than float32 can hold
            style = ":" if name.endswith("usual biases") else "-"
            ax.semilogy(np.arange(len(norms))[::-1], norms, style, label=name, color=COLORS[name.split(",")[0]])
        ax.set(title=title, xlabel="distance from the last step")
    axes[0].set(ylabel="gradient norm, relative to the last step")
    axes[0].legend(fontsize=7)
    page.figure(
        made,
        f"Adding problem at length {longest}. Dotted: the library's usual biases. The trained GRU and LSTM began with "
        "biases for this length.",
    )
    page.heading("The adding problem")
    rows = [[kind, *(_error(added[kind, n]) for n in o.lengths)] for kind in KINDS]
    usual = results[f"adding, LSTM, usual biases, length {longest}"]
    rows.append(["LSTM, usual biases", *[""] * (len(o.lengths) - 1), _error(usual)])
    page.table(["mean squared error", *(f"length {n}" for n in o.lengths)], rows)
    page.text(
        f"Always answering 1 gives 0.167. Training stops at an error below {SOLVED / 3:.4f} or after {o.steps} steps. "
        "GRU and LSTM begin with biases for the length, if nothing else is said."
    )
    made, axes = figure(len(o.lengths), sharey=True)
    for ax, n in zip(axes, o.lengths, strict=True):
        for kind in KINDS:
            ax.plot(smooth(added[kind, n]["losses"]), label=kind, color=COLORS[kind])
        ax.set(title=f"length {n}", xlabel="step", yscale="log")
    axes[0].set(ylabel="mean squared error")
    axes[0].legend()
    page.figure(made, "The error while training, a mean of 50 steps.")
    page.heading("Copying from memory")
    rows = [
        [kind, *(f"{copied[kind, n]['right']:.1%} ({copied[kind, n]['steps']})" for n in o.blanks)] for kind in KINDS
    ]
    page.table(["symbols right", *(f"{n} blanks" for n in o.blanks)], rows)
    page.text(f"A guess is right in {1 / SYMBOLS:.1%} of cases.")
    page.heading("Exploding gradients, and clipping")
    page.text(
        "An RNN of rectified units whose recurrent matrix begins as the identity, trained by plain SGD on the adding "
        "problem at length 50. Nothing bounds its states or their gradients. Clipping scales a gradient whose norm is "
        "above 1 down to 1 (Pascanu, Mikolov and Bengio 2013)."
    )
    made, axes = figure(3)
    distances = np.arange(len(free["before"]))[::-1]
    for name, found in (("no clipping", free), ("clipped at 1", clipped)):
        axes[0].semilogy(found["norms"], label=name, linewidth=0.8)
        axes[1].semilogy(smooth(found["losses"]), label=name)
        axes[2].semilogy(distances, found["after"], label=name)
    axes[2].semilogy(distances, free["before"], ":", color="gray", label="new network")
    axes[0].set(xlabel="step", title="gradient norm")
    axes[1].set(xlabel="step", title="squared error")
    axes[2].set(xlabel="distance from the last step", title="norm by distance")
    axes[2].legend(fontsize=7)
    page.figure(
        made,
        "The same network and data, with and without clipping: the gradient's norm before clipping, the error as a mean"
        " of 50 steps, and d loss / d h relative to the last step, of the trained networks and a new one. Clipping "
        "changes the length of the whole gradient, not how it spreads over distance; it changes what is learned.",
    )
    page.write(o.out / "page.html")


def _short(value: float) -> str:
    if value == 0 or 0.01 <= value < 10:
        return f"{value:.2g}"
    return f"{value:.0f}" if 10 <= value < 1000 else f"{value:.0e}"


def _factor(flow: list[float]) -> str:
    return f"{flow[0] ** (1 / (len(flow) - 1)):.3f}" if flow[0] else "-"


def _most(values: list[float]) -> str:
    return _short(max(values)) if np.isfinite(values).all() else "more than float32 can hold"


def _error(found: dict[str, Any]) -> str:
    return f"{found['error']:.4f} ({found['steps']} steps)"


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = arguments(__doc__, "gradients")
    parser.add_argument("--width", type=whole(4, 4), default=64)
    parser.add_argument("--batch", type=whole(1), default=32)
    parser.add_argument("--steps", type=whole(1), default=2000)
    parser.add_argument("--lengths", type=whole(2), nargs="+", default=[50, 100, 200], help="of the adding problem")
    parser.add_argument("--blanks", type=whole(1), nargs="+", default=[10, 50, 100], help="of copying from memory")
    o = parser.parse_args()
    results = Results(o.out / "results.jsonl", settings(o))
    for clip, name in ((1.0, "clipping at 1"), (0.0, "no clipping")):
        results.measure(name, lambda clip=clip: run_clipping(clip, o))
    for kind in KINDS:
        for n in o.lengths:
            results.measure(f"adding, {kind}, length {n}", lambda kind=kind, n=n: run_adding(kind, n, o))
        for n in o.blanks:
            results.measure(f"copying, {kind}, {n} blanks", lambda kind=kind, n=n: run_copying(kind, n, o))
    n = o.lengths[-1]
    for kind in GATED:
        results.measure(
            f"new {kind}, usual biases, length {n}",
            lambda kind=kind: {"flow": flow(Reader(kind, 2, o.width, 1), n, seed=2)},
        )
    results.measure(f"adding, LSTM, usual biases, length {n}", lambda: run_adding("LSTM", n, o, long_memory=False))
    show(results.values, o)


if __name__ == "__main__":
    experiment(main)
