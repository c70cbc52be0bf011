"""Read mutated files with every reader: each gives values or one sentence of numparam, within memory and time."""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import numparam
from numparam import Cell, Fingerprints, Parameter, load_checkpoint
from numparam.checkpoint.opening import open_checkpoint
from numparam.cli import main
from numparam.entry import Entry
from numparam.errors import NumparamError
from numparam.initializer import initializer
from numparam.layout.sharding import Shard
from numparam.model.generation import Generation
from numparam.model.specification import resolve
from numparam.model.verification import verify
from numparam.perturb import Replay
from numparam.rules import Rules
from numparam.tensor import Recipe
from savers import INDEX, distributed

FULL = 1_000_000
LINE = """{files} mutated files, {refused} refused with a sentence, {read} read, under 256 MiB beyond the start and
30 s of CPU time each; the slowest took {slowest} ms"""
BEYOND_START, CPU_SECONDS, SECONDS = 256 << 20, 30, 600  # a dtype may need a kernel that is compiled first
SMALL = 1 << 16  # bytes of a recipe that is followed
RULES = """[[rules]]
glob = ["*.bias", "*b"]
init = "zeros"
[[rules]]
regex = "(a|c)+\\\\.wei.*t|[^d]{2,3}"
init = "truncated_normal"
sigma = 0.5
[[rules]]
glob = ["[ac]*", "normal", "orthogonal", "xavier_uniform", "part"]
init = "orthogonal"
gain = 2
"""
NUMBERS = (b"-1", b"0", b"1", b"64", b"1e400", b"NaN", b"true", b"null", b"1.5", b"9" * 30)
NUMBERS += tuple(str(2**power + more).encode() for power in (31, 32, 53, 62, 63, 64) for more in (-1, 0))
MARKS = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\\ud800", b"\\u202e", b"\x1b[2J", b"\xff", b"\x00", b"\n")


class Case(NamedTuple):
    """A file to mutate, the file to read, what reads it, and whether what is read must be as it was."""

    file: Path
    read: Path
    reader: Callable[[Path], None]


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Change a file as chance, disks and attackers do, its first bytes more often."""
    out = bytearray(content)
    kinds = chance.choice((range(8), (4, 5, 7)))  # the latter leave JSON what it is
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        place = int((len(out) + 1) * chance.random() ** 1.5)
        length = chance.choice((1, 1, 2, 8, 40))
        match chance.choice(kinds):
            case 0:
                out[place : place + length] = chance.randbytes(length)
            case 1:
                del out[place : place + length]
            case 2:
                start = chance.randrange(len(out) + 1)
                out[place:place] = out[start : start + length] * chance.choice((1, 1, 3, 200))
            case 3:
                del out[place:]
            case 4 | 5:
                digits = [at for at in range(len(out)) if 48 <= out[at] < 58]
                if digits:
                    end = at = chance.choice(digits)
                    while end < len(out) and 48 <= out[end] < 58:
                        end += 1
                    out[at:end] = chance.choice(NUMBERS)
            case 6:
                out[place : place + chance.randrange(2)] = chance.choice(MARKS)
            case 7:
                names = content.split(b'"')[1::2]
                at = out.find(chance.choice(names)) if names else -1
                if at >= 0:
                    out[at : at + length] = chance.choice(names)
    if content[8:9] == b"{" and chance.random() < 0.7:  # else nearly all fail at the length of the header
        size = len(content) - 8 - int.from_bytes(content[:8], "little")
        out[:8] = max(len(out) - 8 - size, 0).to_bytes(8, "little")
    return bytes(out)


def touch(found: dict[str, Any]) -> None:
    """Read all that was loaded, but the recipes of what is large."""
    for value in found.values():
        repr(value)
        if isinstance(value, str):
            continue
        recipe = value._named()
        if not isinstance(recipe, Recipe) or np.prod(recipe.region.full_shape, dtype=float) < SMALL:
            value.asnumpy()


def load(path: Path) -> None:
    touch(load_checkpoint(path))


def load_same(expected: dict[str, np.ndarray], path: Path) -> None:
    """Load an index whose files are sound: what has its name, shape and dtype has its values."""
    for name, value in load_checkpoint(path).items():
        known = expected.get(name)
        if known is not None and (known.shape, known.dtype) == (value.shape, value.dtype):
            assert np.array_equal(value.asnumpy(), known), f"{name} has other values"


def load_into_cell(path: Path) -> None:
    net = Cell()
    net.a, net.b = Parameter(np.zeros((3, 4), np.float32)), Parameter(np.zeros(5, np.int64))
    with contextlib.suppress(RuntimeError):  # what does not fit
        load_checkpoint(path, net)


def check_record(path: Path) -> None:
    verify(open_checkpoint(path))


def read_rules(entries: tuple[Entry, ...], path: Path) -> None:
    for rule in Rules.from_file(path).assign(entries).values():
        str(rule)


def run(arguments: list[str], path: Path) -> None:
    """Run the command line."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main([str(path) if each == "FILE" else each for each in arguments])
    assert status in (0, 1, 2), status
    said = out.getvalue() + err.getvalue()
    assert all(line.isprintable() for line in said.split("\n")), said
    assert "not enough memory" not in said
    if status == 2:
        assert err.getvalue().count("\n") == 1, err.getvalue()
        raise NumparamError(err.getvalue().strip())


def cases(folder: Path) -> list[Case]:
    """Write a file of every kind."""
    values = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.int64)}
    parameters = [Parameter(value, name=name) for name, value in values.items()]
    parameters[0].requires_grad = False
    lazy = [Parameter(initializer(init, (4, 4)), name=init) for init in ("normal", "orthogonal", "xavier_uniform")]
    recipes = {each.name: each for each in [*parameters, *lazy]} | {"part": lazy[0][1:, ::2], "t": "text"}
    numparam.save_checkpoint(recipes, folder / "r", recipes=True)
    numparam.save_checkpoint(parameters, folder / "m", append_dict={"step": 3, "t": "text"})
    numparam.save_checkpoint(parameters, folder / "n.ckpt", append_dict={"t": "text"}, crc_check=True)
    numparam.save_checkpoint(parameters, folder / "s", max_shard_bytes=64)
    distributed(folder / "d", 7)
    shapes = {"a.weight": (6, 4), "b": (8,), "c": (4, 6)}
    entries = tuple(Entry(name, shape, np.dtype(np.float32)) for name, shape in shapes.items())
    (folder / "rules.toml").write_text(RULES)
    rules = Rules.from_file(folder / "rules.toml")
    Generation(entries, 7, rules).write(folder / "g.safetensors")
    Generation(entries, 7, rules, Shard.parse("1/2", "0")).write(folder / "h.safetensors")
    repeat = {"repeat": 3, "as": "{i}", "from": 1, "parameters": [["layer.{i}.b", [8], "float32"]]}
    specification = {"title": "t", "source": "s", "dtype": "bfloat16", "parameters": [["a", [6, 4]], repeat]}
    (folder / "spec.json").write_text(json.dumps(specification))
    numparam.fingerprint(folder / "m.safetensors").save(folder / "f.json")
    Replay.create(folder / "l.replay", parameters[:1]).append([1, 2, 3], [0.5, -0.5, 1.0])

    def of(name: str, *readers: Callable[[Path], None], read: str = "") -> Iterator[Case]:
        yield from (Case(folder / name, folder / (read or name), reader) for reader in readers)

    command = partial(partial, run)
    output = ["-o", str(folder / "out.safetensors"), "--seed", "1"]
    output += ["--rules", str(folder / "rules.toml"), "--dry-run"]
    like = command(["init", "--like", "FILE", *output])
    plan, inspect, check = (
        command(["plan", "--like", "FILE", "--mesh", "2"]),
        command(["inspect", "FILE"]),
        command(["verify", "FILE"]),
    )
    loads, commands = [], []
    loads += of("m.safetensors", load, load_into_cell)
    loads += of("r.safetensors", load)
    loads += of("n.ckpt", load, lambda path: touch(load_checkpoint(path, crc_check=True)))
    loads += of(f"s{INDEX}", partial(load_same, values))
    loads += of(f"d{INDEX}", partial(load_same, {"a": np.full((4, 3), 7, np.float32)}))
    loads += of(next(folder.glob("s-*-of-00002.safetensors")).name, load, read=f"s{INDEX}")
    loads += of(next(folder.glob("d-*rank-00001*")).name, load, read=f"d{INDEX}")
    loads += of("g.safetensors", check_record)
    loads += of("h.safetensors", check_record)
    loads += of("spec.json", lambda path: str(resolve(str(path))))
    loads += of("rules.toml", partial(read_rules, entries))
    loads += of("f.json", lambda path: str(Fingerprints.load(path)))
    loads += of("l.replay", lambda path: touch(dict(Replay.open(path).parameters(parameters[:1], check=False))))
    commands += of("r.safetensors", inspect, like)
    commands += of("m.safetensors", command(["inspect", "FILE", "--stats"]))
    commands += of("h.safetensors", check, inspect)
    commands += of("g.safetensors", check, plan, command(["fingerprint", "FILE"]))
    commands += of("spec.json", like, plan)
    commands += of("rules.toml", command(["init", "--like", "minilm-l6", *output]))
    commands += of(f"d{INDEX}", inspect, plan)
    commands += of("f.json", command(["compare", "FILE", str(folder / "m.safetensors")]))
    return loads * 40 + commands


