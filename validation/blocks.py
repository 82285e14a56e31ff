"""One GPT-3 175B transformer block on four A100, operator by operator.

LLMCompass (Zhang et al., ISCA 2024) timed each operator alone on one of four A100 joined by NVLink. Its two files hold
twelve times in seconds without a header; their order, read from the sizes (the sums are the totals that the paper
gives, 1.11 ms and 66.7 ms): q, k and v projections together, scores, weighted values, output projection, the two
feed-forward matrices, softmax, two layer norms, GELU, two all-reduces.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import effsim
from effsim.errors import DataError

HARDWARE = "system_4xa100"
ORDER = (
    "q, k, v projections",
    "scores",
    "weighted values",
    "output projection",
    "up projection",
    "down projection",
    "softmax",
    "input norm",
    "second norm",
    "GELU",
    "first all-reduce",
    "second all-reduce",
)
NODES = (
    ("q_proj", "k_proj", "v_proj"),
    ("scores",),
    ("values",),
    ("out_proj",),
    ("up_proj",),
    ("down_proj",),
    ("softmax",),
    ("input_norm",),
    ("post_norm",),
    ("activation",),
    ("out_proj_all_reduce",),
    ("down_proj_all_reduce",),
)
"""Operators of the bundled workloads that make up each measured number."""
FILES = {"gpt3_block_decode": "transformerAR_A100.csv", "gpt3_block_prefill": "transformer_A100.csv"}
TOLERANCE = 0.20
"""How far a block's total may be off; the ratchet of the tests."""


@dataclass(frozen=True, slots=True)
class Part:
    """One measured number of a block and its prediction."""

    name: str
    measured_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """Signed relative error."""
        return self.predicted_s / self.measured_s - 1.0


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its parts and, from the event reading, its total."""

    workload: str
    parts: tuple[Part, ...]
    events_s: float

    @property
    def total(self) -> Part:
        """Sum of the parts."""
        return Part("total", sum(p.measured_s for p in self.parts), sum(p.predicted_s for p in self.parts))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        total = self.total
        return {
            "workload": self.workload,
            "measured_s": total.measured_s,
            "predicted_s": total.predicted_s,
            "events_s": self.events_s,
            "error": total.error,
            "parts": [asdict(p) | {"error": p.error} for p in self.parts],
        }


def read_block(path: Path) -> list[float]:
    """The twelve seconds of one file.

    Raises:
        DataError: unreadable, or not twelve positive numbers.
    """
    try:
        values = [float(word) for word in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as one number a line: {error}") from None
    if len(values) != len(ORDER) or min(values) <= 0:
        raise DataError(f"{path}: {len(values)} numbers; expected {len(ORDER)} positive ones")
    return values


def compare_block(workload: str, measured: list[float], hardware: str = HARDWARE) -> Block:
    """Predict the block of *workload* and put it beside *measured* (in :data:`ORDER`)."""
    result = effsim.run(hardware, workload, engine="analytic", sensitivity=False)
    times: dict[str, float] = {}
    for row in result.operators:
        times[row.name] = times.get(row.name, 0.0) + row.time_s
    parts = tuple(
        Part(name, seconds, sum(times.pop(node) for node in nodes))
        for name, seconds, nodes in zip(ORDER, measured, NODES, strict=True)
    )
    if times:
        raise DataError(f"{workload}: operators that were not measured: {', '.join(times)}")
    events = effsim.run(hardware, workload, engine="events", sensitivity=False).time_s
    return Block(workload, parts, events)


def validate_blocks(data: Path) -> tuple[Block, ...]:
    """Both blocks against the files of *data*.

    Raises:
        DataError: a file is missing or not what is expected.
    """
    folder = data / "llmcompass"
    return tuple(compare_block(name, read_block(folder / file)) for name, file in FILES.items())
