"""The orthogonal factor of a matrix, with the same bits on every processor and for every number of threads.

Householder reflections, a block of columns at a time. Libraries of linear algebra order their sums by the processor and
its threads; here each sum has one order: vector lanes and threads hold different columns, never parts of a sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.lanes import WIDTH
from numparam.kernels.machine.memory import access, stack

_BLOCK = 32  # reflections applied at once
_STRIP = 64  # columns they are applied to at once
_ROWS = 64  # rows whose share of a sum is computed separately: with it rounding errors stay below LAPACK's
_load, _store, _ = access("f64", WIDTH)
_LINE = 8 * WIDTH  # bytes
_reserve_product = stack(_BLOCK * _LINE)


def orthogonalise(matrix: np.ndarray[Any, Any]) -> None:
    """Replace a matrix by its factor Q with orthonormal columns, where the diagonal of the factor R is not negative.

    The matrix is of shape (m, n) with m >= n, float64, C-contiguous and finite.
    """
    height, width = matrix.shape
    signs = np.ones(width)
    blocks = []
    for first in range(0, width, _BLOCK):
        end = min(first + _BLOCK, width)
        vectors = np.zeros((-(-(height - first) // 4) * 4, _BLOCK))
        triangle = np.zeros((_BLOCK, _BLOCK))
        _factor(matrix[first:, first:end], vectors, triangle, signs[first:end])
        blocks.append((first, vectors, triangle))
        _apply(matrix[first:], vectors, triangle.T.copy(), end)
    matrix[...] = 0
    np.fill_diagonal(matrix, signs)
    for first, vectors, triangle in reversed(blocks):
        _apply(matrix[first:], vectors, triangle, first)


def _apply(matrix: Any, vectors: Any, triangle: Any, first: int) -> None:
    """Reflect the columns from `first` on; a column takes as long as drawing four times its bytes."""
    count = matrix.shape[1] - first
    pool.run(
        lambda start, stop: _reflect(matrix, vectors, triangle, first + start, first + stop),
        count, 32 * len(matrix), _STRIP,
    )  # fmt: skip


@kernel("orthogonal factor")
def _factor(columns: Any, vectors: Any, triangle: Any, signs: Any) -> None:
    """Write the `vectors` V and the upper `triangle` T of I - V T V', which makes the columns triangular.

    `signs` gets the signs of the diagonal of the triangular matrix.
    """
    height, width = columns.shape
    for i in range(height):
        for j in range(width):
            vectors[i, j] = columns[i, j]
    total, part = np.empty(_BLOCK), np.empty(_BLOCK)
    for k in range(width):
        square, lost = 0.0, 0.0  # the sum and its rounding error: a reflection is as orthogonal as its norm is exact
        for i in range(k + 1, height):
            term = vectors[i, k] * vectors[i, k] - lost
            grown = square + term
            lost = (grown - square) - term
            square = grown
        head, factor = vectors[k, k], 0.0
        diagonal = head
        if square > 0:
            diagonal = math.sqrt(head * head + square)
            if head > 0:
                diagonal = -diagonal
            factor = (diagonal - head) / diagonal
            for i in range(k + 1, height):
                vectors[i, k] /= head - diagonal
        signs[k] = -1.0 if diagonal < 0 else 1.0
        for j in range(_BLOCK):
            total[j] = vectors[k, j]
        for top in range(k + 1, height, _ROWS):
            for j in range(_BLOCK):
                part[j] = 0.0
            for i in range(top, min(top + _ROWS, height)):
                for j in range(_BLOCK):
                    part[j] = part[j] + vectors[i, k] * vectors[i, j]
            for j in range(_BLOCK):
                total[j] = total[j] + part[j]
        for i in range(k):
            product = 0.0
            for j in range(i, k):
                product += triangle[i, j] * total[j]
            triangle[i, k] = -factor * product
        triangle[k, k] = factor
        for j in range(_BLOCK):
            total[j] = factor * total[j] if j > k else 0.0
            vectors[k, j] = vectors[k, j] - total[j]
        for i in range(k + 1, height):
            for j in range(_BLOCK):
                vectors[i, j] = vectors[i, j] - vectors[i, k] * total[j]
    for i in range(min(height, _BLOCK)):
        for j in range(i, _BLOCK):
            vectors[i, j] = 1.0 if j == i and j < width else 0.0


@formula
def _sums(factors: Any, row: Any, first: Any, transposed: Any, count: Any, lines: Any) -> Any:
    """Return four sums of `count` lines times factors, each from a row of the factors (or column, if transposed)."""
    line = _load(lines)
    if transposed:
        a, b, c, d = (line * factors[first, row], line * factors[first, row + 1],
                      line * factors[first, row + 2], line * factors[first, row + 3])  # fmt: skip
        for i in range(1, count):
            line = _load(lines + i * _LINE)
            a = a + line * factors[first + i, row]
            b = b + line * factors[first + i, row + 1]
            c = c + line * factors[first + i, row + 2]
            d = d + line * factors[first + i, row + 3]
        return a, b, c, d
    a, b, c, d = (line * factors[row, first], line * factors[row + 1, first],
                  line * factors[row + 2, first], line * factors[row + 3, first])  # fmt: skip
    for i in range(1, count):
        line = _load(lines + i * _LINE)
        a = a + line * factors[row, first + i]
        b = b + line * factors[row + 1, first + i]
        c = c + line * factors[row + 2, first + i]
        d = d + line * factors[row + 3, first + i]
    return a, b, c, d


@kernel("orthogonal reflect")
def _reflect(matrix: Any, vectors: Any, triangle: Any, start: Any, stop: Any) -> None:
    """Apply I - V T V' to ``matrix[:, start:stop]``."""
    height, padded = len(matrix), len(vectors)
    strip = np.zeros((_STRIP // WIDTH, padded, WIDTH))
    inner, product = np.empty((_STRIP // WIDTH, _BLOCK, WIDTH)), _reserve_product()
    for left in range(start, stop, _STRIP):
        width = min(_STRIP, stop - left)
        tiles = (width + WIDTH - 1) // WIDTH
        for i in range(height):
            for j in range(width):
                strip[j // WIDTH, i, j % WIDTH] = matrix[i, left + j]
        for tile in range(tiles):
            for k in range(_BLOCK):
                for lane in range(WIDTH):
                    inner[tile, k, lane] = 0.0
        for top in range(0, padded, _ROWS):
            count = min(_ROWS, padded - top)
            for tile in range(tiles):
                lines, kept = strip[tile, top].ctypes.data, inner[tile].ctypes.data
                for k in range(0, _BLOCK, 4):
                    a, b, c, d = _sums(vectors, k, top, True, count, lines)
                    at = kept + k * _LINE
                    _store(at, _load(at) + a)
                    _store(at + _LINE, _load(at + _LINE) + b)
                    _store(at + 2 * _LINE, _load(at + 2 * _LINE) + c)
                    _store(at + 3 * _LINE, _load(at + 3 * _LINE) + d)
        for tile in range(tiles):
            kept = inner[tile].ctypes.data
            for k in range(0, _BLOCK, 4):
                a, b, c, d = _sums(triangle, k, 0, False, _BLOCK, kept)
                at = product + k * _LINE
                _store(at, a)
                _store(at + _LINE, b)
                _store(at + 2 * _LINE, c)
                _store(at + 3 * _LINE, d)
            for k in range(_BLOCK):
                _store(kept + k * _LINE, _load(product + k * _LINE))
        for top in range(0, padded, 4):
            for tile in range(tiles):
                a, b, c, d = _sums(vectors, top, 0, False, _BLOCK, inner[tile].ctypes.data)
                at = strip[tile, top].ctypes.data
                _store(at, _load(at) - a)
                _store(at + _LINE, _load(at + _LINE) - b)
                _store(at + 2 * _LINE, _load(at + 2 * _LINE) - c)
                _store(at + 3 * _LINE, _load(at + 3 * _LINE) - d)
        for i in range(height):
            for j in range(width):
                matrix[i, left + j] = strip[j // WIDTH, i, j % WIDTH]
