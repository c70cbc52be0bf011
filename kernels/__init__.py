"""Array kernels of numparam: fills, copies, conversions and rows of arrays, on a CPU and on CUDA devices.

Nothing here knows parameters, cells or names. An operation has four parts: the formula, written once; the CPU loop; the
CUDA kernel; and the entry, which picks one of them from a table by the kind of the device. Importing this package
imports neither numba nor any operation; import the operation itself, for example ``from numparam.kernels import fill``.

Files
-----
``machine/``   what formulas and loops are made of
    ``lanes`` strict integer and float types of one or many lanes; ``cuda`` threads, and what NVVM would round
    differently; ``memory`` loads, stores and transposes at addresses; ``compile`` the only place that calls Numba;
    ``cache`` compiled kernels on disk; ``pool`` the threads of a CPU; ``driver`` all calls of the CUDA driver
``formula/``   what is computed, for every target
    ``philox`` random bits; ``elementary`` logarithm, cosine and sine; ``distributions`` random words to values;
    ``formats`` floating-point dtypes; ``access`` loads and stores of them; ``integers`` all others; ``axes`` where a
    row is
``array``      arrays in device memory: views, and copies from and to the host
``dispatch``   the kind of device that holds an array
``launch``     the shape of a grid, and the only place that launches
``batch``      many small arrays in few launches
``fill/``      random fills and constants
    ``entries``, ``cpu``, ``rows``, ``cuda``, ``constant``; ``draws`` distributions and dtypes; ``key`` streams and
    slices
``copy/``      copies and conversions between any strides, dtypes and devices
    ``entry``, ``walk`` a copy without its arrays; ``cpu``, ``runs``, ``transposes``, ``convert`` on a CPU; ``cuda``,
    ``cuda_rows``, ``cuda_tiles``, ``cuda_convert`` on a device
``digest/``    sums over bits and places: ``entry``, ``key``, ``words``, ``formulas``, ``cpu``, ``cuda``
``rows/``      gather and scatter of rows: ``entry``, ``cpu``, ``cuda``
``keys/``      sets of int64 keys on a CPU: ``index``, ``bitmap``, ``recent``; ``sums`` of rows by key
``update/``    steps of optimizers, fused and in place
``perturb/``   noise that is drawn and added in one pass: ``entry``, ``formulas``, ``cpu``, ``cuda``
``orthogonal`` the orthogonal factor of a matrix, on a CPU
"""
