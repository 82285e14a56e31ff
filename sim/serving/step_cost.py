"""How long one step of a served model takes, for any mix of prompt chunks and generating sequences.

A step of a serving engine runs every token of its batch through the same projections, experts and norms, but attention
(or a scan) sequence by sequence. So its time is taken apart:

    step(T, D, chunks) = tokens(T) + logits(L) + generation(D, context) + Σ context(q_i, kv_i) + host

``T`` all new tokens, ``D`` sequences that generate, ``L`` tokens that need logits. Which operators belong to which term
is found by comparing graphs: an operator that is the same for eight sequences of one token and for one sequence of
eight is of the first kind. Every term is priced on a grid by the analytic reading's kernels and launches, and read off
it by linear interpolation, so a simulation of millions of steps lowers each kernel once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..devices.device import Device
from ..graph.graph import Graph
from ..program.place import StepGraph
from ..readings.launch import host_s, operator_launch_s

PROBE = 8
"""Tokens of the graphs that are compared to tell the terms apart."""
FINE = 16
"""Up to here a grid holds every whole number: where tiles are padded, time has steps."""


@dataclass(frozen=True, slots=True)
class Host:
    """Time of the engine's host in a step: fixed, and for each sequence in it."""

    per_step_s: float = 0.0
    per_sequence_s: float = 0.0


