"""The disk of a whole Debian (scripts/guest-disk: systemd, GRUB) by BIOS and by UEFI, from every bus and
over every network card: it fetches a file from a server on the host, keeps it on its disk, and finds
it again after it was rebooted."""
import hashlib
import itertools
import os
import subprocess

from guest import Mullion, Skipped, expect
from net_tests import DRIVERS as NIC_DRIVERS
from net_tests import Server
from storage_tests import DRIVERS as DISK_DRIVERS

TESTS = {}
LONG = {}  # each bus by BIOS and UEFI
ALL = {}   # each bus, firmware, number of CPUs and network card

FIRMWARE = {"bios": "/usr/share/seabios/bios-256k.bin", "uefi": "/usr/share/OVMF/OVMF_CODE.fd"}
BUSES = list(DISK_DRIVERS)
NICS = list(NIC_DRIVERS)
CPUS = (1, 2)

# What `make test` boots: bus, firmware, CPUs, network card, and whether it reboots in between: each
# value but of the buses, all of which storage_tests.py boots from, and LONG below.
FEW = (("nvme", "uefi", 2, "virtio", False),
       ("sata", "bios", 1, "e1000e", False),
       ("pvscsi", "bios", 2, "vmxnet3", True))


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


def boot(ctx, disk, bus, firmware, cpus, nic, reboot, before):
    """Boot once, or twice where it is to reboot. @param before  the digest of the file that is there
    already. @return that of the one that is there now"""
    if not os.path.exists(FIRMWARE[firmware]):
        raise Skipped(f"{FIRMWARE[firmware]} is not installed: scripts/setup test")
    data = hashlib.shake_256(f"{bus}{firmware}{cpus}{nic}".encode()).digest(1 << 20)
    digest = hashlib.sha256(data).hexdigest()
    user = ctx.user_net()
    args = ["--engine", ctx.engine, "--memory", "512M", "--cpus", str(cpus), "--firmware", firmware,
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
    boot(ctx, copy_disk(ctx), bus, firmware, cpus, nic, True, None)


TESTS["whole-debian"] = few
for _row in itertools.product(BUSES, FIRMWARE, CPUS, NICS):
    _name = "whole-debian-{}-{}-{}cpu-{}".format(*_row)
    ALL[_name] = lambda ctx, r=_row: twice(ctx, *r)
    if _row[2:] == (2, "virtio"):
        LONG[_name] = ALL[_name]
