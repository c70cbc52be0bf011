"""Run PTX on NumPy arrays, all threads of a launch at once: what a kernel does, on a machine without a GPU.

It knows exactly the instructions that the kernels may use: integer operations, moves, comparisons, stores, and the
floating-point operations whose rounding PTX fixes (``.rn``). A module with anything else, such as ``mul.f32`` (which
may be fused), ``sqrt.approx.f32``, ``.ftz``, a call or local memory, is refused when it is read. Instructions between
two jumps become one Python function, in which what is the same for all threads is computed once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ptx_arithmetic import (
    COMPARISONS,
    COMPARISONS_OF_INTEGERS,
    CONVERSIONS,
    FLOAT_TYPES,
    FORMULAS,
    INTEGER_TYPES,
    NAMES,
    TYPES,
)
from ptx_memory import Array, Memory, PtxError, Shared

_STEPS = 1_000_000  # blocks of instructions; no launch of a test comes near


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


_JUMPS = ("bra", "bra.uni", "ret", "bar.sync")
_SPECIAL = ("%tid.x", "%tid.y", "%ctaid.x", "%ctaid.y", "%ntid.x", "%ntid.y", "%nctaid.x", "%nctaid.y")


class _Barrier(NamedTuple):
    """Where threads go when all have met."""

    place: int


def _branch(holds: Any, target: int, further: int) -> Any:
    """Return where threads go, one place if it is the same for all."""
    if holds.all():
        return target
    return np.where(holds, target, further) if holds.any() else further


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
        starts = {0, *self.labels.values()}
        for at, step in enumerate(self.code):
            if step.operation in _JUMPS or step.predicate:
                starts |= {at + 1} if step.operation in _JUMPS else {at, at + 1}
        self._bounds = list(pairwise(sorted(starts | {len(self.code)})))
        self.blocks_of: dict[str, set[int]] = {}  # register: the starts of the blocks that have it
        for start, end in self._bounds:
            for step in self.code[start:end]:
                for register in re.findall(r"%\w+", " ".join((step.predicate, *step.operands))):
                    self.blocks_of.setdefault(register, set()).add(start)
        self._texts = [_Text(self, start, end) for start, end in self._bounds]

    @cached_property
    def _blocks(self) -> dict[int, Callable[[Threads], Any]]:
        return {text.start: text.compiled() for text in self._texts}

    def bits_of(self, register: str) -> str:
        """Return the type of the bits of a register."""
        if register in _SPECIAL:
            return "b32"
        prefix = register.strip("%0123456789")
        if prefix not in self.registers:
            raise PtxError(f"not declared: {register}")
        return self.registers[prefix].replace("f", "b")

    def _read(self, line: str) -> None:
        if not line or line in "{}":
            return
        if match := re.fullmatch(r"(?:@(!?%p\d+)\s+)?([a-z][\w.]*)\s*(.*?);", line):
            operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^\s,]+", match[3])
            self.code.append(Instruction(match[1] or "", match[2], tuple(operands)))
        elif match := re.fullmatch(r"\.reg \.(\w+)\s+%(\w+?)<\d+>;", line):
            self.registers[match[2]] = match[1]
        elif match := re.fullmatch(r"\.shared \.align 16 \.b8 (\w+)\[(\d+)\];", line):
            self.shared[match[1]] = self._shared_bytes
            self._shared_bytes += int(match[2])
        elif match := re.fullmatch(r"(\$?\w+):", line):
            self.labels[match[1]] = len(self.code)
        else:
            raise PtxError(f"not understood: {line}")

    def run(self, launch: Launch, arguments: Sequence[Any], memory: Memory) -> None:
        """Run every thread of a grid to its end."""
        kinds = list(self.parameters.values())
        assert len(arguments) == len(kinds), (self.parameters, arguments)
        values = (np.asarray(value, TYPES[kind])[()] for value, kind in zip(arguments, kinds, strict=True))
        threads = Threads(launch, dict(zip(self.parameters, values, strict=True)), memory, self._shared_bytes)
        end, at, together = len(self.code), 0, True
        place, waiting = np.zeros(threads.count, np.int64), np.zeros(threads.count, np.bool_)
        with np.errstate(all="ignore"):
            for _ in range(_STEPS):
                if not together:
                    # Who is furthest behind goes first, so paths that part meet again.
                    at = int(place.min(initial=end, where=~waiting))
                    active = np.flatnonzero((place == at) & ~waiting)
                    together = active.size == threads.count
                    threads.active = slice(None) if together else active
                if at == end:
                    if not waiting.any():
                        return
                    threads.shared.release(waiting, place)
                    waiting[:] = False
                    continue
                goes_to = self._blocks[at](threads)
                if together and isinstance(goes_to, int):
                    at = goes_to
                    continue
                waits = isinstance(goes_to, _Barrier)
                place[threads.active], together = goes_to.place if waits else goes_to, False
                waiting[threads.active] = waits
        raise PtxError("the kernel does not come to an end")


class Threads:
    """Registers of all threads, and which of them run now."""

    def __init__(self, launch: Launch, parameters: dict[str, Any], memory: Memory, shared_bytes: int) -> None:
        (grid_x, grid_y), (block_x, block_y) = launch.grid, launch.block
        self.parameters, self.memory, self.count = parameters, memory, grid_x * grid_y * block_x * block_y
        ctaid_y, ctaid_x, tid_y, tid_x = np.unravel_index(np.arange(self.count), (grid_y, grid_x, block_y, block_x))
        self.shared = Shared(ctaid_y * grid_x + ctaid_x, tid_y * block_x + tid_x, shared_bytes)
        self.active: Any = slice(None)
        special = tid_x, tid_y, ctaid_x, ctaid_y, block_x, block_y, grid_x, grid_y
        self._registers: dict[str, Any] = {
            name: np.asarray(value, np.uint32)[()] for name, value in zip(_SPECIAL, special, strict=True)
        }

    def read(self, register: str) -> Any:
        """Return the bits of a register of the active threads, or one number that all threads have."""
        if register not in self._registers:
            raise PtxError(f"{register} is read before it is written")
        values = self._registers[register]
        return values[self.active] if values.ndim else values

    def write(self, register: str, values: Any) -> None:
        """Write the active threads' part of a register."""
        if not isinstance(self.active, slice):
            part = values
            values = np.zeros(self.count, part.dtype)
            values[...] = self._registers.get(register, 0)
            values[self.active] = part
        self._registers[register] = values

    def store(self, addresses: Any, *values: Any) -> None:
        """Write values side by side to the memory of all blocks."""
        rows = np.empty((self.shared.places[self.active].size, len(values)), values[0].dtype)
        for at, each in enumerate(values):
            rows[:, at] = each
        self.memory.store(np.broadcast_to(addresses, len(rows)), rows)

    def load_shared(self, addresses: Any, kind: type[np.generic]) -> Array:
        """Read the memory of each block."""
        return self.shared.load(self.active, addresses, kind)

    def store_shared(self, addresses: Any, values: Any) -> None:
        """Write to the memory of each block."""
        self.shared.store(self.active, addresses, values)


