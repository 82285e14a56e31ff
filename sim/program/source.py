"""Where a workload's graph comes from: an architecture, a Hugging Face configuration, or an explicit list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..architectures.build import Step, build_graph
from ..errors import DataError, SpecError
from ..graph.graph import Graph, Item, Node, Repeat
from ..graph.table import from_row
from ..spec.architecture import ArchitectureSpec
from ..spec.build import build
from ..spec.catalogue import load_document
from ..spec.confine import exists
from ..spec.workload import OperatorEntry, WorkloadSpec


def load_model(name_or_path: str, base: Path | None = None) -> ArchitectureSpec:
    """An architecture by bundled name, native YAML path, or path to a ``config.json``; *base* resolves relative paths.

    Raises:
        SpecError: no such architecture, or one that does not validate.
        DataError: a configuration that cannot be read.
        UnsupportedError: a configuration of an unsupported model type.
    """
    path = Path(name_or_path)
    if base is not None and not path.is_absolute() and exists(base / path):
        path = base / path
    if path.suffix == ".json":
        from ..importers.huggingface import from_config, load_config  # only here: most runs read YAML

        return from_config(load_config(path), name=path.parent.name or path.stem, file=str(path))
    found = str(path) if exists(path) else name_or_path
    return build(ArchitectureSpec, load_document("architectures", found), root="architecture")


def truncated(spec: ArchitectureSpec, layers: int | None) -> ArchitectureSpec:
    """The first *layers* layers of a model whose layers are all alike.

    Raises:
        SpecError: the model has several kinds of layers (write the run you want as an architecture instead).
    """
    if layers is None:
        return spec
    if len(spec.layers) != 1 or spec.layers[0].layers is not None:
        raise SpecError(f"'layers' needs a model whose layers are all alike; those of {spec.name} differ")
    return spec.model_copy(update={"layers": [spec.layers[0].model_copy(update={"repeat": layers})]})


def model_graph(
    spec: ArchitectureSpec, workload: WorkloadSpec, phase: str, batch: int, q_len: int, kv_len: int, logits: int = 1
) -> Graph:
    """The graph of one step of *workload*."""
    precision = workload.precision
    step = Step(
        phase=phase,
        batch=batch,
        q_len=q_len,
        kv_len=kv_len,
        dtype=precision.activations,
        weight_dtype=precision.weights or "",
        group_size=precision.group_size,
        kv_dtype=precision.kv_cache or "",
        fused_attention=workload.attention != "unfused",
        logit_tokens=logits,
    )
    return build_graph(spec, step)


def explicit_graph(workload: WorkloadSpec) -> Graph:
    """The graph of an ``operators:`` list.

    Raises:
        DataError: an unknown kind or dimension, a name used twice; the message names the entry.
    """
    assert workload.operators is not None
    entries = workload.operators
    _check_names(entries, ("operators",))
    return Graph(workload.name, tuple(_item(e, e.name, ("operators", i)) for i, e in enumerate(entries)))


def _check_names(entries: list[OperatorEntry], path: tuple[str | int, ...]) -> None:
    """Results are kept by name, so neighbours need different ones."""
    seen = set[str]()
    for index, entry in enumerate(entries):
        if entry.name in seen:
            raise DataError(f"{entry.name}: two operators of one list have this name", path=(*path, index))
        seen.add(entry.name)


def _item(entry: OperatorEntry, name: str, path: tuple[str | int, ...]) -> Item:
    count = int(entry.repeat or 1)
    if entry.operators is not None:
        below = (*path, "operators")
        _check_names(entry.operators, below)
        parts = (_item(e, f"{name}.{e.name}", (*below, i)) for i, e in enumerate(entry.operators))
        return Repeat(entry.name, tuple(parts), count)
    assert entry.kind is not None
    try:
        op = from_row(entry.kind, entry.dimensions, strict=True)
    except DataError as error:
        raise DataError(f"{name}: {error}", path=path) from None
    node = Node(entry.name, op, split=entry.split, after=entry.after, share=entry.share)
    if count == 1:
        return node
    return Repeat(entry.name, (replace(node, name=entry.kind),), count)
