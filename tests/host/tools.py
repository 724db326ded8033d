#!/usr/bin/env python3
"""Debian's open-vm-tools in a guest, unmodified: what they say of it reaches the API, and they do what the
host asks for. --guest FOLDER has the kernels (scripts/guest-assets)."""
import os
import subprocess
import sys
import time

import client
import harness
from client import Client, Daemon

PATIENCE = 240


def until(w, check, what):
    end = time.monotonic() + PATIENCE
    while True:
        got = w.local.get("/machines/" + w.machine)
        if check(got):
            return got
        log = w.local.raw("GET", f"/machines/{w.machine}/console-log").text
        assert got["state"] not in ("stopped", "crashed") and time.monotonic() < end, \
            f"{what}: {got} {log[-3000:]}"
        time.sleep(0.1)


class World:
    def __init__(self, build, guest):
        self.daemon = Daemon(build).start()
        self.local = Client(self.daemon)
        tools = os.path.join(guest, "tools.cpio")
        script = os.path.join(client.ROOT, "scripts", "guest-tools")
        if not os.path.exists(tools) or os.path.getmtime(tools) < os.path.getmtime(script):
            subprocess.run([script, tools], check=True, stdin=subprocess.DEVNULL)
        initrd = os.path.join(self.daemon.folder, "initrd")
        with open(initrd, "wb") as out:
            for name in (os.path.join(guest, "6.12", "initrd"), tools):
                with open(name, "rb") as f:
                    out.write(f.read())
        self.machine = self.local.machine(
            "tools", memory=384 << 20, networks=[{}], config={
                "kernel": os.path.join(guest, "6.12", "vmlinuz"), "initrd": initrd, "engine": "soft",
                "vmware_tools": True, "cmdline": "console=ttyS0 mullion.do=tools"})

    def remove(self):
        self.daemon.remove()

    def log(self):
        return self.local.raw("GET", f"/machines/{self.machine}/console-log").text


def test_tools_speak(w):
    path = "/machines/" + w.machine
    assert w.local.get(path)["guest"] is None
    w.local.do(path + "/start")
    got = until(w, lambda m: m["guest"] and m["guest"]["hostname"] and m["guest"]["version"] and m["addresses"],
                "no word of the tools")
    assert got["guest"]["agent"] == "open-vm-tools" and got["guest"]["hostname"] == "tools-guest", got
    assert got["guest"]["os"] and got["guest"]["version"].startswith("12."), got
    assert any("." in a for a in got["addresses"]), got
    log = w.log()
    for wanted in ("Hypervisor detected: VMware", "TSC freq read from hypervisor", "tools: set hello",
                   "tools: nonsense refused"):
        assert wanted in log, f"{wanted}: {log[-3000:]}"
    seconds = time.mktime(time.strptime(log.partition("tools: hosttime ")[2].splitlines()[0], "%d %b %Y %H:%M:%S"))
    assert abs(seconds - time.time()) < PATIENCE, log[-1000:]


def test_tools_shut_down(w):
    """The tools run their own shutdown before the power button is seen."""
    path = "/machines/" + w.machine
    w.local.do(path + "/stop", {"timeout": PATIENCE})
    end = time.monotonic() + PATIENCE
    while w.local.get(path)["state"] != "stopped":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert w.local.get(path)["guest"] is None
    assert "tools: shutdown" in w.log() and "power button" not in w.log(), w.log()[-2000:]


if __name__ == "__main__":
    client.PATIENCE = PATIENCE
    sys.exit(harness.main(__doc__, harness.tests_of(globals()), World, guest=True))
