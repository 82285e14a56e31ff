"""Pages of the formats: complete, committed as generated, and their examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from effsim import UnknownNameError
from effsim._api import check_file, schemas
from effsim.report.schema_examples import EXAMPLES
from effsim.report.schema_page import MODELS, markdown, sections, write_pages

FORMATS = Path(__file__).resolve().parents[2] / "docs" / "formats"
KINDS = sorted(MODELS)
CASES = [(kind, index) for kind in KINDS for index in range(len(EXAMPLES.get(kind, ())))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_says_what_it_means(kind: str) -> None:
    silent = [row.path for section in sections(kind) for row in section.rows if not row.meaning]
    assert not silent, f"give these a Field(description=…): {', '.join(silent)}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_page_is_the_generated_one(kind: str) -> None:
    page = FORMATS / f"{kind}.md"
    assert page.is_file(), "run: effsim schema --markdown docs/formats"
    assert page.read_text(encoding="utf-8") == markdown(kind), "run: effsim schema --markdown docs/formats"


def test_no_page_is_left_over() -> None:
    assert sorted(path.stem for path in FORMATS.glob("*.md")) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_an_example(kind: str) -> None:
    assert EXAMPLES.get(kind), f"add an example of kind {kind} to sim/report/schema_examples.py"


@pytest.mark.parametrize(("kind", "index"), CASES)
def test_examples_on_the_page_validate(kind: str, index: int, tmp_path: Path) -> None:
    shown = re.findall(r"^```yaml\n(.*?)^```$", (FORMATS / f"{kind}.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    file = tmp_path / "example.yaml"
    file.write_text(shown[index], encoding="utf-8")
    assert check_file(str(file))[0] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_the_fields_of_the_json_schema(kind: str) -> None:
    """An independent list of the fields: every mapping of the JSON Schema that is a model of ours."""
    schema = schemas()[kind]
    models = [schema, *schema.get("$defs", {}).values()]
    if "$ref" in schema:  # a recursive model is a definition of its own
        models = list(schema["$defs"].values())
    expected = sorted(sorted(model["properties"]) for model in models if model.get("type") == "object")
    on_page = sorted(sorted(row.path.rpartition(".")[2] for row in s.rows) for s in sections(kind) if s.rows)
    assert on_page == expected


@pytest.mark.parametrize("kind", KINDS)
def test_required_fields_are_those_of_the_json_schema(kind: str) -> None:
    schema = schemas()[kind]
    required = set(schema.get("required", ()))
    top = sections(kind)[0]
    assert {row.path for row in top.rows if row.default == "required"} == required


def test_written_pages_are_the_pages(tmp_path: Path) -> None:
    written = write_pages(tmp_path / "new", ["engine"])
    assert [path.name for path in written] == ["engine.md"]
    assert written[0].read_text(encoding="utf-8") == markdown("engine")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'engine'"):
        markdown("engin")


def test_types_read_like_a_person_would_say_them() -> None:
    rows = {row.path: row for section in sections("gpu") for row in section.rows}
    assert rows["memory.bandwidth"].type == "a bandwidth, e.g. `2.039 TB/s`"
    assert rows["memory.latency"].type == "a time, e.g. `14 ns`, may be 0"
    assert rows["memory.stream_fraction"].type == "a ratio, e.g. `0.87`, at most 1"
    assert rows["kernels.gemm.tiles[].m"].type == "whole number, 1 or more"
    assert rows["l2.unified"].default == "`true`"
    layers = {row.path: row for section in sections("architecture") for row in section.rows}
    assert layers["layers[].mixer.mixers"].type == "list of mappings"
    assert layers["layers[].mixer.rope_fraction"].type == "number, 0 to 1"


def test_examples_are_plain_yaml() -> None:
    for examples in EXAMPLES.values():
        for _, text in examples:
            assert isinstance(yaml.safe_load(text), dict)
