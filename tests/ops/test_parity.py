"""Against PyTorch, in float64 with copied weights: forward, all gradients, and 60 steps of each optimizer.

Needs the extra `peers`; skipped where PyTorch is not installed. Weights: our Linear is (in, out), PyTorch's (out, in);
both pack the projections for queries, keys and values in this order, ours by columns and PyTorch's by rows.
"""

import math

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig
from nn import optim

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'tensorlib[peers]'")
F = torch.nn.functional
torch.set_num_threads(1)  # for tensors this small, dispatching to threads would take most of the time

pytestmark = pytest.mark.peers

# At the first attention and the first step PyTorch imports further modules, which set an environment variable and a
# warning filter. Trigger that here: in a test, conftest would report it as a leak.
_weight = torch.nn.Parameter(torch.zeros(1, 1, 2))
torch.nn.MultiheadAttention(2, 1)(_weight, _weight, _weight)[0].sum().backward()
torch.optim.SGD([_weight]).step()

RELATIVE = 1e-9
PAD, BOS, EOS = 0, 2, 3


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def close(ours, theirs, what=""):
    """Assert agreement to 1e-9 of the largest element, and that the arrays are not trivial."""
    ours = ours.numpy() if isinstance(ours, tl.Tensor) else ours
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape, what
    scale = np.abs(theirs).max(initial=0)
    assert scale > 0, f"{what} is all zero, which shows nothing"
    error = np.abs(ours - theirs).max() / scale
    assert error < RELATIVE, f"{what}: relative error {error:.1e}"
    return error


def both(*arrays):
    """Return leaves of both libraries, requiring gradients, with the same values."""
    return (
        [tl.Tensor(a, requires_grad=True) for a in arrays],
        [torch.tensor(a, requires_grad=True) for a in arrays],
    )


def scrambled(module, seed=3):
    """Convert to float64 and move every parameter away from its initial value."""
    module.astype("float64")
    rng = np.random.default_rng(seed)
    module.load_state_dict({n: a + 0.2 * rng.standard_normal(a.shape) for n, a in module.state_dict().items()})
    return module


# ---- weights from one library to the other: {name in PyTorch: array in PyTorch's layout} ---------------------------


def linear(state, ours, theirs):
    return {f"{theirs}.weight": state[f"{ours}.weight"].T, f"{theirs}.bias": state[f"{ours}.bias"]}


def norm(state, ours, theirs):
    return {f"{theirs}.weight": state[f"{ours}.weight"], f"{theirs}.bias": state[f"{ours}.bias"]}


def attention(state, ours, theirs):
    return {
        f"{theirs}in_proj_weight": state[f"{ours}projection.weight"].T,
        f"{theirs}in_proj_bias": state[f"{ours}projection.bias"],
        **linear(state, f"{ours}output", f"{theirs}out_proj"),
    }


def layer(state, ours, theirs, cross):
    """Translate one encoder or decoder layer. PyTorch numbers the norms in the order of the sub-layers."""
    sublayers = ["attention", "cross_attention", "feed_forward"] if cross else ["attention", "feed_forward"]
    found = {
        **attention(state, f"{ours}.attention.", f"{theirs}.self_attn."),
        **linear(state, f"{ours}.feed_forward.hidden", f"{theirs}.linear1"),
        **linear(state, f"{ours}.feed_forward.output", f"{theirs}.linear2"),
    }
    if cross:
        found |= attention(state, f"{ours}.cross_attention.", f"{theirs}.multihead_attn.")
    for i, sublayer in enumerate(sublayers, start=1):
        found |= norm(state, f"{ours}.{sublayer}_residual.norm", f"{theirs}.norm{i}")
    return found


def transformer(state, config):
    """Translate the state, or the gradients, of a whole model."""
    found = {"source.weight": state["source_embedding.weight"]}
    if not config.tie_embeddings:
        found["target.weight"] = state["target_embedding.weight"]
        found["output.weight"] = state["output.weight"].T
    for stack, cross in (("encoder", False), ("decoder", True)):
        for i in range(config.layers):
            found |= layer(state, f"{stack}.layers.{i}", f"{stack}.layers.{i}", cross)
        if config.norm == "pre":
            found |= norm(state, f"{stack}.norm", f"{stack}.norm")
    return found


def load(peer, arrays):
    peer.load_state_dict({name: torch.tensor(a) for name, a in arrays.items()})


def gradients(module):
    return {name: p.grad.numpy() for name, p in module.named_parameters()}


# ---- layers ----

