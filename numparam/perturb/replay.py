"""Logs that rebuild a run: the seeds and coefficients of its steps, in a file of a few kilobytes."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from numparam.cell import Cell
from numparam.checkpoint.atomic_file import FCNTL, sync_folder
from numparam.checkpoint.header import parse_object
from numparam.checkpoint.limits import MAX_HEADER_BYTES
from numparam.checkpoint.loading import load_checkpoint
from numparam.checkpoint.names import is_plain
from numparam.checkpoint.opening import Checkpoint
from numparam.checkpoint.saving import TEXTS
from numparam.communication.arrival import arrive
from numparam.communication.collectives import gather_small
from numparam.communication.group import WORLD_COMM_GROUP, Group
from numparam.communication.management import get_group
from numparam.errors import ArgumentTypeError, ArgumentValueError, CheckpointError, MismatchError, StateError
from numparam.fingerprints import Fingerprint, Fingerprints, fingerprint
from numparam.fingerprints.measure import of_array
from numparam.optim.memory import parameters_of, writable
from numparam.parameter import Parameter
from numparam.perturb.draws import Noise, as_pairs
from numparam.perturb.moved import Perturbed
from numparam.tensor import Tensor
from numparam.text import amount, shown

Base = Cell | Mapping[str, Tensor] | Iterable[Parameter] | str | os.PathLike[str]

BASE, LOG = "numparam.replay.base", "numparam.replay.log"
"""What a rebuilt file records: where base and log are, from its own folder."""

_MAGIC = b"numparam replay 1\n"
_STEP = struct.Struct("<QdI")
"""Seed, coefficient, and the CRC-32 of the record's number, seed and coefficient."""


