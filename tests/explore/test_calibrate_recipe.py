"""Recipes: numbers that made a table come back, files keep their comments, and what is wrong is refused where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from effsim._api import check_file
from effsim.cli import main
from effsim.devices.registry import load_machine
from effsim.errors import DataError, SpecError, UnknownNameError
from effsim.explore.calibrate.entries import Entry, difference, fitted_entries, with_entries, write_entries
from effsim.explore.calibrate.recipe import loss_of, run_recipe
from effsim.explore.calibrate.recipe_rows import matches
from effsim.graph.table import from_row
from effsim.readings.launch import single_launch_s
from effsim.spec.build import build
from effsim.spec.catalogue import find, load_document, names
from effsim.spec.fit_recipe import MOST_FITTED, FitRows, FitSpec
from effsim.spec.yaml_loader import load_yaml, load_yaml_text
from effsim.validation.tables import ENVIRONMENT, data_folder

CARD = """\
# A card whose numbers are fitted.
extends: gpu_a100
kind: gpu
name: card
provenance: {kind: assumed, source: "test"}
kernels:
  gemm:
    reduction: {value: 2.44 us, kind: fitted, source: "earlier"}  # stays a comment
  sequence:
    trip: {value: 1.5 us, kind: fitted, source: "earlier"}
"""

RECIPE = """\
kind: fit
name: test
writes: {card}
device: {card}
split: {{fraction: 0.5, seed: 3}}
stages:
  - name: products
    source: "made up"
    rows:
      - {{table: rows.txt, labels: [product]}}
    parameters:
      - {{paths: [kernels.gemm.reduction], low: 0.3 us, high: 20 us}}
  - name: sequence
    source: "made up"
    rows:
      - {{table: rows.txt, labels: [convolution]}}
    judge:
      - {{table: rows.txt, labels: [convolution], where: {{length: {{low: 2, high: 1e9}}}}}}
    parameters:
      - {{paths: [kernels.sequence.trip], low: 0.2 us, high: 10 us}}
"""


@dataclass(frozen=True)
class Made:
    """A row as the tables' reader would give it."""

    label: str
    kind: str
    cells: dict[str, Any]
    measured_s: float
    measured_j: float | None = None
    launch: str = "graph"


