"""What is on a disk: partition tables and volume managers, each a VolumeScheme."""
