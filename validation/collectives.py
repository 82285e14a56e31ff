"""Published figures of collectives, which nothing was fitted to: other machines, more nodes, other libraries.

Judged here:

- SimAI's tables (aliyun/SimAI inputs/ratio): bandwidth reached as a share of the peak, by message and nodes. The
  hardware is not named; the values fit nodes of eight Hopper GPUs with an adapter of 400 Gbit/s each, so they are
  compared with ``system_h100_64`` (as many nodes as the row has). The peak of a ring is the smaller of link and eight
  adapters, of ``nic_ratio`` one adapter, of an all-to-all the adapter's share of the partners. One node does not reach
  what in-network reduction reaches, so it was off.
- Times and bandwidths of nccl-tests: eight H100 with in-network reduction, H20 (links of H100), A100 on three nodes,
  two racks of GB200.
- DeepEP (its own kernels, H800): rate of long dispatches and combines, time of short ones over the network.

Left out, with the reason in :data:`LEFT_OUT`: what contains a framework, or has no file, or counts other bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from effsim.devices.gpu.device import GpuDevice
from effsim.devices.registry import load_machine, timed_briefly
from effsim.explore.kernel_table import Score
from effsim.graph.operators.communication import Collective
from effsim.network.topology import Network, NetworkLevel
from effsim.readings.launch import single_launch_s

from .tables import read_csv

GB, US = 1e9, 1e-6
LONG_BYTES = 8 * 2.0**30
"""Message of rows that say no more than that it was large."""

MEBI = 2.0**20
HIDDEN, TOKENS_LONG, TOKENS_SHORT, EXPERTS, NODES_A_TOKEN = 7168, 4096, 128, 8, 4
"""DeepEP's README: width, tokens of a long and a short batch, experts a token, node groups a token at most."""

LEFT_OUT: Mapping[str, str] = {
    "IBM/pytorch-communication": "times of a Python loop over torch.distributed: the framework's own cost",
    "NVIDIA/dgx-spark": "GB10 over Ethernet: no such hardware file",
    "DeepEP:README.md@dd758caf4518": "bytes before duplicates for one node are merged: more than the adapter carries",
}
"""Sources that are not compared, by a part of their name."""


@dataclass(frozen=True, slots=True)
class Case:
    """A published figure as a collective and its time."""

    label: str
    machine: str
    levels: tuple[tuple[int, float], ...]
    op: str
    size_bytes: float
    devices: int
    stride: int
    dtype: str
    measured_s: float
    source: str = ""

    @property
    def above(self) -> bool:
        """A message of more than 1 MiB."""
        return self.size_bytes > MEBI

    def predicted_s(self) -> float:
        """Time in a CUDA graph, by the library alone."""
        device = device_of(self.machine, self.levels)
        op = Collective(self.op, self.size_bytes, self.devices, self.stride, self.dtype, "nccl")
        lowered = device.lower(op)
        return lowered.analytic_s + single_launch_s(device.launch, "graph", lowered)


@dataclass(frozen=True, slots=True)
class CollectiveScore:
    """Errors of one group of published figures."""

    label: str
    above: bool
    score: Score
    worst: Case


def device_of(machine: str, levels: Sequence[tuple[int, float]]) -> GpuDevice:
    """The GPU of a system file on other levels: (members, bytes a second) of each; 0 keeps what the file says."""
    loaded = timed_briefly(load_machine(machine))
    device, known = loaded.device, loaded.network.levels
    if not isinstance(device, GpuDevice):
        raise TypeError(f"{machine} is no system of GPUs")
    new: list[NetworkLevel] = []
    for place, (size, rate) in enumerate(levels):
        level = known[min(place, len(known) - 1)]
        if place >= len(known):
            level = load_machine("system_h100_64").network.levels[1]
        new.append(replace(level, size=size or level.size, bytes_per_s=rate or level.bytes_per_s))
    return GpuDevice(device.spec, Network(tuple(new)))


def bus_factor(op: str, devices: int) -> float:
    """Bus bandwidth over message size / time, as nccl-tests define it.

    >>> bus_factor("all_reduce", 8)
    1.75
    """
    return (2.0 if op == "all_reduce" else 1.0) * (devices - 1) / devices


def cases(path: Path) -> Iterator[Case]:
    """The rows of a table of published figures that are compared.

    Raises:
        DataError: missing or unreadable.
    """
    for row in read_csv(path):
        for mark, make in MAKERS.items():
            if mark in row["source"] and row["phase"] == "collective":
                yield from (replace(case, source=row["source"]) for case in make(row))


def _bytes(row: Mapping[str, str]) -> float:
    return float(row["batch_or_concurrency"].partition(" ")[0])