class Replay:
    """Keep the steps of a run as pairs of a seed and a coefficient, and apply them to its base.

    A step adds ``coefficient * noise(seed)`` to every parameter, as `numparam.perturb.perturbed` does. The file begins
    with the kind of the noise and the fingerprints of the base; a step takes 20 bytes.

    Create one with `create` or `open`.

    Attributes
    ----------
    path : Path
    base : Fingerprints
        The fingerprints of the parameters before the first step.
    seeds : list of int
    coefficients : list of float

    Examples
    --------
    >>> import tempfile
    >>> weight = Parameter([1.0, 2.0], name="w")
    >>> log = Replay.create(Path(tempfile.mkdtemp()) / "run.replay", [weight])
    >>> start = weight.clone()
    >>> log.step([weight], seed=7, coefficient=-0.5)
    >>> log.step([weight], seed=8, coefficient=0.25)
    >>> again = Replay.open(log.path).parameters([start])["w"]
    >>> bool((again.asnumpy() == weight.asnumpy()).all())
    True
    """

    def __init__(self, path: Path, base: Fingerprints, noise: Noise) -> None:
        self.path, self.base, self._noise = path, base, noise
        self.seeds: list[int] = []
        self.coefficients: list[float] = []
        self._end = self._size = 0  # of the steps, and of the file, which may have the beginnings of others

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        base: Base | Fingerprints,
        *,
        noise: str = "normal",
        rank: int | None = None,
        reach: float | None = None,
    ) -> Self:
        """Begin a log.

        Parameters
        ----------
        path : str or path
            A file that does not exist.
        base : Cell, mapping, iterable of Parameter, path of a checkpoint, or Fingerprints
            The parameters before the first step. Ranks that hold shards give the fingerprints of the full parameters.
        noise, rank
            As for `numparam.perturb.perturbed`.
        reach : float, optional
            The steps move on the lattice of this reach, see `numparam.perturb.snap_`, as in a run that perturbs in
            place; by default they are rounded to the dtype.

        Raises
        ------
        TypeError
            If `base` is of another kind.
        ValueError
            If the noise is unknown, or the file exists.
        """
        kind = Noise(noise, rank, reach)
        table = base if isinstance(base, Fingerprints) else fingerprint(_tensors(base))
        for each in table.values():
            each.require_complete()
        log = cls(Path(path), table, kind)
        content = {"noise": noise, "rank": rank, "reach": reach, "base": json.loads(table.to_json())}
        head = _MAGIC + json.dumps(content, separators=(",", ":")).encode() + b"\n"
        try:
            with open(log.path, "xb", buffering=0) as file:  # noqa: PTH123
                try:
                    log._write(file, head)
                except BaseException:
                    log.path.unlink()
                    raise
        except FileExistsError:
            raise ArgumentValueError(f"{path} exists; open it with Replay.open, or remove it") from None
        log._end = len(head)
        sync_folder(log.path.absolute().parent)
        return log

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a log, to read it or to append more steps. What a crash left of a step that was not written is ignored.

        Raises
        ------
        CheckpointError
            If the file is damaged or not a log.
        OSError
            If it cannot be read.
        """
        file = Path(path)
        with open(file, "rb") as opened:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise CheckpointError(f"{file}: it is not a regular file")
            content = opened.read()
        head, newline, _ = content[len(_MAGIC) :].partition(b"\n")
        if not content.startswith(_MAGIC) or not newline:
            raise CheckpointError(f"{file}: it is not a log of numparam, which begins with {_MAGIC!r}")
        if len(head) > MAX_HEADER_BYTES:
            raise CheckpointError(f"{file}: a header of more than {MAX_HEADER_BYTES} bytes is refused")
        found = parse_object(head, f"{file}: its header is damaged")
        try:
            log = cls(
                file,
                Fingerprints.from_json(json.dumps(found["base"])),
                Noise(found["noise"], found["rank"], found["reach"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{file}: its header is damaged: {error}") from None
        log._end, log._size = len(_MAGIC) + len(head) + 1, len(content)
        count = (len(content) - log._end) // _STEP.size
        steps = list(_STEP.iter_unpack(content[log._end : log._end + count * _STEP.size]))
        sound = [check == _check(number, *step) for number, (*step, check) in enumerate(steps)]
        # What a crash left of the last steps, such as their length without their bytes, ends the log.
        first = sound.index(False) if False in sound else count
        if any(sound[first:]):
            raise CheckpointError(f"{file}: step {first} of {count} is damaged")
        for seed, coefficient, _ in steps[:first]:
            log._keep(seed, coefficient)
        return log

    def append(self, seed: int | Iterable[int], coefficient: float | Iterable[float]) -> None:
        """Write steps to the file, so that they are there after a crash; one in the middle of several leaves the first.

        Raises
        ------
        TypeError, ValueError
            If a seed or coefficient does not suit; nothing is written then.
        StateError
            If another process has changed the file.
        OSError
            If the disk is full or fails; the log is then what it was.
        """
        seeds, coefficients = as_pairs(seed, coefficient)
        records = b"".join(
            _STEP.pack(each, scale, _check(len(self) + place, each, scale))
            for place, (each, scale) in enumerate(zip(seeds, coefficients, strict=True))
        )
        with open(self.path, "r+b", buffering=0) as file:  # noqa: PTH123
            if FCNTL is not None:
                FCNTL.flock(file.fileno(), FCNTL.LOCK_EX)  # until it is closed
            if file.seek(0, os.SEEK_END) != self._size:
                raise StateError(f"{self.path} has changed since it was opened; open it again")
            self._write(file, records)
        for each, scale in zip(seeds, coefficients, strict=True):
            self._keep(each, scale)

    def step(self, x: Cell | Iterable[Parameter], seed: int | Iterable[int], coefficient: Any) -> None:
        """Move parameters in place by a step, or several, after it is in the file.

        Parameters
        ----------
        x : Cell or iterable of Parameter
            With the names of the base, in memory: full ones, or shards.
        seed, coefficient
            As for `append`.

        Raises
        ------
        TypeError, ValueError
            As `append`; or if a parameter has no name, or another name, shape or dtype than in the base.
        """
        parameters = parameters_of(x)
        self._check(parameters)
        before = len(self)
        self.append(seed, coefficient)
        self._apply(parameters, before)

    def apply(
        self, x: Cell | Iterable[Parameter], start: int = 0, *, check: bool = True, group: str = WORLD_COMM_GROUP
    ) -> None:
        """Move parameters in place by all steps from the `start`-th one on.

        Parameters
        ----------
        x : Cell or iterable of Parameter
            Full parameters or shards.
        start : int
            Where the parameters are in the log; 0 is the base.
        check : bool
            Whether to compare fingerprints with the base first, if `start` is 0. Those of shards are added up over the
            ranks of `group`, which must all call this. Names, shapes and dtypes are always compared.
        group : str
            Ranks that hold all shards.

        Raises
        ------
        MismatchError
            If they are not the base; nothing is changed then. It names the parameter.
        StateError
            If the ranks do not hold all of a parameter.
        """
        parameters = parameters_of(x)
        self._check(parameters)
        if check and not start:
            self._compare(parameters, group)
        self._apply(parameters, start)

    def parameters(self, base: Base, *, check: bool = True, group: str = WORLD_COMM_GROUP) -> dict[str, Parameter]:
        """Return the parameters after all steps, lazy: any slice or region costs only itself.

        Parameters
        ----------
        base : Cell, mapping, iterable of Parameter, or path of a checkpoint
            The parameters before the first step. Those in memory must stay as they are until the result is read.
        check, group
            As for `apply`; comparing fingerprints reads the base once.

        Raises
        ------
        MismatchError
            If it is another base. It names the parameter.
        StateError
            If it has shards, and the ranks do not hold all of a parameter.
        CheckpointError
            If the checkpoint cannot be read.
        """
        found: dict[str, Parameter] = {}
        given = {
            name: tensor if isinstance(tensor, Parameter) else Parameter(tensor, name=name)
            for name, tensor in _tensors(base).items()
        }
        self._check(given.values())
        if check:
            self._compare(given.values(), group)
        for name, parameter in given.items():
            twin = parameter._sibling()
            twin._values = Perturbed(
                parameter._named(), name, parameter.region, self._noise, list(self.seeds), list(self.coefficients)
            )
            found[name] = twin
        if missing := [name for name in self.base if name not in found]:
            raise MismatchError(f"{self.path}: the base has no parameter {missing[0]!r}, which the log moves")
        return found

    def __len__(self) -> int:
        return len(self.seeds)

    def __repr__(self) -> str:
        return f"Replay({str(self.path)!r}, {amount(len(self), 'step')} of {amount(len(self.base), 'parameter')})"

    # ------------------------------------------------------------------ the parts

    def _write(self, file: io.FileIO, content: bytes) -> None:
        """Write what follows the steps in the file."""
        rest = memoryview(content)
        try:
            file.truncate(self._end)
            file.seek(self._end)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            self._size = file.truncate(self._end)
            raise
        self._size = self._end + len(content)

    def _keep(self, seed: int, coefficient: float) -> None:
        self.seeds.append(seed)
        self.coefficients.append(coefficient)
        self._end += _STEP.size

    def _apply(self, parameters: Iterable[Parameter], start: int) -> None:
        for parameter in parameters:
            memory = writable(parameter).reshape(parameter.shape)
            steps = self.seeds[start:], self.coefficients[start:]
            self._noise.write(memory, memory, parameter.name, parameter.region, *steps)

    def _check(self, parameters: Iterable[Parameter]) -> None:
        for parameter in parameters:
            name = parameter.name
            if name not in self.base:
                raise MismatchError(f"{self.path}: the log has no parameter {shown(name)}")
            shape, dtype = parameter.region.full_shape, parameter.dtype.name
            if (shape, dtype) != (self.base[name].shape, self.base[name].dtype):
                raise MismatchError(
                    f"{self.path}: parameter {name!r}: the base had {self.base[name].dtype} of shape "
                    f"{self.base[name].shape}, found {dtype} of shape {shape}"
                )
            self._noise.check(name, parameter.dtype, shape)

    def _compare(self, parameters: Iterable[Parameter], group: str) -> None:
        """Compare parameters with the base, and shards together with those of the other ranks."""
        found, shards = {}, []
        for parameter in parameters:
            held = parameter.clone() if parameter.has_init else parameter  # a lazy shard stays lazy
            region = None if parameter.region.is_full else parameter.region
            found[parameter.name] = of_array(held, region=region, name=parameter.name)
            shards += [] if region is None else [parameter.name]
        if shards:
            found.update(_joined([found[name] for name in shards], get_group(group)))
        for name, each in found.items():
            if not each.complete:
                raise StateError(
                    f"{self.path}: the ranks of group {group!r} hold a part of parameter {name!r}, and full parameters "
                    "are compared with the base: call this on the ranks that hold the other shards too, or give "
                    "check=False"
                )
            if each != self.base[name]:
                raise MismatchError(
                    f"{self.path}: parameter {name!r} is not the base of this log: its fingerprint is {each}, "
                    f"and was {self.base[name]} before the first step"
                )


def recorded(checkpoint: Checkpoint, elsewhere: bool = False) -> tuple[Path, Path] | None:
    """Return the base and the log that a file which ``numparam replay`` wrote was rebuilt from, or None.

    They are in the folder of the file, or anywhere with `elsewhere`: a file from others could name any.
    """
    texts = parse_object(checkpoint.metadata.get(TEXTS, "{}").encode(), f"{checkpoint.path}: {TEXTS}")
    if not texts.keys() >= {BASE, LOG}:
        return None
    for name in (base := str(texts[BASE]), log := str(texts[LOG])):
        if "\0" in name or not (elsewhere or is_plain(name)):
            raise CheckpointError(
                f"{checkpoint.path}: its record names {shown(name)}, which is not in its folder; numparam verify "
                "--elsewhere follows such a record"
            )
    return checkpoint.path.parent / base, checkpoint.path.parent / log


def _check(number: int, seed: int, coefficient: float) -> int:
    return zlib.crc32(struct.pack("<QQd", number, seed, coefficient))


def _joined(shards: Sequence[Fingerprint], group: Group) -> Fingerprints:
    """Return the fingerprints of parameters of which the ranks of a group hold shards, or copies of them."""
    operation = f"fingerprints of {', '.join(each.name for each in shards):.120}"
    arrive(group, operation)
    own = [[*each.sums, *(n for part in each.boxes[0] for n in (part.start, part.stop, part.step))] for each in shards]
    tables = {}
    for rank, row in enumerate(gather_small(group, operation, np.array([*chain(*own)])).tolist()):
        numbers = iter(row)
        tables[rank] = {
            each.name: Fingerprint(
                each.shape,
                each.dtype,
                (next(numbers), next(numbers)),
                (tuple(range(*islice(numbers, 3)) for _ in each.shape),),
                name=each.name,
            )
            for each in shards
        }
    return Fingerprints.join(tables)


def _tensors(base: Any) -> dict[str, Tensor]:
    """Return parameters by name; those of a file are mapped, and read where they are touched."""
    if isinstance(base, str | os.PathLike):
        return {name: each for name, each in load_checkpoint(base).items() if isinstance(each, Tensor)}
    if isinstance(base, Mapping):
        if bad := [name for name, each in base.items() if not isinstance(each, Tensor | np.ndarray)]:
            raise ArgumentTypeError(f"parameter {bad[0]!r}: expected a Tensor, found {type(base[bad[0]]).__name__}")
        return {name: each if isinstance(each, Tensor) else Tensor.from_numpy(each) for name, each in base.items()}
    return {parameter.name: parameter for parameter in parameters_of(base)}
