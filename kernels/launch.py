"""How a kernel is spread over a device: the shape of the grid, and the only place that launches."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from numparam.kernels.machine import driver as _driver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numparam.kernels.machine.compile import CudaKernel

THREADS = 256  # of a block: at 64 registers a thread, four blocks fill half of a multiprocessor's 2048 threads
WAVES = 16  # blocks per multiprocessor: four at once, and four times, so that the last ones end together
_MOST_BLOCKS_Y = 65535


@lru_cache(maxsize=1024)
def geometry(columns: int, rows: int, multiprocessors: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return grid and block for `rows` rows of `columns` pieces of work; threads take several when there are many."""
    block_x = min(THREADS, 1 << (columns - 1).bit_length())
    block_y = min(THREADS // block_x, 1 << (rows - 1).bit_length())
    most = WAVES * multiprocessors
    grid_x = min(-(-columns // block_x), most)
    grid_y = min(-(-rows // block_y), max(1, most // grid_x), _MOST_BLOCKS_Y)
    return (grid_x, grid_y), (block_x, block_y)


def launch(device: int, kernel: CudaKernel, columns: int, rows: int, arguments: Iterable[Any]) -> None:
    """Queue a kernel on a device for `rows` rows of `columns` pieces of work."""
    grid, block = geometry(columns, rows, _driver.get_driver().multiprocessors(device))
    _launch(device, kernel, grid, block, arguments)


def launch_blocks(
    device: int, kernel: CudaKernel, count: int, block: tuple[int, int], arguments: Iterable[Any]
) -> None:
    """Queue a kernel whose blocks take `count` pieces of work together, several each when there are many."""
    most = WAVES * _driver.get_driver().multiprocessors(device)
    _launch(device, kernel, (min(count, most), 1), block, arguments)


def _launch(
    device: int, kernel: CudaKernel, grid: tuple[int, int], block: tuple[int, int], arguments: Iterable[Any]
) -> None:
    _driver.get_driver().launch(device, kernel, grid, block, tuple(arguments))
