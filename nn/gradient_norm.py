"""The joint norm of all gradients: clipping, and steps that are skipped if a gradient or the loss is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import tensorlib as tl
from nn.checks import check_number
from nn.device_updates import depend, skip_flag
from nn.loss_scale import LossScale
from nn.optimizer import Optimizer
from nn.parameter_lists import parameter_list
from tensorlib.arrays.backend import Array, Backend, backend_of
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.engine.value import wrap
from tensorlib.messages import kind_of, shown
from tensorlib.ops.update_in_place import Guard, scaled, step_guard

__all__ = ["clip_grad_norm", "guarded_step"]


def clip_grad_norm(parameters: Iterable[tl.Tensor], max_norm: float) -> float:
    """Scale all gradients so that their joint Euclidean norm is at most `max_norm`; return the norm before scaling.

    g <- g min(1, max_norm / norm): Pascanu et al. 2013, algorithm 1. Each call waits for the GPU once; `guarded_step`
    does not.

    >>> w = nn.Parameter([0.0, 0.0])
    >>> w.grad = tl.Tensor([3.0, 4.0])
    >>> optim.clip_grad_norm([w], max_norm=1.0)
    5.0
    >>> w.grad.numpy().round(6)
    array([0.6, 0.8], dtype=float32)

    Raises ValueError, and changes nothing, if the norm is not finite.
    """
    check_number("clip_grad_norm", above=True, finite=False, max_norm=max_norm)
    # A tied parameter may be listed twice, by two modules; its gradient counts once.
    listed = list({id(p): p for p in parameter_list("clip_grad_norm", parameters)}.values())
    wrong = [p for p in listed if not isinstance(p, tl.Tensor)]
    if wrong:
        raise TypeError(f"clip_grad_norm: needs parameters, got {kind_of(wrong[0])}; pass model.parameters()")
    with_grad = [(p, p.grad) for p in listed if p.grad is not None]
    if not with_grad:
        return 0.0
    arrays = [grad.array for _, grad in with_grad]
    norm = _joint_norm(arrays) if isinstance(arrays[0], np.ndarray) else _norm_on_device(arrays)
    if not math.isfinite(norm):
        bad = [p.name or str(p.shape) for p, grad in with_grad if not tl.isfinite(grad).all().item()]
        cause = f"those of {', '.join(bad)} are not" if bad else "the sum of their squares overflows"
        raise ValueError(f"clip_grad_norm: gradients must be finite, but {cause}")
    if norm > max_norm:
        for (p, _), g in zip(with_grad, scaled(arrays, max_norm / norm), strict=True):
            p.grad = wrap(g)
    return norm


def guarded_step(
    optimizer: Optimizer,
    loss: tl.Tensor,
    max_norm: float | None = None,
    loss_scale: float | LossScale | tl.Tensor | Callable[[], float] = 1.0,
) -> tl.Tensor:
    """Clip the gradients to a joint norm of `max_norm` and take a step, unless the loss or a gradient is not finite.

    p <- step with g min(1, max_norm / norm) for all gradients g: `clip_grad_norm` and `Optimizer.step` in one, but a
    GPU decides for itself, and nothing waits for it. A skipped step changes no bit of weights, moments and step counts;
    ``optimizer.skipped``, a bool of shape () on the device, then is true until the next guarded step writes it. Pass it
    on to a moving average, ``average.update(step, unless=optimizer.skipped)``. The gradients stay as they are.

    Args:
        optimizer: with parameters on one backend. If `update` is your own, the GPU is waited for, as by `item`.
        loss: the loss, of one element, on that backend.
        max_norm: None does not clip.
        loss_scale: the number by which the loss was multiplied before its backward pass, of which the norm and the step
            are free: a `LossScale`, or a positive number. In a captured step that is to read it anew, a function or a
            Tensor of one element; on a GPU nothing checks the value of a Tensor.

    Returns the norm before clipping, float64 of shape (), on that backend.

    >>> w = nn.Parameter([3.0, 4.0])
    >>> optimizer = optim.SGD([w], learning_rate=1.0)
    >>> loss = (w * w).sum() / 2
    >>> loss.backward()
    >>> optim.guarded_step(optimizer, loss, max_norm=2.5).item()
    5.0
    >>> w.numpy()
    array([1.5, 2. ], dtype=float32)
    >>> norm = optim.guarded_step(optimizer, loss * np.inf)
    >>> w.numpy(), bool(optimizer.skipped)
    (array([1.5, 2. ], dtype=float32), True)

    Raises what `Optimizer.step` raises, and TypeError or ValueError for a loss or numbers that do not fit.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"guarded_step: needs an optimizer first, got {kind_of(optimizer)}; call guarded_step(optimizer, loss)"
        )
    most = math.inf if max_norm is None else max_norm
    check_number("guarded_step", above=True, finite=False, max_norm=most)
    gradients = optimizer.checked_gradients()
    backend = _common_backend(gradients, loss)
    scale = _checked_scale(loss_scale, backend)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is skipped
        if not all(optimizer.is_in_place(optimizer.parameters[name]) for name in gradients):
            return _guarded_by_host(optimizer, gradients, loss, most, scale, backend)
        skip = skip_flag(optimizer, backend)
        norm, factor = step_guard(list(gradients.values()), loss.array, skip, most, scale)
        optimizer.take_step(gradients, Guard(factor, skip))
        return wrap(norm)


