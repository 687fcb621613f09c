"""What users would run in place of this package: networks in PyTorch.

Run by a Python that has PyTorch, which needs nothing of this package.
"""
