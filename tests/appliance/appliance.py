#!/usr/bin/env python3
"""`mullion import` and `mullion export` with real peers and with hostile packages.

usage: appliance.py MULLION [PATTERN...]

Peers: qemu-img (disks), tar (archives), sha256sum and openssl (manifests and signatures),
virt-xml-validate (libvirt's schema), virt-v2v (OVA, VMX and libvirt readers), where installed. Writes
TAP. Nothing that fails may leave anything behind, which each test checks.
"""
import fnmatch
import gzip
import hashlib
import http.server
import io
import json
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import traceback
import xml.etree.ElementTree

PROGRAM = os.path.abspath(sys.argv[1])
TESTS = []


class Skipped(Exception):
    """A peer is missing."""


def test(function):
    TESTS.append(function)
    return function


def need(program):
    if not shutil.which(program):
        raise Skipped(f"no {program}")


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def run(*command, **options):
    return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=300, check=False, **options)


def good(*command, **options):
    result = run(*command, **options)
    expect(result.returncode == 0, f"{command}: {result}")
    return result.stdout


class World:
    """A folder of its own, with a store of machines."""

    def __init__(self, folder):
        self.folder = folder
        self.machines = os.path.join(folder, "data/mullion/machines")
        self.env = dict(os.environ, XDG_DATA_HOME=os.path.join(folder, "data"))

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def mullion(self, *arguments):
        return good(PROGRAM, *arguments, env=self.env)

    def machine(self, name):
        with open(os.path.join(self.machines, name, "machine.json"), encoding="utf-8") as f:
            return json.load(f)

    def refused(self, *arguments, says, status=1, **options):
        """It ends with one line that says why, and leaves nothing."""
        result = run(PROGRAM, *arguments, env=self.env, **options)
        expect(result.returncode == status, f"{arguments}: {result}")
        expect(says in result.stderr, f"{arguments}: '{says}' is not in {result.stderr!r}")
        expect(len(result.stderr.splitlines()) == 1, f"{arguments}: {result.stderr!r}")
        left = os.listdir(self.machines) if os.path.isdir(self.machines) else []
        expect(not left, f"{arguments}: left behind: {left}")

    def write(self, name, data):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb" if isinstance(data, bytes) else "w") as f:
            f.write(data)
        return self.path(name)

    def raw(self, name, mib=32, seed=1):
        """A disk with data between holes."""
        r, path = random.Random(seed), self.path(name)
        with open(path, "wb") as f:
            f.truncate(mib << 20)
            for _ in range(12):
                f.seek(r.randrange(mib << 11) << 9)
                f.write(r.randbytes(r.choice([512, 5000, 100000])))
            f.truncate(mib << 20)
        return path

    def vmdk(self, name, subformat, seed=1):
        need("qemu-img")
        raw = self.raw(os.path.basename(name) + ".raw", seed=seed)
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        good("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw,
             self.path(name))
        return raw


VMX = """#!/usr/bin/vmware
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "Web Server (1)"
guestOS = "debian12-64"
memsize = "256"
numvcpus = "2"
firmware = "bios"
uuid.bios = "56 4d 1c a8 00 11 22 33-44 55 66 77 88 99 aa bb"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "{}"
scsi0:0.deviceType = "scsi-hardDisk"
sata0.present = "TRUE"
sata0:1.present = "TRUE"
sata0:1.fileName = "{}"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:00:00:01"
serial0.present = "TRUE"
serial0.fileType = "pipe"
serial0.fileName = "com1"
serial0.pipe.endPoint = "server"
tools.syncTime = "TRUE"
"""


def same(a, fmt, b):
    good("qemu-img", "compare", "-f", fmt, a, b)


def vmware_machine(world):
    """A VMX machine with a sparse and a divided VMDK. @return the disks' content as raw files"""
    one = world.vmdk("vm/disk.vmdk", "monolithicSparse", 1)
    two = world.vmdk("vm/data.vmdk", "twoGbMaxExtentSparse", 2)
    world.write("vm/web.vmx", VMX.format("disk.vmdk", "data.vmdk"))
    return one, two


