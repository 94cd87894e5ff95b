"""Contrastive losses: an anchor should be near its positive and far from its negatives.

Shape suffixes: B anchors, N negatives of each anchor, D width of the vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import tensorlib as tl
from nn.checks import check_number, refuse_several
from nn.module import Module
from tensorlib.messages import shown
from tensorlib.ops.arguments import at_least_float32, check_flag, checked_floating

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["ContrastiveLoss", "InfoNCELoss", "MarginLoss", "TripletLoss"]


class ContrastiveLoss(Module):
    """The base of losses that compare each anchor with a positive and with negatives; a subclass defines `compare`.

    Without `negatives`, those of an anchor are the positives of the other anchors (in-batch negatives). Then, with
    `symmetric`, the loss is the mean over both directions: positives are also compared with all anchors.

    >>> class Difference(nn.contrastive.ContrastiveLoss):
    ...     measure = staticmethod(nn.contrastive.dot_products)
    ...     def compare(self, positive_B1, negative_BN, counted_BN):
    ...         return nn.contrastive.mean_of_counted(negative_BN - positive_B1, counted_BN)
    >>> Difference()([[1.0, 0.0]], [[3.0, 0.0]], negatives=[[2.0, 5.0]]).item()
    -1.0

    Raises ValueError for shapes that do not fit, and TypeError for integers.
    """

    measure: Any  # from anchors (B, D) and others, (B, N, D) or (N, D), to a number (B, N) for each pair

    def __init__(self, symmetric: bool = False) -> None:
        check_flag(type(self).__name__, "symmetric", symmetric, "; name your arguments")
        self.symmetric = symmetric

    def forward(
        self,
        anchors: TensorLike,
        positives: TensorLike,
        negatives: TensorLike | None = None,
        excluded: TensorLike | None = None,
    ) -> tl.Tensor:
        """Return the loss, a scalar, of anchors (B, D) and positives (B, D).

        negatives: (B, N, D), or (N, D) if all anchors have the same; by default the other positives (N = B).
        excluded: (B, N), True for negatives that do not count: false ones, such as another copy of the positive.
        """
        for what, x in (("anchors", anchors), ("positives", positives), ("negatives", negatives)):
            refuse_several(self, x, what)
        return self._loss(anchors, positives, negatives, excluded)

    @at_least_float32
    def _loss(self, anchors: Any, positives: Any, negatives: Any, excluded: Any) -> tl.Tensor:
        name = type(self).__name__
        anchors_BD = checked_floating(name, "anchors", anchors)
        positives_BD = checked_floating(name, "positives", _placed(positives, anchors_BD))
        if anchors_BD.ndim != 2 or positives_BD.shape != anchors_BD.shape:
            raise ValueError(
                f"{name}: anchors and positives must have one shape (B, D), got {anchors_BD.shape} and "
                f"{positives_BD.shape}"
            )
        given = None if negatives is None else checked_floating(name, "negatives", _placed(negatives, anchors_BD))
        counted_BN = self._counted(anchors_BD, given, excluded)
        loss = self._one_way(anchors_BD, positives_BD, given, counted_BN)
        if not self.symmetric:
            return loss
        return (loss + self._one_way(positives_BD, anchors_BD, None, counted_BN.swapaxes(0, 1))) / 2

    def _counted(self, anchors_BD: tl.Tensor, negatives: tl.Tensor | None, excluded: Any) -> tl.Tensor:
        """Return a mask (B, N), True for each pair of an anchor and a negative that counts."""
        name, (B, D) = type(self).__name__, anchors_BD.shape
        if negatives is not None:
            if self.symmetric:
                raise ValueError(
                    f"{name}: symmetric needs in-batch negatives, got negatives {negatives.shape}; for both directions "
                    "add the losses of (anchors, positives, negatives) and (positives, anchors, other negatives)"
                )
            fits = negatives.shape[-1:] == (D,) and (
                negatives.ndim == 2 or (negatives.ndim == 3 and len(negatives) == B)
            )
            if not fits:
                raise ValueError(f"{name}: negatives must be ({B}, N, {D}) or (N, {D}), got {negatives.shape}")
        N = B if negatives is None else negatives.shape[-2]
        xp = anchors_BD.backend.xp
        counted_BN = tl.Tensor(xp.ones((B, N), bool) if negatives is not None else ~xp.eye(B, dtype=bool))
        if excluded is None:
            return counted_BN
        excluded_BN = _placed(excluded, anchors_BD)
        if excluded_BN.shape != (B, N) or excluded_BN.dtype != np.bool_:
            raise ValueError(
                f"{name}: excluded must be bool and ({B}, {N}), True for negatives that do not count; got "
                f"{excluded_BN.dtype} and {excluded_BN.shape}"
            )
        return counted_BN & ~excluded_BN

    def _one_way(
        self, anchors_BD: tl.Tensor, positives_BD: tl.Tensor, negatives: tl.Tensor | None, counted_BN: tl.Tensor
    ) -> tl.Tensor:
        positive_B1 = self.measure(anchors_BD, tl.expand_dims(positives_BD, 1))
        negative_BN = self.measure(anchors_BD, positives_BD if negatives is None else negatives)
        return self.compare(positive_B1, negative_BN, counted_BN)

    def compare(self, positive_B1: tl.Tensor, negative_BN: tl.Tensor, counted_BN: tl.Tensor) -> tl.Tensor:
        """Return the loss, given the measure of each anchor and its positive, and of each anchor and negative."""
        raise NotImplementedError(f"{type(self).__name__}: compare is missing")


class TripletLoss(ContrastiveLoss):
    """The mean over all triplets of max(0, d(anchor, positive) - d(anchor, negative) + margin).

    d is the squared Euclidean distance (Schroff et al. 2015, FaceNet, equation 3). With ``squared=False`` it is the
    distance itself, as in PyTorch's TripletMarginLoss. Vectors of length 1 have squared distances from 0 to 4.

    >>> loss = nn.TripletLoss(margin=1.0)
    >>> loss([[1.0, 0.0]], [[1.0, 0.5]], negatives=[[[0.0, 0.0], [5.0, 0.0]]])  # (0.25 - 1 + 1 + 0) / 2
    Tensor(0.125, shape=(), dtype=float32)

    Raises ValueError unless the margin is positive.
    """

    def __init__(self, margin: float = 0.2, squared: bool = True, symmetric: bool = False) -> None:
        super().__init__(symmetric)
        check_number("TripletLoss", above=True, margin=margin)
        check_flag("TripletLoss", "squared", squared, "; name your arguments")
        self.margin, self.squared = margin, squared

    def measure(self, anchors_BD: tl.Tensor, others: tl.Tensor) -> tl.Tensor:
        """Return the distances."""
        return (squared_distances if self.squared else distances)(anchors_BD, others)

    def compare(self, positive_B1: tl.Tensor, negative_BN: tl.Tensor, counted_BN: tl.Tensor) -> tl.Tensor:
        """Return the mean of the formula over the triplets that count."""
        return mean_of_counted(tl.relu(positive_B1 - negative_BN + self.margin), counted_BN)

    def extra_repr(self) -> str:
        """Return the margin."""
        return f"margin={self.margin}"


class MarginLoss(ContrastiveLoss):
    """Each positive attracts its anchor; a negative repels it within a margin only.

    "euclidean", with d the distance (Hadsell et al. 2006, equation 4):
        mean over anchors of d(anchor, positive)^2 / 2, plus mean over negatives of max(0, margin - d)^2 / 2
    "cosine", with c the cosine, as in PyTorch's CosineEmbeddingLoss:
        mean over anchors of 1 - c(anchor, positive), plus mean over negatives of max(0, c - margin)
        A vector of zeros has no direction: its cosines are 0, and so is its gradient.

    The two means have equal weight, however many negatives there are.

    >>> loss = nn.MarginLoss(margin=1.0)
    >>> loss([[0.0, 0.0]], [[0.0, 2.0]], negatives=[[0.5, 0.0], [9.0, 0.0]])  # 2 + (0.125 + 0) / 2
    Tensor(2.0625, shape=(), dtype=float32)

    Raises ValueError unless the margin is positive, or for "cosine" lies in [-1, 1).
    """

    def __init__(
        self, margin: float = 0.5, distance: Literal["euclidean", "cosine"] = "euclidean", symmetric: bool = False
    ) -> None:
        super().__init__(symmetric)
        if distance not in ("euclidean", "cosine"):
            raise ValueError(f"MarginLoss: distance must be 'euclidean' or 'cosine', got {shown(distance)}")
        if distance == "euclidean":
            check_number("MarginLoss", above=True, margin=margin)
        elif not isinstance(margin, int | float) or not -1 <= margin < 1:
            raise ValueError(f"MarginLoss: margin must lie in [-1, 1) for cosines, got {shown(margin)}")
        self.margin, self.distance = margin, distance

    def measure(self, anchors_BD: tl.Tensor, others: tl.Tensor) -> tl.Tensor:
        """Return the distances or the cosines."""
        if self.distance == "euclidean":
            return distances(anchors_BD, others)
        return dot_products(directions(anchors_BD), directions(others))

    def compare(self, positive_B1: tl.Tensor, negative_BN: tl.Tensor, counted_BN: tl.Tensor) -> tl.Tensor:
        """Return the sum of both means."""
        if self.distance == "euclidean":
            near_B1, far_BN = positive_B1.square() / 2, tl.relu(self.margin - negative_BN).square() / 2
        else:
            near_B1, far_BN = 1 - positive_B1, tl.relu(negative_BN - self.margin)
        return near_B1.mean() + mean_of_counted(far_BN, counted_BN)

    def extra_repr(self) -> str:
        """Return the margin and the distance."""
        return f"margin={self.margin}, {self.distance}"


class InfoNCELoss(ContrastiveLoss):
    """The cross-entropy of picking the positive among positive and negatives (van den Oord et al. 2018, equation 4).

    The mean over anchors of -log(exp(s(a, p) / t) / (exp(s(a, p) / t) + sum over negatives of exp(s(a, n) / t))), where
    s is the dot product, which is the cosine if the vectors have length 1, and t the temperature. The lower t, the more
    the nearest negatives count: each is weighted by its softmax.

    >>> loss = nn.InfoNCELoss(temperature=0.5, symmetric=True)
    >>> a, p = tl.eye(3)[:2], tl.eye(3)[:2]
    >>> loss(a, p)  # log(1 + exp(-2)): one negative each, whose dot product is 0
    Tensor(0.1269, shape=(), dtype=float32)
    >>> loss(a, p, excluded=~np.eye(2, dtype=bool))  # no negatives
    Tensor(0., shape=(), dtype=float32)

    Raises ValueError unless the temperature is positive.
    """

    def __init__(self, temperature: float = 0.05, symmetric: bool = False) -> None:
        super().__init__(symmetric)
        check_number("InfoNCELoss", above=True, temperature=temperature)
        self.temperature = temperature

    def measure(self, anchors_BD: tl.Tensor, others: tl.Tensor) -> tl.Tensor:
        """Return the dot products."""
        return dot_products(anchors_BD, others)

    def compare(self, positive_B1: tl.Tensor, negative_BN: tl.Tensor, counted_BN: tl.Tensor) -> tl.Tensor:
        """Return the cross-entropy, in which the positive is class 0."""
        negative_BN = tl.masked_fill(negative_BN, ~counted_BN, -np.inf)
        logits = tl.concatenate([positive_B1, negative_BN], axis=1) / self.temperature
        return tl.cross_entropy(logits, np.zeros(len(logits), np.int64))

    def extra_repr(self) -> str:
        """Return the temperature."""
        return f"temperature={self.temperature}"


# ---- measures: one number for each anchor and each of the others ---------------------------------------------------


def dot_products(anchors_BD: tl.Tensor, others: tl.Tensor) -> tl.Tensor:
    """Return the dot products (B, N) of anchors (B, D) with others, (B, N, D) or (N, D).

    >>> nn.contrastive.dot_products(tl.ones((2, 3)), tl.ones((4, 3))).shape
    (2, 4)
    """
    if others.ndim == 2:
        return anchors_BD @ others.swapaxes(0, 1)
    return tl.squeeze(others @ tl.expand_dims(anchors_BD, 2), 2)


def squared_distances(anchors_BD: tl.Tensor, others: tl.Tensor) -> tl.Tensor:
    """Return the squared Euclidean distances (B, N) of anchors (B, D) to others, (B, N, D) or (N, D).

    With others (N, D) they are |a|^2 + |o|^2 - 2 a.o, by one product instead of B N D differences. Its rounding error
    is relative to |a|^2 + |o|^2, and what would be negative is 0.

    >>> nn.contrastive.squared_distances(tl.zeros((1, 2)), tl.Tensor([[3.0, 4.0], [0.0, 0.0]])).numpy()
    array([[25.,  0.]], dtype=float32)
    """
    if others.ndim == 3:
        return (others - tl.expand_dims(anchors_BD, 1)).square().sum(axis=-1)
    squares_B1 = anchors_BD.square().sum(axis=-1, keepdims=True)
    d_BN = squares_B1 + others.square().sum(axis=-1) - 2 * dot_products(anchors_BD, others)
    return tl.where(d_BN > 0, d_BN, 0.0)


def distances(anchors_BD: tl.Tensor, others: tl.Tensor) -> tl.Tensor:
    """Return the Euclidean distances, as `squared_distances` does; where one is 0, so are its derivatives.

    >>> nn.contrastive.distances(tl.zeros((1, 2)), tl.Tensor([[3.0, 4.0], [0.0, 0.0]])).numpy()
    array([[5., 0.]], dtype=float32)
    """
    d_BN = squared_distances(anchors_BD, others)
    apart_BN = d_BN > 0
    return tl.where(apart_BN, tl.sqrt(tl.where(apart_BN, d_BN, 1.0)), 0.0)  # the derivative of sqrt at 0 is infinite


def directions(x: tl.Tensor) -> tl.Tensor:
    """Return the vectors (..., D) divided by their lengths; where a vector is 0, so are its derivatives.

    >>> nn.contrastive.directions(tl.Tensor([[3.0, 4.0], [0.0, 0.0]])).numpy()
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    some = (x != 0).any(axis=-1, keepdims=True)
    return tl.where(some, tl.normalize(tl.where(some, x, 1.0)), 0.0)


def mean_of_counted(x_BN: tl.Tensor, counted_BN: tl.Tensor) -> tl.Tensor:
    """Return the mean of the elements that count, whatever the others are, or 0 if there are none.

    >>> nn.contrastive.mean_of_counted(tl.Tensor([[1.0, np.nan, 3.0]]), tl.Tensor([[True, False, True]])).item()
    2.0
    """
    count = x_BN.backend.xp.maximum(counted_BN.data.sum(), 1).astype(x_BN.dtype)
    return tl.where(counted_BN, x_BN, 0.0).sum() / count


def _placed(x: Any, like: tl.Tensor) -> tl.Tensor:
    """Return x as a Tensor; a list or a host array is placed on the backend of `like`."""
    if isinstance(x, tl.Tensor):
        return x
    return tl.Tensor(x, backend=like.backend if isinstance(x, list | tuple | np.ndarray) else None)
