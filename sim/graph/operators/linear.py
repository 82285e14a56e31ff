"""Matrix products: with a weight (``linear``) and between activations (``batched_matmul``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import DataError, UnsupportedError
from ..dtypes import size_of
from ..operator import Access, Arithmetic, Operator, Role, ceil_div, positive

SCALE_BYTES = 2.0
"""Bytes of one group scale of a quantised weight: an fp16 number, as in AWQ and GPTQ checkpoints."""
QUANTISERS = ("", "passes", "kernel", "portable")
"""Who narrows activations before a product, see :class:`Linear`."""


def weight_storage(elements: float, weight_dtype: str, group_size: int) -> float:
    """Bytes of *elements* weights, with one fp16 scale a group where ``group_size`` > 0.

    >>> weight_storage(1024, "int4", 128)
    528.0
    """
    scales = elements / group_size * SCALE_BYTES if group_size else 0.0
    return elements * size_of(weight_dtype) + scales


@dataclass(frozen=True, slots=True)
class Linear(Operator):
    """``y[m, n] = x[m, k] · W[n, k]ᵀ (+ b)``: 2·m·n·k FLOP.

    ``m`` counts tokens, ``n`` outputs, ``k`` inputs. ``weight_dtype`` and ``output_dtype`` default to ``dtype``.
    ``group_size`` > 0 puts one fp16 scale on every so many weights of a row. ``activation_dtype`` wider than ``dtype``:
    x arrives in it and is quantised first (models fuse that into the norm before), by framework ``passes``, by one
    ``kernel`` of the engine, or by a ``portable`` kernel that rounds in integer instructions: ``quantiser``; empty: as
    the hardware file says. ``alone``: a module called by itself over and over, as kernel tables time it, and not within
    a model; ``copies`` of its weights take turns, so that a large cache does not serve them all.
    ``kept_input``: share of x that this layer keeps for its backward pass (0 where a layer beside it keeps the same x
    already, a part where tensor ranks keep a part each). ``float8``: weights and activations of a wider type become
    fp8 for this product and those of its backward pass, a scale a tensor (``tensorwise``) or a row (``rowwise``).

    >>> Linear(1, 4096, 4096, "fp16").flops == 2 * 4096**2
    True
    """

    kind: ClassVar[str] = "linear"
    m: int
    n: int
    k: int
    dtype: str = "fp16"
    weight_dtype: str = ""
    group_size: int = 0
    accumulate_dtype: str = "fp32"
    bias: bool = False
    output_dtype: str = ""
    weight_role: str = "weight"
    activation_dtype: str = ""
    alone: bool = False
    copies: int = 1
    quantiser: str = ""
    kept_input: float = 1.0
    float8: str = ""

    def __post_init__(self) -> None:
        positive(self, "m", "n", "k", "copies")
        if self.quantiser not in QUANTISERS:
            raise DataError(f"linear: quantiser is {self.quantiser!r}; expected one of {', '.join(QUANTISERS[1:])}")

    @property
    def quantises(self) -> bool:
        """Activations arrive wider than the arithmetic and are quantised first."""
        return bool(self.activation_dtype) and size_of(self.activation_dtype) > size_of(self.dtype)

    @property
    def stored_dtype(self) -> str:
        """Type of the weights in memory."""
        return self.weight_dtype or self.dtype

    def arithmetic(self) -> Arithmetic:
        """2·m·n·k on the matrix unit; the bias add and the dequantisation multiply are vector work."""
        vector = float(self.m) * self.n if self.bias else 0.0
        if self.weight_only:
            vector += 2.0 * self.n * self.k
        return Arithmetic(matrix=2.0 * self.m * self.n * self.k, vector=vector)

    @property
    def weight_only(self) -> bool:
        """Weights are stored narrower than the arithmetic and must be widened on the way."""
        return bool(self.weight_dtype) and size_of(self.weight_dtype) < size_of(self.dtype)

    def accesses(self) -> tuple[Access, ...]:
        """x once, W once (in its stored type), y once."""
        word = size_of(self.activation_dtype if self.quantises else self.dtype)
        return (
            Access(Role.ACTIVATION, self.m * self.k * word),
            Access(Role(self.weight_role), self.weight_storage_bytes),
            Access(Role.ACTIVATION, self.m * self.n * size_of(self.output_dtype or self.dtype), write=True),
        )

    @property
    def weight_storage_bytes(self) -> float:
        """Bytes of the second operand with its scales and bias."""
        bias = self.n * size_of(self.dtype) if self.bias else 0.0
        return weight_storage(float(self.n) * self.k, self.stored_dtype, self.group_size) + bias

    @property
    def parameters(self) -> int:
        """n·k weights and n biases; none where the second operand is no weight."""
        return (self.n * self.k + (self.n if self.bias else 0)) if self.weight_role == "weight" else 0

    @property
    def weight_bytes(self) -> float:
        """Bytes of the parameters."""
        return self.weight_storage_bytes if self.weight_role == "weight" else 0.0

    def split(self, axis: str, degree: int) -> Operator:
        """``column`` divides the outputs, ``row`` the inputs (partial sums then need an all-reduce), ``tokens`` m."""
        if axis in ("column", "vocab"):
            return replace(self, n=ceil_div(self.n, degree))
        if axis == "row":
            return replace(self, k=ceil_div(self.k, degree))
        if axis == "tokens":
            return replace(self, m=ceil_div(self.m, degree))
        raise UnsupportedError(f"linear cannot be split by {axis!r}; expected column, row or tokens")

    @property
    def saved_bytes(self) -> float:
        """The input, or the share of it that is kept here."""
        return self.input_bytes * self.kept_input

    def backward(self) -> tuple[Operator, ...]:
        """Gradient of the input (m·k·n), of the weight (n·k·m, written as a gradient) and of the bias."""
        products = (
            MatmulGradient(self.m, self.k, self.n, self.dtype, reads_weight=True, float8=self.float8),
            MatmulGradient(self.n, self.k, self.m, self.dtype, reads_weight=False, float8=self.float8),
        )
        return (*products, BiasGradient(self.m, self.n, self.dtype)) if self.bias else products


@dataclass(frozen=True, slots=True)
class BiasGradient(Operator):
    """Sum of the *m* rows of an output gradient ``[m, n]``: the gradient of a bias."""

    kind: ClassVar[str] = "bias_backward"
    m: int
    n: int
    dtype: str = "bf16"

    def arithmetic(self) -> Arithmetic:
        """An addition an element."""
        return Arithmetic(vector=float(self.m) * self.n)

    def accesses(self) -> tuple[Access, ...]:
        """The output gradient in, one row out."""
        word = size_of(self.dtype)
        return (Access(Role.ACTIVATION, self.m * self.n * word), Access(Role.GRADIENT, self.n * word, write=True))


@dataclass(frozen=True, slots=True)
class MatmulGradient(Operator):
    """One of the two matrix products of a linear layer's backward pass.

    ``reads_weight``: the gradient of the input reads the weight; otherwise the weight gradient [m, n] is written.
    ``float8``: both operands are narrowed to fp8 first (see :class:`Linear`).
    """

    kind: ClassVar[str] = "linear_backward"
    m: int
    n: int
    k: int
    dtype: str = "bf16"
    reads_weight: bool = True
    float8: str = ""

    def arithmetic(self) -> Arithmetic:
        """2·m·n·k."""
        return Arithmetic(matrix=2.0 * self.m * self.n * self.k)

    def accesses(self) -> tuple[Access, ...]:
        """Both operands once, the result once."""
        word = size_of(self.dtype)
        second, result = (Role.WEIGHT, Role.ACTIVATION) if self.reads_weight else (Role.ACTIVATION, Role.GRADIENT)
        return (
            Access(Role.ACTIVATION, self.m * self.k * word),
            Access(second, self.n * self.k * word),
            Access(result, self.m * self.n * word, write=True),
        )


@dataclass(frozen=True, slots=True)
class BatchedMatmul(Operator):
    """*batch* independent products ``[m, k] · [k, n]`` between activations: 2·batch·m·n·k FLOP."""

    kind: ClassVar[str] = "batched_matmul"
    batch: int
    m: int
    n: int
    k: int
    dtype: str = "fp16"
    second_role: str = "activation"

    def __post_init__(self) -> None:
        positive(self, "batch", "m", "n", "k")

    def arithmetic(self) -> Arithmetic:
        """2·batch·m·n·k on the matrix unit."""
        return Arithmetic(matrix=2.0 * self.batch * self.m * self.n * self.k)

    def accesses(self) -> tuple[Access, ...]:
        """Both operands once, the result once."""
        word = size_of(self.dtype) * self.batch
        return (
            Access(Role.ACTIVATION, self.m * self.k * word),
            Access(Role(self.second_role), self.k * self.n * word),
            Access(Role.ACTIVATION, self.m * self.n * word, write=True),
        )

    def split(self, axis: str, degree: int) -> Operator:
        """``heads`` (or ``batch``) divides the independent products."""
        if axis in ("heads", "batch"):
            return replace(self, batch=ceil_div(self.batch, degree))
        raise UnsupportedError(f"batched_matmul cannot be split by {axis!r}; expected heads or batch")

    def backward(self) -> tuple[Operator, ...]:
        """Two products of the same size."""
        return (
            replace(self, n=self.k, k=self.n, second_role="activation"),
            replace(self, m=self.k, k=self.m, second_role="activation"),
        )


@dataclass(frozen=True, slots=True)
class WeightMatmul(BatchedMatmul):
    """*batch* independent products of activations ``[m, k]`` with weights ``[k, n]`` of their own.

    Such are the absorbed up-projections of latent attention and block-diagonal projections. The
    ``batch``·n·k weights are parameters; ``weight_dtype`` and ``group_size`` are those of :class:`Linear`.

    >>> WeightMatmul(2, 1, 4, 3, second_role="weight").parameters
    24
    """

    weight_dtype: str = ""
    group_size: int = 0
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Weights of all products, and a bias for each of their outputs."""
        return self.batch * self.n * (self.k + (1 if self.bias else 0))

    @property
    def weight_bytes(self) -> float:
        """Bytes of the parameters."""
        weights = weight_storage(float(self.batch) * self.n * self.k, self.weight_dtype or self.dtype, self.group_size)
        return weights + (self.batch * self.n * size_of(self.dtype) if self.bias else 0.0)

    def accesses(self) -> tuple[Access, ...]:
        """Activations in and out, weights in their stored type."""
        first, _, result = BatchedMatmul.accesses(self)
        return (first, Access(Role.WEIGHT, self.weight_bytes), result)

    def backward(self) -> tuple[Operator, ...]:
        """The gradients of the input (reads the weights) and of the weights: two products of the same size."""
        return (
            replace(self, n=self.k, k=self.n, bias=False),
            BatchedMatmul(self.batch, self.k, self.n, self.m, self.dtype),
        )
