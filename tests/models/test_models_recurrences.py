"""Recurrences: forms agree, states continue, and time-invariant scans equal convolutions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_oracles import few, normal

from effsim.models import linear_attention as la
from effsim.models import recurrent
from effsim.models.scan import selective_scan
from effsim.models.ssd import ssd_scan
from effsim.models.ssm_conv import ssm_convolution

TOLERANCE = {
    "rtol": 2e-4,
    "atol": 2e-5,
}  # forms against each other; the bounds of each are in the comparisons with PyTorch


def inputs(length: int, dim: int = 3, value_dim: int = 2) -> tuple[np.ndarray, ...]:
    q, k, v = normal(1, 2, length, 2, dim), normal(2, 2, length, 2, dim), normal(3, 2, length, 2, value_dim)
    g = -np.abs(normal(4, 2, length, 2, dim))
    return q, k, v, g, normal(5, 2, dim)


@given(length=st.integers(1, 17), chunk=st.integers(1, 20), cut=st.integers(0, 17))
@few
def test_forms_agree_and_states_continue(length: int, chunk: int, cut: int) -> None:
    q, k, v, g, bonus = inputs(length)
    rates, first = np.array([-0.1, -2.0], np.float32), min(cut, length)
    for run in (
        lambda s, **o: la.retention(q[:, s], k[:, s], v[:, s], rates, **o),
        lambda s, **o: la.rwkv6(q[:, s], k[:, s], v[:, s], g[:, s], bonus, **o),
        lambda s, **o: la.linear_attention(q[:, s], k[:, s], v[:, s], **o),
        lambda s, **o: la.linear_attention(q[:, s], k[:, s], v[:, s], feature="none", normalize=False, **o),
    ):
        whole = run(slice(None))
        chunked = run(slice(None), chunk=chunk)
        np.testing.assert_allclose(chunked.y, whole.y, **TOLERANCE)
        np.testing.assert_allclose(chunked.state, whole.state, **TOLERANCE)
        before = run(slice(0, first))
        after = run(slice(first, None), state=before.state)
        np.testing.assert_array_equal(np.concatenate([before.y, after.y], 1), whole.y)
        np.testing.assert_array_equal(after.state, whole.state)


def test_steep_decays_do_not_overflow_a_chunk() -> None:
    """Factors e^(+G) of a naive factorisation would overflow at 90; differences never do."""
    q, k, v, _, bonus = inputs(6)
    g = np.full(q.shape, -50.0, np.float32)
    got = la.rwkv6(q, k, v, g, bonus, chunk=6).y
    np.testing.assert_allclose(got, la.rwkv6(q, k, v, g, bonus).y, **TOLERANCE)
    assert np.isfinite(got).all()


def test_wkv_states_continue_and_huge_keys_do_not_overflow() -> None:
    k, v = normal(1, 2, 9, 3, scale=80.0), normal(2, 2, 9, 3)
    rate, bonus = np.abs(normal(3, 3)), normal(4, 3)
    whole, state = la.wkv4(k, v, rate, bonus)
    first, middle = la.wkv4(k[:, :4], v[:, :4], rate, bonus)
    second, last = la.wkv4(k[:, 4:], v[:, 4:], rate, bonus, state=middle)
    np.testing.assert_array_equal(np.concatenate([first, second], 1), whole)
    np.testing.assert_array_equal(last, state)
    assert np.abs(whole).max() <= np.abs(v).max() * (1 + 1e-5)  # weighted means


def test_lstm_and_gru_states_continue() -> None:
    x = normal(1, 2, 7, 3)
    for gates, layer in ((4, recurrent.lstm), (3, recurrent.gru)):
        weights = [normal(i, *s) for i, s in enumerate(((gates * 5, 3), (gates * 5, 5), (gates * 5,), (gates * 5,)))]
        whole = layer(x, *weights)
        first = layer(x[:, :3], *weights)
        more = {"hidden": first.hidden} | ({"cell": first.cell} if gates == 4 else {})
        second = layer(x[:, 3:], *weights, **more)
        np.testing.assert_array_equal(np.concatenate([first.y, second.y], 1), whole.y)
        np.testing.assert_array_equal(whole.y[:, -1], whole.hidden)
        with pytest.raises(ValueError, match="w_input"):
            layer(x, weights[0][:, :2], *weights[1:])


@pytest.mark.parametrize("method", ["fft", "direct"])
def test_time_invariant_scans_are_convolutions(method: str) -> None:
    """Recurrent, chunked and convolutional forms of the same model."""
    length, channels, width = 21, 3, 4
    u, delta = normal(1, 2, length, channels), np.abs(normal(2, channels)) * 0.3
    a, b, c, skip = -np.abs(normal(3, channels, width)), normal(4, width), normal(5, width), normal(6, channels)
    got = ssm_convolution(u, delta, a, b, c, skip=skip, method=method)  # type: ignore[arg-type]
    spread = [np.broadcast_to(x, (2, length, x.size)) for x in (delta, b, c)]
    for chunk in (None, 8):
        scan = selective_scan(u, spread[0], a, spread[1], spread[2], skip=skip, chunk=chunk)
        np.testing.assert_allclose(got, scan.y, **TOLERANCE)
    heads = normal(7, 2, length, channels, 1)
    rates = a[:, 0]
    steps, to_state, to_output = (np.broadcast_to(x, (2, length, *x.shape)) for x in (delta, b[None], c[None]))
    dual = ssm_convolution(heads[..., 0], delta, np.repeat(rates[:, None], width, 1), b, c, method=method)  # type: ignore[arg-type]
    for chunk in (None, 8):
        np.testing.assert_allclose(
            dual, ssd_scan(heads, steps, rates, to_state, to_output, chunk=chunk).y[..., 0], **TOLERANCE
        )


def test_bad_recurrences_are_refused() -> None:
    q, k, v, g, bonus = inputs(3)
    with pytest.raises(ValueError, match="not positive"):
        la.rwkv6(q, k, v, -g, bonus)
    with pytest.raises(ValueError, match="bonus"):
        la.rwkv6(q, k, v, g, bonus[:1])
    with pytest.raises(ValueError, match="log_decay"):
        la.retention(q, k, v, [0.0])
    with pytest.raises(ValueError, match="feature"):
        la.linear_attention(q, k, v, feature="relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rate"):
        la.wkv4(q[..., 0], q[..., 0], [-1.0, 0.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="decay"):
        ssm_convolution(np.ones((1, 2, 1)), [1.0], [[1.0]], [1.0], [1.0])
