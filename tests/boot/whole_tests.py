"""The disk of a whole Debian (scripts/guest-disk: systemd, GRUB) by BIOS and by UEFI, from every bus and
over every network card: it fetches a file from a server on the host, keeps it on its disk, and finds
it again after it was rebooted."""
import base64
import hashlib
import itertools
import os
import subprocess

from guest import Mullion, Skipped, expect
from hotplug_tests import Hot
from net_tests import DRIVERS as NIC_DRIVERS
from net_tests import Server
from storage_tests import DRIVERS as DISK_DRIVERS

TESTS = {}
LONG = {}   # each bus by BIOS and UEFI
PAIRS = {}  # any two of bus, firmware, number of CPUs and network card together in one at least
ALL = {}    # all four with all others

FIRMWARE = {"bios": "/usr/share/seabios/bios-256k.bin", "uefi": "/usr/share/OVMF/OVMF_CODE.fd"}
BUSES = list(DISK_DRIVERS)
NICS = list(NIC_DRIVERS)
CPUS = (1, 2)

# What `make test` boots: bus, firmware, CPUs, network card, whether it reboots in between, and whether
# parts come and go: each value but of the buses, all of which storage_tests.py boots from, and LONG below.
FEW = (("nvme", "uefi", 2, "virtio", False, True),
       ("sata", "bios", 1, "e1000e", False, True),
       ("pvscsi", "bios", 2, "vmxnet3", True, False))


class Debian:
    """A running machine with that disk: log in, run commands."""

    def __init__(self, ctx, m):
        self.ctx, self.m, self.seen = ctx, m, 0

    def log_in(self):
        self.m.wait_for("login: ", 300 * self.ctx.patience, self.seen)
        self.seen = self.m.output.rfind(b"login: ")
        self.m.send(b"root\n")
        self.prompt()

    def prompt(self):
        match = self.m.wait_for(r"root@mullion:[^ ]*# ", 120 * self.ctx.patience, self.seen)
        self.seen = match.end()

    def ask(self, command):
        """The first line that the command prints."""
        # The echo of the command has a quote where the answer has none.
        self.m.send(f'echo "whole"": $({command})"\n'.encode())
        match = self.m.wait_for(r"whole: ([^\r\n]*)[\r\n]", 180 * self.ctx.patience, self.seen)
        self.prompt()
        return match[1].decode(errors="replace").strip()

    def check_hardware(self, bus, firmware, cpus, nic):
        root = self.ask("findmnt -no SOURCE /").replace("/dev/", "")
        pci = self.ask(f"readlink -f /sys/class/block/{root} | grep -o '0000:00:[0-9a-f.]*' | tail -1")
        got = (self.ask(f"basename $(readlink /sys/bus/pci/devices/{pci}/driver)"),
               self.ask("[ -d /sys/firmware/efi ] && echo uefi || echo bios"), self.ask("nproc"),
               self.ask("basename $(readlink /sys/class/net/eth0/device/driver)"))
        want = (DISK_DRIVERS[bus], firmware, str(cpus), NIC_DRIVERS[nic] if nic else "")
        expect(got[:3] == want[:3] and (not nic or got[3] == want[3]),
               f"disk, firmware, CPUs, card: {got} instead of {want}")

    def fetch(self, port, digest):
        """The server's file, over the network card, into /root/file."""
        gateway = self.ask("for i in $(seq 200); do ip route | grep -q ^default && break; sleep 0.3; "
                           "done; ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'")
        self.ask(f"busybox wget -q -O /root/file http://{gateway}:{port}/file; sync")
        self.expect_file(digest)

    def expect_file(self, digest):
        got = self.ask("sha256sum /root/file | cut -c1-64")
        expect(got == digest, f"/root/file has {got} instead of {digest}{self.m.tail()}")


def copy_disk(ctx):
    image = os.path.join(ctx.guest, "disk", "debian.img")
    if not os.path.exists(image):
        raise Skipped(f"{image} is missing: scripts/guest-disk could not make it here")
    copy = ctx.path("debian.img")
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, copy], check=True)
    return copy


# Waits until a disk of 7 MiB, $2 more cards, a vCPU more and 256 MiB more are there ($1 = 1) or gone (0).
# The first time it only remembers how many there are.
COME_AND_GO = r"""
nets=$(ls -d /sys/class/net/e* | wc -l); cpus=$(nproc); memory=$(sed -n 's/MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)
[ -f /tmp/before ] || { echo "$nets $cpus $memory" > /tmp/before; exit; }
read -r nets cpus memory < /tmp/before
for i in $(seq 600); do
    if [ $1 = 1 ]; then
        for f in /sys/devices/system/cpu/cpu*/online; do echo 1 > $f; done
        for f in $(grep -l offline /sys/devices/system/memory/memory*/state); do echo online_movable > $f; done
    fi
    d=$(lsblk -bdno SIZE | grep -c '^ *7340032$'); n=$(($(ls -d /sys/class/net/e* | wc -l) - nets))
    c=$(($(nproc) - cpus)); m=$((($(sed -n 's/MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo) - memory) / 250000))
    [ "$d $n $c $m" = "$1 $2 $1 $1" ] && break
    sleep 0.2
done
echo $d $n $c $m
"""


