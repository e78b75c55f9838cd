"""Folder hashes and the names of encrypted folders, against debugfs and Linux."""

import struct
from base64 import b85decode
from uuid import UUID

import pytest

from restorefs.errors import UnsupportedError
from restorefs.guestfs.ext.crypto_names import (
    decode_no_key_name,
    encode_no_key_name,
    no_key_length,
)
from restorefs.guestfs.ext.dirhash import folder_hash

SEED = struct.unpack("<4I", UUID("11111111-2222-3333-4444-5555deadbeef").bytes)
NO_SEED = (0, 0, 0, 0)

# debugfs 1.47.0: dx_hash -h VERSION [-s SEED] NAME
FROM_DEBUGFS = [
    ("a", 0, NO_SEED, 0xE74B53E2, 0x00000000),
    ("a", 0, SEED, 0xE74B53E2, 0x00000000),
    ("a", 1, NO_SEED, 0xD5FA7D7A, 0xACB48187),
    ("a", 1, SEED, 0x6814B55A, 0x48DE32ED),
    ("hello", 2, SEED, 0x4AD5910A, 0x413ECD8C),
    ("hello", 3, NO_SEED, 0x32252546, 0x00000000),
    ("hello", 4, NO_SEED, 0x1746DA32, 0x420013B5),
    ("file-0001.txt", 5, NO_SEED, 0xB5CC2AD4, 0x22CA85CF),
    ("file-0001.txt", 5, SEED, 0x33801802, 0x69037B7E),
    ("file-0001.txt", 0, NO_SEED, 0xD9B2DF9C, 0x00000000),
    ("x" * 31, 1, SEED, 0xB2C3A71A, 0x9F09ECCA),
    ("x" * 31, 2, NO_SEED, 0x85384AA4, 0x3BD016F2),
    ("x" * 31, 3, NO_SEED, 0xA365191C, 0x00000000),
    ("y" * 32, 4, NO_SEED, 0x8036BD46, 0x9D765E5A),
    ("y" * 32, 5, SEED, 0x14C85408, 0x73F71B21),
    ("z" * 33, 0, SEED, 0x7851E27C, 0x00000000),
    ("z" * 33, 1, NO_SEED, 0xB8A27F84, 0x11EC56CF),
    ("z" * 33, 2, NO_SEED, 0x54D31C78, 0x5C5B1BA2),
    ("n" * 255, 3, NO_SEED, 0x88E1750A, 0x00000000),
    ("n" * 255, 4, SEED, 0x7E4B4C06, 0xB629B685),
    ("q" * 16, 5, NO_SEED, 0xECE2E77C, 0x34DAC361),
    ("q" * 17, 2, SEED, 0x4D85897A, 0x4107EFAD),
    ("gr\u00fcn \u6f22\u5b57", 0, NO_SEED, 0xFBCD0720, 0x00000000),
    ("gr\u00fcn \u6f22\u5b57", 1, NO_SEED, 0x75C3A9A6, 0xD6EE26C8),
    ("gr\u00fcn \u6f22\u5b57", 4, NO_SEED, 0x1C9391F0, 0x28F4A115),
    ("gr\u00fcn \u6f22\u5b57", 5, NO_SEED, 0xDDA29484, 0x15381CF0),
    ("\u00e4" * 40, 2, NO_SEED, 0x6C1E9DB4, 0x37E06325),
    ("\u00e4" * 40, 3, NO_SEED, 0xBEF116C6, 0x00000000),
]

