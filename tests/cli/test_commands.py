"""The commands as a user types them: outputs, exit codes, one-line errors."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LLAMA_LIKE = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}


def effsim(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "effsim", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        timeout=120,
        check=False,
    )


def test_main_job_prints_the_answer() -> None:
    done = effsim("run", "gpu_a100.yaml", "llama70b_decode.yaml")
    assert done.returncode == 0, done.stderr
    head = done.stdout.splitlines()
    assert "Llama-2-70B decode on NVIDIA A100 SXM4 80 GB, 2 devices" in head[0]
    assert "do not fit" in head[1]  # the automatic sharding stands at the top
    assert "Time per token" in done.stdout


def test_json_is_all_there_is_on_stdout() -> None:
    done = effsim("run", "gpu_a100", "llama70b_decode", "--json", "--engine", "analytic")
    result = json.loads(done.stdout)
    assert result["schema"] == "effsim/result@1"
    assert result["parallelism"] == {"tensor": 2}
    memory, decode = result["memory"], result["phases"]["decode"]
    bound = (memory["weights_bytes"] + memory["kv_cache_bytes"]) / 2.039e12
    assert bound < decode["time_per_token_s"] < 1.6 * bound
    assert sum(row["time_s"] for row in result["operators"]) == pytest.approx(result["time_s"])
    assert sum(result["bound"].values()) == pytest.approx(1.0)


def test_set_reaches_hardware_and_workload() -> None:
    base = json.loads(effsim("run", "gpu_a100", "llama70b_decode", "--json", "--engine", "roofline").stdout)
    more = json.loads(
        effsim(
            *("run", "gpu_a100", "llama70b_decode", "--json", "--engine", "roofline"),
            *("--set", "hardware.memory.bandwidth=4078GB/s", "--set", "workload.batch=2"),
        ).stdout
    )
    assert more["time_s"] < 0.6 * base["time_s"]
    assert more["phases"]["decode"]["tokens_per_s"] > 3 * base["phases"]["decode"]["tokens_per_s"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        (("run", "gpu_a1000", "llama70b_decode"), 2, "did you mean 'gpu_a100'"),
        (("run", "gpu_a100", "llama70b_decode", "--set", "hardware.memroy.latency=1 ns"), 2, "hardware.memory"),
        (("run", "gpu_t4", "llama70b_decode"), 1, "would fit with"),
        (("run", "gpu_a100", "llama70b_decode", "--set", "workload.engine=fast"), 2, "engines"),
        (("explain", "gpu_a100", "llama70b_decode", "layers.atention"), 2, "did you mean 'layers.attention'"),
        (("kernels", "gpu_a100", "nothing.csv"), 2, "no such file"),
        (("compare", "gpu_a100"), 2, "at least one machine"),
        (("list", "everything"), 2, "everything"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], exit_code: int, text: str, tmp_path: Path) -> None:
    done = effsim(*arguments, cwd=tmp_path)
    assert done.returncode == exit_code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_unsupported_dtype_points_into_the_workload(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("kind: workload\nname: w\nmodel: llama2_7b\ntask: decode\nprecision:\n  activations: fp4\n")
    done = effsim("run", "gpu_a100", file)
    assert done.returncode == 2
    assert f"{file}:6:" in done.stderr
    assert "it supports fp64, tf32, fp16" in done.stderr


def test_config_json_by_path(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA_LIKE))
    workload = tmp_path / "w.yaml"
    workload.write_text(
        "kind: workload\nname: own model\nmodel: model/config.json\ntask: generate\nprompt: 64\ngenerate: 8\n"
    )
    done = effsim("run", "gpu_a100", workload, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["phases"]) == {"prefill", "decode"}
    imported = effsim("import", tmp_path / "model" / "config.json", "--out", tmp_path / "own.yaml")
    assert imported.returncode == 0, imported.stderr
    assert effsim("check", tmp_path / "own.yaml").returncode == 0


def test_unknown_architecture_names_the_alternatives(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**LLAMA_LIKE, "model_type": "brandnew"}))
    done = effsim("import", config)
    assert done.returncode == 2
    assert "llama" in done.stderr
    assert "operators:" in done.stderr


def test_explicit_operators(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(
        "kind: workload\nname: explicit\ntask: operators\noperators:\n"
        "  - name: block\n    repeat: 4\n    operators:\n"
        "      - {name: up, kind: linear, dimensions: {m: 16, n: 4096, k: 1024, dtype: bf16}}\n"
        "      - {name: act, kind: gelu, dimensions: {rows: 16, cols: 4096, dtype: bf16}}\n"
    )
    result = json.loads(effsim("run", "gpu_h100", file, "--json").stdout)
    assert {row["name"]: row["count"] for row in result["operators"]} == {"block.up": 4, "block.act": 4}
    file.write_text(file.read_text().replace("n: 4096", "nn: 4096"))
    done = effsim("run", "gpu_h100", file)
    assert done.returncode == 2
    assert f"{file}:8:" in done.stderr


def test_kernel_table_keeps_columns_and_scores(tmp_path: Path) -> None:
    table, out = tmp_path / "t.csv", tmp_path / "o.csv"
    table.write_text("kind,m,n,k,dtype,measured_s,note\nlinear,16,4096,4096,bf16,2e-5,mine\nlinear,1,128,128,bf16,,x\n")
    done = effsim("kernels", "gpu_a100", table, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    score = json.loads(done.stdout)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["note"] for row in rows] == ["mine", "x"]
    error = float(rows[0]["predicted_s"]) / 2e-5 - 1
    assert score == {
        "rows": 2,
        "kinds": {
            "linear": {
                "n": 1,
                "median": pytest.approx(abs(error)),
                "mape": pytest.approx(abs(error)),
                "p90": pytest.approx(abs(error)),
                "bias": pytest.approx(error),
                "worst_row": 0,
                "coverage": float(float(rows[0]["predicted_low_s"]) <= 2e-5 <= float(rows[0]["predicted_high_s"])),
                "width": pytest.approx(
                    (float(rows[0]["predicted_high_s"]) - float(rows[0]["predicted_low_s"]))
                    / float(rows[0]["predicted_s"])
                ),
            }
        },
    }
    eager = effsim("kernels", "gpu_a100", table, "--out", out, "--launch", "eager", "--json")
    assert eager.returncode == 0
    with out.open() as file:
        slower = next(csv.DictReader(file))
    assert float(slower["predicted_s"]) > float(rows[0]["predicted_s"]) + 15e-6


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("m,n\n1,2\n", ":1:1"),
        ("kind,m,n,k,dtype\nlinear,1,2\n", ":2:1"),
        ("kind,m,n,k,dtype\nlinear,1,2,3,fp5\n", ":2:1"),
        ("kind,m,n,k,dtype\nlinear,1,2,x,fp16\n", ":2:1"),
        ("kind,m,n,k,dtype\nlinaer,1,2,3,fp16\n", "did you mean 'linear'"),
        ("kind,m,n,k,dtype,measured_s\nlinear,1,2,3,fp16,-1\n", ":2:1"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, where: str) -> None:
    table, out = tmp_path / "t.csv", tmp_path / "o.csv"
    table.write_text(text)
    done = effsim("kernels", "gpu_a100", table, "--out", out)
    assert done.returncode == 2
    assert where in done.stderr
    assert not out.exists()


def test_outputs_do_not_depend_on_the_process() -> None:
    first, second = (effsim("run", "gpu_h100", "llama70b_decode", "--json", "--seed", s).stdout for s in ("0", "1"))
    assert first == second


def test_schema_and_list() -> None:
    schemas = json.loads(effsim("schema").stdout)
    assert {"gpu", "system", "workload", "engine", "architecture"} <= schemas.keys()
    listed = json.loads(effsim("list", "--json").stdout)
    assert {"gpu_a100", "system_dgx_h100"} <= set(listed["hardware"])
    assert "llama70b_decode" in listed["workloads"]
