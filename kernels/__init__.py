"""Array kernels of numparam: random fills, constants and casts on arrays, scalars and device kinds.

One file per operation, each with the same parts in the same order: formula, loop, entry. Nothing here knows
parameters, cells or names. Importing this package imports neither numba nor any operation; import the operation
itself, for example ``from numparam.kernels import fill``.

Files
-----
``_lanes``        the machine: strict integer and float types of one or many lanes, and their primitive operations
``_cuda``         what a CUDA thread has beside it, and the operations that NVVM would round otherwise
``_compile``      the only place that calls Numba: compile options and the on-disk cache
``threads``       the thread pool and how work is split
``random_bits``   Philox4x32-10
``elementary``    logarithm, cosine and sine from correctly rounded operations only
``distributions`` random words to uniform, normal and truncated normal values
``casts``         float32 to float16, bfloat16 and float8 bits
``fill``          random fill of an array that holds any slice of a tensor
``fill_threads``  the random fill's CUDA kernels, around the same formulas
``copy_threads``  copies by CUDA kernels, by the walk of a CPU
``transpose_threads``   copies by CUDA kernels with two axes exchanged
``conversion_threads``  conversions by CUDA kernels, around the same formulas
``rows_threads``  gather and scatter of rows by CUDA kernels
``batch``         many small arrays in few launches
``device_array``  arrays in device memory, and copies from and to the host
``_driver``       all that is asked of the CUDA driver
``_launch``       the shape of a grid, and the only place that launches
``_dispatch``     which twin of an operation an array takes
``constant``      constant fill
``_memory``       loads and stores at addresses, past the caches where asked, and transposes in registers
``copy``          copies of any layout: finds the loop that suits it
``runs``          the loop over consecutive pieces
``transposes``    the loop over blocks that are transposed
``conversion``    copies between floating-point dtypes
``rows``          gather and scatter of rows
"""
