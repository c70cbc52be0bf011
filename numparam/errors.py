"""The errors of numparam: each is a NumparamError, and also the built-in exception that Python users would catch."""

from numparam.text import printable

MAX_MESSAGE = 4000  # characters: what is named in the middle is left out


class NumparamError(Exception):
    """Base of all errors of numparam; the message is safe to print and of bounded length."""

    _kept = "\n"

    def __init__(self, *arguments: object) -> None:
        super().__init__(
            *[printable(item, MAX_MESSAGE, keep=self._kept) if isinstance(item, str) else item for item in arguments]
        )


class ArgumentTypeError(NumparamError, TypeError):
    """Report an argument of a kind that is not accepted."""


class ArgumentValueError(NumparamError, ValueError):
    """Report an argument of the right kind whose value is not accepted."""

    _kept = ""


class DtypeError(ArgumentTypeError):
    """Report a dtype that numparam does not have, or that cannot hold the values."""


class MissingNameError(NumparamError, KeyError):
    """Report a name that does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would show its message in quotes


class OptionError(ArgumentValueError, MissingNameError):
    """Report an option that does not exist, among those that MindSpore looks up in a dict."""


class ShapeError(ArgumentValueError):
    """Report what is not a shape, or that an initializer or a buffer does not fit."""


class RegionError(NumparamError, IndexError):
    """Report an index that does not fit the tensor."""


class NumberRangeError(ArgumentValueError, OverflowError):
    """Report a number that the dtype it is computed in cannot hold."""


class SpecificationError(ArgumentValueError):
    """Report a model specification that does not exist."""


class CheckpointError(NumparamError, ValueError):
    """Report a checkpoint file that is damaged, or lacks what was requested."""

    _kept = ""  # paths may hold line breaks


class CheckpointFileError(CheckpointError, OSError):
    """Report a checkpoint file that the system does not let numparam read or write."""


class MissingFileError(CheckpointFileError, FileNotFoundError):
    """Report a file or a directory that does not exist."""


class FolderError(CheckpointFileError, IsADirectoryError):
    """Report a folder where a checkpoint file is needed."""


class StateError(NumparamError, RuntimeError):
    """Report something that cannot be done in the present state, though the arguments are sound."""


class MismatchError(NumparamError, RuntimeError):
    """Report values that do not fit the parameters they are loaded into."""


class NameTakenError(NumparamError, KeyError):
    """Report a name that a cell cannot give to what is put into it."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would show its message in quotes


class DeviceError(NumparamError, RuntimeError):
    """Report a device that is not there, or has no room."""


class DeviceOutOfMemoryError(DeviceError, MemoryError):
    """Report a device with too little memory."""


class CommunicationError(NumparamError, RuntimeError):
    """Report ranks of a job that cannot go on together; the message names them."""


class LateRankError(CommunicationError, TimeoutError):
    """Report ranks that did not reach an operation, or sent nothing during it."""


class DisagreementError(CommunicationError):
    """Report ranks that came to different operations, or hold different values."""
