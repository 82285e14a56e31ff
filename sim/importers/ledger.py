"""Operators of a workload as they are written down: names, dimensions, weights that are shared, what was not exact."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

from ..graph.dtypes import size_of
from .op_names import CASTS, VIEWS
from .traced import INTEGER_BYTES, Call, Trace, Value, source

LONGEST_NAME: Final = 72
_UNNAMED: Final = re.compile(r"[^A-Za-z0-9_.\-]+")
_OWN_MODULE: Final = frozenset(("linear", "conv2d", "embedding", "layernorm", "rmsnorm", "gated_rmsnorm"))
"""Kinds that are a module of their own in most programs: the module's name is enough."""

MODEL_ROOT: Final = "model"


class Ledger:
    """Collects entries of an ``operators:`` list.

    ``unknown`` has the calls without a rule and where the first of each stands, ``notes`` what was approximated.
    """

    def __init__(self, trace: Trace) -> None:
        """Start an empty list for *trace*."""
        self.trace = trace
        self.entries: list[dict[str, Any]] = []
        self.scopes: list[str] = []
        self.unknown: dict[str, str] = {}
        self.notes: dict[str, int] = {}
        self.dtypes: Counter[str] = Counter()
        self._first: dict[str, list[dict[str, Any]]] = {}

    def note(self, call: Call, what: str) -> None:
        """Remember that *call* is not exact."""
        text = f"{call.op}: {what}"
        self.notes[text] = self.notes.get(text, 0) + 1

    def miss(self, call: Call) -> None:
        """Remember that there is no rule for *call*, and how many weights it has whose products are not counted."""
        weights = sum(v.elements for v in call.inputs if v.role == "parameter" and len(v.shape) > 1)
        where = f" in {call.scope}" if call.scope else ""
        lost = f", with {weights} weights whose products are not counted" if weights else ""
        self.unknown.setdefault(call.source or call.op, where + lost)

    def word(self, value: Value) -> float:
        """Bytes of one element."""
        return INTEGER_BYTES[value.dtype] if value.dtype in INTEGER_BYTES else size_of(value.dtype)

    def add(
        self,
        call: Call,
        kind: str,
        dimensions: dict[str, Any],
        *,
        part: str = "",
        weights: tuple[Value | None, ...] = (),
        times: int = 1,
    ) -> None:
        """Write one operator that runs *times*; *weights* are its own, so that those used again count once."""
        scope = _scope(call.scope)
        last = part or ("" if kind in _OWN_MODULE and scope else kind)
        name = ".".join(p for p in (scope, last) if p)[-LONGEST_NAME:].strip(".") or kind
        entry: dict[str, Any] = {"name": name, "kind": kind, "dimensions": dimensions}
        if times > 1:
            entry["times"] = times
        self.entries.append(entry)
        dtype = dimensions.get("dtype")
        if isinstance(dtype, str):
            self.dtypes[dtype] += 1
        for weight in weights:
            if weight is not None and weight.parameter:
                self._share(weight.parameter, entry, times)

    def _share(self, parameter: str, entry: dict[str, Any], times: int) -> None:
        users = self._first.setdefault(parameter, [])
        users.append(entry)
        if len(users) > 1 or times > 1:
            for user in users:
                user["share"] = _UNNAMED.sub("_", parameter)[-LONGEST_NAME:]

    def product(
        self, call: Call, batch: int, m: int, n: int, k: int, second: Value, *, bias: bool = False, times: int = 1
    ) -> None:
        """*batch* products [m, k]·[k, n]; with weights if *second* does not depend on the inputs."""
        dtype = call.out.dtype if call.out.real else second.dtype
        if not second.fixed or batch > 1:
            size: dict[str, Any] = {"batch": batch, "m": m, "n": n, "k": k, "dtype": dtype}
            if second.fixed:
                size["second_role"] = "weight"
            self.add(call, "batched_matmul", size, weights=(second,) if second.fixed else (), times=times)
            return
        size = {"m": m, "n": n, "k": k, "dtype": dtype}
        stored = source(second, VIEWS | CASTS | {"dequantize"}).dtype if second.fixed else dtype
        stored = _STORED.get(stored, stored)
        size |= {"weight_dtype": stored} if stored != dtype and stored not in INTEGER_BYTES.keys() - {"int8"} else {}
        size |= {"bias": True} if bias else {}
        self.add(call, "linear", size, weights=(second,), times=times)

    def rows(
        self,
        call: Call,
        kind: str,
        rows: int,
        cols: int,
        learned: int = 0,
        weight: Value | None = None,
        *,
        dtype: str = "",
        times: int = 1,
    ) -> None:
        """A row-wise operator with *learned* columns of parameters."""
        size: dict[str, Any] = {"rows": max(1, rows), "cols": max(1, cols), "dtype": dtype or call.out.dtype}
        if kind in _LEARNING and learned != cols:
            size["parameter_cols"] = learned
        self.add(call, kind, size, weights=(weight,) if weight is not None else (), times=times)

    def pointwise(self, call: Call, kind: str) -> None:
        """An element-wise operator on the result's rows."""
        out = call.out
        cols = out.shape[-1] if out.shape else 1
        self.rows(call, kind, out.elements // max(1, cols), cols)

    def moved(self, call: Call, bytes_each_way: float) -> None:
        """A copy of so many bytes in, and as many out."""
        out = call.out
        dtype = out.dtype if out.real else "int8"
        words = round(bytes_each_way / size_of(dtype))
        cols = out.shape[-1] if out.shape and words % out.shape[-1] == 0 else 1
        if words:
            self.rows(call, "copy", words // cols, cols, dtype=dtype)


_STORED: Final = {"uint8": "int8"}
"""Types of stored weights by the names of effsim."""

_LEARNING: Final = frozenset(("layernorm", "rmsnorm", "gated_rmsnorm", "bias"))


def _scope(path: str) -> str:
    """A module's path without indices, so that equal layers have equal names."""
    parts = [part for part in path.split(".") if part and not part.isdecimal()]
    return _UNNAMED.sub("_", ".".join(parts))
