"""Tests in Debian's own user space (scripts/guest-debian): programs that check what they compute,
and a kernel that must not have anything to complain about. TESTS are for every run, LONG for
`boot.py --soak`."""
import os
import re

from guest import Mullion, expect

TESTS = {}
LONG = {}

# What every run has to report, so that a program that did not run is not taken for one that passed.
PROGRAMS = {
    "stress-cpu", "stress-vm", "stress-fork", "stress-futex", "stress-signal", "stress-mmap",
    "openssl-rsa", "openssl-ec", "openssl-speed-sha256", "openssl-speed-sha512",
    "openssl-speed-rsa2048", "openssl-speed-ecdsap256", "openssl-speed-aes-256-gcm",
    "openssl-speed-aes-128-cbc", "openssl-speed-chacha20-poly1305",
    "python-test-math", "python-test-struct", "python-test-json", "gcc-compile", "gcc-run"}


def expect_no_complaints(m):
    """No program failed, the kernel is not tainted and said nothing bad in its log."""
    text = m.output.decode(errors="replace").replace("\r", "")
    bad = re.findall(r"^check: (?:failed|dmesg) .*", text, re.M)
    expect(not bad, "; ".join(bad) + m.tail())
    tainted = re.findall(r"^check: tainted (\d+)", text, re.M)
    expect(tainted == ["0"], f"tainted {tainted}{m.tail()}")
    return set(re.findall(r"^check: passed (\S+)", text, re.M))


def boot(ctx, cpus, words, memory="512M"):
    root = os.path.join(ctx.guest, "debian", "root.img")
    expect(os.path.exists(root), f"{root} is missing: scripts/guest-debian makes it")
    return ctx.boot("debian", words=words) + [
        "--memory", memory, "--cpus", str(cpus), "--disk", f"{root},format=raw,readonly=on"]


def debian_programs(ctx):
    with Mullion(ctx.program, boot(ctx, 2, "mullion.seconds=1")) as m:
        m.wait_for("check: debian done", 600 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        passed = expect_no_complaints(m)
        expect(passed == PROGRAMS, f"not run: {PROGRAMS - passed}")


def debian_soak(ctx):
    """stress-ng's classes in turn with 4 vCPUs for ctx.soak minutes."""
    limit = int(ctx.soak * 60)
    words = f"mullion.then=stress-long mullion.seconds=15 mullion.limit={limit}"
    with Mullion(ctx.program, boot(ctx, 4, words, "1G")) as m:
        m.wait_for("check: debian done", (limit + 900) * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)
        passed = expect_no_complaints(m)
        expect({p for p in PROGRAMS if p.startswith("stress")} <= passed, f"only {passed}")


TESTS["debian-programs"] = debian_programs
LONG["debian-soak"] = debian_soak
