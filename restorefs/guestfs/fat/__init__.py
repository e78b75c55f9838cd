"""The FAT12, FAT16 and FAT32 reader.

layout decodes the boot sector and names decodes names, both without I/O; directory turns the bytes
of a folder into entries; table follows chains of clusters; folders puts these together for one
folder; identify says what a volume is; reader answers the seam.

Sources, named in the modules in short: "spec" is Microsoft's "FAT: General Overview of On-Disk
Format", version 1.03; "vfat.rst" is Linux's Documentation/filesystems/vfat.rst.
"""
