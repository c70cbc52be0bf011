"""The plan of the source tree: which room may import which, and what only one file may do."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

import house

ROOT = Path(__file__).parent.parent
FOLDERS = {"numparam": ROOT / "numparam", "numparam.kernels": ROOT / "kernels"}
FILES = house.modules(FOLDERS)

ROOMS = """
    kernels
    kernels.machine
    kernels.formula
    kernels.array kernels.dispatch kernels.launch kernels.batch kernels.meeting
    kernels.fill
    kernels.copy
    kernels.rows kernels.digest kernels.update kernels.keys kernels.perturb kernels.orthogonal
    errors text
    dtypes entry checks threads device context html
    progress
    indexing
    layout
    stream
    tensor
    initializer
    parameter
    cell
    rules
    communication
    checkpoint
    model
    fingerprints optim randomness
    views
    embedding
    parallel perturb server
    torch jax mindspore
    cli
    __init__ __main__
"""
"""Low to high, a level a line: a room imports rooms of its own level and of lower ones."""

LEVELS = {room: level for level, line in enumerate(ROOMS.split("\n")) for room in line.split()}

# What is left to mend. Entries are removed, never added.
HIGHER_LEFT: set[tuple[str, str]] = set()
CIRCLES_LEFT: set[str] = set()
LONG_LEFT: set[str] = set()
DEVICE_TESTS = 8


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


@pytest.fixture(scope="module")
def edges() -> house.Graph:
    return house.graph(FOLDERS)


def room_of(module: str) -> str:
    """Return the folder, or the file of the top level, that a module is in."""
    parts = module.split(".")[1:] or ["__init__"]
    return ".".join(parts[:2]) if parts[0] == "kernels" else parts[0]


def test_every_room_has_a_level() -> None:
    assert {room_of(module) for module in FILES} - set(LEVELS) == set()


def test_no_room_imports_a_higher_one(edges: house.Graph) -> None:
    found = {
        f"{module} imports {other}"
        for module, others in edges.items()
        for other in others
        if LEVELS[room_of(other)] > LEVELS[room_of(module)] and (room_of(module), room_of(other)) not in HIGHER_LEFT
    }
    assert found == set()


def test_no_files_import_each_other(edges: house.Graph) -> None:
    found = house.circles(edges)
    assert [sorted(circle) for circle in found if not {room_of(module) for module in circle} <= CIRCLES_LEFT] == []


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in FILES.values()}
    assert {path for path, length in lengths.items() if length > 500} - LONG_LEFT == set()


def device_tests(tree: ast.Module) -> int:
    """Count comparisons with the kind of a device: a table by device is the better form."""
    return sum(
        isinstance(part, ast.Constant) and part.value in ("cpu", "cuda")
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for part in itertools.chain.from_iterable(
            operand.elts if isinstance(operand, ast.Tuple | ast.Set | ast.List) else [operand]
            for operand in (node.left, *node.comparators)
        )
    )


def test_few_operations_ask_for_the_kind_of_the_device(trees: dict[str, ast.Module]) -> None:
    counts = {module: device_tests(tree) for module, tree in trees.items() if not module.startswith("numparam.kernels")}
    assert sum(counts.values()) <= DEVICE_TESTS, {module: count for module, count in counts.items() if count}


def test_numba_compiles_in_one_file_only(trees: dict[str, ast.Module]) -> None:
    compiling, cuda = set(), set()
    for module, tree in trees.items():
        if any(f"{source}.{name}".startswith("numba.cuda") for source, name in house.imports(tree, module, False)):
            cuda.add(module)
        if any(getattr(node, "attr", getattr(node, "id", "")) in ("njit", "jit") for node in ast.walk(tree)):
            compiling.add(module)
    compiling.discard("numparam.jax.starts")  # by JAX
    assert compiling == cuda == {"numparam.kernels.machine.compile"}


def test_the_kernels_have_one_name(trees: dict[str, ast.Module]) -> None:
    """``import kernels`` works from the root of a checkout only, and loads every kernel twice."""
    for module, path in FILES.items():
        for source, _ in house.imports(trees[module], module, path.name == "__init__.py"):
            assert source.split(".")[0] != "kernels", module


def freed_too_early(tree: ast.Module) -> list[str]:
    """Return arrays of compiled loops of which an address is in use after they are, which is when Numba frees them.

    An address that is taken in a loop is safe there, for the loop may use the array again.
    """
    found = []
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.decorator_list):
        loops = [node for node in ast.walk(function) if isinstance(node, ast.For | ast.While)]
        in_loops = {id(node) for loop in loops for node in ast.walk(loop)}
        made = {
            name.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and any(f"np.{maker}(" in ast.unparse(node.value) for maker in MAKERS)
            for name in ast.walk(node.targets[0])
            if isinstance(name, ast.Name)
        }
        loads = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        for node in (n for n in ast.walk(function) if isinstance(n, ast.Attribute) and n.attr == "ctypes"):
            names = {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)} & made
            later = {name.id for name in loads if name.lineno > node.lineno}
            if id(node) not in in_loops:
                found += sorted(names - later)
    return found


MAKERS = ("empty", "zeros", "ones", "full")


def test_no_compiled_loop_uses_the_address_of_an_array_that_is_freed(trees: dict[str, ast.Module]) -> None:
    kernels = {module: tree for module, tree in trees.items() if module.startswith("numparam.kernels")}
    assert {module: names for module, tree in kernels.items() if (names := freed_too_early(tree))} == {}


# --------------------------------------------------------------------------- these tests can fail


@pytest.mark.parametrize(
    "body, found",
    [
        ("a = np.empty(3)\n p = a.ctypes.data\n f(p)", ["a"]),
        ("a, n = np.zeros(3), 2\n p = np.int64(a.ctypes.data)\n for i in x: f(p)", ["a"]),
        ("a = np.empty(3)\n p = a.ctypes.data\n f(p)\n g(a)", []),
        ("a = np.empty(3)\n for i in x: f(a.ctypes.data)", []),
        ("p = a.ctypes.data", []),  # whoever calls keeps it
    ],
)
def test_arrays_that_are_freed_too_early_are_found(body: str, found: list[str]) -> None:
    assert freed_too_early(ast.parse(f"@kernel('x')\ndef loop(x, a0):\n {body}")) == found


def write(folder: Path, files: dict[str, str]) -> house.Graph:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return house.graph({"package": folder})


@pytest.mark.parametrize(
    "back",
    [
        "import package.b.low",
        "from package.b import low",
        "from package.b.low import f",
        "from ..b import low",
        "from ..b.low import f",
        "def g():\n    from package.b.low import f",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import package.b.low",
        "import importlib\nimportlib.import_module('package.b.low')",
    ],
)
def test_a_planted_circle_is_found(back: str, tmp_path: Path) -> None:
    files = {"__init__.py": "", "a/__init__.py": "", "b/__init__.py": "", "a/high.py": back}
    assert house.circles(write(tmp_path, files | {"b/low.py": "def f(): pass"})) == []
    found = house.circles(write(tmp_path, files | {"b/low.py": "from package.a import high"}))
    assert found == [{"package.a.high", "package.b.low"}]


def test_a_file_that_imports_the_door_of_its_room_is_a_circle(tmp_path: Path) -> None:
    edges = write(tmp_path, {"a/__init__.py": "from package.a.f import g", "a/f.py": "from package.a import g"})
    assert house.circles(edges) == [{"package.a", "package.a.f"}]
    edges = write(
        tmp_path, {"a/__init__.py": "from package.a.f import g", "a/f.py": "from package.a import h", "a/h.py": ""}
    )
    assert house.circles(edges) == []


def test_a_linked_folder_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "kernels", {"__init__.py": "", "fill.py": ""})
    (tmp_path / "package").mkdir()
    (tmp_path / "package/kernels").symlink_to("../kernels")
    assert house.modules({"package": tmp_path / "package"}) == {}


@pytest.mark.parametrize(
    "text, count",
    [
        ('x == "cpu"', 1),
        ('"cpu" != x.kind', 1),
        ('x.kind in ("cpu", "cuda")', 2),
        ('{"cpu": f}[x.kind]', 0),
        ("x == 1", 0),
    ],
)
def test_device_tests_are_counted(text: str, count: int) -> None:
    assert device_tests(ast.parse(text)) == count
