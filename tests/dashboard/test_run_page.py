"""The Run page: its numbers are those of the command line, its files give them again, its errors are text."""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from dash import no_update
from dashboard_browser import Browser, text
from typer.testing import CliRunner

import effsim
from effsim.cli.app import app
from effsim.dashboard import exports
from effsim.dashboard.pages import run as page
from effsim.dashboard.service import Asked, Service
from effsim.dashboard.uploads import receive
from effsim.dashboard.view import View, assignment_line, assignments
from effsim.report import words

ASKED = Asked("gpu_a100", "llama70b_decode", "analytic", ("workload.generate=8", "hardware.memory.bandwidth=2.5 TB/s"))


@pytest.fixture(scope="module")
def service(shared: Service) -> Service:
    """One for all tests here: answers are remembered."""
    return shared


def written(folder: Path, files: exports.Files) -> str:
    """Files as a visitor saves them; the path of the last."""
    for name, content in files.items():
        (folder / name).write_text(content)
    return str(folder / list(files)[-1])


def test_every_number_is_the_command_lines(service: Service) -> None:
    shown = text([page.report(service, ASKED), page.rest(service, ASKED)])
    changes = [part for change in ASKED.changes for part in ("--set", change)]
    command = ["run", ASKED.hardware, ASKED.workload, "--engine", ASKED.engine, "--json", *changes]
    told = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert json.loads(page.saved(service, ASKED, "json")["content"]) == told
    assert words.seconds(told["phases"]["decode"]["time_per_token_s"]) in shown
    for row in told["operators"]:
        assert row["name"] in shown
        assert words.seconds(row["time_s"]) in shown
    for number in told["assumptions"]:
        assert number["path"] in shown


def test_figures_are_those_of_the_result(service: Service) -> None:
    asked = Asked("gpu_a100", "llama70b_decode")
    result = effsim.run("gpu_a100", "llama70b_decode")
    shown = text(page.figures(service, asked))
    for name, _, _ in page.FIGURES:
        assert f'"id": "run-figure-{name}"' in shown
        assert service.figure(asked, name) is service.figure(asked, name)
        assert service.figure(asked, name) == json.loads(result.figure(name).to_json())


@pytest.mark.parametrize(
    ("hardware", "workload", "changes"),
    [
        ("gpu_a100", "llama70b_decode", ()),
        ("gpu_a100", "llama70b_decode", ("hardware.memory.bandwidth=3 TB/s", "hardware.sm.count=120")),
        ("gpu_a100", "llama70b_decode", ("hardware.kernels.gemm.tiles.0.stages=3", "workload.precision.weights=int8")),
        ("system_dgx_h100", "llama70b_decode", ("hardware.device.memory.bandwidth=5 TB/s", "hardware.price.hourly=20 USD/h")),
        ("system_h100_xeon", "llama7b_decode", ("workload.batch=4",)),
        ("gpu_a100", "llama7b_decode", ("hardware.price.hourly=null", "hardware.power.nothing=null")),
    ],
)  # fmt: skip
def test_saved_files_give_the_same_run(
    service: Service, tmp_path: Path, hardware: str, workload: str, changes: tuple[str, ...]
) -> None:
    asked = Asked(hardware, workload, "analytic", changes)
    before = service.run(asked, sensitivity=False)
    files = [exports.yaml_files(service, "hardware", hardware, changes)]
    files.append(exports.yaml_files(service, "workloads", workload, changes))
    after = effsim.run(*(written(tmp_path, f) for f in files), engine="analytic", sensitivity=False)
    assert after.time_s == before.time_s
    assert after.energy_j == before.energy_j
    assert after.cost_usd == before.cost_usd
    assert after.memory == before.memory


def test_files_that_belong_together_are_saved_together(service: Service, tmp_path: Path) -> None:
    source = "extends: gpu_a100\nname: mine\nprovenance: {kind: assumed, source: here}\nmemory: {bandwidth: 3 TB/s}\n"
    kept = receive(service.shelf, "hardware", "my card.yaml", source.encode())
    asked = Asked(kept.token, "llama7b_decode", "analytic", ("hardware.sm.count=90",))
    saved = page.saved(service, asked, "hardware")
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(saved["content"]))) as archive:
        archive.extractall(tmp_path)
        assert archive.read("my card.yaml").decode() == source
    again = effsim.run(str(tmp_path / "changed_my card.yaml"), "llama7b_decode", engine="analytic", sensitivity=False)
    assert again.time_s == service.run(asked).time_s
    assert "my card.yaml" in exports.command_line(service, asked)


