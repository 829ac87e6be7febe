#!/bin/busybox sh
# What the power button does.
echo "GUEST power button" > /dev/console
sync
mount -o remount,ro /mnt
poweroff -f
