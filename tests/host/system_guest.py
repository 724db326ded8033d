#!/usr/bin/env python3
"""The part of system.py that runs inside its Debian: mulliond as systemd keeps it. Each call with the name of a
part runs that part's tests (TAP); what is on the disk with the label mullion-tools is beside this file."""
import grp
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import time

import harness
import networks
from client import PATIENCE, Client, Daemon

TOOLS = os.path.dirname(os.path.abspath(__file__))
UNIT = "/sys/fs/cgroup/system.slice/mulliond.service"
MIB = 1 << 20
# linux/capability.h: CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW
CAPABILITIES = 1 << 10 | 1 << 12 | 1 << 13


def run(*words, status=0, user=None):
    if user:
        words = ("runuser", "-u", user, "--", *words)
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert status is None or done.returncode == status, f"{words}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def show(*names, unit="mulliond", words=("systemctl",), user=None):
    text = run(*words, "show", unit, *("-p" + n for n in names), user=user)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read().strip()


def until(check, what=""):
    end = time.monotonic() + PATIENCE
    while True:
        got = check()
        if got:
            return got
        assert time.monotonic() < end, f"{what}: {got}"
        time.sleep(0.1)


class Service(Daemon):
    """mulliond.service, for tests that know a Daemon."""

    def __init__(self):  # nothing of its own: the system has it
        self.build, self.data, self.runtime = "/usr/local/bin", "/var/lib/mullion", "/run/mullion"
        self.process = None

    @property
    def pid(self):
        """0: none runs."""
        return int(show("MainPID")["MainPID"])

    def start(self, **_):
        run("systemctl", "start", "mulliond")
        return self

    def kill(self):
        """And it does not come back by itself."""
        run("systemctl", "kill", "-s", "KILL", "--kill-who=main", "mulliond")
        run("systemctl", "stop", "mulliond")
        run("systemctl", "reset-failed", "mulliond", status=None)

    def stop(self, *_):
        run("systemctl", "stop", "mulliond")
        assert show("Result")["Result"] == "success"

    def messages(self):
        return run("journalctl", "-u", "mulliond", "-o", "cat", "-n", "60", "--no-pager")

    def remove(self):
        for pid in self.machines_alive().values():
            os.kill(pid, 9)
        run("systemctl", "stop", "mulliond", status=None)


class World:
    def __init__(self):
        self.daemon, self.machine = Service(), {}
        self.local = Client(self.daemon)

    def spinning(self, name, **kw):
        """A running machine whose boot sector does nothing, as fast as it can."""
        if not [i for i in self.local.get("/images")["items"] if i["name"] == "spin"]:
            with open("/var/tmp/spin.img", "wb") as f:
                f.write((b"\xeb\xfe" + bytes(508) + b"\x55\xaa").ljust(MIB, b"\0"))
            os.chmod("/var/tmp/spin.img", 0o644)
            self.local.do("/imports", {"kind": "image", "path": "/var/tmp/spin.img", "name": "spin"})
        self.machine[name] = self.local.machine(name, image="spin", config={"firmware": "bios"}, **kw)
        self.local.do(f"/machines/{self.machine[name]}/start")
        return self.machine[name]

    def forget(self, *names):
        for name in names:
            path = "/machines/" + self.machine.pop(name)
            self.local.do(path + "/stop", {"force": True})
            self.local.do(path + "?disks=delete", method="DELETE")

    def expect_weights(self):
        groups = [f"{UNIT}/vm-{self.machine[n]}/cpu.weight" for n in ("much", "little")]
        until(lambda: int(read(groups[0])) == 3 * int(read(groups[1])), "cpu.weight")

    def expect_same(self, alive):
        """The same processes are running machines of the daemon that runs now."""
        self.local.close()
        assert self.daemon.machines_alive() == alive, (self.daemon.machines_alive(), alive)
        for machine in alive:
            got = self.local.get("/machines/" + machine)
            assert got["state"] == "running", got
            group = until(lambda m=machine: read(f"{UNIT}/vm-{m}/cgroup.procs"), "its group")
            assert str(alive[machine]) in group.split(), group


