"""The benchmarks take enough samples: asv's own test tells 20 % from noise, and finds nothing in noise alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).parent.parent / "asv_bench"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Warm", "Fresh"])
def test_the_samples_of_a_benchmark_tell_twenty_percent_from_noise(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = pytest.importorskip("asv.commands.compare", reason="pip install --group bench brings asv")
    from asv_runner.statistics import compute_stats

    monkeypatch.syspath_prepend(str(BENCH))
    from benchmarks import common

    benchmark: Any = getattr(common, kind)
    count = benchmark.rounds * benchmark.repeat[0]
    random = np.random.default_rng(1)

    def measured(seconds: float) -> tuple[float, tuple[Any, list[float]]]:
        """Return noise as machines have it: most samples within 3 %, one in twenty a third longer."""
        noise = np.abs(random.normal(0, 0.03, count)) + np.where(random.random(count) < 0.05, 0.33, 0)
        samples = list(seconds * (1 + noise))
        result, stats = compute_stats(samples, 1)
        return result, (stats, samples)

    def better(fast: float, slow: float) -> bool:
        (a, of_a), (b, of_b) = measured(fast), measured(slow)
        return bool(compare._is_result_better(a, b, (of_a[0], of_a[1]), (of_b[0], of_b[1]), 1.1))

    assert not any(better(1.0, 1.0) for _ in range(20))
    assert sum(better(1.0, 1.2) for _ in range(20)) >= 19
