"""Inspection of a qcow2 image and its backing chain, before qemu-nbd is started on it."""

from restorefs.session.qcow2.chain import Chain, ChainError, Image, check_alone, inspect_chain
from restorefs.session.qcow2.file import ImageBytes

__all__ = ["Chain", "ChainError", "Image", "ImageBytes", "check_alone", "inspect_chain"]
