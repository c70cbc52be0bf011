"""One rank ends or pauses at a random instant of a collective: arguments name which, how, where and after how long."""

import os
import signal
import sys
import threading
import time

import numpy as np

from numparam import Cell, Parameter
from numparam.communication import comm_func, get_rank, init
from numparam.parallel import broadcast_parameters

SMALL, LARGE = np.ones(1000, np.float32), np.ones(1 << 18, np.float32)
net = Cell()
net.w = Parameter(LARGE, name="w")

COLLECTIVES = {
    "all_reduce": lambda: comm_func.all_reduce(LARGE),
    "all_gather": lambda: comm_func.all_gather_into_tensor(LARGE),
    "reduce_scatter": lambda: comm_func.reduce_scatter_tensor(LARGE[: 3 << 16]),
    "broadcast": lambda: comm_func.broadcast(LARGE, 1),
    "barrier": comm_func.barrier,
    "small": lambda: comm_func.all_reduce(SMALL),
    "parameters": lambda: broadcast_parameters(net),
}
WAYS = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "os._exit": lambda: os._exit(5),
}


def main(collective: str, way: str, victim: str, seconds: str) -> None:
    init(timeout=10)  # to start takes some seconds where the cores are busy
    COLLECTIVES[collective]()
    end = time.monotonic() + float(seconds)
    if get_rank() == int(victim):
        if way in WAYS:
            timer = threading.Timer(float(seconds), WAYS[way])
            timer.daemon = True
            timer.start()
            end += 60
        while time.monotonic() < end:
            COLLECTIVES[collective]()
        if way == "exception":
            raise KeyError("the end")
        sys.exit(3)
    while True:
        COLLECTIVES[collective]()


if __name__ == "__main__":
    main(*sys.argv[1:])
