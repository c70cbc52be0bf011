"""One function in LLVM's terms serves both devices, in whatever order they are compiled."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numba import types

from interpreted_device import needs_compiler
from numparam.kernels.machine.compile import CudaKernel, intrinsic
from numparam.kernels.machine.cuda import store_item

pytestmark = needs_compiler


@intrinsic
def unchanged(typing_context: Any, value: Any) -> Any:  # noqa: ARG001
    return value(value), lambda context, builder, signature, args: args[0]  # noqa: ARG005


@pytest.mark.ptx
def test_a_kernel_of_the_cpu_between_two_of_cuda_disturbs_neither() -> None:
    def kernel_of(name: str) -> CudaKernel:
        def body(out: int, value: int) -> None:
            store_item(out, unchanged(value), np.uint64(0))

        return CudaKernel(name, body, (types.int64, types.uint64))

    assert "st." in kernel_of("first")._compile()
    assert numba.njit(lambda value: unchanged(value) + np.uint64(1))(np.uint64(2)) == 3
    assert "st." in kernel_of("second")._compile()
