"""Run PTX on NumPy arrays, all threads of a launch at once: what a kernel does, on a machine without a GPU.

It knows exactly the instructions that the kernels may use: integer operations, moves, comparisons, stores, and the
floating-point operations whose rounding PTX fixes (``.rn``). A module with anything else, such as ``mul.f32`` (which
may be fused), ``sqrt.approx.f32``, ``.ftz``, a call or local memory, is refused when it is read.

Memory is made of NumPy arrays at their own addresses. A store must be aligned, lie inside one of the arrays that the
launch was given, and be the only one to its bytes. In the memory of a block no thread may meet what another one wrote,
or write what another one read, without a barrier between, and the threads of a warp must meet different banks.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_STEPS = 1_000_000  # blocks of instructions; no launch of a test comes near
_TYPES: dict[str, type[np.generic]] = {
    "b16": np.uint16, "u16": np.uint16, "s16": np.int16, "f16": np.float16, "u8": np.uint8, "s8": np.int8,
    "b32": np.uint32, "u32": np.uint32, "s32": np.int32, "f32": np.float32,
    "b64": np.uint64, "u64": np.uint64, "s64": np.int64, "f64": np.float64, "pred": np.bool_,
}  # fmt: skip


class PtxError(Exception):
    """Report PTX that is not allowed, or a launch that does what no kernel may do."""


# --------------------------------------------------------------------------- arithmetic


def fma32(a: Array, b: Array, c: Array) -> Array:
    """Round ``a * b + c`` once: the product is exact in float64, the sum is rounded to odd, which the last cannot undo.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd" (2008).
    """
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = total.view(np.int64)
    away = (error > 0) == (total > 0)  # the exact sum is further from zero than the rounded one
    odd = np.where((error != 0) & (bits & 1 == 0), np.where(away, bits + 1, bits - 1), bits)
    return np.asarray(odd.view(np.float64).astype(np.float32))


@cache
def _libm_fma() -> Any:
    fma = ctypes.CDLL("libm.so.6").fma
    fma.restype, fma.argtypes = ctypes.c_double, [ctypes.c_double] * 3
    return np.frompyfunc(fma, 3, 1)


def fma64(a: Array, b: Array, c: Array) -> Array:
    """Round ``a * b + c`` once, by the C library."""
    return np.asarray(_libm_fma()(*np.broadcast_arrays(a, b, c)), np.float64)


def _canonical(values: Array) -> Array:
    """Give every NaN the bits that PTX gives what an operation returns."""
    if values.dtype not in (np.float16, np.float32):
        return values
    bits = np.array(2 ** (8 * values.itemsize - 1) - 1, f"u{values.itemsize}")
    return np.where(np.isnan(values), bits.view(values.dtype), values)


def _cut_off(values: Array, integer: type[np.generic]) -> Array:
    """Drop the fraction; what is too large becomes the last integer of its side, and NaN zero."""
    limits = np.iinfo(integer)
    low, high = values <= limits.min, values >= -float(limits.min)
    number = np.where(low | high | np.isnan(values), 0, values).astype(integer)
    return np.where(low, limits.min, np.where(high, limits.max, number)).astype(integer)


def _permute(low: Array, high: Array, selector: Array) -> Array:
    """Make a word of four bytes that the selector picks from two words."""
    both = low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)
    picks = [selector >> np.uint32(4 * byte) & np.uint32(15) for byte in range(4)]
    if any(np.any(pick > 7) for pick in picks):
        raise PtxError("prmt spreads signs")
    parts = [(both >> (pick * 8).astype(np.uint64) & 255) << np.uint64(8 * byte) for byte, pick in enumerate(picks)]
    return np.bitwise_or.reduce(parts).astype(np.uint32)


def _insert_bits(source: Array, into: Array, start: Array, length: Array) -> Array:
    """Put the low `length` bits of `source` at bit `start`; both are less than the width."""
    mask = ((np.asarray(1, into.dtype) << length.astype(into.dtype)) - np.asarray(1, into.dtype)) << start.astype(
        into.dtype
    )
    return (into & ~mask) | (source << start.astype(into.dtype)) & mask


def _shift(operation: Any) -> Callable[[Array, Array], Array]:
    """Shift by the amount or, as PTX says, by the width if that is less."""

    def shift(x: Array, amount: Array) -> Array:
        width = 8 * x.dtype.itemsize
        inside = operation(x, np.minimum(amount, width - 1).astype(x.dtype))
        beyond = operation(operation(x, np.asarray(width - 1, x.dtype)), np.asarray(1, x.dtype))
        return np.where(amount >= width, beyond, inside)

    return shift


_ARITHMETIC: dict[str, Callable[..., Array]] = {
    "add": np.add, "sub": np.subtract, "mul.lo": np.multiply, "div": np.floor_divide, "rem": np.remainder,
    "add.rn": np.add, "sub.rn": np.subtract, "mul.rn": np.multiply, "div.rn": np.divide, "sqrt.rn": np.sqrt,
    "neg": np.negative, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "shl": _shift(np.left_shift), "shr": _shift(np.right_shift), "min": np.fmin, "max": np.fmax,
}  # fmt: skip
_COMPARISONS = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
                "ge": np.greater_equal}  # fmt: skip
_INTEGER_TYPES, _FLOAT_TYPES, _BIT_TYPES = ("u32", "s32", "u64", "s64"), ("f32", "f64"), ("b16", "b32", "b64", "pred")
_FORMS = {  # the types that each operation may have: a float without .rn is not among them
    **dict.fromkeys(("add", "sub", "mul.lo"), _INTEGER_TYPES),
    **dict.fromkeys(("min", "max"), (*_INTEGER_TYPES, *_FLOAT_TYPES)),
    **dict.fromkeys(("div", "rem"), ("u32",)),  # of 64 bits they are calls
    **dict.fromkeys(("add.rn", "sub.rn", "mul.rn", "div.rn", "sqrt.rn"), _FLOAT_TYPES),
    "neg": ("s32", "s64", *_FLOAT_TYPES),
    **dict.fromkeys(("and", "or", "xor", "not"), _BIT_TYPES),
    "shl": ("b32", "b64"),
    "shr": _INTEGER_TYPES,
}
_CONVERSIONS = {  # target, source: exact, or rounded to nearest even where the name says so
    ".rn": {
        ("f16", "f32"), ("f32", "f64"),
        *((to, of) for to in ("f32", "f64") for of in ("u16", "s16", "u32", "s32", "u64", "s64")),
    },
    "": {("u32", "u64"), ("u64", "u32"), ("s64", "s32"), ("s32", "s16"), ("s32", "s8"), ("s64", "s16"),
         ("s16", "s8"), ("u16", "u32"), ("u32", "u16"), ("u16", "u64"), ("u64", "u16"),
         ("f64", "f32")},
}  # fmt: skip


# --------------------------------------------------------------------------- memory


class Memory:
    """Arrays that a launch may read and write."""

    def __init__(self, *arrays: Array) -> None:
        self._pieces: list[tuple[int, Array, Array]] = []
        for array in arrays:
            data = array.reshape(-1).view(np.uint8)
            assert np.shares_memory(data, array)
            self._pieces.append((array.ctypes.data, data, np.zeros(data.size, np.bool_)))

    def _find(self, addresses: Array, size: int) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield for each array that is met: which accesses meet it, data, marks of what was written, byte offsets."""
        if np.any(addresses % np.uint64(size)):
            raise PtxError(f"an access of {size} bytes is not aligned")
        left = np.ones(addresses.size, np.bool_)
        for start, data, written in self._pieces:
            offsets = (addresses - np.uint64(start)).astype(np.int64)
            inside = left & (offsets >= 0) & (offsets + size <= data.size)
            if inside.any():
                left &= ~inside
                yield inside, data, written, offsets[inside, None] + np.arange(size)
        if left.any():
            raise PtxError(f"an access of {size} bytes at {int(addresses[left][0]):#x} is outside every array")

    def load(self, addresses: Array, kind: np.dtype[Any]) -> Array:
        """Return the values, or rows of values, at addresses."""
        rows = np.empty((addresses.size, kind.itemsize), np.uint8)
        for inside, data, _, at in self._find(addresses, kind.itemsize):
            rows[inside] = data[at]
        return rows.view(kind.base).reshape(addresses.size, *kind.shape)

    def store(self, addresses: Array, values: Array) -> None:
        """Write rows of values to addresses."""
        rows = np.ascontiguousarray(values).view(np.uint8)
        if np.unique(addresses).size != addresses.size:
            raise PtxError("a byte is written twice")
        for inside, data, written, at in self._find(addresses, rows.shape[1]):
            if written[at].any():
                raise PtxError("a byte is written twice")
            data[at], written[at] = rows[inside], True


