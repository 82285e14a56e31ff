"""SCALE-Sim files: a ``.cfg`` as a systolic-array document, a topology ``.csv`` as a workload document.

Both become the YAML that a user could have written, so ``--set``, validation and origins work as for any file. What
the configuration does not say (clock, vector unit, memory capacity) comes from the bundled ``systolic_scalesim``.
"""

from __future__ import annotations

import configparser
import csv
import json
import re
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..graph.operator import ceil_div
from ..spec.catalogue import load_document, merge
from ..spec.confine import readable
from ..spec.yaml_loader import Document, load_yaml_text

BASE = "systolic_scalesim"
"""Bundled file that a configuration is laid over."""

DTYPE = "int8"
"""A word of the tool is one byte."""

MAX_FILE_BYTES = 4 << 20
MAX_LAYERS = 2_000
_NAME = re.compile(r"[^A-Za-z0-9_.\-]+")
_LONGEST_NAME = 72


def machine_document(path: Path) -> Document:
    """A SCALE-Sim configuration as a hardware document.

    ``Bandwidth`` is the width of the port of results; those of inputs and weights are ``IfmapSRAMBankBandwidth`` and
    ``FilterSRAMBankBandwidth`` of ``[layout]``, as in version 3 of the tool, and ``Bandwidth`` where they are absent.

    Raises:
        DataError: unreadable, a missing or wrong entry, or a feature that has no counterpart (a DRAM trace, a layout).
    """
    config = _Config(path)
    user = config.word("InterfaceBandwidth", ("CALC", "USER")) == "USER"
    for feature in ("UseRamulatorTrace", "IfmapCustomLayout", "FilterCustomLayout"):
        if config.flag(feature):
            raise DataError(f"{path}: {feature} is on; traces of Ramulator and custom layouts cannot be read")
    kib = {operand: f"{config.whole(key)} KiB" for operand, key in _SCRATCHPADS}
    spec: dict[str, Any] = {
        "kind": "systolic",
        "name": config.text("run_name", path.stem)[:120] or path.stem,
        "description": f"SCALE-Sim configuration {path.name}",
        "array": {"rows": config.whole("ArrayHeight"), "columns": config.whole("ArrayWidth")},
        "dataflow": config.word("Dataflow", ("os", "ws", "is")),
        "sram": kib,
        "interface": {"mode": "user" if user else "calc"},
    }
    if user:
        spec["interface"] |= _ports(config)
    if config.flag("SparsitySupport") and config.flag("OptimizedMapping"):
        block = config.whole("BlockSize")
        spec["sparsity"] = {"kept": max(1, block // 2), "block": block}
    base = load_document("hardware", BASE)
    own = load_yaml_text(json.dumps(spec), str(path))
    origins = {**base.origins, own.file: ("datasheet", f"SCALE-Sim configuration {path.name}")}
    return Document(own.file, merge(base.root, own.root), origins)


def _ports(config: _Config) -> dict[str, str]:
    """Widths of the three ports; a word is a byte."""
    width = config.whole("Bandwidth")
    inputs = config.whole("IfmapSRAMBankBandwidth", width)
    weights = config.whole("FilterSRAMBankBandwidth", width)
    return {"input": f"{inputs} B/cycle", "weight": f"{weights} B/cycle", "output": f"{width} B/cycle"}


_SCRATCHPADS = (("input", "IfmapSramSzkB"), ("weight", "FilterSramSzkB"), ("output", "OfmapSramSzkB"))


class _Config:
    """Entries of an INI file by key, whatever their section; errors name the key."""

    def __init__(self, path: Path) -> None:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(_text(path))
        except configparser.Error as error:
            raise DataError(f"{path}: not a configuration file: {str(error).splitlines()[0]}") from None
        self._path = path
        self._entries = {key: value for section in parser.sections() for key, value in parser.items(section)}

    def text(self, key: str, default: str | None = None) -> str:
        value = self._entries.get(key.lower())
        if value is None or not value.strip():
            if default is None:
                raise DataError(f"{self._path}: no entry {key}")
            return default
        return value.strip().strip('"')

    def whole(self, key: str, default: int | None = None) -> int:
        text = self.text(key, None if default is None else str(default)).split(",")[0].strip()
        if not text.isdecimal() or int(text) < 1 or len(text) > 12:
            raise DataError(f"{self._path}: {key} is {text[:40]!r}; expected a whole number of at least 1")
        return int(text)

    def flag(self, key: str) -> bool:
        return self.text(key, "false").lower() == "true"

    def word(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        found = next((choice for choice in choices if choice.lower() == value.lower()), None)
        if found is None:
            raise DataError(f"{self._path}: {key} is {value[:40]!r}; expected {', '.join(choices)}")
        return found


def workload_document(path: Path) -> Document:
    """A SCALE-Sim topology as a workload document: convolutions, or ``name, M, N, K`` products.

    A convolution of square kernel whose stride divides its input stays one; the others become the product that the tool
    makes of them, with ``⌈(H − kernel + stride)/stride⌉`` rows of output. Layers named ``…DP…`` run once a channel. A
    sparsity ratio ``N:M`` leaves ``N`` of every ``M`` rows of the weights.

    Raises:
        DataError: unreadable, no layers, or a row that is no layer (names the line).
    """
    rows = list(csv.reader(_text(path).splitlines()))
    layers: list[dict[str, Any]] = []
    taken: set[str] = set()
    gemm = _is_gemm(rows)
    for line, cells in enumerate(rows[1:], start=2):
        trimmed = [cell.strip() for cell in cells]
        while trimmed and not trimmed[-1]:
            trimmed.pop()
        if not trimmed:
            continue
        where = f"{path}:{line}:1"
        entry = _product(trimmed, where) if gemm else _convolution(trimmed, where)
        layers.append({"name": _unique(trimmed[0], taken), **entry})
    if not layers or len(layers) > MAX_LAYERS:
        raise DataError(f"{path}: {len(layers)} layers; expected 1 to {MAX_LAYERS}")
    spec = {
        "kind": "workload",
        "name": path.stem[:120],
        "description": f"SCALE-Sim topology {path.name}",
        "task": "operators",
        "precision": {"activations": DTYPE},
        "operators": layers,
    }
    own = load_yaml_text(json.dumps(spec), str(path))
    return Document(own.file, own.root, {own.file: ("datasheet", f"SCALE-Sim topology {path.name}")})


def _is_gemm(rows: list[list[str]]) -> bool:
    """Whether the header names M, N, K; without names, whether a row is too short for a convolution."""
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if header[1:4] == ["m", "n", "k"]:
        return True
    widths = [len([cell for cell in row if cell.strip()]) for row in rows[1:] if any(cell.strip() for cell in row)]
    return bool(widths) and max(widths) <= 5


def _numbers(cells: list[str], count: int, where: str) -> list[int]:
    if len(cells) < count + 1:
        raise DataError(f"{where}: {len(cells)} cells; expected a name and {count} numbers")
    for cell in cells[1 : count + 1]:
        if not cell.isdecimal() or int(cell) < 1 or len(cell) > 9:
            raise DataError(f"{where}: {cell[:40]!r}; expected a whole number of at least 1")
    return [int(cell) for cell in cells[1 : count + 1]]


def _ratio(cells: list[str], where: str) -> tuple[int, int]:
    """(kept, block) of a trailing ``N:M`` cell; 1:1 without one."""
    if ":" not in cells[-1]:
        return 1, 1
    kept, _, block = cells[-1].partition(":")
    if not (kept.strip().isdecimal() and block.strip().isdecimal()) or not 0 < int(kept) <= int(block):
        raise DataError(f"{where}: sparsity {cells[-1][:40]!r}; expected N:M with N at most M")
    return int(kept), int(block)


def _kept(k: int, ratio: tuple[int, int]) -> int:
    kept, block = ratio
    return k // block * kept + min(k % block, kept)


def _product(cells: list[str], where: str) -> dict[str, Any]:
    m, n, k = _numbers(cells, 3, where)
    return _linear(m, n, _kept(k, _ratio(cells, where)), 1)


def _linear(m: int, n: int, k: int, repeat: int) -> dict[str, Any]:
    return {"kind": "linear", "repeat": repeat, "dimensions": {"m": m, "n": n, "k": k, "dtype": DTYPE}}


def _convolution(cells: list[str], where: str) -> dict[str, Any]:
    height, width, kernel_h, kernel_w, channels, filters, stride = _numbers(cells, 7, where)
    if kernel_h > height or kernel_w > width:
        raise DataError(f"{where}: the filter is larger than the input")
    ratio = _ratio(cells, where)
    repeat = channels if "DP" in cells[0] else 1
    depth = 1 if repeat > 1 else channels
    rows, columns = ceil_div(height - kernel_h + stride, stride), ceil_div(width - kernel_w + stride, stride)
    square = kernel_h == kernel_w and not (height - kernel_h) % stride and not (width - kernel_w) % stride
    if square and ratio == (1, 1):
        shape = {"batch": 1, "height": height, "width": width, "in_channels": depth, "out_channels": filters}
        shape |= {"kernel": kernel_h, "stride": stride}
        return {"kind": "conv2d", "repeat": repeat, "dimensions": {**shape, "dtype": DTYPE}}
    return _linear(rows * columns, filters, _kept(kernel_h * kernel_w * depth, ratio), repeat)


def _unique(name: str, taken: set[str]) -> str:
    """A name that reports can carry: harmless characters, none twice."""
    base = _NAME.sub("_", name)[:_LONGEST_NAME] or "layer"
    found, number = base, 2
    while found in taken:
        found, number = f"{base}_{number}", number + 1
    taken.add(found)
    return found


def _text(path: Path) -> str:
    try:
        if readable(path).stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
