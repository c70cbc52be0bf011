"""Packs: a small data file for an architecture names its parameters in each framework, and how they lie there."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from numparam.errors import ArgumentValueError, MissingNameError
from numparam.fingerprints import Fingerprints, View, fingerprint
from numparam.indexing.region import Region
from numparam.initializer import Initializer, by_name
from numparam.initializer.entry import as_initializer
from numparam.text import shown
from numparam.views.viewed import Part, Viewed

FRAMEWORKS = ("hf", "flax", "megatron", "torchtitan")
_FOLDER = resources.files("numparam.views") / "packs"
_KEYS = {"name", "transpose", "sections", "take", "blocks", "interleave", "pad"}


def load(architecture: str | PathLike[str], framework: str, **sizes: int) -> Pack:
    """Read how a framework stores the parameters of an architecture.

    Parameters
    ----------
    architecture : str or path
        ``"gpt2"`` or ``"llama"``, or the path of a TOML file of your own in their format; see ``docs/views.md``.
    framework : str
        ``"hf"``, ``"flax"``, ``"megatron"``, ``"torchtitan"``, or another one of the file.
    **sizes : int
        The numbers that the file refers to: ``heads``, ``groups`` (of keys and values), ``layers``, ``vocab``.

    Examples
    --------
    >>> pack = load("llama", "flax")
    >>> [part.name for part in pack.parts("params.layers_3.mlp.up_proj.kernel", (64, 128))]
    ['model.layers.3.mlp.up_proj.weight']
    """
    path = Path(architecture)
    known = sorted(file.name.removesuffix(".toml") for file in _FOLDER.iterdir() if file.name.endswith(".toml"))
    if str(architecture) in known:
        text = (_FOLDER / f"{architecture}.toml").read_text(encoding="utf-8")
    elif path.suffix == ".toml" and path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        raise ArgumentValueError(f"no pack {shown(str(architecture))}; known: {', '.join(known)}, or name a TOML file")
    try:
        rows = tomllib.loads(text)["parameters"]
        return Pack(
            [(row["name"], row["init"], row.get(framework, {"name": row["name"]})) for row in rows], framework, sizes
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ArgumentValueError(f"{architecture}: not a pack of views: {shown(str(error))}") from None


class Pack:
    """Say which views of canonical parameters the tensors of one framework are; see `load`.

    Parameters
    ----------
    rows : list of (str, dict, dict)
        The canonical name, its initializer, and where the framework stores it.
    framework : str
    sizes : mapping of str to int
    """

    def __init__(
        self, rows: list[tuple[str, dict[str, Any], dict[str, Any]]], framework: str, sizes: Mapping[str, int]
    ) -> None:
        self.framework, self.sizes = framework, dict(sizes)
        self._rows = [(name, init, stored, _pattern(stored["name"])) for name, init, stored in rows]
        for name, _, stored, _ in self._rows:
            if unknown := stored.keys() - _KEYS:
                raise ArgumentValueError(f"parameter {name!r}: a view has {', '.join(sorted(_KEYS))}; found {unknown}")

    def _number(self, value: Any) -> int:
        if isinstance(value, int):
            return value
        if value not in self.sizes:
            raise ArgumentValueError(
                f"the pack of {self.framework!r} needs the size {value!r}: load(..., {value}=...); found "
                f"{', '.join(self.sizes) or 'none'}"
            )
        return self.sizes[value]

    def _found(self, name: str, shape: tuple[int, ...]) -> Iterator[tuple[Part, dict[str, Any]]]:
        for canonical, init, stored, pattern in self._rows:
            if match := pattern.fullmatch(name):
                layers = match.groups() or (range(shape[0]) if "{i}" in canonical else ("",))
                for layer in layers:
                    stacked = isinstance(layer, int)
                    for part in self._parts(canonical.replace("{i}", str(layer)), name, stored, shape[stacked:]):
                        if stacked:
                            view = part.view
                            index = view.index if isinstance(view.index, tuple) else (view.index,)
                            yield part._replace(view=view._replace(index=(layer, *index))), init
                        else:
                            yield part, init

    def parts(self, name: str, shape: tuple[int, ...]) -> list[Part]:
        """Return the parts of canonical parameters in a tensor of the framework, none if the pack does not have it."""
        return [part for part, _ in self._found(name, tuple(shape))]

    def _parts(self, canonical: str, name: str, stored: Mapping[str, Any], shape: tuple[int, ...]) -> Iterator[Part]:
        transpose = stored.get("transpose", False) and len(shape) > 1
        axes = (1, 0) if transpose else None
        axis = 1 if transpose else 0
        length = shape[axis] if shape else 0
        full = shape[::-1] if transpose else shape

        def rows(chosen: slice) -> Any:
            return (slice(None),) * axis + (chosen,)

        def part(where: slice, count: int, which: Any = ...) -> Part:
            return Part(canonical, (count, *full[1:]), View(name, rows(where), axes), which)

        if "sections" in stored:
            sizes = [self._number(size) for size in stored["sections"]]
            blocks, take = self._number(stored.get("blocks", 1)), stored["take"]
            unit, rest = divmod(length, sum(sizes))
            if rest or any(size % blocks for size in sizes):
                raise ArgumentValueError(f"{name!r} of shape {shape} has no {blocks} x {sizes} equal sections")
            starts = [0, *accumulate(size * unit // blocks for size in sizes)]
            count = sizes[take] * unit // blocks
            for block in range(blocks):
                first = block * (length // blocks) + starts[take]
                yield part(slice(first, first + count), count * blocks, slice(block * count, (block + 1) * count))
        elif "interleave" in stored:
            heads = self._number(stored["interleave"])
            if length % (2 * heads):
                raise ArgumentValueError(f"{name!r} of shape {shape} has no {heads} heads of two halves")
            width = length // heads
            for head, half in ((head, half) for head in range(heads) for half in range(2)):
                start = head * width
                which = slice(start + half * width // 2, start + (half + 1) * width // 2)
                yield part(slice(start + half, start + width, 2), length, which)
        elif "pad" in stored:
            count = self._number(stored["pad"])
            yield part(slice(0, count), count)
        else:
            yield Part(canonical, full, View(name, ..., axes))

    def rules(
        self, shapes: Mapping[str, Any], inits: Mapping[str, Initializer | str | float] | None = None
    ) -> dict[str, Initializer]:
        """Return the rules by which `numparam.torch.init_` and `numparam.jax.init` give canonical values.

        Parameters
        ----------
        shapes : mapping
            From the names of the framework's tensors to their shapes, or to anything that has a shape.
        inits : mapping, optional
            From canonical names to initializers that take the place of the pack's.

        Raises
        ------
        MissingNameError
            If the pack does not have a tensor.
        """
        found: dict[str, Initializer] = {}
        for name, each in shapes.items():
            parts = list(self._found(name, tuple(getattr(each, "shape", each))))
            if not parts:
                raise MissingNameError(f"the pack of {self.framework!r} has no tensor {name!r}; leave it out")
            given = inits or {}
            found[name] = Viewed(
                [
                    (part, as_initializer(given[part.name]) if part.name in given else self._init(init))
                    for part, init in parts
                ]
            )
        return found

    def _init(self, row: Mapping[str, Any]) -> Initializer:
        arguments = {key: value for key, value in row.items() if key not in ("init", "depth")}
        if row.get("depth"):  # of a residual branch
            arguments["sigma"] /= math.sqrt(2 * self._number("layers"))
        return by_name(row["init"])(**arguments)

    def fingerprint(self, arrays: Mapping[str, Any], key: str | bytes | None = None) -> Fingerprints:
        """Return the fingerprints of the canonical parameters in the arrays of a framework.

        Parameters
        ----------
        arrays : mapping
            From the names of the framework's tensors to NumPy arrays.
        key : str or bytes, optional
            See `numparam.fingerprint`.
        """
        known = {name: np.asarray(array) for name, array in arrays.items() if self.parts(name, np.shape(array))}
        found: Fingerprints = fingerprint(known, key, view=self.views(known))
        return found

    def views(self, shapes: Mapping[str, Any]) -> dict[str, list[View]]:
        """Return the views for `numparam.fingerprint` and `numparam.torch.fingerprint`, by canonical name."""
        found: dict[str, list[View]] = {}
        for name, each in shapes.items():
            for part in self.parts(name, tuple(getattr(each, "shape", each))):
                region = Region.full(part.shape)[part.index]
                found.setdefault(part.name, []).append(part.view._replace(region=region))
        return found


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\{i\}", "([0-9]+)"))
