"""Read mutated checkpoints of every format: each gives values or an error of numparam, within limits.

    python tests/long/mutated_files.py 1000000

Memory is capped at 4 GiB of address space beyond the start, each file at 10 seconds. One line tells the counts.
"""

from __future__ import annotations

import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import numparam
from numparam.errors import NumparamError

SECONDS = 10
BEYOND_START = 4 << 30


def write_checkpoints(folder: Path) -> list[tuple[Path, Path]]:
    """Save a checkpoint of each format; return pairs of the file to mutate and the file to load."""
    values = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.int64)}
    parameters = [numparam.Parameter(value, name=name) for name, value in values.items()]
    lazy = numparam.Parameter(numparam.initializer.initializer("normal", (4, 4)), name="c")
    single, mindspore, index = folder / "m.safetensors", folder / "n.ckpt", folder / "s.safetensors.index.json"
    numparam.save_checkpoint([*parameters, lazy], single)
    numparam.save_checkpoint(parameters, mindspore)
    numparam.save_checkpoint(parameters, folder / "s.safetensors", max_shard_bytes=64)
    pieces = sorted(folder.glob("s-*.safetensors"))
    return [(single, single), (mindspore, mindspore), (index, index), *[(piece, index) for piece in pieces]]


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Change, repeat, drop or cut bytes; the first ones, where headers are, more often."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = int(len(changed) * chance.random() ** 2)
        length = chance.choice((1, 1, 2, 16))
        kind = chance.randrange(4)
        if kind == 0:
            changed[at : at + length] = chance.randbytes(length)
        elif kind == 1:
            changed[at:at] = changed[at : at + length] * chance.choice((1, 3, 200))
        elif kind == 2:
            del changed[at : at + length]
        else:
            changed[at : at + 1] = chance.choice((b"9", b"-", b"[", b"{", b'"', b"\\ud800", b"\xff", b"\x00"))
    return bytes(changed)


def too_late(*_: object) -> None:
    """Stop a read that takes longer than its limit."""
    raise TimeoutError(f"a file took more than {SECONDS} s")


def prove(count: int, seed: int = 0) -> str:
    """Read `count` mutated files; raise for the first that breaks the promise, else return the counts."""
    chance = random.Random(seed)
    refused, slowest = 0, 0.0
    before = signal.signal(signal.SIGALRM, too_late)
    try:
        with tempfile.TemporaryDirectory() as name:
            targets = write_checkpoints(Path(name))
            contents = [changed.read_bytes() for changed, _ in targets]
            for number in range(count):
                which = number % len(targets)
                changed, loaded = targets[which]
                changed.write_bytes(mutate(contents[which], chance))
                start = time.perf_counter()
                signal.alarm(SECONDS)
                try:
                    for parameter in numparam.load_checkpoint(loaded).values():
                        parameter.asnumpy()
                except NumparamError:
                    refused += 1
                finally:
                    signal.alarm(0)
                    slowest = max(slowest, time.perf_counter() - start)
                    changed.write_bytes(contents[which])
    finally:
        signal.signal(signal.SIGALRM, before)
    return f"mutated files: {count} read, {refused} refused, {count - refused} loaded, the slowest {slowest:.2f} s"


if __name__ == "__main__":
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + BEYOND_START, size + BEYOND_START))
    print(prove(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