def test_csv_holds_every_operator_and_no_formula(service: Service) -> None:
    result = service.run(ASKED)
    rows = list(csv.DictReader(io.StringIO(exports.operators_csv(result))))
    assert [row["name"] for row in rows] == [row.name for row in result.operators]
    assert sum(float(row["time_s"]) for row in rows) == pytest.approx(result.time_s)
    assert exports.safe("=1+1") == "'=1+1"


@pytest.mark.parametrize("what", [*page.SAVED])
def test_every_file_can_be_saved(service: Service, what: str) -> None:
    saved = page.saved(service, ASKED, what)
    assert len(saved["content"]) > 60
    assert Path(saved["filename"]).name == saved["filename"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("hardware.memory.bandwith=4TB/s", "bandwidth"),
        ("nonsense", "not an assignment"),
        ("workload.batch=100000", "fit"),
        ("workload.model=/etc/passwd", "passwd"),
        ("'open", "not an assignment"),
    ],
)
def test_errors_are_text(service: Service, changes: str, said: str) -> None:
    shown, query = page.shown(service, ("gpu_a100", "llama70b_decode", "analytic", changes))
    assert not query
    assert shown.className == "error"
    assert said in text(shown)


@pytest.mark.parametrize("value", [None, 7, [], {}, ["gpu_a100"], "../../etc/passwd", "upload-" + "0" * 32, "<b>x</b>"])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_whatever_a_request_holds_is_answered(service: Service, value: Any, place: int) -> None:
    form: list[Any] = ["gpu_a100", "llama70b_decode", "analytic", ""]
    form[place] = value
    assert page.shown(service, form)
    page.below(value, lambda asked: page.rest(service, asked))
    assert page.clicked(value, value) is no_update


def test_a_view_brings_the_form_back(service: Service) -> None:
    view = View.parse(ASKED.view.with_fields(operator="layers.down_proj", kind="fitted").query)
    assert Asked.of(view) == ASKED
    shown = text(page.layout(service, view, []))
    assert "2.5 TB/s" in shown
    assert '"operator": "layers.down_proj"' in shown
    assert assignments(assignment_line(ASKED.changes)) == ASKED.changes


def test_an_operator_is_explained_as_the_command_does(service: Service) -> None:
    asked = Asked("gpu_a100", "llama70b_decode")
    info = effsim.explain("gpu_a100", "llama70b_decode", "layers.down_proj")
    shown = text(page.explained(service, asked, "layers.down_proj"))
    assert words.seconds(info["time_s"]) in shown
    assert all(p["path"] in shown for p in info["parameters"])
    assert page.explained(service, asked, "layers.nothing").className == "error"


def test_what_is_clicked_is_an_operator_or_nothing(service: Service) -> None:
    """Every point of the figures that are clicked gives an operator, or (an interval) changes nothing."""
    names = [row.name for row in service.run(ASKED).operators]
    found = set()
    for figure in ("roofline", "operators"):
        for trace in service.figure(ASKED, figure)["data"]:
            for value in trace.get("customdata", ()):
                found.add(page.clicked({"points": [{"customdata": value}]}, names))
    assert len(found & {*names}) > 5
    assert found <= {*names, no_update}
    assert page.clicked({"points": [{"customdata": "a &lt; b"}]}, [{"value": "a < b"}]) == "a < b"


@pytest.mark.slow
def test_every_control_once(browser: Browser) -> None:
    browser.open("/?hardware=gpu_a100&workload=llama7b_decode&operator=layers.down_proj")
    browser.find("#run-explained .card")
    browser.find("#run-changes").send_keys("workload.batch=4\n")
    browser.until(lambda: "workload.batch" in browser.find(".command").text, "the change")
    assert "set=workload.batch%3D4" in browser.driver.current_url
    browser.click("#run-kind input[value=fitted]")
    browser.until(lambda: "kind=fitted" in browser.driver.current_url, "the kind in the link")
    browser.click("#run-table th:nth-child(3) button")
    browser.find('th[aria-sort="descending"]')
    for name in page.SAVED:
        browser.click(f"#run-save-{name}")
    browser.settle()
    browser.find("#run-changes").send_keys("0\n")
    browser.until(lambda: "workload.batch=40" in browser.find(".command").text, "the other change")
    where = browser.driver.current_url
    browser.driver.get(where)
    browser.until(lambda: "workload.batch=40" in browser.find(".command").text, "the view of the link")