VISIBLE = {
    "all": np.ones((2, 1, 3, 3), bool),
    "causal": np.broadcast_to(np.tri(3, dtype=bool), (2, 1, 3, 3)),
    "padding": np.broadcast_to(nn.padding_mask([3, 2]).numpy(), (2, 1, 3, 3)),
    "causal and padding": (nn.causal_mask(3) & nn.padding_mask([2, 3])).numpy(),
}


@pytest.mark.parametrize("mask", VISIBLE)
@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
def test_multi_head_attention(mask, cross):
    ours = scrambled(nn.MultiHeadAttention(6, 3))
    peer = torch.nn.MultiheadAttention(6, 3, batch_first=True, dtype=torch.float64)
    load(peer, attention(ours.state_dict(), "", ""))
    (x, memory), (tx, tmemory) = both(normal(2, 3, 6), normal(2, 3, 6, seed=2))
    visible = VISIBLE[mask]
    hidden = torch.tensor(~np.repeat(visible, 3, axis=1).reshape(6, 3, 3))
    tm = tmemory if cross else tx
    y, weights = ours(x, memory if cross else None, tl.Tensor(visible), return_weights=True)
    ty, tweights = peer(tx, tm, tm, attn_mask=hidden, average_attn_weights=False)
    close(y, ty)
    close(weights, tweights)
    dy = normal(2, 3, 6, seed=4)
    y.backward(tl.Tensor(dy))
    ty.backward(torch.tensor(dy))
    close(x.grad, tx.grad)
    if cross:
        close(memory.grad, tmemory.grad)
    expected = {name: p.grad.numpy() for name, p in peer.named_parameters()}
    # The true gradient of the keys' bias is zero, as softmax is invariant to a shift: compare with its whole vector.
    for name, array in attention(gradients(ours), "", "").items():
        close(array, expected[name], name)


def test_layer_norm():
    ours = scrambled(nn.LayerNorm(5))
    peer = torch.nn.LayerNorm(5, dtype=torch.float64)
    load(peer, ours.state_dict())
    (x,), (tx,) = both(normal(2, 3, 5))
    y, ty = ours(x), peer(tx)
    close(y, ty)
    dy = normal(2, 3, 5, seed=4)
    y.backward(tl.Tensor(dy))
    ty.backward(torch.tensor(dy))
    close(x.grad, tx.grad)
    for name, p in peer.named_parameters():
        close(gradients(ours)[name], p.grad, name)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore_index", [-100, 0])
def test_cross_entropy(smoothing, reduction, ignore_index):
    (x,), (tx,) = both(3 * normal(4, 5, 7))
    targets = np.random.default_rng(0).integers(0, 7, (4, 5))
    targets[:, 3:] = 0
    loss = tl.cross_entropy(x, targets, ignore_index, smoothing, reduction)
    tloss = F.cross_entropy(
        tx.transpose(1, 2), torch.tensor(targets), ignore_index=ignore_index, label_smoothing=smoothing,
        reduction=reduction,
    )  # fmt: skip
    close(loss, tloss)
    dy = normal(*loss.shape, seed=4)
    loss.backward(tl.Tensor(dy))
    tloss.backward(torch.tensor(dy))
    close(x.grad, tx.grad)


# ---- the whole model ----


class Peer(torch.nn.Module):
    """The same encoder-decoder from PyTorch's layers, with a final norm for norm="pre" only."""

    def __init__(self, config):
        super().__init__()
        width, pre = config.width, config.norm == "pre"
        options = {"dropout": 0.0, "batch_first": True, "norm_first": pre}
        shape = (width, config.heads, config.feed_forward)

        def last():
            return torch.nn.LayerNorm(width) if pre else None

        self.source = torch.nn.Embedding(config.source_vocabulary, width)
        self.encoder = torch.nn.TransformerEncoder(
            torch.nn.TransformerEncoderLayer(*shape, **options), config.layers, last(), enable_nested_tensor=False
        )
        self.decoder = torch.nn.TransformerDecoder(
            torch.nn.TransformerDecoderLayer(*shape, **options), config.layers, last()
        )
        if not config.tie_embeddings:
            self.target = torch.nn.Embedding(config.target_vocabulary, width)
            self.output = torch.nn.Linear(width, config.target_vocabulary, bias=False)
        self.tied, self.root = config.tie_embeddings, math.sqrt(width)
        self.double()

    def forward(self, source, target, table):
        hidden = source == PAD
        later = torch.triu(torch.ones(target.shape[1], target.shape[1], dtype=torch.bool), 1)
        embedding = self.source if self.tied else self.target
        x = self.source(source) * self.root + table[: source.shape[1]]
        y = embedding(target) * self.root + table[: target.shape[1]]
        memory = self.encoder(x, src_key_padding_mask=hidden)
        y = self.decoder(y, memory, tgt_mask=later, memory_key_padding_mask=hidden)
        return y @ self.source.weight.T if self.tied else self.output(y)


