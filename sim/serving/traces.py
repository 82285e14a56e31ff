"""Recorded loads: the Azure LLM inference trace (CSV), Mooncake (JSONL), results of ``vllm bench serve`` (JSON)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..spec.confine import readable
from .request import Request

MOONCAKE_BLOCK = 512
"""Tokens of a block that a Mooncake hash names."""


def read_trace(path: Path, most: int | None = None) -> tuple[list[Request], int]:
    """Requests of a recorded load in order of arrival, the first at 0, and the tokens its block names stand for (or 0).

    The format is told by the content: a CSV with ``TIMESTAMP, ContextTokens, GeneratedTokens``; JSON lines with
    ``timestamp`` (milliseconds), ``input_length``, ``output_length`` and ``hash_ids``; one JSON object with lists
    ``input_lens``, ``output_lens`` and ``start_times``.

    Raises:
        DataError: unreadable, an unknown format, or a bad line (named).
    """
    try:
        with readable(path).open(encoding="utf-8-sig") as file:
            first = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    rows: Iterator[tuple[float, int, int, tuple[int, ...]]]
    if "ContextTokens" in first:
        rows, block = _azure(path), 0
    elif first.lstrip().startswith("{") and '"hash_ids"' in first:
        rows, block = _mooncake(path), MOONCAKE_BLOCK
    elif first.lstrip().startswith("{"):
        rows, block = _vllm(path), 0
    else:
        raise DataError(
            f"{path}:1:1: an unknown format; expected an Azure CSV, Mooncake JSON lines or a vllm bench result"
        )
    found = sorted(rows, key=lambda row: row[0])[:most]
    if not found:
        raise DataError(f"{path}: holds no requests")
    start = found[0][0]
    return [Request(i, t - start, p, o, blocks=names) for i, (t, p, o, names) in enumerate(found)], block


def _azure(path: Path) -> Iterator[tuple[float, int, int, tuple[int, ...]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                # Seven digits of a second; Python reads six.
                stamp = datetime.fromisoformat(row["TIMESTAMP"].strip()[:26])
                yield stamp.timestamp(), *_whole(row["ContextTokens"], row["GeneratedTokens"]), ()
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(f"{path}:{reader.line_num}:1: not a request: {error}") from None


def _mooncake(path: Path) -> Iterator[tuple[float, int, int, tuple[int, ...]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                names = tuple(int(name) for name in row["hash_ids"])
                yield float(row["timestamp"]) / 1e3, *_whole(row["input_length"], row["output_length"]), names
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path}:{number}:1: not a request: {error}") from None


def _vllm(path: Path) -> Iterator[tuple[float, int, int, tuple[int, ...]]]:
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
        prompts, outputs = held["input_lens"], held["output_lens"]
        starts = held.get("start_times") or [0.0] * len(prompts)
        for start, prompt, output in zip(starts, prompts, outputs, strict=True):
            yield float(start), *_whole(prompt, output), ()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not a result of vllm bench serve: {error}") from None


def _whole(prompt: Any, output: Any) -> tuple[int, int]:
    """Token counts; a request without output still has to be read, which yields one token.

    Raises:
        ValueError: negative, or no numbers.
    """
    new, out = int(prompt), int(output)
    if new < 0 or out < 0:
        raise ValueError(f"{new} and {out} tokens")
    return max(1, new), max(1, out)
