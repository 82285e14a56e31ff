"""The sweep page: what it shows is what the command line writes, and a point's link is the point's run."""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dash import Patch
from dash.exceptions import PreventUpdate
from dashboard_browser import Browser, text
from hypothesis import given, settings
from hypothesis import strategies as st

import effsim
from effsim.dashboard import sweep_drawing, sweep_figures, sweep_heat, sweep_parts, sweep_work, uploads
from effsim.dashboard.jobs import Job, key_of
from effsim.dashboard.pages import sweep as page
from effsim.dashboard.service import Asked, Service
from effsim.dashboard.sweep_points import Points, full_run
from effsim.dashboard.sweep_tables import MOST_POINTS, Opened, read_table
from effsim.dashboard.sweep_view import Chosen, Controls, in_polygon
from effsim.dashboard.view import View
from effsim.dashboard.work import WORK
from effsim.errors import DataError, EffsimError, UnknownNameError
from effsim.explore.sweep.sampling import choices, in_range
from effsim.explore.sweep.store import MARK
from effsim.spec.study import ParameterSpec, RangeSpec

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

STUDY = {
    "kind": "study",
    "name": "Small <b>study</b>",
    "hardware": "gpu_a100",
    "workload": "llama3_8b_decode",
    "set": ["workload.generate=16"],
    "parameters": [
        {"path": "hardware.memory.bandwidth", "range": {"low": "1 TB/s", "high": "7.3 TB/s", "scale": "log"}},
        {"path": "workload.batch", "range": {"low": 1, "high": 4096, "scale": "log", "integer": True}},
        {"path": "workload.precision.weights", "values": ["bf16", "fp8"]},
    ],
    "method": "random",
    "samples": 40,
    "seed": 3,
    "constraints": ["memory.fits", "time_per_token_s <= 30 ms"],
    "objectives": [{"name": "tokens_per_s", "goal": "max"}, {"name": "time_per_token_s", "goal": "min"}],
}
FILES = {
    "kind": "study",
    "name": "Which machine",
    "hardware": "gpu_h100",
    "workload": "llama3_8b_decode",
    "reading": "roofline",
    "parameters": [
        {"path": "hardware", "values": ["gpu_a100", "gpu_h200"]},
        {"path": "workload", "values": ["llama3_8b_decode", "llama3_8b_prefill"]},
        {"path": "engine", "values": ["cuda-graph"]},
    ],
    "objectives": [{"name": "time_s", "goal": "min"}],
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return effsim.sweep(STUDY, out=tmp_path_factory.mktemp("sweep") / "points")


@pytest.fixture(scope="module")
def points(swept: Any) -> Points:
    return Points.of(Opened(swept, True))


def parquet(table: Any) -> bytes:
    held = io.BytesIO()
    pq.write_table(table, held)
    return held.getvalue()


def agree(service: Service, points: Points, place: int) -> bool:
    """Whether the run behind a point has its numbers; False if the point does not run, and neither does that."""
    row = points.row(place)
    query, why = full_run(service.shelf, points, row)
    assert query, why
    asked = Asked.of(View.parse(query))
    if row["status"] != "ok":
        with pytest.raises(EffsimError):
            service.run(asked)
        return False
    found = service.run(asked, sensitivity=False).to_dict()
    for name, column in (
        ("time_s", "time_s"),
        ("roofline_s", "roofline_s"),
        ("energy_j", "energy_j"),
        ("flops", "flops"),
    ):
        assert found[name] == pytest.approx(row[column], rel=1e-9)
    assert found["cost_usd"] == pytest.approx(row["cost_usd"], rel=1e-9)
    assert next(iter(found["bound"])) == row["bound"]
    return True


def test_the_full_run_of_a_point_is_the_point(service: Service, points: Points) -> None:
    assert sum(agree(service, points, place) for place in range(0, 40, 5)) > 2


def test_files_that_vary_are_in_the_link(service: Service, tmp_path: Path) -> None:
    files = Points.of(Opened(effsim.sweep(FILES, out=tmp_path / "points"), True))
    assert all(agree(service, files, place) for place in range(len(files.ok)))


def test_a_link_is_refused_with_a_reason(service: Service, swept: Any, points: Points) -> None:
    row = points.row(0)
    assert full_run(service.shelf, Points.of(Opened(swept, False)), row)[0] == ""
    elsewhere = swept.study.model_copy(update={"hardware": "../../etc/passwd"})
    changed = Points.of(
        Opened(type(swept)(**{n: getattr(swept, n) for n in swept.__slots__} | {"study": elsewhere}), True)
    )
    query, why = full_run(service.shelf, changed, row)
    assert (query, "neither bundled nor uploaded" in why) == ("", True)
    assert full_run(service.shelf, points, row | {"workload.precision.weights": "int4"})[0] == ""


@settings(max_examples=30)
@given(st.floats(0.0, 1.0), st.sampled_from(["TB/s", "GB/s", "GiB/s"]), st.floats(1.0, 50.0))
def test_the_text_of_a_value_gives_the_value_again(share: float, unit: str, low: float) -> None:
    from effsim.dashboard.sweep_points import assigned
    from effsim.explore.sweep.sampling import quantity

    given_ = RangeSpec(low=f"{low} {unit}", high=f"{2 * low + 1} {unit}", scale="log", points=5, integer=False)
    parameter = ParameterSpec(path="hardware.memory.bandwidth", values=None, range=given_)
    stored = in_range(given_, share).value
    assert quantity(assigned(parameter, stored)) == pytest.approx(stored, rel=1e-15)
    for made in choices(parameter):
        assert quantity(assigned(parameter, made.value)) == pytest.approx(made.value, rel=1e-15)


# --- figures show the table -------------------------------------------------------------------------------------------


def test_the_figure_shows_the_rows_and_the_front_of_the_command_line(swept: Any, points: Points) -> None:
    controls = Controls.of(points, View.of(x="tokens_per_s", y="time_per_token_s"))
    figure = sweep_figures.scatter(points, controls, Chosen())
    drawn = [number for trace in figure["data"][:-1] for number in trace["customdata"]]
    ok = [row["index"] for row in swept.table.to_pylist() if row["status"] == "ok"]
    assert sorted(drawn) == ok
    assert sorted(figure["data"][-1]["customdata"]) == [row["index"] for row in swept.pareto]
    assert figure["data"][-1]["line"]["shape"] == "vh"  # more tokens are better


def test_a_name_is_escaped_where_figures_read_html(service: Service, points: Points) -> None:
    assert sweep_drawing.escaped("<b>x</b>") == "&lt;b&gt;x&lt;/b&gt;"
    assert "Small <b>study</b>" in text(
        sweep_parts.report(service, points, "table:x", Controls.of(points, View()), Chosen())
    )


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5) | st.just(float("nan"))), max_size=30),
    st.sampled_from(["min", "max"]),
)
def test_cells_against_their_definition(pairs: list[tuple[int, float]], goal: str) -> None:
    cell = np.array([c for c, _ in pairs], dtype=np.int64)
    values = np.array([v for _, v in pairs], dtype=np.float64)
    best, median = (sweep_heat.summarised(values, cell, 4, how, goal) for how in ("best", "median"))
    for c in range(4):
        known = [v for k, v in pairs if k == c and v == v]
        if not known:
            assert np.isnan(best[c])
            assert np.isnan(median[c])
        else:
            assert best[c] == (min(known) if goal == "min" else max(known))
            assert median[c] == pytest.approx(np.median(known))


