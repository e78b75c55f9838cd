"""The XFS guest file system, versions 4 and 5.

Bytes to values, without I/O: features, layout (the superblock), checksum (the headers of version
5), inode_record, extents, btree, directory, shortform, dirhash, dabtree, xattr, logrecord. Walking
a device with them: identify (the superblock), journal (whether the log is clean), allocation
(which inodes are in use), inodes, blockmap (contents), files, attributes, folder with listing and
search, and reader, which puts them together.

Written from "XFS Algorithms & Data Structures" (https://git.kernel.org/pub/scm/fs/xfs/
xfs-documentation.git); in the modules, a word such as "Superblocks" in quotes is the name of one
of its chapters. All numbers on disk are big-endian, but for checksums.
"""
