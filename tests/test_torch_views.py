"""Parameters as tensors of torch and arrays of JAX, for gradients; the example that trains with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Cell, Parameter
from numparam.initializer import initializer
from numparam.optim import Adam
from ranks import MPIEXEC, needs_mpi

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits.py"


class Net(Cell):
    def __init__(self, dtype: Any = np.float32) -> None:
        super().__init__()
        self.w = Parameter(initializer("normal", (3, 4), dtype))
        self.b = Parameter(np.zeros(3, np.int32), requires_grad=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_views_share_the_storage_and_its_changes(dtype: str) -> None:
    numparam.set_seed(3)
    net = Net(dtype)
    tensors = numparam.torch.views(net)
    assert [(name, each.requires_grad, each.is_leaf) for name, each in tensors.items()] == [
        ("w", True, True),
        ("b", False, True),
    ]
    assert tensors["w"].data_ptr() == net.w.asnumpy().ctypes.data
    with torch.no_grad():
        tensors["w"][0, 0] = 5.0
    assert net.w.asnumpy()[0, 0] == 5.0
    net.w[0, 1] = 6.0
    assert tensors["w"][0, 1] == 6.0
    shared = numparam.Tensor.from_dlpack(torch.ones(3))
    assert shared.tolist() == [1.0] * 3


def test_gradients_of_torch_and_of_jax_update_alike() -> None:
    numparam.set_seed(3)
    first, second = Net().w, Net().w
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    tensors, by_torch, by_jax = numparam.torch.views([first]), Adam([first], 0.1), Adam([second], 0.1)
    for _ in range(5):
        tensors["w"].grad = None
        ((torch.tensor(x) @ tensors["w"].T) ** 2).sum().backward()
        by_torch([tensors["w"].grad])
        arrays = numparam.jax.copies([second])
        by_jax([jax.grad(lambda arrays: ((x @ arrays["w"].T) ** 2).sum())(arrays)["w"]])
        assert arrays["w"].unsafe_buffer_pointer() != second.asnumpy().ctypes.data
    np.testing.assert_allclose(first.asnumpy(), second.asnumpy(), rtol=1e-4, atol=1e-5)
    assert np.array_equal(tensors["w"].detach().numpy(), first.asnumpy())


def test_read_only_values_are_copied_once() -> None:
    values = np.ones(3, np.float32)
    values.flags.writeable = False
    weight = Parameter(numparam.Tensor.from_numpy(values), name="w")
    tensor = numparam.torch.views([weight])["w"]
    assert numparam.torch.views([weight])["w"].data_ptr() == tensor.data_ptr() == weight.asnumpy().ctypes.data


def test_other_things_are_refused() -> None:
    for call in (numparam.torch.views, numparam.jax.copies):
        with pytest.raises(TypeError, match="expected a Cell or parameters, found float at 0"):
            call([1.0])


@needs_mpi
def test_the_digits_are_learned_with_the_same_bits_on_two_ranks() -> None:
    pytest.importorskip("sklearn")
    environment = os.environ | {"NUMPARAM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLE)]
    single, double = (
        subprocess.run([*ranks, *command], capture_output=True, text=True, check=True, timeout=200, env=environment)
        for ranks in ([], [str(MPIEXEC), "-n", "2"])
    )
    assert single.stdout == double.stdout
    assert float(single.stdout.split()[1]) >= 0.97
