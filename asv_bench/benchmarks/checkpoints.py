"""Checkpoints: saved, loaded in full and in part, distributed, and verified."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np

import numparam
from numparam.cli import main

from .common import Warm, lazy
from .parameters import Model

SHAPE = (1024, 1024)


class Files(Warm):
    """A folder that is removed afterwards."""

    def setup(self) -> None:
        numparam.set_num_threads(2)
        self.folder = Path(tempfile.mkdtemp())
        self.prepare()

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Large(Files):
    """Eight matrices of 4 MiB."""

    def prepare(self) -> None:
        self.lazy = [lazy(SHAPE, f"layers.{layer}.weight") for layer in range(8)]
        self.made = [parameter.clone().init_data() for parameter in self.lazy]
        self.path = self.folder / "made.safetensors"
        numparam.save_checkpoint(self.made, self.path)
        self.loaded = numparam.load_checkpoint(self.path)

    def time_save(self) -> None:
        numparam.save_checkpoint(self.made, self.folder / "again.safetensors")

    def time_save_lazy(self) -> None:
        numparam.save_checkpoint(self.lazy, self.folder / "lazy.safetensors")

    def time_save_recipes(self) -> None:
        numparam.save_checkpoint(self.lazy, self.folder / "recipes.safetensors", recipes=True)

    def time_open(self) -> None:
        numparam.load_checkpoint(self.path)

    def time_load_all(self) -> None:
        for tensor in numparam.load_checkpoint(self.path).values():
            tensor.asnumpy()

    def time_load_slice(self) -> None:
        self.loaded["layers.3.weight"][100:200].asnumpy()


class Many(Files):
    """A thousand small parameters: what each costs."""

    def prepare(self) -> None:
        self.model = Model(500)
        self.model.init_parameters_data()
        self.path = self.folder / "many.safetensors"
        numparam.save_checkpoint(self.model, self.path)
        self.loaded = numparam.load_checkpoint(self.path)

    def time_save(self) -> None:
        numparam.save_checkpoint(self.model, self.folder / "again.safetensors")

    def time_open(self) -> None:
        numparam.load_checkpoint(self.path)

    def time_load_into_net(self) -> None:
        numparam.load_param_into_net(self.model, self.loaded)


class Distributed(Files):
    """One matrix of 16 MiB over four ranks, each of which calls alone."""

    def prepare(self) -> None:
        layout = numparam.Layout({"tp": 4}, ("tp",))
        self.parts = [lazy((2048, 2048)).init_data(layout, rank=rank) for rank in range(4)]
        self.name = str(self.folder / "model")
        self.time_save_and_index()
        self.index = numparam.write_index(self.name)

    def time_save_and_index(self) -> None:
        for rank, part in enumerate(self.parts):
            numparam.save_distributed_checkpoint([part], self.name, rank=rank, ranks=4)
        numparam.write_index(self.name)

    def time_load_on_other_mesh(self) -> None:
        net = numparam.Cell()
        region = numparam.Layout({"tp": 3}, (None, "tp")).region((2048, 2048), 1)
        net.w = numparam.Parameter(numparam.initializer.initializer("unset", (2048, 2048))[region.slices()], name="w")
        numparam.load_distributed_checkpoint(net, self.index)
        assert isinstance(net.w.asnumpy(), np.ndarray)


class Verify(Files):
    """The commands that write and check a file, in this process."""

    def prepare(self) -> None:
        self.path = str(self.folder / "model.safetensors")
        like = self.folder / "like.safetensors"
        numparam.save_checkpoint([lazy(SHAPE, f"layers.{layer}.weight") for layer in range(8)], like)
        self.like = str(like)
        self.time_init()

    def run(self, *arguments: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(arguments) == 0

    def time_init(self) -> None:
        self.run("init", "--like", self.like, "--seed", "7", "-o", self.path)

    def time_verify(self) -> None:
        self.run("verify", self.path)

    def time_inspect(self) -> None:
        self.run("inspect", self.path)

    def time_inspect_stats(self) -> None:
        self.run("inspect", "--stats", self.path)
