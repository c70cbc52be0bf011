"""Saves of every kind, whose values all are one number, and an error at any instant of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from numparam import Parameter, Tensor, load_checkpoint, save_checkpoint, save_distributed_checkpoint, write_index
from numparam.checkpoint.opening import open_checkpoint
from numparam.entry import Entry
from numparam.indexing.region import Region
from numparam.initializer import Constant, initializer
from numparam.model.generation import Generation
from numparam.model.verification import verify
from numparam.rules import Rules

Save = Callable[[Path, int], object]
INDEX = ".safetensors.index.json"
RULES = Rules.from_toml('defaults = false\n[[rules]]\nglob = "*"\ninit = "zeros"\n')


def single(path: Path, number: int) -> None:
    save_checkpoint({name: np.full(9, number, np.float32) for name in "abc"}, path)


def sharded(path: Path, number: int) -> None:
    save_checkpoint({name: np.full(9, number, np.float32) for name in "abc"}, path, max_shard_bytes=40)


def recipes(path: Path, number: int) -> None:
    save_checkpoint([Parameter(initializer(Constant(number), (3, 3)), name=name) for name in "abc"], path, recipes=True)


def distributed(path: Path, number: int) -> None:
    for rank in range(2):
        part = Parameter(Tensor(np.full((2, 3), number, np.float32)), name="a")
        part._region = Region.full((4, 3))[2 * rank : 2 * rank + 2]
        save_distributed_checkpoint([part], path, rank=rank, ranks=2, attempt=f"attempt {number}")
    write_index(path, 2)


def mindspore(path: Path, number: int) -> None:
    save_checkpoint({name: np.full(9, number, np.float32) for name in "abc"}, f"{path}.ckpt", crc_check=True)


def init(path: Path, number: int) -> None:
    entries = tuple(Entry(name, (9,), np.dtype(np.float32)) for name in "abc")
    Generation(entries, number, RULES).write(Path(f"{path}.safetensors"))


KINDS: dict[str, Save] = {save.__name__: save for save in (single, sharded, recipes, distributed, mindspore, init)}
_SUFFIXES = {"mindspore": ".ckpt", "sharded": INDEX, "distributed": INDEX}


def target(path: Path, kind: str) -> Path:
    """Return the file that a reader opens."""
    return path.with_name(path.name + _SUFFIXES.get(kind, ".safetensors"))


def number_in(path: Path, kind: str) -> int:
    """Return the number that a checkpoint holds; of two saves there would be two."""
    file = target(path, kind)
    if kind == "init":
        checkpoint = open_checkpoint(file)
        assert verify(checkpoint) == []
        return int(checkpoint.metadata["numparam.seed"])
    found = load_checkpoint(file, crc_check=kind == "mindspore")
    assert len(found) == (1 if kind == "distributed" else 3)
    [number] = {float(number) for tensor in found.values() for number in np.unique(tensor.asnumpy())}
    return int(number)


_TRACED = {
    *("saving", "writing", "atomic_file", "attempt", "distributed_saving", "distributed_index", "names", "contextlib"),
    *("mindspore_file", "generation"),
}
_SYSTEM_CALLS = {
    *("fsync", "replace", "unlink", "fchmod", "fchown", "flock", "open", "close", "listdir", "scandir", "statvfs"),
    *("FileIO.write", "pwrite", "posix_fallocate", "FileIO.close", "FileIO.fileno", "preadv"),
}


class Interrupt:
    """Do something, such as to raise an error, at the n-th instant of a save; count the instants."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.at, self.seen, self.act, self.done = at, 0, act, False

    def _instant(self) -> None:
        self.seen += 1
        if self.seen > self.at:
            self.done = True
            self.act()

    def line(self, frame: FrameType, event: str, _: Any) -> Any:
        """Trace each line of the modules that save, for `sys.settrace`."""
        if event == "call" and Path(frame.f_code.co_filename).stem not in _TRACED:
            return None
        if event == "line" and not self.done:
            self._instant()
        return self.line

    def system_call(self, _frame: FrameType, event: str, function: Any) -> None:
        """Trace the system before and after it does something, for `sys.setprofile`."""
        called = event in ("c_call", "c_return") and getattr(function, "__qualname__", "") in _SYSTEM_CALLS
        if called and not self.done:
            self._instant()


def stems(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
