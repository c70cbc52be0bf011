"""The time and memory that a process spends on numparam before its first value."""

from . import common

RSS_GROWTH = """
from pathlib import Path
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
start = resident()
{statements}
print(resident() - start)
"""


class Import:
    """Import alone, in a fresh interpreter, compared with NumPy, which it needs."""

    params = ("numparam", "numpy")
    param_names = ("module",)
    timeout = 120

    def track_seconds(self, module: str) -> float:
        code = common.seconds_of(f"import {module}")
        return min(common.in_fresh_process(code) for _ in range(7))

    def track_memory(self, module: str) -> float:
        return common.in_fresh_process(RSS_GROWTH.format(statements=f"import {module}"))

    track_seconds.unit = "seconds"
    track_memory.unit = "bytes"


class FirstNormal:
    """From a fresh interpreter to 2**20 normal values, the kernels already in the disk cache."""

    timeout = 120

    def setup(self) -> None:
        common.in_fresh_process(common.seconds_of(common.FIRST_NORMAL))

    def track_seconds(self) -> float:
        code = common.seconds_of(common.FIRST_NORMAL)
        return min(common.in_fresh_process(code) for _ in range(5))

    track_seconds.unit = "seconds"
