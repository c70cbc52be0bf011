"""Checkpoints under the names of ``mindspore.train``."""

from numparam.mindspore._absent import absent
from numparam.mindspore.train.serialization import load_checkpoint, load_param_into_net, save_checkpoint

__all__ = ["load_checkpoint", "load_param_into_net", "save_checkpoint"]

__getattr__ = absent(__name__)
