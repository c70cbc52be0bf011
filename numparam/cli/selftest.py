"""``numparam selftest``: are the values of this machine right, and is the stream random."""

import argparse
from typing import Any

from numparam.cli.arguments import Commands, add_json

_DESCRIPTION = """\
Generate values on every device and compare them with known answers. With --random, test the randomness of the words as
parameters read them (across indices, names, seeds, shards, columns and tensors), the effect of each bit of seed and
name, and the distributions far into their tails. The exit status is 0 if all is well, and 1 if not.
"""


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("selftest", help="check the values on this machine", description=_DESCRIPTION)
    parser.add_argument("--random", action="store_true", help="test the randomness of the stream, which takes minutes")
    parser.add_argument("--seed", type=int, default=7, help="the seed of --random (default 7)")
    parser.add_argument(
        "--bits", type=int, default=36, metavar="LOG2", help="read 2**LOG2 bits, from 25 to 48 (default 36)"
    )
    parser.add_argument(
        "--dieharder", metavar="ORDER", help="run dieharder on the words in an order: indices, names, ..."
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from numparam.cli.console import print_json, print_line
    from numparam.randomness import dieharder, examine, known_answers

    def say(line: str) -> None:
        if not arguments.json:
            print_line(line)

    is_right, content = True, dict[str, Any]()
    if not arguments.random and not arguments.dieharder:
        answers = [*known_answers()]
        for device, what, right in answers:
            say(f"{device:8} {'right' if right else 'WRONG':6} {what}")
        is_right = all(right for *_, right in answers)
        content["answers"] = [{"device": device, "values": what, "right": right} for device, what, right in answers]
    if arguments.random:
        say(f"{'read':12} {'test':36} {'amount':>13} {'p':>11}")
        report = examine(
            arguments.seed,
            arguments.bits,
            lambda found: say(f"{found.group:12} {found.test:36} {found.amount:13} {found.p:11.3g} {found.verdict}"),
        )
        is_right = bool(report)
        weak = sum(result.verdict == "weak" for result in report.results)
        say(f"{len(report.results)} tests: {'none failed' if report else 'FAILED'}, {weak} weak")
        content["results"] = [{**result._asdict(), "verdict": result.verdict} for result in report.results]
    if arguments.dieharder:
        lines = []
        for line in dieharder(arguments.dieharder, arguments.seed):
            say(line)
            lines.append(line)
        is_right = is_right and not any("FAILED" in line for line in lines)
        content["dieharder"] = lines
    if arguments.json:
        print_json(content)
    return 0 if is_right else 1
