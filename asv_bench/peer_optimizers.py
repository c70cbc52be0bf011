"""Compare optimizer steps with a copy of as many bytes and with torch: ``python asv_bench/peer_optimizers.py``.

Prints a Markdown table. In a round everything is called once, in turn, so a machine that slows down slows all of it;
times are the best of the rounds. A share is the time of a copy of the bytes that the step must move, half of them read
and half written, over the time of the step.
"""

import os
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import numparam
from numparam import Parameter
from numparam.kernels import copy
from numparam.optim import FTRL, SGD, Adagrad, Adam, AdamW, Lamb, Optimizer

ROWS, SIZE, ROUNDS = 1 << 12, 1 << 24, 12

Call = Callable[[], object]

# The optimizer, how many floats of an element a step must read and write, and torch's class with its options.
CASES: list[tuple[str, Callable[[list[Parameter]], Optimizer], int, Any, dict[str, Any]]] = [
    ("SGD", lambda weights: SGD(weights, 0.01), 3, torch.optim.SGD, {}),
    ("SGD, momentum", lambda weights: SGD(weights, 0.01, 0.9), 5, torch.optim.SGD, {"momentum": 0.9}),
    ("Adam", lambda weights: Adam(weights, 0.01), 7, torch.optim.Adam, {}),
    ("AdamW", lambda weights: AdamW(weights, 0.01), 7, torch.optim.AdamW, {}),
    ("Adagrad", Adagrad, 5, torch.optim.Adagrad, {}),
    ("FTRL", FTRL, 7, None, {}),
    ("Lamb", lambda weights: Lamb(weights, 0.01), 7, None, {}),
]


def peer(make: Any, options: dict[str, Any], how: str) -> Call | None:
    """Return a step of torch's optimizer, or None if it does not have this kind."""
    weight = torch.nn.Parameter(torch.zeros(SIZE))
    weight.grad = torch.ones(SIZE)
    try:
        step: Call = make([weight], lr=0.01, **options, **{how: True}).step
        step()
    except (RuntimeError, TypeError):
        return None
    return step


def best_of_rounds(calls: list[Call]) -> list[float]:
    """Return the least seconds of each call."""
    found: list[list[float]] = [[] for _ in calls]
    for round_ in range(ROUNDS + 1):
        for call, times in zip(calls, found, strict=True):
            start = time.perf_counter()
            call()
            if round_:  # the first one compiles
                times.append(time.perf_counter() - start)
    return [min(times) for times in found]


def main() -> None:
    torch.set_num_threads(numparam.get_num_threads())
    print(f"{platform.machine()}, {numparam.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, ", end="")
    print(f"torch {torch.__version__}; {SIZE >> 20} Mi weights of float32\n")
    print("| optimizer | ms | share of the copy rate | torch fused, ms | torch foreach, ms |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    for name, make, floats, torch_make, options in CASES:
        weight, gradient = (
            Parameter(np.ones((ROWS, SIZE // ROWS), np.float32), name="w"),
            np.ones((ROWS, SIZE // ROWS), np.float32),
        )
        optimizer = make([weight])
        source = np.ones(SIZE * floats // 2, np.float32)
        target = np.empty_like(source)
        steps = [peer(torch_make, options, how) if torch_make else None for how in ("fused", "foreach")]
        calls: list[Call] = [lambda: optimizer([gradient]), lambda: copy.copy(target, source)]  # noqa: B023
        own, copying, *others = best_of_rounds(calls + [step for step in steps if step])
        cells = [f"{others.pop(0) * 1e3:.1f}" if step else "" for step in steps]
        print(f"| {name} | {own * 1e3:.1f} | {copying / own:.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
