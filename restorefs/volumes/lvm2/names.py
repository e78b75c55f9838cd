"""How device-mapper names what LVM2 makes. Pure."""


def mapper_name(group: str, volume: str) -> bytes:
    """Return the name of a volume's device: group and volume with a dash between, and every dash
    in either doubled, so that no two pairs have one name. Source: lvm(8), dmsetup(8)."""
    return b"-".join(name.replace("-", "--").encode() for name in (group, volume))
