"""Screens and input: the display server with clients of somebody else's (libvncclient, by vnc_peer.c)
and with hostile ones."""
import os
import socket
import struct
import subprocess
import threading
import time

from firmware_tests import BIOS, boot_sector, need, wait_for_text
from guest import Mullion, Skipped, expect
from picture import read_png
from rfb_client import Client

TESTS = {}

# Print each key that is pressed: mov ah, 0; int 16h; mov ah, 0eh; mov bx, 7; int 10h; jmp.
ECHO = bytes.fromhex("b400cd16b40ebb0700cd10ebf3")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def peer(ctx, where, *actions, **env):
    """Run libvncclient against @where. @return (exit status, what it said, its picture)"""
    program = os.path.join(os.path.dirname(ctx.program), "tests", "boot", "vnc_peer")
    if not os.path.exists(program):
        raise Skipped("built without libvncclient: scripts/setup test")
    picture = ctx.path("peer.ppm")
    if os.path.exists(picture):
        os.unlink(picture)
    run = subprocess.run([program, where, picture, *actions], capture_output=True, check=False,
                         timeout=120 * ctx.patience, env=dict(os.environ, HOME=ctx.folder, **env))
    pixels = None
    if os.path.exists(picture):
        with open(picture, "rb") as f:
            pixels = f.read()
    return run.returncode, (run.stdout + run.stderr).decode(errors="replace"), pixels


def screenshot(ctx, control):
    """(width, height, RGB) of `mullion screenshot`."""
    path = ctx.path("shot.png")
    run = subprocess.run([ctx.program, "screenshot", control, "--output", path],
                         capture_output=True, check=False, timeout=60 * ctx.patience)
    expect(run.returncode == 0, f"screenshot: {run.stderr}")
    return read_png(path)


def machine(ctx, text, then, *options):
    disk = boot_sector(ctx, text, then)
    return Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "64M", "--console", "none",
                                 "--disk", f"{disk},format=raw", "--control",
                                 ctx.path("control"), *options])


def differing(a, b):
    """How many pixels of two PPM/RGB pictures differ."""
    return sum(a[i:i + 3] != b[i:i + 3] for i in range(0, len(a), 3))


def vnc_peer(ctx):
    """libvncclient sees what a screenshot shows in each encoding, and types."""
    need(BIOS)
    path = ctx.path("vnc")
    with machine(ctx, "Look at me\r\n\r\n", ECHO, "--display", f"vnc=unix:{path}"):
        wait_for_text(ctx, ctx.path("control"), b"Look at me")
        width, height, want = screenshot(ctx, ctx.path("control"))
        for encoding in ("tight", "zrle", "raw"):
            status, said, seen = peer(ctx, path, VNC_ENCODINGS=encoding)
            expect(status == 0 and f"{width} x {height}" in said, f"{encoding}: {said}")
            head = f"P6\n{width} {height}\n255\n".encode()
            expect(seen.startswith(head), f"{encoding}: {seen[:20]}")
            # The cursor may blink in between.
            expect(differing(seen[len(head):], want) <= 9 * 16, f"{encoding}: another picture")
        status, said, _ = peer(ctx, path, "text=Hello_", "wait=300")
        expect(status == 0, said)
        wait_for_text(ctx, ctx.path("control"), b"Hello_")
        for text in ("By text: 1+1=", "2? @{[~|\\]}", "Ab" * 6): # a BIOS keeps 15 keys
            run = subprocess.run([ctx.program, "sendkey", ctx.path("control"), "--text", text],
                                 capture_output=True, check=False, timeout=60 * ctx.patience)
            expect(run.returncode == 0, f"sendkey --text: {run.stderr}")
            wait_for_text(ctx, ctx.path("control"), text.encode())
        for words in (["--text", "\u20ac"], ["--text", "a", "--keymap", "klingon"]):
            run = subprocess.run([ctx.program, "sendkey", ctx.path("control"), *words],
                                 capture_output=True, check=False)
            expect(run.returncode == 1 and run.stderr, f"{words}: {run}")


