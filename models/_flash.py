"""The tile loop of attention: scores of a query tile against a key tile, online softmax, weighted values.

Keys of a tile are packed transposed and values as they are, so that both products run four query rows at a time over
packed panels (:mod:`effsim.models._panel`). Every score sums over the head dimension in order, every output over the
keys in order: the four-row path, the one-row path and the interpreter give the same bits.
"""

from __future__ import annotations

import numpy as np

from effsim.models._arrays import Float32Array, Int64Array
from effsim.models._kernel import exp32, kernel, log32
from effsim.models._panel import ROWS, WIDTH, quad


@kernel
def visible(first_q: int, last_q: int, begin: int, end: int, causal: bool, window: int) -> tuple[int, int]:
    """Keys [first, last) that at least one query at positions first_q..last_q may see; empty when last <= first."""
    first, last = begin, end
    if causal:
        last = min(end, last_q + 1)
    if window > 0:
        first = max(begin, first_q - window + 1)
    return first, last


@kernel
def _pack_keys(k: Float32Array, where: tuple[int, int], keys: tuple[int, int], out: Float32Array) -> None:
    """Keys of (batch, kv head) transposed: panel p, line d, column j holds channel d of key ``p WIDTH + j``."""
    b, h = where
    for j in range(keys[0], keys[1]):
        panel, column = (j - keys[0]) // WIDTH, (j - keys[0]) % WIDTH
        for d in range(k.shape[3]):
            out[panel, d * WIDTH + column] = k[b, j, h, d]


