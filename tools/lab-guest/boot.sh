#!/bin/busybox sh
# The guest's first process: puts the root file system together out of the host's, then hands over to init.sh.
#
# Runs in the initial RAM disk that tools/lab builds, where busybox is the only program. /job/vars says what this run wants
# and what MACHINE this is: "qemu", which has the host's files over 9p, or "uml" (User-Mode Linux), which has them by hostfs.
b=/bin/busybox
die() { echo "lab: the guest could not $*"; $b poweroff -f; }

$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
. /job/vars
if [ "$MACHINE" = qemu ]; then
    while read -r module; do
        $b insmod "/modules/$module" || die "load $module"
    done </modules/order
fi

# mount_host RIGHTS FOLDER TAG TARGET: mounts a folder of the host's. Nobody changes files under a running guest, so 9p may cache
# them as it likes ("loose"): that alone makes it three times as fast.
mount_host() {
    case $MACHINE in
        qemu) $b mount -t 9p -o "$1,trans=virtio,version=9p2000.L,msize=512000,cache=loose" "$3" "$4" ;;
        uml) $b mount -t hostfs -o "$1,$2" hostfs "$4" ;;
    esac || die "mount $2"
}

# The host's files are below, read-only, and what the guest writes stays in its memory: a test cannot harm the host.
# Only the checkout (and what --share names) is the real thing.
mount_host ro / root /lower
$b mount -t tmpfs -o mode=755 tmpfs /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root || die "make its root writable"
number=0
for share in $SHARES; do
    $b mkdir -p "/root$share"
    mount_host rw "$share" "share$number" "/root$share"
    number=$((number + 1))
done
if [ -n "$MODULES" ]; then
    $b mkdir -p /root/usr/lib/modules
    $b mount --bind "/lower$MODULES" /root/usr/lib/modules || die "mount its kernel's modules"
fi

$b mount -t tmpfs -o mode=755 tmpfs /root/run
$b mkdir /root/run/lab
$b cp /bin/busybox /job/* /root/run/lab/
for dir in proc sys dev; do $b mount --move "/$dir" "/root/$dir"; done
exec $b switch_root /root /run/lab/busybox sh /run/lab/init.sh
