"""Prompts that are read together are the same numbers as each prompt alone."""

from __future__ import annotations

from typing import Any

import pytest

from effsim.explore.sweep.evaluate import Evaluator
from effsim.explore.sweep.sampling import Points
from effsim.graph.graph import Graph, Node
from effsim.graph.operators.attention import Attention
from effsim.graph.operators.linear import Linear
from effsim.program.lengths import Length, Opaque, template
from effsim.spec.study import StudySpec

SAMPLES = 12


def study(hardware: str, workload: str, **more: Any) -> StudySpec:
    parameters = [
        {"path": "workload.batch", "values": [2, 24]},
        {"path": "workload.prompt", "range": {"low": 1, "high": 30000, "integer": True}},
    ]
    fields = {"kind": "study", "name": "t", "hardware": hardware, "workload": workload, "parameters": parameters}
    fields |= {"objectives": [{"name": "time_s", "goal": "min"}], "method": "random", "samples": SAMPLES}
    return StudySpec.model_validate(fields | more)


def apart(both: Evaluator, point: Any) -> dict[str, Any]:
    return both._alone(both._group(point, lanes=False)[0])


def together(both: Evaluator, points: Any) -> list[dict[str, Any] | None]:
    """Rows of points that are read together, None for the others."""
    found: list[dict[str, Any] | None] = [None] * len(points)
    groups: dict[Any, list[int]] = {}
    for index, point in enumerate(points):
        groups.setdefault(both._group(point), []).append(index)
    waiting: list[Any] = []
    for (group, lanes), members in groups.items():
        assert len(lanes) == 1
        waiting += both._lengths(group, lanes[0], points, members)
    both._read_lengths(waiting, found)
    return found


@pytest.mark.parametrize(
    ("hardware", "workload", "more"),
    [
        ("gpu_a100", "llama70b_decode", {}),  # the degrees that fit depend on the prompt
        ("system_dgx_h100", "qwen3_235b_a22b_decode", {}),  # some do not fit at all
        ("gpu_h100", "nemotron_h_8b_long_decode", {"reading": "roofline"}),  # state beside caches
        ("gpu_h100", "llama3_70b_decode", {"engine": "vllm-like", "fleet": {"replicas": 2}}),  # padded batches
        ("gpu_h100", "llama7b_decode", {"set": ["workload.model=mistral_7b", "workload.generate=2"]}),
        ("cpu_xeon", "llama7b_decode", {}),
    ],
)
def test_prompts_together_are_prompts_apart(hardware: str, workload: str, more: dict[str, Any]) -> None:
    made = study(hardware, workload, **more)
    both, points = Evaluator(made, "."), Points(made, 0).take(0, SAMPLES)
    rows = together(both, points)
    assert any(rows)
    for point, row in zip(points, rows, strict=True):
        alone = apart(both, point)
        if row is None:
            assert alone["status"] != "ok"
            continue
        assert row.keys() == alone.keys()
        for name, value in alone.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, rel=1e-12), name
            else:
                assert row[name] == value, name


def test_events_and_prefill_are_read_one_by_one() -> None:
    for workload, reading in (("llama3_8b_prefill", "analytic"), ("llama7b_decode", "events")):
        made = study("gpu_h100", workload, reading=reading)
        both, points = Evaluator(made, "."), Points(made, 0).take(0, 6)
        assert together(both, points) == [None] * 6


def test_a_template_is_only_for_lengths_that_would_have_gone_its_way() -> None:
    def build(kv_len: int) -> Graph:
        window = 128 if kv_len > 1000 else 0
        return Graph("g", (Node("attention", Attention("generation", 1, 1, kv_len, 8, 8, 64, window=window)),))

    found = template(build, 500)
    assert found is not None
    assert [found.admits(n) for n in (0, 1, 1000, 1001)] == [False, True, True, False]
    assert found.graph(900) == build(900)
    assert found.varying([1, 7])["attention"] == (build(1).items[0].op, build(7).items[0].op)  # type: ignore[union-attr]


def test_what_computes_with_its_length_has_no_template() -> None:
    assert template(lambda n: Graph("g", (Node("up", Linear(2 * n, 64, 64)),)), 500) is None
    assert template(lambda n: Graph("g", (Node("up", Linear(4, 64, 64 + int(n))),)), 500) is None
    assert template(lambda n: Graph(f"g{n}", ()), 500) is None
    for use in (float, bool, str, repr, abs, lambda n: [0] * n, lambda n: n % 2, lambda n: 2.0 * n, lambda n: n == "a"):
        with pytest.raises(Opaque):
            use(Length(3))  # type: ignore[operator]
