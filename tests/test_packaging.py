"""What is installed is what is in the tree, and importing it is cheap."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import requires
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "sim": "",
    "models": "models",
    "validation": "validation",
    "hw_configs": "hw_configs",
    "workloads": "workloads",
}


def _tree() -> set[str]:
    out = set()
    for folder, inside in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".json", ".typed") and "__pycache__" not in path.parts:
                out.add("/".join(filter(None, ("effsim", inside, path.relative_to(ROOT / folder).as_posix()))))
    return out


def test_everything_is_installed() -> None:
    package = Path(str(files("effsim")))
    if package == ROOT / "sim":  # an editable install: the tree itself; every folder must still be importable
        names = {f"effsim.{inside}" if inside else "effsim" for inside in FOLDERS.values()}
        assert all(files(name).is_dir() for name in names)
        return
    missing = {name for name in _tree() if not (package.parent / name).is_file()}
    assert not missing


def test_everything_imported_is_declared() -> None:
    declared = {r.split(";")[0].split("[")[0].strip("<>=!~ 0123456789.").lower() for r in requires("effsim") or ()}
    declared = {name.split(">")[0].split("=")[0].strip() for name in declared}
    code = "\n".join(p.read_text() for f in ("sim", "models", "validation") for p in (ROOT / f).rglob("*.py"))
    same = ("numpy", "simpy", "plotly", "pydantic", "numba", "typer", "rich", "pyarrow", "pandas", "dash")
    for module, package in {**dict(zip(same, same, strict=True)), "yaml": "pyyaml"}.items():
        if f"import {module}" in code or f"from {module}" in code:
            assert package in declared, module


def _cpu_seconds(*command: str) -> float:
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return (after.children_user + after.children_system) - (before.children_user + before.children_system)


def test_import_pulls_in_nothing_heavy() -> None:
    heavy = "{'numpy', 'numba', 'pydantic', 'plotly', 'pandas', 'torch', 'dash', 'rich', 'simpy', 'scipy'}"
    code = f"import sys, effsim; bad = {heavy} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = f"import sys, effsim.cli.app; bad = ({heavy} - {{'rich'}}) & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert _cpu_seconds(sys.executable, "-c", "import effsim") < 5.0  # a broken lazy import costs more than this
