"""Read the ``.ckpt`` files of MindSpore.

They are Protocol Buffers messages (https://protobuf.dev/programming-guides/encoding): a file is a sequence of values,
each a field 1 with a tag (field 1, the name) and a tensor (field 2) of dims (field 1), type (field 2, such as
``Float32``) and content (field 3). A large tensor is cut into values of the same tag, one after the other. A file may
end with the bytes ``crc_num`` and ten more, the CRC-32 of all before them, big-endian.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.checkpoint.header import MAX_FILE_BYTES
from numparam.checkpoint.mapped_file import MappedFile
from numparam.errors import CheckpointError
from numparam.indexing.region import MAX_AXES

_MARK, _TAIL = b"crc_num", 17
_LENGTH_DELIMITED = 2
_TEXT = "str"
_SCALAR = (0,)  # how MindSpore writes the shape of text, and reads that of a scalar


@dataclass
class _Value:
    """Gather the pieces of one tensor."""

    tensor_type: str = ""
    dims: tuple[int, ...] = ()
    pieces: list[tuple[int, int]] = field(default_factory=list)


def read(path: Path, crc_check: bool = False) -> dict[str, np.ndarray[Any, np.dtype[Any]] | str]:
    """Map the tensors of a file into memory, by name; text comes as str.

    Parameters
    ----------
    path : Path
    crc_check : bool
        Whether to compare the checksum, which reads the whole file.

    Raises
    ------
    CheckpointError
        If the file is damaged, encrypted or of another kind, or holds what numparam does not know.
    OSError
        If it cannot be opened.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    mapping = MappedFile(path)
    end = mapping.nbytes
    if end >= _TAIL and mapping.bytes[end - _TAIL : end - 10].tobytes() == _MARK:
        end -= _TAIL
        if crc_check and zlib.crc32(mapping.bytes[:end].data) != int.from_bytes(mapping.bytes[-10:].tobytes(), "big"):
            raise CheckpointError(f"{path}: its bytes do not give the checksum that it ends with")
    elif crc_check:
        raise CheckpointError(f"{path}: it has no checksum to compare")
    found: dict[str, _Value] = {}
    reader = _Reader(mapping, str(path))
    for number, begin, stop in reader.fields(0, end):
        if number == 1:
            _read_value(reader, begin, stop, found)
    return {name: _tensor(mapping, name, value) for name, value in found.items()}


def _read_value(reader: "_Reader", begin: int, end: int, found: dict[str, _Value]) -> None:
    name, tensor = None, None
    for number, start, stop in reader.fields(begin, end):
        if number == 1:
            name = reader.text(start, stop)
        elif number == 2:
            tensor = (start, stop)
        elif number == 3:
            raise reader.error(start, f"parameter {name!r} is a map parameter, which numparam does not have")
    if name is None or tensor is None:
        raise reader.error(begin, "a value without a name or a tensor")
    piece = _Value()
    dims: list[int] = []
    for number, start, stop in reader.fields(*tensor):
        if number == 1:
            dims += [start] if stop == _VARINT else reader.packed(start, stop)
        elif number == 2:
            piece.tensor_type = reader.text(start, stop)
        elif number == 3 and stop != _VARINT:
            piece.pieces.append((start, stop))
    piece.dims = tuple(dims)
    if len(dims) > MAX_AXES or not all(0 <= length <= MAX_FILE_BYTES for length in dims):
        raise reader.error(begin, f"parameter {name!r} has no shape: {dims!r:.80}")
    known = found.setdefault(name, piece)
    if known is not piece:
        if (known.tensor_type, known.dims) != (piece.tensor_type, piece.dims):
            raise reader.error(begin, f"parameter {name!r} stands twice, with different shapes or dtypes")
        known.pieces += piece.pieces


def _tensor(mapping: MappedFile, name: str, value: _Value) -> np.ndarray[Any, np.dtype[Any]] | str:
    where = f"{mapping.path}: parameter {name!r}"
    nbytes = sum(stop - start for start, stop in value.pieces)
    if value.tensor_type == _TEXT:
        content = b"".join(mapping.bytes[start:stop].tobytes() for start, stop in value.pieces)
        try:
            return content.decode("utf-32-le").rstrip("\0")
        except UnicodeDecodeError:
            raise CheckpointError(f"{where}: its text cannot be read") from None
    dtype = _DTYPES.get(value.tensor_type)
    if dtype is None:
        raise CheckpointError(f"{where}: numparam does not know the dtype {value.tensor_type!r:.80}")
    item = dtypes.as_dtype(dtype)
    shape = () if value.dims == _SCALAR and nbytes == item.itemsize else value.dims
    wanted = math.prod(shape) * item.itemsize
    if wanted != nbytes:
        raise CheckpointError(f"{where}: shape {shape} of {value.tensor_type} takes {wanted} bytes, found {nbytes}")
    if len(value.pieces) == 1:
        return mapping.array(value.pieces[0][0], item, shape, nbytes)
    joined = np.concatenate([mapping.bytes[start:stop] for start, stop in value.pieces] or [np.empty(0, np.uint8)])
    return joined.view(item).reshape(shape)


_DTYPES = {names.type_name: name for name, names in dtypes.TABLE.items()}
_VARINT = -1


class _Reader:
    """Walk over the fields of a message, never past its end."""

    def __init__(self, mapping: MappedFile, path: str) -> None:
        self.bytes = mapping.bytes.data
        self.path = path

    def error(self, place: int, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: not a MindSpore checkpoint or damaged at byte {place}: {what}")

    def fields(self, place: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the number of each field with its first byte and the byte after it, or its value and `_VARINT`."""
        while place < end:
            key, place = self.varint(place, end)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, place = self.varint(place, end)
                yield number, value, _VARINT
                continue
            if wire == _LENGTH_DELIMITED:
                length, place = self.varint(place, end)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise self.error(place, f"wire type {wire}")
            if length > end - place:
                raise self.error(place, f"a field of {length} bytes where {end - place} are left")
            if wire == _LENGTH_DELIMITED:
                yield number, place, place + length
            place += length

    def varint(self, place: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if place >= end:
                raise self.error(place, "it ends within a number")
            byte = self.bytes[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, place
        raise self.error(place, "a number of more than ten bytes")

    def packed(self, place: int, end: int) -> list[int]:
        values = []
        while place < end:
            value, place = self.varint(place, end)
            values.append(value)
        return values

    def text(self, begin: int, end: int) -> str:
        if not 0 <= end - begin <= 2**16:
            raise self.error(begin, "a name was expected")
        try:
            return bytes(self.bytes[begin:end]).decode()
        except UnicodeDecodeError:
            raise self.error(begin, "a name is not UTF-8") from None
