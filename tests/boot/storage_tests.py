"""Disks and CD-ROM drives on every bus, driven by the drivers of an unmodified guest: what the host
has written is read, what the guest writes is on the host's disk, and CD images may be torn."""
import hashlib
import os
import subprocess

from guest import Mullion, expect

TESTS = {}
MIB = 1 << 20
VERSION = "6.1-686-pae"  # has all drivers, unlike the cloud's kernels
SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts")
MODULES = ("ahci", "ata_piix", "nvme", "sd_mod", "sr_mod", "virtio_scsi", "vmw_pvscsi")
DRIVERS = {"virtio": "virtio-pci", "scsi": "virtio-pci", "nvme": "nvme", "sata": "ahci",
           "ide": "ata_piix", "pvscsi": "vmw_pvscsi"}
CDROM_BUSES = ("sata", "ide", "scsi", "pvscsi")


def test(function):
    TESTS["storage-" + function.__name__.replace("_", "-")] = function
    return function


def make_initrd(ctx, version, task, modules, script=None):
    """An initrd of @version that can do scripts/guest/@task (or what @script says), with more modules."""
    folder = os.path.join(ctx.guest, version)
    guest = os.path.join(SCRIPTS, "guest")
    initrd = ctx.path(f"initrd-{task}")
    command = [os.path.join(SCRIPTS, "mkinitrd"), "--modules", os.path.join(folder, "modules"),
               "--init", os.path.join(guest, "init"), "--add",
               f"etc/mullion/{task}={script or os.path.join(guest, task)}", "--add",
               f"usr/share/udhcpc/default.script={os.path.join(guest, 'udhcpc')}", "--output", initrd]
    busybox = os.path.join(folder, "busybox")
    if os.path.exists(busybox):
        command += ["--busybox", busybox]
    for module in modules:
        command += ["--module", module]
    subprocess.run(command, check=True)
    return initrd


def options(ctx, words):
    """Boot into scripts/guest/storage."""
    ctx.need_i386(VERSION)
    initrd = make_initrd(ctx, VERSION, "storage", MODULES)
    return ["--engine", ctx.engine, "--kernel", ctx.kernel(VERSION), "--initrd", initrd,
            "--memory", "256M", "--cpus", "2", "--append",
            f"console=ttyS0 quiet panic=-1 noisapnp mullion.do=storage {words}"]


def facts(m):
    """{size: {key: value}} of the guest's lines."""
    found = {}
    for line in m.output.decode(errors="replace").splitlines():
        words = line.strip().split(" ", 3)
        if words[0] == "storage:" and len(words) > 2 and words[1].isdigit():
            found.setdefault(int(words[1]), {}).setdefault(
                words[2], words[3] if len(words) > 3 else "")
    return found


def second_mib(path):
    with open(path, "rb") as f:
        f.seek(MIB)
        return hashlib.sha256(f.read(MIB)).hexdigest()


@test
def every_bus(ctx):
    """A disk on each bus and a CD-ROM drive on those that have them, all in one machine; then the
    same disks, each on the next bus."""
    disks, cdroms, args, turned = {}, {}, [], []
    buses = list(DRIVERS)
    for i, bus in enumerate(buses):
        size = 8 + i
        path, digest = ctx.make_disk(f"{bus}.img", size)
        disks[size * MIB] = (bus, path, digest, buses[i - 1])
        args += ["--disk", f"{path},format=raw,bus={bus}"]
        turned += ["--disk", f"{path},format=raw,bus={buses[i - 1]}"]
    for i, bus in enumerate(CDROM_BUSES):
        data = hashlib.shake_256(bus.encode()).digest((100 + i) * 2048)
        path = ctx.path(f"{bus}.iso")
        with open(path, "wb") as f:
            f.write(data + b"torn" * i)  # the rest of a sector is not seen
        cdroms[len(data)] = (bus, hashlib.sha256(data).hexdigest())
        args += ["--cdrom", f"{path},bus={bus}"]
    words = f"mullion.disks={len(disks) + len(cdroms)}"
    with Mullion(ctx.program, options(ctx, words) + args) as m:
        m.wait_for("storage: 0 done", 120 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        got = facts(m)
        expect("complaint" not in got[0], f"{got[0]}{m.tail()}")
        for size, (bus, path, digest, _) in disks.items():
            said = got.get(size, {})
            expect(said.get("driver") == DRIVERS[bus], f"{bus}: {said}{m.tail()}")
            expect(said.get("first") == digest, f"{bus}: read {said}")
            expect(said.get("wrote") == second_mib(path), f"{bus}: wrote {said}")
            expect("discarded" in said and "failed" not in said, f"{bus}: {said}")
        for size, (bus, digest) in cdroms.items():
            said = got.get(size, {})
            expect(said == {"driver": DRIVERS[bus], "content": digest}, f"CD on {bus}: {said}")
    with Mullion(ctx.program, options(ctx, f"mullion.disks={len(disks)} mullion.then=again") +
                 turned) as m:
        m.expect_status(0, 150 * ctx.patience)
        for size, (_, path, digest, bus) in disks.items():
            said = facts(m).get(size, {})
            expect(said == {"driver": DRIVERS[bus], "first": digest, "second": second_mib(path)},
                   f"{bus}: {said}{m.tail()}")


@test
def no_room(ctx):
    """A fifth drive on ide: one clear line, before anything starts."""
    paths = [ctx.make_disk(f"{i}.img", 1)[0] for i in range(5)]
    args = [word for p in paths for word in ("--disk", f"{p},format=raw,bus=ide")]
    result = subprocess.run([ctx.program, "run", "--engine", ctx.engine, *args],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=60 * ctx.patience, check=False)
    expect(result.returncode == 1 and "ide has room for 4 drives" in result.stderr, f"{result}")