def used(machine):
    """Seconds of CPU that a machine's control group has had."""
    return int(re.search(r"usage_usec (\d+)", read(f"{UNIT}/vm-{machine}/cpu.stat"))[1]) / 1e6


# ---- The first part: from the installation to the end of the system ----

def test_install(w):
    """As docs/host.md says."""
    shutil.copytree(os.path.join(TOOLS, "root"), "/", dirs_exist_ok=True, symlinks=True)
    os.makedirs("/etc/mullion", exist_ok=True)
    with open("/etc/mullion/mulliond.json", "w", encoding="ascii") as f:
        f.write('{"requests_per_second": 100000}\n')
    os.makedirs("/var/log/journal", exist_ok=True)
    run("journalctl", "--flush")
    run("systemd-sysusers")
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", "mulliond", "mullion-machines")
    for unit in ("mulliond", "mullion-machines"):
        got = show("ActiveState", "NRestarts", "Result", unit=unit)
        assert got["ActiveState"] == "active" and got["Result"] == "success", got


def test_ready_when_it_says_so(w):
    """Who waits for the unit finds its socket."""
    got = show("Type", "SubState", "StatusText", "NRestarts")
    assert got["Type"] == "notify" and got["SubState"] == "running" and got["NRestarts"] == "0", got
    assert got["StatusText"].startswith("Serving https://"), got
    for _ in range(5):
        run("systemctl", "restart", "mulliond")
        w.local.close()
        assert w.local.get("/host")["name"], "it does not answer at once"


def test_rights(w):
    """Its own user, the capabilities that networks need, and nothing for those it starts."""
    status = dict(line.split(":\t", 1) for line in read(f"/proc/{w.daemon.pid}/status").splitlines() if ":\t" in line)
    user = pwd.getpwnam("mullion")
    assert set(status["Uid"].split()) == {str(user.pw_uid)}, status["Uid"]
    assert set(status["Gid"].split()) == {str(user.pw_gid)}, status["Gid"]
    assert status["Groups"].split() in ([], [str(user.pw_gid)]), status["Groups"]
    for name, wanted in (("CapEff", CAPABILITIES), ("CapPrm", CAPABILITIES), ("CapBnd", CAPABILITIES), ("CapAmb", 0)):
        assert int(status[name], 16) == wanted, f"{name}: {status[name]}"
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
    machine = w.spinning("rights")
    folder = f"/proc/{w.daemon.machines_alive()[machine]}/task"
    for thread in os.listdir(folder):
        text = read(f"{folder}/{thread}/status")
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert re.search(rf"^{name}:\t0+$", text, re.M), text
    w.forget("rights")


def test_journal(w):
    said = run("journalctl", "-u", "mulliond", "-o", "cat", "--no-pager")
    assert "serving https://" in said, said


def test_who_may(w):
    """Whoever is in the group administers, nobody else comes near."""
    info, group = os.stat("/run/mullion"), grp.getgrnam("mullion").gr_gid
    assert stat.S_IMODE(info.st_mode) == 0o750 and info.st_gid == group, info
    info = os.stat("/run/mullion/mulliond.sock")
    assert stat.S_IMODE(info.st_mode) == 0o660 and info.st_gid == group, info
    assert stat.S_IMODE(os.stat("/var/lib/mullion").st_mode) == 0o700
    run("useradd", "-m", "-G", "mullion", "alice")
    run("useradd", "-m", "bob")
    mullion = "/usr/local/bin/mullion"
    run(mullion, "list", user="alice")
    said = run(mullion, "host", "status", user="alice")
    assert f"process {w.daemon.pid}" in said and "https://" in said, said
    run(mullion, "list", user="bob", status=None)
    assert subprocess.run(["runuser", "-u", "bob", "--", mullion, "list"], check=False,
                          capture_output=True).returncode != 0
    run(mullion, "list")


