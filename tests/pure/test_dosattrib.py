"""Samba's form of DOS attributes; expected: what Samba's own library makes of the same values
(ndr_pack of samba.dcerpc.xattr.DOSATTRIB, python3-samba 4.17)."""

import pytest

from restorefs.guestfs.dosattrib import encode

STAMP = 0x1122334455667788
CREATED_NS = (STAMP - 116_444_736_000_000_000) * 100
TIME = "8877665544332211"


@pytest.mark.parametrize(
    ("attributes", "head"),
    [
        (0x0, "30783000030003001100000000000000"),
        (0x21, "30783231000003000300000011000000" + "21000000"),
        (0x120, "30783132300003000300000011000000" + "20010000"),
        (0x2020, "30783230323000000300030011000000" + "20200000"),
        (0x12345, "30783132333435000300030011000000" + "45230100"),
        (0x1000000, "307831303030303030000300030000001100000000000001"),
    ],
)
def test_what_samba_writes(attributes: int, head: str) -> None:
    zeros = "00" * 20
    assert encode(attributes, CREATED_NS).hex() == head + zeros + TIME + "00" * 8


@pytest.mark.parametrize("created", [None, -(1 << 65), 1 << 70])
def test_a_time_that_is_not_known_is_not_said(created: int | None) -> None:
    assert encode(0x20, created) == bytes.fromhex(
        "30783230000003000300000001000000" + "20000000" + "00" * 36
    )
