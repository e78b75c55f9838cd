"""The exFAT reader on parts built by hand."""

from restorefs.guestfs.base import Identity
from restorefs.guestfs.exfat.chain import Chains
from restorefs.guestfs.exfat.identify import FoundBoot, Volume
from restorefs.guestfs.exfat.layout import BootSector
from restorefs.guestfs.exfat.reader import ExfatFilesystem
from restorefs.guestfs.exfat.upcase import MANDATORY
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.pieces import PieceReader
from tests.contracts.devices import MemoryDevice
from tests.pure.exfat_bytes import file_set
from tests.turns import Turns

HEAP = 1 << 16
DELETED = b"\x05".ljust(32, b"\0")


def with_root(content: bytes) -> ExfatFilesystem:
    """Return a file system whose root has this content, in neighbouring clusters of 512 bytes."""
    clusters = len(content) // 512
    boot = BootSector(
        size=HEAP + len(content),
        fat_offset=24 * 512,
        fat_length=512,
        heap_offset=HEAP,
        clusters=clusters,
        root_cluster=2,
        serial=0,
        revision=0x100,
        flags=0,
        sector_bits=9,
        cluster_bits=9,
        fats=1,
    )
    reader = PieceReader(MemoryDevice(bytes(HEAP) + content))
    limits = Limits()
    chains = Chains(reader, boot, limits)
    volume = Volume(Identity("exfat", readable=True), MANDATORY)
    root = chains.contiguous(2, clusters)
    return ExfatFilesystem(reader, FoundBoot(boot), chains, volume, root, limits)


async def test_others_have_their_turn_while_nothing_is_found() -> None:
    windows = 40
    fs = with_root(DELETED * (windows << 11) + file_set("last").ljust(512, b"\0"))
    async with Turns() as turns:
        listing = await fs.readdir(fs.root)
    assert [each.name for each in listing.entries] == [b"last"]
    assert turns.count >= windows // 2
