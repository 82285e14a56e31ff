"""Gated delta rule, recurrent and chunked, against a float64 recurrence with bounds in norm.

With |k| = 1 and 0 <= beta <= 1 the exact step S -> e^g (I - beta k k^T) S never stretches a column of S, so the errors
that single steps (or chunks) commit only add up. Dot products of key_dim terms are bounded by Cauchy-Schwarz.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import Float64Array, assert_within, few, gamma, normal

from effsim.models.delta import gated_delta


def unit_rows(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=-1, keepdims=True)).astype(np.float32)


def naive(q, k, v, g, beta, state, scale: float) -> tuple[Float64Array, Float64Array]:
    """All states (length + 1, key_dim, value_dim) and outputs of one head, by explicit matrices."""
    states, y = [np.asarray(state, np.float64)], np.zeros(v.shape)
    for t in range(v.shape[0]):
        key = k[t].astype(np.float64)
        step = np.exp(np.float64(g[t])) * (np.eye(key.size) - np.float64(beta[t]) * np.outer(key, key))
        states.append(step @ states[-1] + np.float64(beta[t]) * np.outer(key, v[t].astype(np.float64)))
        y[t] = scale * (q[t].astype(np.float64) @ states[-1])
    return np.array(states), y


def recurrent_bounds(q, v, states, scale: float) -> tuple[Float64Array, Float64Array]:
    """Each step adds gamma(key_dim + 8) of twice what it handles: both states' columns and the value."""
    norms = np.linalg.norm(states, axis=1)
    handled = norms[:-1] + norms[1:] + np.abs(v)
    error = 2 * gamma(states.shape[1] + 8) * np.cumsum(handled, axis=0)
    reading = np.linalg.norm(q.astype(np.float64), axis=1)[:, None] * scale * 1.001
    last = error[-1] if len(error) else np.zeros(v.shape[1])
    return reading * (error + gamma(states.shape[1] + 4) * norms[1:]), last


def chunked_bounds(q, k, v, g, beta, states, scale: float, chunk: int) -> tuple[Float64Array, Float64Array]:
    """Substitution perturbs A by gamma(...) of its magnitude, hence T by |T||A||T| of that, and U = T (…) with it."""
    carried, out = np.zeros(v.shape[1]), np.zeros(v.shape)
    for first in range(0, v.shape[0], chunk):
        cut = slice(first, first + chunk)
        keys, strength = k[cut].astype(np.float64), beta[cut].astype(np.float64)
        total = np.cumsum(g[cut].astype(np.float64))
        size = len(total)
        decay = np.tril(np.exp(np.minimum(total[:, None] - total[None, :], 0)))
        matrix = strength[:, None] * np.tril(keys @ keys.T * decay, -1)
        inverse = np.abs(np.linalg.inv(np.eye(size) + matrix))
        largest = strength[:, None] * np.tril(np.ones((size, size)), -1)
        relative = gamma(2 * size + 2 * k.shape[1] + 16 + 4 * size * np.abs(total).max())
        before = np.linalg.norm(states[first], axis=0)
        right = strength[:, None] * (np.abs(v[cut]) + before)
        off = relative * (inverse @ largest @ inverse + 3 * inverse) @ right
        written = off + relative * (inverse @ right)
        reading = np.linalg.norm(q[cut].astype(np.float64), axis=1)[:, None] * scale * 1.001
        out[cut] = reading * (carried + relative * before + np.cumsum(written, axis=0))
        carried = (carried + relative * before + written.sum(axis=0)) * 1.001
    return out, carried


def inputs(length: int, key_heads: int, group: int, dims: tuple[int, int], decay: float) -> tuple[np.ndarray, ...]:
    key_dim, value_dim = dims
    heads = key_heads * group
    rng = np.random.default_rng(3)
    g = (-decay * rng.uniform(0, 1, (2, length, heads))).astype(np.float32)
    beta = rng.uniform(0, 1, (2, length, heads)).astype(np.float32)
    q, k = normal(1, 2, length, key_heads, key_dim), unit_rows(normal(2, 2, length, key_heads, key_dim))
    return q, k, normal(4, 2, length, heads, value_dim), g, beta, normal(5, 2, heads, key_dim, value_dim)


