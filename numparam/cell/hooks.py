"""Functions that run before or after a cell is called, saved or loaded; methods of `numparam.Cell` register them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numparam.cell.tree import Hook, Tree
from numparam.errors import ArgumentTypeError
from numparam.parameter.hooks import HookHandle
from numparam.text import shown


def of_kind(hooks: Mapping[int, Hook], kind: str) -> list[Hook]:
    """Return the hooks of a kind, in the order in which they run."""
    return [hook for hook in hooks.values() if hook.kind == kind]


def call(cell: Tree, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Run the ``construct`` of a cell with the hooks around it."""
    for hook in of_kind(cell._hooks, "forward pre"):
        replaced = hook.run(cell, inputs, options) if hook.with_kwargs else hook.run(cell, inputs)
        if replaced is None:
            continue
        if not hook.with_kwargs:
            inputs = replaced if isinstance(replaced, tuple) else (replaced,)
        elif isinstance(replaced, tuple) and len(replaced) == 2:
            inputs, options = replaced
        else:
            raise ArgumentTypeError(
                f"a pre-hook with_kwargs returns a pair of inputs, or None; found {shown(replaced)}"
            )
    output = cell.construct(*inputs, **options)
    for hook in of_kind(cell._hooks, "forward"):
        given = (inputs, options) if hook.with_kwargs else (inputs,)
        replaced = hook.run(cell, *given, output)
        if replaced is not None:
            output = replaced
    return output


def register_forward_pre_hook(
    self: Tree, hook_fn: Callable[..., Any], with_kwargs: bool = False, *, prepend: bool = False
) -> HookHandle:
    """Call a function before the cell runs, until its handle removes it.

    It takes the cell and the tuple of its positional inputs, and may return other inputs. With `with_kwargs` it also
    takes the dict of keyword inputs, and returns both or None. `prepend` lets it run before the earlier hooks.

    Examples
    --------
    >>> from numparam import Cell
    >>> class Double(Cell):
    ...     def construct(self, x):
    ...         return 2 * x
    >>> cell = Double()
    >>> handle = cell.register_forward_pre_hook(lambda cell, inputs: inputs[0] + 1)
    >>> cell(3)
    8
    """
    return _registered(self, Hook("forward pre", hook_fn, with_kwargs), prepend)


def register_forward_hook(
    self: Tree, hook_fn: Callable[..., Any], with_kwargs: bool = False, *, prepend: bool = False
) -> HookHandle:
    """Call a function after the cell ran, with its inputs as in `register_forward_pre_hook`, then the output.

    What it returns, unless that is None, is the output.
    """
    return _registered(self, Hook("forward", hook_fn, with_kwargs), prepend)


def register_state_dict_pre_hook(self: Tree, hook: Callable[..., Any]) -> HookHandle:
    """Call ``hook(cell, prefix, keep_vars)`` before `state_dict` collects the parts of the cell."""
    return _registered(self, Hook("state pre", hook))


def register_state_dict_post_hook(self: Tree, hook: Callable[..., Any]) -> HookHandle:
    """Call ``hook(cell, state_dict, prefix, local_metadata)`` after `state_dict` collected; it may change the dict.

    Examples
    --------
    >>> from numparam import Cell
    >>> cell = Cell()
    >>> handle = cell.register_state_dict_post_hook(lambda cell, state, prefix, _: state.update({prefix + "n": 1}))
    >>> cell.state_dict("net.")
    {'net.n': 1}
    """
    return _registered(self, Hook("state post", hook))


def register_load_state_dict_pre_hook(self: Tree, hook: Callable[..., Any]) -> HookHandle:
    """Call a function before `load_state_dict` looks at a copy of the state, which it may change.

    It takes the cell, the state, the prefix of the cell, an empty dict, ``strict``, and the lists of missing
    paths, unexpected paths and error messages.
    """
    return _registered(self, Hook("load pre", hook))


def register_load_state_dict_post_hook(self: Tree, hook: Callable[..., Any]) -> HookHandle:
    """Call ``hook(cell, keys)`` after `load_state_dict` copied; removing paths from the keys settles them."""
    return _registered(self, Hook("load post", hook))


def _registered(cell: Tree, hook: Hook, prepend: bool = False) -> HookHandle:
    return HookHandle(cell._own("_hooks"), hook.run, f"a {hook.kind} hook", hook, prepend)
