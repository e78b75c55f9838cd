"""What an archive lacks, as the text that is its last entry.

Owns the text's form, and that its size is bounded, however much cannot be read.
"""

NAME = b"RESTOREFS-ERRORS.txt"
_MAX_BYTES = 1 << 20


class Unread:
    """What could not be read so far."""

    def __init__(self) -> None:
        self.count = 0
        self._lines: list[bytes] = []
        self._room = _MAX_BYTES

    def add(self, path: bytes, why: str) -> None:
        self.count += 1
        if self._room <= len(path) + len(why):  # the first that has no room, and all behind it
            self._room = 0
            return
        shown = path.decode("utf-8", "backslashreplace")
        line = f"{shown}: {why}".replace("\n", " ").strip().encode("utf-8", "backslashreplace")
        self._room -= len(line) + 1
        self._lines.append(line)

    def text(self) -> bytes:
        more = self.count - len(self._lines)
        lines = [
            b"These could not be read and are not, or not as a whole, in this archive:",
            b"",
            *self._lines,
            *([b"and %d more" % more] if more else []),
        ]
        return b"\n".join(lines) + b"\n"
