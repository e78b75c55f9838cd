#: disks=6
#: mib=10
pvcreate --metadatasize 256k --dataalignment 256k /dev/vd[a-f]
vgcreate -s 64k raids /dev/vd[a-f]
n=0
make() { # name, size in extents, options
  name=$1; size=$2; shift 2
  lvcreate -qq -y -Wn -Zn -n $name -l $size "$@" raids || echo "FAILED $name"
}
make raid0 12 --type raid0 -i 3 -I 4k
make raid0_meta 12 --type raid0_meta -i 3 -I 8k
make raid1 6 --type raid1 -m 1
make raid1x3 6 --type raid1 -m 2
make raid10 8 --type raid10 -i 2 -I 4k
make raid10x6 9 --type raid10 -i 3 -I 16k
make raid4 8 --type raid4 -i 4 -I 4k
for kind in la ra ls rs n; do make raid5_$kind 8 --type raid5_$kind -i 4 -I 4k; done
for kind in zr nr nc ls_6 la_6 rs_6 ra_6 n_6; do make raid6_$kind 6 --type raid6_$kind -i 3 -I 4k; done
make mirror 6 --type mirror -m 1 --mirrorlog disk
make mirror_core 6 --type mirror -m 2 --mirrorlog core
make striped 12 --type striped -i 3 -I 4k
lvs -a -o+devices raids
settle raids
for lv in $(lvs --noheadings -o lv_name raids); do
  fill $n /dev/raids/$lv; n=$((n+37))
done
for lv in $(lvs --noheadings -o lv_name raids); do tell raids $lv; done
dmsetup table
