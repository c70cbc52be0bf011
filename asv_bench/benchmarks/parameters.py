"""Lazy parameters: creating many of them, and reading slices of one far larger than any memory."""

import numparam
from numparam import Cell, CellList, Parameter
from numparam.initializer import Normal, initializer


def lazy(shape: tuple[int, ...], name: str) -> numparam.Parameter:
    return numparam.Parameter(initializer(Normal(0.02), shape, numparam.float32), name=name)


class Make:
    """Ten thousand lazy parameters: only names, shapes and dtypes are kept."""

    def time_ten_thousand(self) -> None:
        for layer in range(10_000):
            lazy((4096, 4096), f"layers.{layer}.weight")


SLICES = {
    "element": (777_777, 12_345),
    "row": (777_777, slice(None)),
    "rows": slice(500_000, 500_016),
    "every fourth column": (slice(0, 64), slice(0, 2**20, 4)),
    "block": (slice(1_000, 5_096), slice(3_000, 7_096)),
}


class Slice:
    """Slices of a parameter of 2**40 elements, 4 TiB if it were materialised."""

    params = tuple(SLICES)
    param_names = ("slice",)

    def setup(self, name: str) -> None:
        self.parameter = lazy((2**20, 2**20), "w")
        self.index = SLICES[name]
        self.parameter[self.index].asnumpy()

    def time_read(self, name: str) -> None:
        self.parameter[self.index].asnumpy()


class Layer(Cell):
    def __init__(self) -> None:
        super().__init__()
        self.weight = Parameter(initializer("normal", (64, 64)))
        self.bias = Parameter(initializer("zeros", (64,)))


class Model(Cell):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = CellList([Layer() for _ in range(layers)])


class Tree:
    """A cell tree of ten thousand lazy parameters; `peer_cells.py` compares with other libraries."""

    def setup(self) -> None:
        self.model = Model(5_000)

    def time_make(self) -> None:
        Model(5_000)

    def time_name(self) -> None:
        self.model.update_parameters_name()

    def time_walk(self) -> None:
        for _ in self.model.parameters_and_names():
            pass
