"""``numparam completion``: the script that completes commands, options and files in a shell."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from numparam.errors import ArgumentValueError

_SHELLS = ("bash", "zsh", "fish", "tcsh")
_DESCRIPTION = """\
Print the script by which a shell completes commands, options and file names. For bash, put
eval "$(numparam completion bash)" into ~/.bashrc; for zsh, write the output to a file _numparam in a folder of $fpath;
for fish, to ~/.config/fish/completions/numparam.fish.
"""


def add_to(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Add the command to the parser whose commands it completes."""
    own = commands.add_parser("completion", help="print the completion script of a shell", description=_DESCRIPTION)
    own.add_argument("shell", choices=_SHELLS, help="the shell that reads the script")
    own.set_defaults(run=lambda arguments: _run(parser, commands, arguments.shell))


def _run(parser: argparse.ArgumentParser, commands: Any, shell: str) -> int:
    try:
        shtab = import_module("shtab")
    except ModuleNotFoundError:
        raise ArgumentValueError(
            "completion needs shtab, which is not installed: pip install 'numparam[completion]'"
        ) from None
    for command in commands.choices.values():
        command.description = command.description.partition(". ")[0]  # zsh and fish show it next to the name
        for action in command._actions:
            if action.type is Path or action.dest == "like":
                action.complete = shtab.FILE
    print(shtab.complete(parser, shell))
    return 0