def rows() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Products that are split along k, whose time holds the reduction, and convolutions, whose time holds the trip."""
    for m in (1, 16, 64, 128):
        for n, k in ((128, 16384), (256, 8192), (512, 16384), (1024, 8192), (384, 12288)):
            yield "product", "linear", {"m": m, "n": n, "k": k, "dtype": "bf16"}
    for batch in (1, 4, 16, 64):
        for length in (1, 64, 1024, 4096):
            cells = {"batch": batch, "length": length, "channels": 4096, "kernel": 4, "dtype": "bf16"}
            yield "convolution", "conv1d", cells


def reader(path: Path, device: str, least_readings: int) -> list[Made]:
    """What a card with a reduction of 5 us and trips of 0.8 us would take."""
    held = load_machine(device, ["hardware.kernels.gemm.reduction=5us", "hardware.kernels.sequence.trip=0.8us"]).device
    out = []
    for label, kind, cells in rows():
        lowered = held.lower(from_row(kind, cells))
        seconds = lowered.analytic_s + single_launch_s(held.launch, "graph", lowered)
        out.append(Made(label, kind, cells, seconds))
    return out


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    card = tmp_path / "card.yaml"
    card.write_text(CARD)
    (tmp_path / "rows.txt").write_text("")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(card=card))
    return path


def test_numbers_that_made_the_rows_come_back(recipe: Path) -> None:
    result = run_recipe(str(recipe), recipe.parent, reader)
    reduction, trip = (stage.numbers[0] for stage in result.stages)
    assert reduction.value == pytest.approx(5e-6, rel=0.02)
    assert trip.value == pytest.approx(0.8e-6, rel=0.02)
    assert not reduction.holds_stored
    assert not reduction.at_bound
    assert reduction.low <= reduction.value <= reduction.high
    assert result.count == 2
    assert len(result.refused()) == 2
    for stage in result.stages:
        held = [j for j in stage.judged if j.part != "fitted to"]
        assert all(j.fitted.median < 0.005 and not j.worse for j in held)
        assert any(j.stored.median > 0.01 for j in held)


def test_written_numbers_stand_and_the_rest_of_the_file_stays(recipe: Path) -> None:
    card = recipe.parent / "card.yaml"
    result = run_recipe(str(recipe), recipe.parent, reader)
    assert "+    reduction: {value: 5 us" in difference(card, result.entries())
    assert card.read_text() == CARD
    assert write_entries(card, result.entries())
    text = card.read_text()
    assert "# A card whose numbers are fitted." in text
    assert "  # stays a comment" in text
    assert "stage products" in text
    assert "seed 3" in text
    assert len(text.splitlines()) == len(CARD.splitlines())
    again = run_recipe(str(recipe), recipe.parent, reader)
    assert not again.refused()
    assert not write_entries(card, again.entries())  # the same bytes, whatever the file held before
    assert [path.name for path in recipe.parent.iterdir() if path.name.startswith(".")] == []


def test_rows_of_a_system_are_predicted_on_the_system(recipe: Path) -> None:
    """A system's device has the name of the device alone, and other links."""
    slow = recipe.parent / "slow.yaml"
    level = "{name: nvlink, kind: switch, size: 4, bandwidth: 20 GB/s, latency: 3 us}"
    slow.write_text(
        f"kind: system\nname: slow\ndevices: [{{hardware: card.yaml, count: 4}}]\ntopology: [{level}]\n", "utf-8"
    )
    cells = {"op": "all_reduce", "bytes": 1 << 24, "devices": 4}
    made = load_machine(str(slow)).device.lower(from_row("collective", cells))

    def with_sums(path: Path, device: str, least_readings: int) -> list[Made]:
        if device != str(slow):
            return reader(path, device, least_readings)
        seconds = made.analytic_s + single_launch_s(load_machine(device).device.launch, "graph", made)
        return [Made("sum", "collective", cells, seconds)]

    judge = "labels: [convolution], where: {length: {low: 2, high: 1e9}}"
    recipe.write_text(recipe.read_text().replace(judge, f"labels: [sum], device: {slow}"))
    judged = run_recipe(str(recipe), recipe.parent, with_sums).stages[1].judged
    (found,) = [j for j in judged if j.part == "never fitted to"]
    assert found.fitted.median < 1e-9


def test_rows_that_depend_on_a_later_stage_are_refused(recipe: Path) -> None:
    text = recipe.read_text()
    recipe.write_text(text.replace("labels: [product]", "labels: [product, convolution]"))
    with pytest.raises(SpecError, match=r"recipe.yaml:\d+:\d+: fit: its rows answer to kernels.sequence.trip"):
        run_recipe(str(recipe), recipe.parent, reader)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("paths: [kernels.gemm.reduction]", "paths: [kernels.gemm.reductio]", r":12:\d+: .*did you mean 'kernels.gemm"),
        ("paths: [kernels.gemm.reduction]", "paths: [sm.count]", r":12:\d+: .*is a count"),
        ("low: 0.3 us, high: 20 us", "low: 0.3 us, high: 20 GB", r":12:\d+: .*write one unit"),
        ("low: 0.3 us, high: 20 us", "low: 3 GB, high: 20 GB", r":12:\d+: "),
        ("low: 0.3 us, high: 20 us", "low: 30 us, high: 20 us", "below 'high'"),
        ("table: rows.txt, labels: [product]", "table: ../rows.txt, labels: [product]", "leads out of the folder"),
        ("fraction: 0.5", "fraction: 1.5", r":5:\d+: "),
        ("name: sequence", "name: products", "stands there twice"),
        ("seed: 3", "sead: 3", r":5:\d+: .*did you mean 'seed'"),
    ],
)
def test_what_is_wrong_is_refused_where_it_is(recipe: Path, old: str, new: str, message: str) -> None:
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    with pytest.raises(SpecError, match=message):
        run_recipe(str(recipe), recipe.parent, reader)


