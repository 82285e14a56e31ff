"""``effsim calibrate``: measure this machine and write its hardware file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from .timing import CAREFUL, QUICK, Samples, Timer

if TYPE_CHECKING:
    from .fit import Fit

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Calibration:
    """A written file and the samples behind it."""

    path: Path
    name: str
    samples: tuple[Samples, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: seconds of every benchmark."""
        rows = [
            {
                "benchmark": s.name,
                "n": len(s.seconds),
                "minimum_s": s.minimum,
                "used_s": s.steady,
                "median_s": s.median,
                "floor_spread": s.floor_spread,
                "quartile_spread": s.quartile_spread,
            }
            for s in self.samples
        ]
        return {"file": str(self.path), "name": self.name, "benchmarks": rows}


def calibrate(
    path: Path,
    *,
    device: str = "cpu",
    threads: int = 0,
    quick: bool = False,
    timer: Timer | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Calibration:
    """Measure *device* of this machine and write *path*.

    Args:
        path: the hardware file to write; it replaces what is there, or stays as it was if anything fails.
        device: ``cpu`` or ``cuda``.
        threads: cores to measure with; 0 takes all that this process may use.
        quick: fewer samples and types.
        timer: replaces the clocks (tests).
        progress: wraps the rounds of the measurement.

    Raises:
        DataError: PyTorch or the device is missing, or the file cannot be written.
        NoisyMachineError: times do not repeat.
    """
    from .write import write_checked, yaml_text

    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist")
    today = date.today().isoformat()
    if device == "cuda":
        from .cuda import cuda_document, take_cuda_times

        found = take_cuda_times(QUICK if quick else CAREFUL, timer, progress)
        document, samples = cuda_document(found, today), found.samples
    else:
        from .cpu import DTYPES, QUICK_DTYPES, cpu_document, take_times
        from .machine import discover

        facts = discover()
        if not 0 <= threads <= facts.cores:
            raise DataError(f"{threads} threads asked for; this process may use {facts.cores} cores")
        dtypes = QUICK_DTYPES if quick else DTYPES
        times = take_times(facts, threads or facts.cores, dtypes, QUICK if quick else CAREFUL, timer, progress)
        document, samples = cpu_document(facts, times, today), times.samples
    comment = (
        f"Written by `effsim calibrate` on {today}: what this machine does under PyTorch, not what its makers say."
    )
    write_checked(path, yaml_text(document, comment))
    return Calibration(path, str(document["name"]), samples)


def fit_table(
    hardware: str,
    table: Path,
    parameters: Sequence[str],
    out: Path | None,
    *,
    split: float = 0.5,
    seed: int = 0,
    most_rows: int = 1000,
    launch: str = "graph",
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> Fit:
    """:func:`effsim.explore.calibrate.fit.fit`, and write the file that extends the original, if *out* names one."""
    from ...devices.registry import load_machine
    from .fit import fit
    from .fitted import fitted_document
    from .write import write_checked, yaml_text

    if out is not None and not out.parent.is_dir():
        raise DataError(f"{out}: the folder {out.parent} does not exist")
    if out is not None and out.resolve() == Path(hardware).resolve():
        raise DataError(f"{out}: the fitted file extends {hardware} and cannot replace it")
    result = fit(
        hardware, table, parameters, split=split, seed=seed, most_rows=most_rows, launch=launch, progress=progress
    )
    if out is not None:
        write_checked(out, yaml_text(fitted_document(result, load_machine(hardware).spec), result.source))
    return result
