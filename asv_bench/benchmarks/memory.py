"""Peak memory: of processes, against one that only imports, and of operations, in addition to what they were given."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numparam
from numparam import Tensor
from numparam.initializer import Constant

from .common import DRAWS, ELEMENTS, extra_memory, lazy, touched
from .copying import LAYOUTS


class Process:
    """Each reads 64 MiB of values or writes them; `peakmem_import_only` is the baseline."""

    timeout = 120

    def setup(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "model.safetensors"
        numparam.save_checkpoint([lazy((64, 64), "small")], self.path)
        self.big = Path(self.folder.name) / "big.safetensors"

    def teardown(self) -> None:
        self.folder.cleanup()

    def peakmem_import_only(self) -> None:
        pass

    def peakmem_fill(self) -> None:
        lazy((4096, 4096)).asnumpy()

    def peakmem_read_slice(self) -> None:
        lazy((2**20, 2**20))[:8].asnumpy()

    def peakmem_save_lazy(self) -> None:
        numparam.save_checkpoint([lazy((4096, 4096))], self.big)

    def peakmem_open_checkpoint(self) -> None:
        numparam.load_checkpoint(self.path)


def fill(draw: str) -> Callable[[], object]:
    out = touched(ELEMENTS)
    return lambda: DRAWS[draw](out)


def layout(name: str) -> Callable[[], object]:
    target, source = map(Tensor.from_numpy, LAYOUTS[name]())
    return lambda: target.__setitem__(..., source)


OPERATIONS: dict[str, tuple[Callable[[str], Callable[[], object]], str]] = {
    **{f"fill {draw}": (fill, draw) for draw in DRAWS},
    **{f"copy {name}": (layout, name) for name in ("contiguous", "float32 to bfloat16", "transpose", "axes 3 2 1 0")},
}


class Extra:
    """Bytes in addition to the arrays; the target is less than 1 MiB, whatever the size."""

    params = tuple(OPERATIONS)
    param_names = ("operation",)

    def setup(self, operation: str) -> None:
        numparam.set_num_threads(2)
        make, argument = OPERATIONS[operation]
        self.call = make(argument)
        self.call()
        Constant(1.0)(touched(16))

    def track_bytes(self, operation: str) -> int:
        return extra_memory(self.call)

    track_bytes.unit = "bytes"  # type: ignore[attr-defined]
