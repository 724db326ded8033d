"""Machines that start with firmware: SeaBIOS and OVMF from Debian's packages, and small disks whose boot
sector says what it found."""
import os
import shutil
import socket
import struct
import subprocess
import time

from guest import Mullion, Skipped, expect
from picture import read_png
from rfb_client import Client

TESTS = {}

BUSES = ("virtio", "sata", "nvme", "ide", "scsi", "pvscsi")
BIOS = "/usr/share/seabios/bios-256k.bin"
UEFI = ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd")
UEFI_4M = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")


def need(*paths):
    for path in paths:
        if not os.path.exists(path):
            raise Skipped(f"{path} is not installed: scripts/setup test")


def boot_sector(ctx, text, then):
    """A disk whose first sector prints @text (INT 10h) and goes on with the bytes @then."""
    print_text = bytes.fromhex(
        "31c08ed8"       # 7c00: xor ax, ax; mov ds, ax
        "be0000"         # 7c04: mov si, the text
        "ac84c07409"     # 7c07: lodsb; test al, al; jz 7c15h
        "b40ebb0700cd10" # 7c0c: mov ah, 0eh; mov bx, 7; int 10h
        "ebf2")          # 7c13: jmp 7c07h
    at = struct.pack("<H", 0x7c00 + len(print_text) + len(then))
    sector = print_text[:5] + at + print_text[7:] + then + text.encode() + b"\0"
    path = ctx.path("sector.img")
    with open(path, "wb") as f:
        f.write(sector.ljust(510, b"\0") + b"\x55\xaa")
        f.truncate(1 << 20)
    return path


# mov dx, 604h; mov ax, 3400h; out dx, ax; hlt: ACPI's soft off.
POWER_OFF = bytes.fromhex("ba0406b80034effa f4".replace(" ", ""))
# mov dx, 0cf9h; mov al, 6; out dx, al; hlt: a reset.
RESET = bytes.fromhex("baf90cb006eef4")


def bios_boots_a_disk(ctx, bus):
    need(BIOS)
    disk = boot_sector(ctx, "Hello from a boot sector\r\nand good bye\r\n", POWER_OFF)
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "64M", "--disk",
                               f"{disk},format=raw,bus={bus}"]) as m:
        m.wait_for("Hello from a boot sector", 60 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)


def bios_cdrom(ctx):
    """El Torito without emulation (its specification 1.0): the boot sector on a CD, and a torn CD."""
    need(BIOS)
    with open(boot_sector(ctx, "Hello from a CD\r\nand good bye\r\n", POWER_OFF), "rb") as f:
        code = f.read(2048)
    entry = bytes([1, 0, 0, 0]) + b"Mullion".ljust(24, b"\0") + b"\0\0\x55\xaa"
    check = -sum(struct.unpack("<16H", entry)) & 0xffff
    catalog = entry[:28] + struct.pack("<H", check) + entry[30:] + struct.pack(
        "<BBHBBHI", 0x88, 0, 0, 0, 0, 4, 20)
    sectors = {16: b"\1CD001\1", 17: b"\0CD001\1" + b"EL TORITO SPECIFICATION".ljust(64, b"\0") +
               struct.pack("<I", 19), 18: b"\xffCD001\1", 19: catalog, 20: code}
    image = ctx.path("cd.iso")
    with open(image, "wb") as f:
        for number, data in sectors.items():
            f.seek(2048 * number)
            f.write(data)
        f.truncate(2048 * 24)
    args = ["--engine", ctx.engine, "--memory", "64M", "--cdrom", image]
    with Mullion(ctx.program, args) as m:
        m.wait_for("Hello from a CD", 60 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
    os.truncate(image, 2048 * 20 + 100)
    with Mullion(ctx.program, args) as m:
        m.wait_for("Boot failed: (Could not read from CDROM|not a bootable disk)|No bootable device",
                   60 * ctx.patience)


def bios_shadow(ctx):
    """What the BIOS has write-protected stays as it is (the soft engine; kvm leaves it writable)."""
    need(BIOS)
    if ctx.engine != "soft":
        raise Skipped("only the soft engine protects shadow RAM")
    # es = f000h; bl = al = [es:0]; [es:0] = ~al; while ([es:0] != bl) ;
    write = bytes.fromhex("b800f0 8ec0 26a00000 88c3 f6d0 26a20000 26381e0000 75fe".replace(" ", ""))
    disk = boot_sector(ctx, "Writing\r\n\r\n", write + POWER_OFF)
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "64M", "--disk",
                               f"{disk},format=raw"]) as m:
        m.expect_status(0, 60 * ctx.patience)


