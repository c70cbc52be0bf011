"""The random stream: seeds, and the values of a parameter as a function of seed, name and index."""
