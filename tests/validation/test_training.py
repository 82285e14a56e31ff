"""Published training rows as workloads; scores where the measurements are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from effsim.validation.report import Report
from effsim.validation.training import HEAD, TrainingReport, cells, open_rows, validate_training
from effsim.validation.training_rows import case_of, unused_reason

PATH = Path("published.csv")
ROW = {
    "id": "t-1",
    "source": "pytorch/torchtitan:benchmarks/x.md@0",
    "hardware": "H100-SXM 96GB HBM2e 2.4TB/s, 500W",
    "num_devices": "64",
    "parallelism": "FSDP2;TP4;PP8",
    "model_or_op": "Llama-3.1-8B",
    "precision": "FP8",
    "batch_or_concurrency": "local=16,global=32",
    "input_len": "8192",
    "metric": "throughput_per_gpu",
    "value": "1024",
    "notes": "Interleaved 1F1B, AsyncTP, full AC",
}


def test_a_row_becomes_the_step_it_states() -> None:
    case = case_of(ROW, PATH)
    assert case is not None
    w = case.workload
    assert case.quantity == "time"
    assert case.measured == pytest.approx(32 * 8192 / 64 / 1024)
    assert w.parallelism != "auto"
    assert (int(w.parallelism.data), int(w.parallelism.tensor), int(w.parallelism.pipeline)) == (2, 4, 8)
    assert int(w.parallelism.microbatches) == 8
    t = w.training
    assert (t.recompute, t.float8, int(t.virtual_stages), t.reshard) == ("full", "tensorwise", 2, False)
    assert t.sequence_parallel
    assert t.overlap_tensor


def test_rows_of_llm_foundry() -> None:
    notes = "A100; MFU=1%, grad_accum=4, global_batch=64, params=1, SHARD_GRAD_OP, act_ckpt=True"
    row = ROW | {
        "source": "mosaicml/llm-foundry:README",
        "hardware": "A100-40GB",
        "model_or_op": "MPT-1b",
        "notes": notes,
    }
    case = case_of(row | {"precision": "bf16", "num_devices": "8", "input_len": "2048"}, PATH)
    assert case is not None
    assert (case.machine, case.workload.model, int(case.workload.batch)) == ("system_a100_40gb_128", "mpt_1b", 64)
    assert (case.workload.training.recompute, case.workload.training.reshard) == ("full", False)
    first = case.workload.training
    assert (first.recompute_stops, first.attention_kernel, first.reduce_dtype) == (False, "triton", "bf16")
    later = case_of(row | {"precision": "amp_bf16", "num_devices": "8", "input_len": "2048"}, PATH)
    large = {"precision": "amp_bf16", "num_devices": "128", "input_len": "2048", "hardware": "H100-80GB"}
    last = case_of(row | large | {"notes": notes.replace("A100", "H100 (Large Scale, >= 128 GPUs)")}, PATH)
    assert later is not None
    assert last is not None
    assert (later.workload.training.recompute_stops, later.workload.training.attention_kernel) == (True, "triton")
    assert (last.workload.training.attention_kernel, last.workload.training.reduce_dtype) == ("", "fp32")
    long = case_of(row | {"precision": "bf16", "num_devices": "8", "input_len": "16384"}, PATH)
    assert long is not None
    assert long.quantity == "time, attention kernel not stated"


@pytest.mark.parametrize(
    "change",
    [{"parallelism": "FSDP2;CP4"}, {"precision": "FP8-rowwise"}, {"precision": "amp_fp8"}],
)
def test_what_is_left_out_has_a_reason(change: dict[str, Any]) -> None:
    assert case_of(ROW | change, PATH) is None
    assert unused_reason(ROW | change)


def test_other_rows_are_none_of_them() -> None:
    other = ROW | {"source": "NVIDIA/TensorRT-LLM"}
    assert case_of(other, PATH) is None
    assert unused_reason(other) == ""


def test_no_file_no_report(tmp_path: Path) -> None:
    assert validate_training(tmp_path) is None


@pytest.fixture(scope="module")
def report() -> TrainingReport:
    folder = Path(os.environ.get("EFFSIM_MEASUREMENTS", "../shared/measurements"))
    found = validate_training(folder)
    if found is None:
        pytest.skip("no measurements")
    return found


def test_published_steps_and_memory(report: TrainingReport) -> None:
    totals = {(t.quantity, t.source): t for t in report.totals}
    memory, megatron = totals["memory", "torchtitan"].score, totals["activation memory", "Megatron (calculon)"].score
    steps, pipeline = totals["time", "torchtitan"].score, totals["time", "Megatron (calculon)"].score
    assert memory is not None
    assert megatron is not None
    assert steps is not None
    assert pipeline is not None
    assert memory.median < 0.10
    assert megatron.p90 < 0.03
    assert steps.median < 0.10
    assert pipeline.median < 0.10
    assert all(total.unfit == 0 for total in report.totals)


def test_the_report_names_worst_and_unused_rows(report: TrainingReport) -> None:
    assert all(len(cells(score)) == len(HEAD) for score in report.groups)
    assert all(score.worst for score in report.totals)
    assert len(open_rows(report)) >= 2
    shown = Report(None, (), (), training=report).as_dict()["published"]["training"]
    assert set(shown) == {"groups", "totals", "unused"}
