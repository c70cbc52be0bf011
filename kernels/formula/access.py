"""How values of a dtype are loaded as they are computed with, rounded and stored: vectors of a CPU, CUDA threads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numparam.kernels.formula.formats import FORMATS, Format
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.cuda import lanes_loader, load_item, store_item, store_line
from numparam.kernels.machine.lanes import float16_bits
from numparam.kernels.machine.memory import access

if TYPE_CHECKING:
    from collections.abc import Callable

Dtype = np.dtype[Any]

_WORDS = Format("u32", 4)


class Access(NamedTuple):
    """Hold the operations ``load(address)``, ``store(address, shortened)`` and ``shorten(value)``."""

    load: Any
    store: Any
    shorten: Any


def state_dtype(value: Dtype) -> Dtype:
    """Return the dtype that weights are computed in, and of their states."""
    return np.dtype(np.float64 if value == np.float64 else np.float32)


def lanes_access(width: int) -> Callable[[Dtype], Access]:
    """Make the function that gives access to `width` values at a time."""

    def of(dtype: Dtype) -> Access:
        form = FORMATS.get(dtype) or _WORDS
        load, store, _ = access(form.element, width, form.item_bytes if form.element == "u32" else None)
        widen = form.widen
        return Access(formula(lambda address: widen(load(address))), store, form.shorten)

    return of


def item_of(dtype: Dtype) -> Any:
    """Return the item that a CUDA thread loads of a dtype of 16 bits or more."""
    return np.uint16(0) if dtype.itemsize == 2 else dtype.type(0)


def thread_access(dtype: Dtype, load: Any = load_item, store: Any = store_item) -> Access:
    """Give access to one value, for a CUDA thread; every GPU has the instruction that rounds to float16."""
    form = FORMATS.get(dtype) or _WORDS
    item, widen = item_of(dtype), form.widen
    return Access(
        formula(lambda address: widen(load(address, item))),
        formula(lambda address, kept: store(address, kept, item)),
        float16_bits if dtype == np.float16 else form.shorten,
    )


def line_access(count: int) -> Callable[[Dtype], Access]:
    """Make the function that gives a CUDA thread access to `count` values at a time, in lines of 16 bytes."""
    return partial(thread_access, load=lanes_loader(count), store=store_line)
