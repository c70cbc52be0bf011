"""Meetings of the ranks of one machine in memory that they share.

Ranks count their meetings. Each has a mark, a row of words that it alone writes: the number of the last meeting that it
came to, and what it came for at this and the previous one. The rank that comes last opens the gate, a word with the
number of the last meeting that all came to. All that a rank wrote before a meeting is seen by all after it, on weakly
ordered processors too: the count of those who came and the gate are changed and read in the orders acquire and release.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from numparam.kernels.machine.compile import intrinsic, kernel
from numparam.kernels.machine.lanes import I32, I64

ROW_BYTES = 128  # two cache lines, which processors fetch together
SPARE_ROWS = 2  # after the marks: of the gate, and of how many came to meetings in all and how many sleep
MET, WAITING, DIFFERENT = 0, 1, 2

_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98}  # of the system call by which Linux lets a process wait
HAS_MEETINGS = platform.system() == "Linux" and platform.machine() in _NUMBERS
NUMBERS = (types.int64,) * 9  # what `meet` takes
_WAIT, _WAKE = 0, 1  # while a word has a value, and all who wait
_NANOSECONDS = 10_000_000


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, I64.as_pointer())


@intrinsic
def _read(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.load_atomic(_word(builder, args[0]), "acquire", align=8)

    return types.int64(types.int64), emit


@intrinsic
def _write(typing_context: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        builder.store_atomic(args[1], _word(builder, args[0]), "release", align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def _add(typing_context: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
    """Add to a word, and return what it is now."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.add(builder.atomic_rmw("add", _word(builder, args[0]), args[1], "seq_cst"), args[1])

    return types.int64(types.int64, types.int64), emit


@intrinsic
def _futex(typing_context: Any, address: Any, operation: Any, value: Any, nanoseconds: Any) -> Any:  # noqa: ARG001
    """Wait while the low half of a word has a value, at most some nanoseconds, or wake as many as wait for it."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        time = cgutils.alloca_once(builder, I64, 2)
        for place, word in enumerate((ir.Constant(I64, 0), args[3])):  # seconds and the rest
            builder.store(word, builder.gep(time, [ir.Constant(I32, place)]))
        kind = ir.FunctionType(I64, [I64], var_arg=True)
        call = cgutils.get_or_insert_function(builder.module, kind, "syscall")
        number = ir.Constant(I64, _NUMBERS[platform.machine()])
        builder.call(call, [number, args[0], *args[1:3], builder.ptrtoint(time, I64)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), emit


@intrinsic
def _let_others_run(typing_context: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit


@kernel("read word")
def read(address: Any) -> Any:
    """Return a word that another process writes; what that did before is seen from here on."""
    return _read(address)


@kernel("write word")
def write(address: Any, value: Any) -> None:
    """Write a word that another process reads."""
    _write(address, value)


@kernel("meet")
def meet(
    address: Any, size: Any, rank: Any, looks: Any, yields: Any, number: Any, purpose: Any, more: Any, comes: Any
) -> Any:
    """Come to a meeting of some ranks for a purpose of two words, and return whether all MET for it.

    `address` is of the rows. This process looks at the gate, lets others run before each of some further looks, and
    sleeps until the gate opens, a signal comes or a hundredth of a second has passed. If it is still WAITING then, it
    looks again without coming again.
    """
    place, gate, count = 8 + 16 * (number & 1), address + ROW_BYTES * size, address + ROW_BYTES * (size + 1)
    sleepers = count + 8
    if comes:
        mark = address + ROW_BYTES * rank
        _write(mark, number)
        _write(mark + place, purpose)
        _write(mark + place + 8, more)
        if _add(count, 1) == number * size:
            _write(gate, number)
            if _add(sleepers, 0) > 0:  # after the gate is open; to call the system takes longer than all else here
                _futex(gate, _WAKE, 2**31 - 1, 0)
    most = looks + yields
    looked = 0 if comes else most
    while _read(gate) < number:
        if looked > most:
            return WAITING
        if looked == most:
            _add(sleepers, 1)
            _futex(gate, _WAIT, (number - 1) & 0xFFFFFFFF, _NANOSECONDS)
            _add(sleepers, -1)
        elif looked >= looks:
            _let_others_run()
        looked += 1
    for mark in range(address, gate, ROW_BYTES):
        if _read(mark + place) != purpose or _read(mark + place + 8) != more:
            return DIFFERENT
    return MET
