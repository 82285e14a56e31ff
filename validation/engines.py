"""Tables of ai-dynamo/aiconfigurator: one kernel (or one engine operator) a row, timed in CUDA graphs.

What the columns mean, where it had to be settled from the data:

- ``latency`` is in milliseconds.
- ``message_size`` of the communication tables counts *elements*: at equal ``message_size`` a ``half`` all-reduce takes
  1.85 times as long as an ``int8`` one at the large end, and read as bytes its bus bandwidth would be a third of the
  link. All-gather and reduce-scatter take half the time of an all-reduce of the same size: the full buffer is meant.
- ``step`` of attention is what the cache holds before the call and ``isl`` the new tokens, so keys are their sum.
- ``causal_conv1d_fn`` rows grow in proportion to the batch even at length 1 (64 sequences of one token take 557 us on
  A100, 512 tokens of each 443 us): a block for each sequence and channel, whatever its length. In the ``gdn`` table
  every model takes the same time (within 4 % on A100), so what was convolved is not q, k and v of the model but
  something of fixed width; it is taken as the one width all models share, 16 key heads of 128, which agrees with the
  memory's bandwidth at the long end (6144 channels would exceed it).
- ``fp8`` and ``fp8_block`` of the GEMM tables include the quantisation of the activations, unfused: on H100
  8192 × 64 × 65536 takes 5855 us, in bf16 365 us. vLLM 0.14 quantises by framework operations, and so do the rows of
  other versions in ``fp8``; other engines have a kernel for it. These rows are marked ``composite``.
- vLLM's collector uses no graph for ``fp8_block`` from 0.17 on: on H200 a row takes 50 us (few tokens) or 75 us (more),
  whatever its size: the host. Rows of less than 90 us are left out; the others quantise in one kernel, whose conversion
  is written in integer instructions: rows with few columns grow by 1.7 ps an element of the activations, 1.8 TB/s, also
  where those fit in L2.
- Attention rows are replays of a graph that holds one engine operator: the write of the new tokens to the paged cache
  (vLLM writes it outside of the operator from 0.15 on), copies, the attention kernel and its merge. Latent attention of
  vLLM was launched from the framework, with its up-projections: it never takes less than 100 us (H100) or 240 us
  (A100), and one row in ten is two to ten times as slow as its neighbours, at random: six runs were timed, and the host
  was interrupted. Those of TensorRT-LLM and SGLang are graphs of the attention alone. Kernel rows of both kinds mean
  that whole operator.
- On H100 (vLLM 0.14) generation with 1, 2 or 4 key heads and long caches takes nearly as long as with 8, as if keys
  were split for eight key heads whatever their number. H200 (0.22) does not show it; it is not modelled.
- ``num_heads`` of attention and latent attention is what one device holds (the division is made);
  ``inter_size`` of experts is not divided by ``moe_tp_size`` yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from effsim.errors import DataError

from .tables import Measured, number

MS = 1e-3
DTYPES: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bf16"},
    "float16": {"dtype": "fp16"},
    "fp8": {"dtype": "fp8"},
    "fp8_block": {"dtype": "fp8", "group_size": 128 * 128},
    "nvfp4": {"dtype": "fp4"},
    "sq": {"dtype": "int8"},
    "int8_wo": {"dtype": "bf16", "weight_dtype": "int8"},
    "int4_wo": {"dtype": "bf16", "weight_dtype": "int4", "group_size": 128},
}
COMMUNICATION_BYTES = {"half": 2, "bfloat16": 2, "int8": 1}
OPERATIONS = {"alltoall": "all_to_all"}
# DeepSeek's latent attention: rank of the compressed cache and width of the rotary part.
KV_LORA_RANK, ROPE_DIM = 512, 64
# Whether this expert width belongs to a gated or a plain expert is not recorded, and the two differ by half.
UNCLEAR_EXPERTS = frozenset({1856})
COMPOSITE = ("linear fp8",)
"""Labels whose rows time more than the operator (see above)."""

OUTSIDE_WRITE = (0, 15)
"""From this version on vLLM's attention leaves the cache write to the model (``forward_includes_kv_cache_update``)."""
HOST_BOUND_MS, UNGRAPHED_SINCE = 0.09, (0, 17)
"""Rows of block-scaled products below this time are host time, from this version of vLLM on (see above)."""

