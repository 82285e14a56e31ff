"""Published times of whole models: static batches, prompts and generated tokens, without a serving queue.

``published.csv`` has one value a row. Used are the rows whose workload is fully stated: FasterTransformer's and
TensorRT-LLM's static batches, and the prompt and token times of the Splitwise profile (vLLM of 2023). Serving
throughput under load is left to the serving simulator. Rows that the file itself marks as suspect are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effsim._api import run_specs
from effsim.devices.registry import Machine, load_machine
from effsim.errors import DoesNotFitError
from effsim.explore.kernel_table import Score
from effsim.spec.workload import Parallelism, Precision, WorkloadSpec

from .engines import MS
from .tables import number, read_csv

MODELS = {
    "GPT-175B": "gpt3_175b",
    "GPT-6.7B": "gpt3_6_7b",
    "GPT-20B": "megatron_20b",
    "Megatron-GPT-530B": "megatron_530b",
    "GPT-J-6B": "gpt_j_6b",
    "Llama-7B": "llama2_7b",
    "Llama-2-70B": "llama2_70b",
    "Falcon-180B": "falcon_180b",
    "BLOOM-176B": "bloom_176b",
}
HARDWARE = {"A100-SXM4-80GB": "system_dgx_a100", "H100-SXM-80GB": "system_dgx_h100", "L40S-48GB": "gpu_l40s"}
# Source (part of its name) to the report's name and the engine profile that comes nearest.
SOURCES = {
    "FasterTransformer:docs/gpt_guide.md": ("FasterTransformer, static batch", "trtllm-like"),
    "TensorRT-LLM:docs/source/performance.md": ("TensorRT-LLM 0.6, static batch", "trtllm-like"),
    "splitwise-sim:data/perf_model.csv": ("Splitwise (vLLM)", "vllm-like"),
}
TASKS = {
    "total_latency": "generate",
    "output_throughput_per_gpu": "generate",
    "first_token_latency": "prefill",
    "prompt_time": "prefill",
    "time_per_output_token": "decode",
}
PRECISIONS = {"FP16": Precision(activations="fp16"), "FP8": Precision(activations="fp16", weights="fp8", kv_cache="fp8")}


@dataclass(frozen=True, slots=True)
class Case:
    """One published value as a workload and the time it stands for."""

    source: str
    machine: str
    label: str
    workload: WorkloadSpec
    measured_s: float


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """Score of one source, machine, model and task; ``unfit`` counts rows that effsim says do not fit."""

    source: str
    machine: str
    label: str
    score: Score | None
    unfit: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def case_of(row: Mapping[str, Any], path: Path) -> Case | None:
    """The workload of one row; None where it is not of the kinds above.

    Raises:
        DataError: a number that is none.
    """
    known = [value for key, value in SOURCES.items() if key in str(row["source"])]
    hardware = str(row["hardware"]).partition(" (DGX")[0]
    wanted = (
        row["model_or_op"] in MODELS,
        hardware in HARDWARE,
        row["metric"] in TASKS,
        row["precision"] in PRECISIONS,
    )
    if not known or not all(wanted) or "SUSPECT" in str(row["notes"]) or str(row["notes"]).startswith("Megatron"):
        return None
    name, engine = known[0]
    metric, devices = str(row["metric"]), int(number(row, "num_devices", path))
    batch, new = int(number(row, "batch_or_concurrency", path)), int(number(row, "output_len", path))
    task = TASKS[metric]
    workload = WorkloadSpec.model_validate(
        {
            "kind": "workload",
            "name": str(row["id"]),
            "model": MODELS[str(row["model_or_op"])],
            "task": task,
            "batch": batch,
            "prompt": int(number(row, "input_len", path)),
            "generate": max(1, new),
            "precision": PRECISIONS[str(row["precision"])],
            "parallelism": Parallelism.model_validate({"tensor": devices}),
            "engine": engine,
        }
    )
    value = number(row, "value", path)
    seconds = batch * new / (value * devices) if metric == "output_throughput_per_gpu" else value * MS
    label = f"{row['model_or_op']} {row['precision'].lower()}, {task}"
    return Case(name, HARDWARE[hardware], label, workload, seconds)


def predicted_s(case: Case, machine: Machine) -> float:
    """Analytic time of a case; of one step for ``decode``.

    Raises:
        DoesNotFitError: the model and its caches do not fit as the row says they were run.
    """
    result = run_specs(machine, case.workload, None, engine="analytic", sensitivity=False).result
    decode = result.phases.get("decode")
    return decode["time_per_token_s"] if case.workload.task == "decode" and decode else result.time_s


def validate_end_to_end(data: Path) -> tuple[EndToEnd, ...]:
    """Scores of the published runs of *data*; empty where the file is missing."""
    path = data / "published.csv"
    if not path.is_file():
        return ()
    machines: dict[str, Machine] = {}
    errors: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    unfit: dict[tuple[str, str, str], int] = {}
    for index, row in enumerate(read_csv(path)):
        case = case_of(row, path)
        if case is None:
            continue
        key = (case.source, case.machine, case.label)
        machine = machines.setdefault(case.machine, load_machine(case.machine))
        found = errors.setdefault(key, [])
        try:
            found.append((index, predicted_s(case, machine) / case.measured_s - 1.0))
        except DoesNotFitError:
            unfit[key] = unfit.get(key, 0) + 1
    return tuple(
        EndToEnd(*key, Score.of(found) if found else None, unfit.get(key, 0)) for key, found in sorted(errors.items())
    )
