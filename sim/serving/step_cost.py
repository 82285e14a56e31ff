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
from typing import Protocol

from ..devices.device import Device, Lowered
from ..graph.graph import Graph, Node
from ..program.place import StepGraph
from ..program.program import HostWork
from ..readings.launch import ahead_s, node_launch_s
from ..spec.engine import EngineSpec

PROBE = 1024
"""Tokens of the graphs that are compared to tell the terms apart."""
FINE = 16
"""Up to here a grid holds every whole number: where tiles are padded, time has steps."""


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
        return self.row(x)(y)

    def row(self, x: int) -> Line:
        """The line over the second number at *x*, remembered."""
        found = self._rows.get(x)
        if found is None:
            found = self._rows[x] = self._row(x)
        return found

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


class _Terms:
    """The terms of a step in one launch mode, and the host time that its kernels take ahead of the device."""

    def __init__(self, source: StepCost, mode: str, most_tokens: int, most_sequences: int, longest: int) -> None:
        graphs, price = source.graphs, source.price
        lengths = tuple(n for n in grid(longest, 2) if n >= FINE or n == 1)
        chunks = tuple(n for n in grid(most_tokens, 2) if n >= FINE or n == 1)
        self.tokens = Line(grid(most_tokens), lambda n: price(graphs("context", 1, n, n, 1), source.by_token, mode))
        # Tokens of steps that have no prompt, where these have other kernels.
        width, rows = source.width, grid(most_sequences * source.width)
        self.generated = self.tokens
        if not source.same_kernels:
            self.generated = Line(rows, lambda n: price(graphs("generation", n, 1, 1, 1), source.by_token, mode))
        self.logits = Line(rows, lambda n: price(graphs("generation", n, 1, 1, 1), source.by_logit, mode))
        self.generation = Plane(
            grid(most_sequences),
            lengths,
            lambda n, kv: price(graphs("generation", n, width, max(kv, width), 1), source.by_sequence, mode),
        )
        self.context = Plane(
            chunks,
            tuple(sorted({0, *lengths})),
            lambda q, past: price(graphs("context", 1, q, q + past, 1), source.by_sequence, mode),
        )
        self.ahead_s = ahead_s(source.device.launch, mode, source.host, source.kernels)


class Costs(Protocol):
    """Seconds of steps: what a replica asks of a cost model."""

    def generate_s(self, sequences: int, context: float) -> float:
        """A step in which *sequences* with *context* tokens each on average generate."""

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        """A step with prompt *chunks* (new tokens, tokens before them) beside; *finished* of them end their prompt."""


class StepCost:
    """Seconds of a step on one replica.

    Steps in which all sequences generate replay a captured graph where the engine holds one, padded to its batch; every
    other step is launched as the engine launches what it did not capture. Host time stands between steps, or beside the
    device where the engine is asynchronous.

    Args:
        graphs: the model's steps on one device of the replica (see :func:`effsim.program.place.step_graphs`).
        device: what runs them.
        engine: launch modes, captured batches.
        host: host times of the engine.
        most_tokens, most_sequences, longest: ends of the grids: tokens a step, sequences a batch, tokens a sequence.
        width: tokens of a sequence that a generating step runs (more than one to verify drafts), each with logits.
    """

    def __init__(
        self,
        graphs: StepGraph,
        device: Device,
        engine: EngineSpec,
        host: HostWork,
        *,
        most_tokens: int,
        most_sequences: int,
        longest: int,
        width: int = 1,
    ) -> None:
        self.width = width
        self.graphs, self.device, self.host, self._engine = graphs, device, host, engine
        one, many = graphs("generation", PROBE, 1, 1, 1), graphs("context", 1, PROBE, PROBE, PROBE)
        last = graphs("context", 1, PROBE, PROBE, 1)
        single = {name: node.op for name, node, _ in one.walk()}
        self.by_token, self.by_logit, self.by_sequence = set[str](), set[str](), set[str]()
        for (name, b, _), (_, c, _) in zip(many.walk(), last.walk(), strict=True):
            # What is there for prompts alone (their keys written to the cache by a kernel of its own) counts by token.
            differs = name in single and single[name] != b.op
            kind = self.by_sequence if differs else self.by_logit if b.op != c.op else self.by_token
            kind.add(name)
        self.same_kernels = self.by_token <= single.keys()
        self.kernels = sum(count * len(self.lowered(node).seconds) for _, node, count in one.walk())
        ends = (max(most_tokens, most_sequences * width), most_sequences, longest)
        self._generating: dict[int, tuple[float, Line, float, float]] = {}
        self._captured = _Terms(self, engine.launch, *ends)
        same = engine.uncaptured in (None, engine.launch)
        self._others = self._captured if same else _Terms(self, str(engine.uncaptured), *ends)

    def lowered(self, node: Node) -> Lowered:
        """The kernels of a node."""
        return self.device.lower(node.op, self._engine.fused_pointwise)

    def price(self, graph: Graph, wanted: set[str], mode: str) -> float:
        """Analytic seconds of the wanted nodes with their launches."""
        seconds = 0.0
        for name, node, count in graph.walk():
            if name in wanted:
                lowered = self.lowered(node)
                launch = node_launch_s(self.device.launch, mode, self.host, node.op, lowered.seconds)
                seconds += count * (lowered.analytic_s + launch)
        return seconds

    def _with_host(self, device_s: float, ahead: float, between: float) -> float:
        """A step's seconds with what its host adds."""
        between /= self.device.launch.host_speed
        busy = max(device_s, ahead)
        return max(busy, ahead + between) if self.host.asynchronous else busy + between

    def generate_s(self, sequences: int, context: float) -> float:
        """A step in which *sequences* with *context* tokens each (on average) generate one token each."""
        kept = self._generating.get(sequences)
        if kept is None:
            kept = self._generating[sequences] = self._generating_terms(sequences)
        fixed_s, growing, ahead_s, between_s = kept
        device_s = fixed_s + growing(context)
        busy = device_s if device_s > ahead_s else ahead_s
        if not self.host.asynchronous:
            return busy + between_s
        return max(busy, ahead_s + between_s)

    def _generating_terms(self, sequences: int) -> tuple[float, Line, float, float]:
        """Of a step of so many sequences: what does not depend on their context, what does, and host times."""
        tokens = sequences * self.width
        padded = self._engine.captured_batch(tokens)
        terms, batch = (self._others, tokens) if padded is None else (self._captured, padded)
        fixed_s = terms.generated.whole(batch) + terms.logits.whole(batch)
        between_s = (self.host.per_step_s + sequences * self.host.per_sequence_s) / self.device.launch.host_speed
        return fixed_s, terms.generation.row(sequences), terms.ahead_s, between_s

    def mixed_s(self, sequences: int, context: float, chunks: Sequence[tuple[int, int]], finished: int) -> float:
        """A step of prompt *chunks* (new tokens, tokens before them) beside *sequences* that generate.

        *finished* chunks are the last of their prompt: they yield the first token.
        """
        terms = self._others
        generating = sequences * self.width
        tokens, seconds = generating, 0.0
        for q, past in chunks:
            tokens += q
            seconds += terms.context(q, past)
        seconds += terms.tokens.whole(tokens)
        if sequences:
            seconds += terms.generation(sequences, context)
        if sequences + finished:
            seconds += terms.logits.whole(generating + finished)
        h = self.host
        between = h.per_step_s + h.per_prompt_pass_s + finished * h.per_request_s
        between += (sequences + len(chunks)) * h.per_sequence_s
        return self._with_host(seconds, terms.ahead_s, between)
