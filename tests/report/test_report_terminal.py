"""The terminal reports: what must be in them, at which width, in which order."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from report_runs import KINDS
from rich.console import Console

from effsim._api import FullRun, explain
from effsim.report import ranges, words
from effsim.report.result import OperatorRow, RunResult
from effsim.report.terminal import print_compare, print_explain, print_roofline, print_run


def printed(show: Callable[[Console], None], width: int = 80) -> str:
    buffer = io.StringIO()
    show(Console(file=buffer, width=width, highlight=False, color_system=None, force_terminal=False))
    return buffer.getvalue()


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [80, 120])
def test_run_says_everything_without_cutting_numbers(bundled: FullRun, width: int) -> None:
    result = bundled.result
    text = printed(lambda console: print_run(result, console), width)
    assert max(len(line) for line in text.splitlines()) <= width
    one_line = flat(text)
    for note in result.notes:
        assert flat(note) in one_line
    for line in words.headlines(result):
        assert line.value in text
        assert line.label in text
    for row in words.strongest(result, 5):
        assert words.sensitivity_sentence(row) in one_line
    for row in words.by_time(result.operators)[:12]:
        found = next(line for line in text.splitlines() if line.strip().startswith(f"{row.name} "))
        for cell in (words.seconds(row.time_s), words.efficiency(row), words.byte_count(row.bytes_moved)):
            assert cell in found
    assert words.memory_line(result) in text
    assert "of 80.00 GiB a device" in text
    assert "(devices alone, without host and links)" in one_line


def test_notes_stand_above_the_numbers(bundled: FullRun) -> None:
    text = printed(lambda console: print_run(bundled.result, console))
    assert text.index("sharded") < text.index("Time per token")


def test_rows_that_are_not_shown_are_summed(bundled: FullRun) -> None:
    rows = words.by_time(bundled.result.operators)
    text = printed(lambda console: print_run(bundled.result, console))
    assert f"{len(rows) - 12} more" in text
    everything = printed(lambda console: print_run(bundled.result, console, all_rows=True), 120)
    assert "more  " not in everything
    assert all(row.name in everything for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_headline_of_every_task(full: Callable[..., FullRun], kind: str) -> None:
    result = full(kind).result
    labels = [line.label for line in words.headlines(result)]
    expected = {"prefill": "TTFT", "generate": "TTFT", "train": "Step time", "operators": "Time (step)"}
    assert any(expected.get(kind, "Time per token") in label for label in labels)
    assert printed(lambda console: print_run(result, console))


def test_names_are_not_markup_and_control_characters_are_gone(bundled: FullRun) -> None:
    result = replace(bundled.result, workload="[red]x[/red] [/] \x1b[31mred", notes=("[bold]n[/bold]\x07",))
    text = printed(lambda console: print_run(result, console))
    assert "[red]x[/red] [/]" in text
    assert "[bold]n[/bold]" in text
    assert "\x1b" not in text


def test_predicted_change_is_that_of_ten_percent() -> None:
    assert words.sensitivity_sentence({"path": "a.b", "elasticity": -0.85}) == "a.b +10 % → −7.8 %"
    assert words.sensitivity_sentence({"path": "a.b", "elasticity": 0.005}) == "a.b +10 % → +0.05 %"


def test_energy_without_a_power_limit_is_unknown_not_zero(bundled: FullRun) -> None:
    line = words.energy_line(replace(bundled.result, energy_j=None, energy_limit_j=None))
    assert line == (
        "energy unknown (per-operation energies are not in the hardware file); no power limit is given either"
    )
    changed = replace(bundled.result, energy_j=3200.0)
    ends = ranges.ends(3200.0, changed.energy_low_j, changed.energy_high_j, "energy")
    assert words.energy_line(changed) == (f"energy 3.2 kJ{ends} (devices alone, without host and links)")
    assert words.cost_line(replace(bundled.result, cost_usd=None)) == "cost unknown (no price in the hardware file)"


def test_weak_assumptions_that_matter_are_listed_and_the_rest_counted(bundled: FullRun) -> None:
    listed, counted = words.weak_assumptions(bundled.result)
    assert listed
    assert all(a.kind in words.WEAK_KINDS and abs(a.elasticity or 0.0) > words.MATTERS for a in listed)
    total = sum(int(number) for number in re.findall(r"\d+", counted))
    assert total == len(bundled.result.assumptions) - len(listed)
    unranked, _ = words.weak_assumptions(replace(bundled.result, sensitivity=()))
    assert len(unranked) == sum(a.kind in words.WEAK_KINDS for a in bundled.result.assumptions)


def _machine(name: str, **seconds: float) -> RunResult:
    time = sum(seconds.values())
    row = OperatorRow("op", "linear", "step", 1, 4.0, 2.0, time, time, "memory", seconds)
    return RunResult(
        hardware=name,
        workload="w",
        engine="analytic",
        devices=1,
        parallelism={"tensor": 1},
        time_s=time,
        roofline_s=time,
        phases={"step": {"time_s": time, "roofline_s": time, "tokens_per_s": 1.0 / time}},
        memory={"capacity_bytes": 2.0**30, "used_bytes": 2.0**29, "weights_bytes": 2.0**29, "fits": True},
        flops=4.0,
        bytes_moved=2.0,
        energy_j=None,
        energy_limit_j=None,
        cost_usd=None,
        bound={key: value / time for key, value in seconds.items()},
        operators=(row,),
        sensitivity=(),
        assumptions=(),
    )


def test_compare_attributes_the_difference_to_resources() -> None:
    slow, fast = _machine("slow", memory=8.0, launch=2.0), _machine("fast", memory=3.0, launch=2.0)
    assert words.difference_sentence(slow, fast) == "fast is 2.00× as fast (−5 s): memory −5 s (100.0 % of it)"
    assert words.difference_sentence(fast, slow) == "slow takes 2.00× the time (+5 s): memory +5 s (100.0 % of it)"
    assert words.difference_sentence(fast, fast) == "fast takes the same time"
    # Changes that nearly cancel: shares of the remainder would say 500 %.
    other = _machine("other", memory=13.0, launch=2.0 - 5.5 + 4.5)
    base = _machine("base", memory=8.0, launch=5.0)
    assert words.difference_sentence(base, other).endswith("(+1 s): memory +5 s, launch −4 s")
    text = printed(lambda console: print_compare([slow, fast], console))
    assert "fast is 2.00× as fast" in text
    assert "0.5/1.0" in text


def test_roofline_table_agrees_with_the_arithmetic(bundled: FullRun) -> None:
    text = printed(lambda console: print_roofline([bundled.result], console))
    row = next(r for r in bundled.result.operators if r.name == "layers.attention")
    line = next(line for line in text.splitlines() if "layers.attention" in line)
    assert f"{row.flops / row.bytes_moved:.3g}" in line
    assert words.percent(row.roofline_s / row.time_s) in line
    assert line.rstrip().endswith("memory")
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_pipeline_of_an_inference_has_one_stage_at_work() -> None:
    piped = replace(_machine("m", memory=1.0), devices=8, parallelism={"tensor": 2, "pipeline": 4})
    assert words.working_devices(piped) == 2


def test_explain_prints_terms_and_origins() -> None:
    info = explain("gpu_a100", "llama70b_decode", "layers.down_proj")
    text = printed(lambda console: print_explain(info, console))
    assert "layers.down_proj" in text
    for name in info["rows"][0]["terms"]:
        assert name in text
    for parameter in info["parameters"]:
        assert f"{parameter['path']} = " in flat(text)
    assert max(len(line) for line in text.splitlines()) <= 80
