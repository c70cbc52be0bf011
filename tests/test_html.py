"""Notebooks show tensors, cells, layouts and reports, with every text escaped and nothing materialised."""

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Cell, CellList, Layout, Parameter, Tensor, html, load_param_into_net
from numparam.checkpoint.fitting import LoadReport
from numparam.initializer import Initializer, Normal, initializer

EVIL = "<script>\x1b[2J\u202e"


class Page(HTMLParser):
    """Collect the texts of each element, and check that every element is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, str]] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.found.append((self.open[-1], data))

    def texts(self, tag: str) -> list[str]:
        return [text for where, text in self.found if where == tag]


def page(shown: Any) -> Page:
    return Page(shown._repr_html_())


class Dense(Cell):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer(Normal(0.02), (outputs, inputs)))
        self.bias = Parameter(initializer("zeros", (outputs,)))


def heights(source: str) -> list[float]:
    return [float(height) for height in re.findall(r"v-([0-9.]+)h", source)]


def test_values_have_a_histogram_and_lazy_ones_stay_lazy() -> None:
    values = np.repeat(np.arange(32, dtype=np.float32), np.arange(1, 33))
    source = Tensor(values)._repr_html_()
    assert heights(source) == pytest.approx([max(1, 60 * count / 32) for count in range(1, 33)], abs=0.06)
    assert page(Tensor(values)).texts("figcaption") == [f"0 to 31, mean {values.mean():.4g}, std {values.std():.4g}"]
    lazy = Parameter(initializer(Normal(0.02), (2**20, 2**20)), name="w")
    found = page(lazy)
    assert "mean" in found.texts("figcaption")[0]
    assert "of the first 2,097,152 values" in found.texts("figcaption")[0]
    assert found.texts("code") == ["w"]
    assert lazy.has_init


@pytest.mark.parametrize(
    "values, caption",
    [
        ([1.0, np.nan, 3.0, np.inf], "1 to 3, mean 2, std 1, 2 not finite"),
        ([2.0, 2.0], "2 to 2, mean 2, std 0"),
        ([True, False], "0 to 1, mean 0.5, std 0.5"),
        ([np.nan], None),
        ([1e308, -1e308], "-1e+308 to 1e+308, mean 0, std inf"),
        ([1j], None),
    ],
    ids=str,
)
def test_histograms_of_odd_values(values: list[Any], caption: str | None) -> None:
    assert page(Tensor(np.array(values))).texts("figcaption") == ([] if caption is None else [caption])


def test_what_cannot_be_drawn_is_left_out() -> None:
    for init in ("orthogonal", "unset"):
        assert page(Parameter(initializer(init, (4, 4)), name="w")).texts("figcaption") == []

    class Broken(Initializer):
        def _initialize(self, *_: Any) -> None:
            raise numparam.errors.StateError("broken")

    assert page(Parameter(initializer(Broken(), (4, 4)), name="w")).texts("figcaption") == []


def test_a_tree_has_sizes_and_folds_layers_that_are_alike() -> None:
    net = Cell()
    net.layers = CellList([*(Dense(4, 4) for _ in range(12)), Dense(4, 2)])
    net.head = Parameter([1.0], requires_grad=False)
    found = page(net)
    assert "27 parameters, 251 values, 1.0 kB" in found.texts("span")
    lines = [text.strip() for text in found.texts("summary") if text.strip()]
    assert lines == ["layers", "0 … 11 12 ×", "12"]
    assert "960 B, 80 B each" in found.texts("span")
    assert "(1,) · float32 · 4 B · in memory · frozen" in found.texts("span")
    assert net.layers[0].weight.has_init


def test_a_tree_of_many_different_parts_is_shortened() -> None:
    net = CellList([Dense(1, width) for width in range(1, 700)])
    source = net._repr_html_()
    assert source.count("<summary>") <= 1000
    assert page(net).texts("div")[-1] == "and more, which summary() lists"


def test_layouts_show_the_ranks_of_each_block() -> None:
    found = page(Layout({"dp": 2, "tp": 3}, ("tp", "dp")))
    assert found.texts("td") == ["0", "3", "1", "4", "2", "5"]
    assert found.texts("th") == [
        "1/2 of axis 1", "2/2 of axis 1", "1/3 of axis 0", "2/3 of axis 0", "3/3 of axis 0",
    ]  # fmt: skip
    assert page(Layout({"dp": 2, "tp": 2}, ())).texts("td") == ["0-3"]
    assert page(Layout({"dp": 2, "tp": 2}, ("tp",), optimizer_shard="dp")).texts("td") == ["0", "2", "1", "3"]
    many = page(Layout({"dp": 100}, ("dp",)))
    assert many.texts("td")[-2:] == ["…", "99"]


def test_reports_are_tables() -> None:
    net = Dense(2, 2)
    report = load_param_into_net(net, {"weight": Parameter(np.ones((2, 2), np.float32), name="weight")})
    assert page(report).texts("td") == ["bias", "no values were given for it"]
    assert page(LoadReport([], [], {})).texts("p") == ["everything was loaded"]
    sums = numparam.fingerprint(net)
    assert page(sums).texts("td")[:3] == ["weight", "(2, 2)", "float32"]
    found = page(numparam.verify(net, Dense(2, 2)))
    assert found.texts("td")[0] == "differs"
    assert found.texts("p")[0].startswith("differences: ")


def test_every_text_is_escaped() -> None:
    net = Cell()
    net.insert_param_to_cell(EVIL, Parameter([1.0]))
    net.insert_child_to_cell(EVIL + "2", type(EVIL, (Cell,), {"extend_repr": lambda _: EVIL})())
    shown = [net, net.summary(), LoadReport([EVIL], [], {EVIL: EVIL}), Layout({EVIL: 2}, (EVIL,))]
    shown += [Parameter([1.0], name=EVIL), numparam.fingerprint({EVIL: np.ones(1, np.float32)})]
    for item in shown:
        source = item._repr_html_()
        assert "&lt;script&gt;\\x1b" in source
        assert not {"<script", "\x1b", "\u202e"} & {
            source[place : place + size] for size in (1, 7) for place in range(len(source))
        }
    assert html.table(("a",), [("x",)] * 1200).endswith("<p>and 200 more</p></div>")
