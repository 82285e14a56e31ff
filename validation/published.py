"""Rows of ``published.csv`` as workloads: which run is stated fully enough, on which machine, by which engine.

The file has one value a row. Used are runs of whole models whose batch, lengths, types and parallelism are stated:
static batches and single prompts or steps. What is left out has a reason, so that nothing disappears silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effsim.spec.workload import Precision, WorkloadSpec

from .engines import MS
from .tables import number

MODELS = {
    "GPT-175B": "gpt3_175b",
    "GPT-6.7B": "gpt3_6_7b",
    "GPT-1.3B": "gpt3_1_3b",
    "GPT-20B": "megatron_20b",
    "Megatron-GPT-530B": "turing_530b",
    "GPT-J-6B": "gpt_j_6b",
    "Llama-7B": "llama2_7b",
    "Llama-13B": "llama2_13b",  # same shapes as the first generation
    "Llama-2-7B": "llama2_7b",
    "Llama-2-13B": "llama2_13b",
    "Llama-2-70B": "llama2_70b",
    "Llama-3-8B": "llama3_8b",
    "Llama-3-70B": "llama3_70b",
    "Llama-3.1-8B": "llama3_8b",
    "Llama-3.1-70B": "llama3_70b",
    "Llama-3.1-405B": "llama3_405b",
    "Mixtral-8x7B": "mixtral_8x7b",
    "Falcon-40B": "falcon_40b",
    "Falcon-180B": "falcon_180b",
    "BLOOM-176B": "bloom_176b",
}
HARDWARE = {
    "A100-SXM4-80GB": "system_dgx_a100",
    "A100-80GB @330W cap": "system_dgx_a100",
    "H100-SXM-80GB": "system_dgx_h100",
    "H100-SXM": "system_dgx_h100",
    "H200-SXM-141GB": "gpu_h200",
    "L40S-48GB": "gpu_l40s",
    "A100 SXM 80GB": "gpu_a100",
    "H100 PCIe 80GB": "gpu_h100_pcie",
    "L40S 48GB": "gpu_l40s",
    "A40 48GB": "gpu_a40",
    "RTX A6000 48GB": "gpu_a6000",
    "4090 24GB": "gpu_rtx_4090",
    "RTX 4090": "gpu_rtx_4090",
}
"""Machines by what stands in front of a bracket in the file."""
LARGER = {"system_dgx_a100": "system_a100_64", "system_dgx_h100": "system_h100_64"}
"""Where more than one node took part."""
NODE = 8

HALF = Precision(activations="fp16")
PRECISIONS = {
    "FP16": HALF,
    "F16": HALF,
    "BF16": Precision(activations="bf16"),
    "BF16 (model default)": Precision(activations="bf16"),
    "FP8": Precision(activations="fp16", weights="fp8", kv_cache="fp8"),
    "INT8-wo": Precision(activations="bf16", weights="int8"),
    "INT4-wo-g32": Precision(activations="bf16", weights="int4", group_size=32),
    "Q4_K_M": Precision(activations="fp16", weights="int4", group_size=32),
    "GPTQ g128": Precision(activations="fp16", weights="int4", group_size=128),
    "EXL2 4.0 bpw": Precision(activations="fp16", weights="int4", group_size=128),
}
TASKS = {
    "total_latency": "generate",
    "total_latency_mean": "generate",
    "output_throughput": "generate",
    "output_throughput_per_gpu": "generate",
    "first_token_latency": "prefill",
    "prompt_time": "prefill",
    "time_per_output_token": "decode",
}
GPT_FAST_TOKENS = 200
"""Tokens that gpt-fast generates unless told otherwise (generate.py, --max_new_tokens)."""
SHORT_PROMPT, SHORT_ANSWER = 4, 128
"""A short prompt and answer where the row says no more than that: they hardly enter a decoding rate."""
CHAT_TOKENS = 128
"""Tokens of a decoding rate whose length is not given, as in the other rows of its table."""


@dataclass(frozen=True, slots=True)
class Case:
    """One published value as a workload and the time it stands for."""

    row: str
    source: str
    machine: str
    label: str
    workload: WorkloadSpec
    measured_s: float


@dataclass(frozen=True, slots=True)
class Source:
    """A publication: its name in reports, the engine that was run, and lengths that its rows leave to a default."""

    name: str
    engine: str
    prompt: int = 0
    generate: int = 0


# Part of a row's source to what it is.
SOURCES = {
    "FasterTransformer:docs/gpt_guide.md": Source("FasterTransformer, static batch", "fastertransformer"),
    "TensorRT-LLM:docs/source/performance.md": Source("TensorRT-LLM 0.5 and 0.6, static batch", "trtllm-0.5"),
    "TensorRT-LLM:docs/source/blogs/H100vsA100": Source(
        "TensorRT-LLM 0.5 and 0.6, static batch", "trtllm-0.5", generate=CHAT_TOKENS
    ),
    "TensorRT-LLM:docs/source/blogs/H200launch": Source("TensorRT-LLM 0.5 and 0.6, static batch", "trtllm-0.5"),
    "TensorRT-LLM:docs/source/blogs/Falcon180B-H200": Source("TensorRT-LLM 0.7, static batch", "trtllm-0.5"),
    "splitwise-sim:data/perf_model.csv": Source("Splitwise (vLLM of 2023)", "vllm-2023"),
    "buildkite": Source("vLLM 0.5, static batch", "vllm-0.5"),
    "gpt-fast:README": Source("gpt-fast", "gpt-fast", generate=GPT_FAST_TOKENS),
    "GPU-Benchmarks-on-LLM-Inference": Source("llama.cpp", "llama-cpp", prompt=1),
    "exllamav2:README": Source("ExLlamaV2", "gpt-fast", SHORT_PROMPT, SHORT_ANSWER),
}
OTHER_RUNS = (
    ("FasterTransformer:docs/bert_guide.md", "lengths are not stated: padding was removed, else some exceed the peak"),
    ("perf-overview.md", "in-flight batching under load: for the serving simulator"),
    ("sim-to-real-accuracy-validation", "requests arriving over time: for the serving simulator"),
)
"""Runs of whole models that no static batch describes, and why."""


def convert(row: Mapping[str, Any], path: Path) -> Case | str | None:
    """The workload of one row; a reason where it is a whole model's run that cannot be used; None for other rows.

    Raises:
        DataError: a number that is none.
    """
    text = str(row["source"])
    for part, reason in OTHER_RUNS:
        if part in text:
            return reason
    found = next((source for part, source in SOURCES.items() if part in text), None)
    if found is None or str(row["metric"]) in ("device_memory_used", "achieved_mem_bw_per_gpu"):
        return None
    reason = next((why for why, wrong in _REASONS if wrong(row)), "")
    return reason or _case(row, found, path)


def _hardware(row: Mapping[str, Any]) -> str:
    name = str(row["hardware"]).partition(" (")[0].strip()
    found = HARDWARE.get(name, "")
    return LARGER.get(found, found) if int(float(row["num_devices"] or 1)) > NODE else found


def _llama_prompt(row: Mapping[str, Any]) -> bool:
    return str(row["metric"]) == "prompt_throughput"


_REASONS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("marked as suspect by the collection", lambda row: "SUSPECT" in str(row["notes"])),
    ("Megatron in eager PyTorch: which kernels it had is not stated", lambda r: str(r["notes"]).startswith("Megatron")),
    ("under a power cap that is not stated", lambda row: "power-capped" in str(row["hardware"])),
    ("requests of many lengths: for the serving simulator", lambda row: str(row["metric"]) == "request_throughput"),
    ("the device has no hardware file", lambda row: not _hardware(row)),
    ("parallelism is not stated", lambda row: str(row.get("parallelism", "")).startswith("max ")),
    ("the model has no architecture file", lambda row: str(row["model_or_op"]) not in MODELS),
    ("an element type that is not modelled", lambda row: str(row["precision"]) not in PRECISIONS),
    (
        "layers split over cards: how they are joined is not stated",
        lambda row: "layer-split" in str(row.get("parallelism", "")),
    ),
    ("prompt kernels of llama.cpp (fp32 activations, integer products) are not modelled", _llama_prompt),
    ("a metric that is no time of a run", lambda row: str(row["metric"]) not in TASKS),
)


def _case(row: Mapping[str, Any], source: Source, path: Path) -> Case:
    metric, devices = str(row["metric"]), int(number(row, "num_devices", path))
    task, batch = TASKS[metric], int(number(row, "batch_or_concurrency", path))
    if metric == "output_throughput" and str(row.get("phase", "")) == "decode" and source.prompt:
        task = "decode"
    prompt = source.prompt if task == "decode" and source.prompt else _length(row, "input_len", source.prompt, path)
    new = 1 if task == "prefill" else _length(row, "output_len", source.generate, path)
    workload = WorkloadSpec.model_validate(
        {
            "kind": "workload",
            "name": str(row["id"]),
            "model": MODELS[str(row["model_or_op"])],
            "task": task,
            "batch": batch,
            "prompt": max(1, prompt),
            "generate": max(1, new),
            "precision": PRECISIONS[str(row["precision"])].model_dump(mode="json"),
            "parallelism": {"tensor": devices},
            "engine": source.engine,
        }
    )
    value = number(row, "value", path)
    label = f"{row['model_or_op']} {row['precision'].lower()}, {task}"
    seconds = _seconds(metric, task, value, batch, new, devices)
    return Case(str(row["id"]), source.name, _hardware(row), label, workload, seconds)


def _length(row: Mapping[str, Any], name: str, default: int, path: Path) -> int:
    return int(number(row, name, path)) if str(row[name]).strip() else default


def _seconds(metric: str, task: str, value: float, batch: int, new: int, devices: int) -> float:
    """The time that a value stands for: of all tokens, or of one step."""
    if metric == "output_throughput_per_gpu":
        return batch * new / (value * devices)
    if metric == "output_throughput":
        return batch * (1 if task == "decode" else new) / value
    return value * MS
