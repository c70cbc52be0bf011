"""How the modules of a model declare that they start: the code of their authors, which `init_` runs while drawing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch

from numparam.rules import RuleError
from numparam.torch.mode import Drawing
from numparam.torch.walk import Visit, is_of

METHODS = (
    "init_states",
    "init_weights",
    "initialize_weights",
    "_init_weights",
    "_initialize_weights",
    "initialize_parameters",
    "init_parameters",
    "reset_parameters",
    "_reset_parameters",
)
"""The methods that declare a start, the most specific first."""


_DRAWN = ("gaussian", "kaiming_uniform", "xavier_uniform")
"""What adapters of PEFT may start with that does not depend on the weights of the base model."""


class Start(NamedTuple):
    """The start of a module and of all that is in it."""

    module: torch.nn.Module
    run: Callable[[Drawing], Any]
    rule: str
    """The class and its method."""


def starts(visits: Iterable[Visit]) -> tuple[list[Start], list[Start]]:
    """Return the starts of the outermost modules that declare one, then the starts of adapters inside them.

    Examples
    --------
    >>> from numparam.torch.walk import modules
    >>> class Scaled(torch.nn.Linear):
    ...     def reset_parameters(self):
    ...         torch.nn.init.ones_(self.weight)
    >>> [start.rule for start in starts(modules(torch.nn.Sequential(Scaled(2, 2), torch.nn.Linear(2, 2))))[0]]
    ['Scaled.reset_parameters']
    """
    outer: dict[int, Start] = {}
    adapters = []
    for inside, part, around in visits:
        kind: Any = type(part)
        if not _may_start(kind):
            continue
        configs: Any = next((outside.peft_config for _, outside in around if hasattr(outside, "peft_config")), {})
        if is_of(part, "PromptEmbedding", "peft") or is_of(part, "CPTEmbedding", "peft"):
            how = getattr(configs.get(inside.split(".")[-2]), "prompt_tuning_init", "TEXT")
            if how != "RANDOM":  # it is copied from the embeddings of the base model
                adapters.append(Start(part, _refused(part), kind.__qualname__))
        elif is_of(part, "BaseTunerLayer", "peft"):
            name, takes = _reset(kind)
            run = _adapter(part, configs, name, takes) if name else _refused(part)
            adapters.append(Start(part, run, f"{kind.__qualname__}.{name}"))
        elif not any(id(outside) in outer for _, outside in around) and (start := start_of(part)) is not None:
            outer[id(part)] = start
    return list(outer.values()), adapters


def start_of(module: torch.nn.Module) -> Start | None:
    """Return the start that the class of a module declares, None if it is a layer of torch or declares none."""
    kind: Any = type(module)
    if is_of(module, "PreTrainedModel", "transformers"):
        return Start(module, lambda _: _transformers(module), f"{kind.__qualname__}._init_weights")
    if is_of(module, "ModelMixin", "diffusers"):
        return Start(module, lambda _: None, f"{kind.__qualname__}.__init__")
    for name in _declared(kind):
        method = getattr(module, name)
        needed = [
            argument
            for argument in inspect.signature(method).parameters.values()
            if argument.default is argument.empty
            and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
        ]
        rule = f"{kind.__qualname__}.{name}"
        if not needed:
            return Start(module, _without_mode(method), rule)
        if len(needed) == 1 and (needed[0].name in ("module", "m", "layer") or "Module" in str(needed[0].annotation)):
            return Start(module, _without_mode(partial(module.apply, method)), rule)
    return None


@lru_cache(maxsize=1024)  # models have thousands of modules of a few classes
def _may_start(kind: Any) -> bool:
    packages = {base.__module__.split(".")[0] for base in kind.__mro__}
    return not packages.isdisjoint(("transformers", "diffusers", "peft")) or bool(_declared(kind))


@lru_cache(maxsize=1024)
def _declared(kind: Any) -> tuple[str, ...]:
    """Return the methods that a class declares itself, and not only torch."""
    owners = {name: next((base for base in kind.__mro__ if name in vars(base)), None) for name in METHODS}
    return tuple([name for name, owner in owners.items() if owner and owner.__module__.split(".")[0] != "torch"])


def _without_mode(method: Callable[[], Any]) -> Callable[[Drawing], Any]:
    return lambda _: method()


def _transformers(model: Any) -> None:
    """Run the initialisation of a model of transformers, which skips what it has marked as initialised."""
    for part in model.modules():
        for marked in (part, *part._parameters.values(), *part._buffers.values()):
            if getattr(marked, "_is_hf_initialized", False):
                marked._is_hf_initialized = False
    for part in model.modules():
        if is_of(part, "BaseTunerLayer", "peft"):
            for name, child in part.named_children():
                for inside in child.modules() if name != "base_layer" else ():
                    inside._is_hf_initialized = True  # PEFT starts it
    if hasattr(model, "initialize_weights"):
        # The class that FSDP2 makes is not of transformers, whose code then skips modules without parameters.
        vars(model)["is_custom_code"] = lambda: False
        try:
            model.initialize_weights()
        finally:
            del vars(model)["is_custom_code"]
    else:
        with torch.no_grad():
            model.apply(model._init_weights)


@lru_cache(maxsize=1024)
def _reset(kind: Any) -> tuple[str, tuple[str, ...]]:
    """Return the method by which a class of PEFT starts an adapter, and what it takes as well as the adapter's name."""
    for name in dir(kind):
        if re.fullmatch("reset_[a-z0-9]+_parameters", name):
            more = list(inspect.signature(getattr(kind, name)).parameters.values())[2:]
            if all(each.default is not each.empty or each.name.startswith("init_") for each in more):
                return name, tuple([each.name for each in more])
    return "", ()


def _refused(layer: Any) -> Callable[[Drawing], None]:
    """Refuse an adapter that its class starts in another way; the layers of torch in it may have to be zero."""
    kind: Any = type(layer)

    def run(mode: Drawing) -> None:
        inside = set(layer.modules()) - set(getattr(layer, "base_layer", torch.nn.Module()).modules())
        for item in mode.tracker.all:
            if item.place.owner in inside and item.place.is_parameter and not item.locked:
                raise RuleError(
                    f"parameter {item.place.name!r}: numparam does not know how {kind.__module__}.{kind.__qualname__} "
                    "starts: add the adapter after init_, or give rules for its parameters"
                )

    return run


def _adapter(layer: Any, configs: Any, method: str, takes: tuple[str, ...]) -> Callable[[Drawing], None]:
    def run(_: Drawing) -> None:
        kinds = getattr(layer, "adapter_layer_names", ("lora_A", "lora_embedding_A"))
        for adapter in dict.fromkeys([key for kind in kinds for key in getattr(layer, kind, ())]):
            config = configs.get(adapter)
            given = {name: getattr(config, name, True) for name in takes if name.startswith("init_")}
            given |= {name: getattr(config, name) for name in takes if hasattr(config, name)}
            for name, how in (given or {"init_weights": getattr(config, "init_weights", True)}).items():
                if name.startswith("init_") and not (isinstance(how, bool) if given else how is True):
                    if how in _DRAWN:
                        continue
                    raise RuleError(
                        f"adapter {adapter!r} starts with {name}={how!r}, which numparam does not follow, such as what "
                        "is computed from the weights of the base model: add the adapter after init_, or give rules "
                        "for its parameters"
                    )
            getattr(layer, method)(adapter, **given)

    return run
