"""Fingerprints are those of the definition, add up over any partition, and differ for any change."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numparam
import reference
from numparam import Fingerprint, Fingerprints, Region, View, fingerprint
from numparam.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    CheckpointError,
    MismatchError,
    RegionError,
    ShapeError,
    StateError,
)
from numparam.fingerprints import boxes
from numparam.initializer import Normal, Orthogonal, initializer
from numparam.kernels.digest import DigestKey, digest
from numparam.kernels.fill import Span

MODULUS = 2**61 - 1
DTYPES = [
    np.dtype(kind)
    for kind in (
        bool, np.uint8, np.int16, np.float16, np.float32, np.int32, np.float64, np.uint64, np.complex64, np.complex128,
        ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
    )
]  # fmt: skip


def of_definition(array: np.ndarray[Any, Any], first: int = 0, secret: bytes = b"") -> str:
    """Follow docs/fingerprint.md word by word; `array` is consecutive in the parameter from element `first` on."""
    digest = hashlib.blake2b(digest_size=24, key=secret, person=b"numparam digest1").digest()
    seed, factors, weights = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8, 16))
    width = min(array.itemsize, 4)
    content = np.ascontiguousarray(array).tobytes()
    sums = [0, 0]
    for place, at in enumerate(range(0, len(content), width), first * max(1, array.itemsize // 4)):
        word = int.from_bytes(content[at : at + width], "little")
        block, inside = divmod(place, 1024)
        u = [part >> 7 for part in reference.philox(seed, factors, inside)]
        w = reference.philox(seed, weights, 2 * block) + reference.philox(seed, weights, 2 * block + 1)
        v = [(w[2 * t] + 2**32 * w[2 * t + 1]) % 2**61 for t in range(4)]
        sums[0] += word * (u[0] * v[0] + u[1] * v[1])
        sums[1] += word * (u[2] * v[2] + u[3] * v[3])
    return f"{sums[0] % MODULUS:016x}{sums[1] % MODULUS:016x}"


def values(shape: tuple[int, ...], dtype: np.dtype[Any], seed: int = 0) -> np.ndarray[Any, Any]:
    """Return random bits; of bools random truth."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(0, 256, count * dtype.itemsize, np.uint8).view(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_has_the_fingerprint_of_the_definition(dtype: np.dtype[Any]) -> None:
    for count in (0, 1, 3, 16, 17, 40, 1023, 1029, 2100):
        array = values((count,), dtype, count)
        assert str(fingerprint(array)) == of_definition(array)


def test_the_largest_words_overflow_nothing() -> None:
    array = np.full(3000, 2**32 - 1, np.uint32)
    assert str(fingerprint(array)) == of_definition(array)


def test_a_key_gives_other_numbers_and_shows_that_it_did() -> None:
    array = values((100,), np.dtype(np.float32))
    keyed = fingerprint(array, "a secret")
    assert str(keyed) == of_definition(array, secret=hashlib.blake2b(b"a secret").digest())
    assert keyed == fingerprint(array, b"a secret")
    assert len({keyed, fingerprint(array), fingerprint(array, "another")}) == 3
    with pytest.raises(MismatchError, match="fingerprints of one key are compared, found 2 different keys"):
        fingerprint({"w": array}, "a secret").compare(fingerprint({"w": array}))
    with pytest.raises(ArgumentTypeError, match="a key is a str or bytes, found int"):
        fingerprint(array, 7)  # type: ignore[arg-type]


def test_far_positions_follow_the_definition() -> None:
    """Blocks beyond 2**32 take the upper word of the counter."""
    region = Region.full((2**50,))[2**45 - 3 : 2**45 + 3]
    array = values((6,), np.dtype(np.float32))
    assert str(fingerprint(array, region=region)) == of_definition(array, 2**45 - 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.uint8], ids=lambda kind: kind.__name__)
def test_strides_do_not_matter(dtype: Any) -> None:
    array = values((60, 70, 30), np.dtype(dtype))
    expected = fingerprint(array)
    for axes in itertools.permutations(range(3)):
        back = tuple(int(place) for place in np.argsort(axes))
        assert fingerprint(np.ascontiguousarray(array.transpose(axes)).transpose(back)) == expected
    spread = np.zeros((120, 71, 60), dtype)[::2, 1:, ::-2]
    spread[...] = array
    assert fingerprint(spread) == expected
    assert fingerprint(array.astype(array.dtype.newbyteorder(">"))) == expected