def models(norm, tied, seed=3):
    config = TransformerConfig(
        source_vocabulary=9, target_vocabulary=9, layers=2, width=8, heads=2, feed_forward=12, dropout=0.0, norm=norm,
        tie_embeddings=tied,
    )  # fmt: skip
    ours, peer = scrambled(Transformer(config), seed), Peer(config)
    load(peer, transformer(ours.state_dict(), config))
    return config, ours, peer, torch.tensor(ours.source_positions.table.numpy())


SOURCE = np.array([[4, 5, 6, 7, EOS], [8, EOS, PAD, PAD, PAD], [5, 5, 4, EOS, PAD]])
TARGET = np.array([[BOS, 5, 4, 8], [BOS, 6, PAD, PAD], [BOS, 7, 7, PAD]])
WANTED = np.array([[5, 4, 8, EOS], [6, EOS, PAD, PAD], [7, 7, EOS, PAD]])


def our_loss(model):
    return tl.cross_entropy(model(SOURCE, TARGET), WANTED, ignore_index=PAD, label_smoothing=0.1)


def peer_loss(peer, table):
    logits = peer(torch.tensor(SOURCE), torch.tensor(TARGET), table)
    return F.cross_entropy(
        logits.transpose(1, 2), torch.tensor(WANTED), ignore_index=PAD, label_smoothing=0.1
    )  # fmt: skip


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_encoder_decoder(norm, tied):
    config, ours, peer, table = models(norm, tied)
    close(ours(SOURCE, TARGET), peer(torch.tensor(SOURCE), torch.tensor(TARGET), table), "logits")
    loss, tloss = our_loss(ours), peer_loss(peer, table)
    close(loss, tloss, "loss")
    loss.backward()
    tloss.backward()
    translated = transformer(gradients(ours), config)
    assert translated.keys() == dict(peer.named_parameters()).keys()
    for name, p in peer.named_parameters():
        close(translated[name], p.grad, name)


# ---- optimizers: 60 steps of the whole model ----

OPTIMIZERS = {
    "SGD": (optim.SGD, torch.optim.SGD, {"lr": 0.1}),
    "SGD, weight decay": (optim.SGD, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.01}),
    "SGD, momentum": (optim.SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    "SGD, Nesterov": (
        optim.SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    ),
    "Adam": (optim.Adam, torch.optim.Adam, {"lr": 1e-3}),
    "Adam, L2": (optim.Adam, torch.optim.Adam, {"lr": 1e-3, "betas": (0.9, 0.98), "weight_decay": 0.1}),
    "AdamW": (optim.AdamW, torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.1}),
    "AdamW, defaults": (optim.AdamW, torch.optim.AdamW, {}),
}  # fmt: skip


