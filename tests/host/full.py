#!/usr/bin/env python3
"""A disk that is full, of the datastore and of the daemon's own data: whatever needs room is refused as
such (507), leaves nothing behind and works once there is room; guests are paused or see the error, as their
disks' on_error says. On small file systems (tmpfs) in a mount namespace that this makes for itself; where that is
not allowed each test says that it was skipped."""
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import harness
from client import PATIENCE, Client, Daemon, Refused
from harness import Skip

MIB = 1 << 20
STORE, DATA = 48 * MIB, 96 * MIB


def every_file(*folders):
    return {os.path.join(at, name) for folder in folders for at, _, names in os.walk(folder) for name in names}


class World:
    def __init__(self, build, guest):
        self.build, self.guest = build, guest
        self.folder = tempfile.mkdtemp(prefix="mullion-f")
        self.data, self.store = (os.path.join(self.folder, n) for n in ("data", "store"))
        for path, size in ((self.data, DATA), (self.store, STORE)):
            os.mkdir(path)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "full", path], check=True)
        vmm = self.kitchen()
        self.daemon = Daemon(build, options={"vmm": vmm}, data=self.data).start()
        self.local = Client(self.daemon)
        made = self.local.post("/datastores", {"name": "small", "path": self.store})
        self.local.patch("/datastores/" + made["id"], {"default": True})
        # 8 MiB that do not compress, and the same in every shape.
        self.raw = os.path.join(self.folder, "noise.raw")
        with open(self.raw, "wb") as f:
            f.write(os.urandom(8 * MIB))

    def kitchen(self):
        """Recipes lie beside mullion-vmm: one that makes an image of 8 MiB."""
        images = os.path.join(self.folder, "mullion", "images")
        os.makedirs(images)
        with open(os.path.join(images, "cake"), "w", encoding="utf-8") as f:
            f.write(f'#!/bin/sh\nset -e\n"$1" image convert "{self.folder}/noise.raw" "$2/image.qcow2" '
                    '--from raw --to qcow2\n')
        os.chmod(os.path.join(images, "cake"), 0o755)
        vmm = os.path.join(self.folder, "mullion-vmm")
        os.symlink(os.path.join(self.build, "mullion-vmm"), vmm)
        return vmm

    def fill(self, where, leave=0):
        """Nothing fits in any more but @leave bytes."""
        with open(os.path.join(where, "filler"), "ab", buffering=0) as f:
            while True:
                fs = os.statvfs(where)
                room = fs.f_bavail * fs.f_frsize - leave
                if room <= 0:
                    return
                try:
                    f.write(bytes(min(room, MIB)))
                except OSError:
                    return

    def empty(self, where):
        path = os.path.join(where, "filler")
        if os.path.exists(path):
            os.unlink(path)

    def inventory(self):
        """What there is: files of both, rows of all kinds."""
        rows = {kind: sorted(o.get("id") or o["name"] for o in self.local.get("/" + kind)["items"])
                for kind in ("machines", "images", "templates")}
        own = [n for n in every_file(self.store, os.path.join(self.data, "uploads"),
                                     os.path.join(self.data, "exports")) if not n.endswith("/filler")]
        return rows, sorted(own)

    def needs_room(self, where, path, body, leave=MIB):
        """A task that has none fails, leaves nothing, and works with room. @return the task"""
        before = self.inventory()
        self.fill(where, leave)
        try:
            task = self.local.wait(self.local.post(path, body), "failed")
        except Refused as e:
            problem = e.answer.json
        else:
            problem = task["error"]
        assert problem["status"] == 507 and problem["type"].endswith("/no-space"), problem
        assert problem["detail"], problem
        assert self.inventory() == before, (before, self.inventory())
        self.empty(where)
        return self.local.do(path, body)

    def forget(self, *machines):
        for machine in machines:
            self.local.do(f"/machines/{machine}?disks=delete", method="DELETE")

    def remove(self):
        self.daemon.remove()
        for path in (self.data, self.store):
            subprocess.run(["umount", "-l", path], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def object_of(task):
    return task["result"]["object"].partition(":")[2]


def test_image(w):
    w.needs_room(w.store, "/imports", {"kind": "image", "path": w.raw, "name": "noise"})
    w.needs_room(w.store, "/imports", {"kind": "iso", "path": w.raw, "name": "disc"})
    w.local.delete("/images/disc")


def test_machine_of_an_image(w):
    """Its disk is a copy of the image."""
    made = w.needs_room(w.store, "/machines", {"name": "copied", "memory": 64 * MIB, "networks": [],
                                               "image": "noise"})
    w.forget(object_of(made))


def test_disk_and_what_is_made_of_a_machine(w):
    machine = w.local.machine("grown", disks=[{"capacity": MIB}])
    path = "/machines/" + machine
    before = w.local.get(path)["config"]
    w.fill(w.store, MIB)
    refused(w, "/imports", {"kind": "disk", "path": w.raw, "machine": machine})
    assert w.local.get(path)["config"] == before
    w.empty(w.store)
    w.needs_room(w.store, "/imports", {"kind": "disk", "path": w.raw, "machine": machine})
    assert len(w.local.get(path + "/disks")["items"]) == 2
    w.local.delete("/images/noise")
    template = object_of(w.needs_room(w.store, "/templates", {"name": "t", "machine": machine}))
    w.local.do("/templates/" + template, method="DELETE")
    for kind in ("ova", "vmx"):
        done = w.needs_room(w.store, path + "/export", {"format": kind, "datastore": "small"})
        name = os.path.join(w.store, done["result"]["path"])
        if kind == "vmx":
            shutil.rmtree(name)
    w.appliance = os.path.join(w.folder, "grown.ova")
    shutil.move(os.path.join(w.store, "exports", "grown.ova"), w.appliance)
    # To be downloaded: the daemon's own data have no room.
    done = w.needs_room(w.data, path + "/export", {"format": "libvirt"})
    assert w.local.raw("GET", done["result"]["download"], api="").status == 200
    w.forget(machine)


def refused(w, path, body):
    task = w.local.wait(w.local.post(path, body), "failed")
    assert task["error"]["status"] == 507, task


def test_appliance(w):
    w.forget(object_of(w.needs_room(w.store, "/imports", {"kind": "appliance", "path": w.appliance,
                                                          "name": "back"})))


def test_built_image(w):
    w.needs_room(w.store, "/images", {"name": "cake"})
    w.local.delete("/images/cake")
    assert not [n for n in every_file(w.store) if "building" in n]


def test_upload(w):
    local = w.local
    with open(w.raw, "rb") as f:
        content = f.read()
    w.fill(w.data, MIB)
    answer = local.raw("POST", "/uploads", {"name": "up.raw", "size": len(content)})
    assert answer.status == 507 and answer.json["field"] == "/size", answer.text
    w.empty(w.data)
    upload = local.post("/uploads", {"name": "up.raw", "size": len(content)})["id"]
    # There was room when it began.
    w.fill(w.data, 2 * MIB)
    kind = {"Content-Type": "application/octet-stream"}
    answer = local.raw("PATCH", "/uploads/" + upload, content, {"Upload-Offset": "0", **kind})
    assert answer.status == 507 and answer.json["type"].endswith("/no-space"), answer.text
    offset = local.get("/uploads/" + upload)["offset"]
    assert 0 < offset < len(content), offset
    w.empty(w.data)
    local.call("PATCH", "/uploads/" + upload, content[offset:], {"Upload-Offset": str(offset), **kind})
    # Its image does not fit, the upload is still there and fits later.
    w.fill(w.store, MIB)
    refused(w, "/imports", {"kind": "image", "upload": upload, "name": "up"})
    w.empty(w.store)
    local.do("/imports", {"kind": "image", "upload": upload, "name": "up"})
    assert not every_file(os.path.join(w.data, "uploads"))
    local.delete("/images/up")


def test_database(w):
    """What cannot be written down is refused; what is known stays so; the end and the next start find it so."""
    local = w.local
    machine = local.machine("steady", disks=[{"capacity": MIB}])
    own = next(d for d in local.get("/datastores")["items"] if d["name"] == "default")["id"]
    gone = local.machine("gone", disks=[{"capacity": MIB}], datastore=own)
    local.do("/imports", {"kind": "image", "path": w.raw, "name": "gone", "datastore": own})
    # Who has to make room can: there is some kept for that.
    w.fill(w.data)
    local.delete("/images/gone")
    w.fill(w.data)
    w.forget(gone)
    assert not every_file(os.path.join(w.data, "datastores"))
    refusals, kept = [], -1
    for i in range(20000):
        w.fill(w.data)
        answer = local.raw("PATCH", "/machines/" + machine, {"description": f"{i} " + "x" * 3000})
        if answer.status != 200:
            refusals.append(answer)
            break
        kept = i
    assert refusals and refusals[0].status == 507, refusals and refusals[0].text
    assert refusals[0].json["type"].endswith("/no-space"), refusals[0].text
    assert local.get("/machines/" + machine)["description"].startswith(f"{kept} ")
    answer = local.raw("POST", "/machines", {"name": "new", "memory": 64 * MIB, "networks": [],
                                             "disks": [{"capacity": MIB}]})
    assert answer.status in (202, 507), answer.text
    if answer.status == 202:
        local.wait(answer.json, None)
    w.daemon.kill()
    local.close()
    w.daemon.start()
    assert local.get("/machines/" + machine)["description"].startswith(f"{kept} ")
    w.daemon.stop()
    local.close()
    w.empty(w.data)
    w.daemon.start()
    assert local.get("/machines/" + machine)["description"].startswith(f"{kept} ")
    for other in local.get("/machines")["items"]:
        assert other["state"] == "stopped", other
        w.forget(other["id"])
    assert not every_file(os.path.join(w.store, "machines"))


def guest_machine(w, name, policy):
    """A guest of kernel and initrd, with a thin disk that asks for @policy."""
    assets = os.path.join(w.guest, "6.12")
    machine = w.local.machine(name, memory=96 * MIB, disks=[{"capacity": 8 * MIB}], config={
        "kernel": os.path.join(assets, "vmlinuz"), "initrd": os.path.join(assets, "initrd"),
        "cmdline": "console=ttyS0 quiet mullion.do=shell mullion.network=off"})
    disk = w.local.get("/machines/" + machine)["config"]["disks"]
    disk[0]["on_error"] = policy
    w.local.patch("/machines/" + machine, {"config": {"disks": disk}})
    return machine


class Shell:
    """The shell of such a guest."""

    def __init__(self, w, machine):
        ticket = w.local.post(f"/machines/{machine}/console", {"type": "serial"})
        self.socket, self.said = w.local.websocket(ticket["url"]), b""
        self.socket.sock.settimeout(1)

    def until(self, pattern, send=None, again=False):
        end = time.monotonic() + 2 * PATIENCE
        if send:
            self.socket.send(send)
        while not re.search(pattern, self.said):
            assert time.monotonic() < end, self.said[-2000:]
            try:
                self.said += self.socket.message()
            except TimeoutError:
                if again:
                    self.socket.send(send)
        return re.search(pattern, self.said)[0]


WRITE = b"dd if=/dev/urandom of=/dev/vda bs=64k count=96 conv=fsync 2>/dev/null; echo wro''te-$?-\n"


def test_guests(w):
    """One is paused, told with the reason, and goes on; the other has its I/O error and goes on."""
    if not os.path.exists(os.path.join(w.guest, "6.12", "vmlinuz")):
        raise Skip("no guest: scripts/guest-assets")
    local = w.local
    machines = [guest_machine(w, n, p) for n, p in (("waits", "pause"), ("told", "report"))]
    for machine in machines:
        local.do(f"/machines/{machine}/start")
    waits, told = (Shell(w, m) for m in machines)
    for shell in (waits, told):
        shell.until(rb"there-is-a-shell", b"echo there-is-a-sh''ell\n", again=True)
    after = max(e["id"] for e in local.get("/events?limit=1000&sort=-id")["items"])
    w.fill(w.store, 2 * MIB)
    waits.until(rb"dd if", WRITE)
    local.until("/machines/" + machines[0], lambda m: m["state"] == "paused")
    assert told.until(rb"wrote-\d+-", WRITE) != b"wrote-0-"
    state = local.get("/machines/" + machines[0])
    assert "No space left" in state["state_reason"] and "make room" in state["state_reason"], state
    assert local.get("/machines/" + machines[1])["state"] == "running"
    event = next(e for e in local.get(f"/events?after={after}")["items"] if e["type"] == "machine.paused")
    assert "No space left" in event["text"] and event["severity"] == "warning", event
    # Resumed without room it is paused again; with room nothing was lost.
    local.do(f"/machines/{machines[0]}/resume")
    local.until("/machines/" + machines[0], lambda m: m["state"] == "paused" and m["state_reason"])
    assert b"wrote-" not in waits.said
    w.empty(w.store)
    local.do(f"/machines/{machines[0]}/resume")
    assert waits.until(rb"wrote-\d+-") == b"wrote-0-"
    assert local.get("/machines/" + machines[0])["state_reason"] is None
    told.said = b""
    assert told.until(rb"wrote-\d+-", WRITE) == b"wrote-0-"
    for shell, machine in zip((waits, told), machines):
        shell.socket.close()
        local.do(f"/machines/{machine}/stop", {"force": True})
        path = os.path.join(w.store, "machines", machine, "disk0.qcow2")
        subprocess.run([os.path.join(w.build, "mullion"), "image", "check", path], check=True,
                       capture_output=True)
    w.forget(*machines)


def with_room_after(test):
    """A test that broke must not break the others."""
    @functools.wraps(test)
    def whole(w):
        try:
            test(w)
        finally:
            for where in (w.data, w.store):
                w.empty(where)
    return whole


UNSHARE = ["unshare", "--mount"]


def why_not():
    """Why no file system can be mounted here; None: it can."""
    if os.getuid():
        return "mounting small file systems needs root"
    if subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "full", "/mnt"], check=False,
                      capture_output=True).returncode:
        return "no file system can be mounted here"
    return None


if __name__ == "__main__":
    sys.exit(harness.main_inside(__doc__, [with_room_after(f) for f in harness.tests_of(globals())], World, UNSHARE,
                                 why_not))