def come_and_go(ctx, m, debian, user):
    """A disk, a card, a vCPU and 256 MiB come to the running Debian and go again: with firmware, ACPI's
    tables for that came by its loader."""
    hot, cards = Hot(ctx, m), "1" if user else "0"
    script = base64.b64encode(COME_AND_GO.encode()).decode()
    debian.ask(f"echo {script} | base64 -d > /tmp/parts; sh /tmp/parts 2> /dev/null")
    disk, _ = ctx.make_disk("more.img", 7)
    parts = [hot.command("attach", "--disk", f"{disk},format=raw,bus=nvme"),
             hot.command("attach", "--memory", "256M")]
    hot.command("attach", "--cpus", "1")
    if user:
        parts.append(hot.command("attach", "--net", "user,model=e1000e"))
    got = debian.ask(f"sh /tmp/parts 1 {cards} 2> /dev/null")
    expect(got == f"1 {cards} 1 1", f"what has come (disk, card, vCPU, memory): {got}{m.tail()}")
    for part in parts:
        hot.command("detach", part, "--timeout", str(int(60 * ctx.patience)))
    hot.command("detach", "--cpus", "1", "--timeout", str(int(60 * ctx.patience)))
    got = debian.ask("sh /tmp/parts 0 0 2> /dev/null")
    expect(got == "0 0 0 0", f"what is left (disk, card, vCPU, memory): {got}{m.tail()}")


def boot(ctx, disk, bus, firmware, cpus, nic, reboot, hot, before):
    """Boot once, or twice where it is to reboot. @param hot  parts come and go meanwhile. @param before  the
    digest of the file that is there already. @return that of the one that is there now"""
    if not os.path.exists(FIRMWARE[firmware]):
        raise Skipped(f"{FIRMWARE[firmware]} is not installed: scripts/setup test")
    data = hashlib.shake_256(f"{bus}{firmware}{cpus}{nic}".encode()).digest(1 << 20)
    digest = hashlib.sha256(data).hexdigest()
    user = ctx.user_net()
    args = ["--engine", ctx.engine, "--memory", "512M,max=1G", "--cpus",
            f"{cpus},max={cpus + 1}", "--firmware", firmware, "--control", ctx.path("control"),
            "--disk", f"{disk},format=raw,bus={bus}"]
    if user:
        args += ["--net", f"user,model={nic}"]
    with Server(data) as server, Mullion(ctx.program, args, stdin=subprocess.PIPE) as m:
        debian = Debian(ctx, m)
        debian.log_in()
        debian.check_hardware(bus, firmware, cpus, nic if user else None)
        if before:
            debian.expect_file(before)
        if user:
            debian.fetch(server.port, digest)
        else:
            debian.ask("head -c 1000000 /dev/urandom > /root/file; sync")
            digest = debian.ask("sha256sum /root/file | cut -c1-64")
        if hot:
            come_and_go(ctx, m, debian, user)
        if reboot:
            m.send(b"systemctl reboot\n")
            debian.log_in()
            debian.expect_file(digest)
        m.send(b"systemctl poweroff\n")
        m.expect_status(0, 180 * ctx.patience)
    return digest


def few(ctx):
    """One disk, moved from bus to bus: each machine finds what the one before has fetched."""
    disk, digest = copy_disk(ctx), None
    for row in FEW:
        try:
            digest = boot(ctx, disk, *row, digest)
        except Exception as error:
            error.args = (f"{' '.join(str(w) for w in row[:4])}: {error}",)
            raise


def twice(ctx, bus, firmware, cpus, nic):
    boot(ctx, copy_disk(ctx), bus, firmware, cpus, nic, True, False, None)


TESTS["whole-debian"] = few
for _row in itertools.product(BUSES, FIRMWARE, CPUS, NICS):
    _name = "whole-debian-{}-{}-{}cpu-{}".format(*_row)
    ALL[_name] = lambda ctx, r=_row: twice(ctx, *r)
    if _row[2:] == (2, "virtio"):
        LONG[_name] = ALL[_name]
    _bus, _nic = BUSES.index(_row[0]), NICS.index(_row[3])
    if _row[1:3] == (list(FIRMWARE)[(_bus + _nic) % 2], CPUS[(_bus // 2 + _nic) % 2]):
        PAIRS[_name] = ALL[_name]
