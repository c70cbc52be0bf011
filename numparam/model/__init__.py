"""Whole models: their specification, generation, verification, statistics and plan."""
