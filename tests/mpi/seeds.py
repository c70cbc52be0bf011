"""What init does about seeds that ranks set or drew before it."""

import sys

import numparam
from numparam.communication import init
from numparam.initializer import initializer

case = sys.argv[1]
if case == "set":
    numparam.set_seed(11)
elif case == "drawn":
    initializer("normal", 3)
init(timeout=60)
print(f"{numparam.get_seed()}\n", end="")
