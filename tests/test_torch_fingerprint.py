"""Fingerprints and verification of torch modules, in one process and in several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import numparam  # noqa: E402
from numparam.errors import ArgumentTypeError, MismatchError, StateError  # noqa: E402
from numparam.initializer import Normal, Orthogonal  # noqa: E402
from numparam.torch import exchange, fingerprint, identify, init_, pattern_, verify  # noqa: E402
from numparam.torch.memory import shared  # noqa: E402


class Scaled(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)


@pytest.mark.parametrize("size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_all_ranks(size: int, tmp_path: Path) -> None:
    script = Path(__file__).parent / "torch_fingerprint_ranks.py"
    command = [sys.executable, str(script), str(size), str(tmp_path / "store")]
    environment = {**os.environ, "NUMPARAM_NUM_THREADS": "1"}
    ran = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("passed sharded_stacks_show_their_experts\n")


def test_the_sums_of_a_thousand_ranks_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    modulus, count = 2**61 - 1, 1000
    every = torch.tensor([[modulus - 1 - rank, rank << 51] for rank in range(count)])
    monkeypatch.setattr(torch.distributed, "all_to_all_single", lambda received, _, **__: received.copy_(every))
    monkeypatch.setattr(torch.distributed, "get_backend", lambda _: "gloo")
    monkeypatch.setattr(
        torch.distributed, "all_gather_into_tensor", lambda out, mine, **_: out.copy_(mine.expand_as(out))
    )
    expected = [sum(column) % modulus for column in zip(*every.tolist(), strict=True)]
    assert exchange._summed([(0, 0)], count, None) == [tuple(expected)]


def test_tensors_of_any_dtype_and_strides_have_the_fingerprint_of_their_bits() -> None:
    module = nn.Module()
    bits = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2):
        module.w = nn.Parameter(bits.to(dtype).T, requires_grad=False)
        array = np.arange(24).reshape(4, 6).astype(numparam.dtypes.as_dtype(str(dtype).removeprefix("torch.")))
        assert fingerprint(module)["w"] == numparam.fingerprint(array.T)


def test_parameters_without_memory_are_named() -> None:
    module = nn.Sequential(nn.Linear(2, 3, device="meta"), Scaled(3, 2, device="meta"))
    with pytest.raises(StateError, match=r"parameter '0\.weight' has no memory; fill it with init_ or load it first"):
        fingerprint(module)
    found = verify(module, 7)
    assert found.unchecked == dict.fromkeys(("0.weight", "0.bias", "1.weight", "1.bias"), "it has no memory")
    assert not found.differences


def test_wrong_answers_of_where_are_named() -> None:
    module = nn.Linear(2, 3)
    with pytest.raises(ArgumentTypeError, match=r"where\('weight', \.\.\.\) returns None, or a shape, .*, found 3"):
        fingerprint(module, where=lambda *_: 3)  # type: ignore[arg-type, return-value]
    with pytest.raises(ArgumentTypeError, match="where is a callable, found 3"):
        fingerprint(module, where=3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="a mapping from names to tensors is verified, found 3"):
        identify(module, 3)  # type: ignore[arg-type]


def test_names_are_those_without_wrappers() -> None:
    module = nn.Sequential(nn.Linear(2, 3))
    assert fingerprint(nn.DataParallel(module)) == fingerprint(module)
    with pytest.raises(ArgumentTypeError, match=r"a torch\.nn\.Module was expected, found int"):
        fingerprint(3)  # type: ignore[arg-type]


def test_what_was_overwritten_or_never_loaded_is_found() -> None:
    module = nn.Sequential(nn.Embedding(300, 400), nn.Linear(400, 300), nn.LayerNorm(300), nn.Linear(300, 4))
    rules = {"3.weight": Orthogonal(), "0.weight": Normal(0.02)}
    report = init_(module, rules, seed=7)
    before = [parameter.clone() for parameter in module.parameters()]
    assert verify(module, 7, rules)
    assert verify(module, report=report)
    with torch.no_grad():
        module[0].weight[299, 399] = -module[0].weight[299, 399]
        module[1].weight.zero_()
        module[2].reset_parameters()  # the same values
        module[3].weight[1, 2] += 1
    for found in (verify(module, 7, rules), verify(module, report=report)):
        assert [(each.entry.name, each.index) for each in found.differences] == [
            ("0.weight", (299, 399)), ("1.weight", (0, 0)), ("3.weight", (1, 2)),
        ]  # fmt: skip
        assert not found.unchecked
        with pytest.raises(MismatchError, match=r"parameter '0\.weight' differs first at index \(299, 399\)"):
            found.require()
    assert all((a != b).sum() == 0 for a, b in zip(module[2].parameters(), before[3:5], strict=True))
    assert verify(module, 8, rules).differences[0].entry.name == "0.weight"


class Padded(nn.Embedding):
    """Written twice, and then a row again."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        nn.init.normal_(self.weight, std=0.02)
        with torch.no_grad():
            self.weight[3].zero_()


