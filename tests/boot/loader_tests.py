"""Boot protocols and boot loaders other than Linux's own: multiboot, isolinux; and (LONG) what else
people boot from a CD or by UEFI: memtest86+, Debian's installer."""
import os
import re
import shutil
import subprocess
import time

from guest import Mullion, Skipped, expect

TESTS = {}
LONG = {}


def test(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


@test
def multiboot_xen(ctx):
    """Debian's Xen by multiboot 2, with a Debian kernel and its initrd as modules."""
    xen = asset(ctx, "xen", "xen")
    options = ["--engine", ctx.engine, "--memory", "768M", "--kernel", xen, "--append",
               "console=com1 com1=115200,8n1 dom0_mem=512M", "--module",
               f"{ctx.kernel('6.1-amd64')},args=console=hvc0 quiet panic=-1 mullion.do=check",
               "--module", ctx.initrd("6.1-amd64"), "--no-reboot"]
    with Mullion(ctx.program, options) as m:
        m.wait_for(r"Xen version 4\.", 60 * ctx.patience)
        m.wait_for("check: done", 240 * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)
        text = m.output.decode(errors="replace")
        expect(re.search(r"Command line: console=com1 com1=115200,8n1 dom0_mem=512M", text),
               f"Xen's command line{m.tail()}")
        got = m.checks()
        expect(got["tainted"] == "0" and 300 << 10 < int(got["memory"]) < 512 << 10,
               f"{got}{m.tail()}")


@test
def multiboot_refused(ctx):
    """Modules for a kernel that takes none, and files that are not there."""
    for words, what in (
            (["--module", ctx.initrd()], "takes no modules"),
            (["--module", ctx.path("none")], "takes no modules"),
            (["--module", ""], "give FILE")):
        r = subprocess.run([ctx.program, "run", "--kernel", ctx.kernel(), *words],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, check=False, timeout=60)
        expect(r.returncode in (1, 2) and what in r.stderr, f"{words}: {r.returncode} {r.stderr}")


@test
def test_devices(ctx):
    """A bare-metal kernel of ours drives what --test-devices brings."""
    here = os.path.dirname(os.path.abspath(__file__))
    kernel, part = ctx.path("kernel"), ctx.path("kernel.o")
    subprocess.run([os.environ.get("CC", "cc").split()[-1], "-m32", "-O1", "-ffreestanding",
                    "-fno-pic", "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
                    "-mgeneral-regs-only", "-Wall", "-c", os.path.join(here, "testdev.c"), "-o",
                    part], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-z", "noexecstack", "-T",
                    os.path.join(here, "testdev.ld"), part, "-o", kernel], check=True)
    options = ["--engine", ctx.engine, "--memory", "64M", "--cpus", "2", "--kernel", kernel,
               "--verbose"]
    with Mullion(ctx.program, [*options, "--test-devices"]) as m:
        m.expect_status(1, 60 * ctx.patience)  # 2 * 0 failures + 1
        text = m.output.decode(errors="replace")
        expect(text.count("PASS:") == 17 and "FAIL" not in text, text)
        expect(b"said to the debug port" in m.errors, m.errors)


# ---- Boot loaders ----

def asset(ctx, *names):
    path = os.path.join(ctx.guest, *names)
    expect(os.path.exists(path), f"{path} is missing: scripts/guest-assets makes it")
    return path


def isolinux(ctx, files, config):
    """A CD with isolinux and @files (name -> path). @return its path"""
    if not shutil.which("xorriso"):
        raise Skipped("no xorriso: scripts/setup test")
    folder = ctx.path("cd")
    os.mkdir(folder)
    files = dict(files, **{n: asset(ctx, "isolinux", n) for n in ("isolinux.bin", "ldlinux.c32")})
    for name, path in files.items():
        shutil.copyfile(path, os.path.join(folder, name))
    with open(os.path.join(folder, "isolinux.cfg"), "w", encoding="ascii") as f:
        f.write("PROMPT 0\nDEFAULT go\nLABEL go\n" + config)
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", ctx.path("cd.iso"), "-b",
                    "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4",
                    "-boot-info-table", folder], stderr=subprocess.DEVNULL, check=True)
    return ctx.path("cd.iso")


