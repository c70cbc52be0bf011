"""What a table, a cache or a client counts, as a table to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Counters(Counter[str]):
    """Count events by name.

    Examples
    --------
    >>> counters = Counters(hits=90, misses=10)
    >>> counters["misses"] += 1
    >>> print(counters.table("movies"))
    movies
      hits    90
      misses  11
    """

    def table(self, title: str) -> str:
        """Return the counts, one a line, in the order of their names."""
        return format_counts(title, dict(sorted(self.items())))


def format_counts(title: str, counts: Mapping[str, int]) -> str:
    """Return numbers and their names as lines of text."""
    wide = max((len(name) for name in counts), default=0)
    digits = max((len(f"{count:,}") for count in counts.values()), default=0)
    return "\n".join([title, *(f"  {name:<{wide}}  {count:>{digits},}" for name, count in counts.items())])
