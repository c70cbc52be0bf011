"""The orthogonal factor: what it is, and that its bits depend on nothing but the matrix."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

import numparam
from numparam.initializer import Orthogonal, initializer
from numparam.kernels.machine import pool
from numparam.kernels.orthogonal import orthogonalise

SHAPES = [(1, 1), (2, 1), (3, 2), (4, 4), (31, 31), (33, 33), (65, 64), (100, 37), (300, 200), (1000, 3)]
FROZEN = {
    "float64": "cbc63298af7d965fef0c7d0a78bf7b55",
    "float32": "75a370a41e5f1f73c9e83e2bf425e431",
    "bfloat16": "5cefd8790c62f104d27cf303d1be4260",
}


def draw(shape: tuple[int, int]) -> np.ndarray:
    return 100 * np.random.default_rng(7).normal(size=shape)


def factor(matrix: np.ndarray) -> np.ndarray:
    found = np.array(matrix, np.float64, order="C")
    orthogonalise(found)
    return found


def distance(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(matrix.T @ matrix - np.eye(matrix.shape[1])))


def frozen_hash(dtype: str) -> str:
    full = initializer(Orthogonal(1.5), (130, 301), getattr(numparam, dtype), seed=7)
    values = numparam.Parameter(full, name="w").asnumpy()
    return hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_factor_is_the_one_with_a_positive_diagonal(shape: tuple[int, int]) -> None:
    matrix = draw(shape)
    theirs, triangle = np.linalg.qr(matrix)
    assert np.allclose(factor(matrix), theirs * np.sign(np.diagonal(triangle)), atol=1e-12)


@pytest.mark.parametrize("shape", [(33, 33), (100, 37), (300, 200), (400, 400)])
def test_it_is_about_as_orthogonal_as_the_factor_of_lapack(shape: tuple[int, int]) -> None:
    matrix = draw(shape)
    # Of small matrices either may be the better one, by chance.
    assert distance(factor(matrix)) < (1.1 if min(shape) > 100 else 2) * distance(np.linalg.qr(matrix)[0])


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_the_factor_of_a_singular_matrix_is_orthonormal(rank: int) -> None:
    matrix = draw((70, rank)) @ draw((rank, 40))
    assert distance(factor(matrix)) < 1e-13


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_bits_do_not_depend_on_the_number_of_threads(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = draw((700, 500))
    monkeypatch.setattr(pool, "_num_threads", 1)
    alone = factor(matrix)
    monkeypatch.setattr(pool, "_num_threads", count)
    assert np.array_equal(factor(matrix), alone)


def test_a_slice_has_the_bits_of_the_full_matrix() -> None:
    lazy = initializer(Orthogonal(), (80, 3, 5), "float64")
    assert np.array_equal(lazy[5:60:3, 1].asnumpy(), lazy.asnumpy()[5:60:3, 1])


@pytest.mark.parametrize("dtype", FROZEN)
def test_values_are_the_frozen_ones(dtype: str) -> None:
    assert frozen_hash(dtype) == FROZEN[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("features, lanes", [("+sse2", 16), ("+avx2,+fma", 8)])
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compiles for x86 processors")
def test_every_processor_gives_the_frozen_values(lanes: int, features: str, tmp_path: Path) -> None:
    from numparam.kernels.machine.lanes import WIDTH
    from package_copy import copy_package, replace_once, run_python

    if lanes != WIDTH:
        file = copy_package(tmp_path) / "machine/lanes.py"
        replace_once(file, 'WIDTH = 16 if "+avx512f" in _FEATURES else 8', f"WIDTH = {lanes}")
    where = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    package = {} if lanes == WIDTH else {"package": tmp_path}
    assert run_python(__file__, **package, **where).split() == list(FROZEN.values())


if __name__ == "__main__":
    sys.exit(print(*map(frozen_hash, FROZEN)))
