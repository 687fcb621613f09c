"""Weights that others trained: their files, and their names in ours."""
