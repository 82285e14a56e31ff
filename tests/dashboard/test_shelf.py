"""Choices and uploads: what is refused, under which names it is told, and what many at once do to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from effsim import EffsimError, run
from effsim.dashboard import shelf as library_module
from effsim.dashboard.jobs import Jobs
from effsim.dashboard.pickers import options, taken, visitors
from effsim.dashboard.service import Asked, Memo, Service
from effsim.dashboard.shelf import Shelf, clean_label
from effsim.dashboard.uploads import decode, receive
from effsim.dashboard.view import MAX_QUERY, View, assignments

MINE = b"extends: gpu_a100\nname: mine\nprovenance: {kind: assumed, source: a test}\n"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 1024,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}
SYSTEM = b"""kind: system
name: two of them
provenance: {kind: assumed, source: a test}
devices:
  - {hardware: gpu_a100, count: 2}
topology:
  - {name: links, kind: switch, size: 2, bandwidth: 300 GB/s, latency: 1 us}
"""
BOMB = "\n".join(
    ["a: &a [1,1,1,1,1,1,1,1,1,1]"]
    + [f"{n}: &{n} [{','.join([f'*{before}'] * 10)}]" for before, n in zip("abcdefg", "bcdefgh", strict=True)]
).encode()


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    made.close()
    assert not made.folder.exists()


def refused(shelf: Shelf, section: str, name: str, content: bytes) -> str:
    with pytest.raises(EffsimError) as caught:
        receive(shelf, section, name, content)
    message = str(caught.value)
    assert str(shelf.folder) not in message
    assert "upload-" not in message
    assert "checking-" not in message
    assert list(shelf.folder.iterdir()) == []  # nothing that was refused is kept
    return message


@pytest.mark.parametrize(
    ("section", "name", "content", "says"),
    [
        ("hardware", "my gpu.yaml", b"kind: gpu\nname: x\nclok: 3\n", "my gpu.yaml:"),
        ("hardware", "my.yaml", MINE + b"memory:\n  bandwith: 4 TB/s\n", "my.yaml:5:3:"),
        ("hardware", "my.yaml", b"a: " + b"x" * (10 * 2**20), "at most 1 MiB"),
        ("hardware", "my.yaml", BOMB, "too much content"),
        ("hardware", "my.yaml", b"!!python/object/apply:os.system [ls]", "not allowed"),
        ("hardware", "my.yaml", b"\xff\xfe\x00", "not UTF-8"),
        ("hardware", "../../etc/passwd", b"root:x:0:0", "passwd:1:1:"),
        ("hardware", "my.yaml", b"kind: workload\nname: x\ntask: decode\n", "this is a workload"),
        ("hardware", "my.json", b"{}", "JSON is read for models only"),
        ("hardware", "my.yaml", b"extends: /etc/passwd\n", "no file '/etc/passwd' beside this one"),
        ("workloads", "config.json", b"[" * 100_000, "config.json"),
        ("workloads", "config.json", b'{"model_type": 5}', "config.json"),
        ("workloads", "w.yaml", b"kind: architecture\nname: x\n", "w.yaml:1:1: architecture: missing"),
        ("workloads", "w.yaml", b"kind: [workload]\n", "w.yaml:"),
        ("studies", "s.yaml", b"kind: study\nname: x\n", "s.yaml:1:1: study: missing"),
        ("plans", "p.yaml", b"kind: gpu\nname: x\n", "this is a hardware file"),
    ],
    ids=range(16),
)
def test_what_is_wrong_is_refused_under_its_own_name(
    shelf: Shelf, section: str, name: str, content: bytes, says: str
) -> None:
    assert says in refused(shelf, section, name, content)


@pytest.mark.parametrize("contents", ["", "data:,xé", "data:;base64,!!!", "data:;base64,A", ","])
def test_what_is_no_file_is_refused(shelf: Shelf, contents: str) -> None:
    with pytest.raises(EffsimError):
        receive(shelf, "hardware", "x.yaml", decode(contents))


def test_what_is_far_too_large_is_not_decoded() -> None:
    with pytest.raises(EffsimError, match="at most 24 MiB"):
        decode("data:;base64," + "A" * (40 * 2**20))


def test_a_file_runs_as_from_the_disk(tmp_path: Path) -> None:
    service = Service()
    (tmp_path / "mine.yaml").write_bytes(MINE)
    kept = receive(service.shelf, "hardware", "mine.yaml", MINE)
    mine = service.run(Asked(kept.token, "llama70b_decode", "analytic", ("workload.generate=8",)))
    theirs = run(str(tmp_path / "mine.yaml"), "llama70b_decode", engine="analytic", set=["workload.generate=8"])
    assert mine.to_json() == theirs.to_json()
    service.close()


def test_systems_may_name_bundled_devices(shelf: Shelf) -> None:
    kept = receive(shelf, "hardware", "two.yaml", SYSTEM)
    assert shelf.argument("hardware", kept.token) == str(kept.path)


def test_an_exported_overlay_needs_no_kind(shelf: Shelf) -> None:
    kept = receive(shelf, "workloads", "changed.yaml", b"extends: llama70b_decode\nbatch: 3\n")
    assert kept.section == "workloads"


def test_a_model_becomes_a_workload(tmp_path: Path) -> None:
    service = Service()
    content = json.dumps(CONFIG).encode()
    kept = receive(service.shelf, "workloads", "config.json", content)
    asked = Asked("gpu_a100", kept.token, "analytic")
    result = service.run(asked)
    (tmp_path / "config.json").write_bytes(content)
    shape = yaml.safe_load(service.shelf.text("workloads", kept.token)) | {"model": "config.json"}
    (tmp_path / "w.yaml").write_text(yaml.safe_dump(shape, sort_keys=False))
    assert result.time_s == run("gpu_a100", str(tmp_path / "w.yaml"), engine="analytic").time_s > 0
    assert kept.label == "config decode"
    assert "upload-" not in result.to_json()
    service.close()


def test_tokens_are_of_one_section_and_one_name(shelf: Shelf) -> None:
    first = receive(shelf, "hardware", "a.yaml", MINE)
    second = receive(shelf, "hardware", "b.yaml", MINE)
    assert first.token != second.token
    assert (shelf.label(first.token), shelf.label(second.token)) == ("a.yaml", "b.yaml")
    for section, choice in [
        ("workloads", first.token),
        ("hardware", first.path.name),
        ("hardware", str(first.path)),
        ("hardware", "upload-../../x"),
        ("hardware", "/etc/passwd"),
        ("hardware", "gpu_a100.yaml"),
        ("hardware", "../hw_configs/gpu_a100"),
    ]:
        with pytest.raises(EffsimError):
            shelf.argument(section, choice)
    for wrong in (None, 5, [], {}, float("nan")):
        with pytest.raises(EffsimError):
            shelf.argument("hardware", wrong)  # type: ignore[arg-type]


def test_the_oldest_makes_room_and_takes_nothing_along(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "MAX_FILES", 4)
    workload = receive(shelf, "workloads", "config.json", json.dumps(CONFIG).encode())
    for index in range(8):
        shelf.add("hardware", f"{index}.yaml", MINE)
        assert shelf.upload(workload.token) is not None  # looked at: it stays, with the model it needs
        assert shelf.upload(workload.needs[0]) is not None
    assert len(list(shelf.folder.iterdir())) == 4
    for index in range(8):
        shelf.add("hardware", f"{index + 8}.yaml", MINE)
    assert shelf.upload(workload.token) is None
    assert shelf.readable(f"{workload.path.name}:1:1") == "an upload that is no longer here:1:1"
    shelf.discard("upload-nothing")


def test_many_upload_at_once_while_others_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "MAX_FILES", 3)
    service = Service()

    def visit(index: int) -> str:
        kept = receive(service.shelf, "hardware", f"{index % 7}.yaml", MINE)
        try:
            asked = Asked(kept.token, "llama70b_decode", "roofline", (f"workload.generate={index % 2 + 1}",))
            return f"{service.run(asked, sensitivity=False).time_s > 0}"
        except EffsimError as error:  # it made room for another
            return str(error)

    with ThreadPoolExecutor(20) as pool:
        said = set(pool.map(visit, range(40)))
    assert "True" in said
    assert all("no longer here" in one for one in said - {"True"}), said
    assert len(list(service.shelf.folder.iterdir())) == 3
    service.close()


def test_labels_are_no_paths() -> None:
    assert clean_label("C:\\x\\..\\<b>a</b>\x00.yaml") == "b>.yaml"
    assert clean_label("///") == "upload"
    assert len(clean_label("x" * 1000)) == 80


def test_what_a_browser_says_about_uploads_is_looked_through(shelf: Shelf) -> None:
    good = {"token": "t", "section": "hardware", "label": "l"}
    assert visitors([good, {"token": []}, None, 5, good | {"more": "x"}]) == [good, good]
    for wrong in (None, 5, "x", {}, float("nan")):
        assert visitors(wrong) == []
    service = Service(shelf, Jobs())
    assert len(options(service, "hardware", [good])) == len(shelf.names("hardware"))


def test_an_upload_is_chosen(shelf: Shelf) -> None:
    service = Service(shelf, Jobs())
    sent = {"name": "mine.yaml", "contents": "data:;base64," + base64.b64encode(MINE).decode()}
    offered, value, said, held = taken(service, "hardware", sent, None, [])
    assert offered[0]["value"] == value == held[0]["token"]
    assert said == "mine.yaml is in the list"
    _, value, _, again = taken(service, "hardware", sent, ["gpu_a100", 5, held[0]["token"]], held)
    assert value == ["gpu_a100", held[0]["token"]]
    assert again == held


def test_a_form_may_hold_anything() -> None:
    asked = Asked.given("gpu_a100", "llama70b_decode", "analytic", "workload.batch=8")
    assert asked.changes == ("workload.batch=8",)
    for wrong in (None, 5, [], {}, "x" * 10_000):
        with pytest.raises(EffsimError):
            Asked.given(wrong, "llama70b_decode", "analytic", None)
    for changes in (5, [], {}, "x" * (MAX_QUERY + 1)):
        with pytest.raises(EffsimError):
            assignments(changes)
    assert View.parse(5) == View.parse("x" * (MAX_QUERY + 1)) == View()
    assert View.parse("?a=nan&b=inf&c=2").number("a", 7.0) == 7.0


def test_who_asks_for_the_same_waits_for_one_answer() -> None:
    memo, made = Memo(most=2), []

    def make() -> Any:
        made.append(1)
        return memo.get("inner", lambda: "x")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: memo.get("key", make), range(100))) == {"x"}
    assert len(made) == 1
    with pytest.raises(ZeroDivisionError):
        memo.get("wrong", lambda: 1 // 0)
    assert memo.get("wrong", lambda: 5) == 5
    assert memo.get("inner", lambda: "anew") == "anew"  # the oldest made room


def test_what_weighs_more_makes_more_room() -> None:
    memo = Memo(most=10)
    for name in range(20):
        memo.get(name, lambda name=name: name)
    assert [memo.get(name, lambda: "anew") for name in range(10, 20)] == [*range(10, 20)]
    memo.get("large", lambda: "large", lambda _: 6)
    assert [memo.get(name, lambda: "anew", lambda _: 0) for name in range(16, 20)] == [*range(16, 20)]
    assert memo.get(15, lambda: "anew", lambda _: 0) == "anew"
    memo.get("all", lambda: "all", lambda _: 99)  # the newest is held whatever it weighs
    assert memo.get("all", lambda: "anew") == "all"
    assert memo.get("large", lambda: "anew") == "anew"


def test_answers_of_large_uploads_weigh_more(service: Service) -> None:
    """However large the files are that are asked about, what is held stays small."""
    lines = [
        f"  - {{name: o{i}, kind: linear, dimensions: {{m: 16, n: {i + 1}, k: 64, dtype: bf16}}}}" for i in range(600)
    ]
    head = "kind: workload\nname: many\ntask: operators\nbatch: 1\nprecision: {activations: bf16}\noperators:\n"
    kept = receive(service.shelf, "workloads", "many.yaml", (head + "\n".join(lines)).encode())
    weight = 1 + kept.size // 2**13
    assert weight > 5
    asked = Asked("gpu_a100", kept.token, "roofline")
    assert len(service.run(asked, sensitivity=False).operators) == 600
    service.run(Asked("gpu_a100", "llama7b_decode", "roofline"), sensitivity=False)
    assert service.memo.weight == weight + 1
    assert service.shelf.size_of(f"{asked} {kept.token}") == kept.size
    service.shelf.discard(kept.token)
    assert service.shelf.size_of(str(asked)) == 0
