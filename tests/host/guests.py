"""What the host does inside guests, and the command line on top of it: agents (an agent of ours answers in
the guest's place), seeds, images that are built by a recipe of the test."""
import base64
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading

import client
import harness
from client import Client, Daemon

RECIPE = """#!/bin/sh
set -e
echo "step 10 beginning"
"$1" image create "$2/image.qcow2" 8M --to qcow2
[ ! -e "{flag}" ] || {{ echo "the kitchen burns" >&2; exit 3; }}
[ ! -e "{slow}" ] || sleep 600
echo "step 90 ending"
"""


class FakeAgent:
    """Answers on a machine's agent socket as qemu-guest-agent does."""

    def __init__(self, path):
        os.unlink(path)
        self.files, self.commands = {}, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            peer, _ = self.listener.accept()
            with peer, peer.makefile("rb") as lines:
                for line in lines:
                    request = json.loads(line.lstrip(b"\xff"))
                    answer = self.answer(request["execute"], request.get("arguments", {}))
                    mark = b"\xff" if request["execute"] == "guest-sync-delimited" else b""
                    peer.sendall(mark + json.dumps(answer).encode() + b"\n")

    def answer(self, command, given):
        if command == "guest-sync-delimited":
            return {"return": given["id"]}
        if command == "guest-exec":
            self.commands.append([given["path"], *given["arg"]])
            self.input = base64.b64decode(given.get("input-data", ""))
            return {"return": {"pid": 5}}
        if command == "guest-exec-status":
            out = self.input.upper() + b"\xe9\xff \xc3\xa9"
            return {"return": {"exited": True, "exitcode": 7, "out-data": base64.b64encode(out).decode()}}
        if command == "guest-file-open":
            if given["mode"] == "r" and given["path"] not in self.files:
                return {"error": {"class": "GenericError", "desc": "No such file or directory"}}
            self.open, self.at = given["path"], 0
            if given["mode"] == "w":
                self.files[self.open] = b""
            return {"return": 9}
        if command == "guest-file-read":
            data = self.files[self.open][self.at:self.at + given["count"]]
            self.at += len(data)
            return {"return": {"count": len(data), "buf-b64": base64.b64encode(data).decode(),
                               "eof": self.at == len(self.files[self.open])}}
        if command == "guest-file-write":
            data = base64.b64decode(given["buf-b64"])
            self.files[self.open] += data
            return {"return": {"count": len(data), "eof": False}}
        if command == "guest-network-get-interfaces":
            return {"return": [{"name": "eth0", "ip-addresses": [{"ip-address": "192.0.2.7"}]}]}
        return {"return": {}}


