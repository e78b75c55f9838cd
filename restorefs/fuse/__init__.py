"""The mount: FUSE requests in, replies out. The only importer of pyfuse3."""
