"""Rules: which initializer a parameter gets, by its name, shape or dtype."""

from numparam.rules.globs import Glob, GlobIndex
from numparam.rules.rules import Rule, RuleError, Rules

__all__ = ["Glob", "GlobIndex", "Rule", "RuleError", "Rules"]
