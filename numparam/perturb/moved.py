"""Parameters moved by noise: into other memory, or in place and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from numparam.cell import Cell
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError, ShapeError
from numparam.indexing.region import Region
from numparam.optim.memory import parameters_of, writable
from numparam.parameter import Parameter
from numparam.perturb.draws import Noise, as_pairs, as_reach
from numparam.tensor import Lazy, Tensor
from numparam.tensor.values import HOLDERS, Values

Target = TypeVar("Target")
Bases = Cell | Tensor | np.ndarray[Any, Any] | Sequence[Tensor | np.ndarray[Any, Any]] | None

REACH = 8.0
"""Of the lattice on which float32 parameters move in place by default."""


class Perturbed(Lazy):
    """Describe the values of a base, moved by noise; a region costs what the region costs."""

    def __init__(
        self, base: Values, name: str, region: Region, noise: Noise, seeds: Sequence[int], scales: Sequence[float]
    ) -> None:
        super().__init__(region, base.dtype, base.device)
        self.base, self.name, self.noise, self.seeds, self.scales = base, name, noise, seeds, scales

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape."""
        return self.base.shape

    def fill_into(self, out: Any, region: Region | None = None) -> None:
        """Write the values of a region of these ones, or all, into a C-contiguous array on the host."""
        self.base.fill_into(out, region)
        selected = self.region if region is None else self.region[region.slices()]
        flat = out.reshape([len(each) for each in selected.ranges])
        self.noise.write(flat, flat, self.name, _with_axes(selected), self.seeds, self.scales)

    def read(self, index: Any, name: str | None = None) -> Perturbed:
        """Return the description of a part."""
        return self.replace(base=self.base.read(index, name), region=self.region[index])

    def move(self, target: Any) -> Perturbed:
        """Return the description on a device."""
        return self.replace(base=self.base.move(target), device=target)

    def convert(self, dtype: np.dtype[Any], checked: Any = None) -> Values:
        """Return the values in another dtype, in memory."""
        return self.settle().convert(dtype, checked)


def _with_axes(region: Region) -> Region:
    """Return the same elements with an axis for each axis of the full parameter."""
    return Region(region.full_shape, tuple(enumerate(region.ranges)))


def perturbed(
    parameter: Parameter,
    seed: int | Iterable[int],
    scale: float | Iterable[float],
    out: Target | None = None,
    *,
    noise: str = "normal",
    rank: int | None = None,
) -> Parameter | Target:
    """Return ``parameter + scale * noise``, from a base that stays as it is, so that nothing has to be undone.

    The noise is a function of seed, name and index: the same for every device and shard. It is drawn where it is added
    and kept nowhere. The product and the sum are rounded as NumPy rounds them, in float32, or in float64 for float64.

    Parameters
    ----------
    parameter : Parameter
        Of floats of 16 bits or more, with a name.
    seed : int or iterable of int
        One perturbation, or several in one pass, which has the bits of as many passes.
    scale : float or iterable of float
        One for all seeds, or one for each. The opposite scale is the antithetic perturbation.
    out : Parameter, Tensor or array, optional
        What is written, of the same shape and device; it may have a shorter dtype, and it may be `parameter`. NumPy
        arrays, and tensors of torch through DLPack.
    noise : {"normal", "rademacher", "uniform"}
        Standard normal values, signs, or uniform values of [-1, 1].
    rank : int, optional
        For matrices: the noise is a product of two seeded factors of this rank, never stored, with variance 1.

    Returns
    -------
    Parameter or object
        `out`, or a new parameter of the same name, lazy if `parameter` is.

    Raises
    ------
    TypeError
        If a dtype cannot be perturbed, or an argument is of another kind.
    ValueError
        If a seed, scale or shape does not suit, or the parameter has no name.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> weight = Parameter(initializer("zeros", (1000, 1000)), name="w")
    >>> plus, minus = perturbed(weight, 7, 0.1), perturbed(weight, 7, -0.1)
    >>> bool((plus[3:5].asnumpy() == -minus[3:5].asnumpy()).all())
    True
    """
    kind, (seeds, scales) = Noise(noise, rank), as_pairs(seed, scale)
    name = _name(parameter)
    kind.check(name, parameter.dtype, parameter.shape)
    if out is None and parameter.has_init:
        twin = parameter._sibling()
        twin._values = Perturbed(parameter._named(), name, parameter.region, kind, seeds, scales)
        return twin
    result: Any = _empty_like(parameter) if out is None else out
    kind.write(_memory(parameter, result), _read(parameter), name, parameter.region, seeds, scales)
    return result  # type: ignore[no-any-return]


