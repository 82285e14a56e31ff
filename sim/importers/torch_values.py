"""Values of small integer and boolean sub-graphs of an exported program: which keys a mask shows."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .op_names import WORK

if TYPE_CHECKING:
    import torch

MAX_ELEMENTS: Final = 2**27
"""Largest tensor that is computed."""


MAX_WEIGHTS: Final = 2**20
"""Largest weight that stands in a mask: a table of learned position biases."""


class Evaluator:
    """Computes nodes that depend on positions, constants, given inputs and learned biases, not on activations.

    An integer or boolean input on the meta device has no values: it is taken as ones (nothing padded), and a real one
    as zeros (nothing added to the scores); ``notes`` says so.
    """

    def __init__(self, program: torch.export.ExportedProgram, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        """Compute in the graph of *program*, called with *inputs*."""
        self.notes: list[str] = []
        self._program = program
        self._known: dict[Any, Any] = {}
        self._arrays: dict[Any, npt.NDArray[Any] | None] = {}
        self._inputs = _given(program, inputs)

    def array(self, node: Any) -> npt.NDArray[Any] | None:
        """The values of *node*; None where they are not known or too many."""
        import torch

        if node not in self._arrays:
            try:
                with torch.no_grad():
                    found = self._compute(node)
                array = found.numpy() if found.dtype != torch.bfloat16 else found.float().numpy()
                self._arrays[node] = np.asarray(array)
            except (_UnknownError, RuntimeError, NotImplementedError, TypeError, ValueError):
                self._arrays[node] = None
            self._known.clear()
        return self._arrays[node]

    def _compute(self, wanted: Any) -> Any:
        """Depth first without recursion: graphs are deeper than Python's stack."""
        stack = [wanted]
        while stack:
            node = stack[-1]
            if node in self._known:
                stack.pop()
                continue
            missing = [n for n in node.all_input_nodes if n not in self._known]
            if missing:
                stack += missing
                continue
            self._known[node] = self._one(node)
            stack.pop()
        return self._known[wanted]

    def _one(self, node: Any) -> Any:
        import torch

        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op != "call_function":
            raise _UnknownError
        held = node.meta.get("val")
        too_large = isinstance(held, torch.Tensor) and held.numel() > MAX_ELEMENTS
        if too_large or str(node.target).split(".")[1:2] in ([name] for name in WORK - {"embedding"}):
            raise _UnknownError

        def plain(item: Any) -> Any:
            return self._known[item] if isinstance(item, torch.fx.Node) else item

        args = torch.fx.node.map_aggregate(node.args, plain)
        kwargs = dict(torch.fx.node.map_aggregate(node.kwargs, plain))
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        if node.target is not operator.getitem and "assert" in str(node.target):
            return None
        return node.target(*args, **kwargs)

    def _placeholder(self, node: Any) -> Any:
        import torch

        signature = self._program.graph_signature
        if node.name in signature.inputs_to_parameters:
            held = node.meta["val"]  # a learned bias moves scores and hides none: any value will do
            if held.numel() > MAX_WEIGHTS:
                raise _UnknownError
            return torch.zeros(tuple(held.shape), dtype=held.dtype)
        target = signature.inputs_to_buffers.get(node.name)
        constant = signature.inputs_to_lifted_tensor_constants.get(node.name)
        if target is not None or constant is not None:
            held = self._program.state_dict.get(target) if target is not None else None
            held = self._program.constants.get(target or constant) if held is None else held
            if not isinstance(held, torch.Tensor) or held.is_meta:
                raise _UnknownError
            return held.detach().cpu()
        given = self._inputs.get(node.name)
        if isinstance(given, torch.Tensor) and not given.is_meta:
            return given.detach().cpu()
        held = node.meta.get("val")
        if not isinstance(held, torch.Tensor) or held.numel() > MAX_ELEMENTS:
            raise _UnknownError
        note = f"The values of input {node.name} are not known: a mask takes it as showing everything."
        if note not in self.notes:
            self.notes.append(note)
        ones = not held.dtype.is_floating_point
        return (torch.ones if ones else torch.zeros)(tuple(held.shape), dtype=held.dtype)


class _UnknownError(Exception):
    """A value that nothing here can know."""


def _given(program: Any, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> dict[str, Any]:
    """The user's tensors by the names of their placeholders."""
    import torch

    leaves = torch.utils._pytree.tree_leaves(inputs)
    names = list(program.graph_signature.user_inputs)
    return dict(zip(names, leaves, strict=True)) if len(names) == len(leaves) else {}