def refused(status, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except client.Refused as e:
        assert e.answer.status == status, f"{e}"
        return e.answer.json
    raise AssertionError(f"{args}: not refused")


class World:
    def __init__(self, build):
        self.build = build
        # The recipes lie beside mullion-vmm.
        self.folder = client.tempfile.mkdtemp(prefix="mullion-g")
        images = os.path.join(self.folder, "mullion", "images")
        os.makedirs(images)
        self.flag, self.slow = os.path.join(self.folder, "flag"), os.path.join(self.folder, "slow")
        recipe = os.path.join(images, "tiny")
        with open(recipe, "w", encoding="utf-8") as f:
            f.write(RECIPE.format(flag=self.flag, slow=self.slow))
        os.chmod(recipe, 0o755)
        vmm = os.path.join(self.folder, "mullion-vmm")
        os.symlink(os.path.join(build, "mullion-vmm"), vmm)
        self.daemon = Daemon(build, options={"vmm": vmm}).start()
        self.local = Client(self.daemon)
        self.config = os.path.join(self.folder, "config")

    def mullion(self, *words, stdin="", status=0, **env):
        """Run the command against the local socket. @return its output"""
        run = subprocess.run(
            [os.path.join(self.build, "mullion"), *words], input=stdin, capture_output=True,
            text=True, timeout=client.PATIENCE * 2, check=False,
            env=dict(os.environ, MULLION_RUNTIME_DIR=self.daemon.runtime,
                     XDG_CONFIG_HOME=self.config, **env))
        assert run.returncode == status, f"{words}: {run.returncode}, {run.stdout}{run.stderr}"
        return run.stdout + run.stderr

    def file(self, machine, name):
        return os.path.join(self.daemon.data, "datastores", "default", "machines", machine, name)

    def remove(self):
        self.daemon.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- Guests ----

def test_agent(w):
    local = w.local
    machine = local.machine("guest", disks=[{"capacity": 1 << 20}])
    path = "/machines/" + machine
    refused(409, local.post, path + "/exec", {"command": ["true"]})
    local.do(path + "/start")
    agent = FakeAgent(os.path.join(w.daemon.runtime, machine, "agent.sock"))
    got = local.post(path + "/exec", {"command": ["/bin/tr", "a-z", "A-Z"], "stdin": "abc"})
    assert got == {"status": 7, "stdout": "ABC\ufffd\ufffd \u00e9", "stderr": "", "truncated": False}, got
    assert agent.commands == [["/bin/tr", "a-z", "A-Z"]]
    refused(422, local.post, path + "/exec", {"command": []})
    refused(422, local.post, path + "/exec", {"command": ["x"], "timeout": 0})
    data = os.urandom(3_000_000)
    binary = {"Content-Type": "application/octet-stream"}
    assert local.raw("PUT", path + "/files?path=/tmp/a%20b", data, binary).status == 204
    assert agent.files["/tmp/a b"] == data
    assert local.raw("GET", path + "/files?path=/tmp/a%20b").body == data
    assert "No such file" in refused(409, local.get, path + "/files?path=/nothing")["detail"]
    assert local.raw("PUT", path + "/files?path=/x", b"", binary).status == 204
    assert local.raw("GET", path + "/files?path=/x").body == b""
    assert local.until(path, lambda m: m["addresses"] == ["192.0.2.7"])
    local.do(path + "/stop", {"force": True})
    assert local.get(path)["addresses"] == []
    local.do(path + "?disks=delete", method="DELETE")


def test_too_large_a_file(w):
    machine = w.local.machine("small")
    path = f"/machines/{machine}/files?path=/x"
    answer = w.local.raw("PUT", path, bytes((64 << 20) + 1), {"Content-Type": "application/octet-stream"})
    assert answer.status == 413, answer.text
    w.local.do("/machines/" + machine, method="DELETE")


def test_seed(w):
    machine = w.local.machine("seeded", cloud_init={
        "user": "ann", "password": "open sesame", "packages": ["nginx"]}, disks=[{"capacity": 1 << 20}])
    with open(w.file(machine, "seed.iso"), "rb") as f:
        seed = f.read()
    assert b"#cloud-config" in seed and b"nginx" in seed and b"$y$" in seed
    assert b"open sesame" not in seed
    assert stat.S_IMODE(os.stat(w.file(machine, "seed.iso")).st_mode) == 0o600
    for folder, _, files in os.walk(w.daemon.folder):
        for path in (os.path.join(folder, name) for name in files):
            if stat.S_ISREG(os.stat(path).st_mode):
                with open(path, "rb") as f:
                    assert b"open sesame" not in f.read(), path
    disks = w.local.get("/machines/" + machine)["config"]["disks"]
    assert disks[-1] == {"path": "seed.iso", "format": "raw", "readonly": True}, disks
    w.local.do(f"/machines/{machine}/start")
    w.local.do(f"/machines/{machine}/stop", {"force": True})
    # What is kept of its disks is not the seed.
    w.local.do(f"/machines/{machine}?disks=keep", method="DELETE")
    assert [i["name"] for i in w.local.get("/images")["items"]] == ["seeded-disk0"]
    w.local.delete("/images/seeded-disk0")


# ---- Images ----

def test_build(w):
    local = w.local
    task = local.wait(local.post("/images", {"name": "tiny"}))
    assert task["progress"] == 100
    image = local.get("/images/tiny")
    assert image["capacity"] == 8 << 20 and image["format"] == "qcow2" and image["state"] == "ready"
    refused(409, local.post, "/images", {"name": "tiny"})
    for bad in ("../tiny", "..", "none", ""):
        refused(422, local.post, "/images", {"name": bad})
    local.delete("/images/tiny")
    open(w.flag, "w", encoding="utf-8").close()
    task = local.wait(local.post("/images", {"name": "tiny"}), "failed")
    os.unlink(w.flag)
    assert "the kitchen burns" in task["error"]["detail"], task
    open(w.slow, "w", encoding="utf-8").close()
    task = local.post("/images", {"name": "tiny"})
    local.until("/tasks/" + task["id"], lambda t: t["step"] == "beginning")
    local.post(f"/tasks/{task['id']}/cancel")
    local.wait(task, "cancelled")
    os.unlink(w.slow)
    left = os.path.join(w.daemon.data, "datastores", "default", ".building")
    assert os.listdir(left) == [] and local.get("/images")["items"] == []


class ImageServer:
    """A web server of files in memory: {path: bytes}."""

    def __init__(self):
        self.files, self.asked = {}, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                data = outer.files.get(self.path)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/images"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_image_server(w):
    server = ImageServer()
    recipes = os.path.join(w.folder, "mullion-vmm")
    daemon = Daemon(w.build, options={"vmm": recipes, "image_server": server.url}).start()
    try:
        local = Client(daemon)
        disk = os.urandom(1 << 20) + bytes(1 << 20)
        lost = local.wait(local.post("/images", {"name": "debian-12"}), "failed")
        assert "404" in lost["error"]["detail"] and server.asked == ["/images/SHA256SUMS"], lost
        server.files["/images/SHA256SUMS"] = (
            f"{hashlib.sha256(disk).hexdigest()}  debian-12.raw\n{'0' * 64} *bad.raw\n"
            f"{'0' * 64}  ../evil.raw\n{'1' * 64}  gone.raw\n").encode()
        server.files["/images/debian-12.raw"] = server.files["/images/bad.raw"] = disk
        task = local.wait(local.post("/images", {"name": "debian-12"}))
        image = local.get("/images/debian-12")
        assert image["capacity"] == 2 << 20 and image["format"] == "qcow2", (task, image)
        bad = local.wait(local.post("/images", {"name": "bad"}), "failed")
        assert "SHA-256" in bad["error"]["detail"] and "0000" in bad["error"]["detail"], bad
        assert "404" in local.wait(local.post("/images", {"name": "gone"}), "failed")["error"]["detail"]
        none = local.wait(local.post("/images", {"name": "none"}), "failed")
        assert "none of that name" in none["error"]["detail"], none
        assert "/images/none" not in "".join(server.asked) and "evil" not in "".join(server.asked)
        local.wait(local.post("/images", {"name": "tiny"}))  # by its recipe
        assert {i["name"] for i in local.get("/images")["items"]} == {"debian-12", "tiny"}
        # A URL with a digest: all of it is there before anything is used.
        ask = {"kind": "image", "name": "by-url", "url": server.url + "/debian-12.raw", "sha256": "0" * 64}
        wrong = local.wait(local.post("/imports", ask), "failed")
        assert "not what was asked for" in wrong["error"]["detail"], wrong
        local.wait(local.post("/imports", dict(ask, sha256=hashlib.sha256(disk).hexdigest().upper())))
        assert local.get("/images/by-url")["capacity"] == 2 << 20
        refused(422, local.post, "/imports", {"kind": "image", "path": "/x", "sha256": "0" * 64})
        left = [n for n in os.listdir(os.path.join(daemon.data, "datastores", "default")) if "fetch" in n]
        assert not left, left
        local.delete("/images/by-url")
        store = os.path.join(daemon.data, "datastores", "default", ".building")
        assert os.listdir(store) == []
        server.server.shutdown()
        server.server.server_close()
        down = local.wait(local.post("/images", {"name": "bad"}), "failed")
        assert down["error"]["detail"].startswith("the image server: http://127.0.0.1"), down
    finally:
        daemon.remove()


# ---- The command line ----

def test_commands(w):
    assert "NAME" in w.mullion("list")
    assert json.loads(w.mullion("list", "--format", "json")) == []
    w.mullion("create", "one", "--memory", "64M", "--disk", "4M", "--disk", "8M,bus=sata", "--tag", "a",
              "--tag", "b", "--folder", "/prod")
    w.mullion("create", "one", "--memory", "64M", status=4)
    assert re.search(r"^one +stopped +1 +64MiB .* /prod +a,b$", w.mullion("list"), re.M)
    assert w.mullion("list", "--format", "csv").split("\n")[0].strip().startswith("name,state,cpus")
    assert w.mullion("list", "--tag", "zzz", "--format", "json").strip() == "[]"
    assert "64MiB" in w.mullion("info", "one") and "disk0.qcow2" in w.mullion("info", "one")
    assert "machine nothing: there is none" in w.mullion("info", "nothing", status=3)
    w.mullion("start", "one")
    w.mullion("start", "one", status=4)
    w.mullion("pause", "one")
    assert json.loads(w.mullion("info", "one", "--format", "json"))["state"] == "paused"
    w.mullion("resume", "one")
    assert w.mullion("edit", "one", "--cpus", "2") == ""
    assert json.loads(w.mullion("info", "one", "--format", "json"))["pending"] is True
    task = w.mullion("stop", "one", "--force", "--no-wait").strip()
    w.mullion("task", "wait", task)
    assert "succeeded" in w.mullion("task", "info", task)
    w.mullion("rename", "one", "two")
    w.mullion("disk", "add", "two", "1M")
    assert len(json.loads(w.mullion("disk", "list", "two", "--format", "json"))) == 3
    w.mullion("disk", "snapshot", "two", "disk0", "before")
    assert "before" in w.mullion("disk", "snapshots", "two", "disk0")
    w.mullion("disk", "revert", "two", "disk0", "before")
    w.mullion("disk", "forget", "two", "disk0", "before")
    w.mullion("delete", "two", "--yes", status=2)  # its disks?
    w.mullion("delete", "two", "--disks", "delete", status=1)  # nobody to ask
    w.mullion("delete", "two", "--disks", "delete", "--yes")
    assert "two" in w.mullion("event", "list")
    for wrong in (("list", "--colour"), ("start",), ("create", "x", "--cpus", "many"),
                  ("network", "frobnicate"), ("list", "--format", "xml"), ("info", "a", "b")):
        w.mullion(*wrong, status=2)


def test_launch_and_images(w):
    assert "tiny" not in w.mullion("image", "list")
    w.mullion("launch", "tiny", "fresh", "--memory", "64M", "--user", "ann", "--password",
              stdin="secret\n")
    assert "tiny" in w.mullion("image", "list")
    assert "running" in w.mullion("info", "fresh")
    assert "no recipe" in w.mullion("launch", "unheard-of", status=1)
    w.mullion("stop", "fresh", "--force")
    out = os.path.join(w.folder, "fresh.ova")
    w.mullion("export", "fresh", "--output", out)
    assert os.path.getsize(out) > 1000
    assert "machine again is there" in w.mullion("import", out, "--name", "again")
    disk = os.path.join(w.folder, "small.qcow2")
    subprocess.run([os.path.join(w.build, "mullion"), "image", "create", disk, "1M", "--to", "qcow2"],
                   check=True)
    w.mullion("image", "add", disk)
    assert "small" in w.mullion("image", "list")
    w.mullion("delete", "fresh", "again", "--disks", "delete", "--yes")
    w.mullion("image", "remove", "small", "tiny")


def test_people_and_contexts(w):
    w.mullion("user", "create", "bob", "--role", "viewer", stdin="bobs secret\n")
    assert "viewer" in w.mullion("user", "list")
    host, port = w.daemon.address
    url = f"https://{host}:{port}"
    assert "not trusted" in w.mullion("context", "add", "far", url, "--user", "bob", stdin="x\n", status=5)
    pin = re.search(r"sha256//\S+", w.mullion("context", "add", "far", url, status=5))[0]
    assert pin in w.mullion("host", "status")
    w.mullion("context", "add", "far", url, "--pin", pin, "--user", "bob", stdin="wrong\n", status=5)
    w.mullion("context", "add", "far", url, "--pin", pin, "--user", "bob", stdin="bobs secret\n")
    path = os.path.join(w.config, "mullion", "contexts.json")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, encoding="utf-8") as f:
        assert "bobs secret" not in f.read()
    assert "bob" in w.mullion("whoami")
    w.mullion("create", "x", "--memory", "64M", status=5)
    assert "local" in w.mullion("whoami", "--host", f"unix:{w.daemon.socket}")
    other = "sha256//" + base64.b64encode(bytes(32)).decode()
    assert "another key" in w.mullion("whoami", status=6, MULLION_PIN=other)
    w.mullion("context", "use", "none")
    w.mullion("context", "remove", "far")
    assert "no host answers" in w.mullion("list", "--host", "unix:/nonexistent", status=6)
    w.mullion("user", "delete", "bob")


