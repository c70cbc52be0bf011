"""The examples in the docstrings print what they say."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import numparam

OPTIONAL = {"jax", "torch"}
MODULES = ["numparam"] + [module.name for module in pkgutil.walk_packages(numparam.__path__, "numparam.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(module, name):
        runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)
