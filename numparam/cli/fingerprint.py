"""``numparam fingerprint`` and ``numparam compare``: check that the values of files are those that were sent."""

import argparse
from pathlib import Path

from numparam.checks import read_file
from numparam.cli.arguments import Commands, add_any_cost, add_json, add_model, model
from numparam.errors import ArgumentValueError, CheckpointError, NumparamError
from numparam.fingerprints import Fingerprints, fingerprint
from numparam.model.generation import Generation
from numparam.model.specification import located
from numparam.rules import Rules
from numparam.stream.seed import as_seed
from numparam.tensor import Tensor

_SHOWN, MAX_KEY_BYTES = 20, 1_000_000
_FINGERPRINT = """\
Print 128 bits for each parameter of a file, which change with every bit and every position, or write them to a JSON
file. The exit status is 0, or 2 if the file cannot be read.
"""
_COMPARE = """\
Compare the parameters of two files by name. Each is a safetensors file or index, with values or recipes, a MindSpore
.ckpt, or a JSON file that numparam fingerprint wrote. With --seed, one file is compared with the values that numparam
init would write for it. The exit status is 0 if all are equal, 1 if not, and 2 if a file cannot be read.
"""


def add_to(commands: Commands) -> None:
    """Add the commands to the parser."""
    parser = commands.add_parser("fingerprint", help="print 128 bits for each parameter", description=_FINGERPRINT)
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a safetensors file, an index, their folder, or a .ckpt"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="write a JSON file for compare, not a table")
    add_any_cost(parser)
    add_json(parser)
    _add_key(parser)
    parser.set_defaults(run=run)
    parser = commands.add_parser("compare", help="compare the parameters of two files", description=_COMPARE)
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="what is expected, unless --seed gives it, and what arrived"
    )
    parser.add_argument("--seed", type=int, help="expect the values of this seed, as numparam init writes them")
    parser.add_argument("--rules", type=Path, metavar="TOML", help="the rules of those values")
    add_model(parser, required=False)
    add_any_cost(parser)
    add_json(parser)
    _add_key(parser)
    parser.set_defaults(run=compare)


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key-file", type=Path, metavar="KEY", help="a file with the secret key; none by default")


def _key(arguments: argparse.Namespace) -> bytes | None:
    return None if arguments.key_file is None else read_file(arguments.key_file, MAX_KEY_BYTES)


def run(arguments: argparse.Namespace) -> int:
    """Run ``numparam fingerprint``."""
    from numparam.cli.console import print_line, print_table

    if arguments.output is not None and not _is_table(arguments.output):
        raise ArgumentValueError(f"--output is a .json file, which numparam compare reads, found {arguments.output}")
    found = _table(arguments.file, _key(arguments))
    if arguments.output is not None:
        found.save(arguments.output)
    if arguments.json:
        print(found.to_json(), end="")
        return 0
    if arguments.output is not None:
        print_line(f"{arguments.output}: {len(found)} fingerprints")
        return 0
    rows = [(name, str(each.shape), each.dtype, str(each)) for name, each in found.items()]
    print_table(("parameter", "shape", "dtype", "fingerprint"), rows)
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Run ``numparam compare``."""
    from numparam.cli.console import print_json, print_line
    from numparam.text import amount

    *names, arrived = arguments.files
    if len(names) != (arguments.seed is None):
        raise ArgumentValueError(f"two files are compared, or one with --seed, found {len(names) + 1}")
    key, seed = _key(arguments), arguments.seed
    if seed is None and any((arguments.like, arguments.rules, arguments.dtype)):
        raise ArgumentValueError("--like, --rules and --dtype need --seed, which is missing")
    sent = _table(names[0], key) if names else fingerprint(_demanded(arguments, arrived), key)
    try:
        differences = sent.compare(_table(arrived, key))
    except NumparamError as error:
        raise CheckpointError(f"{names[0] if names else f'seed {seed}'} and {arrived}: {error}") from None
    if arguments.json:
        listed = [{"parameter": name, "reason": reason} for name, reason in differences]
        files = {"sent": str(names[0]) if names else None, "seed": seed, "arrived": str(arrived)}
        print_json({**files, "parameters": len(sent), "differences": listed})
        return 1 if differences else 0
    for difference in differences[:_SHOWN]:
        print_line(str(difference))
    count = amount(len(sent), "parameter")
    if differences:
        print_line(f"{amount(len(differences), 'difference')} in {count}")
        return 1
    print_line(f"{count}: all are equal")
    return 0


def _demanded(arguments: argparse.Namespace, arrived: Path) -> dict[str, Tensor]:
    """Return the lazy parameters of the seed and the rules, by default for the names and shapes of a file."""
    arguments.like = arguments.like or str(arrived)
    rules = Rules.from_toml("") if arguments.rules is None else Rules.from_file(arguments.rules)
    generation = Generation(model(arguments).entries, as_seed(arguments.seed), rules)
    return {entry.name: Tensor._of(generation.recipe(entry)) for entry in generation.entries}


def _is_table(path: Path) -> bool:
    return path.suffix == ".json" and not path.name.endswith(".index.json")


def _table(path: Path, key: bytes | None) -> Fingerprints:
    found: Fingerprints = Fingerprints.load(path) if _is_table(path) else fingerprint(located(path), key)
    if not found:
        raise CheckpointError(f"{path}: there are 0 parameters to take fingerprints of")
    return found
