"""Parallel inference: bytes on the links, memory a device, work, and what is refused, against closed forms."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.errors import EffsimError, UnsupportedError
from effsim.graph.graph import Node
from effsim.graph.operators.attention import Attention, KVAppend, attended_pairs
from effsim.graph.operators.communication import Collective
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.moe import Experts
from effsim.program.memory import Capacity
from effsim.program.place import place
from effsim.program.program import Degrees, Program
from effsim.program.source import load_model
from effsim.spec.engine import EngineSpec
from effsim.spec.workload import Parallelism, WorkloadSpec

ENGINE = EngineSpec.model_validate(
    {"kind": "engine", "name": "e", "launch": "graph", "fused_pointwise": True, "fused_residual_norm": True}
)
LAYERS = 4
HIDDEN, VOCAB = 8192, 128256  # Llama 3 70B


@cache
def placed(model: str = "llama3_70b", devices: int = 64, **fields: Any) -> Program:
    fields = {name: dict(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    base = {"kind": "workload", "name": "w", "model": model, "task": "prefill", "batch": 8, "prompt": 4096}
    if model in ("llama3_70b", "mixtral_8x7b", "gpt3_175b", "qwen2_7b"):
        base["layers"] = LAYERS
    spec = WorkloadSpec.model_validate(base | {"precision": {"activations": "bf16"}} | fields)
    return place(spec, ENGINE, Capacity("test device", 1e15, 0.0, devices, 8))


def program(model: str = "llama3_70b", task: str = "prefill", parallelism: Any = None, **fields: Any) -> Program:
    return placed(model, task=task, parallelism=tuple(sorted((parallelism or {}).items())), **fields)


def nodes(p: Program) -> list[tuple[str, Node, int]]:
    return [(name, node, count) for _, name, node, count in p.phases[0].nodes()]


def collectives(p: Program, op: str = "") -> list[tuple[str, Collective, int]]:
    found = [(name, node.op, count) for name, node, count in nodes(p) if isinstance(node.op, Collective)]
    return [entry for entry in found if not op or entry[1].op == op]


def sent_bytes(p: Program) -> float:
    """Bytes that one rank sends at least in one execution."""
    return sum(op.wire_bytes * count for _, op, count in collectives(p))


def matrix(p: Program) -> float:
    """Matrix FLOPs of all devices in one step."""
    total = 0.0
    for phase in p.phases:
        for run, _, node, count in phase.nodes():
            times = run.times if run.work is None else run.work
            total += node.op.arithmetic().matrix * count * times * run.copies
    return total


# --- tensor and sequence ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["prefill", "decode"])
def test_one_device_sends_nothing(task: str) -> None:
    assert not collectives(program(task=task))
    assert not collectives(program(task=task, parallelism={"data": 4}))  # replicas of a dense model have nothing to say


@pytest.mark.parametrize("degree", [2, 4, 8])
def test_tensor_ranks_send_two_all_reduces_a_layer(degree: int) -> None:
    p = program(parallelism={"tensor": degree})
    rows, share = 8 * 4096 * HIDDEN * 2, (degree - 1) / degree
    expected = (2 * LAYERS + 1) * 2 * share * rows  # out_proj and down_proj, and the embedding
    assert sent_bytes(p) == pytest.approx(expected + share * 8 * VOCAB * 2)


@pytest.mark.parametrize("model", ["llama3_70b", "mixtral_8x7b", "gpt3_175b", "gemma2_9b"])
def test_sequence_parallelism_sends_the_same_in_two_halves(model: str) -> None:
    plain, divided = (program(model, parallelism={"tensor": 4, "sequence": s}) for s in (False, True))
    hidden = load_model(model).hidden
    ends = 3 / 4 * 8 * hidden * 2  # the last tokens' rows are gathered for the head, too
    last = 2 * 3 / 4 * 8 * 4096 * hidden * 2 / 2  # and the last block's sums are scattered only
    assert sent_bytes(divided) == pytest.approx(sent_bytes(plain) - last + ends, rel=1e-3)
    assert {op.op for _, op, _ in collectives(divided)} == {"reduce_scatter", "all_gather"}
    norms = {node.op.rows for name, node, _ in nodes(divided) if node.op.kind.endswith("norm") and "layers" in name}  # type: ignore[attr-defined]
    assert norms == {8 * 4096 // 4}
    assert matrix(divided) == pytest.approx(matrix(plain))


def test_sequence_parallelism_needs_the_data_flow() -> None:
    with pytest.raises(UnsupportedError, match=r"data flow of .* is not recorded"):
        placed("zamba_7b", parallelism=(("sequence", True), ("tensor", 2)))


@pytest.mark.parametrize(("degree", "heads"), [(1, 8), (4, 2), (8, 1), (16, 1), (32, 1)])
def test_more_devices_than_key_heads_copy_them(degree: int, heads: int) -> None:
    """Llama 3 70B has 64 query heads and 8 key heads of 128: every device has at least one of those, whole."""
    p = program(task="decode", parallelism={"tensor": degree}, generate=1)
    ops = {name.rpartition(".")[2]: node.op for name, node, _ in nodes(p)}
    projection, append, attention, rope = (ops[n] for n in ("qkv_proj", "kv_append", "attention", "rope"))
    assert isinstance(projection, Linear)
    assert projection.n == (64 // degree + 2 * heads) * 128
    assert isinstance(append, KVAppend)
    assert append.width == 2 * heads * 128
    assert isinstance(attention, Attention)
    assert attention.kv_heads == heads
    assert rope.cols == (64 // degree + heads) * 128  # type: ignore[attr-defined]
    assert p.memory.kv_cache_bytes == LAYERS * 8 * 4097 * 2 * heads * 128 * 2


def test_key_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="heads"):
        program("qwen2_7b", parallelism={"tensor": 3})


# --- context ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", ["all_gather", "ring"])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_context_ranks_share_the_work_of_a_prefill(ranks: int, exchange: str) -> None:
    alone, shared = program(), program(parallelism={"context": ranks, "context_exchange": exchange})
    head = 2.0 * 8 * HIDDEN * VOCAB  # logits of the last token: on every rank
    assert matrix(shared) - ranks * head == pytest.approx(matrix(alone) - head)
    pairs = sum(n.op.pairs * n.op.heads * count for _, n, count in nodes(shared) if isinstance(n.op, Attention))
    assert pairs * ranks == pytest.approx(LAYERS * 64 * attended_pairs(4096, 4096, causal=True, window=0))
    # Keys and values: all of them pass every rank, less its own.
    keys = 8 * 4096 * 8 * 2 * 128 * 2
    assert sent_bytes(shared) == pytest.approx(LAYERS * (ranks - 1) / ranks * keys)
    assert shared.memory.kv_cache_bytes * ranks == alone.memory.kv_cache_bytes
    assert shared.memory.weights_bytes == alone.memory.weights_bytes


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_context_ranks_divide_the_cached_keys(ranks: int) -> None:
    alone, shared = (program(task="decode", parallelism={"context": c}, prompt=8191, generate=1) for c in (1, ranks))
    (attention,) = [n.op for _, n, _ in nodes(shared) if isinstance(n.op, Attention)]
    assert attention.kv_len == 8192 // ranks
    assert shared.memory.kv_cache_bytes * ranks == alone.memory.kv_cache_bytes
    (append,) = [n.op for _, n, _ in nodes(shared) if isinstance(n.op, KVAppend)]
    assert append.tokens == 8 // ranks  # a new token's keys go to one rank
    # Sums of 64 heads in fp32 are gathered, results of 64 heads of 128 added up.
    expected = LAYERS * (ranks - 1) / ranks * (ranks * 8 * 64 * 4 + 2 * 8 * 64 * 128 * 2)
    assert sent_bytes(shared) == pytest.approx(expected)


def test_latents_are_gathered_before_they_are_expanded() -> None:
    p = placed("deepseek_v2_lite", parallelism=(("context", 4),), prompt=4096, batch=1)
    names = [name for name, _, _ in nodes(p)]
    gathered = next(i for i, name in enumerate(names) if name.endswith("keys_all_gather"))
    assert names[gathered + 1].endswith("kv_b_proj")
    (sizes,) = {op.payload_bytes for name, op, _ in collectives(p) if "keys" in name}
    assert sizes == 4096 * (512 + 64) * 2


@pytest.mark.parametrize(
    ("model", "parallelism", "message"),
    [
        ("mamba2_2_7b", {"context": 2}, "sequential along the tokens"),
        ("deepseek_v2_lite", {"context": 2, "context_exchange": "ring"}, "latent attention does not go around"),
        ("gemma2_9b", {"context": 2, "context_exchange": "ring"}, "a window does not go around"),
        ("llama3_70b", {"data": 16}, "batch of 8 cannot be divided over 16 data ranks"),
        ("llama3_70b", {"data": 4, "microbatches": 4}, "4 microbatches; expected at least 16"),
        ("llama3_70b", {"tensor": 2, "expert": 2}, "has no experts"),
        ("mixtral_8x7b", {"data": 16, "expert": 16, "tensor": 1}, "cannot be divided"),
        ("llama3_70b", {"pipeline": 16}, "cannot be cut into 16 pipeline stages"),
        ("llama3_70b", {"tensor": 8, "context": 16}, "asks for 128 devices"),
    ],
)
def test_impossible_parallelism_is_refused(model: str, parallelism: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"batch": 16} if parallelism.get("expert") == 16 else {}
    with pytest.raises(EffsimError, match=message):
        placed(model, parallelism=tuple(parallelism.items()), **fields)


@pytest.mark.parametrize("way", [{"context": 2}, {"tensor": 2, "sequence": True}, {"tensor": 2, "folded": False}])
def test_what_is_for_inference(way: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="for inference"):
        program(task="training_step", parallelism=way)


def test_short_prompts_are_not_cut_up() -> None:
    with pytest.raises(UnsupportedError, match="too short for 8 context ranks"):
        program(parallelism={"context": 8}, prompt=8)


# --- experts ----------------------------------------------------------------------------------------------------------

EXPERTS = [(1, 8, 8), (2, 4, 8), (4, 2, 8), (8, 1, 8), (4, 2, 4), (4, 2, 2), (2, 4, 4)]


@pytest.mark.parametrize(("tensor", "data", "expert"), EXPERTS)
def test_experts_over_tensor_and_data_ranks(tensor: int, data: int, expert: int) -> None:
    """Work, weights and bytes of Mixtral's experts wherever they are."""
    degrees = {"tensor": tensor, "data": data, "expert": expert}
    p = program("mixtral_8x7b", parallelism=degrees)
    (op,) = [n.op for _, n, _ in nodes(p) if isinstance(n.op, Experts)]
    spread = max(1, expert // tensor)
    assert op.weight_bytes == 8 * 3 * 4096 * 14336 * 2 / max(tensor, expert)
    tokens = 8 // data * 4096  # of one data rank
    assert op.assignments * op.intermediate == pytest.approx(tokens * spread * 2 * 14336 / max(tensor, expert))
    exchanges = collectives(p, "all_to_all")
    if spread == 1:
        assert not exchanges
    else:
        assert [op.devices for _, op, _ in exchanges] == [spread, spread]
        assert {op.stride for _, op, _ in exchanges} == {tensor}
        # Each of a token's two rows goes to one device of the spread; a tensor rank sends those of its counterparts.
        assert {op.payload_bytes for _, op, _ in exchanges} == {tokens * 2 * 4096 * 2 / tensor}
    assert len([c for c in collectives(p, "all_reduce") if "layers" in c[0]]) == (2 if tensor > 1 else 0)


@pytest.mark.parametrize("alpha", [0.3, 0.6, 1.0])
def test_the_most_popular_experts_set_the_pace(alpha: float) -> None:
    even, skewed = (
        program("mixtral_8x7b", parallelism={"data": 8, "expert": 8}, routing=routing)
        for routing in ("balanced", f"zipf_{alpha}")
    )
    (a,), (b,) = ([n.op for _, n, _ in nodes(p) if isinstance(n.op, Experts)] for p in (even, skewed))
    uneven = b.assignments / a.assignments
    assert 1.0 < uneven <= 4.0  # of two picks a token, one at most goes to one expert
    sizes = [collectives(p, "all_to_all")[0][1].payload_bytes for p in (even, skewed)]
    assert sizes[1] / sizes[0] == pytest.approx(uneven)


def test_shared_experts_and_routed_ones_reduce_once() -> None:
    p = placed("deepseek_v3", parallelism=(("tensor", 8), ("data", 2), ("expert", 16)), batch=8)
    reductions = [name for name, _, _ in collectives(p, "all_reduce") if "experts" in name]
    assert not reductions
    shared = [name for name, _, _ in collectives(p, "all_reduce") if "shared_down_proj" in name]
    assert shared


def test_wrong_expert_degrees() -> None:
    for fields in ({"tensor": 4, "expert": 3}, {"tensor": 2, "data": 3, "expert": 4}):
        with pytest.raises(ValueError, match="expected 1, tensor"):
            Parallelism.model_validate(fields)
    for fields in ({"tensor": 4, "expert": 2}, {"tensor": 2, "data": 4, "expert": 4}):
        Parallelism.model_validate(fields)


# --- data, pipeline, combinations -------------------------------------------------------------------------------------


def test_ranks_are_laid_out_tensor_first() -> None:
    degrees = Degrees(tensor=2, context=2, data=2, pipeline=2)
    assert (degrees.devices, degrees.stage_devices) == (16, 8)
    p = program(parallelism={"tensor": 2, "context": 2, "data": 2, "pipeline": 2, "microbatches": 2})
    strides = {name.rpartition(".")[2]: (op.devices, op.stride, op.groups) for name, op, _ in collectives(p)}
    assert strides["out_proj_all_reduce"] == (2, 1, 4)
    assert strides["attention_keys_all_gather"] == (2, 2, 4)
    assert strides["stage_send_0"] == (2, 8, 8)


@pytest.mark.parametrize(
    "parallelism",
    [
        {"pipeline": 2, "microbatches": 2},
        {"pipeline": 4, "tensor": 2, "microbatches": 4},
        {"data": 2, "pipeline": 2},
        {"data": 4, "tensor": 2},
        {"data": 2, "tensor": 2, "pipeline": 2, "microbatches": 4},
    ],
)
@pytest.mark.parametrize("task", ["prefill", "decode"])
def test_no_work_is_lost_or_done_twice(parallelism: dict[str, int], task: str) -> None:
    assert matrix(program(task=task, parallelism=parallelism)) == pytest.approx(matrix(program(task=task)))


def test_stages_hand_on_the_residual_stream() -> None:
    p = program(parallelism={"pipeline": 4, "microbatches": 2})
    sends = [(name, op) for name, op, _ in collectives(p, "send_recv")]
    assert [name for name, _ in sends] == ["stage_send_0", "stage_send_1", "stage_send_2"]
    assert {op.payload_bytes for _, op in sends} == {4 * 4096 * HIDDEN * 2}
    (run,) = p.phases[0].executions
    assert [sum(isinstance(n.op, Collective) for _, n, _ in stage.walk()) for stage in run.stages] == [1, 1, 1, 0]
    whole = {name: count for name, _, count in run.graph.walk()}
    parts = dict.fromkeys(whole, 0)
    for stage in run.stages:
        for name, _, count in stage.walk():
            parts[name] += count
    assert parts == whole


@pytest.mark.parametrize("task", ["prefill", "training_step"])
def test_stages_hand_on_what_a_rank_holds(task: str) -> None:
    """With sequence parallelism every tensor rank has, and sends, its share of the tokens."""
    whole = 8 * 4096 * HIDDEN * 2
    for divided, share in ((False, 1), (True, 4)):
        fields: dict[str, Any] = {"training": (("sequence_parallel", divided),)} if task == "training_step" else {}
        ways = {"tensor": 4, "pipeline": 2} | ({"sequence": divided} if task == "prefill" else {})
        sends = collectives(program(task=task, parallelism=ways, **fields), "send_recv")
        assert sends
        assert {op.payload_bytes for _, op, _ in sends} == {whole / share}


def test_only_messages_that_leave_a_node_are_priced_outside() -> None:
    """Four stages of four devices, two a node of eight: the middle one of three messages leaves."""
    sends = collectives(program(parallelism={"tensor": 4, "pipeline": 4}), "send_recv")
    assert [(op.devices, op.stride, op.groups) for _, op, _ in sends] == [(2, 4, 4), (2, 8, 4), (2, 4, 4)]


def test_stages_without_a_residual_stream_are_refused() -> None:
    linear = {"name": "p", "kind": "linear", "dimensions": {"m": 64, "n": 64, "k": 64, "dtype": "bf16"}}
    fields = {"model": None, "task": "operators", "operators": [{"name": "b", "repeat": 4, "operators": [linear]}]}
    base = {"kind": "workload", "name": "w", "batch": 1, "parallelism": {"pipeline": 2}}
    with pytest.raises(UnsupportedError, match="no residual addition"):
        place(WorkloadSpec.model_validate(base | fields), ENGINE, Capacity("test device", 1e15, 0.0, 64, 8))


@pytest.mark.parametrize("way", [{"tensor": 8, "data": 8}, {"tensor": 4, "data": 8, "pipeline": 2}])
def test_groups_of_a_training_step_run_at_once(way: dict[str, int]) -> None:
    """All tensor ranks' gradients are reduced at the same time, by the algorithm that is asked for."""
    p = program(task="training_step", parallelism=way | {"collectives": "ring"})
    gradients = [op for name, op, _ in collectives(p, "all_reduce") if "gradient" in name]
    assert gradients
    assert {(op.devices, op.stride, op.groups, op.algorithm) for op in gradients} == {
        (8, way["tensor"], way["tensor"], "ring")
    }


combinations = st.fixed_dictionaries(
    {
        "tensor": st.sampled_from([1, 2, 4, 8, 16]),
        "context": st.sampled_from([1, 2, 4]),
        "data": st.sampled_from([1, 2, 4]),
        "pipeline": st.sampled_from([1, 2, 4]),
        "sequence": st.booleans(),
    }
)


@settings(max_examples=25, deadline=None)
@given(combinations, st.sampled_from(["prefill", "decode"]))
def test_any_combination_holds_its_share(parallelism: dict[str, Any], task: str) -> None:
    """Weights divide over tensor ranks and stages; caches over all ranks, key heads copied where they are too few."""
    whole, part = program(task=task), placed(devices=4096, task=task, parallelism=tuple(sorted(parallelism.items())))
    tensor, stages = parallelism["tensor"], parallelism["pipeline"]
    copies = max(1, tensor // 8)
    ranks = part.devices
    cache = whole.memory.kv_cache_bytes * copies / ranks
    held = part.memory.kv_cache_bytes / cache
    # The 4097th key is rounded up on context ranks; stages are cut where weights and caches together are even.
    assert 1.0 - 1e-9 <= held <= (1.002 if stages == 1 else 2.002)
    weights = part.memory.weights_bytes
    assert weights * tensor * stages >= whole.memory.weights_bytes * (1 - 1e-9)
    assert weights <= whole.memory.weights_bytes / tensor * (1.1 + 0.1 * (copies - 1))
    assert part.phases[0].tokens == whole.phases[0].tokens