def settings(path):
    """The lines of a VMX file, without those that name files and machines."""
    with open(path, encoding="utf-8") as f:
        return sorted(line for line in f.read().splitlines() if not line.startswith("#") and
                      ".fileName" not in line and "displayName" not in line)


@test
def vmx_ova_vmx(world):
    """VMX -> machine -> OVA -> machine -> VMX: every setting and every byte comes back."""
    one, two = vmware_machine(world)
    out = world.mullion("import", world.path("vm/web.vmx"), "--name", "web")
    expect("mullion run web" in out, out)
    same(one, "raw", os.path.join(world.machines, "web/disk0.qcow2"))
    same(two, "raw", os.path.join(world.machines, "web/disk1.qcow2"))
    expect(not world.mullion("export", "web", world.path("web.ova"), "--format", "ova"),
           "something was not carried over")
    out = world.mullion("import", world.path("web.ova"), "--name", "again")
    expect("every file is as the manifest says" in out, out)
    same(one, "raw", os.path.join(world.machines, "again/disk0.qcow2"))
    same(two, "raw", os.path.join(world.machines, "again/disk1.qcow2"))
    world.mullion("export", "again", world.path("back"), "--format", "vmx")
    wanted, got = settings(world.path("vm/web.vmx")), settings(world.path("back/again.vmx"))
    expect(wanted == got, f"only in one: {set(wanted) ^ set(got)}")
    same(one, "raw", world.path("back/again-disk0.vmdk"))
    config = json.loads(world.mullion("run", "again", "--print-config"))
    expect(config["disks"][0]["path"].startswith(world.machines), str(config))


def ovf_two(world):
    """OVF 2: its namespaces, its elements for drives and cards, and the same machine comes back."""
    world.mullion("export", "web", world.path("two"), "--format", "ovf,version=2")
    tree = xml.etree.ElementTree.parse(world.path("two/web.ovf"))
    spaces = {"o": "http://schemas.dmtf.org/ovf/envelope/2"}
    cim = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
    for element, prefix, types in (
            ("Item", cim + "CIM_ResourceAllocationSettingData}", {"3", "4", "6", "20"}),
            ("StorageItem", cim + "CIM_StorageAllocationSettingData}", {"17"}),
            ("EthernetPortItem", cim + "CIM_EthernetPortAllocationSettingData}", {"10"})):
        items = tree.findall(f".//o:VirtualHardwareSection/o:{element}", spaces)
        expect(items, f"no {element}")
        for item in items:
            expect(item.find(prefix + "ResourceType").text in types, f"{element} in {tree}")
            fields = [field.tag for field in item if field.tag.startswith(prefix)]
            expect(fields == sorted(fields), f"{element}'s order")
    order = [item.tag.rpartition("}")[2] for item in tree.find(".//o:VirtualHardwareSection", spaces)]
    order = [name for name in order if name.endswith("Item")]
    wanted = ["Item", "EthernetPortItem", "StorageItem"]
    expect(order == sorted(order, key=wanted.index), f"DSP8023's order: {order}")
    world.mullion("import", world.path("two"), "--name", "of-two")
    world.mullion("export", "of-two", world.path("back2"), "--format", "vmx")
    wanted, got = settings(world.path("vm/web.vmx")), settings(world.path("back2/of-two.vmx"))
    expect(wanted == got, f"only in one: {set(wanted) ^ set(got)}")


@test
def ova_for_others(world):
    """tar, sha256sum, qemu-img and virt-v2v read what we export."""
    one, _ = vmware_machine(world)
    world.mullion("import", world.path("vm"), "--name", "web")
    world.mullion("export", "web", world.path("web.ova"), "--format", "ova")
    names = good("tar", "tf", world.path("web.ova")).split()
    expect(names == ["web.ovf", "web.mf", "web-disk0.vmdk", "web-disk1.vmdk"], str(names))
    os.mkdir(world.path("x"))
    good("tar", "xf", world.path("web.ova"), "-C", world.path("x"))
    with open(world.path("x/web.mf"), encoding="ascii") as f:
        for line in f:
            name, digest = line.removeprefix("SHA256(").rstrip("\n").split(")= ")
            expect(good("sha256sum", world.path("x", name)).split()[0] == digest, line)
    info = json.loads(good("qemu-img", "info", "--output=json", world.path("x/web-disk0.vmdk")))
    expect(info["format-specific"]["data"]["create-type"] == "streamOptimized", str(info))
    good("qemu-img", "check", world.path("x/web-disk0.vmdk"))
    same(one, "raw", world.path("x/web-disk0.vmdk"))
    if shutil.which("xmllint"):
        good("xmllint", "--noout", world.path("x/web.ovf"))
    ovf_two(world)
    if shutil.which("virt-v2v"):
        out = good("virt-v2v", "-i", "ova", world.path("web.ova"), "--print-source")
        for part in ("source name: web", "268435456", "nr vCPUs: 2", "0 [scsi]", "[vmxnet3]",
                     "00:50:56:00:00:01"):
            expect(part in out, out)


