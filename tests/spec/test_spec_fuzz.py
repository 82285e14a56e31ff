"""Whatever happens to a file, it is read or refused with a position: never another exception, never slowly."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from effsim.errors import SpecError
from effsim.spec.catalogue import load_document
from effsim.spec.fields import SpecModel
from effsim.spec.yaml_loader import Document

MUTATIONS = 200
MAX_SECONDS = 1.0
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, 1e308, 10**25, 10**40, -0.0, float("nan"), float("inf"), "", " ", "x" * 5000,
    "80 gb", "80 GiB", "-3 ns", "1e999 s", "nan", "1_000", "１２", "5 %", "2 TB/s", "1.5 GHz", "\u202e", "null", "~",
    [], {}, [[]], [1, "a"], {"value": 1}, {"value": {"value": 1}}, {"value": "1 s", "kind": "measured", "source": "x"},
    {"value": "1 s", "kind": ["x"]}, {"value": "1 s", "source": 5}, {"kind": "measured"}, {"a": {"b": {"c": []}}},
    "gpu", "system", "hbm3", "../../etc/passwd", "/dev/zero", "gpu.yaml", "child.yaml",
)  # fmt: skip
ODD_TEXTS = (
    "&a ", "*a", "*nowhere", "!!python/object:os.system ", "!x ", "<<: ", "? ", "- ", "[", "]", "{", "}", ": ", "\t",
    "|\n", ">\n", "'", '"', "%YAML 1.1\n", "---\n", "...\n", "#", "\x00", "\x07", "\ufeff", ".nan", "0x", "[" * 100,
    "- " * 100, "a: &a [*a]\n", "9" * 50, "\r", "\u2028", "`", "@", ",", "&a [&a [&a x]]", "é", "😀",
)  # fmt: skip
ODD_BYTES = (b"\xff", b"\xfe\xff", b"\xc3", b"\x80", b"\x00", b"\xed\xa0\x80", b"\xef\xbb\xbf")


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a document but the root's."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, below in items:
        found += _places(below, (*path, key))
    return found


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _mutate_tree(data: Any, rng: random.Random) -> bytes:
    """Rename, remove, replace or nest one value and write the document again."""
    data = copy.deepcopy(data)
    path = rng.choice(_places(data))
    parent, key = _at(data, path[:-1]), path[-1]
    action = rng.choice(("rename", "remove", "replace", "replace", "nest", "add", "swap", "number"))
    if action == "remove":
        del parent[key]
    elif action == "rename" and isinstance(parent, dict):
        spelling = rng.choice(
            (key[:-1], key + "x", key.upper(), key[::-1], "", "kind", "value", "<<", "null", "k" * 300)
        )
        parent[spelling] = parent.pop(key)
    elif action == "nest":
        parent[key] = rng.choice(([parent[key]], {"value": parent[key]}, {key: parent[key]}))
    elif action == "add" and isinstance(parent, dict):
        parent[rng.choice(("extra", "kind", "value", "extends", "provenance", "5", "a.b"))] = rng.choice(ODD_VALUES)
    elif action == "swap":
        parent[key] = copy.deepcopy(_at(data, rng.choice(_places(data))))
    elif action == "number" and isinstance(parent, dict):
        parent[rng.choice((5, 1.5, None, True))] = parent.pop(key)
    else:
        parent[key] = rng.choice(ODD_VALUES)
    # Values may now contain themselves' copies but never themselves, so the dump is finite.
    return str(yaml.dump(data, Dumper=DUMPER, sort_keys=False, allow_unicode=True)).encode("utf-8", "surrogatepass")


def _mutate_text(text: str, rng: random.Random) -> bytes:
    """Damage the text itself: lines, characters, encoding."""
    lines = text.splitlines(keepends=True)
    index = rng.randrange(len(lines))
    cut = rng.randrange(len(text))
    action = rng.choice(
        ("cut", "drop", "double", "indent", "insert", "insert", "bytes", "encode", "delete", "join", "shuffle")
    )
    if action == "cut":
        text = text[:cut]
    elif action == "insert":
        text = text[:cut] + rng.choice(ODD_TEXTS) + text[cut:]
    elif action == "delete":
        text = text[:cut] + text[cut + rng.randint(1, 5) :]
    elif action == "bytes":
        raw = text.encode()
        return raw[:cut] + rng.choice(ODD_BYTES) + raw[cut:]
    elif action == "encode":
        return text.encode(rng.choice(("utf-16", "utf-32", "utf-16-le", "utf-8-sig", "cp037")))
    else:
        edits: dict[str, Callable[[], object]] = {
            "drop": lambda: lines.pop(index),
            "double": lambda: lines.insert(index, lines[index]),
            "indent": lambda: lines.__setitem__(index, " " * rng.randint(1, 9) + lines[index]),
            "join": lambda: lines.__setitem__(index, lines[index].rstrip("\n")),
            "shuffle": lambda: rng.shuffle(lines),
        }
        edits[action]()
        text = "".join(lines)
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", ["gpu.yaml", "system.yaml", "child.yaml"])
def test_damaged_files(name: str, data: Path, tmp_path: Path, read: Callable[[Document], SpecModel]) -> None:
    text = (data / name).read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    (tmp_path / "gpu.yaml").write_text((data / "gpu.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    path = tmp_path / name
    refused = 0
    for seed in range(MUTATIONS):
        rng = random.Random(f"{name}:{seed}")
        content = _mutate_tree(tree, rng) if seed % 2 else _mutate_text(text, rng)
        path.write_bytes(content)
        start = time.process_time()
        problem = _problem(path, read)
        assert time.process_time() - start < MAX_SECONDS, f"seed {seed} is slow"
        assert problem is None or problem.location is not None, f"seed {seed}: {problem} has no position"
        assert problem is None or len(str(problem)) < 1500, f"seed {seed}: {problem} is too long"
        refused += problem is not None
    assert MUTATIONS // 3 < refused < MUTATIONS  # most damage is noticed, and harmless damage is not invented


def _problem(path: Path, read: Callable[[Document], SpecModel]) -> SpecError | None:
    try:
        spec = read(load_document("hardware", str(path)))
    except SpecError as error:
        return error
    assert all(leaf.kind and leaf.source for _, leaf in spec.leaves())
    return None


def test_many_wrong_values_are_told_soon(data: Path, tmp_path: Path, read: Callable[[Document], SpecModel]) -> None:
    text = (data / "gpu.yaml").read_text(encoding="utf-8").replace("[1, 2, 4]", "[" + "x," * 40_000 + "]")
    path = tmp_path / "gpu.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.process_time()
    problem = _problem(path, read)
    assert "kernels.gemm.split_k.0: 'x' does not start with a number" in str(problem)
    assert time.process_time() - start < 5.0
