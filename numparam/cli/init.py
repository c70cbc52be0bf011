"""``numparam init``: write fresh parameters for the names and shapes of a model."""

import argparse
import math
import os
import secrets
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from numparam.checkpoint.attempt import save_number
from numparam.checkpoint.distributed_index import file_of_rank
from numparam.checkpoint.distributed_saving import file_to_write
from numparam.checkpoint.names import INDEX_SUFFIX, SUFFIX, index_path
from numparam.cli.arguments import Commands, add_filter, add_json, add_model, byte_count, model
from numparam.cli.streams import drop, print_error
from numparam.device import device
from numparam.errors import ArgumentValueError
from numparam.layout.sharding import AUTO, Shard
from numparam.model.generation import Generation
from numparam.model.huggingface import CONFIG
from numparam.rules import Rules
from numparam.stream.seed import as_seed

_DESCRIPTION = """\
Write a safetensors file with freshly initialised parameters for the names, shapes and dtypes of a model. The values are
a function of the seed, each parameter's name and the index, so they are the same on every machine and in every shard.
A model of transformers, named by its config.json, starts as its own code starts it; others by the general rules.
The seed, the version of the random stream and the rules are kept in the file, for numparam verify. An existing output
is replaced at the very end, and stays as it was if anything goes wrong.
"""


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("init", help="write fresh parameters for a model", description=_DESCRIPTION)
    add_model(parser)
    add_filter(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="the file to write, or a folder: it gets model.safetensors and the config.json of the model",
    )
    parser.add_argument(
        "--max-shard-size",
        type=byte_count,
        metavar="SIZE",
        help="of each file, such as 5GB: the folder gets model-00001-of-0000N.safetensors and their index",
    )
    parser.add_argument("--seed", type=int, help="from 0 to 2**64 - 1; drawn and printed if absent")
    parser.add_argument(
        "--rules", type=Path, metavar="FILE", help="TOML: [[rules]] with glob or regex, init, and its arguments"
    )
    parser.add_argument("--shard", metavar="K/N", help="only the slices of rank K of N, or of a mesh: 0/4, 5/8x4")
    parser.add_argument(
        "--axis",
        metavar="AXIS",
        help="the axis to split, one for each dimension of the mesh: 0, or 0,1; or auto (default), as numparam plan",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="DEVICE",
        help="device that generates the values: cpu (default), cuda, cuda:1; same bytes",
    )
    parser.add_argument("--dry-run", action="store_true", help="print which initializer each gets, and write nothing")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from numparam.cli.console import print_json, print_layers, print_line
    from numparam.progress import progress_bar
    from numparam.text import amount, size

    if arguments.axis is not None and arguments.shard is None:
        raise ArgumentValueError("--axis needs --shard K/N, which is missing")
    shard = None if arguments.shard is None else Shard.parse(arguments.shard, arguments.axis or AUTO)
    seed = secrets.randbits(64) if arguments.seed is None else as_seed(arguments.seed)
    rules = Rules.from_toml("") if arguments.rules is None else Rules.from_file(arguments.rules)
    like = model(arguments)
    if like.model is not None:
        from numparam.torch.traced import with_start

        rules = with_start(rules, like.model, like.entries)
    output, is_folder = _output(arguments, shard)
    if output.exists() and any(map(output.samefile, like.files)):
        raise ArgumentValueError(f"--output {output} is a file of --like {arguments.like}; choose another name")
    generation = Generation(like.entries, seed, rules, shard, device(arguments.device))
    for number, rule in enumerate(rules.rules[: rules.own], 1):
        if rule not in generation.chosen.values():
            where = f"{arguments.rules}: rule {number}, for {rule.names}"
            print_error(f"numparam: {where}, decides for no parameter: {rule}")

    entries = generation.local_entries
    total = sum(entry.nbytes for entry in entries)
    what = f", seed {seed}" + ("" if shard is None else f", shard {shard} (axis {shard.axes_text})")
    count = amount(len(entries), "parameter")
    try:  # before anything is written, so that it can be stopped
        if not arguments.json:
            rows = [(name, str(dtype), str(shape), str(generation.chosen[name])) for name, shape, dtype in entries]
            print_layers(["parameter", "dtype", "shape", "initializer"], rows)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough of the table, and still wants the file
        drop(sys.stdout)
    if arguments.dry_run:
        if arguments.json:
            print_json(_as_json(generation, output, arguments.dry_run, total))
        else:
            print_line(f"would write {output}: {count}, {size(total)}{what}; nothing was written")
        return 0
    start = time.perf_counter()
    with progress_bar("writing", total) as progress:
        if is_folder:
            output.parent.mkdir(parents=True, exist_ok=True)
        with _to_write(output, shard if is_folder else None) as output:
            nbytes = generation.write(output, progress, arguments.max_shard_size)
        if is_folder and like.config is not None and not (copy := output.with_name(CONFIG)).exists():
            copy.write_bytes(like.config.read_bytes())
    seconds = time.perf_counter() - start
    written = output if output.exists() else index_path(output)  # never both
    if arguments.json:
        print_json({**_as_json(generation, written, False, nbytes), "seconds": seconds})
        return 0
    print_line(f"wrote {written}: {count}, {size(nbytes)} in {seconds:.2f} s ({size(int(nbytes / seconds))}/s){what}")
    return 0


def _output(arguments: argparse.Namespace, shard: Shard | None) -> tuple[Path, bool]:
    """Return the file to write, and whether the user named its folder."""
    path = Path(arguments.output)
    if arguments.max_shard_size is not None and shard is not None:
        raise ArgumentValueError("--max-shard-size is for a full model, found --shard; leave one of them out")
    if arguments.max_shard_size is None and not path.is_dir() and not arguments.output.endswith(("/", os.sep)):
        return path, False
    if path.exists() and not path.is_dir():
        raise ArgumentValueError(
            f"--output {path} is a folder with --max-shard-size, found a file; choose another name"
        )
    if shard is None:
        return path / f"model{SUFFIX}", True
    index = path / f"model{INDEX_SUFFIX}"
    return file_of_rank(index, save_number(index) + 1, shard.rank, math.prod(shard.mesh)), True


def _to_write(output: Path, shard: Shard | None) -> AbstractContextManager[Path]:
    """Return the file to write, of which a shard in a folder learns when nobody else can write the index."""
    if shard is None:
        return nullcontext(output)
    return file_to_write(output.with_name(f"model{INDEX_SUFFIX}"), shard.rank, math.prod(shard.mesh))


def _as_json(generation: Generation, output: Path, dry: bool, nbytes: int) -> dict[str, Any]:
    chosen, shard = generation.chosen, generation.shard
    return {
        "file": str(output),
        "written": not dry,
        "seed": generation.seed,
        "shard": None if shard is None else {"rank": str(shard), "axes": shard.axes_text},
        "parameters": [
            {"name": name, "dtype": dtype.name, "shape": shape, "initializer": str(chosen[name])}
            for name, shape, dtype in generation.local_entries
        ],
        "bytes": nbytes,
    }
