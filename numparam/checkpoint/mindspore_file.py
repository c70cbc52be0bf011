"""Read and write the ``.ckpt`` files of MindSpore.

They are Protocol Buffers messages (https://protobuf.dev/programming-guides/encoding): a file is a sequence of values,
each a field 1 with a tag (field 1, the name) and a tensor (field 2) of dims (field 1), type (field 2, such as
``Float32``) and content (field 3). A large tensor is split into values of the same tag, one after the other. A file may
end with the bytes ``crc_num`` and ten more, the CRC-32 of all before them, big-endian.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.checkpoint.header import opened
from numparam.checkpoint.limits import MAX_FIELDS, MAX_FILE_BYTES, MAX_NAME
from numparam.checkpoint.mapped_file import MappedFile
from numparam.checkpoint.writing import Part, write_parts
from numparam.entry import Block, Entry
from numparam.errors import CheckpointError, DtypeError
from numparam.indexing.region import MAX_AXES
from numparam.text import shown

_MARK, _TAIL = b"crc_num", 17
CACHE_MARK = ".__param_key__"  # between the name of a parameter with cache_enable and its key
_LENGTH_DELIMITED = 2
_TEXT = "str"
_PIECE_BYTES = 2**29  # of a large tensor: no message of Protocol Buffers has more than 2 GiB
_SCALAR = (0,)  # how MindSpore writes the shape of text, and reads the shape of a scalar


@dataclass
class _Value:
    """Gather the pieces of one tensor."""

    tensor_type: str = ""
    dims: tuple[int, ...] = ()
    pieces: list[tuple[int, int]] = field(default_factory=list)


def read(path: Path, crc_check: bool = False) -> dict[str, np.ndarray[Any, np.dtype[Any]] | str]:
    """Map the tensors of a file into memory, by name; text comes as str. `crc_check` reads the full file."""
    mapping = opened(path)
    end = mapping.nbytes
    if end >= _TAIL and mapping.content[end - _TAIL : end - 10].tobytes() == _MARK:
        end -= _TAIL
        if crc_check and zlib.crc32(mapping.content[:end].data) != int.from_bytes(
            mapping.content[-10:].tobytes(), "big"
        ):
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
            raise reader.error(start, f"parameter {shown(name)} is a map parameter, which numparam does not have")
    if name is None or tensor is None:
        raise reader.error(begin, "a value without a name or a tensor")
    piece = _Value()
    dims: list[int] = []
    for number, start, stop in reader.fields(*tensor):
        if number == 1:
            dims += [start] if stop == _VARINT else reader.packed(start, stop)
            if len(dims) > MAX_AXES:
                raise reader.error(begin, f"parameter {shown(name)} has more than {MAX_AXES} axes")
        elif number == 2:
            piece.tensor_type = reader.text(start, stop)
        elif number == 3 and stop != _VARINT:
            piece.pieces.append((start, stop))
    piece.dims = tuple(dims)
    if math.prod(filter(None, dims)) > MAX_FILE_BYTES:
        raise reader.error(begin, f"parameter {shown(name)} does not have a shape: {shown(dims)}")
    known = found.setdefault(name, piece)
    if known is not piece:
        if (known.tensor_type, known.dims) != (piece.tensor_type, piece.dims):
            raise reader.error(begin, f"parameter {shown(name)} is a duplicate, with another shape or dtype")
        known.pieces += piece.pieces


def _tensor(mapping: MappedFile, name: str, value: _Value) -> np.ndarray[Any, np.dtype[Any]] | str:
    where = f"{mapping.path}: parameter {shown(name)}"
    nbytes = sum(stop - start for start, stop in value.pieces)
    if value.tensor_type == _TEXT:
        content = b"".join(mapping.content[start:stop].tobytes() for start, stop in value.pieces)
        try:
            return content.decode("utf-32-le").rstrip("\0")
        except UnicodeDecodeError:
            raise CheckpointError(f"{where}: its text cannot be read") from None
    dtype = _DTYPES.get(value.tensor_type)
    if dtype is None:
        raise CheckpointError(f"{where}: numparam does not know the dtype {shown(value.tensor_type)}")
    item = dtypes.as_dtype(dtype)
    shape = () if value.dims == _SCALAR and nbytes == item.itemsize else value.dims
    wanted = math.prod(shape) * item.itemsize
    if wanted != nbytes:
        raise CheckpointError(f"{where}: shape {shape} of {value.tensor_type} takes {wanted} bytes, found {nbytes}")
    if len(value.pieces) == 1:
        return mapping.array(value.pieces[0][0], item, shape, nbytes)
    joined = np.concatenate([mapping.content[start:stop] for start, stop in value.pieces] or [np.empty(0, np.uint8)])
    return joined.view(item).reshape(shape)


_DTYPES = {kind: name for name, (_, kind) in dtypes.TABLE.items()}
_READ_BY_MINDSPORE = {name for name in dtypes.TABLE if not name.startswith(("complex", "float8"))}
_VARINT = -1


class _Reader:
    """Walk over the fields of a message, never past its end."""

    def __init__(self, mapping: MappedFile, path: str) -> None:
        self.bytes = mapping.content.data
        self.path, self.left = path, MAX_FIELDS

    def error(self, place: int, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: not a MindSpore checkpoint or damaged at byte {place}: {what}")

    def fields(self, place: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the number of each field with its first byte and the byte after it, or its value and `_VARINT`."""
        while place < end:
            self.left -= 1
            if self.left < 0:
                raise self.error(place, f"it has more than {MAX_FIELDS} fields")
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
        values: list[int] = []
        while place < end and len(values) <= MAX_AXES:
            value, place = self.varint(place, end)
            values.append(value)
        return values

    def text(self, begin: int, end: int) -> str:
        if not 0 <= end - begin <= 4 * MAX_NAME + 2**8:  # of a dtype, or of a parameter and its key
            raise self.error(begin, f"a name has at most {MAX_NAME} characters")
        try:
            return bytes(self.bytes[begin:end]).decode()
        except UnicodeDecodeError:
            raise self.error(begin, "a name is not UTF-8") from None


