"""Dense parameters of servers go on where they were, on any number of servers; roles come from the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numparam import Parameter, load_checkpoint, save_checkpoint
from numparam.errors import ArgumentValueError, CheckpointError, CheckpointFileError, StateError
from numparam.initializer import Normal, initializer
from numparam.optim import FTRL, SGD, Adam, Lamb, Momentum, RowwiseAdagrad
from numparam.server import context, dense, messages, reset_ps_context, set_ps_context
from numparam.server.dense import Dense
from numparam.server.service import check_one_save

Array = np.ndarray[Any, Any]

SHAPES = {"weight": (7, 3), "bias": (5,)}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_PIECE_BYTES", 24)  # two rows


def parameters(in_server: bool = True) -> list[Parameter]:
    made = [Parameter(initializer(Normal(), shape, seed=7), name=name) for name, shape in SHAPES.items()]
    for parameter in made:
        parameter.set_param_ps(in_server)
    return made


def kept(folder: Path | None, servers: int = 1, place: int = 0, make: Any = None, in_server: bool = True) -> Dense:
    make = make or partial(Adam, learning_rate=0.1)
    return Dense(parameters(in_server), servers, place, make, folder, False)


def change(target: Dense, step: int) -> None:
    rng = np.random.default_rng(step)
    full = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]
    parts = [dense.part(array, target._servers, target._place) for array in full]

    def arriving() -> Iterator[Array]:
        room = np.empty(24, np.uint8)  # used again for every piece
        for (place, rows), (shape, dtype) in zip(target._places(), target.pieces(), strict=True):
            memory = room[: np.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
            np.copyto(memory, parts[place][rows])
            yield memory

    target.update(arriving(), {0: step + 1, 1: step + 1})


def abandon(target: Dense) -> None:
    """Leave the files as the end of a process would."""
    target._guard.close()


def values(*parts: Dense) -> list[Array]:
    """Return parameters and states of all servers, in full."""
    tensors = [(*target.parts, *target._optimizer.states) for target in parts]
    return [
        np.concatenate([tensor.asnumpy() for tensor in same]) if same[0].shape else same[0].asnumpy()
        for same in zip(*tensors, strict=True)
    ]


def assert_same(first: list[Array], second: list[Array]) -> None:
    assert all((a == b).all() and a.shape == b.shape for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "make", [partial(Momentum, learning_rate=0.1, momentum=0.9), partial(FTRL, learning_rate=0.1, check_finite=True)]
)
@pytest.mark.parametrize("is_closed", [True, False])
def test_parameters_go_on_where_they_were(make: Callable[[Any], Any], is_closed: bool, tmp_path: Path) -> None:
    replay = kept(None, make=make)
    for step in range(5):
        target = kept(tmp_path, make=make)
        assert (target.step, target.done(1)) == (step, step)
        change(target, step)
        change(target, step)  # sent again: not done again
        change(replay, step)
        assert_same(values(target), values(replay))
        (Dense.close if is_closed else abandon)(target)


def test_log_that_ends_in_the_middle_of_an_update_loses_that_update_only(tmp_path: Path) -> None:
    target, replay = kept(tmp_path), kept(None)
    change(target, 0)
    change(replay, 0)
    size = (tmp_path / "log").stat().st_size
    change(target, 1)
    abandon(target)
    content = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(content[: size + 9])
    again = kept(tmp_path)
    assert again.step == 1
    assert_same(values(again), values(replay))
    abandon(again)
    damaged = bytearray(content)
    damaged[100] ^= 1
    (tmp_path / "log").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="record at byte 0 is damaged, and another follows it"):
        kept(tmp_path)


def test_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_LOG_BYTES", 1000)
    target, replay = kept(tmp_path), kept(None)
    for step in range(9):
        change(target, step)
        change(replay, step)
        assert (tmp_path / "log").stat().st_size < 1500
    abandon(target)
    assert_same(values(kept(tmp_path)), values(replay))


def test_second_server_on_the_files_is_refused(tmp_path: Path) -> None:
    first = kept(tmp_path)
    with pytest.raises(CheckpointFileError, match="is open in another process, or twice in this one"):
        kept(tmp_path)
    first.close()


def test_values_of_a_worker_are_sent_once(tmp_path: Path) -> None:
    target = kept(tmp_path, in_server=False)
    sent = [np.full(shape, 3.0, np.float32) for shape in SHAPES.values()]
    assert target.step == -1
    target.receive(0, sent[0])
    assert target.step == -1
    target.receive(1, sent[1])
    abandon(target)
    again = kept(tmp_path, in_server=False)
    assert again.step == 0
    again.receive(0, np.zeros((7, 3), np.float32))
    assert_same(values(again)[:2], sent)


@pytest.mark.parametrize("servers", [1, 3])
def test_snapshots_load_on_any_number_of_servers(servers: int, tmp_path: Path) -> None:
    old = [kept(None, 2, place) for place in range(2)]
    for step in range(3):
        for target in old:
            change(target, step)
    files = [tmp_path / f"{place}.safetensors" for place in range(2)]
    for target, file in zip(old, files, strict=True):
        save_checkpoint(target.content(), file)
    contents = [load_checkpoint(file) for file in files]
    new = [kept(tmp_path / str(place), servers, place) for place in range(servers)]
    for target in new:
        target.load(contents)
        assert target.step == 3
    assert_same(values(*new), values(*old))
    with pytest.raises(CheckpointError, match=r"expected the snapshots of all servers of one job, found \[\(1, 2\)\]"):
        new[0].load(contents[1:])
    with pytest.raises(CheckpointError, match=r"hold no 'accum\.weight'|hold no '.*weight'"):
        kept(None, make=partial(Momentum, learning_rate=0.1, momentum=0.9)).load(contents)


def test_row_wise_updates_are_those_of_one_server() -> None:
    make = partial(RowwiseAdagrad, learning_rate=0.1)
    one, two = kept(None, make=make), [kept(None, 2, place, make) for place in range(2)]
    for step in range(3):
        for target in (one, *two):
            change(target, step)
    assert_same(values(*two), values(one))


def test_optimizer_that_looks_at_more_than_one_row_is_refused() -> None:
    for make in (partial(Lamb, learning_rate=0.1), partial(SGD, clip_norm=1.0)):
        with pytest.raises(ArgumentValueError, match="looks at more than one row; use SGD, Momentum, Adam"):
            kept(None, make=make)


# --------------------------------------------------------------------------- roles


@pytest.mark.parametrize(
    "roles, environment, expected",
    [
        ("", {}, ((0, 1, 2, 3), (4,))),
        ("", {"MS_SERVER_NUM": "2", "MS_WORKER_NUM": "3"}, ((0, 1, 2), (3, 4))),
        ("sppww", {"MS_SERVER_NUM": "2", "MS_WORKER_NUM": "2"}, ((3, 4), (1, 2))),  # as MindSpore's scripts start them
        ("wwwpp", {"MS_SERVER_NUM": "1"}, "server_num is 1, but 5 ranks have 2 servers by MS_ROLE"),
        ("wwww-", {}, "MS_ROLE is not set for rank 4 of 5; set it for every rank or for none"),
        ("swwww", {}, "needs a worker and a server, found 4 and 0 among 5 ranks"),
        ("", {"MS_WORKER_NUM": "2"}, "MS_WORKER_NUM is 2, but 5 ranks have 4 workers"),
        ("", {"MS_SERVER_NUM": "two"}, "MS_SERVER_NUM must be a positive integer, found 'two'"),
        ("", {"MS_ROLE": "MS_MASTER"}, "MS_ROLE must be one of MS_WORKER, MS_PSERVER, MS_SCHED, found 'MS_MASTER'"),
    ],
)
def test_roles_follow_the_environment_or_the_ranks(
    roles: str, environment: dict[str, str], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "get_group_size", lambda: 5)
    monkeypatch.setattr(context, "_gathered", lambda _: ["-wps".index(role) for role in roles or "-----"])
    for name in ("MS_ROLE", "MS_SERVER_NUM", "MS_WORKER_NUM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        set_ps_context(enable_ps=True)
        if isinstance(expected, str):
            with pytest.raises((ArgumentValueError, StateError), match=expected):
                context.roles()
        else:
            assert context.roles() == expected
    finally:
        reset_ps_context()


def test_snapshots_of_two_saves_are_not_loaded_together(tmp_path: Path) -> None:
    files = [tmp_path / f"snapshot-{place}-of-2.safetensors" for place in range(2)]
    for marks in ((3, 3), (3, 4)):
        contents = {}
        for file, mark in zip(files, marks, strict=True):
            save_checkpoint({"snapshot.save": np.array(mark)}, file)
            contents[str(file)] = load_checkpoint(file)
        if marks == (3, 3):
            check_one_save(contents)
    with pytest.raises(CheckpointError, match=r"snapshot-1-of-2.* is of another save than .*snapshot-0-of-2"):
        check_one_save(contents)
