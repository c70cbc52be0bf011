"""``numparam plan``: what each rank of a mesh would hold."""

import argparse

from numparam.cli.arguments import Commands, add_model, model
from numparam.plan import Plan, runs
from numparam.sharding import AUTO, parse_axes, parse_mesh

_SHOWN = 40
_DESCRIPTION = """\
Say which slices of a model's parameters each rank of a mesh would hold, and how many bytes, by arithmetic alone. Each
dimension of the mesh splits one axis: unless --axis names them, the dimensions choose in turn, from left to right, the
longest axis that is still whole and has at least as many entries as the dimension has ranks; a parameter without one
stays whole. An axis of n entries over p ranks is cut every ceil(n / p) entries, so the last slices may be smaller or
empty. numparam init --shard writes the same slices.
"""


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("plan", help="bytes and slices of each rank of a mesh", description=_DESCRIPTION)
    add_model(parser)
    parser.add_argument("--mesh", required=True, help="the grid of ranks, such as 8 or 8x4")
    parser.add_argument("--axis", default=AUTO, help="the axis that each dimension splits, such as 0,1 (default: auto)")
    parser.add_argument("--rank", type=int, help="show the exact slices of this rank, counted from 0 row by row")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    mesh = parse_mesh(arguments.mesh)
    plan = Plan(model(arguments).entries, mesh, parse_axes(arguments.axis, mesh))
    if arguments.rank is None:
        _print_all(plan)
    else:
        _print_rank(plan, arguments.rank)
    return 0


def _print_all(plan: Plan) -> None:
    from numparam.cli.console import print_layers, print_line, print_table
    from numparam.text import amount, size

    first = plan.shard(0)
    rows = []
    for entry in plan.entries:
        cuts = {axis: f"/{parts}" for parts, axis in zip(plan.mesh, plan.split_axes(entry), strict=True)}
        shape = ", ".join(f"{length}{cuts.get(axis, '')}" for axis, length in enumerate(entry.shape))
        local = entry._replace(shape=first.shape(entry.shape))
        rows.append((entry.name, str(entry.dtype), f"({shape})", str(local.shape), size(local.nbytes)))
    print_layers(["parameter", "dtype", "shape/ranks", "largest slice", "bytes each"], rows, right=["bytes each"])

    nbytes = plan.nbytes().ravel()
    spans = list(runs(nbytes.tolist()))
    shown = [
        (f"{start}" if start == stop else f"{start} to {stop}", size(value), f"{value:,}")
        for start, stop, value in spans[:_SHOWN]
    ]
    print_line("")
    print_table(["rank", "size", "bytes each"], shown, right=["size", "bytes each"])
    if len(spans) > _SHOWN:
        print_line(f"... and {len(spans) - _SHOWN} more; --rank shows one")
    whole = sum(entry.nbytes for entry in plan.entries)
    print_line(
        f"{amount(plan.ranks, 'rank')}: at most {size(int(nbytes.max()))} each, {size(int(nbytes.sum()))} together, "
        f"for a model of {size(whole)}"
    )


def _print_rank(plan: Plan, rank: int) -> None:
    from numparam.cli.console import print_line, print_table
    from numparam.text import size

    shard = plan.shard(rank)
    rows, total = [], 0
    for entry in plan.entries:
        slices = ", ".join(f"{part.start}:{part.stop}" for part in shard.slices(entry.shape))
        local = entry._replace(shape=shard.shape(entry.shape))
        rows.append((entry.name, str(entry.dtype), str(entry.shape), f"[{slices}]", size(local.nbytes)))
        total += local.nbytes
    print_table(["parameter", "dtype", "shape", "slice", "bytes"], rows, right=["bytes"])
    print_line(f"rank {shard}: {size(total)}")
