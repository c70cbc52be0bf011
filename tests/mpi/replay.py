"""Ranks apply a log to their shards of its base, and refuse the shards of another; the argument is the folder."""

import sys
from pathlib import Path

import numpy as np
import pytest

import numparam
from numparam import Parameter
from numparam.communication import comm_func, get_group_size, get_rank, init
from numparam.errors import MismatchError
from numparam.perturb import Replay, snap_

SHAPE = (12, 50)


def shards() -> list[Parameter]:
    """Return rows of `w`, and of `v` columns that the first two ranks hold alike."""
    random, found = np.random.default_rng(3), []
    for name in ("w", "v"):
        full = Parameter((random.standard_normal(SHAPE) * 0.1).astype(np.float32), name=name)
        snap_([full])
        place, count = (get_rank(), get_group_size()) if name == "w" else (get_rank() // 2, 2)
        index = np.s_[place * 12 // count : (place + 1) * 12 // count]
        index = index if name == "w" else np.s_[:, place * 25 : (place + 1) * 25]
        part = Parameter(full.asnumpy()[index].copy(), name=name)
        part._region, part.sliced = full.region[index], True
        found.append(part)
    return found


def main(folder: Path) -> None:
    log, parts = Replay.open(folder / "log"), shards()
    log.apply(parts)
    for name, expected in numparam.load_checkpoint(folder / "end.safetensors").items():
        part = next(each for each in parts if each.name == name)
        assert part.asnumpy().tobytes() == part.region.take(expected.asnumpy()).tobytes()
    for wrong in ("w", "v"):
        parts = shards()
        if get_rank() == (0 if wrong == "w" else 2):
            next(each for each in parts if each.name == wrong).asnumpy()[1, 2] += 1.0
        before = [part.asnumpy().tobytes() for part in parts]
        with pytest.raises(MismatchError, match=f"parameter {wrong!r} is not the base"):
            log.apply(parts)
        assert before == [part.asnumpy().tobytes() for part in parts]


if __name__ == "__main__":
    init(timeout=60)
    main(Path(sys.argv[1]))
    comm_func.barrier()
    print("done\n", end="", flush=True)  # in one piece: the ranks write at the same time
