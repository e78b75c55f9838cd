"""Guests' folders, listed to their end as the layers above do it.

Owns the way from one cookie to the next, and what every listing must keep on that way. Knows no
format. Concurrency: as the reader's.
"""

from collections.abc import AsyncGenerator

from restorefs.guestfs.base import DirEntry, GuestFilesystem, Inode, Listing

MOST_ENTRIES = 100_000
"""More than any folder of a test has: a listing that goes on behind it never ends."""


async def listings(
    fs: GuestFilesystem, folder: Inode, cookie: int = 0
) -> AsyncGenerator[Listing, None]:
    """Yield a folder's listings behind a cookie, each behind the one before, to the complete one.

    AssertionError for an empty one that is not complete, and for too many entries.
    """
    entries = 0
    complete = False
    while not complete:
        listing = await fs.readdir(folder, cookie)
        complete = listing.complete
        assert listing.entries or complete, f"folder {folder}: empty behind {cookie}, not complete"
        entries += len(listing.entries)
        assert entries <= MOST_ENTRIES, f"folder {folder}: the listing does not end"
        if listing.entries:
            cookie = listing.entries[-1].cookie
        yield listing


async def entries_of(fs: GuestFilesystem, folder: Inode, cookie: int = 0) -> list[DirEntry]:
    """Return a folder's entries behind a cookie, to its end."""
    return [entry async for part in listings(fs, folder, cookie) for entry in part.entries]
