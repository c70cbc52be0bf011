"""Compare how long a tree of ten thousand parameters takes to make, name and walk, all in one run.

`python asv_bench/peer_cells.py` prints a Markdown table in milliseconds, the best of several rounds; in a round
everybody is called once, in turn. No contender makes values: torch.nn is on the meta device, MindSpore under
``no_init_parameters``. "own layer" is a class of two parameters, as numparam's; Linear and Dense are theirs. Libraries
that are not installed are left out.
"""

import argparse
import gc
import importlib.metadata
import importlib.util
from collections.abc import Callable
from time import perf_counter
from typing import Any

from comparison import machine, markdown, record

LAYERS = 5_000
WIDTH = 64

Contender = tuple[Callable[[], Any], Callable[[Any], object]]


def numparam() -> dict[str, Contender]:
    from benchmarks.parameters import Model

    return {"numparam": (lambda: Model(LAYERS), lambda model: dict(model.parameters_and_names()))}


def torch() -> dict[str, Contender]:
    from torch import empty, nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(empty(WIDTH, WIDTH, device="meta"))
            self.bias = nn.Parameter(empty(WIDTH, device="meta"))

    class Model(nn.Module):
        def __init__(self, layer: Callable[[], nn.Module]) -> None:
            super().__init__()
            self.layers = nn.ModuleList([layer() for _ in range(LAYERS)])

    def walk(model: nn.Module) -> object:
        return dict(model.named_parameters())

    return {
        "torch.nn, own layer": (lambda: Model(Layer), walk),
        "torch.nn.Linear": (lambda: Model(lambda: nn.Linear(WIDTH, WIDTH, device="meta")), walk),
    }


def mindspore() -> dict[str, Contender]:
    from mindspore import Parameter, nn
    from mindspore.common.initializer import initializer
    from mindspore.nn.utils import no_init_parameters

    class Layer(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.weight = Parameter(initializer("normal", (WIDTH, WIDTH)))
            self.bias = Parameter(initializer("zeros", (WIDTH,)))

    class Model(nn.Cell):
        def __init__(self, layer: Callable[[], nn.Cell]) -> None:
            super().__init__()
            self.layers = nn.CellList([layer() for _ in range(LAYERS)])

    def make(layer: Callable[[], nn.Cell]) -> nn.Cell:
        with no_init_parameters():
            return Model(layer)

    def walk(model: nn.Cell) -> object:
        return dict(model.parameters_and_names())

    return {
        "MindSpore, own layer": (lambda: make(Layer), walk),
        "mindspore.nn.Dense": (lambda: make(lambda: nn.Dense(WIDTH, WIDTH)), walk),
    }


def best(contenders: dict[str, Contender], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the best times to make and to walk."""
    times: dict[str, tuple[float, float]] = dict.fromkeys(contenders, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, (make, walk) in contenders.items():
            gc.collect()
            start = perf_counter()
            model = make()
            made = perf_counter()
            found = walk(model)
            walked = perf_counter()
            assert len(found) == 2 * LAYERS  # type: ignore[arg-type]
            times[name] = min(times[name][0], made - start), min(times[name][1], walked - made)
            del model, found
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts, 5 by default")
    rounds = parser.parse_args().rounds
    contenders = numparam()
    versions = ["numparam " + importlib.metadata.version("numparam")]
    for library in (torch, mindspore):
        if importlib.util.find_spec(library.__name__):
            contenders |= library()
            versions.append(f"{library.__name__} {importlib.metadata.version(library.__name__)}")
    times = best(contenders, rounds)
    own = sum(times["numparam"])
    rows = [
        [name, f"{make * 1e3:.0f}", f"{walk * 1e3:.1f}", f"{(make + walk) / own:.2f}×"]
        for name, (make, walk) in times.items()
    ]
    speeds = {name: 1 / (make + walk) for name, (make, walk) in times.items()}
    libraries = [name for name in ("numparam", "torch", "mindspore") if importlib.util.find_spec(name)]
    record(
        "peer_cells", "trees/s", libraries, [{"work": "a tree of 10,000 parameters", "threads": 1, "speeds": speeds}]
    )
    print(f"{machine()}; {', '.join(versions)}.")
    print(markdown([["10,000 parameters", "make and name, ms", "walk, ms", "both, of numparam"], *rows]))


if __name__ == "__main__":
    main()
