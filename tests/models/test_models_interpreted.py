"""Compiled and interpreted kernels give the same bits, and importing the package costs nothing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from effsim.models import attention, conv, delta, fftconv, gemm, linear_attention, norm, scan, ssd


def cases() -> dict[str, np.ndarray]:
    """One small run of every kernel."""
    rng = np.random.default_rng(0)

    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    results = {
        "gemm": gemm.gemm(x(5, 11), x(11, 4), bias=x(4), tile_m=2, tile_n=3, tile_k=4, split_k=2),
        "panels": gemm.gemm(x(6, 10), x(10, 70), tile_m=6, tile_n=70, tile_k=7),
        "context panels": attention.context_attention(x(1, 6, 4, 5), x(1, 9, 2, 5), x(1, 9, 2, 3), tile_q=6, tile_kv=4),
        "window panels": attention.context_attention(
            x(1, 9, 1, 6), x(1, 9, 1, 6), x(1, 9, 1, 66), window=3, tile_q=9, tile_kv=5
        ),
        "folded heads": attention.generation_attention(x(1, 5, 4), x(1, 11, 1, 4), x(1, 11, 1, 3), splits=2),
        "context": attention.context_attention(x(1, 5, 2, 4), x(1, 7, 1, 4), x(1, 7, 1, 3), tile_q=2, tile_kv=3),
        "masked": attention.context_attention(x(1, 4, 1, 2), x(1, 2, 1, 2), x(1, 2, 1, 2), window=1, tile_kv=1),
        "generation": attention.generation_attention(x(2, 2, 4), x(2, 6, 1, 4), x(2, 6, 1, 3), splits=3, tile_kv=2),
        "rmsnorm": norm.rmsnorm(x(2, 40), x(40)),
        "layernorm": norm.layernorm(x(2, 40), x(40), x(40)),
        "conv1d": conv.causal_conv1d(x(1, 4, 2), x(2, 3), activation="silu").y,
        "conv2d": conv.conv2d(x(1, 4, 4, 2), x(2, 3, 3, 1), padding=1, groups=2, method="direct"),
        "fft": fftconv.long_conv(x(1, 9, 2), x(2, 9)),
        "long": fftconv.long_conv(x(1, 9, 2), x(2, 9), method="direct"),
    }
    for chunk in (None, 3):
        step = np.abs(x(1, 7, 2))
        mamba = scan.selective_scan(x(1, 7, 2), step, -np.abs(x(2, 3)), x(1, 7, 3), x(1, 7, 3), chunk=chunk)
        dual = ssd.ssd_scan(x(1, 7, 2, 2), step, -np.abs(x(2)), x(1, 7, 1, 3), x(1, 7, 1, 3), chunk=chunk)
        beta = 1 / (1 + step)
        decay = -np.abs(x(1, 7, 2, 3))
        results[f"rwkv6-{chunk}"] = linear_attention.rwkv6(
            x(1, 7, 2, 3), x(1, 7, 2, 3), x(1, 7, 2, 2), decay, x(2, 3), chunk=chunk
        ).y
        results[f"retention-{chunk}"] = linear_attention.retention(
            x(1, 7, 2, 3), x(1, 7, 2, 3), x(1, 7, 2, 2), [-0.1, -1.0], chunk=chunk
        ).y
        rule = delta.gated_delta(x(1, 7, 1, 2), x(1, 7, 1, 2) / 3, x(1, 7, 2, 2), -step, beta, chunk=chunk)
        for name, result in (("scan", mamba), ("ssd", dual), ("delta", rule)):
            results[f"{name}-{chunk}-y"], results[f"{name}-{chunk}-state"] = result.y, result.state
    results["wkv4"], results["wkv4-state"] = linear_attention.wkv4(x(1, 7, 3), x(1, 7, 3), np.abs(x(3)), x(3))
    return results


def test_interpreted_kernels_give_the_same_bits(tmp_path: Path) -> None:
    target = tmp_path / "interpreted.npz"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-W", "error::RuntimeWarning", __file__, target], check=True, env=environment)
    compiled = cases()
    with np.load(target) as interpreted:
        assert sorted(interpreted) == sorted(compiled)
        for name, expected in interpreted.items():
            assert expected.dtype == compiled[name].dtype == np.float32, name
            assert expected.size
            np.testing.assert_array_equal(compiled[name], expected, err_msg=name)


def test_importing_the_package_imports_no_numba() -> None:
    code = "import sys, effsim.models; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    import numba

    assert numba.config.DISABLE_JIT
    np.savez(sys.argv[1], **cases())
