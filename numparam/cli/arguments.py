"""Arguments that several commands share."""

import argparse
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeAlias

import numpy as np

from numparam import dtypes
from numparam.entry import Entry
from numparam.errors import ArgumentValueError, DtypeError
from numparam.model.generation import with_dtype
from numparam.model.specification import Specification, names, resolve
from numparam.rules.globs import Glob
from numparam.text import amount, shown

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_SPELLINGS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64", "fp8": "float8_e4m3fn"}


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add --like and --dtype."""
    parser.add_argument(
        "--like",
        required=required,
        metavar="MODEL",
        help="a safetensors file, a *.safetensors.index.json, a folder with one of them or a config.json of Hugging "
        f"Face, a specification of your own (*.json), or a shipped one: {', '.join(names())}",
    )
    parser.add_argument(
        "--dtype",
        type=_floating,
        help="of the floating-point parameters, such as bfloat16 or bf16; the model's own if absent",
    )


def byte_count(text: str) -> int:
    """Read a number of bytes such as 5GB, 512MB or 2GiB."""
    if (match := re.fullmatch(r"([1-9][0-9]{0,17})([KMGT]?)(i?)B", text)) is None or (match[3] and not match[2]):
        raise argparse.ArgumentTypeError(f"a size is a number and a unit, such as 5GB, 512MB or 2GiB; found {text!r}")
    power = " KMGT".index(match[2] or " ")
    return int(match[1]) << 10 * power if match[3] else int(match[1]) * int(10 ** (3 * power))


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add --filter."""
    parser.add_argument(
        "--filter",
        action="append",
        metavar="GLOB",
        help="only the parameters whose full names match, such as '*.bias'; several add up",
    )


def filtered(entries: Iterable[Entry], globs: list[str] | None) -> tuple[Entry, ...]:
    """Return the parameters that --filter selects; an ArgumentValueError if a glob matches no parameter."""
    found = tuple(entries)
    if globs is None:
        return found
    for text in globs:
        if not any(Glob([text]).matches(entry.name) for entry in found):
            raise ArgumentValueError(
                f"--filter {shown(text)} matches none of {amount(len(found), 'parameter')}, such as "
                f"{shown(found[0].name)}; a glob covers the full name"
            )
    wanted = Glob(globs)
    return tuple([entry for entry in found if wanted.matches(entry.name)])


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def add_any_cost(parser: argparse.ArgumentParser) -> None:
    """Add --any-cost."""
    parser.add_argument(
        "--any-cost",
        action="store_true",
        help="generate the recorded slices that need a parameter in full, whatever time and memory that takes",
    )


def model(arguments: argparse.Namespace) -> Specification:
    """Find the parameters that --like, --dtype and --filter select."""
    found = resolve(arguments.like)
    entries = filtered(found.entries, getattr(arguments, "filter", None))
    return found._replace(entries=with_dtype(entries, arguments.dtype) if arguments.dtype else entries)


def _floating(name: str) -> np.dtype[Any]:
    names = [each for each in dtypes.TABLE if dtypes.is_floating(dtypes.as_dtype(each))] + list(_SPELLINGS)
    known = ", ".join(names)
    try:
        dtype = dtypes.as_dtype(_SPELLINGS.get(name, name))
    except DtypeError:
        close = get_close_matches(name.lower(), names, 1, 0.6)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise argparse.ArgumentTypeError(f"no dtype {name!r}; {hint}known: {known}") from None
    if not dtypes.is_floating(dtype):
        raise argparse.ArgumentTypeError(f"random values need a floating dtype, not {name!r}; known: {known}")
    return dtype