def _checked_scale(given: Any, backend: Backend) -> Array | Callable[[], float]:
    """Return a loss scale as an array of one element on `backend`, or as a function that checks the number."""
    if isinstance(given, LossScale):
        given = given.value
    if not isinstance(given, tl.Tensor):
        get = given if callable(given) else lambda: given

        def number() -> float:
            value = get()
            check_number("guarded_step", above=True, loss_scale=value)
            return float(value)

        if not callable(given):
            number()
        return number
    if given.size != 1 or given.dtype.kind not in "fiu":
        raise ValueError(
            f"guarded_step: loss_scale must be one number, got {shown(given)}; pass a LossScale, a number or a Tensor "
            "of one element"
        )
    if given.backend is not backend:
        raise ValueError(
            f"guarded_step: loss_scale must be on the loss's backend, {backend.name}, got a Tensor on "
            f"{given.backend.name}; use LossScale(backend={backend.name!r})"
        )
    if backend.xp is np:
        check_number("guarded_step", above=True, loss_scale=given.item())
    depend(lambda: given.array)
    return given.array.reshape(())


def _guarded_by_host(
    optimizer: Optimizer, gradients: dict[str, Array], loss: tl.Tensor, most: float, scale: Any, backend: Backend
) -> tl.Tensor:
    """Take a guarded step after deciding on the host."""
    divisor = float(scale() if callable(scale) else scale.item())
    arrays = list(gradients.values())
    norm = (_joint_norm(arrays) if backend.xp is np else _norm_on_device(arrays)) / divisor
    skip = not (math.isfinite(norm) and math.isfinite(loss.item()))
    optimizer.skipped = backend.asarray(np.array(skip))
    if not skip:
        factor = (most / norm if norm > most else 1.0) / divisor
        if factor != 1:
            gradients = dict(zip(gradients, scaled(arrays, factor), strict=True))
        optimizer.take_step(gradients)
    return wrap(backend.asarray(np.array(norm)))


def _common_backend(gradients: dict[str, Array], loss: tl.Tensor) -> Backend:
    """Return the backend of all gradients and of the loss; raise TypeError or ValueError if there is none."""
    if not isinstance(loss, tl.Tensor):
        raise TypeError(f"guarded_step: the loss must be a Tensor, got {kind_of(loss)}")
    if loss.size != 1:
        raise ValueError(f"guarded_step: the loss must have one element, got shape {loss.shape}; use .sum() or .mean()")
    backends = {backend_of(array).name: backend_of(array) for array in (*gradients.values(), loss.array)}
    if len(backends) > 1:
        raise ValueError(
            f"guarded_step: the loss and all parameters must be on one backend, got {' and '.join(sorted(backends))}; "
            "use model.to(backend)"
        )
    return next(iter(backends.values()))


def _joint_norm(gradients: Sequence[Array]) -> float:
    """Return sqrt(sum g^2), each sum in the dtype of its gradient; infinite if it overflows."""
    total: Any = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for gradient in gradients:
            g = as_dtype(gradient.reshape(-1), sum_dtype(gradient))  # float16 squares overflow from 256 on
            total = total + g @ g
    return math.sqrt(total.item())


def _norm_on_device(gradients: Sequence[Array]) -> float:
    """Return the same, computed by the device in a few launches and fetched once."""
    xp = backend_of(gradients[0]).xp
    with np.errstate(over="ignore", invalid="ignore"):
        norm: Any = step_guard(gradients, None, xp.zeros((), bool), math.inf, lambda: 1.0)[0]
    return float(norm.item())
