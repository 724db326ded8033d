"""Tests of what lets a guest and its host work together: shared folders, the memory balloon. The guests are unmodified
Debian kernels with their own drivers; tests/boot/interfaces is what they run."""
import hashlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time

from guest import Failed, Mullion, Skipped, expect, expect_gone
from guest_tests import Control

TESTS = {}


def test(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


def boot(ctx, part, version="6.12", modules=(), words="", files=()):
    """The options that boot @version with @modules into a part of tests/boot/interfaces."""
    here = os.path.dirname(os.path.abspath(__file__))
    scripts = os.path.join(here, "..", "..", "scripts")
    initrd = ctx.path("initrd")
    busybox = os.path.join(ctx.guest, version, "busybox")
    more = [w for m in modules for w in ("--module", m)]
    subprocess.run([os.path.join(scripts, "mkinitrd"), "--modules",
                    os.path.join(ctx.guest, version, "modules"), "--busybox",
                    busybox if os.path.exists(busybox) else "/bin/busybox", "--init",
                    os.path.join(scripts, "guest", "init"), "--add",
                    f"etc/mullion/interfaces={os.path.join(here, 'interfaces')}", *more,
                    *(w for f in files for w in ("--add", f)),
                    "--output", initrd], check=True)
    return ["--engine", ctx.engine, "--kernel", ctx.kernel(version), "--initrd", initrd,
            "--append", "console=ttyS0 quiet panic=-1 noisapnp mullion.do=interfaces "
            f"mullion.part={part} {words}".strip()]


# ---- Shared folders ----

def make_share(ctx):
    """A folder with a file of the host's and every way out that we know."""
    folder = ctx.path("share")
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    with open(ctx.path("secret"), "w", encoding="ascii") as f:
        f.write("SECRET")
    data = hashlib.shake_256(b"share").digest(3 << 20)
    with open(os.path.join(folder, "from-host"), "wb") as f:
        f.write(data)
    os.symlink(ctx.path("secret"), os.path.join(folder, "escape"))
    os.symlink("..", os.path.join(folder, "escape-up"))
    os.mkfifo(os.path.join(folder, "pipe"))
    return folder, data


def check_share(ctx, m, folder, data, driver):
    m.wait_for("check: done", 90 * ctx.patience)
    m.expect_status(0, 30 * ctx.patience)
    got = m.checks()
    want = {"mount": driver, "read": hashlib.sha256(data).hexdigest(), "log": "appended twice",
            "moved": "c", "renamed": "appended twice", "hard": "2", "mode": "640",
            "time": "981173106", "size": "100", "many": "300", "free": "1", "unlinked": "",
            "outside": "", "unmounted": "", "longname": ""}
    for key, value in want.items():
        expect(got.get(key) == value, f"{key}: {got.get(key)!r} instead of {value!r}{m.tail()}")
    expect(got["link"].startswith("from-host "), f"link: {got['link']}")
    for key in ("device", "setuid", "toolong"):
        expect(key not in got, f"{key}: {got.get(key)}")
    expect(set(got["removed"].split()) == {"escape", "escape-up", "from-guest", "from-host",
                                           "link", "moved", "pipe"}, f"removed: {got['removed']}")
    # What the host finds.
    with open(os.path.join(folder, "moved", "renamed"), encoding="ascii") as f:
        expect(f.read() == "appended twice", "what was appended is not in the file")
    expect(os.readlink(os.path.join(folder, "link")) == "from-host", "no symbolic link")
    expect(len(os.listdir(os.path.join(folder, "moved", "c"))) == 300, "files are missing")
    status = os.stat(os.path.join(folder, "from-guest"))
    expect(status.st_size == 100 and status.st_mode & 0o7777 == 0o640, f"from-guest: {status}")
    expect(b"mullion:" not in m.errors, f"said on stderr: {m.errors!r}")
    return got


@test
def share_9p(ctx):
    version = "6.1-686-pae"  # Debian's cloud kernels have no 9P
    ctx.need_i386(version)
    folder, data = make_share(ctx)
    with Mullion(ctx.program, boot(ctx, "9p", version, ["9p", "9pnet_virtio"]) +
                 ["--share", f"{folder},tag=work,type=9p", "--cpus", "2"]) as m:
        check_share(ctx, m, folder, data, "9p")


@test
def share_virtiofs(ctx):
    folder, data = make_share(ctx)
    locked = ctx.path("locked")
    os.mkdir(locked)
    with open(os.path.join(locked, "file"), "w", encoding="ascii") as f:
        f.write("read me")
    with Mullion(ctx.program, boot(ctx, "virtiofs", modules=["virtio_balloon"]) +
                 ["--share", f"{folder},tag=work", "--share", f"{locked},tag=locked,ro",
                  "--cpus", "2", "--packed-rings", "on", "--balloon", "on"]) as m:
        m.wait_for("check: part", 60 * ctx.patience)
        children = m.descendants()
        got = check_share(ctx, m, folder, data, "virtiofs")
        rings = [v for k, v in got.items() if k.startswith("ring-")]
        expect(len(rings) >= 4 and all(r[0] == "1" for r in rings), f"not packed: {rings}")
        expect(got["ro-read"] == "read me" and "ro" not in got, f"read-only: {got}")
        expect(len(children) >= 3, f"no process for each folder: {children}")


# ---- Packed rings ----

@test
def packed_rings(ctx):
    """Disk, network, console and entropy over packed virtqueues."""
    disk, digest = ctx.make_disk("disk.img", 8)
    options = ctx.boot("check") + ["--memory", "256M", "--cpus", "2", "--disk",
                                   f"{disk},format=raw", "--packed-rings", "on"]
    if ctx.user_net():
        options += ["--net", "user"]
    with Mullion(ctx.program, options) as m:
        m.wait_for("check: done", 60 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        got = m.checks()
        expect(got["disk"] == f"{8 << 20} {digest}", f"disk: {got['disk']}")
        with open(disk, "rb") as f:
            f.seek(1 << 20)
            written = hashlib.sha256(f.read(1 << 20)).hexdigest()
        expect(got["wrote"] == written, "what the guest wrote is not in the file")
        expect(not ctx.user_net() or got["address"], "no address from passt")
        expect(not m.complaints(), "; ".join(m.complaints()))


# ---- Memory ----

def resident(m):
    """MiB of the machine's process that are in the host's memory."""
    with open(f"/proc/{m.vmm_pid()}/status", encoding="ascii") as f:
        sizes = dict(line.split(":", 1) for line in f)
    return int(sizes["VmRSS"].split()[0]) >> 10


def wait_until(ctx, what, condition, seconds=60):
    deadline = time.monotonic() + seconds * ctx.patience
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def ask(ctx, m, line, answer):
    at = len(m.output)
    m.send(line.encode() + b"\n")
    return m.wait_for(f"check: {answer}", 60 * ctx.patience, at)


@test
def balloon(ctx):
    """Free pages go back to the host by themselves; an inflated balloon takes more."""
    path = ctx.path("control")
    options = boot(ctx, "balloon", modules=["virtio_balloon"])
    with Mullion(ctx.program, options + ["--memory", "512M", "--balloon", "on", "--control", path],
                 stdin=subprocess.PIPE) as m:
        m.wait_for("check: part", 60 * ctx.patience)
        c = Control(path, ctx.patience)
        before = resident(m)
        ask(ctx, m, "fill", "filled")
        full = resident(m)
        expect(full > before + 150, f"{full} MiB resident with 200 MiB filled, {before} before")
        ask(ctx, m, "drop", "dropped")
        wait_until(ctx, f"free page reporting gives back 100 of {full} MiB",
                   lambda: resident(m) < full - 100)
        ctx.note(f"resident: {before} MiB, {full} filled, {resident(m)} reported free")
        stats = c.call("balloon.stats")["result"]
        expect(stats["driver"] and stats["reported"] > 100 << 20, f"stats {stats}")
        ask(ctx, m, "fill", "filled")
        full = resident(m)
        ask(ctx, m, "drop", "dropped")
        expect("error" in c.call("balloon.set", params={"memory": 1 << 40}), "too much memory")
        shown = subprocess.run([ctx.program, "balloon", path, "192M"], capture_output=True,
                               text=True, check=False)
        expect(shown.returncode == 0, shown.stderr)
        wait_until(ctx, "the balloon has 320 MiB", lambda: c.call("balloon.stats")["result"][
            "actual"] == 192 << 20)
        small = resident(m)
        ctx.note(f"resident: {full} MiB filled, {small} inflated")
        expect(small < full - 100, f"{small} MiB resident with the balloon inflated, {full} before")
        shown = subprocess.run([ctx.program, "balloon", path], capture_output=True, text=True,
                               check=False)
        expect("actual: 192.0 MiB" in shown.stdout and "guest free: " in shown.stdout,
               shown.stdout + shown.stderr)
        free = int(ask(ctx, m, "free", r"free (\d+)\s")[1])
        c.call("balloon.set", params={"memory": 512 << 20})
        wait_until(ctx, "the balloon is empty", lambda: c.call("balloon.stats")["result"][
            "actual"] == 512 << 20)
        more = int(ask(ctx, m, "free", r"free (\d+)\s")[1])
        expect(more > free + (200 << 10), f"{free} KiB free with the balloon, {more} without")
        # The guest names its free pages; it has the same memory after that.
        shown = subprocess.run([ctx.program, "balloon", path, "--trim"], capture_output=True,
                               text=True, timeout=60 * ctx.patience, check=False)
        given = re.fullmatch(r"given back: (\d+)\.\d MiB\n", shown.stdout)
        expect(given and int(given[1]) > 100, f"trim: {shown.stdout}{shown.stderr}")
        # A guest that runs out of memory takes it from the balloon.
        c.call("balloon.set", params={"memory": 128 << 20})
        wait_until(ctx, "the balloon has 384 MiB", lambda: c.call("balloon.stats")["result"][
            "actual"] <= 160 << 20)
        ask(ctx, m, "fill", "filled")
        actual = c.call("balloon.stats")["result"]["actual"]
        ctx.note(f"deflated on OOM: {actual >> 20} MiB")
        expect(actual > 200 << 20, f"{actual >> 20} MiB after filling 200")
        m.send(b"end\n")
        m.expect_status(0, 30 * ctx.patience)
        expect(m.checks()["tainted"] == "0", f"tainted{m.tail()}")


# ---- Virtual sockets ----

PEERS = 40


def echo(server):
    peer, _ = server.accept()
    with peer:
        while data := peer.recv(65536):
            peer.sendall(data)


def talk(path, port, data):
    """Connect to a port of the guest, send while reading, and end. @return the first line, the rest"""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(300)
        s.connect(path)
        s.sendall(f"CONNECT {port}\n".encode())
        got = b""
        while not got.endswith(b"\n"):
            byte = s.recv(1)
            if not byte:
                return got, b""
            got += byte

        def write():
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        rest = b""
        while piece := s.recv(65536):
            rest += piece
        writer.join()
        return got, rest


@test
def vsock(ctx):
    """The guest's AF_VSOCK driver both ways: a megabyte to a socket of the host and back, a port nobody listens
    on, then many at once that the host begins."""
    program, path = ctx.path("vsock-peer"), ctx.path("v")
    here = os.path.dirname(os.path.abspath(__file__))
    subprocess.run(["gcc", "-static", "-O2", "-o", program, os.path.join(here, "vsock_peer.c")],
                   check=True)
    options = boot(ctx, "vsock", modules=["vmw_vsock_virtio_transport"],
                   words=f"mullion.then={PEERS}", files=[f"bin/vsock-peer={program}"])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}_4321")
        server.listen(1)
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        with Mullion(ctx.program, options + ["--vsock", f"cid=7,path={path}"]) as m:
            m.wait_for("check: listening", 90 * ctx.patience)
            children = m.descendants()
            expect(talk(path, 99999, b"") == (b"", b""), "a port without a listener answers")
            expect(talk(path, "nonsense", b"") == (b"", b""), "nonsense is answered")
            data = [hashlib.shake_256(bytes([i])).digest(1 << 19 if not i else 20000 + i)
                    for i in range(PEERS)]
            answers = [None] * PEERS

            def one(i):
                answers[i] = talk(path, 1234, data[i])
            threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(PEERS)]
            for t in threads:
                t.start()
            m.wait_for("check: inward", 120 * ctx.patience)
            for t in threads:
                t.join(60 * ctx.patience)
            for i, answer in enumerate(answers):
                expect(answer and answer[0].startswith(b"OK "), f"greeting {i}: {answer}")
                expect(answer[1] == bytes(b ^ 0xff for b in data[i]),
                       f"connection {i}: {len(answer[1])} of {len(data[i])} bytes came back")
            m.wait_for("check: done", 30 * ctx.patience)
            m.expect_status(0, 30 * ctx.patience)
            got = m.checks()
            expect(got["outward"] == f"{1 << 20} 1", f"outward: {got['outward']}{m.tail()}")
            expect(got["refused"] == "1" and got["inward"] == "0" and got["tainted"] == "0",
                   f"{got}{m.tail()}")
    expect_gone(children)
    expect(not os.path.exists(path), "the socket was left behind")


