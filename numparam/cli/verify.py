"""``numparam verify``: generate every value of a file, or of the files of an index, again and compare."""

import argparse
import time
from pathlib import Path

from numparam.checkpoint.opening import Checkpoint
from numparam.cli.arguments import Commands, add_any_cost, add_json
from numparam.errors import CheckpointError
from numparam.model.specification import open_model
from numparam.model.verification import recorded, verify

_SHOWN = 10
_DESCRIPTION = """\
Generate every value of a file that numparam init wrote again, from the seed and the rules in its metadata, and compare
the bits. For an index every file is verified, or all of them at once if the index has such metadata itself. The exit
status is 0 if all are equal, 1 if not, and 2 if a file cannot be read or followed. Recipes hold no values to compare:
it is checked that each can be followed.
"""


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("verify", help="compare a file with its own record", description=_DESCRIPTION)
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="what numparam init wrote, an index of such files, or a folder with one"
    )
    parser.add_argument(
        "--elsewhere",
        action="store_true",
        help="read the base and the log of a file of numparam replay where its record says, also in other folders",
    )
    add_any_cost(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from numparam.cli.console import print_json, print_line
    from numparam.progress import progress_bar
    from numparam.text import amount, size

    checkpoint = open_model(arguments.file)
    if recipes := len(checkpoint.recipes):
        valued = len(checkpoint.entries) - recipes
        if valued:
            raise CheckpointError(
                f"{arguments.file}: {amount(recipes, 'recipe')} can be followed, but {amount(valued, 'parameter')} "
                "with values cannot be verified: a file with recipes has no record of what its values should be"
            )
        if arguments.json:
            content = {"file": str(arguments.file), "parameters": recipes, "recipes": recipes}
            print_json({**content, "bytes": 0, "seeds": [], "differences": []})
            return 0
        print_line(
            f"{arguments.file}: {amount(recipes, 'recipe')} for {size(checkpoint.nbytes)}: each can be followed; "
            "there are no values to compare"
        )
        return 0
    if "numparam.replay" in checkpoint.metadata.get("numparam.texts", ""):
        return _replayed(checkpoint, arguments.json, arguments.elsewhere)
    checkpoints = recorded(checkpoint)
    nbytes = sum(checkpoint.nbytes for checkpoint in checkpoints)
    start = time.perf_counter()
    with progress_bar("verifying", nbytes) as progress:
        found = [(checkpoint, difference) for checkpoint in checkpoints for difference in verify(checkpoint, progress)]
    seconds = time.perf_counter() - start
    seeds = sorted({int(checkpoint.metadata["numparam.seed"]) for checkpoint in checkpoints})
    if arguments.json:
        differences = [
            {
                "file": str(checkpoint.path),
                "parameter": difference.entry.name,
                "index": difference.index,
                "full_index": difference.full_index,
                "found": str(difference.found),
                "expected": str(difference.expected),
                "message": str(difference),
            }
            for checkpoint, difference in found
        ]
        parameters = sum(len(checkpoint.entries) for checkpoint in checkpoints)
        content = {"file": str(arguments.file), "parameters": parameters, "bytes": nbytes}
        print_json({**content, "seeds": seeds, "differences": differences})
        return 1 if found else 0
    for checkpoint, difference in found[:_SHOWN]:
        print_line(f"{checkpoint.path}: {difference}" if len(checkpoints) > 1 else str(difference))
    count = amount(sum(len(checkpoint.entries) for checkpoint in checkpoints), "parameter")
    files = f" in {amount(len(checkpoints), 'file')}" if len(checkpoints) > 1 else ""
    if found:
        print_line(f"{arguments.file}: {len(found)} of {count}{files} differ")
        return 1
    print_line(
        f"{arguments.file}: {count}, {size(nbytes)}{files}: every value matches seed{'s' if seeds[1:] else ''} "
        f"{', '.join(map(str, seeds))} ({seconds:.2f} s)"
    )
    return 0


def _replayed(checkpoint: Checkpoint, as_json: bool, elsewhere: bool) -> int:
    """Compare a file that numparam replay wrote with its base and log."""
    from numparam.cli.console import print_json, print_line
    from numparam.fingerprints import verify as compared
    from numparam.perturb.replay import Replay, recorded
    from numparam.text import amount, size

    paths = recorded(checkpoint, elsewhere)
    if paths is None:
        raise CheckpointError(f"{checkpoint.path}: its record of a base and a log is damaged")
    log = Replay.open(paths[1])
    found = compared({name: checkpoint[name] for name in checkpoint.entries}, dict(log.parameters(paths[0])))
    wrong = [str(difference) for difference in found.differences]
    wrong += [f"parameter {name!r}: {why}" for name, why in found.unchecked.items()]
    if as_json:
        content = {"file": str(checkpoint.path), "parameters": len(found.checked), "bytes": checkpoint.nbytes}
        print_json({**content, "steps": len(log), "differences": [{"message": line} for line in wrong]})
        return 1 if wrong else 0
    for line in wrong[:_SHOWN]:
        print_line(line)
    count = amount(len(checkpoint.entries), "parameter")
    if wrong:
        print_line(f"{checkpoint.path}: {len(wrong)} of {count} differ")
        return 1
    steps = amount(len(log), "step")
    print_line(f"{checkpoint.path}: {count}, {size(checkpoint.nbytes)}: every value matches {steps} of {paths[1].name}")
    return 0
