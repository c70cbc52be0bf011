"""The memory of parameters and gradients, as arrays that are read and written in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from numparam.cell import Cell
from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.parameter import Parameter
from numparam.tensor import Tensor

if TYPE_CHECKING:
    from numparam.kernels.array import DeviceArray

Array = np.ndarray[Any, np.dtype[Any]]
Parameters: TypeAlias = Cell | Iterable[Parameter]


def parameters_of(cell_or_parameters: Parameters) -> list[Parameter]:
    """Return the parameters of a cell, or of an iterable, each once."""
    if isinstance(cell_or_parameters, Cell):
        return list(cell_or_parameters.get_parameters())
    given: Any = cell_or_parameters
    if isinstance(given, Tensor) or not isinstance(given, Iterable):
        raise ArgumentTypeError(f"expected a Cell or parameters, found {type(given).__name__}")
    found = list({id(parameter): parameter for parameter in given}.values())
    for place, parameter in enumerate(found):
        if not isinstance(parameter, Parameter):
            raise ArgumentTypeError(f"expected a Cell or parameters, found {type(parameter).__name__} at {place}")
    return found


def is_shared(parameter: Parameter) -> bool:
    """Return whether all ranks should hold the same values: a full parameter that is not a rank's own."""
    return not (parameter.layerwise_parallel or parameter.sliced or not parameter.region.is_full)


def is_on_host(tensor: Tensor) -> bool:
    """Return whether the values of a tensor are, or will be, in the memory of the host."""
    return tensor.device == "cpu"


def writable(parameter: Parameter) -> Array | DeviceArray:
    """Return the memory of a parameter, flat; a lazy one is materialised first.

    Values that are read-only or not C-contiguous are copied, and the parameter keeps the copy.
    """
    memory: Array | DeviceArray = parameter._settle().array
    if isinstance(memory, np.ndarray) and not (memory.flags.c_contiguous and memory.flags.writeable):
        memory = memory.copy(order="C")
        parameter._hold(memory)
    return memory.reshape((memory.size,))


def as_bytes(memory: Array | DeviceArray) -> Array | DeviceArray:
    """Return the same memory as bytes."""
    if isinstance(memory, np.ndarray):
        return memory.view(np.uint8)
    from numparam.kernels.array import DeviceArray

    return DeviceArray((memory.nbytes,), np.dtype(np.uint8), memory.device, memory.address, memory)


def keep_rows(parameter: Parameter, rows: slice) -> None:
    """Shrink a parameter to some of its rows; a lazy one stays lazy."""
    region = parameter.region[rows]
    parameter._values = parameter._values.read(rows)
    parameter._region = region
    parameter.sliced = True


def check_count(parameters: Sequence[Parameter], gradients: Sequence[Any]) -> None:
    """Check that there is a gradient for each parameter."""
    if len(gradients) != len(parameters):
        raise ArgumentValueError(
            f"expected a gradient for each of {len(parameters)} parameters, found {len(gradients)}"
        )


def gradient_array(parameter: Parameter, gradient: Any, shape: tuple[int, ...]) -> Array:
    """Return the array of a gradient on the host, which is reduced in place."""
    array = gradient.asnumpy() if isinstance(gradient, Tensor) else gradient
    where = f"Parameter {parameter.name!r}"
    if not isinstance(array, np.ndarray):
        raise ArgumentTypeError(f"{where}: a gradient is a Tensor or a NumPy array, found {type(gradient).__name__}")
    if array.shape != shape:
        raise ArgumentValueError(f"{where}: expected a gradient of shape {shape}, found {array.shape}")
    if not array.flags.writeable:
        raise ArgumentValueError(f"{where}: its gradient is read-only, and reduced in place; give a copy")
    return array
