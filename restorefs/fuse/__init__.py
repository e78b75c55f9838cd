"""The mount: FUSE requests in, replies out. The only place that speaks the kernel's protocol."""
