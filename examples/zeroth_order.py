"""Train by forward passes alone, with a log that survives a crash: ``python examples/zeroth_order.py FOLDER``.

MeZO's rule: in each step all parameters move there and back along one random direction, and the difference of the two
losses says how far to go along it. No gradient exists, and the noise takes no memory. The log keeps a seed and a number
for each step, 20 bytes. Start the program again after a crash, and it goes on where the log ends. ``mpiexec -n 3 python
examples/zeroth_order.py FOLDER rebuild`` rebuilds the model from the base and the log, a part of it on each rank.
"""

import sys
from pathlib import Path

import numpy as np

import numparam
from numparam import Cell, Parameter
from numparam.communication import get_group_size, get_rank, init
from numparam.initializer import initializer
from numparam.perturb import Replay, perturb_, snap_, unperturb_

STEPS, SCALE, RATE, REACH = 300, 1e-2, 2e-2, 4.0


class Model(Cell):
    """Compute ``tanh(x w) v``."""

    def __init__(self) -> None:
        super().__init__()
        self.w = Parameter(initializer("xavier_uniform", (8, 24)))
        self.v = Parameter(initializer("xavier_uniform", (24, 1)))

    def construct(self, x: np.ndarray, y: np.ndarray) -> float:
        error = np.tanh(x @ self.w.asnumpy()) @ self.v.asnumpy() - y
        return float(np.mean(error * error, dtype=np.float64))


def train(folder: Path) -> None:
    """Begin a run, or go on with it."""
    numparam.set_seed(7)
    model, base, path = Model(), folder / "base.safetensors", folder / "run.replay"
    if path.exists():
        log = Replay.open(path)
        numparam.load_param_into_net(model, log.parameters(base))
    else:
        snap_(model, REACH)
        numparam.save_checkpoint(model, base)
        log = Replay.create(path, model, reach=REACH)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((256, 8)).astype(np.float32)
    y = np.sin(x[:, :1]) * x[:, 1:2]
    print(f"step {len(log)}: loss {model(x, y):.4f}", flush=True)
    while len(log) < STEPS:
        seed = len(log)
        perturb_(model, seed, SCALE, reach=REACH)
        above = model(x, y)
        unperturb_(model, seed, SCALE, reach=REACH)
        perturb_(model, seed, -SCALE, reach=REACH)
        below = model(x, y)
        unperturb_(model, seed, -SCALE, reach=REACH)
        log.step(model, seed, -RATE * (above - below) / (2 * SCALE))
        print(f"step {len(log)}", flush=True)
    print(f"step {len(log)}: loss {model(x, y):.4f}")
    numparam.save_checkpoint(model, folder / "trained.safetensors")


def rebuild(folder: Path) -> None:
    """Write the part of the model that this rank holds."""
    init()
    parameters = Replay.open(folder / "run.replay").parameters(folder / "base.safetensors", check=False)
    parts = {}
    for name, parameter in parameters.items():
        rows = [parameter.shape[0] * rank // get_group_size() for rank in (get_rank(), get_rank() + 1)]
        parts[name] = Parameter(parameter[rows[0] : rows[1]], name=name)
    numparam.save_distributed_checkpoint(
        list(parts.values()), folder / "rebuilt", rank=get_rank(), ranks=get_group_size()
    )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/zeroth_order.py FOLDER [rebuild]")
    (rebuild if sys.argv[2:] == ["rebuild"] else train)(Path(sys.argv[1]))
