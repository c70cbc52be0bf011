"""``numparam verify``: make every value of a file again and compare."""

import argparse
import time
from pathlib import Path

from numparam.checkpoint.files import open_checkpoint
from numparam.cli.arguments import Commands
from numparam.verification import verify

_SHOWN = 10
_DESCRIPTION = """\
Make every value of a file that numparam init wrote again, from the seed and the rules in its metadata, and compare the
bits. The exit status is 0 if all are equal, 1 if not, and 2 if the file cannot be read or followed.
"""


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("verify", help="compare a file with its own record", description=_DESCRIPTION)
    parser.add_argument("file", type=Path, metavar="FILE", help="what numparam init wrote")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from numparam.cli.console import print_line, progress_bar
    from numparam.text import amount, size

    checkpoint = open_checkpoint(arguments.file)
    start = time.perf_counter()
    with progress_bar("verifying", checkpoint.nbytes) as progress:
        differences = verify(checkpoint, progress)
    seconds = time.perf_counter() - start
    for difference in differences[:_SHOWN]:
        print_line(str(difference))
    count = amount(len(checkpoint.entries), "parameter")
    if differences:
        print_line(f"{arguments.file}: {len(differences)} of {count} differ")
        return 1
    print_line(
        f"{arguments.file}: {count}, {size(checkpoint.nbytes)}: every value is that of seed "
        f"{checkpoint.metadata['numparam.seed']} ({seconds:.2f} s)"
    )
    return 0
