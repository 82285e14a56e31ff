"""Element-wise and row-wise operators: activations, norms, softmax, residual add, rotary embedding.

They differ only in how many tensors they read and write and how much arithmetic an element needs, so they are rows of
one table. ``cols`` is always the width of the *output* row; ``silu_mul`` therefore reads twice that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import UnsupportedError, nearest
from ..dtypes import size_of
from ..operator import Access, Arithmetic, Launched, Operator, Role, ceil_div, positive


@dataclass(frozen=True, slots=True)
class Recipe:
    """Costs of one output element, and of one row.

    ``reads``/``writes``: input and output elements. ``vector``/``special``: operations. ``parameters``: learned
    numbers a column. ``passes_eager``: separate kernels when a framework runs it without a fused kernel.
    ``reduces``: the row must be complete before the first result leaves. ``row_writes``: results a row, where a row
    gives fewer than one an element.
    """

    reads: float
    writes: float
    vector: float
    special: float
    parameters: int = 0
    passes_eager: int = 1
    reduces: bool = False
    row_writes: float = 0.0


RECIPES: dict[str, Recipe] = {
    # norms: mean/variance sums, subtract, multiply by the inverse deviation, scale (and shift)
    "layernorm": Recipe(1, 1, 8, 0, parameters=2, reduces=True),
    "rmsnorm": Recipe(1, 1, 4, 0, parameters=1, passes_eager=6, reduces=True),
    "add_layernorm": Recipe(2, 2, 9, 0, parameters=2, reduces=True),
    "add_rmsnorm": Recipe(2, 2, 5, 0, parameters=1, reduces=True),
    "gated_rmsnorm": Recipe(2, 1, 8, 2, parameters=1, passes_eager=8, reduces=True),
    # maximum, subtract, sum, scale; one exponential
    "softmax": Recipe(1, 1, 4, 1, reduces=True),
    "log_softmax": Recipe(1, 1, 4, 1, reduces=True),
    # 0.5·x·(1 + tanh(√(2/π)(x + 0.044715·x³))): the framework form is eight kernels
    "gelu_tanh": Recipe(1, 1, 8, 1, passes_eager=8),
    "gelu": Recipe(1, 1, 8, 1),
    "silu": Recipe(1, 1, 2, 2),
    "relu": Recipe(1, 1, 1, 0),
    "relu2": Recipe(1, 1, 2, 0, passes_eager=2),
    "sigmoid": Recipe(1, 1, 1, 2),
    "softplus": Recipe(1, 1, 2, 2),
    "silu_mul": Recipe(2, 1, 3, 2, passes_eager=2),
    "gelu_mul": Recipe(2, 1, 9, 1, passes_eager=2),
    "relu_mul": Recipe(2, 1, 2, 0, passes_eager=2),
    "add": Recipe(2, 1, 1, 0),
    "mul": Recipe(2, 1, 1, 0),
    "copy": Recipe(1, 1, 0, 0),
    "scale": Recipe(1, 1, 1, 0),
    # a reciprocal (special function) and a multiply
    "div": Recipe(2, 1, 1, 1),
    # one special function an element: exponential, logarithm, root, sine, error function
    "exp": Recipe(1, 1, 0, 1),
    # learned numbers are added or multiplied (positions, layer scale, folded batch norm)
    "bias": Recipe(1, 1, 1, 0, parameters=1),
    # cols inputs give one result a row
    "sum": Recipe(1, 0, 1, 0, reduces=True, row_writes=1),
    # four multiplies and two adds a pair; the framework form slices, negates, concatenates, multiplies and adds
    "rope": Recipe(1, 1, 3, 0, passes_eager=5),
    "dropout": Recipe(1, 1.5, 2, 0),
}

_ALIASES = {"swiglu": "silu_mul", "geglu": "gelu_mul", "reglu": "relu_mul", "gelu_new": "gelu_tanh"}


def recipe(kind: str) -> Recipe:
    """Costs of a pointwise kind.

    Raises:
        UnsupportedError: unknown kind; the message lists the known ones.
    """
    found = RECIPES.get(_ALIASES.get(kind, kind))
    if found is None:
        guess = nearest(kind, [*RECIPES, *_ALIASES])
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise UnsupportedError(f"unknown element-wise operator {kind!r}; expected one of {', '.join(RECIPES)}{hint}")
    return found


@dataclass(frozen=True, slots=True)
class Pointwise(Operator):
    """A row-wise operator ``op`` on ``rows`` × ``cols`` outputs.

    ``parameter_cols`` says how many columns own learned parameters where that is not ``cols`` (a norm over head
    dimensions shares them among heads). ``compiled``: a function that the framework compiled, not a kernel of its own.

    >>> Pointwise("add", 1, 8, "fp16").bytes_moved
    48.0
    """

    op: str
    rows: int
    cols: int
    dtype: str = "fp16"
    parameter_cols: int = -1
    parameter_dtype: str = ""
    compiled: bool = False

    def __post_init__(self) -> None:
        recipe(self.op)
        positive(self, "rows", "cols")

    @property
    def launched(self) -> Launched:
        """Compiled, or one of the framework's own kernels."""
        return "compiled" if self.compiled else "native"

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The operator's own name; canonical for aliases."""
        return _ALIASES.get(self.op, self.op)

    @property
    def elements(self) -> float:
        """Output elements."""
        return float(self.rows) * self.cols

    def arithmetic(self) -> Arithmetic:
        """The recipe's operations times the elements."""
        r = recipe(self.op)
        return Arithmetic(vector=r.vector * self.elements, special=r.special * self.elements)

    @property
    def parameters(self) -> int:
        """Learned scales (and shifts)."""
        columns = self.cols if self.parameter_cols < 0 else self.parameter_cols
        return recipe(self.op).parameters * columns

    @property
    def weight_bytes(self) -> float:
        """Bytes of the learned scales."""
        return self.parameters * size_of(self.parameter_dtype or self.dtype)

    def accesses(self) -> tuple[Access, ...]:
        """Inputs, outputs and learned scales, each once."""
        r, word = recipe(self.op), size_of(self.dtype)
        out = (
            Access(Role.ACTIVATION, r.reads * self.elements * word),
            Access(Role.ACTIVATION, (r.writes * self.elements + r.row_writes * self.rows) * word, write=True),
        )
        return (*out, Access(Role.WEIGHT, self.weight_bytes)) if self.parameters else out

    @property
    def saved_bytes(self) -> float:
        """Inputs for the backward; additions and copies keep nothing, softmax keeps its result."""
        if self.op in ("add", "copy", "scale", "rope", "sum"):
            return 0.0
        if self.op == "dropout":  # a mask of one byte an element
            return self.elements
        return recipe(self.op).reads * self.elements * size_of(self.dtype)

    def split(self, axis: str, degree: int) -> Operator:
        """``column`` divides the row width, ``tokens`` (sequence parallelism) the rows."""
        if axis in ("column", "heads"):
            columns = self.parameter_cols if self.parameter_cols < 0 else ceil_div(self.parameter_cols, degree)
            return replace(self, cols=ceil_div(self.cols, degree), parameter_cols=columns)
        if axis == "tokens":
            return replace(self, rows=ceil_div(self.rows, degree))
        raise UnsupportedError(f"{self.kind} cannot be split by {axis!r}; expected column, heads or tokens")

    def backward(self) -> tuple[Operator, ...]:
        """One kernel that reads the saved inputs and the output gradient and writes the input gradients."""
        return (PointwiseBackward(self),)


@dataclass(frozen=True, slots=True)
class PointwiseBackward(Operator):
    """Backward of a row-wise operator: reads what was saved and dy, writes dx; twice the forward's arithmetic."""

    kind: ClassVar[str] = "pointwise_backward"
    forward: Pointwise

    def arithmetic(self) -> Arithmetic:
        """Product rule: about two operations for each of the forward."""
        return self.forward.arithmetic() * 2.0

    def accesses(self) -> tuple[Access, ...]:
        """Saved inputs and dy in, dx out, gradients of the learned scales out."""
        f = self.forward
        r, word = recipe(f.op), size_of(f.dtype)
        read = f.saved_bytes + (r.writes * f.elements + r.row_writes * f.rows) * word
        return (
            Access(Role.ACTIVATION, read),
            Access(Role.ACTIVATION, r.reads * f.elements * word, write=True),
            Access(Role.GRADIENT, f.parameters * word, write=True),
        )