def grid(limit: int, per_octave: int = 4) -> tuple[int, ...]:
    """Whole numbers from 1 to *limit*: all up to 16, then *per_octave* to every doubling, and *limit* itself.

    >>> grid(40)[15:]
    (16, 20, 24, 28, 32, 40)
    """
    out = list(range(1, min(limit, FINE) + 1))
    base = FINE
    while base < limit:
        out += [base + base * i // per_octave for i in range(1, per_octave + 1)]
        base *= 2
    return tuple(sorted({min(n, limit) for n in out}))


class Line:
    """A function of one whole number, priced on a grid when first asked for and linear between its points."""

    __slots__ = ("_at", "_kept", "_points", "_price")

    def __init__(self, points: Sequence[int], price: Callable[[int], float]) -> None:
        self._points, self._price = tuple(points), price
        self._at: list[float | None] = [None] * len(self._points)
        self._kept: dict[int, float] = {}

    def _value(self, index: int) -> float:
        found = self._at[index]
        if found is None:
            found = self._at[index] = self._price(self._points[index])
        return found

    def whole(self, x: int) -> float:
        """Seconds at a whole number, remembered."""
        found = self._kept.get(x)
        if found is None:
            found = self._kept[x] = self(x)
        return found

    def __call__(self, x: float) -> float:
        """Seconds at *x*; beyond the last point, by the last slope."""
        points, at = self._points, self._at
        i = bisect_right(points, x) - 1
        if i < 0:
            return self._value(0)
        low = points[i]
        first = at[i]
        if first is None:
            first = self._value(i)
        if x == low:
            return first
        if i == len(points) - 1:
            if i == 0:
                return first * x / low
            i -= 1
            low, first = points[i], self._value(i)
        second = at[i + 1]
        if second is None:
            second = self._value(i + 1)
        return first + (second - first) * (x - low) / (points[i + 1] - low)


class Plane:
    """A function of two whole numbers: lines over the second for every point of the first that is asked for."""

    __slots__ = ("_lines", "_points", "_price", "_rows", "_second")

    def __init__(self, first: Sequence[int], second: Sequence[int], price: Callable[[int, int], float]) -> None:
        self._points, self._second, self._price = tuple(first), tuple(second), price
        self._lines: dict[int, Line] = {}
        self._rows: dict[int, Line] = {}

    def _line(self, index: int) -> Line:
        found = self._lines.get(index)
        if found is None:
            x = self._points[index]
            found = self._lines[index] = Line(self._second, lambda y: self._price(x, y))
        return found

    def __call__(self, x: int, y: float) -> float:
        """Seconds at (*x*, *y*); beyond the last points, by the last slopes."""
        found = self._rows.get(x)
        if found is None:
            found = self._rows[x] = self._row(x)
        return found(y)

    def _row(self, x: int) -> Line:
        """The line over the second number at *x*: one of the grid's, or one between two of them."""
        points = self._points
        i = max(0, bisect_right(points, x) - 1)
        if x == points[i] or x < points[0]:
            return self._line(i)
        if i == len(points) - 1:
            if i == 0:
                only = self._line(0)
                return Line(self._second, lambda y: only(y) * x / points[0])
            i -= 1
        low, high = self._line(i), self._line(i + 1)
        share = (x - points[i]) / (points[i + 1] - points[i])
        return Line(self._second, lambda y: low(y) + (high(y) - low(y)) * share)


class StepCost:
    """Seconds of a step on one replica.

    Args:
        graphs: the model's steps on one device of the replica (see :func:`effsim.program.place.step_graphs`).
        device: what runs them.
        launch: launch mode of the engine; ``fused``: its pointwise operators are single kernels.
        host: host time of the engine.
        most_tokens, most_sequences, longest: ends of the grids: tokens a step, sequences a batch, tokens a sequence.
    """

    def __init__(
        self,
        graphs: StepGraph,
        device: Device,
        *,
        launch: str,
        fused: bool,
        host: Host,
        most_tokens: int,
        most_sequences: int,
        longest: int,
    ) -> None:
        self._graphs, self._device, self._launch, self._fused, self.host = graphs, device, launch, fused, host
        one, many = graphs("generation", PROBE, 1, 1, 1), graphs("context", 1, PROBE, PROBE, PROBE)
        last = graphs("context", 1, PROBE, PROBE, 1)
        triples = zip(one.walk(), many.walk(), last.walk(), strict=True)
        self._by_token, self._by_logit, self._by_sequence = set[str](), set[str](), set[str]()
        for (name, a, _), (_, b, _), (_, c, _) in triples:
            kind = self._by_sequence if a.op != b.op else self._by_logit if b.op != c.op else self._by_token
            kind.add(name)
        self.tokens = Line(grid(most_tokens), lambda n: self._sum(graphs("context", 1, n, n, 1), self._by_token))
        self.logits = Line(grid(most_sequences), lambda n: self._sum(graphs("generation", n, 1, 1, 1), self._by_logit))
        lengths = tuple(n for n in grid(longest, 2) if n >= FINE or n == 1)
        self.generation = Plane(
            grid(most_sequences),
            lengths,
            lambda n, kv: self._sum(graphs("generation", n, 1, kv, 1), self._by_sequence),
        )
        self.context = Plane(
            tuple(n for n in grid(most_tokens, 2) if n >= FINE or n == 1),
            tuple(sorted({0, *lengths})),
            lambda q, past: self._sum(graphs("context", 1, q, q + past, 1), self._by_sequence),
        )

    def _sum(self, graph: Graph, wanted: set[str]) -> float:
        """Analytic seconds of the wanted nodes with their launches."""
        costs, mode = self._device.launch, self._launch
        device_s = dispatch_s = 0.0
        for name, node, count in graph.walk():
            if name in wanted:
                lowered = self._device.lower(node.op, self._fused)
                gap = operator_launch_s(costs, mode, len(lowered.seconds), lowered.seconds)
                device_s += count * (lowered.analytic_s + gap)
                dispatch_s += count * host_s(costs, mode, len(lowered.seconds))
        return max(device_s, dispatch_s)

    def generate_s(self, sequences: int, context: float) -> float:
        """A step in which *sequences* with *context* tokens each (on average) generate one token each."""
        return (
            self.tokens.whole(sequences)
            + self.logits.whole(sequences)
            + self.generation(sequences, context)
            + self.host.per_step_s
            + sequences * self.host.per_sequence_s
        )

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        """A step of prompt *chunks* (new tokens, tokens before them) beside *sequences* that generate.

        *finished* chunks are the last of their prompt: they yield the first token.
        """
        new = sum(q for q, _ in chunks)
        seconds = self.tokens.whole(sequences + new) + sum(self.context(q, past) for q, past in chunks)
        if sequences:
            seconds += self.generation(sequences, context)
        if sequences + finished:
            seconds += self.logits.whole(sequences + finished)
        return seconds + self.host.per_step_s + (sequences + len(chunks)) * self.host.per_sequence_s
