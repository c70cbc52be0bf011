"""A process on each machine that names the rank which ends without notice: by ``os._exit``, a signal or a crash.

MPICH's mpiexec then kills the other ranks within milliseconds and names at most a PID, so no rank is left to report it.
The first rank of a machine starts the watcher in a new session, where it runs this file without numparam. Every rank is
connected to it, signs off when it ends normally, and is disconnected by the kernel otherwise. The watcher ends with the
last rank. It needs Linux, for epoll and for sockets without a file.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4


class Watched:
    """Connect a rank to the watcher of its machine, which the first rank of `local`, the ranks there, starts."""

    def __init__(self, rank: int, size: int, local: Any) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.register_at_fork(after_in_child=self.connection.close)
        own = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116
        # The ranks whose processes this one can see.
        self.processes = {each: pid for each, pid, space in local.allgather((rank, os.getpid(), own)) if space == own}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            name = local.bcast(f"\0numparam-{uuid4().hex}")
            if local.Get_rank() == 0:
                listener.bind(name)
                listener.listen(local.Get_size())
            local.Barrier()
            if all(local.allgather(_connects(self.connection, name, rank))) and local.Get_rank() == 0:
                self.process = _start(listener, size, local.Get_size())

    def dead(self) -> list[int]:
        """Return the ranks of this machine whose processes have ended, or end within a second.

        A process that ends closes its connections, which others see, before it has ended.
        """
        until = time.monotonic() + 1
        while not (found := [rank for rank, pid in self.processes.items() if _has_ended(pid)]):
            if time.monotonic() > until:
                break
            time.sleep(0.01)
        return found

    def send(self, word: bytes) -> None:
        """Send the watcher b"release" at a normal end, and b"stop" after printing why the job stops."""
        with suppress(OSError):  # the watcher has ended
            self.connection.send(word)
        self.connection.close()
        if self.process:
            self.process.wait()  # for the messages of the other ranks, which are ending too


def _has_ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] in b"ZX"
    except OSError:
        return True


def _connects(connection: socket.socket, name: str, rank: int) -> bool:
    try:
        connection.connect(name)
        connection.send(str(rank).encode())
    except OSError:  # the ranks do not share a network namespace
        return False
    return True


def _start(listener: socket.socket, size: int, count: int) -> subprocess.Popen[bytes]:
    """Start the watcher, and wait until it is ready."""
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(listener.fileno()), str(size), str(count)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        pass_fds=[listener.fileno()],
    )
    assert watcher.stdout is not None
    with watcher.stdout as output:
        output.read()
    return watcher


def _watch(listener: socket.socket, size: int, count: int) -> None:
    poll, ranks = select.epoll(), {}
    for _ in range(count):
        connection, _ = listener.accept()
        ranks[connection.fileno()] = connection, int(connection.recv(16))
        poll.register(connection, select.EPOLLIN)
    os.close(1)  # ready
    while ranks:
        [(number, _)] = poll.poll(maxevents=1)  # what happened first
        connection, rank = ranks.pop(number)
        try:
            word = connection.recv(16)
        except ConnectionError:
            word = b""
        connection.close()
        if word != b"release":
            if not word:
                print(
                    f"numparam: rank {rank} of {size} ended without release(), by os._exit, a signal or a crash; this "
                    "ends the whole job",
                    file=sys.stderr,
                )
            return


if __name__ == "__main__":
    _watch(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