@test
def isolinux_boots_linux(ctx):
    """SeaBIOS, isolinux from a CD, a Debian kernel and its initrd."""
    cd = isolinux(ctx, {"linux": ctx.kernel(), "initrd": ctx.initrd()},
                  "LINUX linux\nINITRD initrd\n"
                  "APPEND console=ttyS0 quiet panic=-1 mullion.do=check\n")
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "256M", "--cdrom", cd]) as m:
        m.wait_for("check: done", 120 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        expect(m.checks()["kernel"].startswith("6.12"), m.checks()["kernel"])


# ---- memtest86+: its first tests; and (LONG) a whole pass over 128 MiB with two CPUs ----

@test
def memtest_begins(ctx):
    """By the BIOS from a CD, read off the screen: both CPUs test, without errors."""
    cd = isolinux(ctx, {"memtest": asset(ctx, "memtest", "memtest.bin")}, "LINUX memtest\n")
    control = ctx.path("control")
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "32M", "--cpus", "2", "--console",
                               "none", "--cdrom", cd, "--control", control]) as m:
        deadline, text = time.monotonic() + 120 * ctx.patience, ""
        while not re.search(r"Test #([3-9]|10)", text):
            expect(time.monotonic() < deadline, f"memtest86+ gets nowhere: {text}{m.tail()}")
            m.pump(0.5)
            text = subprocess.run([ctx.program, "screen", control], stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, check=False).stdout.decode()
        expect("SMP: 2T" in text and re.search(r"Errors: 0\b", text), text)


def memtest(ctx, options):
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "128M", "--cpus", "2",
                               *options]) as m:
        m.wait_for("SMP: 2T", 300 * ctx.patience)
        m.wait_for(r"Pass:  [1-9]", 1800 * ctx.patience)
        expect(not re.search(rb"Errors: [1-9]", m.output), f"errors{m.tail()}")


def memtest_bios(ctx):
    memtest(ctx, ["--cdrom", isolinux(ctx, {"memtest": asset(ctx, "memtest", "memtest.bin")},
                                      "LINUX memtest\nAPPEND console=ttyS0,115200\n")])


def memtest_uefi(ctx):
    """By the UEFI shell's start-up script, because that can give a command line."""
    disk, script = ctx.path("fat.img"), ctx.path("startup.nsh")
    with open(script, "w", encoding="ascii", newline="") as f:
        f.write("fs0:\r\nmemtest.efi console=ttyS0,115200\r\n")
    with open(disk, "wb") as f:
        f.truncate(34 << 20)
    subprocess.run(["mformat", "-i", disk, "-F", "::"], check=True)
    for path in (asset(ctx, "memtest", "memtest.efi"), script):
        subprocess.run(["mcopy", "-i", disk, path, "::"], check=True)
    memtest(ctx, ["--firmware", "uefi", "--disk", f"{disk},format=raw"])


# ---- Debian's installer to its first menu ----

def installer_serial(ctx, arch):
    options = ["--engine", ctx.engine, "--memory", "1G", "--kernel",
               asset(ctx, f"installer-{arch}", "linux"), "--initrd",
               asset(ctx, f"installer-{arch}", "initrd.gz"), "--append",
               "console=ttyS0 TERM=vt102 priority=high quiet"]
    with Mullion(ctx.program, options) as m:
        m.wait_for("Select a language", 300 * ctx.patience)
        m.wait_for("English", 60 * ctx.patience)


def installer_screen(ctx, arch):
    cd = isolinux(ctx, {n: asset(ctx, f"installer-{arch}", n) for n in ("linux", "initrd.gz")},
                  "LINUX linux\nINITRD initrd.gz\n"
                  "APPEND vga=normal fb=false nomodeset priority=high quiet\n")
    control = ctx.path("control")
    with Mullion(ctx.program, ["--engine", ctx.engine, "--memory", "1G", "--cdrom", cd,
                               "--control", control]) as m:
        deadline = time.monotonic() + 300 * ctx.patience
        while True:
            m.pump(0.5)
            text = subprocess.run([ctx.program, "screen", control], stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, check=False).stdout
            if b"Select a language" in text and b"English" in text:
                break
            expect(time.monotonic() < deadline, f"no menu on the screen: {text.decode()}{m.tail()}")


LONG["memtest-bios"] = memtest_bios
LONG["memtest-uefi"] = memtest_uefi
for _arch in ("amd64", "i386"):
    LONG[f"installer-{_arch}-serial"] = lambda ctx, a=_arch: installer_serial(ctx, a)
    LONG[f"installer-{_arch}-screen"] = lambda ctx, a=_arch: installer_screen(ctx, a)
