"""Everything that is compared, in one result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effsim.errors import DataError, SpecError

from . import collectives, endtoend
from . import energy as energies
from .blocks import Block, validate_blocks
from .collectives import CollectiveScore
from .comparisons import of_blocks, of_collectives, of_energy, of_kernels, of_runs, of_serving, of_training
from .endtoend import EndToEnd, LeftOut
from .energy import EnergyScore
from .kernels import KernelReport, validate_kernels
from .peers import Peers
from .peers import compare as compare_peers
from .peers import present as has_peers
from .record.rows import Row
from .residuals import write_residuals
from .serving import ServingReport, validate_serving
from .tables import data_folder
from .training import TrainingReport, validate_training

CHECKS = ("kernels", "published", "peers")


@dataclass(frozen=True, slots=True)
class Report:
    """Results of the comparisons that were asked for, the others are None; ``rows`` are the measurements compared."""

    kernels: KernelReport | None
    blocks: tuple[Block, ...] | None
    runs: tuple[EndToEnd, ...] | None
    peers: Peers | None = None
    runs_left_out: tuple[LeftOut, ...] = ()
    training: TrainingReport | None = None
    energy: tuple[EnergyScore, ...] = ()
    collectives: tuple[CollectiveScore, ...] = ()
    serving: ServingReport | None = None
    rows: tuple[Row, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; comparisons that were not made are absent."""
        out: dict[str, Any] = {}
        if self.kernels is not None:
            out["kernels"] = {
                "rows": self.kernels.rows,
                "left_out": dict(self.kernels.left_out),
                "groups": [group.as_dict() for group in self.kernels.groups],
            }
        if self.energy:
            out["energy"] = [asdict(one) for one in self.energy]
        if self.blocks is not None:
            out["published"] = {
                "blocks": [block.as_dict() for block in self.blocks],
                "runs": [run.as_dict() for run in self.runs or ()],
                "left_out": [left.as_dict() for left in self.runs_left_out],
            }
            out["published"]["collectives"] = [asdict(one) for one in self.collectives]
            if self.serving is not None:
                out["published"]["serving"] = self.serving.as_dict()
            if self.training is not None:
                out["published"]["training"] = self.training.as_dict()
        if self.peers is not None:
            out["peers"] = self.peers.as_dict()
        return out


def validate(data: Path | None = None, check: str = "", gpu: str = "", residuals: Path | None = None) -> Report:
    """Compare with the measurements of a folder.

    Args:
        data: the folder; default: see :func:`effsim.validation.tables.data_folder`.
        check: ``kernels``, ``published``, ``peers`` (other simulators) or, empty, all.
        gpu: only kernels of this GPU (published results are then left out unless asked for).
        residuals: file to write the intervals' residuals to, fitted anew (:mod:`effsim.validation.residuals`).

    Raises:
        DataError: no measurements, or unreadable ones.
        SpecError: an unknown *check*.
    """
    if check not in ("", *CHECKS):
        raise SpecError(f"unknown comparison {check!r}; expected one of {', '.join(CHECKS)}")
    folder = data_folder(data)
    if check == "peers" and residuals is None:
        return Report(None, None, None, compare_peers(folder))
    if residuals is not None and (gpu or check not in ("", "kernels")):
        raise SpecError("residuals are fitted on the kernels of all GPUs: not with --gpu or another comparison")
    kernels = validate_kernels(folder, gpu, fit_residuals=residuals is not None) if check in ("", "kernels") else None
    if residuals is not None and kernels is not None:
        write_residuals(kernels.residuals, residuals)
    joules = _energy(folder, gpu) if kernels is not None else []
    energy, rows = tuple(energies.score(joules)), [*of_kernels(kernels), *of_energy(joules)]
    if check == "kernels" or (gpu and not check):
        return Report(kernels, None, None, energy=energy, rows=tuple(rows))
    peers = compare_peers(folder) if not check and has_peers(folder) else None
    runs, training = endtoend.outcomes(folder), validate_training(folder)
    others = collectives.predicted(folder / "published.csv") if (folder / "published.csv").is_file() else []
    blocks, serving = validate_blocks(folder), validate_serving(folder)
    rows += [*of_training(training), *of_collectives(others), *of_serving(serving), *of_runs(runs), *of_blocks(blocks)]
    return Report(
        kernels,
        blocks,
        endtoend.scores(runs),
        peers,
        endtoend.left_out(folder),
        training,
        energy,
        collectives.scores(others),
        serving,
        tuple(rows),
    )


def _energy(folder: Path, gpu: str) -> list[energies.EnergyOutcome]:
    """Predicted energies; empty where no row of the tables has watts."""
    try:
        return energies.predicted(folder, gpu)
    except DataError:
        return []