class Scaled2(nn.Linear):
    """Computed by torch from what is drawn."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        self.weight.data.mul_(2)
        nn.init.zeros_(self.bias)


@pytest.mark.parametrize("with_report", [True, False])
def test_what_the_code_of_a_model_draws_is_drawn_again(with_report: bool) -> None:
    module = nn.Sequential(Scaled(4, 3), Padded(40, 30), nn.Linear(30, 4))
    rules = {"2.weight": Normal(0.5), "0.bias": 0.25}
    report = init_(module, rules, seed=7)
    arguments: dict[str, Any] = {"report": report} if with_report else {"seed": 7, "rules": rules}
    found = verify(module, **arguments)
    assert found, str(found)
    assert len(found.checked) == 5
    with torch.no_grad():
        module[1].weight[3, 29] = 1e-9
        module[0].weight.copy_(torch.zeros(3, 4))
    assert sorted((each.entry.name, each.index) for each in verify(module, **arguments).differences) == [
        ("0.weight", (0, 0)), ("1.weight", (3, 29)),
    ]  # fmt: skip


@pytest.mark.parametrize("with_report", [True, False])
def test_what_numparam_did_not_draw_is_named(with_report: bool) -> None:
    module = nn.Sequential(Scaled2(4, 3))
    report = init_(module, seed=7)
    found = verify(module, report=report) if with_report else verify(module, 7)
    assert found.unchecked == {"0.weight": "Scaled2.reset_parameters starts it: numparam did not draw its values"}
    assert found.checked == ["0.bias"]
    with pytest.raises(MismatchError, match=r"parameter '0\.weight' was not checked: Scaled2"):
        found.require()


def test_a_start_that_needs_values_is_named() -> None:
    class Reading(nn.Linear):
        def reset_parameters(self) -> None:
            nn.init.normal_(self.weight)
            nn.init.constant_(self.bias, self.weight[0, 0].item())

    module = nn.Sequential(Reading(4, 3))
    init_(module, seed=7)
    found = verify(module, 7)
    assert set(found.unchecked) == {"0.weight", "0.bias"}
    assert "Reading.reset_parameters starts it: it cannot run without memory (" in found.unchecked["0.weight"]


def test_models_of_transformers_are_verified_without_a_report() -> None:
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    module = hf.BertModel(hf.BertConfig(**sizes, vocab_size=50, max_position_embeddings=16))  # pads with row 0
    report = init_(module, seed=7)
    assert verify(module, 7)
    assert verify(module, report=report)
    module.apply(module._init_weights)
    assert len(verify(module, 7).differences) > 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_a_pattern_is_known_in_every_dtype(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(64, 96), nn.LayerNorm(96), nn.Linear(96, 64)).to(dtype)
    model = pattern_(module, seed=3)
    for name, parameter in module.named_parameters():
        found = numparam.identify(shared(parameter), model)
        assert [(each.name, each.rows) for each in found.pieces] == [
            (name, range(len(parameter) if parameter.ndim > 1 else 1))
        ]
        assert parameter.float().abs().max() <= 1 / 8
    assert model["0.weight"].has_init


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_a_single_value_that_is_elsewhere_too_is_in_its_place(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(64, 48), nn.LayerNorm(48), nn.Linear(48, 1)).to(dtype)
    pattern = pattern_(module, seed=1)
    assert identify(module, pattern) == []
    with torch.no_grad():
        module[2].bias.copy_(module[0].bias[:1])
    assert [each.name for each in identify(module, pattern)] == ["2.bias"]
