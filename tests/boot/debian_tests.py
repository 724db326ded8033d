"""Tests in Debian's own user space (scripts/guest-debian): programs that check what they compute,
and a kernel that must not have anything to complain about. TESTS are for every run, LONG for
`boot.py --soak`."""
import multiprocessing
import os
import re
import subprocess
import tempfile
import time

from guest import STALLS, Mullion, expect

TESTS = {}
LONG = {}

# What every run has to report, so that a program that did not run is not taken for one that passed.
PROGRAMS = {
    "stress-cpu", "stress-vm", "stress-fork", "stress-futex", "stress-signal", "stress-mmap",
    "openssl-rsa", "openssl-ec", "openssl-speed-sha256", "openssl-speed-sha512",
    "openssl-speed-rsa2048", "openssl-speed-ecdsap256", "openssl-speed-aes-256-gcm",
    "openssl-speed-aes-128-cbc", "openssl-speed-chacha20-poly1305",
    "python-test-math", "python-test-struct", "python-test-json", "gcc-compile", "gcc-run", "remap"}


def expect_no_complaints(m):
    """No program failed, the kernel is not tainted and said nothing bad in its log."""
    text = m.output.decode(errors="replace").replace("\r", "")
    bad = re.findall(r"^check: failed .*", text, re.M) + m.complaints()
    expect(not bad, "; ".join(bad) + m.tail())
    tainted = re.findall(r"^check: tainted (\d+)", text, re.M)
    # Bit 14: a soft lockup.
    expect(tainted == ["0"] or (tainted == ["16384"] and m.stalled < STALLS.total),
           f"tainted {tainted}{m.tail()}")
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


def debian_kernel(ctx):
    """A kernel that rewrites its own text, on more vCPUs than the host has, some coming and going."""
    words = "mullion.then=kernel mullion.seconds=6"
    with Mullion(ctx.program, boot(ctx, 4, words)) as m:
        m.wait_for("check: debian done", 300 * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)
        passed = expect_no_complaints(m)
        counts = re.search(r"check: kernel (.*)", m.output.decode(errors="replace"))
        ctx.note(counts[1].strip() if counts else "no counts")
        expect(passed == {"kernel"}, f"the kernel's own tests did not run{m.tail()}")


def debian_soak(ctx):
    """stress-ng's classes in turn with 4 vCPUs for ctx.soak minutes."""
    limit = int(ctx.soak * 60)
    words = f"mullion.then=stress-long mullion.seconds=15 mullion.limit={limit}"
    with Mullion(ctx.program, boot(ctx, 4, words, "1G")) as m:
        m.wait_for("check: debian done", (limit + 900) * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)
        passed = expect_no_complaints(m)
        expect({p for p in PROGRAMS if p.startswith("stress")} <= passed, f"only {passed}")


class Burners:
    """Keeps every host CPU busy."""

    def __enter__(self):
        self.processes = [multiprocessing.Process(target=self.burn, daemon=True)
                          for _ in range(os.cpu_count() or 1)]
        for p in self.processes:
            p.start()

    @staticmethod
    def burn():
        while True:
            pass

    def __exit__(self, *_):
        for p in self.processes:
            p.kill()
            p.join()


def ping(ctx, m, word):
    """One exchange. @return the host's time, and the guest's clocks before and after it, ns"""
    number = int(m.wait_for(r"check: ping (\d+)\r?\n", 60 * ctx.patience,
                            getattr(m, "pinged", 0))[1])
    at = m.pinged = m.output.rindex(b"check: ping")
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    m.send(word + b"\n")
    match = m.wait_for(rf"check: was {number} ([\d ]+)\r?\n", 60 * ctx.patience, at)
    m.pinged = m.output.index(b"check: was %d " % number, at)
    values = [int(n) for n in match[1].split()]
    return now, values[:3], values[3:]


