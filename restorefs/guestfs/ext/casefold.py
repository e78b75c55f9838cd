"""Names in folders that ignore case.

Owns when two names are the same there: the same after canonical decomposition (NFD) without
ignorable code points, and full case folding. Pure.
Source: "ext4 General Information" (admin guide), chapter "case-insensitive file name lookups";
Default_Ignorable_Code_Point is from the Unicode Character Database (DerivedCoreProperties).
"""

import re
import unicodedata

ENCODING_UTF8 = 1  # s_encoding

_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def fold(name: bytes) -> str | None:
    """Return what names that are the same have in common; None for a name that is not UTF-8,
    which is the same as itself only."""
    if name.isascii():
        return name.decode().lower()
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    # Each character by itself, so that marks are put in order only after they were folded.
    folded = "".join(map(_fold_character, text))
    return _IGNORABLE.sub("", unicodedata.normalize("NFD", folded))


def _fold_character(character: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", character).casefold())
