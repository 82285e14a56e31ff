"""A collective operator on a network: what every kind of device makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph.operators.communication import Collective
from ..network.collectives import CollectiveCosts, CollectivePlan, Exchange, bound_s
from ..network.sharing import counted
from ..network.topology import Network


@dataclass(frozen=True, slots=True)
class Queued:
    """What shows of a collective whose messages queue at shared links; a value, so that kernels stay values."""

    op: Collective
    exchange: Exchange
    beside_s: float

    def __call__(self) -> float:
        """Seconds."""
        return self.op.exposed_s(self.exchange.plan().total_s, self.beside_s)


@dataclass(slots=True)
class Communication:
    """*op* priced on *network*, run *by* an engine or the library; ``beside_s``: seconds of what it runs beside."""

    network: Network
    costs: CollectiveCosts
    op: Collective
    by: str
    adds: bool
    beside_s: float
    exchange: Exchange = field(init=False)
    priced: CollectivePlan = field(init=False)

    def __post_init__(self) -> None:
        op = self.op
        ranks = (op.op, op.payload_bytes, op.devices, op.stride)
        self.exchange = Exchange(self.network, self.costs, *ranks, self.by, self.adds, op.groups, op.algorithm)
        self.priced = self.exchange.plan(counted)

    @property
    def seconds(self) -> float:
        """What shows of it."""
        return self.op.exposed_s(self.priced.total_s, self.beside_s)

    @property
    def bound_s(self) -> float:
        """No algorithm is faster; 0 beside something that may hide it."""
        op = self.op
        return 0.0 if op.beside is not None else bound_s(self.network, op.op, op.payload_bytes, op.devices, op.stride)

    @property
    def detail(self) -> tuple[tuple[str, float | str], ...]:
        """For explanations."""
        priced = self.priced
        return (
            ("algorithm", priced.algorithm),
            ("steps", priced.steps),
            ("latency_s", priced.latency_s),
            ("transfer_s", priced.transfer_s),
        )

    @property
    def queued(self) -> Queued | None:
        """The same with queues at the links; None where nothing is shared."""
        return Queued(self.op, self.exchange, self.beside_s) if self.exchange.contends else None
