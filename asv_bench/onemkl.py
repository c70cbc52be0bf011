"""oneMKL through ctypes, where ``pip install mkl`` brought it: random numbers of its VSL, and transposes."""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from comparison import Array, Call

BASIC = 1 << 20
GENERATORS = {"Philox": 16 * BASIC, "SFMT": 13 * BASIC, "ARS-5": 15 * BASIC}  # Philox4x32-10, as numparam
NORMALS = {"Box-Muller": 1, "ICDF": 2}  # the former makes both values of a pair


@cache
def library() -> ctypes.CDLL | None:
    """Return the library, or None if this environment lacks it."""
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [file for file in files if file.name.startswith("libmkl_rt.so")]
    if not found:
        return None
    opened = ctypes.CDLL(str(found[0].locate()))
    opened.MKL_Set_Num_Threads(1)
    return opened


def _stream(generator: int) -> ctypes.c_void_p:
    stream = ctypes.c_void_p()
    status = library().vslNewStream(ctypes.byref(stream), generator, 7)  # type: ignore[union-attr]
    assert status == 0, f"vslNewStream returned {status}"
    return stream


def fills(draw: str, out: Array, sigma: float) -> Iterator[tuple[str, Call]]:
    """Yield the name of each of MKL's ways to make a draw on one core, in float32, and a call that does."""
    vsl: Any = library()
    if vsl is None or out.dtype != np.float32:
        return
    target = out.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    for name, number in GENERATORS.items():
        stream = _stream(number)
        if draw == "uniform":
            bounds = ctypes.c_float(-1.0), ctypes.c_float(1.0)
            yield f"mkl {name}", partial(vsl.vsRngUniform, 0, stream, out.size, target, *bounds)
        elif draw == "normal":
            moments = ctypes.c_float(0.0), ctypes.c_float(sigma)
            for how, method in NORMALS.items():
                yield (
                    f"mkl {name} {how}",
                    partial(vsl.vsRngGaussian, method, stream, out.size, target, *moments),
                )


def transpose(target: Array, source: Array) -> Call | None:
    """Return a call of ``MKL_Somatcopy`` if the copy is the transpose of a float32 matrix."""
    blas: Any = library()
    matrix = source.T
    if (
        blas is None
        or source.ndim != 2
        or target.dtype != np.float32
        or source.dtype != np.float32
        or source.flags.c_contiguous
        or not matrix.flags.c_contiguous
    ):
        return None
    rows, columns = matrix.shape
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    arguments = (
        ctypes.c_char(b"R"), ctypes.c_char(b"T"), size(rows), size(columns), ctypes.c_float(1.0),
        pointer(matrix.ctypes.data), size(columns), pointer(target.ctypes.data), size(rows),
    )  # fmt: skip
    return lambda: blas.MKL_Somatcopy(*arguments)
