"""The mount's tree, without FUSE: folders above the guests, and the guests below them."""
