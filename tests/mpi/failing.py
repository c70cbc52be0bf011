"""Ranks that fail, each in the way that its argument names."""

import os
import signal
import sys
import threading
import time

import numpy as np

from numparam.communication import WORLD_COMM_GROUP, comm_func, create_group, get_rank, init, release
from numparam.communication.arrival import arrive
from numparam.communication.management import get_group
from numparam.errors import LateRankError, StateError

VALUES = np.ones(1000, np.float32)
MANY = np.ones(1 << 18, np.float32)  # which travel after the ranks have arrived


def raises() -> None:
    if get_rank() == 2:
        raise KeyError("no such layer")


def raises_in_the_middle() -> None:
    comm_func.all_reduce(VALUES)
    if get_rank() == 1:
        comm_func.broadcast(VALUES.astype(str))


def is_killed(how: str) -> None:
    if get_rank() == 1:
        os.kill(os.getpid(), signal.Signals[how])


def exits_at_once(status: str) -> None:
    if get_rank() == 0:
        os._exit(int(status))


def raises_in_a_thread() -> None:
    if get_rank() == 1:
        thread = threading.Thread(target=lambda: {}["no such file"], name="loader")
        thread.start()
        thread.join()


def exits() -> None:
    if get_rank() == 1:
        sys.exit(3)


def is_stopped() -> None:
    if get_rank() == 2:
        time.sleep(30)  # far beyond the deadline


def stops_in_the_middle() -> None:
    if get_rank() == 2:
        arrive(get_group(WORLD_COMM_GROUP), "all_reduce of float32[262144], sum")
        time.sleep(30)  # and sends no data
    comm_func.all_reduce(MANY)


def leaves_in_the_middle() -> None:
    if get_rank() == 2:
        arrive(get_group(WORLD_COMM_GROUP), "all_reduce of float32[262144], sum")
        comm_func.barrier()
    comm_func.all_reduce(MANY)


def is_interrupted() -> None:
    if get_rank() == 0:
        time.sleep(60)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()


def comes_late_to_init() -> None:
    raise AssertionError("slept before init")


def calls_another() -> None:
    if get_rank() == 3:
        comm_func.broadcast(VALUES)


def brings_another_shape() -> None:
    if get_rank() == 0:
        comm_func.all_reduce(VALUES[:10])


def goes_on_after_an_error() -> None:
    if get_rank() == 1:
        time.sleep(30)  # until the other one stops the job
    try:
        comm_func.barrier()
    except LateRankError:
        try:
            comm_func.barrier()
        except StateError as error:
            print(f"{error}\n", end="")
        release()  # stops the job


def waits_in_a_group() -> None:
    if get_rank() < 2:
        create_group("first", [0, 1])
    if get_rank() == 0:
        comm_func.barrier("first")
    sys.exit()


def forgets_init() -> None:
    raise AssertionError("started without init")


if __name__ == "__main__":
    what = sys.argv[1]
    if what == "forgets_init":
        comm_func.all_reduce(VALUES)
    if what == "comes_late_to_init" and os.environ["PMI_RANK"] == "1":
        time.sleep(30)
    timeout = float(sys.argv[2])
    # On a busy machine MPI takes seconds to start, and so do kernels to load.
    init(timeout=timeout if what == "comes_late_to_init" else 60)
    if timeout < 60:
        comm_func.all_reduce(MANY)
    init(timeout=timeout)
    if "BY_MESSAGES" in os.environ:
        get_group(WORLD_COMM_GROUP).memory = False
    globals()[what](*sys.argv[3:])
    comm_func.all_reduce(VALUES)
    time.sleep(60)  # nothing but the failure of another rank ends this one