def test_the_heat_map_counts_what_is_selected(points: Points) -> None:
    controls = Controls.of(points, View.of(how="count", heat_x="workload.batch", heat_y="workload.precision.weights"))
    chosen = Chosen.parse({"source": "parallel", "ranges": {"workload.batch": [[0.0, 2.0]]}})  # 1 to 100
    mask = chosen.mask(points)
    small = [r["status"] == "ok" and r["workload.batch"] <= 100 for r in points.result.table.to_pylist()]
    assert mask.tolist() == small
    counted = sweep_heat.heat(points, controls, mask)["data"][0]["customdata"]
    assert sum(map(sum, counted)) == sum(small) > 0


@pytest.mark.parametrize("high", [1e-9, 1.0, 1e9])
def test_cells_have_names_of_their_own(points: Points, high: float) -> None:
    from effsim.dashboard.sweep_points import Column

    column = Column("x", "", 1.0, 1e3 + high * np.linspace(0, 1, 40))
    codes, names = sweep_heat.cells_of(column, np.ones(40, dtype=bool))
    assert len({*names}) == len(names) == codes.max() + 1


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_a_rectangle_drawn_as_a_lasso_selects_what_a_box_does(drawn: list[tuple[float, float]]) -> None:
    x, y = np.array([p[0] for p in drawn]), np.array([p[1] for p in drawn])
    xs, ys = np.array([0.21, 0.83, 0.83, 0.21]), np.array([0.13, 0.13, 0.77, 0.77])
    inside = (x > 0.21) & (x < 0.83) & (y > 0.13) & (y < 0.77)
    edge = np.isin(x, xs) | np.isin(y, ys)
    assert (in_polygon(x, y, xs, ys) == inside)[~edge].all()


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["source", "ranges", "boxes", "lassos", "x", "log"]), inner, max_size=4), max_leaves=12)  # fmt: skip


