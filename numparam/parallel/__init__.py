"""Parameters of one model on many ranks."""
