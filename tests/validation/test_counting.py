"""Parameters, FLOPs and saved activations against what PyTorch counts; broken formulas against the checks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effsim.errors import UnsupportedError
from effsim.graph.operators import Attention, SSDScan
from effsim.graph.operators.attention import attended_pairs
from effsim.importers.huggingface import from_config, load_architecture
from effsim.spec.catalogue import names
from effsim.validation.counting.configs import config_keys, model_type
from effsim.validation.counting.rules import Difference, visible_pairs
from effsim.validation.interpreter.weights import layer_specs

pytest.importorskip("torch")
pytest.importorskip("transformers")

from effsim.validation import mutations
from effsim.validation.counting import flops, memory
from effsim.validation.counting.flops import Counted, CountingReport, validate_counting
from effsim.validation.counting.memory import validate_memory
from effsim.validation.interpreter.reference import CASES
from effsim.validation.interpreter.report import Judge


def test_fast_set_is_explained_to_the_last_flop() -> None:
    report = validate_counting(fast=True)
    assert report.failures() == []
    assert len(report.rows) == 3 * len(flops.FAST)
    assert all(row.torch > 0 for row in report.rows)
    dense = next(row for row in report.rows if (row.architecture, row.phase) == ("gpt2", "decode"))
    assert dense.torch == dense.graph
    assert dense.differences == ()


@pytest.mark.slow
def test_every_bundled_architecture_is_explained() -> None:
    report = validate_counting()
    assert report.failures() == []
    assert {row.architecture for row in report.rows} == set(flops.decoders())


@pytest.mark.parametrize("name", [n for n in names("architectures") if not load_architecture(n).encoder])
def test_configuration_gives_back_the_architecture(name: str) -> None:
    """A round trip without PyTorch, but for keys that only its configuration classes know defaults of."""
    spec, family = load_architecture(name), model_type(name)
    back = from_config({**config_keys(spec, family), "model_type": family})
    ours, theirs = layer_specs(spec), layer_specs(back)
    assert [(run.mixer, run.ffn) for run in ours] == [(run.mixer, run.ffn) for run in theirs]
    assert (spec.vocab, spec.hidden, spec.norm, spec.residual) == (back.vocab, back.hidden, back.norm, back.residual)


def test_unknown_families_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="no transformers family"):
        model_type("something_7b")
    with pytest.raises(UnsupportedError, match="no configuration"):
        config_keys(load_architecture("gpt2"), "something")


@pytest.mark.parametrize("window", [0, 1, 3, 9])
@pytest.mark.parametrize(("q_len", "kv_len"), [(1, 1), (4, 4), (3, 7), (1, 9)])
def test_rule_counts_masked_pairs_as_the_operator_does(q_len: int, kv_len: int, window: int) -> None:
    assert visible_pairs(q_len, kv_len, True, window) == attended_pairs(q_len, kv_len, True, window)
    assert visible_pairs(q_len, kv_len, False, window) == attended_pairs(q_len, kv_len, False, window)


def test_report_names_what_is_unexplained() -> None:
    good = Counted("a", "llama", "prompt", 12.0, 10.0, (Difference("masked", 2.0),))
    bad = replace(good, architecture="b", graph=11.0)
    report = CountingReport((good, bad))
    assert report.failures() == ["b, prompt: torch counts 12, the graph 11; -1 unexplained"]
    assert report.as_dict()["rows"][1]["unexplained"] == -1.0
    assert "| b | llama | prompt |" in report.markdown()


def test_every_saved_byte_is_explained() -> None:
    report = validate_memory()
    assert report.failures() == []
    ratios = {row.model: row.ratio for row in report.rows}
    # One fused kernel an operator: what is left are statistics of norms and wide indices.
    assert 0.99 < ratios["GPT-2, fused attention and GELU"] < 1.0
    assert all(0.5 < ratio < 1.0 for ratio in ratios.values())
    assert memory.MemoryReport(tuple(replace(r, torch_bytes=r.torch_bytes + 4) for r in report.rows)).failures()


@pytest.fixture(scope="module")
def judges() -> mutations.Judges:
    """Two small models: enough for the mutations below."""
    chosen = [case for case in CASES if case.name in ("llama", "mamba2")]
    return mutations.Judges([Judge.of(case) for case in chosen], {}, {c.name: 0.0 for c in memory.MEMORY_CASES})


CAUGHT_BY_TWO = (
    "GQA traffic: keys and values once a query head",
    "SSD: no state carried between chunks",
    "RoPE base doubled",
    "causal mask off by one key, in the model",
    "norm: epsilon outside the root",
)


@pytest.mark.parametrize("name", CAUGHT_BY_TWO)
def test_broken_formula_is_noticed(judges: mutations.Judges, name: str) -> None:
    def red() -> list[str]:
        return [check for check in judges.red() if check.startswith("interpreter")]

    mutation = next(m for m in mutations.MUTATIONS if m.name == name)
    with mutation.applied():
        assert red()
    assert red() == [], "the mutation did not go away"


@pytest.mark.slow
def test_every_broken_formula_is_noticed() -> None:
    noticed = mutations.run_mutations()
    assert len(noticed) >= 10
    assert [row.mutation for row in noticed if not row.red] == []


def test_mutations_replace_what_they_name() -> None:
    for mutation in mutations.MUTATIONS:
        owner = mutation.owner
        sound = owner.__dict__[mutation.attribute]
        with mutation.applied():
            assert owner.__dict__[mutation.attribute] is not sound, mutation.name
        assert owner.__dict__[mutation.attribute] is sound, mutation.name
    assert {Attention, SSDScan} <= {m.owner for m in mutations.MUTATIONS if isinstance(m.owner, type)}
