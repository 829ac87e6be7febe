#!/bin/busybox sh
# The only program of the test guest. It counts its boots on the disk, prints what it sees, then appends numbered records.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin
for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk evdev button; do insmod /modules/$m.ko; done
i=0
while [ ! -b /dev/vda ] && [ $i -lt 200 ]; do usleep 10000; i=$((i+1)); done
acpid -d -c /etc/acpi >/tmp/acpid.log 2>&1 &
if ! mount -t ext4 -o errors=remount-ro /dev/vda /mnt; then
	echo "GUEST mount failed"
	while :; do sleep 1; done
fi
n=$(cat /mnt/boots); n=$((n+1))
echo $n > /mnt/boots && sync
serials=$(for s in /sys/block/vd*/serial; do cat $s; echo; done | tr "\n" " ")
nics=$(cat /sys/bus/virtio/devices/*/device | grep -c 0x0001)
echo "GUEST boot=$n uuid=$(cat /sys/class/dmi/id/product_uuid) cpus=$(nproc) nics=$nics serials=$serials"
if [ -b /dev/vdb ]; then
	echo "GUEST second=$(dd if=/dev/vdb bs=512 count=1 2>/dev/null | md5sum | cut -d' ' -f1)"
	echo "written by boot $n" | dd of=/dev/vdb bs=512 seek=1 conv=sync,fsync 2>/dev/null
fi
cat /mnt/payload | md5sum | sed 's/^/GUEST payload=/'
r=$(wc -l < /mnt/records)
while :; do
	r=$((r+1))
	echo "record $r" >> /mnt/records && sync && echo "GUEST record=$r"
	usleep 200000
done
