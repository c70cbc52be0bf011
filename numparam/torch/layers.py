r"""The default rules: the layers of ``torch.nn`` start as their own ``reset_parameters`` does.

==================================================  ===================================================================
layer                                               values
==================================================  ===================================================================
``Linear``, ``Conv*d``, ``ConvTranspose*d``         weight and bias :math:`U(-b, b)`, :math:`b = 1 / \sqrt{fan\_in}`,
                                                    which equals ``kaiming_uniform_(a=sqrt(5))``
``Bilinear``                                        weight and bias :math:`U(-b, b)`, :math:`b = 1 / \sqrt{in1}`
``Embedding``, ``EmbeddingBag``                     :math:`N(0, 1)`, the row ``padding_idx`` zero
``RNN``, ``LSTM``, ``GRU`` and their cells          all :math:`U(-b, b)`, :math:`b = 1 / \sqrt{hidden\_size}`
``LayerNorm``, ``GroupNorm``, ``RMSNorm``           weight one, bias zero
``BatchNorm*d``, ``InstanceNorm*d``,                weight one, bias zero, ``running_mean`` zero, ``running_var`` one,
``SyncBatchNorm``                                   ``num_batches_tracked`` zero
``MultiheadAttention``                              ``in_proj_weight``, or ``q_``, ``k_`` and ``v_proj_weight``, Xavier
                                                    uniform; ``bias_k`` and ``bias_v`` Xavier normal; other biases zero;
                                                    ``out_proj.weight`` as ``Linear``
``Transformer``                                     every parameter of two or more axes Xavier uniform, the rest as the
                                                    layers inside; a bare ``TransformerEncoder`` has no such rule
``AveragedModel``                                   ``n_averaged`` zero
``PReLU``                                           the constant ``init`` of the layer, by default 0.25
==================================================  ===================================================================

``fan_in`` is counted on the full parameter, never on a shard: the product of all axes of the weight but the first. The
outer layer decides for the layers inside it. Subclasses start like their base class, unless they define
``reset_parameters`` themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from numparam.initializer import Constant, Initializer, Normal, One, Uniform, XavierNormal, XavierUniform, Zero
from numparam.initializer.padded import PaddedNormal
from numparam.torch.walk import Around, Place

Starts = Mapping[str, Initializer] | Callable[[torch.Tensor], Initializer | None]
"""How parameters and buffers below a layer start, by their names there or as tensors; others are not decided."""
Deciders = list[tuple[int, Starts, str]]
"""The length of a layer's prefix, its starts, and the layer of torch that they are for."""


def default(place: Place, rules: Deciders | None = None) -> tuple[Initializer, str] | None:
    """Return how a parameter or buffer of a layer of ``torch.nn`` starts, and the layer that decides.

    The `rules` are those of `deciders`, of which many places in one module need one.

    Examples
    --------
    >>> from numparam.torch.walk import places
    >>> [default(place) for place in places(nn.Linear(4, 2))]
    [(Uniform(scale=0.5), 'torch.nn.Linear'), (Uniform(scale=0.5), 'torch.nn.Linear')]
    """
    for start, inits, called in deciders(place.around) if rules is None else rules:
        init = inits(place.tensor) if callable(inits) else inits.get(place.path[start:])
        if init is not None:
            return init, called
    return None


def deciders(around: Around) -> Deciders:
    """Return the layers of ``torch.nn`` around a place, the outermost first, and how they decide."""
    found: Deciders = []
    for prefix, module in around:
        kind: Any = type(module)
        rule, called = _rule(kind)
        if rule is not None:
            found.append((len(prefix), rule(module), called))
    return found


@lru_cache(maxsize=1024)  # models have thousands of layers of a few classes
def _rule(kind: Any) -> tuple[Callable[[Any], Starts] | None, str]:
    """Return the rule for layers of a class and the layer of torch that it is for, or None."""
    for base in kind.__mro__:
        if base in _RULES:
            layer = next(base for base in kind.__mro__ if base.__module__.startswith("torch.nn."))
            return _RULES[base], f"torch.nn.{layer.__name__}"
        if vars(base).keys() & {"reset_parameters", "_reset_parameters"}:
            break
    return None, ""


def _affine(layer: Any) -> Starts:
    return _by_inputs(_shape(layer))


@lru_cache(maxsize=1024)
def _by_inputs(shape: torch.Size | None) -> Starts:
    return {} if shape is None else dict.fromkeys(("weight", "bias"), _uniform(shape[1:].numel()))


def _uniform(inputs: int) -> Initializer:
    return Uniform(1.0 / math.sqrt(inputs)) if inputs else Zero()


def _shape(layer: Any) -> torch.Size | None:
    """Return the shape of the weight, which may be computed: by a parametrization, which reading it would run."""
    weight = layer._parameters.get("weight")
    if weight is not None:
        shape: torch.Size = weight.shape
        return shape if len(shape) > 1 else getattr(weight, "ds_shape", shape)  # of a placeholder of ZeRO-3
    if "parametrizations" in layer._modules and "weight" in layer.parametrizations:
        parameters = layer.parametrizations["weight"]
        return (parameters.original if parameters.is_tensor else parameters.original1).shape
    computed = (layer._parameters.get(key) for key in ("weight_v", "weight_orig"))
    return next((weight.shape for weight in computed if weight is not None), None)


def _bilinear(layer: Any) -> Starts:
    return dict.fromkeys(("weight", "bias"), _uniform(layer.in1_features))


def _recurrent(layer: Any) -> Starts:
    return dict.fromkeys(layer._parameters, _uniform(layer.hidden_size))


def _embedding(layer: Any) -> Starts:
    return {"weight": Normal(1.0) if layer.padding_idx is None else PaddedNormal(layer.padding_idx)}


_NORM = {
    **dict.fromkeys(("weight", "running_var"), One()),
    **dict.fromkeys(("bias", "running_mean", "num_batches_tracked"), Zero()),
}
_ATTENTION = {
    **dict.fromkeys(("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"), XavierUniform()),
    **dict.fromkeys(("bias_k", "bias_v"), XavierNormal()),
    **dict.fromkeys(("in_proj_bias", "out_proj.bias"), Zero()),
}


def _matrix(tensor: torch.Tensor) -> Initializer | None:
    return XavierUniform() if isinstance(tensor, nn.Parameter) and tensor.ndim > 1 else None


_RULES: dict[type, Callable[[Any], Starts]] = {
    nn.Linear: _affine,
    nn.modules.conv._ConvNd: _affine,
    nn.Bilinear: _bilinear,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent,
    nn.LayerNorm: lambda _: _NORM,
    nn.GroupNorm: lambda _: _NORM,
    nn.RMSNorm: lambda _: _NORM,
    nn.modules.batchnorm._NormBase: lambda _: _NORM,
    nn.MultiheadAttention: lambda _: _ATTENTION,
    nn.Transformer: lambda _: _matrix,
    nn.PReLU: lambda layer: {"weight": Constant(layer.init)},
    AveragedModel: lambda _: {"n_averaged": Zero()},
}
