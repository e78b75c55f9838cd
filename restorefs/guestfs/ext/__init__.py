"""The ext2, ext3 and ext4 guest file systems.

Bytes to values, without I/O: features, layout, checksum, inode_record, directory, dirhash,
crypto_names, casefold, xattr. Walking a device with them: pieces and lru (reading), identify
(the superblock), inodes, blockmap with extents, indirect and inline (contents), files, folder
with listing and search, and reader, which puts them together.

Written from the kernel's documentation "ext4 Data Structures and Algorithms"
(https://docs.kernel.org/filesystems/ext4/); in the modules, a word such as "super" or "inodes"
in quotes is the name of one of its chapters.
"""
