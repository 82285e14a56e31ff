"""What the accuracy page selects and says: figures of the record, their targets, and rows that a visitor gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import DataError
from ..validation.record import Figure, Row, load_record, load_rows
from .service import Memo, Service
from .shelf import Shelf, Upload, clean_label
from .view import View

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHECKS: Final = {
    "kernels": "single kernels, and collectives, on GPUs",
    "energy": "energy of kernels",
    "published": "whole runs, training, servers and collectives that others published",
}
SECTION: Final = "tables"
ENDINGS: Final = (".csv", ".parquet")
MOST_SHOWN: Final = 200_000
"""Rows of a file that are looked at here; the command line takes more."""
_KEPT: Final = 3
_EVERYWHERE: Final = "all, all"
_TABLES: Final = Memo(_KEPT)
_STATIC: Final = (", generate", ", prefill", ", decode")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the page shows: one check, of it these places and kinds (empty: all), rows that were uploaded, and below a
    hardware file with the kinds of numbers and the words that are looked for.
    """

    check: str = "kernels"
    where: tuple[str, ...] = ()
    what: tuple[str, ...] = ()
    rows: str = ""
    hardware: str = "gpu_h100"
    kinds: tuple[str, ...] = ()
    find: str = ""

    @classmethod
    def of(cls, view: View) -> Chosen:
        """What a view says; a check that there is none of is the first."""
        check = view.one("check", "kernels")
        return cls(
            check if check in CHECKS else "kernels",
            view.many("gpu"),
            view.many("kind"),
            view.one("rows"),
            view.one("hardware", "gpu_h100"),
            view.many("origin"),
            view.one("find"),
        )

    @property
    def view(self) -> View:
        """The fields of the address."""
        return View.of(
            check=self.check,
            gpu=self.where,
            kind=self.what,
            rows=self.rows,
            hardware=self.hardware,
            origin=self.kinds,
            find=self.find,
        )

    def takes(self, check: str, where: str, what: str) -> bool:
        """Whether a figure or a row belongs to the selection."""
        mine = check == self.check and (not self.where or where in self.where)
        return mine and (not self.what or what in self.what)


@lru_cache(maxsize=1)
def record() -> tuple[Figure, ...]:
    """The bundled record, without the sums of all sources, which would count their rows twice."""
    return tuple(figure for figure in load_record() if figure.where != _EVERYWHERE)


def selected(chosen: Chosen) -> list[Figure]:
    """Figures of the selection, the largest median first."""
    found = [figure for figure in record() if chosen.takes(figure.check, figure.where, figure.what)]
    return sorted(found, key=lambda figure: -figure.median)


def offered(check: str) -> tuple[list[str], list[str]]:
    """Places and kinds that a check has figures of."""
    mine = [figure for figure in record() if figure.check == check]
    return sorted({figure.where for figure in mine}), sorted({figure.what for figure in mine})


def target(figure: Figure) -> float | None:
    """The limit that the median of a figure is held to (those of ``docs/accuracy.md``); None where there is none."""
    from ..validation import targets
    from ..validation.serving import TARGETS as SERVING_TARGETS

    if figure.check == "kernels":
        found = targets.target_of(figure.what)
        return None if found is None else found.given if figure.where in targets.GIVEN else found.elsewhere
    if figure.check == "energy":
        return targets.ENERGY_TARGET if (figure.where, figure.what) == ("gpu_h200", "linear bfloat16") else None
    if figure.what.startswith("training "):
        return targets.TRAINING_TARGET
    if figure.what.startswith("serving, "):
        return SERVING_TARGETS.get(figure.what.removeprefix("serving, "))
    if figure.what.endswith(_STATIC):
        known = any(figure.where.endswith(gpu.removeprefix("gpu_")) for gpu in targets.GIVEN)
        return targets.STATIC_TARGET if known else targets.STATIC_ELSEWHERE
    return None


# --- rows


