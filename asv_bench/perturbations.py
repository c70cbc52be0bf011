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
from numparam.perturb import antithetic, perturb_, perturbed, snap_

COLUMNS = 2048
FILLS = {
    "normal": lambda out: fill.normal(out, fill.Key(7, 1, 0), 0.0, 1.0),
    "rademacher": lambda out: fill.either(out, fill.Key(7, 1, 0), 0.5, 1.0, -1.0),
    "uniform": lambda out: fill.uniform(out, fill.Key(7, 1, 0), -1.0, 1.0),
}
NOISES = {noise: (draw, {"noise": noise}) for noise, draw in FILLS.items()}
NOISES |= {f"normal of rank {rank}": (FILLS["normal"], {"rank": rank}) for rank in (1, 4)}


def measure(size: int, rounds: int) -> list[list[str]]:
    """Return the table."""
    shape = size // COLUMNS, COLUMNS
    base, out, opposite, lattice = (Parameter(np.ones(shape, np.float32), name="w") for _ in range(4))
    target, clock = np.empty(shape, np.float32), time.perf_counter
    snap_(lattice)
    if numparam.get_num_threads() == 1:
        clock = time.thread_time
    forms = {"one": 1, "antithetic": 1, "in place": 1, "eight": 8}  # how many fills' worth of noise each draws
    rows = [["noise", "copy, ms", "fill, ms", *(cell for form in forms for cell in (f"{form}, ms", "share"))]]
    for noise, (draw, of) in NOISES.items():
        calls = {
            "copy": lambda: copy.copy(target, base.asnumpy()),
            "fill": lambda draw=draw: draw(target),
            "one": lambda of=of: perturbed(base, 7, 1e-3, out, **of),
            "antithetic": lambda of=of: antithetic(base, 7, 1e-3, (out, opposite), **of),
            "in place": lambda of=of: perturb_(lattice, 7, 1e-6, **of),
            "eight": lambda of=of: perturbed(base, range(8), 1e-3, out, **of),
        }
        best = best_seconds(calls, rounds, clock)
        row = [noise, f"{best['copy'] * 1e3:.2f}", f"{best['fill'] * 1e3:.2f}"]
        for form, count in forms.items():
            row += [f"{best[form] * 1e3:.2f}", f"{count * best['fill'] / best[form]:.0%}"]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=numparam.get_num_threads())
    parser.add_argument("--weights", type=int, default=1 << 22, help="how many float32 weights, in rows of 2048")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    numparam.set_num_threads(options.threads)
    explanation = f"{options.weights} weights of float32, {options.threads} threads."
    print(heading(machine(), ["numparam", "numpy"], [], explanation))
    print(markdown(measure(options.weights, options.rounds)))


if __name__ == "__main__":
    main()
