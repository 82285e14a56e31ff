"""SCALE-Sim's own files: a configuration runs a topology, wrong entries are named, nothing else is assumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from effsim import run
from effsim.devices.registry import load_machine
from effsim.errors import DataError, EffsimError
from effsim.program.workload_file import load_workload
from effsim.spec.systolic import SystolicSpec

CONFIG = """[general]
run_name = small
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: 32
IfmapSramSzkB: 8
FilterSramSzkB: 16
OfmapSramSzkB: 32
IfmapOffset: 0
Bandwidth : 64
Dataflow : {dataflow}
[layout]
IfmapCustomLayout: {layout}
IfmapSRAMBankBandwidth: 32
[run_presets]
InterfaceBandwidth: {mode}
UseRamulatorTrace: False
[sparsity]
SparsitySupport : {sparse}
OptimizedMapping : {sparse}
BlockSize : 8
"""


def config(folder: Path, **entries: str) -> Path:
    values = {"rows": "32", "dataflow": "ws", "layout": "False", "mode": "CALC", "sparse": "false", **entries}
    path = folder / "array.cfg"
    path.write_text(CONFIG.format(**values))
    return path


def topology(folder: Path, text: str) -> Path:
    path = folder / "net.csv"
    path.write_text(text)
    return path


def cycles(hardware: Path, workload: Path, *sets: str) -> dict[str, float]:
    result = run(str(hardware), str(workload), set=sets, sensitivity=False)
    return {row.name: row.cycles["total"] for row in result.operators if row.cycles}


def test_a_configuration_runs_a_table_of_products(tmp_path: Path) -> None:
    gemm = topology(tmp_path, "Layer, M, N, K,\nfirst one, 128, 128, 128,\nfirst one, 100, 100, 100,\n")
    assert cycles(config(tmp_path), gemm) == {"first_one": 3551, "first_one_2": 3103}
    result = run(str(config(tmp_path)), str(gemm), sensitivity=False)
    assert result.time_s == pytest.approx((3551 + 3103) * 1e-9)
    parts = result.operators[0].cycles
    assert (parts["ideal"], parts["fill"], parts["stall"], parts["drain"]) == (2048, 16 * 94, 0, 0)


def test_command_line_changes_reach_into_both_files(tmp_path: Path) -> None:
    gemm = topology(tmp_path, "Layer,M,N,K,\na,128,128,128,\n")
    assert cycles(config(tmp_path), gemm, "hardware.dataflow=os") == {"a": 3039}
    doubled = run(str(config(tmp_path)), str(gemm), set=["hardware.clock.boost=2 GHz"], sensitivity=False)
    assert doubled.time_s == pytest.approx(3551e-9 / 2)


def test_ports_and_scratchpads_come_from_the_configuration(tmp_path: Path) -> None:
    spec = load_machine(str(config(tmp_path, mode="USER"))).spec
    assert isinstance(spec, SystolicSpec)
    assert (spec.sram.input, spec.sram.weight, spec.sram.output) == (8192, 16384, 32768)
    assert (spec.interface.input, spec.interface.weight, spec.interface.output) == (32, 64, 64)
    assert spec.array.rows.kind == "datasheet"  # type: ignore[attr-defined]
    assert "array.cfg" in str(spec.array.rows.source)  # type: ignore[attr-defined]


def test_convolutions_become_products_of_their_patches(tmp_path: Path) -> None:
    net = topology(
        tmp_path,
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
        "square, 15, 15, 3, 3, 384, 384, 1,\n"
        "ragged, 224, 224, 11, 11, 3, 96, 4,\n"
        "flat, 1, 100, 1, 9, 2, 4, 1,\n"
        "slimDP, 20, 20, 3, 3, 8, 1, 1,\n"
        "sparse, 8, 8, 1, 1, 64, 32, 1, 2:4,\n",
    )
    spec, _ = load_workload(str(net))
    assert spec.operators is not None
    kinds = {entry.name: (entry.kind, entry.dimensions) for entry in spec.operators}
    assert kinds["square"][0] == "conv2d"
    assert kinds["ragged"] == ("linear", {"m": 55 * 55, "n": 96, "k": 363, "dtype": "int8"})
    assert kinds["flat"] == ("linear", {"m": 92, "n": 4, "k": 18, "dtype": "int8"})
    assert kinds["sparse"] == ("linear", {"m": 64, "n": 32, "k": 32, "dtype": "int8"})
    slim = spec.operators[3]
    assert (slim.repeat, slim.dimensions["in_channels"]) == (8, 1)
    counted = cycles(config(tmp_path), net)
    folds = 108 * 12  # 3456 rows of weights and 384 columns on 32 x 32
    assert counted["square"] == folds * (2 * 32 + 32 + 169 - 2) - 1
    assert next(n for name, n in counted.items() if name.startswith("slimDP")) == 2 * 32 + 32 + 324 - 2 - 1


def test_row_wise_sparsity_halves_the_folds(tmp_path: Path) -> None:
    gemm = topology(tmp_path, "Layer,M,N,K,\na,128,128,128,\n")
    assert cycles(config(tmp_path, sparse="true"), gemm) == {"a": 2 * 4 * (2 * 32 + 32 + 128 - 2) - 1}


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"rows": "many"}, "ArrayHeight is 'many'; expected a whole number"),
        ({"rows": "0"}, "ArrayHeight"),
        ({"rows": ""}, "no entry ArrayHeight"),
        ({"dataflow": "rs"}, "Dataflow is 'rs'; expected os, ws, is"),
        ({"mode": "GUESS"}, "expected CALC, USER"),
        ({"layout": "True"}, "IfmapCustomLayout is on"),
    ],
)
def test_wrong_configurations_name_the_entry(tmp_path: Path, entries: dict[str, str], match: str) -> None:
    with pytest.raises(DataError, match=match):
        load_machine(str(config(tmp_path, **entries)))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("Layer,M,N,K,\na,1,2,\n", r"net\.csv:2:1: 3 cells"),
        ("Layer,M,N,K,\na,1,2,x,\n", r"net\.csv:2:1: 'x'"),
        ("Layer,M,N,K,\na,1,2,0,\n", r"net\.csv:2:1: '0'"),
        ("Layer,M,N,K,\na,1,2,3,4:2,\n", "sparsity '4:2'"),
        ("Layer,M,N,K,\n", "0 layers"),
        ("", "0 layers"),
        ("h,h,w,fh,fw,c,n,s,\na,4,4,5,5,1,1,1,\n", "larger than the input"),
    ],
)
def test_wrong_topologies_name_the_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        load_workload(str(topology(tmp_path, text)))


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "a.cfg"
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EffsimError, match="cannot be read"):
        load_machine(str(broken))
    broken.write_text("no section\n")
    with pytest.raises(EffsimError, match="not a configuration file"):
        load_machine(str(broken))
    with pytest.raises(EffsimError, match="cannot be read"):
        load_workload(str(tmp_path / "nothing.csv"))
