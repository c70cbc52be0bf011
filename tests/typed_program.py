"""A program of a user, to be accepted by ``mypy --strict`` and pyright as it stands; it runs too."""

from __future__ import annotations

import itertools
import tempfile

import numpy as np
import numpy.typing as npt

import numparam
from numparam import Cell, CellList, Layout, Parameter, Tensor
from numparam.initializer import Initializer, Normal, initializer
from numparam.optim import AdamW, Optimizer, SparseRows
from numparam.parallel import DistributedGradReducer

Array = npt.NDArray[np.float32]


class Dense(Cell):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer("xavier_uniform", (outputs, inputs), numparam.float32))
        self.bias = Parameter(initializer("zeros", outputs))

    def construct(self, x: Array) -> Array:
        return np.asarray(x @ self.weight.asnumpy().T + self.bias.asnumpy(), np.float32)


class Net(Cell):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = CellList([Dense(a, b) for a, b in itertools.pairwise(widths)])

    def construct(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x


def norms(net: Cell) -> dict[str, float]:
    return {parameter.name: float(np.linalg.norm(parameter.asnumpy())) for parameter in net.trainable_params()}


def sharded(shape: tuple[int, int], init: Initializer, ranks: int) -> list[Tensor]:
    layout = Layout({"tp": ranks}, ("tp",))
    whole = Parameter(initializer(init, shape), name="w")
    return [whole[layout.region(shape, rank).slices()] for rank in range(ranks)]


def trained(net: Net) -> Optimizer:
    decayed = [parameter for parameter in net.trainable_params() if parameter.ndim > 1]
    rest = [parameter for parameter in net.trainable_params() if parameter.ndim < 2]
    optimizer = AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": rest}], lr=1e-3, clip_norm=1.0)
    gradients = [np.ones(parameter.shape, np.float32) for parameter in optimizer.parameters]
    reduced: list[npt.NDArray[np.float32]] = DistributedGradReducer(optimizer.parameters, mean=True)(gradients)
    optimizer(reduced)
    optimizer([Tensor(array) for array in reduced])
    rows = SparseRows(np.array([1]), np.ones((1, 4), np.float32))
    optimizer([rows, *reduced[1:]])
    return optimizer


def main() -> None:
    numparam.set_seed(7)
    net = Net([4, 8, 2])
    out: Array = net(np.ones((3, 4), np.float32))
    assert out.shape == (3, 2)
    assert len(norms(net)) == 4
    tensor = Tensor([1.0, 2.0])
    first: Tensor = tensor[0]
    assert isinstance(first, Tensor)
    parts = sharded((8, 3), Normal(0.02), 4)
    assert [part.shape for part in parts] == [(2, 3)] * 4
    weight = Parameter([[1.0, 2.0], [3.0, 4.0]], name="w")
    scaled: Tensor = (2 * weight + 1) @ weight - weight / 3
    above: Tensor = (scaled > 0) & (scaled != weight)
    total: Tensor = (-above[0, ...]).sum() if above.ndim == 0 else above.sum(axis=0)
    assert isinstance(total, Tensor)
    narrow: Tensor = parts[0].astype(numparam.bfloat16)
    assert narrow.to("float32").half().dtype == numparam.float16
    moved: Parameter = weight.to(numparam.device("cpu"))
    halved: Tensor = divmod(weight * [1, 2], np.float32(2))[0].mean(axis=(0, 1), keepdims=True)
    assert (moved[0, :].shape, halved.shape) == ((2,), (1, 1))
    weight -= 0.5
    weight[..., 0] = np.zeros(2, np.float32)
    assert isinstance(weight, Parameter)
    with tempfile.TemporaryDirectory() as folder:
        numparam.save_checkpoint(net, f"{folder}/net.safetensors")
        loaded = numparam.load_checkpoint(f"{folder}/net.safetensors")
        report = numparam.load_param_into_net(Net([4, 8, 2]), loaded)
        assert report.param_not_load == []
        optimizer = trained(net)
        numparam.save_checkpoint(list(optimizer.states), f"{folder}/states", append_dict={"epoch": 3, "note": "x"})
        optimizer.load_states(numparam.load_checkpoint(f"{folder}/states.safetensors"))
        table: numparam.Fingerprints = numparam.fingerprint(net)
        one: numparam.Fingerprint = numparam.fingerprint(net.layers[0].weight)
        assert table["layers.0.weight"] == one
    bias: Parameter = net.layers[0].bias
    assert bias.name == "layers.0.bias"


if __name__ == "__main__":
    main()
