"""Files that appear whole or not at all."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends well, and vanishes when it does not.

    The bytes go to a hidden file in the same folder, are flushed to the disk, and the file is then renamed: a reader
    sees the old file or the new one, also after a power cut. As with ``cp``, a link is followed and an existing file
    passes on its permissions.

    Parameters
    ----------
    path : Path
        The file to make or to replace.

    Yields
    ------
    BinaryIO
        The hidden file, open for writing.

    Raises
    ------
    OSError
        If the folder cannot be written, the disk is full, or `path` is something other than a regular file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with replacing(folder / "greeting") as file:
    ...     _ = file.write(b"hello")
    >>> [path.name for path in folder.iterdir()]
    ['greeting']
    """
    target = path.resolve()
    mode = target.stat().st_mode if target.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        raise FileExistsError(0, "it exists and is not a regular file", str(path))
    hidden = target.with_name(f".numparam-{secrets.token_hex(8)}.partial")
    try:
        with hidden.open("xb") as file:
            if mode is not None:
                hidden.chmod(stat.S_IMODE(mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(target)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Make the renaming itself survive a power cut."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
