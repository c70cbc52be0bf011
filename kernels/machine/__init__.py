"""What a processor and a CUDA device can do: lanes, memory, threads, compilers and the driver."""
