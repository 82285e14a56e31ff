"""Rows of published training figures as workloads, and why some rows are left out.

What the rows do not say is taken from the sources' own files:

- llm-foundry (scripts/train/benchmarking/submit_benchmarks.py, scripts/train/yamls/pretrain): FSDP with ``PURE`` mixed
  precision (weights and gradients travel in bf16, the optimizer works on divided fp32 numbers), fused projections of
  queries, keys and values, norms in bf16, gradients clipped by their norm, a decoupled AdamW in separate operations;
  eager PyTorch. Fused cross entropy: without it the largest microbatches of the A100 rows would not fit. Rows called
  ``bf16`` (A100 40 GB) are of the release with PyTorch 1.13, whose checkpointing recomputes whole blocks; rows called
  ``amp_bf16`` ran on the nightly 2.1 of 27 August 2023 (scripts/train/benchmarking/h100new.md@beb8dee6922c),
  which stops early. Those state ``DEFAULT`` mixed precision, which in Composer between March and October 2023 is
  ``PURE`` by another name (mosaicml/composer pull requests 2047 and 2628). Attention is the Triton kernel, the script's
  default until it installed FlashAttention 2, which the rows of 128 and more H100 are later than; their gradients
  travel in fp32, as ``DEFAULT`` has it since October 2023.
- torchtitan (torchtitan/parallelisms/parallelize_llama.py, pipeline_llama.py): FSDP2 with bf16 weights and fp32
  reduction, projections apart, multi-tensor AdamW, gradients clipped; selective checkpointing by operator; tensor ranks
  divide every sequence, whose pieces are then put in order by copies; with a pipeline no resharding, gradients whole
  until the last microbatch, as many microbatches as stages.
- Megatron (arXiv:2205.05198): fp16, dropout, unfused attention with a fused softmax, fused AdamW, fp32 gradients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effsim.spec.workload import WorkloadSpec

from .tables import number

GIB = float(1 << 30)
FOUNDRY, TITAN, MEGATRON = "llm-foundry", "torchtitan", "Megatron (calculon)"
SOURCES = {"mosaicml/llm-foundry": FOUNDRY, "pytorch/torchtitan": TITAN, "calculon-ai/calculon": MEGATRON}
HARDWARE = {
    "H100-80GB": "system_h100_512",
    "A100-80GB": "system_a100_64",
    "A100-40GB": "system_a100_40gb_128",
    "H100-SXM 96GB": "system_h100_96gb_512",
    "A100-SXM4-80GB": "system_a100_512",
}
MODELS = {
    "Llama-3.1-8B": "llama3_8b",
    "Llama-3.1-405B": "llama3_405b",
    "megatron-1T": "megatron_1t",
    "megatron-22B": "megatron_22b",
    "turing-530B": "turing_530b",
}
INTERLEAVED = {"turing-530B": 3}
"""Pieces a stage of the Megatron memory figures (table 3 of arXiv:2205.05198)."""
LONG = 8192
"""Tokens of a sequence from which attention is much of an llm-foundry step."""
TRAINING_METRICS = ("throughput_per_gpu", "peak_memory_per_gpu", "iteration_time", "activation_memory_per_gpu")


@dataclass(frozen=True, slots=True)
class Case:
    """One published value: ``measured`` is seconds of a step or bytes of a GPU."""

    row: str
    source: str
    machine: str
    model: str
    quantity: str
    workload: WorkloadSpec
    measured: float


def unused_reason(row: Mapping[str, Any]) -> str:
    """Why a training row is not scored; empty where it is, or where it is no training row."""
    if source_of(row) is None or str(row["metric"]) not in TRAINING_METRICS:
        return ""
    precision = str(row["precision"])
    if "CP4" in str(row["parallelism"]):
        return "context parallelism (ring attention over 4 ranks) is not modelled"
    if precision == "amp_fp8":
        return "Transformer Engine fp8 with delayed scaling: which operands are narrowed by which kernel is not stated"
    if precision == "FP8-rowwise":
        return "products scaled by rows run in kernels that no measurement here describes"
    return ""


def source_of(row: Mapping[str, Any]) -> str | None:
    """Short name of the source of a row; None where it holds no training figures."""
    return next((name for key, name in SOURCES.items() if key in str(row["source"])), None)


def case_of(row: Mapping[str, Any], path: Path) -> Case | None:
    """The workload of one row; None where it is no training row or is left out.

    Raises:
        DataError: a number that is none.
    """
    source = source_of(row)
    if source is None or str(row["metric"]) not in TRAINING_METRICS or unused_reason(row):
        return None
    machine = next((name for key, name in HARDWARE.items() if str(row["hardware"]).startswith(key)), None)
    assert machine is not None
    made = {FOUNDRY: _foundry, TITAN: _titan, MEGATRON: _megatron}[source](row, path)
    value = number(row, "value", path)
    model = str(row["model_or_op"])
    if "memory" in str(row["metric"]):
        quantity = "memory" if source == TITAN else "activation memory"
        return Case(str(row["id"]), source, machine, model, quantity, made, value * GIB)
    if row["metric"] == "iteration_time":
        return Case(str(row["id"]), source, machine, model, "time", made, value)
    devices = number(row, "num_devices", path)
    seconds = float(made.batch) * float(made.prompt) / devices / value
    # Which attention kernel a row of llm-foundry ran (Triton's or a FlashAttention, of which version) is not stated.
    open_kernel = source == FOUNDRY and int(made.prompt) >= LONG
    quantity = "time, attention kernel not stated" if open_kernel else "time"
    return Case(str(row["id"]), source, machine, f"{model} {row['precision']}", quantity, made, seconds)


def _workload(row: Mapping[str, Any], model: str, batch: int, length: int, **fields: Any) -> WorkloadSpec:
    return WorkloadSpec.model_validate(
        {
            "kind": "workload",
            "name": str(row["id"]),
            "model": model,
            "task": "training_step",
            "batch": batch,
            "prompt": length,
            **fields,
        }
    )


def _foundry(row: Mapping[str, Any], path: Path) -> WorkloadSpec:
    notes = dict(re.findall(r"(\w+)=([\w.%]+)", str(row["notes"])))
    size = str(row["model_or_op"]).removeprefix("MPT-")
    first = str(row["precision"]) == "bf16"
    late = "Large Scale" in str(row["notes"])
    return _workload(
        row,
        f"mpt_{size}",
        int(notes["global_batch"]),
        int(number(row, "input_len", path)),
        precision={"activations": "bf16"},
        parallelism={"data": int(number(row, "num_devices", path)), "microbatches": int(notes["grad_accum"])},
        engine="eager-pytorch",
        training={
            "zero": 3,
            "working_copy": False,
            "reshard": "FULL_SHARD" in str(row["notes"]),
            "recompute": "full" if notes["act_ckpt"] == "True" else "none",
            "recompute_stops": not first,
            "reduce_dtype": "fp32" if late else "bf16",
            "fused_loss": True,
            "fused_optimizer": False,
            "clip_gradients": True,
            "attention_kernel": "" if late else "triton",
        },
    )


def _titan(row: Mapping[str, Any], path: Path) -> WorkloadSpec:
    degrees = {name: int(n) for name, n in re.findall(r"(FSDP|TP|PP)(\d+)", str(row["parallelism"]))}
    local = int(re.findall(r"local=(\d+)", str(row["batch_or_concurrency"]))[0])
    data, pipeline = degrees.get("FSDP", 1), degrees.get("PP", 1)
    notes, precision = str(row["notes"]), str(row["precision"])
    float8 = {"FP8": "tensorwise", "FP8-tensorwise": "tensorwise", "FP8-rowwise": "rowwise"}.get(precision, "none")
    return _workload(
        row,
        MODELS[str(row["model_or_op"])],
        local * data,
        int(number(row, "input_len", path)),
        precision={"activations": "bf16"},
        parallelism={"data": data, "tensor": degrees.get("TP", 1), "pipeline": pipeline, "microbatches": pipeline},
        engine="eager-pytorch" if notes.startswith("eager") else "compiled-pytorch",
        training={
            "zero": 3,
            "reshard": pipeline == 1,
            "accumulate_whole": pipeline > 1,
            "working_copy": False,
            "recompute": "full" if "full AC" in notes else "alternate",
            "recompute_stops": True,
            "reduce_dtype": "fp32",
            "fused_projections": False,
            "fused_optimizer": False,
            "clip_gradients": True,
            "sequence_parallel": "TP" in degrees,
            "sequence_copies": "TP" in degrees,
            "overlap_tensor": "Async" in notes,
            "virtual_stages": 2 if "Interleaved" in notes else 1,
            "float8": float8,
        },
    )


def _megatron(row: Mapping[str, Any], path: Path) -> WorkloadSpec:
    degrees = {name: int(n) for name, n in re.findall(r"(TP|PP|DP)(\d+)", str(row["parallelism"]))}
    settings = dict(re.findall(r"(\w+)=(\d+)", str(row["batch_or_concurrency"])))
    notes, model = str(row["notes"]), str(row["model_or_op"])
    micro = int(settings["mbs"])
    batch = int(settings.get("gbs", micro * degrees["PP"] * 8))
    selective = "selective" in notes or "seqsel" in notes
    pieces = INTERLEAVED.get(model, 1) if row["metric"] == "activation_memory_per_gpu" else 1
    return _workload(
        row,
        MODELS[model],
        batch,
        2048,
        precision={"activations": "fp16"},
        parallelism={
            "tensor": degrees["TP"],
            "pipeline": degrees["PP"],
            "data": degrees["DP"],
            "microbatches": batch // micro // degrees["DP"],
        },
        engine="fused-pytorch",
        attention="unfused",
        training={
            "recompute": "full" if "full activation" in notes else "selective" if selective else "none",
            "recompute_stops": False,
            "sequence_parallel": selective,
            "dropout": True,
            "virtual_stages": pieces,
        },
    )