@settings(max_examples=25)
@given(JSON, st.sampled_from(["scatter", "parallel", "", None]))
def test_any_request_is_answered(points: Points, data: Any, source: Any) -> None:
    asked = data | {"source": source} if isinstance(data, dict) else data
    chosen = Chosen.parse(asked)
    assert len(chosen.mask(points)) == 40
    assert Chosen.parse(json.loads(chosen.revision)) == chosen
    controls = Controls.of(points, View()).checked(points, x=data, log=data, point=data, how=data)
    sweep_figures.scatter(points, controls, chosen)


def test_a_selection_marks_the_other_figures(service: Service, points: Points) -> None:
    controls = Controls.of(points, View())
    ranges = Chosen.parse({"source": "parallel", "ranges": {"workload.batch": [[0.0, 2.0]]}})
    _, table, words, marks, _ = page.selected(service, points, controls, ranges, True)
    assert isinstance(marks, Patch)
    assert f"{ranges.mask(points).sum()} of" in words
    assert text(table).count("the full run of point") == ranges.mask(points).sum()


def test_an_interaction_with_ten_thousand_points_is_quick(service: Service, swept: Any) -> None:
    many = pa.concat_tables([swept.table] * 250)
    many = many.set_column(0, "index", pa.array(range(many.num_rows)))
    found = Points.of(Opened(effsim_findings(swept, many), True))
    controls = Controls.of(found, View())
    chosen = Chosen.parse({"source": "scatter", "x": controls.x, "y": controls.y, "boxes": [[0, 1e9, 0, 1e9]]})
    page.selected(service, found, controls, chosen, True)
    start = time.process_time()
    page.selected(service, found, controls, chosen, True)
    sweep_figures.scatter(found, controls, chosen)
    assert time.process_time() - start < 0.4  # both together; about 0.05 on an idle machine