def narrowest(ctx, m):
    """The exchange of many that took the guest the shortest time."""
    best, deadline = None, time.monotonic() + 6
    for i in range(100):
        p = ping(ctx, m, b"again")
        if not best or p[2][0] - p[1][0] < best[2][0] - best[1][0]:
            best = p
        if i >= 10 and (best[2][0] - best[1][0] < 2_000_000 or time.monotonic() > deadline):
            break
    return best


def drift(ctx, seconds):
    """The guest's clocks agree with each other, and so many seconds in the guest are as many
    outside within 0.1 %, with the host's CPUs busy."""
    words = "mullion.then=clocks iomem=relaxed"
    with Burners(), Mullion(ctx.program, boot(ctx, 2, words), stdin=subprocess.PIPE) as m:
        m.wait_for("check: ping", 300 * ctx.patience)
        text = m.output.decode(errors="replace")
        sources = re.search(r"check: sources (.*)", text)[1].split()
        expect({"tsc", "hpet", "acpi_pm", "kvm-clock"} <= set(sources), f"sources {sources}")
        expect(text.count("check: clocks width") == 2 * len(sources), f"clocks{m.tail()}")
        first = narrowest(ctx, m)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            m.pump(0.2)
        last = narrowest(ctx, m)
        outside = last[0] - first[0]
        # The host's moment lies somewhere in the guest's exchange.
        unsure = (first[2][0] - first[1][0]) + (last[2][0] - last[1][0])
        expect(outside > seconds * 9e8, f"{outside} ns outside")
        for i, name in enumerate(("MONOTONIC_RAW", "MONOTONIC", "REALTIME")):
            inside = last[1][i] - first[1][i]
            off = abs(inside - outside)
            expect(off <= outside / 1000 + unsure,
                   f"{name}: {inside} ns inside, {outside} ns outside (sure to {unsure} ns)")
            ctx.note(f"{name} off by {100 * (inside - outside) / outside:+.4f} % in "
                     f"{outside / 1e9:.1f} s, sure to {100 * unsure / outside:.4f} %")
        ping(ctx, m, b"end")
        m.wait_for("check: debian done", 60 * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)
        expect_no_complaints(m)


def debian_agent(ctx):
    """QEMU's own guest agent, spoken to by our client of it."""
    tool = os.path.join(os.path.dirname(ctx.program), "tests", "boot", "agent_tool")

    def agent(*words, stdin=b"", status=0):
        done = subprocess.run([tool, path, *words], input=stdin, capture_output=True, timeout=120)
        expect(done.returncode == status, f"agent {words}: {done.returncode}, {done.stderr}")
        return done.stdout

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "agent")
        channel = f"unix={path},channel=org.qemu.guest_agent.0"
        arguments = boot(ctx, 1, "mullion.then=agent") + ["--console", "stdio", "--console", channel]
        with Mullion(ctx.program, arguments + ["--net", "user"]) as m:
            m.wait_for("check: agent on vport", 120 * ctx.patience)
            version = agent("exec", "/bin/uname", "-s")
            expect(version == b"Linux\n", f"uname: {version}")
            expect(agent("exec", "/bin/sh", "-c", "cat; exit 3", stdin=b"piped", status=3) == b"piped",
                   "standard input of a command")
            data = os.urandom(700_000)
            agent("write", "/tmp/blob", stdin=data)
            expect(agent("read", "/tmp/blob") == data, "a file there and back")
            expect(b"No such file" in agent("exec", "/bin/sh", "-c", "cat /nonexistent 2>&1", status=1),
                   "an error of a command")
            subprocess.run([tool, path, "read", "/nonexistent"], check=False, capture_output=True)
            expect(b"10." in agent("addresses") or b"fe80" in agent("addresses"), "addresses")
            expect(not m.complaints(), "; ".join(m.complaints()))


TESTS["debian-agent"] = debian_agent
TESTS["debian-clocks"] = lambda ctx: drift(ctx, 10)
CLOCK = {"debian-clocks-60s": lambda ctx: drift(ctx, 60)}
TESTS["debian-kernel"] = debian_kernel
TESTS["debian-programs"] = debian_programs
LONG["debian-soak"] = debian_soak
