"""One parameter, many frameworks: where the tensors of a framework hold the canonical parameters of an architecture."""

from numparam.views.pack import FRAMEWORKS, Pack, load
from numparam.views.viewed import Part, Viewed

__all__ = ["FRAMEWORKS", "Pack", "Part", "Viewed", "load"]
