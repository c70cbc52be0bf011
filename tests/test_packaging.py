"""What an installation holds."""

import importlib.metadata
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


SHIPPED = {
    ".".join([name, *path.parent.relative_to(folder).parts]): path.parent
    for name, folder in {"numparam": ROOT / "numparam", "numparam.kernels": ROOT / "kernels"}.items()
    for path in folder.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def test_every_folder_is_a_declared_package() -> None:
    assert set(SHIPPED) == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_file_beside_the_modules_is_declared_package_data() -> None:
    declared = PROJECT["tool"]["setuptools"]["package-data"]
    data = {
        (name, path.name)
        for name, folder in SHIPPED.items()
        for path in folder.iterdir()
        if path.is_file() and path.suffix != ".py"
    }
    assert ("numparam", "py.typed") in data
    assert data == {
        (name, path.name)
        for name, patterns in declared.items()
        for pattern in patterns
        for path in SHIPPED[name].glob(pattern)
    }


def test_installed_version_and_command() -> None:
    installed = importlib.metadata.distribution("numparam")
    assert installed.version == PROJECT["project"]["version"]
    (command,) = installed.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("numparam", "numparam.__main__:main")
