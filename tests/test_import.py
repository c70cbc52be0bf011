"""Importing numparam costs little more than importing NumPy: whatever is heavy waits until it is needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import numparam

HEAVY = {"numba", "llvmlite", "ml_dtypes", "safetensors", "rich", "hashlib", "difflib", "tomllib", "importlib.metadata"}


def loaded_by(code: str) -> set[str]:
    """Return what `code` imports beyond what NumPy does."""
    script = f"import sys, numpy; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


def test_import_leaves_out_everything_heavy() -> None:
    loaded = loaded_by("import numparam")
    assert "numparam.initializer" in loaded
    assert not loaded & HEAVY
    assert not any(name.startswith("numparam.kernels") for name in loaded)


def test_lazy_parameters_of_native_dtypes_need_no_kernels() -> None:
    loaded = loaded_by(
        "import numparam; from numparam.initializer import initializer\n"
        "p = numparam.Parameter(initializer('xavier_uniform', (2**20, 2**20)), name='w'); p[3, ::2]; repr(p); p.nbytes"
    )
    assert not loaded & HEAVY


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_dtypes_that_numpy_lacks_load_their_package_when_asked_for(name: str) -> None:
    assert "ml_dtypes" in loaded_by(f"import numparam; numparam.{name}")


def test_first_fill_loads_the_kernels() -> None:
    assert "numba" in loaded_by("from numparam.initializer import initializer; initializer('normal', 3).asnumpy()")


def test_initializer_is_the_module() -> None:
    code = "import types, numparam; assert isinstance(numparam.initializer, types.ModuleType)"
    assert "numparam.initializer.entry" in loaded_by(code)


def test_dir_lists_all_that_is_public_and_imports_none_of_it() -> None:
    code = (
        "import sys, numparam; names = set(dir(numparam))\n"
        "packages = {'checkpoint', 'communication', 'embedding', 'fingerprints', 'jax', 'mindspore', 'optim'}\n"
        "packages |= {'parallel', 'perturb', 'randomness', 'rules', 'server', 'torch', 'views'}\n"
        "assert names == {*numparam.__all__, *packages, '__version__'}, names\n"
        "assert not {'numparam.jax', 'numparam.torch', 'numparam.parallel', 'numparam.rules'} & set(sys.modules)"
    )
    assert not loaded_by(code) & HEAVY
    assert all(hasattr(numparam, name) for name in numparam.__all__)


def test_modules_that_the_pages_name_are_attributes() -> None:
    docs = Path(__file__).parent.parent / "docs"
    paths = re.findall(r"^   (numparam[\w.]*)$", (docs / "api.rst").read_text(), re.MULTILINE)
    programs = re.findall(r"^\| `(mindspore[\w.]*)`", (docs / "mindspore.md").read_text(), re.MULTILINE)
    paths += [f"numparam.{module}" for module in programs]
    assert {"numparam.communication.comm_func", "numparam.mindspore.communication.comm_func"} <= {*paths}
    loaded_by("\n".join(["import numparam", *(path for path in paths if not re.search(r"\.(jax|torch)\b", path))]))


def test_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert numparam.__version__ == version("numparam")
