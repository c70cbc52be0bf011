"""``numparam replay``: rebuild a model from its base and the log of its steps."""

import argparse
import os
from pathlib import Path

from numparam.cli.arguments import Commands, add_json

_DESCRIPTION = """\
Apply the steps of a log, pairs of a seed and a coefficient, to the parameters that the run began with, and write the
result: the bits of the run. The fingerprints of the base are in the log, and are compared first. The output records
where base and log are, for numparam verify.
"""


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("replay", help="rebuild a model from a log of steps", description=_DESCRIPTION)
    parser.add_argument("base", type=Path, metavar="BASE", help="a checkpoint: the parameters before the first step")
    parser.add_argument("log", type=Path, metavar="LOG", help="what numparam.perturb.Replay wrote")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the file to write")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from numparam.checkpoint.saving import save_checkpoint
    from numparam.cli.console import print_json, print_line
    from numparam.perturb.replay import BASE, LOG, Replay
    from numparam.text import amount, size

    log = Replay.open(arguments.log)
    parameters = log.parameters(arguments.base)
    folder = arguments.output.absolute().parent
    record = {key: os.path.relpath(path, folder) for key, path in ((BASE, arguments.base), (LOG, arguments.log))}
    save_checkpoint(parameters, arguments.output, append_dict=record, progress=True)
    nbytes = sum(parameter.nbytes for parameter in parameters.values())
    if arguments.json:
        print_json({"file": str(arguments.output), "parameters": len(parameters), "bytes": nbytes, "steps": len(log)})
        return 0
    print_line(
        f"{arguments.output}: {amount(len(parameters), 'parameter')}, {size(nbytes)}, {amount(len(log), 'step')}"
    )
    return 0
