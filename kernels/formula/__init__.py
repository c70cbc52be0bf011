"""Pure scalar formulas, written once and compiled for every target."""
