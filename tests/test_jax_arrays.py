"""A sharded array of JAX has the bits of the parameter, and each of its devices its own part of them alone."""

from typing import Any

import numpy as np
import pytest

import numparam
from jax_devices import jax, sharding
from numparam import Parameter, Tensor
from numparam.indexing.region import Region
from numparam.initializer import Constant, Initializer, Normal, initializer
from numparam.jax import array, arrays, callback
from numparam.stream.source import Source

SHAPE = (48, 64)
CUTS: list[tuple[tuple[int, ...], tuple[Any, ...], int]] = [  # a mesh, a spec, and how many different parts there are
    ((1, 8), ("a", "b"), 8), ((2, 4), ("a", "b"), 8), ((8, 1), ("a", "b"), 8), ((2, 4), ("b", "a"), 8),
    ((2, 4), (None, ("a", "b")), 8), ((2, 4), (("b", "a"),), 8), ((2, 4), ("b",), 4), ((2, 2, 2), ("c", "a"), 4),
    ((2, 4), (), 1),
]  # fmt: skip


def bits(values: Any) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(values).view(np.uint8)


def named(dtype: str = "float32", name: str = "layers.0.weight") -> Parameter:
    numparam.set_seed(7)
    return Parameter(initializer(Normal(0.02), SHAPE, dtype), name=name)


class Recorder(Initializer):
    """Draw normal values, and remember what was asked for."""

    def __init__(self) -> None:
        self._regions: list[Region] = []

    def fill(self, out: Any, region: Region, source: Source) -> None:
        self._regions.append(region)
        source.normal(out, region, 0.0, 1.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("mesh, spec, _parts", CUTS)
def test_every_device_holds_its_part_of_the_parameter(
    mesh: tuple[int, ...], spec: tuple[Any, ...], _parts: int, dtype: str
) -> None:
    parameter, cut = named(dtype), sharding(mesh, *spec)
    made = array(parameter, cut)
    assert parameter.has_init
    assert made.sharding == cut
    assert made.dtype == parameter.dtype
    whole = parameter.asnumpy()
    assert len(made.addressable_shards) == 8
    for shard in made.addressable_shards:
        np.testing.assert_array_equal(bits(shard.data), bits(whole[shard.index]))
    np.testing.assert_array_equal(bits(made), bits(whole))


@pytest.mark.parametrize("mesh, spec, parts", CUTS)
def test_each_part_is_made_once_and_nothing_else(mesh: tuple[int, ...], spec: tuple[Any, ...], parts: int) -> None:
    recorder = Recorder()
    array(Tensor(shape=SHAPE, init=recorder), sharding(mesh, *spec))
    assert len(recorder._regions) == parts
    seen = np.zeros(SHAPE, int)
    for region in recorder._regions:
        seen[region.slices()] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("spec", [("a", "b"), ("b",), ()])
def test_jax_may_ask_for_the_parts_itself(spec: tuple[Any, ...]) -> None:
    parameter, cut = named("bfloat16"), sharding((2, 4), *spec)
    made = jax.make_array_from_callback(SHAPE, cut, callback(parameter))
    assert parameter.has_init
    np.testing.assert_array_equal(bits(made), bits(parameter.asnumpy()))


def test_float64_needs_x64() -> None:
    parameter = named("float64", name="wide")
    with pytest.raises(TypeError, match=r"parameter 'wide' has dtype float64: JAX has it after jax\.config\.update"):
        array(parameter)
    with jax.enable_x64(True):
        made = array(parameter, sharding((2, 4), "a", "b"))
        assert made.dtype == np.float64
        np.testing.assert_array_equal(bits(made), bits(parameter.asnumpy()))


def test_axes_that_do_not_divide_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"parameter 'odd': .* axis 0 is partitioned 4 times, but the dimension size"):
        array(Parameter(initializer("normal", (6, 8)), name="odd"), sharding((2, 4), "b"))


def test_what_is_no_sharding_on_devices_is_refused() -> None:
    tensor = Parameter(initializer("normal", (8, 8)), name="w")
    with pytest.raises(TypeError, match=r"parameter 'w' needs a jax\.sharding\.Sharding, found \(2, 4\)"):
        array(tensor, (2, 4))
    with pytest.raises(ValueError, match=r"parameter 'w': .* needs a mesh; call jax\.set_mesh\(mesh\) first"):
        array(tensor, jax.sharding.PartitionSpec("a"))


def test_without_a_sharding_there_is_one_device() -> None:
    parameter = named()
    made = array(parameter)
    assert made.devices() == {jax.devices()[0]}
    assert not made.committed
    np.testing.assert_array_equal(made, parameter.asnumpy())


@pytest.mark.parametrize("shape", [(), (0, 8), (5,)])
def test_small_shapes(shape: tuple[int, ...]) -> None:
    tensor = initializer("normal", shape)
    made = array(tensor, sharding((8,)))
    assert made.shape == shape
    np.testing.assert_array_equal(made, tensor.asnumpy())


def test_slices_and_values_go_over_too() -> None:
    parameter, cut = named(), sharding((2, 4), "a", "b")
    part = parameter[8:24, ::2]
    np.testing.assert_array_equal(array(part, cut), parameter.asnumpy()[8:24, ::2])
    counts = Tensor(np.arange(64).reshape(8, 8), "int32")
    np.testing.assert_array_equal(array(counts, cut), counts.asnumpy())
    flags = initializer(Constant(True), (8, 8), "bool")
    assert bool(array(flags, cut).all())


@pytest.mark.parametrize("cut", [None, ("a", "b"), ("b",), ()], ids=str)
def test_later_writes_stay_apart(cut: tuple[Any, ...] | None) -> None:
    values, lazy = Tensor(np.ones(SHAPE, np.float32)), initializer("ones", SHAPE)
    place = None if cut is None else sharding((2, 4), *cut)
    made = [array(tensor, place) for tensor in (values, lazy)]
    values[...] = 0
    lazy.asnumpy()[...] = 0
    assert [bool((array == 1).all()) for array in made] == [True, True]
    assert not np.asarray(made[0]).flags.writeable


def test_devices_adopt_the_memory_in_which_the_values_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = []

    def noted(*arguments: Any) -> Any:
        values = original(*arguments)
        addresses.append(values.ctypes.data)
        return values

    original = arrays.made
    monkeypatch.setattr(arrays, "made", noted)
    made = array(named(), sharding((2, 4), "b"))
    assert len(addresses) == 4
    assert {shard.data.unsafe_buffer_pointer() for shard in made.addressable_shards} == set(addresses)


def test_what_devices_share_is_not_written_to_by_a_donation() -> None:
    parameter = named()
    doubled = jax.jit(lambda values: 2 * values, donate_argnums=0)(array(parameter, sharding((2, 4))))
    for shard in doubled.addressable_shards:
        np.testing.assert_array_equal(shard.data, 2 * parameter.asnumpy())
