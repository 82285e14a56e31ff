"""FLOPs, bytes and parameters of every operator against naive enumerations."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import attentions, operators

from effsim.errors import UnsupportedError
from effsim.graph.dtypes import DTYPE_NAMES, dtype, size_of
from effsim.graph.operator import Operator, Role
from effsim.graph.operators.attention import Attention, KVAppend, LatentAttention, attended_pairs
from effsim.graph.operators.communication import Collective, HostTransfer, OptimizerStep
from effsim.graph.operators.convolution import CausalConv1d, Conv2d, FFTConv
from effsim.graph.operators.embedding import CrossEntropy, Embedding, Sampling
from effsim.graph.operators.linear import BatchedMatmul, Linear, weight_storage
from effsim.graph.operators.moe import Experts, TopK, expected_distinct_experts
from effsim.graph.operators.pointwise import RECIPES, Pointwise
from effsim.graph.operators.scan import GatedDelta, SelectiveScan, SSDScan
from effsim.spec.hardware import DTypeName

SMALL = st.integers(1, 12)


def role(op: Operator, which: Role) -> float:
    return op.bytes_by_role().get(which, 0.0)


def read_and_written(op: Operator) -> tuple[float, float]:
    return (
        sum(a.bytes_moved for a in op.accesses() if not a.write),
        sum(a.bytes_moved for a in op.accesses() if a.write),
    )


@given(operators())
def test_costs_of_every_operator_are_sane(op: Operator) -> None:
    work = op.arithmetic()
    assert min(work.matrix, work.vector, work.special, work.integer) >= 0
    assert all(a.bytes_moved >= 0 for a in op.accesses())
    assert math.isclose(op.bytes_moved, sum(op.bytes_by_role().values()))
    assert math.isfinite(op.flops)
    assert (op.weight_bytes > 0) == (op.parameters > 0)
    assert op.output_bytes > 0 or isinstance(op, KVAppend)
    assert hash(op) == hash(type(op)(**op.dimensions()))


# --- word sizes -------------------------------------------------------------------------------------------------------


def test_word_sizes_are_those_of_storage() -> None:
    assert [size_of(n) for n in ("fp64", "fp32", "fp16", "bf16", "fp8", "int8", "int4", "fp4", "int2", "int1")] == [
        8,
        4,
        2,
        2,
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.125,
    ]
    assert size_of("tf32") == 4.0  # 19 bits of arithmetic, 32 bits of storage


def test_hardware_files_and_graph_know_the_same_types() -> None:
    assert set(DTypeName.__args__) == set(DTYPE_NAMES)


@pytest.mark.parametrize("kind", ["linear", "attention", "moe", "pointwise", "kv"])
def test_half_the_word_is_half_the_bytes(kind: str) -> None:
    def build(name: str) -> Operator:
        return {
            "linear": Linear(5, 7, 9, name),
            "attention": Attention("generation", 2, 1, 33, 8, 2, 16, name),
            "moe": Experts(3, 8, 16, 4, 2, name),
            "pointwise": Pointwise("silu_mul", 4, 6, name),
            "kv": KVAppend(3, 8, name),
        }[kind]

    fp32, tf32, fp16, fp8 = (build(n) for n in ("fp32", "tf32", "fp16", "fp8"))
    assert fp32.bytes_moved == tf32.bytes_moved == 2 * fp16.bytes_moved == 4 * fp8.bytes_moved
    assert fp32.flops == fp8.flops


def test_unknown_type_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(UnsupportedError, match=r"fp16.*int4.*did you mean 'bfloat16'"):
        dtype("bfloat15")


# --- products ---------------------------------------------------------------------------------------------------------


@given(SMALL, SMALL, SMALL)
def test_linear_against_loops(m: int, n: int, k: int) -> None:
    op = Linear(m, n, k, "fp16", bias=True)
    flops, touched = 0, set()
    for i, j, p in itertools.product(range(m), range(n), range(k)):
        flops += 2
        touched |= {("x", i, p), ("w", j, p), ("y", i, j)}
    assert op.flops == flops
    weights = sum(t[0] == "w" for t in touched)
    assert op.parameters == weights + n
    assert op.bytes_moved == 2 * (len(touched) + n)
    assert role(op, Role.WEIGHT) == op.weight_bytes == 2 * (weights + n)


def test_int4_weights_with_group_scales() -> None:
    # 4096 × 4096 / 2 B of weights and one fp16 scale for every 128 of them.
    assert weight_storage(4096 * 4096, "int4", 128) == 4096 * 4096 / 2 + 4096 * 4096 / 128 * 2
    op = Linear(1, 4096, 4096, "fp16", "int4", 128)
    assert op.weight_bytes == 8_650_752
    assert op.parameters == 4096 * 4096
    assert op.input_bytes == op.output_bytes == 4096 * 2  # activations keep their own type
    assert op.weight_only
    assert not Linear(1, 4, 4, "fp8", "fp8").weight_only


def test_linear_backward_is_twice_the_forward() -> None:
    op = Linear(6, 10, 4, "bf16")
    parts = op.backward()
    assert sum(p.flops for p in parts) == 2 * op.flops
    gradient = [p for p in parts if role(p, Role.GRADIENT)]
    assert len(gradient) == 1
    assert role(gradient[0], Role.GRADIENT) == op.weight_bytes
    batched = BatchedMatmul(3, 4, 5, 6)
    assert sum(p.flops for p in batched.backward()) == 2 * batched.flops


@given(SMALL, SMALL, SMALL, SMALL)
def test_batched_matmul(batch: int, m: int, n: int, k: int) -> None:
    op, one = BatchedMatmul(batch, m, n, k), BatchedMatmul(1, m, n, k)
    assert op.flops == batch * one.flops == 2 * batch * m * n * k
    assert op.bytes_moved == batch * one.bytes_moved == 2 * batch * (m * k + k * n + m * n)
    assert op.parameters == 0


# --- attention --------------------------------------------------------------------------------------------------------


def mask(q_len: int, kv_len: int, window: int) -> list[list[bool]]:
    """A causal mask, the last query at the last key; ``window`` keys a query, its own included."""
    rows = []
    for q in range(q_len):
        own = kv_len - q_len + q
        rows.append([key <= own and (not window or own - key < window) for key in range(kv_len)])
    return rows


@settings(max_examples=100)
@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 25))
def test_attended_pairs_against_the_mask(q_len: int, prefix: int, window: int) -> None:
    kv_len = q_len + prefix
    allowed = mask(q_len, kv_len, window)
    assert attended_pairs(q_len, kv_len, True, window) == sum(map(sum, allowed))
    assert attended_pairs(q_len, kv_len, False, 0) == q_len * kv_len
    op = Attention("context", 1, q_len, kv_len, 1, 1, 8, window=window)
    assert op.keys_read == sum(any(column) for column in zip(*allowed, strict=True))


@given(attentions(fused=True))
def test_attention_counts_keys_per_kv_head(op: Attention) -> None:
    # q and o once a query head; k and v once a *kv* head (not once a query head).
    q_and_o = 2 * op.batch * op.q_len * op.heads * op.head_dim * 2
    k_and_v = 2 * op.batch * op.keys_read * op.kv_heads * op.head_dim * 2
    assert op.bytes_moved == q_and_o + k_and_v
    assert role(op, Role.KV_CACHE) == k_and_v
    assert op.flops == 4 * op.batch * op.heads * op.pairs * op.head_dim
    assert op.arithmetic().special == op.batch * op.heads * op.pairs  # one exponential a score


def test_grouped_keys_shrink_the_cache_not_the_flops() -> None:
    full, grouped, single = (Attention("generation", 3, 1, 4096, 64, kv, 128) for kv in (64, 8, 1))
    assert full.flops == grouped.flops == single.flops
    assert full.cache_bytes == 8 * grouped.cache_bytes == 64 * single.cache_bytes
    assert grouped.cache_bytes == 2 * 3 * 4096 * 8 * 128 * 2
    eight_bit = Attention("generation", 3, 1, 4096, 64, 8, 128, kv_dtype="fp8")
    assert eight_bit.cache_bytes == grouped.cache_bytes / 2
    assert eight_bit.kv_bytes == grouped.kv_bytes / 2


def test_window_bounds_traffic_and_cache() -> None:
    op = Attention("generation", 1, 1, 10_000, 8, 8, 64, window=1024)
    assert op.cache_bytes == op.kv_bytes == 2 * 1024 * 8 * 64 * 2
    assert op.flops == 4 * 8 * 1024 * 64


def test_unfused_attention_moves_its_scores_four_times() -> None:
    fused, plain = (Attention("context", 2, 16, 16, 4, 4, 8, fused=f) for f in (True, False))
    assert plain.bytes_moved - fused.bytes_moved == 4 * 2 * 4 * 16 * 16 * 2
    assert plain.flops == fused.flops


def test_attention_backward_has_five_products() -> None:
    op = Attention("context", 2, 64, 64, 8, 8, 32)
    (back,) = op.backward()
    assert back.flops == 2.5 * op.flops


def test_latent_cache_is_shared_by_all_heads() -> None:
    # DeepSeek-V3: 512 + 64 numbers a token and layer whatever the number of heads.
    op = LatentAttention("generation", 1, 1, 4096, 128, 512, 64, "bf16")
    assert op.cache_bytes == 4096 * 576 * 2
    assert op.split("heads", 8).cache_bytes == op.cache_bytes
    # Absorbed: scores over 576 wide keys, values of 512, read once.
    assert op.flops == 2 * 128 * 4096 * (576 + 512)
    assert role(op, Role.KV_CACHE) == op.cache_bytes
    expanded = LatentAttention("context", 1, 32, 32, 128, 512, 64, "bf16", nope_dim=128, v_dim=128)
    assert expanded.flops == 2 * 128 * (32 * 33 // 2) * (192 + 128)


def test_kv_append_writes_what_the_cache_grows_by() -> None:
    old, new = (Attention("generation", 5, 1, n, 32, 4, 128) for n in (99, 100))
    append = KVAppend(5, 2 * 4 * 128)
    assert role(append, Role.KV_CACHE) == new.cache_bytes - old.cache_bytes


# --- experts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 4, 1), (2, 4, 2), (3, 4, 2), (4, 3, 1), (2, 6, 3)])
def test_distinct_experts_against_enumeration(tokens: int, experts: int, top_k: int) -> None:
    picks = list(itertools.combinations(range(experts), top_k))
    total = sum(len(set().union(*choice)) for choice in itertools.product(picks, repeat=tokens))
    exact = total / len(picks) ** tokens
    assert expected_distinct_experts(tokens, experts, top_k) == pytest.approx(exact, rel=1e-12)
    assert Experts(tokens, 8, 8, experts, top_k).active_experts == pytest.approx(exact, rel=1e-12)


def test_distinct_experts_against_sampling() -> None:
    rng, tokens, experts, top_k, trials = random.Random(7), 40, 64, 6, 2000
    seen = [len({e for _ in range(tokens) for e in rng.sample(range(experts), top_k)}) for _ in range(trials)]
    mean = sum(seen) / trials
    spread = math.sqrt(sum((s - mean) ** 2 for s in seen) / trials / trials)
    assert abs(expected_distinct_experts(tokens, experts, top_k) - mean) < 4 * spread


def test_capacity_counts_all_experts_traffic_the_expected_distinct() -> None:
    op = Experts(4, 16, 32, 8, 2, "bf16")
    one = 3 * 16 * 32
    assert op.parameters == 8 * one
    assert op.weight_bytes == 8 * one * 2
    assert role(op, Role.WEIGHT) == pytest.approx(8 * (1 - 0.75**4) * one * 2)
    assert op.flops == 2 * 4 * 2 * one  # only routed tokens work
    assert Experts(4, 16, 32, 8, 2, gated=False).parameters == 8 * 2 * 16 * 32


def test_skewed_routing_uses_fewer_experts() -> None:
    flat, skewed = (Experts(32, 8, 8, 64, 4, distribution=d) for d in ("uniform", "power_law_1.2"))
    assert sum(flat.pick_probabilities()) == pytest.approx(4)
    assert sum(skewed.pick_probabilities()) == pytest.approx(4)
    assert max(skewed.pick_probabilities()) <= 1.0
    assert skewed.active_experts < flat.active_experts
    with pytest.raises(UnsupportedError, match="power_law"):
        Experts(1, 8, 8, 4, 1, distribution="lognormal").pick_probabilities()


# --- scans and convolutions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "chunk", "groups"), [(8, 4, 1), (12, 4, 2), (4, 8, 1)])
def test_ssd_products_against_loops(length: int, chunk: int, groups: int) -> None:
    batch, heads, width, state = 2, 4, 3, 5
    op = SSDScan(batch, length, heads, width, state, groups, chunk)
    flops, block = 0, min(chunk, length)
    for _ in range(batch * (length // block)):
        flops += groups * block * block * state * 2  # C·Bᵀ
        flops += heads * block * block * width * 2  # scores times x
        flops += heads * block * width * state * 2  # chunk states
        flops += heads * block * width * state * 2  # output from the carried state
    assert op.flops == flops
    assert op.state_bytes == batch * heads * width * state * 4
    assert SSDScan(batch, 1, heads, width, state).state_bytes == op.state_bytes


@pytest.mark.parametrize(("length", "chunk"), [(8, 4), (4, 8)])
def test_gated_delta_products_against_loops(length: int, chunk: int) -> None:
    batch, heads, dk, dv = 2, 3, 4, 6
    op = GatedDelta(batch, length, heads, dk, dv, chunk)
    c, flops = min(chunk, length), 0
    for _ in range(batch * heads * (length // c)):
        flops += 2 * c * c * dk * 2  # K·Kᵀ and Q·Kᵀ
        flops += c * c * (dk + dv) * 2  # the inverse times K and V
        flops += c * c * dv * 2  # scores times corrected values
        flops += 3 * c * dk * dv * 2  # state into values, into outputs, and its update
    assert op.flops == flops
    assert op.state_bytes == batch * heads * dk * dv * 4


def test_selective_scan_against_loops() -> None:
    batch, length, channels, state = 2, 5, 3, 4
    op = SelectiveScan(batch, length, channels, state)
    vector = special = 0
    for _ in range(batch * length * channels):
        vector += 7 * state + 8
        special += state + 4
    assert (op.arithmetic().vector, op.arithmetic().special) == (vector, special)
    assert op.parameters == channels * state + channels
    read, written = read_and_written(op)
    states = batch * channels * state * 4
    assert written == batch * length * channels * 2 + states
    assert read == batch * length * (3 * channels + 2 * state) * 2 + op.weight_bytes + states
    longer = SelectiveScan(batch, 500, channels, state)
    assert longer.state_bytes == op.state_bytes == states


@given(
    st.integers(1, 2),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 1),
    st.sampled_from([1, 2]),
)
def test_conv2d_against_loops(b: int, h: int, w: int, kernel: int, stride: int, padding: int, groups: int) -> None:
    assume(padding < kernel <= min(h, w) + 2 * padding)
    c_in, c_out = 2, 4
    op = Conv2d(b, h, w, c_in, c_out, kernel, stride, padding, groups)
    flops, rows, columns = 0, set(), set()
    for y in range(0, h + 2 * padding - kernel + 1, stride):
        for x in range(0, w + 2 * padding - kernel + 1, stride):
            flops += 2 * b * c_out * (c_in // groups) * kernel**2
            rows |= {y + i - padding for i in range(kernel)} & set(range(h))
            columns |= {x + i - padding for i in range(kernel)} & set(range(w))
    assert op.flops == flops
    assert op.parameters == c_out * (c_in // groups) * kernel**2
    # Rows and columns that no output looks at need not be read; padding and remainders are at most a kernel wide.
    needed, counted = b * len(rows) * len(columns) * c_in * 2, op.input_bytes
    assert needed <= counted <= b * min(h, len(rows) + kernel) * min(w, len(columns) + kernel) * c_in * 2


def test_conv1d_and_fft_conv() -> None:
    op = CausalConv1d(2, 10, 6, 4)
    assert op.flops == 2 * 2 * 10 * 6 * 4
    assert op.state_bytes == 2 * 6 * 3 * 2
    assert op.parameters == 6 * 5
    long = FFTConv(3, 8, 5)
    assert long.points == 16  # linear convolution of 8 with 8 needs 15, the next power of two is 16
    one = 2.5 * 16 * 4
    assert long.flops == (2 * 3 * 5 + 5) * one + 3 * 5 * 6 * 8  # 6 FLOP for each of 8 complex products


# --- ends, row-wise, movement -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_pointwise_recipes(name: str) -> None:
    op = Pointwise(name, 3, 8, "fp16")
    read, written = read_and_written(op)
    r = RECIPES[name]
    assert written == (r.writes * 24 + r.row_writes * 3) * 2
    assert read == r.reads * 24 * 2 + r.parameters * 8 * 2
    assert op.parameters == r.parameters * 8
    back = op.backward()[0]
    assert back.flops == 2 * op.flops


def test_embedding_touches_rows_and_owns_the_table() -> None:
    op = Embedding(7, 1000, 16)
    assert (op.parameters, op.flops) == (16_000, 0)
    assert read_and_written(op) == (7 * 32, 7 * 32)
    assert read_and_written(Embedding(5000, 1000, 16))[0] == 1000 * 32  # never more than the table
    assert Sampling(3, 100).bytes_moved == 3 * 100 * 4 + 3 * 4
    assert CrossEntropy(3, 100).bytes_moved == 2 * 3 * 100 * 4
    assert TopK(5, 8, 2).bytes_moved == 5 * 8 * 4 + 5 * 2 * 8


def test_optimizer_reads_and_writes_its_states() -> None:
    adam = OptimizerStep(10, 3, "bf16", gradient_dtype="fp32")
    assert role(adam, Role.OPTIMIZER) == 2 * 3 * 4 * 10
    assert role(adam, Role.GRADIENT) == 40
    assert role(adam, Role.WEIGHT) == 20


def test_wire_bytes_of_collectives() -> None:
    assert Collective("all_reduce", 800, 8).wire_bytes == 2 * 7 / 8 * 800
    assert Collective("all_gather", 800, 8).wire_bytes == Collective("reduce_scatter", 800, 8).wire_bytes == 700
    assert Collective("all_to_all", 800, 8).wire_bytes == 700
    assert Collective("all_reduce", 800, 1).wire_bytes == 0
    assert HostTransfer(10).bytes_moved == 10


# --- division over devices --------------------------------------------------------------------------------------------

DIVISIBLE: list[tuple[Operator, str]] = [
    (Linear(6, 64, 48, "fp16", "int4", 8), "column"),
    (Linear(6, 64, 48), "row"),
    (Linear(64, 7, 9), "tokens"),
    (BatchedMatmul(16, 3, 4, 5), "heads"),
    (Attention("generation", 2, 1, 100, 64, 8, 16), "heads"),
    (Attention("context", 8, 32, 32, 4, 4, 16), "batch"),
    (LatentAttention("generation", 2, 1, 100, 64, 512, 64), "heads"),
    (Experts(16, 32, 64, 8, 2), "tensor"),
    (Experts(16, 32, 64, 8, 2), "expert"),
    (Pointwise("silu_mul", 6, 64), "column"),
    (Pointwise("add", 64, 6), "tokens"),
    (SelectiveScan(2, 10, 64, 16), "column"),
    (SSDScan(2, 64, 32, 8, 16, 8, 16), "heads"),
    (GatedDelta(2, 64, 32, 8, 8, 16), "heads"),
    (CausalConv1d(2, 10, 64), "column"),
    (FFTConv(2, 16, 64), "column"),
    (Embedding(5, 64, 8), "vocab"),
    (CrossEntropy(5, 64), "vocab"),
    (TopK(64, 8, 2), "tokens"),
    (KVAppend(5, 64), "heads"),
]


@pytest.mark.parametrize("degree", [1, 2, 4, 8])
@pytest.mark.parametrize(("op", "axis"), DIVISIBLE, ids=lambda v: getattr(v, "kind", v))
def test_shares_add_up_to_the_whole(op: Operator, axis: str, degree: int) -> None:
    share = op.split(axis, degree)
    assert share.flops * degree == pytest.approx(op.flops)
    divided_weights = axis in ("column", "row", "heads", "tensor", "expert", "vocab")
    if op.parameters and divided_weights:
        assert share.parameters * degree == op.parameters
        assert share.weight_bytes * degree == pytest.approx(op.weight_bytes)
    if not isinstance(op, LatentAttention):
        assert share.cache_bytes * degree == op.cache_bytes
        assert share.state_bytes * degree == op.state_bytes


def test_kv_heads_are_copied_where_there_are_too_few() -> None:
    op = Attention("generation", 1, 1, 1000, 64, 2, 128)
    share = op.split("heads", 8)
    assert (share.heads, share.kv_heads) == (8, 1)
    assert share.flops * 8 == op.flops
    assert share.cache_bytes * 8 == 4 * op.cache_bytes  # each head lives on four devices


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Attention("training", 1, 1, 1, 1, 1, 1), "expected context or generation"),
        (lambda: LatentAttention("prefill", 1, 1, 1, 1, 1, 1), "expected context or generation"),
        (lambda: Attention("context", 1, 1, 1, 6, 4, 8), "6 heads is no multiple of 4 kv_heads"),
        (lambda: Attention("context", 1, 9, 8, 4, 4, 8), "q_len 9 exceeds kv_len 8"),
        (lambda: Experts(1, 8, 8, 4, 5), "top_k 5 exceeds the 4 experts"),
        (lambda: Linear(0, 1, 1), "m is 0; expected at least 1"),
        (lambda: Conv2d(1, 4, 4, 3, 4, 3, groups=2), "groups 2 does not divide"),
        (lambda: Conv2d(1, 2, 2, 1, 1, 5), "kernel 5 is larger"),
        (lambda: Pointwise("gleu", 1, 1), "did you mean"),
        (lambda: Collective("allreduce", 1, 2), "all_reduce"),
        (lambda: Attention("context", 1, 1, 1, 6, 6, 8).split("heads", 4), "6 heads cannot be divided over 4"),
        (lambda: Attention("context", 1, 1, 1, 12, 6, 8).split("heads", 4), "kv_heads do not divide"),
        (lambda: Experts(1, 8, 8, 6, 1).split("expert", 4), "6 experts cannot be divided"),
        (lambda: Linear(1, 1, 1).split("heads", 2), "expected column, row or tokens"),
        (lambda: Sampling(1, 8).split("vocab", 2), "cannot be split"),
        (lambda: Sampling(1, 8).backward(), "no backward"),
    ],
)
def test_impossible_operators_are_refused(build: object, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build()  # type: ignore[operator]
