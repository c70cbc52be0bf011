"""Seeded noise for training without gradients: perturbations that are undone exactly, and logs that replay them.

>>> from numparam import Parameter
>>> from numparam.perturb import perturbed
>>> weight = Parameter([1.0, 2.0], name="w")
>>> perturbed(weight, seed=7, scale=0.5, noise="rademacher").asnumpy() - weight.asnumpy()
array([0.5, 0.5], dtype=float32)
"""

from numparam.perturb.loop_noise import LoopNoise, noise
from numparam.perturb.moved import antithetic, perturb_, perturbed, snap_, unperturb_
from numparam.perturb.replay import Replay

__all__ = ["LoopNoise", "Replay", "antithetic", "noise", "perturb_", "perturbed", "snap_", "unperturb_"]
