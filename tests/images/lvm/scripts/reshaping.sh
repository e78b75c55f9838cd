#: disks=5
#: mib=8
#: seconds=60
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-e]
vgcreate -s 64k reshaping /dev/vd[a-e]
lvcreate -y -Wn -Zn --type raid5 -i 4 -I 4k -R 32k -l 16 -n fewer reshaping
settle reshaping
fill 1 /dev/reshaping/fewer
lvconvert -y --force --stripesize 4k --stripes 2 reshaping/fewer || echo FAILED
settle reshaping
lvs -a -o+devices,segtype reshaping
dmsetup table; dmsetup status
tell reshaping fewer
lvcreate -y -Wn -Zn --type raid5 -i 2 -I 4k -R 32k -l 16 -n other reshaping
settle reshaping
fill 100 /dev/reshaping/other
lvconvert -y --type raid5_n reshaping/other || echo FAILED
sleep 2
lvs -a -o+devices,segtype reshaping
dmsetup table; dmsetup status
tell reshaping other