def test_threads_do_not_matter() -> None:
    array = values((3, 1_000_003), np.dtype(np.float32))
    before, found = numparam.get_num_threads(), set()
    try:
        for count in (1, 2, 5):
            numparam.set_num_threads(count)
            found.add(fingerprint(array))
            found.add(fingerprint(np.asfortranarray(array)))
    finally:
        numparam.set_num_threads(before)
    assert len(found) == 1


def test_less_than_a_mebibyte_of_scratch_memory_is_taken(tmp_path: Path) -> None:
    array = np.zeros((1024, 1024), np.float32)
    lazy = numparam.Parameter(initializer(Normal(0.02), (1024, 1024)), name="w")
    numparam.save_checkpoint([numparam.Parameter(array, name="w")], tmp_path / "w.safetensors")
    threads = numparam.get_num_threads()
    try:
        for count in (1, 4):
            numparam.set_num_threads(count)
            for each in (array, array.T, array[::2, ::3], lazy, tmp_path / "w.safetensors"):
                fingerprint(each)  # creates the threads
                tracemalloc.start()
                fingerprint(each)
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                assert peak < 2**20
    finally:
        numparam.set_num_threads(threads)


def test_any_partition_adds_up() -> None:
    array = values((23, 41, 5), np.dtype(np.float64))
    full, random_ = fingerprint(array), random.Random(3)

    def pieces(region: Region) -> list[Region]:
        axis = random_.randrange(3)
        length = region.shape[axis]
        if region.size < 100 or length < 2:
            return [region]
        before = (slice(None),) * axis
        if random_.random() < 0.3:
            halves = slice(None, None, 2), slice(1, None, 2)
        else:
            cut = random_.randrange(1, length)
            halves = slice(None, cut), slice(length, cut - 1 if cut else None, -1)
        return [piece for half in halves for piece in pieces(region[(*before, half)])]

    for _ in range(10):
        parts = pieces(Region.full(array.shape))
        random_.shuffle(parts)
        found = [fingerprint(part.take(array), region=part) for part in parts]
        total = found[0]
        for each in found[1:]:
            assert not total.complete
            total = total + each
        assert total == full


def test_every_bit_and_every_position_matters() -> None:
    array = values((40, 30), np.dtype(ml_dtypes.bfloat16))
    found = {fingerprint(array)}
    flat = array.reshape(-1).view(np.uint16)
    for place in range(0, flat.size, 7):
        for bit in range(16):
            flat[place] ^= 1 << bit
            found.add(fingerprint(array))
            found.add(fingerprint(np.asfortranarray(array)))
            flat[place] ^= 1 << bit
    for place in range(1, flat.size, 7):
        flat[[place - 1, place]] = flat[[place, place - 1]]
        found.add(fingerprint(array))
    assert len(found) > 1 + 16 * 172 + 165  # two neighbours may be equal


def test_shape_and_dtype_belong_to_the_identity() -> None:
    zeros = np.zeros((4, 6), np.float32)
    others = [zeros.reshape(6, 4), zeros.view(np.int32), zeros[:3]]
    assert all(fingerprint(other) != fingerprint(zeros) for other in others)


# --------------------------------------------------------------------------- coverage


def test_missing_and_doubly_covered_regions_are_named() -> None:
    array, full = values((8, 6), np.dtype(np.float32)), Region.full((8, 6))
    left, lower = full[:, :4], full[5:]
    first = fingerprint({"w": left.take(array)})["w"]
    first = Fingerprint((8, 6), first.dtype, first.sums, (boxes.box_of(left),), name="w")
    second = fingerprint(lower.take(array), region=lower)
    with pytest.raises(StateError, match=re.escape("parameter 'w' of shape (8, 6): [5:8, 0:4] is covered twice")):
        first + second
    with pytest.raises(StateError, match=r"in part, 32 of 48 elements; \[0:8, 4:6\] is missing first"):
        Fingerprints({"w": first}).compare(fingerprint({"w": array}))


def test_regions_of_different_parameters_do_not_add_up() -> None:
    one = fingerprint(np.zeros(2, np.float32), region=Region.full((4,))[:2])
    other = fingerprint(np.zeros(2, np.float32), region=Region.full((5,))[2:4])
    with pytest.raises(MismatchError, match=re.escape("regions of one shape add up, found (4,) and (5,)")):
        one + other


