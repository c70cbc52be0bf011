"""Parameters and cells: made, named, walked, copied and given values."""

import numparam
from numparam import Cell, CellList, Parameter
from numparam.initializer import initializer

from .common import Warm, lazy, touched


class Layer(Cell):
    def __init__(self) -> None:
        super().__init__()
        self.weight = Parameter(initializer("normal", (64, 64)))
        self.bias = Parameter(initializer("zeros", (64,)))


class Model(Cell):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = CellList([Layer() for _ in range(layers)])


class Make(Warm):
    """One lazy parameter: only its name, shape and dtype are kept."""

    def setup(self) -> None:
        self.values = touched((64, 64))
        self.parameter = lazy((64, 64))

    def time_lazy(self) -> None:
        lazy((4096, 4096), "layers.0.weight")

    def time_from_array(self) -> None:
        Parameter(self.values, name="w")

    def time_clone(self) -> None:
        self.parameter.clone()

    def time_materialise(self) -> None:
        lazy((64, 64)).init_data()


class Tree(Warm):
    """A cell tree of a thousand lazy parameters; `peer_cells.py` compares with other libraries."""

    def setup(self) -> None:
        numparam.set_num_threads(2)
        self.model = Model(500)

    def time_make(self) -> None:
        Model(500)

    def time_name(self) -> None:
        self.model.update_parameters_name()

    def time_walk(self) -> None:
        for _ in self.model.parameters_and_names():
            pass

    def time_init_data(self) -> None:
        Model(500).init_parameters_data()
