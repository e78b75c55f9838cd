"""The exFAT guest file system.

Bytes to values, without I/O: layout (boot region, single entries), directory (sets of entries),
upcase. Walking a device with them: identify (which boot region to believe, what the root says),
chain (clusters in their order), folder (a folder's content and listing), search (names and
parents), files (a file by its inode), and reader, which puts them together.

Written from Microsoft's "exFAT file system specification"
(https://learn.microsoft.com/windows/win32/fileio/exfat-specification); section numbers in the
modules are of that.
"""
