"""A cell: a tree of parameters and cells with a computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from numparam import dtypes
from numparam.cell import assign, hooks, settings, state
from numparam.cell.state import IncompatibleKeys
from numparam.cell.tree import Tree, shadowable
from numparam.checks import as_int
from numparam.device import KINDS
from numparam.device import device as device_of
from numparam.errors import ArgumentTypeError
from numparam.parameter import Parameter
from numparam.tensor import Tensor

if TYPE_CHECKING:
    from numparam.cell.summary import Summary


class Cell(Tree):
    """Group parameters and other cells; subclass it and write ``construct``.

    A parameter, cell or list of them that is assigned to an attribute becomes a part of the cell, and so does what
    `insert_param_to_cell`, `insert_child_to_cell` and `register_buffer` are given:

    * a parameter without a name takes the name of the attribute;
    * in a list or tuple it takes ``Parameter$1``, ``Parameter$2`` and so on, counted within the cell; cells in a list
      or tuple are called by the attribute and their place. Parts that have a place already keep their names. Changing
      the list later registers nothing: assign it again;
    * two different parameters of one cell cannot have the same name;
    * when the cell becomes a part of another one, all its parameters are called by their paths from there. A parameter
      put into it later gets its full path too.

    The name of a lazy parameter decides its values when they are materialised, so they depend on its place in the
    finished tree and not on the order in which the tree was built.

    A path consists of the attributes that lead to a part, with dots between them. A part in several places is met once,
    at the first. Every walk over the tree takes time in proportion to its size.

    Parameters
    ----------
    auto_prefix : bool
        Whether the parameters of cells that are put in are called by their paths. Without, several parameters may have
        one name: `parameters_dict` and checkpoints keep the last, and loading fills all of them.
    flags : dict, optional
        See `add_flags`.

    Attributes
    ----------
    training : bool
        Whether the cell is in training, see `set_train`.
    phase : str
        ``"train"`` or ``"predict"`` after `set_train`.
    requires_grad : bool
        Whether gradients of this cell are wanted, see `set_grad`.
    cell_type : str
        A note for the user's programs.
    compute_dtype : numpy.dtype or None
        The dtype that ``construct`` should compute in, see `to_float`.

    Examples
    --------
    >>> import numpy as np
    >>> from numparam import CellList, Parameter
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
    >>> net = Net()
    >>> [parameter.name for parameter in net.trainable_params()]
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
    >>> net(np.ones((3, 4), np.float32)).shape
    (3, 2)
    """

    _layouts: Mapping[str, Any] = {}
    _pipeline_stage: int | None = None

    register_forward_pre_hook = hooks.register_forward_pre_hook
    register_forward_hook = hooks.register_forward_hook
    register_state_dict_pre_hook = hooks.register_state_dict_pre_hook
    register_state_dict_post_hook = hooks.register_state_dict_post_hook
    register_load_state_dict_pre_hook = hooks.register_load_state_dict_pre_hook
    register_load_state_dict_post_hook = hooks.register_load_state_dict_post_hook

    set_train = settings.set_train
    set_grad = settings.set_grad
    to_float = settings.to_float
    recompute = settings.recompute
    add_flags = settings.add_flags
    add_flags_recursive = settings.add_flags_recursive
    get_flags = settings.get_flags
    update_cell_type = settings.update_cell_type
    set_comm_fusion = settings.set_comm_fusion
    set_param_ps = shadowable(settings.set_param_ps)
    set_broadcast_flag = settings.set_broadcast_flag
    set_inputs = settings.set_inputs
    get_inputs = settings.get_inputs
    cast_inputs = settings.cast_inputs
    set_jit_config = settings.set_jit_config
    shard = settings.shard
    set_data_parallel = settings.set_data_parallel
    offload = settings.offload

    def __init__(self, auto_prefix: bool = True, flags: Mapping[str, Any] | None = None) -> None:
        super().__init__(auto_prefix)
        if flags:
            self.add_flags(**flags)

    def __setattr__(self, name: str, value: Any) -> None:
        if assign.assign(self, name, value):
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        if not assign.delete(self, name):
            object.__delattr__(self, name)  # raises what Python raises

    def insert_param_to_cell(
        self, param_name: str, param: Parameter | None, check_name_contain_dot: bool = True
    ) -> None:
        """Register a parameter under a name, or keep the place for one if it is None.

        Raises
        ------
        KeyError
            If the name is empty, is in use for something else, or has a dot and `check_name_contain_dot` is set.
        TypeError
            If the name is not a str, or `param` not a parameter.
        ValueError
            If another parameter of the cell has the same name.
        """
        assign.insert_parameter(self, param_name, param, not check_name_contain_dot)

    def insert_child_to_cell(self, child_name: str, child_cell: Cell | None) -> None:
        """Register a cell under a name and call its parameters by their paths; raises as `insert_param_to_cell`."""
        assign.insert_cell(self, child_name, child_cell)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that is not a parameter but belongs to the state, such as a mask.

        It raises as `insert_param_to_cell`. Checkpoints and `state_dict` keep it if it is `persistent`.

        Examples
        --------
        >>> cell = Cell()
        >>> cell.register_buffer("steps", Tensor([0]))
        >>> list(cell.state_dict()), list(cell.parameters_dict())
        (['steps'], [])
        """
        assign.insert_buffer(self, name, tensor, persistent)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run the hooks and ``construct``."""
        return hooks.call(self, inputs, options) if self._hooks else self.construct(*inputs, **options)

    def construct(self, *inputs: Any, **options: Any) -> Any:  # noqa: ARG002
        """Compute the output; every subclass that is called needs to define it.

        Otherwise it raises a NotImplementedError that is also an AttributeError.
        """
        raise _NoConstructError(f"{type(self).__name__} has no method construct(self, ...), so it cannot be called")

    def cells_and_names(self, cells: set[Cell] | None = None, name_prefix: str = "") -> Iterator[tuple[str, Cell]]:
        """Yield every cell with its path, itself first with an empty one, parents before children.

        Parameters
        ----------
        cells : set of Cell, optional
            Cells to leave out; those that were met are added to it.
        name_prefix : str
            The path of this cell.

        Examples
        --------
        >>> from numparam import CellList
        >>> [path for path, _ in CellList([Cell(), Cell()]).cells_and_names()]
        ['', '0', '1']
        """
        for path, cell in cast("Iterator[tuple[str, Cell]]", self._walk(name_prefix)):
            if cells is None or cell not in cells:
                if cells is not None:
                    cells.add(cell)
                yield path, cell

    def cells(self) -> Iterable[Cell]:
        """Return the cells right below this one, each once."""
        return Cell.name_cells(self).values()

    def name_cells(self) -> dict[str, Cell]:
        """Return the cells right below this one by name, each once."""
        distinct = {id(cell): name for name, cell in reversed(self._cells.items()) if cell is not None}
        return {name: cast("Cell", self._cells[name]) for name in reversed(distinct.values())}

    def get_sub_cell(self, target: str) -> Cell:
        """Return the cell at a path, this one for an empty path; AttributeError if nothing is there."""
        return self._found("cell", target, cast("Iterator[tuple[str, Cell]]", self._walk()))

    @shadowable
    def to(self, dtype: np.typing.DTypeLike | None = None, device: str | None = None) -> Self:
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
            If it is not a floating dtype.
        DeviceError
            If the device does not exist, or has too little memory.

        Examples
        --------
        >>> cell = Cell()
        >>> cell.w = Parameter([1.0, 2.0])
        >>> cell.to("bfloat16").w.dtype
        dtype(bfloat16)
        """
        if device is None and isinstance(dtype, str) and dtype.partition(":")[0].lower() in KINDS:
            dtype, device = None, dtype
        if dtype is None and device is None:
            raise ArgumentTypeError("a cell is converted to a dtype, moved to a device, or both; found neither")
        from numparam.cell import values

        if device is not None:
            values.move(self, device_of(device))
        if dtype is not None:
            values.convert(self, dtypes.as_dtype(dtype))
        return self

    def apply(self, fn: Callable[[Cell], object]) -> Self:
        """Call a function with every cell: the cells below first, this one last."""
        for child in Cell.cells(self):
            child.apply(fn)
        fn(self)
        return self

    def init_parameters_data(self, auto_parallel_mode: bool = False) -> dict[Parameter, Parameter]:
        """Materialise every lazy parameter: in full, or the shard of this rank, see `numparam.ParallelMode`.

        Parameters
        ----------
        auto_parallel_mode : bool
            Whether layouts that the user did not give are chosen, if the parallel mode is ``"auto_parallel"``; see
            `numparam.automatic_layouts`. They are in `Parameter.layout`.

        Returns
        -------
        dict of Parameter to Parameter
            Every parameter, to itself.

        Raises
        ------
        RuntimeError
            If the parallel mode changed since a parameter was created, a parameter has neither values nor an
            initializer, or the mesh of the context does not have its ``device_num`` ranks.
        ValueError
            If a layout does not suit its parameter, there is no parameter of that name, or the memory is too small for
            any layouts.
        """
        from numparam.cell import values

        return values.materialise(self, self._layouts, auto_parallel_mode)

    @property
    def parameter_layout_dict(self) -> Mapping[str, Any]:
        """Get or set the layouts by the name of the parameter, as `Parameter.init_data` takes them."""
        return self._layouts

    @parameter_layout_dict.setter
    def parameter_layout_dict(self, layouts: Mapping[str, Any]) -> None:
        if not isinstance(layouts, dict):
            raise ArgumentTypeError(f"the layouts of the parameters are a dict, found {type(layouts).__name__}")
        self._layouts = layouts

    @property
    def pipeline_stage(self) -> int | None:
        """Get or set the pipeline stage, an int from 0, that the trainable parameters live on; None if not set."""
        return self._pipeline_stage

    @pipeline_stage.setter
    def pipeline_stage(self, stage: int) -> None:
        self._pipeline_stage = as_int(f"{type(self).__name__}.pipeline_stage", stage, 0)
        for parameter in Tree.trainable_params(self):
            parameter._stage(self._pipeline_stage)

    @property
    def cls_name(self) -> str:
        """Return the name of the class."""
        return type(self).__name__

    @property
    def param_prefix(self) -> str:
        """Return the path of the cell in the tree that it was put into; empty if it is the root."""
        return self._prefix[:-1]

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Return by path the parameters and persistent buffers themselves, not copies.

        The prefix is right before every path.

        Examples
        --------
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0)
        >>> cell.state_dict("net.")
        {'net.w': Parameter (name=w, shape=(), dtype=Float32, requires_grad=True)}
        """
        return state.save_state(self, prefix)

    def load_state_dict(self, state_dict: Mapping[str, np.typing.ArrayLike], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and persistent buffers at their paths; on an error nothing changes.

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
            If `state_dict` is not a mapping.
        RuntimeError
            If a shape differs, a value is not a tensor, or the paths differ and `strict` is set.

        Examples
        --------
        >>> cell = Cell()
        >>> cell.w = Parameter([0.0, 0.0])
        >>> import numpy as np
        >>> cell.load_state_dict({"w": np.array([1.0, 2.0]), "v": np.array(0)}, strict=False)
        IncompatibleKeys(missing_keys=[], unexpected_keys=['v'])
        >>> cell.w.asnumpy()
        array([1., 2.], dtype=float32)
        """
        return state.load_state(self, state_dict, strict)

    @shadowable
    def summary(self) -> Summary:
        """Return a table of the parameters, which a terminal and a notebook show.

        Examples
        --------
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
        """Return what `repr` shows of the cell itself; subclasses may add to it."""
        return ""

    def _repr_html_(self) -> str:
        from numparam import html

        return html.cell(self)

    def __repr__(self) -> str:
        children = [
            f"({name}): " + repr(cell).replace("\n", "\n  ") for name, cell in self._cells.items() if cell is not None
        ]
        own = self.extend_repr()
        if not children:
            return f"{type(self).__name__}({own})"
        lines = [own, *children] if own else children
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


class _NoConstructError(NotImplementedError, AttributeError):
    """Report a cell that is called and cannot be."""
