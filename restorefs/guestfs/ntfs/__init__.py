"""Reads NTFS, from its published documentation.

layout    the bytes of boot sector, file records and attributes
runs, streams   where an attribute's bytes lie
mft, files      records by number, and the files that they make up
index, folder, names   folders, and the names in them
reparse, links  what is something else than it looks, and where links lead
inodes, attributes, xattrs, security   what is shown of a file
content, wof    the bytes of files
identify, reader       the volume as a whole
"""
