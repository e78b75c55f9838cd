"""Readers of the guests' file systems, and the recognition of those not read yet."""
