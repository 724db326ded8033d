"""Disks, network cards, vCPUs and memory that come to a running Debian kernel and go again."""
import hashlib
import os
import re
import subprocess

from guest import Mullion, expect
from net_tests import DRIVERS as NIC_DRIVERS
from storage_tests import make_initrd

TESTS = {}


def test(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


class Hot:
    """A machine with a control socket, and the commands for it."""

    def __init__(self, ctx, m):
        self.ctx, self.m, self.seen = ctx, m, 0

    def command(self, *words, fails=None):
        """Run mullion WORD MACHINE ... @return what it printed"""
        r = subprocess.run([self.ctx.program, words[0], self.ctx.path("control"), *words[1:]],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           stdin=subprocess.DEVNULL, timeout=120 * self.ctx.patience,
                           check=False)
        if fails:
            expect(r.returncode == 1 and re.search(fails, r.stderr),
                   f"{words}: status {r.returncode}: {r.stderr}")
        else:
            expect(r.returncode == 0, f"{words}: status {r.returncode}: {r.stderr}{self.m.tail()}")
        return r.stdout.strip()

    def sees(self, pattern):
        """The guest reports a state that matches @pattern; later ones count from there."""
        match = self.m.wait_for(rf"check: has [^\r\n]*{pattern}", 60 * self.ctx.patience,
                                self.seen)
        self.seen = match.start()

    def say(self, line, pattern):
        at = len(self.m.output)
        self.m.send(line.encode() + b"\n")
        return self.m.wait_for(pattern, 60 * self.ctx.patience, at)


def machine(ctx, version="6.1", *options):
    return Mullion(ctx.program, ctx.boot("hotplug", version, "memhp_default_state=online_movable") +
                   ["--memory", "256M,max=1G", "--cpus", "1,max=3", "--control",
                    ctx.path("control"), *options], stdin=subprocess.PIPE)


def finish(ctx, m):
    m.send(b"end\n")
    m.wait_for("check: done", 30 * ctx.patience)
    m.expect_status(0, 30 * ctx.patience)
    expect(not m.complaints(), "; ".join(m.complaints()))
    expect(m.checks()["tainted"] == "0", f"tainted {m.checks()['tainted']}{m.tail()}")


@test
def hotplug_all(ctx):
    """Each kind of part comes, is used, and goes; what must be refused is."""
    disk, _ = ctx.make_disk("disk.img", 8)
    with machine(ctx) as m:
        hot = Hot(ctx, m)
        m.wait_for("check: hotplug ready", 60 * ctx.patience)
        hot.sees(r"disks= nets= cpus=1 memory=[12]\d\d\b")

        expect(hot.command("attach", "--disk", f"{disk},format=raw") == "disk0", "name of the disk")
        hot.sees("disks=vda nets=")
        wrote = hot.say("write vda", r"check: wrote (\w{64})")[1].decode()
        with open(disk, "rb") as f:
            expect(hashlib.sha256(f.read(1 << 20)).hexdigest() == wrote,
                   "what the guest wrote is not in the file")
        hot.command("attach", "--disk", f"{disk},format=raw", fails="in use")
        hot.command("attach", "--disk", ctx.path("none.img"), fails="No such file")

        hot.command("attach", "--cpus", "2")
        hot.sees("cpus=3 ")
        hot.command("attach", "--cpus", "1", fails="it can have 0 more")
        expect(hot.command("attach", "--memory", "256M") == "memory0", "name of the memory")
        hot.sees(r"memory=[34]\d\d\b")
        hot.command("attach", "--memory", "100M", fails="whole 128 MiB")
        hot.command("attach", "--memory", "1G", fails="room for 512 MiB")
        parts = {"disk0", "memory0 256 MiB", "cpu0", "cpu1", "cpu2"}
        if ctx.user_net():
            expect(hot.command("attach", "--net", "user") == "net0", "name of the card")
            hot.sees("nets=eth0 ")
            hot.say("network", r"check: address \d+\.\d+\.\d+")
            parts.add("net0")
        expect(set(hot.command("parts").splitlines()) == parts, hot.command("parts"))

        if ctx.user_net():
            hot.command("detach", "net0")
            hot.sees("nets= ")
        hot.command("detach", "memory0")
        hot.sees(r"memory=[12]\d\d\b")
        hot.command("detach", "--cpus", "2")
        hot.sees("cpus=1 ")
        hot.command("detach", "cpu0", fails="cannot go")
        hot.command("detach", "disk7", fails="no part disk7")
        hot.command("detach", "disk0")
        hot.sees("disks= ")
        expect(hot.command("parts") == "cpu0", hot.command("parts"))
        # The file is free again.
        expect(hot.command("attach", "--disk", f"{disk},format=raw,readonly=on") == "disk0", "again")
        hot.sees("disks=vda nets=")
        finish(ctx, m)


@test
def hotplug_models(ctx):
    """An NVMe disk that is being written to goes, asked and by force; so does each model of network card,
    while it is up."""
    version = "6.1-amd64"  # with every driver
    disk, _ = ctx.make_disk("disk.img", 16)
    initrd = make_initrd(ctx, version, "hotplug", ("nvme", "e1000e", "vmxnet3", "crc32c_generic", "ext4"))
    with Mullion(ctx.program, ["--engine", ctx.engine, "--kernel", ctx.kernel(version), "--initrd",
                               initrd, "--memory", "256M", "--control", ctx.path("control"),
                               "--append", "console=ttyS0 quiet panic=-1 noisapnp mullion.do=hotplug"],
                 stdin=subprocess.PIPE) as m:
        hot = Hot(ctx, m)
        m.wait_for("check: hotplug ready", 90 * ctx.patience)
        hot.sees("disks= nets=")
        for force in ([], ["--force"]):
            expect(hot.command("attach", "--disk", f"{disk},format=raw,bus=nvme") == "disk0", "name")
            name = hot.m.wait_for(r"check: has disks=(nvme\dn1) nets=", 60 * ctx.patience,
                                  hot.seen)[1].decode()
            wrote = hot.say(f"write {name}", r"check: wrote (\w{64})")[1].decode()
            with open(disk, "rb") as f:
                expect(hashlib.sha256(f.read(1 << 20)).hexdigest() == wrote,
                       "what the guest wrote is not in the file")
            at = len(m.output)
            hot.say(f"busy {name}", "check: busy")
            hot.command("detach", "disk0", *force)
            m.wait_for(r"check: writing ended after \d+", 90 * ctx.patience, at)
            hot.seen = at
            hot.sees("disks= nets=")
        for model in NIC_DRIVERS if ctx.user_net() else ():
            expect(hot.command("attach", "--net", f"user,model={model}") == "net0", "name")
            hot.sees("disks= nets=eth0 ")
            got = hot.say("network", r"check: address (\d+\.\d+\.\d+\.\d+)/\d+ (\S+)")
            expect(got[2].decode() == NIC_DRIVERS[model], f"{model}: {got[0]}")
            hot.command("detach", "net0")
            hot.sees("disks= nets= ")
        expect(hot.command("parts") == "cpu0", hot.command("parts"))
        finish(ctx, m)


@test
def hotplug_busy_and_reset(ctx):
    """A disk that is open goes when it is taken by force; parts outlive a reset."""
    disk, _ = ctx.make_disk("disk.img", 8)
    overlay = ctx.path("overlay.qcow2")
    subprocess.run([ctx.program, "image", "create", overlay, "--to", "qcow2", "--backing", disk,
                    "--backing-format", "raw"], stdout=subprocess.DEVNULL, check=True)
    with machine(ctx, "6.12", "--disk", f"{disk},format=raw,readonly=on") as m:
        hot = Hot(ctx, m)
        m.wait_for("check: hotplug ready", 60 * ctx.patience)
        hot.sees("disks=vda nets=")
        expect(hot.command("attach", "--disk", overlay) == "disk1", "name of the disk")
        hot.sees("disks=vda vdb nets=")
        hot.say("hold vdb", "check: held")
        hot.command("detach", "disk1", "--force")
        hot.sees("disks=vda nets=")
        expect(hot.command("attach", "--disk", overlay) == "disk1", "name of the disk")
        hot.sees("disks=vda vd[bc] nets=")
        hot.command("attach", "--cpus", "1")
        hot.command("attach", "--memory", "128M")
        hot.sees(r"cpus=2 memory=[23]\d\d\b")
        hot.seen = len(m.output)
        hot.say("reboot", "check: hotplug ready")
        hot.sees(r"disks=vda vdb nets= cpus=2 memory=[23]\d\d\b")
        hot.command("detach", "cpu1")
        hot.command("detach", "memory0")
        hot.command("detach", "disk0")
        hot.sees(r"disks=vdb nets= cpus=1 memory=[12]\d\d\b")
        finish(ctx, m)
