"""Other shapes, orders and dtypes of a tensor's values, each in a tensor of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from numparam import dtypes
from numparam.errors import ShapeError
from numparam.indexing.arrays import converted, duplicate
from numparam.tensor.placed import allocated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numparam.device import Device
    from numparam.kernels.array import DeviceArray
    from numparam.tensor.tensor import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]


class Reshaping:
    """Give the values in another arrangement, on the device where they are; nothing here shares storage."""

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int, ...]: ...  # noqa: D102

        @property
        def device(self) -> Device: ...  # noqa: D102

        def asnumpy(self) -> Array: ...  # noqa: D102

        def _made(self, array: Array) -> Tensor: ...

        def _holding(self, values: DeviceArray) -> Tensor: ...

        def _device_values(self) -> DeviceArray: ...

        def _rearranged_on_device(self, arrange: Callable[[Array], Array]) -> DeviceArray: ...

    def _rearranged(self, arrange: Callable[[Array], Array]) -> Tensor:
        """Return a copy of the values in the order of a view that `arrange` makes of them."""
        if self.device != "cpu":
            return self._holding(self._rearranged_on_device(arrange))
        return self._made(duplicate(arrange(self.asnumpy())))

    def reshape(self, *shape: SupportsIndex | Sequence[SupportsIndex]) -> Tensor:
        """Return a tensor of another shape with the same values in row-major order.

        Parameters
        ----------
        *shape : int or sequence of int
            One length may be -1: what is left.

        Raises
        ------
        ValueError
            If the sizes differ.

        Examples
        --------
        >>> from numparam import Tensor
        >>> Tensor([1, 2, 3, 4]).reshape(2, -1).tolist()
        [[1, 2], [3, 4]]
        """
        lengths: Any = shape[0] if len(shape) == 1 else shape
        try:
            return self._rearranged(lambda array: array.reshape(lengths))
        except ValueError:
            raise ShapeError(f"a tensor of shape {self.shape} cannot be reshaped to {lengths}") from None

    def flatten(self) -> Tensor:
        """Return a tensor with one axis.

        Examples
        --------
        >>> from numparam import Tensor
        >>> Tensor([[1, 2], [3, 4]]).flatten().tolist()
        [1, 2, 3, 4]
        """
        return self.reshape(-1)

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> Tensor:
        """Return a tensor without axes of length 1: all of them, or those that are named.

        Raises
        ------
        ValueError
            If a named axis does not exist or is longer.

        Examples
        --------
        >>> from numparam import Tensor
        >>> Tensor([[[1], [2]]]).squeeze(0).shape
        (2, 1)
        """
        try:
            return self._rearranged(lambda array: array.squeeze(axis))
        except ValueError as error:
            raise ShapeError(f"a tensor of shape {self.shape} cannot be squeezed along {axis}: {error}") from None

    def transpose(self, *axes: int | Sequence[int] | None) -> Tensor:
        """Return a tensor with the axes in another order, reversed if none are given.

        Raises
        ------
        ValueError
            If `axes` does not name each axis once.

        Examples
        --------
        >>> from numparam import Tensor
        >>> Tensor([[[1, 2]]]).transpose(2, 0, 1).shape
        (2, 1, 1)
        """
        order: Any = axes[0] if len(axes) == 1 else axes or None
        try:
            return self._rearranged(lambda array: array.transpose(order))
        except ValueError as error:
            raise ShapeError(f"a tensor of shape {self.shape} cannot be transposed by {order}: {error}") from None

    @property
    def T(self) -> Tensor:
        """Return a tensor with the axes reversed."""
        return self.transpose()

    def astype(self, dtype: Any) -> Tensor:
        """Return a tensor with the values converted to another dtype.

        Floating-point values are rounded once, to nearest even. What is too large becomes infinity, or NaN in
        float8_e4m3fn. Everything else is converted as NumPy does, unchecked; for floats that an integer dtype cannot
        hold that is open, and may differ between processors and devices.

        Parameters
        ----------
        dtype : numpy.dtype or str

        Raises
        ------
        TypeError
            If there is no such dtype.

        Examples
        --------
        >>> from numparam import Tensor
        >>> Tensor([1.0, 1.5]).astype("float16").asnumpy()
        array([1. , 1.5], dtype=float16)
        """
        target = dtypes.as_dtype(dtype)
        if self.device != "cpu":
            return self._holding(allocated(self._device_values().astype, target))
        return self._made(converted(self.asnumpy(), target))
