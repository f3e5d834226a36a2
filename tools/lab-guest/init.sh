#!/bin/sh
# The guest's init after boot.sh: mounts what a Linux system has, runs the one command, reports its exit code, powers off.
#
# The host listens on three lines: `out` and `err` carry the command's output, `ctl` carries "booted" and "exit N".
lab=/run/lab
b=$lab/busybox
. $lab/vars

$b mkdir -p /dev/pts /dev/shm /run/netns /run/lock
$b mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
$b mount -t tmpfs -o mode=1777 tmpfs /dev/shm
$b mount -t tmpfs -o mode=1777 tmpfs /var/tmp
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b mount -t bpf -o mode=700 bpf /sys/fs/bpf
$b mount -t debugfs debugfs /sys/kernel/debug
[ ! -d /sys/kernel/tracing ] || $b mount -t tracefs tracefs /sys/kernel/tracing
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    [ -e "/dev/${link%%:*}" ] || $b ln -s "${link#*:}" "/dev/${link%%:*}"
done
$b mount --make-rshared /  # as on a system run by systemd; `ip netns` counts on it
$b hostname "$HOSTNAME"
$b ip link set lo up
ulimit -n 65536
ulimit -l unlimited

# The device of a line. QEMU has virtio ports, and there is no udev here to make /dev/virtio-ports/NAME. User-Mode Linux has serial
# ones, in the order that lab_uml.py has.
port() {
    case $MACHINE-$1 in
        qemu-tty) echo /dev/ttyS1 ;;
        qemu-*)
            for dir in /sys/class/virtio-ports/*; do
                [ "$($b cat "$dir/name" 2>/dev/null)" = "$1" ] && echo "/dev/${dir##*/}" && return
            done
            ;;
        uml-ctl) echo /dev/ttyS0 ;;
        uml-out) echo /dev/ttyS1 ;;
        uml-err) echo /dev/ttyS2 ;;
        uml-tty) echo /dev/ttyS3 ;;
    esac
}
if [ "$MACHINE" = uml ]; then
    for name in ctl out err; do $b stty -F "$(port $name)" raw -echo; done
fi

exec 8>"$(port ctl)"
echo booted >&8
if [ -n "$TTY" ]; then
    tty=$(port tty)
    $b setsid -c /bin/sh $lab/command <"$tty" >"$tty" 2>&1
    code=$?
else
    # Through pipes, since a virtio port can be opened only once and programs do open /dev/stderr.
    $b mkfifo $lab/out $lab/err
    $b cat $lab/out >"$(port out)" &
    out=$!
    $b cat $lab/err >"$(port err)" &
    err=$!
    $b setsid /bin/sh $lab/command </dev/null >$lab/out 2>$lab/err 8>&-
    code=$?
    # What the command left running in the background may hold the pipes open; the output gets two seconds to drain.
    { $b sleep 2; kill $out $err; } 2>/dev/null &
    wait $out $err 2>/dev/null
fi
$b sync
echo "exit $code" >&8
$b poweroff -f
