"""AdamW with a float32 master copy and a narrow working copy.

Source: Loshchilov & Hutter, *Decoupled Weight Decay Regularization* (2019). For step t, gradient g:

    w <- w (1 - lr decay);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    w <- w - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

Every product, sum, root and quotient is rounded to float32; the scalar factors are computed in double.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32_any
from effsim.models.rounding import round_to


@dataclass(frozen=True, slots=True)
class AdamState:
    """Parameters and moments after a step, all of one shape.

    Attributes:
        master: float32 parameters.
        first: first moment.
        second: second moment.
        working: the parameters rounded to the type that the forward reads.
    """

    master: Float32Array
    first: Float32Array
    second: Float32Array
    working: Float32Array


def adamw(
    master: npt.ArrayLike,
    grad: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    gradient_dtype: str = "fp32",
    working_dtype: str = "bf16",
) -> AdamState:
    """One update.

    Args:
        master: parameters, any shape.
        grad: gradients, rounded to ``gradient_dtype`` first.
        first: first moments.
        second: second moments, not negative.
        step: 1 for the first update.
        lr: learning rate.
        betas: decay of the two moments, 0 <= beta < 1.
        eps: added to the denominator.
        weight_decay: share of a parameter, times ``lr``, that a step takes away.
        gradient_dtype: type in which gradients arrive.
        working_dtype: type of the working copy.

    Raises:
        ValueError: for shapes that differ, a step below 1 or betas out of range.

    >>> new = adamw([1.0], [0.5], [0.0], [0.0], step=1, lr=0.5, eps=0.0, weight_decay=0.0)
    >>> new.master.round(6).tolist()
    [0.5]
    """
    expect_positive(step=step)
    if not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(f"betas: expected 0 <= beta < 1, got {betas}")
    w, m, v = float32_any("master", master), float32_any("first", first), float32_any("second", second)
    g = round_to(float32_any("grad", grad), gradient_dtype)
    for name, array in (("grad", g), ("first", m), ("second", v)):
        expect_shape(name, array, w.shape)
    b1, b2 = betas
    w = w * np.float32(1.0 - lr * weight_decay)
    m = np.float32(b1) * m + np.float32(1.0 - b1) * g
    v = np.float32(b2) * v + np.float32(1.0 - b2) * (g * g)
    root = np.sqrt(v) * np.float32(1.0 / math.sqrt(1.0 - b2**step)) + np.float32(eps)
    # A parameter that never had a gradient has 0 / (0 + eps); with eps = 0 its step is 0, not NaN.
    ratio = np.divide(m, root, out=np.zeros_like(m), where=root != 0)
    w = w - np.float32(lr / (1.0 - b1**step)) * ratio
    return AdamState(w, m, v, round_to(w, working_dtype))
