"""Inputs of a tensor: values as an array, and buffers to write into."""

import sys
from typing import Any, Protocol

import numpy as np

from numparam import dtypes
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError, ShapeError
from numparam.tensor.values import Array
from numparam.text import shown

_DLPACK_UINT = 1


class SupportsDLPack(Protocol):
    """An array that shares its memory: of NumPy, torch, JAX or another library, or a tensor."""

    def __dlpack__(self) -> Any:
        """Return a capsule."""


def as_array(data: Any, dtype: Any = None) -> Array:
    """Copy values into a new C-contiguous array of a dtype that numparam knows."""
    data = from_torch(data)
    if isinstance(data, list | tuple):
        data = [item.asnumpy() if hasattr(item, "asnumpy") else item for item in data]
    try:
        array = np.array(data, order="C")
    except ValueError:
        raise ArgumentTypeError(f"every row of the values needs the same length, found {shown(data)}") from None
    if isinstance(data, float | list | tuple) and array.dtype == np.float64:
        with np.errstate(over="ignore"):  # to infinity, as for arrays
            array = array.astype(np.float32)
    if array.dtype.name not in dtypes.TABLE:
        if isinstance(data, int):
            raise ArgumentValueError(f"no integer dtype can hold {data!r:.80}")
        raise DtypeError(f"values are numbers or bools, found {shown(data)} of type {type(data).__name__}")
    target = dtypes.as_dtype(array.dtype if dtype is None else dtype)
    if target == array.dtype:
        return np.asarray(array, target)
    dtypes.check_imaginary(array.dtype, target)
    with np.errstate(all="ignore"):
        converted = array.astype(target)
    if target.kind in "biu" and not np.array_equal(converted, array):
        what = f"a value of {data!r:.80} is not exactly representable in {target}"
        raise ArgumentValueError(f"{what}; {dtypes.unchecked(target)}")
    return converted


def from_torch(data: Any) -> Any:
    """Return the values of a tensor of torch as an array, and anything else itself."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(data, torch.Tensor):
        return data
    held = data.detach().cpu()
    name = str(held.dtype).removeprefix("torch.")
    if name not in dtypes.EXTENSIONS:
        return held.numpy()
    bits = held.contiguous().view(torch.uint8 if held.dtype.itemsize == 1 else torch.int16)
    return bits.numpy().view(dtypes.as_dtype(name))


def to_capsule(array: Any, **options: Any) -> Any:
    """Return a DLPack capsule that shares an array or a device array."""
    name = array.dtype.name
    if name not in dtypes.EXTENSIONS or not isinstance(array, np.ndarray):
        return array.__dlpack__(**options)
    from numparam.kernels.array import DLPACK_CODES, dtype_code

    capsule = array.view(f"u{array.itemsize}").__dlpack__(**options)
    dtype_code(capsule).value = DLPACK_CODES[name]
    return capsule


def from_dlpack(array: Any) -> Array:
    """Return an array that shares the memory of another library's array on the CPU."""
    words = _Words(array)
    shared: Array = np.from_dlpack(words)
    return shared if words.name is None else shared.view(dtypes.as_dtype(words.name))


class _Words:
    """Export another library's array, bfloat16 and float8 as words of the same size, which NumPy can read."""

    name: str | None = None
    """The dtype of the words, set by `__dlpack__`."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._array.__dlpack_device__()
        return device

    def __dlpack__(self, **options: Any) -> Any:
        from numparam.kernels.array import DLPACK_CODES, dtype_code

        capsule = self._array.__dlpack__(**options)
        code = dtype_code(capsule)
        self.name = next((name for name, number in DLPACK_CODES.items() if number == code.value), None)
        if self.name:
            code.value = _DLPACK_UINT
        return capsule


def check_buffer(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless an array can take the values of a region."""
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        found = f"dtype {out.dtype}" if isinstance(out, np.ndarray) else type(out)
        raise DtypeError(f"values of dtype {dtype} go into a NumPy array of that dtype, found {found}")
    if out.shape != shape or not (out.flags.c_contiguous and out.flags.writeable):
        flags = f"writeable={out.flags.writeable}, c_contiguous={out.flags.c_contiguous}"
        raise ShapeError(
            f"values of shape {shape} go into a writable C-contiguous array of that shape, found {out.shape}, {flags}"
        )
