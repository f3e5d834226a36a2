#!/bin/busybox sh
# The guest's first process: puts the root file system together out of the host's, then hands over to init.sh.
#
# Runs in the initial RAM disk that tools/lab builds, where busybox is the only program. /job/vars says what this run wants.
b=/bin/busybox
die() { echo "lab: the guest could not $*"; $b poweroff -f; }

$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
. /job/vars
while read -r module; do
    $b insmod "/modules/$module" || die "load $module"
done </modules/order

# The host's files are below, read-only, and what the guest writes stays in its memory: a test cannot harm the host.
# Only the checkout (and what --share names) is the real thing. Nobody changes files under a running guest, so it may cache them
# as it likes ("loose"): that alone makes it three times as fast.
p9=trans=virtio,version=9p2000.L,msize=512000,cache=loose
$b mount -t 9p -o ro,$p9 root /lower || die "mount the host's root file system"
$b mount -t tmpfs -o mode=755 tmpfs /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root || die "make its root writable"
number=0
for share in $SHARES; do
    $b mkdir -p "/root$share"
    $b mount -t 9p -o rw,$p9 "share$number" "/root$share" || die "mount $share"
    number=$((number + 1))
done
$b mkdir -p /root/usr/lib/modules
$b mount --bind "/lower$MODULES" /root/usr/lib/modules || die "mount its kernel's modules"

$b mount -t tmpfs -o mode=755 tmpfs /root/run
$b mkdir /root/run/lab
$b cp /bin/busybox /job/* /root/run/lab/
for dir in proc sys dev; do $b mount --move "/$dir" "/root/$dir"; done
exec $b switch_root /root /run/lab/busybox sh /run/lab/init.sh