# ds = 0, es = ffffh: [es:610h] is [600h] exactly while the gate is off. The gate by the BIOS (INT 15h,
# AX = 2400h to 2402h), then by the keyboard controller (D1h); where that is not so it goes to port cf9h.
A20_GATE = bytes.fromhex(
    "31c08ed8b8ffff8ec0c7060006341226c70610062143813e000634127545b800"
    "24cd15723e26813e100634127535b80224cd153c00752cb80124cd1526813e10"
    "062143751eb0d1e664b0dde66026813e10063412750db0dfe66426813e100621"
    "437407baf90cb006eef4")


def bios_a20(ctx):
    """What HIMEM.SYS and its like look for: the first 64 KiB above 1 MiB wrap while A20 is off."""
    need(BIOS)
    if ctx.engine != "soft":
        raise Skipped("processors of today have no A20 gate")
    disk = boot_sector(ctx, "Gate\r\n", A20_GATE + POWER_OFF)
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "64M", "--no-reboot", "--disk",
                               f"{disk},format=raw"]) as m:
        m.expect_status(0, 60 * ctx.patience)


def bios_reset(ctx):
    need(BIOS)
    disk = boot_sector(ctx, "Once\r\nand again\r\n", RESET)
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "64M", "--no-reboot",
                               "--cpus", "2", "--firmware", "bios", "--disk",
                               f"{disk},format=raw"]) as m:
        m.expect_status(3, 60 * ctx.patience)
        expect(m.output.count(b"Once") == 1, "the boot sector ran not once")


def screen_and_keys(ctx):
    """The firmware's screen as text and as a picture; a key reaches the boot sector."""
    need(BIOS)
    # mov ah, 0; int 16h (wait for a key), then off.
    disk = boot_sector(ctx, "Press a key\r\n", bytes.fromhex("b400cd16") + POWER_OFF)
    control = ctx.path("control")
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "64M", "--disk",
                               f"{disk},format=raw", "--control", control]) as m:
        m.wait_for("Press a key", 60 * ctx.patience)
        run = lambda *words: subprocess.run([ctx.program, *words], capture_output=True,
                                            timeout=60 * ctx.patience, check=False)
        text = run("screen", control)
        expect(b"Press a key" in text.stdout, f"screen: {text.stdout} {text.stderr}")
        shot = run("screenshot", control, "--output", ctx.path("shot.png"))
        expect(shot.returncode == 0, f"screenshot: {shot.stderr}")
        check_png(ctx.path("shot.png"), (720, 400))
        expect(run("sendkey", control, "nosuchkey").returncode == 1, "sendkey took nonsense")
        expect(run("sendkey", control, "ret").returncode == 0, "sendkey failed")
        m.expect_status(0, 30 * ctx.patience)


