"""The dtypes that numparam knows: one table of names, safetensors tags and MindSpore spellings.

A dtype is a NumPy dtype; those that NumPy lacks come from ``ml_dtypes``, which is imported when the first of them is
asked for. ``numparam.float32``, ``numparam.bfloat16`` and friends are these objects.
"""

from typing import Any

import numpy as np

from numparam.errors import DtypeError

TABLE: dict[str, tuple[str | None, str]] = {
    "bool": ("BOOL", "Bool"),
    "int8": ("I8", "Int8"),
    "int16": ("I16", "Int16"),
    "int32": ("I32", "Int32"),
    "int64": ("I64", "Int64"),
    "uint8": ("U8", "UInt8"),
    "uint16": ("U16", "UInt16"),
    "uint32": ("U32", "UInt32"),
    "uint64": ("U64", "UInt64"),
    "float16": ("F16", "Float16"),
    "float32": ("F32", "Float32"),
    "float64": ("F64", "Float64"),
    "bfloat16": ("BF16", "BFloat16"),
    "float8_e4m3fn": ("F8_E4M3", "Float8E4M3FN"),
    "float8_e5m2": ("F8_E5M2", "Float8E5M2"),
    "complex64": ("C64", "Complex64"),
    "complex128": (None, "Complex128"),
}
"""The tag of safetensors and MindSpore's spelling, by the name of the dtype."""

EXTENSIONS = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2"})
_NATIVE_BY_NAME = {name: np.dtype(name) for name in TABLE if name not in EXTENSIONS}
NATIVE = frozenset(_NATIVE_BY_NAME.values())
"""The dtypes that NumPy has, in native byte order."""
_NAMES_BY_TAG = {tag: name for name, (tag, _) in TABLE.items() if tag is not None}


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the NumPy dtype that `dtype` names.

    Parameters
    ----------
    dtype : numpy.dtype, str or type
        A dtype object, one of its names, or a scalar type such as ``numpy.float32``.

    Returns
    -------
    numpy.dtype
        In native byte order.

    Raises
    ------
    DtypeError
        If it names no dtype of the table. It is also a TypeError.

    Examples
    --------
    >>> as_dtype("float32"), as_dtype("bfloat16")
    (dtype('float32'), dtype(bfloat16))
    """
    # The name of a dtype takes 3 us, longer than all else that a lazy tensor needs.
    if isinstance(dtype, np.dtype) and dtype in NATIVE:
        return dtype
    if isinstance(dtype, str) and dtype in _NATIVE_BY_NAME:
        return _NATIVE_BY_NAME[dtype]
    if isinstance(dtype, str) and dtype in EXTENSIONS:
        import ml_dtypes

        return _native(np.dtype(getattr(ml_dtypes, dtype)))
    try:
        # NumPy reads None as float64: here it is not a dtype.
        found = None if dtype is None else _native(np.dtype(dtype))
    except (TypeError, ValueError, SyntaxError):  # NumPy parses the text of a dtype with the parser of Python
        found = None
    if found is None or found.name not in TABLE:
        raise DtypeError(f"no dtype {dtype!r}; known: {', '.join(TABLE)}")
    return found


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("=")


def tag(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype in safetensors files; a DtypeError if safetensors has no tag for it.

    Examples
    --------
    >>> tag(as_dtype("bfloat16"))
    'BF16'
    """
    found = TABLE[as_dtype(dtype).name][0]
    if found is None:
        raise DtypeError(f"safetensors files cannot hold {dtype}; convert it first")
    return found


def from_tag(tag: str) -> np.dtype[Any]:
    """Return the dtype of a tag of a safetensors file; a DtypeError if no dtype of the table has the tag.

    Examples
    --------
    >>> from_tag("F8_E5M2")
    dtype(float8_e5m2)
    """
    if tag not in _NAMES_BY_TAG:
        raise DtypeError(f"no dtype has the safetensors tag {tag!r}; known: {', '.join(_NAMES_BY_TAG)}")
    return as_dtype(_NAMES_BY_TAG[tag])


def type_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype as MindSpore spells it.

    Examples
    --------
    >>> type_name(as_dtype("float32"))
    'Float32'
    """
    return TABLE[dtype.name][1]


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype holds real floating-point numbers, the small ones of ``ml_dtypes`` included.

    Examples
    --------
    >>> is_floating(as_dtype("float8_e5m2")), is_floating(as_dtype("int8"))
    (True, False)
    """
    return dtype.kind == "f" or dtype.name in EXTENSIONS


def unchecked(dtype: np.dtype[Any]) -> str:
    """Return the end of every error that refuses a conversion which loses something: how to ask for it.

    Examples
    --------
    >>> unchecked(as_dtype("int8"))
    "Tensor(values).astype('int8') converts without a check"
    """
    return f"Tensor(values).astype({str(dtype)!r}) converts without a check"


def check_imaginary(source: np.dtype[Any], target: np.dtype[Any]) -> None:
    """Raise a DtypeError if a conversion would drop imaginary parts."""
    if source.kind == "c" and target.kind != "c":
        raise DtypeError(
            f"dtype {target} has no imaginary parts, found values of dtype {source}; give their real parts"
        )


def __getattr__(name: str) -> np.dtype[Any]:
    """Return a dtype by its name: ``dtypes.float32``; ``dtypes.bool_`` is ``bool``."""
    if name.removesuffix("_") in TABLE:
        return as_dtype(name.removesuffix("_"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
