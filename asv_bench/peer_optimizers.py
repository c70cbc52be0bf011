"""Compare optimizer steps with a copy of as many bytes, torch and DeepSpeed: ``python asv_bench/peer_optimizers.py 1``.

The argument is the number of threads; with one, times are CPU seconds, which other work on the machine changes less.
Prints a Markdown table. In a round everything is called once, in turn, so a machine that slows down slows all of it;
times are the best of the rounds. A share is the time of a copy of the bytes that the step must move, half of them read
and half written, over the time of the step.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import numparam
from comparison import best_seconds, heading, machine
from numparam import Parameter
from numparam.kernels import copy
from numparam.optim import FTRL, SGD, Adagrad, Adam, AdamW, Lamb, Optimizer, RowwiseAdagrad

ROWS, SIZE, ROUNDS = 1 << 12, 1 << 24, 8  # an array of 64 MiB is larger than the caches of most processors

Call = Callable[[], object]

KINDS = ("fused", "foreach", "DeepSpeed")

# The optimizer, how many floats of an element a step must read and write, and torch's class with its options.
CASES: list[tuple[str, Callable[[list[Parameter]], Optimizer], int, Any, dict[str, Any]]] = [
    ("SGD", lambda weights: SGD(weights, 0.01), 3, torch.optim.SGD, {}),
    ("SGD, momentum", lambda weights: SGD(weights, 0.01, 0.9), 5, torch.optim.SGD, {"momentum": 0.9}),
    ("Adam", lambda weights: Adam(weights, 0.01), 7, torch.optim.Adam, {}),
    ("AdamW", lambda weights: AdamW(weights, 0.01), 7, torch.optim.AdamW, {}),
    ("Adagrad", Adagrad, 5, torch.optim.Adagrad, {}),
    ("RowwiseAdagrad", RowwiseAdagrad, 3, None, {}),
    ("FTRL", FTRL, 7, None, {}),
    # Two passes: how far weights move depends on the norm of all directions, which are computed again.
    ("Lamb", lambda weights: Lamb(weights, 0.01), 10, None, {}),
]


def peer(make: Any, options: dict[str, Any], how: str) -> Call | str:
    """Return a step of another library's optimizer, or why it is skipped."""
    weight = torch.nn.Parameter(torch.zeros(SIZE))
    weight.grad = torch.ones(SIZE)
    try:
        if how == "DeepSpeed":
            from deepspeed.ops.adam import DeepSpeedCPUAdam  # type: ignore[import-not-found]

            step: Call = DeepSpeedCPUAdam([weight], lr=0.01, adamw_mode=make is torch.optim.AdamW).step
        else:
            step = make([weight], lr=0.01, **options, **{how: True}).step
        step()
    except Exception as error:  # an extension that is not built fails in many ways
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return step


def main() -> None:
    numparam.set_num_threads(int(sys.argv[1]) if sys.argv[1:] else numparam.get_num_threads())
    torch.set_num_threads(numparam.get_num_threads())
    clock = time.thread_time if numparam.get_num_threads() == 1 else time.perf_counter
    explanation = f"{SIZE >> 20} Mi weights of float32, {numparam.get_num_threads()} threads."
    print(heading(machine(), ["numparam", "torch"], [], explanation))
    print("| optimizer | ms | share of the copy rate | torch fused, ms | torch foreach, ms | DeepSpeed, ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    skipped = {}
    for name, make, floats, torch_make, options in CASES:
        weight, gradient = (
            Parameter(np.ones((ROWS, SIZE // ROWS), np.float32), name="w"),
            np.ones((ROWS, SIZE // ROWS), np.float32),
        )
        optimizer = make([weight])
        source = np.ones(SIZE * floats // 2, np.float32)
        target = np.empty_like(source)
        calls: dict[str, Call] = {
            "own": lambda: optimizer([gradient]),  # noqa: B023
            "copy": lambda: copy.copy(target, source),  # noqa: B023
        }
        for how in KINDS if torch_make else ():
            if how != "DeepSpeed" or name.startswith("Adam"):
                step = peer(torch_make, options, how)
                if isinstance(step, str):
                    skipped[f"{how} {name}"] = step
                else:
                    calls[how] = step
        best = best_seconds(calls, ROUNDS, clock)
        cells = [f"{best[how] * 1e3:.1f}" if how in best else "" for how in KINDS]
        print(
            f"| {name} | {best['own'] * 1e3:.1f} | {best['copy'] / best['own']:.0%} | {' | '.join(cells)} |", flush=True
        )
    for name, reason in skipped.items():
        print(f"\nSkipped {name}: {reason}")


if __name__ == "__main__":
    main()
