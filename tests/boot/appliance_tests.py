"""Machines that come from elsewhere boot: a VMX machine with divided sparse disks and an OVA, each
imported in one command. Neither can name a kernel, so the command line does, or firmware boots."""
import hashlib
import json
import os
import shutil
import subprocess

from guest import Mullion, Skipped, expect
from storage_tests import make_initrd

TESTS = {}
WHOLE = {}  # with --whole
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


# As VMware Workstation and ESXi write them, with what each of them always has.
WHOLE_VMX = """.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
mks.enable3d = "TRUE"
pciBridge0.present = "TRUE"
pciBridge4.present = "TRUE"
pciBridge4.virtualDev = "pcieRootPort"
pciBridge4.functions = "8"
vmci0.present = "TRUE"
hpet0.present = "TRUE"
displayName = "Debian {firmware}"
guestOS = "debian12-64"
nvram = "Debian {firmware}.nvram"
virtualHW.productCompatibility = "hosted"
{firmware_line}powerType.powerOff = "soft"
powerType.powerOn = "soft"
powerType.suspend = "soft"
powerType.reset = "soft"
tools.syncTime = "FALSE"
numvcpus = "2"
cpuid.coresPerSocket = "2"
memsize = "512"
scsi0.virtualDev = "{adapter}"
scsi0.present = "TRUE"
scsi0:0.fileName = "Debian.vmdk"
scsi0:0.present = "TRUE"
sata0.present = "TRUE"
sata0:1.deviceType = "cdrom-raw"
sata0:1.fileName = "auto detect"
sata0:1.present = "TRUE"
usb.present = "TRUE"
ehci.present = "TRUE"
usb_xhci.present = "TRUE"
svga.graphicsMemoryKB = "262144"
ethernet0.connectionType = "nat"
ethernet0.addressType = "generated"
ethernet0.virtualDev = "{nic}"
ethernet0.present = "TRUE"
ethernet0.startConnected = "{connected}"
ethernet0.generatedAddress = "00:0c:29:6f:0a:3e"
ethernet0.generatedAddressOffset = "0"
ethernet0.pciSlotNumber = "160"
sound.present = "TRUE"
sound.fileName = "-1"
sound.autodetect = "TRUE"
serial0.fileType = "thinprint"
extendedConfigFile = "Debian {firmware}.vmxf"
floppy0.present = "FALSE"
uuid.bios = "56 4d 3b 5e 32 5c 10 fa-1e 62 6c 0c 1d 6f 0a 3e"
uuid.location = "56 4d 3b 5e 32 5c 10 fa-1e 62 6c 0c 1d 6f 0a 3e"
scsi0:0.redo = ""
pciBridge0.pciSlotNumber = "17"
scsi0.pciSlotNumber = "16"
monitor.phys_bits_used = "45"
vmotion.checkpointFBSize = "4194304"
cleanShutdown = "TRUE"
softPowerOff = "TRUE"
"""

# What the guest says of its machine.
WHOLE_TASK = """
for i in $(seq 200); do [ -b /dev/sda ] && [ -d /sys/class/net/eth0 ] && break; sleep 0.1; done
adapter=$(readlink -f /sys/class/block/sda | sed 's#/host.*##')
echo "vmx: $([ -d /sys/firmware/efi ] && echo efi || echo bios) $(basename $(readlink $adapter/driver))" \
    "$(basename $(readlink /sys/class/net/eth0/device/driver)) $(cat /sys/class/net/eth0/address)" \
    "$(nproc) $(dd if=/dev/sda bs=512 skip=1 count=1 2> /dev/null | head -c 8)"
"""


def whole_disk(ctx):
    """A disk that GRUB boots by BIOS and by UEFI, with the drivers of VMware's guests in its initrd."""
    script, tree, image = ctx.path("task"), ctx.path("tree"), ctx.path("whole.img")
    tools = ("grub-mkimage", "sfdisk", "mke2fs", "mkfs.vfat", "mcopy")
    where = os.environ["PATH"] + ":/sbin:/usr/sbin"
    if not all(shutil.which(tool, path=where) for tool in tools):
        raise Skipped(f"one of {tools} is missing: scripts/setup test")
    with open(script, "w", encoding="ascii") as f:
        f.write(WHOLE_TASK)
    initrd = make_initrd(ctx, "6.1-amd64", "vmx", ["vmw_pvscsi", "sd_mod", "vmxnet3", "e1000e"], script)
    os.mkdir(tree)
    shutil.copyfile(ctx.kernel("6.1-amd64"), os.path.join(tree, "vmlinuz"))
    shutil.copyfile(initrd, os.path.join(tree, "initrd.img"))
    make = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/guest/disk-image")
    subprocess.run([make, tree, image, "mullion.do=vmx", "mullion.network=off", "quiet", "panic=-1"],
                   env=dict(os.environ, PATH=where), check=True)
    return image


def appliance_whole_vmx(ctx, firmware, adapter, nic, said):
    """A machine as VMware leaves it boots as it is, by its own firmware and boot loader."""
    env = dict(os.environ, XDG_DATA_HOME=ctx.path("data"))
    folder = ctx.path("vmware")
    os.mkdir(folder)
    command(ctx, env, "image", "convert", whole_disk(ctx), os.path.join(folder, "Debian.vmdk"), "--from",
            "raw", "--to", "vmdk,subformat=monolithicSparse")
    with open(os.path.join(folder, "Debian.vmx"), "w", encoding="utf-8") as f:
        f.write(WHOLE_VMX.format(firmware=firmware, adapter=adapter, nic=nic,
                                 connected="TRUE" if ctx.user_net() else "FALSE",
                                 firmware_line='firmware = "efi"\n' if firmware == "efi" else ""))
    command(ctx, env, "import", folder, "--name", "debian")
    with Mullion(ctx.program, ["debian", "--engine", ctx.engine, "--console", "stdio"], env=env) as m:
        match = m.wait_for(r"vmx: ([^\r\n]*)[\r\n]", 180 * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)
    expect(match[1].decode() == f"{said} 00:0c:29:6f:0a:3e 2 EFI PART", f"{match[1]}{m.tail()}")


TESTS["appliance-vmx-uefi"] = lambda ctx: appliance_whole_vmx(
    ctx, "efi", "pvscsi", "vmxnet3", "efi vmw_pvscsi vmxnet3")
# PVSCSI and E1000E take the places of an LSI Logic adapter and an E1000.
WHOLE["appliance-vmx-bios"] = lambda ctx: appliance_whole_vmx(
    ctx, "bios", "lsilogic", "e1000", "bios vmw_pvscsi e1000e")
TESTS["appliance-vmx-and-ova"] = appliance_vmx_and_ova
TESTS["appliance-boots-by-bios"] = appliance_boots_by_bios
