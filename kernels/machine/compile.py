"""The only place that calls Numba's compilers.

Numba's own cache notices only edits of the file that holds the cached function, so a kernel compiled before an edit of
a formula in another file, or before an upgrade, would be served stale. Here the name of a kernel's file in `cache`
depends on everything its code does: every source file of this package, the kernel's identity and signature, the CPU or
CUDA's compiler, Numba, llvmlite and Python.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import sys
from functools import cache, partial, wraps
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import llvmlite
import numba
import numba.extending
import numpy as np
from numba import types
from numba.core import serialize
from numba.core.caching import _Cache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, CompileResult
from numba.core.compiler_lock import global_compiler_lock

from numparam.kernels.machine import cache as _cache
from numparam.kernels.machine import pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BYTES_TO_LOAD, _BYTES_TO_COMPILE = 32 << 20, 128 << 20


class _Inlined(JITCodeLibrary):  # type: ignore[misc]
    """Hold a formula's code for the kernels that inline it, which are optimised and translated as one.

    Numba would do both for each formula as well, a third of the time that a kernel compiles.
    """

    codegen = SimpleNamespace(set_env=lambda *_: None)

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, *_: str) -> int:
        return 0


class _FormulaCompiler(Compiler):  # type: ignore[misc]
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.library = _Inlined(self.state.targetctx.codegen(), "formula")


# error_model "numpy": a division must not raise, or loops do not vectorise. No fastmath: bits are fixed. Wrappers would
# let Python and C call a formula, which nobody does, and take a third of the time that a kernel compiles.
formula: Callable[[Any], Any] = partial(
    numba.njit,
    forceinline=True,
    error_model="numpy",
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    pipeline_class=_FormulaCompiler,
)


def intrinsic(definition: Any = None, /, **options: Any) -> Any:
    """Define a function in LLVM's terms for CPU and CUDA, as Numba's decorator of that name does for one of them.

    Numba keeps an implementation by the types of the arguments alone, and looks for the one that was typed last: one
    implementation serves both.
    """
    if definition is None:
        return partial(intrinsic, **options)
    kept: dict[Any, Any] = {}

    @wraps(definition)
    def typed(typing_context: Any, *arguments: Any) -> Any:
        if arguments not in kept:
            kept[arguments] = definition(typing_context, *arguments)
        return kept[arguments]

    decorator = numba.extending.intrinsic(**options) if options else numba.extending.intrinsic
    return decorator(typed)


def type_of_call(typing_context: Any, function: Any, *arguments: Any) -> Any:
    """Return the signature of a formula for such arguments, which compiles it, to an `intrinsic` that calls it."""
    return typing_context.resolve_function_type(typing_context.resolve_value_type(function), arguments, {})


def emit_call(context: Any, builder: Any, function: Any, signature: Any, *arguments: Any) -> Any:
    """Emit the call of a formula in an `intrinsic`."""
    kind = context.typing_context.resolve_value_type(function)
    return context.get_function(kind, signature)(builder, arguments)


def kernel(identity: str) -> Callable[[Any], Any]:
    """Compile a loop that releases the GIL, and keep its machine code on disk.

    The identity distinguishes loops of one factory, for example ``"fill normal float32"``.
    """

    def decorate(function: Any) -> Any:
        _require_compiler()
        dispatcher = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
        directory = _cache.directory()
        if directory is not None:
            dispatcher._cache = _KernelCache(identity, directory)
        return dispatcher

    return decorate


def _require_compiler() -> None:
    if numba.config.DISABLE_JIT:
        raise RuntimeError("numparam's kernels exist in compiled form only, found NUMBA_DISABLE_JIT set; unset it")


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
        """Return the compiled kernel for a signature, or None when it is missing or damaged."""
        content = _cache.read(self._path(sig, target_context))
        if not pool.has_memory(_BYTES_TO_COMPILE if content is None else _BYTES_TO_LOAD):
            raise MemoryError("no memory is left to load a kernel; LLVM would end the process")
        if content is None:
            return None
        target_context.refresh()
        return CompileResult._rebuild(target_context, *pickle.loads(content))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the compiled kernel."""
        _cache.write(self._path(sig, data.target_context), serialize.dumps(data._reduce()))

    def _path(self, sig: Any, target_context: Any) -> Path:
        parts = (
            self._identity, str(sig), repr(target_context.codegen().magic_tuple()),
            numba.__version__, llvmlite.__version__, sys.version,
        )  # fmt: skip
        return self._directory / _cache.name(*parts)


# Kernels are compiled once for the oldest architecture and linked for each card from there: what the tests interpret is
# what every card runs. No instruction of a newer one is wanted.
COMPUTE_CAPABILITY = (7, 5)


class CudaKernel:
    """Compile a CUDA kernel when its PTX is first needed, and keep it on disk.

    `name` is its unique entry in the PTX, and `function` the body for one thread, which takes numbers and tuples of
    numbers of the Numba types in `signature`.
    """

    def __init__(self, name: str, function: Callable[..., None], signature: tuple[Any, ...]) -> None:
        self.name, self.function, self.signature = name, function, signature
        self._ptx: str | None = None

    @property
    def leaves(self) -> list[Any]:
        """Return the types of the numbers that a launch takes, tuples laid out flat."""
        return list(_leaves(self.signature))

    @property
    def ptx(self) -> str:
        """Return the code; no GPU is needed."""
        if self._ptx is None:  # not a cached property, whose lock in Python 3.11 a forked child could find taken
            self._ptx = self._kept("ptx", lambda: self._compile().encode("ascii")).decode("ascii")
        return self._ptx

    def cubin(self, architecture: str) -> bytes:
        """Return the code linked for cards of an architecture such as "90"; no GPU is needed."""
        return self._kept(f"sm_{architecture}", lambda: link(self.ptx, architecture)[0])

    def _kept(self, form: str, make: Callable[[], bytes]) -> bytes:
        """Return what is on disk, or make it and put it there."""
        directory = _cache.directory()
        if directory is None:
            return make()
        path = directory / _cache.name(
            self.name, form, sys.version, version("numba"), version("numba-cuda"), _toolkit()
        )
        content = _cache.read(path)
        if content is None:
            content = make()
            _cache.write(path, content)
        return content

    def _compile(self) -> str:
        _require_compiler()
        with global_compiler_lock, _names_that_numba_cuda_wants():
            import numba.cuda
            import numba.cuda.dispatcher

            # Numba asks the current device for its architecture to compile the formulas, which may not exist.
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


@contextlib.contextmanager
def _names_that_numba_cuda_wants() -> Iterator[None]:
    """Give NumPy 2.5 the alias that it dropped and that numba-cuda 0.30 overloads when it is imported."""
    if not version("numba-cuda").startswith("0.30.") or np.lib.NumpyVersion(np.__version__) < "2.5.0":
        yield
        return
    vars(np)["row_stack"] = np.vstack
    try:
        yield
    finally:
        del vars(np)["row_stack"]


@cache
def _toolkit() -> str:
    """Identify the release of CUDA's compiler and linker, however they were installed."""
    from cuda import pathfinder

    found = [Path(str(pathfinder.load_nvidia_dynamic_lib(name).abs_path)).stat() for name in ("nvvm", "nvJitLink")]
    return str([(file.st_size, file.st_mtime_ns) for file in found])


def link(ptx: str, architecture: str) -> tuple[bytes, str]:
    """Return the code of a kernel for an architecture such as "90", and the linker's log, with its registers."""
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


# A child that is forked while another thread compiles would wait for that thread's lock for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
