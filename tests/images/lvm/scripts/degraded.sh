#: disks=5
#: mib=6
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-e]
vgcreate -s 64k stale /dev/vd[a-e]
lvcreate -y -Wn -Zn --type raid1 -m 1 -l 6 -n raid1 stale /dev/vda /dev/vdc
lvcreate -y -Wn -Zn --type raid1 -m 1 -l 6 -n first-leg stale /dev/vdc /dev/vda
lvcreate -y -Wn -Zn --type raid10 -i 2 -I 4k -l 8 -n raid10 stale /dev/vdc /dev/vda /dev/vdb /dev/vdd
lvcreate -y -Wn -Zn --type raid5 -i 2 -I 4k -l 8 -n raid5 stale /dev/vda /dev/vdb /dev/vdc
lvcreate -y -Wn -Zn --type raid6 -i 3 -I 4k -l 6 -n raid6 stale
lvcreate -y -Wn -Zn -l 4 -n untouched stale /dev/vdb
settle stale
n=1
for lv in raid1 first-leg raid10 raid5 raid6 untouched; do fill $n /dev/stale/$lv; n=$((n+50)); done
vgchange -an stale
without='devices { filter=["r|/dev/vdc|","a|/dev/vd|","r|.*|"] }'
vgchange -ay --activationmode degraded --config "$without" stale
n=400
for lv in raid1 first-leg raid10 raid5 raid6; do
  dd if=/pattern of=/dev/stale/$lv bs=4k skip=$n seek=2 count=60 conv=notrunc,fsync || echo FAILED; n=$((n+70))
done
for lv in raid1 first-leg raid10 raid5 raid6 untouched; do tell stale $lv; done
dmsetup status
vgchange -an --config "$without" stale
