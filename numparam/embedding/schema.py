"""What a table is: its name, the shape and dtype of its rows, how they begin, and what is kept with each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from numparam import dtypes
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError
from numparam.indexing.region import Region
from numparam.initializer import Initializer
from numparam.initializer.entry import as_initializer
from numparam.optim import Lamb, Optimizer, RowwiseAdagrad
from numparam.parameter import Parameter
from numparam.stream.source import RowSource, Source

Array = np.ndarray[Any, np.dtype[Any]]
OptimizerMaker = Callable[[list[Parameter]], Optimizer]

OPEN_ROWS = 2**31
"""Rows that an open key space has room for, unless the files would be larger than file systems take."""
_LARGEST_FILE = 2**43


class Column(NamedTuple):
    """Describe what is kept of every row under one name: a vector of some width, and what it begins with."""

    name: str
    width: int
    dtype: np.dtype[Any]
    initial: float | None
    """None for the values, which the initializer generates."""

    @property
    def row_bytes(self) -> int:
        """Count the bytes of a row."""
        return self.width * self.dtype.itemsize


class Schema:
    """Describe a table: everything that decides its bits, and nothing about where they are kept.

    Parameters
    ----------
    name : str
        With the seed, the name of the stream of the rows.
    vocab_size : int or None
        Keys are from 0 to ``vocab_size - 1``, or any int64.
    dim : int
    init : Initializer, str or number
    dtype : dtype
    seed : int
    optimizer : callable or None
        Makes an optimizer of a list of one parameter.

    Attributes
    ----------
    wide : dtype
        Of sums of gradients and of states: float64 for rows of float64, else float32.

    Raises
    ------
    TypeError, ValueError
        If the initializer or the optimizer cannot work row by row.
    """

    def __init__(
        self,
        name: str,
        vocab_size: int | None,
        dim: int,
        init: Initializer | str | float,
        dtype: npt.DTypeLike,
        seed: int,
        optimizer: OptimizerMaker | None,
    ) -> None:
        self.name, self.vocab_size, self.dim, self.seed = name, vocab_size, dim, seed
        self.dtype = dtypes.as_dtype(dtype)
        if not dtypes.is_floating(self.dtype) or self.dtype.itemsize < 2:
            raise DtypeError(f"table {name!r}: rows are floats of 16 bits or more, found {self.dtype}")
        self.init = self._row_wise(init)
        self.optimizer = self._made(optimizer)
        self.wide = np.dtype(np.float64 if self.dtype == np.float64 else np.float32)
        states = self.optimizer.kept(self.optimizer.defaults) if self.optimizer else {}
        width = 1 if isinstance(self.optimizer, RowwiseAdagrad) else dim
        self.columns = (
            Column("value", dim, self.dtype, None),
            *(
                Column(state, width, self.wide, 0.0 if begin == "zeros" else float(begin))
                for state, begin in states.items()
            ),
            Column("score", 1, np.dtype(np.int64), 0),
            Column("step", 1, np.dtype(np.int64), 0),
        )
        record = sum(column.row_bytes for column in self.columns) + 16
        self.is_dense = vocab_size is not None and vocab_size * record <= _LARGEST_FILE
        self.rows = (vocab_size if self.is_dense else None) or min(OPEN_ROWS, _LARGEST_FILE // record)

    @property
    def states(self) -> slice:
        """Return where the states of the optimizer are among the columns."""
        return slice(1, len(self.columns) - 2)

    def describe(self) -> dict[str, Any]:
        """Return what a file must agree with to hold this table."""
        rule = None
        if self.optimizer:
            rule = f"{type(self.optimizer).__name__} ({', '.join(column.name for column in self.columns[self.states])})"
        return {
            "name": self.name, "vocab_size": self.vocab_size, "dim": self.dim, "dtype": str(self.dtype),
            "init": repr(self.init), "seed": self.seed, "optimizer": rule,
        }  # fmt: skip

    def initial(self, column: int, keys: Array, out: Any = None) -> Any:
        """Return what unchanged rows hold: of the values, what the stream has at (seed, name, key).

        With the `on_device` of the initializer, `out` may be a device array.
        """
        from numparam.kernels.fill import constant

        _, width, dtype, begin = self.columns[column]
        out = np.empty((keys.size, width), dtype) if out is None else out
        if begin is not None:
            constant.fill(out, dtype.type(begin))
            return out
        if not keys.size:
            return out
        region = Region.full((self.vocab_size or OPEN_ROWS, self.dim))
        if self.init.on_device:  # it only draws with its source, or is a constant
            self.init.fill(out, region, RowSource(self.seed, self.name, keys))
            return out
        source = Source(self.seed, self.name)
        for row, key in enumerate(keys.tolist()):
            self.init.fill(out[row : row + 1], region[key : key + 1], source)
        return out

    def stepping(self, count: int) -> Callable[[Any, Any, Any, Sequence[Any]], None]:
        """Return what updates some rows of arrays by the optimizer's step of a number from 1 on.

        Its arguments are values, the numbers of rows, gradients one after another, and states, all on one device.
        Without an optimizer the gradients are added.
        """
        from numparam.kernels.update import update_rows, update_rowwise

        optimizer = self.optimizer
        if optimizer is None:  # a step of gradient descent of length 1 up the gradient
            return lambda values, rows, sums, _: update_rows("sgd", values, rows, sums, [], (1.0, 0.0, -1.0))
        options = optimizer.defaults
        if callable(rate := options["learning_rate"]):
            options = {**options, "learning_rate": float(rate(count - 1))}
        numbers: Any = 1.0 / optimizer.loss_scale, *optimizer.numbers(options, count)
        if isinstance(optimizer, RowwiseAdagrad):
            return lambda values, rows, sums, states: update_rowwise(values, rows, sums, states[0], numbers)
        rule = optimizer.rule(options)
        return lambda values, rows, sums, states: update_rows(rule, values, rows, sums, states, numbers)

    def _row_wise(self, init: Any) -> Initializer:
        found = as_initializer(init)
        where = f"table {self.name!r}"
        if found.needs_full or (self.vocab_size is None and (found.reads != "nothing" or not found.on_device)):
            raise ArgumentValueError(
                f"{where}: {found!r} cannot generate one row without the others, or without the number of rows; use "
                "Normal, Uniform, TruncatedNormal or a constant"
            )
        found.check((self.vocab_size or OPEN_ROWS, self.dim), self.dtype)
        return found

    def _made(self, optimizer: OptimizerMaker | None) -> Optimizer | None:
        if optimizer is None:
            return None
        where = f"table {self.name!r}"
        made = optimizer([Parameter(np.zeros((1, self.dim), self.dtype), name=self.name)])
        if not isinstance(made, Optimizer):
            raise ArgumentTypeError(f"{where}: optimizer must return an optimizer, found {type(made).__name__}")
        if (
            isinstance(made, Lamb)
            or made.clip_norm is not None
            or (made.rounding != "nearest" and self.dtype.itemsize < 4)
        ):
            raise ArgumentValueError(
                f"{where}: {type(made).__name__} looks at more than one row, or rounds by the step; use SGD, Momentum, "
                "Adam, AdamW, Adagrad or FTRL without clip_norm and with rounding='nearest'"
            )
        return made


def as_keys(schema: Schema, ids: npt.ArrayLike) -> tuple[Array, tuple[int, ...]]:
    """Return the ids of a table as a vector of int64, and their shape.

    Raises
    ------
    ArgumentTypeError
        If they are not integers.
    ArgumentValueError
        If one is out of range.
    """
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" and array.size:
        raise ArgumentTypeError(f"table {schema.name!r}: ids must be integers, found {array.dtype}")
    if array.dtype == np.uint64 and array.size and int(array.max()) >= 2**63:
        raise ArgumentValueError(f"table {schema.name!r}: ids must be below 2**63, found {int(array.max())}")
    keys = np.ascontiguousarray(array, np.int64).reshape(-1)
    limit = schema.vocab_size
    if limit is not None and keys.size and not 0 <= (least := int(keys.min())) <= (most := int(keys.max())) < limit:
        found = least if least < 0 else most
        raise ArgumentValueError(f"table {schema.name!r}: ids must be from 0 to {limit - 1}, found {found}")
    return keys, array.shape


def as_rows(schema: Schema, what: str, rows: Any, shape: tuple[int, ...]) -> Array:
    """Return one row for each id, C-contiguous, in its own dtype if that is a float that suits.

    Raises
    ------
    ArgumentTypeError
        If they are not floats, or of a dtype that the table does not take.
    ArgumentValueError
        If the shape does not match.
    """
    array = rows.asnumpy() if hasattr(rows, "asnumpy") else np.asarray(rows)
    wanted = (*shape, schema.dim)
    if array.shape != wanted:
        raise ArgumentValueError(f"table {schema.name!r}: expected {what} of shape {wanted}, found {array.shape}")
    wide = schema.dtype == np.float64
    if not dtypes.is_floating(array.dtype) or (array.dtype == np.float64) != wide or array.dtype.itemsize < 2:
        allowed = "float64" if wide else "float32, float16 or bfloat16"
        raise ArgumentTypeError(f"table {schema.name!r}: expected {what} of {allowed}, found {array.dtype}")
    return np.ascontiguousarray(array).reshape(math.prod(shape), schema.dim)


def as_unseen(where: str, unseen: Any) -> float | None:
    """Return the constant that unseen keys are answered with, None for the values of the stream."""
    if isinstance(unseen, str):
        if unseen not in ("stream", "zeros"):
            raise ArgumentValueError(f"{where}unseen is 'stream', 'zeros' or a number, found {unseen!r}")
        return None if unseen == "stream" else 0.0
    return float(unseen)
