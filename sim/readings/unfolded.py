"""The event reading with every rank by itself: a process a device, and its messages on the links that they really use.

The readings fold identical ranks: one device stands for all, and what its groups' links carry beside is counted. Here
nothing is folded. Ranks wait for the others of their group at every collective; groups that are on their way at the
same time divide the links they share, whatever the program thinks runs at once; stages hand their microbatches on. It
is there to show that folding changes nothing, and where it does.

Sharing is fluid: a group goes on at the rate that its most loaded link leaves it, and rates change when another group
starts or ends.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import simpy

from ..devices.device import Device
from ..errors import UnsupportedError
from ..graph.graph import Graph, Node
from ..graph.operators.communication import Collective
from ..network.algorithms import is_flat
from ..network.sharing import ring_path
from ..network.topology import Network, NetworkLevel
from ..program.parallel import STAGE_SEND
from ..program.program import Execution, Phase, Program
from .launch import ahead_s, collective_start_s, device_gap_s
from .pipeline import SIMULATED_ROUNDS, per_step
from .result import Reading
from .tiles import simulated_time

PS = 1e12
MOST_RANKS = 64
"""More ranks than these are not run one by one."""

Link = tuple[str | int, ...]
Ranks = tuple[int, ...]


def links_of(
    network: Network, ranks: Ranks, *, everyone: bool, flat: bool, sender: int | None = None
) -> list[dict[Link, float]]:
    """Load that a group puts on the shared links of each level, one message of a device being 1.

    *everyone*: every rank sends to all others of the level (its message divided among them). *flat*: one rank of a
    member sends for it. *sender*: nobody else sends.
    """
    out, below = [], 1
    for level in network.levels:
        loads: dict[Link, float] = {}
        out.append(loads)
        members: dict[int, list[int]] = {}
        for rank in ranks:
            members.setdefault(rank // below, []).append(rank)
        domain = below * level.size
        for rank in ranks if level.can_contend else ():
            lanes = members[rank // below]
            if (flat and rank != lanes[0]) or sender not in (None, rank):
                continue
            around = [m for m in sorted(members) if m * below // domain == rank // domain]
            at = around.index(rank // below)
            others = around[at + 1 :] + around[:at]
            # A group of evenly spaced members goes all the way round where the last is as far from the first.
            closed = len(around) > 1 and len(around) * (around[1] - around[0]) >= level.size
            targets = others if everyone else others[:1]
            for target in targets:
                size, way = 1.0 / len(targets), _Way(closed, everyone, at % 2 == 1)
                adapter: Link = ("adapter", rank // level.shared_by)
                for link, cost in ((adapter, 1.0), *_path(level, rank // below, target, below, way)):
                    loads[link] = loads.get(link, 0.0) + size * cost
        below = domain
    return out


@dataclass(frozen=True, slots=True)
class _Way:
    """How a message goes around a ring: whether its group closes it, sends to everyone, and which way between ends."""

    closed: bool
    everyone: bool
    odd: bool


def _path(level: NetworkLevel, source: int, target: int, lanes: int, way: _Way) -> Iterator[tuple[Link, float]]:
    """Shared links between two members, with the time of a message on each."""
    if level.kind == "ring":
        first = source // level.size * level.size
        ends = (level.size, source - first, target - first)
        path = ring_path(*ends, closed=way.closed, shortest=way.everyone, odd=way.odd)
        yield from (((direction, first + place), 1.0) for direction, place in path)
        return
    leaf = level.leaf or level.size
    if level.kind == "fat_tree" and source // leaf != target // leaf:
        uplinks = leaf * max(1.0, lanes / level.shared_by) / level.oversubscription
        yield ("up", source // leaf), 1.0 / uplinks
        yield ("down", target // leaf), 1.0 / uplinks


@dataclass(slots=True)
class _Flow:
    """One group's collective under way: ``left`` of it, at ``pace`` seconds for the whole."""

    exchange: Any
    op: Collective
    beside_s: float
    loads: list[dict[Link, float]]
    done: simpy.Event
    left: float = 1.0
    pace: float = 0.0


