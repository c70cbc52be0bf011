"""Train a network on scikit-learn's digits with torch's autograd: ``python examples/digits.py``.

The parameters, the optimizer and the random numbers are numparam's. On two ranks, ``mpiexec -n 2 python
examples/digits.py``, the parameters are the same to the bit: a batch is split into chunks, whose number does not depend
on the ranks, and their gradients are added in one order.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

import numparam
from numparam import Cell, Parameter
from numparam.communication import get_group_size, get_rank, init
from numparam.communication.comm_func import all_gather_into_tensor
from numparam.initializer import initializer
from numparam.optim import AdamW
from numparam.torch import views

CHUNKS, CHUNK, EPOCHS, TESTED = 4, 32, 40, 360


class Network(Cell):
    """Hold two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.w = Parameter(initializer("he_normal", (256, 64)))
        self.b = Parameter(initializer("zeros", 256))
        self.v = Parameter(initializer("xavier_normal", (10, 256)))


def logits(network: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return the scores of the ten digits."""
    return torch.relu(x @ network["w"].T + network["b"]) @ network["v"].T


def main() -> None:
    """Train, and print the accuracy and the fingerprints."""
    torch.set_num_threads(1)
    init()
    numparam.set_seed(7)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    shuffled = np.random.default_rng(0).permutation(len(x))
    x_test, y_test = x[shuffled[:TESTED]], y[shuffled[:TESTED]]
    x, y = x[shuffled[TESTED:]], y[shuffled[TESTED:]]

    network = Network()
    tensors = views(network)
    optimizer = AdamW(network, lambda step: 3e-3 / (1 + step / 100), weight_decay=0.05)
    own = range(get_rank(), CHUNKS, get_group_size())
    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(len(x))
        for start in range(0, len(x) - CHUNKS * CHUNK + 1, CHUNKS * CHUNK):
            gradients = []
            for chunk in own:
                rows = order[start + chunk * CHUNK : start + (chunk + 1) * CHUNK]
                loss = torch.nn.functional.cross_entropy(logits(tensors, x[rows]), y[rows]) / CHUNKS
                gradients.append(torch.autograd.grad(loss, list(tensors.values())))
            optimizer(summed(gradients))

    accuracy = (logits(tensors, x_test).argmax(1) == y_test).float().mean()
    if get_rank() == 0:
        print(f"accuracy {accuracy:.4f}")
        print(numparam.fingerprint(network))


def summed(gradients: list[tuple[torch.Tensor, ...]]) -> list[np.ndarray]:
    """Add the gradients of all chunks of all ranks, in the order of the chunks."""
    totals = []
    for parts in zip(*gradients, strict=True):
        gathered = all_gather_into_tensor(np.stack([part.numpy() for part in parts]))
        by_chunk = gathered.reshape(get_group_size(), len(parts), *parts[0].shape).swapaxes(0, 1)
        total = np.zeros(parts[0].shape, np.float32)
        for chunk in by_chunk.reshape(CHUNKS, *parts[0].shape):
            total += chunk
        totals.append(total)
    return totals


if __name__ == "__main__":
    main()
