"""The layers above a CUDA driver as they are, cuda.core, cuda.bindings and numba-cuda too, on a driver in software.

What a card would be asked, in what order, and what is done with what it says. The tests for cards run on it, smaller.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import software_driver
from interpreted_device import needs_compiler
from numparam.__main__ import main

pytestmark = [
    *needs_compiler,
    pytest.mark.skipif(software_driver.missing() != "", reason=software_driver.missing()),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("driver")
    software_driver.compile_driver(directory)
    return directory


def run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program with the driver."""
    return subprocess.run(
        [sys.executable, software_driver.__file__, *command],
        env={**software_driver.environment(directory), "NUMPARAM_REQUIRE_GPU": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_the_tests_for_cards(directory: Path) -> None:
    # Bits are compared in the tests of PTX; here one fill and one conversion see to it that the arguments arrive.
    chosen = "not have_the_bits or normal-float32 or float32-bfloat16"
    tests = Path(__file__).with_name("test_gpu.py")
    ran = run(directory, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", str(tests), "-k", chosen)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_command_writes_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    plain, made = tmp_path / "plain.safetensors", tmp_path / "made.safetensors"
    arguments = ["init", "--like", str(_small_model(tmp_path)), "--seed", "7", "-o"]
    assert main([*arguments, str(plain)]) == 0
    ran = run(directory, "-m", "numparam", *arguments, str(made), "--device", "cuda:1")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert made.read_bytes() == plain.read_bytes()


def _small_model(directory: Path) -> Path:
    import numpy as np
    from safetensors.numpy import save_file

    path = directory / "model.safetensors"
    save_file({"norm.weight": np.ones(70, np.float32), "weight": np.ones((1000, 2200), np.float32)}, path)
    return path


BUFFERS = """
from numparam.kernels.machine.driver import get_driver
driver = get_driver()
there, here = driver.allocate(0, 4096), driver.pinned(0, 4096)
here[:] = 7
driver.copy(0, int(there.handle), here.ctypes.data, 4096)
"""


def test_the_driver_does_nothing_before_somebody_waits(directory: Path, tmp_path: Path) -> None:
    script = tmp_path / "lazy.py"
    script.write_text(f"""{BUFFERS}
driver.record(0).sync()
here[:] = 0
done = driver.fetch(0, here.ctypes.data, int(there.handle), 4096, driver.record(0))
assert here.max() == 0
done.sync()
assert here.min() == 7
""")
    ran = run(directory, str(script))
    assert ran.returncode == 0, ran.stderr


def test_a_host_that_reads_memory_of_the_device_dies(directory: Path, tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(f"{BUFFERS}\nimport ctypes\nctypes.string_at(int(there.handle), 1)\n")
    assert run(directory, str(script)).returncode == -signal.SIGSEGV