def antithetic(
    parameter: Parameter,
    seed: int | Iterable[int],
    scale: float | Iterable[float],
    out: tuple[Any, Any] | None = None,
    *,
    noise: str = "normal",
    rank: int | None = None,
) -> tuple[Any, Any]:
    """Return ``parameter + scale * noise`` and ``parameter - scale * noise``, whose noise is drawn once.

    Parameters, errors and bits as of two calls of `perturbed`.

    Examples
    --------
    >>> weight = Parameter([1.0, 2.0], name="w")
    >>> plus, minus = antithetic(weight, 7, 0.5, noise="rademacher")
    >>> (plus.asnumpy() + minus.asnumpy()).tolist(), abs(plus.asnumpy() - weight.asnumpy()).tolist()
    ([2.0, 4.0], [0.5, 0.5])
    """
    from numparam.kernels.perturb import perturb

    kind, (seeds, scales) = Noise(noise, rank), as_pairs(seed, scale)
    name = _name(parameter)
    kind.check(name, parameter.dtype, parameter.shape)
    results = (_empty_like(parameter), _empty_like(parameter)) if out is None else out
    plus, minus = (_memory(parameter, each) for each in results)
    if plus.dtype != minus.dtype:
        raise DtypeError(f"Parameter {name!r}: both outputs have one dtype, found {plus.dtype} and {minus.dtype}")
    drawn = kind.drawn(name, parameter.region, _read(parameter), seeds)
    perturb(plus, _read(parameter), drawn, kind.coefficients(scales), minus)
    return results


def snap_(x: Parameter | Cell | Iterable[Parameter], reach: float = REACH) -> None:
    """Round float32 parameters to the lattice of a reach, in place, so that `perturb_` can move them there and back.

    The lattice has the multiples of ``reach / 2**24`` from ``-reach`` to ``reach``. Sums and differences of such
    numbers are exact as long as they stay on it. Weights move by at most half of that, once: 2.4e-7 for the reach 8.

    Parameters
    ----------
    x : Parameter, Cell or iterable of Parameter
    reach : float
        A power of two, the same for every shard.

    Raises
    ------
    TypeError
        If a parameter is not of float32.
    ValueError
        If a value is beyond the reach or not finite, or the reach is not a power of two; nothing is rounded then.

    Examples
    --------
    >>> weight = Parameter([0.1, 2.0], name="w")
    >>> snap_(weight, reach=4.0)
    >>> (weight.asnumpy() * (2**24 / 4.0)).tolist()
    [419430.0, 8388608.0]
    """
    quantum, pairs = as_reach(reach) / 2**24, []
    for parameter in _all(x):
        if parameter.dtype != np.float32:
            raise DtypeError(f"Parameter {parameter.name!r}: the lattice is for float32, found {parameter.dtype}")
        values = parameter.asnumpy()
        largest = float(abs(values).max(initial=0.0))
        if not largest <= reach:
            need = f"choose at least {2.0 ** math.ceil(math.log2(largest))}" if math.isfinite(largest) else "mend it"
            raise ArgumentValueError(f"Parameter {parameter.name!r} has {largest} beyond the reach {reach}; {need}")
        pairs.append((parameter, values))
    for parameter, values in pairs:
        snapped = np.rint(values / np.float32(quantum)) * np.float32(quantum)
        memory = writable(parameter)
        if isinstance(memory, np.ndarray):
            memory[:] = snapped.reshape(-1)
        else:
            memory.write(snapped.reshape(-1))


def perturb_(
    x: Parameter | Cell | Iterable[Parameter],
    seed: int | Iterable[int],
    scale: float | Iterable[float],
    *,
    base: Bases = None,
    reach: float = REACH,
    noise: str = "normal",
    rank: int | None = None,
) -> None:
    """Add ``scale * noise`` in place, in such a way that `unperturb_` undoes it exactly.

    There are two routes. float32 parameters move on a lattice, see `snap_`: noise is rounded to it, so every sum is
    exact, and any number of perturbations may be added and subtracted in any order. Other parameters, of 16 bits or of
    float64, need `base`: the result is computed from it, and undone by reading it again; only one perturbation is in
    the parameter at a time.

    Parameters
    ----------
    x : Parameter, Cell or iterable of Parameter
    seed, scale, noise, rank
        As for `perturbed`.
    base : Parameter, array, Cell or sequence of them, optional
        What the parameters are computed from: their float32 master weights, or a copy of them.
    reach : float
        Of the lattice.

    Raises
    ------
    TypeError
        If a parameter is not of float32, and `base` is not given.
    ValueError
        If values are not on the lattice, before or after, or an argument does not suit. Nothing is changed then.

    Examples
    --------
    >>> weight = Parameter([0.1, 2.0], name="w")
    >>> snap_(weight)
    >>> before = weight.asnumpy().copy()
    >>> perturb_(weight, 7, 1e-3)
    >>> bool((weight.asnumpy() == before).any())
    False
    >>> unperturb_(weight, 7, 1e-3)
    >>> bool((weight.asnumpy() == before).all())
    True
    """
    (seeds, scales), parameters = as_pairs(seed, scale), _all(x)
    if base is not None:
        kind = Noise(noise, rank)
        bases = _bases(parameters, base, kind)
        for parameter, kept in zip(parameters, bases, strict=True):
            kind.write(_memory(parameter, parameter), kept, _name(parameter), parameter.region, seeds, scales)
        return
    kind, names = Noise(noise, rank, reach), [_name(parameter) for parameter in parameters]
    for name, parameter in zip(names, parameters, strict=True):
        kind.check(name, parameter.dtype, parameter.shape)
        kind.check_scales(name, scales)
    for place, (name, parameter) in enumerate(zip(names, parameters, strict=True)):
        memory = _memory(parameter, parameter)
        try:
            kind.write(memory, memory, name, parameter.region, seeds, scales)
        except ArgumentValueError:
            unperturb_(parameters[:place], seeds, scales, reach=reach, noise=noise, rank=rank)
            raise


