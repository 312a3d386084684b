#!/bin/bash
# In a virtual machine with systemd, as root: the package, its unit and its program, with connections all the time.
failed=0
check() {
    local what=$1
    shift
    if "$@" >/run/said 2>&1; then
        echo "guest: ok: $what"
    else
        failed=$((failed + 1))
        echo "guest: FAILED: $what"
        cat /run/said
    fi
}
not() { ! "$@"; }
get() { ip netns exec client curl --silent --max-time 5 http://203.0.113.10/; }
# The daemon's process, once it is another than $1 and ready.
successor() {
    for _ in $(seq 300); do
        pid=$(systemctl show --property MainPID --value lb)
        [ "$pid" != 0 ] && [ "$pid" != "$1" ] && systemctl --quiet is-active lb && return 0
        sleep 0.5
    done
    return 1
}
# Namespace, interface of the front node, its address, the other end's.
leg() {
    ip netns add "$1"
    ip -n "$1" link set lo up
    ip link add "$2" type veth peer name eth0 netns "$1"
    ip address add "$3" dev "$2"
    ip -n "$1" address add "$4" dev eth0
    ip link set "$2" up
    ip -n "$1" link set eth0 up
    ethtool -K "$2" tx off gro on
    ip netns exec "$1" ethtool -K eth0 tx off gro on
}
server() {
    mkdir -p "/run/$1"
    echo "$1" >"/run/$1/index.html"
    echo "pid /run/$1.pid; error_log /run/$1.log; events {} http { access_log off; server { root /run/$1; } }" >"/run/$1.conf"
    ip netns exec "$1" nginx -c "/run/$1.conf"
}
# Requests, one after the other, until told to stop: how many were answered and how many not.
load() {
    answered=0 unanswered=0
    trap 'echo "$answered $unanswered" >/run/load; exit' TERM
    while :; do
        if get >/dev/null; then answered=$((answered + 1)); else unanswered=$((unanswered + 1)); fi
    done
}

echo "guest: Linux $(uname -r), $(systemctl --version | head -1)"
ip link set lo up
leg client c0 192.0.2.1/24 192.0.2.2/24 >/dev/null
leg web-01 w1 10.0.1.1/24 10.0.1.2/24 >/dev/null
leg web-02 w2 10.0.2.1/24 10.0.2.2/24 >/dev/null
ip -n client route add default via 192.0.2.1
server web-01
server web-02

check "the package is installed" dpkg --install /mnt/lb.deb
check "the service waits for its configuration" not systemctl --quiet is-active lb
cat >/etc/lb/lb.toml <<'TOML'
[global]
interfaces = ["c0", "w1", "w2"]

[service.web]
listen = "203.0.113.10:80"

[service.web.health]
type = "http"
interval = "500ms"

[[service.web.backend]]
name = "web-01"
address = "10.0.1.2:80"

[[service.web.backend]]
name = "web-02"
address = "10.0.2.2:80"
TOML
cp /etc/lb/lb.toml /run/good.toml
check "doctor finds no problem" lb doctor
check "the service starts" systemctl start lb
check "the program is attached natively" test "$(lb xdp status -o json | grep -o '"mode":"native"' | wc -l)" = 3
pid=$(systemctl show --property MainPID --value lb)
check "three capabilities are left" grep --quiet 'CapPrm:.000000c000001000' "/proc/$pid/status"
check "requests are answered" get
load &
load=$!
check "a good file is reloaded" systemctl reload lb
sed -i 's/interval/intervall/' /etc/lb/lb.toml
check "a bad file is not" not systemctl reload lb
cp /run/good.toml /etc/lb/lb.toml
check "the journal has the place of the mistake" bash -c 'journalctl --unit lb | grep --quiet "lb.toml:.*unknown key"'
check "a backend is disabled" lb backend disable web/web-01 --reason "a test"
check "the service restarts" systemctl restart lb
check "the backend is disabled still" bash -c 'lb backend show web/web-01 -o json | grep --quiet "\"admin\":\"disabled\""'
check "the backend is enabled" lb backend enable web/web-01
pid=$(systemctl show --property MainPID --value lb)
kill -KILL "$pid"
check "it is started again after SIGKILL" successor "$pid"
pid=$(systemctl show --property MainPID --value lb)
kill -STOP "$pid"
check "it is started again when it hangs" successor "$pid"
check "the package is upgraded" dpkg --install /mnt/next.deb
check "the upgraded service runs" systemctl --quiet is-active lb
check "the service stops" systemctl stop lb
check "the event log is read without it" lb events
check "the service starts again" systemctl start lb
kill -TERM "$load"
wait "$load"
check "every request was answered ($(cat /run/load): answered, unanswered)" grep --quiet '^[1-9][0-9]* 0$' /run/load
check "the package is removed" dpkg --remove lb
check "forwarding outlives it" get
check "the package is purged" dpkg --purge lb
check "forwarding has ended" not get
check "nothing is attached" not grep --quiet prog/xdp <(ip -details link)
check "nothing is pinned" test -z "$(ls -A /sys/fs/bpf)"
[ "$failed" = 0 ] || journalctl --unit lb --no-pager
echo "guest: end, $failed failed"
