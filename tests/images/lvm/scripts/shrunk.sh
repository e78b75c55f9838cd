#: disks=5
#: mib=8
#: seconds=60
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-e]
vgcreate -s 64k shrunk /dev/vd[a-e]
lvcreate -y -Wn -Zn --type raid5 -i 4 -I 4k -R 32k -l 16 -n fewer shrunk
settle shrunk
fill 1 /dev/shrunk/fewer
lvconvert -y --force --stripesize 4k --stripes 2 shrunk/fewer || echo FAILED
settle shrunk
lvs -a -o+devices,segtype shrunk
dmsetup table; dmsetup status
tell shrunk fewer
lvcreate -y -Wn -Zn --type raid5 -i 2 -I 4k -R 32k -l 16 -n other shrunk
settle shrunk
fill 100 /dev/shrunk/other
lvconvert -y --type raid5_n shrunk/other || echo FAILED
settle shrunk
lvs -a -o+devices,segtype shrunk
dmsetup table; dmsetup status
tell shrunk other
