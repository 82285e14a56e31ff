"""Requests per CPU-second of the DRAM model, beside those of cycle-level simulators.

``python benchmarks/dram.py FOLDER`` reads ``dram_reference.csv`` from FOLDER: what the others did on the same traces.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from effsim.memory.engine import simulate_requests
from effsim.memory.mapping import locate
from effsim.memory.preset import load_preset
from effsim.memory.simulate import simulate_dram
from effsim.memory.traces import make_trace
from effsim.validation.dram import FILE, PRESETS

REPEATS = 7
STREAM_BYTES = 1 << 32
DECODE_BYTES = 140e9
"""Weights of 70e9 parameters of two bytes, read once."""


def reference(folder: Path, kind: str) -> dict[str, tuple[str, float, int]]:
    """By our preset: mapping, requests per CPU-second and length of the reference's longest trace of a kind."""
    found: dict[str, tuple[str, float, int]] = {}
    with (folder / FILE).open(newline="") as stream:
        for row in csv.DictReader(stream):
            preset = PRESETS.get((row["sim"], row["preset"].split("/")[0]))
            plain = row["refresh"] == "on" and row["max_outstanding"] != "1" and row["row_policy"][:4].lower() == "open"
            if preset and plain and row["trace_kind"] == kind:
                known = found.get(preset)
                # Of traces of one length, the one the other is quickest on.
                this = row["mapping"], float(row["req_per_cpu_s"]), int(row["requests"])
                if known is None or (this[2], this[1]) > (known[2], known[1]):
                    found[preset] = this
    return found


def cpu_s(call: Callable[[], object]) -> list[float]:
    """CPU time of every repetition after a first that loads the compiled controller."""
    call()
    spent = []
    for _ in range(REPEATS):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return spent


def line(preset: str, rate: float, requests: int, spent: list[float]) -> str:
    best, middle = requests / min(spent), requests / median(spent)
    return f"{preset:16s} {rate:12,.0f} {best:16,.0f} {middle:16,.0f} {best / rate:7.1f}x {middle / rate:7.1f}x"


def main(folder: Path) -> None:
    for theirs, ours in (("random_read", "random_read"), ("random_mixed_2r1w", "random_mixed")):
        print(f"{ours:16s} {'reference/s':>12s} {'effsim/s best':>16s} {'median':>16s} {'best':>8s} {'median':>8s}")
        for preset, (mapping, rate, requests) in sorted(reference(folder, theirs).items()):
            part = load_preset(preset)
            trace = make_trace(ours, requests, part.access_bytes)
            where = locate(part, mapping, trace.address)
            print(line(preset, rate, requests, cpu_s(partial(simulate_requests, part, where, trace.write))))
    print("streams of 4 GiB")
    for preset, (mapping, rate, _) in sorted(reference(folder, "seq_read").items()):
        requests = STREAM_BYTES // load_preset(preset).access_bytes
        run = partial(simulate_dram, preset, bytes_moved=STREAM_BYTES, mapping=mapping)
        print(line(preset, rate, requests, cpu_s(run)))
    spent = cpu_s(partial(simulate_dram, "hbm2e", bytes_moved=DECODE_BYTES))
    print(f"weights of a decode step of 70e9 parameters: {min(spent):.2f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
