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


class Reduction(Protocol[T_co]):
    """Reduce all elements, or those along axes."""

    def __call__(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False, **options: Any) -> T_co:
        """Reduce."""


class Declared(Arithmetic, Generic[T]):
    """Declare the results of `Arithmetic` to be tensors of one class."""

    __hash__ = Arithmetic.__hash__

    if TYPE_CHECKING:

        def __add__(self, other: Operand, /) -> T: ...
        def __divmod__(self, other: Operand) -> tuple[T, T]: ...
        def __rdivmod__(self, other: Operand) -> tuple[T, T]: ...
        def __eq__(self, other: object) -> T: ...  # type: ignore[override]
        def __ne__(self, other: object) -> T: ...  # type: ignore[override]
        def __neg__(self) -> T: ...
        def __pos__(self) -> T: ...
        def __abs__(self) -> T: ...
        def __invert__(self) -> T: ...

        __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = matmul = __add__
        __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __rmatmul__ = __add__
        __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = __lt__ = __le__ = __gt__ = __ge__ = __add__
        __rand__ = __ror__ = __rxor__ = __rlshift__ = __rrshift__ = __add__

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

        abs: Callable[[], T]
        bool: Callable[[], T]
        int: Callable[[], T]
        long: Callable[[], T]
        half: Callable[[], T]
        bfloat16: Callable[[], T]
        float: Callable[[], T]
        double: Callable[[], T]
