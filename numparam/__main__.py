"""Run the command line: ``python -m numparam``."""

import sys

from numparam.cli import main

if __name__ == "__main__":
    sys.exit(main())
