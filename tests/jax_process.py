"""One of two processes with four devices each, which check the parts of a parameter that they hold."""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import numpy as np

import numparam
from numparam.initializer import Normal, initializer
from numparam.jax import array, named_sharding

number, address = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(address, num_processes=2, process_id=number)
numparam.set_seed(7)
parameter = numparam.Parameter(initializer(Normal(0.02), (48, 64)), name="w")
for spec in [("tp", "dp"), (None, "tp"), ()]:
    made = array(parameter, named_sharding(numparam.Layout({"dp": 2, "tp": 4}, spec)))
    assert len(made.addressable_shards) == 4
    for shard in made.addressable_shards:
        np.testing.assert_array_equal(shard.data, parameter.copy().asnumpy()[shard.index])
print("every part is right")
