"""Choosing heads on held-out rows, ranking them, fitting the choice again, and the one test score."""
