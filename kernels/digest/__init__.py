"""Sums over the bits of arrays that reveal whether any element changed or moved, on any device."""

from numparam.kernels.digest.entry import digest
from numparam.kernels.digest.key import MODULUS, DigestKey

__all__ = ["MODULUS", "DigestKey", "digest"]
