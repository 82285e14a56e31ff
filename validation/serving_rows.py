"""Rows of ``published.csv`` that were measured under load, as workloads with a ``serving:`` part.

What the rows do not say is taken from the sources' own files:

- sim-to-real-accuracy-validation (docs/plans/2026-03-04-sim-to-real-accuracy-validation-design.md): vLLM 0.15.1 with
  prefix cache and chunked prefill, ``max_num_seqs`` 128. Its ``mean_itl`` is the time of a request over its output
  tokens (experiment/ground_truth.py: ``normalized_time_per_output_token``). Load from inference-perf, whose
  shared-prefix generator makes one question a user and sends that one again in every round
  (inference_perf/datagen/shared_prefix_datagen.py): after a user's first request its whole prompt is in the cache.
  Arrivals are taken as Poisson: a constant rate would leave no spread of latencies, which the rows have. Tokens are
  drawn as the model's ``generation_config.json`` says: top-p where it names one.
- TensorRT-LLM (docs/source/performance/perf-overview.md, online serving, v0.14): 500 requests through Triton, engines
  built with the defaults of that release (``max_num_tokens`` 8192, ``max_batch_size`` 2048).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from effsim.spec.workload import WorkloadSpec

from .published import HARDWARE, MODELS
from .tables import number

VLLM, TRITON = "vLLM 0.15 (sim-to-real)", "TensorRT-LLM 0.14 under Triton"
SCOUT = Path(str(files("effsim.workloads"))) / "architectures" / "elsewhere" / "llama4_scout.yaml"
MORE_MODELS = {
    "Llama-4-Scout-17B-16E-Instruct-FP8-dynamic": str(SCOUT),
    "Llama-3.1-70B-Instruct": "llama3_70b",
    "Llama-3.1-8B-Instruct": "llama3_8b",
    "Mistral-Nemo-Instruct-2407": "mistral_nemo_12b",
    "Qwen2.5-7B-Instruct": "qwen2_7b",  # the same shapes
    "Qwen3-14B": "qwen3_14b",
    "Yi-34B": "yi_34b",
    "Llama-2-7b-hf": "llama2_7b",
    "Llama-2-70b-hf": "llama2_70b",
    "CodeLlama-34b-Instruct-hf": "codellama_34b",
    "Mixtral-8x7B-v0.1": "mixtral_8x7b",
    "Mixtral-8x7B-Instruct-v0.1": "mixtral_8x7b",
    "Mixtral-8x22B-Instruct-v0.1": "mixtral_8x22b",
}
PLAIN = ("yi_34b", "mistral_nemo_12b", "mixtral_8x7b", "mixtral_8x22b")
"""Models whose ``generation_config.json`` filters nothing; the others of these runs draw with top-p."""
PRECISIONS = {
    "FP16": {"activations": "fp16"},
    "BF16": {"activations": "bf16"},
    "FP8": {"activations": "bf16", "weights": "fp8"},
}
MOST_SEQUENCES, BLOCK, MEMORY = 128, 16, 0.9
"""``max_num_seqs`` of the runs; vLLM's block and ``gpu_memory_utilization`` where nothing else is stated."""
TRITON_REQUESTS, TRITON_TOKENS, TRITON_SEQUENCES = 500, 8192, 2048
CHATS = {202: {"distribution": "lognormal", "cv": 1.0, "longest": 1024}}
"""Lengths behind a mean prompt that is no fixed length: runs of 500 chats last several answers longer than the mean."""
AT_ONCE = 1e6
"""Requests a second that stand for an infinite rate."""
METRICS = re.compile(r"(mean|p90|p99)_(e2e|ttft|itl)$")


@dataclass(frozen=True, slots=True)
class Stage:
    """A span of constant load: a workload, and how many requests it has."""

    workload: WorkloadSpec
    requests: int


@dataclass(frozen=True, slots=True)
class Case:
    """One published value: ``stages`` of which it is the mean over requests, ``run`` names them together.

    ``statistic`` and ``quantity`` say what it is (mean, p90, p99 of e2e, ttft, itl in seconds; throughput in tokens/s);
    ``per_token`` that a time between tokens is a request's time over its tokens; ``whole`` that it is a whole run.
    """

    row: str
    source: str
    machine: str
    run: str
    statistic: str
    quantity: str
    stages: tuple[Stage, ...]
    measured: float
    per_token: bool
    whole: bool


def convert(row: Mapping[str, Any], path: Path) -> Case | str | None:
    """The case of one row; a reason where it is a run under load that cannot be used; None for other rows.

    Raises:
        DataError: a number that is none.
    """
    if str(row.get("phase", "")) != "serving-online":
        return None
    hardware = HARDWARE.get(str(row["hardware"]).partition(" (")[0].strip(), "")
    if not hardware:
        return "the device has no hardware file"
    if _model(row) is None:
        return "the model has no architecture file"
    if str(row["precision"]) not in PRECISIONS:
        return "an element type that is not modelled"
    if not re.fullmatch(r"TP\d+", str(row["parallelism"])):
        return "only tensor parallelism is served"
    triton = "perf-overview" in str(row["source"])
    return _triton(row, hardware, path) if triton else _vllm(row, hardware, path)


