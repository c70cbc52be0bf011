"""Parameters as tensors of torch that share their storage, for autograd."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from numparam.cell import Cell
from numparam.optim.memory import parameters_of, writable
from numparam.parameter import Parameter


def views(x: Cell | Iterable[Parameter]) -> dict[str, torch.Tensor]:
    """Return tensors over the storage of parameters, which autograd can use.

    They are leaves with the ``requires_grad`` of their parameters. After ``loss.backward()`` their gradients go to an
    optimizer of `numparam.optim` without a copy, and its step is seen in the tensors. A parameter keeps its storage
    until `Parameter.set_data`, `Parameter.set_dtype` or a move to another device replace it: take new views then. The
    other way round, ``Tensor.from_dlpack(tensor)`` shares the storage of a tensor of torch.

    Parameters
    ----------
    x : Cell or iterable of Parameter
        Lazy parameters are materialised.

    Returns
    -------
    dict of str to torch.Tensor
        By name, in the order of the parameters, as optimizers take their gradients.

    Raises
    ------
    TypeError
        If `x` holds something else, or torch does not have the dtype of a parameter.

    Examples
    --------
    >>> from numparam.optim import SGD
    >>> weight = Parameter([1.0, 2.0], name="w")
    >>> tensors = views([weight])
    >>> (tensors["w"] ** 2).sum().backward()
    >>> SGD([weight], 0.25)([tensor.grad for tensor in tensors.values()])
    >>> tensors["w"]
    tensor([0.5000, 1.0000], requires_grad=True)
    """
    found = {}
    for parameter in parameters_of(x):
        writable(parameter)  # values that are read-only are copied, once
        tensor = torch.from_dlpack(parameter)
        trained = parameter.requires_grad and (tensor.is_floating_point() or tensor.is_complex())
        found[parameter.name] = tensor.requires_grad_(trained)
    return found
