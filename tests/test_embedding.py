"""Tables of rows by key: a row that nobody changed is what the stream has there, whatever happened before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
from interpreted_device import interpreted, needs_compiler
from numparam import Embedding, EmbeddingCache, EmbeddingLookup, Parameter, SequentialCell
from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.initializer import HeNormal, Identity, Normal, Orthogonal, Uniform, initializer
from numparam.kernels import fill
from numparam.kernels.keys import Index, Recent, distinct
from numparam.optim import FTRL, SGD, Adagrad, Adam, AdamW, Lamb, Momentum, RowwiseAdagrad

Array = np.ndarray[Any, Any]

KEYS = 1000
OPTIMIZERS: dict[str, Callable[[Any], Any] | None] = {
    "none": None,
    "SGD": partial(SGD, learning_rate=0.1),
    "Momentum": partial(Momentum, learning_rate=0.1, momentum=0.9),
    "Adam": partial(Adam, learning_rate=0.1),
    "AdamW": partial(AdamW, learning_rate=0.1),
    "Adagrad": partial(Adagrad, learning_rate=0.1),
    "RowwiseAdagrad": partial(RowwiseAdagrad, learning_rate=0.1),
    "FTRL": partial(FTRL, learning_rate=0.1),
}


def parameter(dim: int = 8, init: Any = "normal", dtype: str = "float32", rows: int = KEYS) -> Array:
    """Return the values of a parameter in full."""
    return Parameter(initializer(init, (rows, dim), dtype, seed=7), name="items").asnumpy()


def table(keys: int | None = KEYS, dim: int = 8, **options: Any) -> Embedding:
    return Embedding(keys, dim, **{"name": "items", "seed": 7, "init": Normal(), **options})


def batch(seed: int, size: int = 60, dim: int = 8) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, KEYS, size), rng.normal(size=(size, dim)).astype(np.float32)


def same(first: Any, second: Any) -> bool:
    """Return whether two tables hold the same rows, to the bit."""
    return all((a == b).all() and a.shape == b.shape for a, b in zip(first.export(), second.export(), strict=True))


# --------------------------------------------------------------------------- rows that nobody changed


@pytest.mark.parametrize("dim", [1, 3, 8, 64, 65, 130])
@pytest.mark.parametrize("keys", [KEYS, None])
def test_unseen_row_is_the_row_of_the_parameter(keys: int | None, dim: int) -> None:
    ids = np.array([[3, 999], [0, 3]])
    for init in (Normal(), Uniform(1.0), 3):
        assert (table(keys, dim, init=init).find(ids) == parameter(dim, init)[ids]).all()


@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", pytest.param("float16", marks=pytest.mark.slow), pytest.param("float64", marks=pytest.mark.slow)],
)
def test_rows_of_other_dtypes_are_the_rows_of_the_parameter(dtype: str) -> None:
    ids = np.array([3, 999, 0, 3])
    trained, gradients = table(None, dtype=dtype), np.ones((4, 8), dtype if dtype == "float64" else "float32")
    assert (trained.find(ids) == parameter(dtype=dtype)[ids]).all()
    trained.accumulate(ids, gradients)
    assert (
        trained.find(999) == (parameter(dtype=dtype)[999].astype(gradients.dtype) + 1).astype(trained.schema.dtype)
    ).all()


def test_initializer_that_reads_the_shape_gives_the_rows_of_a_bounded_table() -> None:
    assert (table(init=HeNormal()).find([5, 7]) == parameter(init=HeNormal())[[5, 7]]).all()
    assert (table(init=Identity()).find([5, 7]) == parameter(init=Identity())[[5, 7]]).all()


@pytest.mark.parametrize("key", [-1, -(2**63), 2**63 - 1, 2**62 + 1, (2**64 - 1) // 3 - 2**63])
def test_row_of_any_key_has_the_words_at_its_place_of_128_bits(key: int) -> None:
    for dim in (6, 64):
        out = np.empty((1, dim), np.uint32)
        fill.bits(out, fill.Key(9, 2**64 - 5, 0), fill.Rows(np.array([key])))
        first = key % 2**64 * dim
        counters = [(first + place) // 4 + ((2**64 - 5) << 64) for place in range(dim)]
        words = [reference.philox(9, (counter >> 64) % 2**64, counter % 2**64) for counter in counters]
        assert out[0].tolist() == [word[(first + place) % 4] for place, word in enumerate(words)]


def test_rows_do_not_depend_on_who_came_first() -> None:
    first, second = table(None), table(None)
    keys = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 500)
    for part in np.split(keys, 5):
        first.find_or_insert(part)
    for key in keys[::-1]:
        second.find_or_insert(key)
    assert same(first, second)
    assert len(first) == 500
    first.erase(keys)
    assert (first.find(keys) == second.find(keys)).all()


def test_serving_answers_unseen_keys_as_it_is_asked_to() -> None:
    for unseen, value in (("zeros", 0.0), (0.5, 0.5)):
        served = table(unseen=unseen)
        served.assign(3, np.ones(8, np.float32))
        assert served.find([3, 4]).tolist() == [[1.0] * 8, [value] * 8]
        assert len(served) == 1


# --------------------------------------------------------------------------- training


@pytest.mark.parametrize("keys", [KEYS, None])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("Momentum", "AdamW"))) for name in OPTIMIZERS]
)
def test_rows_are_trained_as_the_full_parameter(name: str, keys: int | None) -> None:
    make = OPTIMIZERS[name]
    trained, full = table(keys, optimizer=make), Parameter(parameter(), name="items")
    optimizer = make([full]) if make else None
    for step in range(3):
        ids, gradients = batch(step)
        trained.update(ids, gradients)
        dense = np.zeros((KEYS, 8), np.float32)
        np.add.at(dense, ids, gradients)
        if name in ("none", "SGD", "Adagrad", "RowwiseAdagrad"):  # the others move rows without a gradient too
            optimizer([dense]) if optimizer else full.set_data(full.asnumpy() + dense)
            seen = np.unique(ids)
            assert (trained.find(seen) == full.asnumpy()[seen]).all()
    assert trained.step == 3


def test_the_split_of_a_batch_among_calls_of_sums_changes_no_bit() -> None:
    ids, gradients = np.array([4, 5, 4, 4]), batch(1, 4)[1]
    summed = table()
    summed.accumulate(ids, gradients)
    value = parameter()
    assert (summed.find(4) == value[4] + ((gradients[0] + gradients[2]) + gradients[3])).all()
    assert (summed.find(5) == value[5] + gradients[1]).all()


def test_states_live_and_die_with_the_row() -> None:
    one, two = (table(optimizer=OPTIMIZERS["Adagrad"]) for _ in range(2))
    gradient = np.ones((1, 8), np.float32)
    one.update([3], gradient)
    one.erase([3])
    assert (one.find(3) == parameter()[3]).all()
    one.update([3], gradient)
    two.update([3], gradient)
    assert (one.find(3) == two.find(3)).all()


def test_assignment_keeps_the_last_of_repeated_ids_and_the_states() -> None:
    changed = table(optimizer=OPTIMIZERS["Adagrad"])
    changed.update([3], np.ones((1, 8), np.float32))
    changed.assign([3, 4, 3], np.arange(24, dtype=np.float32).reshape(3, 8))
    assert changed.find([3, 4])[:, 0].tolist() == [16.0, 8.0]
    assert changed.columns(np.array([3, 4]))[1][:, 0].tolist() == pytest.approx([1.1, 0.1])


def test_export_since_a_step_holds_what_changed_after_it() -> None:
    changed = table()
    changed.update([1, 2], np.ones((2, 8), np.float32))
    changed.update([2, 3], np.ones((2, 8), np.float32))
    changed.assign([9], np.ones((1, 8), np.float32))
    changed.find_or_insert([1, 2])
    assert changed.export(since=1).keys.tolist() == [2, 3, 9]
    assert changed.export(since=2).keys.tolist() == [9]
    assert changed.export().steps.tolist() == [1, 2, 2, 3]


# --------------------------------------------------------------------------- scores, limits, admission


def test_eviction_follows_the_score_and_then_the_key() -> None:
    ones = np.ones((3, 8), np.float32)
    for score, order in {"lru": [2, 5, 9], "lfu": [5, 2, 9], "step": [2, 9, 5], "none": [2, 5, 9]}.items():
        ranked = table(score=score)
        ranked.update([2, 2, 2], ones)
        ranked.update([5, 9], ones[:2])
        ranked.find_or_insert([9])
        if score == "step":
            ranked.update([5], ones[:1])
        if score == "lfu":
            ranked.find_or_insert([9])
        assert ranked.evict(2).tolist() == order[:2], score
        assert ranked.export().keys.tolist() == order[2:]
    ranked = table(score="custom")
    ranked.assign([4, 6, 8], ones, scores=[7, 3, 7])
    assert ranked.evict(below=7).tolist() == [6]
    assert ranked.evict(1).tolist() == [4]


def test_scores_counts_and_steps_that_do_not_suit_are_named() -> None:
    ranked, ones = table(score="custom"), np.ones((2, 8), np.float32)
    with pytest.raises(ArgumentTypeError, match="table 'items': expected 2 scores of int64, found float64"):
        ranked.assign([1, 2], ones, scores=[0.5, 1.0])
    with pytest.raises(ArgumentValueError, match="table 'items': scores are for tables of score='custom', found 'lru'"):
        table().update([1, 2], ones, scores=[1, 2])
    with pytest.raises(ArgumentValueError, match="count is at least 0, found -1"):
        ranked.evict(-1)
    with pytest.raises(ArgumentValueError, match="give the count of rows to evict, or the score below"):
        ranked.evict()
    with pytest.raises(ArgumentTypeError, match="since is an int"):
        ranked.export(since="start")


def test_table_over_its_limit_evicts_the_least_used() -> None:
    limited = table(None, max_rows=32, score="lru")
    for step in range(20):
        ids, gradients = batch(step, 6)
        limited.update(ids, gradients)
        assert len(limited) <= 32
        assert limited.find(ids).shape == (6, 8)
    assert limited.counters["evicted"] > 0
    gone = limited.evict(3)
    assert (limited.find(gone) == parameter()[gone]).all()


def test_key_takes_a_row_when_it_was_asked_for_often_enough() -> None:
    admitting = table(admit=3, optimizer=OPTIMIZERS["SGD"])
    ones = np.ones((2, 8), np.float32)
    admitting.update([3, 4], ones)
    admitting.find_or_insert([3])
    assert len(admitting) == 0
    assert (admitting.find([3, 4]) == parameter()[[3, 4]]).all()
    admitting.update([3, 4], ones)
    assert admitting.export().keys.tolist() == [3]
    assert (admitting.find(3) == parameter()[3] - np.float32(0.1)).all()


# --------------------------------------------------------------------------- the cache and the layer


@pytest.mark.parametrize("name", ["none", "SGD", "Adam", "FTRL"])
def test_cache_gives_the_bits_of_the_table(name: str) -> None:
    plain, backed = (table(None, optimizer=OPTIMIZERS[name]) for _ in range(2))
    cache = EmbeddingCache(backed, 80)
    for step in range(12):
        ids, gradients = batch(step)
        assert (cache.lookup(ids) == plain.find(ids)).all()
        cache.prefetch(batch(step + 1)[0])
        cache.update(ids, gradients)
        plain.update(ids, gradients)
    cache.close()
    assert cache.counters["evicted"] > 0
    assert cache.counters["prefetched"] > 0
    keys = plain.export().keys
    assert (backed.export().keys == keys).all()
    assert all((a == b).all() for a, b in zip(backed.columns(keys)[:-2], plain.columns(keys)[:-2], strict=True))


def test_cache_refuses_more_ids_than_it_has_rows() -> None:
    with pytest.raises(ArgumentValueError, match="cache of 4 rows cannot hold the 5 ids of a call"):
        EmbeddingCache(table(), 4).lookup(np.arange(5))


@pytest.mark.parametrize("mark", [pytest.param(None, marks=needs_compiler)])
def test_cache_on_a_device_gives_the_bits_of_the_table(mark: None) -> None:  # noqa: ARG001
    with interpreted():
        plain, backed = (table(None, optimizer=OPTIMIZERS["Adagrad"]) for _ in range(2))
        cache = EmbeddingCache(backed, 8, "cuda:0")
        for step in range(4):
            ids, gradients = batch(step, 6)
            found = cache.lookup(ids)
            assert found.device == "cuda:0"
            assert (found.asnumpy() == plain.find(ids)).all()
            cache.update(ids, gradients)
            plain.update(ids, gradients)
        cache.flush()
        keys = plain.export().keys
        assert (backed.find(keys) == plain.find(keys)).all()


def test_layer_takes_the_name_that_its_cell_gives() -> None:
    layer = EmbeddingLookup(KEYS, 8, Normal(), vocab_cache_size=16, optimizer=OPTIMIZERS["SGD"])
    dense = EmbeddingLookup(KEYS, 8, Normal(), sparse=False)
    net = SequentialCell(layer, dense)
    values = layer.embedding_table[1:3].asnumpy()
    assert layer.table.name == "0.embedding_table"
    assert (layer([[1], [2]])[:, 0] == values).all()
    assert (net[1]([1, 2]).asnumpy() == dense.embedding_table[[1, 2]].asnumpy()).all()
    flags = layer.embedding_table
    assert (flags.cache_enable, flags.cache_shape, flags.key >= 0, flags.has_init) == (True, [16, 8], True, True)
    layer.update([1], np.ones((1, 8), np.float32))
    layer.flush()
    assert layer.table.export().keys.tolist() == [1]


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "act, words",
    [
        (lambda t: t.find([0.5]), "ids must be integers, found float64"),
        (lambda t: t.find([3, KEYS]), f"ids must be from 0 to {KEYS - 1}, found {KEYS}"),
        (lambda t: t.find(-1), f"ids must be from 0 to {KEYS - 1}, found -1"),
        (lambda t: t.update([1, 2], np.ones((2, 7), np.float32)), r"of shape \(2, 8\), found \(2, 7\)"),
        (lambda t: t.update([1], np.ones((1, 8))), "gradients of float32, float16 or bfloat16, found float64"),
        (lambda t: t.assign([1], np.ones((1, 8), np.int64)), "expected rows of float32, .* found int64"),
        (
            lambda t: t.assign([1], np.ones((1, 8), np.float32), scores=[1, 2]),
            "scores are for tables of score='custom', found 'lru'",
        ),
        (lambda t: t.evict(), "give the count of rows to evict, or the score below"),
    ],
)
def test_wrong_input_is_named_and_changes_nothing(act: Callable[[Embedding], Any], words: str) -> None:
    given = table()
    given.update([1], np.ones((1, 8), np.float32))
    before = given.export()
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=f"'items'.*{words}|{words}"):
        act(given)
    assert all((a == b).all() for a, b in zip(before, given.export(), strict=True))
    assert given.step == 1


@pytest.mark.parametrize(
    "options, words",
    [
        ({"init": Orthogonal()}, "cannot generate one row without the others"),
        ({"vocab_size": None, "init": HeNormal()}, "without the number of rows"),
        ({"optimizer": lambda rows: Lamb(rows, 0.1)}, "Lamb looks at more than one row"),
        ({"optimizer": lambda rows: SGD(rows, clip_norm=1.0)}, "without clip_norm"),
        ({"optimizer": lambda rows: rows}, "must return an optimizer, found list"),
        ({"dtype": "int32"}, "floats of 16 bits or more, found int32"),
        ({"score": "newest"}, "score is one of lru, lfu, step, custom, none; found 'newest'"),
        ({"unseen": "ones"}, "unseen is 'stream', 'zeros' or a number, found 'ones'"),
        ({"vocab_size": 0}, "vocab_size is from 1 to"),
        ({"name": ""}, "the name of a table is a str that is not empty"),
    ],
)
def test_table_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=words):
        Embedding(**{"vocab_size": KEYS, "dim": 8, "name": "items", **options})


def test_closed_table_says_so(tmp_path: Path) -> None:
    with table(path=tmp_path) as closed:
        pass
    with pytest.raises(StateError, match="table 'items' is closed; open it again"):
        closed.find(1)


# --------------------------------------------------------------------------- indices


def test_index_agrees_with_a_dict() -> None:
    index, model, rng, following = Index(), dict[int, int](), np.random.default_rng(0), 0
    for turn in range(60):
        keys = rng.integers(-300, 300, 150)
        if turn % 3 == 2:
            assert index.remove(keys).tolist() == [model.pop(key, -1) for key in keys.tolist()]
            continue
        numbers, fresh = index.insert(keys, np.arange(following, following + 150))
        assert len({*keys[fresh].tolist()} & {*model}) == 0
        model |= {key: following + place for place, key in enumerate(keys[fresh].tolist())}
        following += fresh.size
        assert numbers.tolist() == [model[key] for key in keys.tolist()]
        assert len(index) == len(model)


def test_cache_directory_drops_the_least_recent() -> None:
    recent = Recent(50)
    order: dict[int, None] = {}
    rng = np.random.default_rng(0)
    for _ in range(100):
        keys = rng.integers(0, 120, 40)
        rows, _, left = recent.use(keys)
        assert (recent.keys[rows] == keys).all()
        for key in [key for key in dict.fromkeys(keys.tolist()) if key in order]:
            order[key] = order.pop(key)
        for key in keys.tolist():
            order.setdefault(key)
        gone = [order.pop(key) or key for key in [*order][: max(0, len(order) - 50)]]
        assert left[:, 0].tolist() == gone
        assert (recent.find(np.array([*order])) >= 0).all()


def test_distinct_keys_have_the_numbers_of_their_rows_after_any_calls() -> None:
    index = Index()
    keys = np.array([7, -(2**63), 2**63 - 1, 0])
    index.insert(keys, np.array([0, 5, 2**31 - 1, 3]))
    for base in (1, 2**31 - 6):  # the marks of calls begin anew before they are too large
        index._base = base
        for given, first in ((keys, [0, 1, 2, 3]), (keys[[3, 1, 3, 0, 1]], [0, 1, 3])):
            found = index.distinct(given)
            assert [part.tolist() for part in found[:2]] == [part.tolist() for part in distinct(given)]
            assert found[0].tolist() == first
            assert found[2].tolist() == index.find(given[first]).tolist()
        assert index.distinct(np.array([7, 9, 9, 7]))[2].tolist() == [0, -1]  # one is not there
    assert sorted(index.items()[1].tolist()) == [0, 3, 5, 2**31 - 1]
    assert index.remove(keys[:2]).tolist() == [0, 5]