@test
def vmx_for_others(world):
    vmware_machine(world)
    need("virt-v2v")
    world.mullion("import", world.path("vm"), "--name", "web")
    world.mullion("export", "web", world.path("back"), "--format", "vmx")
    out = good("virt-v2v", "-i", "vmx", world.path("back/web.vmx"), "--print-source")
    expect("source name: web" in out and "[vmxnet3]" in out and "268435456" in out, out)


@test
def libvirt_both_ways(world):
    one, _ = vmware_machine(world)
    world.mullion("import", world.path("vm"), "--name", "web")
    report = json.loads(world.mullion("export", "web", world.path("lv"), "--format", "libvirt",
                                      "--report", "json"))
    expect({"kind": "lost", "item": "extra.vmx"} ==
           {k: report["report"][0][k] for k in ("kind", "item")}, str(report))
    if shutil.which("virt-xml-validate"):
        good("virt-xml-validate", world.path("lv/web.xml"), "domain")
    world.mullion("import", world.path("lv"), "--name", "again")
    same(one, "raw", os.path.join(world.machines, "again/disk0.qcow2"))
    a, b = world.machine("web"), world.machine("again")
    for key in ("uuid", "os", "memory", "cpus", "disks", "firmware"):
        expect(a[key] == b[key], f"{key}: {a[key]} and {b[key]}")


@test
def every_disk_format(world):
    need("qemu-img")
    raw = world.raw("a.raw")
    world.mullion("import", raw, "--name", "m", "--disk-format", "vhdx")
    for name, fmt in (("qcow2", "qcow2"), ("raw", "raw"), ("vmdk", "vmdk"), ("vhdx", "vhdx"),
                      ("vhd", "vpc"), ("vdi", "vdi")):
        world.mullion("export", "m", world.path("d." + name), "--format", name)
        same(raw, "raw", world.path("d." + name))
    config = world.machine("m")
    expect(config["disks"] == [{"path": "disk0.vhdx", "format": "vhdx"}], str(config))


@test
def in_place(world):
    one, _ = vmware_machine(world)
    world.mullion("import", world.path("vm"), "--name", "web", "--in-place")
    config = world.machine("web")
    expect(config["disks"][0]["path"] == os.path.realpath(world.path("vm/disk.vmdk")), str(config))
    expect(os.listdir(os.path.join(world.machines, "web")) == ["machine.json"], "copies")
    world.mullion("export", "web", world.path("d.raw"), "--format", "raw", "--disk", "0")
    same(one, "raw", world.path("d.raw"))
    world.mullion("export", "web", world.path("ovf"), "--format", "ovf")
    shutil.rmtree(os.path.join(world.machines, "web"))
    world.refused("import", world.path("ovf"), "--in-place", says="streamOptimized")