def too_long(number: int, _: object) -> None:
    raise AssertionError(f"it takes too long: {signal.Signals(number).name}")


def prove(count: int, seed: int, folder: Path) -> Counter[str]:
    """Read `count` mutated files; raise for the first that breaks the promise."""
    import logging

    logging.getLogger("numparam").addHandler(logging.NullHandler())
    numparam.set_num_threads(1)
    chance, counts, slowest = random.Random(seed), Counter[str](files=count), 0.0
    chosen = cases(folder)
    contents = {case.file: case.file.read_bytes() for case in chosen}
    for case in dict.fromkeys(chosen):  # all is loaded before memory is bounded
        case.reader(case.read)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + BEYOND_START, size + BEYOND_START))
    signal.signal(signal.SIGPROF, too_long)
    signal.signal(signal.SIGALRM, too_long)
    for _ in range(count):
        case = chance.choice(chosen)
        content = mutate(contents[case.file], chance)
        case.file.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            case.reader(case.read)
        except NumparamError as error:
            counts["refused"] += 1
            if not str(error).isprintable() or len(str(error)) > 4000:
                raise AssertionError(f"{case.file.name} {content!r}: {str(error)!r}") from None
        except BaseException as error:
            raise AssertionError(f"{case.file.name} {content!r}") from error
        else:
            counts["read"] += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            slowest = max(slowest, CPU_SECONDS - signal.setitimer(signal.ITIMER_PROF, 0)[0])
        case.file.write_bytes(contents[case.file])
    counts["slowest"] = round(1000 * slowest)
    return counts
