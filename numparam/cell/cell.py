"""A cell: a tree of parameters and cells with a computation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from numparam import dtypes
from numparam.cell.hooks import HookHandle, Hooks
from numparam.cell.settings import Settings
from numparam.cell.state import IncompatibleKeys, load_state
from numparam.device import Device
from numparam.device import device as device_of
from numparam.errors import ArgumentTypeError
from numparam.tensor import Tensor

if TYPE_CHECKING:
    from numparam.cell.summary import Summary


class Cell(Settings):
    """Group parameters and other cells; subclass it and write ``construct``.

    A parameter, cell or list of them that is assigned to an attribute becomes a part of the cell, and so does what
    `insert_param_to_cell`, `insert_child_to_cell` and `register_buffer` are given:

    * a parameter without a name of its own takes that of the attribute;
    * in a list or tuple it takes ``Parameter$1``, ``Parameter$2`` and so on, counted within the cell; cells in a list
      or tuple are called by the attribute and their place. Changing the list later registers nothing: assign it again;
    * two different parameters of one cell cannot have the same name;
    * when the cell becomes a part of another one, all its parameters are called by their paths from there. A parameter
      put into it later gets its full path too.

    The name of a lazy parameter decides its values at the moment they are made, so they depend on its place in the
    finished tree and not on the order in which the tree was built.

    Parameters
    ----------
    auto_prefix : bool
        Whether the parameters of cells that are put in are called by their paths.
    flags : dict, optional
        See `add_flags`.

    Examples
    --------
    >>> import numpy as np
    >>> from numparam import Parameter
    >>> from numparam.initializer import initializer
    >>> class Dense(Cell):
    ...     def __init__(self, inputs, outputs):
    ...         super().__init__()
    ...         self.weight = Parameter(initializer("xavier_uniform", (outputs, inputs)))
    ...         self.bias = Parameter(initializer("zeros", outputs))
    ...     def construct(self, x):
    ...         return x @ self.weight.asnumpy().T + self.bias.asnumpy()
    >>> class Net(Cell):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layers = CellList([Dense(4, 8), Dense(8, 2)])
    ...     def construct(self, x):
    ...         for layer in self.layers:
    ...             x = np.tanh(layer(x))
    ...         return x
    >>> from numparam import CellList
    >>> net = Net()
    >>> [parameter.name for parameter in net.trainable_params()]
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
    >>> net(np.ones((3, 4), np.float32)).shape
    (3, 2)
    """

    _cell_type = ""
    _pre_hooks: ClassVar[Hooks] = {}
    _hooks: ClassVar[Hooks] = {}

    def __init__(self, auto_prefix: bool = True, flags: Mapping[str, Any] | None = None) -> None:
        super().__init__(auto_prefix)
        if flags:
            self.add_flags(**flags)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run the hooks and ``construct``."""
        for hook in list(self._pre_hooks.values()):
            replaced = hook(self, inputs)
            if replaced is not None:
                inputs = replaced if isinstance(replaced, tuple) else (replaced,)
        output = self.construct(*inputs, **options)
        for hook in list(self._hooks.values()):
            replaced = hook(self, inputs, output)
            if replaced is not None:
                output = replaced
        return output

    def construct(self, *inputs: Any, **options: Any) -> Any:  # noqa: ARG002
        """Compute the output; every subclass that is called needs its own.

        Raises
        ------
        NotImplementedError
            If the class has none. It is also an AttributeError.
        """
        raise _NoConstruct(f"{type(self).__name__} has no method construct(self, ...), so it cannot be called")

    def register_forward_pre_hook(self, hook_fn: Callable[..., Any], *, prepend: bool = False) -> HookHandle:
        """Call a function before the cell runs.

        Parameters
        ----------
        hook_fn : callable
            Is given the cell and the tuple of its positional inputs; may return other inputs.
        prepend : bool
            Whether it runs before the hooks that are there already.

        Returns
        -------
        HookHandle
            Removes it.

        Raises
        ------
        TypeError
            If it is no function.

        Examples
        --------
        >>> class Double(Cell):
        ...     def construct(self, x):
        ...         return 2 * x
        >>> cell = Double()
        >>> handle = cell.register_forward_pre_hook(lambda cell, inputs: inputs[0] + 1)
        >>> cell(3)
        8
        """
        return HookHandle(self._own_hooks("_pre_hooks"), hook_fn, "a forward pre-hook", prepend)

    def register_forward_hook(self, hook_fn: Callable[..., Any], *, prepend: bool = False) -> HookHandle:
        """Call a function after the cell ran.

        Parameters
        ----------
        hook_fn : callable
            Is given the cell, the tuple of its positional inputs and the output; may return another output.
        prepend : bool
            Whether it runs before the hooks that are there already.

        Returns
        -------
        HookHandle
            Removes it.

        Raises
        ------
        TypeError
            If it is no function.

        Examples
        --------
        >>> class Double(Cell):
        ...     def construct(self, x):
        ...         return 2 * x
        >>> cell = Double()
        >>> handle = cell.register_forward_hook(lambda cell, inputs, output: output + 1)
        >>> cell(3)
        7
        """
        return HookHandle(self._own_hooks("_hooks"), hook_fn, "a forward hook", prepend)

    def _own_hooks(self, name: str) -> Hooks:
        hooks: Hooks = vars(self).setdefault(name, {})
        return hooks

    def to(self, dtype: Any = None, device: Any = None) -> Self:
        """Convert every floating-point parameter and buffer to a dtype, move all to a device, or both, in place.

        Lazy parameters stay lazy and are drawn in the new dtype. Integers and bools keep theirs.

        Parameters
        ----------
        dtype : numpy.dtype or str, optional
            A floating one. The name of a device is taken for `device`.
        device : str or Device, optional
            ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

        Raises
        ------
        TypeError
            If the dtype is none, or no floating one.
        DeviceError
            If there is no such device, or it has no room.

        Examples
        --------
        >>> from numparam import Parameter
        >>> cell = Cell()
        >>> cell.w = Parameter([1.0, 2.0])
        >>> cell.to("bfloat16").w.dtype
        dtype(bfloat16)
        """
        if device is None and isinstance(dtype, str) and dtype.partition(":")[0] in ("cpu", "cuda"):
            dtype, device = None, dtype
        if dtype is None and device is None:
            raise ArgumentTypeError("a cell is converted to a dtype, moved to a device, or both; found neither")
        if device is not None:
            self._move(device_of(device))
        if dtype is not None:
            self._convert(dtypes.as_dtype(dtype))
        return self

    def _move(self, target: Device) -> None:
        for parameter in self.get_parameters():
            parameter._move(target)
        for _, cell in self.cells_and_names():
            for buffer in cell._buffers.values():
                if buffer is not None:
                    buffer._move(target)

    def _convert(self, target: np.dtype[Any]) -> None:
        if not dtypes.is_floating(target):
            raise ArgumentTypeError(f"the parameters of a cell are converted to a floating dtype, found {target}")
        for parameter in self.get_parameters():
            if dtypes.is_floating(parameter.dtype):
                parameter.set_dtype(target)
        for _, cell in self.cells_and_names():
            for name, buffer in cell._buffers.items():
                if buffer is not None and dtypes.is_floating(buffer.dtype):
                    cell._buffers[name] = Tensor(buffer, target)

    def apply(self, fn: Callable[[Cell], object]) -> Self:
        """Call a function with every cell: those below first, this one last.

        Examples
        --------
        >>> Cell().apply(lambda cell: print(cell))
        Cell()
        Cell()
        """
        for child in self.cells():
            child.apply(fn)
        fn(self)
        return self

    @property
    def cls_name(self) -> str:
        """Return the name of the class."""
        return type(self).__name__

    @property
    def cell_type(self) -> str:
        """Return what `update_cell_type` noted."""
        return self._cell_type

    def update_cell_type(self, cell_type: str) -> None:
        """Note a type for the cell."""
        self._cell_type = cell_type

    @property
    def param_prefix(self) -> str:
        """Return the path of the cell in the tree that it was put into; empty if it is the root."""
        return self._prefix[:-1]

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Return by path the parameters and persistent buffers themselves, none copied.

        Parameters
        ----------
        prefix : str
            Stands right before every path.

        Examples
        --------
        >>> from numparam import Parameter
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0)
        >>> cell.state_dict("net.")
        {'net.w': Parameter (name=w, shape=(), dtype=Float32, requires_grad=True)}
        """
        state: dict[str, Tensor] = {prefix + path: parameter for path, parameter in self.parameters_and_names()}
        state.update({prefix + path: buffer for path, buffer, kept in self._state_buffers() if kept})
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and persistent buffers at their paths; all of them or, on an error, none.

        Parameters
        ----------
        state_dict : mapping of str to Tensor or numpy.ndarray
            The values, which are converted to the dtypes that are there.
        strict : bool
            Whether missing and unexpected paths are an error.

        Returns
        -------
        IncompatibleKeys
            ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        TypeError
            If `state_dict` is no mapping.
        RuntimeError
            If a shape differs, a value is no tensor, or the paths differ and `strict` is set.

        Examples
        --------
        >>> from numparam import Parameter
        >>> cell = Cell()
        >>> cell.w = Parameter([0.0, 0.0])
        >>> cell.load_state_dict({"w": np.array([1.0, 2.0]), "v": np.array(0)}, strict=False)
        IncompatibleKeys(missing_keys=[], unexpected_keys=['v'])
        >>> cell.w.asnumpy()
        array([1., 2.], dtype=float32)
        """
        return load_state(self, state_dict, strict)

    def summary(self) -> Summary:
        """Return a table of the parameters, which a terminal and a notebook show.

        Examples
        --------
        >>> from numparam import Parameter
        >>> cell = Cell()
        >>> cell.w = Parameter([1.0, 2.0])
        >>> cell.summary()
        parameter  shape  dtype    device  bytes  values  trainable  from
        w          (2,)   float32  cpu       8 B  made    yes        input
        1 parameter, 2 values, 8 B; trainable 2 values; lazy 0 B
        """
        from numparam.cell.summary import Summary

        return Summary(self)

    def extend_repr(self) -> str:
        """Return what `repr` shows of the cell itself; subclasses may say more."""
        return ""

    def __repr__(self) -> str:
        children = [
            f"({name}): " + repr(cell).replace("\n", "\n  ") for name, cell in self._cells.items() if cell is not None
        ]
        own = self.extend_repr()
        if not children:
            return f"{type(self).__name__}({own})"
        lines = [own, *children] if own else children
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


class _NoConstruct(NotImplementedError, AttributeError):
    """Report a cell that is called and cannot be."""
