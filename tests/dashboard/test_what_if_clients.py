"""Twenty visitors at once move sliders: every answer is that of ``effsim.run`` for the same files and changes."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("dash")

import effsim
from effsim.dashboard.service import Service
from effsim.report import words

pytestmark = pytest.mark.slow

CLIENTS, EACH = 20, 5


def _get(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.status == 200
        return json.load(answer)


def _changes(client: int, turn: int) -> list[str]:
    """Different for everyone and every turn."""
    number = 1 + client * EACH + turn
    return [f"hardware.memory.bandwidth={1000 + 20 * number} GB/s", f"workload.batch={1 + number % 7}"]


def _ask(base: str, callback: dict[str, Any], changes: list[str]) -> Any:
    values = {
        "what-hardware": "gpu_a100",
        "what-workload": "llama7b_decode",
        "what-engine": "analytic",
        "what-changes": changes,
        "what-pin": [],
        "what-report": "what-shown",
    }
    inputs, state = ([{**part, "value": values[part["id"]]} for part in callback[name]] for name in ("inputs", "state"))
    names = [part.rpartition(".")[::2] for part in callback["output"].strip(".").split("...")]
    outputs = [{"id": i.rstrip("."), "property": p} for i, _, p in ((n[0], "", n[1]) for n in names)]
    body = {
        "output": callback["output"],
        "outputs": outputs,
        "inputs": inputs,
        "state": state,
        "changedPropIds": ["what-changes.data"],
    }
    return _get(f"{base}/_dash-update-component", body)["response"]


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _parts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _parts(value)


def test_twenty_clients_get_their_own_answers(served: tuple[str, Service]) -> None:
    base, _ = served
    callback = next(c for c in _get(f"{base}/_dash-dependencies") if c["output"].startswith("..what-report.children"))

    def visit(client: int) -> list[Any]:
        return [_ask(base, callback, _changes(client, turn)) for turn in range(EACH)]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(visit, range(CLIENTS)))
    for client, mine in enumerate(answers):
        for turn, answer in enumerate(mine):
            assert answer["what-report"]["className"] == "what-shown"
            wanted = effsim.run(
                "gpu_a100", "llama7b_decode", engine="analytic", set=_changes(client, turn), sensitivity=False
            )
            parts = list(_parts(answer))
            figure = next(p["figure"] for p in parts if p.get("id") == "what-figure-seconds")
            now = figure["data"][0]
            shown = {n: s for n, s in zip(now["y"], now["customdata"], strict=True) if s != "0 ps"}
            assert shown == {n: words.seconds(s) for n, s in words.seconds_by_resource(wanted).items() if s > 0.0}
            decode = next(p for p in parts if p.get("data-key") == "decode.time_per_token_s")
            assert words.headlines(wanted)[0].value in json.dumps(decode, ensure_ascii=False)