def test_common_elements_of_ranges_are_those_of_sets() -> None:
    random_ = random.Random(1)
    for _ in range(2000):
        a, b = (range(random_.randrange(9), random_.randrange(30), random_.randrange(1, 7)) for _ in "ab")
        found = boxes.common((a,), (b,))
        assert list(found[0] if found else ()) == sorted({*a} & {*b})


# --------------------------------------------------------------------------- what has a fingerprint


def test_lazy_parameters_have_the_fingerprint_of_their_values_and_stay_lazy() -> None:
    numparam.set_seed(7)
    for init, shape in ((Normal(0.02), (3000, 1001)), (Orthogonal(), (40, 30))):
        lazy = numparam.Parameter(initializer(init, shape, numparam.bfloat16), name="w")
        found = fingerprint(lazy)
        assert lazy.has_init
        assert found == fingerprint(lazy.asnumpy())


def test_cells_and_mappings_give_tables() -> None:
    cell = numparam.Cell()
    cell.a = numparam.Parameter(np.ones((2, 3), np.float32))
    cell.b = numparam.Parameter(np.zeros(4, np.float16))
    expected = {name: parameter.asnumpy() for name, parameter in cell.parameters_and_names()}
    assert list(expected) == ["a", "b"]
    assert fingerprint(cell) == fingerprint(expected)


def test_views_find_canonical_parameters() -> None:
    rng = np.random.default_rng(5)
    q, k, v, gate, up = (rng.random(shape, np.float32) for shape in [(8, 6), (4, 6), (4, 6), (10, 6), (10, 6)])
    experts = rng.random((3, 5, 6), np.float32)
    canonical = {"norm": np.ones(6, np.float32), "q": q, "k": k, "v": v, "gate": gate, "up": up}
    canonical |= {f"expert.{i}": np.ascontiguousarray(experts[i].T) for i in range(3)}
    interleaved = np.stack([gate, up], 1).reshape(20, 6)
    stored = {"norm": canonical["norm"], "qkv": np.concatenate([q, k, v]).T.copy(), "gu": interleaved, "e": experts}
    views = {
        "q": View("qkv", np.s_[:, :8], (1, 0)), "k": View("qkv", np.s_[:, 8:12], (1, 0)),
        "v": View("qkv", np.s_[:, 12:], (1, 0)), "gate": View("gu", np.s_[::2]), "up": View("gu", np.s_[1::2]),
        **{f"expert.{i}": View("e", i, (1, 0)) for i in range(3)},
    }  # fmt: skip
    assert fingerprint(stored, view=views) == fingerprint(canonical)
    # Any shards of what is stored give the same.
    for cut in (1, 2):
        tables = []
        for half in (slice(None, cut), slice(cut, None)):
            local = Region.full(experts.shape)[half]
            found = {}
            for name, view in views.items():
                if view.source == "e" and (part := view.of(experts[half], local)):
                    found[name] = fingerprint(part[0], region=part[1])
            tables.append(Fingerprints(found))
        assert all((tables[0] + tables[1])[f"expert.{i}"] == fingerprint(canonical[f"expert.{i}"]) for i in range(3))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (6, 2, 2)], ids=["heads, as in GPT-NeoX", "groups, as in Falcon"])
@pytest.mark.parametrize("transposed", [False, True])
def test_queries_keys_and_values_that_take_turns_are_found(sizes: tuple[int, ...], transposed: bool) -> None:
    groups, rng = 4, np.random.default_rng(5)
    canonical = {name: rng.random((groups * size, 5), np.float32) for name, size in zip("qkv", sizes, strict=True)}
    fused = np.concatenate([each.reshape(groups, -1, 5) for each in canonical.values()], 1).reshape(-1, 5)
    views: dict[str, list[View]] = {}
    starts = np.cumsum([0, *sizes]).tolist()
    for name, start, size in zip("qkv", starts, sizes, strict=False):
        rows = Region.full((groups * size, 5))
        for group in range(groups):
            first = group * starts[-1] + start
            part, region = slice(first, first + size), rows[group * size : (group + 1) * size]
            view = View("w", np.s_[:, part], (1, 0), region) if transposed else View("w", part, region=region)
            views.setdefault(name, []).append(view)
    found = fingerprint({"w": fused.T.copy() if transposed else fused}, view=views)
    assert found == fingerprint(canonical)
    with pytest.raises(StateError, match=r"parameter 'q'.* is covered twice"):
        fingerprint({"w": fused}, view={"q": [View("w", np.s_[:2], region=Region.full((4, 5))[:2])] * 2})
    with pytest.raises(StateError, match=r"parameter 'q'.*covered in part"):
        found.compare(fingerprint({"w": fused.T if transposed else fused}, view=views | {"q": views["q"][1:]}))


