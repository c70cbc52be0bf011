"""What an installation holds, and that the kernels have one name only."""

import ast
import importlib.metadata
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add("kernels" if node.level else str(node.module))
    return modules


def test_every_folder_of_modules_is_a_declared_package() -> None:
    folders = {"numparam": ROOT / "numparam", "numparam.kernels": ROOT / "kernels"}
    found = {
        ".".join([name, *path.parent.relative_to(folder).parts])
        for name, folder in folders.items()
        for path in folder.rglob("*.py")
    }
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_the_marker_of_typed_packages_and_the_specifications_are_shipped() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["numparam"]
    shipped = {path for pattern in patterns for path in (ROOT / "numparam").glob(pattern)}
    data = {path for path in (ROOT / "numparam").rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert ROOT / "numparam" / "py.typed" in data
    assert data == shipped


def test_kernels_import_nothing_above_them() -> None:
    """And never `kernels`, which works from the root of a checkout only and loads every kernel twice."""
    found = {path.name: imported(path) for path in (ROOT / "kernels").rglob("*.py")}
    assert found
    for file, modules in found.items():
        own = {module for module in modules if module.split(".")[0] in {"kernels", "numparam"}}
        assert {module for module in own if not module.startswith("numparam.kernels")} == set(), file


def test_installed_version_and_command() -> None:
    installed = importlib.metadata.distribution("numparam")
    assert installed.version == PROJECT["project"]["version"]
    (command,) = installed.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("numparam", "numparam.__main__:main")
