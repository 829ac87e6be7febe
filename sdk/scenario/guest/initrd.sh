#!/bin/busybox sh
# Brings the disk up and hands over to the system on it.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
for m in /lib/*.ko; do $bb insmod $m; done
n=0
while [ ! -b /dev/vda ] && [ $n -lt 500 ]; do $bb usleep 10000; n=$((n+1)); done
if ! $bb mount -t ext4 -o rw,noatime /dev/vda /root; then
  echo "LIFEBOAT-GUEST no root filesystem on /dev/vda"
  $bb sleep 5
  $bb poweroff -f
fi
for d in proc sys dev; do $bb mount -o move /$d /root/$d; done
exec $bb switch_root /root /sbin/init
