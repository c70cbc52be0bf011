"""``numparam plan``: what each rank of a mesh would hold."""

import argparse
from collections.abc import Sequence
from functools import cache
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np

from numparam import dtypes
from numparam.cli.arguments import Commands, add_filter, add_json, add_model, model
from numparam.entry import Entry
from numparam.layout.sharding import AUTO, Shard, parse_axes, parse_mesh
from numparam.model.plan import CPU_RATE, Counts, Plan, groups, runs
from numparam.text import amount, duration, size

_SHOWN = 40
_SPANS = 3
_ROUNDINGS = ("nearest", "stochastic", "master")
_OPTIMIZERS: dict[str, tuple[str, dict[str, float]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "adagrad": ("Adagrad", {}),
    "ftrl": ("FTRL", {}),
    "lamb": ("Lamb", {}),
}
_DESCRIPTION = """\
Print which slices of a model's parameters each rank of a mesh would hold, how many bytes, and how long it would take to
generate them, by arithmetic alone. Each dimension of the mesh splits one axis: unless --axis names them, the dimensions
choose in turn, from left to right, the longest axis that is not split yet and has at least as many entries as the
dimension has ranks; a parameter without one is not split. An axis of n entries over p ranks is split every ceil(n / p)
entries, so the last slices may be smaller or empty. numparam init --shard writes the same slices.
"""


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("plan", help="bytes and slices of each rank of a mesh", description=_DESCRIPTION)
    add_model(parser)
    add_filter(parser)
    parser.add_argument("--mesh", required=True, help="the grid of ranks, such as 8 or 8x4")
    parser.add_argument("--axis", default=AUTO, help="the axis that each dimension splits, such as 0,1 (default: auto)")
    parser.add_argument("--rank", type=int, help="show the exact slices of this rank, counted from 0 row by row")
    parser.add_argument("--parameter", metavar="NAME", help="show the slices of this parameter alone")
    parser.add_argument(
        "--rate",
        type=_rate,
        default=CPU_RATE,
        metavar="G",
        help="how many billion values a rank generates in a second (default: %(default)s, as measured on one CPU core)",
    )
    parser.add_argument("--optimizer", choices=_OPTIMIZERS, help="also count the states of an optimizer")
    parser.add_argument(
        "--rounding",
        choices=_ROUNDINGS,
        default=_ROUNDINGS[0],
        help="of the optimizer: master also counts float32 copies of weights of 16 bits (default: %(default)s)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    mesh = parse_mesh(arguments.mesh)
    plan = Plan(model(arguments).entries, mesh, parse_axes(arguments.axis, mesh))
    entries = plan.entries if arguments.parameter is None else [plan.entry(arguments.parameter)]
    if arguments.json:
        from numparam.cli.console import print_json

        print_json(_as_json(plan, entries, arguments))
    elif arguments.rank is not None:
        _print_rank(entries, plan.shard(arguments.rank))
    elif arguments.parameter is not None:
        _print_parameter(plan, entries[0])
    else:
        _print_all(plan, arguments)
    return 0


def _states(plan: Plan, arguments: argparse.Namespace) -> Counts:
    """Count the bytes of the states of the optimizer on every rank; zeros without one."""
    if arguments.optimizer is None:
        return np.zeros(plan.mesh, np.int64)
    from numparam import optim

    name, options = _OPTIMIZERS[arguments.optimizer]
    optimizer = getattr(optim, name)([], rounding=arguments.rounding, **options)
    return plan.nbytes(lambda dtype: optimizer.state_bytes(dtype) if dtypes.is_floating(dtype) else 0)


def _as_json(plan: Plan, entries: Sequence[Entry], arguments: argparse.Namespace) -> dict[str, Any]:
    shard = plan.shard(arguments.rank or 0)  # rank 0 holds the largest slices
    parameters = []
    for name, shape, dtype in entries:
        item = {"name": name, "dtype": dtype.name, "shape": shape, "slice_shape": shard.shape(shape)}
        if arguments.rank is not None:
            item["slice"] = [(part.start, part.stop) for part in shard.slices(shape)]
        parameters.append(item | {"bytes": Entry(name, shard.shape(shape), dtype).nbytes})
    content: dict[str, Any] = {"mesh": plan.mesh, "parameters": parameters}
    if arguments.rank is not None:
        return {"rank": arguments.rank, **content, "bytes": sum(item["bytes"] for item in parameters)}
    part = Plan(tuple(entries), plan.mesh, plan.axes)
    spans = [
        {"first": first, "last": last, "bytes": held, "optimizer_bytes": states}
        for first, last, (held, states) in runs(_pairs(part.nbytes(), _states(part, arguments)))
    ]
    return {**content, "ranks": spans, "seconds": part.seconds(arguments.rate)}


def _pairs(nbytes: Counts, states: Counts) -> list[tuple[int, int]]:
    return list(zip(nbytes.ravel().tolist(), states.ravel().tolist(), strict=True))


def _print_all(plan: Plan, arguments: argparse.Namespace) -> None:
    from numparam.cli.console import print_layers, print_line, print_table

    first = plan.shard(0)
    slices = [(entry.name, _slice(first, *entry[1:])) for entry in plan.entries]
    rows = [(name, part.dtype, part.divided, part.shape, part.size) for name, part in slices]
    print_layers(["parameter", "dtype", "shape/ranks", "largest slice", "bytes each"], rows, right=["bytes each"])

    nbytes, states = plan.nbytes(), _states(plan, arguments)
    alike = groups(_pairs(nbytes, states))
    numbers = ["ranks", "size", "bytes each"] + ["states each"] * (arguments.optimizer is not None)
    shown = []
    for (held, kept), spans in alike[:_SHOWN]:
        count = sum(stop - start + 1 for start, stop in spans)
        which = ", ".join([_span(*span) for span in spans[:_SPANS]] + ["..."] * (len(spans) > _SPANS))
        shown.append((which, f"{count:,}", size(held), f"{held:,}", size(kept))[: 1 + len(numbers)])
    print_line("")
    print_table(["rank", *numbers], shown, numbers)
    if len(alike) > _SHOWN:
        print_line(f"... and {len(alike) - _SHOWN} more sizes; --rank shows one")
    if slices:
        name, largest = max(slices, key=lambda pair: pair[1].nbytes)
        print_line(f"largest slice: {name} {largest.shape}, {largest.size}")
    of = f"{amount(int(plan.sizes().max()), 'value')} of {amount(len(plan.entries), 'parameter')}"
    rate = arguments.rate
    print_line(f"time: about {duration(plan.seconds(rate))} for {of} at {rate:g} billion values a second")
    total = sum(entry.nbytes for entry in plan.entries)
    print_line(
        f"{amount(plan.ranks, 'rank')}: at most {size(int(nbytes.max()))} each, {size(int(nbytes.sum()))} together, "
        f"for a model of {size(total)}"
    )
    if arguments.optimizer is not None:
        most = f"{size(int(states.max()))} of states each"
        print_line(f"{arguments.optimizer}: at most {most}, {size(int(states.sum()))} together")


def _print_parameter(plan: Plan, entry: Entry) -> None:
    from numparam.cli.console import print_line, print_table

    for line in plan.layout(entry.shape).picture(entry.shape).splitlines():
        print_line(line)
    parts = groupby(range(plan.ranks), lambda rank: _slice(plan.shard(rank), *entry[1:]))
    shown = [(list(ranks), part) for part, ranks in islice(parts, _SHOWN)]
    rows = [(_span(ranks[0], ranks[-1]), part.bounds, part.size) for ranks, part in shown]
    print_table(["rank", "slice", "bytes"], rows, right=["bytes"])
    if shown[-1][0][-1] < plan.ranks - 1:
        print_line(f"... and {plan.ranks - 1 - shown[-1][0][-1]} more ranks; --rank shows one")


def _print_rank(entries: Sequence[Entry], shard: Shard) -> None:
    from numparam.cli.console import print_line, print_table

    slices = [(entry.name, _slice(shard, *entry[1:])) for entry in entries]
    rows = [(name, part.dtype, part.full_shape, part.bounds, part.size) for name, part in slices]
    print_table(["parameter", "dtype", "shape", "slice", "bytes"], rows, right=["bytes"])
    print_line(f"rank {shard}: {size(sum(part.nbytes for _, part in slices))}")


class _Slice(NamedTuple):
    """Hold what is printed of a slice, which is the same for all parameters of a shape and dtype."""

    dtype: str
    full_shape: str
    divided: str
    bounds: str
    shape: str
    size: str
    nbytes: int


@cache
def _slice(shard: Shard, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Slice:
    layout = shard.layout(shape)
    divided = [
        f"{length}{''.join(f'/{layout.mesh[axis]}' for axis in split_by)}"
        for length, split_by in zip(shape, layout.spec, strict=True)
    ]
    bounds = [f"{part.start}:{part.stop}" for part in shard.slices(shape)]
    local = shard.shape(shape)
    nbytes = Entry("", local, dtype).nbytes
    return _Slice(
        str(dtype), str(shape), f"({', '.join(divided)})", f"[{', '.join(bounds)}]", str(local), size(nbytes), nbytes
    )


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"a rate is a positive number of billions a second, found {text!r}")
    return rate
