"""The compare page: its numbers are those of ``effsim compare``, and what does not run keeps nothing else from it."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from base64 import b64decode
from typing import Any

import pytest
from dash import no_update
from dashboard_browser import Browser, text

import effsim
from effsim.dashboard import comparison as compared
from effsim.dashboard.comparison import Comparison, run_pairs
from effsim.dashboard.pages import compare
from effsim.dashboard.service import Service
from effsim.dashboard.uploads import receive
from effsim.dashboard.view import View
from effsim.report import words

MACHINES = ("gpu_a100", "gpu_h100", "gpu_mi300x")


@pytest.fixture(scope="module")
def service(shared: Service) -> Service:
    """One for all tests here: answers are remembered."""
    return shared


def rows(service: Service, asked: Comparison) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(compared.saved(service, asked, "csv")["content"])))


def test_numbers_are_those_of_the_command(service: Service) -> None:
    asked = Comparison.of(View())
    assert asked.hardware == MACHINES
    assert asked.workloads == ("llama70b_decode",)
    expected = effsim.compare(list(MACHINES), "llama70b_decode")
    for row, result in zip(rows(service, asked), expected, strict=True):
        decode = result.phases["decode"]
        assert float(row["time_s"]) == result.time_s
        assert (float(row["time_low_s"]), float(row["time_high_s"])) == (result.time_low_s, result.time_high_s)
        assert float(row["time_per_token_s"]) == decode["time_per_token_s"]
        assert float(row["tokens_per_s"]) == decode["tokens_per_s"]
        assert float(row["memory_used_bytes"]) == result.memory["used_bytes"]
        assert float(row["energy_j"]) == result.energy_j
        assert float(row["roofline_share"]) == result.roofline_s / result.time_s
        assert row["bottleneck"] == max(result.bound, key=lambda name: result.bound[name])
        assert (row["usd_per_million_tokens"] == "") is (result.cost_usd is None)
    held = json.loads(compared.saved(service, asked, "json")["content"])
    assert held == {"schema": "effsim/compare@1", "results": [result.to_dict() for result in expected]}
    page = text(compare.answer(service, asked))
    assert all(words.seconds(result.time_s) in page for result in expected)
    assert words.difference_sentence(expected[0], expected[2]) in page
    assert "effsim compare gpu_a100 gpu_h100 gpu_mi300x llama70b_decode" in page


def test_figure_adds_up_to_the_times(service: Service) -> None:
    asked = Comparison(MACHINES, ("llama70b_decode", "llama7b_prefill"))
    results = compared.ran(run_pairs(service, asked))
    from effsim.dashboard.figures_compare import cost_figure, rooflines, time_figure

    for bars in ("time", "share"):
        drawn = time_figure(results, bars)
        stacks = [trace for trace in drawn.data if trace.type == "bar"]
        sums = [sum(trace.x[place] for trace in stacks) for place in range(len(results))]
        share = (
            [100.0] * len(results) if bars == "share" else [r.time_s / max(x.time_s for x in results) for r in results]
        )
        scale = 1.0 if bars == "share" else sums[0] / share[0]
        assert sums == pytest.approx([value * scale for value in share], rel=1e-9)
        assert any(trace.error_x.array is not None for trace in drawn.data if trace.type == "scatter") is (
            bars == "time"
        )
    shown = [trace for trace in rooflines(results).data if trace.showlegend is not False]
    assert [trace.name for trace in shown] == [result.hardware for result in results]
    known = {result.hardware for result in results if words.dollars_per_million(result) is not None}
    drawn = cost_figure(results, [result.hardware for result in results])
    assert drawn is not None
    assert {name for trace in drawn.data for name in trace.text} == known


def test_price_of_tokens_is_that_of_the_report(service: Service) -> None:
    result = run_pairs(service, Comparison(("gpu_h100",), ("llama70b_generate",)))[0].result
    assert result is not None
    assert result.cost_usd is not None
    each = words.dollars_per_million(result)
    assert each == pytest.approx(result.cost_usd / result.time_s / result.phases["decode"]["tokens_per_s"] * 1e6)
    assert f"{each:.3g} USD a million tokens generated" in words.cost_line(result)


def test_what_does_not_run_says_why_and_the_others_stay(service: Service) -> None:
    asked = Comparison(("gpu_a100", "gpu_t4", "../../etc/passwd"), ("llama70b_decode",))
    pairs = run_pairs(service, asked)
    assert [pair.result is not None for pair in pairs] == [True, False, False]
    page = text(compare.answer(service, asked))
    assert "does not fit" in page
    assert "no bundled hardware named" in page
    assert "6.37 s" in page
    assert compared.command_lines(service, asked, pairs) == ["effsim compare gpu_a100 llama70b_decode"]
    assert [row["error"] != "" for row in rows(service, asked)] == [False, True, True]
    nothing = Comparison(("gpu_t4",), ("llama70b_decode",))
    assert "does not fit" in text(compare.answer(service, nothing))
    with pytest.raises(effsim.EffsimError, match="no pair runs"):
        compared.saved(service, nothing, "json")


def test_best_is_marked_within_a_workload(service: Service) -> None:
    pairs = run_pairs(service, Comparison(MACHINES, ("llama70b_decode", "llama7b_prefill")))
    column = next(c for c in compared.COLUMNS if c.key == "time_s")
    times = [pair.result.time_s for pair in pairs if pair.result is not None]
    assert compared.best(pairs, column) == {times.index(min(times[:3])), times.index(min(times[3:]))}
    one = run_pairs(service, Comparison(("gpu_a100",), ("llama70b_decode", "llama7b_prefill")))
    assert len(compared.best(one, column)) == 1  # of the workloads, where there is one machine
    assert compared.best(one[:1], column) == set()
    assert compared.best([pairs[0], pairs[0]], column) == set()


def test_one_machine_on_several_workloads_differs_by_workload(service: Service) -> None:
    pairs = run_pairs(service, Comparison(("gpu_a100",), ("llama7b_decode", "llama7b_prefill")))
    ((title, lines),) = compared.differences(service, pairs)
    assert title == "Against llama7b_decode"
    assert lines[0].startswith("llama7b_prefill ")


def test_too_many_and_none(service: Service) -> None:
    many = tuple(service.shelf.names("hardware"))[:5]
    assert "at most 24" in text(compare.answer(service, Comparison(many, many)))
    assert "at least one machine" in text(compare.answer(service, Comparison((), ("llama70b_decode",))))


@pytest.mark.parametrize(
    "value", [None, 3, {"a": 1}, [None, 4, {"b": []}], True, pytest.param("x" * 100_000, id="long")]
)
def test_any_value_is_answered(service: Service, value: Any) -> None:
    page, link = compare.shown(service, [value] * 5)
    assert page
    assert link is no_update or Comparison.of(View.parse(link["query"])).bars == "time"


def test_link_restores_the_view(service: Service) -> None:
    asked = Comparison(MACHINES[:2], ("llama7b_decode", "llama7b_prefill"), "roofline", ("workload.batch=8",), "share")
    assert Comparison.of(View.parse(asked.view.query)) == asked
    page = text(compare.layout(service, asked.view, []))
    assert "workload.batch=8" in page
    assert "roofline" in page
    row = text(compare.answer(service, asked))
    assert "/?hardware=gpu_h100&workload=llama7b_prefill&engine=roofline&set=workload.batch%3D8" in row


def test_several_workloads_are_saved_one_file_each(service: Service) -> None:
    asked = Comparison(("gpu_a100",), ("llama7b_decode", "llama7b_prefill"))
    for what, ending in (("html", ".html"), ("yaml", ".yaml")):
        held = compared.saved(service, asked, what)
        with zipfile.ZipFile(io.BytesIO(b64decode(held["content"]))) as archive:
            names = archive.namelist()
        assert len(names) == (3 if what == "yaml" else 2)
        assert all(name.endswith(ending) for name in names)


def test_names_of_uploads_are_text(service: Service) -> None:
    plain = service.shelf.text("workloads", "llama7b_decode").splitlines()
    lines = ["name: '<b>bold</b>'" if line.startswith("name:") else line for line in plain]
    kept = receive(service.shelf, "workloads", "<i>w</i>.yaml", "\n".join(lines).encode())
    asked = Comparison(("gpu_a100", "gpu_h100"), (kept.token, "llama7b_prefill"))
    from effsim.dashboard.figures_compare import cost_figure

    results = compared.ran(run_pairs(service, asked))
    drawn = cost_figure(results, ["a", "b", "c", "d"])
    assert drawn is not None
    assert drawn.data[0].name == "&lt;b&gt;bold&lt;/b&gt;"
    assert str(service.shelf.folder) not in text(compare.answer(service, asked))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_control_in_a_browser(browser: Browser, width: int, dark: bool) -> None:
    browser.open(
        "/compare?hardware=gpu_a100&hardware=gpu_h100&workload=llama7b_decode&bars=share", width=width, dark=dark
    )
    browser.until(lambda: len(browser.all("#compare-table tbody tr")) == 2, "two rows")
    browser.until(lambda: len(browser.all(".js-plotly-plot")) == 4, "four figures")
    assert browser.wide() <= 0
    field = browser.find("#compare-changes")
    field.send_keys("workload.batch=4\n")
    browser.until(lambda: "workload.batch%3D4" in browser.driver.current_url, "the link")
    browser.settle()
    browser.find("#compare-table th:nth-child(4) button").click()
    for name in ("csv", "json", "html", "yaml"):
        button = browser.find(f"#compare-save-{name}")
        browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        browser.settle()
    assert not browser.all("#compare-saved .error")
    browser.driver.execute_script("arguments[0].click()", browser.find("#compare-table tbody a"))
    browser.until(
        lambda: "engine=analytic" in browser.driver.current_url and browser.all("#run-report .cards"), "the run"
    )
