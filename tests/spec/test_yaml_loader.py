"""The YAML that is read, the YAML that is refused, and where it says the trouble is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from effsim.errors import Location, YamlError
from effsim.spec import yaml_loader
from effsim.spec.yaml_loader import MAX_BYTES, MAX_NODES, load_yaml, load_yaml_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.41e9", 1.41e9),
        ("1e9", 1e9),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1E-3", -1e-3),
        ("+5", 5),
        ("0777", 777),
        ("0o17", 15),
        ("0x1f", 31),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("1e", "1e"),
        ("0b11", "0b11"),
        ("~", None),
        ("", None),
        ("Null", None),
        ("nULL", "nULL"),
        ("TRUE", True),
        ("false", False),
        ("tRue", "tRue"),
        ('"5"', "5"),
        ("'~'", "~"),
        ("=", "="),
        ("80 GiB", "80 GiB"),
    ],
)
def test_core_schema(text: str, value: object) -> None:
    found = load_yaml_text(f"a: {text}\n", "f.yaml").data["a"]
    assert found == value
    assert type(found) is type(value)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)

REFUSED = [
    ("", "f.yaml:1:1: the file is empty; expected a mapping of keys to values"),
    ("# only a comment\n", "f.yaml:1:1: the file is empty; expected a mapping of keys to values"),
    ("---\n", "f.yaml:2:1: nothing at the top level; expected a mapping of keys to values"),
    ("- 1\n", "f.yaml:1:1: a list at the top level; expected a mapping of keys to values"),
    ("abc", "f.yaml:1:1: a single value at the top level; expected a mapping of keys to values"),
    ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: the key 'a' is here twice, first in line 1"),
    ("a: {x: 1, x: 2}", "f.yaml:1:11: the key 'x' is here twice, first in line 1"),
    ("1: 2", "f.yaml:1:1: the key 1 is not text; expected text; quote it"),
    ("null: 2", "f.yaml:1:1: the key null is not text; expected text; quote it"),
    ("[a]: 2", "f.yaml:1:1: a collection as a key; expected text"),
    ("? " + "k" * 300 + "\n: 1", "f.yaml:1:3: a key of 300 characters; expected at most 200"),
    ("a: !!python/object/apply:os.system [x]",
     "f.yaml:1:4: the tag !!python/object/apply:os.system is not allowed; expected values without tags"),
    ("a: !!str 3", "f.yaml:1:4: the tag !!str is not allowed; expected values without tags"),
    ("!x a: 3", "f.yaml:1:1: the tag !x is not allowed; expected values without tags"),
    ("%TAG ! tag:x,2000:\n---\na: 1", "f.yaml:1:1: %TAG directives are not allowed"),
    ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document starts; expected one document a file"),
    ("a: &a {x: 1}\nb:\n  <<: *a", "f.yaml:3:3: merge keys (<<) are not YAML 1.2; expected extends: at the top level"),
    ("a: &a [1, *a]", "f.yaml:1:11: the alias *a stands inside its own anchor"),
    ("a: *b", "f.yaml:1:4: the alias *b has no anchor &b before it"),
    (BOMB, "f.yaml:5:28: too much content, aliases expanded; expected at most 50000 nodes"),
    ("[" * 65, "f.yaml:1:65: nested too deeply; expected at most 64 levels"),
    ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 30 + "*a" + "]" * 30,
     "f.yaml:2:34: nested too deeply; expected at most 64 levels"),
    ("a: .nan", "f.yaml:1:4: .nan is not a finite number"),
    ("a: -.Inf", "f.yaml:1:4: -.Inf is not a finite number"),
    ("a: 1e999", "f.yaml:1:4: 1e999 is too large for a number"),
    ("a: " + "9" * 31, "f.yaml:1:4: an integer of 31 digits; expected at most 30"),
    ("a: 1\nb: \x00", "f.yaml:2:4: control character U+0000; expected text"),
    ("a: \x1b[31m", "f.yaml:1:4: control character U+001B; expected text"),
    ('a: "\\0"', "f.yaml:1:4: control character U+0000 in a text"),
    ("a: \ud800", "f.yaml:1:4: control character U+D800; expected text"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refuses_and_says_where(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        load_yaml_text(text, "f.yaml")
    assert str(caught.value) == message


def test_syntax_errors_keep_the_position() -> None:
    with pytest.raises(YamlError, match=r"^f\.yaml:2:5: not valid YAML: mapping values are not allowed"):
        load_yaml_text("a: 1\nb: c: d\n", "f.yaml")
    with pytest.raises(YamlError, match=r"^f\.yaml:2:1: not valid YAML: .*did not find expected ',' or '\]'"):
        load_yaml_text("a: [1\n", "f.yaml")


FILES = [
    ("a: 1".encode("utf-16"), "1:1: the file is UTF-16; expected UTF-8"),
    ("a: 1".encode("utf-32"), "1:1: the file is UTF-32; expected UTF-8"),
    (b"a: 1\nbc: \xff\n", "2:5: byte 0xff is not UTF-8; expected UTF-8"),
    (b"a" * 10**7, "1:1: 10,000,000 bytes is too large; expected at most 1,048,576 bytes"),
]


@pytest.mark.parametrize(("content", "message"), FILES)
def test_refuses_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(YamlError) as caught:
        load_yaml(path)
    assert str(caught.value) == f"{path}:{message}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a directory; expected a YAML file"),
        ("none.yaml", "no such file"),
        ("x" * 5000, "cannot be read: File name too long"),
        ("a\0b", "cannot be read: embedded null byte"),
    ],
)
def test_refuses_what_is_no_file(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        load_yaml(tmp_path / name)
    assert str(caught.value).endswith(f":1:1: {message}")


def test_refuses_unreadable_and_special_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(YamlError, match=r"is not a regular file; expected a YAML file"):
        load_yaml(Path("/dev/null"))
    path = tmp_path / "f.yaml"
    path.write_text("a: 1")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(YamlError, match=r"f\.yaml:1:1: cannot be read: Permission denied"):
        load_yaml(path)


def test_reads_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: \xc3\xa9\r\n")
    assert load_yaml(path).data == {"a": 1, "b": "é"}


def test_aliases_are_copies() -> None:
    data = load_yaml_text("a: &x [1, {b: 2}]\nc: *x\nd: &y 5\ne: *y\n", "f.yaml").data
    assert data == {"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": 5, "e": 5}
    assert data["a"] is not data["c"]


def test_positions() -> None:
    document = load_yaml_text("a:\n  b: [1, {c: 2}]\nd: x\n", "f.yaml")
    assert document.location(("a", "b", 1, "c")) == Location("f.yaml", 2, 14)
    assert document.key_location(("a", "b", 1, "c")) == Location("f.yaml", 2, 11)
    assert document.location(("a", "b")) == Location("f.yaml", 2, 6)
    assert document.key_location(("a", "b")) == Location("f.yaml", 2, 3)
    assert document.location(("a", "b", 7, "nowhere")) == Location("f.yaml", 2, 6)
    assert document.key_location(("a", "zzz")) == Location("f.yaml", 2, 3)
    assert document.location(()) == Location("f.yaml", 1, 1)
    assert document.key_location(()) == Location("f.yaml", 1, 1)


LARGE = MAX_BYTES - 20
HOSTILE = [
    "[" * LARGE,
    "{" * LARGE,
    "- " * (LARGE // 2),
    "? " * (LARGE // 2),
    "a: " + "[[" * 1000 + "]]" * 1000,
    "a: [" + "1," * (LARGE // 2) + "]",
    "\n".join(f"k{index}: {index}" for index in range(LARGE // 14)),
    "".join(f"a{index}: &a{index} 1\n" for index in range(24_000)),
    "a: " + "x" * LARGE,
    'a: "' + "x" * LARGE,
    "a: " + " " * LARGE,
    "#" * LARGE,
    ":" * LARGE,
    "&" * LARGE,
    "a: 1" + "\n \n" * (LARGE // 3),
    "--- " * (LARGE // 4),
    " " * (MAX_BYTES + 1),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_end_soon(text: str) -> None:
    start = time.process_time()
    outcome = _outcome(text)
    assert time.process_time() - start < 2.0
    assert isinstance(outcome, dict) or len(outcome) < 400


def test_the_largest_document_is_read() -> None:
    items = MAX_NODES - 3  # the mapping, its key and the list
    assert len(load_yaml_text("a: [" + "1," * items + "]", "f.yaml").data["a"]) == items
    with pytest.raises(YamlError, match="too much content"):
        load_yaml_text("a: [" + "1," * (items + 1) + "]", "f.yaml")


def test_without_libyaml_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for text, message in REFUSED if "not valid YAML" not in message] + [
        "a: [1, ~, no]\nb: {c: &x 1, d: *x}"
    ]
    fast = [_outcome(text) for text in texts]
    monkeypatch.setattr(yaml_loader, "_LOADER", yaml.SafeLoader)
    assert [_outcome(text) for text in texts] == fast


def _outcome(text: str) -> dict[str, Any] | str:
    try:
        return load_yaml_text(text, "f.yaml").data
    except YamlError as error:
        return str(error)


SCALARS = st.none() | st.booleans() | st.integers(-(10**29), 10**29) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
def test_json_is_yaml(value: dict[str, Any]) -> None:
    """YAML 1.2 contains JSON: whatever json writes reads back equal, type by type."""
    text = json.dumps(value, ensure_ascii=False)
    found = load_yaml_text(text, "f.yaml").data
    assert json.dumps(found, ensure_ascii=False) == text


@given(st.text(alphabet=st.sampled_from("a1: -[]{}&*!|>'\"%@`#,?\n\t.~é<"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    outcome = _outcome(text)
    assert isinstance(outcome, dict) or outcome.startswith("f.yaml:")
