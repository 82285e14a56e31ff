"""Mutated files run from end to end: a result, or one clear error, never a traceback or a hang."""

from __future__ import annotations

import math
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import effsim
from effsim.spec.catalogue import find, load_document

MUTANTS = 200
SLOWEST_S = 20.0

VALUES: list[Any] = [
    None, True, "no", "", -1, 0, 1, 3, 1e30, -1e-30, 10**18, "80 GB", "80 Gb", "3 parsecs", "-5 ns", "0 B/s",
    "1e400 B/s", "nan", ".nan", "inf GB", [], {}, [1, 2], {"value": 3}, {"value": "1 GHz", "kind": "guess"},
    "1 FLOP/cycle", "7 cycles", "2 %", "fp16", "fp4", "x" * 300, "\u202e", "1 B/s", "1 Hz", "1000 TB/s",
    "999 TiB", 4096, 12288, 7, "auto",
]  # fmt: skip


def _paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    out = [path] if path else []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        out += _paths(child, (*path, key))
    return out


def _mutate(data: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(_paths(data))
        parent: Any = data
        for key in path[:-1]:
            parent = parent[key]
        action = rng.randrange(5)
        if action == 0:
            del parent[path[-1]]
        elif action == 1 and isinstance(parent, dict):
            parent[str(path[-1]) + rng.choice(["x", "_", "s", " "])] = parent.pop(path[-1])
        elif action == 2 and isinstance(parent[path[-1]], int | float | str):
            text = str(parent[path[-1]])
            parent[path[-1]] = re.sub(r"\d+", lambda m: str(int(m[0]) * rng.choice((0, 2, 7, 1000)) // 2), text)
        else:
            parent[path[-1]] = rng.choice(VALUES)
        if not _paths(data):
            return {"kind": "gpu"}
    return data


def _check(hardware: str, workload: str) -> str:
    start = time.monotonic()
    try:
        result = effsim.run(hardware, workload, engine="analytic", sensitivity=False)
    except effsim.DoesNotFitError as error:
        assert "would fit" in str(error) or "no single change" in str(error) or "at most" in str(error)
        return "does not fit"
    except effsim.EffsimError as error:
        assert error.exit_code == 2
        assert re.search(r"\.yaml:\d+:\d+: ", str(error)), str(error)
        return "refused"
    finally:
        assert time.monotonic() - start < SLOWEST_S
    assert result.time_s > 0
    assert math.isfinite(result.time_s)
    result.to_json()
    return "ran"


@pytest.mark.parametrize("block", range(4))
def test_mutated_hardware(tmp_path: Path, block: int) -> None:
    rng = random.Random(f"hardware {block}")
    whole = load_document("hardware", "gpu_a100").data
    whole.pop("extends", None)
    outcomes = []
    for i in range(MUTANTS // 8):
        file = tmp_path / f"h{i}.yaml"
        file.write_text(yaml.safe_dump(_mutate(yaml.safe_load(yaml.safe_dump(whole)), rng)))
        outcomes.append(_check(str(file), "llama70b_decode"))
    assert "refused" in outcomes


@pytest.mark.parametrize("block", range(4))
def test_mutated_workload(tmp_path: Path, block: int) -> None:
    rng = random.Random(f"workload {block}")
    name = "llama70b_decode" if block % 2 else "gpt3_block_decode"
    text = find("workloads", name).read_text()
    outcomes = []
    for i in range(MUTANTS // 8):
        file = tmp_path / f"w{i}.yaml"
        file.write_text(yaml.safe_dump(_mutate(yaml.safe_load(text), rng)))
        outcomes.append(_check("system_4xa100", str(file)))
    assert "refused" in outcomes


def test_mutated_architecture(tmp_path: Path) -> None:
    rng = random.Random("architecture")
    outcomes = []
    for i in range(40):
        name = rng.choice(["llama2_7b", "mixtral_8x7b", "mamba_2_8b", "deepseek_v2_lite", "jamba_v0_1"])
        model = tmp_path / f"m{i}.yaml"
        model.write_text(yaml.safe_dump(_mutate(yaml.safe_load(find("architectures", name).read_text()), rng)))
        file = tmp_path / f"w{i}.yaml"
        file.write_text(f"kind: workload\nname: fuzz\nmodel: {model}\ntask: decode\nprompt: 64\n")
        outcomes.append(_check("gpu_a100", str(file)))
    assert "refused" in outcomes


def test_mutated_text(tmp_path: Path) -> None:
    rng = random.Random("text")
    text = find("hardware", "gpu_a100").read_text()
    for i in range(30):
        raw = bytearray(text.encode())
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(raw))
            raw[at : at + rng.choice((0, 1, 20))] = rng.choice(
                [b"\x00", b"\xff\xfe", b"{", b": : ", b"\t", b"&a *a", b"!!x ", b"- "]
            )
        file = tmp_path / f"t{i}.yaml"
        file.write_bytes(bytes(raw))
        _check(str(file), "llama70b_decode")