class Shared:
    """The memory that each block has for its threads."""

    def __init__(self, threads: Array, blocks: Array, places: Array, nbytes: int) -> None:
        self._threads, self._blocks, self._warps = threads, blocks, blocks * 64 + places // 32
        self._places = places
        shape = int(blocks.max()) + 1, nbytes
        self._data, self._written = np.zeros(shape, np.uint8), np.zeros(shape, np.bool_)
        # Who wrote and read each byte since the last barrier: a thread, nobody (-1) or several (-2).
        self._writers, self._readers = np.full(shape, -1), np.full(shape, -1)

    def _find(self, active: Any, addresses: Array, size: int) -> tuple[Array, Array, Array]:
        """Return for each access its thread, and rows and columns of its bytes."""
        at = addresses.astype(np.int64)
        if np.any(at % size) or np.any((at < 0) | (at + size > self._data.shape[1])):
            raise PtxError(f"an access of {size} bytes to the memory of a block is outside or not aligned")
        self._check_banks(active, at, size)
        return self._threads[active][:, None], self._blocks[active][:, None], at[:, None] + np.arange(size)

    def _check_banks(self, active: Any, at: Array, size: int) -> None:
        """Threads that are served together, a warp's or for 8 bytes half of one, meet each bank in one word."""
        together = self._warps[active] if size < 8 else self._warps[active] * 2 + self._places[active] % 32 // 16
        words = np.unique(together * (1 << 32) + at // 4)
        _, counts = np.unique((words >> 32) * 32 + words % 32, return_counts=True)
        if counts.max() > 1:
            raise PtxError(f"{counts.max()} words of one bank are met at once")

    def load(self, active: Any, addresses: Array, kind: np.dtype[Any]) -> Array:
        """Return the values at addresses."""
        threads, blocks, at = self._find(active, addresses, kind.itemsize)
        if not self._written[blocks, at].all():
            raise PtxError("the memory of a block is read before it is written")
        if np.any((self._writers[blocks, at] != -1) & (self._writers[blocks, at] != threads)):
            raise PtxError("what another thread wrote is read without a barrier")
        alone = (self._readers[blocks, at] == -1) | (self._readers[blocks, at] == threads)
        self._readers[blocks, at] = np.where(alone, threads, -2)
        return np.ascontiguousarray(self._data[blocks, at]).view(kind).reshape(-1)

    def store(self, active: Any, addresses: Array, values: Array) -> None:
        """Write values to addresses."""
        threads, blocks, at = self._find(active, addresses, values.itemsize)
        for seen in (self._writers, self._readers):
            if np.any((seen[blocks, at] != -1) & (seen[blocks, at] != threads)):
                raise PtxError("what another thread wrote or read is written without a barrier")
        self._data[blocks, at] = np.ascontiguousarray(values)[:, None].view(np.uint8)
        self._writers[blocks, at], self._written[blocks, at] = threads, True
        if np.any(self._writers[blocks, at] != threads):
            raise PtxError("a byte of a block's memory is written by two threads at once")

    def release(self, waiting: Array, place: Array) -> None:
        """Let threads that wait at a barrier go on."""
        for block in np.unique(self._blocks[waiting]):
            own = self._blocks == block
            if not waiting[own].all() or np.unique(place[own]).size > 1:
                raise PtxError("a barrier is not met by all threads of a block")
            self._writers[block] = self._readers[block] = -1


# --------------------------------------------------------------------------- modules


@dataclass(frozen=True)
class Instruction:
    """One line: a predicate or none, the operation with its types, and the operands."""

    predicate: str
    operation: str
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Launch:
    """The shape of a grid, two axes of blocks and threads."""

    grid: tuple[int, int]
    block: tuple[int, int]


class Module:
    """One kernel, read from PTX.

    Raises
    ------
    PtxError
        If the text has an instruction that is not known, and so not allowed.
    """

    def __init__(self, text: str) -> None:
        entry = re.search(r"\.visible \.entry (\w+)\((.*?)\)\s*(?:\.\w+ [\d, ]+\s*)*\{(.*)\}", text, re.DOTALL)
        if entry is None or text.count(".entry") != 1 or ".func" in text:
            raise PtxError("expected one entry and no function")
        self.name = entry[1]
        self.parameters = dict(
            reversed(pair) for pair in re.findall(r"\.param \.(\w+) (\w+)", entry[2])
        )  # name: type, in order
        self.registers: dict[str, str] = {}  # prefix: type
        self.labels: dict[str, int] = {}
        self.shared: dict[str, int] = {}  # name: offset
        self._shared_bytes = 0
        self.code: list[Instruction] = []
        for line in entry[3].splitlines():
            self._read(re.sub(r"//.*", "", line).strip())
        self._steps = [self._decode(instruction) for instruction in self.code]
        starts = {0, *self.labels.values()}
        starts |= {
            at + 1 for at, step in enumerate(self.code) if step.operation in ("bra", "bra.uni", "ret", "bar.sync")
        }
        self._blocks = dict(pairwise(sorted(starts | {len(self.code)})))

    def _read(self, line: str) -> None:
        if not line or line in "{}":
            return
        if match := re.fullmatch(r"\.reg \.(\w+)\s+%(\w+?)<\d+>;", line):
            self.registers[match[2]] = match[1]
        elif match := re.fullmatch(r"\.shared \.align 16 \.b8 (\w+)\[(\d+)\];", line):
            self.shared[match[1]] = self._shared_bytes
            self._shared_bytes += int(match[2])
        elif match := re.fullmatch(r"(\$?\w+):", line):
            self.labels[match[1]] = len(self.code)
        elif match := re.fullmatch(r"(?:@(!?%p\d+)\s+)?([a-z][\w.]*)\s*(.*?);", line):
            operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^\s,]+", match[3])
            self.code.append(Instruction(match[1] or "", match[2], tuple(operands)))
        else:
            raise PtxError(f"not understood: {line}")

    def run(self, launch: Launch, arguments: Sequence[Any], memory: Memory) -> None:
        """Run every thread of a grid to its end."""
        kinds = list(self.parameters.values())
        assert len(arguments) == len(kinds), (self.parameters, arguments)
        (grid_x, grid_y), (block_x, block_y) = launch.grid, launch.block
        tid_y, tid_x, ctaid_y, ctaid_x = np.unravel_index(
            np.arange(grid_x * grid_y * block_x * block_y), (block_y, block_x, grid_y, grid_x)
        )
        values = (np.asarray(value, _TYPES[kind]) for value, kind in zip(arguments, kinds, strict=True))
        state = State(
            dict(zip(self.parameters, values, strict=True)),
            {"%tid.x": tid_x, "%tid.y": tid_y, "%ctaid.x": ctaid_x, "%ctaid.y": ctaid_y, "%ntid.x": block_x,
             "%ntid.y": block_y, "%nctaid.x": grid_x, "%nctaid.y": grid_y},
            tid_x.size, memory, self.shared,
            Shared(np.arange(tid_x.size), ctaid_y * grid_x + ctaid_x, tid_y * block_x + tid_x, self._shared_bytes),
        )  # fmt: skip
        place = state.place
        for _ in range(_STEPS):
            # Who is furthest behind goes first, so paths that part meet again.
            at = int(place.min(initial=len(self.code), where=~state.waiting))
            if at == len(self.code):
                if not state.waiting.any():
                    return
                state.shared.release(state.waiting, place)
                state.waiting[:] = False
                continue
            active = np.flatnonzero((place == at) & ~state.waiting)
            state.active = slice(None) if active.size == state.count else active
            place[active] = end = self._blocks[at]
            with np.errstate(all="ignore"):
                for step in self._steps[at:end]:
                    step(state)
        raise PtxError("the kernel does not come to an end")

    # ---------------------------------------------------------------- instructions

    def _decode(self, instruction: Instruction) -> Callable[[State], None]:
        operation, operands = instruction.operation, instruction.operands
        name, _, kind = operation.rpartition(".")
        if operation in ("bra", "bra.uni", "ret"):
            target = len(self.code) if operation == "ret" else self.labels[operands[0]]
            return _jump(instruction.predicate, target)
        if operation == "bar.sync" and operands == ("0",) and not instruction.predicate:
            return _wait
        step = (
            self._decode_memory(operation, operands)
            or self._decode_arithmetic(name, kind, operands)
            or self._decode_move(operation, name, kind, operands)
        )
        if step is None:
            raise PtxError(f"not allowed: {operation} {', '.join(operands)}")
        return _predicated(step, instruction.predicate) if instruction.predicate else step

    def _decode_arithmetic(self, name: str, kind: str, operands: tuple[str, ...]) -> Any:
        if kind in _FORMS.get(name, ()):
            return _apply(_ARITHMETIC[name], kind, [kind, "u32" if name[:2] == "sh" else kind], operands)
        if name == "fma.rn" and kind in _FLOAT_TYPES:
            return _apply(fma32 if kind == "f32" else fma64, kind, [kind] * 3, operands)
        if name == "mad.lo" and kind in _INTEGER_TYPES:
            return _apply(lambda a, b, c: a * b + c, kind, [kind] * 3, operands)
        if name == "mul.wide" and kind in ("u16", "u32", "s32"):
            wide = f"{kind[0]}{2 * int(kind[1:])}"
            return _apply(lambda a, b: a.astype(_TYPES[wide]) * b.astype(_TYPES[wide]), wide, [kind] * 2, operands)
        if name == "selp" and kind in ("b16", "b32", "b64", "u16", *_INTEGER_TYPES, *_FLOAT_TYPES):
            return _apply(lambda a, b, p: np.where(p, a, b), kind, [kind, kind, "pred"], operands)
        if name in ("setp.nan", "setp.num") and kind in _FLOAT_TYPES:
            wanted = name == "setp.nan"
            return _apply(lambda a, b: (np.isnan(a) | np.isnan(b)) == wanted, "pred", [kind] * 2, operands)
        first, _, comparison = name.partition(".")
        if first == "setp" and comparison.removesuffix("u") in _COMPARISONS:
            return self._decode_comparison(comparison, kind, operands)
        return None

    def _decode_comparison(self, comparison: str, kind: str, operands: tuple[str, ...]) -> Any:
        unordered = comparison not in _COMPARISONS
        compare = _COMPARISONS[comparison.removesuffix("u")]
        floating = kind in _FLOAT_TYPES
        kinds = (*_INTEGER_TYPES, *_FLOAT_TYPES, *(("s16", "b32", "b64") if comparison in ("eq", "ne") else ()))
        if kind not in kinds or (unordered and not floating):
            return None

        def apply(a: Array, b: Array) -> Array:
            nan = (a != a) | (b != b)
            return np.asarray(compare(a, b) | nan if unordered else compare(a, b) & ~nan)

        return _apply(apply if floating else compare, "pred", [kind, kind], operands)

    def _decode_move(self, operation: str, name: str, kind: str, operands: tuple[str, ...]) -> Any:
        if name == "mov" and kind in _TYPES and "{" not in "".join(operands):
            return _apply(lambda x: x, kind, [kind], operands)
        if operation in ("mov.b32", "mov.b64") and operands[1].startswith("{"):
            parts = re.findall(r"[^{},\s]+", operands[1])
            half = {"mov.b32": "b16", "mov.b64": "b32"}[operation]
            whole = _TYPES[kind]
            shift = np.asarray({"b16": 16, "b32": 32}[half], whole)
            return _apply(
                lambda low, high: low.astype(whole) | high.astype(whole) << shift,
                kind, [half, half], (operands[0], *parts),
            )  # fmt: skip
        if match := re.fullmatch(r"cvt\.rzi\.(s32|s64)\.(f32|f64)", operation):
            integer = _TYPES[match[1]]
            return _apply(lambda x: _cut_off(x, integer), match[1], [match[2]], operands)
        if operation == "prmt.b32":
            return _apply(_permute, "b32", ["b32"] * 3, operands)
        if match := re.fullmatch(r"bfi\.(b32|b64)", operation):
            return _apply(_insert_bits, match[1], [match[1], match[1], "u32", "u32"], operands)
        if match := re.fullmatch(r"cvt(\.rn)?\.(\w+)\.(\w+)", operation):
            target, source = match[2], match[3]
            if (target, source) in _CONVERSIONS[match[1] or ""]:
                return _apply(lambda x: _canonical(x.astype(_TYPES[target])), target, [source], operands)
        return None

    def _decode_memory(self, operation: str, operands: tuple[str, ...]) -> Any:
        match = re.fullmatch(r"(ld\.param|(?:ld|st)\.(?:global|shared))(?:\.cs)?(?:\.v([24]))?\.(\w+)", operation)
        if match is None or match[3] not in _TYPES:
            return None
        access, kind, count = match[1], match[3], int(match[2] or 1)
        if access == "st.shared" and count == 1:
            return lambda state: state.shared.store(
                state.active, state.read_address(operands[0]), state.read(operands[1], kind)
            )
        if access == "st.global":
            address, values = operands[0], re.findall(r"[^{},\s]+", operands[1])
            assert len(values) == count

            def store(state: State) -> None:
                rows = np.stack([state.read(value, kind) for value in values], axis=1)
                state.memory.store(state.read_address(address), rows)

            return store
        if access == "ld.global" and count > 1:
            targets = re.findall(r"[^{},\s]+", operands[0])

            def load(state: State) -> None:
                rows = state.memory.load(state.read_address(operands[1]), np.dtype((_TYPES[kind], count)))
                for place, target in enumerate(targets):
                    state.write(target, kind, np.ascontiguousarray(rows[:, place]))

            return load
        if access == "ld.param":
            name = operands[1].strip("[]")
            if name not in self.parameters:
                raise PtxError(f"not a parameter: {name}")
            return lambda state: state.write(operands[0], kind, state.parameters[name].astype(_TYPES[kind]))
        declared = self.registers[operands[0].strip("%0123456789")]  # may be longer: what is loaded is extended
        into = kind if np.dtype(_TYPES[kind]).itemsize == np.dtype(_TYPES[declared]).itemsize else None
        if into is None and kind[0] == "f":
            return None
        into = into or f"{'s' if kind[0] == 's' else 'u'}{declared[1:]}"
        if access == "ld.shared" and count == 1:
            return lambda state: state.write(
                operands[0],
                into,
                state.shared.load(state.active, state.read_address(operands[1]), np.dtype(_TYPES[kind])),
            )
        if access != "ld.global":
            return None
        return lambda state: state.write(
            operands[0], into, state.memory.load(state.read_address(operands[1]), np.dtype(_TYPES[kind]))
        )


