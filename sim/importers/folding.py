"""A flat list of layers → nested runs, so that periodic models are written (and costed) once a period."""

from __future__ import annotations

from typing import Any

Layer = dict[str, Any]
"""One layer as the fields of a ``LayerRun``."""


def fold(layers: list[Layer]) -> list[Layer]:
    """Write *layers* as runs with ``repeat``; the order and number of layers stay.

    At each position the repetition that covers most layers wins, the shortest period among equals; a period of several
    layers is folded again inside.

    >>> fold([{"a": 1}, {"a": 1}, {"b": 2}])
    [{'repeat': 2, 'a': 1}, {'b': 2}]
    >>> fold([{"a": 1}, {"b": 2}] * 3)
    [{'repeat': 3, 'layers': [{'a': 1}, {'b': 2}]}]
    """
    runs: list[Layer] = []
    start = 0
    while start < len(layers):
        period, count = _best_repetition(layers, start)
        body = layers[start : start + period]
        if count == 1:
            runs.append(dict(body[0]))
        elif period == 1:
            runs.append({"repeat": count, **body[0]})
        else:
            runs.append({"repeat": count, "layers": fold(body)})
        start += period * count
    return runs


def _best_repetition(layers: list[Layer], start: int) -> tuple[int, int]:
    """(period, count) of the repetition at *start* that covers most layers; (1, 1) if nothing repeats."""
    best, covered = (1, 1), 1
    for period in range(1, (len(layers) - start) // 2 + 1):
        count, body = 1, layers[start : start + period]
        while layers[start + period * count : start + period * (count + 1)] == body:
            count += 1
        if count > 1 and period * count > covered:
            best, covered = (period, count), period * count
        if covered == len(layers) - start:
            break
    return best
