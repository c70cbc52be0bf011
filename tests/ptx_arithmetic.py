"""What the instructions of PTX compute, as formulas on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ptx_memory import Array, PtxError

TYPES: dict[str, type[np.generic]] = {
    "b16": np.uint16, "u16": np.uint16, "s16": np.int16, "f16": np.float16, "u8": np.uint8, "s8": np.int8,
    "b32": np.uint32, "u32": np.uint32, "s32": np.int32, "f32": np.float32,
    "b64": np.uint64, "u64": np.uint64, "s64": np.int64, "f64": np.float64, "pred": np.bool_,
}  # fmt: skip


@cache
def _fma() -> Any:
    """Compile LLVM's operation that rounds ``a * b + c`` once, which the processor or the C library has."""
    import numba
    from numba.extending import intrinsic

    @intrinsic
    def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001
        return a(a, b, c), lambda context, builder, signature, args: builder.fma(*args)  # noqa: ARG005

    def rounded_once(a: Any, b: Any, c: Any) -> Any:
        return fma(a, b, c)

    return numba.vectorize(["f4(f4, f4, f4)", "f8(f8, f8, f8)"])(rounded_once)


def fma(a: Array, b: Array, c: Array) -> Array:
    """Round ``a * b + c`` once."""
    return _fma()(a, b, c)  # type: ignore[no-any-return]


def _canonical(values: Array) -> Array:
    """Give every NaN of a short float the bits that PTX gives what an operation returns."""
    nan = np.isnan(values)
    if not nan.any():
        return values
    bits = np.array(2 ** (8 * values.itemsize - 1) - 1, f"u{values.itemsize}")
    return np.where(nan, bits.view(values.dtype), values)


def _cut_off(values: Array, integer: type[np.generic]) -> Array:
    """Drop the fraction; what is too large becomes the last integer of its side, and NaN zero."""
    limits = np.iinfo(integer)
    low, high = values <= limits.min, values >= -float(limits.min)
    number = np.where(low | high | np.isnan(values), 0, values).astype(integer)
    return np.where(low, limits.min, np.where(high, limits.max, number)).astype(integer)


def _permute(low: Array, high: Array, selector: Array) -> Array:
    """Make a word of four bytes that the selector picks from two words."""
    both = low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)
    picks = [selector >> np.uint32(4 * byte) & np.uint32(15) for byte in range(4)]
    if any(np.any(pick > 7) for pick in picks):
        raise PtxError("prmt spreads signs")
    parts = [(both >> (pick * 8).astype(np.uint64) & 255) << np.uint64(8 * byte) for byte, pick in enumerate(picks)]
    return (parts[0] | parts[1] | parts[2] | parts[3]).astype(np.uint32)


def _insert_bits(source: Array, into: Array, start: Array, length: Array) -> Array:
    """Put the low `length` bits of `source` at bit `start`; both are less than the width."""
    one, start = into.dtype.type(1), start.astype(into.dtype)
    mask = ((one << length.astype(into.dtype)) - one) << start
    return (into & ~mask) | (source << start) & mask


def _shift(operation: Any) -> Callable[[Array, Array], Array]:
    """Shift by the amount or, as PTX says, by the width if that is less."""

    def shift(x: Array, amount: Array) -> Array:
        width = 8 * x.dtype.itemsize
        if amount.ndim == 0 and amount < width:
            return operation(x, amount.astype(x.dtype))  # type: ignore[no-any-return]
        inside = operation(x, np.minimum(amount, width - 1).astype(x.dtype))
        beyond = operation(operation(x, np.asarray(width - 1, x.dtype)), np.asarray(1, x.dtype))
        return np.where(amount >= width, beyond, inside)

    return shift


NAMES: dict[str, Any] = {  # of the formulas below
    **{kind.__name__: kind for kind in TYPES.values()}, "fma": fma, "sqrt": np.sqrt, "fmin": np.fmin, "fmax": np.fmax,
    "where": np.where, "isnan": np.isnan, "canonical": _canonical, "cut_off": _cut_off, "permute": _permute,
    "insert_bits": _insert_bits, "shift_left": _shift(np.left_shift), "shift_right": _shift(np.right_shift),
}  # fmt: skip
INTEGER_TYPES, FLOAT_TYPES, BIT_TYPES = ("u32", "s32", "u64", "s64"), ("f32", "f64"), ("b16", "b32", "b64", "pred")
FORMULAS: dict[str, tuple[tuple[str, ...], str]] = {
    # The types that each operation may have: a float without .rn is not among them.
    "add": (INTEGER_TYPES, "{} + {}"), "sub": (INTEGER_TYPES, "{} - {}"), "mul.lo": (INTEGER_TYPES, "{} * {}"),
    "mad.lo": (INTEGER_TYPES, "{} * {} + {}"), "add.rn": (FLOAT_TYPES, "{} + {}"),
    "sub.rn": (FLOAT_TYPES, "{} - {}"), "mul.rn": (FLOAT_TYPES, "{} * {}"), "div.rn": (FLOAT_TYPES, "{} / {}"),
    "sqrt.rn": (FLOAT_TYPES, "sqrt({})"), "fma.rn": (FLOAT_TYPES, "fma({}, {}, {})"),
    "min": ((*INTEGER_TYPES, *FLOAT_TYPES), "fmin({}, {})"),
    "max": ((*INTEGER_TYPES, *FLOAT_TYPES), "fmax({}, {})"),
    "div": (("u32",), "{} // {}"), "rem": (("u32",), "{} % {}"),  # of 64 bits they are calls
    "neg": (("s32", "s64", *FLOAT_TYPES), "-{}"), "and": (BIT_TYPES, "{} & {}"), "or": (BIT_TYPES, "{} | {}"),
    "xor": (BIT_TYPES, "{} ^ {}"), "not": (BIT_TYPES, "~{}"), "mov": (tuple(TYPES), "{}"),
}  # fmt: skip
COMPARISONS_OF_INTEGERS = ("eq", "ne", "lt", "le", "gt", "ge")
COMPARISONS = {  # of floats; a "u" at the end is true of NaN, and of integers nothing is
    "eq": "{} == {}", "lt": "{} < {}", "le": "{} <= {}", "gt": "{} > {}", "ge": "{} >= {}", "neu": "{} != {}",
    "ne": "({0} < {1}) | ({0} > {1})", "equ": "~(({0} < {1}) | ({0} > {1}))", "ltu": "~({} >= {})",
    "leu": "~({} > {})", "gtu": "~({} <= {})", "geu": "~({} < {})", "nan": "isnan({}) | isnan({})",
    "num": "~(isnan({}) | isnan({}))",
}  # fmt: skip
CONVERSIONS = {  # target, source: exact, or rounded to nearest even where the name says so
    ".rn": {
        ("f16", "f32"), ("f32", "f64"),
        *((to, of) for to in ("f32", "f64") for of in ("u16", "s16", "u32", "s32", "u64", "s64")),
    },
    "": {("u32", "u64"), ("u64", "u32"), ("s64", "s32"), ("s32", "s16"), ("s32", "s8"), ("s64", "s16"),
         ("s16", "s8"), ("u16", "u32"), ("u32", "u16"), ("u16", "u64"), ("u64", "u16"),
         ("f64", "f32")},
}  # fmt: skip
