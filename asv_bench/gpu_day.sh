#!/usr/bin/env bash
# The day a GPU can be had: bits first, then speed, in under eight minutes, without network and without installing.
# Needs Python 3.11 or later with NumPy, ml_dtypes, numba, numba-cuda and cuda-core; torch, CuPy and pytest if present.
# The options are those of gpu_day.py; --rehearse runs on a CUDA driver in software.
set -u
cd "$(dirname "$0")/.." || exit
exec "${PYTHON:-python3}" asv_bench/gpu_day.py "$@"
