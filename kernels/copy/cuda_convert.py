"""CUDA kernels that convert between dtypes, by the formulas of the CPU where it has them.

Floating-point numbers are rounded once, to nearest even. A NaN stays a NaN; the hardware chooses its sign and payload.
Other numbers are converted as `formula.integers` describes.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from numparam.kernels.copy.cuda_rows import ITEMS_AHEAD, WORDS, line_mover, make_rows, mover
from numparam.kernels.copy.cuda_tiles import make_tiles
from numparam.kernels.formula.formats import FORMATS, conversion
from numparam.kernels.formula.integers import INTEGERS, PART_OF, low_bits, of_float, of_integer, truth
from numparam.kernels.machine.compile import CudaKernel, formula
from numparam.kernels.machine.cuda import line_loader, store_item

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOOL, _FLOAT32, _FLOAT64 = np.dtype(np.bool_), np.dtype(np.float32), np.dtype(np.float64)
FLOATS = list(FORMATS)
DTYPES = [_BOOL, *INTEGERS, *FLOATS, *PART_OF]


def canonical(target: np.dtype[Any], source: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return the pair of dtypes whose kernel serves a pair of dtypes; if both are the same a copy does."""
    if source == _BOOL:
        source = INTEGERS[0]
    if target == _BOOL:
        if source in INTEGERS:
            source = np.dtype(f"u{source.itemsize}")
        elif source in FLOATS and source.itemsize <= 2:
            source = np.dtype(np.float16 if source.itemsize == 2 else ml_dtypes.float8_e5m2)
    elif source in INTEGERS and target in INTEGERS:
        target = np.dtype(f"u{target.itemsize}")
        if target.itemsize <= source.itemsize:
            source = np.dtype(f"u{source.itemsize}")
    elif source in FLOATS and target in INTEGERS and target.itemsize <= 2 <= source.itemsize:
        target = np.dtype(f"u{target.itemsize}")
    return target, source


def pairs() -> Iterator[tuple[np.dtype[Any], np.dtype[Any]]]:
    """Yield target and source of every kernel."""
    real = [dtype for dtype in DTYPES if dtype not in PART_OF]
    found = {canonical(target, source): None for target, source in itertools.product(real, real)}
    found |= {(_BOOL, source): None for source in PART_OF}
    yield from ((target, source) for target, source in found if target != source)


@cache
def make_conversion(target: np.dtype[Any], source: np.dtype[Any]) -> CudaKernel:
    """Make the kernel that converts one dtype to another; `pairs` lists them."""
    name = f"convert_{source}_to_{target}"
    if source == np.complex128:  # to bool; an item is two words
        load, word, is_true, byte = line_loader(2), WORDS[8], truth(source), WORDS[1]
        load_pair = formula(lambda origin: load(origin, word))
        return make_rows(
            name, mover(load_pair, formula(lambda to, pair: store_item(to, is_true(pair), byte)), ITEMS_AHEAD)
        )
    return make_rows(name, line_mover(*_steps_between(target, source)))


@cache
def make_transposed(target: np.dtype[Any], source: np.dtype[Any]) -> CudaKernel:
    """Make the kernel that converts and exchanges two axes, for the `pairs` whose items have at most 8 bytes."""
    return make_tiles(f"convert_transposed_{source}_to_{target}", *_steps_between(target, source))


@cache
def _steps_between(target: np.dtype[Any], source: np.dtype[Any]) -> tuple[Any, Any, Any]:
    """Return scalars of the types that are stored and loaded, and the formula from one to the other."""
    if target == _BOOL:
        return WORDS[1], WORDS[source.itemsize], truth(source)
    if source in INTEGERS:
        convert = low_bits(of_integer(target, source), target)
    elif target in INTEGERS:
        convert = low_bits(of_float(target, source), target)
    else:
        convert = conversion(target, source)
    return _item(target), _item(source), convert


def _item(dtype: np.dtype[Any]) -> Any:
    """Return a scalar of the type in which a thread loads and stores items of a dtype."""
    if dtype in (_FLOAT32, _FLOAT64) or dtype.kind == "i":
        return dtype.type(0)
    return WORDS[dtype.itemsize]
