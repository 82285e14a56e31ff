"""The accuracy on record and files of compared measurements: written, read back, and whatever a user uploads."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.errors import DataError
from effsim.validation import guard
from effsim.validation.record import (
    COLUMNS,
    SCHEMA,
    UNITS,
    Row,
    figures,
    load_record,
    load_rows,
    parse_record,
    rows,
)
from effsim.validation.row_files import check_target, write_rows

CHECKOUT = Path(__file__).resolve().parents[2]
SUFFIXES = (".csv", pytest.param(".parquet", marks=pytest.mark.skipif(not find_spec("pyarrow"), reason="no pyarrow")))
HTML = '<script>alert("1")</script> & café'

texts = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
positive = st.floats(1e-12, 1e12)


@st.composite
def compared(draw: st.DrawFn) -> Row:
    ends = draw(st.none() | st.tuples(positive, positive).map(sorted))
    return Row(
        *(draw(texts) for _ in range(5)),
        measured=draw(positive),
        predicted=draw(positive),
        unit=draw(st.sampled_from(UNITS)),
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        fitted=draw(st.sampled_from((True, False, None))),
    )


ROW = Row("kernels", "gpu_a100", "linear", "table, 1", HTML, 1e-5, 1.1e-5, "s", 9e-6, 1.2e-5, False)
FIGURE = {"check": "kernels", "where": "gpu_a100", "what": HTML, "n": 3, "median": 0.1, "p90": 0.2, "bias": -0.1}


def written(tmp_path: Path, **changes: Any) -> Path:
    """A CSV of one row with some cells changed."""
    path = tmp_path / "rows.csv"
    write_rows([ROW], path)
    with path.open(newline="", encoding="utf-8") as file:
        cells = next(csv.DictReader(file)) | changes
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(cells))
        writer.writeheader()
        writer.writerow(cells)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=30, deadline=None)
@given(held=st.lists(compared(), min_size=1, max_size=5))
def test_rows_are_read_back(tmp_path_factory: pytest.TempPathFactory, suffix: str, held: list[Row]) -> None:
    path = tmp_path_factory.mktemp("rows") / f"rows{suffix}"
    write_rows(held, path)
    assert load_rows(path) == tuple(held)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_columns_are_those_that_are_promised(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows([ROW, replace(ROW, low=None, high=None, fitted=None)], path)
    head, first, second = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert tuple(head) == COLUMNS
    assert float(first[head.index("error")]) == pytest.approx(0.1)
    assert [first[head.index(name)] for name in ("label", "fitted")] == [HTML, "false"]
    assert [second[head.index(name)] for name in ("low", "high", "fitted")] == ["", "", ""]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measured": "0"}, "measured is 0"),
        ({"measured": "-1"}, "measured is -1"),
        ({"measured": "nan"}, "measured is nan"),
        ({"measured": ""}, "measured is ''"),
        ({"predicted": "inf"}, "predicted is inf"),
        ({"predicted": "many"}, "predicted is 'many'"),
        ({"error": "0.2"}, "error is 0.2, but predicted / measured − 1 is 0.1"),
        ({"error": ""}, "error is ''"),
        ({"low": ""}, "expected an interval, or neither"),
        ({"low": "1.0"}, "expected an interval"),
        ({"unit": "ms"}, "unit is 'ms'; expected one of s, J"),
        ({"fitted": "maybe"}, "fitted is 'maybe'"),
        ({"check": ""}, "check is empty"),
        ({"label": "x" * 5000}, "5000 characters"),
        ({"what": "a\x00b"}, "printable|NUL"),
        ({"where": "a\nb"}, "printable"),
    ],
)
def test_a_row_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_rows(written(tmp_path, **changes))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column 'check'"),
        (",".join(COLUMNS).encode(), "holds no compared measurements"),
        (",".join((*COLUMNS, "unit")).encode(), "more than one column 'unit'"),
        ((",".join(COLUMNS) + "\na,b").encode(), "row 1: 2 cells under 12"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b'"open', "cannot be read"),
        pytest.param(b"x" * 200_000, "cannot be read|no column", id="long"),
    ],
)
def test_what_is_no_table_of_rows_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_rows(path)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    for name in ("missing.csv", "missing.parquet", "rows.txt"):
        with pytest.raises(DataError, match=name):
            load_rows(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="folder"):
        load_rows(tmp_path / "folder.csv")


def test_more_rows_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_ROWS", 3)
    write_rows([ROW] * 3, tmp_path / "few.csv")
    assert len(load_rows(tmp_path / "few.csv")) == 3
    write_rows([ROW] * 4, tmp_path / "many.csv")
    with pytest.raises(DataError, match="more than 3 rows"):
        load_rows(tmp_path / "many.csv")
    monkeypatch.setattr(rows, "MOST_BYTES", 100)
    with pytest.raises(DataError, match="larger than"):
        load_rows(tmp_path / "few.csv")


def test_parquet_of_other_types_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    plain = {name: [getattr(ROW, name)] for name in COLUMNS}
    pq.write_table(pa.table(plain | {"more": [[{"a": [1]}]]}), path)
    assert load_rows(path) == (ROW,)  # columns that are not asked for are not read
    for wrong in ({"measured": [[1.0]]}, {"label": [3]}, {"label": [None]}, {"fitted": ["x"]}, {"label": [{"a": 1}]}):
        pq.write_table(pa.table(plain | wrong), path)
        with pytest.raises(DataError, match=next(iter(wrong))):
            load_rows(path)
    pq.write_table(pa.table({name: values for name, values in plain.items() if name != "unit"}), path)
    with pytest.raises(DataError, match="no column 'unit'"):
        load_rows(path)
    pq.write_table(pa.table({name: values * 4 for name, values in plain.items()}), path)
    monkeypatch.setattr(rows, "MOST_ROWS", 3)
    with pytest.raises(DataError, match="4 rows"):
        load_rows(path)
    monkeypatch.setattr(rows, "MOST_ROWS", 4)
    monkeypatch.setattr(rows, "MOST_BYTES", path.stat().st_size)
    held = path.read_bytes()
    for broken in (b"PAR1", held[: len(held) // 2], b"PAR1" + held[50:], held[:200] + bytes(100) + held[300:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"rows\.parquet"):
            load_rows(path)


def test_without_pyarrow_only_csv_is_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    for asked in (check_target, load_rows):
        with pytest.raises(DataError, match=r"pip install \"effsim\[parquet\]\""):
            asked(path)
    write_rows([ROW], tmp_path / "rows.csv")
    assert load_rows(tmp_path / "rows.csv") == (ROW,)


# The record.


def text_of(**changes: Any) -> str:
    return json.dumps({"schema": SCHEMA, "figures": [FIGURE | changes]})


def test_an_old_record_has_no_spread_and_a_new_one_has() -> None:
    (old,) = parse_record(text_of())
    assert (old.what, old.n, old.quantiles, old.inside, old.worst) == (HTML, 3, None, None, None)
    spread = [-0.3, -0.3, -0.2, -0.1, 0.0, 0.1, 0.5]
    (new,) = parse_record(text_of(quantiles=spread, inside=0.9, worst=0.5))
    assert (new.quantiles, new.inside, new.worst) == (tuple(spread), 0.9, 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 0},
        {"n": 2.5},
        {"n": True},
        {"n": 10**400},
        {"median": "0.1"},
        {"median": None},
        {"median": -0.1},
        {"p90": math.nan},
        {"bias": -math.inf},
        {"bias": -2},
        {"where": None},
        {"where": ["gpu"]},
        {"what": ""},
        {"what": "\u202e"},
        {"what": "\ud800"},
        {"what": "x" * 10**6},
        {"quantiles": [0.0] * 6},
        {"quantiles": [0.0] * 6 + ["0"]},
        {"quantiles": [0.0] * 6 + [-0.1]},
        {"quantiles": {"5": 0}},
        {"inside": 1.1},
        {"worst": "bad"},
        {"quantile": 3},
    ],
)
def test_a_figure_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"accuracy|figures") as caught:
        parse_record(text_of(**changes), "up.json")
    message = str(caught.value)
    assert message.startswith("up.json")
    assert len(message) < 300
    message.encode()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        "3",
        "[" * 200_000,
        '{"schema": "effsim/accuracy@1", "figures": ' + "9" * 5000 + "}",
        '{"schema": "effsim/accuracy@1", "figures": [1e999]}',
        '{"schema": "effsim/accuracy@1", "figures": [null]}',
        '{"schema": "effsim/accuracy@1", "figures": {}}',
        '{"schema": ["effsim/accuracy@1"], "figures": []}',
        '{"schema": "effsim/accuracy@2", "figures": []}',
        '{"schema": "effsim/accuracy@1", "quantiles_at": [0.5], "figures": []}',
        json.dumps({"schema": SCHEMA, "figures": [FIGURE, FIGURE]}),
    ],
)
def test_json_that_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "up.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"up\.json") as caught:
        load_record(path)
    assert len(str(caught.value)) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(name=st.sampled_from(figures.FIELDS), value=json_values)
def test_any_value_in_any_field_is_read_or_refused(name: str, value: Any) -> None:
    try:
        (found,) = parse_record(text_of(**{name: value}))
    except DataError:
        return
    held = asdict(found)
    assert all(math.isfinite(held[field]) for field in ("n", "median", "p90", "bias"))
    assert held[name] == (tuple(value) if isinstance(value, list) else value)


def test_limits_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no\.json"):
        load_record(tmp_path / "no.json")
    (tmp_path / "up.json").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match=r"up\.json"):
        load_record(tmp_path / "up.json")
    monkeypatch.setattr(figures, "MOST_FIGURES", 0)
    with pytest.raises(DataError, match="at most 0"):
        parse_record(text_of())
    monkeypatch.setattr(figures, "MOST_BYTES", 1)
    with pytest.raises(DataError, match="larger"):
        load_record(tmp_path / "up.json")


def test_the_bundled_record_is_the_one_of_the_book() -> None:
    assert load_record() == load_record(CHECKOUT / "docs" / "accuracy.json")
    assert {figure.check for figure in load_record()} == {"kernels", "energy", "published"}
    assert guard.read_record(CHECKOUT / "docs" / "accuracy.json") == {f.key: f for f in load_record()}


def test_reading_a_record_imports_nothing_heavy() -> None:
    code = (
        "import sys; from effsim.validation.record import load_record; load_record();"
        "bad = {'numpy', 'pydantic', 'pyarrow', 'scipy', 'yaml', 'effsim.devices', 'effsim.spec'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# From a report to rows and figures.
