"""Weights as they are stored: integer codes with a 16-bit scale a group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effsim.errors import UnsupportedError
from effsim.models import rounding

from .values import Array

_BITS = {"int4": 4, "int8": 8}


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix [n, k] as bytes of codes and fp16 scales.

    Packing what was unpacked gives the same codes: the largest weight of a group has the largest code.
    """

    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]
    bits: int

    @classmethod
    def of(cls, weight: Array, dtype: str, group_size: int) -> Packed:
        """Quantise symmetrically, ``group_size`` weights of a row to a scale.

        Raises:
            UnsupportedError: another type than int4 or int8.
        """
        if dtype not in _BITS:
            raise UnsupportedError(f"weights stored as {dtype} cannot be executed; expected one of {', '.join(_BITS)}")
        made = rounding.quantize_groups(weight, bits=_BITS[dtype], group_size=group_size or None)
        codes = rounding.pack_int4(made.values) if made.bits == 4 else made.values.view(np.uint8)
        return cls(codes, made.scales.astype(np.float16), made.bits)

    @property
    def size(self) -> float:
        """Bytes in memory."""
        return float(self.codes.nbytes + self.scales.nbytes)

    def unpacked(self) -> Array:
        """The weights that are multiplied."""
        codes = rounding.unpack_int4(self.codes) if self.bits == 4 else self.codes.view(np.int8)
        return rounding.dequantize_groups(rounding.QuantizedGroups(codes, self.scales.astype(np.float32), self.bits))
