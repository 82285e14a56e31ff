"""Scores by hand, the block, the page and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from effsim.cli.validate import validate as command
from effsim.devices.registry import load_machine
from effsim.errors import DataError, SpecError
from effsim.graph.table import from_row
from effsim.validation import report
from effsim.validation.blocks import FILES, NODES, ORDER, TOLERANCE, compare_block, read_block
from effsim.validation.endtoend import left_out, predicted_s, validate_end_to_end
from effsim.validation.guard import read_record
from effsim.validation.kernels import Outcome, machine_of, naive_roofline_s, predict, sample, score, validate_kernels
from effsim.validation.page import page, write_page
from effsim.validation.published import Case, convert
from effsim.validation.tables import ENVIRONMENT, Measured, data_folder

runner = CliRunner()
app = typer.Typer()
app.command()(command)


def row(measured_s: float, label: str = "x", **cells: object) -> Measured:
    return Measured(
        "gpu_a100", "file", label, "linear", {"m": 8, "n": 64, "k": 64, "dtype": "bf16", **cells}, measured_s
    )


def test_scores_by_hand() -> None:
    outcomes = [
        Outcome(row(10e-6), 9e-6, 2e-6),  # −10 %
        Outcome(row(20e-6), 26e-6, 8e-6),  # +30 %
        Outcome(row(1e-3), 0.8e-3, 0.8e-3),  # −20 %, naive 0.8/0.8 ms + 3 us = +0.3 %
    ]
    groups = {g.bucket: g for g in score(outcomes)}
    assert list(groups) == ["all", "8–32 us", "0.5–2 ms"]
    whole = groups["all"].score
    assert (whole.n, whole.worst_row) == (3, 1)
    assert whole.median == pytest.approx(0.2)
    assert whole.mape == pytest.approx(0.2)
    assert whole.p90 == pytest.approx(0.3)
    assert whole.bias == pytest.approx(0.0, abs=1e-12)
    assert groups["0.5–2 ms"].roofline.bias == pytest.approx(-0.2)
    assert groups["0.5–2 ms"].naive.bias == pytest.approx(0.003)
    assert groups["all"].worst["measured_s"] == 20e-6


def test_rooflines_by_hand() -> None:
    unit = load_machine(str(Path(__file__).parents[1] / "hardware" / "unit_gpu.yaml"))
    op = from_row("linear", {"m": 2, "n": 3, "k": 4, "dtype": "fp16"})
    peak, rate = unit.device.peak_matrix_flops("fp16"), unit.device.memory_peak_bytes_per_s
    assert naive_roofline_s(op, unit) == pytest.approx(max(2 * 2 * 3 * 4 / peak, 2 * (8 + 12 + 6) / rate))
    node = machine_of("gpu_a100", True)
    assert node.system is not None
    reduce = from_row("collective", {"op": "all_reduce", "bytes": 8_000_000, "devices": 8})
    assert naive_roofline_s(reduce, node) == pytest.approx(2 * 7 / 8 * 8e6 / node.network.levels[0].bytes_per_s)


def test_eager_rows_cost_a_launch() -> None:
    machine = machine_of("gpu_a100", False)
    graph = row(1e-5)
    eager = Measured(graph.hardware, graph.source, graph.label, graph.kind, graph.cells, 1e-5, "eager")
    launch = machine.device.launch
    difference = (
        predict(eager, machine.device, machine).predicted_s - predict(graph, machine.device, machine).predicted_s
    )
    assert difference == pytest.approx(launch.isolated_s - launch.gap_s)


def test_samples_repeat_and_keep_their_order() -> None:
    rows = [row(1e-6 * (i + 1)) for i in range(100)] + [row(1.0, label="y")]
    first = sample(rows, 10)
    assert len(first) == 11
    assert [r.measured_s for r in first[:10]] == sorted(r.measured_s for r in first[:10])
    assert first == sample(rows, 10)
    assert first != sample(rows, 10, seed=1)
    assert sample(rows, 100) == rows


def fake_data(folder: Path) -> Path:
    """A folder whose block takes 1 s in every part, with one published run."""
    inner = folder / "llmcompass"
    inner.mkdir()
    for name in FILES.values():
        (inner / name).write_text("\n".join(["1.0"] * len(ORDER)), encoding="utf-8")
    (inner / "matmul_A100.csv").write_text("64, 12288, 12288, 0.1900ms, 101.7Tflops\n", encoding="utf-8")
    (folder / "published.csv").write_text(
        "id,source,hardware,num_devices,model_or_op,precision,batch_or_concurrency,input_len,output_len,metric,value,notes\n"
        "a,Mutinifni/splitwise-sim:data/perf_model.csv@1,A100-SXM4-80GB,2,Llama-2-70B,FP16,1,512,8,time_per_output_token,50,\n"
        "b,Mutinifni/splitwise-sim:data/perf_model.csv@1,A100-SXM4-80GB,2,Llama-2-70B,FP16,1,512,8,time_per_output_token,50,"
        "SUSPECT\n"
        "c,Mutinifni/splitwise-sim:data/perf_model.csv@1,A100-SXM4-80GB,1,Llama-2-70B,FP16,1,512,1,prompt_time,100,\n"
        "d,elsewhere,A100-SXM4-80GB,1,Llama-2-70B,FP16,1,512,1,prompt_time,100,\n",
        encoding="utf-8",
    )
    return folder


def test_every_operator_of_the_block_is_compared_once() -> None:
    block = compare_block("gpt3_block_decode", [1e-4] * len(ORDER))
    assert len({node for nodes in NODES for node in nodes}) == sum(map(len, NODES)) == 14
    assert block.total.measured_s == pytest.approx(12e-4)
    # Operators of an isolated run follow one another: the sum of the parts is the run.
    assert block.total.predicted_s == pytest.approx(block.events_s, rel=0.02)


def test_a_block_file_must_hold_twelve_positive_numbers(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    for text in ("1.0\n2.0", "x", "\n".join(["0"] * 12)):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"t\.csv"):
            read_block(file)


def test_published_runs_become_workloads(tmp_path: Path) -> None:
    (run, unfit) = validate_end_to_end(fake_data(tmp_path))
    assert (run.label, run.unfit) == ("Llama-2-70B fp16, decode", 0)
    assert run.score is not None
    assert (run.score.n, run.score.worst_row) == (1, 0)
    assert -0.9 < run.score.bias < 0.5
    assert (unfit.label, unfit.unfit, unfit.score) == ("Llama-2-70B fp16, prefill", 1, None)
    assert validate_end_to_end(tmp_path / "llmcompass") == ()


def published(**cells: object) -> dict[str, object]:
    """A row of the file of published results."""
    return {
        "id": "x",
        "source": "NVIDIA/TensorRT-LLM:docs/source/performance.md@1",
        "hardware": "A100-SXM4-80GB",
        "num_devices": 2,
        "parallelism": "TP2",
        "phase": "",
        "model_or_op": "GPT-J-6B",
        "precision": "FP16",
        "batch_or_concurrency": 10,
        "input_len": 128,
        "output_len": 100,
        "metric": "output_throughput_per_gpu",
        "value": 250,
        "notes": "",
        **cells,
    }


def test_throughput_is_turned_into_the_time_of_the_batch() -> None:
    case = convert(published(), Path("published.csv"))
    assert isinstance(case, Case)
    assert case.measured_s == pytest.approx(10 * 100 / (250 * 2))
    assert (case.workload.task, case.workload.engine) == ("generate", "trtllm-0.5")
    assert predicted_s(case, load_machine("system_dgx_a100")) > 0


def test_a_rate_without_lengths_takes_those_of_the_program_that_was_run() -> None:
    cells = {"source": "pytorch-labs/gpt-fast:README.md@1", "metric": "output_throughput", "value": 100.0}
    cells |= {"hardware": "A100-80GB @330W cap (hybrid)", "phase": "decode", "input_len": 5, "output_len": ""}
    cells |= {"model_or_op": "Llama-2-7B", "precision": "INT8-wo", "batch_or_concurrency": 1, "num_devices": 1}
    case = convert(published(**cells), Path("published.csv"))
    assert isinstance(case, Case)
    assert (int(case.workload.prompt), int(case.workload.generate)) == (5, 200)  # its default
    assert case.measured_s == pytest.approx(2.0)
    assert case.workload.precision.weights == "int8"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"notes": "SUSPECT: implied MFU 9"}, "suspect"),
        ({"hardware": "H100-SXM-80GB (power-capped)"}, "power cap"),
        ({"hardware": "Abacus"}, "no hardware file"),
        ({"model_or_op": "Eliza"}, "no architecture file"),
        ({"parallelism": "max TP/PP/DP"}, "parallelism"),
        ({"source": "NVIDIA/FasterTransformer:docs/bert_guide.md@1"}, "padding"),
        ({"source": "NVIDIA/TensorRT-LLM:docs/source/performance/perf-overview.md@1"}, "serving simulator"),
    ],
)
def test_runs_that_are_left_out_have_a_reason(cells: dict[str, object], reason: str) -> None:
    found = convert(published(**cells), Path("published.csv"))
    assert isinstance(found, str)
    assert reason in found


def test_rows_that_are_no_runs_of_models_are_not_counted(tmp_path: Path) -> None:
    assert convert(published(source="NVIDIA/nccl-tests issue #212", metric="busbw"), Path("published.csv")) is None
    assert left_out(tmp_path) == ()


def test_the_page_is_complete_and_replaces_whole_files(tmp_path: Path) -> None:
    found = report.validate(fake_data(tmp_path))
    text = page(found)
    for heading in ("# Accuracy", "## The weakest spots", "## A GPT-3 block", "## Whole models", "## How to repeat"):
        assert text.count(heading) == 1
    assert "linear fp16, eager (LLMCompass)" in text
    out = tmp_path / "accuracy.md"
    out.write_text("old", encoding="utf-8")
    write_page(found, out)
    assert out.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.rglob(".accuracy*")] == []
    assert "](validation/accuracy_gpu_a100.svg)" in text
    assert (tmp_path / "validation" / "accuracy_gpu_a100.svg").read_text(encoding="utf-8").startswith("<svg")
    assert read_record(tmp_path / "accuracy.json")
    with pytest.raises(DataError, match="does not exist"):
        write_page(found, tmp_path / "nowhere" / "accuracy.md")


def test_the_page_says_where_a_formula_is_closer(tmp_path: Path) -> None:
    data = fake_data(tmp_path)
    text = page(report.validate(data, "kernels"))
    (group,) = [g for g in validate_kernels(data).groups if g.bucket == "all"]
    closer = min(group.naive.median, group.roofline.median) < group.score.median
    assert ("One of the two formulas is closer" in text) == closer


def test_comparisons_that_are_not_asked_for_are_absent(tmp_path: Path) -> None:
    data = fake_data(tmp_path)
    assert set(report.validate(data, "kernels").as_dict()) == {"kernels"}
    assert set(report.validate(data, "published").as_dict()) == {"published"}
    assert set(report.validate(data, gpu="gpu_a100").as_dict()) == {"kernels"}
    with pytest.raises(SpecError, match="expected one of kernels, published"):
        report.validate(data, "kernel")
    with pytest.raises(DataError, match="no measured kernels of gpu_h100"):
        report.validate(data, "kernels", "gpu_h100")


def test_the_command(tmp_path: Path) -> None:
    data = fake_data(tmp_path)
    out = tmp_path / "page.md"
    done = runner.invoke(app, ["--data", str(data), "--json", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)) == {"kernels", "published"}
    assert out.read_text(encoding="utf-8").startswith("# Accuracy")
    shown = runner.invoke(app, ["published", "--data", str(data)])
    assert shown.exit_code == 0
    assert "gpt3_block_decode" in shown.stdout


def test_without_measurements_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "missing"))
    failed = runner.invoke(app, ["kernels"])
    assert isinstance(failed.exception, DataError)
    assert failed.exception.exit_code == 2
    assert "no such folder of measurements" in str(failed.exception)


@pytest.fixture(scope="module")
def real() -> Path:
    try:
        return data_folder(checkout=Path(__file__).resolve().parents[2])
    except DataError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("workload", "file"), FILES.items())
def test_a_measured_block_is_within_its_tolerance(real: Path, workload: str, file: str) -> None:
    if not (real / "llmcompass" / file).is_file():
        pytest.skip(f"no {file}")
    block = compare_block(workload, read_block(real / "llmcompass" / file))
    assert abs(block.total.error) < TOLERANCE


def test_gemm_beats_the_roofline_on_measured_kernels(real: Path) -> None:
    if not (real / "kernels" / "h100_sxm").is_dir():
        pytest.skip("no H100 tables")
    groups = {(g.label, g.bucket): g for g in validate_kernels(real, "gpu_h100", limit=100).groups}
    gemm = groups["linear bfloat16", "all"]
    assert gemm.score.median < 0.15 < gemm.roofline.median
