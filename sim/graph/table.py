"""Rows of a kernel table (and entries of an explicit graph) to operators: one place that knows the columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DataError, UnsupportedError, nearest
from .dtypes import dtype as find_dtype
from .operator import Operator
from .operators.attention import Attention, KVAppend, LatentAttention
from .operators.communication import Collective, HostTransfer
from .operators.convolution import CausalConv1d, Conv2d, FFTConv
from .operators.embedding import Embedding, Sampling
from .operators.linear import BatchedMatmul, Linear, WeightMatmul
from .operators.moe import Experts, TopK
from .operators.pointwise import RECIPES, Pointwise
from .operators.scan import GatedDelta, SelectiveScan, SSDScan

SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "fp8_block": {"dtype": "fp8", "group_size": 128 * 128},
    "sq": {"dtype": "int8", "output_dtype": "fp16"},
    "int8_wo": {"dtype": "bf16", "weight_dtype": "int8"},
    "int4_wo": {"dtype": "bf16", "weight_dtype": "int4", "group_size": 128},
    "w4afp8": {"dtype": "fp8", "weight_dtype": "int4", "group_size": 128},
    "w4a16_mxfp4": {"dtype": "bf16", "weight_dtype": "fp4", "group_size": 64},
    "w4a8_mxfp4_mxfp8": {"dtype": "fp8", "weight_dtype": "fp4", "group_size": 64},
}
"""What engines call their quantised products, as the columns it stands for."""

FP4_GROUP = 32
"""fp4 exists with block scales only: a byte for 16 elements (NVFP4) is a scale of two bytes for twice as many."""

REPLAYED_WEIGHTS = 6
"""Weights that take turns in a timing loop unless a row says otherwise, so that L2 does not serve them all: five or six
in ai-dynamo/aiconfigurator's collectors of GEMM tables."""