class _Links:
    """All links: flows that are under way, at rates that change with them."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._flows: list[_Flow] = []
        self._since = 0.0
        self._turn = 0

    def start(self, flow: _Flow) -> simpy.Event:
        """Begin; the event is its end."""
        self._advance()
        self._flows.append(flow)
        self._again()
        return flow.done

    def _advance(self) -> None:
        now = float(self._env.now)
        for flow in self._flows:
            flow.left -= (now - self._since) / flow.pace if flow.pace > 0.0 else flow.left
        self._since = now

    def _again(self) -> None:
        """New rates; wake up when the first flow ends."""
        totals: list[dict[Link, float]] = [{} for _ in self._flows[0].loads] if self._flows else []
        for flow in self._flows:
            for level, loads in enumerate(flow.loads):
                for link, load in loads.items():
                    totals[level][link] = totals[level].get(link, 0.0) + load
        for flow in self._flows:
            flow.pace = round(self._seconds(flow, totals) * PS)
        self._turn += 1
        if self._flows:
            self._env.process(self._wake(self._turn, min(max(0.0, f.left) * f.pace for f in self._flows)))

    @staticmethod
    def _seconds(flow: _Flow, totals: list[dict[Link, float]]) -> float:
        network = flow.exchange.network
        levels = []
        for level, loads, total in zip(network.levels, flow.loads, totals, strict=True):
            slowed = max((1.0, *(total[link] for link in loads)))
            levels.append(replace(level, bytes_per_s=level.bytes_per_s / slowed, shared_by=1, oversubscription=1.0))
        alone = replace(flow.exchange, network=replace(network, levels=tuple(levels)), groups=1)
        return flow.op.exposed_s(alone.plan(lambda traffic: 1.0).total_s, flow.beside_s)

    def _wake(self, turn: int, after: float) -> Generator[simpy.Event, Any, None]:
        yield self._env.timeout(after)
        if turn != self._turn:
            return
        self._advance()
        ended = [flow for flow in self._flows if flow.left * flow.pace < 0.5]  # half a picosecond
        self._flows = [flow for flow in self._flows if flow not in ended]
        for flow in ended:
            flow.done.succeed()
        self._again()


@dataclass(slots=True)
class _World:
    """One execution of all ranks."""

    program: Program
    device: Device
    mode: str
    env: simpy.Environment
    links: _Links
    waiting: dict[tuple[Ranks, int], list[simpy.Event]]
    meetings: dict[tuple[int, Ranks], int]


def by_rank(program: Program, device: Device, reading: Reading) -> Reading:
    """The event reading with the time of every phase as its ranks take it one by one; rows in the same proportions."""
    phases = []
    for phase, timed in zip(program.phases, reading.phases, strict=True):
        host = sum(row.time_s for row in timed.operators if row.op is None and row.bound == "host")
        scale = (unfolded_seconds(program, phase, device) + host) / timed.time_s if timed.time_s else 1.0
        rows = tuple(
            replace(row, time_s=row.time_s * scale, shares=tuple((label, s * scale) for label, s in row.shares))
            for row in timed.operators
        )
        phases.append(replace(timed, time_s=timed.time_s * scale, operators=rows))
    note = f"{program.devices} ranks run one by one"
    return replace(
        reading, phases=tuple(phases), timeline=replace(reading.timeline, notes=(*reading.timeline.notes, note))
    )


def unfolded_seconds(program: Program, phase: Phase, device: Device) -> float:
    """Seconds of a phase with every rank by itself, without host work between steps.

    Raises:
        UnsupportedError: too many ranks, overlapping exchanges of a training step, or a mixed system.
    """
    if program.devices > MOST_RANKS:
        raise UnsupportedError(f"{program.devices} ranks are too many to run one by one; expected at most {MOST_RANKS}")
    if any(node.overlap for _, _, node, _ in phase.nodes()) or any(run.interleave > 1 for run in phase.executions):
        raise UnsupportedError("ranks are run one by one for inference on one kind of device; leave 'folded' true")
    return sum(run.times * _step_s(program, phase, run, device) for run in phase.executions if run.times)


def _step_s(program: Program, phase: Phase, run: Execution, device: Device) -> float:
    env = simpy.Environment()
    world = _World(program, device, program.launch_of(phase), env, _Links(env), {}, {})
    stages = run.stages or (run.graph,)
    ranks = program.degrees.stage_devices
    rounds = max(1, min(SIMULATED_ROUNDS, round(run.rounds))) if run.stages else 1
    inboxes = [simpy.Store(env) for _ in range(ranks * len(stages))]
    ends = [0.0] * rounds
    streams = [list(_stream(graph)) for graph in stages]
    for rank, inbox in enumerate(inboxes):
        for _ in range(run.microbatches if rank < ranks else 0):
            inbox.put(0)
        turns = rounds * run.microbatches
        env.process(_rank(world, rank, streams[rank // ranks], inboxes, turns, ends))
    env.run()
    return per_step(ends, run.rounds if run.stages else 1.0) / PS


def _stream(graph: Graph) -> Iterable[Node]:
    """Nodes in order, repeats written out."""
    for item in graph.unfold().items:
        assert isinstance(item, Node)
        yield item


def _rank(
    world: _World, rank: int, nodes: list[Node], inboxes: list[simpy.Store], turns: int, ends: list[float]
) -> Generator[simpy.Event, Any, None]:
    """One device: takes a microbatch, runs its stage, hands the microbatch on."""
    env, degrees = world.env, world.program.degrees
    for _ in range(turns):
        step: Any = yield inboxes[rank].get()
        begun = float(env.now)
        kernels = 0
        for node in nodes:
            op = node.op
            lowered = world.device.lower(op, world.program.fused_pointwise)
            kernels += len(lowered.kernels)
            for kernel in lowered.kernels:
                yield env.timeout(_ready_ps(world, node))
                if isinstance(op, Collective):
                    yield from _together(world, rank, node, op)
                else:
                    yield env.timeout(round(simulated_time(kernel) * PS))
        launch = world.device.launch
        late = ahead_s(launch, world.mode, world.program.host, float(kernels)) * PS - (float(env.now) - begun)
        if late > 0.0:
            yield env.timeout(round(late))
        following = rank + degrees.stage_devices
        if following < len(inboxes):
            inboxes[following].put(step)
            continue
        ends[step] = max(ends[step], float(env.now))
        if step + 1 < len(ends):
            inboxes[rank % degrees.stage_devices].put(step + 1)


def _ready_ps(world: _World, node: Node) -> int:
    """Launch in front of a kernel."""
    launch, mode = world.device.launch, world.mode
    if mode == "isolated":
        raise UnsupportedError("operators that are synchronised one by one are not run rank by rank")
    start_s = collective_start_s(launch, mode, world.program.host, node.op)
    return round(device_gap_s(launch, mode) * PS) + round(start_s * PS)


def group_of_rank(rank: int, op: Collective) -> Ranks:
    """Ranks of the group that *rank* belongs to: ``devices`` of them, ``stride`` apart.

    >>> group_of_rank(5, Collective("all_reduce", 1.0, 2, stride=4))
    (1, 5)
    """
    span = op.devices * op.stride
    first = rank // span * span + rank % op.stride
    return tuple(first + i * op.stride for i in range(op.devices))


def _together(world: _World, rank: int, node: Node, op: Collective) -> Generator[simpy.Event, Any, None]:
    """A collective: the last rank of the group to arrive starts it; all leave at its end. A send waits for nobody."""
    if node.name.rpartition(".")[2].startswith(STAGE_SEND):
        yield world.links.start(_flow(world, op, (rank, rank + world.program.degrees.stage_devices), rank))
        return
    group = group_of_rank(rank, op)
    # The n-th collective of a rank with a group meets the n-th of the others.
    count = world.meetings[rank, group] = world.meetings.get((rank, group), 0) + 1
    waiting = world.waiting.setdefault((group, count), [])
    if len(waiting) + 1 < len(group):
        event = world.env.event()
        waiting.append(event)
        yield event
        return
    yield world.links.start(_flow(world, op, group))
    for event in world.waiting.pop((group, count)):
        event.succeed()


def _flow(world: _World, op: Collective, ranks: Ranks, sender: int | None = None) -> _Flow:
    communication = world.device.communication(op, world.program.fused_pointwise)
    exchange = communication.exchange
    flat = is_flat(op.algorithm or exchange.network.algorithm, op.op)
    loads = links_of(exchange.network, ranks, everyone=op.op == "all_to_all", flat=flat, sender=sender)
    return _Flow(exchange, op, communication.beside_s, loads, world.env.event())
