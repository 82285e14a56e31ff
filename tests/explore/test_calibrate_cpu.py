"""From times to a hardware file: a machine whose times follow from known rates gives these rates back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from effsim._api import check_file
from effsim.devices.registry import load_machine
from effsim.errors import DataError, SpecError
from effsim.explore.calibrate import cpu_benchmarks as b
from effsim.explore.calibrate.cpu import CpuTimes, cpu_document
from effsim.explore.calibrate.machine import MachineFacts, cache_bytes, cpu_list, discover
from effsim.explore.calibrate.timing import NoisyMachineError
from effsim.explore.calibrate.write import write_checked, yaml_text
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.pointwise import Pointwise

FACTS = MachineFacts(
    model="a test",
    vendor="nobody",
    cores=2,
    threads_per_core=1,
    caches={1: 32 << 10, 2: 1 << 20, 3: 32 << 20},
    guessed=frozenset(),
    l3_slices=1,
    vector_bits=512,
    multiply_add=True,
    flags=frozenset({"avx512f"}),
    memory_bytes=16 << 30,
)
CLOCK, DISPATCH = 3e9, 2e-6
RATE, PACK, FAR = 120e9, 0.15e-9, 0.3e-9
L2, L3, STREAM, NEAR, CAPACITY = 60e9, 24e9, 11e9, 0.7e6, 12e6
TYPES = ("fp32", "bf16")


def beyond(size: float, cache: float) -> float:
    return 1.0 - min(1.0, max(0.0, 2.0 - size / cache))


def times() -> CpuTimes:
    """What every benchmark takes on a machine with the rates above."""
    one = {"clock": b.CLOCK_STEPS * b.CLOCK_OPERATIONS / CLOCK}
    kinds = ("linear", "batched_matmul", "attention", "embedding", "conv2d")
    one |= {f"tiny {k}": DISPATCH for k in ("add", "relu", "mul")} | {f"tiny {k}": DISPATCH + 3e-6 for k in kinds}
    one |= {"tiny view": 1e-6, "tiny transpose": 0.8e-6}
    for size in b.near_copies(FACTS):
        far = beyond(size, NEAR)
        one[f"copy {size}"] = size * ((1 - far) / L2 + far / L3) + DISPATCH
    sizes = b.copy_sizes(FACTS)
    for size in sizes:
        far = beyond(size, CAPACITY)
        one[f"copy {size}"] = size * ((1 - far) / L3 + far / STREAM) + DISPATCH
    half = sizes[-1] // 2
    one |= {"read memory": half / STREAM, "scale in place": 2 * half / (2 * STREAM)}
    one |= {"fill old pages": b.FRESH_BYTES / STREAM, "fill new pages": b.FRESH_BYTES * (1 / STREAM + 1 / 2.5e9)}
    one |= {"chase L3": b.CHASE_STEPS * 20e-9, "chase memory": b.CHASE_STEPS * 100e-9}
    small, large = b.elements(FACTS)
    for dtype, word in (("fp32", 4), ("bf16", 2)):
        shapes = [
            (m, *s) for s in (b.GEMM_SHAPES if word == 4 else b.GEMM_SHAPES[:1]) for m in (*b.GEMM_ROWS, *b.NARROW_ROWS)
        ]
        shapes += [(m, side, side) for m, side in b.NEAR_PRODUCTS]
        for m, n, k in shapes:
            far = n * k * beyond((n * k + m * (n + k)) * word, NEAR) + m * k * beyond(m * (n + k) * word, NEAR)
            seconds = 2.0 * m * n * k / RATE + PACK * (n * k + m * k) + far * (FAR + word / L3)
            one[b.linear_name(dtype, m, n, k)] = seconds + DISPATCH + 3e-6
        side = b.near_side(FACTS, word)
        for m in b.FEW_ROWS:
            one[b.linear_name(dtype, m, side, side)] = DISPATCH + 3e-6 + side**2 * 0.1e-9 * (1 if m <= 3 else 2)
        if word == 4:
            for (n, k), rate in ((b.NEAR_ROWS, 20e9), (b.far_rows(FACTS), 9e9)):
                one[b.linear_name(dtype, 1, n, k)] = DISPATCH + 3e-6 + n * k * word / rate
        for size in (small, large):
            for i, kind in enumerate((*b.KINDS, "short_sum", "widen")):
                one[f"{kind} {dtype} {size}"] = DISPATCH * b.PASSES.get(kind, 1) + size * (i + 1) * 0.1e-9
    for length in b.CONV1D_LENGTHS:
        one[f"conv1d {length}"] = 50e-6 + DISPATCH + length * b.CONV1D_CHANNELS * 2e-9
    for rows in b.GATHERED_ROWS:
        one[f"embedding {rows}"] = DISPATCH + rows * b.GATHERED_WIDTH * 0.2e-9
    for side in b.DEPTHWISE_SIDES:
        one[f"depthwise_conv2d {side}"] = DISPATCH + side**2 * b.DEPTHWISE_CHANNELS * 1.5e-9
    for side, channels in b.CONV2D_SHAPES:
        tensors = 2.0 * side**2 * channels + 9.0 * channels**2
        one[f"conv2d {side} {channels}"] = DISPATCH + 3e-6 + 18.0 * side**2 * channels**2 / RATE + tensors * 1.2e-9
    return CpuTimes(one, {}, 1, TYPES)


def written(tmp_path: Path, given: CpuTimes) -> Path:
    path = tmp_path / "cpu_test.yaml"
    write_checked(path, yaml_text(cpu_document(FACTS, given, "2020-01-01"), "a comment"))
    return path


def test_known_rates_come_back(tmp_path: Path) -> None:
    path = written(tmp_path, times())
    assert check_file(str(path)) == ("cpu", "a test, 1 of 2 cores")
    spec = load_machine(str(path)).spec
    value = {name: float(leaf) for name, leaf in spec.leaves()}
    assert value["clock.boost"] == pytest.approx(CLOCK, rel=1e-3)
    assert value["core.stream"] == pytest.approx(STREAM, rel=0.01)
    assert value["core.l3_stream"] == pytest.approx(L3, rel=0.01)
    assert value["core.l2.bandwidth"] * CLOCK == pytest.approx(L2, rel=0.01)
    assert value["core.l2.capacity"] == pytest.approx(NEAR, rel=0.05)
    assert value["l3.capacity"] == pytest.approx(CAPACITY, rel=0.05)
    assert value["vector.fp32"] * value["kernels.gemm.efficiency"] * CLOCK == pytest.approx(RATE, rel=0.01)
    assert value["kernels.gemm.pack.fp32"] / CLOCK == pytest.approx(PACK, rel=0.02)
    assert value["kernels.gemm.pack_far.fp32"] / CLOCK == pytest.approx(FAR, rel=0.02)
    assert value["kernels.gemm.direct.fp32"] / CLOCK == pytest.approx(0.1e-9, rel=0.01)
    assert value["kernels.gemm.direct_rows"] == 3
    assert value["kernels.gemm.direct_stream"] == pytest.approx(9e9, rel=0.01)
    assert value["kernels.gemm.direct_l3_stream"] == pytest.approx(20e9, rel=0.01)
    assert value["kernels.elementwise.fp32.mul"] / CLOCK == pytest.approx(0.2e-9, rel=0.01)
    assert value["kernels.convolution.reorder"] / CLOCK == pytest.approx(1.2e-9, rel=0.02)
    assert value["kernels.setup.conv1d"] == pytest.approx(50e-6, rel=0.01)
    assert value["memory.fresh.bandwidth"] == pytest.approx(2.5e9, rel=0.01)
    assert value["launch.view"] == pytest.approx(1e-6)


def test_every_number_says_where_it_is_from(tmp_path: Path) -> None:
    spec = load_machine(str(written(tmp_path, times()))).spec
    kinds = {leaf.kind for _, leaf in spec.leaves()}
    assert kinds <= {"measured", "datasheet", "assumed", "unverified"}
    measured = [leaf for _, leaf in spec.leaves() if leaf.kind == "measured"]
    assert len(measured) > 40
    assert all("effsim calibrate, 2020-01-01" in str(leaf.source) for leaf in measured)


def test_predictions_follow_the_benchmarks(tmp_path: Path) -> None:
    given = times()
    device = load_machine(str(written(tmp_path, given)), ["hardware.kernels.weights_cached=true"]).device
    eager = device.launch.isolated_s
    product = device.lower(Linear(96, 1024, 1024, "fp32", bias=True)).analytic_s + eager
    assert product == pytest.approx(given.one[b.linear_name("fp32", 96, 1024, 1024)], rel=0.12)
    _, large = b.elements(FACTS)
    op = Pointwise("softmax", large // b.COLUMNS, b.COLUMNS, "fp32")
    assert device.lower(op).analytic_s + eager == pytest.approx(given.one[f"softmax fp32 {large}"], rel=0.05)


def test_several_threads_measure_what_they_share(tmp_path: Path) -> None:
    small, large = b.copy_sizes(FACTS)[0], b.copy_sizes(FACTS)[-1]
    relu = 4 * 0.1e-9 * (1 << 17) / 2
    together = {
        f"all cores copy {small}": small / 40e9 + DISPATCH,
        f"all cores copy {large}": large / 18e9,
        "all cores scale in place": large / 30e9,
        "all cores relu": relu + 4e-6 + DISPATCH,
        "all cores tiny add": DISPATCH,
    }
    spec = load_machine(str(written(tmp_path, replace(times(), all=together, threads=2)))).spec
    value = {name: float(leaf) for name, leaf in spec.leaves()}
    assert value["memory.bandwidth"] * value["memory.stream_fraction"] == pytest.approx(18e9, rel=0.01)
    assert value["l3.bandwidth"] == pytest.approx(40e9, rel=0.01)
    assert value["kernels.fork_join"] == pytest.approx(4e-6, rel=0.02)
    # Threads that wait for a scheduler agree well with each other, and are no fork and join.
    together["all cores relu"] += 16e-3
    with pytest.raises(NoisyMachineError, match=r"2 threads wait 16 ms .* 'all cores relu'"):
        cpu_document(FACTS, replace(times(), all=together, threads=2), "2020-01-01")


def test_a_wrong_document_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "cpu.yaml"
    path.write_text("kept")
    document = cpu_document(FACTS, times(), "2020-01-01")
    del document["core"]
    with pytest.raises(SpecError, match="missing 'core'"):
        write_checked(path, yaml_text(document))
    assert path.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="does not exist"):
        write_checked(tmp_path / "none" / "x.yaml", "")


def test_what_the_kernel_says_is_read(tmp_path: Path) -> None:
    cpu = tmp_path / "sys/devices/system/cpu"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "".join(f"processor\t: {i}\nvendor_id\t: X\nmodel name\t: Y\nflags\t\t: fma avx2 sse2\n\n" for i in range(4))
    )
    (tmp_path / "proc/meminfo").write_text("MemTotal:       1024 kB\n")
    for i in range(4):
        (cpu / f"cpu{i}/topology").mkdir(parents=True)
        (cpu / f"cpu{i}/topology/thread_siblings_list").write_text("0,2" if i % 2 == 0 else "1,3")
        for index, (kind, level, size, shared) in enumerate(
            [
                ("Data", 1, "48K", str(i)),
                ("Instruction", 1, "32K", str(i)),
                ("Unified", 3, "8M", f"{i % 2},{i % 2 + 2}"),
            ]
        ):
            folder = cpu / f"cpu{i}/cache/index{index}"
            folder.mkdir(parents=True)
            for name, text in (("type", kind), ("level", str(level)), ("size", size), ("shared_cpu_list", shared)):
                (folder / name).write_text(text)
    facts = discover(tmp_path)
    assert (facts.cores, facts.threads_per_core, facts.vector_bits, facts.multiply_add) == (2, 2, 256, True)
    assert (facts.caches[1], facts.caches[3], facts.l3_slices) == (48 << 10, 16 << 20, 2)
    assert facts.guessed == {2}
    assert facts.memory_bytes == 1 << 20


def test_lists_and_sizes_of_the_kernel() -> None:
    assert cpu_list("0-3,8,10-11\n") == [0, 1, 2, 3, 8, 10, 11]
    assert cache_bytes("1G") == 1 << 30
    with pytest.raises(ValueError, match="12Q"):
        cache_bytes("12Q")


def test_no_linux_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="under Linux only"):
        discover(tmp_path)


@pytest.mark.slow
def test_this_machine_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from effsim.explore.calibrate.command import calibrate
    from effsim.explore.calibrate.timing import NoisyMachineError

    path = tmp_path / "cpu_this_machine.yaml"
    try:
        done = calibrate(path, threads=1, quick=True)
    except NoisyMachineError as error:
        pytest.skip(str(error))
    assert check_file(str(path))[0] == "cpu"
    assert json.dumps(done.as_dict(), allow_nan=False)
    device = load_machine(str(path)).device
    assert 1e9 < device.peak_matrix_flops("fp32") < 1e12
    assert 1e9 < device.memory_peak_bytes_per_s < 1e12
