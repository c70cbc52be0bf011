"""Save to full disks, without permission and to odd paths: the new checkpoint is there, or the old one and an error."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from numparam import load_checkpoint
from numparam.checkpoint import writing
from numparam.errors import MAX_MESSAGE
from savers import KINDS, number_in, stems

FULL, LEAST = 10_000, 72
LINE = """{saves} saves of 6 kinds ({full} to a full disk, {long} beyond the allowed size of a file, {denied} without
permission, {odd} to odd paths): {saved} saved and read back, {refused} refused by one sentence with the old checkpoint
unchanged, no file left over"""
NOBODY, FOLDER_BYTES = 65534, 1 << 20
ODD = [
    "a b",
    "ä\u0301ö",
    "日本",
    "-o",
    "--help",
    "~",
    "%s{0}",
    "'\"`$(x)",
    "a\nb",
    "\x1b[2J",
    "\u202egnp",
    " ",
    "a.b.c",
    "*?[",
]
ODD += [
    "x" * 200,
    "x" * 300,
    "a\0b",
    "\ud800",
    "\udcff",
    "",
    ".",
    "..",
    "no/such",
    "m/",
    "link",
    "loop",
    "dangling",
    "pipe",
]
Attempt = Callable[[str, random.Random, Path], tuple[Path, bool]]


def mount(folder: Path) -> bool:
    """Give this process alone a disk of 1 MiB, which only root can."""
    libc = ctypes.CDLL(None)
    folder.mkdir()
    if os.geteuid() or libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x44000, None):
        return False
    return not libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={FOLDER_BYTES}".encode())


def refused(save: Callable[[], object]) -> bool:
    """Save; return whether it was refused, by an error of one printable sentence."""
    try:
        save()
    except (OSError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
    else:
        return False
    assert said.isprintable(), repr(said)
    assert len(said) <= MAX_MESSAGE + 99, len(said)
    assert "Unicode" not in said, said
    return True


def full(kind: str, chance: random.Random, folder: Path) -> bool:
    """Save where another file has taken nearly all of the disk."""
    with (folder / "other").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            file.write(bytes(FOLDER_BYTES))
        file.truncate(max(file.tell() - chance.randrange(40_000), 0))
    try:
        return refused(lambda: KINDS[kind](folder / "m", 2))
    finally:
        (folder / "other").unlink()


def long(kind: str, chance: random.Random, folder: Path) -> bool:
    """Save where a file can have some bytes only, as with a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (chance.randrange(1500), before[1]))
    try:
        return refused(lambda: KINDS[kind](folder / "m", 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def denied(kind: str, chance: random.Random, folder: Path) -> bool:
    """Save as nobody, where the folder or the files may not be written."""
    where = chance.choice(("folder", "files", "neither"))
    for path in folder.iterdir():
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o444 if where == "files" else 0o644)
    os.chown(folder, NOBODY, NOBODY)
    folder.chmod(0o555 if where == "folder" else 0o755)
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 9
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            status = int(refused(lambda: KINDS[kind](folder / "m", 2)))
        except BaseException:
            os.write(sending, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(sending)
    said = b"".join(iter(lambda: os.read(receiving, 1 << 16), b"")).decode()
    os.close(receiving)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1), f"{status} {said}"
    assert status or where != "folder", "it was written to a folder without permission"
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    return bool(status)


def odd(kind: str, chance: random.Random, folder: Path) -> bool:
    """Save to a path that few have thought of, and remove what was saved."""
    name, before = chance.choice(ODD), set(folder.iterdir())
    for suffix in ("", ".safetensors", ".ckpt", ".safetensors.index.json"):
        place = folder / f"{name}{suffix}"
        if name == "loop":
            place.symlink_to(place.name)
        elif name == "dangling":
            place.symlink_to("no/such")
        elif name == "pipe":
            os.mkfifo(place)
        elif name == "link":
            place.symlink_to(f"linked{suffix}")
    path = folder / name if chance.random() < 0.5 else Path(f"{folder}/./{name}")
    there = set(folder.iterdir())
    result = refused(lambda: KINDS[kind](path, 2))
    after = set(folder.iterdir())
    if result:
        assert after == there, f"{kind} {name!r}: it was refused and left {sorted(after - there)}"
    elif name not in ("", ".", "..", "m/"):
        assert number_in(path, kind) == 2, repr(name)
    for file in after - before:
        file.unlink()
    return result


def prove(count: int, seed: int, folder: Path) -> Counter[str]:
    """Save `count` times; raise for the first that is lost, mixed, or refused otherwise than by a sentence."""
    chance, counts = random.Random(seed), Counter[str](saves=count)
    os.fsync = os.fstat  # type: ignore[assignment]
    writing.CHUNK_BYTES = 64
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    ways = [long, denied, odd]
    disk = folder / "disk"
    if mount(disk):
        ways.append(full)
    for number in range(count):
        kind, way = list(KINDS)[number % len(KINDS)], ways[number // len(KINDS) % len(ways)]
        place = (disk if way is full else folder) / kind
        if not place.exists():
            place.mkdir()
        KINDS[kind](place / "m", 1)
        before = {path.name: path.read_bytes() for path in place.iterdir()}
        result = way(kind, chance, place)
        after = {path.name: path.read_bytes() for path in place.iterdir()}
        counts["refused" if result else "saved"] += 1
        counts[way.__name__] += 1
        what = f"{kind} {way.__name__}"
        if way is odd or result:
            if kind == "distributed" and way is not odd:  # the files of ranks that had been written are there
                load_checkpoint(place / "m.safetensors.index.json")
                assert number_in(place / "m", kind) == 1, what
                KINDS[kind](place / "m", 3)
                assert len(stems(place)) == len(before), f"{what}: {sorted(after)}"
            elif not (way is odd and not result):
                assert after == before, f"{what}: {sorted(after)}, not {sorted(before)}"
        else:
            assert number_in(place / "m", kind) == 2, what
            assert len(after) == len(before), f"{what}: {sorted(after)}"
        for path in place.iterdir():
            path.unlink()
    return counts
