"""Documents to build models from: bundled test files, and texts that a test writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from effsim.spec.build import build_by_kind
from effsim.spec.fields import SpecModel
from effsim.spec.hardware import GpuSpec
from effsim.spec.system import SystemSpec
from effsim.spec.yaml_loader import Document, load_yaml_text

DATA = Path(__file__).parent / "data"
MODELS: dict[str, type[SpecModel]] = {"gpu": GpuSpec, "system": SystemSpec}


@pytest.fixture
def data() -> Path:
    """The folder of test documents."""
    return DATA


@pytest.fixture
def read() -> Callable[[Document], SpecModel]:
    """Build a hardware document of any kind."""

    def build(document: Document) -> SpecModel:
        return build_by_kind(MODELS, document, root="hardware")

    return build


@pytest.fixture
def edited() -> Callable[..., Document]:
    """Load the complete GPU with one piece of text replaced (or appended, if there is nothing to replace)."""

    def load(old: str = "", new: str = "") -> Document:
        text = (DATA / "gpu.yaml").read_text(encoding="utf-8")
        assert old in text
        return load_yaml_text(text.replace(old, new, 1) if old else text + new, "gpu.yaml")

    return load
