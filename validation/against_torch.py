"""The comparisons that need PyTorch, each as one result: numerics, counting, timing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effsim.errors import SpecError, UnsupportedError

from .scatter import Point, write_scatter

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES, QUICK_EXAMPLES = 20, 5
"""Random comparisons of each functional model."""


@dataclass(frozen=True, slots=True)
class TorchReport:
    """What was found: the parts by name, and the bounds that are broken."""

    check: str
    parts: dict[str, Any]
    failures: list[str]
    show: Callable[[Console], None]
    page: str
    points: tuple[Point, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"check": self.check, **self.parts, "failures": self.failures}

    def print(self, console: Console) -> None:
        """Tables for people."""
        self.show(console)

    def write(self, path: Path) -> None:
        """Write the page, and beside it the scatter of measured times as SVG; each file is replaced in one step."""
        text = self.page
        if self.points:
            picture = path.with_suffix(".svg")
            write_scatter(self.points, "Predicted against measured, PyTorch on this machine", picture)
            text += f"\n![Predicted against measured times]({picture.name})\n"
        draft = path.with_name(path.name + ".part")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)


def compare(check: str, *, hardware: str = "", quick: bool = False, seed: int = 0) -> TorchReport:
    """Run one comparison.

    Args:
        check: ``numerics`` (functional models, and graphs executed by them), ``counting`` (FLOPs, parameters, saved
            activations) or ``timing`` (operators and models on this machine).
        hardware: for timing, a file of ``effsim calibrate``; empty: calibrate first.
        quick: fewer cases.
        seed: of random cases.

    Raises:
        SpecError: no such comparison.
        UnsupportedError: PyTorch or transformers is not installed.
    """
    runs = {"numerics": _numerics, "counting": _counting, "timing": _timing}
    if check not in runs:
        raise SpecError(f"unknown comparison {check!r}; expected one of {', '.join(runs)}")
    needed = ("torch",) if check == "timing" else ("torch", "transformers")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UnsupportedError(f"validate {check} needs {' and '.join(missing)}: pip install 'effsim[torch]'")
    return runs[check](hardware, quick, seed)


def _numerics(_: str, quick: bool, seed: int) -> TorchReport:
    from .interpreter.report import validate_interpreter
    from .numerics import validate_numerics

    models = validate_numerics(seed, QUICK_EXAMPLES if quick else EXAMPLES)
    graphs = validate_interpreter(seed=seed)

    def show(console: Console) -> None:
        console.print("Functional models against PyTorch in float64", style="bold")
        console.print(models.text(), highlight=False, soft_wrap=True)
        console.print("\nGraphs executed by the functional models against transformers", style="bold")
        console.print(graphs.markdown(), highlight=False, markup=False, soft_wrap=True)

    parts = {"models": models.as_dict(), "graphs": graphs.as_dict()}
    page = (
        "# Functional models against PyTorch\n\nRepeat: `effsim validate numerics --out FILE`.\n\n"
        f"```\n{models.text()}\n```\n\n## Graphs executed by the functional models\n\n{graphs.markdown()}\n"
    )
    return TorchReport("numerics", parts, [*models.failures(), *graphs.failures()], show, page)


def _counting(_: str, quick: bool, seed: int) -> TorchReport:
    from .counting.flops import validate_counting
    from .counting.memory import validate_memory

    counts, memory = validate_counting(fast=quick), validate_memory()

    def show(console: Console) -> None:
        console.print("FLOPs and parameters against transformers and torch.utils.flop_counter", style="bold")
        console.print(counts.markdown(), highlight=False, markup=False, soft_wrap=True)
        console.print("\nSaved activations of a forward and backward pass", style="bold")
        console.print(memory.markdown(), highlight=False, markup=False, soft_wrap=True)

    parts = {"counts": counts.as_dict(), "memory": memory.as_dict()}
    page = (
        "# FLOPs, parameters and saved activations against PyTorch\n\n"
        "Repeat: `effsim validate counting --out FILE`.\n\n"
        f"{counts.markdown()}\n\n## Saved activations\n\n{memory.markdown()}\n"
    )
    return TorchReport("counting", parts, [*counts.failures(), *memory.failures()], show, page)


def _timing(hardware: str, quick: bool, seed: int) -> TorchReport:
    from .timing import validate_timing

    found = validate_timing(hardware or None, quick=quick)
    points = tuple(
        (r.kind if r.group == "operators" else "model", r.name, r.measured_s, r.predicted_s) for r in found.rows
    )
    page = f"# Times against PyTorch\n\nRepeat: `effsim validate timing --out FILE`.\n\n{found.markdown()}\n"
    return TorchReport("timing", {"timing": found.as_dict()}, found.failures(), found.print, page, points)