def vnc_garbage(path):
    """Clients that send nonsense, or nothing, or do not read."""
    kept = []
    for data in (b"GET / HTTP/1.0\r\n\r\n", b"RFB 003.008\n\2", b"RFB 003.008\n\1\1\x63",
                 b"RFB 003.008\n\1\1" + struct.pack(">BBH", 2, 0, 65535) + b"\xff" * 20000,
                 b"RFB 003.003\n\1" + struct.pack(">BBHHHH", 3, 0, 0, 0, 65535, 65535) * 2000,
                 b"RFB 003.008\n\1\1" + struct.pack(">BBHI", 6, 0, 0, 0xffffffff), b""):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(path)
        try:
            client.sendall(data)
        except OSError:
            pass  # dropped already
        kept.append(client)
        if len(kept) > 2:
            kept.pop(0).close()
    for client in kept:
        client.close()


def vnc_screen(ctx):
    """A VNC client sees the firmware's screen, the same in both encodings, and types."""
    need(BIOS)
    disk = boot_sector(ctx, "Press a key\r\n\r\n", bytes.fromhex("b400cd16") + POWER_OFF)
    path = ctx.path("vnc")
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "64M", "--name", "seen",
                               "--console", "none", "--disk", f"{disk},format=raw", "--display",
                               f"vnc=unix:{path}", "--control", ctx.path("control")]) as m:
        wait_for_text(ctx, ctx.path("control"), b"Press a key")
        vnc_garbage(path)
        client = Client(path)
        expect(client.name == "seen", client.name)
        expect((client.width, client.height) == (720, 400), f"{client.width} x {client.height}")
        raw = client.update()
        client.encodings(16, 0)
        zrle = client.update()
        expect(len(set(raw)) > 1, "an empty picture")
        # The cursor may blink in between; nothing else may differ.
        expect(sum(a != b for a, b in zip(raw, zrle)) <= 9 * 16 * 3, "the encodings disagree")
        client.key(0xff0d)
        m.expect_status(0, 30 * ctx.patience)
        expect(not os.path.exists(path), "the socket was left behind")


def wait_for_text(ctx, control, text):
    deadline = time.monotonic() + 60 * ctx.patience
    while True:
        run = subprocess.run([ctx.program, "screen", control], capture_output=True, check=False)
        if text in run.stdout:
            return
        expect(time.monotonic() < deadline, f"no {text} on the screen: {run}")
        time.sleep(0.1)


def vnc_foreign_client(ctx):
    """Somebody else's client (vncsnapshot) with a password, on a TCP port."""
    need(BIOS, "/usr/bin/vncsnapshot")
    disk = boot_sector(ctx, "Look at me\r\n\r\n", bytes.fromhex("f4ebfd"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(ctx.path("password"), "w", encoding="ascii") as f:
        f.write("secret1\n")
    for name, stored in (("right", "b4ab9e8c4e005607"), ("wrong", "0000000000000000")):
        with open(ctx.path(name), "wb") as f:
            f.write(bytes.fromhex(stored))
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "64M", "--disk",
                               f"{disk},format=raw", "--display",
                               f"vnc=127.0.0.1:{port},password-file={ctx.path('password')}",
                               "--control", ctx.path("control"), "--console", "none"]):
        wait_for_text(ctx, ctx.path("control"), b"Look at me")
        for name, want in (("wrong", False), ("right", True)):
            picture = ctx.path(f"{name}.jpg")
            run = subprocess.run(["vncsnapshot", "-passwd", ctx.path(name),
                                  f"127.0.0.1:{port - 5900}", picture], capture_output=True,
                                 timeout=60 * ctx.patience, check=False)
            expect(os.path.exists(picture) == want, f"{name} password: {run}")
        expect(os.path.getsize(picture) > 5000, "an empty picture")


def check_png(path, size):
    """A PNG of that size in which there is something to be seen."""
    width, height, pixels = read_png(path)
    expect((width, height) == size, f"size {width} x {height}")
    expect(len(set(pixels)) > 1, "an empty picture")


