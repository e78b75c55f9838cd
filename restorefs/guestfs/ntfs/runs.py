"""Where the clusters of an attribute lie: mapping pairs, and what they add up to.

Owns the decoding of run lists, bounded by their bytes and checked against the volume, and the
search in them. Pure. Source: linux-ntfs, "concepts", data runs.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from restorefs.errors import DamagedError
from restorefs.guestfs.ntfs.layout import Attribute, Cluster, decode_sizes

HOLE: Cluster = -1
_NONE: Cluster = -2


class Runs:
    """The runs of an attribute, in order and without gaps. Grows while it is being read."""

    __slots__ = ("clusters", "lcns", "starts")

    def __init__(self) -> None:
        self.starts = array("q")
        self.lcns = array("q")
        self.clusters = 0
        """How many there are in all, holes included."""

    def append(self, piece: Attribute, volume_clusters: int, most: int) -> None:
        """Add the runs of the next piece of an attribute.

        most: runs that an attribute may have. Raises DamagedError where the piece is not the next
        one, or its runs lie outside of the volume.
        """
        sizes = decode_sizes(piece)
        if piece.lowest != self.clusters:
            raise DamagedError(f"a piece of an attribute is missing at cluster {self.clusters}")
        # What is known stays as it is until all of the piece is right.
        clusters = self.clusters
        starts, lcns = array("q"), array("q")
        start, before = (self.starts[-1], self.lcns[-1]) if self.lcns else (0, _NONE)
        for length, lcn in decode_pairs(piece.body, sizes.runs):
            if lcn != HOLE and not 0 <= lcn <= volume_clusters - length:
                raise DamagedError(f"an attribute claims clusters from {lcn} on, off the volume")
            if lcn == before == HOLE or (before >= 0 and before + clusters - start == lcn):
                clusters += length
                continue
            start, before = clusters, lcn
            starts.append(start)
            lcns.append(lcn)
            clusters += length
        # An empty attribute has the highest cluster -1.
        if clusters != (sizes.highest + 1) & 0xFFFFFFFFFFFFFFFF or clusters >= 1 << 52:
            raise DamagedError("an attribute's runs do not add up")
        if len(self.starts) + len(starts) > most:
            raise DamagedError(f"an attribute has more than {most} runs")
        self.starts += starts
        self.lcns += lcns
        self.clusters = clusters

    def append_gap(self, behind: int) -> None:
        """Add a hole up to a cluster, for pieces that are lost."""
        if behind > self.clusters:
            if not self.lcns or self.lcns[-1] != HOLE:
                self.starts.append(self.clusters)
                self.lcns.append(HOLE)
            self.clusters = behind

    def between(self, first: int, last: int) -> Iterator[tuple[Cluster, int]]:
        """Yield the runs of clusters [first, last), cut to them: the first of each on the volume,
        or HOLE, and how many. Nothing behind the attribute's last cluster."""
        last = min(last, self.clusters)
        index = bisect_right(self.starts, first) - 1
        starts, lcns = self.starts, self.lcns
        count = len(starts)
        while first < last:
            start, lcn = starts[index], lcns[index]
            end = starts[index + 1] if index + 1 < count else self.clusters
            length = min(end, last) - first
            yield (HOLE if lcn == HOLE else lcn + first - start), length
            first += length
            index += 1


def decode_pairs(data: bytes, position: int) -> Iterator[tuple[int, Cluster]]:
    """Yield the length and the first cluster of each run, HOLE for a sparse one.

    Each run is a byte whose halves say how long the two numbers behind it are: the length, and the
    signed distance from the run before. Raises DamagedError.
    """
    end = len(data)
    lcn = 0
    while position < end:
        head = data[position]
        if not head:
            return
        length_size, lcn_size = head & 15, head >> 4
        behind = position + 1 + length_size
        next_position = behind + lcn_size
        if not 1 <= length_size <= 8 or lcn_size > 8 or next_position > end:
            break
        length = int.from_bytes(data[position + 1 : behind], "little")
        if not 0 < length < 1 << 48:
            break
        if lcn_size:
            lcn += int.from_bytes(data[behind:next_position], "little", signed=True)
            if lcn < 0:
                break
            yield length, lcn
        else:
            yield length, HOLE
        position = next_position
    else:
        return
    raise DamagedError("an attribute's run list is damaged")
