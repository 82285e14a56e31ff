"""Foreign tables to kernel-table rows: units, columns, what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from effsim.errors import DataError, UnknownNameError
from effsim.graph.table import from_row
from effsim.validation.engines import convert, table_of
from effsim.validation.kernels import collect, hardware_of
from effsim.validation.profiles import llmcompass, vidur_all_reduce, vidur_layers
from effsim.validation.tables import ENVIRONMENT, Measured, data_folder

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def one(table: str, **row: Any) -> Measured:
    found = list(convert([{"latency": 0.5, **row}], table, "gpu_a100", "file"))
    assert len(found) == 1
    from_row(found[0].kind, found[0].cells, strict=True)
    return found[0]


def none(table: str, **row: Any) -> bool:
    return not list(convert([{"latency": 0.5, **row}], table, "gpu_a100", "file"))


def test_latency_is_in_milliseconds() -> None:
    assert one("gemm", gemm_dtype="bfloat16", m=1, n=2, k=3).measured_s == 0.5e-3


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("bfloat16", {"dtype": "bf16"}),
        ("fp8", {"dtype": "fp8"}),
        ("sq", {"dtype": "int8", "output_dtype": "fp16"}),
        ("int4_wo", {"dtype": "bf16", "weight_dtype": "int4", "group_size": 128}),
    ],
)
def test_gemm_types(theirs: str, ours: dict[str, Any]) -> None:
    row = one("gemm", gemm_dtype=theirs, m=16, n=256, k=512, framework="VLLM", version="0.14.0")
    assert row.cells == {"m": 16, "n": 256, "k": 512, **ours}
    assert row.composite == (theirs == "fp8")


def test_who_quantises_and_which_rows_are_host_time() -> None:
    row = {"gemm_dtype": "fp8_block", "m": 16, "n": 256, "k": 512}
    assert one("gemm", **row, framework="TRTLLM", version="1.0.0").cells["quantiser"] == "kernel"
    assert "quantiser" not in one("gemm", **row, framework="VLLM", version="0.14.0").cells
    assert one("gemm", **row, framework="VLLM", version="0.22.0").cells["quantiser"] == "portable"
    assert none("gemm", **row, framework="VLLM", version="0.22.0", latency=0.075)


def test_an_unknown_type_is_left_out_and_an_unknown_table_refused() -> None:
    assert none("gemm", gemm_dtype="nvfp9", m=1, n=1, k=1)
    with pytest.raises(DataError, match="unknown table 'gem'"):
        one("gem")
    with pytest.raises(DataError, match="no column 'gemm_dtype'"):
        one("gemm", m=1)


ATTENTION = {
    "batch_size": 2,
    "num_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attn_dtype": "bfloat16",
    "kv_cache_dtype": "fp8",
}


def test_attention_keys_are_the_cache_and_the_new_tokens() -> None:
    step = one("generation_attention", op_name="generation_attention", isl=1, step=1023, window_size=0, **ATTENTION)
    assert (step.cells["phase"], step.cells["q_len"], step.cells["kv_len"]) == ("generation", 1, 1024)
    assert step.cells["kv_dtype"] == "fp8"
    prompt = one("context_attention", op_name="context_attention", isl=512, step=0, **ATTENTION)
    assert (prompt.cells["q_len"], prompt.cells["kv_len"], prompt.cells["window"]) == (512, 512, 0)
    assert prompt.label == "attention context fp8 cache"


def test_experts_are_divided_by_tensor_ranks_and_expert_ranks_left_out() -> None:
    row = {
        "moe_dtype": "bfloat16",
        "num_tokens": 4,
        "hidden_size": 4096,
        "inter_size": 14336,
        "topk": 2,
        "num_experts": 8,
        "distribution": "power_law_1.2",
    }
    assert one("moe", moe_tp_size=4, moe_ep_size=1, **row).cells["intermediate"] == 3584
    assert none("moe", moe_tp_size=1, moe_ep_size=2, **row)


@pytest.mark.parametrize(("dtype", "size"), [("half", 2048), ("int8", 1024)])
def test_messages_count_elements(dtype: str, size: int) -> None:
    row = one("nccl", nccl_dtype=dtype, op_name="alltoall", num_gpus=4, message_size=1024)
    plain = "int8" if dtype == "int8" else "fp16"
    assert row.cells == {"op": "all_to_all", "bytes": size, "devices": 4, "runtime": "nccl", "dtype": plain}


def test_eager_custom_all_reduce_is_host_time() -> None:
    row = {"allreduce_dtype": "bfloat16", "op_name": "all_reduce", "num_gpus": 2, "message_size": 128}
    assert one("custom_allreduce", backend="vllm_graph", **row).cells["bytes"] == 256
    assert none("custom_allreduce", backend="vllm_eager", **row)


MAMBA = {
    "batch_size": 8,
    "seq_len": 64,
    "d_state": 128,
    "d_conv": 4,
    "nheads": 16,
    "head_dim": 64,
    "n_groups": 4,
    "chunk_size": 256,
    "phase": "context",
}


def test_a_convolution_keeps_its_batch() -> None:
    row = one("mamba2", kernel_source="causal_conv1d_fn", **MAMBA)
    assert row.cells["batch"] == 8
    assert row.cells["channels"] == 16 * 64 + 2 * 4 * 128
    assert row.measured_s == pytest.approx(0.5e-3)
    update = one("mamba2", kernel_source="causal_conv1d_update", **{**MAMBA, "phase": "generation", "seq_len": 1})
    assert (update.cells["batch"], update.measured_s) == (8, 0.5e-3)


def test_scans() -> None:
    scan = one("mamba2", kernel_source="mamba_chunk_scan_combined", **MAMBA)
    assert scan.kind == "ssd_scan"
    assert (scan.cells["heads"], scan.cells["state"], scan.cells["chunk"]) == (16, 128, 256)
    heads = {"num_k_heads": 16, "head_k_dim": 128, "num_v_heads": 32, "head_v_dim": 128, "d_conv": 4}
    base = {"batch_size": 4, "seq_len": 1, "phase": "generation"}
    rule = one("gdn", kernel_source="fused_recurrent_gated_delta_rule", **base, **heads)
    assert (rule.kind, rule.cells["heads"], rule.cells["value_dim"]) == ("gated_delta", 32, 128)
    assert one("gdn", kernel_source="causal_conv1d_update", **base, **heads).cells["channels"] == 2048
    assert none("gdn", kernel_source="something_new", **base, **heads)


def test_files_by_name(tmp_path: Path) -> None:
    name = "gemm-vllm-0.14.0-gemm_perf.parquet"
    assert table_of(tmp_path / name) == "gemm"
    for folder in ("a100_sxm", "unheard_of"):
        (tmp_path / "kernels" / folder).mkdir(parents=True)
        rows = {"gemm_dtype": ["bfloat16"], "m": [1], "n": [64], "k": [64], "latency": [0.01]}
        pq.write_table(pa.table(rows), tmp_path / "kernels" / folder / name)
    tables = [table for table in collect(tmp_path) if table]
    assert [[row.hardware for row in table] for table in tables] == [["gpu_a100"]]
    (tmp_path / "kernels" / "a100_sxm" / name).write_text("not parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(collect(tmp_path))


def test_hardware_names() -> None:
    assert hardware_of("h100_sxm") == hardware_of("gpu_h100") == "gpu_h100"
    with pytest.raises(UnknownNameError):
        hardware_of("h1000")


def test_vidur_divides_by_tensor_ranks(tmp_path: Path) -> None:
    names = ["attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj"]
    names += ["input_layernorm", "mlp_act", "add", "attn_rope"]
    columns = [f"time_stats.{name}.median" for name in names]
    columns += ["num_tokens", "num_tensor_parallel_workers", "n_embd", "n_expanded_embd", "n_head", "n_kv_head"]
    values = [1.0, 1.0, 1.0, 1.0, 0.02, 0.02, 0.002, 0.02, 128, 2, 8192, 28672, 64, 8]
    file = tmp_path / "a100-x.csv"
    file.write_text(",".join(columns) + "\n" + ",".join(map(str, values)) + "\n", encoding="utf-8")
    rows = list(vidur_layers(file, "gpu_a100"))
    linears = [(r.cells["n"], r.cells["k"]) for r in rows if r.kind == "linear"]
    assert linears == [(5120, 8192), (8192, 4096), (28672, 8192), (8192, 14336)]
    # The clock ticks in microseconds: the addition of 2 us is too short to be compared.
    assert {r.kind: r.cells["cols"] for r in rows if r.kind != "linear"} == {
        "rmsnorm": 8192,
        "silu_mul": 14336,
        "rope": 4608,
    }
    assert {r.measured_s for r in rows} == {1e-3, 20e-6}


def test_vidur_all_reduce_stays_in_one_node(tmp_path: Path) -> None:
    file = tmp_path / "a100-all-reduce.csv"
    file.write_text(
        "time_stats.all_reduce.median,num_workers,size,devices_per_node\n"
        "0.4,8,67108864,8\n0.4,16,67108864,8\n0.05,8,2048,8\n",
        encoding="utf-8",
    )
    (row,) = vidur_all_reduce(file, "gpu_a100")
    assert row.cells == {"op": "all_reduce", "bytes": 67108864, "devices": 8, "runtime": "nccl"}
    assert row.measured_s == pytest.approx(0.4e-3)


def test_llmcompass_rates_are_elements_a_second(tmp_path: Path) -> None:
    (tmp_path / "matmul_A100.csv").write_text("64, 12288, 256, 0.1900ms, 101.7Tflops")
    (tmp_path / "softmax_A100.csv").write_text("4096, 32, 10.0")
    (tmp_path / "gelu_A100.csv").write_text("1048576, 20.0")
    rows = {row.kind: row for row in llmcompass(tmp_path)}
    assert rows["linear"].cells == {"m": 64, "n": 256, "k": 12288, "dtype": "fp16"}
    assert rows["linear"].measured_s == pytest.approx(190e-6)
    assert rows["softmax"].measured_s == pytest.approx(4096 * 32 / 10e9)
    assert rows["gelu"].measured_s == pytest.approx(1048576 / 20e9)
    assert rows["gelu"].cells["rows"] * rows["gelu"].cells["cols"] == 1048576
    assert {row.launch for row in rows.values()} == {"eager"}


def test_the_folder_is_given_or_in_the_environment_or_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    checkout = tmp_path / "checkout"
    with pytest.raises(DataError, match="no measurements to compare with"):
        data_folder(checkout=checkout)
    beside = tmp_path / "shared" / "measurements"
    (beside / "kernels").mkdir(parents=True)
    assert data_folder(checkout=checkout) == beside
    other = tmp_path / "other"
    (other / "vidur").mkdir(parents=True)
    monkeypatch.setenv(ENVIRONMENT, str(other))
    assert data_folder(checkout=checkout) == other
    assert data_folder(beside, checkout) == beside
    with pytest.raises(DataError, match="holds none of the expected folders"):
        data_folder(checkout.parent / "shared")
    with pytest.raises(DataError, match="no such folder"):
        data_folder(tmp_path / "missing")
