"""A GPU whose rates differ from point to point, lowered once for all of them.

Parameters that reach the models through :class:`~effsim.devices.gpu.parameters.GpuParameters` alone may be lanes:
rates, latencies and sizes of caches. So may the bandwidths and latencies of the network, which reach them through its
levels. Counts, tables and capacities are the same for all points of a group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any, Final

import numpy as np

from ...accelerate import python_only
from ...devices.gpu import tile_search as ts
from ...devices.gpu.device import GpuDevice
from ...devices.gpu.parameters import GpuParameters
from ...devices.registry import Machine, device_network
from ...errors import UnsupportedError
from ...memory.achieved import of_memory
from ...network.topology import Network
from ...spec.fields import Quantity
from ...spec.hardware import GpuSpec
from .lanes import Lanes

RATES: Final = re.compile(
    r"memory\.(bandwidth|latency)|l2\.(bandwidth|latency|capacity)|clock\.(boost|sustained)|matrix\.\w+|vector\.\w+"
    r"|special|sm\.l1\.(bandwidth|latency)"
)
"""Paths below a GPU whose values may differ within a group."""

LEVELS: Final = re.compile(r"hardware\.(topology\.(\d{1,3})\.(?:bandwidth|latency))")
"""The same below a system."""

LINKS: Final = re.compile(r"hardware\.(links\.(\w+)\.(?:bandwidth|latency))")
"""The same below a GPU that is no system's, where its network is made of that link."""

_NETWORK: Final = re.compile(r"topology\.|links\.")

HOST_LINKS: Final = ("pcie", "c2c")
"""Links that copies to the host read, too."""


def rate_path(machine: Machine, path: str) -> str | None:
    """The path below the GPU's (or the system's) file if the parameter can be a lane of this machine; None otherwise.

    A path of the system begins with ``topology``.
    """
    if not isinstance(machine.spec, GpuSpec) or type(machine.device) is not GpuDevice:
        return None
    prefix = "hardware." if machine.system is None else "hardware.device."
    below = path.removeprefix(prefix) if path.startswith(prefix) else ""
    if not RATES.fullmatch(below):
        return _network_path(machine, path)
    node: Any = machine.spec
    *parents, last = below.split(".")
    for key in parents:
        node = getattr(node, key, None)
    if isinstance(node, dict):  # a type that the file does not have changes what the GPU can do
        return below if last in node else None
    return below if isinstance(getattr(node, last, 0), float | None) else None


def _network_path(machine: Machine, path: str) -> str | None:
    levels = machine.network.levels
    if machine.system is None:
        link = LINKS.fullmatch(path)
        used = link is not None and len(levels) == 1 and link[2] == levels[0].name and link[2] not in HOST_LINKS
        return link[1] if link is not None and used else None
    level = LEVELS.fullmatch(path)
    return level[1] if level is not None and int(level[2]) < len(levels) else None


class LaneGpu:
    """Devices of many points that differ in *paths*; *values* holds a row of SI numbers a point.

    Raises:
        UnsupportedError: the points are joined in different ways.
    """

    def __init__(self, machine: Machine, paths: Sequence[str], values: Sequence[Sequence[float]]) -> None:
        spec = machine.spec
        assert isinstance(spec, GpuSpec)
        self._spec, self.count = spec, len(values)
        self._network, self._levels = machine.network, _level_columns(machine, paths, values)
        own = [place for place, path in enumerate(paths) if not _NETWORK.match(path)]
        self._columns = _columns(spec, [paths[i] for i in own], [[row[i] for i in own] for row in values])
        self._kept: dict[bytes, GpuDevice] = {}

    def device(self, part: Any) -> GpuDevice:
        """The device of the points *part* (indices); one point's has plain numbers."""
        key = part.tobytes()
        found = self._kept.get(key)
        if found is None:
            chosen = {name: _chosen(column, part) for name, column in self._columns.items()}
            parameters = GpuParameters(**chosen, search=_search)
            found = self._kept[key] = GpuDevice(self._spec, self._network_of(part), parameters)
        return found

    def _network_of(self, part: Any) -> Network:
        levels = [
            replace(level, bytes_per_s=_chosen(rates, part), latency_s=_chosen(latencies, part))
            for level, (rates, latencies) in zip(self._network.levels, self._levels, strict=True)
        ]
        return replace(self._network, levels=tuple(levels))


