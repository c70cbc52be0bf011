"""A thousand planted faults: fingerprints find all of them, and `identify` names what has moved."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Fingerprints, Parameter, Region, fingerprint
from numparam.fingerprints import identify
from numparam.initializer import Normal, initializer

Array = np.ndarray[Any, Any]
Shapes = dict[str, tuple[int, ...]]
Moved = tuple[Array, str, range, bool]
"""What arrived, the parameter and the rows that it really holds, and whether it is transposed."""


def gpt2() -> Shapes:
    shapes: Shapes = {"wte": (96, 32), "wpe": (48, 32)}
    for i in range(3):
        shapes |= {f"h.{i}.attn.c_attn": (96, 32), f"h.{i}.attn.c_proj": (32, 32), f"h.{i}.mlp.c_fc": (128, 32)}
    return shapes


def llama() -> Shapes:
    shapes: Shapes = {"embed_tokens": (112, 32), "lm_head": (112, 32)}
    for i in range(3):
        layer = f"layers.{i}"
        shapes |= {f"{layer}.q_proj": (32, 32), f"{layer}.k_proj": (16, 32), f"{layer}.v_proj": (16, 32)}
        shapes |= {f"{layer}.o_proj": (32, 32), f"{layer}.gate_proj": (88, 32), f"{layer}.up_proj": (88, 32)}
    return shapes


def qwen3_moe() -> Shapes:
    shapes: Shapes = {"embed_tokens": (112, 32)}
    for i in range(2):
        shapes[f"layers.{i}.q_proj"] = (64, 32)
        for e in range(4):
            shapes |= {f"layers.{i}.experts.{e}.{part}": (24, 32) for part in ("gate_proj", "up_proj")}
            shapes[f"layers.{i}.experts.{e}.down_proj"] = (32, 24)
    return shapes


class Model:
    """Parameters, lazy and in memory, and their fingerprints."""

    def __init__(self, shapes: Shapes, dtype: Any) -> None:
        self.lazy = {
            name: Parameter(initializer(Normal(0.02), shape, dtype), name=name) for name, shape in shapes.items()
        }
        self.arrays = {name: fresh(each) for name, each in self.lazy.items()}
        self.table = fingerprint(self.arrays)

    def pick(self, rng: np.random.Generator, suits: Callable[[str, Array], bool] = lambda *_: True) -> str:
        return str(rng.choice([name for name, array in self.arrays.items() if suits(name, array)]))

    def other(self, rng: np.random.Generator, name: str) -> str:
        """Choose another parameter of the same shape."""
        return self.pick(rng, lambda each, array: each != name and array.shape == self.arrays[name].shape)


def fresh(parameter: Parameter) -> Array:
    out = np.empty(parameter.shape, parameter.dtype)
    parameter.fill_into(out)
    return out


# Each fault returns what arrives in place of some parameters (None: nothing), and what of it identify should name.
Arrived = tuple[dict[str, Array | None], Moved | None]


def flipped_bit(model: Model, rng: np.random.Generator) -> Arrived:
    name = model.pick(rng)
    array = model.arrays[name].copy()
    bits = array.reshape(-1).view(np.uint8)
    bits[rng.integers(bits.size)] ^= np.uint8(1 << rng.integers(8))
    return {name: array}, None


def swapped_parameters(model: Model, rng: np.random.Generator) -> Arrived:
    name = model.pick(rng, lambda name, _: "proj" in name and "down" not in name and "q_" not in name)
    other = model.other(rng, name)
    here, there = model.arrays[name], model.arrays[other]
    return {name: there, other: here}, (there, other, range(len(there)), False)


def wrong_cut_of_a_fused_projection(model: Model, rng: np.random.Generator) -> Arrived:
    name = model.pick(rng, lambda _, array: len(array) >= 32)
    array = model.arrays[name]
    cut = int(rng.integers(8, len(array) - 8))
    return {name: np.roll(array, -cut, axis=0)}, (
        np.roll(array, -cut, axis=0)[:-cut],
        name,
        range(cut, len(array)),
        False,
    )


def duplicated_shard(model: Model, rng: np.random.Generator) -> Arrived:
    name, ranks = model.pick(rng), int(rng.choice([2, 4]))
    array = model.arrays[name].copy()
    rows = len(array) // ranks
    source = int(rng.integers(ranks - 1))
    array[-rows:] = array[source * rows : (source + 1) * rows]
    return {name: array}, (array[-rows:], name, range(source * rows, (source + 1) * rows), False)


def stale_values(model: Model, rng: np.random.Generator) -> Arrived:
    name = model.pick(rng)
    array = (model.arrays[name].astype(np.float32) * 1.01).astype(model.arrays[name].dtype)
    return {name: array}, None


def dropped(model: Model, rng: np.random.Generator) -> Arrived:
    return {model.pick(rng): None}, None


def transposed_square(model: Model, rng: np.random.Generator) -> Arrived:
    name = model.pick(rng, lambda _, array: array.shape[0] == 32 or array.shape[0] < array.shape[1])
    size = min(model.arrays[name].shape)
    array = model.arrays[name].copy()
    array[:size, :size] = array[:size, :size].T.copy()
    if array.shape != (size, size):
        return {name: array}, None
    return {name: array}, (array, name, range(size), True)


def shifted_rows(model: Model, rng: np.random.Generator) -> Arrived:
    name, shift = model.pick(rng), int(rng.integers(1, 5))
    array = model.arrays[name].copy()
    array[:-shift] = model.arrays[name][shift:]
    return {name: array}, (array[:-shift], name, range(shift, len(array)), False)


def moved_padding(model: Model, rng: np.random.Generator) -> Arrived:
    name = model.pick(rng, lambda name, _: name in ("embed_tokens", "wte"))
    array = np.concatenate([np.zeros_like(model.arrays[name][:6]), model.arrays[name][:-6]])
    return {name: array}, (array[6:], name, range(len(array) - 6), False)


def wrong_cast(model: Model, rng: np.random.Generator) -> Arrived:
    name = model.pick(rng)
    array = model.arrays[name]
    shorter = np.float16 if array.dtype == np.float32 else np.float32
    return {name: array.astype(shorter)}, None


def untied(model: Model, rng: np.random.Generator) -> Arrived:
    name = model.pick(rng)
    return {f"{name}.copy": model.arrays[name]}, None


FAULTS = (
    flipped_bit, swapped_parameters, wrong_cut_of_a_fused_projection, duplicated_shard, stale_values, dropped,
    transposed_square, shifted_rows, moved_padding, wrong_cast, untied,
)  # fmt: skip
ROUNDS = 16


def in_parts(array: Array, ranks: int) -> Any:
    """Return the sum of the fingerprints of uneven shards of rows."""
    bounds = [len(array) * rank // ranks for rank in range(ranks + 1)]
    regions = [Region.full(array.shape)[low:high] for low, high in itertools.pairwise(bounds)]
    found = [fingerprint(region.take(array), region=region) for region in regions]
    total = found[0]
    for each in found[1:]:
        total = total + each
    return total


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_faults_are_found_and_moved_rows_are_named(dtype: str) -> None:
    numparam.set_seed(11)
    rng = np.random.default_rng(zlib.crc32(dtype.encode()))
    count, missed, moved, named = 0, [], 0, 0
    wrong: Counter[str] = Counter()
    for shapes in (gpt2(), llama(), qwen3_moe()):
        model = Model(shapes, numparam.dtypes.as_dtype(dtype))
        for fault in FAULTS:
            for turn in range(ROUNDS):
                arrived, move = fault(model, rng)
                table = dict(model.table)
                for name, array in arrived.items():
                    if array is None:
                        del table[name]
                    else:
                        table[name] = in_parts(array, (1, 2, 4)[turn % 3])
                count += 1
                if not model.table.compare(Fingerprints(table)):
                    missed.append((fault.__name__, list(arrived)))
                if move is not None:
                    moved += 1
                    array, name, rows, turned = move
                    found = identify(array, model.lazy)
                    pieces = [(each.name, each.rows) for each in found.pieces]
                    right = pieces == [(name, rows)] and found.transposed == turned and not found.unknown
                    named += right
                    wrong[fault.__name__] += not right
    assert count == 3 * len(FAULTS) * ROUNDS  # over both dtypes more than a thousand
    assert missed == []
    assert moved > 200
    assert named >= 0.95 * moved, wrong


def test_an_xor_misses_what_fingerprints_find() -> None:
    rng = np.random.default_rng(2)
    array = rng.random((64, 32), np.float32)

    def xor(values: Array) -> int:
        return int(np.bitwise_xor.reduce(np.ascontiguousarray(values).view(np.uint32), axis=None))

    changes = [array[::-1], np.roll(array, 1, axis=0), array.reshape(64, 32)[:, ::-1], np.roll(array, 16)]
    twice = np.concatenate([array, array])
    assert xor(twice) == 0 == xor(np.concatenate([array[::-1], array]))
    assert all(xor(change) == xor(array) for change in changes)
    assert len({fingerprint(each) for each in [array, *changes]}) == 1 + len(changes)
