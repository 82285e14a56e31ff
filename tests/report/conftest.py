"""Runs that the report tests share: one of each task, small enough for a second each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from report_runs import TASKS

from effsim._api import FullRun, run_full


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FullRun]:
    """``full(task, engine="events", name=task)``: a run with its machine and program."""
    folder: Path = tmp_path_factory.mktemp("workloads")

    @cache
    def make(task: str, engine: str = "events", name: str = "") -> FullRun:
        file = folder / f"{task}.{len(list(folder.iterdir()))}.yaml"
        quoted = (name or task).replace("'", "''")
        file.write_text(f"kind: workload\nname: '{quoted}'\n{TASKS[task]}", encoding="utf-8")
        return run_full("system_dgx_a100", str(file), engine=engine)

    return make


@pytest.fixture(scope="session")
def bundled() -> FullRun:
    """The bundled example, which is sharded automatically."""
    return run_full("gpu_a100", "llama70b_decode")
