#!/usr/bin/env python3
"""Debian's open-vm-tools in a guest, unmodified: what they say of it reaches the API, and they do what the
host asks for: commands and files as a user of the guest, too. --guest FOLDER has the kernels (scripts/guest-assets)."""
import base64
import hashlib
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


ROOT = ("root", "top secret")  # scripts/guest-tools makes them
ANN = ("ann", 'it\'s "ann"')


def as_user(user):
    return {"Guest-Authorization": "Basic " + base64.b64encode(":".join(user).encode()).decode()} if user else {}


def run(w, command, user=ROOT, **kw):
    """@return the answer, whatever its status"""
    return w.local.raw("POST", f"/machines/{w.machine}/exec", dict({"command": command, "timeout": PATIENCE}, **kw),
                       as_user(user))


def done(w, command, user=ROOT, **kw):
    answer = run(w, command, user, **kw)
    assert answer.status == 200, answer.text
    return answer.json


def fetch(w, path, user=ROOT):
    return w.local.raw("GET", f"/machines/{w.machine}/files?path={path}", None, as_user(user))


def give(w, path, data, user=ROOT):
    return w.local.raw("PUT", f"/machines/{w.machine}/files?path={path}", data,
                       dict(as_user(user), **{"Content-Type": "application/octet-stream"}))


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


def test_commands(w):
    """Status, both outputs, input, user, words as they are; what signals end; what is not there."""
    got = done(w, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (got["status"], got["stdout"], got["stderr"]) == (3, "out\n", "err\n") and not got["truncated"], got
    assert done(w, ["id", "-un"], ANN)["stdout"] == "ann\n"
    assert done(w, ["pwd"], ANN)["stdout"] == "/home/ann\n"
    words = ["a b", "it's", '"', "$(id)", "\\", "", "x\ny", "ü"]
    assert done(w, ["printf", "%s|"] + words)["stdout"] == "".join(x + "|" for x in words)
    text = "line\n" * 20000
    assert done(w, ["sha256sum"], stdin=text)["stdout"].split()[0] == hashlib.sha256(text.encode()).hexdigest()
    assert done(w, ["sh", "-c", "kill -9 $$"])["status"] == 137
    got = done(w, ["no-such-program"])
    assert got["status"] == 127 and "not found" in got["stderr"], got


def test_time_is_over(w):
    answer = run(w, ["sleep", "1234"], timeout=2)
    assert answer.status == 409 and "took longer than 2 s and was ended" in answer.text, answer.text
    assert done(w, ["pidof", "sleep"])["status"] == 1
    left = done(w, ["sh", "-c", "find /tmp -name 'mullion-*'"])["stdout"].splitlines()
    assert len(left) == 1, left  # its own


def test_users(w):
    """One clear error, at once, and no trace of the password."""
    for user in ((ANN[0], "wr0ng-passw0rd"), ("nobody-there", "wr0ng-passw0rd")):
        answer = run(w, ["id"], user)
        assert answer.status == 403 and "no such user, or the password is wrong" in answer.text, answer.text
        assert "wr0ng" not in answer.text
    answer = run(w, ["id"], None)
    assert answer.status == 409 and "give one (--user)" in answer.text, answer.text
    for bad in ("Basic", "Basic !!", "Bearer x", "Basic " + base64.b64encode(b"no colon").decode()):
        answer = w.local.raw("POST", f"/machines/{w.machine}/exec", {"command": ["id"]}, {"Guest-Authorization": bad})
        assert answer.status == 400 and "USER:PASSWORD" in answer.text, answer.text
    for folder, _, files in os.walk(w.daemon.folder):
        for name in files:
            path = os.path.join(folder, name)
            if name == "initrd" or not os.path.isfile(path):
                continue
            with open(path, "rb") as f:
                data = f.read()
            assert b"wr0ng-passw0rd" not in data and base64.b64encode(b"ann:wr0ng-passw0rd") not in data, path


def test_files(w):
    data = os.urandom(1 << 20)
    answer = give(w, "/tmp/made", data, ANN)
    assert answer.status == 204, answer.text
    assert done(w, ["sha256sum", "/tmp/made"])["stdout"].split()[0] == hashlib.sha256(data).hexdigest()
    assert done(w, ["stat", "-c", "%U %a", "/tmp/made"])["stdout"] == "ann 644\n"
    answer = fetch(w, "/tmp/made", ANN)
    assert answer.status == 200 and answer.body == data, answer.status
    assert give(w, "/tmp/made", b"").status == 204 and fetch(w, "/tmp/made").body == b""
    assert fetch(w, "/proc/version", ANN).text.startswith("Linux version")
    for path, why in (("/tmp/none", "no such file"), ("/etc/shadow", "permission denied"), ("/etc", "folder")):
        answer = fetch(w, path, ANN)
        assert answer.status == 409 and f"{path}: " in answer.text and why in answer.text, answer.text
    answer = give(w, "/etc/new", b"x", ANN)
    assert answer.status == 409 and "permission denied" in answer.text, answer.text


def test_command_line(w):
    """mullion exec and copy; the password is nowhere among the arguments."""
    def mullion(*words, password=ANN[1], **kw):
        env = dict(os.environ, MULLION_HOST="unix:" + w.daemon.socket, MULLION_GUEST_PASSWORD=password)
        return subprocess.run([os.path.join(w.daemon.build, "mullion"), *words], env=env, capture_output=True,
                              check=False, timeout=PATIENCE, **kw)

    got = mullion("exec", "--user", "ann", "--stdin", "tools", "--", "sh", "-c", "cat; id -un >&2; exit 5", input=b"in")
    assert (got.returncode, got.stdout, got.stderr) == (5, b"in", b"ann\n"), got
    got = mullion("exec", "--user", "ann", "tools", "--", "id", password="wrong")
    assert got.returncode == 5 and b"password is wrong" in got.stderr, got
    secret = os.path.join(w.daemon.folder, "secret")
    with open(secret, "w", encoding="utf-8") as f:
        f.write(ANN[1] + "\n")
    data = os.urandom(100000)
    got = mullion("copy", "--user", "ann", "--password-file", secret, "-", "tools:/tmp/sent", password="wrong", input=data)
    assert got.returncode == 0, got
    got = mullion("copy", "--user", "ann", "--password-file", "-", "tools:/tmp/sent", "-", input=ANN[1].encode() + b"\n")
    assert got.returncode == 0 and got.stdout == data, (got.returncode, got.stderr)
    os.unlink(secret)


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
