#: disks=2
#: mib=12
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-b]
vgcreate -s 64k snaps /dev/vd[a-b]
lvcreate -y -Wn -Zn -i 2 -I 8k -l 16 -n origin snaps
fill 1 /dev/snaps/origin
lvcreate -y -s -c 4k -l 12 -n before snaps/origin || echo FAILED
dd if=/pattern of=/dev/snaps/origin bs=4k skip=300 seek=10 count=50 conv=notrunc,fsync
lvcreate -y -s -c 16k -l 16 -n later snaps/origin || echo FAILED
dd if=/pattern of=/dev/snaps/origin bs=4k skip=500 seek=40 count=30 conv=notrunc,fsync
dd if=/pattern of=/dev/snaps/later bs=4k skip=800 seek=100 count=11 conv=notrunc,fsync
dd if=/pattern of=/dev/snaps/before bs=4k skip=900 seek=3 count=5 conv=notrunc,fsync
lvcreate -y -Wn -Zn -l 20 -n big snaps
fill 600 /dev/snaps/big
lvcreate -y -s -c 4k -l 28 -n many snaps/big || echo FAILED
dd if=/pattern of=/dev/snaps/big bs=4k skip=100 seek=0 count=310 conv=notrunc,fsync
lvcreate -y -Wn -Zn -l 8 -n full-origin snaps
fill 200 /dev/snaps/full-origin
lvcreate -y -s -c 4k -l 1 -n overflowed snaps/full-origin || echo FAILED
dd if=/pattern of=/dev/snaps/full-origin bs=4k skip=700 seek=0 count=60 conv=notrunc,fsync
lvcreate -y -Wn -Zn -l 8 -n merged-origin snaps
fill 100 /dev/snaps/merged-origin
lvcreate -y -s -c 4k -l 4 -n merging snaps/merged-origin || echo FAILED
dd if=/pattern of=/dev/snaps/merging bs=4k skip=900 seek=7 count=5 conv=notrunc,fsync
exec 3< /dev/snaps/merged-origin
lvconvert --merge snaps/merging
exec 3<&-
lvs -a -o+devices snaps
dmsetup status
for lv in origin before later big many full-origin; do tell snaps $lv; done
