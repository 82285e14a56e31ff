"""Graphs executed on real numbers: equal to transformers modules, and refused where a dimension is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from effsim.architectures.build import Step, build_graph
from effsim.errors import DataError, EffsimError, UnsupportedError
from effsim.graph.graph import Graph, Node, Value
from effsim.graph.operators import Attention, Linear
from effsim.importers.huggingface import load_architecture
from effsim.spec.catalogue import names
from effsim.transforms.fusion import fuse_residual_norm
from effsim.validation.interpreter.call import Constants
from effsim.validation.interpreter.run import Interpreter, Session
from effsim.validation.interpreter.values import Values

pytest.importorskip("torch")
pytest.importorskip("transformers")

from effsim.validation.interpreter.reference import CASES, Case, cuts, row_error
from effsim.validation.interpreter.report import InterpreterReport, Judge, compare, validate_interpreter
from effsim.validation.interpreter.weights import named_weights

REQUIRED = ("llama", "mixtral", "mamba", "mamba2")


@pytest.fixture(scope="module")
def judges() -> dict[str, Judge]:
    return {}


def judge(judges: dict[str, Judge], case: Case) -> Judge:
    if case.name not in judges:
        judges[case.name] = Judge.of(case)
    return judges[case.name]


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_graph_computes_what_the_module_computes(judges: dict[str, Judge], case: Case) -> None:
    row = compare(judge(judges, case))
    assert row.passed, row.complaint()
    # Errors are float32's: not zero, and an order below what float32 could explain.
    assert 1e-8 < max(row.prefill_error, row.decode_error) < row.bound / 3
    assert row.flops_run == pytest.approx(row.flops_graph, rel=1e-12)


def test_the_required_models_are_there() -> None:
    assert {case.name for case in CASES} >= set(REQUIRED)
    llama = case_of("llama").config
    assert llama["num_key_value_heads"] < llama["num_attention_heads"]


def ready(judge: Judge) -> tuple[Interpreter, Graph, np.ndarray]:
    """The interpreter before the prompt, and the graph of the prompt."""
    reference = judge.reference
    weights = named_weights(reference.spec, reference.case.model_type, reference.state())
    prompt = reference.tokens[:, : reference.case.prompt]
    step = Step("context", 2, prompt.shape[1], prompt.shape[1], "fp32", logit_tokens=prompt.shape[1], sampling=False)
    return Interpreter(weights, reference.case.constants, 2), build_graph(reference.spec, step), prompt


def prompt_error(judge: Judge, change: Callable[[Graph], Graph]) -> float:
    interpreter, graph, prompt = ready(judge)
    logits = interpreter.run(change(graph), prompt).get("logits").reshape(2, prompt.shape[1], -1)
    return row_error(logits, judge.logits[:, : prompt.shape[1]])


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("change", [fuse_residual_norm, Graph.unfold], ids=["fused", "unfolded"])
def test_transformed_graph_computes_the_same(
    judges: dict[str, Judge], name: str, change: Callable[[Graph], Graph]
) -> None:
    found = judge(judges, case_of(name))
    if change is Graph.unfold:
        interpreter, graph, prompt = ready(found)
        one = interpreter.run(graph, prompt).get("logits")
        other = ready(found)[0].run(graph.unfold(), prompt).get("logits")
        assert np.array_equal(one, other)
    else:
        assert prompt_error(found, change) < 1e-5


def with_op(name: str, **changes: object) -> Callable[[Graph], Graph]:
    """A graph in which the operator called *name* has other dimensions."""

    def change(node: Node) -> tuple[Node, ...]:
        return (replace(node, op=replace(node.op, **changes)) if node.name == name else node,)

    return lambda graph: graph.map(change)


WRONG = {
    "grouped heads": with_op("attention", kv_heads=4),
    "keys": with_op("attention", kv_len=12),
    "head width": with_op("attention", head_dim=16),
    "no cache": with_op("attention", cached=False),
    "window": with_op("attention", window=4),
    "projection": with_op("qkv_proj", n=12 * 12),
    "inner width": with_op("out_proj", k=32),
    "tokens": with_op("gate_up_proj", m=21),
    "bias": with_op("down_proj", bias=True),
    "appended": with_op("kv_append", tokens=20),
    "appended width": with_op("kv_append", width=96),
    "turned": with_op("rope", cols=6 * 10),
    "norm": with_op("input_norm", parameter_cols=0),
    "vocabulary": with_op("embedding", vocabulary=60),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_dimension_is_noticed(judges: dict[str, Judge], wrong: str) -> None:
    try:
        error = prompt_error(judge(judges, case_of("llama")), WRONG[wrong])
    except (EffsimError, ValueError):
        return
    assert error > 1e-3, f"{wrong}: executed, and equal to the module"


def test_forgotten_node_is_noticed(judges: dict[str, Judge]) -> None:
    found = judge(judges, case_of("llama"))
    for name in ("rope", "attention_residual", "post_norm", "activation", "out_proj", "kv_append"):
        forget = lambda graph, name=name: graph.map(lambda node: () if node.name == name else (node,))  # noqa: E731
        try:
            assert prompt_error(found, forget) > 1e-3, name
        except EffsimError:
            continue


def test_weights_that_nothing_reads_are_reported(judges: dict[str, Judge], monkeypatch: pytest.MonkeyPatch) -> None:
    from effsim.validation.interpreter import report

    found = judge(judges, case_of("llama"))
    more = lambda *args: named_weights(*args) | {"layers.0.q_bias": {"bias": np.zeros(3)}}  # noqa: E731
    monkeypatch.setattr(report, "named_weights", more)
    row = compare(found)
    assert row.unread_weights == ("layers.0.q_bias",)
    assert not row.passed


def test_report_names_what_fails(judges: dict[str, Judge]) -> None:
    row = compare(judge(judges, case_of("llama")))
    bad = InterpreterReport((row, replace(row, model="bad", decode_error=float("nan"))))
    assert bad.failures() == [replace(row, model="bad", decode_error=float("nan")).complaint()]
    assert bad.as_dict()["rows"][0]["passed"]
    assert "| bad |" in bad.markdown()
    assert replace(row, flops_run=row.flops_graph + 2).passed is False


def test_public_entry_runs_what_it_is_given() -> None:
    report = validate_interpreter([replace(case_of("llama"), prompt=3, generated=1)])
    assert report.failures() == []
    assert len(report.rows) == 1


def test_session_keeps_the_cache_between_steps(judges: dict[str, Judge]) -> None:
    found = judge(judges, case_of("llama"))
    reference = found.reference
    weights = named_weights(reference.spec, "llama", reference.state())
    session = Session(reference.spec, weights, reference.case.constants, 2)
    for first, last in cuts(reference.case):
        session.step(reference.tokens[:, first:last], "generation" if first else "context")
    total = reference.tokens.shape[1]
    caches = [s["cache"].shape for s in session.interpreter.states.values() if "cache" in s]
    assert caches == [(2, total, 2 * 2 * 12)] * 3
    graph = build_graph(reference.spec, Step("generation", 2, 1, total, "fp32"))
    assert graph.cache_bytes == sum(4 * np.prod(shape) for shape in caches)


def test_graph_without_data_flow_is_refused() -> None:
    graph = build_graph(load_architecture("zamba_7b"), Step("generation", 1, 1, 1, "fp32"))
    bare = Graph("bare", tuple(replace(item, inputs=(), outputs=()) for item in graph.items if isinstance(item, Node)))
    with pytest.raises(UnsupportedError, match="does not record"):
        Interpreter({}, Constants(), 1).run(bare, [[0]])


BUNDLED = [name for name in names("architectures") if name != "zamba_7b" and not load_architecture(name).encoder]


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_graph_records_its_data_flow(name: str) -> None:
    spec = load_architecture(name)
    for step in (Step("context", 2, 4, 6), Step("generation", 2, 1, 9), Step("training", 2, 4, 4)):
        written = {"tokens", "positions"}
        for path, node, _ in build_graph(spec, step).walk():
            assert node.outputs, path
            assert {value.name for value in node.inputs} <= written, f"{path} reads what no node wrote"
            written |= {value.name for value in node.outputs}
            op = node.op
            if isinstance(op, Linear):
                assert sum(v.columns for v in node.inputs) == op.k, path
                assert sum(v.columns for v in node.outputs) == op.n, path
            elif isinstance(op, Attention):
                assert sum(v.columns for v in node.outputs) == op.heads * op.v_dim, path


def test_slices_are_read_and_written_in_place() -> None:
    values = Values(2)
    values.put("q", np.arange(24, dtype=np.float32).reshape(2, 12))
    tail = Value("q", 2, parts=3, start=2, of=4)
    assert values.read(tail).tolist() == [[2, 3, 6, 7, 10, 11], [14, 15, 18, 19, 22, 23]]
    values.write(tail, np.zeros((2, 6), np.float32))
    assert values.get("q")[0].tolist() == [0, 1, 0, 0, 4, 5, 0, 0, 8, 9, 0, 0]
    with pytest.raises(DataError, match="12 columns wide"):
        values.read(Value("q", 5, parts=2))
    with pytest.raises(DataError, match="no node wrote"):
        values.read(Value("k", 4))
