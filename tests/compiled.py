"""Call formulas of the kernels, which exist inside compiled code only, on plain arrays."""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np

from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import WIDTH, float64_of_bits, float_of_bits, low_word
from numparam.kernels.machine.memory import POSITION, load_indices, store_lanes


@formula
def _word(lanes: Any) -> Any:
    return low_word(lanes)


@formula
def _float32(lanes: Any) -> Any:
    return float_of_bits(low_word(lanes))


@formula
def _float64(lanes: Any) -> Any:
    return float64_of_bits(lanes)


_READERS = {np.dtype(np.uint32): _word, np.dtype(np.float32): _float32, np.dtype(np.float64): _float64}


@cache
def _loop(formula_: Any, read: Any, arity: int, with_params: bool) -> Any:
    """Make a loop of the formulas' own lanes."""
    if not with_params:

        @numba.njit
        def loop(columns: Any, outputs: Any, params: Any) -> None:  # noqa: ARG001
            for at in range(0, columns.shape[1], WIDTH):
                store_lanes(outputs[0], at, formula_(read(load_indices(columns[0, at:]))))
    elif arity == 2:

        @numba.njit
        def loop(columns: Any, outputs: Any, params: Any) -> None:
            for at in range(0, columns.shape[1], WIDTH):
                a, b = read(load_indices(columns[0, at:])), read(load_indices(columns[1, at:]))
                x, y = formula_(a, b, params)
                store_lanes(outputs[0], at, x)
                store_lanes(outputs[1], at, y)
    else:

        @numba.njit
        def loop(columns: Any, outputs: Any, params: Any) -> None:
            for at in range(0, columns.shape[1], WIDTH):
                a, b = read(load_indices(columns[0, at:])), read(load_indices(columns[1, at:]))
                c, d = read(load_indices(columns[2, at:])), read(load_indices(columns[3, at:]))
                x, y = formula_(a, b, c, d, params)
                store_lanes(outputs[0], at, x)
                store_lanes(outputs[1], at, y)

    return loop


def call(formula_: Any, *arrays: np.ndarray, params: tuple[Any, ...] = (), result: Any = np.float32) -> Any:
    """Return what a formula makes of each item.

    Parameters
    ----------
    formula_ : formula
        Of one argument, or of two or four words and parameters.
    *arrays : ndarray
        One per argument: uint32, float32 or float64, all alike, one-dimensional.
    params : tuple, optional
        Passed on as they are.
    result : dtype
        Of the results.

    Returns
    -------
    ndarray or tuple of two
    """
    count, kind = arrays[0].size, arrays[0].dtype
    padded = -(-count // WIDTH) * WIDTH
    columns = np.empty((len(arrays), padded), np.uint64)
    for column, array in zip(columns, arrays, strict=True):
        assert array.dtype == kind
        column[:count] = array.view(f"u{array.itemsize}")
        column[count:] = column[count - 1]
        if kind != np.float64:  # words come from shuffled 64-bit lanes
            lanes = column.reshape(-1, WIDTH).copy()
            column.reshape(-1, WIDTH)[:, POSITION] = lanes
    outputs = np.empty((2 if params else 1, padded), result)
    _loop(formula_, _READERS[kind], len(arrays), bool(params))(columns, outputs, params)
    return (outputs[0, :count], outputs[1, :count]) if params else outputs[0, :count]
