#: disks=5
#: mib=8
# The power goes while volumes are being written to: regions are marked as dirty, and stay so.
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-e]
vgcreate -s 64k crashed /dev/vd[a-e]
lvcreate -y -Wn -Zn --type raid1 -m 1 -R 64k -l 16 -n raid1 crashed
lvcreate -y -Wn -Zn --type raid5 -i 2 -I 4k -R 64k -l 24 -n raid5 crashed
lvcreate -y -Wn -Zn --type raid6 -i 3 -I 4k -R 64k -l 24 -n raid6 crashed
lvcreate -y -Wn -Zn --type raid10 -i 2 -I 4k -R 64k -l 16 -n raid10 crashed
lvcreate -y -Wn -Zn --type mirror -m 1 --mirrorlog disk -R 64k -l 16 -n mirror crashed
lvcreate -y --type thin-pool -c 64k -l 24 --poolmetadatasize 2m -n pool crashed || echo FAILED
lvcreate -y -V 2m -n thin --thinpool pool crashed || echo FAILED
settle crashed
n=1
for lv in raid1 raid5 raid6 raid10 mirror; do fill $n /dev/crashed/$lv; n=$((n+150)); done
sleep 16
for lv in raid1 raid5 raid6 raid10 mirror thin; do
  dd if=/pattern of=/dev/crashed/$lv bs=4k skip=900 seek=2 count=20 conv=notrunc,fsync
done
for lv in raid1 raid5 raid6 raid10 mirror thin; do tell crashed $lv; done
for lv in raid1 raid5 raid6 raid10 mirror; do
  dd if=/pattern of=/dev/crashed/$lv bs=4k skip=900 seek=2 count=20 oflag=direct conv=notrunc
done
echo "@end"
poweroff -f
