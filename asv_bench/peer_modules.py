"""Compare `numparam.torch.init_` with what torch's own layers do, on an embedding and eight transformer layers.

`python asv_bench/peer_modules.py` prints the seconds, warm, the best of several rounds.
"""

import argparse
from typing import Any

from comparison import best_seconds, heading, machine, markdown, on_cores, record


def module() -> Any:
    from torch import nn

    layers = [nn.TransformerEncoderLayer(1024, 16, 4096, batch_first=True) for _ in range(8)]
    return nn.ModuleList([nn.Embedding(30_000, 1024), *layers])


def reset(parts: Any) -> None:
    for part in parts.modules():
        for name in ("reset_parameters", "_reset_parameters"):
            if hasattr(part, name):
                getattr(part, name)()


def measure(threads: int, rounds: int) -> tuple[int, dict[str, float]]:
    """Return how many values there are, and the seconds of each contender."""
    import torch

    import numparam
    import numparam.torch

    torch.set_num_threads(threads)
    numparam.set_num_threads(threads)
    parts = module()
    calls = {"numparam": lambda: numparam.torch.init_(parts, seed=7), "torch": lambda: reset(parts)}
    return sum(values.numel() for values in parts.parameters()), best_seconds(calls, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts, 5 by default")
    measured = on_cores([1, 2], measure, parser.parse_args().rounds)
    print(heading(machine(), ["numparam", "numba", "torch"], [], f"{measured[1][0]} float32 values, in seconds;"))
    rows = [
        [str(threads), f"{times['numparam']:.3f}", f"{times['torch']:.3f} ({times['torch'] / times['numparam']:.3g}×)"]
        for threads, (_, times) in measured.items()
    ]
    print(markdown([["threads", "numparam", "torch"], *rows]))
    found = [
        {
            "work": "init_ of eight transformer layers",
            "threads": threads,
            "speeds": {who: 1 / took for who, took in times.items()},
        }
        for threads, (_, times) in measured.items()
    ]
    record("peer_modules", "modules/s", ["numparam", "numba", "torch"], found)


if __name__ == "__main__":
    main()
