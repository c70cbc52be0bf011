"""The fingerprint of one parameter, or of a region of it."""

import math
from typing import Any, Self

from numparam.errors import ArgumentValueError, MismatchError, StateError
from numparam.fingerprints import boxes
from numparam.indexing.region import as_shape
from numparam.text import shown

MODULUS = 2**61 - 1  # of the sums; that of numparam.kernels.digest, which an import of this file leaves out

Sums = tuple[int, int]


def added(a: Sums, b: Sums) -> Sums:
    """Add up two pairs of sums."""
    return (a[0] + b[0]) % MODULUS, (a[1] + b[1]) % MODULUS


class Fingerprint:
    """Identify the values of a parameter, or of regions of it, by 128 bits.

    The fingerprints of disjoint regions add up to the fingerprint of their union, see ``docs/fingerprint.md``.
    Create one with `numparam.fingerprint`.

    Attributes
    ----------
    name : str
        Of the parameter, for messages; it does not take part in comparisons.
    shape : tuple of int
        Of the full parameter.
    dtype : str
        The name of the dtype whose bits were read.
    sums : tuple of (int, int)
        Two sums modulo 2**61 - 1.
    boxes : tuple of tuple of range
        The elements that are covered.
    key : str
        Identifies the key; ``""`` without a key.

    Examples
    --------
    >>> import numpy as np
    >>> import numparam
    >>> weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    >>> rows = numparam.Region.full((4, 3))
    >>> top = numparam.fingerprint(weight[:1], region=rows[:1])
    >>> rest = numparam.fingerprint(weight[1:], region=rows[1:])
    >>> top + rest == numparam.fingerprint(weight)
    True
    """

    __slots__ = ("boxes", "dtype", "key", "name", "shape", "sums")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        sums: Sums,
        covered: tuple[boxes.Box, ...] | None = None,
        key: str = "",
        name: str = "",
    ) -> None:
        self.shape, self.dtype, self.sums, self.key, self.name = shape, dtype, sums, key, name
        self.boxes = boxes.merged([tuple(map(range, shape))] if covered is None else covered, shape)

    @property
    def value(self) -> int:
        """Return the 128 bits as an integer: the first sum is the upper half."""
        return self.sums[0] << 64 | self.sums[1]

    @property
    def complete(self) -> bool:
        """Return whether every element is covered."""
        return sum(map(boxes.size, self.boxes)) == math.prod(self.shape)

    def require_complete(self) -> Self:
        """Return the fingerprint itself; a StateError that names the first missing region unless all is covered."""
        if self.complete:
            return self
        count, total = sum(map(boxes.size, self.boxes)), math.prod(self.shape)
        where = ""
        if all(indices.step == 1 for box in self.boxes for indices in box):
            missing = boxes.first_missing(self.boxes, self.shape)
            where = "" if missing is None else f"; {boxes.text(missing)} is missing first"
        raise StateError(
            f"{self._what()} of shape {self.shape} is covered in part, {count} of {total} elements{where}: add the "
            "fingerprints of all regions before comparing"
        )

    def __add__(self, other: Any) -> "Fingerprint":
        """Return the fingerprint of the union of two disjoint regions.

        Raises
        ------
        StateError
            If some elements would be counted twice; the message names them.
        MismatchError
            If the shapes, dtypes or keys differ.
        """
        if not isinstance(other, Fingerprint):
            return NotImplemented
        for fact in ("shape", "dtype", "key"):
            mine, its = getattr(self, fact), getattr(other, fact)
            if mine != its:
                raise MismatchError(f"{self._what()}: regions of one {fact} add up, found {shown(mine)} and {its!r}")
        for box in self.boxes:
            for another in other.boxes:
                if (twice := boxes.common(box, another)) is not None:
                    raise StateError(
                        f"{self._what()} of shape {self.shape}: {boxes.text(twice)} is covered twice; add each region "
                        "once, and compare replicas with each other"
                    )
        sums = added(self.sums, other.sums)
        return Fingerprint(self.shape, self.dtype, sums, self.boxes + other.boxes, self.key, self.name or other.name)

    def _facts(self) -> tuple[Any, ...]:
        return self.shape, self.dtype, self.key, self.boxes, self.sums

    def __eq__(self, other: object) -> bool:
        return self._facts() == other._facts() if isinstance(other, Fingerprint) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._facts())

    def __str__(self) -> str:
        return f"{self.value:032x}"

    def __repr__(self) -> str:
        part = "" if self.complete else f", boxes={' '.join(map(boxes.text, self.boxes))}"
        return f"Fingerprint({self}, shape={self.shape}, dtype={self.dtype}{part})"

    def _what(self) -> str:
        return f"parameter {self.name!r}" if self.name else "a parameter"

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads, for JSON."""
        found: dict[str, Any] = {"shape": list(self.shape), "dtype": self.dtype, "fingerprint": str(self)}
        if not self.complete:
            found["boxes"] = [[[r.start, r.stop, r.step] for r in box] for box in self.boxes]
        return found

    @classmethod
    def from_dict(cls, content: Any, key: str = "", name: str = "") -> Self:
        """Read what `to_dict` wrote; an ArgumentValueError if it is something else."""
        try:
            shape, digits = as_shape(list(content["shape"])), content["fingerprint"]
            value = int(digits, 16)
            sums = value >> 64, value & (2**64 - 1)
            covered = None
            if "boxes" in content:
                covered = tuple(tuple(range(*bounds) for bounds in box) for box in content["boxes"])
            sound = (
                len(digits) == 32
                and max(sums) < MODULUS
                and all(type(n) is int for n in content["shape"])
                and isinstance(content["dtype"], str)
                and all(len(box) == len(shape) for box in covered or ())
                and all(
                    0 <= r.start <= r.stop <= n and r.step > 0
                    for b in covered or ()
                    for r, n in zip(b, shape)  # noqa: B905
                )
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            sound = False
        if not sound:
            raise ArgumentValueError(
                f"the fingerprint of parameter {name!r} has a shape, a dtype and 32 hexadecimal digits, found "
                f"{shown(content)}"
            )
        found = cls(shape, content["dtype"], sums, None, key, name)
        if covered is not None:
            found.boxes = covered  # `to_dict` wrote merged ones; a file may have too many to merge
        return found
