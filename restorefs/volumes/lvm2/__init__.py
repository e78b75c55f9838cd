"""LVM2: volume groups on one disk or several, read in user space."""