def test_a_view_of_another_shape_is_refused() -> None:
    wrong = View("w", np.s_[:2], region=Region.full((4, 5))[:3])
    with pytest.raises(ShapeError, match=re.escape("parameter 'q': a view of 'w' selects shape (2, 5), but is a")):
        fingerprint({"w": np.zeros((4, 5))}, view={"q": wrong})
    with pytest.raises(ArgumentValueError, match="parameter 'q' has an empty list of views"):
        fingerprint({"w": np.zeros((4, 5))}, view={"q": []})


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda w: fingerprint({3: w}), "parameters have names that are str, found 3"),
        (lambda w: fingerprint({"w": w}, view=[1]), r"views are a mapping from names to View, found \[1\]"),
        (lambda w: fingerprint({"w": w}, view={"q": "w"}), "'q': a View or a list of them is expected, found 'w'"),
        (lambda w: fingerprint({"w": w}, view={"q": [3]}), r"'q': a View or a list of them is expected, found \[3\]"),
        (lambda w: fingerprint({"w": w}).compare(3), "a table of fingerprints is compared with another, found 3"),
        (lambda w: Fingerprints.join([fingerprint({"w": w})]), "a mapping from ranks to tables"),
        (lambda w: Fingerprints.join({0: {"w": w}}), "rank 0: parameter 'w' has no fingerprint, found array"),
        (lambda w: numparam.identify(w, {"w": w}), "parameter 'w': a lazy tensor is expected, found array"),
    ],
)  # fmt: skip
def test_arguments_of_other_kinds_are_named(call: Any, words: str) -> None:
    with pytest.raises(ArgumentTypeError, match=words):
        call(np.zeros((4, 5), np.float32))


@pytest.mark.parametrize("axes", [(0,), (0, 0), (2, 0), (0, 1, 2)], ids=str)
def test_axes_that_are_no_order_of_those_there_are_are_refused(axes: tuple[int, ...]) -> None:
    with pytest.raises(RegionError, match="parameter 'q': a view of 'w' orders its 2 axes, found"):
        fingerprint({"w": np.zeros((4, 5))}, view={"q": View("w", ..., axes)})


def test_a_view_of_nothing_is_refused() -> None:
    with pytest.raises(numparam.errors.MissingNameError, match="the view 'q' is a part of 'qkv', which is not among"):
        fingerprint({"w": np.zeros(3, np.float32)}, view={"q": View("qkv")})