class Row:
    """Typed access to the cells of one row; errors name the column. ``timed``: a kernel of a table, timed by itself."""

    def __init__(self, kind: str, cells: Mapping[str, Any], timed: bool = True) -> None:
        scheme = SCHEMES.get(str(cells.get("dtype", "")).strip().lower()) if timed else None
        if scheme is not None:
            cells = {**cells, **{k: v for k, v in scheme.items() if k == "dtype" or cells.get(k) in (None, "")}}
        self.kind, self._cells, self.read, self.timed = kind, cells, {"kind"}, timed

    def _cell(self, name: str) -> Any:
        self.read.add(name)
        value = self._cells.get(name)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return None
        return value

    def __contains__(self, name: str) -> bool:
        """Whether the row has a value in a column."""
        return self._cell(name) is not None

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 0.

        Raises:
            DataError: missing without a default, or no such number.
        """
        value = self._cell(name)
        if value is None:
            if default is None:
                raise DataError(f"{self.kind}: column {name!r} is missing")
            return default
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise DataError(f"{self.kind}: {name} is {value!r}; expected a whole number") from None
        if isinstance(value, bool) or not math.isfinite(number) or number < 0 or number != int(number):
            raise DataError(f"{self.kind}: {name} is {value!r}; expected a whole number")
        return int(number)

    def text(self, name: str, default: str | None = None) -> str:
        """A word.

        Raises:
            DataError: missing without a default.
        """
        value = self._cell(name)
        if value is None:
            if default is None:
                raise DataError(f"{self.kind}: column {name!r} is missing")
            return default
        return str(value).strip()

    def flag(self, name: str, default: bool) -> bool:
        """A truth value: true/false, 1/0, yes/no.

        Raises:
            DataError: anything else.
        """
        value = self._cell(name)
        if value is None:
            return default
        word = str(value).strip().lower()
        if word in ("true", "1", "1.0", "yes"):
            return True
        if word in ("false", "0", "0.0", "no"):
            return False
        raise DataError(f"{self.kind}: {name} is {value!r}; expected true or false")

    def dtype(self, name: str = "dtype", default: str | None = None) -> str:
        """A known element type, in its canonical spelling; empty stays empty where the default is."""
        word = self.text(name, default)
        return find_dtype(word).name if word else ""


def _linear(r: Row) -> Operator:
    """In a table, narrow floating point takes 16-bit activations and returns them, unless the row says otherwise."""
    dtype, alone = r.dtype(), r.flag("alone", r.timed)
    wide = "bf16" if alone and dtype in ("fp8", "fp4") else ""
    return Linear(
        m=r.whole("m"),
        n=r.whole("n"),
        k=r.whole("k"),
        dtype=dtype,
        weight_dtype=r.dtype("weight_dtype", ""),
        group_size=r.whole("group_size", FP4_GROUP if dtype == "fp4" else 0),
        accumulate_dtype=r.dtype("accumulate_dtype", "fp32"),
        bias=r.flag("bias", False),
        output_dtype=r.dtype("output_dtype", wide),
        activation_dtype=r.dtype("activation_dtype", wide),
        alone=alone,
        copies=r.whole("copies", REPLAYED_WEIGHTS if alone else 1),
        quantiser=r.text("quantiser", "kernel" if dtype == "fp4" else ""),
    )


def _attention(r: Row) -> Operator:
    phase = r.text("phase")
    return Attention(
        phase=phase,
        batch=r.whole("batch"),
        q_len=r.whole("q_len", 1 if phase == "generation" else None),
        kv_len=r.whole("kv_len"),
        heads=r.whole("heads"),
        kv_heads=r.whole("kv_heads"),
        head_dim=r.whole("head_dim"),
        dtype=r.dtype(),
        kv_dtype=r.dtype("kv_dtype", ""),
        causal=r.flag("causal", True),
        window=r.whole("window", 0),
        fused=r.flag("fused", True),
        value_dim=r.whole("value_dim", 0),
        cached=r.flag("cached", True),
        call=r.flag("call", r.timed),
        appends=r.flag("appends", True) if "appends" in r else None,
    )


def _latent(r: Row) -> Operator:
    phase = r.text("phase")
    return LatentAttention(
        phase=phase,
        batch=r.whole("batch"),
        q_len=r.whole("q_len", 1 if phase == "generation" else None),
        kv_len=r.whole("kv_len"),
        heads=r.whole("heads"),
        kv_lora_rank=r.whole("kv_lora_rank"),
        rope_dim=r.whole("rope_dim"),
        dtype=r.dtype(),
        kv_dtype=r.dtype("kv_dtype", ""),
        nope_dim=r.whole("nope_dim", 128),
        v_dim=r.whole("v_dim", 128),
        causal=r.flag("causal", True),
        call=r.flag("call", r.timed),
        module=r.flag("module", False) if "module" in r else None,
    )


def _moe(r: Row) -> Operator:
    dtype = r.dtype()
    return Experts(
        tokens=r.whole("tokens"),
        hidden=r.whole("hidden"),
        intermediate=r.whole("intermediate"),
        experts=r.whole("experts"),
        top_k=r.whole("top_k"),
        dtype=dtype,
        weight_dtype=r.dtype("weight_dtype", ""),
        group_size=r.whole("group_size", FP4_GROUP if dtype == "fp4" else 0),
        gated=r.flag("gated", True),
        distribution=r.text("distribution", "uniform"),
    )


def _conv2d(r: Row) -> Operator:
    return Conv2d(
        batch=r.whole("batch"),
        height=r.whole("height"),
        width=r.whole("width"),
        in_channels=r.whole("in_channels"),
        out_channels=r.whole("out_channels"),
        kernel=r.whole("kernel"),
        stride=r.whole("stride", 1),
        padding=r.whole("padding", 0),
        groups=r.whole("groups", 1),
        dtype=r.dtype(),
        bias=r.flag("bias", False),
    )


def _batched(r: Row) -> Operator:
    sizes = (r.whole("batch"), r.whole("m"), r.whole("n"), r.whole("k"), r.dtype())
    role = r.text("second_role", "activation")
    if role not in ("activation", "weight"):
        raise DataError(f"{r.kind}: second_role is {role!r}; expected activation or weight")
    return WeightMatmul(*sizes, role) if role == "weight" else BatchedMatmul(*sizes)


def _pointwise(r: Row) -> Operator:
    learned = r.whole("parameter_cols") if "parameter_cols" in r else -1
    compiled = r.flag("compiled", False)
    return Pointwise(r.kind, r.whole("rows"), r.whole("cols"), r.dtype(), learned, compiled=compiled)


def _gated_delta(r: Row) -> Operator:
    """A timed call is given a state in the activations' type and returns it in fp32, unless the row says otherwise."""
    alone = r.flag("alone", r.timed)
    return GatedDelta(
        r.whole("batch"),
        r.whole("length"),
        r.whole("heads"),
        r.whole("key_dim"),
        r.whole("value_dim"),
        r.whole("chunk", 64),
        r.dtype(),
        state_dtype=r.dtype("state_dtype", "fp32"),
        initial_state_dtype=r.dtype("initial_state_dtype", r.dtype() if alone else ""),
        alone=alone,
        context=r.text("phase", "") == "context",
    )


