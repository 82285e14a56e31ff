"""Fleets of a real model: bundled workloads, links, hardware of their own, wrong inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import effsim
from effsim.cli.app import app
from effsim.errors import DoesNotFitError, SpecError
from effsim.serving.metrics import ServeResult

SMALL = ["workload.serving.arrivals.requests=60", "workload.prompt=256", "workload.generate=16"]


def divided(text: str, hardware: str = "system_dgx_h100") -> ServeResult:
    return effsim.serve(hardware, "llama3_8b_generate", set=[*SMALL, f"workload.serving.disaggregated={{{text}}}"])


def test_a_cache_has_the_bytes_of_its_model_and_goes_at_the_rate_of_the_network() -> None:
    found = divided("")
    assert found.transfer is not None
    # Llama-3-8B: 32 layers × 2 × 8 heads × 128 × 2 bytes a token, 256 tokens, 60 requests.
    assert found.transfer["bytes"] == 32 * 2 * 8 * 128 * 2 * 256 * 60
    assert found.transfer["bytes_per_s"] == 450e9
    wider = divided("decode_tensor: 2, bandwidth: 10 GB/s")
    assert wider.transfer is not None
    assert wider.transfer["bytes"] == found.transfer["bytes"]
    assert wider.transfer["bytes_per_s"] == 10e9  # one device sends what two receive
    assert [pool.devices for pool in wider.pools] == [1, 2]
    assert wider.devices == 3


def test_a_pool_of_its_own_hardware() -> None:
    found = divided("decode_hardware: gpu_h200, bandwidth: 50 GB/s")
    assert [pool.hardware for pool in found.pools] == ["NVIDIA DGX H100", "NVIDIA H200 SXM5 141 GB"]
    assert found.pools[1].cache_tokens > found.pools[0].cache_tokens
    with pytest.raises(SpecError, match="bandwidth"):
        divided("decode_hardware: gpu_h200")


def test_replica_seconds_are_paid() -> None:
    scaling = "workload.serving={arrivals: {rate: 40, requests: 300}, autoscaling: {max_replicas: 4, startup: 1 s, "
    scaling += "cooldown: 1 s, interval: 1 s, scale_out_above: 6, scale_in_below: 2, storage_bandwidth: 20 GB/s}}"
    sets = [scaling, "workload.prompt=256", "workload.generate=64"]
    found = effsim.serve("system_dgx_h100", "llama3_8b_generate", set=sets)
    (pool,) = found.pools
    assert 1 < pool.most <= 4
    assert found.duration_s < found.device_seconds < 4 * found.duration_s
    price = effsim.load_machine("system_dgx_h100").price_usd_per_hour
    assert found.cost_usd == pytest.approx(price * found.device_seconds / 3600)  # type: ignore[operator]
    # Weights of 16 GB at 20 GB/s after a second.
    starts = [t for t, _, starting, *_ in pool.changes if starting]
    first = next(t for t, serving, *_ in pool.changes if serving == 2)
    assert first - starts[0] == pytest.approx(1.0 + 16.06e9 / 20e9, rel=0.02)


@pytest.mark.parametrize("name", ["llama3_70b_serve", "llama3_70b_disaggregated"])
def test_bundled_services_run_and_repeat(name: str) -> None:
    asked = ["serve", "system_dgx_h100", name, "--requests", "40", "--json"]
    first, second = (CliRunner().invoke(app, asked) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.stdout == second.stdout
    assert json.loads(first.stdout)["completed"] == 40
    other = CliRunner().invoke(app, [*asked, "--seed", "7"])
    assert other.stdout != first.stdout


def test_the_command_writes_its_files_and_says_what_happened(tmp_path: Path) -> None:
    sets = ["--set", "workload.serving.failures={outages: [{replica: 0, at: 1 s, lasts: 2 s}]}"]
    asked = ["serve", "system_dgx_h100", "llama3_70b_disaggregated", "--requests", "40", *sets]
    page, trace = tmp_path / "p.html", tmp_path / "t.json"
    done = CliRunner().invoke(app, [*asked, "--html", str(page), "--trace", str(trace)])
    assert done.exit_code == 0, done.output
    assert "failures of replicas: 1" in done.stdout
    assert "caches moved" in done.stdout
    assert page.stat().st_size > 100_000
    assert json.loads(trace.read_text())["traceEvents"]
    missed = CliRunner().invoke(app, [*asked, "--set", "workload.serving.slo.ttft=1us", "--quiet"])
    assert (missed.exit_code, missed.stdout) == (0, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("serving={replicas: 2, disaggregated: {}}", "not 'replicas'"),
        ("serving={replicas: 9, autoscaling: {max_replicas: 4}}", "autoscaling keeps 1 to 4"),
        ("serving={autoscaling: {max_replicas: 1, min_replicas: 2}}", "less than 'min_replicas'"),
        ("serving={autoscaling: {max_replicas: 2, scale_in_below: 16}}", "expected less than"),
        ("serving={autoscaling: {max_replicas: 2, signal: utilisation}}", "never is above 1"),
        ("serving={failures: {}}", "need an 'mtbf'"),
        ("serving={failures: {outages: [{replica: 5, at: 1 s, lasts: 1 s}]}}", "a number from 0 to 0"),
        ("serving={failures: {outages: [{replica: 0, at: 1 GB, lasts: 1 s}]}}", "failures.outages"),
        ("serving={disaggregated: {decode_hardware: gpu_h20O, bandwidth: 1 GB/s}}", "gpu_h20O"),
    ],
)
def test_wrong_fleets_are_refused_with_their_place(text: str, said: str) -> None:
    with pytest.raises(effsim.EffsimError, match=said) as caught:
        effsim.serve("system_dgx_h100", "llama3_8b_generate", set=[f"workload.{text}"])
    assert caught.value.exit_code == 2


def test_more_replicas_than_devices() -> None:
    with pytest.raises(DoesNotFitError, match="5 replicas of 1 devices and 4 replicas of 1 devices need 9"):
        divided("prefill_replicas: 5, decode_replicas: 4")
    with pytest.raises(SpecError, match="seed -1"):
        effsim.serve("gpu_h100", "llama3_8b_generate", seed=-1)
