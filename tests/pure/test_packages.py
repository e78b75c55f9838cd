"""The table of packages that tools/setup reads: a slip in it would only show on a fresh machine."""

import re
from pathlib import Path

TABLE = Path(__file__).parents[2] / "tools" / "packages.txt"
NEED = re.compile(r"(program:[\w./-]+|module:\w+|header:[\w.]+|user:\w+|samba:\w+)")


def test_each_need_has_groups_and_a_column_for_every_family():
    rows = [
        line.split() for line in TABLE.read_text().splitlines() if line and not line.startswith("#")
    ]
    assert {group for groups, *_ in rows for group in groups.split(",")} == {
        "run",
        "build",
        "demo",
        "tests",
        "bench",
        "rare",
    }
    for groups, need, *packages in rows:
        assert NEED.fullmatch(need), need
        assert len(packages) == 5, need  # Debian, Fedora, openSUSE, Arch, Alpine
        assert packages[0] != "-", f"{need}: set-up installs it on Debian, so it needs a name"
        assert groups
    needs = [need for _, need, *_ in rows]
    assert len(needs) == len(set(needs))
