"""ONNX file → workload: nodes become calls by the names of ATen, so that patterns and costs are those of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .onnx_ops import TRANSLATIONS
from .onnx_shapes import constant, dims, evaluate_node, load, opset, with_shapes
from .traced import Call, Trace, Value
from .traced_workload import Imported, short_name, to_workload

if TYPE_CHECKING:
    import onnx

MAX_SIZE: Final = 2**40
MAX_MASK_ELEMENTS: Final = 2**24
"""Largest tensor that is computed to understand a mask."""

DTYPES: Final = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "DOUBLE": "fp64",
    "FLOAT8E4M3FN": "fp8",
    "FLOAT8E4M3FNUZ": "fp8",
    "FLOAT8E5M2": "fp8",
    "FLOAT8E5M2FNUZ": "fp8",
    "FLOAT4E2M1": "fp4",
    "INT64": "int64",
    "UINT64": "int64",
    "INT32": "int32",
    "UINT32": "int32",
    "INT16": "int16",
    "UINT16": "int16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT4": "int8",
    "UINT4": "uint8",
    "BOOL": "bool",
}


def read_dimensions(assignments: Sequence[str]) -> dict[str, int]:
    """``NAME=SIZE`` words as a mapping.

    Raises:
        DataError: another form, or a size below 1.
    """
    out: dict[str, int] = {}
    for word in assignments:
        name, _, size = word.partition("=")
        if not name or not size.isdecimal() or not 0 < int(size) <= MAX_SIZE:
            raise DataError(f"--dim {word[:80]!r}: expected NAME=SIZE, for example batch=1")
        out[name] = int(size)
    return out


def from_onnx_file(path: Path, dimensions: Mapping[str, int], name: str = "") -> Imported:
    """The workload of an ONNX file; *dimensions* gives sizes to named dimensions of its inputs.

    Raises:
        DataError: unreadable, a dimension without a size, or a tensor whose shape depends on values.
        UnsupportedError: the package onnx is not installed.
    """
    model = with_shapes(load(path), dimensions, path)
    trace = _Reader(model, path).trace()
    return to_workload(trace, name or short_name(path), f"the ONNX file {path.name}")


class _Reader:
    """A model with shapes as a trace."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self._graph, self._path, self._opset = model.graph, path, opset(model)
        self._values: dict[str, Value] = {}
        self._numbers: dict[str, float | int] = {}
        self._arrays: dict[str, npt.NDArray[Any] | None] = {}
        self._makers: dict[str, Any] = {}
        self._notes: list[str] = []
        self._infos = {item.name: item for item in (*self._graph.value_info, *self._graph.output)}

    def trace(self) -> Trace:
        """Calls of the graph, linked."""
        for tensor in self._graph.initializer:
            self._weight(tensor.name, tensor)
        for entry in self._graph.input:
            if entry.name not in self._values:
                self._values[entry.name] = self._described(entry, "input")
        calls = [call for node in self._graph.node if (call := self._call(node)) is not None]
        results = [self._values[item.name] for item in self._graph.output if item.name in self._values]
        trace = Trace(calls, results, self._evaluate, self._notes)
        trace.link()
        return trace

    def _weight(self, name: str, tensor: Any) -> None:
        """A tensor of the file: real numbers of several elements are weights, others constants."""
        import onnx

        dtype = self._dtype(tensor.data_type, name)
        shape = tuple(int(size) for size in tensor.dims)
        array = constant(tensor)
        weight = dtype.startswith(("fp", "bf")) or (len(shape) > 1 and array is None) or dtype in ("int8", "uint8")
        value = Value(name, shape, dtype, "parameter" if weight else "constant", name if weight else "")
        if value.elements == 1 and array is not None and tensor.data_type != onnx.TensorProto.BOOL:
            self._numbers[name] = array.reshape(-1)[0].item()
        self._values[name], self._arrays[name] = value, array

    def _dtype(self, code: int, name: str) -> str:
        import onnx

        word = onnx.TensorProto.DataType.Name(code) if code in onnx.TensorProto.DataType.values() else str(code)
        if word not in DTYPES:
            raise DataError(f"{self._path}: {name} has element type {word}; expected one of {', '.join(DTYPES)}")
        return DTYPES[word]

    def _described(self, entry: Any, role: str = "activation") -> Value:
        shape = dims(entry)
        if shape is None:
            raise DataError(f"{self._path}: the shape of {entry.name!r} is not known; it may depend on values")
        return Value(entry.name, shape, self._dtype(entry.type.tensor_type.elem_type, entry.name), role)

    def _call(self, node: Any) -> Call | None:
        import onnx

        attributes = {a.name: _attribute(a) for a in node.attribute}
        if node.op_type == "Constant" and isinstance(attributes.get("value"), onnx.TensorProto):
            self._weight(node.output[0], attributes["value"])
            return None
        outputs: list[Value] = []
        for name in node.output:
            info = self._infos.get(name)
            if not name:
                continue
            if info is None:
                if outputs or not name:
                    continue  # results that nobody described are not used (masks of dropout)
                raise DataError(f"{self._path}: {node.op_type} {node.name!r}: the shape of its result is not known")
            self._values[name] = self._described(info)
            outputs.append(self._values[name])
            self._makers[name] = node
        inputs = [self._input(name) for name in node.input]
        translate = TRANSLATIONS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if translate is None:
            named = {f"argument_{i}": item for i, item in enumerate(inputs)}
            op, arguments = _SPELLED.get(node.op_type, node.op_type), named
        else:
            op, arguments = translate(inputs, attributes, outputs)
        scope = ".".join(part for part in node.name.split("/")[:-1] if part)
        full = f"{node.domain or 'onnx'}.{node.op_type}"
        return Call(op, arguments, outputs, scope, full)

    def _input(self, name: str) -> Any:
        if name in self._numbers:
            return float(self._numbers[name])
        if not name:
            return None
        found = self._values.get(name)
        if found is None:
            raise DataError(f"{self._path}: {name!r} is used before it is made")
        return found

    # --- masks --------------------------------------------------------------------------------------------------------

    def _evaluate(self, value: Value) -> npt.NDArray[Any] | None:
        """The values of a tensor that depends on positions and masks alone; inputs show everything."""
        if value.elements > MAX_MASK_ELEMENTS:
            return None
        todo = [value.name]
        while todo:
            name = todo[-1]
            if not name or name in self._arrays:
                todo.pop()
                continue
            node = self._makers.get(name)
            if node is None:
                self._arrays[name] = self._supposed(name)
                continue
            missing = [item for item in node.input if item and item not in self._arrays]
            if missing:
                todo += missing
                continue
            self._compute(node)
        return self._arrays[value.name]

    def _compute(self, node: Any) -> None:
        for name in node.output:
            self._arrays.setdefault(name, None)
        arrays = [self._arrays.get(name) if name else None for name in node.input]
        out = self._values.get(node.output[0])
        known = all(array is not None for name, array in zip(node.input, arrays, strict=True) if name)
        if known and out is not None and out.elements <= MAX_MASK_ELEMENTS:
            found = evaluate_node(node, arrays, self._opset)
            self._arrays |= dict(zip((name for name in node.output if name), found or [], strict=False))

    def _supposed(self, name: str) -> npt.NDArray[Any] | None:
        """What an input is taken for: ones where it is a mask, zeros where it is added to scores."""
        found = self._values.get(name)
        if found is None or found.role != "input" or found.elements > MAX_MASK_ELEMENTS:
            return None
        note = f"The values of input {name} are not known: a mask takes it as showing everything."
        if note not in self._notes:
            self._notes.append(note)
        if found.real:
            return np.zeros(found.shape, dtype=np.float32)
        kinds = {"bool": np.bool_, "int64": np.int64, "int32": np.int32, "int8": np.int8, "uint8": np.uint8}
        return np.ones(found.shape, dtype=kinds.get(found.dtype, np.int64))


_SPELLED: Final = {"MatMulInteger": "_int_mm"}
"""Products of integers under the names they are costed by."""


def _attribute(attribute: Any) -> Any:
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
