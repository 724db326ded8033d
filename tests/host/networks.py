#!/usr/bin/env python3
"""Networks of the host (docs/networks.md) with real guests: DHCP, DNS, NAT, what is kept apart, what guests
must not send, and what is left after kill -9. In a network namespace that this makes for itself; where that is
not allowed each test says that it was skipped."""
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import client
import harness
from client import PATIENCE, Client, Daemon, Refused

OUTSIDE, HOST, OTHER = "192.0.2.2", "192.0.2.1", "192.0.2.9"
SERVER = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("you are " + self.client_address[0] + "\\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
print("ready", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 80), H).serve_forever()
"""


def ip(words, check=True):
    return subprocess.run(["ip", *words.split()], check=check, capture_output=True, text=True).stdout


def links(kind="[bt]"):
    """Names of what mulliond makes: bridges ("b"), taps ("t")."""
    return set(re.findall(rf"^\d+: (ml[0-9a-f]{{6}}{kind}[0-9a-f]{{6}})[:@]", ip("link show"), re.M))


class Namespace:
    """Another host: a network namespace at the end of a cable (veth)."""

    def __init__(self, near, far):
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "1000"], preexec_fn=harness.die_with_parent)
        end = time.monotonic() + PATIENCE
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.process.pid}/ns/net") == own or "sleep" not in self.command():
            assert time.monotonic() < end
            time.sleep(0.01)
        ip(f"link add {near} type veth peer name {far}")
        ip(f"link set {far} netns {self.process.pid}")
        ip(f"link set {near} up")
        self.run(f"ip link set {far} up")
        self.servers = []

    def command(self):
        with open(f"/proc/{self.process.pid}/cmdline", encoding="utf-8") as f:
            return f.read()

    def words(self, command):
        return ["nsenter", "-t", str(self.process.pid), "-n", *command]

    def run(self, command, check=True):
        return subprocess.run(self.words(command.split()), check=check, capture_output=True, text=True)

    def serve(self):
        server = subprocess.Popen(self.words([sys.executable, "-c", SERVER]), stdout=subprocess.PIPE,
                                  text=True, preexec_fn=harness.die_with_parent)
        assert server.stdout.readline() == "ready\n"
        self.servers.append(server)

    def close(self):
        for process in [*self.servers, self.process]:
            process.kill()
            process.wait()


class Guest:
    """A running machine and the shell on its serial console."""

    def __init__(self, world, name, cards):
        self.world, self.name, self.n, self.begun = world, name, 0, {}
        assets = os.path.join(world.guest, "6.12")
        self.id = world.local.machine(name, memory=96 << 20, networks=cards, config={
            "kernel": os.path.join(assets, "vmlinuz"), "initrd": os.path.join(assets, "initrd"),
            "cmdline": "console=ttyS0 quiet mullion.do=shell mullion.network=off"})
        self.path, self.socket = "/machines/" + self.id, None

    def start(self):
        self.world.local.do(self.path + "/start")
        return self

    def connect(self):
        if self.socket:
            self.socket.close()
            self.socket = None
        ticket = self.world.local.post(self.path + "/console", {"type": "serial"})
        self.socket, self.said = self.world.local.websocket(ticket["url"]), b""

    def ready(self):
        """Its shell answers; its cards have what DHCP gives them."""
        self.connect()
        end = time.monotonic() + 2 * PATIENCE
        self.socket.sock.settimeout(1)
        while b"there-is-a-shell" not in self.said:
            assert time.monotonic() < end, self.said[-2000:]
            self.socket.send(b"echo there-is-a-sh''ell\n")
            try:
                self.said += self.socket.message()
            except TimeoutError:
                pass
        # Not a shell for people: no prompt, no editing, no echo.
        self.socket.send(b"stty -echo; exec sh -c 'while read -r l; do eval \"$l\"; done'\n")
        self.socket.sock.settimeout(PATIENCE)
        self.sh("for c in /sys/class/net/eth*; do c=${c##*/}; ip link set $c up; done")
        return self

    def dhcp(self, card):
        self.sh(f"udhcpc -i {card} -q -n -t 20 -T 2 -s /usr/share/udhcpc/default.script > /dev/null 2>&1")
        found = re.findall(r"inet (\S+)/", self.sh(f"ip -4 addr show {card}"))
        assert len(found) == 1, found
        return found[0]

    def sh(self, command):
        """Run a command. @return what it says"""
        self.n += 1
        mark = f"done-{self.n}-"
        self.said = b""
        assert self.socket, f"{self.name}: its console has gone"
        self.socket.send(f"{command}\necho {mark}$?-\n".encode())
        end = time.monotonic() + PATIENCE
        while True:
            if time.monotonic() > end:
                raise AssertionError(f"{self.name}: {command}: {self.said[-500:]}")
            match = re.search(mark.encode() + rb"(\d+)-", self.said)
            if match:
                self.status = int(match[1])
                return self.said[:match.start()].decode(errors="replace")
            try:
                self.said += self.socket.message()
            except OSError as e:
                self.socket = None
                raise AssertionError(f"{self.name}: {command}: {e}: {self.said[-500:]}") from e

    def can(self, command):
        """It succeeds, sooner or later."""
        self.sh(f"for i in 1 2 3 4 5 6 7 8; do {command} > /tmp/out 2>&1 && break; sleep 1; done; cat /tmp/out")
        said = self.sh(f"{command} 2>&1")
        assert self.status == 0, f"{self.name}: {command}: {said}"
        return said

    def begin(self, name, *commands):
        """None of them must succeed, which cannot() asks for: each waits in vain, meanwhile others go on."""
        self.begun[name] = commands
        all_of = " ".join(f"( {c} > /dev/null 2>&1 && echo bad-{i} >> /tmp/{name} ) &" for i, c in enumerate(commands))
        self.sh(f"( > /tmp/{name}; {all_of} wait; > /tmp/{name}.done ) > /dev/null 2>&1 &")

    def cannot(self, *commands, begun=None):
        """None of them succeeds; all at once."""
        if not begun:
            begun = f"n{self.n}"
            self.begin(begun, *commands)
        commands = self.begun.pop(begun)
        said = self.sh(f"while [ ! -e /tmp/{begun}.done ]; do sleep 0.1; done; cat /tmp/{begun}")
        bad = [commands[int(i)] for i in re.findall(r"bad-(\d+)", said)]
        assert not bad, f"{self.name} can: {bad}"


def ping(address, more=""):
    return f"ping{'6' if ':' in address else ''} -c 1 -W 2 {more} {address}"


class World:
    def __init__(self, build, guest, daemon=None):
        """@param daemon  that runs; without one a daemon of our own"""
        self.build, self.guest = build, guest
        ip("link set lo up")
        self.outside = Namespace("up0", "far0")
        ip(f"addr add {HOST}/24 dev up0")
        for address in (OUTSIDE, OTHER):
            self.outside.run(f"ip addr add {address}/24 dev far0")
        self.outside.serve()
        self.daemon = daemon or Daemon(build).start()
        self.local = Client(self.daemon)
        assert "network-nat" not in self.local.get("/host")["missing"], self.local.get("/networks")
        self.net = {n: self.local.post("/networks", {"name": n, "type": t, **more}) for n, t, more in (
            ("lan", "nat", {"reservations": {"web-2": "10.64.0.50"}}), ("other", "nat", {}),
            ("back", "isolated", {}))}
        # A bridge of the host's own, with a neighbor on it.
        ip("link add br0 type bridge")
        ip("link set br0 up")
        self.neighbor = Namespace("up1", "far1")
        ip("link set up1 master br0")
        self.neighbor.run("ip addr add 10.99.0.1/24 dev far1")
        self.office = self.local.post("/networks", {"name": "office", "type": "bridge", "bridge": "br0"})
        self.one = Guest(self, "web-1", [{"network": "lan"}, {"network": "back"}]).start()
        self.two = Guest(self, "web-2", [{"network": n} for n in ("lan", "back", "other", "office")]).start()
        self.address = {}
        for g, cards in ((self.one, ("lan", "back")), (self.two, ("lan", "back", "other"))):
            g.ready()
            for i, name in enumerate(cards):
                self.address[g.name, name] = g.dhcp(f"eth{i}")
            # One way out: by lan.
            g.sh("ip route del default; ip route del default")
            g.sh(f"ip route add default via {self.net['lan']['gateway']}")

        # By DHCPv6, and one that is not its own; used later, when they have been found to be free.
        port = next(p for p in self.local.get(self.path("lan") + "/ports")["items"] if p["name"] == "web-1")
        self.own6 = next(a for a in port["addresses"] if ":" in a)
        self.other6 = self.net["lan"]["subnet6"].replace("/64", "dead")
        for address in (self.own6, self.other6):
            self.one.sh(f"ip -6 addr add {address}/64 dev eth0")
        self.begin_attempts()

    def begin_attempts(self):
        """What nobody must be able to do, and what takes long to fail: the tests ask for what came of it."""
        one, back = self.one, self.gateway("back")
        one.can(ping(self.gateway("lan")))
        one.begin("networks", ping(self.address["web-2", "other"]), ping(self.gateway("other")),
                  ping(back, "-I eth0"), ping(HOST))
        self.listener = socket.socket()
        self.listener.bind(("0.0.0.0", 0))
        self.listener.listen()
        port = self.listener.getsockname()[1]
        one.begin("host", *(f"nc -w 2 {a} {port} < /dev/null" for a in (self.gateway("lan"), HOST, back)))
        one.can(f"timeout 20 wget -q -O - http://{OTHER}/")
        one.sh(f"ip route add {OTHER}/32 via {back} dev eth1")
        one.begin("isolated", f"timeout 3 wget -q -O - http://{OTHER}/", ping(OTHER))
        prefix = self.net["lan"]["subnet6"].partition("/")[0]
        one.can(ping(prefix + "1", f"-I {self.own6}"))
        one.begin("ipv6", ping(prefix + "1", f"-I {self.other6}"))

    def path(self, name):
        return "/networks/" + self.net[name]["id"]

    def gateway(self, name):
        return self.net[name]["gateway"]

    def remove(self):
        self.daemon.remove()
        for name in os.listdir("/proc"):  # what a test that broke has left of dnsmasq
            try:
                with open(f"/proc/{name}/cmdline", encoding="utf-8") as f:
                    if f"--conf-file={self.daemon.runtime}/" in f.read():
                        os.kill(int(name), signal.SIGKILL)
            except (OSError, ValueError):
                pass
        self.outside.close()
        self.neighbor.close()


def refused(status, function, *args):
    try:
        got = function(*args)
    except Refused as e:
        assert e.answer.status == status, str(e)
        return e.answer.json["detail"]
    raise AssertionError(f"{args}: was allowed: {got}")


# ---- What a network brings ----

def test_leases_and_ports(w):
    leases = {(l["machine_name"], l["address"]): l for l in w.local.get(w.path("lan") + "/leases")["items"]}
    for g in (w.one, w.two):
        lease = leases[g.name, w.address[g.name, "lan"]]
        assert lease["name"] == g.name and lease["machine"] == g.id and lease["expires"], lease
    assert w.address["web-2", "lan"] == "10.64.0.50", w.address
    assert leases["web-2", "10.64.0.50"]["reserved"] and not leases["web-1", w.address["web-1", "lan"]]["reserved"]
    ports = w.local.get(w.path("lan") + "/ports")["items"]
    assert {(p["name"], p["card"], p["addresses"][0]) for p in ports} == {
        (g.name, 0, w.address[g.name, "lan"]) for g in (w.one, w.two)}, ports
    assert {p["interface"] for p in ports} <= links("t")
    mac = w.one.sh("cat /sys/class/net/eth0/address").strip()
    assert mac == next(p["mac"] for p in ports if p["name"] == "web-1"), mac
    out = subprocess.run([os.path.join(w.build, "mullion"), "network", "leases", "lan", "--format", "json"],
                         env=dict(os.environ, MULLION_RUNTIME_DIR=w.daemon.runtime), check=True,
                         capture_output=True, text=True).stdout
    assert {l["address"] for l in json.loads(out)} == {a for (_, a) in leases}, out


def test_names(w):
    server = w.gateway("lan")
    for name in ("web-2.lan.internal", "web-2"):
        assert "10.64.0.50" in w.one.can(f"nslookup {name} {server}"), name
    back = w.gateway("back")
    assert w.address["web-2", "back"] in w.one.can(f"nslookup web-2.back.internal {back}")
    # Nothing is asked of anybody for those who are isolated.
    assert "REFUSED" in w.one.sh(f"nslookup example.com {back} 2>&1") or w.one.status


def test_same_network(w):
    w.one.can(ping(w.gateway("lan")))
    w.one.can(ping(w.address["web-2", "lan"]))
    w.one.can(ping(w.address["web-2", "back"]))


def test_out_by_nat(w):
    assert f"you are {HOST}" in w.one.can(f"timeout 20 wget -q -O - http://{OUTSIDE}/")
    w.outside.run(f"ip route add 10.64.0.0/16 via {HOST}")  # somebody who wants in
    assert w.outside.run(f"ping -c 1 -W 2 {HOST}", check=False).returncode in (0, 127)
    reach = [sys.executable, "-c", "import socket,sys; s=socket.socket(); s.settimeout(2); "
             "sys.exit(s.connect_ex((sys.argv[1], 8080)) not in (0, 111))"]
    w.one.sh("nc -l -p 8080 < /dev/null > /dev/null 2>&1 &")
    address = w.address["web-1", "lan"]
    assert subprocess.run([*reach, address], check=False).returncode == 0, "the host reaches its guest"
    w.one.sh("nc -l -p 8080 < /dev/null > /dev/null 2>&1 &")
    assert subprocess.run(w.outside.words([*reach, address]), check=False).returncode == 1


# ---- What is kept apart ----

def test_isolated(w):
    w.one.cannot(begun="isolated")
    w.one.sh(f"ip route del {OTHER}/32")
    w.one.can(f"timeout 20 wget -q -O - http://{OTHER}/")


def test_networks_do_not_reach_each_other(w):
    other = w.address["web-2", "other"]
    assert subprocess.run([sys.executable, "-c", "import socket,sys; s=socket.socket(); s.settimeout(20); "
                           "sys.exit(s.connect_ex((sys.argv[1], 81)) != 111)", other],
                          check=False).returncode == 0, "the host reaches it"
    w.one.can(ping(w.gateway("lan")))
    w.one.cannot(begun="networks")


def test_the_host_is_not_reached(w):
    with w.listener as listener:
        w.one.cannot(begun="host")
        listener.settimeout(0)
        try:
            listener.accept()
            raise AssertionError("a guest has reached a port of the host")
        except BlockingIOError:
            pass


def test_spoofing(w):
    gateway, peer = w.gateway("lan"), w.address["web-2", "lan"]
    mac = w.one.sh("cat /sys/class/net/eth0/address").strip()
    w.one.can(ping(gateway))
    w.one.can(f"arping -c 1 -w 3 -I eth0 {peer}")
    # Another's address: IPv4, ARP.
    w.one.sh("ip addr add 10.64.0.77/24 dev eth0")
    before = w.two.sh(f"ip neigh show {gateway}")
    w.one.cannot(ping(gateway, "-I 10.64.0.77"), ping(peer, "-I 10.64.0.77"),
                 f"arping -c 1 -w 2 -I eth0 -s 10.64.0.77 {peer}")
    w.one.sh("ip addr del 10.64.0.77/24 dev eth0")
    # "The gateway is here": nobody hears it.
    w.one.sh(f"ip addr add {gateway}/32 dev eth0; arping -c 2 -w 2 -U -I eth0 -s {gateway} {peer}; "
             f"ip addr del {gateway}/32 dev eth0")
    assert mac not in w.two.sh(f"ip neigh show {gateway}"), before
    w.two.can(ping(gateway))
    # Another MAC.
    w.one.can(ping(peer))
    w.one.sh("ip link set eth0 address 02:00:00:00:00:99; ip neigh flush dev eth0")
    w.one.cannot(ping(gateway), ping(peer), f"arping -c 1 -w 2 -I eth0 {peer}")
    w.one.sh(f"ip link set eth0 address {mac}; ip neigh flush dev eth0")
    w.one.can(ping(gateway))
    # A DHCP server of one's own: another guest does not hear it.
    w.one.sh("printf 'interface eth0\\nstart 10.64.0.200\\nend 10.64.0.210\\n' > /tmp/d; touch /tmp/l; "
             "printf 'lease_file /tmp/l\\n' >> /tmp/d; (timeout 20 udhcpd -f /tmp/d > /dev/null 2>&1 &)")
    assert w.two.dhcp("eth0") == peer
    w.one.sh("killall udhcpd")


def test_ipv6(w):
    prefix = w.net["lan"]["subnet6"].partition("/")[0]
    assert w.own6.startswith(prefix)
    w.one.can(ping(prefix + "1", f"-I {w.own6}"))
    w.one.cannot(begun="ipv6")
    # The router has advertised itself, and on an isolated network that it is none.
    w.one.can("ip -6 route show default dev eth0 | grep -q via")
    assert "default" not in w.one.sh("ip -6 route show dev eth1")


# ---- Bridges of the host ----

def test_bridge(w):
    net, g = w.office, w.two
    assert net["state"] == "up" and net["interface"] == "br0" and not net["dhcp"], net
    mac = g.sh("cat /sys/class/net/eth3/address").strip()
    g.sh("ip addr add 10.99.0.2/24 dev eth3")
    g.can(ping("10.99.0.1"))
    g.sh("ip link set eth3 address 02:00:00:00:00:98")
    g.cannot(ping("10.99.0.1"))
    g.sh(f"ip link set eth3 address {mac}")
    assert "web-2" in refused(409, w.local.delete, "/networks/" + net["id"])


def test_bridge_that_is_gone(w):
    ip("link add br2 type bridge")
    ip("link set br2 up")
    try:
        net = w.local.post("/networks", {"name": "gone", "type": "bridge", "bridge": "br2"})
        g = Guest(w, "desk", [{"network": "gone"}])
        assert "desk" in refused(409, w.local.delete, "/networks/" + net["id"])
        ip("link del br2")
        failed = w.local.wait(w.local.post(g.path + "/start"), "failed")
        assert "br2" in failed["error"]["detail"] and "gone" in failed["error"]["detail"], failed
        assert w.local.get(g.path)["state"] == "stopped"
        w.local.do(g.path, method="DELETE")
        w.local.delete("/networks/" + net["id"])
    finally:
        ip("link del br2", check=False)


def test_vlans(w):
    ip("link add br1 type bridge")
    try:
        if subprocess.run("ip link set br1 type bridge vlan_filtering 1".split(), check=False,
                          capture_output=True).returncode:
            detail = refused(409, w.local.post, "/networks", {
                "name": "v", "type": "bridge", "bridge": "br1", "vlan": 5})
            assert "VLAN" in detail, detail
            raise harness.Skip("this kernel's bridges do not filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING)")
        ip("link set br1 up")
        for name, vlan in (("five", 5), ("six", 6)):
            w.local.post("/networks", {"name": name, "type": "bridge", "bridge": "br1", "vlan": vlan,
                                       "vlans": [7] if vlan == 5 else [5, 7]})
        refused(422, w.local.post, "/machines", {"name": "x", "networks": [{"network": "five", "vlan": 8}]})
        # In VLANs 5; 6, and 7 with a tag; 5 by the card's choice, and 7 with a tag.
        guests = [Guest(w, n, [c]).start() for n, c in (
            ("v-a", {"network": "five"}), ("v-b", {"network": "six", "vlans": [7]}),
            ("v-c", {"network": "six", "vlan": 5, "vlans": [7]}))]
        for i, g in enumerate(guests, 1):
            g.ready()
            g.sh(f"ip addr add 10.98.0.{i}/24 dev eth0")
        a, b, c = guests
        a.can(ping("10.98.0.3"))
        a.cannot(ping("10.98.0.2"))
        for i, g in enumerate((a, b, c), 1):
            g.sh(f"ip link add link eth0 name eth0.7 type vlan id 7 && ip addr add 10.97.0.{i}/24 dev eth0.7 && "
                 "ip link set eth0.7 up")
            assert g.status == 0, "the guest's kernel has no VLANs"
        b.can(ping("10.97.0.3"))
        b.cannot(ping("10.97.0.1"), ping("10.98.0.1"), ping("10.98.0.3"))
        a.cannot(ping("10.97.0.3"))
        for g in guests:
            w.local.do(g.path + "/stop", {"force": True})
            w.local.do(g.path, method="DELETE")
        for name in ("five", "six"):
            w.local.delete("/networks/" + w.local.get("/networks?q=" + name)["items"][0]["id"])
    finally:
        ip("link del br1", check=False)


# ---- Adversaries outside of guests ----

def test_hostile_leases(w):
    path = os.path.join(w.daemon.data, "networks", w.net["lan"]["id"] + ".leases")
    with open(path, "rb") as f:
        good = f.read()
    wanted = w.local.get(w.path("lan") + "/leases")["items"]
    junk = (b"\0\xff\n" + b"9" * 5000 + b"\n1 2 3 4\n99999999999 02:00:00:00:00:09 10.64.0.9 <b>x</b> *\n"
            b"9999999999 02:00:00:00:00:09 8.8.8.8 a *\n" + os.urandom(3000) + b"\n")
    with open(path, "wb") as f:
        f.write(junk + good)
    assert w.local.get(w.path("lan") + "/leases")["items"] == wanted
    with open(path, "wb") as f:
        f.write(good)


def test_names_that_are_no_labels(w):
    """Names of machines may have what DNS does not."""
    made = [w.local.machine(name, networks=[{"network": "back"}], config={
        "kernel": os.path.join(w.guest, "6.12", "vmlinuz"), "cmdline": "panic=-1"}, memory=96 << 20) for name in ("A_b", "a.B")]
    for machine in made:
        w.local.do("/machines/" + machine + "/start")
    with open(os.path.join(w.daemon.runtime, "networks", w.net["back"]["id"] + ".conf"), encoding="utf-8") as f:
        names = re.findall(r"^host-record=([^.]+)\.", f.read(), re.M)
    assert {"a-b", "a-b-2"} <= set(names), names
    for machine in made:
        if w.local.get("/machines/" + machine)["state"] == "running":
            w.local.do("/machines/" + machine + "/stop", {"force": True})
        w.local.until("/machines/" + machine, lambda m: m["state"] in ("stopped", "crashed") and not m["task"])
        w.local.do("/machines/" + machine, method="DELETE")


def test_refused(w):
    for body, text in (({"name": "x", "type": "nat", "subnet": "10.64.0.0/16"}, "overlaps"),
                       ({"name": "x", "type": "nat", "subnet": "192.0.2.0/25"}, "192.0.2.0/24"),
                       ({"name": "lan", "type": "nat"}, "there already")):
        detail = refused(409, w.local.post, "/networks", body)
        assert text in detail, detail
    refused(422, w.local.post, "/networks", {
        "name": "x", "type": "bridge", "bridge": w.net["lan"]["interface"]})
    assert "web-1" in refused(409, w.local.delete, w.path("lan"))
    refused(422, w.local.patch, w.path("lan"), {"reservations": {"web-9": "10.64.0.50"}})
    refused(422, w.local.patch, w.path("lan"), {"reservations": {"web-9": "10.64.0.255"}})


# ---- Ends of the daemon ----

def test_summary_has_addresses(w):
    """Without an agent in the guest its leases say which addresses it has."""
    got = w.local.until(w.one.path, lambda m: m["addresses"])
    assert w.address["web-1", "lan"] in got["addresses"], got["addresses"]


def test_killed(w):
    indexes = {n: ip(f"-o link show {x['interface']}").split(":")[0] for n, x in w.net.items()}
    taps = links("t")
    stray = w.net["lan"]["interface"][:9] + "ffffff"
    w.daemon.kill()
    ip(f"link add {stray} type bridge")
    w.one.socket = None
    w.daemon.start()
    w.local.close()
    w.one.connect()
    w.two.connect()
    assert stray not in links() and links("t") == taps
    for name, x in w.net.items():
        assert ip(f"-o link show {x['interface']}").split(":")[0] == indexes[name], "made anew"
        assert w.local.get(w.path(name))["state"] == "up"
    assert {p["name"] for p in w.local.get(w.path("lan") + "/ports")["items"]} == {"web-1", "web-2"}
    w.one.can(ping(w.address["web-2", "lan"]))
    assert "10.64.0.50" in w.one.can(f"nslookup web-2.lan.internal {w.gateway('lan')}")
    w.one.sh("ip addr add 10.64.0.78/24 dev eth0")
    w.one.cannot(ping(w.gateway("lan"), "-I 10.64.0.78"))
    w.one.sh("ip addr del 10.64.0.78/24 dev eth0")


def test_killed_at_any_moment(w):
    """Of making and deleting networks: what is there is what rows say."""
    rng = random.Random(5)
    for turn in range(4):
        def change():
            try:
                made = w.local.post("/networks", {"name": f"t{turn}", "type": "isolated"})
                w.local.delete("/networks/" + made["id"])
            except (OSError, ValueError, Refused, client.http.client.HTTPException):
                pass
        thread = threading.Thread(target=change)
        thread.start()
        time.sleep(rng.random() * 0.15)
        w.daemon.kill()
        thread.join()
        w.local.close()
        w.daemon.start()
        rows = {n["interface"] for n in w.local.get("/networks")["items"] if n["type"] in ("nat", "isolated")}
        assert links("b") == rows
        for n in w.local.get("/networks")["items"]:
            if n["name"] == f"t{turn}":
                w.local.delete("/networks/" + n["id"])


def test_a_machine_is_killed(w):
    gone = {p["interface"] for p in w.local.get(w.path("lan") + "/ports")["items"] if p["name"] == "web-2"}
    assert gone <= links()
    os.kill(w.daemon.machines_alive()[w.two.id], signal.SIGKILL)
    w.local.until(w.two.path, lambda m: m["state"] == "crashed")
    assert not gone & links()
    assert {p["name"] for p in w.local.get(w.path("lan") + "/ports")["items"]} == {"web-1"}


def test_orderly_end(w):
    """Networks that a running machine is on stay, the others go; without machines nothing is left."""
    w.daemon.stop()
    w.local.close()
    assert links("b") == {w.net[n]["interface"] for n in ("lan", "back")}
    w.daemon.start()
    w.one.connect()
    w.one.can(ping(w.gateway("lan")))
    w.local.do(w.one.path + "/stop", {"force": True})
    w.daemon.stop()
    assert not links()
    assert "mullion_" not in subprocess.run(["nft", "list", "tables"], check=True, capture_output=True,
                                            text=True).stdout


def why_not():
    """Why there can be no network namespace with bridges here; None: there can."""
    if os.getuid():
        return "network namespaces of one's own need root"
    if subprocess.run([*UNSHARE, "ip", "link", "add", "b0", "type", "bridge"], check=False,
                      capture_output=True).returncode:
        return "no network namespace with a bridge can be made here"
    return None


# Whoever ends us ends all that we have started: machines and dnsmasq have sessions of their own.
UNSHARE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


if __name__ == "__main__":
    sys.exit(harness.main_inside(__doc__, harness.tests_of(globals()), World, UNSHARE, why_not))
