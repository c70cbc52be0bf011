"""JAX is optional: importing numparam leaves it alone, and `numparam.jax` says what is missing."""

import subprocess
import sys


def test_importing_numparam_imports_no_jax() -> None:
    code = "import sys, numparam; assert not {'jax', 'numparam.jax'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_jax_one_sentence_says_what_to_do() -> None:
    code = "import sys; sys.modules['jax'] = None\nimport numparam.jax"
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: numparam.jax makes arrays of JAX: install it with pip install jax"
    )
