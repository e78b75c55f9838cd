"""What users are called. Owns nothing."""

import os
import pwd


def name_of(uid: int) -> str:
    """Return a user's name; the number of one who has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def our_name() -> str:
    """Return the name of the user with whose rights we act."""
    return name_of(os.geteuid())