# The start of each name that an encrypted folder of Linux 6.18 stores, and the name that it shows.
LONG = b85decode(
    "vAY{J>sbq*8c)n|%dxf<Yg5rCUyMx0bA5V=9P`AmXDFk4BMt2pED}*1HfEoi0(SvR_P4>=;wK-C4}4DPS>ShJIERE"
    "JA;Z>mrzo>tOFow=ZEsy#BW6gGiE&_WmIFeuMT(Eb%D+GD{gIq&hO-Gkg7M{TOr786_28^U9^Po4ikxcg-!S<H!;Qu"
    "cfRq1jVG_->uH6?CUid1N"
)
LONGEST = b85decode(
    "vAY{J>sbq*8c)n|%dxf<Yg5rCUyMx0bA5V=9P`AmXDFk4BMt2pED}*1HfEoi0(SvR_P4>=;wK-C4}4DPS>ShJIERE"
    "JA;Z>mrzo>tOFow=ZEsy#BW6gGiE&_WmIFeuMT(Eb%D+GD{gIq&hO-Gkg7M{TOr786_28^UfRq1jVG_->uH6?CUid1"
    "N9^Po4ikxcg-!S<H!;QucOW~#qZn}<cdSG<)r{So^Mn8o)6n{lxP>j&TKpkN_$X(TGe^648n*NneTQKRf!x(cc0;2Y"
    "!Bx$$IZI#s8h%JnTMo#qVUGqn0>!~rhY>}H3`P5za-O8qoVLn#"
)
HASH_SEED = (185201809, 3611358786, 3049290430, 2169488925)
SHOWN = [
    (b85decode("j>1MsAS2&Aj6+p0^wDOE"), b"IIXRQkscHiyOwkZJICPfPIxDVTD00WaL"),
    (
        b85decode("HmeY>G$1U*RUq0_8>%cxvAY{J>sbq*8c)n|%dxf<"),
        b"Xkp9DwJWf5U2qxCuNCAsxFUg2lQbqixJsbsbNetZC58aT8xxy7G2FQ",
    ),
    (
        LONG,
        b"-Cuw9AUkZZSxuxs161kLnxpPzHHLsbYVa1PRJl-MTMdzfXqJHPPEsGcoo3sjDe0VLBJRHDZmn5oCdwFL9rfB2eI"
        b"nH40PfE7pWeB3YTiHhCQhw9Z0pyizXks-lyltb11aI2ZIk4lxYG-WA0KxRYqPxcq_P-39kZxrhrMJQILx5W1Mnd_"
        b"m9eCsRR7eaJ6KnGrt3zD5B8ONxg6Ak_9uYZMdsVkE7TsyXf3FFntwR9VOSlnoXtXwyKByE4zaFCs_",
    ),
    (
        LONGEST,
        b"yKA4xQBM5Wuxuxs161kLnxpPzHHLsbYVa1PRJl-MTMdzfXqJHPPEsGcoo3sjDe0VLBJRHDZmn5oCdwFL9rfB2eI"
        b"nH40PfE7pWeB3YTiHhCQhw9Z0pyizXks-lyltb11aI2ZIk4lxYG-WA0KxRYqPxcq_P-39kZxrhrMJQILx5W1Mnd_"
        b"m9eCsRYCT_25hEs20rt0XE174KpUe3mieikj7x6-vZfn2s1uThjNygIjZNmZFwCHTd8aa-3FjqAO0",
    ),
]


@pytest.mark.parametrize(("name", "version", "seed", "major", "minor"), FROM_DEBUGFS)
def test_a_name_has_the_hash_that_debugfs_says(
    name: str, version: int, seed: tuple[int, ...], major: int, minor: int
) -> None:
    assert folder_hash(name.encode(), version, seed) == (major, minor)


@pytest.mark.parametrize("version", [-1, 6, 255])
def test_an_unknown_hash_is_refused_by_number(version: int) -> None:
    with pytest.raises(UnsupportedError, match=str(version)):
        folder_hash(b"name", version, NO_SEED)


@pytest.mark.parametrize(("stored", "shown"), SHOWN)
def test_an_encrypted_name_is_shown_as_linux_shows_it(stored: bytes, shown: bytes) -> None:
    assert encode_no_key_name(stored, folder_hash(stored, 1, HASH_SEED)) == shown
    assert no_key_length(len(stored)) == len(shown)


def test_a_shown_name_matches_the_stored_one_only() -> None:
    for stored, shown in SHOWN:
        decoded = decode_no_key_name(shown)
        assert decoded is not None
        assert [decoded.matches(other) for other, _ in SHOWN] == [
            other is stored for other, _ in SHOWN
        ]


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"A",
        b"not base64!",
        b"AAAAAAAAAAA",  # eight bytes: the hash of no name
        b"AAAAAAAAAAAA=",  # padded
        b"AAAAAAAAAAABB",  # bits that encode nothing
        b"\xff\xfe",
        b"A" * 216,  # more than a name's start, and no whole digest
    ],
)
def test_other_names_are_no_shown_names(name: bytes) -> None:
    assert decode_no_key_name(name) is None
