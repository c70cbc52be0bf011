"""What a cell is told for training and for parallel runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from numparam import dtypes
from numparam.cell.queries import Queries
from numparam.checks import as_bool
from numparam.context import ParallelMode, get_auto_parallel_context, parallel_mode
from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.layout import Layout
from numparam.parameter import Parameter
from numparam.tensor.placed import made_together

_COMPUTE_DTYPES = ("float16", "float32", "bfloat16")
_RECOMPUTE = ("mp_comm_recompute", "parallel_optimizer_comm_recompute", "recompute_slice_activation")
_RECOMPUTE_IGNORED = ("use_reentrant", "output_recompute", "early_stop", "context_fn")


class Settings(Queries):
    """Keep the settings of a cell, and pass those of the parameters on to them."""

    _training = False
    requires_grad = False
    _compute_dtype: np.dtype[Any] | None = None
    _layouts: Mapping[str, Any] = {}
    _flags: Mapping[str, Any] = {}

    @property
    def training(self) -> bool:
        """Say whether the cell is in training; see `set_train`."""
        return self._training

    @property
    def phase(self) -> str:
        """Return ``"train"`` or ``"predict"``."""
        return "train" if self._training else "predict"

    def set_train(self, mode: bool = True) -> Self:
        """Put the cell and all below it into training, or out of it.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().set_train().training
        True
        """
        for _, cell in self.cells_and_names():
            cell._training = mode
        return self

    def set_grad(self, requires_grad: bool = True) -> Self:
        """Note in ``requires_grad`` whether gradients of this cell are wanted; its parameters stay as they are.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().set_grad().requires_grad
        True
        """
        self.requires_grad = requires_grad
        return self

    @property
    def compute_dtype(self) -> np.dtype[Any] | None:
        """Return the dtype that ``construct`` shall compute in, None if `to_float` did not say."""
        return self._compute_dtype

    def to_float(self, dst_type: Any) -> Self:
        """Ask this cell and all below it to compute in a dtype; the parameters keep theirs.

        ``construct`` finds it in `compute_dtype`. To convert the parameters, see `to`.

        Parameters
        ----------
        dst_type : numpy.dtype or str
            float16, float32 or bfloat16.

        Raises
        ------
        ValueError
            If it is another one.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().to_float("float16").compute_dtype
        dtype('float16')
        """
        try:
            dtype = dtypes.as_dtype(dst_type)
        except TypeError:
            dtype = None
        if dtype is None or dtype.name not in _COMPUTE_DTYPES:
            raise ArgumentValueError(f"a cell computes in {', '.join(_COMPUTE_DTYPES)}; found {dst_type!r}")
        for _, cell in self.cells_and_names():
            cell._compute_dtype = dtype
        return self

    def set_comm_fusion(self, fusion_type: int, recurse: bool = True) -> Self:
        """Set `Parameter.comm_fusion` of every trainable parameter.

        Raises
        ------
        TypeError
            If `fusion_type` is no int.
        ValueError
            If it is negative.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().set_comm_fusion(2).trainable_params()
        []
        """
        for parameter in self.trainable_params(recurse):
            parameter.comm_fusion = fusion_type
        return self

    def set_param_ps(self, recurse: bool = True, init_in_server: bool = False) -> None:
        """Note that a parameter server updates every trainable parameter; see `Parameter.set_param_ps`.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().set_param_ps()
        """
        for parameter in self.trainable_params(recurse):
            parameter.set_param_ps(init_in_server)

    def recompute(self, **options: Any) -> None:
        """Ask for a second forward pass instead of kept activations.

        There are no activations here; what is kept is the mark on the parameters.

        Parameters
        ----------
        parallel_optimizer_comm_recompute : bool
            Sets `Parameter.parallel_optimizer_comm_recompute` of every parameter.
        **options
            ``mp_comm_recompute`` and ``recompute_slice_activation``, bools, are accepted; so are the options of
            MindSpore 2.10.

        Raises
        ------
        TypeError
            If an option is no bool.
        ValueError
            If there is no such option.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().recompute(parallel_optimizer_comm_recompute=True)
        """
        for option, value in options.items():
            if option in _RECOMPUTE_IGNORED:
                continue
            if option not in _RECOMPUTE:
                raise ArgumentValueError(f"recompute has no option {option!r}; known: {', '.join(_RECOMPUTE)}")
            as_bool(f"recompute: {option}", value)
        if "parallel_optimizer_comm_recompute" in options:
            for parameter in self.get_parameters():
                parameter.parallel_optimizer_comm_recompute = options["parallel_optimizer_comm_recompute"]

    def add_flags(self, **flags: Any) -> Self:
        """Note flags, which become attributes.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell().add_flags(frozen=True)
        >>> cell.frozen, cell.get_flags()
        (True, {'frozen': True})
        """
        for name, value in flags.items():
            setattr(self, name, value)
        self._own("_flags").update(flags)
        return self

    def add_flags_recursive(self, **flags: Any) -> Self:
        """Note flags of this cell and all below it.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().add_flags_recursive(frozen=True).get_flags()
        {'frozen': True}
        """
        for _, cell in self.cells_and_names():
            cell.add_flags(**flags)
        return self

    def get_flags(self) -> dict[str, Any]:
        """Return the flags that `add_flags` noted."""
        return dict(self._flags)

    @property
    def parameter_layout_dict(self) -> Mapping[str, Any]:
        """Get or set the layouts by the name of the parameter, as `Parameter.init_data` takes them."""
        return self._layouts

    @parameter_layout_dict.setter
    def parameter_layout_dict(self, layouts: Mapping[str, Any]) -> None:
        if not isinstance(layouts, dict):
            raise ArgumentTypeError(f"the layouts of the parameters are a dict, found {type(layouts).__name__}")
        self._layouts = layouts

    def init_parameters_data(self, auto_parallel_mode: bool = False) -> dict[Parameter, Parameter]:
        """Make the values of every lazy parameter: all of them, or those of this rank, see `ParallelMode`.

        Parameters
        ----------
        auto_parallel_mode : bool
            Whether layouts that the user did not give are chosen, if the parallel mode is ``"auto_parallel"``; see
            `numparam.automatic_layouts`. `Parameter.layout` says which.

        Returns
        -------
        dict of Parameter to Parameter
            Every parameter, to itself: none is replaced.

        Raises
        ------
        RuntimeError
            If the parallel mode changed since a parameter was made, a parameter has no initializer and still no values,
            or the mesh of the context is not one of its ``device_num`` ranks.
        ValueError
            If a layout does not suit its parameter, there is no parameter of that name, or the memory is too small for
            any layouts.

        Examples
        --------
        >>> from numparam import Cell, initializer
        >>> cell = Cell()
        >>> cell.w = Parameter(initializer.initializer("normal", (2, 3)))
        >>> list(cell.init_parameters_data()), cell.w.has_init
        ([Parameter (name=w, shape=(2, 3), dtype=Float32, requires_grad=True)], False)
        """
        parameters = list(self.get_parameters())
        parallel = parallel_mode() in (ParallelMode.SEMI_AUTO_PARALLEL, ParallelMode.AUTO_PARALLEL)
        layouts = self._given_layouts(parameters) if parallel else {}
        if auto_parallel_mode and parallel_mode() == ParallelMode.AUTO_PARALLEL:
            layouts = _chosen_layouts(parameters, layouts)
        with made_together(parameters):
            for parameter in parameters:
                layout = layouts.get(parameter.name)
                parameter.init_data(layout, set_sliced=layout is not None and not layout.whole)
        return {parameter: parameter for parameter in parameters}

    def _given_layouts(self, parameters: list[Parameter]) -> dict[str, Layout]:
        shapes = {parameter.name: parameter.shape for parameter in parameters}
        if missing := [name for name in self._layouts if name not in shapes]:
            raise ArgumentValueError(
                f"parameter_layout_dict has a layout for {missing[0]!r}, a parameter that the {type(self).__name__} "
                "does not have"
            )
        return {
            name: layout if isinstance(layout, Layout) else Layout.parse(layout, shapes[name], name)
            for name, layout in self._layouts.items()
        }


def _chosen_layouts(parameters: list[Parameter], given: Mapping[str, Layout]) -> dict[str, Layout]:
    """Choose layouts for the lazy parameters that have none, over the mesh of the context."""
    from numparam.layout.automatic import automatic_layouts

    ranks = get_auto_parallel_context("device_num")
    mesh = get_auto_parallel_context("mesh") or {"rank": ranks}
    whole = Layout(mesh, ())
    if whole.size != ranks:
        raise StateError(f"the mesh {mesh} of the parallel context has {whole.size} ranks, its device_num is {ranks}")
    settled = {parameter.name: whole for parameter in parameters if not parameter.has_init} | dict(given)
    return automatic_layouts(parameters, mesh, get_auto_parallel_context("memory_per_rank"), settled)