def _model(row: Mapping[str, Any]) -> str | None:
    name = str(row["model_or_op"])
    return MORE_MODELS.get(name, MODELS.get(name))


def _workload(row: Mapping[str, Any], engine: str, prompt: int, output: int, serving: dict[str, Any]) -> WorkloadSpec:
    return WorkloadSpec.model_validate(
        {
            "kind": "workload",
            "name": str(row["id"]),
            "model": _model(row),
            "task": "generate",
            "prompt": prompt,
            "generate": output,
            "precision": PRECISIONS[str(row["precision"])],
            "parallelism": {"tensor": int(str(row["parallelism"]).removeprefix("TP"))},
            "engine": engine,
            "serving": serving,
        }
    )


def _vllm(row: Mapping[str, Any], hardware: str, path: Path) -> Case | str:
    load, _, which = str(row["batch_or_concurrency"]).rpartition(";")
    spans = [(int(s), float(r)) for s, r in re.findall(r"(\d+)s@([\d.]+)", load)]
    notes = str(row["notes"])
    limit, users = re.search(r"max_num_batched_tokens=(\d+)", notes), re.search(r"\((\d+)\D+?(\d+)[^)]*\)", notes)
    metric = METRICS.fullmatch(str(row["metric"]))
    if not spans or limit is None or users is None or metric is None:
        return "the load is not stated"
    found = re.search(r"gpu_mem=([\d.]+)", notes)
    prompt, output = int(number(row, "input_len", path)), int(number(row, "output_len", path))
    serving: dict[str, Any] = {
        "prefix": {"tokens": prompt // BLOCK * BLOCK, "groups": int(users[1]) * int(users[2])},
        "prompt": {"mean": prompt % BLOCK or 1},
        "output": {"mean": output},
        "cache": {"page": BLOCK, "block": BLOCK, "memory_fraction": float(found[1]) if found else MEMORY},
        "scheduler": {"policy": "chunked", "max_sequences": MOST_SEQUENCES, "max_tokens": int(limit[1])},
        "sampling": "plain" if _model(row) in PLAIN else "filtered",
    }
    stages = []
    for seconds, rate in spans:
        arrivals = {"process": "poisson", "rate": rate, "requests": max(1, round(rate * seconds))}
        workload = _workload(row, "vllm-0.15", prompt, output, serving | {"arrivals": arrivals})
        stages.append(Stage(workload, round(rate * seconds)))
    index = re.search(r"stage (\d+)", which)
    if index is not None:
        stages = [stages[int(index[1])]]
    whole = index is None
    if whole and len(stages) > 1 and metric[1] != "mean":
        return "percentiles of several stages together: those of each stage are compared"
    if not whole and len(spans) == 1:
        return "the only stage of its run: stands for the whole run, too"
    run = f"{row['model_or_op']} {row['parallelism']} {load.partition(':')[0]}"
    value = number(row, "value", path) / 1e3
    kept = (metric[1], metric[2], tuple(stages), value)
    return Case(str(row["id"]), VLLM, hardware, run, *kept, per_token=True, whole=whole)


def _triton(row: Mapping[str, Any], hardware: str, path: Path) -> Case | str:
    rate = str(row["batch_or_concurrency"]).removeprefix("qps=")
    prompt, output = int(number(row, "input_len", path)), int(number(row, "output_len", path))
    arrivals = (
        {"process": "constant", "rate": AT_ONCE} if rate == "INF" else {"process": "poisson", "rate": float(rate)}
    )
    serving: dict[str, Any] = {
        "arrivals": arrivals | {"requests": TRITON_REQUESTS},
        "prompt": {"mean": prompt, **CHATS.get(prompt, {})},
        "output": {"mean": output, **CHATS.get(prompt, {})},
        "cache": {"prefix": False},
        "scheduler": {"policy": "continuous", "max_sequences": TRITON_SEQUENCES, "max_tokens": TRITON_TOKENS},
    }
    stage = Stage(_workload(row, "trtllm-0.14", prompt, output, serving), TRITON_REQUESTS)
    metric = METRICS.fullmatch(str(row["metric"]))
    run = f"{row['model_or_op']} {row['parallelism']} {prompt} in, {output} out"
    value = number(row, "value", path)
    if metric is None:
        return Case(str(row["id"]), TRITON, hardware, run, "mean", "throughput", (stage,), value, False, whole=True)
    kept = (metric[1], metric[2], (stage,), value / 1e3)
    return Case(str(row["id"]), TRITON, hardware, run, *kept, per_token=False, whole=True)
