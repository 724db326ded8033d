"""Network cards driven by the drivers of unmodified guests: a file fetched from a server on the host and
sent back, over every model, and what the command line says of others."""
import base64
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import threading

from firmware_tests import BIOS, UEFI, need
from guest import Mullion, Skipped, expect

TESTS = {}

SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts")
DRIVERS = {"virtio": "virtio_net", "e1000e": "e1000e", "vmxnet3": "vmxnet3"}
MAC = "02:00:00:4d:75:0a"
TAP, TAP_HOST, TAP_GUEST, TAP_PORT = "mull0", "10.97.0.1", "10.97.0.2", 8000


class Server:
    """Serves a file over HTTP on a free port and answers what is sent with its SHA-256."""

    def __init__(self, data, address="127.0.0.1", port=0):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, body):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.answer(data)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(hashlib.sha256(body).hexdigest().encode() + b"\n")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((address, port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def content(model):
    """The file that a guest with a card of @model fetches."""
    return hashlib.shake_256(model.encode()).digest(3 << 20)


def kernel_of(ctx, model):
    """A kernel that has the model's driver: the cloud's have none for e1000e."""
    version = "6.1-686-pae" if model == "e1000e" else "6.12"
    if version != "6.12":
        ctx.need_i386(version)
    return version


def program(path):
    """What mkinitrd adds for @path, with what the dynamic linker loads for it; None: it is not here."""
    if not shutil.which(path):
        return None
    path = shutil.which(path)
    add = ["--add", f"bin/{os.path.basename(path)}={path}"]
    for line in subprocess.run(["ldd", path], capture_output=True, text=True,
                               check=True).stdout.splitlines():
        words = line.split()
        file = words[2] if "=>" in words else words[0]
        if file.startswith("/"):
            add += ["--add", f"{file.lstrip('/')}={os.path.realpath(file)}"]
    return add


def options(ctx, version, words, extra=(), add=()):
    """Boot @version with the modules of network cards into scripts/guest/nic."""
    folder = os.path.join(ctx.guest, version)
    busybox = os.path.join(folder, "busybox")
    initrd = ctx.path("initrd")
    guest = os.path.join(SCRIPTS, "guest")
    command = [os.path.join(SCRIPTS, "mkinitrd"), "--modules", os.path.join(folder, "modules"),
               "--init", os.path.join(guest, "init"), "--add",
               f"etc/mullion/nic={os.path.join(guest, 'nic')}", "--add",
               f"usr/share/udhcpc/default.script={os.path.join(guest, 'udhcpc')}",
               "--output", initrd, *add]
    for module in ("e1000e", "vmxnet3", *extra):
        command += ["--module", module]
    if os.path.exists(busybox):
        command += ["--busybox", busybox]
    subprocess.run(command, check=True)
    return ["--engine", ctx.engine, "--kernel", ctx.kernel(version), "--initrd", initrd,
            "--memory", "256M", "--append",
            f"console=ttyS0 quiet panic=-1 mullion.do=nic noisapnp {words}".strip()]


def facts(m):
    """The guest's "nic: key value" lines: each key's values in order."""
    found = {}
    for line in m.output.decode(errors="replace").splitlines():
        words = line.strip().split(" ", 2)
        if words[0] == "nic:" and len(words) > 1:
            found.setdefault(words[1], []).append(words[2] if len(words) > 2 else "")
    return found


def check(got, model, data):

    digest = hashlib.sha256(data).hexdigest()
    sent = hashlib.sha256(base64.encodebytes(data)).hexdigest()
    expect(got["driver"] == [DRIVERS[model]], f"driver {got['driver']}")
    expect(got["mac"] == [MAC], f"MAC {got['mac']}")
    expect(got["fetched"] == [digest], f"fetched {got['fetched']}")
    expect(got["sent"] == [sent], f"sent {got['sent']}")
    expect(got.get("again", [digest]) == [digest], f"after opening again: {got.get('again')}")
    expect("complaint" not in got, f"{got.get('complaint')}")


def fetch(ctx, model, cpus=2):
    ctx.need_user_net()
    data = content(model)
    version = kernel_of(ctx, model)
    with Server(data) as server:
        words = f"mullion.port={server.port} mullion.then=down"
        with Mullion(ctx.program, options(ctx, version, words) +
                     ["--cpus", str(cpus), "--net", f"user,model={model},mac={MAC}"]) as m:
            m.wait_for("nic: done", 90 * ctx.patience)
            m.expect_status(0, 30 * ctx.patience)
            check(facts(m), model, data)


def fetch_by_tap(ctx, model):
    """The same through a tap interface, where offloads are the kernel's: the machine, the tap and the
    server are in a network namespace of their own."""
    enter = ["unshare", "--user", "--map-root-user", "--net"]
    probe = subprocess.run([*enter, "ip", "tuntap", "add", "dev", TAP, "mode", "tap"],
                           capture_output=True, check=False)
    if probe.returncode:
        raise Skipped("no tap interface can be made in a namespace here")
    wrapper = ctx.path("mullion")
    here = os.path.dirname(os.path.abspath(__file__))
    with open(wrapper, "w", encoding="utf-8") as f:
        f.write(f"#!/bin/sh\nexec {' '.join(enter)} {here}/tap_net.py {model} {ctx.program} \"$@\"\n")
    os.chmod(wrapper, 0o755)
    words = f"mullion.network=off mullion.address={TAP_GUEST}/24 mullion.host={TAP_HOST} " \
            f"mullion.port={TAP_PORT}"
    ethtool = program("ethtool") if model == "virtio" else None
    version = kernel_of(ctx, model)
    if ethtool:
        version = "6.1"  # Debian 12's own: with 6.12 its ethtool -X is refused
        words += " mullion.rss=1"
    with Mullion(wrapper, options(ctx, version, words, add=ethtool or ()) +
                 ["--cpus", "2", "--net", f"tap={TAP},model={model},mac={MAC}"]) as m:
        m.wait_for("nic: done", 90 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        check(facts(m), model, content(model))
        if ethtool:
            check_steering(facts(m), content(model))


def check_steering(got, data):
    """Receive-side scaling: each of the two queues gets the file when the guest's table says so, the
    other one next to nothing (what is no IP packet)."""
    digest = hashlib.sha256(data).hexdigest()
    expect(got["steered"] == [digest] * 2, f"steered {got['steered']}")
    for line, weights in zip(got["weights"], ("1 0", "0 1")):
        words = line.split()
        expect(" ".join(words[:2]) == weights, line)
        bytes_of = [int(words[3]), int(words[4])]
        busy = weights.split().index("1")
        expect(bytes_of[busy] >= len(data) and bytes_of[1 - busy] < 4096, line)


for _model in DRIVERS:
    TESTS[f"net-user-{_model}"] = lambda ctx, m=_model: fetch(ctx, m)
    TESTS[f"net-tap-{_model}"] = lambda ctx, m=_model: fetch_by_tap(ctx, m)


def tftp_folder(ctx):
    """A folder with a kernel (vmlinuz) and an initrd that does scripts/guest/check."""
    folder = ctx.path("tftp")
    os.mkdir(folder)
    guest = os.path.join(SCRIPTS, "guest")
    subprocess.run([os.path.join(SCRIPTS, "mkinitrd"), "--init", os.path.join(guest, "init"),
                    "--add", f"etc/mullion/check={os.path.join(guest, 'check')}", "--output",
                    os.path.join(folder, "initrd")], check=True)
    shutil.copyfile(ctx.kernel(), os.path.join(folder, "vmlinuz"))
    return folder


def boot_by_network(ctx, model):
    """SeaBIOS, iPXE from the card's option ROM, a script, a kernel and an initrd over TFTP."""
    ctx.need_user_net()
    need(BIOS, "/usr/lib/ipxe/qemu/efi-virtio.rom")
    folder = tftp_folder(ctx)
    os.symlink(ctx.kernel(), os.path.join(folder, "away"))
    with open(os.path.join(folder, "boot.ipxe"), "w", encoding="ascii") as f:
        f.write("#!ipxe\nkernel away || echo refused\nkernel vmlinuz console=ttyS0 quiet panic=-1 "
                "mullion.do=check initrd=initrd\ninitrd initrd\nboot\n")
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "256M", "--firmware", "bios",
                               "--boot", "order=n", "--net",
                               f"user,model={model},tftp={folder},bootfile=boot.ipxe"]) as m:
        m.wait_for("Filename: boot.ipxe", 60 * ctx.patience)
        m.wait_for("refused", 60 * ctx.patience)
        m.wait_for("check: init reached", 120 * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)


def boot_uefi_by_network(ctx, model):
    """OVMF fetches GRUB over TFTP, GRUB a kernel and an initrd: OVMF's own driver and PXE for virtio,
    iPXE's from the option ROM for the other cards."""
    ctx.need_user_net()
    need(*UEFI, "/usr/lib/ipxe/qemu/efi-virtio.rom", "/usr/bin/grub-mkimage",
         "/usr/lib/grub/x86_64-efi/efinet.mod")
    folder, script = tftp_folder(ctx), ctx.path("grub.cfg")
    with open(script, "w", encoding="ascii") as f:
        f.write("echo started over the network\n"
                "linux (tftp)/vmlinuz console=ttyS0 quiet panic=-1 mullion.do=check\n"
                "initrd (tftp)/initrd\nboot\n")
    subprocess.run(["grub-mkimage", "-O", "x86_64-efi", "-o", os.path.join(folder, "grub.efi"), "-p",
                    "(tftp)/", "-c", script, "normal", "linux", "tftp", "efinet", "echo"], check=True)
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "256M", "--firmware", "uefi",
                               "--boot", "order=n", "--net",
                               f"user,model={model},tftp={folder},bootfile=grub.efi"]) as m:
        m.wait_for("started over the network", 180 * ctx.patience)
        m.wait_for("check: init reached", 180 * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)


for _model in DRIVERS:
    TESTS[f"net-boot-{_model}"] = lambda ctx, m=_model: boot_by_network(ctx, m)
for _model in ("virtio", "e1000e"):  # vmxnet3's ROM is the same iPXE
    TESTS[f"net-boot-uefi-{_model}"] = lambda ctx, m=_model: boot_uefi_by_network(ctx, m)


def unknown_model(ctx):
    """One clear line that lists what there is, and what stands in for older cards."""
    for part in ("model=rtl8139", "model=", "model=nosuch"):
        result = subprocess.run([ctx.program, "run", "--kernel", "k", "--net", f"user,{part}"],
                                capture_output=True, text=True, check=False)
        expect(result.returncode == 2 and "virtio" in result.stderr and
               "e1000e" in result.stderr and "vmxnet3" in result.stderr, f"{part}: {result}")
    result = subprocess.run([ctx.program, "run", "--kernel", "k", "--net",
                             "tap=t0,model=vmxnet3", "--print-config"], capture_output=True,
                            text=True, check=True)
    expect(json.loads(result.stdout)["networks"] ==
           [{"type": "tap", "interface": "t0", "model": "vmxnet3"}], result.stdout)


TESTS["net-unknown-model"] = unknown_model
