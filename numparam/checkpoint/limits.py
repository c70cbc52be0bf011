"""Limits for files from others; `docs/reliability.md` gives the reasons.

Each limit is checked before the work that it bounds, so that the time and the memory that a file takes are in
proportion to its size.
"""

MAX_HEADER_BYTES = 100_000_000  # of a header or an index: the limit of the safetensors library
MAX_JSON_ITEMS = 8_000_000  # brackets and braces of a header: a million parameters have three million
MAX_FILE_BYTES = 2**63 - 1
MAX_NAME = 1024  # characters of the name of a parameter
MAX_FIELDS = 4_000_000  # of a .ckpt file, which has about ten for each tensor
MAX_FULL_BYTES = 2**30  # of a parameter that is computed in full for the slice that a file records
