"""The header of a safetensors file: which parameters it holds, of what shape and dtype, and where.

A file is eight bytes of little-endian header length, a JSON header of that length, and the values of every parameter
one after the other. Every claim of a header is checked before it is used, so that a damaged or hostile file gives one
sentence and never a crash, a huge allocation or bytes of other memory.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numparam import dtypes
from numparam.checkpoint.limits import MAX_FILE_BYTES, MAX_HEADER_BYTES, MAX_JSON_ITEMS, MAX_NAME
from numparam.checkpoint.mapped_file import MappedFile
from numparam.entry import Entry
from numparam.errors import CheckpointError, CheckpointFileError, FolderError, MissingFileError
from numparam.indexing.region import MAX_AXES
from numparam.text import printable, shown

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Header:
    """Hold a checked header: entries in the order of their bytes, and the text of ``__metadata__``.

    `begins` are the bytes where the values of each parameter begin in `file`, from which they must be read.
    """

    entries: tuple[Entry, ...]
    metadata: dict[str, str]
    begins: dict[str, int]
    file: MappedFile


def encode(entries: Iterable[Entry], metadata: Mapping[str, str]) -> tuple[bytes, tuple[Entry, ...]]:
    """Write the first bytes of a safetensors file, and return the order in which the values must follow.

    Wide dtypes come first, so that the values of every parameter are aligned.
    """
    ordered = tuple(sorted(entries, key=lambda entry: -entry.dtype.itemsize))
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for entry in ordered:
        offsets = [begin, begin + entry.nbytes]
        table[entry.name] = {"dtype": dtypes.tag(entry.dtype), "shape": entry.shape, "data_offsets": offsets}
        begin = offsets[1]
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise CheckpointError(f"the header would take {len(text)} bytes; safetensors allows {MAX_HEADER_BYTES}")
    return len(text).to_bytes(8, "little") + text, ordered


def read(path: Path) -> Header:
    """Open a safetensors file, and read and check its header only."""
    with file_errors(str(path)):
        return decode(opened(path))


def opened(path: Path) -> MappedFile:
    """Open a file of a checkpoint."""
    with file_errors(str(path)):
        return MappedFile(path)


_KINDS = {FileNotFoundError: MissingFileError, IsADirectoryError: FolderError}


@contextmanager
def file_errors(what: str) -> Iterator[None]:
    """Turn the errors of the system into errors of numparam; `what` begins their messages."""
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        found = _KINDS.get(type(error), CheckpointFileError)(f"{what}: {error.strerror or error}")
        found.errno = error.errno
        raise found from error
    except UnicodeEncodeError as error:  # half a surrogate pair in the path
        raise CheckpointError(f"{what}: {error}") from None


def read_index(path: Path) -> tuple[dict[str, Any], MappedFile]:
    """Read the JSON object of an index."""
    file = opened(path)
    if file.nbytes > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: an index of more than {MAX_HEADER_BYTES} bytes is refused")
    with file_errors(str(path)):
        return parse_object(file.read(0, file.nbytes), str(path)), file


def decode(file: MappedFile) -> Header:
    """Check the header of an open file."""
    path, nbytes = str(file.path), file.nbytes
    length = int.from_bytes(file.read(0, 8), "little")
    if nbytes < 8 or length > nbytes - 8:
        found = f"its header claims {length} bytes" if nbytes >= 8 else "a header length takes 8"
        raise CheckpointError(f"{path}: not a safetensors file, or truncated: {found}, the file has {nbytes}")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: its header claims {length} bytes; safetensors allows {MAX_HEADER_BYTES}")
    table = parse_object(file.read(8, length), path)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ must map names to text, found {shown(metadata)}")

    data = 8 + length
    spans = [_span(name, value, path) for name, value in table.items()]
    spans.sort(key=lambda span: span[1:])
    end = 0
    for entry, begin, stop in spans:
        if begin != end:
            what = "overlaps the values before it" if begin < end else "leaves a hole before it"
            raise CheckpointError(f"{path}: parameter {entry.name!r} {what}: it begins at byte {begin}, not {end}")
        end = stop
    if data + end != nbytes:
        what = "truncated" if nbytes < data + end else "longer than its header describes"
        raise CheckpointError(f"{path}: {what}: the values need {end} bytes, found {nbytes - data}")
    return Header(
        entries=tuple(entry for entry, _, _ in spans),
        metadata=metadata,
        begins={entry.name: data + begin for entry, begin, _ in spans},
        file=file,
    )


def parse_object(text: bytes, path: str) -> dict[str, Any]:
    """Read a JSON object without duplicate names."""
    if text.count(b"[") + text.count(b"{") > MAX_JSON_ITEMS:
        raise CheckpointError(f"{path}: its JSON has more than {MAX_JSON_ITEMS} lists and objects")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_distinct, parse_constant=_refuse)
    except RecursionError:
        raise CheckpointError(f"{path}: its JSON is nested too deeply") from None
    except ValueError as error:  # also wrong UTF-8, JSON errors and integers of thousands of digits
        why = printable(str(error).splitlines()[0], 200)
        raise CheckpointError(f"{path}: its JSON cannot be read: {why}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: its JSON must be an object, found {shown(value)}")
    if _ESCAPED_SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            found = shown(error.object[max(error.start - 20, 0) : error.start + 20])
            raise CheckpointError(f"{path}: half a surrogate pair in its JSON is not Unicode text: {found}") from None
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{shown(twice)} is a duplicate in one object")
    return table


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _span(name: str, value: Any, path: str) -> tuple[Entry, int, int]:
    """Check the claims of a header about one parameter; return it and its first and last offset."""
    where = f"{path}: parameter {shown(name)}"
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected dtype, shape and data_offsets, found {shown(value)}")
    offsets = value["data_offsets"]
    entry = describe(name, value["dtype"], value["shape"], path)
    if not is_naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{where}: data_offsets are [begin, end], found {shown(offsets)}")
    if entry.nbytes != offsets[1] - offsets[0]:
        raise CheckpointError(
            f"{where}: shape {shown(value['shape'])} of {value['dtype']} takes {entry.nbytes} bytes, "
            f"its data_offsets {offsets} span {offsets[1] - offsets[0]}"
        )
    return entry, *offsets


def describe(name: str, tag: Any, shape: Any, path: str) -> Entry:
    """Check the dtype and the shape that a file gives a parameter."""
    where = f"{path}: parameter {shown(name)}"
    if not is_naturals(shape):
        raise CheckpointError(f"{where}: a shape is a list of natural numbers, found {shown(shape)}")
    try:
        dtype = dtypes.from_tag(tag)
    except TypeError:
        raise CheckpointError(f"{where}: numparam does not know the dtype {shown(tag)}") from None
    if len(shape) > MAX_AXES:
        raise CheckpointError(f"{where}: a shape has at most {MAX_AXES} axes, found {len(shape)}")
    if len(name) > MAX_NAME:
        raise CheckpointError(f"{where}: a name has at most {MAX_NAME} characters, found {len(name)}")
    entry = Entry(name, tuple(shape), dtype)
    if math.prod(filter(None, shape)) * dtype.itemsize > MAX_FILE_BYTES:  # NumPy too refuses it, empty or not
        raise CheckpointError(f"{where}: shape {shown(shape)} is larger than any file")
    return entry


def has_surrogate(text: str) -> bool:
    """Return whether a text holds half a surrogate pair, which UTF-8 has no bytes for."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def is_naturals(value: Any) -> bool:
    """Return whether a value of a JSON text is a list of integers from 0 that a file can need."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= MAX_FILE_BYTES for item in value)
