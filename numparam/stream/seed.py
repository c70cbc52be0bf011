"""The random stream, version 1: how a seed and a name become the bits of a parameter.

Every value is a pure function of the seed, the tensor's name and the value's place in the full tensor.
``docs/random-stream.md`` is all that another implementation needs for the bits, with test vectors. In short: the
`stream` is a 64-bit hash of the name and of the label of the draw, which is empty for the first draw. It is the upper
half of the counter of Philox4x32-10, whose key is the seed: word ``i % 4`` of block ``i // 4`` belongs to the element
of row-major index i in the full tensor, never in a slice or shard.

A user's label has at most 10 bytes, none of them zero, and is refused if it names a draw of numparam:

========================  ==========================================================================================
``refine``                the low 32-bit words of a float64 draw, whose high words are the float32 draw
``sparse``                the words that rank the rows of a column in `Sparse`
``noise``                 what `numparam.perturb` adds to a parameter
``left``, ``right``       the factors of its low-rank noise, of shape (rows, rank) and (rank, columns)
``g`` and a step          Gaussian noise of `numparam.noise`; a step is a number in lower-case hexadecimal digits
``d`` and a step          its dropout masks
``u`` and a step          the words that round 16-bit weights in a step of an optimizer, the first one being step 1
========================  ==========================================================================================
"""

import operator
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, SupportsIndex

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.text import shown

STREAM_VERSION = 1

_numbers: Iterator[int] = count()
_seed: int | None = None
_is_drawn = False


def set_seed(seed: SupportsIndex) -> None:
    """Set the seed of lazy tensors created from now on, and number unnamed ones from 0 again.

    A lazy tensor keeps the seed with which it was created.

    Parameters
    ----------
    seed : int
        From 0 to 2**64 - 1, a Python or a NumPy integer.

    Raises
    ------
    TypeError
        If `seed` is not an integer; a bool is not accepted.
    ValueError
        If it is out of range.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> set_seed(7)
    >>> first = initializer("normal", 3).tolist()
    >>> set_seed(7)
    >>> initializer("normal", 3).tolist() == first
    True
    """
    global _numbers, _seed, _is_drawn
    _seed, _numbers, _is_drawn = as_seed(seed), count(), False


def get_seed() -> int | None:
    """Return the seed: set by `set_seed`, or drawn from the operating system.

    Without a call of `set_seed`, the first lazy tensor draws a seed for the process; the ranks of a job share
    the seed of rank 0, see `numparam.communication.init`. Give it to `set_seed` in another process to repeat the run.

    Returns
    -------
    int or None
        None until there is one.
    """
    return _seed


def current_seed() -> int:
    """Return the seed, drawing one from the operating system if there is none yet."""
    global _seed, _is_drawn
    if _seed is None:
        _seed, _is_drawn = int.from_bytes(os.urandom(8), "little"), True
    return _seed


def choose_seed(own: int | None, given: SupportsIndex | None = None) -> int:
    """Return the seed of a tensor: the first that there is, by the rule that holds everywhere.

    1. The initializer's own, `numparam.initializer.Initializer.seed`.
    2. The seed of the call, such as ``initializer(..., seed=7)``, ``numparam.torch.init_(..., seed=7)``,
       ``numparam.jax.init(..., seed=7)`` or a key of JAX.
    3. The global one of `set_seed`, or else one drawn from the operating system.

    Raises
    ------
    ArgumentTypeError
        If the seed of the call is not an integer. It is also a TypeError.
    ArgumentValueError
        If it is not from 0 to 2**64 - 1. It is also a ValueError.

    Examples
    --------
    >>> set_seed(7)
    >>> choose_seed(None), choose_seed(None, 8), choose_seed(9, 8)
    (7, 8, 9)
    """
    if given is not None:
        given = as_seed(given)
    if own is not None:
        return own
    return current_seed() if given is None else given


def share_seed(seed: int) -> None:
    """Take the seed that another rank of the job drew, unless one was set.

    Raises
    ------
    StateError
        If this process drew one before, so that its tensors may depend on it.
    """
    global _seed  # noqa: PLW0603
    if _is_drawn and seed != _seed:
        raise StateError(
            "lazy tensors were created before numparam.communication.init(), with a seed that this rank drew: "
            "call init() or numparam.set_seed() first"
        )
    if _seed is None:
        _seed = seed


def next_number() -> int:
    """Take the next number for a tensor without a name."""
    return next(_numbers)


def as_seed(seed: SupportsIndex) -> int:
    """Check a seed and return it as a Python int.

    Raises
    ------
    TypeError
        If `seed` is not an integer.
    ValueError
        If it is not from 0 to 2**64 - 1.
    """
    try:
        number = None if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = None
    if number is None:
        raise ArgumentTypeError(f"a seed is an int from 0 to 2**64 - 1, found {shown(seed)} of {type(seed)}")
    if not 0 <= number < 2**64:
        raise ArgumentValueError(f"a seed is an int from 0 to 2**64 - 1, found {shown(number)}")
    return number


class Label(str):
    """Name a draw of numparam itself: one of the labels in the table above, which users cannot take."""

    __slots__ = ()


_OWN = re.compile("refine.*|sparse|noise|left|right|[gdu][0-9a-f]+", re.DOTALL)


def check_label(label: str) -> None:
    """Check that a user's label does not name another draw.

    Examples
    --------
    >>> check_label("noise")
    Traceback (most recent call last):
    numparam.errors.ArgumentValueError: label 'noise' names a draw of numparam; choose another one, such as 'my noise'
    """
    if not label or isinstance(label, Label):
        return
    if _OWN.fullmatch(label):
        raise ArgumentValueError(
            f"label {shown(label)} names a draw of numparam; choose another one, such as {'my ' + label[:7]!r}"
        )
    if len(label.encode()) > 10 or "\0" in label:
        raise ArgumentValueError(f"a label has at most 10 bytes, none of them zero, found {shown(label)}")


@lru_cache(maxsize=1024)  # many slices of one parameter are read in a row
def stream(name: str | int, label: str = "") -> int:
    """Return the 64-bit number of the random stream of a tensor, by its name or number, and of a draw.

    The label of the draw has at most 16 bytes.
    """
    text = b"n" + name.encode("utf-8", "surrogatepass") if isinstance(name, str) else b"#%d" % name
    return int.from_bytes(_digests([text], label), "little")


def streams(names: Sequence[str], label: str = "") -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return the `stream` of each of many parameters.

    Examples
    --------
    >>> streams(["encoder.0.weight", ""]).tolist() == [stream("encoder.0.weight"), stream("")]
    True
    """
    digests = _digests([b"n" + name.encode("utf-8", "surrogatepass") for name in names], label)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _digests(texts: Sequence[bytes], label: str) -> bytes:
    from hashlib import blake2b  # 3 ms, which `import numparam` need not pay

    person = label.encode()
    return b"".join([blake2b(text, digest_size=8, person=person).digest() for text in texts])