@test
def signatures(world):
    need("openssl")
    vmware_machine(world)
    for who in ("maker", "other"):
        good("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj",
             f"/CN={who}", "-keyout", world.path(who + ".key"), "-out", world.path(who + ".crt"))
    world.mullion("import", world.path("vm"), "--name", "web")
    ova = world.path("web.ova")
    world.mullion("export", "web", ova, "--format", "ova", "--sign-key", world.path("maker.key"),
                  "--sign-cert", world.path("maker.crt"), "--digest", "sha512")
    shutil.rmtree(os.path.join(world.machines, "web"))
    # openssl agrees that the key's owner signed these bytes.
    with tarfile.open(ova) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    line = members["web.cert"].decode().splitlines()[0]
    expect(line.startswith("SHA512(web.mf)= "), line)
    world.write("sig", bytes.fromhex(line.split("= ")[1]))
    world.write("mf", members["web.mf"])
    good("openssl", "x509", "-in", world.path("maker.crt"), "-pubkey", "-noout", "-out",
         world.path("maker.pub"))
    good("openssl", "dgst", "-sha512", "-verify", world.path("maker.pub"), "-signature",
         world.path("sig"), world.path("mf"))
    out = world.mullion("import", ova, "--name", "a", "--trust", world.path("maker.crt"),
                        "--require-signature")
    expect("signed by CN=maker\n" in out, out)
    out = world.mullion("import", ova, "--name", "b")
    expect("signed by CN=maker, whom nobody you trust vouches for" in out, out)
    for name in "ab":
        shutil.rmtree(os.path.join(world.machines, name))
    world.refused("import", ova, "--require-signature", says="not signed by anybody we trust")
    world.refused("import", ova, "--require-signature", "--trust", world.path("other.crt"),
                  says="not signed by anybody we trust")
    # The manifest signed by another, changed after signing, and a certificate alone.
    forged = dict(members)
    with open(world.path("other.crt"), encoding="ascii") as f:
        forged["web.cert"] = (line + "\n" + f.read()).encode()
    world.refused("import", make_ova(world, "f.ova", forged), says="does not fit the manifest")
    forged = dict(members, **{"web.mf": members["web.mf"] + b"\n"})
    world.refused("import", make_ova(world, "f.ova", forged), says="does not fit the manifest")
    forged = dict(members)
    del forged["web.mf"]
    world.refused("import", make_ova(world, "f.ova", forged), says="no manifest")
    result = run(PROGRAM, "import", world.path("f.ova"), "--no-verify", env=world.env)
    expect(result.returncode == 0 and "--no-verify" in result.stderr, str(result))


OVF = """<?xml version='1.0'?>
<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1'
 xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1' xmlns:r='urn:rasd'>
<References>{files}</References>
<DiskSection><Info/>{disks}</DiskSection>
<VirtualSystem ovf:id='vm'><Info/><Name>vm</Name>{sections}
<VirtualHardwareSection><Info/>
<Item><r:InstanceID>1</r:InstanceID><r:ResourceType>3</r:ResourceType>
<r:VirtualQuantity>1</r:VirtualQuantity></Item>
<Item><r:AllocationUnits>byte * 2^20</r:AllocationUnits><r:InstanceID>2</r:InstanceID>
<r:ResourceType>4</r:ResourceType><r:VirtualQuantity>64</r:VirtualQuantity></Item>
<Item><r:InstanceID>3</r:InstanceID><r:ResourceSubType>lsilogic</r:ResourceSubType>
<r:ResourceType>6</r:ResourceType></Item>
<Item><r:AddressOnParent>0</r:AddressOnParent><r:HostResource>ovf:/disk/d1</r:HostResource>
<r:InstanceID>4</r:InstanceID><r:Parent>3</r:Parent><r:ResourceType>17</r:ResourceType></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>
"""
FILE = "<File ovf:id='f1' ovf:href='{href}' {more}/>"
DISK = "<Disk ovf:diskId='d1' ovf:fileRef='f1' ovf:capacity='{capacity}'/>"


def ovf(href="d.vmdk", capacity=32 << 20, more="", sections=""):
    return OVF.format(files=FILE.format(href=href, more=more),
                      disks=DISK.format(capacity=capacity), sections=sections)


def make_ova(world, name, members, fmt=tarfile.USTAR_FORMAT):
    """Members: name -> bytes, or a TarInfo."""
    with tarfile.open(world.path(name), "w", format=fmt) as tar:
        for member, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
                continue
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return world.path(name)


def stream_vmdk(world):
    raw = world.vmdk("s.vmdk", "streamOptimized")
    with open(world.path("s.vmdk"), "rb") as f:
        return raw, f.read()