def uefi_shell(ctx):
    """UEFI finds nothing to boot, starts its shell, and has kept its variables."""
    need(*UEFI)
    vars_file = ctx.path("vars.fd")
    args = ["--engine", ctx.engine, "--memory", "128M", "--firmware", "uefi", "--nvram", vars_file]
    with Mullion(ctx.program, args) as m:
        m.wait_for("Shell|startup.nsh", 120 * ctx.patience)
    expect(os.path.getsize(vars_file) == os.path.getsize(UEFI[1]), "the store has another size")
    with open(vars_file, "rb") as a, open(UEFI[1], "rb") as b:
        expect(a.read() != b.read(), "no variable was written")
    with open(vars_file, "ab") as f:
        f.write(b"\0" * 4096)
    with Mullion(ctx.program, args) as m:
        m.expect_status(1, 30)
        expect(b"UEFI variables" in m.errors, m.errors)


def uefi_frame_buffer(ctx):
    """The shell listens on the serial console. What the guest writes to the frame buffer itself is
    seen: a viewer that asks only for what has changed gets what is typed."""
    need(*UEFI)
    path = ctx.path("vnc")
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "128M", "--firmware", "uefi",
                               "--control", ctx.path("control"), "--display", f"vnc=unix:{path}",
                               "--console", "stdio"], stdin=subprocess.PIPE) as m:
        m.wait_for("Shell>", 180 * ctx.patience)
        m.send(b"echo one^two\r")
        m.wait_for("onetwo", 60 * ctx.patience)
        client = Client(path)
        expect(len(set(client.update())) > 1, "an empty picture")
        for _ in range(3):
            client.key(ord("x"))
            expect(any(client.update(True)), "nothing has changed")


def uefi_by_file(ctx):
    """UEFI from a file of one's own, with the template beside it; a store of another size. The 4 MiB
    build begins in 32-bit code, which maps all the addresses that the processor may have."""
    need(*UEFI_4M)
    code, store = ctx.path("MY_CODE.fd"), ctx.path("store")
    shutil.copyfile(UEFI_4M[0], code)
    shutil.copyfile(UEFI_4M[1], ctx.path("MY_VARS.fd"))
    args = ["--engine", ctx.engine, "--memory", "128M", "--firmware", code, "--nvram", store]
    with open(store, "wb") as f:
        f.truncate(131072)  # the 2 MiB build's
    with Mullion(ctx.program, args) as m:
        m.expect_status(1, 30)
        expect(m.errors.count(b"\n") == 1 and b"this firmware's store has" in m.errors, m.errors)
    os.unlink(store)
    with Mullion(ctx.program, args) as m:
        m.wait_for("Shell|startup.nsh", 120 * ctx.patience)
    expect(os.path.getsize(store) == os.path.getsize(UEFI_4M[1]), "its size")


def bad_firmware(ctx):
    path = ctx.path("firmware.bin")
    for size, part in ((0, b"firmware"), (4096, b"64 KiB"), (65537, b"64 KiB"), (None, b"firmware")):
        if size is not None:
            with open(path, "wb") as f:
                f.truncate(size)
        elif os.path.exists(path):
            os.unlink(path)
        with Mullion(ctx.program, ["--engine", ctx.engine, "--firmware", path]) as m:
            m.expect_status(1, 30)
            expect(part in m.errors, f"{size}: {m.errors}")


for name in BUSES:
    TESTS[f"bios-boots-{name}-disk"] = lambda ctx, b=name: bios_boots_a_disk(ctx, b)
TESTS["bios-boots-cdrom"] = bios_cdrom
TESTS["bios-shadow-is-protected"] = bios_shadow
TESTS["bios-a20"] = bios_a20
TESTS["bios-reset"] = bios_reset
TESTS["screen-and-keys"] = screen_and_keys
TESTS["vnc-screen-and-keys"] = vnc_screen
TESTS["vnc-foreign-client"] = vnc_foreign_client
TESTS["uefi-shell-and-variables"] = uefi_shell
TESTS["uefi-frame-buffer"] = uefi_frame_buffer
TESTS["uefi-by-file"] = uefi_by_file
TESTS["firmware-refused"] = bad_firmware
