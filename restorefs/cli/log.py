"""What the daemon says on stderr.

Owns that nobody waits for whoever reads it: a pager that stands still, a terminal that was stopped
(Ctrl-S) or a full disk must not stop the one loop that answers for the mount. So once the mount can
be used, lines are kept and written by a thread; when that falls behind too far, lines are dropped,
and when they can be written again, their number is said. Must not know what is said.

Concurrency: lines come from any thread. Before start() they are written at once, and whoever says
one waits: nobody depends on us yet, and there may be no thread before root's rights are dropped
(`rights`). From then on nobody waits.
"""

import logging
import os
import select
import sys
import threading

from restorefs.cli.text import PrintableFormatter

_STDERR = 2
_MOST_LINES = 10_000
_END_SECONDS = 2.0


class Stderr:
    """Where lines go."""

    def __init__(self) -> None:
        there = sys.__stderr__
        # Where there is none, the descriptor of that number is another file's.
        self._fd = _STDERR if there is not None else os.open(os.devnull, os.O_WRONLY)
        self._encoding = there.encoding if there is not None else "utf-8"
        self._formatter = PrintableFormatter("%(asctime)s %(levelname)s %(message)s")
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._dropped = 0
        self._ended = False
        self._thread: threading.Thread | None = None

    def log(self, level: str) -> None:
        """Have the log written here."""
        handler = _Handler(self)
        handler.setFormatter(self._formatter)
        logging.basicConfig(level=level.upper(), handlers=[handler])
        for name in ("httpx", "hypercorn", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def say(self, line: str) -> None:
        """Write a line; from start() on, some time soon."""
        with self._changed:
            if self._thread is not None and len(self._waiting) >= _MOST_LINES:
                self._dropped += 1
                return
            self._waiting.append(line)
            if self._thread is not None:
                self._changed.notify()
                return
            taken = self._take()
        self._write(*taken)

    def start(self) -> None:
        """Let nobody wait from now on."""
        self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write what is left, as far as that can be done soon. Whatever is said after it, by
        whomever, is lost where it would have to wait."""
        if self._thread is None:
            return
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, self._fd)
            os.close(nowhere)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                taken = self._take()
            self._write(*taken)

    def _take(self) -> tuple[list[str], int]:
        """Return what is to be written now, and how many lines were dropped after it."""
        taken = self._waiting, self._dropped
        self._waiting, self._dropped = [], 0
        return taken

    def _write(self, lines: list[str], dropped: int) -> None:
        lost = sum(not self._put(line) for line in lines)
        if dropped and not self._put(self._about(dropped)):
            lost += dropped
        if lost:
            with self._changed:
                self._dropped += lost

    def _put(self, line: str) -> bool:
        """Write a line, however long that takes. Returns whether it could be written."""
        data = (line + "\n").encode(self._encoding, "backslashreplace")
        try:
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:  # somebody who shares it has made it so
                    select.select([], [self._fd], [])
        except OSError:
            return False
        return True

    def _about(self, dropped: int) -> str:
        text = "stderr could not be written for a while: %d lines of the log are lost"
        record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, (dropped,), None)
        return self._formatter.format(record)


class _Handler(logging.Handler):
    """Formats at once, so that a line says what was so when it was said."""

    def __init__(self, stderr: Stderr) -> None:
        super().__init__()
        self._stderr = stderr

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._stderr.say(self.format(record))
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)
