"""Gradients are shared out to buckets by the rules of the peer."""

import numpy as np
import pytest

import numparam
from numparam import Parameter
from numparam.parallel import Bucket, DistributedGradReducer, Fusion, Gradient, plan_buckets

MB = 1 << 20


@pytest.fixture(autouse=True)
def _fresh_context() -> None:
    numparam.reset_auto_parallel_context()
    yield
    numparam.reset_auto_parallel_context()


def places(buckets: list[Bucket]) -> list[tuple[int, ...]]:
    return [bucket.places for bucket in buckets]


def test_equal_numbers_fuse_and_0_never_does() -> None:
    gradients = [Gradient(8, comm_fusion=number) for number in (1, 0, 2, 1, 0, 2, 1)]
    assert plan_buckets(gradients) == [
        Bucket(1, (0, 3, 6)),
        Bucket(0, (1,)),
        Bucket(2, (2, 5)),
        Bucket(0, (4,)),
    ]


def test_0_never_fuses_even_if_all_have_it_or_indices_split() -> None:
    for fusion in (Fusion(), Fusion(None), Fusion(None, [1])):
        assert plan_buckets([Gradient(8, comm_fusion=0)] * 3, fusion) == [Bucket(0, (place,)) for place in range(3)]


def test_layerwise_parallel_gradients_stay_at_home() -> None:
    gradients = [Gradient(8), Gradient(8, layerwise_parallel=True), Gradient(8)]
    assert places(plan_buckets(gradients)) == [(0, 2)]
    assert plan_buckets([Gradient(8, layerwise_parallel=True)]) == []
    assert plan_buckets([]) == []


def test_a_bucket_closes_before_a_gradient_that_does_not_fit() -> None:
    gradients = [Gradient(size * MB) for size in (32, 32, 1, 70, 1, 63, 1)]
    assert places(plan_buckets(gradients)) == [(0, 1), (2,), (3,), (4, 5), (6,)]
    assert places(plan_buckets(gradients, Fusion(33 * MB))) == [(0,), (1, 2), (3,), (4,), (5,), (6,)]
    assert places(plan_buckets(gradients, Fusion(None))) == [tuple(range(7))]
    assert places(plan_buckets(gradients, Fusion(0))) == [(place,) for place in range(7)]


def test_thresholds_count_for_each_number_and_dtype() -> None:
    gradients = [
        Gradient(40 * MB, comm_fusion=1),
        Gradient(40 * MB, comm_fusion=2),
        Gradient(20 * MB, comm_fusion=1),
        Gradient(20 * MB, "float16", comm_fusion=1),
        Gradient(20 * MB, comm_fusion=2),
        Gradient(20 * MB, "float16", comm_fusion=1),
    ]
    assert places(plan_buckets(gradients)) == [(0, 2), (1, 4), (3, 5)]


# The element at an index belongs to the bucket before the split.
@pytest.mark.parametrize(
    "count, indices, numbers",
    [
        (5, [0], [1024, 1025, 1025, 1025, 1025]),
        (5, [2], [1024, 1024, 1024, 1025, 1025]),
        (5, [0, 1], [1024, 1025, 1026, 1026, 1026]),
        (5, [1, 3], [1024, 1024, 1025, 1025, 1026]),
        (5, [4], [1024] * 5),
        (5, [9, 10], [1024] * 5),
        (1, [0], [1024]),
    ],
)
def test_indices_split_after_their_element(count: int, indices: list[int], numbers: list[int]) -> None:
    buckets = plan_buckets([Gradient(100 * MB)] * count, Fusion(None, indices))
    assert [bucket.number for bucket in buckets for _ in bucket.places] == numbers
    assert [place for bucket in buckets for place in bucket.places] == list(range(count))
    assert len(buckets) == len(set(numbers))


def test_indices_count_gradients_that_stay_at_home() -> None:
    gradients = [Gradient(8, layerwise_parallel=True), Gradient(8), Gradient(8)]
    assert plan_buckets(gradients, Fusion(None, [1])) == [Bucket(1024, (1,)), Bucket(1025, (2,))]


def test_indices_are_for_parameters_of_one_number() -> None:
    gradients = [Gradient(8, comm_fusion=number) for number in (1, 1, 2)]
    assert plan_buckets(gradients, Fusion(None, [0])) == [Bucket(1, (0, 1)), Bucket(2, (2,))]


@pytest.mark.parametrize(
    "options, fusion",
    [
        ({}, Fusion(64 * MB)),
        ({"comm_fusion": {"allreduce": {"mode": "auto", "config": None}}}, Fusion(64 * MB)),
        ({"comm_fusion": {"allreduce": {"mode": "size", "config": 8}}}, Fusion(8 * MB)),
        ({"comm_fusion": {"allreduce": {"mode": "index", "config": [3, 5]}}}, Fusion(None, (3, 5))),
        ({"comm_fusion": {"openstate": False}}, Fusion(0)),
        ({"all_reduce_fusion_config": [1, 2]}, Fusion(None, (1, 2))),
    ],
)
def test_context_says_how_to_fuse(options: dict, fusion: Fusion) -> None:
    numparam.set_auto_parallel_context(**options)
    assert Fusion.from_context() == fusion


def test_reducer_plans_for_its_parameters() -> None:
    parameters = [Parameter(np.zeros(4, np.float32), name=name) for name in "abc"]
    parameters[1].comm_fusion = 3
    assert DistributedGradReducer(parameters).buckets() == [Bucket(1, (0, 2)), Bucket(3, (1,))]
    narrow = [np.zeros(4, np.float32), np.zeros(4, np.float16), np.zeros(4, np.float16)]
    assert places(DistributedGradReducer(parameters).buckets(narrow)) == [(0,), (1,), (2,)]
