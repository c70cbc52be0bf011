"""Values given to and taken from others: NumPy, DLPack, pickle, copy."""

import copy
import pickle

import numpy as np

from numparam import Tensor

from .common import Warm, lazy, touched


class Exchange(Warm):
    """Nothing is copied but by pickling and deep copies, of 1 MiB."""

    def setup(self) -> None:
        self.array = touched((512, 512))
        self.tensor = Tensor.from_numpy(self.array)
        self.lazy = lazy((512, 512))
        self.pickled = pickle.dumps(self.tensor)
        self.pickled_lazy = pickle.dumps(self.lazy)
        self.time_repr()

    def time_asnumpy(self) -> None:
        self.tensor.asnumpy()

    def time_from_numpy(self) -> None:
        Tensor.from_numpy(self.array)

    def time_from_dlpack(self) -> None:
        Tensor.from_dlpack(self.array)

    def time_to_dlpack(self) -> None:
        np.from_dlpack(self.tensor)

    def time_pickle(self) -> None:
        pickle.dumps(self.tensor)

    def time_unpickle(self) -> None:
        pickle.loads(self.pickled)

    def time_pickle_lazy(self) -> None:
        pickle.dumps(self.lazy)

    def time_unpickle_lazy(self) -> None:
        pickle.loads(self.pickled_lazy)

    def time_deepcopy(self) -> None:
        copy.deepcopy(self.tensor)

    def time_repr(self) -> None:
        repr(self.tensor)
