"""``torch.nn.Module`` → workload, through ``torch.export``: shapes alone, no weight is ever allocated or read."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..errors import DataError, UnsupportedError
from .torch_values import Evaluator
from .traced import Call, Trace, Value
from .traced_workload import Imported, to_workload

if TYPE_CHECKING:
    import torch

DTYPES: Final = {
    "float64": "fp64",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
    "float8_e4m3fnuz": "fp8",
    "float8_e5m2fnuz": "fp8",
    "float8_e8m0fnu": "fp8",
    "float4_e2m1fn_x2": "fp4",
    "complex64": "fp64",
    "complex128": "fp64",
    "int64": "int64",
    "int32": "int32",
    "uint32": "int32",
    "uint64": "int64",
    "uint16": "int16",
    "int16": "int16",
    "int8": "int8",
    "uint8": "uint8",
    "bool": "bool",
}
"""Element types of torch by the names of effsim; a complex number counts as eight bytes of real ones."""

_IN_PLACE: Final = frozenset(("__and__", "__or__", "__xor__", "__lshift__", "__rshift__"))


def from_module(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, name: str = ""
) -> Imported:
    """The workload of one call ``module(*args, **kwargs)``.

    Real or meta tensors serve equally as inputs; only their shapes and types count, except where a mask is computed
    from an integer input, whose values then decide what is masked.

    Raises:
        UnsupportedError: torch is not installed, or the module cannot be exported (the message says why).
    """
    try:
        import torch
    except ImportError:
        raise UnsupportedError("importing a torch module needs PyTorch: pip install 'effsim[torch]'") from None
    if not isinstance(module, torch.nn.Module):
        raise DataError(f"expected a torch.nn.Module, got {type(module).__name__}")
    given = (tuple(args), dict(kwargs or {}))
    placed = _beside(module, given)
    trace = _Reader(_export(module, *placed), given).trace()
    title = name or type(module).__name__
    return to_workload(trace, title, f"the torch module {type(module).__name__}")


def _beside(
    module: torch.nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs on the device of the weights: on meta they lose their values, from meta they become zeros."""
    import torch
    from torch.utils._pytree import tree_map_only

    device = next((p.device for p in module.parameters()), None)

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if device is None or tensor.device == device:
            return tensor
        return torch.zeros_like(tensor, device=device) if tensor.is_meta else tensor.to(device)

    args, kwargs = tree_map_only(torch.Tensor, move, inputs)
    return args, kwargs


def _export(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.export.ExportedProgram:
    """Export for inference; operators stay whole, in-place ones become pure. The module's mode is put back."""
    import torch

    training = module.training
    module.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own deprecations, which no user can act upon
            program: torch.export.ExportedProgram = torch.export.export(module, args, kwargs, strict=False)
            pure: torch.export.ExportedProgram = program.run_decompositions({})
            return pure
    except Exception as error:
        raise UnsupportedError(_why_not(type(module).__name__, error)) from None
    finally:
        module.train(training)


def _why_not(name: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{name} cannot be exported: {type(error).__name__}: {lines[0][:300] if lines else ''}"
    if "data-dependent" in str(error) or "DataDependent" in type(error).__name__:
        where = next((line for line in lines if line.startswith("File ") and "torch/" not in line), "")
        text += f" ({where})" if where else ""
        text += (
            "; the program's path depends on values. Transformers models with experts export with"
            " model.set_experts_implementation('grouped_mm') or 'batched_mm'"
        )
    return text


class _Reader:
    """An exported program as a trace."""

    def __init__(self, program: torch.export.ExportedProgram, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        self._program = program
        self._values: dict[Any, Value | list[Value] | None] = {}
        self._calls: list[Call] = []
        self._nodes: dict[str, Any] = {}
        self._evaluator = Evaluator(program, inputs)

    def trace(self) -> Trace:
        """Calls of the graph, linked."""
        signature = self._program.graph_signature
        parameters, buffers = signature.inputs_to_parameters, signature.inputs_to_buffers
        buffers = {**buffers, **signature.inputs_to_lifted_tensor_constants}
        results: list[Value] = []
        for node in self._program.graph.nodes:
            if node.op == "placeholder":
                role, parameter = "input", ""
                if node.name in parameters:
                    role, parameter = "parameter", parameters[node.name]
                elif node.name in buffers:
                    role = "constant"
                self._values[node] = self._value(node, node.meta.get("val"), role, parameter)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                found = [self._argument(item) for item in node.args[0]]
                results = [value for value in found if isinstance(value, Value)]
            elif node.op == "get_attr":
                self._values[node] = self._value(node, node.meta.get("val"), "constant")
        trace = Trace(self._calls, results, self._evaluate)
        trace.link()
        trace.notes = self._evaluator.notes
        return trace

    def _evaluate(self, value: Value) -> Any:
        node = self._nodes.get(value.name)
        return None if node is None else self._evaluator.array(node)

    def _value(
        self, node: Any, held: Any, role: str = "activation", parameter: str = "", index: int = -1
    ) -> Value | None:
        import torch

        if not isinstance(held, torch.Tensor):
            return None
        name = node.name if index < 0 else f"{node.name}.{index}"
        if index < 0:
            self._nodes[name] = node
        shape = []
        for size in held.shape:
            if not isinstance(size, int):
                raise UnsupportedError(f"{node.name}: its shape {tuple(held.shape)} depends on values")
            shape.append(int(size))
        return Value(name, tuple(shape), _dtype(held.dtype), role, parameter)

    def _argument(self, item: Any) -> Any:
        import torch

        if isinstance(item, torch.fx.Node):
            return self._values.get(item)
        if isinstance(item, list | tuple):
            return [self._argument(part) for part in item]
        return item

    def _call(self, node: Any) -> None:
        if node.target is operator.getitem:
            items, index = self._values.get(node.args[0]), node.args[1]
            found = items[index] if isinstance(items, list) and isinstance(index, int) else None
            self._values[node] = found
            if isinstance(found, Value):
                found.name = node.name
                self._nodes[node.name] = node
            return
        held = node.meta.get("val")
        if isinstance(held, list | tuple):
            outputs = [self._value(node, item, index=i) for i, item in enumerate(held)]
            self._values[node] = [value for value in outputs if value is not None]
            made = [value for value in outputs if value is not None]
        else:
            only = self._value(node, held)
            self._values[node] = only
            made = [only] if only is not None else []
        if made:
            op, source = _op_name(node.target)
            self._calls.append(Call(op, self._named(node), made, _scope(node), source))

    def _named(self, node: Any) -> dict[str, Any]:
        """Arguments by the names of the operator's schema."""
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema is not None else []
        out: dict[str, Any] = {}
        for index, item in enumerate(node.args):
            out[names[index] if index < len(names) else f"argument_{index}"] = self._argument(item)
        for key, item in node.kwargs.items():
            out[key] = self._argument(item)
        return out


def _op_name(target: Any) -> tuple[str, str]:
    """(short name, full name) of an operator: ``add`` and ``aten.add.Tensor``."""
    full = str(target)
    parts = full.split(".")
    short = parts[1] if len(parts) > 2 else parts[-1]
    if short.endswith("_") and short not in _IN_PLACE and not short.startswith("__"):
        short = short[:-1]
    return short, full


def _dtype(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    found = DTYPES.get(name)
    if found is None:
        raise UnsupportedError(f"element type {name} is not known; expected one of {', '.join(DTYPES)}")
    return found


def _scope(node: Any) -> str:
    """Path of the innermost module that made *node*."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values()]
    path = str(paths[-1]) if paths else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")
