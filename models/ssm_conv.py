"""State-space models with constant parameters, as a convolution.

With step sizes, B and C that do not depend on the token the scans are linear and time-invariant, and
``y = K * u + D u`` with the filter ``K_t = sum_n C_n e^{t delta A_n} delta B_n`` a channel (Gu et al., *Efficiently
Modeling Long Sequences with Structured State Spaces*, 2021). The filter is summed over the state in order; powers are
exponentials of ``t delta A`` taken in double and rounded once. The convolution is that of
:mod:`effsim.models.fftconv`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32
from effsim.models.fftconv import long_conv


def ssm_filter(delta: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike, length: int) -> Float32Array:
    """The (channels, length) filter of a diagonal state-space model.

    Args:
        delta: (channels,) step sizes.
        a: (channels, state), ``delta * a`` not positive.
        b: (state,).
        c: (state,).
        length: taps.

    Raises:
        ValueError: for shapes that do not fit together or a growing state.

    >>> ssm_filter([1.0], [[0.0]], [2.0], [3.0], 2).tolist()
    [[6.0, 6.0]]
    """
    steps, rates = float32("delta", delta, 1), float32("a", a, 2)
    to_state, to_output = float32("b", b, 1), float32("c", c, 1)
    expect_shape("a", rates, (steps.size, rates.shape[1]))
    expect_shape("b", to_state, (rates.shape[1],))
    expect_shape("c", to_output, (rates.shape[1],))
    rate = steps[:, None].astype(np.float64) * rates
    if (rate > 0).any():
        raise ValueError("a, delta: expected delta * a <= 0, so that states decay")
    times = np.arange(length, dtype=np.float64)
    taps = np.zeros((steps.size, length), np.float32)
    for n in range(rates.shape[1]):
        powers = np.exp(rate[:, n, None] * times).astype(np.float32)
        taps += to_output[n] * (powers * (steps * to_state[n])[:, None])
    return taps


def ssm_convolution(
    u: npt.ArrayLike,
    delta: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    c: npt.ArrayLike,
    *,
    skip: npt.ArrayLike | None = None,
    method: Literal["fft", "direct"] = "fft",
) -> Float32Array:
    """Run the model over (batch, length, channels) inputs: :func:`effsim.models.scan.selective_scan` of constants.

    An SSD scan with constant parameters is the same with one channel for every (head, head_dim): ``a`` is the head's
    rate in every state, ``delta`` the head's step.

    Args:
        u: (batch, length, channels).
        delta: (channels,) step sizes.
        a: (channels, state).
        b: (state,).
        c: (state,).
        skip: (channels,) the D of the formula, or None.
        method: of the convolution.

    Raises:
        ValueError: for shapes that do not fit together.

    >>> ssm_convolution([[[1.0], [2.0]]], [1.0], [[0.0]], [1.0], [1.0]).ravel().tolist()
    [1.0, 3.0]
    """
    inputs = float32("u", u, 3)
    taps = ssm_filter(delta, a, b, c, max(inputs.shape[1], 1))
    y = long_conv(inputs, taps, method=method)
    if skip is None:
        return y
    direct = float32("skip", skip, 1)
    expect_shape("skip", direct, (inputs.shape[2],))
    return y + direct * inputs
