"""Fresh parameters for a model: what decides their values, and the record of it inside the file.

The record is the safetensors metadata: ``numparam.seed``, ``numparam.stream`` (the version of the random stream),
``numparam.rules`` (all rules, the defaults included, as canonical JSON), ``numparam.parameters`` (how many there are),
where a model's code computed some, ``numparam.computed`` (the SHA-256 of each in this file, by its name)
and, in the file of a shard, ``numparam.shard``, ``numparam.axes`` and ``numparam.shapes`` (the shapes of the full
parameters). Names, dtypes and the shapes of slices are in the header anyway, so a file holds all that is needed to
generate it again.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.checkpoint.attempt import ATTEMPT
from numparam.checkpoint.distributed_index import NAMES
from numparam.checkpoint.names import INDEX_SUFFIX, refuse_twin, stem_of
from numparam.checkpoint.opening import Checkpoint
from numparam.checkpoint.piece import Piece, write_record
from numparam.checkpoint.sharded import groups_of, write_sharded
from numparam.checkpoint.writing import write_checkpoint
from numparam.device import device
from numparam.entry import Block, Entry
from numparam.errors import CheckpointError, NumparamError
from numparam.indexing.region import Region, as_shape
from numparam.initializer.computed import Computed
from numparam.layout.sharding import Shard
from numparam.rules import Rule, Rules
from numparam.stream.seed import STREAM_VERSION, as_seed
from numparam.tensor import Recipe
from numparam.text import printable, shown


@dataclass(frozen=True)
class Generation:
    """Generate the parameters of a model, or one shard of each, from a seed and rules, on a device."""

    entries: tuple[Entry, ...]
    seed: int
    rules: Rules
    shard: Shard | None = None
    device: str = "cpu"
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of a file: SHA-256 of the parameters that the code of a model has computed."""
    chosen: dict[str, Rule] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chosen", self.rules.assign(self.entries))
        for entry in self.entries:
            rule = self.chosen[entry.name]
            try:
                rule.initializer.check(entry.shape, entry.dtype)
            except NumparamError as error:
                raise type(error)(f"parameter {entry.name!r} gets {rule}: {error}") from None

    @property
    def local_entries(self) -> tuple[Entry, ...]:
        """Return the parameters as they are in the file: with the shapes of the slices."""
        return tuple(entry._replace(shape=self.region(entry).shape) for entry in self.entries)

    def region(self, entry: Entry) -> Region:
        """Return the part of a full parameter that is generated."""
        full = Region.full(entry.shape)
        return full if self.shard is None else full[self.shard.slices(entry.shape)]

    def recipe(self, entry: Entry) -> Recipe:
        """Return the recipe of the generated part of a full parameter."""
        init, region = self.chosen[entry.name].initializer, self.region(entry)
        return Recipe.of(init, entry.name, region, entry.dtype, self.seed, device(self.device))

    def blocks(self, entry: Entry) -> Iterator[Block]:
        """Split the values of a full parameter into blocks of at most `BUFFER_BYTES`, in row-major order."""
        return self.recipe(entry).blocks()

    def write(
        self, path: Path, progress: Callable[[int], None] | None = None, max_shard_bytes: int | None = None
    ) -> int:
        """Write the parameters to a safetensors file, or to several and an index; return the bytes of the files."""
        by_name = {entry.name: entry for entry in self.entries}
        groups = groups_of(list(self.local_entries), max_shard_bytes)
        refuse_twin(path.with_name(stem_of(path) + INDEX_SUFFIX) if len(groups) > 1 else path)

        def blocks(entry: Entry) -> Iterator[Block]:
            return self.blocks(by_name[entry.name])

        if len(groups) > 1:
            return write_sharded(path, groups, self.metadata(), blocks, progress)
        return write_checkpoint(path, groups[0], self.metadata(), blocks, progress)

    def is_computed(self, entry: Entry) -> bool:
        """Return whether the code of a model, which a record lacks, computes a parameter."""
        return isinstance(self.chosen[entry.name].initializer, Computed)

    def _digest(self, entry: Entry) -> str:
        digest = sha256()
        for block in self.blocks(entry):
            block.fill(values := np.empty(block.shape, entry.dtype))
            digest.update(values.tobytes())
        return digest.hexdigest()

    def metadata(self) -> dict[str, str]:
        """Return the record that `from_checkpoint` reads."""
        record = {
            "format": "pt",  # without it, transformers refuses the file
            "numparam.parameters": str(len(self.entries)),
            "numparam.rules": self.rules.to_json(),
            "numparam.seed": str(self.seed),
            "numparam.stream": str(STREAM_VERSION),
        }
        if computed := {entry.name: self._digest(entry) for entry in self.entries if self.is_computed(entry)}:
            record["numparam.computed"] = json.dumps(computed, sort_keys=True, separators=(",", ":"))
        if self.shard is not None:
            shapes = {entry.name: entry.shape for entry in self.entries}
            record["numparam.axes"] = self.shard.axes_text
            record["numparam.shapes"] = json.dumps(shapes, sort_keys=True, separators=(",", ":"))
            record["numparam.shard"] = str(self.shard)
            pieces = {entry.name: Piece.of(self.region(entry)) for entry in self.entries}
            record |= write_record({name: piece for name, piece in pieces.items() if piece is not None})
            record[NAMES] = json.dumps(list(pieces), ensure_ascii=False, separators=(",", ":"))
            record[ATTEMPT] = (
                f"seed {self.seed}, {self.shard.axes_text}, {sha256(self.rules.to_json().encode()).hexdigest()}"
            )
        return record

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "Generation":
        """Read the record in a file."""
        record, where = checkpoint.metadata, str(checkpoint.path)
        for key in ("parameters", "rules", "seed", "stream"):
            if f"numparam.{key}" not in record:
                raise CheckpointError(f"{where}: its metadata has no numparam.{key}: numparam init did not write it")
        if record["numparam.stream"] != str(STREAM_VERSION):
            raise CheckpointError(
                f"{where}: it holds values of random stream {shown(record['numparam.stream'])}; "
                f"this numparam generates stream {STREAM_VERSION}"
            )
        count = record["numparam.parameters"]
        if count != str(len(checkpoint.entries)):
            raise CheckpointError(
                f"{where}: numparam init wrote {printable(count, 80)} parameters, found {len(checkpoint.entries)}"
            )
        try:
            seed = as_seed(int(record["numparam.seed"]))
            shard = None
            shapes: Mapping[str, tuple[int, ...]] = {}
            if "numparam.shard" in record:
                shard = Shard.parse(record["numparam.shard"], record["numparam.axes"])
                shapes = {name: as_shape(shape) for name, shape in json.loads(record["numparam.shapes"]).items()}
            entries = tuple(
                entry._replace(shape=shapes[name] if shard else entry.shape)
                for name, entry in checkpoint.entries.items()
            )
            digests = {str(name): str(each) for name, each in json.loads(record.get("numparam.computed", "{}")).items()}
            rules = Rules.from_json(record["numparam.rules"], "its rules")
            generation = cls(entries, seed, rules, shard, digests=digests)
        except (NumparamError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{where}: its record cannot be followed: {error}") from None
        for found, entry in zip(checkpoint.entries.values(), generation.local_entries, strict=True):
            if found != entry:
                raise CheckpointError(
                    f"{where}: parameter {found.name!r} has shape {found.shape}; its record has {entry.shape}"
                )
        for entry in entries:
            if generation.is_computed(entry) and entry.name not in digests:
                raise CheckpointError(f"{where}: its record has no SHA-256 of parameter {entry.name!r}")
            init, region = generation.chosen[entry.name].initializer, generation.region(entry)
            checkpoint.work.add(init, region, entry.dtype.itemsize, f"{where}: parameter {entry.name!r}")
        return generation


def with_dtype(entries: tuple[Entry, ...], dtype: np.dtype[Any]) -> tuple[Entry, ...]:
    """Give the floating-point parameters another dtype; integers and bools keep theirs."""
    return tuple(entry._replace(dtype=dtype) if dtypes.is_floating(entry.dtype) else entry for entry in entries)
