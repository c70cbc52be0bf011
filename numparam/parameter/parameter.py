"""A parameter: a tensor with a name and the flags that training reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from numparam import dtypes
from numparam.context import SHARDED_MODES, ParallelMode, get_auto_parallel_context, parallel_mode
from numparam.errors import ArgumentTypeError, ArgumentValueError, ShapeError, StateError
from numparam.indexing.region import Region
from numparam.initializer import Initializer, initializer
from numparam.layout import Layout
from numparam.parameter.flags import anything, integer, lengths, next_cache_key, switch
from numparam.parameter.hooks import HookHandle
from numparam.parameter.values import as_values, converted, in_place, refuse_imaginary
from numparam.tensor import Array, State, Tensor, from_torch
from numparam.text import printable, shown

if TYPE_CHECKING:
    import numpy.typing as npt

    from numparam.indexing.arrays import Index

_MAX_NAME = 1024
_generated = count()


class Parameter(Tensor):
    """Hold a tensor that a model learns.

    A parameter created from a lazy tensor is lazy too. Its values are a pure function of the seed that the tensor was
    created under, its own name when they are materialised, and the index. A parameter without a name has the values of
    the tensor it was created from. A slice of a tensor gives one shard of a parameter.

    `clone`, ``copy.copy``, ``copy.deepcopy`` and pickle keep every attribute and share no storage; a lazy parameter
    stays lazy, and so does its copy. A clone always has the values of its original; a copy of a lazy parameter that
    gets another name before it is materialised has the values of that name.

    Operators such as ``+=`` change the values in place, as in NumPy.

    `cache_enable`, `cache_shape` and `key` are set by `numparam.EmbeddingLookup`; `is_param_ps` and `init_in_server`
    by `set_param_ps`; `unique` is kept, copied and saved for programs that read it. ``is_in_parallel`` is whether a
    sharded parallel mode was set when the parameter was created; ``is_init`` and ``init_flag`` are never changed here.

    Parameters
    ----------
    default_input : Tensor, int, float, numpy.ndarray, NumPy scalar or list
        The values, which are copied, never shared. An int becomes int32 and a float float32; a list of ints int64.
    name : str, optional
        Stripped of surrounding blanks, at most 1024 characters. None or blank: ``Parameter#N`` until a cell names it.
    requires_grad : bool
        Whether the parameter is trained.
    layerwise_parallel : bool
        Whether broadcasts and gradient aggregation leave it out.
    parallel_optimizer : bool
        Whether the optimizer may shard it.
    device : str or Device, optional
        Where the values are, or will be materialised, as for a `Tensor`.
    storage_format : str
        Checked, and without effect, as in MindSpore on a CPU.

    Raises
    ------
    TypeError
        If the input or a flag is of a kind that is not accepted.
    ValueError
        If the input is a bool or does not fit its dtype, or the name is not a str or too long.

    Examples
    --------
    >>> from numparam.initializer import Normal, initializer
    >>> weight, same, other = (Parameter(initializer(Normal(0.02), (2**40, 3)), name=name) for name in "wwv")
    >>> bool((weight[-1] == same[-1]).all()), bool((weight[-1] == other[-1]).any()), weight.has_init
    (True, False, True)
    >>> bias = Parameter([1.0, 2.0], name="b", requires_grad=False)
    >>> bias += 1
    >>> bias, bias.tolist()
    (Parameter (name=b, shape=(2,), dtype=Float32, requires_grad=False), [2.0, 3.0])
    """

    requires_grad = switch(True, "Get or set whether the parameter is trained.")
    layerwise_parallel = switch(
        False, "Get or set whether broadcasts and gradient aggregation leave the parameter out."
    )
    parallel_optimizer = switch(True, "Get or set whether the optimizer may shard the parameter.")
    parallel_optimizer_comm_recompute = switch(
        False, "Get or set whether the AllGather of a parameter that the optimizer shards is repeated when needed."
    )
    comm_fusion = integer(1, "Get or set the number of the group that communicates at once; 0 is not fused.", low=0)
    sliced = anything(False, "Get or set whether the values are one slice of the full parameter.")
    unique = anything(False, "Get or set whether lookups make their ids unique before they ask a server for rows.")
    key = integer(-1, "Get or set the number that an embedding cache knows the parameter by; -1 without a cache.")
    cache_enable = switch(False, "Get or set whether the rows of the parameter go through an embedding cache.")
    cache_shape = lengths("Get or set the shape of the cache, as a list.")
    is_param_ps = switch(False, "Get or set whether a parameter server updates the parameter; see `set_param_ps`.")
    init_in_server = switch(False, "Get or set whether the parameter server also initialises the values.")
    requires_aggr = anything(True, "Get or set whether gradients are aggregated, a note for the user's programs.")

    is_init = init_flag = is_in_parallel = False  # notes of MindSpore, which programs may change

    __iadd__ = in_place(np.add)
    __isub__ = in_place(np.subtract)
    __imul__ = in_place(np.multiply)
    __itruediv__ = in_place(np.true_divide)
    __ifloordiv__ = in_place(np.floor_divide)
    __imod__ = in_place(np.remainder)
    __ipow__ = in_place(np.power)
    __imatmul__ = in_place(np.matmul)
    __iand__ = in_place(np.bitwise_and)
    __ior__ = in_place(np.bitwise_or)
    __ixor__ = in_place(np.bitwise_xor)
    __ilshift__ = in_place(np.left_shift)
    __irshift__ = in_place(np.right_shift)

    _origin = "initializer"
    _origin_file: str | None = None
    _parallel_mode = ParallelMode.STAND_ALONE
    _initialized = False
    _layout: Layout | None = None
    _region: Region | None = None  # the region that the values are, if it is not the full parameter
    _pipeline_stages: tuple[int, ...] = ()

    def __init__(
        self,
        default_input: npt.ArrayLike,
        name: str | None = None,
        requires_grad: bool = True,
        layerwise_parallel: bool = False,
        parallel_optimizer: bool = True,
        *,
        device: str | None = None,
        storage_format: str = "",
    ) -> None:
        if not isinstance(storage_format, str):
            raise ArgumentTypeError(f"storage_format is a str, found {shown(storage_format)}")
        if name is None:
            self._name, self._name_is_generated = f"Parameter#{next(_generated)}", True
        else:
            self.name = name
        # A default needs no place: models have thousands of parameters.
        if requires_grad is not True:
            self.requires_grad = requires_grad
        if layerwise_parallel is not False:
            self.layerwise_parallel = layerwise_parallel
        if parallel_optimizer is not True:
            self.parallel_optimizer = parallel_optimizer
        if isinstance(default_input, Tensor):
            self._copy(default_input)
        else:
            self._hold(as_values(self._name, default_input))
        self._place(device)
        if self._values.in_memory:
            self._origin = "input"
        if (mode := parallel_mode()) != self._parallel_mode:
            self._parallel_mode, self.is_in_parallel = mode, mode in SHARDED_MODES

    def _copy(self, other: State) -> None:
        super()._copy(other)
        region = self._values.region
        if region is None and isinstance(other, Parameter):
            region = other._region
        if region is not None and not region.is_full:
            self._region = region

    @property
    def _own_name(self) -> str | None:  # type: ignore[override]
        return None if self._name_is_generated else self._name

    @property
    def name(self) -> str:
        """Get or set the name; it decides the values of a lazy parameter."""
        return self._name

    @name.setter
    def name(self, name: str | None) -> None:
        if name is not None and not isinstance(name, str):
            raise ArgumentValueError(f"the name of a parameter is a str or None, found {shown(name)}")
        given = name.strip() if name else ""
        if len(given) > _MAX_NAME:
            raise ArgumentValueError(f"the name of a parameter has at most {_MAX_NAME} characters, found {len(given)}")
        self._name_is_generated = not given
        self._name = given or f"Parameter#{next(_generated)}"

    def _rename(self, name: str) -> None:
        """Take the name that a cell gives, which needs no check unless it is very long."""
        if len(name) > _MAX_NAME:
            self.name = name
        self._name, self._name_is_generated = name, False

    @property
    def origin(self) -> str:
        """Return where the values come from.

        Returns
        -------
        str
            ``"initializer"``, materialised or lazy; ``"input"``, given to the constructor; ``"set_data"``;
            ``"in place"``, changed by ``+=``, ``p[...] = x`` and the like; ``"checkpoint FILE"``; or ``"recipe FILE"``,
            an initializer that was saved.

        Examples
        --------
        >>> Parameter(1.0).origin, Parameter(1.0).set_data(2.0).origin
        ('input', 'set_data')
        """
        return self._origin if self._origin_file is None else f"{self._origin} {self._origin_file}"

    @property
    def origin_file(self) -> str | None:
        """Return the file that the values or their recipe were loaded from, if any."""
        return self._origin_file

    def _set_origin(self, origin: str, file: str | None = None) -> None:
        self._origin, self._origin_file = origin, file

    @property
    def region(self) -> Region:
        """Return the region of the full parameter that this object holds."""
        return Region.full(self.shape) if self._region is None else self._region

    @property
    def layout(self) -> Layout | None:
        """Return the layout that `init_data` was given, None if it was not."""
        return self._layout

    @property
    def data(self) -> Self:
        """Get this parameter, or set its values as `set_data` does."""
        return self

    @data.setter
    def data(self, data: Tensor | Array | float) -> None:
        self.set_data(data, self.sliced)

    @property
    def inited_param(self) -> Self | None:
        """Return this parameter once `init_data` materialised it, None before or if it never was lazy."""
        return self if self._initialized else None

    @property
    def init_mode(self) -> Tensor | None:
        """Return a lazy tensor of the values that are to be materialised, None if they are."""
        return Tensor(self) if self.has_init else None

    @property
    def param_info(self) -> Self:
        """Return this parameter, which itself has the attributes that MindSpore keeps in another object."""
        return self

    def register_hook(self, hook_fn: Callable[..., Any]) -> HookHandle:
        """Keep a function for gradients until its handle removes it; it is never called, as there are no gradients."""
        return HookHandle(vars(self).setdefault("_hooks", {}), hook_fn, f"Parameter {self._name!r}: a hook")

    def __setitem__(self, index: Index, value: npt.ArrayLike) -> None:
        super().__setitem__(index, value)
        self._set_origin("in place")

    def value(self) -> Tensor:
        """Return a new tensor with the same values, lazy if the parameter is."""
        return Tensor(self)

    def set_data(self, data: Tensor | Array | float, slice_shape: bool = False) -> Self:
        """Replace the values by a copy of others, converted to the dtype of the parameter.

        The floats of a `Tensor` are truncated for a parameter of integers, as in MindSpore; a Python float and an array
        of floats are refused.
        Lazy values into a lazy parameter of the same dtype stay lazy.

        Parameters
        ----------
        data : Tensor, array of NumPy, torch or JAX, int or float
            Of the shape of the parameter, unless `slice_shape` is set.
        slice_shape : bool
            Whether the values are a slice, which may have any shape. It is kept as `sliced`.

        Raises
        ------
        TypeError
            If `data` is of another kind, or a float or an array of floats for a parameter of integers.
        ValueError
            If the shapes differ, or an integer dtype cannot hold a value.

        Examples
        --------
        >>> Parameter([1.0, 2.0]).set_data(Tensor([3, 4])).asnumpy()
        array([3., 4.], dtype=float32)
        """
        if not isinstance(data, int | float) and not hasattr(data, "__array__"):
            raise ArgumentTypeError(
                f"Parameter {self._name!r}: data is a Tensor, array, int or float, found {type(data).__name__}"
            )
        if not isinstance(data, Tensor):
            array = np.asarray(from_torch(data))
            if dtypes.is_floating(array.dtype) and self.dtype.kind in "iu":
                what = f"Parameter {self._name!r} has dtype {self.dtype}, found floats: {data!r:.80}"
                raise ArgumentTypeError(f"{what}; {dtypes.unchecked(self.dtype)}")
            data = Tensor(array)
        if not slice_shape and data.shape != self.shape:
            raise ShapeError(
                f"Parameter {self._name!r}: expected data of shape {self.shape}, found {data.shape}; "
                "slice_shape=True takes a slice of any shape"
            )
        if data.shape != self.shape:
            self._region = self._layout = None  # it is not known which region these values are
        self._take(data)
        self.sliced = slice_shape
        self._set_origin("set_data")
        return self

    def _take(self, data: Tensor) -> None:
        """Copy the values or the recipe of a tensor, in the dtype of this parameter."""
        source = self._sibling()  # of this name: lazy values without a name are drawn for this parameter
        source._copy(data)
        if source.has_init and self.has_init and source.dtype == self.dtype:
            self._values, self._region = source._values.move(self.device), source._region
            return
        source._settle()
        source._change_dtype(self.dtype)
        self._values = source._values.move(self.device)

    def _change_dtype(self, target: np.dtype[Any]) -> None:
        if target == self.dtype:
            return
        if not self.has_init:
            refuse_imaginary(self._name, self.dtype, target)  # a device converts without a word
        self._convert(target, lambda array: converted(self._name, array, target))

    def set_dtype(self, dtype: np.typing.DTypeLike) -> Self:
        """Convert the parameter to another dtype, in place.

        A lazy parameter stays lazy and is drawn in the new dtype: the same values in another precision.

        Parameters
        ----------
        dtype : numpy.dtype or str

        Raises
        ------
        TypeError
            If the dtype does not exist, or the initializer cannot fill it.
        ValueError
            If an integer dtype cannot hold a value.

        Examples
        --------
        >>> Parameter([0.1, 1e6], name="w").set_dtype("float16").tolist()
        [0.0999755859375, inf]
        """
        self._change_dtype(dtypes.as_dtype(dtype))
        return self

    def init_data(
        self, layout: Layout | tuple[Any, ...] | None = None, set_sliced: bool = False, *, rank: int | None = None
    ) -> Self:
        """Materialise the parameter if it is lazy: in full, or the slice of a rank.

        The slice has the bits that the full parameter has there.

        Parameters
        ----------
        layout : Layout or tuple, optional
            How the parameter is sharded; for MindSpore's tuple see `numparam.layout.mindspore_tuple`.
        set_sliced : bool
            What `sliced` becomes.
        rank : int, optional
            By default the ``global_rank`` of `numparam.set_auto_parallel_context`.

        Returns
        -------
        Parameter
            This parameter. One that is not lazy stays as it is.

        Raises
        ------
        RuntimeError
            If the parameter is lazy and the parallel mode changed after it was created.
        TypeError
            If `layout` is neither, or an item of the tuple is of the wrong kind.
        ValueError
            If the layout does not suit the parameter, or has no such rank.

        Examples
        --------
        >>> full = Parameter(initializer("normal", (8, 6)), name="w")
        >>> part = full.clone().init_data(Layout({"dp": 2, "tp": 2}, ("dp", "tp")), set_sliced=True, rank=1)
        >>> bool((part.asnumpy() == full.asnumpy()[:4, 3:]).all())
        True
        >>> part.region
        Region((8, 6): range(0, 4), range(3, 6))
        """
        if layout is not None and not isinstance(layout, Layout):
            layout = Layout.parse(layout, self.shape, self._name)
        values = self._values
        if values.in_memory:
            return self
        if (mode := parallel_mode()) != self._parallel_mode:
            raise StateError(
                f"Parameter {self._name!r} was created in parallel mode {self._parallel_mode!r}, now it is {mode!r}: "
                "set the mode before creating parameters"
            )
        if layout is not None:
            place = get_auto_parallel_context("global_rank") if rank is None else rank
            region = layout.region(self.shape, place, self._name)
            self._values = values.read(region.slices())  # of a slice that the parameter was created from, its part
            self._region, self._layout = self._values.region, layout
        self._settle()
        self.sliced = set_sliced
        self._initialized = True
        return self

    def clone(self, init: Tensor | Initializer | str | float = "same") -> Self:
        """Return a new parameter of the same shape, dtype, name and attributes.

        Parameters
        ----------
        init : Tensor, Initializer, str or number
            ``"same"``: it has the same values, whatever it is called later, and is lazy if this one is. Anything else
            is what `numparam.initializer.initializer` takes.

        Returns
        -------
        Parameter
            Shares nothing with this one. If `cache_enable` is set it gets a new `key`.

        Raises
        ------
        TypeError
            If `init` is of another kind.
        ValueError
            If no initializer has the name, or a tensor has another shape.

        Examples
        --------
        >>> moments = Parameter([1.0, 2.0], name="w").clone("zeros")
        >>> moments, moments.asnumpy()
        (Parameter (name=w, shape=(2,), dtype=Float32, requires_grad=True), array([0., 0.], dtype=float32))
        """
        twin = self._sibling()
        if isinstance(init, str) and init == "same":
            twin._copy(self)
        else:
            twin._take_new(initializer(init, self.shape, self.dtype))
        if self.cache_enable:
            twin.key = next_cache_key()
        return twin

    def copy(self) -> Self:
        """Return a clone with the same values."""
        return self.clone()

    def _take_new(self, data: Tensor) -> None:
        if data.dtype == self.dtype:
            self._copy(data)
        else:
            self._take(data)
        self._parallel_mode = parallel_mode()
        self._set_origin("initializer" if self.has_init else "input")

    def _sibling(self) -> Self:
        twin = super()._sibling()
        if "cache_shape" in vars(twin):
            twin.cache_shape = self.cache_shape
        return twin

    def add_pipeline_stage(self, stage: int) -> None:
        """Note a pipeline stage, a positive int, that the parameter belongs to. Deprecated, as in MindSpore."""
        warnings.warn("add_pipeline_stage is deprecated and will be removed", DeprecationWarning, stacklevel=2)
        given: Any = stage
        if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
            raise ArgumentTypeError(f"Parameter {self._name!r}: stage is a positive int, found {shown(stage)}")
        self._stage(int(given))

    def _stage(self, stage: int) -> None:
        self._pipeline_stages = (*self._pipeline_stages, stage)

    def set_param_ps(self, init_in_server: bool = False) -> None:
        """Let servers hold and update the parameter, see `numparam.server.ParameterServer`.

        `init_in_server` is whether they also generate its values, so that no values are sent.
        """
        self.init_in_server = init_in_server
        self.is_param_ps = True

    def _repr_html_(self) -> str:
        from numparam import html

        trained = "trainable" if self.requires_grad else "frozen"
        part = [] if self.region.is_full else [f"{self.region} of {self.region.full_shape}"]
        return html.tensor(self, "Parameter", self._name, [trained, f"from {self.origin}", *part])

    def __repr__(self) -> str:
        return (
            f"Parameter (name={printable(str(self._name))}, shape={self.shape}, dtype={dtypes.type_name(self.dtype)}, "
            f"requires_grad={self.requires_grad})"
        )
