"""Models that ranks of several meshes hold together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numparam import Cell, Layout, Parameter, save_distributed_checkpoint, write_index
from numparam.initializer import initializer
from ramp import Ramp

MESHES = {
    "alone": Layout({"all": 1}, ()),
    "rows": Layout({"dp": 3}, ("dp",)),
    "columns": Layout({"tp": 4}, (None, "tp")),
    "replicas": Layout({"dp": 2, "tp": 3}, ("tp",)),
    "both": Layout({"dp": 2, "tp": 2}, ("tp", "dp")),
    "together": Layout({"dp": 2, "tp": 3}, (("tp", "dp"),)),
    "optimizer": Layout({"dp": 2, "tp": 2}, ("tp",), optimizer_shard="dp"),
    "optimizer of columns": Layout({"dp": 3, "tp": 2}, (None, "tp"), optimizer_shard="dp"),
    "many": Layout({"dp": 16}, ("dp",)),
}
SHAPES = {"w": (7, 5), "tall": (12, 2), "one": (1, 1), "empty": (0, 3), "vector": (9, 1)}


def shard(name: str, shape: tuple[int, ...], layout: Layout, rank: int, init: Any = None) -> Parameter:
    lazy = initializer(Ramp() if init is None else init, shape)
    return Parameter(lazy, name=name).init_data(layout, set_sliced=True, rank=rank)


def save(path: Path, layout: Layout, shapes: dict[str, tuple[int, ...]] = SHAPES, **options: Any) -> Path:
    for rank in range(layout.size):
        parts = [shard(name, shape, layout, rank) for name, shape in shapes.items()]
        save_distributed_checkpoint(parts, path, rank=rank, ranks=layout.size, **options)
    return write_index(path)


def net_of(layout: Layout, rank: int, init: Any = "zeros") -> Cell:
    net = Cell()
    for name, shape in SHAPES.items():
        setattr(net, name, shard(name, shape, layout, rank, init))
    return net
