"""restorefs: every disk of every VM backup as a folder of one read-only mount."""

__version__ = "0.1.0"
