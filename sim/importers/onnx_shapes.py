"""ONNX file → graph whose every shape is known: named dimensions filled in, index arithmetic computed.

Weights stay where they are: tensors in other files are described, never opened.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import DataError, UnsupportedError
from ..spec.confine import is_file

if TYPE_CHECKING:
    import onnx

MAX_FILE_BYTES: Final = 2**31
"""Largest file; protobuf has the same limit."""

MAX_INDEX_ELEMENTS: Final = 65_536
"""Largest tensor that is computed to find shapes."""

MAX_NODES: Final = 200_000
ROUNDS: Final = 12
"""How often shapes may open the way to further shapes."""


def load(path: Path) -> onnx.ModelProto:
    """The model of a file, without weights that stand in other files.

    Raises:
        DataError: missing, unreadable, larger than 2 GiB, or no ONNX model.
        UnsupportedError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise UnsupportedError("importing an ONNX file needs the package onnx: pip install 'effsim[onnx]'") from None
    try:
        if not is_file(path):
            raise DataError(f"{path}: no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path}: larger than the 2 GiB that an ONNX file may have")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        model = onnx.load_model_from_string(data)
        if model.functions:
            from onnx.inliner import inline_local_functions

            model = inline_local_functions(model)
    except Exception as error:  # protobuf and the inliner have no common error
        raise DataError(f"{path}: no ONNX model: {_first(error)}") from None
    if not 0 < len(model.graph.node) <= MAX_NODES:
        raise DataError(f"{path}: no ONNX model: {len(model.graph.node)} nodes; expected 1 to {MAX_NODES}")
    return model


def with_shapes(model: onnx.ModelProto, dimensions: Mapping[str, int], path: Path) -> onnx.ModelProto:
    """*model* with the shape of every tensor that can be known.

    Raises:
        DataError: a dimension of an input has no size, or a name that no input has is given one.
    """
    from onnx import shape_inference

    _fill(model, dimensions, path)
    del model.graph.value_info[:]
    for _ in range(ROUNDS):
        try:
            model = shape_inference.infer_shapes(model, data_prop=True)
        except Exception as error:
            raise DataError(f"{path}: shapes cannot be inferred: {_first(error)}") from None
        if not _compute_indices(model):
            break
    return model


def _fill(model: onnx.ModelProto, dimensions: Mapping[str, int], path: Path) -> None:
    """Give named dimensions of inputs their sizes."""
    known, missing = set[str](), dict[str, str]()
    weights = {item.name for item in model.graph.initializer}
    for entry in model.graph.input:
        if entry.name in weights:
            continue
        for index, dim in enumerate(entry.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            name = dim.dim_param or f"{entry.name}_{index}"
            known.add(name)
            if name in dimensions:
                dim.dim_value = dimensions[name]
            else:
                missing.setdefault(name, entry.name)
    stray = sorted(set(dimensions) - known)
    if stray:
        has = ", ".join(sorted(known)) or "none"
        raise DataError(f"{path}: no input has a free dimension {stray[0]!r}; it has {has}")
    if missing:
        listed = ", ".join(f"{name} (of {entry})" for name, entry in missing.items())
        first = next(iter(missing))
        raise DataError(f"{path}: sizes are needed for {listed}; for example --dim {first}=1")
    for result in model.graph.output:
        result.type.tensor_type.ClearField("shape")  # symbolic sizes would contradict the filled ones


def dims(entry: Any) -> tuple[int, ...] | None:
    """The shape in a ``ValueInfoProto``; None if any size is unknown."""
    tensor = entry.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    return None if any(size < 0 for size in sizes) else tuple(sizes)


def is_external(tensor: Any) -> bool:
    """Whether a tensor's data stand in another file."""
    import onnx

    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def constant(tensor: Any) -> npt.NDArray[Any] | None:
    """A small tensor that stands in the file itself; None for others."""
    from onnx import numpy_helper

    if is_external(tensor) or np.prod(tensor.dims, dtype=np.float64) > MAX_INDEX_ELEMENTS:
        return None
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception:  # data that contradict their own shape
        return None


def evaluate_node(node: Any, inputs: list[npt.NDArray[Any] | None], opset: int) -> list[npt.NDArray[Any]] | None:
    """Results of one node on arrays; None if it cannot be computed."""
    from onnx import GraphProto, ModelProto, OperatorSetIdProto, ValueInfoProto
    from onnx.reference import ReferenceEvaluator

    if any(attribute.HasField("g") for attribute in node.attribute):
        return None
    graph = GraphProto(name="one", node=[node])
    feeds = {name: array for name, array in zip(node.input, inputs, strict=True) if name}
    graph.input.extend(ValueInfoProto(name=name) for name in feeds)
    graph.output.extend(ValueInfoProto(name=name) for name in node.output if name)
    model = ModelProto(graph=graph, opset_import=[OperatorSetIdProto(domain="", version=opset)])
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [np.asarray(item) for item in ReferenceEvaluator(model).run(None, feeds)]
    except Exception:
        return None


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators that the model uses."""
    return next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 17)


def _compute_indices(model: onnx.ModelProto) -> bool:
    """Put the values of small integer nodes whose inputs are known into the graph; whether there were any."""
    from onnx import helper, numpy_helper

    shapes = {item.name: dims(item) for item in (*model.graph.value_info, *model.graph.input)}
    known = {t.name: a for t in model.graph.initializer if (a := constant(t)) is not None}
    shapes |= {t.name: tuple(t.dims) for t in model.graph.initializer}
    kept, changed = [], False
    version = opset(model)
    for node in model.graph.node:
        made = _index(node, known, shapes, version)
        if made is None:
            kept.append(node)
            continue
        known[node.output[0]] = made
        if node.op_type != "Constant":
            changed = True
            tensor = numpy_helper.from_array(made, node.output[0])
            kept.append(helper.make_node("Constant", [], [node.output[0]], value=tensor))
        else:
            kept.append(node)
    if changed:
        del model.graph.node[:]
        model.graph.node.extend(kept)
        del model.graph.value_info[:]
    return changed


def _index(
    node: Any, known: dict[str, npt.NDArray[Any]], shapes: Mapping[str, tuple[int, ...] | None], version: int
) -> npt.NDArray[Any] | None:
    """The value of a node that works on shapes and positions."""
    if len(node.output) != 1 or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Shape":
        shape = shapes.get(node.input[0])
        if shape is None:
            return None
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        return np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], dtype=np.int64)
    if node.op_type.startswith("Random") or any(name and name not in known for name in node.input):
        return None
    out = shapes.get(node.output[0])
    if out is not None and np.prod(out, dtype=np.float64) > MAX_INDEX_ELEMENTS:
        return None
    found = evaluate_node(node, [known.get(name) for name in node.input], version)
    if not found or found[0].size > MAX_INDEX_ELEMENTS or found[0].dtype.kind not in "biuf":
        return None
    # Arithmetic on real numbers stays in the graph: small weights are weights.
    return found[0] if found[0].dtype.kind in "biu" or node.op_type == "Constant" or found[0].size <= 1 else None


def _first(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