@kernel
def _pack_values(v: Float32Array, where: tuple[int, int], keys: tuple[int, int], out: Float32Array) -> None:
    """Values of (batch, kv head): panel p, line j, column d holds channel ``p WIDTH + d`` of key j."""
    b, h = where
    for j in range(keys[0], keys[1]):
        for d in range(v.shape[3]):
            out[d // WIDTH, (j - keys[0]) * WIDTH + d % WIDTH] = v[b, j, h, d]


@kernel
def _row_scores(
    q: Float32Array, k: Float32Array, where: tuple[int, int], keys: tuple[int, int], out: Float32Array
) -> None:
    """Dot products of one query with keys where they lie, eight at a time so that their sums overlap."""
    b, h = where
    j = keys[0]
    while j + 8 <= keys[1]:
        k0, k1, k2, k3 = k[b, j, h], k[b, j + 1, h], k[b, j + 2, h], k[b, j + 3, h]
        k4, k5, k6, k7 = k[b, j + 4, h], k[b, j + 5, h], k[b, j + 6, h], k[b, j + 7, h]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
        for d in range(q.shape[0]):
            x = q[d]
            s0 += x * k0[d]
            s1 += x * k1[d]
            s2 += x * k2[d]
            s3 += x * k3[d]
            s4 += x * k4[d]
            s5 += x * k5[d]
            s6 += x * k6[d]
            s7 += x * k7[d]
        o = j - keys[0]
        out[o], out[o + 1], out[o + 2], out[o + 3] = s0, s1, s2, s3
        out[o + 4], out[o + 5], out[o + 6], out[o + 7] = s4, s5, s6, s7
        j += 8
    while j < keys[1]:
        total = np.float32(0)
        for d in range(q.shape[0]):
            total += q[d] * k[b, j, h, d]
        out[j - keys[0]] = total
        j += 1


@kernel
def _weigh(scores: Float32Array, keys: tuple[int, int], scale: np.float32, running: Float32Array) -> np.float32:
    """Turn one row's dot products into weights under its new maximum; return the factor on what came before."""
    peak = running[0]
    for j in range(keys[0], keys[1]):
        scores[j] = scores[j] * scale
        peak = max(peak, scores[j])
    shrink = exp32(running[0] - peak)
    total = running[1] * shrink
    for j in range(keys[0], keys[1]):
        weight = exp32(scores[j] - peak)
        scores[j] = weight
        total += weight
    running[0], running[1] = peak, total
    return np.float32(shrink)


@kernel
def _add_values(
    weights: Float32Array, v: Float32Array, where: tuple[int, int], start: int, keys: tuple[int, int],
    slot: int, acc: Float32Array,
) -> None:  # fmt: skip
    """Add the weighted values of the keys ``start + keys`` to one row of ``acc`` (panels, 4 x WIDTH)."""
    b, h = where
    for panel in range(acc.shape[0]):
        channel = panel * WIDTH
        columns = min(WIDTH, v.shape[3] - channel)
        row = acc[panel, slot * WIDTH : slot * WIDTH + columns]
        j = keys[0]
        while j + 4 <= keys[1]:
            w0, w1, w2, w3 = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
            v0, v1 = v[b, start + j, h, channel:], v[b, start + j + 1, h, channel:]
            v2, v3 = v[b, start + j + 2, h, channel:], v[b, start + j + 3, h, channel:]
            for d in range(columns):
                row[d] = (((row[d] + w0 * v0[d]) + w1 * v1[d]) + w2 * v2[d]) + w3 * v3[d]
            j += 4
        while j < keys[1]:
            weight, value = weights[j], v[b, start + j, h, channel:]
            for d in range(columns):
                row[d] += weight * value[d]
            j += 1


@kernel
def _four_rows(
    q: Float32Array, row: int, v: Float32Array, where: tuple[int, int], start: int, length: int, spans: Int64Array,
    scale: np.float32, panels: tuple[Float32Array, Float32Array], sums: Float32Array,
    scores: Float32Array, running: Float32Array, acc: Float32Array,
) -> None:  # fmt: skip
    """Let rows ``row … row + 3`` see the packed tile; ``spans`` holds each row's keys, relative to ``start``."""
    for panel in range((length + WIDTH - 1) // WIDTH):
        for j in range(ROWS * WIDTH):
            sums[j] = np.float32(0)
        quad(q, row, 0, q.shape[1], panels[0][panel], sums)
        first = panel * WIDTH
        for r in range(ROWS):
            line, own = scores[r, first:], sums[r * WIDTH :]
            for j in range(min(WIDTH, length - first)):
                line[j] = own[j]
    low, high = 0, length
    for r in range(ROWS):
        low, high = max(low, int(spans[row + r, 0])), min(high, int(spans[row + r, 1]))
        if spans[row + r, 0] < spans[row + r, 1]:
            shrink = _weigh(scores[r], (spans[row + r, 0], spans[row + r, 1]), scale, running[row + r])
            for panel in range(acc.shape[0]):
                own = acc[panel, r * WIDTH : (r + 1) * WIDTH]
                for d in range(WIDTH):
                    own[d] = own[d] * shrink
    if high < low:
        low = high = 0
    for r in range(ROWS):  # keys that only some of the four rows see are added row by row, before and after the others
        ahead = low if high > low else spans[row + r, 1]
        _add_values(scores[r], v, where, start, (spans[row + r, 0], ahead), r, acc)
    if high > low:
        for panel in range(acc.shape[0]):
            lines = panels[1][panel, low * WIDTH :]
            quad(scores, 0, low, high, lines, acc[panel])
        for r in range(ROWS):
            _add_values(scores[r], v, where, start, (high, spans[row + r, 1]), r, acc)


@kernel
def _one_row(
    q: Float32Array, k: Float32Array, v: Float32Array, where: tuple[int, int], start: int, span: tuple[int, int],
    scale: np.float32, slot: int, scores: Float32Array, running: Float32Array, acc: Float32Array,
) -> None:  # fmt: skip
    """Let one query see a tile's keys where they lie; its accumulator is number ``slot`` of the four in ``acc``."""
    if span[0] >= span[1]:
        return
    _row_scores(q, k, where, (start + span[0], start + span[1]), scores[span[0] :])
    shrink = _weigh(scores, span, scale, running)
    for panel in range(acc.shape[0]):
        own = acc[panel, slot * WIDTH : (slot + 1) * WIDTH]
        for d in range(WIDTH):
            own[d] = own[d] * shrink
    _add_values(scores, v, where, start, span, slot, acc)


@kernel
def _query_tile(
    q: Float32Array, k: Float32Array, v: Float32Array, where: tuple[int, int], positions: Int64Array,
    range_: tuple[int, int], scale: np.float32, causal: bool, window: int, tile_kv: int,
    panels: tuple[Float32Array, Float32Array], sums: Float32Array, scores: Float32Array,
    running: Float32Array, acc: Float32Array,
) -> None:  # fmt: skip
    """Walk the rows of ``q`` (rows, d) over the key tiles of ``range_`` that they can see.

    The first row stands at the lowest position and the last row at the highest.
    """
    rows = q.shape[0]
    first, last = visible(positions[0], positions[rows - 1], range_[0], range_[1], causal, window)
    # Tiles stay on the grid that starts at the range's first key, so a window does not shift them.
    begin = range_[0] + (first - range_[0]) // tile_kv * tile_kv
    spans = np.empty((rows, 2), np.int64)
    packed = rows // ROWS * ROWS
    for start in range(begin, last, tile_kv):
        end = min(start + tile_kv, range_[1])
        for r in range(rows):
            own = visible(positions[r], positions[r], range_[0], range_[1], causal, window)
            spans[r, 0] = max(own[0], start) - start
            spans[r, 1] = max(min(own[1], end) - start, spans[r, 0])
        if packed:
            _pack_keys(k, where, (start, end), panels[0])
            _pack_values(v, where, (start, end), panels[1])
        for r in range(0, packed, ROWS):
            _four_rows(
                q, r, v, where, start, end - start, spans, scale, panels, sums, scores, running, acc[r // ROWS],
            )  # fmt: skip
        for r in range(packed, rows):
            span = (spans[r, 0], spans[r, 1])
            _one_row(q[r], k, v, where, start, span, scale, r % ROWS, scores[0], running[r], acc[r // ROWS])


@kernel
def attend(
    q: Float32Array, k: Float32Array, v: Float32Array, q_start: Int64Array, kv_begin: Int64Array, kv_end: Int64Array,
    scale: np.float32, causal: bool, window: int, tiles: tuple[int, int], folded: int,
    out: Float32Array, lse: Float32Array,
) -> None:  # fmt: skip
    """Fill ``out`` and ``lse`` for every batch, head and query tile; both come in as zeros and -inf.

    ``folded`` heads that share a kv head are rows of one tile.
    """
    batch, q_len, heads, dim = q.shape
    tile_q, tile_kv = tiles
    group, value_dim = heads // k.shape[2], v.shape[3]
    most = tile_q * folded
    running, positions = np.empty((most, 2), np.float32), np.empty(most, np.int64)
    value_panels = (value_dim + WIDTH - 1) // WIDTH
    acc = np.empty(((most + ROWS - 1) // ROWS, value_panels, ROWS * WIDTH), np.float32)
    scores, queries = np.empty((ROWS, tile_kv), np.float32), np.empty((most, dim), np.float32)
    panels = (
        np.zeros(((tile_kv + WIDTH - 1) // WIDTH, dim * WIDTH), np.float32),
        np.zeros((value_panels, tile_kv * WIDTH), np.float32),
    )
    sums = np.empty(ROWS * WIDTH, np.float32)
    for b in range(batch):
        for h in range(0, heads, folded):
            for first in range(0, q_len, tile_q):
                count = min(tile_q, q_len - first)
                rows = folded * count
                for r in range(rows):
                    running[r, 0], running[r, 1] = np.float32(-np.inf), np.float32(0)
                    positions[r] = q_start[b] + first + r % count
                    queries[r] = q[b, first + r % count, h + r // count]
                for r in range(acc.shape[0]):
                    for panel in range(value_panels):
                        for d in range(ROWS * WIDTH):
                            acc[r, panel, d] = np.float32(0)
                _query_tile(
                    queries[:rows], k, v, (b, h // group), positions[:rows], (kv_begin[b], kv_end[b]), scale, causal,
                    window, tile_kv, panels, sums, scores, running, acc,
                )  # fmt: skip
                for r in range(rows):
                    if running[r, 1] != np.float32(0):  # a NaN score gives NaN, no key gives zeros
                        i, j = first + r % count, h + r // count
                        lse[b, i, j] = running[r, 0] + log32(running[r, 1])
                        for d in range(value_dim):
                            sums_d = acc[r // ROWS, d // WIDTH, r % ROWS * WIDTH + d % WIDTH]
                            out[b, i, j, d] = sums_d / running[r, 1]
