#!/usr/bin/env python3
"""mulliond as the service of a real host: a whole Debian with systemd, control groups and bridges that filter VLANs
(scripts/guest-disk FOLDER host) runs in a machine on the soft engine, Mullion is installed in it as an
administrator does it, and system_guest.py tests it there, with machines in that machine. Takes some
twenty minutes; not part of `make test`:

    tests/host/system.py [--build build] [PART[=TEST]...]

PART is one of first, second (after a reboot, needs all of first), third and networks (those of networks.py); the last two
need first=install."""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))
from guest import Failed, Mullion  # noqa: E402 (that folder is found by the line above)

FIRMWARE = "/usr/share/seabios/bios-256k.bin"
PARTS = ("first", "second", "third", "networks")
SECONDS = {"boot": 600, "first": 2400, "second": 1200, "third": 1200, "networks": 3600}


def make_tools(folder, build, guest):
    """A disk with what is installed, the tests, and a kernel for machines in the machine. @return its path"""
    tree, disk = os.path.join(folder, "tools"), os.path.join(folder, "tools.img")
    os.makedirs(os.path.join(tree, "6.12"))
    subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--strip",
                    "--destdir", os.path.join(tree, "root")], check=True, stdout=subprocess.DEVNULL)
    for name in ("client.py", "harness.py", "networks.py", "system_guest.py"):
        shutil.copy(os.path.join(HERE, name), tree)
    for name in ("vmlinuz", "initrd"):
        shutil.copy(os.path.join(guest, "6.12", name), os.path.join(tree, "6.12"))
    subprocess.run(["chmod", "-R", "go=u-w", tree], check=True)
    used = int(subprocess.run(["du", "-sm", tree], check=True, capture_output=True, text=True).stdout.split()[0])
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "mullion-tools", "-E", "root_owner=0:0", "-d", tree, disk,
                    f"{used + used // 8 + 16}M"], check=True)
    return disk


class Host:
    """The Debian in its machine, and root's shell on its console."""

    def __init__(self, args, folder):
        disk = os.path.join(folder, "debian.img")
        subprocess.run(["cp", "--sparse=always", "--reflink=auto",
                        os.path.join(args.guest, "host", "debian.img"), disk], check=True)
        self.machine = Mullion(os.path.join(args.build, "mullion"), [
            "--engine", args.engine, "--memory", "3G", "--cpus", "2", "--firmware", FIRMWARE,
            "--disk", f"{disk},format=raw", "--disk", f"{make_tools(folder, args.build, args.guest)},format=raw",
            "--net", "user"], stdin=subprocess.PIPE)
        self.seen = 0

    def wait(self, pattern, seconds):
        match = self.machine.wait_for(pattern, seconds, self.seen)
        self.seen = match.end()
        return match

    def log_in(self):
        self.wait(r"login: ", SECONDS["boot"])
        self.machine.send(b"root\n")
        self.wait(r"root@mullion:[^ ]*# ", SECONDS["boot"])
        # No echo and no kernel messages between what tests say.
        self.machine.send(b"stty -echo; dmesg -n 1; mount -o ro LABEL=mullion-tools /mnt; echo mount''ed\n")
        self.wait(r"mounted\r?\n", 60)

    def part(self, name, only):
        """@return (passed, failed)"""
        words = " ".join(["MULLION_PATIENCE=5", "python3", "/mnt/system_guest.py", name,
                          *only])
        self.machine.send(f"{words} 2>&1; echo part-''ended-$?\n".encode())
        passed = failed = 0
        while True:
            line = self.wait(r"([^\r\n]*)\r?\n", SECONDS[name])[1].decode(errors="replace")
            if line.startswith("part-ended-"):
                return passed, failed + (line != "part-ended-0" and not failed)
            passed += bool(re.match(r"ok (?!.*# SKIP)", line))
            failed += line.startswith("not ok ")
            print(f"{name}: {line}", flush=True)

    def reboot(self):
        self.machine.send(b"systemctl reboot\n")
        self.log_in()

    def power_off(self):
        self.machine.send(b"systemctl poweroff\n")
        return self.machine.wait(SECONDS["boot"]) == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--guest", help="folder of scripts/guest-assets (BUILD/guest)")
    parser.add_argument("--engine", default="soft")
    parser.add_argument("parts", nargs="*", metavar="PART[=TEST]")
    args = parser.parse_args()
    args.build = os.path.abspath(args.build)
    args.guest = os.path.abspath(args.guest or os.path.join(args.build, "guest"))
    wanted = {}
    for word in args.parts or PARTS:
        name, _, only = word.partition("=")
        if name not in PARTS:
            parser.error(f"{name}: is none of {', '.join(PARTS)}")
        wanted.setdefault(name, []).extend([only] if only else [])
    subprocess.run([os.path.join(ROOT, "scripts", "guest-disk"), args.guest, "host"], check=True)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="mullion-system-") as folder:
        host = Host(args, folder)
        try:
            host.log_in()
            for name in PARTS:
                if name not in wanted:
                    continue
                if name == "second":
                    host.reboot()
                got = host.part(name, wanted[name])
                passed, failed = passed + got[0], failed + got[1]
            failed += not host.power_off()
        except Failed as error:
            print(error)
            failed += 1
        finally:
            host.machine.close()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
