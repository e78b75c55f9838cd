#: disks=3
#: mib=24
# Mirrors of the old kind whose copies are not the same yet when the power goes.
pvcreate -y --metadatasize 256k --dataalignment 256k /dev/vd[a-c]
vgcreate -s 64k copying /dev/vd[a-c]
lvcreate -y -Wn -Zn -l 300 -n mirror copying /dev/vda
fill 1 /dev/copying/mirror
echo 1 > /sys/module/dm_mirror/parameters/raid1_resync_throttle
lvconvert -y -b --type mirror -m 1 --mirrorlog disk -R 64k copying/mirror /dev/vdb /dev/vdc || echo FAILED
sleep 1
lvs -a -o+devices,segtype copying; dmsetup status
tell copying mirror
echo "@end"
poweroff -f
