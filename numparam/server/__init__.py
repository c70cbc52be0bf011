"""Parameter servers on MPI: some ranks hold parameters and tables, the others train them.

>>> from numparam.server import get_ps_context, set_ps_context, reset_ps_context
>>> set_ps_context(enable_ps=True)
>>> get_ps_context("enable_ps")
True
>>> reset_ps_context()
"""

from numparam.server.context import get_ps_context, reset_ps_context, set_ps_context
from numparam.server.job import ParameterServer

__all__ = ["ParameterServer", "get_ps_context", "reset_ps_context", "set_ps_context"]
