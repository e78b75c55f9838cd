#: disks=5
#: mib=6
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-e]
vgcreate -s 64k syncing /dev/vd[a-e]
lvcreate -y -Wn -Zn --type raid1 -m 1 -l 12 --maxrecoveryrate 1k --minrecoveryrate 1k -n initial1 syncing
lvcreate -y -Wn -Zn --type raid5 -i 2 -I 4k -l 12 --maxrecoveryrate 1k --minrecoveryrate 1k -n initial5 syncing
lvcreate -y -Wn -Zn --type raid1 -m 1 -l 12 -n rebuilt1 syncing /dev/vda /dev/vdb
lvcreate -y -Wn -Zn --type raid5 -i 2 -I 4k -l 12 -n rebuilt5 syncing /dev/vda /dev/vdb /dev/vdc
lvcreate -y -Wn -Zn -l 6 -n linear syncing /dev/vde
n=1; sleep 4
for lv in initial1 initial5 rebuilt1 rebuilt5 linear; do fill $n /dev/syncing/$lv; n=$((n+150)); done
lvchange --maxrecoveryrate 1k --minrecoveryrate 1k syncing/rebuilt1
lvchange --maxrecoveryrate 1k --minrecoveryrate 1k syncing/rebuilt5
lvconvert -y --replace /dev/vdb syncing/rebuilt1 /dev/vdd || echo FAILED
lvconvert -y --replace /dev/vdb syncing/rebuilt5 /dev/vde || echo FAILED
lvconvert -y --type raid1 -m 1 -R 32k syncing/linear /dev/vdd || echo FAILED
lvs -a -o+devices syncing
dmsetup status
for lv in initial1 initial5 rebuilt1 rebuilt5 linear; do tell syncing $lv; done
