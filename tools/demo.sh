#!/bin/sh
# The main job as a user sees it, on a real example. Runs in network and mount namespaces of its own and leaves nothing.
set -eu
cd "$(dirname "$0")/.."
if [ "${1:-}" != inside ]; then
    exec unshare --net --mount -- sh "$0" inside
fi
mount -t tmpfs tmpfs /run
# The kernel forwards IPv6 for a device only if the whole node does; that is the node's to say, not a device's.
sysctl -qw net.ipv6.conf.all.forwarding=1
nkform=.venv/bin/nkform
spec=examples/two-workloads.yaml

run() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

run $nkform plan $spec
run $nkform apply -y $spec
run ip netns exec web ping -c 2 -i 0.2 10.0.0.3
run ip netns exec db ping -c 2 -i 0.2 fd00::2
run $nkform plan $spec
printf '\n# A smaller MTU, and nothing that web sends shall pass any more:\n'
run $nkform plan --var mtu=1400 --var web_policy=blackhole $spec
run $nkform apply -y --var mtu=1400 --var web_policy=blackhole $spec
printf '\n\033[1m$ %s\033[0m\n' "ip netns exec web ping -c 1 -W 1 10.0.0.3"
if ip netns exec web ping -c 1 -W 1 10.0.0.3; then
    echo "demo: a blackholed workload got a packet through" >&2
    exit 1
fi
run $nkform plan --var mtu=1400 --var web_policy=blackhole $spec
run $nkform destroy -y $spec
