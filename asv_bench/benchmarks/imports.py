"""What a process spends before its first value: the import, and the first use of a kernel, its cache full or empty."""

from .common import Fresh, needs

NORMAL = """
import numparam
from numparam.initializer import Normal, initializer
numparam.Parameter(initializer(Normal(0.02), (1024, 1024), numparam.float32), name="w").asnumpy()
"""
SLICE = """
import numpy as np
import numparam
numparam.Tensor(np.ones((64, 4096), np.float32))[:, 7:99].asnumpy()
"""
CAST = """
import numpy as np
import numparam
numparam.Tensor(np.ones(2**20, np.float32)).astype(numparam.bfloat16).asnumpy()
"""
USES = {"normal": NORMAL, "slice": SLICE, "cast": CAST}
# timeit calls what this name means in the code around a statement: the processor's time, not that of a clock.
PROCESSOR_TIME = "from time import process_time as _timer"
EMPTY_CACHE = f"{PROCESSOR_TIME}\nimport os, tempfile\nos.environ['NUMBA_CACHE_DIR'] = tempfile.mkdtemp()"


class Import(Fresh):
    """NumPy, which numparam needs, is the limit."""

    params = ("numparam", "numpy", "numparam.torch", "numparam.jax")
    param_names = ("module",)
    # With sixteen samples in all, 20 % were not seen on a busy machine. With 32 in four or eight rounds, one of ten
    # comparisons of equal commits reported a difference: a shared machine is slow for as long as a round takes, and the
    # test takes the samples of a round as independent.
    rounds = 16
    repeat = (2, 3, 0.6)

    def setup(self, module: str) -> None:
        needs(module.rpartition(".")[2])

    def timeraw_import(self, module: str) -> tuple[str, str]:
        return f"import {module}", PROCESSOR_TIME


class FirstUse(Fresh):
    """From the import to the first values, 2**20 of them or fewer, the kernels already in the disk cache."""

    params = tuple(USES)
    param_names = ("use",)

    def setup(self, use: str) -> None:
        exec(USES[use], {})  # fills the cache

    def timeraw_warm_cache(self, use: str) -> tuple[str, str]:
        return USES[use], PROCESSOR_TIME


class FirstCompile(Fresh):
    """The same with an empty cache: the time of the compiler."""

    params = tuple(USES)
    param_names = ("use",)
    rounds = 2
    repeat = (2, 4, 20.0)

    def timeraw_cold_cache(self, use: str) -> tuple[str, str]:
        return USES[use], EMPTY_CACHE
