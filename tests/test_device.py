"""Devices: names, the default, tensors and parameters on a CUDA device that the PTX interpreter stands for."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import sleep
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import numparam
from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam import Cell, Parameter, Tensor
from numparam.cli import main
from numparam.errors import DeviceError, DeviceOutOfMemoryError
from numparam.initializer import Initializer, initializer
from numparam.kernels import array as device_array
from numparam.kernels.array import DeviceArray
from numparam.kernels.machine import driver as _driver

# --------------------------------------------------------------------------- without a CUDA device


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(_driver.ctypes, "CDLL", fail)


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_missing_device_says_what_was_looked_for_and_what_to_install(name: str) -> None:
    message = (
        f"device '{name}' was asked for, but the NVIDIA driver's libcuda.so.1 was looked for and not found; "
        r"install an NVIDIA driver, and numparam\[cuda13\] or, for CUDA 12, numparam\[cuda12\]"
    )
    for ask in (
        numparam.device, numparam.set_default_device, Tensor([1.0]).to, lambda name: Parameter(1.0, device=name)
    ):  # fmt: skip
        with pytest.raises(DeviceError, match=f"^{message}$"):
            ask(name)


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_the_cpu_is_the_only_device() -> None:
    (cpu,) = numparam.devices()
    assert cpu == cpu.device == "cpu"
    assert copy.deepcopy(cpu).total == pickle.loads(pickle.dumps(cpu)).total == cpu.total
    assert 0 < cpu.free <= cpu.total


def test_a_driver_without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_driver, "count_devices", lambda: 0)
    with pytest.raises(DeviceError, match="'cuda' was asked for, but the driver has no CUDA device"):
        numparam.device("cuda")


class FakeLibrary:
    """Stand for libcuda: one device, or what `cuInit` answers."""

    def __init__(self, status: int = 0, version: int = 13000) -> None:
        self._status, self._version = status, version

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self._status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 1
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self._version
        return 0


@pytest.fixture
def _forgetful() -> Iterator[None]:
    _driver._missing.cache_clear()
    yield
    _driver._missing.cache_clear()


@pytest.mark.usefixtures("_forgetful")
@pytest.mark.parametrize("version, extra", [(13000, "cuda13"), (12080, "cuda12")])
def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, version: int, extra: str) -> None:
    monkeypatch.setattr(_driver.ctypes, "CDLL", lambda name: FakeLibrary(version=version))  # noqa: ARG005
    monkeypatch.setattr(_driver, "_is_installed", lambda name: name != "numba_cuda")
    message = "'cuda' was asked for, but Python package 'numba_cuda' was looked for and not found; pip install "
    with pytest.raises(DeviceError, match=rf'{message}"numparam\[{extra}\]"$'):
        numparam.device("cuda")


@needs_compiler[0]
@needs_compiler[1]
@pytest.mark.usefixtures("_forgetful")
@pytest.mark.parametrize("library", ["nvvm", "nvrtc", "nvJitLink"])
def test_a_missing_library_of_the_toolkit_says_what_to_install(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    from cuda import pathfinder

    def load(name: str) -> None:
        if name == library:
            raise pathfinder.DynamicLibNotFoundError(f"No such file: lib{name}.so")

    monkeypatch.setattr(_driver.ctypes, "CDLL", lambda name: FakeLibrary())  # noqa: ARG005
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", load)
    message = f'CUDA\'s library {library} was looked for and not found; pip install "numparam\\[cuda13\\]"$'
    with pytest.raises(DeviceError, match=message):
        Tensor([1.0]).to("cuda")
    assert [memory.device for memory in numparam.devices()] == ["cpu"]


@pytest.mark.parametrize("status, message", [(100, "the driver has no CUDA device"), (999, "with CUDA error 999")])
def test_a_driver_that_does_not_start(monkeypatch: pytest.MonkeyPatch, status: int, message: str) -> None:
    monkeypatch.setattr(_driver.ctypes, "CDLL", lambda name: FakeLibrary(status))  # noqa: ARG005
    with pytest.raises(DeviceError, match=f"'cuda' was asked for, but .*{message}"):
        numparam.device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "", "cpu:0"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="'cpu', 'cuda' or 'cuda:N'"):
        numparam.device(name)
    with pytest.raises(TypeError, match="'cpu', 'cuda' or 'cuda:N'"):
        numparam.device(0)


def test_cpu() -> None:
    cpu = numparam.device("cpu")
    assert (cpu, cpu.kind, cpu.index, repr(cpu)) == ("cpu", "cpu", 0, "Device('cpu')")
    tensor = Tensor([1.0, 2.0])
    assert tensor.device == "cpu"
    assert tensor.to("cpu") is tensor.cpu() is tensor
    shared = np.from_dlpack(tensor)
    assert np.shares_memory(shared, tensor.asnumpy())


# --------------------------------------------------------------------------- with one


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver
    numparam.set_default_device("cpu")


def test_names_and_memory(driver: InterpretedDriver) -> None:
    assert numparam.device("cuda") == numparam.device("cuda:0") == "cuda:0"
    assert (numparam.device("cuda:1").kind, numparam.device("cuda:1").index) == ("cuda", 1)
    with pytest.raises(DeviceError, match="'cuda:2' was asked for, but the driver has cuda:0 to cuda:1"):
        numparam.device("cuda:2")
    _, first, second = numparam.devices()
    assert (first, first.name, first.total, first.free) == ("cuda:0", "interpreted 0", driver.total, driver.total)
    assert second == "cuda:1"


def test_the_default_device(driver: InterpretedDriver) -> None:  # noqa: ARG001
    assert numparam.get_default_device() == "cpu"
    with numparam.device("cuda:1") as outer:
        assert Tensor([1.0]).device == outer == "cuda:1"
        with numparam.device("cpu"), numparam.device("cuda:0"):
            assert Parameter(initializer("zeros", 3)).device == "cuda:0"
            assert Parameter(initializer("zeros", 3), device="cpu").device == "cpu"
        assert Tensor([1.0]).device == "cuda:1"
    assert Tensor([1.0]).device == "cpu"
    numparam.set_default_device("cuda")
    assert Tensor([1.0]).device == "cuda:0"
    with numparam.device("cpu"):
        assert Tensor([1.0]).device == "cpu"


def test_threads_may_be_inside_the_same_device_at_once(driver: InterpretedDriver) -> None:  # noqa: ARG001
    second, both = numparam.device("cuda:1"), Barrier(2)

    def enter(late: float) -> str:
        with second:
            both.wait()
            sleep(late)
            inside = numparam.get_default_device()
        return f"{inside} {numparam.get_default_device()}"

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(enter, (0, 0.01))) == ["cuda:1 cpu"] * 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_of_what_came_back_are_on_the_host(driver: InterpretedDriver, copied: Any) -> None:  # noqa: ARG001
    tensor = copied(Tensor(np.arange(3.0), device="cuda").cpu())
    assert (tensor.init_data().tolist(), tensor.device) == ([0, 1, 2], "cpu")


def test_a_round_trip_keeps_every_byte_and_shares_none(driver: InterpretedDriver, monkeypatch: Any) -> None:
    monkeypatch.setattr(device_array, "STAGING_BYTES", 4096)
    for dtype in (np.float32, np.complex128, np.int8, np.bool_, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        words = np.random.default_rng(7).integers(0, 2, 16 * 2003, np.uint8).view(np.bool_)
        values = words.view(dtype).copy()
        tensor = Tensor(values)
        moved = tensor.to("cuda:1")
        assert (moved.device, moved.shape, moved.dtype, tensor.device) == ("cuda:1", values.shape, dtype, "cpu")
        there = moved.to("cuda:0")
        tensor.asnumpy()[...] = 0
        for copied in (moved, there, there.cpu()):
            np.testing.assert_array_equal(copied.asnumpy().view(np.uint8), values.view(np.uint8))
    assert driver.used(0) > 0
    del moved, there, copied
    gc.collect()
    assert driver.used(0) == driver.used(1) == 0


@needs_compiler[0]
@needs_compiler[1]
@pytest.mark.parametrize("name", ["normal", "xavier_uniform", "truncated_normal", "ones", "identity", "orthogonal"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lazy_parameters_have_the_same_bits_on_every_device(driver: InterpretedDriver, name: str, dtype: str) -> None:
    numparam.set_seed(7)
    values = Parameter(initializer(name, (40, 40), dtype), name="w").asnumpy()
    numparam.set_seed(7)
    lazy = Parameter(initializer(name, (40, 40), dtype), name="w", device="cuda")
    part = lazy[3:30:2, 5:]
    assert lazy.has_init
    assert part.device == "cuda:0"
    assert lazy.to("cpu").has_init
    assert driver.used(0) == 0
    for found, expected in [(lazy.init_data(), values), (part, values[3:30:2, 5:]), (lazy[1], values[1])]:
        assert found.device == "cuda:0"
        np.testing.assert_array_equal(found.asnumpy().view(np.uint8), np.ascontiguousarray(expected).view(np.uint8))
    assert not lazy.has_init
    assert driver.used(0) > 0
    assert (driver.launches == []) == (name in ("identity", "orthogonal"))


@needs_compiler[0]
@needs_compiler[1]
def test_slices_of_values_are_copied_on_their_device(driver: InterpretedDriver) -> None:
    values = np.arange(600.0).reshape(20, 30)
    tensor = Tensor(values, device="cuda:1")
    part = tensor[3:, ::-2]
    assert (part.device, driver.launches) == ("cuda:1", [("copy_8", 1)])
    np.testing.assert_array_equal(part.asnumpy(), values[3:, ::-2])
    gathered = tensor[[3, 1, 1]]
    assert gathered.device == "cuda:1"
    np.testing.assert_array_equal(gathered.asnumpy(), values[[3, 1, 1]])
    with pytest.raises(IndexError):
        tensor[20]


@needs_compiler[0]
@needs_compiler[1]
def test_parts_are_written_where_they_are(driver: InterpretedDriver) -> None:
    values = np.arange(600, dtype=np.float32).reshape(20, 30)
    tensor, expected = Tensor(values, device="cuda"), values.copy()
    read = driver.read = []  # what comes to the host
    column, half = np.arange(20, dtype=np.int32), np.arange(30, dtype=np.float16)
    for index, value, here in [
        (np.s_[3:7], half, half),
        (np.s_[::-2, ::3], 7, 7),
        (np.s_[..., 1], Tensor(column, device="cuda"), column),
        (np.s_[2:4], Tensor(half, device="cuda:1"), half),
        (np.s_[5, 6], True, True),
        (np.s_[1:2, 1:2], [[[5.0]]], 5.0),
        ([3, 1, 3], values[:3], values[:3]),
        (np.array([[0, -1]]), 4, 4),
        (np.s_[7:7], 1, 1),
    ]:
        tensor[index] = value
        expected[index] = here
    tensor[1:] = tensor[:-1]
    expected[1:] = expected[:-1].copy()
    tensor[::-1] = tensor
    assert read == []
    np.testing.assert_array_equal(tensor.asnumpy(), expected[::-1])
    tensor[values > 100] = 0
    np.testing.assert_array_equal(tensor.asnumpy(), np.where(values > 100, 0, expected[::-1]))
    assert tensor.device == "cuda:0"


def test_what_cannot_be_written_is_refused_as_on_the_cpu(driver: InterpretedDriver) -> None:
    for device in ("cpu", "cuda"):
        tensor = Tensor(np.zeros((4, 5), np.int8), device=device)
        for index, value, error in [
            (np.s_[4], 1, IndexError),
            ([4], 1, IndexError),
            (np.s_[1:3], np.ones(4, np.int8), ValueError),
            (np.s_[1:3], np.array([[200]]), ValueError),
            (np.s_[0], 1.5, TypeError),
            (np.s_[0], Tensor([1.5], device="cuda"), TypeError),
            (np.s_[0], Tensor([300], device="cuda"), ValueError),
        ]:
            with pytest.raises(error):
                tensor[index] = value
        assert not tensor.asnumpy().any()
    assert driver.launches == []


@needs_compiler[0]
@needs_compiler[1]
def test_other_arrangements_and_dtypes_are_made_where_the_values_are(driver: InterpretedDriver) -> None:
    values = np.random.default_rng(7).standard_normal((9, 1, 40), np.float32) * 100
    tensor = Tensor(values, device="cuda:1")
    driver.read = []
    made = [
        (tensor.transpose(2, 0, 1), values.transpose(2, 0, 1)), (tensor.T, values.T), (tensor.squeeze(), values[:, 0]),
        (tensor.reshape(8, -1), values.reshape(8, -1)), (tensor.astype("int16"), values.astype(np.int16)),
        (tensor.astype("bfloat16"), values.astype(ml_dtypes.bfloat16)), (tensor.copy(), values),
    ]  # fmt: skip
    assert driver.read == []
    for found, expected in made:
        assert (found.device, found.dtype) == ("cuda:1", expected.dtype)
        np.testing.assert_array_equal(found.asnumpy(), expected)
    assert ("transpose_4", 1) in driver.launches
    for wrong in (lambda: tensor.reshape(7, 7), lambda: tensor.transpose(0, 0, 1), lambda: tensor.squeeze(0)):
        with pytest.raises(ValueError, match="cannot be"):
            wrong()


def test_arithmetic_by_way_of_the_host_comes_back(driver: InterpretedDriver) -> None:  # noqa: ARG001
    there, here = Tensor([1.0, 2.0], device="cuda"), Tensor([3.0, 4.0])
    assert ((there + here).device, (here + there).device) == ("cuda:0", "cpu")
    np.add(there, here, out=there)
    assert (there.device, there.tolist()) == ("cuda:0", [4.0, 6.0])
    np.copyto(there, here)
    assert np.cumsum(there, out=there) is there
    assert (there.device, there.tolist()) == ("cuda:0", [3.0, 7.0])


def test_an_initializer_of_the_users_computes_on_the_host(driver: InterpretedDriver) -> None:  # noqa: ARG001
    class Ramp(Initializer):
        def _initialize(self, arr: np.ndarray[Any, Any]) -> None:
            arr[...] = np.arange(arr.size).reshape(arr.shape)

    tensor = Tensor(shape=(4, 5), init=Ramp(), device="cuda").init_data()
    np.testing.assert_array_equal(tensor.asnumpy(), np.arange(20).reshape(4, 5))


def test_parameters_keep_their_attributes_and_device(driver: InterpretedDriver) -> None:  # noqa: ARG001
    parameter = Parameter([1.0, 2.0], name="w", requires_grad=False, device="cuda")
    for twin in (
        copy.copy(parameter),
        copy.deepcopy(parameter),
        pickle.loads(pickle.dumps(parameter)),
        parameter.clone(),
    ):
        assert (twin.name, twin.requires_grad, twin.device) == ("w", False, "cuda:0")
        twin.set_data(Tensor([3.0, 4.0]))
        assert twin.device == "cuda:0"
        np.testing.assert_array_equal(twin.cpu().asnumpy(), [3.0, 4.0])
        np.testing.assert_array_equal(twin.asnumpy(), [3.0, 4.0])
    np.testing.assert_array_equal(parameter.asnumpy(), [1.0, 2.0])
    assert Parameter(parameter).device == "cuda:0"


def test_a_parameter_gets_another_dtype_on_its_device(driver: InterpretedDriver) -> None:
    parameter = Parameter([1.0, 2.5, -3.0], name="w", device="cuda")
    driver.read = []
    parameter.set_dtype("bfloat16")
    assert driver.read == []
    assert (parameter.device, parameter.dtype.name, parameter.shape) == ("cuda:0", "bfloat16", (3,))
    np.testing.assert_array_equal(parameter.asnumpy().astype("f4"), [1.0, 2.5, -3.0])
    assert parameter.set_dtype("int32").tolist() == [1, 2, -3]
    with pytest.raises(ValueError, match="dtype uint8 cannot hold values from -3"):
        parameter.set_dtype("uint8")


def test_too_little_memory_is_said_with_sizes() -> None:
    with (
        interpreted(1000),
        pytest.raises(DeviceOutOfMemoryError, match="1600 bytes were requested on cuda:0, 1000 of 1000"),
    ):
        Tensor(np.zeros(400, np.float32), device="cuda")
    assert issubclass(DeviceOutOfMemoryError, MemoryError)


def test_a_move_that_fails_leaves_the_tensor_and_the_memory_as_they_were() -> None:
    with interpreted(5000) as driver:
        cell = Cell()
        cell.small, cell.large = Parameter(np.ones(800, np.float32)), Parameter(np.ones(800, np.float32))
        with pytest.raises(DeviceOutOfMemoryError, match="3200 bytes were requested on cuda:0, 1800 of 5000"):
            cell.to("cuda")
        assert (cell.small.device, cell.large.device) == ("cuda:0", "cpu")
        assert cell.large.asnumpy().sum() == 800
        lazy = Parameter(initializer("zeros", 800), device="cuda")
        with pytest.raises(DeviceOutOfMemoryError):
            lazy.init_data()
        assert lazy.has_init
        with pytest.raises(DeviceOutOfMemoryError):
            cell.small.astype("float64")
        assert driver.used(0) == 3200
        cell.to("cpu")
        gc.collect()
        assert driver.used(0) == 0


@pytest.mark.parametrize("step", ["copy", "record"])
def test_memory_comes_back_from_a_copy_that_fails(driver: InterpretedDriver, monkeypatch: Any, step: str) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("illegal address")

    with monkeypatch.context() as patch:
        patch.setattr(driver, step, fail)
        with pytest.raises(RuntimeError, match="illegal address"):
            Tensor(np.ones(1000), device="cuda")
    driver.record(0).sync()  # the device keeps what it still copies
    gc.collect()
    assert driver.used(0) == 0
    assert Tensor(np.ones(1000), device="cuda").asnumpy().sum() == 1000


def test_staging_is_bounded_and_lent_to_one_thread_at_a_time(driver: InterpretedDriver, monkeypatch: Any) -> None:
    monkeypatch.setattr(device_array, "STAGING_BYTES", 1024)
    values = np.random.default_rng(7).integers(0, 255, (4, 50_000), np.uint8)
    for row in values:
        np.testing.assert_array_equal(DeviceArray.from_host(row, 0).to_host(), row)
    assert driver.pinned_bytes == 2 * 1024
    with device_array._staging(0) as first, device_array._staging(0) as second:
        assert first is not second
    assert driver.pinned_bytes == 4 * 1024
    with device_array._staging(0), device_array._staging(0):
        assert driver.pinned_bytes == 4 * 1024


@pytest.mark.parametrize("dtype", [np.bool_, ml_dtypes.bfloat16, np.float32, np.complex128], ids=str)
def test_arrays_of_any_layout_are_staged_in_pieces(driver: InterpretedDriver, monkeypatch: Any, dtype: Any) -> None:
    monkeypatch.setattr(device_array, "STAGING_BYTES", 512)
    whole = (np.arange(5 * 70 * 9) % 250).reshape(5, 70, 9).astype(dtype)
    for array in (
        whole, whole.T, whole[::-1, ::2], whole[:, :, 3], whole[2, 3, 4, ...], whole[:0],
        np.broadcast_to(whole[:1], whole.shape),
    ):  # fmt: skip
        found = DeviceArray.from_host(array, 0).to_host()
        assert (found.shape, found.tobytes()) == (array.shape, array.tobytes())
    assert driver.pinned_bytes == 2 * 512


def test_saved_pieces_are_read_from_the_device_one_at_a_time(
    driver: InterpretedDriver, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr("numparam.entry.BUFFER_BYTES", 4096)
    values = np.random.default_rng(7).standard_normal((300, 7))
    parameter = Parameter(values, name="w", device="cuda")
    driver.read = []
    numparam.save_checkpoint([parameter], str(tmp_path / "w.safetensors"))
    assert sum(driver.read) == values.nbytes
    assert max(driver.read) <= 4096
    np.testing.assert_array_equal(numparam.load_checkpoint(str(tmp_path / "w.safetensors"))["w"].asnumpy(), values)


def test_memory_that_another_library_keeps_from_writing_stays(driver: InterpretedDriver) -> None:  # noqa: ARG001
    tensor = Tensor([1.0, 2.0], device="cuda")
    tensor._settle().array.writable = False
    with pytest.raises(ValueError, match="the storage is a read-only array"):
        tensor[0] = 3
    copied = tensor.copy()
    copied[...] = 3
    assert (tensor.tolist(), copied.tolist()) == ([1.0, 2.0], [3.0, 3.0])


@pytest.mark.parametrize("options", [{}, {"max_version": (1, 0)}])
def test_a_capsule_names_the_dtypes_that_numpy_lacks(options: Any) -> None:
    class Exporter:
        def __init__(self, capsule: Any) -> None:
            self._capsule = capsule

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

        def __dlpack__(self, **_: Any) -> Any:
            return self._capsule

    values = np.arange(3, dtype=np.float32)
    capsule = values.view(np.uint32).__dlpack__(**options)
    device_array.dtype_code(capsule).value = 2  # which is what DLPack calls floats
    np.testing.assert_array_equal(np.from_dlpack(Exporter(capsule)), values)  # type: ignore[arg-type]


def test_the_array_interface(driver: InterpretedDriver) -> None:  # noqa: ARG001
    tensor = Tensor(np.ones((3, 4), np.float32), device="cuda:1")
    address = tensor._settle().array.address
    assert tensor.__cuda_array_interface__ == {
        "shape": (3, 4), "typestr": "<f4", "data": (address, False), "strides": None, "stream": 1, "version": 3,
    }  # fmt: skip
    assert tensor.__dlpack_device__() == (2, 1)
    assert not hasattr(tensor.to("cpu"), "__cuda_array_interface__")
    assert not hasattr(Tensor(np.ones(3, ml_dtypes.bfloat16), device="cuda"), "__cuda_array_interface__")


def test_an_array_of_another_library_is_shared(driver: InterpretedDriver, monkeypatch: Any) -> None:  # noqa: ARG001
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    foreign = Tensor(values, device="cuda:1")
    monkeypatch.setattr(DeviceArray, "from_foreign", lambda array: array._settle().array)
    shared = Tensor.from_dlpack(foreign)
    assert shared.device == "cuda:1"
    assert shared._settle().array.address == foreign._settle().array.address
    np.testing.assert_array_equal(shared.asnumpy(), values)
    assert Tensor.from_dlpack(values).device == "cpu"


def test_the_import_of_numparam_looks_for_no_device() -> None:
    import subprocess

    heavy = "[name for name in sys.modules if name.split('.')[0] in ('cuda', 'numba')]"
    code = f"import sys, numparam; numparam.Tensor([1.0]).device; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@needs_compiler[0]
@needs_compiler[1]
def test_the_command_writes_the_same_bytes_by_way_of_a_device(driver: InterpretedDriver, tmp_path: Path) -> None:
    model = {
        "norm.weight": np.ones(300, np.float32), "a.weight": np.ones((70, 90), np.float32),
        "b.weight": np.ones((33, 7), np.float16), "b.bias": np.ones(33, np.float16), "position_ids": np.arange(8)[None],
    }  # fmt: skip
    save_file(model, tmp_path / "model.safetensors")
    command = ["init", "--like", str(tmp_path / "model.safetensors"), "--seed", "7", "--shard", "1/2", "-o"]
    assert main([*command, str(tmp_path / "cpu")]) == 0
    assert driver.launches == []
    assert main([*command, str(tmp_path / "cuda"), "--device", "cuda:1"]) == 0
    assert (tmp_path / "cpu").read_bytes() == (tmp_path / "cuda").read_bytes()
    assert {device for _, device in driver.launches} == {1}
    assert driver.used(1) == 0


@pytest.mark.usefixtures("no_driver")
def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--like", "minilm-l6", "--device", "cuda", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("numparam: device 'cuda' was asked for, but the NVIDIA driver's libcuda")
    assert list(tmp_path.iterdir()) == []


@needs_compiler[0]
@needs_compiler[1]
def test_a_cell_moves_whole_and_its_small_parameters_take_few_launches(driver: InterpretedDriver) -> None:
    def make() -> Cell:
        numparam.set_seed(7)
        cell = Cell()
        for number in range(20):
            setattr(cell, f"w{number}", Parameter(initializer("normal", (number + 1, 13))))
            setattr(cell, f"b{number}", Parameter(initializer("zeros", number + 1)))
            setattr(cell, f"n{number}", Parameter(initializer("ones", number + 1, "float16")))
        cell.register_buffer("count", Tensor([1, 2, 3]))
        return cell

    expected = make()
    cell = make().to("cuda")
    assert all(parameter.has_init for parameter in cell.get_parameters())
    cell.init_parameters_data()
    assert sorted(name for name, _ in driver.launches) == ["constant_table", "fill_table_normal_float32"]
    for there, here in zip(cell.get_parameters(), expected.get_parameters(), strict=True):
        assert there.device == "cuda:0"
        np.testing.assert_array_equal(there.asnumpy(), here.asnumpy())
    assert cell.count.device == "cuda:0"
    cell.to("float16", device="cpu")
    assert (cell.w3.device, cell.w3.dtype) == ("cpu", np.float16)
    np.testing.assert_array_equal(cell.w3.asnumpy(), expected.w3.asnumpy().astype(np.float16))
    np.testing.assert_array_equal(cell.count.asnumpy(), [1, 2, 3])
