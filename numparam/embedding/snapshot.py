"""One file of a table: the rows that were touched, with the states of the optimizer and the step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from numparam.checkpoint.loading import load_checkpoint
from numparam.checkpoint.saving import save_checkpoint
from numparam.embedding.log import Record
from numparam.embedding.table import Embedding
from numparam.errors import CheckpointError, StateError

Array = np.ndarray[Any, np.dtype[Any]]

_ROWS_AT_ONCE = 1 << 16


def save_table(table: Embedding, path: str | os.PathLike[str]) -> None:
    """Write the rows of a table to a safetensors checkpoint, which appears complete or not at all.

    It holds ``NAME.key``, ``NAME.value``, a column for each state of the optimizer, ``NAME.score``, ``NAME.step`` of
    every row and ``NAME.steps``, the number of updates. Unchanged rows are not in it.

    Parameters
    ----------
    table : Embedding
    path : str or path

    Raises
    ------
    ValueError
        If the file cannot be written. It is then also an OSError.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/items.safetensors"
    >>> table, other = (Embedding(None, 4, name="items", seed=7) for _ in range(2))
    >>> table.accumulate([5, -9], np.ones((2, 4), np.float32))
    >>> save_table(table, path)
    >>> load_table(other, [path])
    >>> bool((other.find([-9, 5, 6]) == table.find([-9, 5, 6])).all()), len(other), other.step
    (True, 2, 0)
    """
    save_checkpoint(table_content(table), path)


def table_content(table: Embedding) -> dict[str, Array]:
    """Return what `save_table` writes, by name."""
    with table._lock:
        keys = table.export().keys
        columns = zip(table.schema.columns, table.columns(keys), strict=True)
        content = {f"{table.name}.{column.name}": values for column, values in columns}
        return content | {f"{table.name}.key": keys, f"{table.name}.steps": np.array(table.step)}


def load_table(table: Embedding, paths: Iterable[str | os.PathLike[str]]) -> None:
    """Load the rows of files of `save_table`, such as all servers wrote, into a table without rows.

    Parameters
    ----------
    table : Embedding
        Of the same name, width, dtype and optimizer.
    paths : iterable of str or path

    Raises
    ------
    RuntimeError
        If the table has rows already.
    ValueError
        If a file does not hold such a table; nothing is loaded then.
    """
    load_content(table, {str(path): load_checkpoint(path) for path in paths})


def load_content(
    table: Embedding, contents: Mapping[str, Mapping[str, Any]], keep: Callable[[Array], Array] | None = None
) -> None:
    """Load what files hold, by their paths; `keep` turns keys into a mask of the ones to take."""
    if len(table):
        raise StateError(f"table {table.name!r} has {len(table)} rows; load into a new one")
    files = []
    for path, content in contents.items():
        names = [f"{table.name}.{column.name}" for column in table.schema.columns]
        names += [f"{table.name}.key", f"{table.name}.steps"]
        if missing := [name for name in names if name not in content]:
            raise CheckpointError(f"{path}: no {missing[0]!r}, so it does not hold table {table.name!r}")
        tensors: list[Any] = [content[name] for name in names]
        arrays: list[Array] = [tensor.asnumpy() for tensor in tensors]
        for column, array in zip(table.schema.columns, arrays, strict=False):
            if array.shape[1:] != (column.width,) or array.dtype != column.dtype:
                raise CheckpointError(
                    f"{path}: expected {table.name}.{column.name} of width {column.width} and {column.dtype}, found "
                    f"{array.shape[1:]} of {array.dtype}"
                )
        files.append(arrays)
    with table._lock:
        store = table._store
        for *columns, keys, steps in files:
            clock = max(store.clock, int(columns[-2].max(initial=0)))
            for start in range(0, keys.size or 1, _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                chosen = np.ones(keys[part].size, bool) if keep is None else keep(keys[part])
                taken = keys[part][chosen]
                store.rows.check_room(taken.size)
                rows = {number: np.ascontiguousarray(values[part][chosen]) for number, values in enumerate(columns)}
                store.commit(Record(max(store.step, int(steps)), clock, store.sources, taken, rows))
