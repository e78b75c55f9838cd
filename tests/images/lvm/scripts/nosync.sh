#: disks=4
#: mib=4
# Never synchronised: where nothing was written, legs hold what was on the disks before.
for disk in a b c d; do dd if=/pattern of=/dev/vd$disk bs=4k count=1024 skip=$((0x$disk)) 2> /dev/null; done
dd if=/dev/zero of=/dev/vda bs=4k count=16; dd if=/dev/zero of=/dev/vdb bs=4k count=16
dd if=/dev/zero of=/dev/vdc bs=4k count=16; dd if=/dev/zero of=/dev/vdd bs=4k count=16
pvcreate -y --metadatasize 256k --dataalignment 256k /dev/vd[a-d]
vgcreate -s 64k nosync /dev/vd[a-d]
lvcreate -y -Wn -Zn --nosync --type raid5 -i 2 -I 4k -R 64k -l 12 -n raid5 nosync
lvcreate -y -Wn -Zn --nosync --type raid1 -m 1 -R 64k -l 12 -n raid1 nosync
lvcreate -y -Wn -Zn --nosync --type mirror -m 1 --mirrorlog disk -R 64k -l 12 -n mirror nosync
dd if=/pattern of=/dev/nosync/raid5 bs=4k skip=900 seek=7 count=20 conv=notrunc,fsync
dd if=/pattern of=/dev/nosync/raid1 bs=4k skip=900 seek=7 count=20 conv=notrunc,fsync
lvs -a -o+devices,segtype nosync
dmsetup table; dmsetup status
tell nosync raid5