def make_certificates(ctx):
    """A folder as --display tls-certificates= takes it, signed by itself."""
    folder = ctx.path("certificates")
    os.mkdir(folder)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2", "-keyout",
                    os.path.join(folder, "server-key.pem"), "-out",
                    os.path.join(folder, "server-cert.pem")], check=True, capture_output=True)
    return folder


def vnc_tls(ctx):
    """TLS with and without a certificate, passwords short and long, right and wrong; and nobody
    without TLS."""
    need(BIOS, "/usr/bin/openssl", "/usr/bin/vncsnapshot")
    folder = make_certificates(ctx)
    certificate = os.path.join(folder, "server-cert.pem")
    for tls, password in (("tls=anonymous", "short"),
                          (f"tls-certificates={folder}", "a password longer than eight")):
        with open(ctx.path("password"), "w", encoding="ascii") as f:
            f.write(password + "\n")
        port = free_port()
        where = f"vnc=127.0.0.1:{port},password-file={ctx.path('password')},{tls}"
        with machine(ctx, "By TLS\r\n\r\n", ECHO, "--display", where):
            wait_for_text(ctx, ctx.path("control"), b"By TLS")
            status, said, seen = peer(ctx, f"localhost:{port}", VNC_PASSWORD=password,
                                      VNC_CA=certificate)
            expect(status == 0 and "TLS" in said.splitlines()[0] and seen, f"{tls}: {said}")
            status, said, seen = peer(ctx, f"localhost:{port}", VNC_PASSWORD=password + "r",
                                      VNC_CA=certificate)
            expect(status != 0 and not seen, f"{tls}: let in with a wrong password: {said}")
            run = subprocess.run(["vncsnapshot", f"127.0.0.1:{port - 5900}", ctx.path("no.jpg")],
                                 stdin=subprocess.DEVNULL, capture_output=True, check=False,
                                 timeout=60 * ctx.patience)
            expect(not os.path.exists(ctx.path("no.jpg")), f"let in without TLS: {run}")
            with socket.create_connection(("127.0.0.1", port)) as s: # half a handshake, then noise
                s.sendall(b"RFB 003.008\n\x13\0\2\0\0\1\2" + os.urandom(2000))
            wait_for_text(ctx, ctx.path("control"), b"By TLS")


def vnc_refused(ctx):
    """What would send a password in the clear, and other mistakes, before anything starts."""
    need(BIOS)
    with open(ctx.path("password"), "w", encoding="ascii") as f:
        f.write("secret\n")
    key = f"password-file={ctx.path('password')}"
    for display, part in ((f"vnc=0.0.0.0:0,{key}", b"needs TLS"), (f"vnc=[::]:0,{key}", b"needs TLS"),
                          ("vnc=127.0.0.1:0", b"password"),
                          ("vnc=0.0.0.0:0,tls=anonymous", b"password"),
                          (f"vnc=host.example:0,{key}", b"ADDRESS:PORT"),
                          (f"vnc=127.0.0.1:70000,{key}", b"ADDRESS:PORT"),
                          (f"vnc=127.0.0.1:0,{key},tls-certificates=/nonexistent", b"server-cert"),
                          (f"vnc=unix:{ctx.path('s')},keymap=klingon", b"us-intl")):
        with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "64M", "--firmware", "bios",
                                   "--display", display]) as m:
            m.expect_status(1, 30 * ctx.patience)
            expect(part in m.errors, f"{display}: {m.errors}")


def unread(path, count):
    """Clients that ask for everything and never read."""
    clients = []
    for _ in range(count):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(path)
        try:
            client.sendall(b"RFB 003.008\n\1\1" + struct.pack(">BBHi", 2, 0, 1, 0) +
                           struct.pack(">BBHHHH", 3, 0, 0, 0, 65535, 65535) * 100 +
                           struct.pack(">BBHHHH", 150, 1, 0, 0, 65535, 65535))
        except OSError:
            pass
        clients.append(client)
    return clients


