"""A process that writes again and again, and is killed at different moments of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")


def killed(code: str) -> Iterator[None]:
    """Run code that prints a line after each write and never ends; yield each time it has been killed."""
    for delay in range(6):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.007 * delay)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        yield
