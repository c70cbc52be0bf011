"""Gradients as a user has them: NumPy arrays, tensors, arrays of torch and JAX, or rows of a large table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError, ShapeError
from numparam.optim.memory import is_on_host
from numparam.tensor import SupportsDLPack, Tensor
from numparam.text import shown

if TYPE_CHECKING:
    import numpy.typing as npt

    from numparam.kernels.array import DeviceArray
    from numparam.parameter import Parameter

    Memory = np.ndarray[Any, np.dtype[Any]] | DeviceArray

Gradient: TypeAlias = "SupportsDLPack | SparseRows"
"""A Tensor, an array of NumPy, torch or JAX, or the gradient of some rows."""

_SHORT = tuple(np.dtype(kind) for kind in (np.float32, np.float16, ml_dtypes.bfloat16))
_FLOAT64 = np.dtype(np.float64)


class SparseRows(NamedTuple):
    """Hold the gradient of some rows of a parameter: an optimizer updates these rows and their states alone.

    All other rows, and their states, stay as they are: neither decay nor momentum moves them. Every optimizer takes
    it in place of a dense gradient, except `Lamb`, whose step needs the norm of the full parameter.

    Parameters
    ----------
    rows : numpy.ndarray
        Of integers, shape (n,). Gradients of a repeated row are summed in their order.
    values : numpy.ndarray
        Of shape (n, ...), the rest of the shape as the parameter's.

    Examples
    --------
    >>> from numparam import Parameter
    >>> from numparam.optim import Adagrad
    >>> table = Parameter(np.zeros((4, 2), np.float32), name="table")
    >>> optimizer = Adagrad([table], 0.0, 0.1)
    >>> optimizer([SparseRows(np.array([2, 0, 2]), np.ones((3, 2), np.float32))])
    >>> table.asnumpy()[:, 0]
    array([-0.1,  0. , -0.1,  0. ], dtype=float32)
    """

    rows: npt.NDArray[np.integer[Any]]
    values: npt.NDArray[Any]

    def summed(self) -> SparseRows:
        """Return the same gradient with distinct rows in ascending order."""
        rows, places = np.unique(self.rows, return_inverse=True)
        values = np.asarray(self.values)
        if rows.size == len(self.rows) and (rows == self.rows).all():
            return SparseRows(rows.astype(np.int64), np.ascontiguousarray(values))
        wide = np.zeros((rows.size, *values.shape[1:]), np.float64 if values.dtype == np.float64 else np.float32)
        np.add.at(wide, places, values.astype(wide.dtype))
        return SparseRows(rows.astype(np.int64), wide)

    def between(self, part: slice) -> SparseRows:
        """Return the gradient of a part of the rows, which are in ascending order."""
        first, last = np.searchsorted(self.rows, [part.start, part.stop])
        return SparseRows(self.rows[first:last] - part.start, self.values[first:last])


def as_array(parameter: Parameter, gradient: Any, shape: tuple[int, ...]) -> Memory:
    """Return the memory of a gradient, without a copy where it is C-contiguous."""
    where = f"Parameter {parameter.name!r}"
    if isinstance(gradient, Tensor):
        tensor = gradient
    elif isinstance(gradient, np.ndarray):
        tensor = Tensor.from_numpy(gradient)
    elif hasattr(gradient, "__dlpack__"):
        tensor = Tensor.from_dlpack(gradient.detach() if hasattr(gradient, "detach") else gradient)
    else:
        raise ArgumentTypeError(f"{where}: expected a Tensor or an array as gradient, found {type(gradient).__name__}")
    if tensor.shape != shape:
        raise ShapeError(f"{where}: expected a gradient of shape {shape}, found {tensor.shape}")
    memory: Memory = tensor.contiguous()._settle().array
    return memory


def as_rows(parameter: Parameter, gradient: SparseRows, rounding: str, shape: tuple[int, ...]) -> SparseRows:
    """Return the gradient of distinct rows of a shape, in ascending order, in the memory of the parameter's device."""
    where, rows = f"Parameter {parameter.name!r}", np.asarray(gradient.rows)
    if rounding != "nearest" and parameter.dtype.itemsize < 4:
        raise ArgumentValueError(f"{where}: SparseRows need rounding='nearest', found {shown(rounding)}")
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu") or not shape:
        raise ShapeError(f"{where}: rows must be a vector of integers, found {rows.dtype} of shape {rows.shape}")
    if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < shape[0]:
        raise ArgumentValueError(f"{where}: rows must be from 0 to {shape[0] - 1}, found {shown(rows)}")
    values = as_array(parameter, gradient.values, (rows.size, *shape[1:]))
    if not isinstance(values, np.ndarray):
        raise ArgumentValueError(f"{where}: SparseRows are taken from the host, found values on {values.device}")
    summed = SparseRows(rows, values).summed()
    if is_on_host(parameter):
        return summed
    from numparam.kernels.array import DeviceArray

    number = parameter._settle().array.device
    moved: list[Any] = [DeviceArray.from_host(array, number) for array in summed]
    return SparseRows(*moved)


def check_gradient(parameter: Parameter, gradient: Memory | SparseRows) -> None:
    """Check that a parameter can be updated by a gradient."""
    array: Memory = gradient.values if isinstance(gradient, SparseRows) else gradient
    where, found = f"Parameter {parameter.name!r}", array.dtype
    allowed = (_FLOAT64,) if parameter.dtype == _FLOAT64 else _SHORT
    if parameter.dtype not in (_FLOAT64, *_SHORT):
        raise DtypeError(f"{where}: optimizers update floats of 16 bits or more, found {parameter.dtype}")
    if found not in allowed:
        names = ", ".join(map(str, allowed))
        raise DtypeError(f"{where} of dtype {parameter.dtype} takes gradients of {names}, found {found}")
    if isinstance(array, np.ndarray) != is_on_host(parameter):
        raise ArgumentValueError(f"{where} is on {parameter.device}, but its gradient is not; move one of them")