class State:
    """Registers and places of all threads, and which threads run now."""

    def __init__(
        self, parameters: dict[str, Array], special: dict[str, Any], count: int, memory: Memory,
        symbols: dict[str, int], shared: Shared,
    ) -> None:  # fmt: skip
        self.parameters, self.count, self.memory, self.shared = parameters, count, memory, shared
        self._symbols = symbols
        self.place = np.zeros(count, np.int64)
        self.waiting = np.zeros(count, np.bool_)
        self.active: Any = slice(None)
        self._registers = {name: np.broadcast_to(value, count).astype(np.uint32) for name, value in special.items()}

    def read(self, operand: str, kind: str) -> Array:
        """Return an operand of the active threads, with its bits read as a type."""
        target = np.dtype(_TYPES[kind])
        if operand.startswith("%"):
            if operand not in self._registers:
                raise PtxError(f"{operand} is read before it is written")
            values = self._registers[operand][self.active]
            if values.dtype.itemsize > target.itemsize and kind != "pred":  # stores may take the low part
                values = values.astype(f"u{target.itemsize}")
            return values.view(target)
        count = self.place[self.active].size
        if match := re.fullmatch(r"0[fd]([0-9A-F]+)", operand):
            literal = np.array(int(match[1], 16), f"u{len(match[1]) // 2}").view(f"f{len(match[1]) // 2}")
            return np.broadcast_to(literal.view(target), count)
        mask = (1 << 8 * target.itemsize) - 1
        number = self._symbols[operand] if operand in self._symbols else int(operand, 0)
        return np.broadcast_to(np.array(number & mask, f"u{target.itemsize}").view(target), count)

    def read_address(self, operand: str) -> Array:
        """Return ``[register+offset]``."""
        register, _, offset = operand.strip("[]").partition("+")
        return self.read(register, "u64") + np.uint64(int(offset or 0) & (2**64 - 1))

    def write(self, register: str, kind: str, values: Array) -> None:
        """Write the active threads' part of a register."""
        size = np.dtype(_TYPES[kind]).itemsize
        stored = np.bool_ if kind == "pred" else f"u{size}"
        if register not in self._registers:
            self._registers[register] = np.zeros(self.count, stored)
        self._registers[register][self.active] = np.asarray(values, _TYPES[kind]).view(stored)


def _apply(function: Any, kind: str, kinds: Iterable[str], operands: tuple[str, ...]) -> Callable[[State], None]:
    target, sources = operands[0], list(zip(operands[1:], kinds, strict=False))
    return lambda state: state.write(target, kind, function(*(state.read(name, of) for name, of in sources)))


def _holds(state: State, predicate: str) -> Array:
    values = state.read(predicate.removeprefix("!"), "pred")
    return ~values if predicate.startswith("!") else values


def _wait(state: State) -> None:
    state.waiting[state.active] = True


def _jump(predicate: str, target: int) -> Callable[[State], None]:
    def jump(state: State) -> None:
        place = state.place[state.active]
        state.place[state.active] = np.where(_holds(state, predicate), target, place) if predicate else target

    return jump


def _predicated(step: Callable[[State], None], predicate: str) -> Callable[[State], None]:
    def run(state: State) -> None:
        before, threads = state.active, np.arange(state.count)[state.active]
        state.active = threads[_holds(state, predicate)]
        if state.active.size:
            step(state)
        state.active = before

    return run
