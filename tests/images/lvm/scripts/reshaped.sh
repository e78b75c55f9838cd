#: disks=6
#: mib=6
#: seconds=50
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-f]
vgcreate -s 64k reshaped /dev/vd[a-f]
lvcreate -y -Wn -Zn --type raid5 -i 2 -I 4k -R 32k -l 8 -n grown reshaped
lvcreate -y -Wn -Zn --type raid5_ls -i 3 -I 4k -R 32k -l 9 -n takeover reshaped
lvcreate -y -Wn -Zn --type raid5_ls -i 3 -I 4k -R 32k -l 9 -n stopped reshaped
settle reshaped
n=1
for lv in grown takeover stopped; do fill $n /dev/reshaped/$lv; n=$((n+150)); done
lvconvert -y --stripesize 4k --stripes 4 reshaped/grown || echo FAILED; settle reshaped
lvconvert -y --type raid6 reshaped/takeover || echo FAILED; settle reshaped
lvchange --maxrecoveryrate 1k --minrecoveryrate 1k reshaped/stopped
lvconvert -y --stripesize 4k --stripes 4 reshaped/stopped || echo FAILED
lvs -a -o+devices,segtype reshaped
dmsetup table; dmsetup status
for lv in grown takeover stopped; do tell reshaped $lv; done
