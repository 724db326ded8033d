"""Machines that come from elsewhere boot: a VMX machine with divided sparse disks and an OVA, each
imported in one command. Neither can name a kernel, so the command line does, or firmware boots."""
import hashlib
import json
import os
import shutil
import subprocess

from guest import Mullion, expect
from storage_tests import make_initrd

TESTS = {}
MIB = 1 << 20

VMX = """.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "My Server"
guestOS = "debian12-64"
memsize = "256"
numvcpus = "2"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "server.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.startConnected = "FALSE"
"""


def command(ctx, env, *arguments):
    result = subprocess.run([ctx.program, *arguments], env=env, capture_output=True, text=True,
                            check=False, timeout=300 * ctx.patience)
    expect(result.returncode == 0, f"{arguments}: {result}")
    return result.stdout


def write_vmx(ctx):
    """A folder as VMware leaves it, with the sparse disk in parts. @return the known MiB's digest"""
    raw, digest = ctx.make_disk("server.raw", 8)
    folder = ctx.path("vmware")
    os.mkdir(folder)
    disk = os.path.join(folder, "server.vmdk")
    if shutil.which("qemu-img"):
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o",
                   "subformat=twoGbMaxExtentSparse", raw, disk]
    else:
        convert = [ctx.program, "image", "convert", raw, disk, "--from", "raw", "--to",
                   "vmdk,subformat=twoGbMaxExtentSparse"]
    subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(folder, "server.vmx"), "w", encoding="utf-8") as f:
        f.write(VMX)
    return digest


def boot_it(ctx, env, name, digest):
    """The machine's own disk has what it should, and keeps what the guest writes."""
    # The OVA has the terminal of the first one as a pipe.
    options = [name, *ctx.boot("check", words="mullion.disk=sda"), "--console", "stdio"]
    options[options.index("--initrd") + 1] = make_initrd(ctx, "6.12", "check",
                                                         ["vmw_pvscsi", "sd_mod"])
    with Mullion(ctx.program, options, env=env) as m:
        m.expect_status(0, 60 * ctx.patience)
        got, said = m.checks(), m.errors.decode()
    expect(got.get("disk") == f"{8 * MIB} {digest}", f"disk: {got.get('disk')}{m.tail()}")
    expect(got["cpus"] == "2" and int(got["memory"]) < 256 << 10, str(got))
    lines = said.splitlines()
    expect(len(lines) <= 1 and all("not there yet" in line for line in lines), f"stderr: {said!r}")
    return got["wrote"]


def second_mib(ctx, env, name):
    raw = ctx.path("second.raw")
    folder = os.path.join(env["XDG_DATA_HOME"], "mullion/machines", name)
    with open(os.path.join(folder, "machine.json"), encoding="utf-8") as f:
        disk = os.path.join(folder, json.load(f)["disks"][0]["path"])
    command(ctx, env, "image", "convert", disk, raw, "--to", "raw")
    with open(raw, "rb") as f:
        f.seek(MIB)
        return hashlib.sha256(f.read(MIB)).hexdigest()


def appliance_vmx_and_ova(ctx):
    digest = write_vmx(ctx)
    env = dict(os.environ, XDG_DATA_HOME=ctx.path("data"))
    command(ctx, env, "import", ctx.path("vmware"))
    wrote = boot_it(ctx, env, "My-Server", digest)
    expect(second_mib(ctx, env, "My-Server") == wrote, "what the guest wrote is not in the disk")
    command(ctx, env, "export", "My-Server", ctx.path("server.ova"), "--format", "ova")
    shutil.rmtree(ctx.path("data"))
    command(ctx, env, "import", ctx.path("server.ova"), "--name", "again")
    expect(second_mib(ctx, env, "again") == wrote, "what the guest wrote is not in the OVA")
    expect(boot_it(ctx, env, "again", digest), "the guest wrote nothing")


# cli; xor ax, ax; mov ds, ax; mov si, 7c00h + message; 1: lodsb; test al, al; jz 2f; mov dx, 3f8h;
# out dx, al; jmp 1b; 2: hlt; jmp 2b
BOOT_SECTOR = bytes.fromhex("fa31c08ed8be167cac84c07406baf803eeebf5f4ebfd")


def appliance_boots_by_bios(ctx):
    """An imported disk's own boot sector runs: nothing but the machine's name is given."""
    env = dict(os.environ, XDG_DATA_HOME=ctx.path("data"))
    message = BOOT_SECTOR + b"booted from the imported disk\r\n\0"
    with open(ctx.path("disk.raw"), "wb") as f:
        f.write(message.ljust(510, b"\0") + b"\x55\xaa")
        f.truncate(8 * MIB)
    command(ctx, env, "import", ctx.path("disk.raw"), "--name", "first", "--disk-format", "vmdk",
            "--network", "0=none")
    command(ctx, env, "export", "first", ctx.path("disk.ova"), "--format", "ova")
    command(ctx, env, "import", ctx.path("disk.ova"), "--name", "second")
    with Mullion(ctx.program, ["second", "--engine", ctx.engine, "--console", "stdio"],
                 env=env) as m:
        m.wait_for("booted from the imported disk", 120 * ctx.patience)


TESTS["appliance-vmx-and-ova"] = appliance_vmx_and_ova
TESTS["appliance-boots-by-bios"] = appliance_boots_by_bios
