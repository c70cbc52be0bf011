"""What becomes of one weight when noise is added: the formulas of the CPU and of CUDA threads.

On a lattice all numbers are multiples of a quantum, ``2**-24`` of its reach, and no larger than the reach: their sums
and differences are exact in float32.
"""

from __future__ import annotations

from typing import Any

from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import select, signed, to_float32, truncated32

LATTICE_BITS = 24
"""The reach of a lattice over its quantum, as a power of two: the digits of float32."""


@formula
def moved(x: Any, z: Any, c: Any, _reach: Any) -> Any:
    """Return x moved by ``c * z``; two roundings, as in NumPy."""
    return x + z * c


@formula
def moved_on_lattice(x: Any, z: Any, c: Any, reach: Any) -> Any:
    """Return x moved by the multiple of the quantum nearest to ``c * z``, which is below a quarter of the reach."""
    # The sum with 1.5 * 2**23 quanta keeps just the multiple of one.
    return x + ((z * c + reach * 0.75) - reach * 0.75)


@formula
def off_lattice(x: Any, y: Any, reach: Any) -> Any:
    """Return whether x is not on the lattice, or y beyond its reach; true for NaN."""
    square, further = y * y, x * x
    quanta = select(select(square < further, further, square) <= reach * reach, x * (16777216.0 / reach), 0.0)
    return to_float32(signed(truncated32(quanta))) * (reach / 16777216.0) != x
