"""Initial values for PyTorch: each rank writes exactly its shard of every parameter, and no mesh changes a value.

`init_` fills a ``torch.nn.Module`` in place, `fill_` one tensor. Both write straight into the tensor's memory, on
the CPU or on an NVIDIA GPU, without torch's random generators and without communication. The value of an element is a
function of the seed, the dotted name of the parameter and the index in the full parameter. It has the bits of
``numparam.Parameter(numparam.initializer.initializer(...), name=...)``, whether the parameter is an ordinary tensor or
a ``DTensor`` in any number of shards.

With FSDP2, initialisation is one line::

    with torch.device("meta"):
        model = Transformer(...)
    for layer in model.layers:
        fully_shard(layer)
    fully_shard(model)
    numparam.torch.init_(model, seed=7, device="cuda")  # or model.to_empty(device="cuda") first, and no device here

By default each layer keeps torch's distribution; `numparam.torch.layers` lists them.
"""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ModuleNotFoundError("numparam.torch fills PyTorch modules: pip install torch", name="torch")

from numparam.initializer.padded import PaddedNormal
from numparam.torch.drawing import drawing
from numparam.torch.filling import fill_
from numparam.torch.growing import grow_
from numparam.torch.identifying import Misplaced, identify
from numparam.torch.megatron import megatron_shards
from numparam.torch.modules import init_
from numparam.torch.report import Report
from numparam.torch.verify import fingerprint, pattern_, verify
from numparam.torch.views import views

__all__ = [
    "Misplaced",
    "PaddedNormal",
    "Report",
    "drawing",
    "fill_",
    "fingerprint",
    "grow_",
    "identify",
    "init_",
    "megatron_shards",
    "pattern_",
    "verify",
    "views",
]
