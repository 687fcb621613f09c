"""Batches to a trained network."""
