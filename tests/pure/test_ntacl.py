"""Samba's form of security descriptors; expected: what Samba's own library makes of the same
descriptors (ndr_pack of samba.dcerpc.xattr.NTACL, python3-samba 4.17)."""

import struct

import pytest

from restorefs.errors import DamagedError
from restorefs.guestfs.ntacl import encode
from tests.images.ntfs import security_descriptor

# by SDDL: the head as NTFS has it, the head as Samba has it, and what follows both
KNOWN = {
    "O:BAG:SYD:PAI(A;OICI;FA;;;SY)(D;;WD;;;S-1-5-21-1-2-3-1000)": (
        "0100049414000000240000000000000030000000",
        "010004941c0000002c0000000000000038000000",
        "01020000000000052000000020020000010100000000000512000000040040000200000000031400"
        "ff010000010100000000000512000000010024000000040001050000000000051500000001000000"
        "0200000003000000e8030000",
    ),
    "O:BAD:": (
        "0100048014000000000000000000000024000000",
        "010004801c00000000000000000000002c000000",
        "010200000000000520000000200200000400080000000000",
    ),
    "O:SYG:SYD:(A;;FA;;;WD)S:(AU;SAFA;FA;;;WD)": (
        "0100148014000000200000002c00000048000000",
        "010014801c000000280000003400000050000000",
        "01010000000000051200000001010000000000051200000004001c000100000002c01400ff010000"
        "01010000000000010000000004001c000100000000001400ff010000010100000000000100000000",
    ),
    "O:S-1-5-21-1-2-3-500": (
        "0100008014000000000000000000000000000000",
        "010000801c000000000000000000000000000000",
        "010500000000000515000000010000000200000003000000f4010000",
    ),
}
SAMBA = "0100010000000200"


@pytest.mark.parametrize("sddl", KNOWN)
def test_what_samba_writes(sddl: str) -> None:
    head, moved, rest = KNOWN[sddl]
    assert encode(bytes.fromhex(head + rest)).hex() == SAMBA + moved + rest


def test_one_as_large_as_an_acl_can_be() -> None:
    descriptor = security_descriptor(1800)
    found = encode(descriptor)
    assert len(found) == len(descriptor) + 8
    assert found[28:] == descriptor[20:]


@pytest.mark.parametrize("length", range(20))
def test_one_that_is_cut(length: int) -> None:
    with pytest.raises(DamagedError, match="too short"):
        encode(security_descriptor(1)[:length])


@pytest.mark.parametrize("place", [4, 8, 12, 16])
@pytest.mark.parametrize("at", [1, 19, 90, 1 << 31, 0xFFFF_FFFF])
def test_a_part_outside(place: int, at: int) -> None:
    descriptor = bytearray(security_descriptor(1))
    assert len(descriptor) == 96
    struct.pack_into("<I", descriptor, place, at)
    with pytest.raises(DamagedError, match="outside"):
        encode(bytes(descriptor))


@pytest.mark.parametrize("head", [b"\x02\0\x04\x80", b"\0\0\0\0", b"\x01\0\x04\0"])
def test_another_revision_or_one_in_memory_form(head: bytes) -> None:
    with pytest.raises(DamagedError, match="revision"):
        encode(head + security_descriptor(1)[4:])