@test
def tars_of_others(world):
    """Archives as GNU tar and pax write them, with long names, gzip and parts."""
    raw, data = stream_vmdk(world)
    long_name = "d" * 150 + ".vmdk"
    for i, fmt in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        make_ova(world, "a.ova", {"a.ovf": ovf(long_name), long_name: data}, fmt)
        world.mullion("import", world.path("a.ova"), "--name", f"t{i}")
        same(raw, "raw", os.path.join(world.machines, f"t{i}/disk0.qcow2"))
    make_ova(world, "a.ova", {"a.ovf": ovf("d.vmdk.gz", more="ovf:compression='gzip'"),
                              "d.vmdk.gz": gzip.compress(data)})
    world.mullion("import", world.path("a.ova"), "--name", "gz")
    same(raw, "raw", os.path.join(world.machines, "gz/disk0.qcow2"))
    step = len(data) // 3 + 1
    parts = {f"d.vmdk.{i:09}": data[i * step:(i + 1) * step] for i in range(3)}
    make_ova(world, "a.ova", dict({"a.ovf": ovf(more=f"ovf:chunkSize='{step}'")}, **parts))
    world.mullion("import", world.path("a.ova"), "--name", "parts")
    same(raw, "raw", os.path.join(world.machines, "parts/disk0.qcow2"))
    expect(sorted(os.listdir(os.path.join(world.machines, "parts"))) ==
           ["disk0.qcow2", "machine.json"], "unpacked files are left")


@test
def properties_and_licence(world):
    _, data = stream_vmdk(world)
    sections = ("<ProductSection ovf:class='app'><Info/><Product>App</Product>"
                "<Property ovf:key='ip' ovf:type='string' ovf:userConfigurable='true'/>"
                "</ProductSection><EulaSection><Info/><License>Be good.</License></EulaSection>")
    ova = make_ova(world, "a.ova", {"a.ovf": ovf(sections=sections), "d.vmdk": data})
    result = run(PROGRAM, "import", ova, env=world.env)
    expect(result.returncode == 1 and "Be good." in result.stderr and
           "--accept-eula" in result.stderr, str(result))
    expect(not os.path.exists(world.machines) or not os.listdir(world.machines), "left behind")
    out = world.mullion("import", ova, "--accept-eula", "--name", "a")
    expect("properties without a value: ip" in out, out)
    world.mullion("import", ova, "--accept-eula", "--name", "b", "--property", "ip=10.0.0.9")
    with open(os.path.join(world.machines, "b/ovf-env.xml"), encoding="utf-8") as f:
        expect('oe:key="app.ip" oe:value="10.0.0.9"' in f.read(), "ovf-env.xml")
    expect(not world.machine("b")["cdroms"], "a disc that nobody asked for")
    # With transport by iso, a disc for the guest, which the next one makes anew.
    iso = ovf(sections=sections).replace(
        "<VirtualHardwareSection>",
        "<VirtualHardwareSection ovf:transport='com.vmware.guestInfo iso'>")
    make_ova(world, "i.ova", {"i.ovf": iso, "d.vmdk": data})
    world.mullion("import", world.path("i.ova"), "--accept-eula", "--name", "i", "--property",
                  "ip=10.0.0.9")
    for version in "", ",version=2":
        expect([c["path"] for c in world.machine("i")["cdroms"]] == ["ovf-env.iso"], "no disc")
        folder = os.path.join(world.machines, "i")
        with open(os.path.join(folder, "ovf-env.xml"), encoding="utf-8") as f:
            wanted = f.read()
        if shutil.which("7z"):
            expect(good("7z", "e", "-so", os.path.join(folder, "ovf-env.iso"), "ovf-env.xml") ==
                   wanted, "the disc is not the document")
        world.mullion("export", "i", world.path("o.ova"), "--format", "ova" + version)
        expect(".iso" not in good("tar", "tf", world.path("o.ova")), "the disc is in the package")
        shutil.rmtree(folder)
        world.mullion("import", world.path("o.ova"), "--accept-eula", "--name", "i")
        os.unlink(world.path("o.ova"))
    # On a terminal it asks.
    pid, master = pty.fork()
    if not pid:
        os.execve(PROGRAM, [PROGRAM, "import", ova, "--name", "c"], world.env)
    text = b""
    while b"[yes/no]" not in text:
        expect(select.select([master], [], [], 60)[0], f"no question: {text}")
        text += os.read(master, 4096)
    os.write(master, b"yes\n")
    try:
        while True:
            text += os.read(master, 4096)
    except OSError:
        pass
    os.close(master)
    expect(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, text.decode())
    expect(b"100.0 %" in text, "no progress bar")
    expect(world.machine("c")["name"] == "c", "no machine")


