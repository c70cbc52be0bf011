"""Run the cases that the first argument names, one after the other, on every rank."""

import sys
from collections.abc import Callable, Mapping

from numparam.communication import collectives, comm_func


def run_cases(
    functions: Mapping[str, Callable[[], None]], chunk_bytes: int = 0, large: str = "", meet: bool = True
) -> None:
    """Run the cases and say that this rank is done.

    Parameters
    ----------
    functions : mapping
        By the names of cases, which have commas between them in the argument.
    chunk_bytes : int
        Of what travels at once, so that little data takes several chunks; 0 leaves it as it is.
    large : str
        The case for which it stays as it is.
    meet : bool
        Whether the ranks wait for each other after a case.
    """
    before = collectives.CHUNK_BYTES, collectives._CHUNK_BYTES_PER_RANK
    for case in sys.argv[1].split(","):
        small = chunk_bytes and case != large
        chunks = (chunk_bytes, chunk_bytes // 4) if small else before
        collectives.CHUNK_BYTES, collectives._CHUNK_BYTES_PER_RANK = chunks
        functions[case]()
        if meet:
            comm_func.barrier()
    print("done\n", end="", flush=True)  # in one piece: the ranks write at the same time
