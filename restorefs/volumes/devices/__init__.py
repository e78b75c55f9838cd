"""Block devices made of other block devices. They know no format: LVM and MD both use them."""
