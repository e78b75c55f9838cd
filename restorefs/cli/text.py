"""Text for terminals: what a name from a guest or a catalog must not do to one."""

import logging
import re

READY = "restorefs: "
"""Begins the line that says that a mount can be used, and no line before it."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text on one line, without control codes."""
    return _UNPRINTABLE.sub("\ufffd", text)


class PrintableFormatter(logging.Formatter):
    """Formats log lines so that a hostile name cannot forge one; tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)
