"""Parameters and gradients of several ranks on CUDA devices, for which the memory of the host stands."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from interpreted_device import interpreted
from numparam import Parameter, Tensor
from numparam.communication import collectives, comm_func, get_rank, init
from numparam.kernels import array as device_array
from numparam.parallel import DistributedGradReducer, broadcast_parameters, check_agreement

SIZES = (5, 3000, 40)


def main() -> None:
    init(timeout=60)
    collectives.CHUNK_BYTES, collectives._CHUNK_BYTES_PER_RANK = 1 << 12, 1 << 10
    device_array.STAGING_BYTES = 1 << 10
    rng = np.random.default_rng(get_rank())
    brought = [rng.standard_normal(size).astype(np.float32) for size in SIZES]
    rngs = [np.random.default_rng(rank) for rank in range(2)]
    every = [[rng.standard_normal(size).astype(np.float32) for size in SIZES] for rng in rngs]

    parameters = [
        Parameter(values, name=f"p{size}", device="cuda") for size, values in zip(SIZES, brought, strict=True)
    ]
    for parameter in parameters:  # the device has still to do this when the values are sent
        parameter._values = parameter._values.duplicate()
    broadcast_parameters(parameters)
    for parameter, values in zip(parameters, every[0], strict=True):
        assert parameter.device == "cuda:0"
        assert np.array_equal(parameter.asnumpy(), values)
    check_agreement(parameters)

    gradients = [Tensor(values, device="cuda") for values in brought]
    places = [gradient._values.array.address for gradient in gradients]
    DistributedGradReducer(parameters)(gradients)
    for gradient, place, first, second in zip(gradients, places, *every, strict=True):
        assert gradient._values.array.address == place
        assert np.array_equal(gradient.asnumpy(), first + second)

    total = comm_func.all_reduce(Tensor(brought[0], device="cuda"))
    assert total.device == "cuda:0"
    assert np.array_equal(total.asnumpy(), every[0][0] + every[1][0])
    comm_func.barrier()
    print("done\n", end="", flush=True)  # in one piece: the ranks write at the same time


if __name__ == "__main__":
    with interpreted():
        main()
