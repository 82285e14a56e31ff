"""What is behind a view, to take away: the YAML with its changes, the command line, the result as JSON and CSV."""

from __future__ import annotations

import base64
import csv
import io
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from ..report.result import RunResult
from ..spec.catalogue import load_document
from ..spec.overrides import apply
from ..spec.yaml_loader import Document, Node
from .service import Asked, Service
from .shelf import Shelf

CHANGED: Final = {"kind": "assumed", "source": "changed in the dashboard"}
"""Origin of numbers that a view changes."""
_QUANTITY_KEYS: Final = frozenset({"value", "kind", "source"})
Files = dict[str, str]
"""Texts by file name, the one that is asked for last."""


def yaml_files(service: Service, section: str, choice: str, changes: Sequence[str]) -> Files:
    """The YAML behind a choice with changes: as it was written, or a file that extends it and says what is different.

    Raises:
        EffsimError: the choice is unknown, or a change is wrong.
    """
    root = {"hardware": "hardware", "workloads": "workload", "plans": "plan"}.get(section, section)
    mine = [c for c in changes if c.split(".", 1)[0] == root]
    with service.confined():
        shelf = service.shelf
        document = load_document(section, shelf.argument(section, choice))
        out = _models(shelf, document)
        original, name = shelf.text(section, choice), _file_name(shelf.label(choice))
        for held, label in _model_names(shelf, document).items():
            original = original.replace(held, label)
        if not mine:
            return {**out, name: original}
        uploaded = shelf.upload(choice) is not None
        if uploaded:
            out[name] = original
        top: dict[str, Any] = {"extends": name if uploaded else choice}
        groups = _groups(document) if section == "hardware" else {}
        outside = [c for c in mine if c.split(".")[1].split("=")[0] not in groups]
        top |= _difference(document, apply(document, outside, root), outside) | {"provenance": CHANGED}
        inside = _device_files(document, groups, [c for c in mine if c not in outside], top)
        return {**out, **inside, f"changed_{name}": _dump(top)}


def _device_files(document: Document, groups: Mapping[str, int], changes: Sequence[str], top: dict[str, Any]) -> Files:
    """Files of a system's devices that are changed; the system's own list names them."""
    out: Files = {}
    members = document.data.get("devices") or []
    for index in sorted({groups[c.split(".")[1]] for c in changes}):
        mine = ["hardware." + c.split(".", 2)[2] for c in changes if groups[c.split(".")[1]] == index]
        name = str(members[index]["hardware"])
        device = load_document("hardware", name)
        file = f"changed_{_file_name(name)}"
        out[file] = _dump(
            {"extends": name} | _difference(device, apply(device, mine, "hardware"), mine) | {"provenance": CHANGED}
        )
        members[index]["hardware"] = file
    if out:
        top["devices"] = members
    return out


def _groups(document: Document) -> dict[str, int]:
    """Names by which changes reach into a system's devices, with the place of each in its list."""
    if document.data.get("kind") != "system":
        return {}
    listed = document.data.get("devices") or []
    named = {str(g.get("name") or g.get("hardware")): i for i, g in enumerate(listed) if isinstance(g, dict)}
    return {"device": 0} | named


def _difference(document: Document, changed: Document, changes: Sequence[str]) -> dict[str, Any]:
    """What the changes touch, nested as in the file: single values, or the whole of a list."""
    out: dict[str, Any] = {}
    for change in changes:
        keys = change.partition("=")[0].strip().split(".")[1:]
        node: Node | None = changed.root
        kept: list[str] = []
        for key in keys:
            node = node.child(key) if node is not None and isinstance(node.content, dict) else None
            kept.append(key)
            if node is None or isinstance(node.content, list) or _is_quantity(node):
                break
        if node is None and document.node(tuple(kept)) is None:
            continue  # what was not there is taken away
        place = out
        for key in kept[:-1]:
            place = place.setdefault(key, {})
        place[kept[-1]] = None if node is None else node.data
    return out


def _is_quantity(node: Node) -> bool:
    return isinstance(node.content, dict) and "value" in node.content and node.content.keys() <= _QUANTITY_KEYS


def _model_names(shelf: Shelf, document: Document) -> dict[str, str]:
    """Names under which an uploaded model is held, with those its sender gave."""
    model = document.data.get("model")
    found = shelf.upload(Path(model).stem) if isinstance(model, str) else None
    return {} if found is None else {found.path.name: found.label}


def _models(shelf: Shelf, document: Document) -> Files:
    return {label: (shelf.folder / held).read_text("utf-8") for held, label in _model_names(shelf, document).items()}


def _file_name(label: str) -> str:
    return label if label.endswith((".yaml", ".yml")) else f"{label.replace(' ', '_')}.yaml"


def _dump(data: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=120)
    return text


def download(files: Files) -> dict[str, Any]:
    """What a download component takes: one file as it is, several as a ZIP archive."""
    name = list(files)[-1]
    if len(files) == 1:
        return {"content": files[name], "filename": name, "type": "text/plain"}
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    content = base64.b64encode(held.getvalue()).decode()
    return {"content": content, "filename": f"{Path(name).stem}.zip", "base64": True, "type": "application/zip"}


def command_line(service: Service, asked: Asked, verb: str = "run") -> str:
    """The command that computes the same; uploads appear under their own names."""
    label = service.shelf.label
    parts = ["effsim", verb, label(asked.hardware), label(asked.workload)]
    if asked.engine != "events" and verb == "run":
        parts += ["--engine", asked.engine]
    for change in asked.changes:
        parts += ["--set", change]
    return shlex.join(parts)


def operators_csv(result: RunResult) -> str:
    """The operators of a run, one row each, with the columns of the JSON."""
    rows = result.to_dict()["operators"]
    terms = sorted({name for row in rows for name in row["terms"]})
    plain = [key for key in rows[0] if key not in ("terms", "cycles")] if rows else []
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow([*plain, *(f"term_{name}_s" for name in terms)])
    for row in rows:
        writer.writerow([safe(row.get(key)) for key in plain] + [row["terms"].get(name, 0.0) for name in terms])
    return held.getvalue()


def safe(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value


def stem(service: Service, choice: str) -> str:
    """A choice as the beginning of a file's name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in service.shelf.label(choice))
