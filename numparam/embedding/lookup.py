"""The layer that looks up rows of a table, with MindSpore's name and arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from numparam.cell import Cell
from numparam.checks import as_bool, as_int
from numparam.device import Device
from numparam.embedding.cache import EmbeddingCache
from numparam.embedding.schema import OptimizerMaker, Schema
from numparam.embedding.table import Embedding
from numparam.initializer import Initializer, initializer
from numparam.parameter import Parameter
from numparam.parameter.flags import next_cache_key
from numparam.tensor import Array, Tensor


class EmbeddingLookup(Cell):
    """Look up rows of a parameter by their numbers; with `sparse`, only rows that were trained take memory.

    Parameters
    ----------
    vocab_size : int or None
        The rows of the parameter; None takes every int64 as an id, and the parameter has as many rows as a shape may.
    embedding_size : int
        The length of a row.
    param_init : Initializer, str or number
    sparse : bool
        Whether the rows are kept in an `Embedding`, which `table` returns; the parameter stays lazy then, and is
        `unique`: ids of a lookup are made distinct before servers are asked. Else rows are read from the parameter.
    vocab_cache_size : int
        The rows of an `EmbeddingCache` in front of the table, 0 for no cache. Sets the parameter's `cache_enable`,
        `cache_shape` and `key`.
    dtype : dtype
    device : str or Device
        Where the cache is.
    optimizer : callable, optional
    path : str or path, optional
    **options
        Of the `Embedding`.

    Attributes
    ----------
    embedding_table : Parameter

    Raises
    ------
    TypeError, ValueError
        As `Embedding` does.

    Examples
    --------
    >>> from numparam.optim import Adagrad
    >>> items = EmbeddingLookup(10**9, 8, vocab_cache_size=1000, optimizer=lambda rows: Adagrad(rows, 0.0, 0.1))
    >>> row = items.embedding_table[5:6].asnumpy()
    >>> bool((items([5]) == row).all()), items.embedding_table.cache_shape
    (True, [1000, 8])
    >>> items.update([5], np.ones((1, 8), np.float32))
    >>> bool(np.allclose(items([5]), row - 0.1))
    True
    """

    def __init__(
        self,
        vocab_size: int | None,
        embedding_size: int,
        param_init: Initializer | str | float = "normal",
        *,
        sparse: bool = True,
        vocab_cache_size: int = 0,
        dtype: npt.DTypeLike = "float32",
        device: Device | str = "cpu",
        optimizer: OptimizerMaker | None = None,
        path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        dim = as_int("embedding_size", embedding_size, 1)
        self._vocab_size = None if vocab_size is None else as_int("vocab_size", vocab_size, 1)
        shape = self._vocab_size or (2**63 - 1) // dim, dim
        self.sparse, rows = as_bool("sparse", sparse), as_int("vocab_cache_size", vocab_cache_size, 0)
        self.embedding_table = Parameter(initializer(param_init, shape, dtype), name="embedding_table")
        self.embedding_table.unique = self.sparse
        if rows:
            self.embedding_table.cache_enable = True
            self.embedding_table.cache_shape = [rows, shape[1]]
            self.embedding_table.key = next_cache_key()
        self._options = {**options, "optimizer": optimizer, "path": path}
        self._cache_device, self._cache_rows = device, rows
        self._table: Any = None
        self._cache: EmbeddingCache | None = None
        self._make_cache = EmbeddingCache

    @property
    def schema(self) -> Schema:
        """Return what the table is, without opening it."""
        recipe: Any = self.embedding_table._values
        dim = self.embedding_table.shape[1]
        make = self._options["optimizer"]
        return Schema(self.embedding_table.name, self._vocab_size, dim, recipe.init, recipe.dtype, recipe.seed, make)

    @property
    def cache_rows(self) -> int:
        """Return the size of the cache, 0 without one."""
        return self._cache_rows

    @property
    def unseen(self) -> str | float:
        """Return what is found for an id without a row."""
        unseen: str | float = self._options.get("unseen", "stream")
        return unseen

    def keep_at(self, path: Path | None) -> None:
        """Open the table at a path, on a server."""
        self._options["path"] = path

    def serve_from(self, table: Any, cache: type[EmbeddingCache]) -> None:
        """Let servers look up and update the rows from now on; see `numparam.server.ParameterServer`."""
        self._table, self._make_cache = table, cache

    @property
    def table(self) -> Embedding:
        """Return the table, which is opened when first needed, under the name that the parameter then has.

        On a worker of a job with servers, it only finds and updates rows.
        """
        if self._table is None:
            schema = self.schema
            self._table = Embedding(
                schema.vocab_size, schema.dim, name=schema.name, init=schema.init, dtype=schema.dtype,
                seed=schema.seed, **self._options,
            )  # fmt: skip
        table: Embedding = self._table
        return table

    @property
    def cache(self) -> EmbeddingCache | None:
        """Return the cache, if there is one."""
        if self._cache is None and self._cache_rows:
            self._cache = self._make_cache(self.table, self._cache_rows, self._cache_device)
        return self._cache

    def construct(self, ids: npt.ArrayLike) -> Array | Tensor:
        """Return the rows of ids."""
        if not self.sparse:
            return self.embedding_table.init_data()[np.asarray(ids)]
        return self.table.find(ids) if self.cache is None else self.cache.lookup(ids)

    def update(self, ids: npt.ArrayLike, gradients: npt.ArrayLike) -> None:
        """Step the optimizer on the rows of ids; see `Embedding.update`."""
        (self.cache or self.table).update(ids, gradients)

    def prefetch(self, ids: npt.ArrayLike) -> None:
        """Begin to read the rows that the next call needs, if there is a cache."""
        if self.cache is not None:
            self.cache.prefetch(ids)

    def flush(self) -> None:
        """Write the rows that were changed in the cache back to the table."""
        if self.cache is not None:
            self.cache.flush()
