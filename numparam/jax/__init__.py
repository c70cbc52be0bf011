"""Initial values for JAX: any mesh gets the bits of the parameter of that name, generated shard by shard.

`array` makes a sharded ``jax.Array`` of a parameter, `init` a full pytree of them, `initializer` a function shaped
like the ones of ``jax.nn.initializers``, and `named_sharding` the sharding that a `numparam.Layout` describes. Their
values are a pure function of the seed, the name and the index: no mesh, no number of processes and no version of JAX
changes them.

JAX has the axes of a weight in another order than MindSpore and PyTorch: ``(*kernel, inputs, outputs)``. `initializer`
and `init` count fans in that order; `Kernel` is for other axes.

Examples
--------
A function for the layers of Flax, Haiku or your own, with the distribution that JAX has under that name:

>>> import jax, numpy as np
>>> kernel_init = initializer("lecun_normal", "dense.kernel", seed=7)
>>> kernel = kernel_init(None, (512, 256))
>>> kernel.shape, round(float(kernel.std()) * 512**0.5, 1)
((512, 256), 1.0)

In Flax, linen as nnx, under ``jax.jit`` or not: ``nn.Dense(256, kernel_init=kernel_init)``, and ``nnx.Linear(512, 256,
kernel_init=kernel_init, rngs=rngs)``. A name belongs to one parameter, so make a function for each; or initialise the
full tree, whose parameters have the names of their places:

>>> shapes = {"dense": {"kernel": jax.ShapeDtypeStruct((512, 256), np.float32)}}
>>> bool((init(shapes, {"*kernel": "lecun_normal"}, seed=7)["dense"]["kernel"] == kernel).all())
True

A model has its own initializers. `eval_shape` finds them, for ``model.init`` of linen, ``optimizer.init`` of optax,
or a function that returns a module of nnx or what ``nnx.split`` makes of it, and `init` follows them:
``init(eval_shape(model.init, key, x), seed=7)``.
"""

from importlib.util import find_spec

if find_spec("jax") is None:
    raise ModuleNotFoundError("numparam.jax makes arrays of JAX: install it with pip install jax", name="jax")

from numparam.jax.arrays import array, callback
from numparam.jax.copies import copies
from numparam.jax.entry import initializer
from numparam.jax.fingerprint import fingerprint
from numparam.jax.kernel import Kernel
from numparam.jax.mesh import layout, named_sharding
from numparam.jax.starts import eval_shape
from numparam.jax.tree import init

__all__ = [
    "Kernel", "array", "callback", "copies", "eval_shape", "fingerprint", "init", "initializer", "layout",
    "named_sharding",
]  # fmt: skip
