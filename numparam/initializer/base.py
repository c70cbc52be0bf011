"""What every initializer is, and how users write their own."""

import math
from numbers import Real
from typing import Any, SupportsIndex

import numpy as np

from numparam import dtypes
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError, ShapeError
from numparam.indexing.region import Region
from numparam.stream.seed import as_seed, choose_seed, next_number
from numparam.stream.source import Buffer, Source
from numparam.text import shown

_LARGEST_ROOT = 2.0**511


class Initializer:
    """Generate the values of a tensor; the base of all initializers.

    Subclass it and implement one of two methods:

    ``fill(self, out, region, source)``
        Fill the C-contiguous array `out` with the values that the tensor of shape ``region.full_shape`` has in
        `region`; ``region.ranges`` are the indices along each axis. Take random values from `source`, a
        `numparam.stream.source.Source`: they are a pure function of the seed, the name and the index. It is not called
        for regions without elements.
    ``_initialize(self, arr)``
        Fill the full array `arr` in place, as in MindSpore. A slice of a lazy tensor then costs as much as the full
        tensor.

    Override ``check(self, shape, dtype)`` to refuse tensors before their values are generated. Class attributes declare
    what an initializer can do; a class that writes its own ``fill`` or ``_initialize`` starts from the defaults again.

    Calling an initializer on an array fills it in place, as the next unnamed tensor.

    Parameters
    ----------
    **kwargs
        Accepted for subclasses written for MindSpore, which pass their arguments on.

    Attributes
    ----------
    on_device : bool
        Whether ``fill`` also takes device arrays, because it only draws with its source and fills with `Constant`. By
        default the values are generated on the host and copied.
    needs_full : bool
        Whether every part costs as much as the full tensor, which is then generated once and sliced.
    reads : {"nothing", "fans", "axes"}
        What of the shape decides the values: nothing; the numbers of inputs and outputs, as for `FanScaled`; or the
        axes ``(outputs, inputs, *kernel)``. `numparam.jax.Kernel` puts the axes of JAX in this order.

    Examples
    --------
    Random signs, of which a slice costs only itself:

    >>> from numparam.initializer import initializer
    >>> class Signs(Initializer):
    ...     def fill(self, out, region, source):
    ...         source.uniform(out, region, -1.0, 1.0)
    ...         out[...] = np.where(out < 0, -1, 1)
    >>> lazy = initializer(Signs(), (1000, 1000))
    >>> bool((lazy[3:5].asnumpy() == lazy.asnumpy()[3:5]).all())
    True

    A ramp, computed in full:

    >>> class Ramp(Initializer):
    ...     def _initialize(self, arr):
    ...         arr[...] = np.arange(arr.size).reshape(arr.shape)
    >>> initializer(Ramp(), (2, 3))[1].asnumpy()
    array([3., 4., 5.], dtype=float32)
    """

    on_device: bool = False
    needs_full: bool = False
    reads: str = "nothing"
    _seed: int | None = None

    def __init__(self, **kwargs: Any) -> None:
        self._kwargs = kwargs

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if not own.keys() & {"fill", "_initialize"}:
            return
        if "fill" not in own:  # the method that is written last counts, whatever the parent class implements
            cls.fill = Initializer.fill  # type: ignore[method-assign]
        for name, default in {"on_device": False, "needs_full": cls.fill is Initializer.fill}.items():
            if name not in own:
                setattr(cls, name, default)

    def work(self, shape: tuple[int, ...]) -> int:
        """Estimate the operations that any part costs, if `needs_full`."""
        return 32 * math.prod(shape)

    @property
    def seed(self) -> int | None:
        """Get or set the initializer's own seed, which beats all others; see `numparam.stream.seed.choose_seed`.

        It counts for lazy tensors created from then on. The default is None.
        """
        return self._seed

    @seed.setter
    def seed(self, seed: SupportsIndex | None) -> None:
        self._seed = None if seed is None else as_seed(seed)

    def __call__(self, arr: Buffer) -> None:
        """Fill an array in place, as the next tensor without a name.

        Parameters
        ----------
        arr : numpy.ndarray
            Writable, of any strides.

        Raises
        ------
        TypeError
            If it is not an array, or of a dtype that the initializer cannot fill.
        ValueError
            If it is not writable, or of a shape that the initializer cannot fill.
        """
        if not isinstance(arr, np.ndarray):
            raise ArgumentTypeError(f"{self!r} fills a NumPy array, found {type(arr).__name__}")
        if not arr.flags.writeable:
            raise ArgumentValueError(f"{self!r} cannot fill an array that is not writable; give it a copy")
        self.check(arr.shape, dtypes.as_dtype(arr.dtype))
        source = Source(choose_seed(self.seed), next_number())
        if arr.size == 0:
            return
        out = arr if arr.flags.c_contiguous and arr.dtype.isnative else np.empty(arr.shape, arr.dtype.newbyteorder("="))
        self.fill(out, Region.full(arr.shape), source)
        if out is not arr:
            arr[...] = out

    def _initialize(self, arr: Buffer) -> None:
        raise NotImplementedError(f"{type(self).__name__} must implement fill(out, region, source) or _initialize(arr)")

    def fill(self, out: Buffer, region: Region, source: Source) -> None:  # noqa: ARG002
        """Fill `out` with the values of a region; see `Initializer`."""
        if region.is_full:
            self._initialize(out)
            return
        full = np.empty(region.full_shape, out.dtype)
        self._initialize(full)
        out[...] = region.take(full)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raise if the initializer cannot fill a tensor of this shape and dtype; the default accepts all.

        Raises
        ------
        TypeError
            If it cannot fill the dtype.
        ValueError
            If it cannot fill the shape.
        """

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if not hasattr(Initializer, name)}
        arguments = ", ".join(f"{name}={value!r}" for name, value in given.items() if not name.startswith("_"))
        return f"{type(self).__name__}({arguments})"


class PlainInitializer(Initializer):
    """Take no arguments."""

    def __init__(self) -> None:
        pass


class RandomInitializer(Initializer):
    """Draw real numbers, which need a floating dtype; the base of the random initializers."""

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().check(shape, dtype)
        if not dtypes.is_floating(dtype):
            raise DtypeError(
                f"{self!r} draws real numbers, which dtype {dtype} cannot hold; use a floating dtype, or a constant; "
                f"{dtypes.unchecked(dtype)}"
            )


def check_rank(init: Initializer, shape: tuple[int, ...], least: int, most: int | None = None) -> None:
    """Raise if a shape has fewer or more axes than an initializer can fill."""
    if len(shape) < least or (most is not None and len(shape) > most):
        wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
        raise ShapeError(f"{init!r} needs a shape of {wanted} axes, found {len(shape)} in {shape}")


def real(
    argument: str, value: Any, at_least: float = -math.inf, finite: bool = True, is_squared: bool = False
) -> float:
    """Check a number that an initializer was given and return it as a float."""
    if type(value) is float and at_least <= value and abs(value) < (_LARGEST_ROOT if is_squared else math.inf):
        return value  # a fifth of the time that the rest takes
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(f"{argument} is a number, found {shown(value)} of type {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # an int, or a fraction of them
        raise ArgumentValueError(f"{argument} is a number that float64 holds, found {shown(value)}") from None
    if is_squared and abs(number) >= _LARGEST_ROOT:
        raise ArgumentValueError(f"{argument} is a number whose square float64 holds, found {shown(value)}")
    if math.isnan(number) or (finite and math.isinf(number)) or number < at_least:
        least = "" if math.isinf(at_least) else f" of at least {at_least:g}"
        raise ArgumentValueError(f"{argument} is a {'finite ' if finite else ''}number{least}, found {shown(value)}")
    return number
