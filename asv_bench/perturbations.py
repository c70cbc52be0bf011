"""Compare perturbations with fills of as many values and a copy: ``python asv_bench/perturbations.py``.

Prints a Markdown table. Everything is called once in each round, in turn, so that a machine that slows down slows all
of it; times are the best of the rounds. With one thread they are seconds of the processor, which other work on the
machine changes less. A share is the time of the fill over the time of a perturbation.
"""

import argparse
import time

import numpy as np

import numparam
from comparison import best_seconds, heading, machine, markdown
from numparam import Parameter
from numparam.kernels import copy, fill
from numparam.perturb import perturb_, perturbed, snap_

FILLS = {
    "normal": lambda out: fill.normal(out, fill.Key(7, 1, 0), 0.0, 1.0),
    "rademacher": lambda out: fill.either(out, fill.Key(7, 1, 0), 0.5, 1.0, -1.0),
    "uniform": lambda out: fill.uniform(out, fill.Key(7, 1, 0), -1.0, 1.0),
}


def measure(size: int, rounds: int) -> list[list[str]]:
    """Return the table."""
    base, out, lattice = (Parameter(np.ones(size, np.float32), name="w") for _ in range(3))
    target, clock = np.empty(size, np.float32), time.perf_counter
    snap_(lattice)
    if numparam.get_num_threads() == 1:
        clock = time.thread_time
    rows = [["noise", "copy, ms", "fill, ms", "one, ms", "share", "in place, ms", "share", "eight, ms", "share"]]
    for noise, draw in FILLS.items():
        calls = {
            "copy": lambda: copy.copy(target, base.asnumpy()),
            "fill": lambda draw=draw: draw(target),
            "one": lambda noise=noise: perturbed(base, 7, 1e-3, out, noise=noise),
            "in place": lambda noise=noise: perturb_(lattice, 7, 1e-6, noise=noise),
            "eight": lambda noise=noise: perturbed(base, range(8), 1e-3, out, noise=noise),
        }
        best = best_seconds(calls, rounds, clock)
        row = [noise, f"{best['copy'] * 1e3:.2f}", f"{best['fill'] * 1e3:.2f}"]
        for name, count in (("one", 1), ("in place", 1), ("eight", 8)):
            row += [f"{best[name] * 1e3:.2f}", f"{count * best['fill'] / best[name]:.0%}"]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=numparam.get_num_threads())
    parser.add_argument("--weights", type=int, default=1 << 22, help="how many float32 weights")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    numparam.set_num_threads(options.threads)
    explanation = f"{options.weights} weights of float32, {options.threads} threads."
    print(heading(machine(), ["numparam", "numpy"], [], explanation))
    print(markdown(measure(options.weights, options.rounds)))


if __name__ == "__main__":
    main()
