"""Embedding tables: whole, sharded over the vocabulary, and bags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from effsim.models._arrays import Float32Array, Int64Array, float32, int64


def _checked_ids(ids: npt.ArrayLike, rows: int) -> Int64Array:
    wanted = int64("ids", ids, np.ndim(ids))
    if wanted.size and (wanted.min() < 0 or wanted.max() >= rows):
        raise ValueError(f"ids: expected 0…{rows - 1}, got {wanted.min()}…{wanted.max()}")
    return wanted


def lookup(table: npt.ArrayLike, ids: npt.ArrayLike) -> Float32Array:
    """Return ``table[ids]``: table (rows, dim), ids of any shape, result ids.shape + (dim,).

    Raises:
        ValueError: if an id is out of range (negative ids do not wrap).

    >>> lookup([[1.0], [2.0]], [[1, 0]]).tolist()
    [[[2.0], [1.0]]]
    """
    rows = float32("table", table, 2)
    return rows[_checked_ids(ids, rows.shape[0])]


def sharded_lookup(shards: Sequence[npt.ArrayLike], ids: npt.ArrayLike) -> list[Float32Array]:
    """Return each device's partial result when consecutive vocabulary rows are spread over devices.

    A device answers zeros for ids it does not own, so the all-reduced sum of the partial results is :func:`lookup` on
    the whole table, exactly (Shoeybi et al., *Megatron-LM*, 2019).

    Args:
        shards: one (rows_i, dim) table a device, in vocabulary order.
        ids: integers of any shape.

    Raises:
        ValueError: if there are no shards, widths differ or an id is out of range.

    >>> [part.tolist() for part in sharded_lookup([[[1.0]], [[2.0]]], [1, 0])]
    [[[0.0], [1.0]], [[2.0], [0.0]]]
    """
    tables = [float32(f"shards[{i}]", shard, 2) for i, shard in enumerate(shards)]
    if not tables or any(table.shape[1] != tables[0].shape[1] for table in tables):
        raise ValueError(f"shards: expected tables of one width, got {[table.shape for table in tables]}")
    wanted = _checked_ids(ids, sum(table.shape[0] for table in tables))
    parts, first = [], 0
    for table in tables:
        owned = (wanted >= first) & (wanted < first + table.shape[0])
        part = np.zeros((*wanted.shape, table.shape[1]), np.float32)
        part[owned] = table[wanted[owned] - first]
        parts.append(part)
        first += table.shape[0]
    return parts


def embedding_bag(table: npt.ArrayLike, ids: npt.ArrayLike, offsets: npt.ArrayLike) -> Float32Array:
    """Return the sum of rows per bag, added in id order, as recommendation models pool their features.

    Args:
        table: (rows, dim).
        ids: (n,) integers.
        offsets: (bags,) start of each bag in ids, ascending from 0; a bag may be empty and gives zeros.

    Returns:
        float32 array (bags, dim).

    Raises:
        ValueError: if offsets do not ascend from 0 within the ids, or an id is out of range.

    >>> embedding_bag([[1.0], [2.0], [4.0]], [0, 2, 1], [0, 2, 3]).tolist()
    [[5.0], [2.0], [0.0]]
    """
    rows = float32("table", table, 2)
    wanted, starts = _checked_ids(int64("ids", ids, 1), rows.shape[0]), int64("offsets", offsets, 1)
    bounds = np.append(starts, wanted.size)
    if (starts.size and starts[0] != 0) or (np.diff(bounds) < 0).any() or (not starts.size and wanted.size):
        raise ValueError(f"offsets: expected to ascend from 0 to at most {wanted.size}, got {starts.tolist()}")
    out = np.zeros((starts.size, rows.shape[1]), np.float32)
    for bag in range(starts.size):
        for i in range(bounds[bag], bounds[bag + 1]):
            out[bag] += rows[wanted[i]]
    return out
