"""A weight that is several: fans, bounds and orthogonality are those of one block."""

from typing import Any

import numpy as np
import pytest

from numparam.initializer import (
    Axes,
    Dirac,
    HeUniform,
    Initializer,
    LecunNormal,
    Normal,
    Orthogonal,
    Sparse,
    XavierUniform,
    initializer,
)
from numparam.rules import Rules


def values(init: Initializer, shape: tuple[int, ...], dtype: str = "float32") -> Any:
    return initializer(init, shape, dtype)


@pytest.mark.parametrize(
    "init, shape, bounds",
    [
        (Axes(HeUniform(), batch_axis=0), (8, 64, 24), [0.5]),
        (Axes(HeUniform(), batch_axis=(0, 1)), (2, 4, 64, 24), [0.5]),
        (Axes(HeUniform(), in_axis=0, out_axis=1), (24, 256), [0.5]),
        (Axes(HeUniform(), batch_axis=0, in_axis=1, out_axis=2), (8, 24, 64), [0.5]),
        (Axes(XavierUniform(), splits=3), (3 * 96, 96), [(6 / 192) ** 0.5]),
        (Axes(XavierUniform(), splits=(96, 24, 24)), (144, 96), [(6 / 192) ** 0.5, (6 / 120) ** 0.5]),
        (Axes(XavierUniform(), in_axis=0, out_axis=1, splits=[96, 24]), (96, 120), [(6 / 192) ** 0.5]),
        (Axes(HeUniform(mode="fan_out")), (64, 24), [(6 / 64) ** 0.5]),
    ],
)
def test_bounds_are_those_of_one_block(init: Axes, shape: tuple[int, ...], bounds: list[float]) -> None:
    array = abs(values(init, shape).asnumpy())
    if init.splits in (None, 3):
        assert 0.97 * bounds[0] < array.max() <= bounds[0] * (1 + 1e-6)
        return
    axis = 0 if init.out_axis is None else init.out_axis[0]
    first, rest = np.split(array, [96], axis)
    assert 0.97 * bounds[0] < first.max() <= bounds[0] * (1 + 1e-6)
    assert 0.97 * (6 / 120) ** 0.5 < rest.max() <= (6 / 120) ** 0.5 * (1 + 1e-6)


def seeded(init: Axes, shape: tuple[int, ...], name: str = "w") -> Any:
    import numparam

    numparam.set_seed(3)
    return numparam.Parameter(initializer(init, shape), name=name)


@pytest.mark.parametrize("init", [HeUniform(), LecunNormal(), Orthogonal(2.0), Sparse(0.5, 1.0), Normal(0.1)])
def test_one_block_has_the_values_of_the_initializer(init: Initializer) -> None:
    import numparam

    numparam.set_seed(3)
    plain = numparam.Parameter(initializer(init, (12, 8)), name="w").asnumpy()
    np.testing.assert_array_equal(seeded(Axes(init), (12, 8)).asnumpy(), plain)


@pytest.mark.parametrize(
    "init, shape",
    [
        (Axes(Orthogonal(), batch_axis=0), (3, 6, 4)),
        (Axes(Orthogonal(), batch_axis=1, in_axis=0, out_axis=2), (4, 3, 6)),
        (Axes(Orthogonal(), splits=(6, 4, 2)), (12, 5)),
        (Axes(Sparse(0.5, 1.0), batch_axis=0), (3, 6, 4)),
        (Axes(Sparse(0.5, 1.0), in_axis=0, out_axis=1, splits=2), (6, 8)),
        (Axes(Dirac(), batch_axis=0), (2, 4, 4, 3)),
        (Axes(XavierUniform(), splits=(6, 4, 2)), (12, 5)),
        (Axes(XavierUniform(), in_axis=0, out_axis=1, splits=(6, 4)), (5, 10)),
        (Axes(HeUniform(), batch_axis=0), (3, 6, 4)),
    ],
)
def test_slices_are_those_of_the_full_tensor(init: Axes, shape: tuple[int, ...]) -> None:
    full = seeded(init, shape).asnumpy()
    for index in [np.s_[1:], np.s_[:, 2:4], np.s_[::-1], np.s_[1], np.s_[1:2, ::2], np.s_[..., -1], np.s_[2:1]]:
        np.testing.assert_array_equal(seeded(init, shape)[index].asnumpy(), full[index])


@pytest.mark.parametrize(
    "init, shape, blocks",
    [
        (Axes(Orthogonal(), batch_axis=0), (3, 6, 4), list),
        (Axes(Orthogonal(), batch_axis=0, in_axis=1, out_axis=2), (3, 6, 4), list),
        (Axes(Orthogonal(), splits=(6, 4, 2)), (12, 5), lambda full: np.split(full, [6, 10])),
    ],
)
def test_every_block_is_orthogonal(init: Axes, shape: tuple[int, ...], blocks: Any) -> None:
    found = blocks(seeded(init, shape).asnumpy())
    for block in found:
        wide = block if block.shape[0] < block.shape[1] else block.T
        np.testing.assert_allclose(wide @ wide.T, np.eye(len(wide)), atol=1e-5)
    if found[0].shape == found[1].shape:
        assert not np.array_equal(found[0], found[1])


def test_rules_in_toml() -> None:
    text = '[[rules]]\nglob = "*experts*"\ninit = "he_uniform"\nbatch_axis = 0\nin_axis = 1\nout_axis = 2\n'
    rule = Rules.from_toml(text + '[[rules]]\nglob = "*qkv*"\ninit = "xavier_uniform"\nsplits = [4, 2, 2]\n').rules
    assert isinstance(rule[0].initializer, Axes)
    assert rule[0].initializer.fans((8, 24, 64)) == [(24, 64)]
    assert isinstance(rule[1].initializer, Axes)
    assert rule[1].initializer.fans((8, 3)) == [(3, 4), (3, 2), (3, 2)]


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Axes("normal"), TypeError, "for an initializer, found 'normal'"),
        (lambda: Axes(Normal(), batch_axis="a"), TypeError, "batch_axis is an int or a sequence of ints"),
        (lambda: Axes(Normal(), splits=0), ValueError, "splits are positive, found 0"),
        (lambda: values(Axes(HeUniform(), batch_axis=3), (3, 4)), ValueError, r"shape with these axes, found \(3, 4\)"),
        (lambda: values(Axes(HeUniform(), batch_axis=0), (3, 4)), ValueError, "axis of inputs and one of outputs"),
        (lambda: values(Axes(HeUniform(), in_axis=0, out_axis=0), (3, 4)), ValueError, "needs different axes"),
        (lambda: values(Axes(HeUniform(), splits=2), (3, 4)), ValueError, "2 equal parts, found 3 outputs"),
        (lambda: values(Axes(HeUniform(), splits=(2, 2)), (3, 4)), ValueError, "4 outputs in its splits, found 3"),
    ],
)
def test_what_axes_refuse(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
