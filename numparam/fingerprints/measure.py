"""Compute fingerprints: of arrays, tensors, cells and files."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np

from numparam import dtypes
from numparam.cell import Cell
from numparam.checkpoint import mindspore_file
from numparam.checkpoint.opening import open_checkpoint
from numparam.checkpoint.recipes import followed
from numparam.checks import of_type
from numparam.errors import ArgumentTypeError, ArgumentValueError, MissingNameError, NumparamError, ShapeError
from numparam.fingerprints.boxes import box_of
from numparam.fingerprints.table import Fingerprints
from numparam.fingerprints.value import Fingerprint, added
from numparam.fingerprints.view import View
from numparam.indexing.region import Region
from numparam.tensor import Array, Tensor
from numparam.text import amount, shown

Views = Mapping[str, View | Sequence[View]]
_BLOCK_BYTES = 1 << 19
"""Of the values that are read or generated at a time."""


@overload
def fingerprint(x: Tensor | Array, key: str | bytes | None = None, *, region: Region | None = None) -> Fingerprint: ...
@overload
def fingerprint(
    x: Cell | Mapping[str, Tensor | Array] | str | PathLike[str],
    key: str | bytes | None = None,
    *,
    view: Views | None = None,
) -> Fingerprints: ...
def fingerprint(
    x: Tensor | Array | Cell | Mapping[str, Tensor | Array] | str | PathLike[str],
    key: str | bytes | None = None,
    *,
    region: Region | None = None,
    view: Views | None = None,
) -> Fingerprint | Fingerprints:
    """Return 128 bits that change with every bit and every position of a parameter, or of all of a model.

    The bits are equal for every device, number of threads, layout in memory and partition into shards. Lazy parameters
    stay lazy, and arrays of any strides are read where they are, with less than 1 MiB of extra memory.

    Parameters
    ----------
    x : Tensor, Parameter, ndarray, DeviceArray, Cell, mapping or path
        A mapping has names and any of the first four. A path is a safetensors file, an index of such files, or a
        MindSpore ``.ckpt``. `numparam.torch.fingerprint` and `numparam.jax.fingerprint` take modules and trees.
    key : str or bytes, optional
        A secret, which makes the fingerprint a universal hash; without it, it is an error check that anyone can
        compute, and forge.
    region : Region, optional
        What an array holds of the full parameter; all of it by default.
    view : mapping of str to View or sequence of View, optional
        Canonical parameters that are parts of stored ones. The names of `x` that views refer to are left out.

    Returns
    -------
    Fingerprint or Fingerprints
        A `Fingerprint` of one array or tensor, else a table by name.

    Raises
    ------
    TypeError
        If `x` is of another kind, or its dtype has no bits that can be read.
    ValueError
        If `region` has another shape, or a file is damaged.
    KeyError
        If a view refers to an array that is not there.

    Examples
    --------
    >>> import numpy as np
    >>> print(fingerprint(np.arange(6, dtype=np.float32)))
    1a98bee8d10691bc0a24b9d0b73397bf
    """
    if isinstance(x, str | PathLike):
        return _of_file(Path(x), key, view or {})
    if isinstance(x, Cell):
        x = dict(x.parameters_and_names())
    if isinstance(x, Mapping):
        if region is not None:
            raise ArgumentTypeError("a region belongs to one array, found a table of them; add the tables of regions")
        return _of_mapping(x, key, view or {})
    if view is not None:
        raise ArgumentTypeError(f"a view finds arrays by name in a mapping, a cell or a file, found {shown(x)}")
    return of_array(x, key, region)


def of_array(x: Any, key: str | bytes | None = None, region: Region | None = None, name: str = "") -> Fingerprint:
    """Return the fingerprint of one tensor or array, which holds a region of a parameter."""
    where = f"parameter {name!r}: " if name else ""
    if isinstance(x, Tensor):
        if x.has_init and region is None:
            return _of_blocks(x, key, name or getattr(x, "name", ""))
        name = name or getattr(x, "name", "")
        x = x._settle().array
    elif not isinstance(x, np.ndarray) and not hasattr(x, "address"):
        raise ArgumentTypeError(
            f"{where}a fingerprint takes a tensor, an array, a Cell, a mapping or a path, found {shown(x)}; "
            "numparam.torch.fingerprint and numparam.jax.fingerprint take modules and trees"
        )
    held = Region.full(tuple(x.shape)) if region is None else of_type(Region)(f"{where}region", region)
    if held.shape != tuple(x.shape):
        raise ShapeError(f"{where}an array of shape {held.shape} holds {held}, found {tuple(x.shape)}")
    dtype = dtypes.as_dtype(x.dtype)
    if x.dtype != dtype:
        x = x.astype(dtype)  # from the other byte order
    from numparam.kernels import digest, fill

    sums = digest.digest(x, _key(key), fill.Span(*held.span()))
    return Fingerprint(held.full_shape, dtype.name, sums, (box_of(held),), mark(key), name)


def _of_blocks(tensor: Tensor, key: str | bytes | None, name: str) -> Fingerprint:
    from numparam.kernels import digest, fill

    sums, done = (0, 0), 0
    buffer = np.empty(min(tensor.size, _BLOCK_BYTES // tensor.dtype.itemsize), tensor.dtype)
    for block in tensor.blocks(_BLOCK_BYTES):
        values = buffer[: int(np.prod(block.shape, dtype=np.int64))]
        block.fill(values.reshape(block.shape))
        sums = added(sums, digest.digest(values, _key(key), fill.Span(done, (1,))))
        done += values.size
    return Fingerprint(tensor.shape, tensor.dtype.name, sums, None, mark(key), name)


def _of_mapping(arrays: Mapping[str, Any], key: str | bytes | None, views: Views) -> Fingerprints:
    found = {}
    for name, source in canonical_names(arrays, views):
        if isinstance(source, str):
            found[name] = of_array(arrays[source], key, None, name)
        else:
            found[name] = _viewed(name, source, arrays.__getitem__, key)
    return Fingerprints(found)


def canonical_names(names: Mapping[str, Any], views: Views) -> Iterator[tuple[str, str | Sequence[View]]]:
    """Yield the name of each canonical parameter with the name of its array, or its views."""
    if not isinstance(views, Mapping):
        raise ArgumentTypeError(f"views are a mapping from names to View, found {shown(views)}")
    several: dict[str, list[View]] = {}
    for name, each in views.items():
        listed: Any = [each] if isinstance(each, View) else each
        if not isinstance(listed, list | tuple) or not all(isinstance(view, View) for view in listed):
            raise ArgumentTypeError(f"parameter {name!r}: a View or a list of them is expected, found {shown(each)}")
        several[name] = list(listed)
    for name in (*names, *views):
        if not isinstance(name, str):
            raise ArgumentTypeError(f"parameters have names that are str, found {shown(name)}")
    used = {view.source for each in several.values() for view in each}
    for name, each in several.items():
        if missing := [view.source for view in each if view.source not in names]:
            raise MissingNameError(
                f"the view {name!r} is a part of {missing[0]!r}, which is not among {amount(len(names), 'name')}"
            )
    yield from ((name, name) for name in names if name not in used)
    yield from several.items()


def _viewed(name: str, views: Sequence[View], array_of: Callable[[str], Any], key: str | bytes | None) -> Fingerprint:
    parts = []
    for view in views:
        array = array_of(view.source)
        if isinstance(array, Tensor):
            array = array._settle().array
        try:
            part = view.of(array, Region.full(tuple(array.shape)))
        except NumparamError as error:
            raise type(error)(f"parameter {name!r}: {error}") from None
        if part is None:
            raise ShapeError(f"parameter {name!r}: {view} selects nothing of shape {tuple(array.shape)}")
        parts.append(of_array(part[0], key, part[1], name))
    if not parts:
        raise ArgumentValueError(f"parameter {name!r} has an empty list of views; leave it out")
    return sum(parts[1:], parts[0])


def _of_file(path: Path, key: str | bytes | None, views: Views) -> Fingerprints:
    if path.suffix == ".ckpt":
        tensors = {name: value for name, value in mindspore_file.read(path).items() if not isinstance(value, str)}
        return _of_mapping(tensors, key, views)
    from numparam.kernels import digest, fill

    checkpoint = followed(open_checkpoint(path))
    buffer = np.empty(_BLOCK_BYTES, np.uint8)
    found = {}
    for name, source in canonical_names(checkpoint.entries, views):
        if not isinstance(source, str):
            found[name] = _viewed(name, source, cache(checkpoint.__getitem__), key)
            continue
        entry = checkpoint.entries[name]
        block, sums = buffer.view(entry.dtype), (0, 0)
        with checkpoint.reading(name) as read:
            for start in range(0, entry.size, block.size):
                values = block[: entry.size - start]
                read(values)
                sums = added(sums, digest.digest(values, _key(key), fill.Span(start, (1,))))
        found[name] = Fingerprint(entry.shape, dtypes.as_dtype(entry.dtype).name, sums, None, mark(key), name)
    return Fingerprints(found)


def secret_of(key: str | bytes | None) -> bytes:
    """Return the 64 bytes that a key is hashed to, none without a key."""
    if key is not None and not isinstance(key, str | bytes):
        raise ArgumentTypeError(f"a key is a str or bytes, found {type(key).__name__}")
    if key is not None and not key:
        raise ArgumentValueError("a key is a secret, found an empty one; leave it out for an error check")
    # Half of a surrogate pair, which no encoding has, is a secret too.
    text = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return b"" if text is None else hashlib.blake2b(text).digest()


@cache
def _key(key: str | bytes | None) -> Any:
    from numparam.kernels.digest import DigestKey

    return DigestKey.from_secret(secret_of(key))


def mark(key: str | bytes | None) -> str:
    """Return what identifies the key of a fingerprint, without making a good key easier to guess."""
    return "" if key is None else hashlib.blake2b(secret_of(key), digest_size=4, person=b"numparam keymark").hexdigest()
