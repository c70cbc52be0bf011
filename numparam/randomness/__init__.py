"""Statistical tests of the random stream, as parameters read it: the room behind ``numparam selftest --random``."""

from numparam.randomness.answers import known_answers
from numparam.randomness.report import Report, Result, dieharder, examine
from numparam.randomness.words import ORDERS, words

__all__ = ["ORDERS", "Report", "Result", "dieharder", "examine", "known_answers", "words"]
