"""What all optimizers share: groups, schedules, scales, states, and the order of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from numparam.cell import Cell
from numparam.checks import as_bool
from numparam.dtypes import as_dtype
from numparam.errors import ArgumentTypeError, ArgumentValueError, OptionError, ShapeError
from numparam.optim.gradients import Gradient, SparseRows, as_array, as_rows, check_gradient
from numparam.optim.memory import check_count, keep_rows, parameters_of, writable
from numparam.parameter import Parameter
from numparam.parameter.tuple import check_members
from numparam.stream.seed import as_seed, current_seed, stream
from numparam.tensor import Tensor
from numparam.text import shown

Options = dict[str, Any]
Groups: TypeAlias = Cell | Iterable[Parameter | Mapping[str, Any]]
ALL = slice(None)
"""All rows of a parameter."""
Sums = Callable[[int, np.ndarray[Any, Any], bool], np.ndarray[Any, Any]]

ROUNDINGS = ("nearest", "stochastic", "master")

STATES = ("moments", "moment1", "moment2", "vhat", "accum", "linear", "master")
"""What the names of states begin with."""

_TORCH = {"lr": ("learning_rate",), "betas": ("beta1", "beta2"), "amsgrad": ("use_amsgrad",)}


class Step(NamedTuple):
    """Hold what a step does to rows of one parameter: their memory and gradient, and the step's number, from 1 on."""

    place: int
    rows: slice
    value: Any
    gradient: Any
    scale: float
    options: Options
    number: int
    gather: Sums | None


class Unscaled(TypedDict, total=False):
    """What every optimizer takes, and torch's names of its options, but for the scale of the loss."""

    clip_norm: float | None
    check_finite: bool
    rounding: str
    seed: int | None
    lr: float | Callable[[int], float]
    betas: tuple[float, float]
    amsgrad: bool


class Common(Unscaled, total=False):
    """What every optimizer takes, and torch's names of its options."""

    loss_scale: float