@dataclass(frozen=True, slots=True)
class Rows:
    """Compared measurements as columns: texts as places in *words*, numbers in the unit of the row."""

    words: tuple[str, ...]
    texts: dict[str, NDArray[Any]]
    measured: NDArray[Any]
    predicted: NDArray[Any]
    fitted: NDArray[Any]
    labels: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.measured)

    @property
    def error(self) -> NDArray[Any]:
        """predicted / measured − 1."""
        found: NDArray[Any] = self.predicted / self.measured - 1.0
        return found

    def of(self, name: str) -> list[str]:
        """A column of texts."""
        return [self.words[place] for place in self.texts[name]]

    def where(self, mask: NDArray[Any]) -> Rows:
        """The rows that *mask* (n, bool) names."""
        texts = {name: column[mask] for name, column in self.texts.items()}
        labels = tuple(label for label, kept in zip(self.labels, mask, strict=True) if kept)
        return Rows(self.words, texts, self.measured[mask], self.predicted[mask], self.fitted[mask], labels)


FITTED: Final = {1: "interval fitted on this row", 0: "not fitted on", -1: "not known"}
_TEXTS: Final = ("check", "where", "what", "unit")


def _columns(rows: Sequence[Row]) -> Rows:
    import numpy as np

    words = {word: place for place, word in enumerate(dict.fromkeys(getattr(r, n) for r in rows for n in _TEXTS))}
    texts = {name: np.array([words[getattr(row, name)] for row in rows], dtype=np.int32) for name in _TEXTS}
    measured = np.array([row.measured for row in rows])
    predicted = np.array([row.predicted for row in rows])
    fitted = np.array([-1 if row.fitted is None else int(row.fitted) for row in rows], dtype=np.int8)
    return Rows(tuple(words), texts, measured, predicted, fitted, tuple(row.label for row in rows))


def receive_rows(shelf: Shelf, name: str, content: bytes) -> Upload:
    """Check a file that ``effsim validate --rows`` wrote, and keep it.

    Raises:
        DataError: too large, too many rows, or not such a file.
    """
    label = clean_label(name)
    if not label.lower().endswith(ENDINGS):
        raise DataError(f"{label}: expected the .csv or .parquet file that effsim validate --rows FILE wrote")
    if content.startswith(b"PAR1") is not label.lower().endswith(".parquet"):
        raise DataError(f"{label}: its content is not what its name says")
    kept = shelf.add(SECTION, label, content)
    try:
        _read(kept)
    except BaseException:
        shelf.discard(kept.token)
        raise
    return kept


def rows_of(service: Service, chosen: Chosen) -> Rows | None:
    """Uploaded rows of the selection, or None where none were uploaded.

    Raises:
        DataError: the upload is gone.
    """
    if not chosen.rows:
        return None
    import numpy as np

    kept = service.shelf.upload(chosen.rows)
    if kept is None or kept.section != SECTION:
        raise DataError("these rows are no longer here; upload the file again")
    rows = _read(kept)
    key = [rows.texts[name] for name in _TEXTS[:3]]
    groups, place = np.unique(np.stack(key), axis=1, return_inverse=True)
    takes = [chosen.takes(*(rows.words[index] for index in group)) for group in groups.T]
    return rows.where(np.array(takes, dtype=bool)[place.reshape(-1)])


def _read(kept: Upload) -> Rows:
    def make() -> Rows:
        _count(kept.path)
        return _columns(load_rows(kept.path))

    found: Rows = _TABLES.get(kept.token, make)
    return found


def _count(path: Path) -> None:
    """Refuse many rows before they take memory.

    Raises:
        DataError: more than :data:`MOST_SHOWN`, or unreadable.
    """
    if path.suffix == ".csv":
        with path.open("rb") as file:
            found = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    else:
        try:
            import pyarrow.parquet as pq

            found = pq.ParquetFile(path).metadata.num_rows
        except ImportError:
            return  # load_rows says what is missing
        except Exception as error:  # of pyarrow, which raises of many kinds for broken files
            raise DataError(f"{path}: cannot be read as Parquet: {str(error)[:200]}") from None
    if found > MOST_SHOWN + 1:
        raise DataError(f"{path}: {found:,} rows; at most {MOST_SHOWN:,} are shown here")


def counts(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, most often first."""
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
