"""Binary floating-point formats, and arithmetic in them that is exact before it is rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache


@dataclass(frozen=True)
class Format:
    """A binary floating-point format, and correctly rounded arithmetic in it."""

    exponent_bits: int
    mantissa_bits: int
    has_infinity: bool = True

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent_bits - 1) - 1

    @cached_property
    def largest(self) -> Fraction:
        """The largest finite number. Without infinity, the top exponent is used up to its last number, which is NaN."""
        ones = 2 - Fraction(2 if not self.has_infinity else 1, 2**self.mantissa_bits)
        return ones * power_of_two(self.bias + (not self.has_infinity))

    def quantum(self, exact: Fraction) -> Fraction:
        """Return the distance of neighbouring numbers around `exact`; it stops shrinking at the subnormals."""
        return power_of_two(max(exponent_of(exact), 1 - self.bias) - self.mantissa_bits)

    def round(self, exact: Fraction | int, *, negative_zero: bool = False) -> float:
        """Round to nearest, ties to even, overflow to infinity (NaN where there is none)."""
        exact = Fraction(exact)
        if exact == 0:
            return -0.0 if negative_zero else 0.0
        quantum = self.quantum(exact)
        rounded = round(exact / quantum) * quantum  # Python rounds fractions to the even neighbour
        magnitude = float(abs(rounded)) if abs(rounded) <= self.largest else math.inf if self.has_infinity else math.nan
        return math.copysign(magnitude, -1 if exact < 0 else 1)

    def encode(self, number: float) -> int:
        """Return the bits of a number of this format."""
        sign = int(math.copysign(1, number) < 0) << (self.exponent_bits + self.mantissa_bits)
        top = (2**self.exponent_bits - 1) << self.mantissa_bits
        if math.isnan(number):
            return sign | top | (2 ** (self.mantissa_bits - 1) if self.has_infinity else 2**self.mantissa_bits - 1)
        if math.isinf(number):
            return sign | top
        exact = abs(Fraction(number))
        if exact == 0:
            return sign
        multiple = exact / self.quantum(exact)
        assert multiple.denominator == 1, f"{number} is not a number of {self}"
        exponent = max(exponent_of(exact), 1 - self.bias)
        # A subnormal lacks the leading one, which is what its exponent field of 0 says.
        return sign | (((exponent + self.bias - 1) << self.mantissa_bits) + int(multiple))

    # Arithmetic. Zeros have the sign that IEEE 754 gives them in this rounding.

    def fma(self, a: float, b: float, c: float) -> float:
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        return self.round(exact, negative_zero=is_negative(a) != is_negative(b) and is_negative(c))

    def add(self, a: float, b: float) -> float:
        return self.fma(a, 1.0, b)

    def subtract(self, a: float, b: float) -> float:
        return self.fma(b, -1.0, a)

    def multiply(self, a: float, b: float) -> float:
        return self.round(Fraction(a) * Fraction(b), negative_zero=is_negative(a) != is_negative(b))

    def divide(self, a: float, b: float) -> float:
        return self.round(Fraction(a) / Fraction(b), negative_zero=is_negative(a) != is_negative(b))

    def sqrt(self, a: float) -> float:
        exact = Fraction(a)
        scale = 4 ** (128 + max(0, -exponent_of(exact)))  # 128 bits of root at least: far below half a quantum
        root, remainder = _integer_sqrt(exact * scale)
        # What is cut off only matters in telling which side of a tie the root is on, and half a unit tells that.
        return self.round((root + Fraction(1 if remainder else 0, 2)) / math.isqrt(scale))

    def polynomial(self, x: float, *coefficients: float) -> float:
        """Evaluate by Horner's rule with fma, the highest coefficient first."""
        total, *rest = self.constants(coefficients)
        for coefficient in rest:
            total = self.fma(x, total, coefficient)
        return total

    @lru_cache  # noqa: B019  # formats live as long as the process
    def constants(self, numbers: tuple[float, ...]) -> list[float]:
        """Round the numbers of a formula."""
        return [self.round(Fraction(number)) for number in numbers]

    # Numbers inside an interval.

    def smallest_from(self, low: float) -> float:
        """Return the smallest finite number that is at least `low`; infinity if there is none."""
        return -self.largest_to(-low)

    def largest_to(self, high: float) -> float:
        """Return the largest finite number that is at most `high`; minus infinity if there is none."""
        if high >= self.largest:
            return float(self.largest)
        if high < -self.largest:
            return -math.inf
        exact = Fraction(high)
        if exact == 0:
            return high
        quantum = self.quantum(exact)
        return math.copysign(float(abs(exact // quantum * quantum)), high)


@lru_cache(maxsize=1 << 14)
def power_of_two(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def exponent_of(exact: Fraction) -> int:
    """Return e with ``2**e <= abs(exact) < 2**(e + 1)``."""
    guess = abs(exact.numerator).bit_length() - exact.denominator.bit_length()
    return guess if abs(exact) >= power_of_two(guess) else guess - 1


def is_negative(number: float) -> bool:
    return math.copysign(1, number) < 0


def _integer_sqrt(exact: Fraction) -> tuple[int, bool]:
    """Return the integer part of the square root and whether anything is cut off."""
    root = math.isqrt(exact.numerator // exact.denominator)
    return root, root * root != exact


FLOAT32 = Format(8, 23)
FLOAT64 = Format(11, 52)
FORMATS = {
    "float16": Format(5, 10),
    "bfloat16": Format(8, 7),
    "float8_e4m3fn": Format(4, 3, has_infinity=False),
    "float8_e5m2": Format(5, 2),
    "float32": FLOAT32,
    "float64": FLOAT64,
}