def effsim_findings(swept: Any, table: Any) -> Any:
    from effsim.explore.sweep.sweep import findings

    return findings(swept.study, swept.seed, swept.folder, table)


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_file_of_the_command_line_opens_with_its_study(service: Service, swept: Any) -> None:
    content = (swept.folder / "points.parquet").read_bytes()
    kept = uploads.receive(service.shelf, "tables", "../points.parquet", content)
    opened = sweep_work.points_of(service, f"table:{kept.token}")
    assert opened.opened.known
    assert opened.study == swept.study
    assert opened.result.as_dict() | {"out": ""} == swept.as_dict() | {"out": ""}
    assert agree(service, opened, 0) or True
    saved = sweep_work.saved(service, f"table:{kept.token}", "yaml")["content"]
    assert "workload.generate=16" in saved
    again = uploads.receive(service.shelf, "studies", "study.yaml", saved.encode())
    assert sweep_work.study_of(service, again.token).parameters == swept.study.parameters
    assert sweep_work.parquet(service, opened, f"table:{kept.token}") == content
    csv = sweep_work.saved(service, f"table:{kept.token}", "csv")["content"]
    assert csv.count("\n") >= 41
    assert "Pareto" in sweep_work.saved(service, f"table:{kept.token}", "html")["content"]


def test_a_table_without_a_study_is_shown_without_links(service: Service, swept: Any) -> None:
    bare = swept.table.replace_schema_metadata(None)
    kept = uploads.receive(service.shelf, "tables", "points.parquet", parquet(bare))
    opened = sweep_work.points_of(service, f"table:{kept.token}")
    assert not opened.opened.known
    said = text(sweep_parts.report(service, opened, f"table:{kept.token}", Controls.of(opened, View()), Chosen()))
    assert "does not name its study" in said
    assert "the full run of point" not in said
    with pytest.raises(DataError):
        sweep_work.saved(service, f"table:{kept.token}", "yaml")


def _without(table: Any, name: str) -> bytes:
    return parquet(table.drop_columns([name]))


def test_other_files_are_refused(swept: Any) -> None:
    table = swept.table
    said = {
        "not a Parquet file": b"kind: study",
        "cannot be read": b"PAR1" + b"\0" * 50,
        "no column 'time_s'": _without(table, "time_s"),
        "that no sweep has": parquet(table.append_column("secret", pa.array([1.0] * 40))),
        "no parameters": parquet(table.drop_columns([p.path for p in swept.study.parameters])),
        "holds list": parquet(table.set_column(4, "status", pa.array([["ok"]] * 40))),
        "characters": parquet(table.set_column(table.column_names.index("message"), "message", pa.array(["x" * 9000] * 40))),
        "empty cells": parquet(table.set_column(table.column_names.index("status"), "status", pa.array([None] * 40, pa.string()))),
        "0 points": parquet(table.slice(0, 0)),
        f"expected 1 to {MOST_POINTS:,}": parquet(pa.concat_tables([table] * 5001)),
    }  # fmt: skip
    for words, content in said.items():
        with pytest.raises(DataError, match=words):
            read_table(content, "x.parquet")


def test_a_long_word_repeated_does_not_grow(swept: Any) -> None:
    table = pa.concat_tables([swept.table] * 1000)
    words = pa.array(["y" * 1_000_000]).take(pa.array([0] * 1))
    column = pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows), words)
    bomb = table.set_column(table.column_names.index("message"), "message", column)
    with pytest.raises(DataError, match="1,000,000 characters"):
        read_table(parquet(bomb), "x.parquet")  # 40 GB of text in a file of some kilobytes


def test_a_study_in_a_file_that_is_wrong_is_not_believed(swept: Any) -> None:
    for mark in (b"{", b"[]", b'{"format": "effsim/sweep-points@1", "study": {}, "seed": 1, "version": "1"}'):
        content = parquet(swept.table.replace_schema_metadata({MARK: mark}))
        assert read_table(content, "x")[1] is None


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_before_anything_is_chosen(service: Service) -> None:
    said = text(page.layout(service, View(), []))
    assert all(name in said for name in sweep_parts.EXAMPLES)
    assert page.follow(service, None, None, None, None)[0] is False
    assert not service.jobs._jobs


def test_choosing_starts_nothing_and_says_what_will_be_done(service: Service) -> None:
    hidden, what, no_buttons, *_ = page.follow(service, "gpu_what_if", None, None, None)
    assert (hidden, no_buttons) == (True, False)
    assert "1,024 points" in text(what)
    assert "2 TB/s to 16 TB/s" in text(what)
    assert not service.jobs._jobs