def test_missing_tables_and_rows_are_data_errors(recipe: Path) -> None:
    text = recipe.read_text()
    for more, message in (
        ("[product], where: {m: {low: 5, high: 6}}", "0 rows of product are too few"),
        ("[product], where: {dtype: {low: 1, high: 2}}", "0 rows of product are too few"),
        ("[product, prodct]", "no row has the label 'prodct'; did you mean 'product'"),
        ("[product], where: {lenght: [1]}", "no row has the column 'lenght'"),
        ("[product], without: {dtyp: [bf16]}", "no row has the column 'dtyp'; did you mean 'dtype'"),
    ):
        recipe.write_text(text.replace("labels: [product]", f"labels: {more}"))
        with pytest.raises(DataError, match=message):
            run_recipe(str(recipe), recipe.parent, reader)
    recipe.write_text(text.replace("table: rows.txt", "table: other.txt", 1))
    with pytest.raises(DataError, match=r"recipe.yaml:10:\d+: .*no such table"):
        run_recipe(str(recipe), recipe.parent, reader)


def test_more_than_twelve_fitted_numbers_are_refused(recipe: Path) -> None:
    card = recipe.parent / "card.yaml"
    modes = ("graph", "stream", "dispatch", "eager", "eager_native", "eager_compiled")
    fitted = "{{value: {}, kind: fitted, source: t}}"
    launch = ", ".join(f"{mode}: {fitted.format('1 us')}" for mode in modes)
    more = f"{CARD}launch: {{{launch}}}\n"
    for part in ("l2", "memory"):
        more += f"{part}: {{latency: {fitted.format('200 ns')}}}\n"
    card.write_text(more)
    assert len(list(fitted_entries(load_yaml(card)))) == 10
    energies = {"l2": "1 pJ/B", "memory": "50 pJ/B", "vector": "1 pJ/FLOP"}
    written = ", ".join(f"{part}: {fitted.format(value)}" for part, value in energies.items())
    card.write_text(f"{more}energy: {{{written}}}\n")
    with pytest.raises(SpecError, match=rf"would have 13 fitted numbers .*expected at most {MOST_FITTED}"):
        run_recipe(str(recipe), recipe.parent, reader)


def test_fitted_entries_without_a_recipe_are_named(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().partition("  - name: sequence")[0])
    result = run_recipe(str(recipe), recipe.parent, reader)
    assert result.uncovered == ("kernels.sequence.trip",)
    assert "kernels.sequence.trip is called fitted" in result.refused()[-1]


def test_entries_must_be_there_on_one_line() -> None:
    text = "a:\n  b: {value: 1 us, kind: fitted, source: x}\n  c:\n    value: 2 us\n    kind: fitted\n"
    entry = Entry("a.b", "2 us", 'quoted "source": 1')
    changed = with_entries(text, [entry], "f.yaml")
    document = load_yaml_text(changed, "f.yaml")
    assert document.data["a"]["b"] == {"value": "2 us", "kind": "fitted", "source": 'quoted "source": 1'}
    assert document.data["a"]["c"] == {"value": "2 us", "kind": "fitted"}
    for path, message in (("a.d", "no entry"), ("a.b.c.d", "no entry"), ("a.c", "several lines")):
        with pytest.raises(SpecError, match=message):
            with_entries(text, [Entry(path, "1", "s")], "f.yaml")


def test_rows_are_chosen_by_their_columns() -> None:
    chosen = FitRows.model_validate(
        {"table": "t", "labels": ["l"], "where": {"m": {"low": 2, "high": 8}, "dtype": ["bf16"]}, "without": {"n": [7]}}
    )
    assert matches({"m": 8, "dtype": "bf16", "n": 5}, chosen)
    assert not matches({"m": 9, "dtype": "bf16", "n": 5}, chosen)
    assert not matches({"m": 8, "dtype": "fp16", "n": 5}, chosen)
    assert not matches({"m": 8, "dtype": "bf16", "n": 7}, chosen)
    assert not matches({"dtype": "bf16"}, chosen)


