"""Which guest file systems there are readers for, and what a volume holds.

Owns the list of readers and the order of recognition. Must not know any format. Any number of
volumes may be identified at once; nothing is kept.
"""

from dataclasses import replace

from restorefs.block.base import BlockDevice
from restorefs.errors import KeyNeededError, UnsupportedError
from restorefs.guestfs.base import DEFAULT_OPTIONS, GuestFilesystem, GuestOptions, Identity
from restorefs.guestfs.exfat.reader import ExfatFilesystem
from restorefs.guestfs.ext.reader import ExtFilesystem
from restorefs.guestfs.fat.reader import FatFilesystem
from restorefs.guestfs.ntfs.reader import NtfsFilesystem
from restorefs.guestfs.recognise import OTHERS, TITLES, WRAPPERS, first_match
from restorefs.guestfs.recognise.evidence import Evidence
from restorefs.guestfs.xfs.reader import XfsFilesystem

READERS: tuple[type[GuestFilesystem], ...] = (
    ExtFilesystem,
    ExfatFilesystem,
    FatFilesystem,
    NtfsFilesystem,
    XfsFilesystem,
)


async def identify(device: BlockDevice) -> Identity | None:
    """Return what a volume holds, or None where nothing is known that it could be.

    What wraps other formats comes first (recognise says why), then the readers, then whatever
    else is recognised. Raises StorageError, and DamagedError where the start of the volume is lost.
    """
    evidence = await Evidence.gather(device)
    identity = await _identify(device, evidence)
    if identity is not None and evidence.incomplete:
        note = "a part is missing: what would be recognised by that, such as RAID, is not known"
        return replace(identity, notes=(*identity.notes, note))
    return identity


async def _identify(device: BlockDevice, evidence: Evidence) -> Identity | None:
    wrapped = first_match(WRAPPERS, evidence)
    if wrapped is not None:
        return wrapped
    for reader in READERS:
        identity = await reader.probe(device)
        if identity is not None:
            newer = first_match(OTHERS, evidence) if identity.from_copy else None
            return newer or identity
    return first_match(OTHERS, evidence)


async def open_guest(
    device: BlockDevice, identity: Identity, options: GuestOptions = DEFAULT_OPTIONS
) -> GuestFilesystem:
    """Open the file system that identify() found on a volume.

    Raises KeyNeededError for an encrypted one, UnsupportedError naming what there is no reader
    for, and whatever the reader's open() raises.
    """
    title = TITLES.get(identity.kind, identity.kind)
    if identity.encrypted:
        raise KeyNeededError(f"{title} is encrypted, and its key is not known")
    if not identity.holds_files:
        raise UnsupportedError(f"{title} holds no files")
    for reader in READERS:
        if identity.kind in reader.kinds:
            return await reader.open(device, options)
    raise UnsupportedError(f"{title} is recognised but not read yet")
