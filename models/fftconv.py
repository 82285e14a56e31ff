"""Long causal convolution, directly and by a radix-2 FFT.

Sources: Cooley & Tukey (1965) for the transform; Poli et al., *Hyena* (2023) and Fu et al., *FlashFFTConv* (2023) for
long convolutions as a network layer. For filters h of k taps: ``y_t = sum_{j<k} h_j x_{t-j}`` per channel.

The FFT form pads both to a power of two N >= length + k - 1, so that nothing wraps round, transforms in log2(N) passes
of butterflies in float32 with twiddles rounded once from double, multiplies and transforms back. Its error is bounded
in norm, not per element: with d = log2(N) (u + gamma(4) (sqrt(2) + u)) for one transform (Higham 2002, theorem 24.2),
``|error|_2 <= (2 d + 2 gamma(6)) (|x|_1 |h|_2 + |x|_2 |h|_1)`` to first order in u.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_positive, expect_shape, float32
from effsim.models._kernel import kernel


@kernel
def _transform(real: Float32Array, imag: Float32Array, cos: Float32Array, sin: Float32Array) -> None:
    """In-place forward transform of one signal: bit reversal, then butterflies of doubling span."""
    size = real.shape[0]
    target = 0
    for i in range(1, size):
        bit = size >> 1
        while target & bit:
            target ^= bit
            bit >>= 1
        target ^= bit
        if i < target:
            real[i], real[target] = real[target], real[i]
            imag[i], imag[target] = imag[target], imag[i]
    span = 1
    while span < size:
        stride = size // (2 * span)
        for start in range(0, size, 2 * span):
            for j in range(span):
                upper, lower = start + j, start + j + span
                c, s = cos[j * stride], sin[j * stride]
                turned_real = real[lower] * c - imag[lower] * s
                turned_imag = real[lower] * s + imag[lower] * c
                real[lower] = real[upper] - turned_real
                imag[lower] = imag[upper] - turned_imag
                real[upper] = real[upper] + turned_real
                imag[upper] = imag[upper] + turned_imag
        span *= 2


@kernel
def _load(values: Float32Array, real: Float32Array, imag: Float32Array) -> None:
    """Put a real signal into a zero-padded complex one."""
    for t in range(real.shape[0]):
        real[t] = values[t] if t < values.shape[0] else np.float32(0)
        imag[t] = np.float32(0)


@kernel
def _by_fft(x: Float32Array, taps: Float32Array, cos: Float32Array, sin: Float32Array, out: Float32Array) -> None:
    """Transform, multiply and transform back; ``x`` and ``out`` are (batch, channels, length) here."""
    batch, channels, length = x.shape
    size = 2 * cos.shape[0]
    h_real, h_imag = np.empty(size, np.float32), np.empty(size, np.float32)
    real, imag = np.empty(size, np.float32), np.empty(size, np.float32)
    for c in range(channels):
        _load(taps[c], h_real, h_imag)
        _transform(h_real, h_imag, cos, sin)
        for i in range(batch):
            _load(x[i, c], real, imag)
            _transform(real, imag, cos, sin)
            for f in range(size):
                product = real[f] * h_real[f] - imag[f] * h_imag[f]
                # The inverse transform is the forward one of the conjugate spectrum; the result is real.
                imag[f] = -(real[f] * h_imag[f] + imag[f] * h_real[f])
                real[f] = product
            _transform(real, imag, cos, sin)
            for t in range(length):
                out[i, c, t] = real[t] / np.float32(size)


@kernel
def _directly(x: Float32Array, taps: Float32Array, out: Float32Array) -> None:
    """Sum the taps newest first; ``out`` comes in as zeros."""
    batch, length, channels = x.shape
    for i in range(batch):
        for t in range(length):
            for j in range(min(t + 1, taps.shape[1])):
                for c in range(channels):
                    out[i, t, c] += taps[c, j] * x[i, t - j, c]


def fft_size(length: int, taps: int) -> int:
    """Return the transform length: the smallest power of two, at least 2, that holds ``length + taps - 1`` samples.

    >>> fft_size(1000, 1000), fft_size(1, 1)
    (2048, 2)
    """
    return max(2, 1 << (length + taps - 2).bit_length())


def long_conv(x: npt.ArrayLike, taps: npt.ArrayLike, *, method: Literal["fft", "direct"] = "fft") -> Float32Array:
    """Convolve each channel causally with a long filter (tap 0 meets the newest token).

    Args:
        x: (batch, length, channels).
        taps: (channels, k) with k >= 1.
        method: ``fft`` or ``direct``.

    Returns:
        float32 array (batch, length, channels).

    Raises:
        ValueError: for shapes that do not fit together or an unknown method.

    >>> long_conv([[[1.0], [2.0], [0.0]]], [[1.0, 10.0]]).ravel().tolist()
    [1.0, 12.0, 20.0]
    """
    signal, filters = float32("x", x, 3), float32("taps", taps, 2)
    expect_positive(taps=filters.shape[1])
    expect_shape("taps", filters, (signal.shape[2], filters.shape[1]))
    out = np.zeros(signal.shape, np.float32)
    if method == "direct":
        _directly(signal, filters, out)
    elif method != "fft":
        raise ValueError(f"method: expected fft or direct, got {method!r}")
    elif signal.size:
        # Taps older than the sequence meet only zeros; dropping them keeps the transform short.
        used = np.ascontiguousarray(filters[:, : signal.shape[1]])
        size = fft_size(signal.shape[1], used.shape[1])
        angles = -2.0 * np.pi * np.arange(size // 2) / size
        rows = np.ascontiguousarray(np.swapaxes(signal, 1, 2))
        result = np.empty_like(rows)
        _by_fft(rows, used, np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32), result)
        return np.ascontiguousarray(np.swapaxes(result, 1, 2))
    return out
