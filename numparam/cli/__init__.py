"""The command line: ``numparam init``, ``inspect``, ``verify``, ``plan``, ``fingerprint``, ``compare``, ...

Every command ends with status 0 when all is well, 1 when ``verify``, ``compare`` or
``selftest`` finds a difference, 2 when something
cannot be done (one sentence on the standard error explains it), and 128 plus the number of the signal that stopped it.
A closed standard stream is treated as one without a reader; one that cannot be written, such as a full disk, is a
status of 2.
"""

import argparse
import io
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from numparam.checkpoint.limits import any_cost
from numparam.cli import completion, fingerprint, init, inspect, plan, replay, selftest, verify
from numparam.cli.streams import drop, open_closed, print_error
from numparam.errors import NumparamError

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows lacks the second


class Parser(argparse.ArgumentParser):
    """Report a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with status 2."""
        print_error(f"{self.prog}: {message}; see {self.prog} --help")
        self.exit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:  # argparse's own ignores a full disk
            print(message, end="", file=file or sys.stderr)


class Version(argparse.Action):
    """Print the version and leave; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print and leave."""
        from importlib.metadata import version

        print(f"numparam {version('numparam')}")
        parser.exit()


class Stopped(BaseException):
    """Report a signal to terminate, so that unfinished files are removed first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with these arguments, by default ``sys.argv[1:]``, and return the exit status."""
    open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may hold letters that the terminal lacks
    parser = Parser(prog="numparam", description="Initial values of model parameters: a function of seed, name, index.")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and leave")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (init, inspect, verify, plan, fingerprint, replay, selftest):
        command.add_to(commands)
    completion.add_to(commands, parser)
    try:
        with _stopping_orderly():
            try:
                arguments = parser.parse_args(argv)
            except SystemExit:
                sys.stdout.flush()
                raise
            with any_cost(getattr(arguments, "any_cost", False)):
                status = arguments.run(arguments)
            sys.stdout.flush()
            return int(status)
    except NumparamError as error:
        return _fail(str(error))
    except BrokenPipeError:
        drop(sys.stdout)  # the reader, such as `head`, has seen enough
        return 141  # 128 + SIGPIPE, as for any other program
    except OSError as error:
        if error.filename:
            return _fail(f"{error.filename}: {error.strerror}")
        drop(sys.stdout)
        return _fail(f"cannot write the standard output: {error.strerror}")
    except MemoryError:
        return _fail("not enough memory")
    except KeyboardInterrupt:
        return _fail("stopped by SIGINT", 128 + signal.SIGINT)
    except Stopped as stop:
        return _fail(f"stopped by {signal.Signals(stop.number).name}", 128 + stop.number)


def _fail(sentence: str, status: int = 2) -> int:
    print_error(f"numparam: {' '.join(sentence.split())}")
    return status


@contextmanager
def _stopping_orderly() -> Iterator[None]:
    """Turn the signals that would end the process on the spot into exceptions."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    try:
        before = {number: signal.signal(number, stop) for number in _ENDING}
    except ValueError:  # not the main thread, which alone gets signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