def test_completion(w):
    w.mullion("create", "alpha", "--memory", "64M")
    for shell in ("bash", "zsh", "fish"):
        assert "complete-words" in w.mullion("completion", shell)
    assert w.mullion("complete-words", "--", "start", "al").split() == ["alpha"]
    assert {"start", "stop", "stats"} <= set(w.mullion("complete-words", "--", "st").split())
    assert "--force" in w.mullion("complete-words", "--", "stop", "--").split()
    assert w.mullion("complete-words", "--", "list", "--state", "run").split() == ["running"]
    assert {"list", "create"} <= set(w.mullion("complete-words", "--", "network", "").split())
    bash = (w.mullion("completion", "bash") + "COMP_WORDS=(mullion start al); COMP_CWORD=2; _mullion; "
            "echo \"${COMPREPLY[@]}\"")
    env = dict(os.environ, MULLION_RUNTIME_DIR=w.daemon.runtime, XDG_CONFIG_HOME=w.config,
               PATH=w.build + ":" + os.environ["PATH"])
    got = subprocess.run(["bash", "-c", bash], env=env, capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "alpha", got
    w.mullion("delete", "alpha", "--yes")


def test_console(w):
    w.mullion("create", "talker", "--memory", "64M", "--disk", "1M", "--start")
    out = w.mullion("console", "talker", "--log")
    assert isinstance(out, str)
    w.mullion("stop", "talker", "--force")
    w.mullion("console", "talker", status=4)
    w.mullion("delete", "talker", "--disks", "delete", "--yes")


def test_manual_pages(w):
    folder = os.path.join(w.folder, "man")
    os.mkdir(folder)
    w.mullion("write-manuals", folder)
    pages = os.listdir(folder)
    assert "mullion-launch.1" in pages and len(pages) > 50, pages
    for page in pages:
        with open(os.path.join(folder, page), encoding="utf-8") as f:
            text = f.read()
        assert ".Sh NAME" in text and ".Sh EXIT STATUS" in text, page
    assert "Usage: mullion launch" in w.mullion("launch", "--help")


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, harness.tests_of(globals()), World))
