"""Inspection of a qcow2 image and its backing chain, before qemu-nbd is started on it."""

from restorefs.session.qcow2.chain import Chain, ChainError, Image, inspect_chain

__all__ = ["Chain", "ChainError", "Image", "inspect_chain"]
