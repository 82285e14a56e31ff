"""Cycle counts of SCALE-Sim 3: rows that its own runs gave, arithmetic by hand, and the table where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.devices.registry import load_machine
from effsim.devices.systolic import stalls
from effsim.devices.systolic.scalesim import Layer, Ports, sparse_depth, total_cycles
from effsim.errors import DataError
from effsim.explore.kernel_table import predict
from effsim.graph.operators.convolution import Conv2d
from effsim.graph.operators.linear import Linear
from effsim.validation.scalesim import FILE, compare, read_rows, summarise

MEASUREMENTS = Path(os.environ.get("EFFSIM_MEASUREMENTS", "measurements"))

# m, n, k, rows, columns, dataflow, KiB of inputs, weights, results, words a cycle of inputs, weights, results,
# total and stall cycles: runs of SCALE-Sim 3.0.0 on products with ragged edges, small buffers and unequal ports.
RUNS = [
    (128, 128, 128, 32, 32, "ws", 8, 8, 8, 1, 1, 1, 262233, 258682),
    (128, 128, 128, 32, 32, "os", 8, 8, 8, 4, 4, 4, 65426, 62387),
    (128, 128, 128, 32, 32, "is", 16, 16, 16, 64, 64, 64, 3551, 0),
    (256, 256, 256, 32, 32, "ws", 64, 64, 64, 64, 64, 64, 22577, 178),
    (25, 125, 8, 8, 4, "os", 1, 8, 8, 16, 2, 16, 2303, 0),
    (142, 60, 89, 4, 32, "is", 2, 8, 1, 16, 16, 3, 64697, 53428),
]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("compiled", [False, True])
def test_runs_of_the_tool_are_met_exactly(
    run: tuple[int | str, ...], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "walk", stalls.walk.compiled if compiled else stalls.walk.python)
    m, n, k, rows, columns = (int(x) for x in run[:5])
    sizes, widths = [int(x) * 1024 for x in run[6:9]], [int(x) for x in run[9:12]]
    got = total_cycles(Layer(m, n, k, rows, columns, str(run[5])), Ports(*sizes, *widths))
    assert got == (int(run[12]), int(run[13]))


# A 3 x 3 convolution of 14 x 14 x 16 to 32 channels on 16 x 16 cells, buffers of 2 KiB: (dataflow, words a cycle, total).
CONVOLUTIONS = [("ws", 1, 123983), ("ws", 8, 15619), ("os", 1, 123179), ("os", 8, 15621), ("is", 1, 497215)]


@pytest.mark.parametrize(("dataflow", "width", "total"), CONVOLUTIONS)
def test_patches_that_overlap_share_their_words(dataflow: str, width: int, total: int) -> None:
    sets = [
        "array={rows: 16, columns: 16}",
        f"dataflow={dataflow}",
        "sram={input: 2 KiB, weight: 2 KiB, output: 2 KiB}",
    ]
    sets.append(f"interface={{mode: user, bandwidth: {width} B/cycle}}")
    device = load_machine("systolic_scalesim", [f"hardware.{one}" for one in sets]).device
    conv = Conv2d(1, 14, 14, 16, 32, 3, dtype="int8")
    assert device.cycles(device.lower(conv)) == total
    apart = device.lower(Linear(conv.rows, 32, conv.depth, "int8"))
    assert device.cycles(apart) == pytest.approx(total, rel=0.01 if dataflow != "is" else 1.0)


@pytest.mark.parametrize(
    ("layer", "cycles"),
    [
        (Layer(128, 128, 128, 16, 16, "is"), 11135),  # 64 folds of 2·16 + 16 + 128 − 2, less one
        (Layer(64, 64, 2048, 32, 32, "os"), 8439),  # 4 folds of 32 + 32 + 2048 − 2, less one
        (Layer(3025, 96, 363, 128, 128, "ws"), 10220),  # AlexNet's first layer: 3 folds of 2·128 + 128 + 3025 − 2
    ],
)
def test_unlimited_bandwidth_is_a_closed_form(layer: Layer, cycles: int) -> None:
    assert total_cycles(layer) == (cycles, 0)


@given(
    m=st.integers(1, 200),
    n=st.integers(1, 200),
    k=st.integers(1, 200),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    kib=st.sampled_from([1, 2, 8]),
    width=st.sampled_from([1, 3, 16]),
)
@settings(max_examples=80)
def test_both_forms_of_the_walk_agree_and_stalls_only_add(
    m: int, n: int, k: int, dataflow: str, kib: int, width: int
) -> None:
    layer, words = Layer(m, n, k, 8, 16, dataflow), kib * 1024
    ports = Ports(words, words, words, width, width, width)
    total, stall = total_cycles(layer, ports)
    assert total == layer.compute_cycles - 1 + stall
    assert stall >= 0
    roomy = Ports(1 << 24, 1 << 24, 1 << 24, width, width, width)
    assert total_cycles(layer, roomy) == (layer.compute_cycles - 1, 0)  # everything was fetched before cycle 0


def test_sparse_weights_fold_less() -> None:
    assert [sparse_depth(k, 1, 4) for k in (4, 5, 8, 128)] == [1, 2, 2, 32]
    device = load_machine("systolic_scalesim", ["hardware.sparsity={kept: 1, block: 4}", "hardware.dataflow=ws"]).device
    assert device.cycles(device.lower(Linear(64, 32, 128, "int8"))) == 2 * 32 + 32 + 64 - 2 - 1


def test_a_convolution_is_the_product_of_its_patches() -> None:
    device = load_machine("systolic_scalesim", ["hardware.array={rows: 128, columns: 128}"]).device
    conv = Conv2d(1, 227, 227, 3, 96, 11, 4, dtype="int8")
    assert (conv.rows, conv.depth) == (3025, 363)
    assert device.cycles(device.lower(conv)) == 14807  # 24 folds of 128 + 128 + 363 − 2, less one


def test_kernel_tables_have_a_column_of_cycles(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("kind,m,n,k,dtype\nlinear,128,128,128,int8\nlinear,256,256,256,int8\n")
    sets = ["hardware.array.rows=32", "hardware.array.columns=32", "hardware.dataflow=ws"]
    rows = predict(load_machine("systolic_scalesim", sets).device, table, "graph").rows
    assert [row["cycles"] for row in rows] == [3551, 22399]
    assert rows[0]["predicted_s"] == pytest.approx(3551e-9)


def write_table(folder: Path, *rows: str) -> None:
    header = "workload,array_rows,array_cols,dataflow,M,N,K,mode,bw_words_per_cycle,sram_kB_each,total_cycles,cpu_s"
    (folder / FILE).write_text("\n".join([header, *rows]) + "\n")


def test_the_comparison_counts_exact_rows_and_finds_the_worst(tmp_path: Path) -> None:
    write_table(
        tmp_path,
        "a,32,32,ws,128,128,128,CALC,,1024,3551,1",
        "b,32,32,ws,128,128,128,CALC,,1024,7102,1",
        "c,32,32,ws,256,256,256,USER,64,64,22577,1",
    )
    calc, user = summarise(compare(read_rows(tmp_path)))
    assert (calc.mode, calc.n, calc.exact, calc.within, calc.worst) == ("CALC", 2, 1, 1, 0.5)
    assert calc.worst_row == "b 32x32 ws"
    assert calc.median == 0.25
    assert (user.n, user.exact) == (1, 1)
    assert calc.own_ratio < 1  # weights loaded behind the stream


def test_a_broken_table_is_named_by_its_line(tmp_path: Path) -> None:
    write_table(tmp_path, "a,32,32,ws,128,128,many,CALC,,1024,3551,1")
    with pytest.raises(DataError, match=r"scalesim_cycles\.csv:2:1"):
        read_rows(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "nowhere")


@pytest.mark.skipif(not (MEASUREMENTS / FILE).is_file(), reason="no table of the tool's runs here")
def test_all_runs_in_the_table_are_met_exactly() -> None:
    for summary in summarise(compare(read_rows(MEASUREMENTS))):
        assert summary.exact == summary.n
