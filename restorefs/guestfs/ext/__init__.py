"""The ext2, ext3 and ext4 guest file systems.

Pure decoding of bytes to values: features, layout, checksum, directory, dirhash, crypto_names,
casefold, xattr, nodes. Walking a device with them: identify, pieces, inodes, blockmap, folder,
reader. Written from the kernel's documentation "ext4 Data Structures and Algorithms"
(https://docs.kernel.org/filesystems/ext4/); a comment such as "super" or "inodes" names its
chapter.
"""
