"""Tests of a guest's disk that fails, and of changed blocks that a guest writes."""
import json
import os
import resource
import signal
import subprocess
import time

from guest import Failed, Mullion, expect
from guest_tests import Control

TESTS = {}
MIB = 1 << 20


def test(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


def image(ctx, *args):
    run = subprocess.run([ctx.program, "image", *args], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, check=False)
    expect(run.returncode == 0, f"mullion image {' '.join(args)}: {run.stderr}")
    return run.stdout


def changes(ctx, disk, fmt):
    return json.loads(image(ctx, "changes", disk, "--from", fmt, "--format", "json"))


@test
def disk_changes(ctx):
    """Check writes 1 MiB at 1 MiB; both raw and qcow2 note that, and nothing much else."""
    raw, _ = ctx.make_disk("disk.img", 8)
    qcow2 = ctx.path("disk.qcow2")
    image(ctx, "convert", raw, qcow2, "--from", "raw", "--to", "qcow2")
    for disk, fmt in ((raw, "raw"), (qcow2, "qcow2")):
        with Mullion(ctx.program, ctx.boot("check") +
                     ["--disk", f"{disk},format={fmt},cbt=on"]) as m:
            m.expect_status(0, 60 * ctx.patience)
        got = changes(ctx, disk, fmt)
        expect(got["state"] == "known", f"{fmt}: {got}")
        expect(got["extents"] == [{"start": MIB, "length": MIB}], f"{fmt}: {got['extents']}")
    # Killed, nobody knows what it wrote.
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=wait") +
                 ["--disk", f"{raw},format=raw"]) as m:
        m.wait_for("check: waiting", 60 * ctx.patience)
        os.kill(m.vmm_pid(), signal.SIGKILL)
        m.wait(30 * ctx.patience)
    got = changes(ctx, raw, "raw")
    expect(got["state"] == "unknown" and got["changed-bytes"] == 8 * MIB, f"killed: {got}")


def limit_files(m, patience, size):
    """No file of the machine may grow beyond @size, as if the disk were full; once it has its
    memory, which is a file too."""
    deadline = time.monotonic() + 10 * patience
    while time.monotonic() < deadline:
        try:
            pid = m.vmm_pid()
            with open(f"/proc/{pid}/status", encoding="ascii") as f:
                if "Seccomp:\t2" in f.read():
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                    return pid
        except (Failed, OSError):
            pass
        time.sleep(0.01)
    raise Failed("the machine did not come up")


@test
def disk_error_pause(ctx):
    path, control = ctx.path("disk.img"), ctx.path("control")
    disk, digest = ctx.make_disk("disk.img", 8)
    with Mullion(ctx.program, ctx.boot("check") + ["--control", control, "--disk",
                                                   f"{disk},format=raw,on-error=pause"]) as m:
        pid = limit_files(m, ctx.patience, MIB + 65536)
        c, deadline = Control(control, ctx.patience), time.monotonic() + 60 * ctx.patience
        while c.call("status")["result"]["state"] == "running" and time.monotonic() < deadline:
            m.pump(0.1)
        expect(c.call("status")["result"]["state"] == "paused", "not paused")
        # Resumed too early, it pauses again.
        c.call("resume")
        while c.call("status")["result"]["state"] == "running" and time.monotonic() < deadline:
            m.pump(0.1)
        expect(c.call("status")["result"]["state"] == "paused", "not paused again")
        infinite = resource.RLIM_INFINITY
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (infinite, infinite))
        c.call("resume")
        m.expect_status(0, 60 * ctx.patience)
        got = m.checks()
        expect(b"I/O error" not in m.output, "the guest saw an error")
        expect(got["disk"] == f"{8 * MIB} {digest}" and got["wrote"], f"checks {got}")
    expect(os.path.getsize(path) == 8 * MIB, "size")


@test
def disk_error_stop(ctx):
    disk, _ = ctx.make_disk("disk.img", 8)
    with Mullion(ctx.program, ctx.boot("check") +
                 ["--disk", f"{disk},format=raw,on-error=stop"]) as m:
        limit_files(m, ctx.patience, MIB + 65536)
        m.expect_status(1, 60 * ctx.patience)
        expect(b"disk failed" in m.errors, f"stderr: {m.errors!r}")


@test
def disk_error_report(ctx):
    disk, _ = ctx.make_disk("disk.img", 8)
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=wait") +
                 ["--disk", f"{disk},format=raw"]) as m:
        limit_files(m, ctx.patience, MIB + 65536)
        m.wait_for("I/O error", 60 * ctx.patience)
