"""Prompts that are read together are the same numbers as each prompt alone."""

from __future__ import annotations

from typing import Any

import pytest

from effsim.devices.gpu.device import GpuDevice
from effsim.explore.sweep.counts import apart as apart_of
from effsim.explore.sweep.counts import with_counts
from effsim.explore.sweep.evaluate import Evaluator
from effsim.explore.sweep.sampling import Points
from effsim.graph.graph import Graph, Node
from effsim.graph.operators.attention import Attention
from effsim.graph.operators.linear import Linear
from effsim.program.lengths import Length, Opaque, template
from effsim.spec.build import build
from effsim.spec.catalogue import load_document
from effsim.spec.overrides import apply
from effsim.spec.study import StudySpec
from effsim.spec.workload import WorkloadSpec

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
        ("gpu_h200", "deepseek_v2_lite_generate", {"set": ["workload.task=decode"]}),  # latent attention
        ("gpu_a100", "llama7b_decode", {"set": ["workload.attention=unfused"]}),  # products that depend on the length
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


def test_attention_of_many_batches_and_prompts_is_lowered_in_few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is the attention of each point, to the last bits."""
    calls: list[Any] = []
    plain = GpuDevice.kernels_of

    def counted(self: GpuDevice, op: Any, fused: bool) -> Any:
        calls.append(op)
        return plain(self, op, fused)

    monkeypatch.setattr(GpuDevice, "kernels_of", counted)
    prompts = {"path": "workload.prompt", "range": {"low": 1, "high": 30000, "integer": True}}
    batches = {"path": "workload.batch", "range": {"low": 1, "high": 64, "integer": True}}
    made = study("gpu_h100", "llama3_70b_decode", parameters=[batches, prompts], samples=60)
    both, points = Evaluator(made, "."), Points(made, 0).take(0, 60)
    rows = both.rows(points)
    assert sum(isinstance(op, Attention) for op in calls) < 60  # of 180
    for place in range(0, 60, 12):
        alone = both._judged(apart(both, points[place]))
        for name, value in alone.items():
            assert rows[place][name] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), name


def test_points_of_a_decode_without_prompts_are_read_together() -> None:
    made = study(
        "gpu_h100", "llama3_8b_decode", parameters=[{"path": "workload.batch", "values": [1, 7, 30]}], samples=3
    )
    both, points = Evaluator(made, "."), Points(made, 0).take(0, 3)
    waiting = [
        one for place, point in enumerate(points) for one in both._lengths(both._group(point)[0], None, points, [place])
    ]
    found: list[Any] = [None] * 3
    both._read_lengths(waiting, found)
    for point, row in zip(points, found, strict=True):
        alone = apart(both, point)
        assert row.keys() == alone.keys()
        for name, value in alone.items():
            assert row[name] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), name


@pytest.mark.parametrize(
    "assignments",
    [
        ("workload.batch=8",),
        ("workload.precision.weights=int8", "workload.batch=8", "workload.prompt=123456789"),
        ("workload.batch=8", "workload.batch=4", "workload.generate=3"),
        ("workload.batch=8", "workload.batch.source=mine", "workload.batch.kind=measured"),
        ("workload.prompt=3", "workload.layers=2"),
        ("workload.prompt=12345678901",),
    ],
)
def test_whole_numbers_set_in_a_copy_are_those_of_the_file(assignments: tuple[str, ...]) -> None:
    document = load_document("workloads", "llama3_70b_decode")
    whole = build(WorkloadSpec, apply(document, assignments, "workload"), root="workload")
    others, numbers = apart_of(assignments)
    rest = build(WorkloadSpec, apply(document, others, "workload"), root="workload")
    copied = with_counts(rest, numbers)
    assert copied == whole
    assert copied.model_fields_set == whole.model_fields_set
    origins = [[(path, n, n.kind, n.source) for path, n in one.leaves()] for one in (copied, whole)]
    assert origins[0] == origins[1]


@pytest.mark.parametrize(
    "wrong", ["workload.batch=0", "workload.batch=1.5", "workload.batch=-3", "workload.prompt=010"]
)
def test_what_is_no_count_is_left_to_the_file(wrong: str) -> None:
    assert apart_of((wrong,)) == ((wrong,), {})


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