class Optimizer:
    """Update parameters in place from gradients.

    Parameters
    ----------
    params : Cell, iterable of Parameter, or list of dict
        A dict is a group: ``{"params": [...], "learning_rate": 0.1, "weight_decay": 0.0}``, with any of the options of
        the optimizer in place of its defaults.
    options : dict
        The defaults, by name. A ``learning_rate`` is a number or a function from the number of steps done to one.
    loss_scale : float
        Gradients are divided by it.
    clip_norm : float, optional
        Gradients are scaled down so that their norm, over all parameters, is at most this.
    check_finite : bool
        Whether a gradient with NaN or infinity is an error, before anything is updated.
    rounding : str
        How parameters of 16 bits are kept: rounded to ``"nearest"`` even; ``"stochastic"``, up or down by the words of
        the stream of (seed, name, step); or as copies of float32 ``"master"`` weights, which are states.
    seed : int, optional
        Of stochastic rounding; the global seed by default.

    Attributes
    ----------
    parameters : list of Parameter
    states : tuple of Parameter
        What must be saved to continue: the states of each parameter, named as ``moment1.w``, and ``global_step``. They
        are lazy until the first step.

    Raises
    ------
    TypeError
        If `params` holds something else, or an option is of another type.
    ValueError
        If two parameters have one name, or an option is unknown or out of range.
    """

    takes_rows = True

    def __init__(
        self,
        params: Groups,
        options: Options,
        *,
        loss_scale: float = 1.0,
        clip_norm: float | None = None,
        check_finite: bool = False,
        rounding: str = "nearest",
        seed: int | None = None,
    ) -> None:
        self.loss_scale = positive("loss_scale", loss_scale)
        self.clip_norm = None if clip_norm is None else positive("clip_norm", clip_norm)
        self.check_finite = as_bool("check_finite", check_finite)
        if rounding not in ROUNDINGS:
            raise ArgumentValueError(f"rounding must be one of {', '.join(ROUNDINGS)}, found {shown(rounding)}")
        self.rounding, self._seed = rounding, None if seed is None else as_seed(seed)
        self.defaults = self._checked(options)
        self.parameters: list[Parameter] = []
        self._options: list[Options] = []
        for group in _groups(params):
            named = {key: value for key, value in group.items() if key != "params"}
            chosen = self._checked({**self.defaults, **mindspore_names(named, self.defaults)})
            members = parameters_of(group["params"])
            self.parameters += members
            self._options += [chosen] * len(members)
        check_members(self.parameters, type(self).__name__)
        if len({id(parameter) for parameter in self.parameters}) < len(self.parameters):
            raise ArgumentValueError(f"{type(self).__name__}: a parameter is in two groups; leave it in one")
        self._states = [self._new_states(place) for place in range(len(self.parameters))]
        self._regions = [parameter.region for parameter in self.parameters]
        self.global_step = Parameter(np.zeros((), np.int64), name="global_step", requires_grad=False)

    @property
    def states(self) -> tuple[Parameter, ...]:
        """Return what must be saved to continue."""
        return (*(state for states in self._states for state in states), self.global_step)

    def __call__(self, gradients: Sequence[Gradient]) -> None:
        """Update all parameters by one step, or none if a gradient does not suit its parameter.

        Parameters
        ----------
        gradients : sequence
            One for each of `parameters`, of its shape: a Tensor or any array with DLPack, of NumPy, torch or JAX, read
            without a copy. float64 for parameters of float64, else float32, float16 or bfloat16. Or `SparseRows`, the
            gradient of some rows, which are updated alone.

        Raises
        ------
        TypeError
            If one is not an array, or its dtype does not suit the parameter.
        ValueError
            If their number or a shape does not match, a device differs, or `check_finite` finds NaN or infinity.
        """
        check_count(self.parameters, gradients)
        pairs = zip(self.parameters, gradients, strict=True)
        taken = [self.taken(parameter, gradient, parameter.shape) for parameter, gradient in pairs]
        for parameter, gradient in zip(self.parameters, taken, strict=True):
            check_gradient(parameter, gradient)
        self.apply([writable(parameter) for parameter in self.parameters], taken)

    step = __call__

    def load_states(self, values: Mapping[str, Parameter | str]) -> None:
        """Take the states of an optimizer of the same kind, as `numparam.load_checkpoint` returns them.

        Parameters
        ----------
        values : mapping of str to Parameter
            By the names of `states`; other names are ignored. Of a full state, a shard takes its region alone.

        Raises
        ------
        ValueError
            If a state is missing or of another shape, or there is one that this optimizer does not have; nothing is
            taken then.
        """
        states, taken = {state.name: state for state in self.states}, []
        names = (f"{kind}.{parameter.name}" for parameter in self.parameters for kind in STATES)
        if strange := [name for name in names if name in values and name not in states]:
            raise ArgumentValueError(
                f"{type(self).__name__} has no state {strange[0]!r}; the states of another optimizer do not suit it"
            )
        for name, state in states.items():
            value: Any = values.get(name)
            if not isinstance(value, Tensor):
                raise ArgumentValueError(
                    f"{type(self).__name__}: no state {name!r}; the states of another optimizer do not suit it"
                )
            if value.shape != state.shape and value.shape == state.region.full_shape:
                value = value[state.region.slices()]
            if value.shape != state.shape:
                raise ShapeError(f"state {name!r}: expected {state.shape}, found {value.shape}")
            taken.append((state, value))
        for state, value in taken:
            state.set_data(value)

    def apply(self, values: Sequence[Any], gradients: Sequence[Any], gather: Sums | None = None) -> None:
        """Update memory that is checked: the rows that this rank updates, all of them by default.

        Parameters
        ----------
        values, gradients : sequence of ndarray or DeviceArray
            For each parameter, C-contiguous and of one size.
        gather : callable, optional
            From the place of a parameter, the sums of its rows here, and whether a total over all parameters is wanted,
            to the sums of all its rows.
        """
        scale = 1.0 / self.loss_scale
        if self.clip_norm is not None or self.check_finite:
            norm = self._norm(gradients, gather) * scale
            if self.clip_norm is not None:
                scale *= min(1.0, self.clip_norm / (norm + 1e-6))
        pairs = enumerate(zip(values, gradients, strict=True))
        self._step(((place, ALL, value, gradient) for place, (value, gradient) in pairs), scale, gather)

    def step_by_rows(self, parts: Iterable[tuple[int, slice, Any]]) -> None:
        """Update all parameters by one step, as the gradients of their rows come; nothing looks at all of them before.

        Parameters
        ----------
        parts : iterable
            The place of a parameter, some of its rows, and their gradient; every row once. An error leaves the step
            undone for what follows.
        """
        memory = [writable(parameter) for parameter in self.parameters]

        def checked() -> Iterator[tuple[int, slice, Any, Any]]:
            for place, rows, gradient in parts:
                check_gradient(self.parameters[place], gradient)
                yield place, rows, self._part(place, memory[place], rows), gradient

        self._step(checked(), 1.0 / self.loss_scale, None)

    def _step(self, parts: Iterable[tuple[int, slice, Any, Any]], scale: float, gather: Sums | None) -> None:
        done = int(self.global_step.asnumpy())
        now = [self._at_step(options, done) for options in self._options]
        for place, rows, value, gradient in parts:
            self._update(Step(place, rows, value, gradient, scale, now[place], done + 1, gather))
        self.global_step._hold(np.asarray(done + 1, np.int64))

    def state_bytes(self, dtype: npt.DTypeLike) -> int:
        """Return the bytes of states for each element of a parameter of a dtype, with the default options.

        Examples
        --------
        >>> from numparam.optim import AdamW
        >>> AdamW([]).state_bytes("bfloat16"), AdamW([], rounding="master").state_bytes("bfloat16")
        (8, 12)
        """
        kept, wide = self._kept(as_dtype(dtype), self.defaults)
        return len(kept) * wide.itemsize

    def shard(self, place: int, rows: slice) -> None:
        """Keep only some rows of the states of a parameter: the rows that `apply` takes from now on."""
        self._regions[place] = self.parameters[place].region[rows]
        for state in self._states[place]:
            keep_rows(state, rows)

    def numbers(self, options: Options, step: int) -> tuple[float, ...]:
        """Return the numbers of the rule after the scale, from a parameter's options and the number of the step."""
        raise NotImplementedError

    def rule(self, options: Options) -> str:
        """Return the name of the kernel of a step; see ``numparam.kernels.update``."""
        raise NotImplementedError

    def kept(self, options: Options) -> dict[str, str | float]:
        """Return the names of the states of a parameter, and what they begin with."""
        raise NotImplementedError

    def check(self, options: Options) -> None:
        """Check the options that only this optimizer has."""

    def new_state(self, parameter: Parameter, initial: str | float) -> Parameter:
        """Return a lazy state, which is sharded as its parameter is."""
        return parameter.clone(initial)

    # ------------------------------------------------------------------ the parts of a step

    def taken(self, parameter: Parameter, gradient: Any, shape: tuple[int, ...]) -> Any:
        """Return the memory of a gradient of a shape, or its distinct rows in ascending order."""
        if not isinstance(gradient, SparseRows):
            return as_array(parameter, gradient, shape)
        if not self.takes_rows:
            raise ArgumentTypeError(
                f"Parameter {parameter.name!r}: {type(self).__name__} takes dense gradients, found SparseRows"
            )
        return as_rows(parameter, gradient, self.rounding, shape)

    def _update(self, step: Step) -> None:
        from numparam.kernels.update import update_rows

        rule, numbers = self.rule(step.options), (step.scale, *self.numbers(step.options, step.number))
        if isinstance(step.gradient, SparseRows):
            update_rows(rule, step.value, *step.gradient, self._memory(step.place)[0], numbers)
        else:
            self._write(rule, step, numbers)

    def _part(self, place: int, memory: Any, rows: slice) -> Any:
        """Return the memory of some rows, flat as the one of all rows that this rank updates."""
        if rows == ALL:
            return memory
        each = memory.size // self._regions[place].shape[0]
        return memory[rows.start * each : rows.stop * each]

    def _memory(self, place: int, rows: slice = ALL) -> tuple[list[Any], Any]:
        """Return the memory of the states of rows of a parameter, and of its master weights if it has them."""
        states = [self._part(place, writable(state), rows) for state in self._states[place]]
        masters = self.rounding == "master" and self.parameters[place].dtype.itemsize < 4
        return (states[:-1], states[-1]) if masters else (states, None)

    def _write(self, rule: str, step: Step, numbers: tuple[float, ...]) -> None:
        """Apply a rule to all elements that this rank updates, rounded as it was asked for."""
        from numparam.kernels.fill import Key, Span
        from numparam.kernels.update import Words, update

        states, master = self._memory(step.place, step.rows)
        value, flat = step.value, step.gradient.reshape((step.gradient.size,))
        if master is not None:
            update(rule, value, flat, states, numbers, "master", master)
        elif self.rounding != "stochastic" or value.dtype.itemsize >= 4:
            update(rule, value, flat, states, numbers)
        else:
            region, name = self._regions[step.place], self.parameters[step.place].name
            region = region if step.rows == ALL else region[step.rows]
            key = Key(current_seed() if self._seed is None else self._seed, stream(name, f"u{step.number:x}"), 0)
            words = Words(key, None if region.is_full else Span(*region.span()))
            update(rule, value.reshape(region.shape), flat, states, numbers, "stochastic", words)

    def _norm(self, gradients: Sequence[Any], gather: Sums | None) -> float:
        """Return the norm of all gradients; the same bits however they are sharded along axis 0."""
        total = 0.0
        for place, gradient in enumerate(gradients):
            array = gradient.values if isinstance(gradient, SparseRows) else gradient
            part = float(self.row_sums(place, array, gather).sum())
            if self.check_finite and not math.isfinite(part):
                raise ArgumentValueError(
                    f"Parameter {self.parameters[place].name!r}: the gradient holds NaN or infinity; nothing is updated"
                )
            total += part
        return math.sqrt(total)

    def row_sums(self, place: int, gradient: Any, gather: Sums | None = None) -> np.ndarray[Any, Any]:
        """Return the sums of squares of the rows of a gradient, on all ranks."""
        from numparam.kernels.update import row_sums

        sums = row_sums(gradient, self.rows(place, gradient))
        return sums if gather is None else gather(place, sums, True)

    def rows(self, place: int, array: Any) -> int:
        """Return how many rows of a parameter an array holds."""
        row = math.prod(self.parameters[place].shape[1:])
        return array.size // row if row else 0

    # ------------------------------------------------------------------ options and states

    def _checked(self, options: Options) -> Options:
        rate = options["learning_rate"]
        if not callable(rate):
            options = {**options, "learning_rate": not_negative("learning_rate", rate)}
        for name in ("weight_decay", "eps"):
            if name in options:
                options[name] = not_negative(name, options[name])
        for name in ("beta1", "beta2"):
            if name in options and not 0.0 <= options[name] < 1.0:
                raise ArgumentValueError(f"{name} must be at least 0 and below 1, found {shown(options[name])}")
        self.check(options)
        return options

    def _at_step(self, options: Options, done: int) -> Options:
        rate = options["learning_rate"]
        return self._checked({**options, "learning_rate": rate(done)}) if callable(rate) else options

    def _new_states(self, place: int) -> list[Parameter]:
        parameter, made = self.parameters[place], []
        kept, wide = self._kept(parameter.dtype, self._options[place])
        for name, initial in kept.items():
            state = self.new_state(parameter, initial).set_dtype(wide)
            state.name = f"{name}.{parameter.name}"
            state.requires_grad = False
            made.append(state)
        return made

    def _kept(self, dtype: np.dtype[Any], options: Options) -> tuple[dict[str, str | float], np.dtype[Any]]:
        """Return the states of a parameter of a dtype, what they begin with, and their dtype."""
        masters = {"master": "same"} if self.rounding == "master" and dtype.itemsize < 4 else {}
        return {**self.kept(options), **masters}, np.dtype("float64" if dtype == np.float64 else "float32")