# ---- Watchdog, generation ID ----

def hungry(ctx, action, more=()):
    return Mullion(ctx.program, boot(ctx, "watchdog", modules=["i6300esb"]) +
                   ["--watchdog", action, *more])


@test
def watchdog_resets(ctx):
    with hungry(ctx, "reset") as m:
        m.wait_for("check: watchdog .* 0", 60 * ctx.patience)
        m.wait_for("check: watchdog .* 32", 90 * ctx.patience)  # WDIOF_CARDRESET
        m.wait_for("check: done", 30 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        expect(b"it has not fed its watchdog; action: reset" in m.errors, f"stderr: {m.errors!r}")
        expect(m.checks()["vmgenid"].startswith("MULL0001:00"), "no driver for the generation ID")


@test
def watchdog_pauses(ctx):
    path = ctx.path("control")
    with hungry(ctx, "pause", ["--control", path]) as m:
        m.wait_for("check: waiting", 60 * ctx.patience)
        c = Control(path, ctx.patience)
        wait_until(ctx, "the watchdog pauses the machine",
                   lambda: c.call("status")["result"]["state"] == "paused")
        c.call("quit")
        m.expect_status(0, 10 * ctx.patience)


@test
def watchdog_powers_off_and_interrupts(ctx):
    """The machine ends; or the guest's kernel gets an NMI for which it knows no reason, and goes on."""
    with hungry(ctx, "poweroff") as m:
        m.wait_for("check: waiting", 90 * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)
        expect(b"it has not fed its watchdog; action: poweroff" in m.errors, f"stderr: {m.errors!r}")
    with hungry(ctx, "nmi", ["--control", ctx.path("control"), "--cpus", "2"]) as m:
        m.wait_for("check: waiting", 90 * ctx.patience)
        m.wait_for(r"NMI received for unknown reason", 60 * ctx.patience)
        after = m.wait_for(r"check: second \d+", 60 * ctx.patience, len(m.output))
        expect(after, "the guest has stopped")
        Control(ctx.path("control"), ctx.patience).call("quit")
        m.expect_status(0, 30 * ctx.patience)


# ---- TPM ----

@test
def tpm(ctx):
    """The kernel's own driver reads registers, extends one and gets random numbers; the TPM's folder
    is there for the next machine."""
    if not shutil.which("swtpm"):
        raise Skipped("no swtpm")
    folder = ctx.path("tpm")
    with Mullion(ctx.program, boot(ctx, "tpm", words="mullion.then=extend") +
                 ["--tpm", folder]) as m:
        m.wait_for("check: part", 60 * ctx.patience)
        children = m.descendants()
        m.wait_for("check: done", 60 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        got = m.checks()
        expect(got["tpm"].startswith("2 "), f"TPM {got['tpm']}{m.tail()}")
        expect(got["pcr0"].split() == ["0" * 64, "F" * 64], f"PCR 0 and 17: {got['pcr0']}")
        random = [got["random1"], got["random2"]]
        # A header with success, 16 bytes behind their length.
        expect(all(r[12:24] == "000000000010" and len(r) == 56 for r in random) and
               random[0] != random[1], f"random numbers: {random}")
        want = hashlib.sha256(bytes(32) + b"0123456789abcdef0123456789abcdef").hexdigest()
        expect(got.get("extended", "").lower() == want, f"PCR 16: {got}")
        expect(m.complaints() == [], "; ".join(m.complaints()))
    expect_gone(children)
    expect("tpm2-00.permall" in os.listdir(folder), f"state: {os.listdir(folder)}")