def check(q, k, v, g, beta, state, chunk: int | None, scale: float) -> None:
    got = gated_delta(q, k, v, g, beta, state=state, chunk=chunk, scale=scale)
    group = v.shape[2] // k.shape[2]
    for b in range(v.shape[0]):
        for h in range(v.shape[2]):
            qs, ks, vs, gs, betas = q[b, :, h // group], k[b, :, h // group], v[b, :, h], g[b, :, h], beta[b, :, h]
            states, y = naive(qs, ks, vs, gs, betas, state[b, h], scale)
            if chunk is None:
                bounds = recurrent_bounds(qs, vs, states, scale)
            else:
                bounds = chunked_bounds(qs, ks, vs, gs, betas, states, scale, chunk)
            assert_within(got.y[b, :, h], y, bounds[0], roundings=1000)
            assert_within(got.state[b, h], states[-1], np.broadcast_to(bounds[1], states[-1].shape), roundings=1000)


@given(
    length=st.integers(0, 15), key_heads=st.integers(1, 2), group=st.integers(1, 2),
    dims=st.tuples(st.integers(2, 5), st.integers(1, 4)), chunk=st.sampled_from([None, 1, 3, 8, 64]),
    decay=st.sampled_from([0.0, 0.5, 60.0]),
)  # fmt: skip
@few
def test_matches_naive(
    length: int, key_heads: int, group: int, dims: tuple[int, int], chunk: int | None, decay: float
) -> None:
    check(*inputs(length, key_heads, group, dims, decay), chunk=chunk, scale=0.5)


@pytest.mark.parametrize("chunk", [None, 4, 12])
def test_the_same_key_written_again_and_again(chunk: int | None) -> None:
    """With beta = 1 each write replaces what the key held; T is then as ill-conditioned as it gets."""
    q, k, v, g, beta, state = inputs(12, 1, 1, (4, 3), 0.0)
    k = np.broadcast_to(k[:, :1], k.shape).copy()
    check(q, k, v, g * 0, np.ones_like(beta), state, chunk, 1.0)


@pytest.mark.parametrize("chunk", [None, 3])
def test_orthogonal_keys_store_their_values(chunk: int | None) -> None:
    """Writing v_t under basis vector t and reading with it returns v_t, halved once a token by the gate since."""
    k = np.eye(4)[None, :, None, :]
    v = np.arange(1.0, 9.0).reshape(1, 4, 1, 2)
    halve = np.full((1, 4, 1), -np.log(2.0))
    got = gated_delta(k, k, v, halve, np.ones((1, 4, 1)), chunk=chunk, scale=1.0)
    np.testing.assert_array_equal(got.y, v)
    expected = v[0, :, 0] * 0.5 ** np.arange(3, -1, -1)[:, None]
    assert_within(got.state[0, 0], expected, gamma(30) * expected)


def test_default_scale_and_continuing_from_a_state() -> None:
    *rows, state = inputs(8, 2, 2, (4, 3), 0.5)
    whole = gated_delta(*rows, state=state, chunk=4)
    first = gated_delta(*(x[:, :4] for x in rows), state=state, chunk=4, scale=0.5)
    second = gated_delta(*(x[:, 4:] for x in rows), state=first.state, chunk=4, scale=0.5)
    np.testing.assert_array_equal(np.concatenate([first.y, second.y], axis=1), whole.y)
    np.testing.assert_array_equal(second.state, whole.state)


def test_bad_input_is_refused() -> None:
    q, k, v, g, beta, state = inputs(3, 2, 1, (2, 2), 0.5)
    with pytest.raises(ValueError, match="not positive"):
        gated_delta(q, k, v, -g, beta)
    with pytest.raises(ValueError, match="finite"):
        gated_delta(q, k, v, g - np.float32(np.inf), beta)
    with pytest.raises(ValueError, match="2 heads cannot share 3"):
        gated_delta(np.ones((2, 3, 3, 2)), np.ones((2, 3, 3, 2)), v, g, beta)
    with pytest.raises(ValueError, match="q: expected shape"):
        gated_delta(q[:, :1], k, v, g, beta)
    with pytest.raises(ValueError, match="state: expected shape"):
        gated_delta(q, k, v, g, beta, state=state[..., :1])
    with pytest.raises(ValueError, match="chunk"):
        gated_delta(q, k, v, g, beta, chunk=0)
