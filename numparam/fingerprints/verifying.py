"""Compare what is in memory with the values that a seed determines, block by block."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import numpy as np

from numparam.cell import Cell
from numparam.entry import Entry
from numparam.errors import ArgumentTypeError, MismatchError
from numparam.indexing.region import Region, row_major
from numparam.model.verification import Difference
from numparam.rules import Rules
from numparam.stream.seed import current_seed
from numparam.tensor import Array, Recipe, Tensor
from numparam.text import amount, printable, shown

BLOCK_BYTES = 1 << 18
"""Of each of the two blocks that are compared."""

_SHOWN = 20
Read = Callable[[tuple[int | slice, ...]], np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class Verification:
    """Report how values in memory differ from those of a seed; printed, it is a few lines for a log.

    Attributes
    ----------
    checked : list of str
        The parameters whose every value in this process was compared.
    differences : list of Difference
        The first difference of each parameter that has one.
    unchecked : dict of str to str
        The parameters that were not compared, and why.
    """

    checked: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return not self.differences and not self.unchecked

    def _repr_html_(self) -> str:
        from numparam import html

        rows = [("differs", str(difference)) for difference in self.differences]
        rows += [("not checked", f"parameter {name!r}: {why}") for name, why in self.unchecked.items()]
        return html.table(("result", "where"), rows, foot=str(self).splitlines()[-1])

    def __str__(self) -> str:
        lines = [printable(str(difference), 500) for difference in self.differences[:_SHOWN]]
        lines += [f"parameter {name!r} was not checked: {why}" for name, why in list(self.unchecked.items())[:_SHOWN]]
        total = amount(len(self.checked), "parameter")
        return "\n".join(
            [*lines, f"differences: {len(self.differences)} of {total}; not checked: {len(self.unchecked)}"]
        )

    def require(self) -> None:
        """Raise a MismatchError with the text of the report if any parameter differs or was not checked."""
        if not self:
            raise MismatchError(str(self))


def verify(
    x: Cell | Mapping[str, Tensor | Array],
    expected: Cell | Mapping[str, Tensor] | Rules,
    seed: SupportsIndex | None = None,
) -> Verification:
    """Compare the bits of parameters in memory with the values of a seed, without a second copy of any.

    Parameters
    ----------
    x : Cell or mapping of str to Tensor or ndarray
        What is in memory. Lazy parameters are compared too, and stay lazy.
    expected : Cell, mapping of str to Tensor, or Rules
        What determines the values: a lazy cell that the same code has built, lazy tensors by name, or rules, which
        give the initializer of each name.
    seed : int, optional
        For rules; by default that of `numparam.set_seed`.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If no rule covers some parameter, or an initializer does not suit it.

    Examples
    --------
    >>> import numparam
    >>> from numparam.initializer import Normal, initializer
    >>> class Net(numparam.Cell):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.w = numparam.Parameter(initializer(Normal(0.02), (4, 6)))
    >>> numparam.set_seed(7)
    >>> net = Net()
    >>> net.w[2, 3] = 1.0
    >>> [difference.index for difference in verify(net, Net()).differences]
    [(2, 3)]
    """
    arrays = {name: (Entry(name, tuple(each.shape), each.dtype), each) for name, each in by_name(x).items()}
    wanted: dict[str, tuple[Entry, Callable[..., None]]] = {}
    if isinstance(expected, Rules):
        entries = tuple(entry for entry, _ in arrays.values())
        chosen, number = expected.assign(entries), current_seed() if seed is None else seed
        for entry in entries:
            region = Region.full(entry.shape)
            recipe = Recipe.of(chosen[entry.name].initializer, entry.name, region, entry.dtype, number)
            wanted[entry.name] = entry, recipe.fill_into
    else:
        for name, each in by_name(expected).items():
            if not isinstance(each, Tensor):
                raise ArgumentTypeError(f"parameter {name!r}: a tensor is expected, found {shown(each)}")
            wanted[name] = Entry(name, each.shape, each.dtype), each.fill_into
    found = Verification()
    for name, (entry, each) in arrays.items():
        if name not in wanted:
            found.unchecked[name] = "nothing determines its values"
        elif entry != (other := wanted[name][0]):
            found.unchecked[name] = f"{other.shape} of {other.dtype} was expected, found {entry.shape} of {entry.dtype}"
        else:
            record(found, entry, Region.full(entry.shape), _reader(each), wanted[name][1])
    found.unchecked.update(dict.fromkeys(wanted.keys() - arrays.keys(), "it is missing"))
    return found


def by_name(x: Any) -> dict[str, Any]:
    """Return the tensors of a cell or a mapping by name."""
    if isinstance(x, Cell):
        return dict(x.parameters_and_names())
    if not isinstance(x, Mapping):
        raise ArgumentTypeError(f"a Cell or a mapping from names to tensors is verified, found {shown(x)}")
    for name, each in x.items():
        if not isinstance(each, Tensor | np.ndarray):
            raise ArgumentTypeError(f"parameter {shown(name)}: a tensor is expected, found {shown(each)}")
    return dict(x)


def _reader(x: Any) -> Read:
    if isinstance(x, np.ndarray):
        return lambda index: x[(*index, ...)]
    whole = Region.full(x.shape)

    def read(index: tuple[int | slice, ...]) -> np.ndarray[Any, np.dtype[Any]]:
        part = whole[index]
        out = np.empty(part.shape, x.dtype)
        x.fill_into(out, part)
        return out

    return read


def record(
    found: Verification, entry: Entry, held: Region, read: Read, fill: Callable[..., None], needs_full: bool = False
) -> None:
    """Compare one parameter, and note in a report what was found.

    `entry` and `held` describe what is in memory and its place in the full parameter. `read` returns the values at an
    index of it; `fill` writes the expected values of a region of it into an array, and is called once if `needs_full`.
    """
    found.checked.append(entry.name)
    limit = entry.size if needs_full else BLOCK_BYTES // entry.dtype.itemsize
    buffer, bits = np.empty(min(limit, entry.size), entry.dtype), np.dtype(f"u{min(entry.dtype.itemsize, 8)}")
    for index in row_major(entry.shape, max(limit, 1)):
        part = Region.full(entry.shape)[index]
        expected = buffer[: part.size].reshape(part.shape)
        fill(expected, part)
        values = np.ascontiguousarray(read(index))
        wrong = expected.reshape(-1).view(bits) != values.reshape(-1).view(bits)
        if wrong.any():
            place = int(wrong.argmax()) * bits.itemsize // entry.dtype.itemsize
            inside = np.unravel_index(place, part.shape) if part.shape else ()
            local = tuple(int(indices[i]) for indices, i in zip(part.ranges, _all_axes(part, inside), strict=True))
            full = tuple(int(indices[i]) for indices, i in zip(held.ranges, local, strict=True))
            flat = int(np.ravel_multi_index(local, entry.shape)) if local else 0
            pair = values.reshape(-1)[place], expected.reshape(-1)[place]
            found.differences.append(Difference(entry, flat, local, full, *pair))
            return


def _all_axes(part: Region, inside: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the place along every axis, 0 along those that an integer has dropped."""
    given = iter(inside)
    return tuple(0 if isinstance(pick, int) else int(next(given)) for _, pick in part._picks)
