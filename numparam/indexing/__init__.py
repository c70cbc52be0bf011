"""Read and write parts of arrays: regions, indices as NumPy has them, and rows by number."""
