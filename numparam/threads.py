"""The number of threads that fill, copy and convert."""

from numparam.checks import as_int


def set_num_threads(count: int) -> None:
    """Set the number of threads that every later operation uses.

    The values are the same for every number of threads. By default it is the environment variable
    ``NUMPARAM_NUM_THREADS``, or one per core; the ranks of an MPI job divide the cores of their machine. A count that
    is not an int is a TypeError, and one below 1 a ValueError.
    """
    from numparam.kernels.machine import pool

    pool.set_num_threads(as_int("the number of threads", count, 1))


def get_num_threads() -> int:
    """Return the number of threads that operations use."""
    from numparam.kernels.machine import pool

    return pool.get_num_threads()
