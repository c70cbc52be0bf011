"""Check that weights arrived: fingerprints of parameters that add up over shards, and what they are compared with."""

from numparam.fingerprints.identification import Identification, identify
from numparam.fingerprints.measure import fingerprint
from numparam.fingerprints.table import Difference, Fingerprints
from numparam.fingerprints.value import Fingerprint
from numparam.fingerprints.verifying import Verification, verify
from numparam.fingerprints.view import View

__all__ = [
    "Difference", "Fingerprint", "Fingerprints", "Identification", "Verification", "View", "fingerprint", "identify",
    "verify",
]  # fmt: skip