class _Text:
    """The Python text of the instructions between two jumps, and the constants that it names."""

    def __init__(self, module: Module, start: int, end: int) -> None:
        self._module, self.start, self.end = module, start, end
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.predicate, goes_to = "", str(end)
        self._kinds: dict[str, type[np.generic]] = {}  # what the registers of the text hold
        self._views: dict[tuple[str, type[np.generic]], str] = {}
        self._given: set[str] = set()
        written: dict[str, None] = {}
        for step in module.code[start:end]:
            if step.operation in _JUMPS:
                goes_to = self._jump(step)
                continue
            self.predicate = step.predicate
            if not self._step(step.operation, *step.operation.rpartition(".")[::2], step.operands):
                raise PtxError(f"not allowed: {step.operation} {', '.join(step.operands)}")
            written |= dict.fromkeys(re.findall(r"%\w+", step.operands[0]) if step.operation[:2] != "st" else ())
        for register in written:
            if register in self._given or len(module.blocks_of[register]) > 1:
                bits = self._operand(register, module.bits_of(register))
                self.lines.append(f"threads.write({register!r}, {bits})")
        self.lines.append(f"return {goes_to}")

    def compiled(self) -> Callable[[Threads], Any]:
        """Return the text as a function, which returns where its threads go."""
        scope = {**NAMES, "Barrier": _Barrier, "branch": _branch, **self.constants}
        exec("\n    ".join(("def block(threads):", *self.lines)), scope)
        block: Callable[[Threads], Any] = scope["block"]
        if not self.predicate:
            return block

        def where_it_holds(threads: Threads) -> int:
            before, holds = threads.active, threads.read(self.predicate.removeprefix("!"))
            numbers = np.arange(threads.count)[before]
            threads.active = numbers[np.broadcast_to(holds ^ self.predicate.startswith("!"), numbers.shape)]
            if threads.active.size:
                block(threads)
            threads.active = before
            return self.end

        return where_it_holds

    def _jump(self, step: Instruction) -> str:
        if step.operation == "bar.sync":
            if step.operands != ("0",) or step.predicate:
                raise PtxError(f"not allowed: {step}")
            return f"Barrier({self.end})"
        target = len(self._module.code) if step.operation == "ret" else self._module.labels[step.operands[0]]
        if not step.predicate:
            return str(target)
        holds = self._operand(step.predicate.removeprefix("!"), "pred")
        return f"branch({'~' if step.predicate.startswith('!') else ''}{holds}, {target}, {self.end})"

    def _constant(self, text: str, target: type[np.generic]) -> str:
        if match := re.fullmatch(r"0[fd]([0-9A-F]+)", text):
            value = np.array(int(match[1], 16), f"u{len(match[1]) // 2}")
        else:
            number = self._module.shared[text] if text in self._module.shared else int(text, 0)
            size = np.dtype(target).itemsize
            value = np.array(number % (1 << 8 * size), f"u{size}")
        name = f"c{len(self.constants)}"
        self.constants[name] = value.view(target)[()]
        return name

    def _operand(self, operand: str, kind: str) -> str:
        """Return the text of an operand with its bits read as a type."""
        target = TYPES[kind]
        if not operand.startswith("%"):
            return self._constant(operand, target)
        name = operand[1:].replace(".", "_")
        if name not in self._kinds:
            self._kinds[name] = TYPES[self._module.bits_of(operand)]
            self._given.add(operand)
            self.lines.append(f"{name} = threads.read({operand!r})")
        held = self._kinds[name]
        if held is target:
            return name
        if (name, target) not in self._views:
            size, width = np.dtype(target).itemsize, np.dtype(held).itemsize
            if size > width or np.bool_ in (held, target):
                raise PtxError(f"not allowed: {operand} as {kind}")
            low = f".view(uint{8 * width}).astype(uint{8 * size})" if size < width else ""  # stores may take it
            self._views[name, target] = f"{name}_{target.__name__}"
            self.lines.append(f"{name}_{target.__name__} = {name}{low}.view({target.__name__})")
        return self._views[name, target]

    def _assign(self, register: str, kind: str, formula: str, *operands: tuple[str, str]) -> bool:
        """Give a register the value of a formula of operands with their types."""
        texts = [self._operand(*operand) for operand in operands]
        if (
            not register.startswith("%")
            or np.dtype(TYPES[kind]).itemsize != np.dtype(TYPES[self._module.bits_of(register)]).itemsize
        ):
            return False
        name = register[1:]
        self.lines.append(f"{name} = {formula.format(*texts)}")
        self._kinds[name] = TYPES[kind]
        self._views = {key: view for key, view in self._views.items() if key[0] != name}
        return True

    def _step(self, operation: str, name: str, kind: str, operands: tuple[str, ...]) -> bool:
        """Add an instruction; return whether it is allowed."""
        if operation.startswith(("ld", "st")):
            return self._memory(operation, operands)
        target, *sources = operands
        kinds, formula = FORMULAS.get(name, ((), ""))
        if kind in kinds and "{" not in "".join(operands):
            return self._assign(target, kind, formula, *((source, kind) for source in sources))
        if kind in {"shl": ("b32", "b64"), "shr": INTEGER_TYPES}.get(name, ()):
            formula = {"shl": "shift_left({}, {})", "shr": "shift_right({}, {})"}[name]
            return self._assign(target, kind, formula, (sources[0], kind), (sources[1], "u32"))
        if name == "mul.wide" and kind in ("u16", "u32", "s32"):
            wide = f"{kind[0]}{2 * int(kind[1:])}"
            formula = "{{}}.astype({0}) * {{}}.astype({0})".format(TYPES[wide].__name__)
            return self._assign(target, wide, formula, *((source, kind) for source in sources))
        if name == "selp" and kind in ("b16", "b32", "b64", "u16", *INTEGER_TYPES, *FLOAT_TYPES):
            return self._assign(target, kind, "where({2}, {0}, {1})", *zip(sources, (kind, kind, "pred"), strict=True))
        if name.startswith("setp."):
            return self._comparison(name[5:], kind, target, sources)
        return self._move(operation, target, sources)

    def _comparison(self, comparison: str, kind: str, target: str, sources: list[str]) -> bool:
        ordered = comparison in COMPARISONS_OF_INTEGERS
        kinds = (*INTEGER_TYPES, *(("s16", "b32", "b64") if comparison in ("eq", "ne") else ())) if ordered else ()
        if kind not in (*kinds, *FLOAT_TYPES) or comparison not in COMPARISONS:
            return False
        if comparison == "ne" and kind not in FLOAT_TYPES:
            comparison = "neu"
        return self._assign(target, "pred", COMPARISONS[comparison], *((source, kind) for source in sources))

    def _move(self, operation: str, target: str, sources: list[str]) -> bool:
        if operation in ("mov.b32", "mov.b64") and sources[0].startswith("{"):
            half, whole, width = {"mov.b32": ("b16", "uint32", 16), "mov.b64": ("b32", "uint64", 32)}[operation]
            formula = f"{{}}.astype({whole}) | {{}}.astype({whole}) << {whole}({width})"
            parts = re.findall(r"[^{},\s]+", sources[0])
            return self._assign(target, operation[4:], formula, *((part, half) for part in parts))
        if match := re.fullmatch(r"cvt\.rzi\.(s32|s64)\.(f32|f64)", operation):
            formula = f"cut_off({{}}, {TYPES[match[1]].__name__})"
            return self._assign(target, match[1], formula, (sources[0], match[2]))
        if operation == "prmt.b32":
            return self._assign(target, "b32", "permute({}, {}, {})", *((source, "b32") for source in sources))
        if match := re.fullmatch(r"bfi\.(b32|b64)", operation):
            kinds = match[1], match[1], "u32", "u32"
            return self._assign(target, match[1], "insert_bits({}, {}, {}, {})", *zip(sources, kinds, strict=True))
        if match := re.fullmatch(r"cvt(\.rn)?\.(\w+)\.(\w+)", operation):
            if match.group(2, 3) not in CONVERSIONS[match[1] or ""]:
                return False
            formula = f"{{}}.astype({TYPES[match[2]].__name__})"
            formula = f"canonical({formula})" if match[2] in ("f16", "f32") else formula
            return self._assign(target, match[2], formula, (sources[0], match[3]))
        return False

    def _address(self, operand: str) -> str:
        """Return the text of ``[register+offset]``."""
        register, _, offset = operand.strip("[]").partition("+")
        text = self._operand(register, "u64")
        return f"{text} + {self._constant(offset, np.uint64)}" if offset else text

    def _memory(self, operation: str, operands: tuple[str, ...]) -> bool:
        match = re.fullmatch(r"(ld\.param|(?:ld|st)\.(?:global|shared))(?:\.cs)?(?:\.v([24]))?\.(\w+)", operation)
        if match is None or match[3] not in TYPES:
            return False
        access, kind, count = match[1], match[3], int(match[2] or 1)
        if count > 1 and not access.endswith("global"):
            return False
        if access.startswith("st"):
            values = [self._operand(value, kind) for value in re.findall(r"[^{},\s]+", operands[1])]
            assert len(values) == count
            arguments = ", ".join((self._address(operands[0]), *values))
            self.lines.append(f"threads.store{'_shared' * (access == 'st.shared')}({arguments})")
            return True
        name = TYPES[kind].__name__
        if access == "ld.param":
            parameter = operands[1].strip("[]")
            if parameter not in self._module.parameters:
                raise PtxError(f"not a parameter: {parameter}")
            return self._assign(operands[0], kind, f"threads.parameters[{parameter!r}].astype({name})")
        address = self._address(operands[1])
        if count > 1:
            self.lines.append(f"loaded = threads.memory.load({address}, {name}, {count})")
            targets = re.findall(r"[^{},\s]+", operands[0])
            return all(self._assign(target, kind, f"loaded[{at}]") for at, target in enumerate(targets))
        into = f"{'s' if kind[0] == 's' else 'u'}{self._module.bits_of(operands[0])[1:]}"
        loaded = f"threads.{'memory.load' if access == 'ld.global' else 'load_shared'}({address}, {name})"
        if np.dtype(TYPES[into]).itemsize == np.dtype(TYPES[kind]).itemsize:
            return self._assign(operands[0], kind, loaded)
        return kind[0] != "f" and self._assign(operands[0], into, f"{loaded}.astype({TYPES[into].__name__})")