def vnc_hostile(ctx):
    """Clients that say nothing and clients that never read, more than there is room for: others are
    served, and the machine goes on."""
    need(BIOS)
    path = ctx.path("vnc")
    with machine(ctx, "Undisturbed\r\n\r\n", ECHO, "--display", f"vnc=unix:{path}") as m:
        wait_for_text(ctx, ctx.path("control"), b"Undisturbed")
        idle = unread(path, 3)
        for _ in range(30):
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            idle.append(client)
        for word in ("one", "two"):
            status, said, _ = peer(ctx, path, f"text={word}", "wait=300")
            expect(status == 0, said)
            wait_for_text(ctx, ctx.path("control"), word.encode())
        with open(f"/proc/{m.process.pid}/status", encoding="ascii") as f:
            expect("VmRSS" in f.read(), "the machine is gone")
        for client in idle:
            client.close()
        time.sleep(0.1)
        status, said, _ = peer(ctx, path, "text=three", "wait=300")
        expect(status == 0, said)
        wait_for_text(ctx, ctx.path("control"), b"onetwothree")


def linux(ctx, words, *options):
    """Debian's kernel with drivers for screens and USB, with a shell on its serial console."""
    if not os.path.exists(ctx.kernel("6.1-amd64")):
        raise Skipped("no kernel 6.1-amd64: see scripts/guest-assets")
    return Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "256M", "--kernel",
                                 ctx.kernel("6.1-amd64"), "--initrd", ctx.initrd("6.1-amd64"),
                                 "--append", f"panic=-1 mullion.do=shell {words}", "--control",
                                 ctx.path("control"), *options], stdin=subprocess.PIPE)


def ask(m, ctx, command, pattern):
    """Run a command in the guest's shell and wait for @pattern in what it says."""
    start = len(m.output)
    m.send(command.encode() + b"\n")
    return m.wait_for(pattern, 60 * ctx.patience, start)


def virtio_gpu(ctx):
    """Linux's virtio_gpu driver: its console on the screen, another size, and the same picture for a
    VNC client and a screenshot."""
    path = ctx.path("vnc")
    with linux(ctx, "console=tty0 console=ttyS0 quiet", "--display",
               f"vnc=unix:{path},gpu=virtio") as m:
        m.wait_for("Welcome to a guest", 120 * ctx.patience)
        ask(m, ctx, "cat /sys/class/graphics/fb0/name", "virtio_gpudrmfb")
        ask(m, ctx, "cat /sys/class/drm/card0-Virtual-1/modes | head -n 1", r"[^0-9]1280x800\r?\n")
        # The text cursor stands still, and a line of blocks is on the screen.
        ask(m, ctx, r"printf '\033[?25l\033[H\033[2J\033[7m%200s\n' x > /dev/tty0; echo do''ne",
            "done")
        # It is drawn when the guest comes to it.
        deadline = time.monotonic() + 60 * ctx.patience
        while True:
            width, height, want = screenshot(ctx, ctx.path("control"))
            lit = sum(want[i:i + 3] != b"\0\0\0" for i in range(0, len(want), 3))
            status, said, seen = peer(ctx, path)
            expect(status == 0, said)
            same = seen.split(b"\n255\n", 1)[1] == want
            if (width, height) == (1280, 800) and lit > 150 * 8 * 16 and same:
                break
            expect(time.monotonic() < deadline,
                   f"{width} x {height}, {lit} pixels lit, the same by VNC: {same}")
        status, said, _ = peer(ctx, path, "size=1024x768", "wait=500")
        expect(status == 0, said)
        ask(m, ctx, "for i in 1 2 3 4 5 6 7 8 9; do head -n 1 /sys/class/drm/card0-Virtual-1/modes | "
            "grep 1024x && break; sleep 1; done", r"[^0-9]1024x768\r?\n")
        run = subprocess.run([ctx.program, "screen", ctx.path("control")], capture_output=True,
                             check=False)
        expect(run.returncode == 1 and b"screenshot" in run.stderr, f"screen: {run}")
        m.send(b"poweroff -f\n")
        m.expect_status(0, 60 * ctx.patience)


