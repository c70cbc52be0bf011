"""Models: their specification, generation, verification, statistics and plan."""
