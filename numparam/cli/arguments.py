"""Arguments that several commands share."""

import argparse
from typing import Any, TypeAlias

import numpy as np

from numparam import dtypes
from numparam.errors import DtypeError
from numparam.model.generation import with_dtype
from numparam.model.specification import Specification, names, resolve

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add --like and --dtype."""
    parser.add_argument(
        "--like",
        required=True,
        metavar="MODEL",
        help=f"a safetensors file, a *.safetensors.index.json, or a shipped specification: {', '.join(names())}",
    )
    parser.add_argument(
        "--dtype", type=_floating, help="of the floating-point parameters, such as bfloat16; the model's own if absent"
    )


def model(arguments: argparse.Namespace) -> Specification:
    """Find the parameters that --like and --dtype ask for."""
    found = resolve(arguments.like)
    return found._replace(entries=with_dtype(found.entries, arguments.dtype)) if arguments.dtype else found


def _floating(name: str) -> np.dtype[Any]:
    known = ", ".join(name for name in dtypes.TABLE if dtypes.is_floating(dtypes.as_dtype(name)))
    try:
        dtype = dtypes.as_dtype(name)
    except DtypeError:
        raise argparse.ArgumentTypeError(f"no dtype {name!r}; known: {known}") from None
    if not dtypes.is_floating(dtype):
        raise argparse.ArgumentTypeError(f"random values need a floating dtype, not {name!r}; known: {known}")
    return dtype