def _nodes(row: Mapping[str, str]) -> tuple[int, int, float]:
    return int(row["num_devices"]), max(1, int(row["num_devices"]) // 8), float(row["value"])


def _nvlink_ratio(row: Mapping[str, str]) -> Iterator[Case]:
    ranks, nodes, ratio = _nodes(row)
    peak = (400.0 if nodes > 1 else 450.0) * GB
    seconds = bus_factor("all_reduce", ranks) * _bytes(row) / (ratio * peak)
    label = f"SimAI all_reduce, {nodes} node{'s' if nodes > 1 else ''}"
    yield Case(label, H100, ((8, 0), (nodes, 0)), "all_reduce", _bytes(row), ranks, 1, "int8", seconds)


def _nic_ratio(row: Mapping[str, str]) -> Iterator[Case]:
    _, nodes, ratio = _nodes(row)
    seconds = bus_factor("all_reduce", nodes) * _bytes(row) / (ratio * 50.0 * GB)
    label = f"SimAI all_reduce of one GPU a node, {nodes} nodes"
    yield Case(label, H100, ((8, 0), (nodes, 0)), "all_reduce", _bytes(row), nodes, 8, "int8", seconds)


def _ata_ratio(row: Mapping[str, str]) -> Iterator[Case]:
    ranks, nodes, ratio = _nodes(row)
    outside = (ranks - 8) / ranks if nodes > 1 else (ranks - 1) / ranks
    seconds = outside * _bytes(row) / (ratio * (50.0 if nodes > 1 else 450.0) * GB)
    label = f"SimAI all_to_all, {nodes} node{'s' if nodes > 1 else ''}"
    yield Case(label, H100, ((8, 0), (nodes, 0)), "all_to_all", _bytes(row), ranks, 1, "int8", seconds)


def _racks(row: Mapping[str, str]) -> Iterator[Case]:
    levels = ((72, 0.0), (2, 50.0 * GB))
    seconds = float(row["value"]) * US
    yield Case("GB200, two racks, all_reduce", GB200, levels, "all_reduce", _bytes(row), 144, 1, "fp32", seconds)


def _h20(row: Mapping[str, str]) -> Iterator[Case]:
    seconds = float(row["value"]) * US
    yield Case("H20, eight, all_reduce", H100, ((8, 0),), "all_reduce", _bytes(row), 8, 1, "fp32", seconds)


def _nccl_tests(row: Mapping[str, str]) -> Iterator[Case]:
    ranks, rate = int(row["num_devices"]), float(row["value"]) * GB
    if ranks == 8:
        seconds = bus_factor("all_reduce", 8) * LONG_BYTES / rate
        yield Case("H100, eight, all_reduce", H100, ((8, 0),), "all_reduce", LONG_BYTES, 8, 1, "fp32", seconds)
    else:  # three nodes with four adapters of 200 Gbit/s, 128 MB at most
        seconds = bus_factor("all_reduce", ranks) * 128e6 / rate
        levels = ((8, 0.0), (3, 12.5 * GB))
        yield Case("A100, three nodes, all_reduce", A100, levels, "all_reduce", 128e6, ranks, 1, "fp32", seconds)


def _deepep(row: Mapping[str, str]) -> Iterator[Case]:
    ranks, word = int(row["num_devices"]), 2 if row["precision"] == "BF16" else 1
    if row["metric"] == "latency":
        size = float(TOKENS_SHORT * EXPERTS * HIDDEN * word)
        seconds = float(row["value"]) * US
        levels = ((1, 0.0), (ranks, 50.0 * GB))
        yield Case("DeepEP, short, over the network", H100, levels, "all_to_all", size, ranks, 1, "fp8", seconds)
        return
    size = float(TOKENS_LONG * NODES_A_TOKEN * HIDDEN * word)
    if ranks == 8:
        seconds = 7 / 8 * size / (float(row["value"]) * GB)
        yield Case("DeepEP, long, one node", H100, ((8, 200.0 * GB),), "all_to_all", size, 8, 1, "fp8", seconds)
    else:
        seconds = (ranks - 8) / ranks * size / (float(row["value"]) * GB)
        levels = ((8, 200.0 * GB), (ranks // 8, 50.0 * GB))
        yield Case("DeepEP, long, over the network", H100, levels, "all_to_all", size, ranks, 1, "fp8", seconds)


H100, A100, GB200 = "system_h100_64", "system_a100_64", "system_gb200_nvl72"
MAKERS: Mapping[str, Callable[[Mapping[str, str]], Iterator[Case]]] = {
    "nvlink_ratio.csv": _nvlink_ratio,
    "nic_ratio.csv": _nic_ratio,
    "ata_ratio.csv": _ata_ratio,
    "coreweave/nccl-tests": _racks,
    "DeepEP issue": _h20,
    "NVIDIA/nccl-tests": _nccl_tests,
    "DeepEP:README.md@ebfe47e": _deepep,
}
"""What a row of a source means, by a part of the source's name."""


def predicted(path: Path) -> list[tuple[Case, float]]:
    """The figures that are compared, with the seconds predicted for each.

    Raises:
        DataError: the table cannot be read.
    """
    return [(case, case.predicted_s()) for case in cases(path)]


def validate_collectives(path: Path) -> tuple[CollectiveScore, ...]:
    """Errors by group, messages above 1 MiB apart from the others.

    Raises:
        DataError: the table cannot be read.
    """
    return scores(predicted(path))


def scores(outcomes: Iterable[tuple[Case, float]]) -> tuple[CollectiveScore, ...]:
    """Scores of predicted figures by group."""
    groups: dict[tuple[str, bool], list[tuple[Case, float]]] = {}
    for case, seconds in outcomes:
        error = seconds / case.measured_s - 1.0
        groups.setdefault((case.label, case.above), []).append((case, error))
    out = []
    for (label, above), members in groups.items():
        score = Score.of([(i, error) for i, (_, error) in enumerate(members)])
        out.append(CollectiveScore(label, above, score, members[score.worst_row][0]))
    return tuple(out)


def section(scores: Iterable[CollectiveScore]) -> list[str]:
    """The accuracy page's part on published collectives, as paragraphs and a table of Markdown."""
    from .page import percent, table

    head = ("published", "messages", "n", "median", "p90", "bias", "worst")
    rows = []
    for s in scores:
        errors = (percent(s.score.median), percent(s.score.p90), percent(s.score.bias, signed=True))
        worst = f"{s.worst.size_bytes / MEBI:.3g} MiB"
        rows.append((s.label, "> 1 MiB" if s.above else "≤ 1 MiB", str(s.score.n), *errors, worst))
    left = "; ".join(f"{source} ({reason})" for source, reason in LEFT_OUT.items())
    return ["## Collectives, published elsewhere", table(head, rows), f"Left out: {left}."]
