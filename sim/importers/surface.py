"""What ``effsim import`` and its Python functions do: one function a source."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..spec.build import build
from ..spec.workload import WorkloadSpec
from .traced_workload import ApproximationWarning, Imported, to_yaml

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ImportedText:
    """A foreign description as YAML, and what in it is not exact."""

    text: str
    warnings: tuple[str, ...] = ()


def import_source(
    source: str, target: str | None = None, *, name: str = "", dimensions: Sequence[str] = (), real: bool = False
) -> ImportedText:
    """What ``effsim import`` prints: an architecture for a configuration, else a workload.

    ``source`` is a path, or the word ``torch`` with ``target`` ``FILE.py:FUNCTION``, which is run.

    Raises:
        DataError: unreadable, or options that do not belong to the source.
        UnsupportedError: a package is missing (says which extra has it), or the model cannot be expressed.
    """
    if (target is not None) != (source == "torch"):
        raise DataError("expected 'effsim import torch FILE.py:FUNCTION', or one file")
    if dimensions and not source.endswith(".onnx"):
        raise DataError("--dim names dimensions of an .onnx file")
    if target is not None:
        from .torch_file import from_file

        return _as_text(from_file(target, name, real=real))
    if source.endswith(".onnx"):
        from .onnx_graph import from_onnx_file, read_dimensions

        return _as_text(from_onnx_file(Path(source), read_dimensions(dimensions), name))
    if source.endswith(".csv"):
        from .scalesim import workload_document

        spec = build(WorkloadSpec, workload_document(Path(source)), root="workload")
        return ImportedText(to_yaml(spec.model_copy(update={"name": name}) if name else spec))
    from .huggingface import from_config, load_config
    from .huggingface import to_yaml as architecture_yaml

    config = from_config(load_config(source), name=name or Path(source).resolve().parent.name, file=source)
    return ImportedText(architecture_yaml(config))


def _as_text(imported: Imported) -> ImportedText:
    return ImportedText(to_yaml(imported.workload), imported.warnings)


def from_torch(
    module: torch.nn.Module, inputs: Any, kwargs: Mapping[str, Any] | None = None, *, name: str = ""
) -> WorkloadSpec:
    """The workload of one call of a torch module, by ``torch.export``; no weight is read or allocated.

    Args:
        module: any ``nn.Module``; one built under ``torch.device("meta")`` takes no memory.
        inputs: positional arguments, or a mapping of keyword arguments; a single tensor stands for itself.
        kwargs: further keyword arguments.
        name: name of the workload; the module's class if absent.

    Returns:
        A workload for :func:`run`; :func:`to_yaml` writes it down. What has no operator of its own is costed as an
        element-wise pass and named in an :class:`ApproximationWarning`.

    Raises:
        UnsupportedError: torch is not installed, or the module cannot be exported (says why).
    """
    from .torch_export import from_module

    if isinstance(inputs, Mapping):
        args, named = (), {**inputs, **(kwargs or {})}
    else:
        args, named = (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)), dict(kwargs or {})
    return _warned(from_module(module, args, named, name))


def from_onnx(path: Path | str, *, dimensions: Mapping[str, int] | None = None, name: str = "") -> WorkloadSpec:
    """The workload of an ONNX file; *dimensions* gives sizes to named dimensions of its inputs.

    Weights in other files are not opened. What is not exact is told in an :class:`ApproximationWarning`.

    Raises:
        DataError: unreadable, or a dimension without a size; UnsupportedError: the package onnx is missing.
    """
    from .onnx_graph import from_onnx_file

    return _warned(from_onnx_file(Path(path), dimensions or {}, name))


def _warned(imported: Imported) -> WorkloadSpec:
    for text in imported.warnings:
        warnings.warn(text, ApproximationWarning, stacklevel=3)
    return imported.workload
