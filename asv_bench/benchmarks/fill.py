"""Fills of full arrays: every draw with every dtype, and every initializer."""

import time

import numparam
from numparam import initializer as init

from .common import DRAWS, DTYPES, ELEMENTS, SIGMA, OneThread, Warm, touched


class Fill(OneThread):
    params = (tuple(DRAWS), DTYPES)
    param_names = ("draw", "dtype")
    threads = 1

    def setup(self, draw: str, dtype: str) -> None:
        numparam.set_num_threads(self.threads)
        self.fill, self.out = DRAWS[draw], touched(ELEMENTS, dtype)
        self.fill(self.out)

    def time_warm(self, draw: str, dtype: str) -> None:
        self.fill(self.out)


class FillWithTwoThreads(Fill):
    timer = time.perf_counter
    params = (tuple(DRAWS), DTYPES[:2])
    threads = 2


SQUARE = (2048, 2048)
INITIALIZERS = {
    "Zero": (init.Zero(), SQUARE),
    "One": (init.One(), SQUARE),
    "CorrectedTruncatedNormal": (init.CorrectedTruncatedNormal(SIGMA), SQUARE),
    "XavierNormal": (init.XavierNormal(), SQUARE),
    "XavierUniform": (init.XavierUniform(), SQUARE),
    "HeNormal": (init.HeNormal(), SQUARE),
    "HeUniform": (init.HeUniform(), SQUARE),
    "LecunNormal": (init.LecunNormal(), SQUARE),
    "LecunUniform": (init.LecunUniform(), SQUARE),
    "VarianceScaling": (init.VarianceScaling(), SQUARE),
    "Identity": (init.Identity(), SQUARE),
    "Dirac": (init.Dirac(), (512, 512, 3, 3)),
    "Sparse": (init.Sparse(0.1), SQUARE),
    "Orthogonal": (init.Orthogonal(), (512, 512)),
}


class Initializers(Warm):
    """Those that `Fill` leaves out, on matrices of layers: what they add to the plain draws."""

    params = tuple(INITIALIZERS)
    param_names = ("initializer",)

    def setup(self, name: str) -> None:
        numparam.set_num_threads(2)
        self.fill, shape = INITIALIZERS[name]
        self.out = touched(shape)
        self.fill(self.out)

    def time_warm(self, name: str) -> None:
        self.fill(self.out)


class SmallFill(Warm):
    """Sixteen values: the cost of a call."""

    def setup(self) -> None:
        self.fill, self.out = DRAWS["normal"], touched(16)
        self.fill(self.out)

    def time_call(self) -> None:
        self.fill(self.out)
