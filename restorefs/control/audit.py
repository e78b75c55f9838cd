"""One line of the log for everything that takes data out of a backup, attaches a disk or lets it
go, and for who comes in.

Owns the line's form: who, what, of which disk. Names are printed as they are; the log's formatter
keeps a hostile one from forging a line.
"""

import logging

from restorefs.catalog.records import DiskRecord
from restorefs.control.who import Who

_MOST = 2000
log = logging.getLogger(__name__)


def note(who: Who, what: str, record: DiskRecord, about: str = "") -> None:
    """Write that somebody did something with a disk."""
    log.info(
        "audit: %s: %s %s%s",
        who.name,
        what,
        record.name,
        f" {about if len(about) <= _MOST else about[:_MOST] + '...'}" if about else "",
    )


def note_visit(name: str, what: str, address: str) -> None:
    """Write that somebody came in, or did not; `address`: where they come from."""
    log.info("audit: %s: %s, from %s", name, what, address)
