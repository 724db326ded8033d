#!/usr/bin/env python3
"""`mullion image convert --resume` after interruptions at many moments, by Ctrl-C and by SIGKILL;
what it must not go on with; `copy`; and the progress bar on a terminal.

usage: resume.py IMAGE-TOOL INTERRUPT-LIBRARY      exit status 77 where qemu-img is missing
"""
import os
import pty
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOOL, LIBRARY = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
SIZE = 24 << 20
PATIENCE = 120


def tool(*args, ok=(0,), at=None, sig=None, count=None):
    env = dict(os.environ)
    if count:
        env.update(LD_PRELOAD=LIBRARY, INTERRUPT_COUNT=count)
    if at:
        env.update(LD_PRELOAD=LIBRARY, INTERRUPT_AT=str(at), INTERRUPT_SIGNAL=str(int(sig)))
    p = subprocess.run([TOOL, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, env=env, timeout=PATIENCE, check=False)
    if ok is not None and p.returncode not in ok:
        raise SystemExit("FAIL (%d): %s\n%s" % (p.returncode, args, p.stdout))
    return p.returncode, p.stdout


def qemu(*args, ok=(0,)):
    p = subprocess.run(["qemu-img", *map(str, args)], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False)
    if p.returncode not in ok:
        raise SystemExit("FAIL (%d): qemu-img %s\n%s" % (p.returncode, args, p.stdout))


def make_raw(path, seed):
    r = random.Random(seed)
    text = bytes(range(256)) * 16
    with open(path, "wb") as f:
        f.truncate(SIZE)
        for at in range(0, SIZE, 1 << 20):
            f.seek(at + 4096 * r.randrange(50))
            f.write(r.randbytes(100000) + text * 30)


def check(target, fmt):
    if fmt not in ("raw", "vhd"):
        qemu("check", "-f", {"vhd": "vpc"}.get(fmt, fmt), target)
    qemu("compare", "-f", "raw", "-F", {"vhd": "vpc"}.get(fmt, fmt), "disk.raw", target)
    assert not os.path.exists(target + ".resume"), "the note is still there"


def clean(target):
    for name in os.listdir("."):
        if name.startswith(target):
            os.unlink(name)


def interrupted(fmt, options):
    """Once for each moment and signal; then one conversion that is killed again and again."""
    target, went_on = "t." + fmt, 0
    args = ["convert", "disk.raw", target, "--from", "raw", "--to", fmt + options,
            "--resume-interval", "0"]
    tool(*args, count="count")
    check(target, fmt)
    with open("count", encoding="ascii") as f:
        writes = int(f.read())
    moments = (2, writes * 4 // 10, writes * 7 // 10, writes * 9 // 10)
    for sig in (signal.SIGINT, signal.SIGKILL):
        for at in moments:
            clean(target)
            status, out = tool(*args, ok=None, at=at, sig=sig)
            if status == 0:
                check(target, fmt)  # it was done before
                continue
            # before the copying begins, Ctrl-C ends it as it ends any program
            assert status in (1, -sig), (status, out)
            if status == 1:
                assert "--resume" in out, out
            note = os.path.exists(target + ".resume")
            before = os.stat(target).st_ino if os.path.exists(target) else None
            status, out = tool(*args, "--resume")
            if note and "from the start" not in out:
                went_on += 1
                assert os.stat(target).st_ino == before
            check(target, fmt)
    clean(target)
    for _ in range(200):  # killed after every few writes, it gets there all the same
        status, out = tool(*args, "--resume", ok=None, at=writes // 3, sig=signal.SIGKILL)
        if status == 0:
            break
        assert status == -signal.SIGKILL, (status, out)
    assert status == 0, "no progress between interruptions"
    check(target, fmt)
    clean(target)
    assert went_on >= 4, "%s: went on %d times" % (fmt, went_on)


def mistrust():
    """What changed in between is not gone on with; the result is right all the same."""
    args = ["convert", "s.raw", "t.qcow2", "--from", "raw", "--to", "qcow2", "--resume-interval",
            "0"]

    def begin():
        clean("t.qcow2")
        shutil.copyfile("disk.raw", "s.raw")
        tool(*args, ok=(1,), at=20, sig=signal.SIGINT)
        assert os.path.exists("t.qcow2.resume")

    def end(*more, why="from the start"):
        _, out = tool(*args, "--resume", *more)
        assert why in out, out
        tool("compare", "s.raw", "t.qcow2", "--from", "raw")
        assert not os.path.exists("t.qcow2.resume")

    begin()  # the source
    with open("s.raw", "r+b") as f:
        f.write(b"another disk")
    end()
    begin()  # the target
    os.rename("t.qcow2", "aside")
    shutil.copyfile("aside", "t.qcow2")
    end()
    os.unlink("aside")
    begin()  # what was asked for
    args[6] = "qcow2,cluster_size=4k"
    end()
    args[6] = "qcow2"
    begin()  # the note
    with open("t.qcow2.resume", "r+", encoding="ascii") as f:
        text = f.read()
        f.truncate(len(text) - 3)
    end()
    begin()  # the boot
    with open("t.qcow2.resume", "w", encoding="ascii") as f:
        f.write(re.sub("boot .", "boot x", text))
    end()
    begin()  # the target's content
    with open("t.qcow2", "r+b") as f:
        f.write(b"gone")
    end()
    begin()  # nothing: without --resume it starts anew
    tool(*args)
    check("t.qcow2", "qcow2")
    tool("create", "base.qcow2", SIZE, "--to", "qcow2")
    tool("convert", "disk.raw", "t.vmdk", "--from", "raw", "--to", "vmdk,subformat=streamOptimized",
         "--resume-interval", "0", ok=(1,), at=20, sig=signal.SIGINT)
    assert not os.path.exists("t.vmdk.resume"), "a stream cannot be gone on with"
    clean("t.")


def copy():
    """Parts of disks into disks there are."""
    for fmt in ("raw", "qcow2", "vmdk"):
        tool("convert", "disk.raw", "c." + fmt, "--from", "raw", "--to", fmt)
        tool("copy", "disk.raw", "c." + fmt, "--from", "raw", "--target-format", fmt, "--offset",
             "1M", "--length", 3 << 20, "--to-offset", 10485760 + 512)
        with open("disk.raw", "rb") as f:
            want = bytearray(f.read())
        want[10485760 + 512:10485760 + 512 + (3 << 20)] = want[1 << 20:4 << 20]
        with open("want.raw", "wb") as f:
            f.write(want)
        qemu("compare", "-f", "raw", "-F", fmt, "want.raw", "c." + fmt)
    for args in (("--offset", "25M"), ("--to-offset", "23M", "--length", "2M"),
                 ("--offset", "23M", "--length", "2M")):
        tool("copy", "disk.raw", "c.qcow2", "--from", "raw", *args, ok=(1,))


def terminal():
    """A bar that moves, and Ctrl-C as a terminal sends it."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(TOOL, [TOOL, "convert", "disk.raw", "t.qcow2", "--from", "raw", "--to",
                        "qcow2,compress=zlib", "--threads", "1", "--resume-interval", "0"])
    shown, end, stopped = "", time.monotonic() + PATIENCE, False
    while time.monotonic() < end:
        if select.select([fd], [], [], 1)[0]:
            try:
                shown += os.read(fd, 65536).decode(errors="replace")
            except OSError:
                break
        # once the bar has moved
        if not stopped and len(set(re.findall(r"\[#+\.*\] +(\d+\.\d) %", shown))) > 1:
            os.write(fd, b"\x03")
            stopped = True
    os.close(fd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    percents = [float(p) for p in re.findall(r"(\d+\.\d) %", shown)]
    assert len(percents) > 1 and percents == sorted(percents), shown
    if status == 0:  # faster than our Ctrl-C: nothing is left to go on with
        assert percents[-1] == 100, shown
    else:
        # behind the bar's end Ctrl-C ends the program as any other
        assert (status == 1 and "--resume" in shown) or status == -signal.SIGINT, shown
        tool("convert", "disk.raw", "t.qcow2", "--from", "raw", "--to", "qcow2,compress=zlib",
             "--resume")
    check("t.qcow2", "qcow2")
    _, out = tool("convert", "disk.raw", "t.qcow2", "--from", "raw", "--to", "qcow2")
    assert "#" not in out, "a bar where there is no terminal: " + out


def main():
    if not shutil.which("qemu-img"):
        print("qemu-img is missing: scripts/setup test")
        return 77
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)
        make_raw("disk.raw", 3)
        for fmt, options in (("raw", ""), ("qcow2", ""), ("qcow2", ",compress=zlib"), ("vmdk", ""),
                             ("vhdx", ""), ("vhd", ""), ("vdi", "")):
            start = time.monotonic()
            interrupted(fmt, options)
            print("%s%s: %.1f s" % (fmt, options, time.monotonic() - start), flush=True)
        for test in (mistrust, copy, terminal):
            start = time.monotonic()
            test()
            print("%s: %.1f s" % (test.__name__, time.monotonic() - start), flush=True)
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