def event(kind, code, value):
    """A struct input_event of Linux without its time, in hexadecimal."""
    return struct.pack("<HHi", kind, code, value).hex()


def repeat_until(m, ctx, patterns, act):
    """Do something until the guest has said all of the patterns: whoever listens may come late."""
    start, deadline = len(m.output), time.monotonic() + 60 * ctx.patience
    while True:
        act()
        while m.pump(0.5):
            pass
        missing = [p for p in patterns if p.encode() not in m.output[start:]]
        if not missing:
            return
        expect(time.monotonic() < deadline, f"{missing} did not come: {m.output[-2000:]}")


def input_linux(ctx):
    """Linux's usbhid, psmouse and atkbd: what a VNC client does arrives at the place it means."""
    path = ctx.path("vnc")
    with linux(ctx, "console=ttyS0 quiet", "--display", f"vnc=unix:{path},gpu=virtio", "--input",
               "tablet,keyboard") as m:
        m.wait_for("Welcome to a guest", 120 * ctx.patience)
        for name in ("Tablet", "Keyboard", "ImPS/2"):
            ask(m, ctx, "for i in 1 2 3 4 5 6 7 8 9; do "
                f"grep -l {name} /sys/class/input/event*/device/name && break; sleep 1; done",
                r"input/event\d+/device/name")
        ask(m, ctx, r"""see() { hexdump -v -e '24/1 "%02x" "\n"' /dev/input/$(grep -l """
            r"""$1 /sys/class/input/event*/device/name | cut -d/ -f5); }; echo de''fined""",
            "defined")
        # Nobody listens to the tablet (acpid may, which opens what is there when it starts): the mouse
        # moves, and its wheel turns.
        ask(m, ctx, "killall acpid; echo kil''led", "killed")
        ask(m, ctx, "see ImPS/2 & echo re''ady", "ready")

        def client(*actions):
            status, said, _ = peer(ctx, path, *actions)
            expect(status == 0, said)

        repeat_until(m, ctx, [event(2, 0, 5), event(2, 1, 10), event(2, 8, 1)],
                     lambda: client("pointer=100,100,0", "pointer=105,110,0", "pointer=105,110,8",
                                    "pointer=105,110,0"))
        ask(m, ctx, "kill %1; see Tablet & see Keyboard & echo rea''dy", "ready")
        repeat_until(m, ctx,
                     [event(3, 0, (100 * 32767 + 639) // 1279),
                      event(3, 1, (200 * 32767 + 399) // 799), event(3, 0, 32767),
                      event(3, 1, 32767), event(1, 0x110, 1), event(1, 0x110, 0),
                      event(2, 8, -1), event(1, 30, 1), event(1, 30, 0)],
                     lambda: client("pointer=100,200,0", "pointer=1279,799,1",
                                    "pointer=1279,799,16", "key=61"))
        m.send(b"kill %2 %3; poweroff -f\n")
        m.expect_status(0, 60 * ctx.patience)


class Agent:
    """spice-vdagent's side of the clipboard (spice-protocol, vd_agent.h), on a socket."""
    CLIPBOARD, CAPABILITIES, GRAB, REQUEST = 4, 6, 7, 8

    def __init__(self, path, patience):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60 * patience)
        self.socket.connect(path)
        self.have = b""

    def read(self, count):
        while len(self.have) < count:
            part = self.socket.recv(4096)
            expect(part, "the channel was closed")
            self.have += part
        data, self.have = self.have[:count], self.have[count:]
        return data

    def receive(self):
        """@return (type, body) of the next message"""
        data, want = b"", 20
        while len(data) < want:
            _, size = struct.unpack("<II", self.read(8))
            data += self.read(size)
            if len(data) >= 20:
                want = 20 + struct.unpack("<I", data[16:20])[0]
        return struct.unpack("<I", data[4:8])[0], data[20:]

    def expect(self, kind):
        got, body = self.receive()
        expect(got == kind, f"message {got} instead of {kind}: {body}")
        return body

    def send(self, kind, body):
        data = struct.pack("<IIQI", 1, kind, 0, len(body)) + body
        self.socket.sendall(struct.pack("<II", 1, len(data)) + data)


def clipboard(ctx):
    """What a VNC client copies arrives at an agent in the guest and the other way round. The guest
    carries the agent's channel to a serial port, where the test is the agent."""
    path, serial = ctx.path("vnc"), ctx.path("serial")
    with linux(ctx, "console=ttyS0 quiet", "--display", f"vnc=unix:{path},clipboard=on",
               "--console", "stdio", "--console", f"unix={serial}") as m:
        m.wait_for("Welcome to a guest", 120 * ctx.patience)
        ask(m, ctx, "n=$(grep -l com.redhat.spice.0 /sys/class/virtio-ports/*/name | cut -d/ -f5); "
            "stty -F /dev/ttyS1 raw -echo; exec 3<>/dev/$n; echo re''ady", "ready")
        agent = Agent(serial, ctx.patience)
        ask(m, ctx, "cat <&3 > /dev/ttyS1 & cat /dev/ttyS1 >&3 & echo rea''dy", "ready")
        agent.expect(Agent.CAPABILITIES)
        agent.send(Agent.CAPABILITIES, struct.pack("<II", 1, 1 << 5))
        agent.expect(Agent.CAPABILITIES)
        status, said, _ = peer(ctx, path, "cut=from the viewer", "wait=200")
        expect(status == 0, said)
        expect(agent.expect(Agent.GRAB) == b"\1\0\0\0", "no text was offered")
        agent.send(Agent.REQUEST, struct.pack("<I", 1))
        expect(agent.expect(Agent.CLIPBOARD)[4:] == b"from the viewer", "another text")
        viewer = threading.Thread(target=lambda: results.append(peer(ctx, path, "await-cut")))
        results = []
        viewer.start()
        while viewer.is_alive(): # it may not look yet
            agent.send(Agent.GRAB, struct.pack("<I", 1))
            agent.expect(Agent.REQUEST)
            agent.send(Agent.CLIPBOARD, struct.pack("<I", 1) + b"from the guest")
            viewer.join(0.5)
        expect("cut: from the guest" in results[0][1], f"the viewer got {results}")
        agent.socket.close()
        m.send(b"poweroff -f\n")
        m.expect_status(0, 60 * ctx.patience)


def vnc_several(ctx):
    """Clients that share see the machine together; one that wants it alone has it alone."""
    need(BIOS)
    path = ctx.path("vnc")
    with machine(ctx, "Together\r\n\r\n", ECHO, "--display", f"vnc=unix:{path}"):
        wait_for_text(ctx, ctx.path("control"), b"Together")
        clients = [Client(path) for _ in range(3)]
        pictures = [client.update() for client in clients]
        expect(max(differing(pictures[0], p) for p in pictures) <= 9 * 16, "other pictures")
        clients[1].key(ord("x"))
        wait_for_text(ctx, ctx.path("control"), b"x")
        alone = Client(path, shared=False)
        alone.update()
        for client in clients:
            try:
                client.update()
                expect(False, "a client has stayed")
            except (EOFError, OSError):
                pass
        alone.update()


TESTS["vnc-several-clients"] = vnc_several
TESTS["clipboard-channel"] = clipboard
TESTS["input-linux"] = input_linux
TESTS["virtio-gpu-linux"] = virtio_gpu
TESTS["vnc-libvncclient"] = vnc_peer
TESTS["vnc-tls"] = vnc_tls
TESTS["vnc-refused"] = vnc_refused
TESTS["vnc-hostile-clients"] = vnc_hostile