def check_dtypes(entries: Iterable[Entry]) -> None:
    """Raise if there are values that MindSpore 2.10 does not read."""
    for entry in entries:
        if entry.dtype.name not in _READ_BY_MINDSPORE:
            raise DtypeError(
                f".ckpt files do not hold {entry.dtype}, the dtype of parameter {shown(entry.name)}; convert it, or "
                "save to a .safetensors file"
            )


def write(
    path: Path,
    entries: Iterable[Entry],
    texts: Mapping[str, str],
    blocks: Callable[[Entry], Iterable[Block]],
    progress: Callable[[int], None] | None = None,
    crc_check: bool = False,
) -> int:
    """Write a ``.ckpt`` file, complete or not at all, as `writing.write_checkpoint` does; return its bytes."""
    listed = list(entries)

    def parts() -> Iterator[Part]:
        for entry in listed:
            for nbytes, piece in _pieces(entry, blocks(entry)):
                yield _head(entry.name, entry.shape, dtypes.type_name(entry.dtype), nbytes)
                yield entry.dtype, piece
        for name, text in texts.items():
            content = text.encode("utf-32-le")
            yield _head(name, _SCALAR, _TEXT, len(content)) + content

    tail = (lambda checksum: _MARK + checksum.to_bytes(10, "big")) if crc_check else None
    return write_parts(path, sum(entry.nbytes for entry in listed), parts(), progress, tail=tail)


def _pieces(entry: Entry, blocks: Iterable[Block]) -> Iterator[tuple[int, list[Block]]]:
    """Gather blocks into values of a file, with their bytes; a tensor without values has one."""
    piece: list[Block] = []
    nbytes = 0
    for block in blocks:
        size = math.prod(block.shape) * entry.dtype.itemsize
        if piece and nbytes + size > _PIECE_BYTES:
            yield nbytes, piece
            piece, nbytes = [], 0
        piece.append(block)
        nbytes += size
    yield nbytes, piece


def _head(name: str, dims: Iterable[int], tensor_type: str, nbytes: int) -> bytes:
    """Return a value up to its content."""
    tag = _field(1, name.encode())
    tensor = b"".join(_varint(1 << 3) + _varint(length) for length in dims) + _field(2, tensor_type.encode())
    tensor += _varint(3 << 3 | _LENGTH_DELIMITED) + _varint(nbytes)
    tensor_length = len(tensor) + nbytes
    start = tag + _varint(2 << 3 | _LENGTH_DELIMITED) + _varint(tensor_length)
    return _varint(1 << 3 | _LENGTH_DELIMITED) + _varint(len(start) + tensor_length) + start + tensor


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return seven bits a byte, the low ones first."""
    digits = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([digit | 128 for digit in digits[:-1]] + digits[-1:])