def _level_columns(machine: Machine, paths: Sequence[str], values: Sequence[Sequence[float]]) -> list[tuple[Any, Any]]:
    """Bandwidth and latency of every level of the network: plain values, or arrays over points."""
    places = [place for place, path in enumerate(paths) if _NETWORK.match(path)]
    known: dict[tuple[float, ...], Network] = {}
    rows = []
    for row in values:
        key = tuple([row[place] for place in places])
        if key not in known:
            changes = {paths[place]: row[place] for place in places}
            known[key] = _network(machine, changes)
            if _structure(known[key]) != _structure(machine.network):
                raise UnsupportedError(f"{machine.name}: with these links its devices are joined in another way")
        rows.append(known[key].levels)
    return [
        (_column([row[i].bytes_per_s for row in rows]), _column([row[i].latency_s for row in rows]))
        for i in range(len(machine.network.levels))
    ]


def _network(machine: Machine, changes: dict[str, float]) -> Network:
    """The network of a machine with some numbers of its links changed."""
    changed: Any = machine.spec if machine.system is None else machine.system
    if not changes:
        return machine.network
    for path, value in changes.items():
        changed = _with(changed, path.split("."), Quantity(value))
    if machine.system is None:
        return device_network(changed)
    return Network.from_levels(changed.topology, changed.collectives)


def _structure(network: Network) -> Network:
    """What of a network decides how a program is placed on it."""
    return replace(network, levels=tuple([replace(one, bytes_per_s=0.0, latency_s=0.0) for one in network.levels]))


def _columns(spec: GpuSpec, paths: Sequence[str], values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Every field of the parameters: a plain value, an array over points, or a mapping of them."""
    known: dict[tuple[float, ...], GpuParameters] = {}
    rows = []
    shares = of_memory(spec.memory.dram, spec.memory.stream_fraction)  # no lane changes the memory part
    for row in values:
        key = tuple(row)
        if key not in known:
            changed: Any = spec
            for path, value in zip(paths, row, strict=True):
                changed = _with(changed, path.split("."), Quantity(value))
            known[key] = GpuParameters.from_spec(changed, shares)
        rows.append(known[key])
    out: dict[str, Any] = {}
    for field in fields(GpuParameters):
        if field.name != "search":
            out[field.name] = _column([getattr(row, field.name) for row in rows])
    return out


def _with(node: Any, keys: list[str], value: Quantity) -> Any:
    """A copy of a specification with *value* at *keys*."""
    if not keys:
        return value
    if isinstance(node, dict):
        return {**node, keys[0]: _with(node[keys[0]], keys[1:], value)}
    if isinstance(node, list):
        place = int(keys[0])
        return [*node[:place], _with(node[place], keys[1:], value), *node[place + 1 :]]
    return node.model_copy(update={keys[0]: _with(getattr(node, keys[0]), keys[1:], value)})


def _column(values: list[Any]) -> Any:
    first = values[0]
    if all(value is first or value == first for value in values):
        return first
    if isinstance(first, dict):
        return {key: _column([value[key] for value in values]) for key in first}
    return np.array(values, dtype=np.float64)


def _chosen(column: Any, part: Any) -> Any:
    if isinstance(column, dict):
        return {key: _chosen(below, part) for key, below in column.items()}
    if not isinstance(column, np.ndarray):
        return column
    return column[part[0]].item() if len(part) == 1 else Lanes(column[part])


def _search(problem: Any, device: Any, tiles: Any, splits: list[float], out: list[Any]) -> None:
    """The tile search of every point in one compiled loop; as the scalar one where nothing differs."""
    size = _size((*problem, *device, *(x for row in tiles for x in row)))
    if size == 0:
        ts.search(problem, device, tiles, splits, out)
        return
    found = np.zeros((size, ts.RESULT_SIZE))
    tables = np.stack([_block(row, size) for row in tiles], axis=1)
    _loop()(_block(problem, size), _block(device, size), tables, np.array(splits), found)
    out[:] = [_shared(found[:, i].copy()) for i in range(ts.RESULT_SIZE)]


def _size(values: Any) -> int:
    """Points that the lanes among *values* have; 0 without any."""
    return next((len(x.values) for x in values if isinstance(x, Lanes)), 0)


def _block(values: Sequence[Any], size: int) -> Any:
    """*values* as an array of *size* rows."""
    out = np.empty((size, len(values)))
    for i, x in enumerate(values):
        out[:, i] = x.values if isinstance(x, Lanes) else x
    return out


def _shared(column: Any) -> Any:
    """A plain float where all points agree."""
    return column[0].item() if (column == column[0]).all() else Lanes(column)


@cache
def _loop() -> Callable[..., None]:
    """The search over rows: compiled, or plain Python where numba is switched off."""
    one = ts.search.python if python_only() else ts.search.twin()

    def loop(problems: Any, devices: Any, tiles: Any, splits: Any, found: Any) -> None:
        for i in range(problems.shape[0]):
            one(problems[i], devices[i], tiles[i], splits, found[i])

    if python_only():
        return loop
    import numba

    compiled: Callable[..., None] = numba.njit(nogil=True)(loop)
    return compiled
