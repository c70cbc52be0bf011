"""The optimizers, with MindSpore's class and argument names; torch's ``lr`` and ``betas`` are accepted too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Unpack

from numparam.checks import as_bool
from numparam.errors import ArgumentValueError, ShapeError
from numparam.indexing.region import Region
from numparam.initializer import initializer
from numparam.optim.gradients import SparseRows
from numparam.optim.optimizer import Common, Groups, Optimizer, Options, Step, Unscaled, mindspore_names, not_negative
from numparam.parameter import Parameter
from numparam.text import shown

Rate = float | Callable[[int], float]

_COMMON = ("loss_scale", "clip_norm", "check_finite", "rounding", "seed")


class _Named(Optimizer):
    """Tell options, in either spelling, from what every optimizer takes."""

    def __init__(self, params: Groups, options: Options, others: Common) -> None:
        given: Options = dict(others)
        common = {name: given.pop(name) for name in _COMMON if name in given}
        super().__init__(params, {**options, **mindspore_names(given, options)}, **common)


class SGD(_Named):
    """Stochastic gradient descent: ``v = momentum * v + (1 - dampening) * g``, ``w = w - rate * v``.

    Parameters
    ----------
    params : Cell, iterable of Parameter, or list of dict
    learning_rate : float or callable
    momentum, dampening, weight_decay : float
        The gradient is ``g + weight_decay * w``. The first step is not dampened.
    nesterov : bool
        Whether the step is ``g + momentum * v``.
    **others
        See `Optimizer`.

    Examples
    --------
    >>> import numpy as np
    >>> weight = Parameter([1.0, 2.0], name="w")
    >>> SGD([weight], learning_rate=0.5)([np.ones(2, np.float32)])
    >>> weight.asnumpy()
    array([0.5, 1.5], dtype=float32)
    """

    def __init__(
        self,
        params: Groups,
        learning_rate: Rate = 0.1,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        **others: Unpack[Common],
    ) -> None:
        options = {"learning_rate": learning_rate, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**options, "weight_decay": weight_decay, "nesterov": nesterov}, others)

    def check(self, options: Options) -> None:
        options["momentum"] = not_negative("momentum", options["momentum"])
        options["dampening"] = not_negative("dampening", options["dampening"])
        if as_bool("nesterov", options["nesterov"]) and (not options["momentum"] or options["dampening"]):
            raise ArgumentValueError("nesterov needs a momentum and no dampening")

    def rule(self, options: Options) -> str:
        return "nesterov" if options["nesterov"] else "momentum" if options["momentum"] else "sgd"

    def kept(self, options: Options) -> dict[str, str | float]:
        return {"moments": "zeros"} if options["momentum"] else {}

    def numbers(self, options: Options, step: int) -> tuple[float, ...]:
        both = options["weight_decay"], options["learning_rate"]
        undamped = 1.0 if step == 1 else 1.0 - options["dampening"]
        return (*both, options["momentum"], undamped) if options["momentum"] else both


class Momentum(SGD):
    """`SGD` with the argument order of MindSpore's ``nn.Momentum``; ``use_nesterov`` is ``nesterov`` there.

    Examples
    --------
    >>> import numpy as np
    >>> weight = Parameter([1.0], name="w")
    >>> optimizer = Momentum([weight], 0.5, 0.9)
    >>> optimizer([np.ones(1, np.float32)])
    >>> weight.asnumpy(), optimizer.states[0].name
    (array([0.5], dtype=float32), 'moments.w')
    """

    def __init__(
        self,
        params: Groups,
        learning_rate: Rate,
        momentum: float,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
        use_nesterov: bool = False,
        **others: Unpack[Unscaled],
    ) -> None:
        super().__init__(
            params, learning_rate, momentum, 0.0, weight_decay, use_nesterov, loss_scale=loss_scale, **others
        )


class Adam(_Named):
    """Adam with bias correction, ``w = w - rate * m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps)``.

    Parameters
    ----------
    params : Cell, iterable of Parameter, or list of dict
    learning_rate : float or callable
    beta1, beta2, eps, weight_decay : float
        The gradient is ``g + weight_decay * w``. `eps` is outside of the corrected root, as in torch.
    use_amsgrad : bool
        Whether the largest ``v`` so far is used.
    **others
        See `Optimizer`.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization" (2015).
    """

    decoupled = False
    corrected = True

    def __init__(
        self,
        params: Groups,
        learning_rate: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        use_amsgrad: bool = False,
        **others: Unpack[Common],
    ) -> None:
        options = {"learning_rate": learning_rate, "beta1": beta1, "beta2": beta2, "eps": eps}
        super().__init__(params, {**options, "weight_decay": weight_decay, "use_amsgrad": use_amsgrad}, others)

    def check(self, options: Options) -> None:
        as_bool("use_amsgrad", options["use_amsgrad"])

    def rule(self, options: Options) -> str:
        return "amsgrad" if options["use_amsgrad"] else "adam"

    def kept(self, options: Options) -> dict[str, str | float]:
        names = ("moment1", "moment2", "vhat") if options["use_amsgrad"] else ("moment1", "moment2")
        return dict.fromkeys(names, "zeros")

    def numbers(self, options: Options, step: int) -> tuple[float, ...]:
        beta1, beta2, rate, decay = (options[name] for name in ("beta1", "beta2", "learning_rate", "weight_decay"))
        correction = 1.0 - beta1**step if self.corrected else 1.0
        root_correction = math.sqrt(1.0 - beta2**step) if self.corrected else 1.0
        coupled, keep = (0.0, 1.0 - rate * decay) if self.decoupled else (decay, 1.0)
        return coupled, rate / correction, keep, 1.0 - beta1, beta2, 1.0 - beta2, root_correction, options["eps"]


class AdamW(Adam):
    """`Adam` with decoupled weight decay: ``w`` is first multiplied by ``1 - rate * weight_decay``.

    Parameters as of `Adam`; the decay is 0.01 by default, as in torch.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
    """

    decoupled = True

    def __init__(
        self,
        params: Groups,
        learning_rate: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        **others: Unpack[Common],
    ) -> None:
        super().__init__(params, learning_rate, beta1, beta2, eps, weight_decay, **others)


class AdamWeightDecay(AdamW):
    """`AdamW` without bias correction, as MindSpore's class of this name and BERT's optimizer."""

    corrected = False

    def __init__(
        self,
        params: Groups,
        learning_rate: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **others: Unpack[Common],
    ) -> None:
        super().__init__(params, learning_rate, beta1, beta2, eps, weight_decay, **others)


class LazyAdam(Adam):
    """`Adam` under the name that MindSpore has for gradients of `SparseRows`, which all optimizers take.

    Examples
    --------
    >>> import numpy as np
    >>> from numparam.optim import SparseRows
    >>> table = Parameter(np.zeros((4, 2), np.float32), name="table")
    >>> LazyAdam([table], 0.1)([SparseRows(np.array([2]), np.ones((1, 2), np.float32))])
    >>> table.asnumpy()[:, 0].round(4)
    array([ 0. ,  0. , -0.1,  0. ], dtype=float32)
    """


class Adagrad(_Named):
    """Adagrad: ``a = a + g**2``, ``w = w - rate * g / (sqrt(a) + eps)``.

    Parameters
    ----------
    params : Cell, iterable of Parameter, or list of dict
    accum : float
        What ``a`` begins with.
    learning_rate : float or callable
    weight_decay, eps : float
        The gradient is ``g + weight_decay * w``.
    **others
        See `Optimizer`.

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive subgradient methods" (2011).
    """

    def __init__(
        self,
        params: Groups,
        accum: float = 0.1,
        learning_rate: Rate = 1e-3,
        weight_decay: float = 0.0,
        eps: float = 1e-10,
        **others: Unpack[Common],
    ) -> None:
        options = {"accum": accum, "learning_rate": learning_rate, "weight_decay": weight_decay, "eps": eps}
        super().__init__(params, options, others)

    def check(self, options: Options) -> None:
        options["accum"] = not_negative("accum", options["accum"])

    def rule(self, options: Options) -> str:  # noqa: ARG002
        return "adagrad"

    def kept(self, options: Options) -> dict[str, str | float]:
        return {"accum": options["accum"]}

    def numbers(self, options: Options, step: int) -> tuple[float, ...]:  # noqa: ARG002
        return options["weight_decay"], options["learning_rate"], options["eps"]


class RowwiseAdagrad(Adagrad):
    """`Adagrad` with one number a row of a table: ``a = a + mean(g**2)`` over the row, a state of shape (rows,).

    Parameters as of `Adagrad`. The mean has the same bits for every thread count and shard along axis 0.

    References
    ----------
    Mudigere et al., "Software-hardware co-design for fast and scalable training of deep learning recommendation models"
    (2022).

    Examples
    --------
    >>> import numpy as np
    >>> from numparam.optim import SparseRows
    >>> table = Parameter(np.zeros((4, 2), np.float32), name="table")
    >>> optimizer = RowwiseAdagrad([table], 0.0, 0.1)
    >>> optimizer([SparseRows(np.array([2]), np.array([[3.0, 4.0]], np.float32))])
    >>> optimizer.states[0].asnumpy()
    array([ 0. ,  0. , 12.5,  0. ], dtype=float32)
    """

    def new_state(self, parameter: Parameter, initial: str | float) -> Parameter:
        """Return a state with a number for each row."""
        where, region = f"Parameter {parameter.name!r}", parameter.region
        if parameter.dtype.itemsize < 4 and self.rounding != "nearest":
            raise ArgumentValueError(f"{where}: RowwiseAdagrad rounds 16 bits to nearest, found {shown(self.rounding)}")
        if region.ranges[1:] != Region.full(region.full_shape).ranges[1:]:
            raise ShapeError(f"{where}: RowwiseAdagrad needs full rows, found {region}; shard along axis 0 alone")
        rows = Region.full(region.full_shape[:1])[region.slices()[:1]]
        state = Parameter(initializer(initial, rows.shape), device=parameter.device)
        state._region, state.sliced = None if rows.is_full else rows, parameter.sliced
        return state

    def _update(self, step: Step) -> None:
        from numparam.kernels.update import update_rowwise

        (totals,), _ = self._memory(step.place, step.rows)
        numbers = step.scale, *self.numbers(step.options, step.number)
        rows, values = step.gradient if isinstance(step.gradient, SparseRows) else (None, step.gradient)
        update_rowwise(step.value, rows, values, totals, numbers)  # type: ignore[arg-type]


class FTRL(_Named):
    """Follow the regularized leader, with the learning rate power -1/2: weights that the gradients do not need are 0.

    Parameters
    ----------
    params : Cell, iterable of Parameter, or list of dict
    initial_accum : float
        What the sum of squares begins with.
    learning_rate : float or callable
    lr_power : float
        -0.5, the only one.
    l1, l2, weight_decay : float
    **others
        See `Optimizer`.

    References
    ----------
    McMahan et al., "Ad click prediction: a view from the trenches" (2013).
    """

    def __init__(
        self,
        params: Groups,
        initial_accum: float = 0.1,
        learning_rate: Rate = 1e-3,
        lr_power: float = -0.5,
        l1: float = 0.0,
        l2: float = 0.0,
        weight_decay: float = 0.0,
        **others: Unpack[Common],
    ) -> None:
        if lr_power != -0.5:
            raise ArgumentValueError(f"lr_power must be -0.5, found {shown(lr_power)}")
        options = {"initial_accum": initial_accum, "learning_rate": learning_rate, "l1": l1, "l2": l2}
        super().__init__(params, {**options, "weight_decay": weight_decay}, others)

    def check(self, options: Options) -> None:
        for name in ("initial_accum", "l1", "l2"):
            options[name] = not_negative(name, options[name])
        if options["learning_rate"] == 0.0:
            raise ArgumentValueError("learning_rate must be above 0 in FTRL, found 0.0")

    def rule(self, options: Options) -> str:  # noqa: ARG002
        return "ftrl"

    def kept(self, options: Options) -> dict[str, str | float]:
        return {"accum": options["initial_accum"], "linear": "zeros"}

    def numbers(self, options: Options, step: int) -> tuple[float, ...]:  # noqa: ARG002
        return options["weight_decay"], 1.0 / options["learning_rate"], options["l1"], 2.0 * options["l2"]


class Lamb(_Named):
    """LAMB: Adam's direction plus decay, scaled for each parameter by the norm of its weights over the direction's.

    The norms are sums over rows in a fixed order: the bits are the same for every thread count and shard along axis 0.

    Parameters
    ----------
    params : Cell, iterable of Parameter, or list of dict
    learning_rate : float or callable
    beta1, beta2, eps, weight_decay : float
    **others
        See `Optimizer`.

    References
    ----------
    You et al., "Large batch optimization for deep learning: training BERT in 76 minutes" (2020).
    """

    takes_rows = False

    def __init__(
        self,
        params: Groups,
        learning_rate: Rate,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **others: Unpack[Common],
    ) -> None:
        options = {"learning_rate": learning_rate, "beta1": beta1, "beta2": beta2, "eps": eps}
        super().__init__(params, {**options, "weight_decay": weight_decay}, others)

    def rule(self, options: Options) -> str:  # noqa: ARG002
        return "lamb"

    def kept(self, options: Options) -> dict[str, str | float]:  # noqa: ARG002
        return {"moment1": "zeros", "moment2": "zeros"}

    def numbers(self, options: Options, step: int) -> tuple[float, ...]:
        correction, root = 1.0 - options["beta1"] ** step, math.sqrt(1.0 - options["beta2"] ** step)
        return root / correction, root * options["eps"], options["weight_decay"]

    def _update(self, step: Step) -> None:
        from numparam.kernels.update import update_moments

        (states, master), flat = self._memory(step.place), step.gradient.reshape((step.gradient.size,))
        options, numbers = step.options, (1.0, *self.numbers(step.options, step.number))
        first = step.scale, 1.0 - options["beta1"], options["beta2"], 1.0 - options["beta2"]
        weights = step.value if master is None else master
        sums = update_moments(weights, flat, states, self.rows(step.place, weights), first, numbers)
        length, direction = (
            math.sqrt((each if step.gather is None else step.gather(step.place, each, False)).sum()) for each in sums
        )
        ratio = length / direction if length > 0.0 and direction > 0.0 else 1.0
        self._write("lamb", step, (*numbers, options["learning_rate"] * ratio))
