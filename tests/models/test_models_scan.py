"""Selective scan and SSD, recurrent and chunked, against float64 recurrences that also carry an error bound.

The bound is the same recurrence on absolute values: every path from an input to an output passes through at most
``4 length + state + 16`` roundings, so its error is at most gamma of that times its magnitude.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import Float64Array, assert_within, few, gamma, normal

from effsim.models.activation import silu
from effsim.models.scan import selective_scan
from effsim.models.ssd import ssd_scan


def naive_mamba(u, delta, a, b, c, state) -> tuple[Float64Array, Float64Array]:
    u, delta, a, b, c, h = (np.asarray(x, np.float64) for x in (u, delta, a, b, c, state))
    h, y = h.copy(), np.zeros(u.shape)
    for t in range(u.shape[1]):
        step = delta[:, t, :, None]
        h = np.exp(step * a) * h + step * u[:, t, :, None] * b[:, t, None, :]
        y[:, t] = (h * c[:, t, None, :]).sum(axis=2)
    return y, h


def mamba_inputs(batch: int, length: int, channels: int, width: int, rate: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    delta = rng.uniform(0, 1, (batch, length, channels)).astype(np.float32)
    a = (-rate * rng.uniform(0, 1, (channels, width))).astype(np.float32)
    b, c = normal(2, batch, length, width), normal(3, batch, length, width)
    return normal(1, batch, length, channels), delta, a, b, c, normal(4, batch, channels, width)


@given(
    length=st.integers(0, 21), channels=st.integers(1, 3), width=st.integers(1, 4),
    chunk=st.sampled_from([None, 1, 2, 5, 8, 64]), rate=st.sampled_from([0.0, 1.0, 300.0]),
)  # fmt: skip
@few
def test_selective_scan(length: int, channels: int, width: int, chunk: int | None, rate: float) -> None:
    *inputs, state = mamba_inputs(2, length, channels, width, rate)
    got = selective_scan(*inputs, state=state, chunk=chunk)
    y, h = naive_mamba(*inputs, state)
    sizes = naive_mamba(*(np.abs(x) if i != 2 else x for i, x in enumerate(inputs)), np.abs(state))
    g = gamma(4 * length + width + 16)
    assert_within(got.y, y, g * sizes[0], roundings=1000)
    assert_within(got.state, h, g * sizes[1], roundings=1000)


def test_selective_scan_continues_from_a_state() -> None:
    """Token by token, and in two pieces, the recurrent form gives the very same bits."""
    *inputs, state = mamba_inputs(1, 9, 2, 3, 1.0)
    u, delta, a, b, c = inputs
    whole = selective_scan(*inputs, state=state)
    carried, parts = state, []
    for t in range(9):
        cut = slice(t, t + 1)
        part = selective_scan(u[:, cut], delta[:, cut], a, b[:, cut], c[:, cut], state=carried)
        carried = part.state
        parts.append(part.y)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole.y)
    np.testing.assert_array_equal(carried, whole.state)


def test_selective_scan_extras() -> None:
    *inputs, _ = mamba_inputs(2, 6, 3, 2, 1.0)
    u, delta, a, b, c = inputs
    skip, gate, bias = normal(6, 3), normal(7, 2, 6, 3), normal(8, 3)
    raw = np.where(np.arange(6)[None, :, None] == 3, np.float32(90), delta)
    opened = (raw + bias).astype(np.float64)
    softened = np.logaddexp(0, opened).astype(np.float32)
    got = selective_scan(u, raw, a, b, c, skip=skip, gate=gate, delta_bias=bias, delta_softplus=True, chunk=4)
    plain = selective_scan(u, softened, a, b, c, chunk=4)
    np.testing.assert_array_equal(got.y, (plain.y + skip * u) * silu(gate))


def naive_ssd(x, dt, a, b, c, state) -> tuple[Float64Array, Float64Array]:
    x, dt, a, b, c, h = (np.asarray(v, np.float64) for v in (x, dt, a, b, c, state))
    group = x.shape[2] // b.shape[2]
    h, y = h.copy(), np.zeros(x.shape)
    for t in range(x.shape[1]):
        for head in range(x.shape[2]):
            step, g = dt[:, t, head, None, None], head // group
            inflow = step * x[:, t, head, :, None] * b[:, t, g, None, :]
            h[:, head] = np.exp(step * a[head]) * h[:, head] + inflow
            y[:, t, head] = (h[:, head] * c[:, t, g, None, :]).sum(axis=2)
    return y, h


def ssd_inputs(length: int, groups: int, per_group: int, dim: int, width: int, rate: float) -> tuple[np.ndarray, ...]:
    heads = groups * per_group
    rng = np.random.default_rng(9)
    dt = rng.uniform(0, 1, (2, length, heads)).astype(np.float32)
    a = (-rate * rng.uniform(0, 1, heads)).astype(np.float32)
    b, c = normal(11, 2, length, groups, width), normal(12, 2, length, groups, width)
    return normal(10, 2, length, heads, dim), dt, a, b, c, normal(13, 2, heads, dim, width)


@given(
    length=st.integers(0, 17), groups=st.integers(1, 2), per_group=st.integers(1, 2), dim=st.integers(1, 3),
    width=st.integers(1, 4), chunk=st.sampled_from([None, 1, 3, 8, 64]), rate=st.sampled_from([0.0, 1.0, 300.0]),
)  # fmt: skip
@few
def test_ssd(length: int, groups: int, per_group: int, dim: int, width: int, chunk: int | None, rate: float) -> None:
    *inputs, state = ssd_inputs(length, groups, per_group, dim, width, rate)
    got = ssd_scan(*inputs, state=state, chunk=chunk)
    y, h = naive_ssd(*inputs, state)
    sizes = naive_ssd(*(np.abs(v) if i != 2 else v for i, v in enumerate(inputs)), np.abs(state))
    # Chunked log decays are float32 sums: off by gamma(chunk) of the total, twice in a difference.
    total = float((inputs[1].astype(np.float64).sum(axis=1) * np.abs(inputs[2])).max()) if length else 0.0
    relative = gamma(4 * length + 2 * width + 16) + np.expm1(2 * gamma((chunk or 1) + 2) * total)
    assert_within(got.y, y, relative * sizes[0], roundings=1000)
    assert_within(got.state, h, relative * sizes[1], roundings=1000)


def test_ssd_passes_its_state_from_chunk_to_chunk_by_hand() -> None:
    """A decay of one half a token (dt = ln 2) and unit inputs: h = 1, 1.5, 1.75, … times dt."""
    length, dt = 6, np.log(2.0)
    one = np.ones((1, length, 1, 1))
    expected = dt * np.array([2 - 2.0**-t for t in range(length)])
    for chunk in (None, 2, 4):
        got = ssd_scan(one, one[..., 0] * dt, [-1.0], one, one, chunk=chunk)
        assert_within(got.y.ravel(), expected, gamma(40) * expected)
        assert_within(got.state.ravel(), expected[-1:], gamma(40) * expected[-1:])


def test_ssd_skip_and_two_pieces() -> None:
    *inputs, state = ssd_inputs(8, 1, 2, 2, 3, 1.0)
    x, dt, a, b, c = inputs
    skip = normal(14, 2)
    whole = ssd_scan(*inputs, state=state, skip=skip, chunk=4)
    first = ssd_scan(x[:, :4], dt[:, :4], a, b[:, :4], c[:, :4], state=state, skip=skip, chunk=4)
    second = ssd_scan(x[:, 4:], dt[:, 4:], a, b[:, 4:], c[:, 4:], state=first.state, skip=skip, chunk=4)
    np.testing.assert_array_equal(np.concatenate([first.y, second.y], axis=1), whole.y)
    np.testing.assert_array_equal(second.state, whole.state)
    np.testing.assert_array_equal(whole.y - ssd_scan(*inputs, state=state, chunk=4).y != 0, skip[:, None] * x != 0)


def test_bad_input_is_refused() -> None:
    *inputs, state = mamba_inputs(1, 3, 2, 2, 1.0)
    with pytest.raises(ValueError, match="delta: expected shape"):
        selective_scan(inputs[0], inputs[1][:, :2], *inputs[2:])
    with pytest.raises(ValueError, match="state: expected shape"):
        selective_scan(*inputs, state=state[:, :1])
    with pytest.raises(ValueError, match="chunk: expected at least 1"):
        selective_scan(*inputs, chunk=0)
    with pytest.raises(ValueError, match="skip: expected shape"):
        selective_scan(*inputs, skip=[1.0])
    x, dt, a, b, c, _ = ssd_inputs(3, 2, 1, 2, 2, 1.0)
    with pytest.raises(ValueError, match="states decay"):
        ssd_scan(x, dt, -a, b, c)
    with pytest.raises(ValueError, match="2 heads cannot share 3"):
        ssd_scan(x, dt, a, np.ones((2, 3, 3, 2)), np.ones((2, 3, 3, 2)))
