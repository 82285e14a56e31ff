"""Matrix products on a GPU: problem to kernel through the tile search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from ...errors import UnsupportedError
from ...graph.dtypes import size_of
from ...spec.gpu_kernels import GemmKernels
from ..kernel import Kernel, TileClass, kernel_time
from . import tile_search as ts
from .parameters import DEQUANT_OPS, GpuParameters, tile_table
from .power import PowerModel
from .vector_product import MODULE_ROWS, vector_tiles

SCALED_STEP = 128.0
"""Elements of k that share a scale where blocks of the operands have one: sums are then scaled and added in fp32."""


@dataclass(frozen=True, slots=True)
class Product:
    """``batch`` products ``[m, k] · [k, n]``.

    ``*_resident``: share of the operand that is already (or stays) in L2, 0 to 1; ``best_resident``: the largest share
    of activations that a cache of this size could hold, for the lower bound. ``shared_b``: one second operand
    serves the whole batch. ``b_dtype`` narrower than ``dtype`` is widened on the way. ``a_compulsory_bytes``
    replaces the size of the first operand in memory where it is smaller (convolution patches). ``module``: a
    library's module with integer weights, called by itself: its kernels do not cut the k loop. ``block_scaled``: blocks
    of both operands have scales.
    """

    m: int
    n: int
    k: int
    batch: int = 1
    dtype: str = "fp16"
    b_dtype: str = ""
    output_dtype: str = ""
    a_resident: float = 0.0
    b_resident: float = 0.0
    c_resident: float = 0.0
    best_resident: float = 0.0
    b_extra_bytes: float = 0.0
    shared_b: bool = False
    a_compulsory_bytes: float = -1.0
    module: bool = False
    block_scaled: bool = False


class GemmModel:
    """Lowers products for one GPU; holds its numbers as flat arrays for the search."""

    def __init__(
        self,
        parameters: GpuParameters,
        habits: GemmKernels,
        setup_s: float,
        launch_gap_s: float,
        device: str,
        power: PowerModel | None = None,
    ) -> None:
        p = parameters
        self._power = power
        self._setup_s = setup_s if habits.start is None else float(habits.start) / p.clock_hz
        self._module_setup_s = float(habits.module_setup or 0.0)
        tiles = tile_table(habits)
        reduction = habits.reduction
        if reduction is None:  # a second kernel: its launch, one load and one store
            reduction_s = launch_gap_s + p.l2_latency_s * 2.0 + p.memory_latency_s
        else:
            reduction_s = float(reduction)
        operands = math.inf if habits.operands is None else float(habits.operands) * p.clock_hz * p.units
        self._shapes = [f"{int(t[0])}x{int(t[1])}x{int(t[2])}" for t in tiles]
        self._p, self._name, self._tiles = p, device, tiles
        self._splits = [float(s) for s in sorted(habits.split_k)]
        self._device: list[float] = [
            p.units,
            p.l1_bytes_per_s,
            min(p.l2_bytes_per_s, operands),
            p.memory_bytes_per_s,
            p.l2_capacity_bytes,
            p.memory_latency_s,
            p.l2_latency_s,
            float(habits.issue_latency) / p.clock_hz,
            p.shared_bytes,
            p.register_bytes,
            p.max_threads,
            p.max_blocks,
            1.0 if habits.operands_from_shared_memory else 0.0,
            reduction_s,
            p.memory_peak_bytes_per_s * p.shares.write,
            float(habits.step_sync or 0.0) / p.clock_hz,
            float(habits.l2_fills or 0),
            float(habits.cluster or 1),
            float(habits.pair),
            1.0 if habits.vector_kernel else 0.0,
        ]
        # Narrow weights, stored in the order of the tiles, and matrix-vector kernels take whole lines.
        self._whole = [*self._device]
        self._whole[ts.D_L2_BW] = p.l2_bytes_per_s
        self._fetch = float(habits.fetch or 0.0)
        self._tables: dict[tuple[float, float], list[list[float]]] = {}
        self._out = [0.0] * ts.RESULT_SIZE
        self._found: dict[tuple[float, ...], tuple[float, ...]] | None = None
        self._search: Callable[..., None] = parameters.search or ts.search

    def kernel(self, x: Product, name: str = "gemm") -> Kernel:
        """The fastest kernel for *x*.

        Raises:
            UnsupportedError: the GPU has no arithmetic in the type.
        """
        p, out = self._p, self._out
        ea = size_of(x.dtype)
        eb = size_of(x.b_dtype or x.dtype)
        ec = size_of(x.output_dtype or x.dtype)
        rate = p.matrix_rate(x.dtype, self._name)
        dequant = DEQUANT_OPS / p.vector_op_rate() if eb < ea else 0.0
        a_bytes = float(x.m) * x.k * x.batch * ea
        compulsory_a = a_bytes if x.a_compulsory_bytes < 0 else x.a_compulsory_bytes
        a_scale = compulsory_a / a_bytes
        b_bytes = float(x.n) * x.k * eb * (1 if x.shared_b else x.batch)
        problem: list[float] = [
            x.m,
            x.n,
            x.k,
            x.batch,
            ea,
            eb,
            ec,
            rate,
            dequant,
            a_scale * (1.0 - x.a_resident),
            1.0 + x.b_extra_bytes / b_bytes - x.b_resident,
            1.0 - x.c_resident,
            1.0 if x.shared_b else 0.0,
            0.0 if x.module or x.block_scaled else 1.0,
            1.0 / (SCALED_STEP * p.vector_op_rate()) if x.block_scaled else 0.0,
        ]
        whole_lines = eb < ea or (x.m == 1 and self._device[ts.D_GEMV] > 0.0)
        device = self._whole if whole_lines else self._device
        self._find(problem, device, self._table(ea, eb))
        if out[ts.TIME] == math.inf:
            raise UnsupportedError(
                f"{self._name}: no GEMM tile fits {x.dtype} in {p.shared_bytes:.0f} B of shared memory"
            )
        c_bytes = float(x.m) * x.n * x.batch * ec
        best = max(x.best_resident, x.a_resident, x.c_resident)
        memory = (compulsory_a + c_bytes) * (1 - best) + b_bytes * (1 - x.b_resident) + x.b_extra_bytes
        l2_bytes = min(compulsory_a, a_bytes) + b_bytes + c_bytes
        terms = (
            ("matrix", 2.0 * x.m * x.n * x.k * x.batch / (rate * p.units * p.boost_ratio)),
            ("memory", memory / p.memory_peak_bytes_per_s),
            ("l2", l2_bytes / p.l2_bytes_per_s),
        )
        kernel = self._build(name, terms, self._start_s(x), 0.5 if eb < ea else 1.0)
        vector = self._vector_kernel(x, name, terms, ea, eb)
        if vector is not None and kernel_time(vector).total_s < kernel_time(kernel).total_s:
            kernel = vector
        if self._power is None:
            return kernel
        return self._power.held(kernel, 2.0 * x.m * x.n * x.k * x.batch, x.dtype)

    def share_searches(self, other: GemmModel) -> None:
        """Look a search up that *other*, or whoever shares with it, has done on the same numbers, before doing it."""
        other._found = self._found = {} if other._found is None else other._found

    def _find(self, problem: list[float], device: list[float], table: list[list[float]]) -> None:
        """Search into ``_out``, remembered by all that the search reads where searches are shared."""
        if self._found is None:
            self._search(problem, device, table, self._splits, self._out)
            return
        key = (*problem, *device, len(self._splits), *self._splits, *chain.from_iterable(table))
        found = self._found.get(key)
        if found is None:
            self._search(problem, device, table, self._splits, self._out)
            self._found[key] = tuple(self._out)
        else:
            self._out[:] = found

    def _table(self, ea: float, eb: float) -> list[list[float]]:
        """Tiles for operands of *ea* and *eb* bytes an element, with the bandwidth their loads reach.

        A tile's step of k keeps its bytes, as libraries do: the file gives it for two bytes an element. A block has the
        segments of all its free stages on their way, so it asks memory for that length of each of its rows (at least
        for ``fetch`` bytes) from all over the matrix, which is a gather to DRAM. A narrow second operand is stored in
        the order of the tiles, whole tiles in one piece.
        """
        table = self._tables.get((ea, eb))
        if table is None:
            p, table = self._p, []
            for m, n, k, stages, warps_m, warps_n in self._tiles:
                depth = max(1.0, k * 2.0 / ea)
                packed = n * depth * eb if eb < ea else depth * eb
                ahead = max(stages - 1.0, 1.0)
                runs = (max(ahead * depth * ea, self._fetch), max(ahead * packed, self._fetch))
                table.append([m, n, depth, stages, warps_m, warps_n, *map(p.gather_bytes_per_s, runs)])
            self._tables[ea, eb] = table
        return table

    def _start_s(self, x: Product) -> float:
        """Start of a kernel; a module's integer sums wait for scales of rows and columns before they are stored."""
        if not x.module:
            return self._setup_s
        scales_s = self._p.memory_latency_s + self._p.l2_latency_s if x.dtype == "int8" else 0.0
        return self._setup_s + self._module_setup_s + scales_s

    def _vector_kernel(
        self, x: Product, name: str, terms: tuple[tuple[str, float], ...], ea: float, eb: float
    ) -> Kernel | None:
        """The same product on the vector units, where the library has such a kernel for so few rows."""
        if not x.module or x.dtype != "int8" or x.m > MODULE_ROWS or eb < ea:
            return None
        p = self._p
        b_bytes = float(x.n) * x.k * eb
        c_bytes = float(x.m) * x.n * size_of(x.output_dtype or x.dtype)
        memory = (
            float(x.m) * x.k * ea * (1.0 - x.a_resident)
            + b_bytes * (1.0 - x.b_resident)
            + x.b_extra_bytes
            + c_bytes * (1.0 - x.c_resident)
        )
        tile, slots, rate = vector_tiles(p, x.m, x.n, x.k, ea, eb, memory)
        moved = tile.l2_bytes * tile.count
        return Kernel(
            name=f"{name} vector",
            classes=(tile,),
            units=p.units,
            slots=slots,
            l2_bytes_per_s=p.l2_bytes_per_s * moved / (moved + self._device[ts.D_FILLS] * memory),
            memory_bytes_per_s=rate,
            terms=terms,
            binding="vector",
            setup_s=self._start_s(x),
            detail=(("tile", "vector"), ("split_k", 1)),
        )

    def _build(self, name: str, terms: tuple[tuple[str, float], ...], setup_s: float, narrow: float) -> Kernel:
        p, out = self._p, self._out
        index, split, tiles = int(out[ts.TILE]), int(out[ts.SPLIT]), int(out[ts.TILES])
        matrix_s, shared_s, vector_s, busy = out[ts.MATRIX_S], out[ts.L1_S], out[ts.VECTOR_S], out[ts.BUSY]
        _, label = max((matrix_s, "matrix"), (shared_s, "l1"), (vector_s, "vector"))
        issue_s, sync_s = self._device[ts.D_ISSUE] * narrow, self._device[ts.D_SYNC] * narrow
        if out[ts.STEPS] * (issue_s - sync_s) > max(matrix_s + vector_s, shared_s):
            label = "latency"
        tile = TileClass(
            count=tiles,
            busy_s=busy,
            serial_s=out[ts.SERIAL],
            l2_bytes=out[ts.L2],
            memory_bytes=out[ts.MEMORY],
            flow_bytes_per_s=out[ts.FLOW],
        )
        shape = self._shapes[index]
        return Kernel(
            name=f"{name} {shape} split-k {split}" if split > 1 else f"{name} {shape}",
            classes=(tile,),
            units=p.units,
            slots=int(out[ts.SLOTS]),
            l2_bytes_per_s=out[ts.L2_RATE],
            memory_bytes_per_s=out[ts.RATE],
            terms=terms,
            binding=label,
            setup_s=setup_s + out[ts.EXTRA],  # a split product pays its reduction once, as the search prices it
            detail=(
                ("tile", shape),
                ("split_k", split),
                ("k_steps", out[ts.STEPS]),
                ("tile_matrix_s", matrix_s),
                ("tile_shared_memory_s", shared_s),
                ("tile_dequantise_s", vector_s),
            ),
        )
