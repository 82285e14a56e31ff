"""Collectives on lists of shards, added in the order in which a ring adds them.

Source: Patarasuk & Yuan, *Bandwidth optimal all-reduce algorithms for clusters of workstations* (2009). Device d sends
to d + 1. A buffer is cut into one chunk a device (as even as possible, longer ones first). In step s of reduce-scatter
device d passes on chunk ``d - s - 1`` and adds chunk ``d - s - 2`` as it arrives, so that chunk c is summed in the
order ``((x[c+1] + x[c+2]) + …) + x[c]`` and ends on device c after p - 1 steps. All-gather then passes whole chunks
round.

Because of that order every device gets the same bits from an all-reduce, but not the bits of a left-to-right sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, expect_shape, float32_any
from effsim.models.rounding import round_to


def _checked(buffers: Sequence[npt.ArrayLike]) -> list[Float32Array]:
    shards = [float32_any(f"buffers[{i}]", buffer) for i, buffer in enumerate(buffers)]
    if not shards:
        raise ValueError("buffers: expected at least one device")
    for i, shard in enumerate(shards):
        expect_shape(f"buffers[{i}]", shard, shards[0].shape)
    return shards


def _pass_and_add(shards: list[Float32Array], dtype: str) -> list[Float32Array]:
    """Run the p - 1 steps of reduce-scatter; device d's result is chunk d of the flattened sum."""
    p = len(shards)
    held = [[chunk.copy() for chunk in np.array_split(round_to(shard.ravel(), dtype), p)] for shard in shards]
    for step in range(p - 1):
        sent = [held[d][(d - step - 1) % p] for d in range(p)]
        for d in range(p):
            chunk = (d - step - 2) % p
            held[d][chunk] = round_to(sent[(d - 1) % p] + held[d][chunk], dtype)
    return [held[d][d] for d in range(p)]


def ring_reduce_scatter(buffers: Sequence[npt.ArrayLike], *, dtype: str = "fp32") -> list[Float32Array]:
    """Return on device d the d-th chunk of the sum of all buffers, flattened.

    Args:
        buffers: one array of the same shape a device.
        dtype: format of the data on the wire; inputs and every partial sum are rounded to it.

    Raises:
        ValueError: if there is no device, shapes differ or the dtype is unknown.

    >>> [x.tolist() for x in ring_reduce_scatter([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])]
    [[11.0, 22.0], [33.0]]
    """
    return _pass_and_add(_checked(buffers), dtype)


def ring_all_gather(shards: Sequence[npt.ArrayLike]) -> list[Float32Array]:
    """Return on every device the flattened shards of all devices, in device order; lengths may differ.

    In step s device d passes on the shard of device ``d - s``, which it received in the step before.

    Raises:
        ValueError: if there is no device.

    >>> [x.tolist() for x in ring_all_gather([[1.0], [2.0, 3.0]])]
    [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
    """
    own = [float32_any(f"shards[{i}]", shard).ravel() for i, shard in enumerate(shards)]
    p = len(own)
    if not p:
        raise ValueError("shards: expected at least one device")
    held = [{d: own[d]} for d in range(p)]
    for step in range(p - 1):
        sent = [held[d][(d - step) % p] for d in range(p)]
        for d in range(p):
            held[d][(d - 1 - step) % p] = sent[(d - 1) % p]
    return [np.concatenate([held[d][source] for source in range(p)]) for d in range(p)]


def ring_all_reduce(buffers: Sequence[npt.ArrayLike], *, dtype: str = "fp32") -> list[Float32Array]:
    """Return on every device the sum of all buffers, in their shape: reduce-scatter, then all-gather.

    Args:
        buffers: one array of the same shape a device.
        dtype: format of the data on the wire; inputs and every partial sum are rounded to it.

    Raises:
        ValueError: if there is no device, shapes differ or the dtype is unknown.

    >>> [x.tolist() for x in ring_all_reduce([[1.0, 2.0], [10.0, 20.0]])]
    [[11.0, 22.0], [11.0, 22.0]]
    """
    shards = _checked(buffers)
    return [whole.reshape(shards[0].shape) for whole in ring_all_gather(_pass_and_add(shards, dtype))]


def all_to_all(buffers: Sequence[Sequence[npt.ArrayLike]]) -> list[list[Float32Array]]:
    """Return on device d the list of what every device had for it: ``result[d][s] = buffers[s][d]``.

    In round r device s sends to ``s + r``, so that every link carries one message a round; nothing is added.

    Args:
        buffers: ``buffers[s][d]`` is what device s sends to device d, of any shape.

    Raises:
        ValueError: if a device does not have one buffer a device.

    >>> [[x.tolist() for x in row] for row in all_to_all([[[1.0], [2.0]], [[3.0], [4.0]]])]
    [[[1.0], [3.0]], [[2.0], [4.0]]]
    """
    p = len(buffers)
    if not p or any(len(row) != p for row in buffers):
        raise ValueError(f"buffers: expected {p} buffers on each of {p} devices, at least one")
    received: list[dict[int, Float32Array]] = [{} for _ in range(p)]
    for shift in range(p):
        for source in range(p):
            target = (source + shift) % p
            received[target][source] = float32_any(f"buffers[{source}][{target}]", buffers[source][target])
    return [[row[source] for source in range(p)] for row in received]


def broadcast(buffers: Sequence[npt.ArrayLike], root: int = 0) -> list[Float32Array]:
    """Return on every device what ``root`` had; the buffer travels round the ring, one device a step.

    Raises:
        ValueError: if shapes differ or there is no such device.

    >>> [x.tolist() for x in broadcast([[1.0], [2.0]], root=1)]
    [[2.0], [2.0]]
    """
    shards = _checked(buffers)
    if not 0 <= root < len(shards):
        raise ValueError(f"root: expected 0…{len(shards) - 1}, got {root}")
    held = list(shards)
    for step in range(1, len(shards)):
        held[(root + step) % len(shards)] = held[(root + step - 1) % len(shards)].copy()
    return held


def send_recv(buffers: Sequence[npt.ArrayLike], shift: int = 1) -> list[Float32Array]:
    """Return on device d what device ``d - shift`` had, as pipeline stages and rings of attention pass data on.

    Raises:
        ValueError: if there is no device.

    >>> [x.tolist() for x in send_recv([[1.0], [2.0], [3.0]])]
    [[3.0], [1.0], [2.0]]
    """
    own = [float32_any(f"buffers[{i}]", buffer) for i, buffer in enumerate(buffers)]
    if not own:
        raise ValueError("buffers: expected at least one device")
    return [own[(d - shift) % len(own)].copy() for d in range(len(own))]