def _groups(params: Groups) -> list[Mapping[str, Any]]:
    given: Any = params
    if isinstance(given, Iterable) and not isinstance(given, Parameter):
        given = listed = list(given)
        if given and isinstance(given[0], Mapping):
            for place, group in enumerate(given):
                if not isinstance(group, Mapping) or "params" not in group:
                    raise ArgumentTypeError(f"group {place} must be a dict with 'params', found {shown(group)}")
            return listed
    return [{"params": given}]


def mindspore_names(options: Options, known: Iterable[str]) -> Options:
    """Return options with torch's spellings replaced."""
    found: Options = {}
    for name, value in options.items():
        names = _TORCH.get(name, (name,))
        found.update(zip(names, value if len(names) > 1 else (value,), strict=True))
    if unknown := sorted(set(found) - set(known)):
        raise OptionError(f"unknown option {unknown[0]!r}; choose from {', '.join(known)}")
    return found


def not_negative(name: str, value: Any) -> float:
    """Return a finite number, at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ArgumentTypeError(f"{name} must be a number, found {shown(value)}")
    if not 0.0 <= value < math.inf:
        raise ArgumentValueError(f"{name} must be at least 0 and finite, found {shown(value)}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return a finite number above 0."""
    if not_negative(name, value) == 0.0:
        raise ArgumentValueError(f"{name} must be above 0, found {shown(value)}")
    return float(value)