def test_losses_vanish_for_perfect_rows_and_grow_with_the_error() -> None:
    for kind in ("absolute", "soft", "median"):
        assert loss_of(kind, [(2.0, 2.0), (3.0, 3.0)]) == 0.0
        assert 0.0 < loss_of(kind, [(2.1, 2.0)]) < loss_of(kind, [(2.5, 2.0)])


@pytest.mark.parametrize("name", names("fits"))
def test_bundled_recipes_cover_every_fitted_entry_of_their_file(name: str) -> None:
    assert check_file(name) == ("fit", name)
    spec = build(FitSpec, load_document("fits", name), root="fit")
    covered = {path for stage in spec.stages for parameter in stage.parameters for path in parameter.paths}
    assert covered == set(fitted_entries(load_yaml(find("generations", spec.writes))))
    leaves = dict(load_machine(spec.device).spec.leaves())
    for stage in spec.stages:
        for parameter in stage.parameters:
            assert {float(leaves[path]) for path in parameter.paths} == {float(leaves[parameter.paths[0]])}


def test_generations_with_fitted_entries_have_a_recipe() -> None:
    written = {build(FitSpec, load_document("fits", name), root="fit").writes for name in names("fits")}
    folder = find("generations", "ampere").parent
    fitted = {path.stem for path in folder.glob("*.yaml") if list(fitted_entries(load_yaml(path)))}
    assert fitted == written


def test_the_command_takes_recipes_and_tables_apart(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for words, message in (
        (["--fit", "no_such_recipe", "--data", "."], "no_such_recipe"),
        (["--fit", "t.csv", "--check"], "--check does not go with --fit TABLE; it belongs to --fit RECIPE"),
        (["--check"], "it belongs to --fit RECIPE"),
        (["--hardware", "gpu_a100"], "it belongs to --fit TABLE"),
        (["--fit", "ampere", "--hardware", "gpu_a100"], "--hardware does not go with --fit RECIPE"),
        (["--fit", "ampere", "--split", "0.5"], "--split does not go with --fit RECIPE"),
        (["--fit", "ampere", "--write", "--check"], "give one of them"),
    ):
        monkeypatch.setattr("sys.argv", ["effsim", "calibrate", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def test_an_unknown_file_to_write_is_named(recipe: Path) -> None:
    text = recipe.read_text()
    recipe.write_text(text.replace(f"writes: {recipe.parent / 'card.yaml'}", "writes: no_such_generation"))
    with pytest.raises(UnknownNameError, match=r"recipe.yaml:3:\d+: .*no_such_generation"):
        run_recipe(str(recipe), recipe.parent, reader)


@pytest.mark.slow
@pytest.mark.parametrize("name", names("fits"))
def test_stored_numbers_stand(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Needs the measurements (``EFFSIM_MEASUREMENTS``)."""
    checkout = Path(__file__).resolve().parents[2]
    if not os.environ.get(ENVIRONMENT) and not (checkout.parent / "shared" / "measurements").is_dir():
        pytest.skip("no measurements")
    monkeypatch.setattr(
        "sys.argv", ["effsim", "calibrate", "--fit", name, "--check", "--data", str(data_folder(checkout=checkout))]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "entry",
    [
        Entry("kernels.gemm.nothing", "1 us", "s"),  # before anything is written
        Entry("kernels.gemm.reduction", "1e3", "s"),  # after: it reads back as another text
    ],
)
def test_a_failed_write_leaves_the_file_and_nothing_beside_it(tmp_path: Path, entry: Entry) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(CARD)
    with pytest.raises(SpecError):
        write_entries(card, [entry])
    assert card.read_text() == CARD
    assert [p.name for p in tmp_path.iterdir()] == ["card.yaml"]