@test
def hostile_archives(world):
    _, data = stream_vmdk(world)
    whole = {"a.ovf": ovf(), "d.vmdk": data}
    link = tarfile.TarInfo("d.vmdk")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
    hard = tarfile.TarInfo("d.vmdk")
    hard.type, hard.linkname = tarfile.LNKTYPE, "a.ovf"
    fifo = tarfile.TarInfo("d.vmdk")
    fifo.type = tarfile.FIFOTYPE
    cases = [
        (dict(whole, **{"../../up": b"x"}), "outside"),
        (dict(whole, **{"/etc/cron.d/x": b"x"}), "outside"),
        ({"a.ovf": ovf(), "d.vmdk": link}, "is a link"),
        ({"a.ovf": ovf(), "d.vmdk": hard}, "is a link"),
        ({"a.ovf": ovf(), "d.vmdk": fifo}, "not a file"),
        ({"a.ovf": ovf()}, "there is no 'd.vmdk'"),
        ({"d.vmdk": data}, "without an OVF descriptor"),
        (dict(whole, **{"b.ovf": ovf()}), "two descriptors"),
        (dict(whole, **{"./d.vmdk": data}), "two members"),
        ({"a.ovf": ovf(), "d.vmdk": b""}, "is empty"),
        ({"a.ovf": ovf(), "d.vmdk": data[:len(data) // 2]}, "d"),
        ({"a.ovf": ovf(more=f"ovf:size='{len(data) + 1}'"), "d.vmdk": data}, "descriptor says"),
        ({"a.ovf": ovf(capacity=1 << 70), "d.vmdk": data}, "capacity"),
        ({"a.ovf": ovf("../d.vmdk"), "d.vmdk": data}, "there is no"),
        ({"a.ovf": ovf("/etc/shadow"), "d.vmdk": data}, "there is no"),
        ({"a.ovf": ovf(more="ovf:compression='gzip'"), "d.vmdk": data}, "unpacking"),
        ({"a.ovf": ovf(capacity=1 << 20, more="ovf:compression='gzip'"),
          "d.vmdk": gzip.compress(bytes(256 << 20))}, "unpacks to more"),
        ({"a.ovf": ovf(), "d.vmdk": data, "a.mf": "SHA256(a.ovf)= " + "0" * 64}, "does not name"),
        ({"a.ovf": ovf(), "d.vmdk": data,
          "a.mf": f"SHA256(a.ovf)= {hashlib.sha256(ovf().encode()).hexdigest()}\n"
                  f"SHA256(d.vmdk)= {'0' * 64}\n"}, "not what the manifest says"),
        ({"a.ovf": ovf(), "d.vmdk": data, "a.mf": "nonsense"}, "line 1"),
        ({"a.ovf": "<!DOCTYPE a [<!ENTITY b 'c'>]>" + ovf()[21:], "d.vmdk": data},
         "document type"),
        ({"a.ovf": "<Envelope>" + "<a>" * 1000000, "d.vmdk": data}, "nested too deeply"),
    ]
    for members, says in cases:
        world.refused("import", make_ova(world, "h.ova", members), says=says)
    # A header that promises more than there is.
    with open(make_ova(world, "h.ova", whole), "r+b") as f:
        f.truncate(4096)
    world.refused("import", world.path("h.ova"), says="larger than the archive")
    world.refused("import", world.write("h.ova", b"j" * 10240), says="no tar header")
    # Disks that name other files: beside the archive, and anywhere.
    for text in ('RW 65536 FLAT "s.vmdk.raw" 0', 'RW 65536 FLAT "/etc/shadow" 0'):
        flat = ('# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n'
                f'createType="monolithicFlat"\n{text}\n')
        world.refused("import", make_ova(world, "h.ova", {"a.ovf": ovf(), "d.vmdk": flat}),
                      says="disk 0")
    need("qemu-img")
    good("qemu-img", "create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw",
         world.path("b.qcow2"), "1M")
    with open(world.path("b.qcow2"), "rb") as f:
        world.refused("import", make_ova(world, "h.ova", {"a.ovf": ovf("b.qcow2"),
                                                          "b.qcow2": f.read()}),
                      says="must stand alone")


@test
def hostile_descriptions(world):
    need("qemu-img")
    world.vmdk("vm/disk.vmdk", "monolithicSparse")
    for name, says in (("/etc/shadow", "outside"), ("../s.vmdk.raw", "outside"),
                       ("gone.vmdk", "No such file"), (".", "outside")):
        world.write("s.vmdk.raw", b"x")
        world.write("vm/web.vmx", VMX.format("disk.vmdk", name))
        world.refused("import", world.path("vm/web.vmx"), says=says)
    flat = ('# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n'
            'createType="monolithicFlat"\nRW 1 FLAT "{}" 0\n')
    for target in ("/etc/shadow", "../s.vmdk.raw"):
        world.write("vm/bad.vmdk", flat.format(target))
        world.write("vm/web.vmx", VMX.format("disk.vmdk", "bad.vmdk"))
        world.refused("import", world.path("vm/web.vmx"), says="outside")
    os.remove(world.path("vm/bad.vmdk"))
    # A link, and a backing file, that lead out.
    os.symlink("/etc/passwd", world.path("vm/bad.vmdk"))
    world.refused("import", world.path("vm/web.vmx"), says="link out of its folder")
    os.remove(world.path("vm/bad.vmdk"))
    for backing in ("/etc/passwd", "../s.vmdk.raw"):
        good("qemu-img", "create", "-f", "qcow2", "-u", "-b", backing, "-F", "raw",
             world.path("vm/bad.vmdk"), "1M")
        world.refused("import", world.path("vm/web.vmx"), says="outside")
    good("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={world.path('out.raw')}",
         world.path("vm/bad.vmdk"), "1M")
    world.refused("import", world.path("vm/web.vmx"), says="its data in another file")
    # Two descriptions, none, the wrong one.
    world.write("vm/second.vmx", VMX)
    world.refused("import", world.path("vm"), says="several descriptions")
    os.mkdir(world.path("empty"))
    world.refused("import", world.path("empty"), says="has no .ova")
    world.refused("import", world.path("none.ova"), says="No such file")
    world.refused("import", world.write("x.xml", "<network/>"), says="must be a domain")
    world.refused("import", world.write("x.ovf", "<domain/>"), says="Envelope")
    world.refused("import", world.write("x.vmx", "\0"), says="zero bytes")
    world.refused("import", world.path("vm/disk.vmdk"), "--disk-format", "parallels",
                  says="no format that we write")
    world.refused("import", world.path("vm/disk.vmdk"), "--name", "../x", says="--name")
    world.refused("import", world.path("vm/disk.vmdk"), "--network", "lan=user",
                  says="no network of that name")
    world.refused("import", world.path("vm/disk.vmdk"), "--property", "a=b", says="none of that")
    for arguments in ([], ["a", "b"], ["--nonsense", "a"], ["--network", "x", "a"], ["--name"]):
        world.refused("import", *arguments, says="", status=2)


@test
def disk_full(world):
    """Where the new disk cannot be written to its end, nothing is left; so with a signal."""
    vmware_machine(world)

    def little():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200 << 10, 200 << 10))

    world.refused("import", world.path("vm"), says="disk 0", preexec_fn=little)
    world.mullion("import", world.path("vm"), "--name", "web")
    result = run(PROGRAM, "export", "web", world.path("web.ova"), "--format", "ova",
                 env=world.env, preexec_fn=little)
    expect(result.returncode == 1, str(result))
    left = [n for n in os.listdir(world.folder) if "ova" in n]
    expect(not left, f"left behind: {left}")
    mount = shutil.which("unshare") and run(
        "unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=300k x "$1" && '
        '! XDG_DATA_HOME="$1" "$2" import "$3" 2> "$1/../said" && ls -A "$1/mullion/machines"',
        "-", world.write("small/.keep", "") and world.path("small"), PROGRAM, world.path("vm"))
    if mount and not mount.returncode:
        with open(world.path("said"), encoding="utf-8") as f:
            text = f.read()
        expect("No space left" in text and not mount.stdout, f"{text} {mount.stdout}")


@test
def from_a_server(world):
    raw, data = stream_vmdk(world)
    os.mkdir(world.path("site"))
    make_ova(world, "site/vm.ova", {"a.ovf": ovf(), "d.vmdk": data})

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=world.path("site"))

        def log_message(self, *_):
            pass

        def do_GET(self):
            """With ranges, which the standard library's handler does not do."""
            try:
                with open(self.translate_path(self.path), "rb") as f:
                    whole = f.read()
            except OSError:
                return self.send_error(404)
            asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first = int(asked[1]) if asked else 0
            last = min(int(asked[2]), len(whole) - 1) if asked and asked[2] else len(whole) - 1
            self.send_response(206 if asked else 200)
            self.send_header("ETag", '"1"')
            self.send_header("Accept-Ranges", "bytes")
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(whole)}")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            self.wfile.write(whole[first:last + 1])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        world.refused("import", url + "/none.ova", says="none.ova")
        world.refused("import", url + "/vm.ova", "--in-place", says="--in-place")
        out = world.mullion("import", url + "/vm.ova")
        expect("machine 'vm'" in out, out)
        server.shutdown()
    same(raw, "raw", os.path.join(world.machines, "vm/disk0.qcow2"))
    expect(os.listdir(world.machines) == ["vm"], "the download is left")


