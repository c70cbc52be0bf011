"""A seed and a name lead to one stream, which nothing else disturbs."""

import subprocess
import sys
from collections.abc import Callable
from hashlib import blake2b

import numpy as np
import pytest

import numparam
from numparam.initializer import Normal, initializer
from numparam.stream.seed import stream

SHAPE = (5, 7)


def draw(name: str | None = None, seed: int = 7) -> np.ndarray:
    numparam.set_seed(seed)
    return numparam.Parameter(initializer("normal", SHAPE), name=name).asnumpy()


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1, np.uint64(2**64 - 1), np.int8(3)])
def test_set_seed_takes_python_and_numpy_integers(seed: int) -> None:
    numparam.set_seed(seed)
    assert numparam.get_seed() == int(seed)
    assert type(numparam.get_seed()) is int


@pytest.mark.parametrize("seed", [-1, 2**64, np.int64(-1)])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 2\*\*64 - 1"):
        numparam.set_seed(seed)


@pytest.mark.parametrize("seed", [True, np.True_, 1.0, "7", None, np.zeros(2, int)])
def test_seed_of_another_type(seed: object) -> None:
    with pytest.raises(TypeError, match=r"a seed is an int"):
        numparam.set_seed(seed)  # type: ignore[arg-type]


def test_no_seed_until_one_is_drawn() -> None:
    code = (
        "import numparam; from numparam.initializer import initializer\n"
        "print(numparam.get_seed()); initializer('normal', 3); print(numparam.get_seed())"
    )
    before, after = python(code).split()
    assert before == "None"
    assert 0 <= int(after) < 2**64
    assert python(code).split()[1] != after


def test_drawn_seed_repeats_the_run() -> None:
    code = (
        "import numparam; from numparam.initializer import initializer\n{}"
        "t = initializer('normal', 3); print(numparam.get_seed(), t.asnumpy().tobytes().hex())"
    )
    first = python(code.format(""))
    assert python(code.format(f"numparam.set_seed({first.split()[0]})\n")) == first


def test_stream_is_blake2b_of_kind_and_name() -> None:
    def digest(text: bytes, label: bytes = b"") -> int:
        return int.from_bytes(blake2b(text, digest_size=8, person=label).digest(), "little")

    assert stream("weight") == digest(b"nweight")
    assert stream("名前", "sparse") == digest("n名前".encode(), b"sparse")
    assert stream(12) == digest(b"#12")


def test_values_depend_on_name_and_seed_only() -> None:
    weight = draw("weight")
    initializer("normal", 100)
    assert np.array_equal(draw("weight"), weight)
    assert not np.array_equal(draw("bias"), weight)
    assert not np.array_equal(draw("weight", seed=8), weight)


def test_order_of_construction_does_not_matter() -> None:
    numparam.set_seed(7)
    forward = [numparam.Parameter(initializer("normal", SHAPE), name=name) for name in "abc"]
    backward = [numparam.Parameter(initializer("normal", SHAPE), name=name) for name in "cba"][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert np.array_equal(one.asnumpy(), other.asnumpy())


def test_unnamed_tensors_are_numbered_from_set_seed() -> None:
    def three() -> list[np.ndarray]:
        numparam.set_seed(7)
        return [initializer("normal", SHAPE).asnumpy() for _ in range(3)]

    first, second = three(), three()
    assert np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_number_is_no_name() -> None:
    numparam.set_seed(7)
    assert not np.array_equal(initializer("normal", SHAPE).asnumpy(), draw("0"))


def test_seed_is_that_of_the_moment_of_making() -> None:
    numparam.set_seed(7)
    lazy = numparam.Parameter(initializer("normal", SHAPE), name="w")
    numparam.set_seed(8)
    assert np.array_equal(lazy.asnumpy(), draw("w", seed=7))


def test_name_is_that_of_the_moment_of_materialisation() -> None:
    numparam.set_seed(7)
    lazy = numparam.Parameter(initializer("normal", SHAPE), name="old")
    lazy.name = "new"
    assert np.array_equal(lazy.asnumpy(), draw("new"))


def test_seed_of_an_initializer_takes_precedence() -> None:
    normal = Normal()
    normal.seed = np.int64(7)  # type: ignore[assignment]
    numparam.set_seed(99)
    own = numparam.Parameter(initializer(normal, SHAPE), name="w").asnumpy()
    assert normal.seed == 7
    assert np.array_equal(own, draw("w", seed=7))
    normal.seed = None
    numparam.set_seed(99)
    assert np.array_equal(numparam.Parameter(initializer(normal, SHAPE), name="w").asnumpy(), draw("w", seed=99))


@pytest.mark.parametrize("seed, error", [(-1, ValueError), (True, TypeError), ("7", TypeError)])
def test_wrong_seed_of_an_initializer(seed: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="a seed is"):
        Normal().seed = seed  # type: ignore[assignment]


@pytest.mark.parametrize("spoil", [lambda: np.random.seed(3), lambda: np.random.default_rng().random()])  # noqa: NPY002
def test_foreign_random_state_does_not_matter(spoil: Callable[[], object]) -> None:
    before = draw("w")
    spoil()
    assert np.array_equal(draw("w"), before)


def test_the_seed_of_a_call_comes_between_that_of_the_initializer_and_the_global_one() -> None:
    own = Normal()
    own.seed = 9
    numparam.set_seed(7)

    def values(init: Normal, **seed: int) -> np.ndarray:
        return numparam.Parameter(initializer(init, SHAPE, **seed), name="w").asnumpy()

    assert np.array_equal(values(Normal(), seed=8), draw_of(Normal(), 8))
    assert np.array_equal(values(own, seed=8), draw_of(Normal(), 9))
    with pytest.raises(ValueError, match="a seed is an int from 0"):
        initializer(own, SHAPE, seed=-1)
    with pytest.raises(TypeError, match="found a Tensor"):
        initializer(numparam.Tensor([1.0]), seed=8)


def draw_of(init: Normal, seed: int) -> np.ndarray:
    numparam.set_seed(seed)
    try:
        return numparam.Parameter(initializer(init, SHAPE), name="w").asnumpy()
    finally:
        numparam.set_seed(7)
