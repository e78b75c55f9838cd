#: disks=3
#: mib=40
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-c]
vgcreate -s 64k others /dev/vd[a-c]
lvcreate -y -Wn -Zn -l 16 -n plain others /dev/vda
lvcreate -y -Wn -Zn -l 16 -n cached others /dev/vda
lvcreate -y -Wn -Zn -l 16 -n cachedvol others /dev/vda
lvcreate -y -Wn -Zn -l 16 -n writecached others /dev/vda
fill 1 /dev/others/plain
lvcreate -y --type cache-pool -c 64k -l 32 -n cpool others /dev/vdb || echo FAILED
lvconvert -y --type cache --cachepool cpool --cachemode writethrough others/cached || echo FAILED
lvcreate -y -Wn -Zn -l 32 -n fast others /dev/vdb
lvconvert -y --type cache -c 64k --cachevol fast others/cachedvol || echo FAILED
lvcreate -y -Wn -Zn -l 80 -n fast2 others /dev/vdb
lvchange -an others/fast2
lvconvert -y --type writecache --cachevol fast2 others/writecached || echo FAILED
lvcreate -y -Wn -Zn --type raid1 -m 1 --raidintegrity y -l 16 -n integrity others || echo FAILED
lvcreate -y -Wn -Zn --type zero -l 3 -n zeros others || echo FAILED
lvcreate -y -Wn -Zn --type error -l 3 -n errors others || echo FAILED
lvcreate -y -Wn -Zn -l 24 -n moved others /dev/vda
fill 100 /dev/others/moved
lvcreate -y -Wn -Zn -l 8 -n moved2 others /dev/vda
fill 300 /dev/others/moved2
lvextend -l +8 others/moved /dev/vda
fill 400 /dev/others/moved
pvmove -b -i 100 -n moved /dev/vda /dev/vdc || echo FAILED
# The first of the two segments is moved and written to in its new place only, the other one is
# still being moved.
dd if=/pattern of=/dev/others/moved bs=4k skip=900 seek=3 count=9 conv=notrunc,fsync
dd if=/pattern of=/dev/others/moved bs=4k skip=950 seek=400 count=9 conv=notrunc,fsync
lvs -a -o+devices,segtype others
dmsetup table
for lv in plain zeros moved moved2; do tell others $lv; done
