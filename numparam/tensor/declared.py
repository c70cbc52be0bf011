"""What a type checker sees of operators, reductions and conversions, which `arithmetic` creates in loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from numparam.tensor.arithmetic import Arithmetic

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Operand: TypeAlias = "Arithmetic | np.ndarray[Any, np.dtype[Any]] | np.generic | complex | Sequence[Any]"
"""What NumPy computes with; ints, floats and bools are complex numbers to a type checker."""


class Operator(Protocol[T_co]):
    """Compute with another operand; the result is a new tensor."""

    def __call__(self, other: Operand, /) -> T_co:
        """Compute."""


class Reduction(Protocol[T_co]):
    """Reduce all elements, or those along axes."""

    def __call__(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False, **options: Any) -> T_co:
        """Reduce."""


class Declared(Arithmetic, Generic[T]):
    """Declare the results of `Arithmetic` to be tensors of one class."""

    __hash__ = Arithmetic.__hash__

    if TYPE_CHECKING:
        __add__: Operator[T]
        __radd__: Operator[T]
        __sub__: Operator[T]
        __rsub__: Operator[T]
        __mul__: Operator[T]
        __rmul__: Operator[T]
        __truediv__: Operator[T]
        __rtruediv__: Operator[T]
        __floordiv__: Operator[T]
        __rfloordiv__: Operator[T]
        __mod__: Operator[T]
        __rmod__: Operator[T]
        __pow__: Operator[T]
        __rpow__: Operator[T]
        __matmul__: Operator[T]
        __rmatmul__: Operator[T]
        __and__: Operator[T]
        __rand__: Operator[T]
        __or__: Operator[T]
        __ror__: Operator[T]
        __xor__: Operator[T]
        __rxor__: Operator[T]
        __lshift__: Operator[T]
        __rlshift__: Operator[T]
        __rshift__: Operator[T]
        __rrshift__: Operator[T]
        __lt__: Operator[T]
        __le__: Operator[T]
        __gt__: Operator[T]
        __ge__: Operator[T]

        def __divmod__(self, other: Operand) -> tuple[T, T]: ...
        def __rdivmod__(self, other: Operand) -> tuple[T, T]: ...
        def __eq__(self, other: object) -> T: ...  # type: ignore[override]
        def __ne__(self, other: object) -> T: ...  # type: ignore[override]
        def __neg__(self) -> T: ...
        def __pos__(self) -> T: ...
        def __abs__(self) -> T: ...
        def __invert__(self) -> T: ...

        abs: Callable[[], T]
        matmul: Operator[T]
        sum: Reduction[T]
        prod: Reduction[T]
        mean: Reduction[T]
        std: Reduction[T]
        var: Reduction[T]
        norm: Reduction[T]
        min: Reduction[T]
        max: Reduction[T]
        argmin: Reduction[T]
        argmax: Reduction[T]
        all: Reduction[T]
        any: Reduction[T]

        bool: Callable[[], T]
        int: Callable[[], T]
        long: Callable[[], T]
        half: Callable[[], T]
        bfloat16: Callable[[], T]
        float: Callable[[], T]
        double: Callable[[], T]
