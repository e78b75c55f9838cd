#: disks=5
#: mib=14
# Volumes on volumes on volumes.
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-e]
vgcreate -s 64k nested /dev/vd[a-e]
lvcreate -y -Wn -Zn --type raid5 -i 2 -I 4k -l 24 -n pool nested /dev/vda /dev/vdb /dev/vdc
lvcreate -y -Wn -Zn --type raid1 -m 1 -l 32 -n poolmeta nested /dev/vda /dev/vdd
settle nested
lvconvert -y --type thin-pool -c 64k --poolmetadata nested/poolmeta nested/pool || echo FAILED
lvcreate -y -V 1m -n thin --thinpool pool nested || echo FAILED
fill 1 /dev/nested/thin
lvcreate -y -s -n thin-snap nested/thin || echo FAILED
lvchange -ay -K nested/thin-snap
dd if=/pattern of=/dev/nested/thin bs=4k skip=600 seek=20 count=30 conv=notrunc,fsync
# A classic snapshot of a thin volume, and one of RAID.
lvcreate -y -s -c 4k -l 8 -n thin-cow nested/thin || echo FAILED
dd if=/pattern of=/dev/nested/thin bs=4k skip=700 seek=100 count=30 conv=notrunc,fsync
lvcreate -y -Wn -Zn --type raid1 -m 1 -R 64k -l 12 -n origin nested /dev/vdb /dev/vde
settle nested
fill 300 /dev/nested/origin
lvcreate -y -s -c 8k -l 12 -n origin-cow nested/origin || echo FAILED
dd if=/pattern of=/dev/nested/origin bs=4k skip=900 seek=60 count=60 conv=notrunc,fsync
# A copy that is followed: what is written afterwards is not on it.
lvcreate -y -Wn -Zn --type raid1 -m 2 -R 64k -l 8 -n tracked nested /dev/vda /dev/vdb /dev/vdc
settle nested
fill 500 /dev/nested/tracked
lvconvert -y --splitmirrors 1 --trackchanges nested/tracked || echo FAILED
dd if=/pattern of=/dev/nested/tracked bs=4k skip=950 seek=10 count=20 conv=notrunc,fsync
# RAID that was made longer, of which the new part is in other places.
lvcreate -y -Wn -Zn --type raid6 -i 3 -I 4k -R 64k -l 6 -n longer nested
lvcreate -y -Wn -Zn -l 1 -n between nested /dev/vda
settle nested
lvextend -y -l +9 nested/longer || echo FAILED
settle nested
fill 650 /dev/nested/longer
fill 800 /dev/nested/between
# An image of RAID that is being moved.
lvcreate -y -Wn -Zn --type raid1 -m 1 -R 64k -l 8 -n half-moved nested /dev/vda /dev/vdb
settle nested
fill 850 /dev/nested/half-moved
pvmove -b -i 100 -n half-moved /dev/vda /dev/vde || echo FAILED
dd if=/pattern of=/dev/nested/half-moved bs=4k skip=100 seek=3 count=9 conv=notrunc,fsync
lvs -a -o+devices,segtype nested
dmsetup table
for lv in $(lvs --noheadings -o lv_name nested); do [ $lv = pool ] || tell nested $lv; done
