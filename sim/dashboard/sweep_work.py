"""From a choice to points: what a study will do, the work that evaluates it, tables that were opened."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import math
from pathlib import Path
from typing import Any, Final

import yaml

from ..errors import DataError
from ..explore.sweep.sampling import choices
from ..explore.sweep.store import arrow, finished
from ..explore.sweep.sweep import SweepResult
from ..spec.build import build
from ..spec.catalogue import load_document
from ..spec.study import ParameterSpec, StudySpec
from .exports import CHANGED
from .jobs import Job
from .service import Memo, Service
from .sweep_points import Points
from .sweep_tables import MOST_POINTS, Opened, open_table

STUDY: Final = "study:"
TABLE: Final = "table:"
"""How a source of points starts; the choice of the shelf follows."""
_held: Final = Memo(16)
_POINTS: Final = 2**14
"""Points for which a table in memory counts as one more."""
_FORMULA: Final = ("=", "+", "-", "@", "\t")


def study_of(service: Service, choice: str) -> StudySpec:
    """The study of a choice.

    Raises:
        EffsimError: it is unknown or wrong.
    """
    with service.confined():
        document = load_document("studies", service.shelf.argument("studies", choice))
        return build(StudySpec, document, root="study")


def count(study: StudySpec) -> int:
    """How many points a study has; counted, not drawn.

    Raises:
        DataError: more than the dashboard evaluates.
    """
    if study.method != "grid":
        total = int(study.samples or 0)
    else:
        total = math.prod(_most(parameter) for parameter in study.parameters)
        if total <= MOST_POINTS:
            total = math.prod(len(choices(p)) for p in study.parameters)
    if total > MOST_POINTS:
        raise DataError(
            f"{total:,} points; the dashboard evaluates at most {MOST_POINTS:,}. effsim sweep takes more: open its "
            "points.parquet here, or take fewer samples"
        )
    return total


def _most(parameter: ParameterSpec) -> int:
    """Values of a parameter on a grid, those that are equal after rounding counted apart."""
    if parameter.range is not None:
        return parameter.range.points or 1
    return len(parameter.values or [])


def request(service: Service, choice: str) -> dict[str, str]:
    """What the work is asked: the same for the same choice, so that a study that ran is found again."""
    argument = service.shelf.argument("studies", choice)
    folder = f"sweep-{hashlib.sha256(argument.encode()).hexdigest()[:24]}"
    root = service.shelf.folder
    return {"study": argument, "out": str(root / folder), "root": str(root)}


def job_of(service: Service, choice: str) -> Job | None:
    """The work on a study, if it was started."""
    return service.jobs.find("sweep", request(service, choice))


def start(service: Service, choice: str) -> Job:
    """Start, or continue, the work on a study.

    Raises:
        DataError: the study has too many points, or too much is waiting.
    """
    arrow()
    count(study_of(service, choice))
    return service.jobs.start("sweep", request(service, choice))


def points_done(service: Service, choice: str) -> int:
    """Points of a study that are kept."""
    return finished(Path(request(service, choice)["out"]))


def points_of(service: Service, source: Any) -> Points:
    """The points of a source.

    Raises:
        EffsimError: there are none.
    """
    text = str(source)
    if text.startswith(TABLE):
        token = text.removeprefix(TABLE)
        service.shelf.argument("tables", token)  # still here?
        key = (str(service.shelf.folder), text)
        return _held.get(key, lambda: Points.of(open_table(service.shelf, token)), _weight)
    job = job_of(service, text.removeprefix(STUDY))
    if job is None or job.state != "done" or not isinstance(job.result, SweepResult):
        raise DataError("this study has not run here yet; press Run")
    result = job.result
    return _held.get((str(service.shelf.folder), job.key), lambda: Points.of(Opened(result, True)), _weight)


def _weight(points: Points) -> int:
    return 1 + len(points.result.table) // _POINTS


# --- to take away -----------------------------------------------------------------------------------------------------


def command(service: Service, points: Points, source: str) -> str:
    """The command line that evaluates the same points."""
    import shlex

    choice = source.removeprefix(STUDY)
    name = service.shelf.label(choice) if source.startswith(STUDY) else "study.yaml"
    stem = name.removesuffix(".yaml").removesuffix(".yml").replace(" ", "_")
    parts = ["effsim", "sweep", name, "--out", f"sweep_{stem}"]
    if points.result.seed != int(points.study.seed):
        parts += ["--seed", str(points.result.seed)]
    return shlex.join(parts)


def saved(service: Service, source: str, what: str) -> dict[str, Any]:
    """The file that a button saves.

    Raises:
        EffsimError: there is none.
    """
    points = points_of(service, source)
    if what == "parquet":
        return {
            "content": base64.b64encode(parquet(service, points, source)).decode(),
            "filename": "points.parquet",
            "base64": True,
            "type": "application/vnd.apache.parquet",
        }
    if what == "csv":
        return {"content": as_csv(points), "filename": "points.csv", "type": "text/csv"}
    if what == "html":
        from ..report.sweep_page import sweep_page

        return {"content": sweep_page(points.result), "filename": "sweep.html", "type": "text/html"}
    if what == "yaml":
        return {"content": study_yaml(service, points, source), "filename": "study.yaml", "type": "text/plain"}
    raise DataError("nothing is saved under this name")


def parquet(service: Service, points: Points, source: str) -> bytes:
    """The file of points, as it was written or opened."""
    if source.startswith(TABLE):
        return Path(service.shelf.argument("tables", source.removeprefix(TABLE))).read_bytes()
    try:
        return (points.result.folder / "points.parquet").read_bytes()
    except OSError as error:
        raise DataError("the file of points is no longer here; run the study again") from error


def as_csv(points: Points) -> str:
    """All points, a row each, in the columns of the Parquet file."""
    table = points.result.table
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(table.column_names)
    columns = [table[name].to_pylist() for name in table.column_names]
    for row in zip(*columns, strict=True):
        writer.writerow([f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA) else v for v in row])
    return held.getvalue()


def study_yaml(service: Service, points: Points, source: str) -> str:
    """The study as it was written, or as the points' file holds it.

    Raises:
        DataError: that file names no study.
    """
    if source.startswith(STUDY):
        return service.shelf.text("studies", source.removeprefix(STUDY))
    if not points.opened.known:
        raise DataError("the file does not say which study its points are of")
    data = points.study.model_dump(mode="json", exclude_unset=False, exclude_none=True)
    data = {key: value for key, value in data.items() if value not in ([], "") and key != "fleet"}
    fleet = int(points.study.fleet.replicas)
    data |= {"fleet": {"replicas": {"value": fleet} | CHANGED}} if fleet != 1 else {}
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    build(StudySpec, _document(text), root="study")
    return text


def _document(text: str) -> Any:
    from ..spec.yaml_loader import load_yaml_text

    return load_yaml_text(text, "study.yaml")
