"""`identify` names the parameter and the region that an array holds, from its values alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Parameter, Region, identify
from numparam.errors import ArgumentTypeError, ShapeError
from numparam.fingerprints.search import PROBE_BYTES, Query, Wanted, search
from numparam.initializer import Normal, initializer

Array = np.ndarray[Any, Any]
SHAPES = {
    "gate": (96, 64), "up": (96, 64), "down": (64, 96), "c_attn": (64, 192), "experts": (4, 32, 64), "bias": (192,),
    "square": (64, 64),
}  # fmt: skip


def full(name: str) -> Region:
    return Region.full(SHAPES[name])


MOVED: dict[str, tuple[Callable[[dict[str, Array]], Array], str, Region, str]] = {
    "right rows": (lambda v: v["up"][:48], "up", full("up")[:48], ""),
    "right columns": (lambda v: v["up"][:, 32:], "up", full("up")[:, 32:], ""),
    "right block": (lambda v: v["up"][48:, 16:32], "up", full("up")[48:, 16:32], ""),
    "right interleaved columns": (lambda v: v["up"][48:, 1::2], "up", full("up")[48:, 1::2], ""),
    "nothing": (lambda v: v["up"][:0], "up", full("up")[:0], ""),
    "one row": (lambda v: v["up"][5:6], "up", full("up")[:1], "rows shifted by 5"),
    "odd rows": (lambda v: v["up"][1::2], "up", full("up")[::2], "rows shifted by 1"),
    "other columns": (lambda v: v["up"][48:, 32:], "up", full("up")[48:, :32], "columns shifted by 32"),
    "other elements": (lambda v: v["bias"][64:128], "bias", full("bias")[:64], "elements shifted by 64"),
    "other expert": (
        lambda v: v["experts"][1], "experts", full("experts")[2], "rows shifted by -32",
    ),
    "other parameter": (
        lambda v: v["gate"], "up", full("up"), "rows 0:96 of gate, where rows 0:96 of up were expected",
    ),
    "off by one": (
        lambda v: np.concatenate([v["up"][1:], np.zeros_like(v["up"][:1])]), "up", full("up"),
        "rows 0:95 hold rows 1:96 of up; 1 unknown row, where rows 0:96 of up were expected; rows shifted by 1",
    ),
    "transposed": (
        lambda v: v["square"].T, "square", full("square"),
        "rows 0:64 of square; transposed, where rows 0:64 of square were expected",
    ),
    "transposed experts": (
        lambda v: v["experts"].swapaxes(1, 2), "experts", full("experts"),
        "rows 0:128 of experts; transposed, where rows 0:128 of experts were expected",
    ),
    "transposed rows": (
        lambda v: v["down"][8:16].T.copy(), "gate", full("gate")[:, :8],
        "rows 8:16 of down; transposed, where columns 0:8 of gate were expected",
    ),
    "reversed": (
        lambda v: v["up"][::-1], "up", full("up"), "rows 0:96 reversed of up, where rows 0:96 of up were expected",
    ),
    "swapped halves": (
        lambda v: np.roll(v["up"], 48, 0), "up", full("up"),
        (
            "rows 0:48 hold rows 48:96 of up; rows 48:96 hold rows 0:48 of up; swapped halves, "
            "where rows 0:96 of up were expected"
        ),
    ),
    "swapped elements": (
        lambda v: np.roll(v["bias"], 96), "bias", full("bias"),
        (
            "elements 0:96 hold elements 96:192 of bias; elements 96:192 hold elements 0:96 of bias; swapped halves, "
            "where elements 0:192 of bias were expected"
        ),
    ),
    "fused columns in another order": (
        lambda v: v["c_attn"].reshape(64, 3, 64)[:, [0, 2, 1]].reshape(64, 192), "c_attn", full("c_attn"),
        (
            "columns 0:64 hold columns 0:64 of c_attn; columns 64:128 hold columns 128:192 of c_attn; "
            "columns 128:192 hold columns 64:128 of c_attn, where rows 0:64 of c_attn were expected"
        ),
    ),
    "columns of two": (
        lambda v: np.concatenate([v["up"][:, :32], v["gate"][:, 32:]], 1), "up", full("up"),
        (
            "columns 0:32 hold columns 0:32 of up; columns 32:64 hold columns 32:64 of gate, "
            "where rows 0:96 of up were expected"
        ),
    ),
    "interleaved": (
        lambda v: np.stack([v["gate"], v["up"]], 1).reshape(192, 64), "gate", full("gate"),
        "rows 0:191:2 hold rows 0:96 of gate; rows 1:192:2 hold rows 0:96 of up, where rows 0:96 of gate were expected",
    ),
    "experts in another order": (
        lambda v: v["experts"][[1, 0, 3, 2]], "experts", full("experts"),
        (
            "rows 0:32 hold experts[1]; rows 32:64 hold experts[0]; rows 64:96 hold experts[3]; "
            "rows 96:128 hold experts[2], where rows 0:128 of experts were expected"
        ),
    ),
    "duplicate": (
        lambda v: np.concatenate([v["up"][:48]] * 2), "up", full("up"),
        "rows 0:48 hold rows 0:48 of up; rows 48:96 hold rows 0:48 of up, where rows 0:96 of up were expected",
    ),
    "zeros": (
        lambda v: np.zeros_like(v["up"]), "up", full("up"), "96 unknown rows, where rows 0:96 of up were expected",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=["float32", "bfloat16", "float8_e4m3fn", "float64"])
def model(request: pytest.FixtureRequest) -> dict[str, Parameter]:
    numparam.set_seed(7)
    dtype = numparam.dtypes.as_dtype(request.param)
    model = {name: Parameter(initializer(Normal(0.5), shape, dtype), name=name) for name, shape in SHAPES.items()}
    return model | {"norm": Parameter(initializer("ones", (64,), dtype), name="norm")}


@pytest.mark.parametrize("case", MOVED)
def test_what_has_moved_is_named(model: dict[str, Parameter], case: str) -> None:
    take, name, region, text = MOVED[case]
    values = {name: parameter.copy().asnumpy() for name, parameter in model.items()}
    assert identify(take(values), model).against(name, region) == text


def test_values_of_nobody_and_constants_remain_unknown(model: dict[str, Parameter]) -> None:
    dtype = model["up"].dtype
    found = identify(np.random.default_rng(1).random((9, 64)).astype(dtype), model)
    assert (found.pieces, found.unknown, str(found)) == ((), 9, "9 unknown rows")
    assert str(identify(np.ones(64, dtype), model)) == "64 unknown elements"


def test_lines_that_differ_further_on_are_shown(model: dict[str, Parameter]) -> None:
    array = model["up"].copy().asnumpy()
    array[48, 40:] = 0
    assert str(identify(array, model)) == "rows 0:96 of up, which differ further on"


def test_only_parameters_of_the_dtype_are_searched(model: dict[str, Parameter]) -> None:
    assert identify(model["up"].copy().asnumpy().astype(np.float16), model).unknown == 96


def test_other_things_are_not_identified() -> None:
    with pytest.raises(ArgumentTypeError, match="an array is identified, found list"):
        identify([1.0], {})
    with pytest.raises(ShapeError, match="at least one axis is identified, found a scalar"):
        identify(np.array(1.0), {})


def test_a_search_ends_when_all_is_found() -> None:
    numparam.set_seed(7)
    names = [f"layers.{at}" for at in range(50)]
    model = {name: Parameter(initializer(Normal(0.5), (64, 64)), name=name) for name in names}
    query = Query(64, PROBE_BYTES // 4)
    wanted = Wanted(model["layers.3"].copy().asnumpy()[:, : query.first])
    searched = []

    class Watched(dict[str, Parameter]):
        def items(self) -> Any:
            for name in self:
                searched.append(name)
                yield name, self[name]

    hits = search({query: wanted}, Watched(model), None, lambda hits: len(hits[query, "rows"]) == 64)
    assert {hit.name for hit in hits[query, "rows"].values()} == {"layers.3"}
    assert searched == names[:4]


@pytest.mark.slow
def test_rows_are_found_in_a_model_of_70_billion_parameters() -> None:
    numparam.set_seed(7)
    shapes: dict[str, tuple[int, ...]] = {"embed": (128256, 8192)}
    for layer in range(80):
        sizes = {"q": (8192, 8192), "k": (1024, 8192), "gate": (28672, 8192), "down": (8192, 28672)}
        shapes |= {f"layers.{layer}.{part}": shape for part, shape in sizes.items()}
    model = {
        name: Parameter(initializer(Normal(0.02), shape, numparam.bfloat16), name=name)
        for name, shape in shapes.items()
    }
    region = Region.full((8192, 28672))[1024:1088]
    rows = np.empty(region.shape, numparam.bfloat16)
    model["layers.79.down"].fill_into(rows, region)
    assert str(identify(rows, model)) == "rows 1024:1088 of layers.79.down"
    assert str(identify(rows.T, model)) == "rows 1024:1088 of layers.79.down; transposed"
