"""``effsim schema``: JSON Schema of the YAML formats, for editors."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .options import print_json


class Kind(StrEnum):
    """Kinds of files."""

    gpu = "gpu"
    system = "system"
    workload = "workload"
    engine = "engine"
    architecture = "architecture"


def schema(
    kind: Annotated[Kind | None, typer.Argument(help="One kind of file; all of them if left out.")] = None,
) -> None:
    """JSON Schema of the YAML formats (point your editor's YAML support at it)."""
    from .._api import schemas

    found = schemas()
    print_json(found[kind.value] if kind is not None else found)