@pytest.mark.parametrize("study", ["nothing", "../../etc/passwd", "upload-" + "0" * 32, 7, ["a"], {"a": 1}])
def test_a_study_that_is_not_there(service: Service, study: Any) -> None:
    assert '"error"' in text(page.follow(service, study, None, "sweep-run", None)[1])
    assert '"error"' in text(page.draw(service, f"study:{study}", ""))
    assert '"error"' in text(page.draw(service, f"table:{study}", ""))


def test_a_study_of_too_many_points_is_refused_without_counting_them(service: Service) -> None:
    axes = [{"path": f"workload.a{i}", "range": {"low": 0, "high": 1, "points": 100_000}} for i in range(60)]
    big = json.dumps(STUDY | {"method": "grid", "samples": None, "parameters": axes}).replace('"samples": null, ', "")
    kept = uploads.receive(service.shelf, "studies", "big.yaml", big.encode())
    assert "at most 200,000" in text(page.follow(service, kept.token, None, "sweep-run", None)[1])
    assert not service.jobs._jobs


def test_a_view_restores_controls_and_selection(points: Points) -> None:
    first = Controls.of(points, View())
    assert [v for v in first.fields(points).values() if v] == []
    query = "?x=energy_j&y=time_s&colour=bound&log=x&heat_x=workload.batch&how=median&point=7"
    made = Controls.of(points, View.parse(query))
    again = Controls.of(points, View.of(**made.fields(points)))
    assert again == made
    assert (made.x, made.log, made.how, made.point) == ("energy_j", ("x",), "median", 7)
    assert Controls.of(points, View.parse("?x=nothing&how=<b>&point=-3")) == first
    chosen = Chosen.parse({"source": "scatter", "x": "time_s", "y": "energy_j", "boxes": [[0, 1, 2, 3]]})
    assert Chosen.of(View.of(select=chosen.text)) == chosen


def test_points_that_are_not_there_change_nothing(service: Service) -> None:
    with pytest.raises(PreventUpdate):
        page.asked(service, {"a": 1}, {}, None)
    with pytest.raises(UnknownNameError):
        sweep_work.points_of(service, "table:upload-" + "0" * 32)


def finished(service: Service, study: dict[str, Any]) -> str:
    """A study that has run here (its work done in this process): the token of its file."""
    kept = uploads.receive(service.shelf, "studies", "mine.yaml", json.dumps(study).encode())
    asked = sweep_work.request(service, kept.token)
    with service.confined():
        result = WORK["sweep"](asked, iter)
    job = Job(key_of("sweep", asked), "sweep", asked, state="done", result=result)
    service.jobs._jobs[job.key] = job
    return kept.token


def test_no_folder_of_the_server_is_shown_or_saved(service: Service) -> None:
    """Neither on the page nor in a file is there a path of the server, though the sweep's own summary names one."""
    machine = b"extends: gpu_a100\nname: mine\nprovenance: {kind: assumed, source: a test}\n"
    mine = uploads.receive(service.shelf, "hardware", "card.yaml", machine)
    token = finished(service, STUDY | {"samples": 12, "hardware": Path(mine.path).name})
    source, folder = f"study:{token}", str(service.shelf.folder)
    points = sweep_work.points_of(service, source)
    assert folder in str(points.result.as_dict()["out"])  # so there is something to leak
    controls = Controls.of(points, View())
    everything = Chosen.parse({"source": "scatter", "x": [0, 1e99], "y": [0, 1e99]})
    shown = [
        page.draw(service, source, ""),
        page.follow(service, token, None, None, None),
        page.selected(service, points, controls, everything, True),
        *(sweep_parts.panel(service, points, index) for index in range(12)),
    ]
    assert all(folder not in text(part) for part in shown)
    for what in sweep_parts.EXPORTS:
        sent = sweep_work.saved(service, source, what)
        content = sent["content"].encode()
        assert folder.encode() not in content, what
        if sent.get("base64"):
            table = pq.read_table(io.BytesIO(base64.b64decode(content)))
            said = json.dumps([table.to_pylist(), {str(k): str(v) for k, v in (table.schema.metadata or {}).items()}])
            assert folder not in said, what
    assert folder not in sweep_work.command(service, points, source)


