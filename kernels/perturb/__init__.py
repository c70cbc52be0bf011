"""Noise that is drawn and added in one pass over memory, on the device where the arrays are."""

from numparam.kernels.perturb.entry import perturb, perturb_on_lattice
from numparam.kernels.perturb.noise import Dense, LowRank

__all__ = ["Dense", "LowRank", "perturb", "perturb_on_lattice"]
