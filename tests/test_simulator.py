"""The CUDA simulator of numba-cuda, in a process of its own: what it can tell of the kernels.

It runs a kernel's Python text, one thread after the other, so it cannot run formulas, which are written in types that
only compiled code has. It does know what a launch means: here it is asked whether the grids of `_launch.geometry`, with
the loops that the kernels have, visit every item of every row once, and it stops at an index beyond the array.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from interpreted_device import needs_compiler

pytestmark = needs_compiler

PROGRAM = """
import numpy as np
from numba import cuda
from numparam.kernels.launch import geometry

assert cuda.config.ENABLE_CUDASIM

@cuda.jit
def visit(seen, columns, rows):
    row = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    while row < rows:
        column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        while column < columns:
            cuda.atomic.add(seen, (row, column), 1)
            column += cuda.gridDim.x * cuda.blockDim.x
        row += cuda.gridDim.y * cuda.blockDim.y

for columns, rows in [(1, 1), (2, 3), (7, 1), (255, 1), (257, 2), (600, 1), (1, 600), (3, 130), (33, 17)]:
    for most in (1, 2):  # blocks, so that threads take several items
        (grid_x, grid_y), block = geometry(columns, rows, 1)
        seen = np.zeros((rows, columns), np.int32)
        visit[(min(grid_x, most), min(grid_y, most)), block](seen, columns, rows)
        assert (seen == 1).all(), (columns, rows)

try:
    visit[(1, 1), (4, 1)](np.zeros((1, 3), np.int32), 4, 1)
except IndexError:
    print("done")
"""


def test_grids_visit_every_item_once() -> None:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


@pytest.mark.parametrize("multiprocessors", [1, 108, 132, 170])
def test_grids_are_within_the_limits_of_a_launch(multiprocessors: int) -> None:
    from numparam.kernels.launch import THREADS, WAVES, geometry

    for columns in (1, 31, 256, 10**5, 2**40):
        for rows in (1, 2, 300, 10**6, 2**40):
            (grid_x, grid_y), (block_x, block_y) = geometry(columns, rows, multiprocessors)
            assert 1 <= grid_x <= WAVES * multiprocessors
            assert 1 <= grid_y <= 65535
            assert grid_x * grid_y <= WAVES * multiprocessors
            assert 1 <= block_x * block_y <= THREADS
            if columns * rows >= WAVES * multiprocessors * THREADS:  # enough work for every thread
                assert grid_x * grid_y * block_x * block_y >= WAVES * multiprocessors * THREADS // 4
