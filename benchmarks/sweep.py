"""How many points a minute a sweep reads on one core: ``python benchmarks/sweep.py [--points N]``.

CPU time of the whole evaluation (grouping, lowering, rows), without start-up and without writing. Each study is first
evaluated on a few points, so that compiling is not counted; the points that are timed are new. The reference loop is
that of ``benchmarks/run.py``; the target is 100,000 points a minute.
"""

from __future__ import annotations

import argparse
import time
from statistics import mean
from typing import Any

from run import loop_s

from effsim.explore.sweep.evaluate import Evaluator
from effsim.explore.sweep.sampling import Points
from effsim.spec.study import StudySpec

TARGET = 100_000
BANDWIDTH = {"path": "hardware.memory.bandwidth", "range": {"low": "1 TB/s", "high": "8 TB/s", "points": 40}}
CLOCK = {"path": "hardware.clock.sustained", "range": {"low": "1 GHz", "high": "2.5 GHz", "points": 40}}
L2 = {"path": "hardware.l2.latency", "range": {"low": "100 ns", "high": "400 ns", "points": 4}}
LINK = {"path": "hardware.links.nvlink.bandwidth", "range": {"low": "100 GB/s", "high": "1800 GB/s", "points": 40}}
HOP = {"path": "hardware.links.nvlink.latency", "range": {"low": "0.2 us", "high": "5 us", "points": 40}}
BATCH = {"path": "workload.batch", "range": {"low": 1, "high": 64, "points": 64, "integer": True}}
PROMPT = {"path": "workload.prompt", "range": {"low": 128, "high": 4096, "integer": True, "points": 64}}
TENSOR = {"path": "workload.parallelism.tensor", "values": [4, 8]}
ENGINE = {"path": "engine", "values": ["trtllm-like", "vllm-like"]}

STUDIES: tuple[tuple[str, list[dict[str, Any]], str, int], ...] = (
    ("two numbers of the hardware, drawn", [BANDWIDTH, CLOCK], "random", 1),
    ("three numbers of the hardware, drawn", [BANDWIDTH, CLOCK, L2], "random", 1),
    ("a link's bandwidth and latency, drawn", [LINK, HOP], "random", 1),
    ("batch × bandwidth × clock, grid", [BATCH, BANDWIDTH, CLOCK], "grid", 1),
    ("batch and context, drawn", [BATCH, PROMPT], "random", 1),
    ("tensor × batch × context, drawn", [TENSOR, BATCH, PROMPT], "random", 1),
    ("batch × engine, grid", [BATCH, ENGINE], "grid", 40),
)


def study(parameters: list[dict[str, Any]], method: str, samples: int) -> StudySpec:
    """A 70B decode on H100."""
    fields = {"kind": "study", "name": "speed", "hardware": "gpu_h100", "workload": "llama3_70b_decode"}
    fields |= {"objectives": [{"name": "time_s", "goal": "min"}], "parameters": parameters, "method": method}
    return StudySpec.model_validate(fields | ({} if method == "grid" else {"samples": samples}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=8192, help="points of each study")
    wanted = parser.parse_args().points
    print("| study | points | CPU a point | × reference loop | points a minute and core | target met |")
    print("|---|---|---|---|---|---|")
    for name, parameters, method, slower in STUDIES:
        count = max(64, wanted // slower)
        made = study(parameters, method, count + 64)
        evaluator, points = Evaluator(made, "."), Points(made, 0)
        evaluator.rows(points.take(points.count - 64, points.count))
        units, cpu = [loop_s()], 0.0
        for start in range(0, count, 2048):
            chunk = points.take(start, min(start + 2048, count))
            begin = time.process_time()
            rows = evaluator.rows(chunk)
            cpu += time.process_time() - begin
            units.append(loop_s())
            if any(row["status"] != "ok" for row in rows):
                raise SystemExit(f"{name}: {next(row['message'] for row in rows if row['status'] != 'ok')}")
        rate = 60.0 * count / cpu
        met = "yes" if rate >= TARGET else "**no**"
        each = cpu / count
        print(f"| {name} | {count:,} | {each * 1e6:,.0f} µs | {each / mean(units):.3g} | {rate:,.0f} | {met} |")


if __name__ == "__main__":
    main()