Converted = tuple[str, str, dict[str, Any]]
"""Label, kind and cells of one row."""


def whole(row: Mapping[str, Any], name: str) -> int:
    """A whole number of a row."""
    return int(number(row, name, "table"))


def _vllm(row: Mapping[str, Any]) -> tuple[int, ...]:
    """Major and minor version where the row is of vLLM; empty for other engines.

    >>> _vllm({"framework": "VLLM", "version": "0.14.0"}), _vllm({"framework": "TRTLLM", "version": "1.0.0rc3"})
    ((0, 14), ())
    """
    if str(row.get("framework", "")).lower() != "vllm":
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", str(row.get("version", "")))[:2])


def _ungraphed(row: Mapping[str, Any]) -> bool:
    """Whether the collector launched this engine's block-scaled products one by one, without a graph."""
    return _vllm(row) >= UNGRAPHED_SINCE


def _gemm(row: Mapping[str, Any]) -> Converted | None:
    types = DTYPES.get(str(row["gemm_dtype"]))
    if types is None:
        return None
    cells = {"m": whole(row, "m"), "n": whole(row, "n"), "k": whole(row, "k"), **types}
    launched = row["gemm_dtype"] == "fp8_block" and _ungraphed(row)
    if launched and number(row, "latency", "table") < HOST_BOUND_MS:
        return None
    if launched:
        cells["quantiser"] = "portable"
    elif types["dtype"] == "fp8" and str(row.get("framework", "")) != "VLLM":
        cells["quantiser"] = "kernel"
    return f"linear {row['gemm_dtype']}", "linear", cells


def _attention(row: Mapping[str, Any]) -> Converted | None:
    types, cache = DTYPES.get(str(row["attn_dtype"])), DTYPES.get(str(row["kv_cache_dtype"]))
    if types is None or cache is None:
        return None
    phase = "context" if str(row["op_name"]).startswith("context") else "generation"
    new = whole(row, "isl")
    cells = {
        "phase": phase,
        "batch": whole(row, "batch_size"),
        "q_len": new,
        "kv_len": new + whole(row, "step"),
        "heads": whole(row, "num_heads"),
        "kv_heads": whole(row, "num_key_value_heads"),
        "head_dim": whole(row, "head_dim"),
        "dtype": types["dtype"],
        "kv_dtype": cache["dtype"],
        "window": int(row.get("window_size") or 0),
    }
    cells["appends"] = _vllm(row) < OUTSIDE_WRITE
    quantised = " fp8 cache" if cache["dtype"] == "fp8" else ""
    return f"attention {phase}{quantised}", "attention", cells


def _latent(row: Mapping[str, Any]) -> Converted | None:
    types, cache = DTYPES.get(str(row["mla_dtype"])), DTYPES.get(str(row["kv_cache_dtype"]))
    if types is None or cache is None:
        return None
    phase = "context" if str(row["op_name"]).startswith("context") else "generation"
    new = whole(row, "isl")
    cells = {
        "phase": phase,
        "batch": whole(row, "batch_size"),
        "q_len": new,
        "kv_len": new + whole(row, "step"),
        "heads": whole(row, "num_heads"),
        "kv_lora_rank": KV_LORA_RANK,
        "rope_dim": ROPE_DIM,
        "dtype": types["dtype"],
        "kv_dtype": cache["dtype"],
        "module": bool(_vllm(row)),
    }
    quantised = " fp8 cache" if cache["dtype"] == "fp8" else ""
    return f"latent_attention {phase}{quantised}", "latent_attention", cells


def _moe(row: Mapping[str, Any]) -> Converted | None:
    types = DTYPES.get(str(row["moe_dtype"]))
    if types is None or whole(row, "moe_ep_size") != 1 or whole(row, "inter_size") in UNCLEAR_EXPERTS:
        return None
    cells = {
        "tokens": whole(row, "num_tokens"),
        "hidden": whole(row, "hidden_size"),
        "intermediate": whole(row, "inter_size") // whole(row, "moe_tp_size"),
        "experts": whole(row, "num_experts"),
        "top_k": whole(row, "topk"),
        "distribution": str(row["distribution"]),
        **types,
    }
    return f"moe {row['moe_dtype']}", "moe", cells