def unperturb_(
    x: Parameter | Cell | Iterable[Parameter],
    seed: int | Iterable[int],
    scale: float | Iterable[float],
    *,
    base: Bases = None,
    reach: float = REACH,
    noise: str = "normal",
    rank: int | None = None,
) -> None:
    """Undo `perturb_` with the same arguments: the parameters have the bits that they had before it.

    Raises
    ------
    TypeError, ValueError
        As `perturb_`.
    """
    seeds, scales = as_pairs(seed, scale)
    if base is None:
        opposite = [-each for each in scales]
        perturb_(x, seeds[::-1], opposite[::-1], reach=reach, noise=noise, rank=rank)
        return
    from numparam.kernels import copy

    parameters = _all(x)
    for parameter, kept in zip(parameters, _bases(parameters, base, Noise(noise, rank)), strict=True):
        copy.copy(_memory(parameter, parameter), kept)


# --------------------------------------------------------------------------- the parts


def _all(x: Any) -> list[Parameter]:
    return [x] if isinstance(x, Parameter) else parameters_of(x)


def _bases(parameters: Sequence[Parameter], base: Any, kind: Noise) -> list[Any]:
    """Return the memory of what parameters are computed from."""
    given = list(base.get_parameters()) if isinstance(base, Cell) else base
    given = [given] if isinstance(given, Tensor | np.ndarray) else list(given)
    if len(given) != len(parameters):
        raise ArgumentValueError(f"expected a base for each of {len(parameters)} parameters, found {len(given)}")
    found = []
    for parameter, each in zip(parameters, given, strict=True):
        where = f"Parameter {_name(parameter)!r}"
        kind.check(parameter.name, parameter.dtype, parameter.shape)
        tensor = each if isinstance(each, Tensor) else Tensor.from_numpy(each)
        if tensor.shape != parameter.shape:
            raise ShapeError(f"{where}: expected a base of shape {parameter.shape}, found {tensor.shape}")
        if tensor.dtype != parameter.dtype and (tensor.dtype != np.float32 or parameter.dtype == np.float64):
            raise DtypeError(f"{where}: its base is of {parameter.dtype} or float32, found {tensor.dtype}")
        if tensor.device != parameter.device:
            raise ArgumentValueError(f"{where} is on {parameter.device}, its base on {tensor.device}; move one of them")
        memory = _read(tensor)
        if np.may_share_memory(memory, _read(parameter)) if isinstance(memory, np.ndarray) else memory is each:
            raise ArgumentValueError(f"{where}: its base must be other memory; give a copy or master weights")
        found.append(memory)
    return found


def _name(parameter: Parameter) -> str:
    """Return the name that decides the noise."""
    if not isinstance(parameter, Parameter):
        raise ArgumentTypeError(f"a Parameter is perturbed, found {type(parameter).__name__}")
    if parameter._own_name is None:
        raise ArgumentValueError("a parameter without a name has no noise; set its name")
    return parameter._own_name


def _read(tensor: Tensor) -> Any:
    memory = tensor._settle().array
    return np.ascontiguousarray(memory) if isinstance(memory, np.ndarray) else memory


def _memory(parameter: Parameter, out: Any) -> Any:
    """Return the memory that is written, in the shape of the parameter."""
    where = f"Parameter {parameter.name!r}"
    tensor = out
    if isinstance(out, np.ndarray):
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ArgumentValueError(f"{where}: the output must be C-contiguous and writable")
        tensor = Tensor.from_numpy(out)
    elif not isinstance(out, Tensor):
        if not hasattr(out, "__dlpack__"):
            raise ArgumentTypeError(f"{where}: expected a Tensor or an array as output, found {type(out).__name__}")
        tensor = Tensor.from_dlpack(out.detach() if hasattr(out, "detach") else out)
    if tensor.shape != parameter.shape or tensor.device != parameter.device:
        raise ShapeError(
            f"{where} of shape {parameter.shape} on {parameter.device}: expected such an output, found {tensor.shape} "
            f"on {tensor.device}"
        )
    Noise().check(parameter.name, tensor.dtype, ())
    if (tensor.dtype == np.float64) != (parameter.dtype == np.float64):
        raise DtypeError(f"{where} of {parameter.dtype}: expected an output of its dtype, found {tensor.dtype}")
    return writable(tensor).reshape(parameter.shape)


def _empty_like(parameter: Parameter) -> Parameter:
    twin = parameter._sibling()
    twin._values = HOLDERS[parameter.device.kind].empty(parameter.shape, parameter.dtype, parameter.device)
    twin._set_origin("in place")
    return twin
