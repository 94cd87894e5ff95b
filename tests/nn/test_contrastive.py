"""Contrastive losses: values against plain NumPy and PyTorch, gradients to second order, false negatives, numbers."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from tests.edges import refused

B, N, D = 4, 3, 5


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


A, P = normal(B, D), normal(B, D, seed=2)
NEGATIVES = {"own": normal(B, N, D, seed=3), "shared": normal(N, D, seed=4), "in-batch": None}
EXCLUDED = {"own": np.arange(B * N).reshape(B, N) % 5 == 0, "in-batch": (np.add.outer(np.arange(B), np.arange(B)) == 4)}
EXCLUDED["shared"] = EXCLUDED["own"]

LOSSES = {
    "triplet": nn.TripletLoss(0.9),
    "triplet of distances": nn.TripletLoss(0.9, squared=False),
    "margin": nn.MarginLoss(2.9),
    "margin of cosines": nn.MarginLoss(0.1, "cosine"),
    "InfoNCE": nn.InfoNCELoss(0.7),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
every_kind = pytest.mark.parametrize("kind", NEGATIVES)


# ---- the formulas, with one loop for each anchor ---------------------------------------------------------------------


def distance(x, y):
    return np.sqrt(((x - y) ** 2).sum())


def cosine(x, y):
    return x @ y / np.sqrt((x @ x) * (y @ y))


def hinge(x):
    return max(0.0, x)


def expected(name, anchors, positives, negatives, excluded):
    """Return a loss by its formula; negatives (B, N, D), and a mask of those that do not count."""
    near, far, rows = [], [], []
    for a, p, row, out in zip(anchors, positives, negatives, excluded, strict=True):
        counted = [n for n, skip in zip(row, out, strict=True) if not skip]
        if name == "triplet":
            far += [hinge(distance(a, p) ** 2 - distance(a, n) ** 2 + 0.9) for n in counted]
        elif name == "triplet of distances":
            far += [hinge(distance(a, p) - distance(a, n) + 0.9) for n in counted]
        elif name == "margin":
            near.append(distance(a, p) ** 2 / 2)
            far += [hinge(2.9 - distance(a, n)) ** 2 / 2 for n in counted]
        elif name == "margin of cosines":
            near.append(1 - cosine(a, p))
            far += [hinge(cosine(a, n) - 0.1) for n in counted]
        else:
            exps = np.exp(np.array([a @ p, *[a @ n for n in counted]]) / 0.7)
            rows.append(-np.log(exps[0] / exps.sum()))
    return sum(float(np.mean(terms)) for terms in (near, far, rows) if terms)


def as_rows(kind, positives):
    """Return the negatives of each anchor, (B, N, D), and which of them do not count in the first place."""
    if kind == "own":
        return NEGATIVES[kind], np.zeros((B, N), bool)
    shared = positives if kind == "in-batch" else NEGATIVES[kind]
    return np.broadcast_to(shared, (B, *shared.shape)), np.eye(B, dtype=bool) if kind == "in-batch" else False


@pytest.mark.parametrize("masked", [False, True])
@every_kind
@every_loss
def test_each_loss_is_its_formula(name, kind, masked, backend):
    rows, positive = as_rows(kind, P)
    out = np.broadcast_to(positive | (EXCLUDED[kind] if masked else False), rows.shape[:2])
    negatives = None if kind == "in-batch" else tl.Tensor(NEGATIVES[kind], backend=backend)
    excluded = EXCLUDED[kind] if masked else None
    found = LOSSES[name](tl.Tensor(A, backend=backend), tl.Tensor(P, backend=backend), negatives, excluded)
    assert found.item() == pytest.approx(expected(name, A, P, rows, out), rel=1e-12)


@every_loss
def test_symmetric_is_the_mean_over_both_directions(name):
    loss, (rows, itself), (others, _) = LOSSES[name], as_rows("in-batch", P), as_rows("in-batch", A)
    false = np.arange(B * B).reshape(B, B) % 3 == 0
    both = expected(name, A, P, rows, itself | false) + expected(name, P, A, others, (itself | false).T)
    loss.symmetric = True
    try:
        assert loss(A, P, excluded=false).item() == pytest.approx(both / 2, rel=1e-12)
    finally:
        loss.symmetric = False


# ---- gradients -------------------------------------------------------------------------------------------------------


@every_kind
@every_loss
def test_gradients_to_second_order(name, kind):
    given = [] if kind == "in-batch" else [NEGATIVES[kind]]
    tl.gradcheck(lambda a, p, *n: LOSSES[name](a, p, *n, excluded=EXCLUDED[kind]), A, P, *given, name=name)


@every_kind
@every_loss
def test_equal_vectors_and_zeros_have_finite_gradients_to_second_order(name, kind):
    same = np.ones((B, D))
    same[0] = 0
    negatives = [] if kind == "in-batch" else [np.ones_like(NEGATIVES[kind])]
    tensors = [tl.Tensor(x, requires_grad=True) for x in (same, same, *negatives)]
    first = tl.grad(LOSSES[name](*tensors), tensors, create_graph=True)
    second = tl.grad(sum((g * g).sum() for g in first), tensors, allow_unused=True)
    assert all(np.isfinite(g.numpy()).all() for g in (*first, *second) if g is not None)


@every_loss
def test_float16_is_computed_in_float32(name):
    x = tl.Tensor(np.full((2, 8), 300.0), dtype="float16")  # whose squares overflow
    loss = LOSSES[name](x, x, x * 0.5)
    assert loss.dtype == np.float16 and not np.isnan(loss.item())


# ---- false negatives -------------------------------------------------------------------------------------------------


@every_loss
def test_an_excluded_negative_has_no_influence_whatever_it_is(name):
    """A copy of the positive among the negatives is false; with it excluded the loss is that of the others."""
    false = np.zeros((B, N), bool)
    false[1, 2] = True
    negatives = NEGATIVES["own"].copy()
    losses = []
    for copy in (100 * normal(D, seed=9), P[1]):
        negatives[1, 2] = copy
        a = tl.Tensor(A, requires_grad=True)
        loss = LOSSES[name](a, P, negatives, false)
        loss.backward()
        losses.append((loss.item(), a.grad.numpy()))
    assert losses[0][0] == losses[1][0]
    np.testing.assert_array_equal(losses[0][1], losses[1][1])
    assert losses[0][0] != LOSSES[name](A, P, negatives).item()


@every_loss
def test_without_negatives_only_the_positive_counts(name):
    """A batch of one, or all negatives excluded: no NaN, and no pull away from anything."""
    alone = LOSSES[name](A[:1], P[:1]).item()
    assert alone == LOSSES[name](A[:1], P[:1], P[:1], [[True]]).item()
    assert alone == pytest.approx({"margin": distance(A[0], P[0]) ** 2 / 2, "margin of cosines": 1 - cosine(A[0], P[0])}
                                  .get(name, 0.0))  # fmt: skip


# ---- errors ----------------------------------------------------------------------------------------------------------

test_what_does_not_fit_is_refused = refused(
    [
        (lambda: nn.InfoNCELoss()(A, P[:2]), ValueError, r"one shape \(B, D\), got \(4, 5\) and \(2, 5\)"),
        (lambda: nn.InfoNCELoss()(A[0], P[0]), ValueError, r"one shape \(B, D\), got \(5,\) and \(5,\)"),
        (
            lambda: nn.TripletLoss()(A, P, normal(2, 3, D)),
            ValueError,
            r"must be \(4, N, 5\) or \(N, 5\), got \(2, 3, 5\)",
        ),
        (lambda: nn.MarginLoss()(A, P, normal(3, 6)), ValueError, r"must be \(4, N, 5\) or \(N, 5\), got \(3, 6\)"),
        (lambda: nn.TripletLoss()(A, P, excluded=np.zeros((4, 3), bool)), ValueError, r"bool and \(4, 4\).*\(4, 3\)"),
        (lambda: nn.TripletLoss()(A, P, excluded=np.zeros((4, 4))), ValueError, r"got float64 and \(4, 4\)"),
        (lambda: nn.TripletLoss()(A.astype(int), P), TypeError, "TripletLoss: anchors must be of a floating dtype"),
        (lambda: nn.InfoNCELoss(symmetric=True)(A, P, normal(3, D)), ValueError, "symmetric needs in-batch negatives"),
        (lambda: nn.InfoNCELoss()([tl.ones(3)], P), TypeError, r"pass one, or tl.stack\(xs\)"),
        (lambda: nn.InfoNCELoss(0.0), ValueError, "InfoNCELoss: temperature must be positive, got 0.0"),
        (lambda: nn.TripletLoss(-1.0), ValueError, "TripletLoss: margin must be positive, got -1.0"),
        (lambda: nn.TripletLoss(squared="no"), TypeError, "TripletLoss: squared must be"),
        (lambda: nn.MarginLoss(1.0, "cosine"), ValueError, r"must lie in \[-1, 1\) for cosines, got 1.0"),
        (lambda: nn.MarginLoss(1.0, "manhattan"), ValueError, "'euclidean' or 'cosine', got 'manhattan'"),
        (lambda: nn.TripletMarginLoss, AttributeError, "nn.TripletLoss, with squared=False"),
        (lambda: nn.CosineEmbeddingLoss, AttributeError, "nn.MarginLoss"),
    ]
)


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def assert_parity(ours, theirs, *arrays):
    """Compare the values and all gradients of two functions, in float64."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'tensorlib[peers]'")
    mine, his = (
        [tl.Tensor(x, requires_grad=True) for x in arrays],
        [torch.tensor(x, requires_grad=True) for x in arrays],
    )
    found, wanted = ours(*mine), theirs(torch, *his)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
    found.backward()
    wanted.backward()
    for x, y in zip(mine, his, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.peers
def test_triplet_loss_is_pytorchs():
    assert_parity(
        nn.TripletLoss(1.3, squared=False),
        lambda torch, a, p, n: torch.nn.TripletMarginLoss(1.3, eps=0.0)(a[:, None], p[:, None], n),
        A, P, NEGATIVES["own"],
    )  # fmt: skip


@pytest.mark.peers
def test_margin_loss_of_cosines_is_pytorchs():
    def theirs(torch, a, p, n):
        loss, ones = torch.nn.functional.cosine_embedding_loss, torch.ones(B, dtype=torch.float64)
        repeated = a.repeat_interleave(N, 0)
        return loss(a, p, ones) + loss(repeated, n.reshape(-1, D), -torch.ones(B * N, dtype=torch.float64), margin=0.1)

    assert_parity(LOSSES["margin of cosines"], theirs, A, P, NEGATIVES["own"])


@pytest.mark.peers
def test_info_nce_is_pytorchs_cross_entropy_of_similarities():
    def theirs(torch, a, p):
        scores, labels = a @ p.T / 0.7, torch.arange(B)
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(scores, labels) + cross_entropy(scores.T, labels)) / 2

    assert_parity(nn.InfoNCELoss(0.7, symmetric=True), theirs, A, P)


def test_a_vector_of_zeros_has_no_cosine_gradient():
    anchors, positives = tl.Tensor(np.zeros((2, 3)), requires_grad=True), tl.Tensor(np.eye(3)[:2], requires_grad=True)
    loss = nn.MarginLoss(0.0, "cosine")(anchors, positives, tl.Tensor(np.zeros((4, 3))))
    loss.backward()
    assert loss.item() == 1
    assert not anchors.grad.numpy().any() and not positives.grad.numpy().any()
