"""LVM2 as a group scheme, on what a kernel's own LVM made."""

from collections.abc import Sequence

from restorefs.volumes.lvm2.scheme import Lvm2
from tests.contracts.groups import Contents, GroupSchemeContract
from tests.images.lvm import handmade
from tests.images.lvm.stored import disks


class TestLvm2(GroupSchemeContract):
    scheme = Lvm2

    @staticmethod
    def sets() -> Sequence[Contents]:
        text = handmade.group(
            {"a": handmade.linear("pv0", 0, 3), "b": handmade.linear("pv1", 2, 5)}
        )
        by_hand = [handmade.member(1, text), handmade.member(2, text)]
        return [disks("raid"), disks("thin"), by_hand, [*disks("raid"), *by_hand]]