def pair_of_optimizers(name, ours, theirs):
    make, make_peer, options = OPTIMIZERS[name]
    renamed = {"learning_rate" if k == "lr" else k: v for k, v in options.items()}
    return make(ours, **renamed), make_peer(theirs, **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sixty_steps_on_given_gradients(name):
    """The optimizer alone: both libraries get the same gradients, so that nothing else can differ or grow."""
    shapes = [(5, 3), (3,), (2, 2, 2)]
    arrays = [normal(*s, seed=i) for i, s in enumerate(shapes)]
    ours, theirs = [nn.Parameter(a) for a in arrays], [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    optimizer, peer = pair_of_optimizers(name, ours, theirs)
    for step in range(60):
        for i, (p, tp) in enumerate(zip(ours, theirs, strict=True)):
            g = normal(*p.shape, seed=100 * step + i)
            p.grad, tp.grad = tl.Tensor(g), torch.tensor(g)
        optimizer.step()
        peer.step()
    for p, tp in zip(ours, theirs, strict=True):
        close(p, tp)


@pytest.mark.parametrize("name", ["SGD, Nesterov", "Adam", "AdamW"])
def test_sixty_steps_of_training_the_model(name):
    config, ours, peer, table = models("pre", False)
    optimizer, peer_optimizer = pair_of_optimizers(name, ours.named_parameters(), peer.parameters())
    first = our_loss(ours).item()
    for _ in range(60):
        optimizer.zero_grad()
        peer_optimizer.zero_grad()
        loss, tloss = our_loss(ours), peer_loss(peer, table)
        loss.backward()
        tloss.backward()
        optimizer.step()
        peer_optimizer.step()
    assert loss.item() < first
    close(loss, tloss, "loss")
    translated = transformer(ours.state_dict(), config)
    for key, p in peer.named_parameters():
        close(translated[key], p, key)


# ---- single ops ----

OPS = {
    "exp": (tl.exp, torch.exp), "log": (lambda x: tl.log(tl.abs(x) + 1), lambda x: torch.log(x.abs() + 1)),
    "tanh": (tl.tanh, torch.tanh), "sigmoid": (tl.sigmoid, torch.sigmoid), "relu": (tl.relu, torch.relu),
    "abs": (tl.abs, torch.abs), "square": (tl.square, torch.square), "sqrt": (
        lambda x: tl.sqrt(x * x + 1), lambda x: torch.sqrt(x * x + 1)),
    "softmax": (lambda x: tl.softmax(x, axis=-2), lambda x: torch.softmax(x, -2)),
    "log_softmax": (tl.log_softmax, lambda x: torch.log_softmax(x, -1)),
    "logsumexp": (lambda x: tl.logsumexp(x, axis=(0, -1)), lambda x: torch.logsumexp(x, (0, -1))),
    "var": (lambda x: tl.var(x, axis=1, ddof=1), lambda x: torch.var(x, 1)),
    "mean": (lambda x: tl.mean(x, axis=(0, 2), keepdims=True), lambda x: x.mean((0, 2), keepdim=True)),
    "max": (lambda x: tl.max(x, axis=-1), lambda x: torch.amax(x, -1)),
    "power": (lambda x: x**3, lambda x: x**3),
    "maximum": (lambda x: tl.maximum(x, x[:1] * 2), lambda x: torch.maximum(x, x[:1] * 2)),
    "getitem": (lambda x: x[:, [0, 0, 1], ..., 1:], lambda x: x[:, [0, 0, 1], ..., 1:]),
    "matmul": (lambda x: x @ x.swapaxes(-1, -2), lambda x: x @ x.transpose(-1, -2)),
    "matmul with a matrix": (lambda x: x @ x[0].T, lambda x: x @ x[0].T),
    "broadcast": (lambda x: x * x[:, :1] / (x[0, 0] ** 2 + 1), lambda x: x * x[:, :1] / (x[0, 0] ** 2 + 1)),
}  # fmt: skip


@pytest.mark.parametrize("op", OPS)
def test_ops_on_random_shapes(op):
    ours, theirs = OPS[op]
    for seed in range(5):
        shape = (*np.random.default_rng(seed).integers(2, 6, 3).tolist(),)
        (x,), (tx,) = both(normal(*shape, seed=seed))
        y, ty = ours(x), theirs(tx)
        close(y, ty, op)
        dy = normal(*y.shape, seed=9)
        (dx,) = tl.grad(y, [x], [tl.Tensor(dy)], create_graph=True)
        (tdx,) = torch.autograd.grad(ty, tx, torch.tensor(dy), create_graph=True)
        close(dx, tdx, f"{op}, gradient")
        if tdx.requires_grad and dx.requires_grad:
            v = normal(*shape, seed=10)
            (tddx,) = torch.autograd.grad(tdx, tx, torch.tensor(v), allow_unused=True)
            if tddx is not None and tddx.abs().max() > 0:
                (ddx,) = tl.grad(dx, [x], [tl.Tensor(v)])
                close(ddx, tddx, f"{op}, second derivative")


# ---- memory shared with PyTorch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_dlpack_shares_memory_with_pytorch_both_ways(dtype):
    for array in (np.arange(6).reshape(2, 3).astype(dtype), np.zeros((0, 2), dtype), np.array(1, dtype)):
        theirs = torch.from_dlpack(tl.from_numpy(array))
        ours = tl.from_dlpack(theirs)
        assert str(theirs.dtype) == f"torch.{dtype}" and ours.dtype == dtype
        np.testing.assert_array_equal(ours.numpy(), array)
        theirs.fill_(1)
        assert (array == 1).all() and (ours.numpy() == 1).all()


def test_a_transposed_tensor_of_pytorch_is_shared_unchanged():
    theirs = torch.arange(6.0).reshape(2, 3).T
    np.testing.assert_array_equal(tl.from_dlpack(theirs).numpy(), [[0, 3], [1, 4], [2, 5]])


def test_a_tensor_that_requires_a_gradient_is_not_exported():
    with pytest.raises(Exception, match="requires a gradient"):
        torch.from_dlpack(tl.Tensor([1.0], requires_grad=True))
    with pytest.raises(Exception, match="require"):
        tl.from_dlpack(torch.ones(2, requires_grad=True))
