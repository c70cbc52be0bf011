"""One of two processes with four devices each, which check the parts of a parameter that they hold."""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import numpy as np

import numparam
import numparam.jax
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
values = np.arange(24 * 64, dtype=np.float32).reshape(24, 64)
rows = named_sharding(numparam.Layout({"dp": 2, "tp": 4}, ("dp", None)))
part = values[12 * number : 12 * number + 12]
tree = {"w": made, "rows": jax.make_array_from_process_local_data(rows, part, values.shape)}
# Some shards are in one process, and some in both.
order = np.array(jax.devices())[[0, 1, 4, 5, 2, 6, 3, 7]].reshape(2, 4)
mixed = jax.sharding.NamedSharding(jax.sharding.Mesh(order, ("a", "b")), jax.sharding.PartitionSpec("b"))
tree["mixed"] = jax.make_array_from_callback(values.shape, mixed, lambda index: values[index])
for device, table in numparam.jax.fingerprint(tree, by_device=True).items():
    table.save(f"{sys.argv[3]}/{device}.json")
del tree["mixed"]
numparam.jax.fingerprint(tree).save(f"{sys.argv[3]}/process {number}.json")
