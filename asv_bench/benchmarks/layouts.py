"""Layouts, plans and rules: what is computed of models without making a value."""

import numparam
from numparam import Layout, Rules
from numparam.model.plan import Plan
from numparam.model.specification import load

from .common import Warm

MESH = {"dp": 8, "pp": 4, "tp": 16}
SHAPE = (8192, 28672)
TEXT = """
[[rules]]
glob = "*.norm.weight"
init = "ones"
[[rules]]
regex = '.*\\.(gate|up)_proj\\.weight'
init = "truncated_normal"
sigma = 0.02
[[rules]]
glob = "**"
init = "normal"
sigma = 0.02
"""


class Layouts(Warm):
    def setup(self) -> None:
        self.layout = Layout(MESH, (("pp", "tp"), "dp"))
        self.entries = load("llama-3-8b").entries

    def time_make(self) -> None:
        Layout(MESH, (("pp", "tp"), "dp"))

    def time_region(self) -> None:
        self.layout.region(SHAPE, 311)

    def time_sizes(self) -> None:
        self.layout.sizes(SHAPE)

    def time_picture(self) -> None:
        self.layout.picture(SHAPE)

    def time_automatic(self) -> None:
        numparam.automatic_layouts(self.entries, {"dp": 4, "tp": 8}, 2**30)


class Plans(Warm):
    """llama-3-8b has 291 parameters, kimi-k2 some seventy thousand."""

    params = ("llama-3-8b", "kimi-k2")
    param_names = ("model",)

    def setup(self, model: str) -> None:
        self.entries = load(model).entries

    def time_load(self, model: str) -> None:
        load(model)

    def time_plan(self, model: str) -> None:
        Plan(self.entries, (16, 16)).nbytes()


class RuleFiles(Warm):
    def setup(self) -> None:
        self.entries, self.rules = load("llama-3-8b").entries, Rules.from_toml(TEXT)

    def time_parse(self) -> None:
        Rules.from_toml(TEXT)

    def time_assign(self) -> None:
        self.rules.assign(self.entries)
