import pytest

from restorefs.errors import KeyNeededError, StorageError, UnsupportedError
from restorefs.guestfs.registry import identify, open_guest
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.images.signatures import KIB, SAMPLES, md1_superblock, volume

CONTENT = {sample.name: sample.content for sample in SAMPLES}


async def refusal(name: str) -> tuple[type[Exception], str]:
    device = MemoryDevice(CONTENT[name])
    identity = await identify(device)
    assert identity is not None
    with pytest.raises((KeyNeededError, UnsupportedError)) as caught:
        await open_guest(device, identity)
    return caught.type, str(caught.value)


async def test_what_is_not_read_is_refused_by_name() -> None:
    assert await refusal("jfs") == (UnsupportedError, "JFS is recognised but not read yet")
    assert await refusal("md 1.2") == (
        UnsupportedError,
        "Linux MD RAID is recognised but not read yet",
    )


@pytest.mark.parametrize("name", ["luks1", "luks2", "bitlocker", "bitlocker to go"])
async def test_what_is_encrypted_needs_a_key(name: str) -> None:
    error, message = await refusal(name)
    assert error is KeyNeededError
    assert message.startswith("LUKS" if "luks" in name else "BitLocker")


async def test_an_unformatted_volume_is_nothing() -> None:
    assert await identify(MemoryDevice(bytes(1 << 20))) is None


async def test_an_md_member_is_not_the_ext4_that_its_start_shows() -> None:
    size = 512 * KIB
    offset = (size // 512 - 16) // 8 * 4096
    ext4 = (1024 + 56, b"\x53\xef")
    content = volume(size, ext4, (offset, md1_superblock(offset)))
    identity = await identify(MemoryDevice(content))
    assert identity is not None
    assert identity.kind == "linux_raid_member"


async def test_a_storage_error_is_not_an_unformatted_volume() -> None:
    device = WatchedDevice(MemoryDevice(CONTENT["ntfs"]))
    device.fail_at = frozenset({0})
    with pytest.raises(StorageError):
        await identify(device)
