"""Planted faults in real models over 1, 2 and 4 ranks: fingerprints find all, and `identify` names what has moved.

A fault is a function of full tensors and shards. It is applied twice: to the values, and to numbers that say where each
element comes from, which `identify` has to find out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")

import numparam  # noqa: E402
from numparam import Fingerprints, Region, identify  # noqa: E402
from numparam.errors import NumparamError  # noqa: E402
from numparam.fingerprints import Identification  # noqa: E402
from numparam.torch import fingerprint, pattern_  # noqa: E402
from numparam.torch.memory import shared  # noqa: E402
from numparam.torch.walk import places  # noqa: E402

Tensors = dict[str, Any]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"vocab_size": 112, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True}


def gpt2() -> Any:
    config = hf.GPT2Config(
        n_layer=2, n_embd=32, n_head=4, vocab_size=96, n_positions=48, bos_token_id=0, eos_token_id=1
    )
    return hf.GPT2LMHeadModel(config)


def llama() -> Any:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, intermediate_size=88))


def qwen3_moe() -> Any:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
    return hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**SIZES, **experts, intermediate_size=48))


class Fleet:
    """A model as a trainer has it, and its shards on the ranks of an engine."""

    def __init__(self, build: Callable[[], Any], dtype: Any, ranks: int) -> None:
        module = build().to(dtype)
        self.ranks, self.pattern = ranks, pattern_(module, seed=3)
        self.sent = fingerprint(module)
        self.values: Tensors = {place.name: place.tensor.detach() for place in places(module) if place.is_parameter}
        starts = np.cumsum([0, *(each.numel() for each in self.values.values())])
        self.origins: Tensors = {
            name: torch.arange(start, start + each.numel()).reshape(each.shape)
            for (name, each), start in zip(self.values.items(), starts.tolist(), strict=False)
        }

    def region(self, rank: int, name: str) -> Region:
        """Return what a rank holds: uneven rows, columns of what is multiplied from the right, and all of vectors."""
        full = Region.full(tuple(self.values[name].shape))
        if len(full.shape) == 1:
            return full
        axis = 1 if any(part in name for part in ("o_proj", "down_proj.w", "c_proj")) else 0
        length = full.shape[axis]
        part = slice(length * rank // self.ranks, length * (rank + 1) // self.ranks)
        return full[:, part] if axis else full[part]

    def shard(self, full: Tensors, rank: int, name: str, moved: int = 0) -> Any:
        """Return what a rank should hold, or so many rows further."""
        index = self.region(rank, name).slices()
        return full[name].roll(-moved, 0)[index].clone()

    def names(self, *parts: str) -> list[str]:
        return [name for name in self.values if any(part in name for part in parts)]

    def arrived(self, changed: Any) -> Fingerprints:
        """Return what the ranks find when some of their tensors are others: None is missing, new names are new."""
        tables = {}
        for rank in range(self.ranks):
            held = {name: self.shard(self.values, rank, name) for name in self.values}
            held |= {name: each for (at, name), each in changed.items() if at == rank}
            module = torch.nn.ParameterDict()
            shapes: dict[str, tuple[Any, ...]] = {}
            for number, (name, each) in enumerate(held.items()):
                if each is not None:
                    module[f"p{number}"] = torch.nn.Parameter(each, requires_grad=False)
                    region = self.region(rank, name) if name in self.values else Region.full(tuple(each.shape))
                    shapes[f"p{number}"] = (name, region)
            table = fingerprint(
                module,
                where=lambda name, each, shapes=shapes: (shapes[name][1].full_shape, shapes[name][1], each),
                local=True,
            )
            tables[rank] = Fingerprints({shapes[key][0]: each for key, each in table.items()})
        return Fingerprints.join(tables)


class Fault(NamedTuple):
    """What arrives in place of tensors, by rank and name."""

    changed: dict[tuple[int, str], Any]
    moves: bool = False


Plant = Callable[[Fleet, Tensors, np.random.Generator], Fault]


def _rank(fleet: Fleet, rng: np.random.Generator) -> int:
    return int(rng.integers(fleet.ranks))


def _everywhere(fleet: Fleet, full: Tensors, name: str) -> dict[tuple[int, str], Any]:
    return {(rank, name): fleet.shard(full, rank, name) for rank in range(fleet.ranks)}


def flipped_bit(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    rank, name = _rank(fleet, rng), str(rng.choice(fleet.names("")))
    tensor = fleet.shard(full, rank, name)
    bits = tensor.view(-1).view(torch.uint8)
    bits[int(rng.integers(len(bits)))] ^= 1 << int(rng.integers(8))
    return Fault({(rank, name): tensor})


def swapped_gate_and_up(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    rank = _rank(fleet, rng)
    if gates := fleet.names("gate_proj"):
        gate = str(rng.choice(gates))
        up = gate.replace("gate", "up")
        return Fault({(rank, gate): fleet.shard(full, rank, up), (rank, up): fleet.shard(full, rank, gate)}, True)
    name = str(rng.choice(fleet.names("gate_up_proj", "c_fc.weight")))  # fused, or the halves of the one there is
    tensor = fleet.shard(full, rank, name)
    return Fault({(rank, name): tensor.roll(tensor.shape[-2] // 2, -2)}, True)


def wrong_cut_of_fused_qkv(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    if names := fleet.names("c_attn.weight"):
        name = str(rng.choice(names))
        tensor = full[name].roll(8 * int(rng.integers(1, 12)), 1)
        return Fault(_everywhere(fleet, full | {name: tensor}, name), True)
    names = [str(rng.choice(fleet.names("q_proj")))]
    names += [names[0].replace("q_proj", part) for part in ("k_proj", "v_proj")]
    fused = torch.cat([full[name] for name in names]).roll(-8 * int(rng.integers(1, 8)), 0)
    parts = fused.split([len(full[name]) for name in names])
    cut = full | dict(zip(names, parts, strict=True))
    return Fault({key: each for name in names for key, each in _everywhere(fleet, cut, name).items()}, True)


def duplicated_shard(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    name = str(rng.choice(fleet.names("proj.weight", "fc.weight", "embed", "wte", "experts")))
    if fleet.ranks == 1:
        tensor = full[name].clone()
        half = len(tensor) // 2
        tensor[half : 2 * half] = full[name][:half]
        return Fault({(0, name): tensor}, True)
    source, rank = map(int, rng.permutation(fleet.ranks)[:2])
    if fleet.region(source, name).shape != fleet.region(rank, name).shape:
        return duplicated_shard(fleet, full, rng)
    return Fault({(rank, name): fleet.shard(full, source, name)}, True)


def stale_expert(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    rank, name = _rank(fleet, rng), str(rng.choice(fleet.names("experts", "mlp.c_", "mlp.gate_proj")))
    tensor = fleet.shard(full, rank, name)
    tensor[int(rng.integers(len(tensor)))] += 1  # one step of an optimizer behind
    return Fault({(rank, name): tensor})


def dropped_expert(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    rank, name = _rank(fleet, rng), str(rng.choice(fleet.names("experts", "_proj.weight", "c_fc.weight")))
    if "experts" not in name:
        return Fault({(rank, name): None})
    tensor = fleet.shard(full, rank, name)
    tensor[int(rng.integers(len(tensor)))] = 0
    return Fault({(rank, name): tensor})


def transposed_square_matrix(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    squares = [name for name, each in fleet.values.items() if each.ndim == 2 and each.shape[0] == each.shape[1]]
    name = str(rng.choice(squares))
    return Fault(_everywhere(fleet, full | {name: full[name].T.contiguous()}, name), True)


def rows_off_by_one(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    rank, name = _rank(fleet, rng), str(rng.choice(fleet.names("proj.weight", "c_fc.weight", "c_proj.weight", "embed")))
    return Fault({(rank, name): fleet.shard(full, rank, name, int(rng.choice([-2, -1, 1, 2])))}, True)


def moved_padding_of_the_vocabulary(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    (name,) = fleet.names("embed_tokens", "wte")
    pad = int(rng.integers(1, 9))
    tensor = torch.cat([torch.zeros_like(full[name][:pad]) - int(full is fleet.origins), full[name][:-pad]])
    return Fault(_everywhere(fleet, full | {name: tensor}, name), True)


def wrong_cast(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    rank, name = _rank(fleet, rng), str(rng.choice(fleet.names("")))
    tensor = fleet.shard(full, rank, name)
    cast = tensor.to(torch.float8_e4m3fn)  # float16 would lose nothing of small bfloat16 values
    return Fault({(rank, name): cast if rng.integers(2) else cast.to(tensor.dtype)})


def untied_weight(fleet: Fleet, full: Tensors, rng: np.random.Generator) -> Fault:
    (name,) = fleet.names("embed_tokens", "wte")
    return Fault({(_rank(fleet, rng), "lm_head.weight"): full[name] * 2})


FAULTS: tuple[Plant, ...] = (
    flipped_bit, swapped_gate_and_up, wrong_cut_of_fused_qkv, duplicated_shard, stale_expert, dropped_expert,
    transposed_square_matrix, rows_off_by_one, moved_padding_of_the_vocabulary, wrong_cast, untied_weight,
)  # fmt: skip


def is_found(fleet: Fleet, changed: Any) -> bool:
    try:
        return bool(fleet.sent.compare(fleet.arrived(changed)))
    except NumparamError:  # replicas that differ, or a region that is missing
        return True


def is_named(fleet: Fleet, found: Identification, origin: Any) -> bool:
    """Compare what an identification says of every element with where it comes from."""
    said = torch.full_like(origin, -1)
    flat = said.reshape(-1, said.shape[-1])
    for piece in found.pieces:
        source = fleet.origins[piece.name].reshape(-1, fleet.origins[piece.name].shape[-1])
        lines = source[list(piece.rows)][:, list(piece.columns)]
        local = list(piece.local)
        if found.along == "rows":
            flat[local] = lines.T if found.transposed else lines
        else:
            flat[:, local] = lines.T if found.transposed else lines
    return bool((flat == origin.reshape(flat.shape)).all())


def faults(build: Callable[[], Any], rounds: int) -> None:
    """Plant faults, and check what is said of them."""
    rng = np.random.default_rng(5)
    missed, moved, wrong = [], 0, Counter[str]()
    for ranks in (1, 2, 4):
        for turn in range(rounds):
            fleet = Fleet(build, (torch.float32, torch.bfloat16)[(turn + ranks) % 2], ranks)
            assert not is_found(fleet, {})
            for plant in FAULTS:
                seed = int(rng.integers(2**32))
                fault = plant(fleet, fleet.values, np.random.default_rng(seed))
                if not is_found(fleet, fault.changed):
                    missed.append((plant.__name__, ranks, list(fault.changed)))
                if fault.moves:
                    origins = plant(fleet, fleet.origins, np.random.default_rng(seed)).changed
                    for key, tensor in fault.changed.items():
                        moved += 1
                        found = identify(shared(tensor.contiguous()), fleet.pattern)
                        wrong[plant.__name__] += not is_named(fleet, found, origins[key])
    assert missed == []
    assert moved > 15 * rounds
    assert wrong.total() <= 0.05 * moved, (wrong, moved)


@pytest.mark.parametrize("build", [gpt2, llama, qwen3_moe])
def test_faults_are_found_and_named(build: Callable[[], Any]) -> None:
    faults(build, 1)


@pytest.mark.slow
@pytest.mark.parametrize("build", [gpt2, llama, qwen3_moe])
def test_a_thousand_faults_are_found_and_named(build: Callable[[], Any]) -> None:
    assert 3 * 3 * 11 * len(FAULTS) > 1000  # models, numbers of ranks, rounds
    faults(build, 11)


def test_an_xor_misses_what_fingerprints_find() -> None:
    rng = np.random.default_rng(2)
    array = rng.random((64, 32), np.float32)

    def xor(values: np.ndarray[Any, Any]) -> int:
        return int(np.bitwise_xor.reduce(np.ascontiguousarray(values).view(np.uint32), axis=None))

    changes = [array[::-1], np.roll(array, 1, axis=0), array.reshape(64, 32)[:, ::-1], np.roll(array, 16)]
    twice = np.concatenate([array, array])
    assert xor(twice) == 0 == xor(np.concatenate([array[::-1], array]))
    assert all(xor(change) == xor(array) for change in changes)
    assert len({numparam.fingerprint(each) for each in [array, *changes]}) == 1 + len(changes)