@test
def names_are_not_taken(world):
    vmware_machine(world)
    world.mullion("import", world.path("vm"), "--name", "web")
    before = world.machine("web")
    result = run(PROGRAM, "import", world.path("vm"), "--name", "web", env=world.env)
    expect(result.returncode == 1 and "there already" in result.stderr, str(result))
    expect(world.machine("web") == before, "it was changed")
    expect(os.listdir(world.machines) == ["web"], "left behind")
    world.write("out/x", "mine")
    for fmt, target in (("ovf", "out"), ("vmx", "out"), ("ova", "out/x"), ("raw", "out/x")):
        result = run(PROGRAM, "export", "web", world.path(target), "--format", fmt, "--disk", "0",
                     env=world.env)
        expect(result.returncode == 1 and "there already" in result.stderr, str(result))
    expect(os.listdir(world.path("out")) == ["x"], "it was changed")
    for arguments, says in ((["web", "t"], "--format"), (["web", "t", "--format", "vmx", "x"], "give")):
        result = run(PROGRAM, "export", *arguments, env=world.env)
        expect(result.returncode == 2 and says in result.stderr, str(result))
    for arguments, says in ((["web", world.path("t"), "--format", "steam"], "steam"),
                            (["none", world.path("t"), "--format", "ova"], "no such machine"),
                            (["web", world.path("t"), "--format", "raw"], "--disk")):
        result = run(PROGRAM, "export", *arguments, env=world.env)
        expect(result.returncode == 1 and says in result.stderr, str(result))


@test
def dry_run_and_json(world):
    vmware_machine(world)
    out = json.loads(world.mullion("import", world.path("vm"), "--dry-run", "--format", "json",
                                   "--network", "VM Network=tap=tap7"))
    expect(out["description"]["networks"][0]["interface"] == "tap7", str(out))
    expect(any(n["kind"] == "kept" for n in out["report"]), str(out))
    expect(not os.path.exists(world.machines), "something was made")


def main():
    chosen = [t for t in TESTS
              if any(fnmatch.fnmatch(t.__name__, p) for p in sys.argv[2:] or ["*"])]
    print(f"1..{len(chosen)}")
    failed = 0
    for number, function in enumerate(chosen, 1):
        with tempfile.TemporaryDirectory(prefix="mullion-appliance-") as folder:
            try:
                function(World(folder))
                print(f"ok {number} {function.__name__}")
            except Skipped as why:
                print(f"ok {number} {function.__name__} # SKIP {why}")
            except Exception:
                failed += 1
                print(f"not ok {number} {function.__name__}")
                print("\n".join("# " + line for line in traceback.format_exc().splitlines()))
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