def _linear_attention(row: Mapping[str, Any]) -> Converted | None:
    source = str(row["kernel_source"])
    batch, length = whole(row, "batch_size"), whole(row, "seq_len")
    base = {"batch": batch, "length": length, "dtype": "bf16", "phase": str(row["phase"])}
    if source.startswith("causal_conv1d"):
        cells = {**base, "channels": _convolved(row), "kernel": whole(row, "d_conv")}
        return f"conv1d {row['phase']}", "conv1d", cells
    if source == "fused_recurrent_gated_delta_rule":
        heads = {"heads": whole(row, "num_v_heads"), "key_dim": whole(row, "head_k_dim")}
        return f"gated_delta {row['phase']}", "gated_delta", {**base, **heads, "value_dim": whole(row, "head_v_dim")}
    if source == "mamba_chunk_scan_combined":
        names = {"nheads": "heads", "head_dim": "head_dim", "d_state": "state", "n_groups": "groups"}
        sizes = {ours: whole(row, theirs) for theirs, ours in names.items()}
        return f"ssd_scan {row['phase']}", "ssd_scan", {**base, **sizes, "chunk": whole(row, "chunk_size")}
    return None


def _convolved(row: Mapping[str, Any]) -> int:
    """Channels of the depthwise convolution: x, B and C of Mamba-2; the keys' width in ``gdn`` (see above)."""
    if "nheads" in row:
        return whole(row, "nheads") * whole(row, "head_dim") + 2 * whole(row, "n_groups") * whole(row, "d_state")
    return whole(row, "num_k_heads") * whole(row, "head_k_dim")


def _collective(row: Mapping[str, Any]) -> Converted | None:
    word = COMMUNICATION_BYTES.get(str(row.get("nccl_dtype") or row.get("allreduce_dtype")))
    # The eager rows of the custom all-reduce are host time of the framework (about 45 us whatever the size).
    if word is None or str(row.get("backend", "")).endswith("eager"):
        return None
    op = OPERATIONS.get(str(row["op_name"]), str(row["op_name"]))
    cells = {"op": op, "bytes": whole(row, "message_size") * word, "devices": whole(row, "num_gpus")}
    library = "NCCL" if "nccl_dtype" in row else "one-shot/two-shot kernels"
    if "nccl_dtype" in row:
        cells |= {"runtime": "nccl", "dtype": "int8" if word == 1 else "fp16"}
    return f"collective {op} ({library})", "collective", cells


CONVERTERS: dict[str, Callable[[Mapping[str, Any]], Converted | None]] = {
    "gemm": _gemm,
    "context_attention": _attention,
    "generation_attention": _attention,
    "context_mla": _latent,
    "generation_mla": _latent,
    "moe": _moe,
    "gdn": _linear_attention,
    "mamba2": _linear_attention,
    "nccl": _collective,
    "custom_allreduce": _collective,
}
"""By the table's name, the last part of a file's name without ``_perf``."""


def table_of(path: Path) -> str:
    """Which table a file holds.

    >>> table_of(Path("gemm-vllm-0.14.0-gemm_perf.parquet"))
    'gemm'
    """
    return path.stem.rpartition("-")[2].removesuffix("_perf")


def convert(rows: list[dict[str, Any]], table: str, hardware: str, source: str) -> Iterator[Measured]:
    """Kernel-table rows of one file; rows whose meaning is not recorded are left out.

    Raises:
        DataError: a table of an unknown kind, or a row without a column that it needs.
    """
    converter = CONVERTERS.get(table)
    if converter is None:
        raise DataError(f"{source}: unknown table {table!r}; expected one of {', '.join(CONVERTERS)}")
    for row in rows:
        try:
            found = converter(row)
        except KeyError as error:
            raise DataError(f"{source}: no column {error.args[0]!r}") from None
        if found is not None:
            label, kind, cells = found
            seconds = number(row, "latency", source) * MS
            watts = row.get("power")
            energy = seconds * number(row, "power", source) if watts else None
            yield Measured(
                hardware, source, label, kind, cells, seconds, composite=label.startswith(COMPOSITE), measured_j=energy
            )
