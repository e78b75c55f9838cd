#: disks=2
#: mib=26
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-b]
vgcreate -s 64k thin-vg /dev/vd[a-b]
lvcreate -y -Wn -Zn -n ext-origin -l 10 thin-vg
fill 700 /dev/thin-vg/ext-origin
lvchange -an thin-vg/ext-origin
lvchange -pr thin-vg/ext-origin
lvcreate -y --type thin-pool -c 64k -i 2 -I 64k -l 640 --poolmetadatasize 2m -n pool thin-vg || echo FAILED
lvcreate -y -V 2m -n first --thinpool pool thin-vg || echo FAILED
fill 1 /dev/thin-vg/first
lvcreate -y -s -n first-snap thin-vg/first || echo FAILED
lvchange -ay -K thin-vg/first-snap
dd if=/pattern of=/dev/thin-vg/first bs=4k skip=600 seek=20 count=30 conv=notrunc,fsync
dd if=/pattern of=/dev/thin-vg/first-snap bs=4k skip=800 seek=200 count=30 conv=notrunc,fsync
lvcreate -y -s -n snap-of-snap thin-vg/first-snap || echo FAILED
lvchange -ay -K thin-vg/snap-of-snap
dd if=/pattern of=/dev/thin-vg/snap-of-snap bs=4k skip=900 seek=0 count=3 conv=notrunc,fsync
lvcreate -y -V 176m -n sparse --thinpool pool thin-vg || echo FAILED
i=0; while [ $i -lt 540 ]; do
  dd if=/pattern of=/dev/thin-vg/sparse bs=4k skip=$i seek=$((i * 16 * 5 + 5)) count=1 conv=notrunc 2> /dev/null
  i=$((i+1))
done
sync
lvcreate -y -V 512k -n empty --thinpool pool thin-vg || echo FAILED
lvcreate -y -s -n with-external --thinpool pool thin-vg/ext-origin || echo FAILED
lvchange -ay -K thin-vg/with-external
dd if=/pattern of=/dev/thin-vg/with-external bs=4k skip=100 seek=50 count=20 conv=notrunc,fsync
lvextend -l +6 thin-vg/with-external
lvcreate -y -V 256k -n gone --thinpool pool thin-vg || echo FAILED
lvremove -y thin-vg/gone
lvchange -ay thin-vg/ext-origin
lvs -a -o+devices thin-vg
for lv in first first-snap snap-of-snap sparse empty with-external ext-origin; do tell thin-vg $lv; done
