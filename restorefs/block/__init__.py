"""Bytes of disks: real ones behind NBD or in a file, and windows onto them."""
