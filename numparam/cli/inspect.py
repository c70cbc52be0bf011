"""``numparam inspect``: list the parameters of a file."""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from numparam.checkpoint.opening import Checkpoint
from numparam.checkpoint.recipes import RECIPES
from numparam.cli.arguments import Commands, add_any_cost, add_filter, add_json, filtered
from numparam.model.specification import open_model
from numparam.model.statistics import Statistics, statistics

_BLOCKS = "▁▂▃▄▅▆▇█"
_LETTERS = "_.-=+*%#"  # for terminals without Unicode
_LONGEST = 100


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "inspect",
        help="list the parameters of a file",
        description="List the names, dtypes, shapes and bytes of a safetensors file or a *.safetensors.index.json, "
        "and the initializers of recipes. Layers that differ in numbers alone share a line, unless --all or --stats "
        "is given. Recipes hold no values: --stats generates them.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a safetensors file, its index, or a folder with one")
    parser.add_argument("--stats", action="store_true", help="also mean, std, min, max and a histogram of the values")
    parser.add_argument("--all", action="store_true", help="a line for each parameter")
    add_filter(parser)
    add_any_cost(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from numparam.cli.console import print_json, print_layers, print_line, print_table, supports_unicode
    from numparam.text import amount, size

    checkpoint = open_model(arguments.file)
    wanted = filtered(checkpoint.entries.values(), arguments.filter)
    checkpoint = replace(checkpoint, entries={entry.name: entry for entry in wanted})
    for stored in checkpoint.stored.values():
        stored.verify()
    if arguments.json:
        print_json(_as_json(checkpoint, arguments))
        return 0
    folded = not arguments.all and not arguments.stats
    columns = ["parameter", "dtype", "shape", "bytes each" if folded else "bytes"]
    recipes = checkpoint.recipes
    rows = [
        [entry.name, str(entry.dtype), str(entry.shape), "recipe" if entry.name in recipes else size(entry.nbytes)]
        for entry in checkpoint.entries.values()
    ]
    if recipes:
        columns.append("initializer")
        rows = [[*row, repr(recipes[row[0]].init) if row[0] in recipes else ""] for row in rows]
    numbers = ["mean", "std", "min", "max"]
    if arguments.stats:
        columns += [*numbers, "from min to max", "not finite"]
        ramp = _BLOCKS if supports_unicode() else _LETTERS
        rows = [row + _cells(found, ramp) for row, found in zip(rows, _all_statistics(checkpoint), strict=True)]
        if not any(row[-1] for row in rows):
            columns, rows = columns[:-1], [row[:-1] for row in rows]
    (print_layers if folded else print_table)(columns, rows, right=[columns[3], *numbers])
    for key, text in checkpoint.metadata.items():
        if key == RECIPES:
            continue  # they are in the table
        print_line(f"{key}: {text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}")
    values = sum(entry.size for entry in checkpoint.entries.values())
    files = f" in {amount(len(checkpoint.files), 'file')}" if len(checkpoint.files) > 1 else ""
    generated = len(recipes.keys() & checkpoint.entries.keys())
    count = amount(len(rows), "parameter") + (f" ({generated} from recipes)" if generated else "")
    print_line(f"{arguments.file}: {count}, {amount(values, 'value')}, {size(checkpoint.nbytes)}{files}")
    return 0


def _all_statistics(checkpoint: Checkpoint) -> list[Statistics]:
    from numparam.progress import progress_bar

    with progress_bar("reading", checkpoint.nbytes) as progress:
        found = []
        for entry in checkpoint.entries.values():
            found.append(statistics(checkpoint, entry.name))
            progress(entry.nbytes)
    return found


def _as_json(checkpoint: Checkpoint, arguments: argparse.Namespace) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": entry.name, "dtype": entry.dtype.name, "shape": entry.shape, "bytes": entry.nbytes}
        for entry in checkpoint.entries.values()
    ]
    for item in parameters:
        if item["name"] in checkpoint.recipes:
            item["initializer"] = repr(checkpoint.recipes[item["name"]].init)
    if arguments.stats:
        for item, found in zip(parameters, _all_statistics(checkpoint), strict=True):
            numbers = {"mean": found.mean, "std": found.std, "min": found.low, "max": found.high}
            item |= {name: number if math.isfinite(number) else None for name, number in numbers.items()}
            item |= {"histogram": found.bins.tolist(), "not_finite": found.size - found.finite}
    metadata = {key: text for key, text in checkpoint.metadata.items() if key != RECIPES}
    return {"file": str(arguments.file), "parameters": parameters, "metadata": metadata, "bytes": checkpoint.nbytes}


def _cells(found: Statistics, ramp: str) -> list[str]:
    if not found.finite:
        return [""] * 5 + [str(found.size or "")]
    highest = int(found.bins.max())
    # A bin with any value at all is distinct from an empty one, which stays blank.
    histogram = "".join(
        ramp[(int(count) * len(ramp) - 1) // highest if count < highest else -1] if count else " "
        for count in found.bins
    )
    numbers = [f"{number:.4g}" for number in (found.mean, found.std, found.low, found.high)]
    return [*numbers, histogram, str(found.size - found.finite or "")]
