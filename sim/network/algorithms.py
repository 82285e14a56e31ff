"""Collectives by a named algorithm: their α–β closed forms, on one level and flat over several.

With ``d`` ranks, a buffer of ``S`` bytes, ``α`` seconds a step and ``B`` bytes a second (Thakur, Rabenseifner and
Gropp, *Optimization of Collective Communication Operations in MPICH*, 2005):

| algorithm | all-reduce | reduce-scatter, all-gather |
|---|---|---|
| ring | ``2(d−1)·α + 2(d−1)/d·S/B`` | half of it |
| tree (two trees, in pieces) | ``2⌈log₂ d⌉·α + 2·S/B`` | – |
| halving-doubling | ``2·log₂ d·α + 2(d−1)/d·S/B`` | half of it |
| hierarchical | reduce-scatter inside, all-reduce of what is left outside, all-gather inside | inside, then outside |

Halving-doubling of a number of ranks that is no power of two first folds the ranks beyond it into others, and gives
them the result at the end: two more steps of ``S``. Over several levels a flat ring goes at the pace of the slowest
link; a flat tree crosses each level ``⌈log₂ m⌉`` times; halving-doubling exchanges the largest halves with the nearest
ranks, so a level outside moves what the levels inside have left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REDUCING = ("all_reduce", "all_gather", "reduce_scatter")
"""Collectives that have a choice."""

FLAT = ("ring", "tree")
"""Algorithms whose ranks form one ring or tree over all levels."""


def is_flat(algorithm: str, op: str) -> bool:
    """Whether *op* is forced through one ring or tree of all ranks."""
    return algorithm in FLAT and op in REDUCING and (algorithm == "ring" or op == "all_reduce")


@dataclass(frozen=True, slots=True)
class Steps:
    """``count`` steps of a collective, ``moved`` bytes over the link of the rank that sends most."""

    count: int
    moved: float


def ring(op: str, d: int, size: float) -> Steps:
    """Around all ranks.

    >>> ring("all_reduce", 8, 8e9)
    Steps(count=14, moved=14000000000.0)
    """
    turns = 2 if op == "all_reduce" else 1
    return Steps(turns * (d - 1), turns * (d - 1) / d * size)


def tree(op: str, d: int, size: float) -> Steps | None:
    """Up and down two trees at once; for all-reduce."""
    return Steps(2 * math.ceil(math.log2(d)), 2.0 * size) if op == "all_reduce" else None


def halving_doubling(op: str, d: int, size: float) -> Steps:
    """With partners at doubling distance.

    >>> halving_doubling("all_reduce", 8, 8e9)
    Steps(count=6, moved=14000000000.0)
    >>> halving_doubling("all_reduce", 6, 4e9).count  # two ranks fold into others first
    6
    """
    turns, depth = 2 if op == "all_reduce" else 1, int(math.log2(d))
    power = 1 << depth
    folds = turns if power != d else 0
    return Steps(turns * depth + folds, turns * (power - 1) / power * size + folds * size)


def named(algorithm: str, op: str, d: int, size: float) -> Steps | None:
    """Steps of an algorithm on one level; None where it does not do *op*."""
    if algorithm == "ring":
        return ring(op, d, size)
    if algorithm == "tree":
        return tree(op, d, size)
    return halving_doubling(op, d, size)
