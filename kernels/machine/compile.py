"""The only place that calls Numba: compile options and the on-disk cache of compiled kernels.

Numba's own cache notices edits of the file that holds the cached function only, so a kernel compiled before an edit
of a formula in another file, or before an upgrade, would be served stale. Here one file holds one compiled kernel,
and its name is a hash of everything the code depends on: every source file of this package, the kernel's identity and
signature, the CPU or CUDA's compiler, Numba, llvmlite and Python. Files are written whole or not at all, so concurrent
processes need no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import sys
import tempfile
from functools import cache, cached_property, lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import llvmlite
import numba
from numba import types
from numba.core import serialize
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PACKAGE = Path(__file__).parent.parent

# error_model "numpy": a division must not raise, or loops do not vectorise. No fastmath: bits are fixed.
formula: Callable[[Any], Any] = partial(numba.njit, forceinline=True, error_model="numpy")


def kernel(identity: str) -> Callable[[Any], Any]:
    """Compile a loop that releases the GIL, and keep its machine code on disk under `identity`.

    Parameters
    ----------
    identity : str
        What distinguishes this loop from others made by the same factory, for example ``"fill normal float32"``.
    """

    def decorate(function: Any) -> Any:
        dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
        directory = _cache_directory()
        if directory is not None:
            dispatcher._cache = _KernelCache(identity, directory)
        return dispatcher

    return decorate


@lru_cache(maxsize=1)
def _cache_directory() -> Path | None:
    """Return the first directory that takes a file, or None: then kernels are compiled again in each process."""
    for candidate in _candidates():
        with contextlib.suppress(OSError):
            candidate.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=candidate):
                return candidate
    return None


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen) / "numparam"
        return
    yield _PACKAGE / "__pycache__"
    with contextlib.suppress(RuntimeError):  # no home directory
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        yield Path(base) / "numparam"


def _hash_of_sources() -> str:
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


# Taken at the import: kernels of a process that runs while a source is edited must not pass for those of the edit.
_SOURCE_HASH = _hash_of_sources()


def _read_whole(path: Path) -> bytes | None:
    """Return the content of a file of the cache, or None when it is not there or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, content = data[:16], data[16:]
    return content if digest == hashlib.blake2b(content, digest_size=16).digest() else None


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file of the cache; a full or read-only disk costs the next process a compilation and nothing else."""
    with contextlib.suppress(OSError):
        _remove_outdated(path.parent)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.blake2b(content, digest_size=16).digest() + content)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _remove_outdated(directory: Path) -> None:
    """Drop kernels of older sources, where this installation is the directory's only user."""
    if directory.parent != _PACKAGE:
        return
    for path in directory.glob("numparam-*.kernel"):
        if not path.name.startswith(f"numparam-{_SOURCE_HASH}-"):
            path.unlink(missing_ok=True)


class _KernelCache(_Cache):  # type: ignore[misc]
    """Numba's cache protocol on single files named by content."""

    def __init__(self, identity: str, directory: Path) -> None:
        self._identity, self._directory = identity, directory

    @property
    def cache_path(self) -> str:
        return str(self._directory)

    def enable(self) -> None:
        """Do nothing: a kernel's cache is always on."""

    def disable(self) -> None:
        """Do nothing: a kernel's cache is always on."""

    def flush(self) -> None:
        """Do nothing: names are hashes of content, so no file is ever out of date."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled kernel for a signature, or None when it is not there or damaged."""
        content = _read_whole(self._path(sig, target_context))
        if content is None:
            return None
        target_context.refresh()
        return CompileResult._rebuild(target_context, *pickle.loads(content))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the compiled kernel."""
        _write_whole(self._path(sig, data.target_context), serialize.dumps(data._reduce()))

    def _path(self, sig: Any, target_context: Any) -> Path:
        parts = (
            self._identity, str(sig), repr(target_context.codegen().magic_tuple()),
            numba.__version__, llvmlite.__version__, sys.version,
        )  # fmt: skip
        name = hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()
        return self._directory / f"numparam-{_SOURCE_HASH}-{name}.kernel"


# Kernels are compiled once for the oldest architecture and linked for each card from there: what the tests interpret is
# what every card runs. No instruction of a newer one is wanted.
COMPUTE_CAPABILITY = (7, 5)


class CudaKernel:
    """One CUDA kernel, compiled when its PTX is first asked for and kept on disk.

    Parameters
    ----------
    name : str
        Of the entry in the PTX, unlike any other's.
    function : callable
        The body, for one thread. Takes numbers and tuples of numbers only.
    signature : tuple
        The Numba types of its arguments.
    """

    def __init__(self, name: str, function: Callable[..., None], signature: tuple[Any, ...]) -> None:
        self.name, self.function, self.signature = name, function, signature

    @property
    def leaves(self) -> list[Any]:
        """Return the types of the numbers that a launch takes, tuples laid out flat."""
        return list(_leaves(self.signature))

    @cached_property
    def ptx(self) -> str:
        """Return the code; no GPU is needed."""
        return self._kept("ptx", lambda: self._compile().encode("ascii")).decode("ascii")

    def cubin(self, architecture: str) -> bytes:
        """Return the code linked for cards of an architecture such as "90"; no GPU is needed."""
        return self._kept(f"sm_{architecture}", lambda: link(self.ptx, architecture)[0])

    def _kept(self, form: str, make: Callable[[], bytes]) -> bytes:
        """Return what is on disk, or make it and put it there."""
        directory = _cache_directory()
        if directory is None:
            return make()
        parts = (self.name, form, sys.version, version("numba"), version("numba-cuda"), _toolkit())
        digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()
        path = directory / f"numparam-{_SOURCE_HASH}-{digest}.kernel"
        content = _read_whole(path)
        if content is None:
            content = make()
            _write_whole(path, content)
        return content

    def _compile(self) -> str:
        import numba.cuda
        import numba.cuda.dispatcher

        with global_compiler_lock:
            # Numba asks the current device for its architecture to compile the formulas, and there may be none.
            known = numba.cuda.dispatcher.get_current_device
            numba.cuda.dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=COMPUTE_CAPABILITY)
            try:
                code, _ = numba.cuda.compile(
                    self.function, self.signature, device=False, abi="numba", cc=COMPUTE_CAPABILITY
                )
            finally:
                numba.cuda.dispatcher.get_current_device = known
        code = re.sub(r"^\.common .*NumbaEnv.*\n", "", code, flags=re.MULTILINE)
        mangled = re.search(r"\.visible \.entry (\w+)", code)
        assert mangled is not None
        return code.replace(mangled[1], self.name)


@cache
def _toolkit() -> str:
    """Tell CUDA's compiler and linker from those of other releases, however they were installed."""
    from cuda import pathfinder

    found = [Path(str(pathfinder.load_nvidia_dynamic_lib(name).abs_path)).stat() for name in ("nvvm", "nvJitLink")]
    return str([(file.st_size, file.st_mtime_ns) for file in found])


def link(ptx: str, architecture: str) -> tuple[bytes, str]:
    """Return the code of a kernel for an architecture such as "90", and what the linker says of its registers."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{architecture}", ptxas_options=["-v"], verbose=True)
    linker = Linker(ObjectCode.from_ptx(ptx.encode("ascii")), options=options)
    return bytes(linker.link("cubin").code), linker.get_info_log()


def _leaves(kinds: Any) -> Iterator[Any]:
    for kind in kinds:
        if isinstance(kind, types.BaseTuple):
            yield from _leaves(kind)
        else:
            yield kind
