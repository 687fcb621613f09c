"""A network to figures and pictures."""
