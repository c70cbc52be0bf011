"""numparam never imports torch by itself, and numparam.torch says in one sentence that it needs it."""

import subprocess
import sys


def run(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return (ran.stdout + ran.stderr).strip().splitlines()[-1]


def test_without_torch() -> None:
    found = run("import sys; sys.modules['torch'] = None; import numparam.torch")
    assert found == "ModuleNotFoundError: numparam.torch fills PyTorch modules: pip install torch"


def test_numparam_leaves_torch_alone() -> None:
    assert run("import sys, numparam; numparam.set_seed(1); print('torch' in sys.modules)") == "False"
