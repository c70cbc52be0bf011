"""How tensors, cells, layouts and reports look in a notebook.

Colours are mixed with the ones around them, so both light and dark themes are readable, and nothing is loaded from
elsewhere. Every text of a name, a file or a user passes through `text`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from numparam.errors import NumparamError
from numparam.text import amount, printable, size

Array = np.ndarray[Any, np.dtype[Any]]

_BINS = 32
_ROWS = 1000  # of a table, or nodes of a tree: a browser shows no more in comfort
_VALUES = 200
_MONO = "font-family:var(--jp-code-font-family,monospace)"
_FAINT = "opacity:.65"


def text(value: object, keep: str = "") -> str:
    r"""Escape any text for a page."""
    return html.escape(printable(str(value), keep=keep))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = (), foot: str = "") -> str:
    """Return a table with a line of text below; the columns named in `right` are aligned to the right."""
    sides = [f"style='text-align:{'right' if name in right else 'left'}'" for name in columns]
    head = "".join(f"<th {side}>{text(name)}</th>" for side, name in zip(sides, columns, strict=True))
    shown = list(rows)
    body = "".join(
        "<tr>" + "".join(f"<td {side}>{text(cell)}</td>" for side, cell in zip(sides, row, strict=True)) + "</tr>"
        for row in shown[:_ROWS]
    )
    more = f"<p>and {len(shown) - _ROWS:,} more</p>" if len(shown) > _ROWS else ""
    below = "".join(f"<p>{text(line)}</p>" for line in foot.splitlines())
    full = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if shown else ""
    return f"<div>{full}{more}{below}</div>"


def tensor(of: Any, kind: str, name: str = "", more: Sequence[str] = ()) -> str:
    """Return a tensor: what is known of it, a histogram, and values, which a lazy one generates and does not keep."""
    facts = [str(of.dtype), size(of.nbytes), str(of.device), *more]
    facts.append(f"lazy: {of.init or 'values of a file'}" if of.has_init else "in memory")
    title = f"<b>{kind}</b> {f'<code>{text(name)}</code> ' if name else ''}{text(of.shape)}"
    values = _first(of)
    below = "" if values is None else _histogram(of, values) + _listed(of, values)
    return f"<div>{title} <span style='{_FAINT}'>{text(' · '.join(facts))}</span>{below}</div>"


def _first(of: Any) -> Array | None:
    """Return the first block of values; None if there are none, or it would take all of them to make it."""
    if not of.size or getattr(of.init, "needs_full", False):
        return None
    try:
        block = next(of.blocks())
        values = np.empty(block.shape, of.dtype)
        block.fill(values)
    except (NumparamError, OSError):  # such as values that are left unset, or a file that is gone
        return None
    return values


def _listed(of: Any, values: Array) -> str:
    what = "values" if values.size == of.size else f"the first {amount(values.size, 'value')}"
    shown = np.array2string(values.reshape(of.shape) if values.size == of.size else values, threshold=_VALUES)
    return f"<details><summary>{what}</summary><pre>{text(shown, keep=chr(10))}</pre></details>"


def _histogram(of: Any, values: Array) -> str:
    if values.dtype.kind == "c":
        return ""
    wide = values.astype(np.float64).ravel()
    finite = wide[np.isfinite(wide)]
    if not len(finite):
        return ""
    low, high = float(finite.min()), float(finite.max())
    with np.errstate(over="ignore"):
        mean, std = float(finite.mean()), float(finite.std())
    spread = low < high and np.isfinite(high - low)
    counts = np.histogram(finite, _BINS)[0] if spread else np.array([0, len(finite), 0])
    width, height = 320 / len(counts), 60
    bars = "".join(
        f"M{place * width:.1f} {height}v{-max(1, height * count / counts.max()):.1f}h{width - 1:.1f}V{height}z"
        for place, count in enumerate(counts.tolist())
        if count
    )
    part = "" if len(wide) == of.size else f" of the first {amount(len(wide), 'value')}"
    odd = "" if len(finite) == len(wide) else f", {len(wide) - len(finite):,} not finite"
    label = f"{low:.4g} to {high:.4g}, mean {mean:.4g}, std {std:.4g}{part}{odd}"
    return (
        f"<figure style='margin:4px 0'><svg width='320' height='{height}' viewBox='0 0 320 {height}' role='img' "
        f"aria-label='{text(f'histogram from {label}')}'><path d='{bars}' fill='steelblue'/></svg>"
        f"<figcaption style='{_FAINT}'>{text(label)}</figcaption></figure>"
    )


def cell(of: Any) -> str:
    """Return the tree of a cell with the sizes of its parts; layers that are alike share a line."""
    left = [_ROWS]
    found = list(of.get_parameters())
    total = sum(parameter.nbytes for parameter in found)
    values = sum(parameter.size for parameter in found)
    facts = f"{amount(len(found), 'parameter')}, {amount(values, 'value')}, {size(total)}"
    body = _branches(of, total, left)
    rest = f"<div style='{_FAINT}'>and more, which summary() lists</div>" if left[0] < 0 else ""
    return (
        f"<div style='{_MONO}'><b>{text(_class(of))}</b> <span style='{_FAINT}'>{facts}</span>"
        f"<div style='margin-left:1.5em'>{body}</div>{rest}</div>"
    )


def _branches(of: Any, total: int, left: list[int]) -> str:
    lines: list[str] = []
    for name, parameter in of.parameters_and_names(expand=False):
        left[0] -= 1
        if left[0] < 0:
            return "".join(lines)
        how = "lazy" if parameter.has_init else "in memory"
        facts = [str(parameter.shape), str(parameter.dtype), size(parameter.nbytes), how]
        facts += [] if parameter.requires_grad else ["frozen"]
        lines.append(
            f"<div>{text(name.rpartition('.')[2])} <span style='{_FAINT}'>{text(' · '.join(facts))}</span></div>"
        )
    alike: list[tuple[list[str], str, str, int]] = []
    for name, child in of.name_cells().items():
        if left[0] < 0:
            break
        before = left[0] = left[0] - 1
        nbytes = sum(parameter.nbytes for parameter in child.get_parameters())
        branch = f"<b>{text(_class(child))}</b>", _branches(child, total, left), nbytes
        if alike and alike[-1][1:] == branch:
            alike[-1][0].append(name)
            left[0] = before + 1
        else:
            alike.append(([name], *branch))
    for names, title, body, nbytes in alike:
        many, held = text(names[0]), size(nbytes * len(names))
        if len(names) > 1:
            many, held = f"{many} … {text(names[-1])} {len(names)} ×", f"{held}, {size(nbytes)} each"
        head = f"{many} {title} <span style='{_FAINT}'>{held}</span> {_bar(nbytes * len(names), total)}"
        inner = f"<div style='margin-left:1.5em'>{body}</div>"
        lines.append(f"<details open><summary>{head}</summary>{inner}</details>" if body else f"<div>{head}</div>")
    return "".join(lines)


def _class(of: Any) -> str:
    own = of.extend_repr()
    return f"{type(of).__name__}({own})" if own else type(of).__name__


def _bar(nbytes: int, total: int) -> str:
    share = 100 * nbytes / total if total else 0
    return (
        "<span style='display:inline-block;width:100px;height:.6em;background:rgba(128,128,128,.25)'>"
        f"<span style='display:block;width:{share:.0f}px;height:100%;background:steelblue'></span></span>"
    )


def grid(title: str, rows: Sequence[str], columns: Sequence[str], cell_at: Callable[[int, int], str | None]) -> str:
    """Return blocks in rows and columns, each in its own colour; None is a block that is left out."""
    head = "".join(f"<th style='text-align:center'>{text(column)}</th>" for column in columns)
    body = ""
    for down, row in enumerate(rows):
        body += f"<tr><th>{text(row)}</th>"
        for across in range(len(columns)):
            found = cell_at(down, across)
            hue = (down * len(columns) + across) * 137 % 360  # neighbours differ
            colour = "none" if found is None else f"hsla({hue},65%,55%,.35)"
            body += f"<td style='background:{colour};text-align:center'>{text('…' if found is None else found)}</td>"
        body += "</tr>"
    head = f"<thead><tr><th></th>{head}</tr></thead>"
    return f"<div><code>{text(title)}</code><table>{head}<tbody>{body}</tbody></table></div>"


def progress(what: str, done: int, total: int) -> str:
    """Return a progress bar."""
    return f"<div>{text(what)} <progress value='{done}' max='{total}'></progress> {size(done)} of {size(total)}</div>"
