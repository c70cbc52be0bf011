"""Reduce gradients over the ranks of a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from numparam.checks import as_bool, as_int
from numparam.communication import collectives
from numparam.communication.arrival import arrive
from numparam.communication.group import WORLD_COMM_GROUP
from numparam.communication.management import get_group
from numparam.communication.reduction import ReduceOp, Reduction
from numparam.context import get_auto_parallel_context
from numparam.optim.gradients import SparseRows
from numparam.optim.memory import Array, Parameters, check_count, gradient_array, parameters_of
from numparam.parallel.fusion import Bucket, Fusion, Gradient, plan_buckets
from numparam.parameter import Parameter
from numparam.tensor import Tensor

if TYPE_CHECKING:
    from numparam.kernels.array import DeviceArray

G = TypeVar("G", bound="Tensor | Array | SparseRows")


class DistributedGradReducer:
    """Replace the gradients of each rank by their sum, or mean, over the ranks of a group.

    Gradients are summed in the order of the ranks, ``((g0 + g1) + g2) + g3``, with the same bits on all ranks;
    gradients of 16 and 8 bits in float32, divided there and rounded once. They travel in the buckets that
    `numparam.parallel.fusion` describes; gradients of parameters with ``layerwise_parallel`` are not sent.

    Parameters
    ----------
    parameters : Cell or iterable of Parameter
    mean : bool, optional
        Whether sums are divided by `degree`; ``gradients_mean`` of the parallel context by default.
    degree : int, optional
        The size of the group by default.
    group : str
        The name of a group of this rank.

    Raises
    ------
    TypeError
        If `parameters` holds something else, `mean` is not a bool or `degree` not an int.
    ValueError
        If `degree` is below 1, or this rank is not in such a group.

    Examples
    --------
    >>> weights = [Parameter([1.0, 2.0], name="w"), Parameter([3.0], name="b")]
    >>> reduce = DistributedGradReducer(weights, mean=True)
    >>> reduce([np.ones(2, np.float32), np.ones(1, np.float32)])  # of a single rank
    [array([1., 1.], dtype=float32), array([1.], dtype=float32)]
    """

    def __init__(
        self,
        parameters: Parameters,
        mean: bool | None = None,
        degree: int | None = None,
        *,
        group: str = WORLD_COMM_GROUP,
    ) -> None:
        self.parameters = parameters_of(parameters)
        self.mean = get_auto_parallel_context("gradients_mean") if mean is None else as_bool("mean", mean)
        self.group = get_group(group)
        self.degree = self.group.size if degree is None else as_int("degree", degree, 1)

    def buckets(self, gradients: Sequence[Tensor | Array | DeviceArray | SparseRows] | None = None) -> list[Bucket]:
        """Return which gradients travel together.

        Parameters
        ----------
        gradients : sequence of Tensor or numpy.ndarray, optional
            By default with the shapes and dtypes of the parameters.
        """
        like = [each.values if isinstance(each, SparseRows) else each for each in gradients or self.parameters]
        alone = [isinstance(each, SparseRows) for each in gradients or self.parameters]
        return plan_buckets(
            (
                Gradient(found.nbytes, found.dtype, parameter.comm_fusion, parameter.layerwise_parallel or is_alone)
                for parameter, found, is_alone in zip(self.parameters, like, alone, strict=True)
            ),
            Fusion.from_context(),
        )

    def __call__(self, gradients: Sequence[G]) -> list[G]:
        """Reduce gradients in place.

        Parameters
        ----------
        gradients : sequence of Tensor, numpy.ndarray or SparseRows
            One for each parameter, writable, of its shape. They hold the result afterwards. `SparseRows` stay as they
            are.

        Returns
        -------
        list
            The same objects; for `SparseRows` the rows that any rank has, whose values have at least 32 bits.

        Raises
        ------
        TypeError
            If one is neither a tensor nor an array.
        ValueError
            If their number or a shape is another, or one is read-only.
        RuntimeError
            If another rank is late, or calls another operation.
        """
        check_count(self.parameters, gradients)
        pairs: list[tuple[Parameter, Any]] = list(zip(self.parameters, gradients, strict=True))
        found = [each if isinstance(each, SparseRows) else _memory(parameter, each) for parameter, each in pairs]
        for number, places in self.buckets(found):
            self._reduce(number, [self.parameters[place].name for place in places], [found[place] for place in places])
        reduced: list[Any] = [self.rows(*pair) if isinstance(pair[1], SparseRows) else pair[1] for pair in pairs]
        return reduced

    def rows(self, parameter: Parameter, gradient: SparseRows) -> SparseRows:
        """Return the rows of the gradients of all ranks, or of this one's of a parameter with `layerwise_parallel`."""
        own, group = gradient.summed(), self.group
        if parameter.layerwise_parallel:
            return own
        operation = f"rows of {own.values.dtype}, gradient of {parameter.name!r:.120}"
        arrive(group, operation)
        counts = collectives.gather_small(group, operation, np.array([len(own.rows)]))[:, 0]
        gathered = []
        for part in own:
            sent = np.zeros((counts.max(), *part.shape[1:]), part.dtype)
            sent[: len(part)] = part
            every = np.empty((group.size, *sent.shape), part.dtype)
            collectives.all_gather(group, operation, sent.reshape(-1), every.reshape(-1))
            gathered.append(np.concatenate([each[:count] for each, count in zip(every, counts, strict=True)]))
        rows, values = SparseRows(*gathered).summed()
        wide: Array = values.astype(np.float64 if values.dtype == np.float64 else np.float32, copy=False)
        return SparseRows(rows, np.divide(wide, self.degree if self.mean else 1, dtype=wide.dtype))

    def _reduce(self, number: int, names: list[str], found: list[Any]) -> None:
        rows = [np.asarray(array, order="C") if isinstance(array, np.ndarray) else array for array in found]
        dtype = rows[0].dtype
        reduction = Reduction(ReduceOp.SUM, dtype, self.degree if self.mean else 1)
        operation = (
            f"{'mean' if self.mean else 'sum'} of {sum(array.size for array in rows)} {dtype}, "
            f"gradients of bucket {number} from {names[0]!r:.60} to {names[-1]!r:.60}"
        )
        arrive(self.group, operation)
        collectives.all_reduce(self.group, operation, [array.reshape((array.size,)) for array in rows], reduction)
        for array, reduced in zip(found, rows, strict=True):
            if reduced is not array:  # its rows do not lie one after another
                np.copyto(array, reduced)


def _memory(parameter: Parameter, gradient: Any) -> Array | DeviceArray:
    """Return the memory of a gradient, which is written to."""
    memory = gradient._settle().array if isinstance(gradient, Tensor) else gradient
    if hasattr(memory, "address"):  # of a CUDA device
        return cast("DeviceArray", memory)
    return gradient_array(parameter, gradient, parameter.shape)
