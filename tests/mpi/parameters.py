"""What becomes of the parameters and gradients of several ranks, checked by every rank; the argument names the case."""

import numpy as np
from cases import run_cases

import numparam
from numparam import Cell, CellList, Layout, Parameter
from numparam.communication import get_group_size, get_rank, init
from numparam.errors import DisagreementError
from numparam.initializer import initializer
from numparam.parallel import DistributedGradReducer, broadcast_parameters, check_agreement


class Net(Cell):
    """A net whose values are another on each rank."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(get_rank())
        self.weights = CellList([Cell(), Cell()])
        for place, cell in enumerate(self.weights):
            cell.w = Parameter(rng.standard_normal((9 + place, 7)).astype(np.float32))
            cell.half = Parameter(rng.standard_normal(5).astype(np.float16))
        self.wide = Parameter(rng.standard_normal((3, 1001)))
        self.steps = Parameter(get_rank())
        self.own = Parameter(np.full(3, get_rank(), np.float32), layerwise_parallel=True)


def bits(parameter: Parameter) -> bytes:
    return parameter.asnumpy().tobytes()


def broadcasts_rank_0() -> None:
    net = Net()
    rank_0 = np.random.default_rng(0)
    expected = [rank_0.standard_normal((9, 7)).astype(np.float32), rank_0.standard_normal(5).astype(np.float16)]
    before = net.weights[0].w
    broadcast_parameters(net)
    assert net.weights[0].w is before
    assert before.asnumpy().tobytes() == expected[0].tobytes()
    assert bits(net.weights[0].half) == expected[1].tobytes()
    assert net.steps.asnumpy() == 0
    assert net.own.asnumpy().tolist() == [get_rank()] * 3
    assert net.wide.origin == ("set_data" if get_rank() else "input")
    check_agreement(net)


def leaves_lazy_parameters_lazy() -> None:
    numparam.set_seed(5)
    same = Parameter(initializer("uniform", (2**20, 2**20)), name="same")  # no rank could hold it
    numparam.set_seed(get_rank())
    other = Parameter(initializer("uniform", (7,)), name="other")
    made = Parameter(initializer("uniform", (7,)), name="made")
    if get_rank():
        made.init_data()
    check_agreement([same])
    broadcast_parameters([same, other, made])
    assert same.has_init
    assert not other.has_init
    check_agreement([same, other, made])
    numparam.set_seed(0)
    assert bits(other) == bits(Parameter(initializer("uniform", (7,)), name="other"))


def compares_lazy_with_made_values() -> None:
    numparam.set_seed(5)
    lazy = Parameter(initializer("uniform", (300, 7)), name="w")
    if get_rank() == 0:
        lazy.init_data()
    check_agreement([lazy])
    assert lazy.has_init == (get_rank() > 0)


def replaces_values_that_cannot_be_written_to() -> None:
    values = np.full((3, 4), get_rank(), np.float32)
    values.flags.writeable = False
    frozen, turned = Parameter(1.0, name="a"), Parameter(1.0, name="b")
    frozen._hold(values)
    turned._hold(np.full((3, 4), get_rank() + 1, np.float32).T)
    broadcast_parameters([frozen, turned])
    assert (frozen.asnumpy() == 0).all()
    assert (turned.asnumpy() == 1).all()
    assert (values == get_rank()).all()


def names_the_first_that_differs() -> None:
    net = Net()
    broadcast_parameters(net)
    if get_rank() == 2:
        net.weights[1].w[3, 4] = np.nextafter(net.weights[1].w.asnumpy()[3, 4], np.float32(9))
        net.weights[1].half[0] = 5.0
    try:
        check_agreement(net)
    except DisagreementError as error:
        print(f"{error}\n", end="")
    else:
        raise AssertionError("nothing was found")


def takes_no_notice_of_zeros_of_either_sign_but_does_of_bits() -> None:
    nan = Parameter(np.array([np.nan, 1.0]), name="nan")
    check_agreement([nan])
    zero = Parameter(np.array([0.0 if get_rank() else -0.0]), name="zero")
    try:
        check_agreement([zero])
    except DisagreementError as error:
        print(f"{error}\n", end="")


def leaves_slices_out() -> None:
    numparam.set_seed(1)
    part = Parameter(initializer("uniform", (8, 3)), name="part")
    part.init_data(Layout({"tp": get_group_size()}, ("tp",)), set_sliced=True)
    before = bits(part)
    whole = Parameter(np.full(3, get_rank()), name="whole")
    broadcast_parameters([part, whole])
    check_agreement([part, whole])
    assert bits(part) == before


def finds_different_lists() -> None:
    parameters = [Parameter(1.0, name="a"), Parameter(1.0, name="c" if get_rank() == 1 else "b")]
    for given in (parameters, parameters[: 1 + get_rank() % 2], [Parameter(np.ones(1 + get_rank()), name="a")]):
        try:
            broadcast_parameters(given)
        except DisagreementError as error:
            print(f"{error}\n", end="")


def gradients_of(rank: int, parameters: list[Parameter]) -> list[np.ndarray]:
    rng = np.random.default_rng(rank + 1)
    return [rng.standard_normal(parameter.shape).astype(parameter.dtype) for parameter in parameters]


def reduces_gradients() -> None:
    shapes = [(5, 3), (), (2001,), (0, 4), (7,), (4, 4)]
    dtypes = ["float32", "float32", "bfloat16", "float32", "float16", "float32"]
    parameters = [
        Parameter(np.zeros(shape, numparam.dtypes.as_dtype(dtype)), name=f"p{place}")
        for place, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    ]
    parameters[5].layerwise_parallel = True
    every = [gradients_of(rank, parameters) for rank in range(get_group_size())]
    for options in (
        {},
        {"comm_fusion": {"openstate": False}},
        {"comm_fusion": {"openstate": True, "allreduce": {"mode": "index", "config": [0, 2]}}},
        {"gradients_mean": True},
    ):
        numparam.set_auto_parallel_context(**options)
        given = [gradient.copy() for gradient in every[get_rank()]]
        given[0] = np.asfortranarray(given[0])
        given[2] = numparam.Tensor(given[2])
        found = DistributedGradReducer(parameters)(given)
        assert all(one is other for one, other in zip(found, given, strict=True))
        for place, parameter in enumerate(parameters):
            total = every[0][place].astype(np.float32)
            for gradients in every[1:]:
                total = total + gradients[place].astype(np.float32)
            if "gradients_mean" in options:
                total = total / np.float32(get_group_size())
            wanted = every[get_rank()][place] if place == 5 else total.astype(parameter.dtype)
            assert np.asarray(found[place]).tobytes() == wanted.tobytes(), (options, place)
    halved = DistributedGradReducer(parameters[:1], mean=True, degree=2)([np.ones((5, 3), np.float32)])[0]
    assert (halved == get_group_size() / 2).all()


def reduces_a_large_bfloat16_gradient() -> None:
    dtype = numparam.dtypes.as_dtype("bfloat16")
    rng = np.random.default_rng(0)
    every = [rng.standard_normal(3_000_001).astype(np.float32).astype(dtype) for _ in range(get_group_size())]
    weight = Parameter(np.zeros(3_000_001, dtype), name="w")
    found = DistributedGradReducer([weight], mean=False)([every[get_rank()].copy()])[0]
    wanted = (every[0].astype(np.float32) + every[1].astype(np.float32)).astype(dtype)
    assert found.tobytes() == wanted.tobytes()


def counts_arrivals() -> None:
    """Fusion saves arrivals: one for each bucket."""
    from numparam.communication.exchange import world

    everyone = world.groups["mpi_world_group"]
    parameters = [Parameter(np.zeros(4, np.float32), name=f"p{place}") for place in range(10)]
    counts = []
    for number in (1, 0):
        for parameter in parameters:
            parameter.comm_fusion = number
        before = everyone.operations
        DistributedGradReducer(parameters)([np.zeros(4, np.float32) for _ in parameters])
        counts.append(everyone.operations - before)
    assert counts == [1, 10]


if __name__ == "__main__":
    init(timeout=60)
    run_cases(globals(), 1 << 12, large="reduces_a_large_bfloat16_gradient")
