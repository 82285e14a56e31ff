"""Arrivals, lengths and recorded loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from effsim.errors import DataError
from effsim.serving.arrivals import arrival_times, lengths, requests
from effsim.serving.traces import read_trace
from effsim.spec.serving import ArrivalsSpec, LengthSpec, ServingSpec


def first(times: Iterator[float], count: int) -> np.ndarray:
    return np.array(list(islice(times, count)))


@pytest.mark.parametrize(
    ("spec", "cv"),
    [
        (ArrivalsSpec(process="poisson", rate=5.0), 1.0),
        (ArrivalsSpec(process="gamma", rate=5.0, cv=2.5), 2.5),
        (ArrivalsSpec(process="gamma", rate=5.0, cv=0.5), 0.5),
        (ArrivalsSpec(process="constant", rate=5.0), 0.0),
    ],
)
def test_gaps_have_the_mean_and_the_spread_asked_for(spec: ArrivalsSpec, cv: float) -> None:
    gaps = np.diff(first(arrival_times(spec, np.random.default_rng(1)), 40000))
    assert gaps.mean() == pytest.approx(0.2, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


def test_on_off_has_pauses_and_the_mean_rate() -> None:
    spec = ArrivalsSpec.model_validate({"process": "on_off", "rate": 5.0, "on": "3 s", "off": "7 s"})
    times = first(arrival_times(spec, np.random.default_rng(2)), 40000)
    assert (times % 10.0).max() <= 3.0
    assert len(times) / times[-1] == pytest.approx(5.0, rel=0.05)


def test_a_day_swings_around_its_mean() -> None:
    spec = ArrivalsSpec.model_validate({"process": "diurnal", "rate": 5.0, "amplitude": 0.8, "period": "100 s"})
    times = first(arrival_times(spec, np.random.default_rng(3)), 50000)
    assert len(times) / times[-1] == pytest.approx(5.0, rel=0.05)
    high, low = ((times % 100.0 < 50.0).sum(), (times % 100.0 >= 50.0).sum())
    # Over half a sine the mean is 2/π of the amplitude.
    assert high / low == pytest.approx((1 + 0.8 * 2 / np.pi) / (1 - 0.8 * 2 / np.pi), rel=0.08)


@pytest.mark.parametrize("distribution", ["constant", "uniform", "lognormal"])
def test_lengths(distribution: str) -> None:
    spec = LengthSpec.model_validate({"distribution": distribution, "mean": 500, "cv": 0.4, "longest": 2000})
    drawn = np.array(list(islice(lengths(spec, 1, np.random.default_rng(4)), 40000)))
    assert drawn.mean() == pytest.approx(500, rel=0.02)
    assert drawn.min() >= 1
    assert drawn.max() <= 2000
    if distribution != "constant":
        assert drawn.std() / drawn.mean() == pytest.approx(0.4, rel=0.03)


def test_a_seed_gives_a_load_and_changing_lengths_leaves_arrivals() -> None:
    def load(output: int) -> list[tuple[float, int, int]]:
        spec = ServingSpec.model_validate(
            {"arrivals": {"rate": 3, "requests": 50}, "prompt": {"distribution": "lognormal", "cv": 1}}
        )
        return [(r.arrival_s, r.prompt, r.output) for r in requests(spec, 100, output, 7)]

    assert load(5) == load(5)
    assert [row[:2] for row in load(5)] == [row[:2] for row in load(9)]


def test_shared_prefixes_lengthen_prompts_and_name_blocks() -> None:
    spec = ServingSpec.model_validate(
        {"arrivals": {"requests": 200}, "prefix": {"tokens": 64, "groups": 3}, "cache": {"block": 32, "page": 16}}
    )
    load = list(requests(spec, 100, 5, 0))
    assert {r.prompt for r in load} == {164}
    assert {r.blocks for r in load} == {(0, 1), (2, 3), (4, 5)}


def test_recorded_formats(tmp_path: Path) -> None:
    azure = tmp_path / "a.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:46.6805900,374,0\n"
    )
    found, block = read_trace(azure)
    assert [(r.prompt, r.output) for r in found] == [(374, 1), (396, 109)]
    assert found[1].arrival_s == pytest.approx(4.314579, abs=1e-6)
    assert block == 0
    mooncake = tmp_path / "m.jsonl"
    row = {"timestamp": 27000, "input_length": 600, "output_length": 5, "hash_ids": [0, 4]}
    mooncake.write_text(json.dumps(row) + "\n\n" + json.dumps(row | {"timestamp": 29500}) + "\n")
    found, block = read_trace(mooncake)
    assert [(r.arrival_s, r.blocks) for r in found] == [(0.0, (0, 4)), (2.5, (0, 4))]
    assert block == 512
    vllm = tmp_path / "v.json"
    vllm.write_text(json.dumps({"input_lens": [3, 4], "output_lens": [5, 6], "start_times": [10.0, 11.0]}))
    assert [(r.arrival_s, r.prompt, r.output) for r in read_trace(vllm, 1)[0]] == [(0.0, 3, 5)]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "unknown"),
        ("a,b\n1,2\n", "unknown"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", ":2:1"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:50,x,2\n", ":2:1"),
        ('{"timestamp": 1, "input_length": -4, "output_length": 2, "hash_ids": []}\n', ":1:1"),
        ('{"input_lens": [1], "output_lens": []}', "vllm bench"),
        ('{"other": 1}', "vllm bench"),
    ],
)
def test_what_is_no_load_is_refused(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "load"
    path.write_text(text)
    with pytest.raises(DataError, match=where):
        read_trace(path)
