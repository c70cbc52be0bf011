"""The initializer of parameters that will be loaded."""

from numparam.errors import StateError
from numparam.indexing.region import Region
from numparam.initializer.base import PlainInitializer
from numparam.stream.source import Buffer, Source


class Unset(PlainInitializer):
    """Leave a parameter without values until they are loaded or set; reading it before is an error.

    Use it for a model that a checkpoint will fill. What the checkpoint lacks is never garbage, but an error that names
    the parameter; `numparam.Cell.uninitialized` lists it before.

    Raises
    ------
    RuntimeError
        When values are needed.

    Examples
    --------
    >>> from numparam import Parameter
    >>> from numparam.initializer import initializer
    >>> weight = Parameter(initializer("unset", (4096, 4096)), name="weight")
    >>> weight[0, 0].asnumpy()
    Traceback (most recent call last):
        ...
    numparam.errors.StateError: parameter 'weight' holds no values yet: load a checkpoint, or set its data
    """

    def fill(self, out: Buffer, region: Region, source: Source) -> None:  # noqa: ARG002
        raise StateError(f"{source} holds no values yet: load a checkpoint, or set its data")
