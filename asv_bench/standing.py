"""Print where numparam stands against its limits and its peers: ``python -m asv_bench.standing``.

It reads what the comparisons recorded when they last ran: `peers.py`, `peer_copies.py`, `peer_cells.py`,
`peer_modules.py`, and whatever else writes a record to ``asv_bench/latest``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

LATEST = Path(__file__).parent / "latest"
NOT_PEERS = {"numparam", "limit", "memset", "memcpy", "streaming fill", "float32", "one thread"}
UNITS = {"elements/s": (1e9, "G/s"), "bytes/s": (1e9, "GB/s")}


def cells(row: Mapping[str, Any], unit: str) -> Iterator[str]:
    """Yield what the table shows of one row."""
    speeds: Mapping[str, float] = row["speeds"]
    own = speeds["numparam"]
    scale, name = UNITS.get(unit, (1.0, unit))
    yield row["work"]
    yield str(row["threads"])
    yield f"{own / scale:.3g} {name}"
    yield f"{own / speeds['limit']:.0%}" if "limit" in speeds else ""
    peers = sorted(((speed, peer) for peer, speed in speeds.items() if peer not in NOT_PEERS), reverse=True)
    if peers:
        ratio = own / peers[0][0]
        yield f"[{'green' if ratio >= 1 else 'red'}]{ratio:.2f}×[/] {peers[0][1]}"
    else:
        yield ""
    yield ", ".join(
        f"{wanted:g}× {against}: {own / speeds[against]:.3g}×"
        for against, wanted in row.get("targets", {}).items()
        if against in speeds and own / speeds[against] < wanted
    )


def table(content: Mapping[str, Any]) -> Table:
    """Return the table of one record."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    found = Table(
        title=f"{content['script']}, {content['date']}, load {content['load']}",
        caption=f"{content['machine']}; {versions}",
        title_justify="left",
        caption_justify="left",
        box=None,
    )
    for heading in ("work", "threads", "numparam", "of limit", "the best peer", "missed targets"):
        found.add_column(heading, justify="right" if heading in ("threads", "numparam", "of limit") else "left")
    for row in content["rows"]:
        found.add_row(*cells(row, content["unit"]))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print every record; return 1 if there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=LATEST, metavar="FOLDER", help="by default asv_bench/latest")
    folder = parser.parse_args(arguments).records
    records = sorted(folder.glob("*.json"))
    if not records:
        print(f"{folder} has no records; run python asv_bench/peers.py first", file=sys.stderr)
        return 1
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    for path in records:
        console.print(table(json.loads(path.read_text(encoding="utf-8"))))
        console.print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
