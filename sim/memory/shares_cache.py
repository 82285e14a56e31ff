"""Keeps what parts achieve, so that a run need not simulate DRAM: for bundled parts in a table that comes along, for
others in the user's cache folder.

The table, ``hw_configs/dram/achieved.json``, is written by :func:`write_bundled`; a test simulates parts of it again.
Entries are found by a hash of everything that the shares depend on.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from ..spec.confine import layers
from ..units import parse
from .achieved import CHUNK_BYTES, RUNS, WINDOW_BYTES, Achieved, simulate_shares, with_clock
from .preset import Preset, load_preset

MODEL: Final = 1
"""Raised when the controller model or the patterns change, so that nothing kept from before is used."""
DIGITS: Final = 5
"""Decimals of a share in the table."""


def key_of(part: Preset, refresh: str) -> str:
    """Hash of everything the shares depend on."""
    found = part.keys.get(refresh)
    if found is None:
        found = part.keys[refresh] = _hashed(part, refresh)
    return found


def _hashed(part: Preset, refresh: str) -> str:
    spec = part.spec
    content = {
        "model": [MODEL, CHUNK_BYTES, WINDOW_BYTES, RUNS],
        "refresh": str(spec.refresh.mode) if refresh == "on" else refresh,
        "staggered": bool(spec.refresh.staggered),
        "clock_fs": round(float(spec.clock) * 1e15),
        "organization": {k: int(v) for k, v in spec.organization.model_dump().items()},
        "timing": {k: None if v is None else int(v) for k, v in spec.timing.model_dump().items()},
        "commands": json.loads(spec.commands.model_dump_json()),
        "policy": [str(spec.controller.scheduler), str(spec.controller.page), str(spec.controller.mapping)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


_MEMORY: dict[str, Achieved] = {}


def kept(part: Preset, refresh: str) -> Achieved:
    """Shares of a part, simulated only if nobody did before."""
    key = key_of(part, refresh)
    found = _MEMORY.get(key) or _from_dict(_bundled().get(key)) or _from_file(_cache_folder() / f"{key}.json")
    if found is None:
        found = simulate_shares(part, refresh)
        if layers() is None:  # what others ask for leaves nothing behind
            _write(_cache_folder() / f"{key}.json", asdict(found))
    _MEMORY[key] = found
    return found


@lru_cache(maxsize=1)
def _bundled() -> Mapping[str, Mapping[str, object]]:
    text = (files("effsim.hw_configs") / "dram" / "achieved.json").read_text(encoding="utf-8")
    parts: dict[str, Mapping[str, object]] = json.loads(text)["parts"]
    return parts


def _from_dict(values: object) -> Achieved | None:
    if not isinstance(values, Mapping):
        return None
    try:
        runs = tuple(float(r) for r in values["runs"])
        found = Achieved(
            float(values["read"]), float(values["write"]), float(values["mixed"]), runs, int(values["access_bytes"])
        )
    except (KeyError, TypeError, ValueError):
        return None
    shares = (found.read, found.write, found.mixed, *runs)
    return found if len(runs) == len(RUNS) and all(0.0 < share <= 1.0 for share in shares) else None


def _from_file(path: Path) -> Achieved | None:
    """Shares kept by an earlier process; a missing or damaged file is as good as none."""
    try:
        return _from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _cache_folder() -> Path:
    base = os.environ.get("EFFSIM_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "effsim" / "dram"


def _write(path: Path, values: Mapping[str, object]) -> None:
    """Best effort: where nothing can be written, the next process simulates again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(values, file)
        os.replace(file.name, path)
    except OSError:
        return


def bundled_parts() -> dict[str, tuple[Preset, str]]:
    """Every part that the bundled hardware names, by key: the part and its refresh mode."""
    from ..spec.catalogue import load_document, names

    parts: dict[str, tuple[Preset, str]] = {}
    for name in names("hardware"):
        for where in _named(load_document("hardware", name).root.data):
            clock = where.get("clock")
            clock = clock.get("value") if isinstance(clock, Mapping) else clock
            part = with_clock(load_preset(str(where["preset"])), None if clock is None else parse(str(clock), "time"))
            parts[key_of(part, str(where["refresh"]))] = part, str(where["refresh"])
    return parts


def _named(data: object) -> Iterator[Mapping[str, object]]:
    """Mappings at any depth that name a DRAM part."""
    if not isinstance(data, Mapping):
        return
    if {"preset", "refresh"} <= data.keys():
        yield data
    for value in data.values():
        yield from _named(value)


def write_bundled(path: Path) -> int:
    """Simulate every part that the bundled hardware names and write the table; returns how many."""
    parts: dict[str, object] = {}
    for key, (part, refresh) in bundled_parts().items():
        found = simulate_shares(part, refresh)
        shares = {name: round(getattr(found, name), DIGITS) for name in ("read", "write", "mixed")}
        runs = [round(r, DIGITS) for r in found.runs]
        clock_ps = round(part.clock_s * 1e12, 3)
        names = {"part": part.name, "refresh": refresh, "clock_ps": clock_ps}
        parts[key] = {**names, **shares, "runs": runs, "access_bytes": found.access_bytes}
    text = json.dumps({"model": MODEL, "run_bytes": RUNS, "parts": dict(sorted(parts.items()))}, indent=1)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(file.name, path)
    return len(parts)
