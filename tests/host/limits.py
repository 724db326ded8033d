#!/usr/bin/env python3
"""Limits of disks and networks as a guest sees them: what goes through in some ten seconds, by the guest's own clock
and counters, is what was said, within 5 %. Three minutes; not part of `make test`."""
import http.server
import re
import socketserver
import sys
import threading

import harness
from client import Client, Daemon
from networks import Guest

MIB = 1 << 20
SECONDS = 10
WITHIN = 0.05


class Endless(http.server.BaseHTTPRequestHandler):
    """As many zeroes as are wanted."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(65536))
        except OSError:
            pass

    def log_message(self, *_):
        pass


class Sink(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(1 << 20):
            pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


class SinkServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


class World:
    def __init__(self, build, guest):
        self.guest = guest
        self.daemon = Daemon(build).start()
        self.local = Client(self.daemon)
        self.ports = []
        self.servers = [Server(("127.0.0.1", 0), Endless), SinkServer(("127.0.0.1", 0), Sink)]
        for server in self.servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.ports.append(server.server_address[1])
        self.one = Guest(self, "limited", [{}])
        self.local.do(self.one.path + "/disks", {"capacity": 256 * MIB, "bus": "virtio", "format": "raw"})
        self.one.start().ready()
        self.one.dhcp("eth0")
        self.gateway = re.search(r"via (\S+)", self.one.can("ip route"))[1]
        self.one.sh("dd if=/dev/zero of=/dev/vda bs=1M oflag=direct 2> /dev/null; sync")

    def limit(self, **resources):
        """And wait until the machine's process keeps them."""
        for kind in ("disk", "network"):
            resources.setdefault(kind, None)
        self.local.patch(self.one.path, {"resources": resources})
        wanted = {kind: (of or {}).get("limit") for kind, of in resources.items()}
        self.local.until(self.one.path, lambda m: m["granted"] and all(
            m["granted"][kind] == n for kind, n in wanted.items() if n))
        self.one.sh("sleep 3")  # those that `granted` does not show are told within a round of two seconds

    def rate(self, command, counter):
        """How much a second @counter, a command of the guest, grows while @command goes on."""
        now = f"$(cut -d' ' -f1 /proc/uptime) $({counter})"
        said = self.one.sh(f"setsid sh -c '{command}' > /dev/null 2>&1 & p=$!; sleep 1; a=\"{now}\"; sleep {SECONDS}; "
                           f"b=\"{now}\"; kill -9 -$p; wait; echo rates $a $b")
        t0, n0, t1, n1 = (float(x) for x in re.search(r"rates (.*)", said)[1].split())
        return (n1 - n0) / (t1 - t0)

    def expect(self, what, wanted, got):
        print(f"# {what}: {got / wanted:.3f} of {wanted}")
        assert abs(got / wanted - 1) <= WITHIN, f"{what}: {got:.0f} a second instead of {wanted}"

    def remove(self):
        self.daemon.remove()
        for server in self.servers:
            server.shutdown()
            server.server_close()


# Of /sys/block/*/stat: reads are fields 1 (requests) and 3 (sectors), writes 5 and 7.
def disk(field):
    return f"awk '{{print ${field}}}' /sys/block/vda/stat"


# Several at a time: a host that is late with one has the others.
MANY = "for i in 1 2 3 4 5 6 7 8; do while :; do dd %s; done & done; wait"
READ = MANY % "if=/dev/vda of=/dev/null bs=%s iflag=direct skip=$((i * 16))"
WRITE = MANY % "if=/dev/zero of=/dev/vda bs=%s oflag=direct seek=$((i * 16))"


def test_bandwidth(w):
    for member, command, field in (("limit", READ, 3), ("read_limit", READ, 3), ("write_limit", WRITE, 7)):
        for size in ("64k", "1M"):
            w.limit(disk={member: 4 * MIB})
            w.expect(f"disk {member}, requests of {size}", 4 * MIB, 512 * w.rate(command % size, disk(field)))


def test_requests(w):
    for member, command, field in (("iops_limit", READ, 1), ("read_iops_limit", READ, 1),
                                   ("write_iops_limit", WRITE, 5)):
        w.limit(disk={member: 150})
        w.expect(f"disk {member}", 150, w.rate(command % "4k", disk(field)))


def test_network(w):
    get = f"wget -q -O /dev/null http://{w.gateway}:{w.ports[0]}/"
    put = f"cat /dev/zero | nc {w.gateway} {w.ports[1]}"
    for member, command, counter in (("in_limit", get, "rx"), ("out_limit", put, "tx")):
        w.limit(network={member: MIB})
        w.expect(f"network {member}", MIB, w.rate(command, f"cat /sys/class/net/eth0/statistics/{counter}_bytes"))
    both = "echo $(($(cat /sys/class/net/eth0/statistics/rx_bytes) + $(cat /sys/class/net/eth0/statistics/tx_bytes)))"
    w.limit(network={"limit": MIB})
    w.expect("network limit, both ways", MIB, w.rate(f"{get} & {put}", both))


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, harness.tests_of(globals()), World, guest=True))
