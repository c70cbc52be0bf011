"""Train a small model on several ranks: ``mpiexec -n 4 python examples/data_parallel.py``.

Every rank creates the same parameters without communication, sees its own part of the data, and ends with the same
values, bit for bit. Momenta exist once in the job, not once on every rank. Without mpiexec, one rank sees all data;
``pip install "numparam[mpi]"`` is needed even so.
"""

import numpy as np

import numparam
from numparam import Cell, Parameter
from numparam.communication import get_group_size, get_rank, init
from numparam.communication.comm_func import all_reduce
from numparam.initializer import initializer
from numparam.parallel import Momentum, ParallelOptimizer, check_agreement


class Model(Cell):
    """Compute ``tanh(x w) v`` and its gradients."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.w = Parameter(initializer("xavier_uniform", (inputs, hidden)))
        self.v = Parameter(initializer("xavier_uniform", (hidden, 1)))

    def construct(self, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
        w, v = self.w.asnumpy(), self.v.asnumpy()
        hidden = np.tanh(x @ w)
        error = hidden @ v - y
        inner = (error @ v.T) * (1 - hidden * hidden)
        return float((error * error).mean()), [2 * x.T @ inner / len(x), 2 * hidden.T @ error / len(x)]


def main() -> None:
    """Train, and print the loss."""
    init()
    numparam.set_seed(7)
    numparam.set_auto_parallel_context(
        gradients_mean=True,
        enable_parallel_optimizer=True,
        parallel_optimizer_config={"parallel_optimizer_threshold": 0},
    )
    model = Model(8, 64)
    optimizer = ParallelOptimizer(Momentum(model, 0.02, 0.9))
    check_agreement(model)

    rng = np.random.default_rng(1)
    x = rng.standard_normal((512, 8)).astype(np.float32)
    y = np.sin(x[:, :1]) * x[:, 1:2]
    own = slice(get_rank(), None, get_group_size())
    for step in range(301):
        loss, gradients = model(x[own], y[own])
        optimizer(gradients)
        if step % 100 == 0:
            mean = all_reduce(np.array(loss), "avg")
            if get_rank() == 0:
                print(f"step {step:3}: loss {mean:.4f}")

    check_agreement(model)
    moments = optimizer.states[0]
    if get_rank() == 0:
        print(f"{get_group_size()} ranks agree; rank 0 holds {moments.shape} of the momenta of w, {model.w.shape}")


if __name__ == "__main__":
    main()