READERS: dict[str, Callable[[Row], Operator]] = {
    "linear": _linear,
    "batched_matmul": _batched,
    "attention": _attention,
    "latent_attention": _latent,
    "moe": _moe,
    "moe_router": lambda r: TopK(r.whole("tokens"), r.whole("experts"), r.whole("top_k"), r.dtype(default="fp32")),
    "selective_scan": lambda r: SelectiveScan(
        r.whole("batch"), r.whole("length"), r.whole("channels"), r.whole("state"), r.dtype()
    ),
    "ssd_scan": lambda r: SSDScan(
        r.whole("batch"),
        r.whole("length"),
        r.whole("heads"),
        r.whole("head_dim"),
        r.whole("state"),
        r.whole("groups", 1),
        r.whole("chunk", 256),
        r.dtype(),
        context=r.text("phase", "") == "context",
    ),
    "gated_delta": _gated_delta,
    "conv1d": lambda r: CausalConv1d(
        r.whole("batch"),
        r.whole("length"),
        r.whole("channels"),
        r.whole("kernel", 4),
        r.dtype(),
        r.flag("bias", True),
        context=r.text("phase", "") == "context",
    ),
    "conv2d": _conv2d,
    "fft_conv": lambda r: FFTConv(r.whole("batch"), r.whole("length"), r.whole("channels"), r.dtype()),
    "collective": lambda r: Collective(
        r.text("op"),
        float(r.whole("bytes")),
        r.whole("devices"),
        r.whole("stride", 1),
        r.dtype("dtype", "fp16"),
        r.text("runtime", ""),
    ),
    "embedding": lambda r: Embedding(r.whole("tokens"), r.whole("vocabulary"), r.whole("width"), r.dtype()),
    "sampling": lambda r: Sampling(r.whole("rows"), r.whole("vocabulary"), r.dtype(default="fp32")),
    "kv_append": lambda r: KVAppend(r.whole("tokens"), r.whole("width"), r.dtype(), r.dtype("kv_dtype", "")),
    "host_transfer": lambda r: HostTransfer(float(r.whole("bytes")), r.flag("to_device", True)),
} | dict.fromkeys([*RECIPES, "swiglu", "geglu"], _pointwise)


def from_row(kind: str, cells: Mapping[str, Any], *, strict: bool = False) -> Operator:
    """The operator of one row.

    ``strict`` refuses columns that the kind does not have (explicit graphs); tables may carry others along. Attention
    in a table is an engine's whole operator unless its ``call`` column says no; in a graph it is the kernel.

    Raises:
        DataError: unknown kind, missing or ill-typed column (the message names it).
        UnsupportedError: dimensions that cannot be.
    """
    reader = READERS.get(kind)
    if reader is None:
        guess = nearest(kind, READERS)
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise DataError(f"unknown kernel kind {kind!r}; expected one of {', '.join(sorted(READERS))}{hint}")
    row = Row(kind, cells, timed=not strict)
    try:
        op = reader(row)
    except UnsupportedError as error:
        raise DataError(str(error)) from None
    if strict:
        extra = [name for name in cells if name not in row.read]
        if extra:
            known = sorted(row.read - {"kind"})
            guess = nearest(extra[0], known)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise DataError(f"{kind}: unknown dimension {extra[0]!r}; expected one of {', '.join(known)}{hint}")
    return op
