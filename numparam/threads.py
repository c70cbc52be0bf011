"""The number of threads that fill, copy and convert."""

from numparam.errors import ArgumentTypeError, ArgumentValueError


def set_num_threads(count: int) -> None:
    """Set the number of threads that every later operation uses.

    The values are the same for every number of threads. Without a call it is that of the environment variable
    ``NUMPARAM_NUM_THREADS``, or one per core.

    Parameters
    ----------
    count : int
        At least 1.

    Raises
    ------
    TypeError
        If `count` is not an int.
    ValueError
        If it is below 1.

    Examples
    --------
    >>> set_num_threads(2)
    >>> get_num_threads()
    2
    """
    from numparam.kernels.machine import pool

    try:
        pool.set_num_threads(count)
    except TypeError as error:
        raise ArgumentTypeError(str(error)) from None
    except ValueError as error:
        raise ArgumentValueError(str(error)) from None


def get_num_threads() -> int:
    """Return the number of threads that operations use."""
    from numparam.kernels.machine import pool

    return pool.get_num_threads()
