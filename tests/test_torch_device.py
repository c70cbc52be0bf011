"""Torch tensors on a CUDA device, which the PTX interpreter stands for, and the order of what is queued there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import numparam
from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam.initializer import Normal, initializer
from numparam.kernels.machine import driver as _driver
from ramp import Ramp

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from numparam.torch import PaddedNormal, fill_, filling, init_, memory  # noqa: E402


def on_device(test: Any) -> Any:
    for mark in needs_compiler:
        test = mark(test)
    return test


SEED = 5
CUDA = torch.device("cuda:1")
real_empty = torch.empty
current: InterpretedDriver | None = None


class OnDevice(torch.Tensor):  # type: ignore[misc]
    """A tensor in the interpreted device's memory, which says that it is on a CUDA device."""

    device = property(lambda _: CUDA)
    is_cuda = property(lambda _: True)
    is_cpu = property(lambda _: False)

    def copy_(self, source: Any) -> Any:
        synchronise()
        return bare(self).copy_(bare(source))


def bare(tensor: Any) -> Any:
    return tensor.as_subclass(torch.Tensor)


def synchronise() -> None:
    if current is not None:
        current.record(1).sync()


def empty(*shape: Any, dtype: Any = torch.float32, device: Any = None) -> Any:
    lengths = shape[0] if shape and isinstance(shape[0], tuple | torch.Size) else shape
    if device != CUDA or current is None:
        return real_empty(lengths, dtype=dtype, device=device)
    buffer = current.allocate(1, max(int(np.prod(lengths)) * dtype.itemsize, 1))
    plain = torch.from_numpy(buffer.data).view(dtype).reshape(lengths)
    tensor = plain.as_subclass(OnDevice)
    tensor.buffer = buffer  # the device frees what nobody holds
    return tensor


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[InterpretedDriver]:
    global current  # noqa: PLW0603
    memory.is_reachable.cache_clear()
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(filling, "in_order", nullcontext)
    with interpreted() as current:
        yield current
    current = None
    memory.is_reachable.cache_clear()


def expected(name: str, init: Any, shape: Any, dtype: str = "float32") -> Any:
    numparam.set_seed(SEED)
    return numparam.Parameter(initializer(init, tuple(shape), dtype), name=name).asnumpy()


def values(tensor: Any) -> Any:
    synchronise()
    return memory.shared(bare(tensor).contiguous())


def same(tensor: Any, array: Any) -> bool:
    found = values(tensor)
    return found.shape == array.shape and found.tobytes() == array.tobytes()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    "init, dtype", [(Normal(), "bfloat16"), ("ones", "float32"), (Ramp(), "float32"), (PaddedNormal(2), "bfloat16")]
)
@on_device
def test_bits_are_those_of_the_cpu(init: Any, dtype: str, transposed: bool) -> None:
    tensor = empty(6, 5, dtype=getattr(torch, dtype), device=CUDA)
    if transposed:
        tensor = tensor.t()
    fill_(tensor, init, "w", SEED)
    assert same(tensor, expected("w", init, tensor.shape, dtype))


@on_device
def test_a_module_takes_one_launch(device: InterpretedDriver) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Embedding(4, 3, padding_idx=1)).to(torch.bfloat16)
    for part in module:
        for key, parameter in part._parameters.items():
            part._parameters[key] = empty(*parameter.shape, dtype=parameter.dtype, device=CUDA)
            part._parameters[key]._is_param = True
    report = init_(module, {"[01].*": Normal()}, seed=SEED)
    for name, parameter in module.named_parameters():
        init = PaddedNormal(1) if name == "2.weight" else Normal()
        assert same(parameter, expected(name, init, parameter.shape, "bfloat16"))
    assert [row.device for row in report.filled] == ["cuda:1"] * 5
    assert len(device.launches) == 2  # all that is drawn, and the row of zeros of the embedding


def test_without_the_extra_the_cpu_makes_the_values(device: InterpretedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise _driver.DeviceMissingError("no numba-cuda")

    monkeypatch.setattr(_driver, "count_devices", fail)
    tensor = empty(6, 5, dtype=torch.float32, device=CUDA)
    fill_(tensor, Normal(), "w", SEED)
    assert same(tensor, expected("w", Normal(), (6, 5)))
    assert device.launches == []


def test_what_is_queued_comes_after_what_torch_queued_and_before_what_it_queues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Any) -> None:
            done.append(f"{self.name} waits for {other.name}")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: Stream(f"current {index}"))
    monkeypatch.setattr(torch.cuda, "default_stream", lambda index: Stream(f"default {index}"))
    with memory.in_order([1]):
        done.append("work")
    assert done == ["default 1 waits for current 1", "work", "current 1 waits for default 1"]
