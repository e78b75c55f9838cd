"""Attached disks: attach on first access, share, let go."""