def test_cpu_limit(w):
    machine = w.spinning("held", resources={"cpu": {"limit": 20}})
    until(lambda: read(f"{UNIT}/vm-{machine}/cpu.max") == "20000 100000", "cpu.max")
    begin, before = time.monotonic(), used(machine)
    time.sleep(20)
    percent = 100 * (used(machine) - before) / (time.monotonic() - begin)
    print(f"# a limit of 20 %: {percent:.2f} %")
    assert 15 < percent < 21, percent
    w.local.patch("/machines/" + machine, {"resources": {"cpu": {"limit": None}}})
    until(lambda: read(f"{UNIT}/vm-{machine}/cpu.max").startswith("max"), "cpu.max")
    w.forget("held")


def test_control_groups(w):
    """Each machine is in a group of its own, with weights by its shares, by which the kernel divides what is scarce."""
    shares = {"much": 3000, "more": 3000, "little": 1000, "less": 1000}
    for name, n in shares.items():
        w.spinning(name, resources={"cpu": {"shares": n}, "disk": {"shares": n},
                                    "memory": {"reservation": n // 100 * MIB}})
    assert str(w.daemon.pid) in read(UNIT + "/daemon/cgroup.procs").split()
    assert read(UNIT + "/cgroup.procs") == ""
    assert {"cpu", "memory"} <= set(read(UNIT + "/cgroup.subtree_control").split())
    groups = {name: f"{UNIT}/vm-{w.machine[name]}" for name in shares}
    alive = w.daemon.machines_alive()
    for name, group in groups.items():
        assert str(alive[w.machine[name]]) in read(group + "/cgroup.procs").split()
        until(lambda g=group, n=name: read(g + "/memory.min") == str(shares[n] // 100 * MIB), "memory.min")
    w.expect_weights()
    if os.path.exists(groups["much"] + "/io.weight"):
        got = [int(read(groups[n] + "/io.weight").split()[1]) for n in ("much", "little")]
        assert got[0] == 3 * got[1], got
    # Four machines want two processors.
    before = {n: used(w.machine[n]) for n in shares}
    time.sleep(20)
    got = {n: used(w.machine[n]) - before[n] for n in shares}
    ratio = (got["much"] + got["more"]) / (got["little"] + got["less"])
    print(f"# shares of 3 to 1: {ratio:.2f} to 1 of {sum(got.values()):.1f} s")
    assert 2.4 < ratio < 3.6, got


def test_restart(w):
    """Machines go on, in their groups, with what those were told."""
    alive = w.daemon.machines_alive()
    before = w.daemon.pid
    run("systemctl", "restart", "mulliond")
    assert w.daemon.pid not in (0, before) and show("ActiveState", unit="mullion-machines")["ActiveState"] == "active"
    w.expect_same(alive)
    w.expect_weights()
    assert read(UNIT + "/cgroup.procs") == ""


def test_killed(w):
    """systemd starts it again."""
    alive, before = w.daemon.machines_alive(), w.daemon.pid
    assert before
    os.kill(before, 9)
    until(lambda: w.daemon.pid not in (0, before), "a new process")
    until(lambda: show("ActiveState")["ActiveState"] == "active", "ready")
    assert int(show("NRestarts")["NRestarts"]) >= 1
    w.expect_same(alive)


def test_stopped(w):
    """The unit alone: machines go on."""
    alive = w.daemon.machines_alive()
    w.daemon.stop()
    assert not os.path.exists("/run/mullion/mulliond.pid")
    time.sleep(1)
    assert w.daemon.machines_alive() == alive
    w.daemon.start()
    w.expect_same(alive)


def test_upgrade(w):
    """New programs in the place of those that run."""
    alive = w.daemon.machines_alive()
    for program in ("/usr/local/sbin/mulliond", "/usr/local/libexec/mullion-vmm"):
        shutil.copy2(program, program + ".new")
        os.rename(program + ".new", program)
    assert os.readlink(f"/proc/{w.daemon.pid}/exe").endswith("(deleted)")
    run("systemctl", "restart", "mulliond")
    assert os.readlink(f"/proc/{w.daemon.pid}/exe") == "/usr/local/sbin/mulliond"
    w.expect_same(alive)
    w.forget("little", "less", "more", "much")
    assert not [n for n in os.listdir(UNIT) if n.startswith("vm-")], os.listdir(UNIT)


def test_before_the_end(w):
    """A guest that knows its power button is started with the system."""
    # The tools' disk is not there when the system starts.
    shutil.copytree(os.path.join(TOOLS, "6.12"), "/srv/6.12", dirs_exist_ok=True)
    kernel = {"kernel": "/srv/6.12/vmlinuz", "initrd": "/srv/6.12/initrd",
              "cmdline": "console=ttyS0 quiet mullion.do=shell mullion.network=off"}
    path = "/machines/" + w.local.machine("polite", memory=96 * MIB, config=kernel, autostart={"enabled": True})
    w.local.do(path + "/start")
    end = time.monotonic() + 4 * PATIENCE
    while "Welcome to a guest" not in w.local.raw("GET", path + "/console-log").text:
        assert time.monotonic() < end, w.local.raw("GET", path + "/console-log").text[-500:]
        time.sleep(0.5)
    w.local.machine("idle", memory=64 * MIB)


# ---- The second part: after the system has been restarted ----

def test_ended_cleanly(w):
    """The guest was asked, and has ended by itself, before the daemon did."""
    events = w.local.get("/events?limit=1000")["items"]
    events.sort(key=lambda e: e["id"])
    last = max(i for i, e in enumerate(events) if e["type"] == "host.started")
    stopped = [e for e in events[:last] if e["object_name"] == "polite" and e["type"].startswith("machine.")][-1]
    assert stopped["type"] == "machine.stopped" and stopped["text"] == "polite is stopped", stopped
    said = run("journalctl", "-b", "-1", "-u", "mulliond", "-u", "mullion-machines", "--no-pager", "-o", "short-monotonic")
    said = said[said.rindex("Stopping mullion-machines.service"):]
    assert "Killing" not in said and "timed out" not in said.lower() and "Failed" not in said, said
    assert "the host has ended" in said, said


def test_started_with_the_system(w):
    for unit in ("mulliond", "mullion-machines"):
        assert show("ActiveState", unit=unit)["ActiveState"] == "active"
    machines = {m["name"]: m for m in w.local.get("/machines")["items"]}
    w.local.until("/machines/" + machines["polite"]["id"], lambda m: m["state"] == "running")
    assert machines["idle"]["state"] == "stopped"
    w.local.do(f"/machines/{machines['polite']['id']}/stop", {"force": True})
    for name in ("polite", "idle"):
        w.local.do("/machines/" + machines[name]["id"], method="DELETE")


def test_of_a_user(w):
    """systemctl --user: networks of type user, the user's own groups; machines outlive the daemon."""
    config = "/home/bob/.config/mullion/mulliond.json"
    run("mkdir", "-p", os.path.dirname(config), user="bob")
    with open(config, "w", encoding="ascii") as f:
        f.write('{"listen": "127.0.0.1:0"}\n')  # the system's has the other port
    run("loginctl", "enable-linger", "bob")
    uid = pwd.getpwnam("bob").pw_uid
    runtime = f"/run/user/{uid}"
    until(lambda: os.path.exists(runtime + "/systemd/private"), "bob's service manager")
    env = ("env", "XDG_RUNTIME_DIR=" + runtime)
    run(*env, "systemctl", "--user", "enable", "--now", "mulliond", "mullion-machines", user="bob")
    got = show("ActiveState", "Type", "StatusText", words=(*env, "systemctl", "--user"), user="bob")
    assert got["ActiveState"] == "active" and got["StatusText"].startswith("Serving"), got
    mullion = (*env, "/usr/local/bin/mullion")
    run(*mullion, "create", "own", "--memory", "64M", "--disk", "8M", user="bob")
    run(*mullion, "start", "own", user="bob")
    before = run(*mullion, "list", "--format", "csv", user="bob")
    assert "running" in before, before
    run(*env, "systemctl", "--user", "restart", "mulliond", user="bob")
    assert "running" in run(*mullion, "list", "--format", "csv", user="bob")
    folder = run("sh", "-c", f"find /sys/fs/cgroup/user.slice/user-{uid}.slice -type d -name 'vm-*'").split()
    assert len(folder) == 1 and read(folder[0] + "/cgroup.procs"), folder
    run(*env, "systemctl", "--user", "stop", "mullion-machines", user="bob")
    assert show("ActiveState", words=(*env, "systemctl", "--user"), user="bob")["ActiveState"] == "inactive"
    left = [p for p in os.listdir("/proc") if p.isdigit() and os.stat("/proc/" + p).st_uid == uid and
            "mullion" in read(f"/proc/{p}/comm")]
    assert not left, left
    run(*env, "systemctl", "--user", "disable", "mulliond", "mullion-machines", user="bob")


def test_host_start(w):
    """Without a service."""
    env = ("env", f"XDG_RUNTIME_DIR=/run/user/{pwd.getpwnam('bob').pw_uid}", "/usr/local/bin/mullion")
    assert "portal: https://" in run(*env, "host", "start", user="bob")
    assert "own" in run(*env, "list", user="bob")
    run(*env, "delete", "own", "--disks", "delete", user="bob", status=None)
    assert "has ended" in run(*env, "host", "stop", user="bob")


# ---- The third part: networks, by the service's rights and the distribution's programs ----

def make_networks(w):
    """@return the networks by name, made once"""
    there = {n["name"]: n for n in w.local.get("/networks")["items"]}
    for name, kind in (("wan", "nat"), ("alone", "isolated")):
        if name not in there:
            w.local.post("/networks", {"name": name, "type": kind})
    return {n["name"]: n for n in w.local.get("/networks")["items"]}


def quiet(w, name, card):
    """A machine with a card, paused before it says anything. @return its id and its port"""
    w.machine[name] = machine = w.local.machine(name, memory=96 * MIB, networks=[card], config={
        "kernel": os.path.join(TOOLS, "6.12", "vmlinuz"), "cmdline": "panic=-1"})
    w.local.do(f"/machines/{machine}/start")
    w.local.do(f"/machines/{machine}/pause")
    for network in w.local.get("/networks")["items"]:
        for port in w.local.get(f"/networks/{network['id']}/ports")["items"]:
            if port["machine"] == machine:
                return machine, port
    raise AssertionError("it has no port")


def forget_quiet(w, name):
    machine = w.machine.pop(name)
    w.local.do(f"/machines/{machine}/stop", {"force": True})
    w.local.do(f"/machines/{machine}", method="DELETE")


def test_networks_of_the_service(w):
    """Bridges, rules, forwarding and dnsmasq, without root."""
    nets = make_networks(w)
    for name in ("wan", "alone"):
        got = w.local.until("/networks/" + nets[name]["id"], lambda n: n["state"] == "up")
        assert got["interface"] in run("ip", "link", "show", "type", "bridge"), got
    assert read("/proc/sys/net/ipv4/ip_forward") == "1"
    assert "table inet mullion_" in run("nft", "list", "tables")
    uid = pwd.getpwnam("mullion").pw_uid
    serving = [p for p in os.listdir("/proc") if p.isdigit() and read(f"/proc/{p}/comm") == "dnsmasq"]
    assert len(serving) == 2 and all(os.stat("/proc/" + p).st_uid == uid for p in serving), serving
    before = w.daemon.pid
    run("systemctl", "restart", "mulliond")
    w.local.close()
    assert w.daemon.pid != before
    for name in ("wan", "alone"):
        w.local.until("/networks/" + nets[name]["id"], lambda n: n["state"] == "up")


def test_vlan_ports(w):
    """A bridge that filters VLANs: an access port has one without a tag, a trunk others with theirs."""
    run("ip", "link", "add", "br1", "type", "bridge", "vlan_filtering", "1")
    run("ip", "link", "set", "br1", "up")
    w.local.post("/networks", {"name": "floor", "type": "bridge", "bridge": "br1", "vlan": 5, "vlans": [6, 7]})
    try:
        ports = {name: quiet(w, name, dict(card, network="floor"))[1]["interface"] for name, card in (
            ("access", {}), ("other", {"vlan": 6}), ("trunk", {"vlans": [6, 7]}))}
        for name, wanted in (("access", {"5 PVID Egress Untagged"}), ("other", {"6 PVID Egress Untagged"}),
                             ("trunk", {"5 PVID Egress Untagged", "6", "7"})):
            said = run("bridge", "vlan", "show", "dev", ports[name]).split("\n", 1)[1]
            got = {line.replace(ports[name], "").strip() for line in said.splitlines() if line.strip()}
            assert got == wanted, f"{name}: {got}"
        for name in ports:
            forget_quiet(w, name)
    finally:
        run("ip", "link", "del", "br1")
    w.local.delete("/networks/" + next(n["id"] for n in w.local.get("/networks")["items"] if n["name"] == "floor"))


def test_dhcp6(w):
    """A client of a distribution's (systemd-networkd) in the place of a guest that says nothing: the router
    advertisement sends it to DHCPv6, which gives it the address that is its card's."""
    wan = make_networks(w)["wan"]
    machine, port = quiet(w, "six", {"network": "wan"})
    leases_of = f"/networks/{wan['id']}/leases"
    own = next(a for a in port["addresses"] if ":" in a)
    os.makedirs("/run/systemd/network", exist_ok=True)
    with open("/run/systemd/network/six.network", "w", encoding="ascii") as f:
        f.write("[Match]\nName=six1\n[Network]\nDHCP=ipv6\nIPv6AcceptRA=yes\nLinkLocalAddressing=ipv6\n")
    run("networkctl", "reload")
    run("ip", "link", "add", "six0", "type", "veth", "peer", "name", "six1", "address", port["mac"])
    try:
        run("ip", "link", "set", "six0", "master", wan["interface"], "up")
        run("ip", "link", "set", "six1", "up")
        until(lambda: own + "/128" in run("ip", "-6", "addr", "show", "six1"), run("ip", "-6", "addr", "show", "six1"))
        assert "default via fe80:" in run("ip", "-6", "route", "show", "dev", "six1")
        leases = until(lambda: [x for x in w.local.get(leases_of)["items"] if x["address"] == own])
        assert leases[0]["machine"] == machine, leases
    finally:
        run("ip", "link", "del", "six0")
        os.unlink("/run/systemd/network/six.network")
        run("networkctl", "reload")
    forget_quiet(w, "six")


FIRST = [test_install, test_ready_when_it_says_so, test_rights, test_journal, test_who_may, test_cpu_limit,
         test_control_groups, test_restart, test_killed, test_stopped, test_upgrade, test_before_the_end]
SECOND = [test_ended_cleanly, test_started_with_the_system, test_of_a_user, test_host_start]
THIRD = [test_networks_of_the_service, test_vlan_ports, test_dhcp6]
PARTS = {"first": FIRST, "second": SECOND, "third": THIRD}


def main():
    part, only = sys.argv[1], sys.argv[2:]
    if part == "networks":
        world = networks.World("/usr/local/bin", TOOLS, Service().start())
        tests = harness.tests_of(vars(networks))
    else:
        world, tests = World(), PARTS[part]
    return harness.run(harness.chosen(tests, only), world)


if __name__ == "__main__":
    sys.exit(main())