@pytest.mark.slow
def test_a_sweep_runs_is_cancelled_and_goes_on(service: Service) -> None:
    study = STUDY | {"samples": 64, "reading": "events", "workload": "llama70b_decode", "hardware": "gpu_h100"}
    kept = uploads.receive(service.shelf, "studies", "small.yaml", json.dumps(study).encode())
    page.follow(service, kept.token, None, "sweep-run", None)
    wait(lambda: sweep_work.points_done(service, kept.token) > 0)
    page.follow(service, kept.token, None, "sweep-cancel", None)
    job = sweep_work.job_of(service, kept.token)
    assert job is not None
    wait(lambda: job.ended)
    said = page.follow(service, kept.token, None, None, None)
    done = sweep_work.points_done(service, kept.token)
    assert 0 < done < 64
    assert f"{done:,} of 64 points are kept" in text(said[4])
    page.follow(service, kept.token, None, "sweep-run", None)
    wait(lambda: (found := sweep_work.job_of(service, kept.token)) is not None and found.state == "done", 120.0)
    assert sweep_work.points_of(service, f"study:{kept.token}").result.table.num_rows == 64


def wait(ready: Any, patience_s: float = 60.0) -> None:
    end = time.monotonic() + patience_s
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_control_in_a_browser(
    browser: Browser, served: tuple[str, Service], swept: Any, tmp_path: Path, width: int, dark: bool
) -> None:
    from selenium.webdriver import ActionChains

    browser.open("/sweep", width=width, height=844 if width < 600 else 900, dark=dark)
    file = tmp_path / "points.parquet"
    file.write_bytes((swept.folder / "points.parquet").read_bytes())
    browser.find("#sweep-table-upload input[type=file]").send_keys(str(file))
    browser.find("#sweep-scatter .nsewdrag")
    browser.settle()
    assert browser.wide() <= 0

    def click(selector: str) -> None:
        browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", browser.find(selector))
        browser.find(selector).click()
        browser.settle()

    click("#sweep-log input")
    if width > 600:
        click("#sweep-scatter .modebar-btn[data-val=select]")
        drag = browser.find("#sweep-scatter .nsewdrag")
        ActionChains(browser.driver).move_to_element(drag).move_by_offset(-300, -120).click_and_hold().move_by_offset(
            300, 100
        ).move_by_offset(300, 140).release().perform()
        browser.until(lambda: "points are selected" in browser.find("#sweep-count").text, "a selection")
        browser.settle()
        browser.find("#sweep-selected")
        traces = "return document.querySelector('#sweep-scatter .js-plotly-plot').data.slice(0, -1)"
        marked = sum(map(len, browser.driver.execute_script(f"{traces}.map(t => t.selectedpoints)")))
        assert browser.find("#sweep-count").text.startswith(f"{marked} of ")
        click("#sweep-clear")
        browser.until(lambda: "nothing is selected" in browser.find("#sweep-count").text, "no selection")
    number = browser.find("#sweep-point")
    number.clear()
    number.send_keys("5\t")
    browser.until(lambda: browser.all("#sweep-full"), "the link to the full run")
    browser.until(lambda: "point=5" in browser.driver.current_url, "the point in the address")
    for name in sweep_parts.EXPORTS:
        click(f"#sweep-save-{name}")
    click("#sweep-full")
    browser.until(lambda: "/sweep" not in browser.driver.current_url, "the run")
    browser.until(lambda: browser.find("h1").text == "Run", "the page of the run")
    browser.settle()