def test_files_have_the_fingerprints_of_their_values(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {"w": values((1500, 1501), np.dtype(np.float32)), "b": values((0,), np.dtype(np.float64))}
    save_file(arrays, tmp_path / "m.safetensors")
    found = fingerprint(tmp_path / "m.safetensors")
    assert found == fingerprint(arrays)
    view = {"w.T": View("w", ..., (1, 0))}
    assert fingerprint(str(tmp_path / "m.safetensors"), view=view)["w.T"] == fingerprint(arrays["w"].T)


def test_tables_are_kept_as_json(tmp_path: Path) -> None:
    region = Region.full((5, 4))[::2]
    table = fingerprint({"w": np.ones(3, np.float32), "é\n": np.array(2.0)}, "key")
    table = Fingerprints({**table, "part": fingerprint(np.ones((3, 4), np.float32), "key", region=region)})
    table.save(tmp_path / "table.json")
    assert Fingerprints.load(tmp_path / "table.json") == table
    text = table.to_json()
    for damage in (
        text[:-9],
        text.replace("fingerprints 1", "fingerprints 9"),
        "[]",
        "{}",
        text.replace("[3]", "[-3]"),
    ):
        (tmp_path / "damaged.json").write_text(damage, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"damaged\.json: "):
            Fingerprints.load(tmp_path / "damaged.json")
    with pytest.raises(ArgumentValueError, match="has a shape, a dtype and 32 hexadecimal digits"):
        Fingerprint.from_dict({"shape": [1], "dtype": "float32", "fingerprint": "12"})


def test_differences_are_named() -> None:
    rng = np.random.default_rng(1)
    sent = {name: rng.random((4, 4), np.float32) for name in ("gate", "up", "down", "gone", "cast", "flat")}
    arrived = sent | {"gate": sent["up"], "up": sent["gate"], "down": sent["down"].T, "new": np.zeros(1)}
    arrived |= {"cast": sent["cast"].astype(np.float16), "flat": sent["flat"].reshape(-1)}
    del arrived["gone"]
    assert list(map(str, fingerprint(sent).compare(fingerprint(arrived)))) == [
        "parameter 'gate': its values differ, and are the values of 'up'",
        "parameter 'up': its values differ, and are the values of 'gate'",
        "parameter 'down': its values differ",
        "parameter 'gone': it is missing",
        "parameter 'cast': float32 was expected, found float16",
        "parameter 'flat': shape (4, 4) was expected, found (16,)",
        "parameter 'new': it was not expected",
    ]
    assert fingerprint(sent).compare(fingerprint(sent)) == []


@pytest.mark.parametrize("wrong", [None, 3, np.array([None]), np.array(["text"])], ids=str)
def test_other_things_have_no_fingerprint(wrong: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"a fingerprint takes|no dtype"):
        fingerprint(wrong)


def test_the_page_gives_the_vectors_of_the_definition() -> None:
    page = (Path(__file__).parent.parent / "docs/fingerprint.md").read_text(encoding="utf-8")
    vectors = re.findall(r"^\| `(np\..*?)` \| `([0-9a-f]{32})` \|$", page, re.MULTILINE)
    assert len(vectors) >= 4
    for expression, digits in vectors:
        assert of_definition(eval(expression, {"np": np, "ml_dtypes": ml_dtypes})) == digits


# --------------------------------------------------------------------------- verification


class Net(numparam.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.a = numparam.Parameter(initializer(Normal(0.02), (700, 300), numparam.bfloat16))
        self.b = numparam.Parameter(initializer(Normal(0.02), (3, 5), np.dtype("float64")))
        self.c = numparam.Parameter(initializer("ones", ()))


def test_cells_are_verified_against_a_lazy_twin() -> None:
    numparam.set_seed(7)
    net = Net()
    assert numparam.verify(net, Net())
    assert net.a.has_init
    net.a[699, 299] = -net.a.asnumpy()[699, 299]
    net.c[...] = 2.0
    found = numparam.verify(net, Net())
    assert [(each.entry.name, each.index) for each in found.differences] == [("a", (699, 299)), ("c", ())]
    with pytest.raises(MismatchError, match=r"parameter 'a' differs first at index \(699, 299\)"):
        found.require()
    numparam.set_seed(8)
    assert [each.index for each in numparam.verify(net, Net()).differences] == [(0, 0), (0, 0), ()]


def test_arrays_are_verified_against_rules() -> None:
    rules = numparam.Rules.from_toml('[[rules]]\nglob = "*"\ninit = "Normal"\nsigma = 0.5\n')
    numparam.set_seed(3)
    arrays = {"w": numparam.Parameter(initializer(Normal(0.5), (40, 30)), name="w").asnumpy()}
    assert numparam.verify(arrays, rules)
    assert not numparam.verify(arrays, rules, seed=4)
    found = numparam.verify(arrays, {"v": numparam.Tensor([1.0])})
    assert found.unchecked == {"w": "nothing determines its values", "v": "it is missing"}
    found = numparam.verify({"v": np.zeros(2, np.float32)}, {"v": numparam.Tensor([1.0])})
    assert found.unchecked == {"v": "(1,) of float32 was expected, found (2,) of float32"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_short_words_count_as_long_ones_do(dtype: type[np.generic]) -> None:
    """At every offset in a block, and with the products that are largest."""
    rng, key = np.random.default_rng(3), DigestKey.from_secret()
    most = np.iinfo(dtype).max
    for size, base in itertools.product((15, 16, 17, 127, 129, 1025, 5000), (0, 1, 500, 1020)):
        for words in (
            rng.integers(0, most + 1, size),
            *(np.full(size, x) for x in (0, most // 2, most // 2 + 1, most)),
        ):
            span = Span(base, (1,))
            assert digest(words.astype(dtype), key, span) == digest(words.astype(np.uint32), key, span)
