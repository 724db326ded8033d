#!/usr/bin/env python3
"""What machines are made of and become: templates, imports of disks, exports as folders. Every answer
is checked against the OpenAPI document."""
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading

import harness
from api_world import World, refused

MIB = 1 << 20


def image_tool(w, *args):
    got = subprocess.run([os.path.join(w.build, "mullion"), "image", *args], check=False,
                         stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert got.returncode == 0, f"image {args}: {got.stderr}"
    return got.stdout


def cli(w, *args, status=0):
    env = dict(os.environ, MULLION_HOST="unix:" + w.daemon.socket,
               XDG_CONFIG_HOME=os.path.join(w.daemon.folder, "config"))
    got = subprocess.run([os.path.join(w.build, "mullion"), *args], check=False, env=env,
                         stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert got.returncode == status, f"{args}: {got.returncode} {got.stdout} {got.stderr}"
    return got.stdout


def store(w, *parts):
    return os.path.join(w.daemon.data, "datastores", "default", *parts)


def pattern(w, seed, size):
    """A raw disk with content."""
    path = os.path.join(w.daemon.folder, f"pattern-{seed}.raw")
    with open(path, "wb") as f:
        for i in range(0, size, MIB):
            f.seek(i)
            f.write(bytes([seed, i // MIB]) * 2048)
        f.truncate(size)
    return path


def content(w, machine, index=0):
    """What a machine's disk holds, as raw bytes."""
    disk = w.local.get(f"/machines/{machine}/disks")["items"][index]
    out = os.path.join(w.daemon.folder, "content.raw")
    image_tool(w, "convert", store(w, "machines", machine, disk["path"]), out, "--to", "raw", "--anywhere")
    with open(out, "rb") as f:
        return f.read()


def source_machine(w, name, **kw):
    """A machine whose first disk holds something."""
    raw = pattern(w, 7, 8 * MIB)
    w.local.do("/imports", {"kind": "image", "path": raw, "name": name + "-image"})
    return w.local.machine(name, image=name + "-image", **kw)


# ---- Templates ----

def test_template_of_a_machine(w):
    local = w.local
    source = source_machine(w, "origin", os="debian12-64", cpus=2, disks=[{"capacity": 8 * MIB},
                            {"capacity": 4 * MIB}], networks=[{"mac": "52:54:00:00:00:17",
                            "forward": ["tcp:2222:22"]}], cloud_init={"hostname": "origin"})
    before = content(w, source)
    task = local.do("/templates", {"name": "web", "machine": source, "description": "all webs"})
    made = task["result"]["object"].partition(":")[2]
    got = local.get("/templates/" + made)
    assert got["state"] == "ready" and got["size"] > 0 and got["linked"] == 0
    config = got["config"]
    assert "uuid" not in config and "name" not in config and "mac" not in config["networks"][0]
    assert "forward" not in config["networks"][0]
    assert [d["path"] for d in config["disks"]] == ["disk0.qcow2", "disk1.qcow2"], config["disks"]
    assert sorted(os.listdir(store(w, "templates", made))) == ["disk0.qcow2", "disk1.qcow2",
                                                                "machine.json"]
    listed = local.get("/templates?q=WEB")["items"]
    assert [t["name"] for t in listed] == ["web"] and "config" not in listed[0]
    assert listed[0]["os"] == "debian12-64" and listed[0]["cpus"] == 2
    refused(409, local.post, "/templates", {"name": "web", "machine": source}, field="/name")
    refused(422, local.post, "/templates", {"name": "other", "machine": made}, field="/machine")
    refused(422, local.post, "/templates", {"name": "../x", "machine": source})
    # The files are the template's to remove, and no one's to download without a role.
    default = local.get("/datastores")["items"][0]["id"]
    entry = local.get(f"/datastores/{default}/files?path=templates/{made}")["items"][0]
    assert entry["used_by"] == "template:" + made
    refused(409, local.delete, f"/datastores/{default}/files?path=templates/{made}/disk0.qcow2")

    copy = local.machine("web-1", template="web", memory=128 * MIB, disks=[{"capacity": MIB}])
    whole = local.get("/machines/" + copy)
    assert whole["os"] == "debian12-64" and whole["cpus"] == 2 and whole["memory"] == 128 * MIB
    assert whole["config"]["uuid"] == copy != source
    names = [d["path"] for d in whole["config"]["disks"]]
    assert names[:2] == ["disk0.qcow2", "disk1.qcow2"] and names[2] == "disk2.qcow2", names
    assert names[3] == "seed.iso", "no seed, so cloud-init would think it is the old machine"
    assert content(w, copy) == before
    seeds = [open(store(w, "machines", m, "seed.iso"), "rb").read() for m in (source, copy)]
    assert copy.encode() in seeds[1] and source.encode() not in seeds[1]

    linked = local.machine("web-2", template=made, linked=True)
    assert content(w, linked) == before
    local.do(f"/machines/{linked}/start")  # its process opens the template's disk, too
    local.do(f"/machines/{linked}/stop", {"force": True})
    assert os.path.getsize(store(w, "machines", linked, "disk0.qcow2")) < MIB
    assert local.get("/templates/" + made)["linked"] == 1
    refused(409, local.delete, "/templates/" + made)
    # A template of a linked machine, and what is kept of one, stand for themselves.
    local.do("/templates", {"name": "flat", "machine": linked})
    local.do(f"/machines/{linked}?disks=keep", method="DELETE")
    image = local.get("/images/web-2-disk0")
    assert image["capacity"] == 8 * MIB
    kept = local.machine("web-3", image="web-2-disk0")
    assert content(w, kept) == before
    again = local.machine("web-4", template="flat", cloud_init={"hostname": "four"})
    assert content(w, again) == before
    for machine in (copy, kept, again, source):
        local.do(f"/machines/{machine}?disks=delete", method="DELETE")
    assert local.get("/templates/" + made)["linked"] == 0
    refused(412, local.delete, "/templates/" + made, headers={"If-Match": '"0"'})
    for template in local.get("/templates")["items"]:
        local.do("/templates/" + template["id"], method="DELETE")
    assert os.listdir(store(w, "templates")) == []
    for image in ("web-2-disk0", "web-2-disk1", "origin-image"):
        local.delete("/images/" + image)


def test_template_wrong(w):
    local = w.local
    for body, field in (({"template": "none"}, "/template"), ({"linked": True}, "/linked")):
        refused(422, local.post, "/machines", dict(body, name="x"), field=field)
    machine = local.machine("runs", disks=[{"capacity": MIB}])
    local.do("/templates", {"name": "t", "machine": machine})
    refused(422, local.post, "/machines", {"name": "x", "template": "t", "image": "i"}, field="/image")
    local.do(f"/machines/{machine}/start")
    refused(409, local.post, "/templates", {"name": "u", "machine": machine})
    local.do(f"/machines/{machine}/stop", {"force": True})
    # Who sees neither machine nor template learns nothing of them; a viewer may not make any.
    refused(403, w.people["viewer"].post, "/templates", {"name": "u", "machine": machine})
    template = local.get("/templates")["items"][0]["id"]
    refused(404, w.people["none"].get, "/templates/" + template)
    refused(403, w.people["none"].get, "/templates")
    assert w.people["viewer"].get("/templates")["total"] == 1
    # Its disk is torn: the copy fails, and nothing is left of it.
    disk = store(w, "templates", template, "disk0.qcow2")
    shutil.move(disk, disk + ".away")
    task = local.wait(local.post("/machines", {"name": "torn", "template": "t"}), "failed")
    assert "disk0.qcow2" in task["error"]["detail"], task
    assert local.get("/machines?q=torn")["total"] == 0
    shutil.move(disk + ".away", disk)
    local.do("/templates/" + template, method="DELETE")
    local.do(f"/machines/{machine}?disks=delete", method="DELETE")


def test_template_interrupted(w):
    """A daemon that is killed while it makes one leaves nothing of it."""
    machine = w.local.machine("slow", disks=[{"capacity": MIB}])
    task = w.local.post("/templates", {"name": "half", "machine": machine})
    w.daemon.kill()
    w.local.close()
    w.daemon.start()
    left = w.local.get("/templates")["items"]
    assert [t["state"] for t in left] in ([], ["ready"]), left
    assert set(os.listdir(store(w, "templates"))) == {t["id"] for t in left}
    assert w.local.get("/tasks/" + task["id"])["state"] in ("failed", "succeeded")
    for template in left:
        w.local.do("/templates/" + template["id"], method="DELETE")
    w.local.do(f"/machines/{machine}?disks=delete", method="DELETE")


def test_templates_by_command(w):
    machine = w.local.machine("typed", disks=[{"capacity": MIB}])
    cli(w, "template", "create", "typed-template", "typed", "--description", "a text")
    rows = json.loads(cli(w, "template", "list", "--format", "json"))
    assert [r["name"] for r in rows] == ["typed-template"] and rows[0]["description"] == "a text"
    assert "typed-template" in cli(w, "template", "info", "typed-template")
    cli(w, "create", "typed-2", "--template", "typed-template", "--linked")
    cli(w, "template", "delete", "typed-template", status=4)
    second = w.local.get("/machines?q=typed-2")["items"][0]["id"]
    for m in (machine, second):
        w.local.do(f"/machines/{m}?disks=delete", method="DELETE")
    cli(w, "template", "delete", "typed-template")
    assert w.local.get("/templates")["total"] == 0


# ---- Imports ----

def test_disks_from_every_format(w):
    local = w.local
    raw = pattern(w, 9, 4 * MIB)
    with open(raw, "rb") as f:
        wanted = f.read()
    machine = local.machine("many", disks=[{"capacity": MIB}])
    for i, kind in enumerate(("raw", "qcow2", "vmdk", "vhdx", "vhd", "vdi"), 1):
        path = os.path.join(w.daemon.folder, "disk." + kind)
        if kind != "raw":
            image_tool(w, "convert", raw, path, "--to", kind, "--from", "raw")
        else:
            path = raw
        task = local.do("/imports", {"kind": "disk", "path": path, "machine": machine, "bus": "sata"})
        assert task["object"] == "machine:" + machine and task["type"] == "import.disk"
        disk = local.get(f"/machines/{machine}/disks")["items"][i]
        assert disk["format"] == "qcow2" and disk["bus"] == "sata", disk
        assert content(w, machine, i)[:len(wanted)] == wanted, kind
    # What an operator may do: an upload, a file of a datastore; not a file of the host.
    operator = w.people["operator"]
    default = local.get("/datastores")["items"][0]["id"]
    shutil.copy(os.path.join(w.daemon.folder, "disk.vmdk"), store(w, "images", "given.vmdk"))
    operator.do("/imports", {"kind": "disk", "machine": machine,
                             "file": {"datastore": default, "path": "images/given.vmdk"}})
    assert content(w, machine, 7)[:len(wanted)] == wanted
    operator.do("/imports", {"kind": "image", "name": "given",
                             "file": {"datastore": "default", "path": "images/given.vmdk"}})
    refused(403, operator.post, "/imports", {"kind": "disk", "machine": machine, "path": raw})
    for path in ("../../host.db", "images/none.vmdk", "images", "/etc/passwd"):
        refused(422, operator.post, "/imports", {"kind": "disk", "machine": machine,
                "file": {"datastore": default, "path": path}}, field="/file/path")
    refused(422, operator.post, "/imports", {"kind": "disk", "machine": machine,
            "file": {"datastore": "none", "path": "x"}}, field="/file/datastore")
    for body in ({}, {"machine": default}):
        refused(422, local.post, "/imports", dict(body, kind="disk", path=raw), field="/machine")
    # A disk that would show another file of the host is refused, and nothing of it stays.
    before = sorted(os.listdir(store(w, "machines", machine)))
    evil = os.path.join(w.daemon.folder, "evil.qcow2")
    image_tool(w, "create", evil, "--to", "qcow2", "--backing", raw, "--backing-format", "raw")
    with open(os.path.join(w.daemon.folder, "torn.qcow2"), "wb") as f:
        f.write(b"QFI\xfb\0\0\0\3" + b"\xff" * 4096)
    for name, text in (("evil.qcow2", "stands on another"), ("torn.qcow2", "")):
        data = open(os.path.join(w.daemon.folder, name), "rb").read()
        upload = operator.post("/uploads", {"name": name, "size": len(data)})["id"]
        operator.call("PATCH", "/uploads/" + upload, data, {"Upload-Offset": "0", "Content-Type":
                      "application/octet-stream"})
        task = operator.wait(operator.post("/imports", {"kind": "disk", "machine": machine,
                                                        "upload": upload}), "failed")
        assert text in task["error"]["detail"], task
        operator.delete("/uploads/" + upload)
    assert sorted(os.listdir(store(w, "machines", machine))) == before
    assert not [n for n in os.listdir(store(w)) if n.startswith(".")]
    local.do(f"/machines/{machine}/start")
    refused(409, local.post, "/imports", {"kind": "disk", "machine": machine, "path": raw})
    local.do(f"/machines/{machine}/stop", {"force": True})
    local.do(f"/machines/{machine}?disks=delete", method="DELETE")
    local.delete("/images/given")


class Files(http.server.SimpleHTTPRequestHandler):
    """A server of one folder that knows ranges, as disks are read."""

    def do_GET(self):
        with open(self.translate_path(self.path), "rb") as f:
            data = f.read()
        self.protocol_version = "HTTP/1.1"
        wanted = self.headers.get("Range")
        first, last = 0, len(data) - 1
        if wanted:
            first, last = (int(n) for n in wanted.partition("=")[2].split("-"))
            last = min(last, len(data) - 1)
        part = data[first:last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_):
        pass


def test_an_image_of_a_server(w):
    raw = pattern(w, 5, 2 * MIB)
    image_tool(w, "convert", raw, os.path.join(w.daemon.folder, "far.qcow2"), "--to", "qcow2",
               "--from", "raw")
    handler = functools.partial(Files, directory=w.daemon.folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/far.qcow2"
        cli(w, "image", "add", url, "--name", "far")
        machine = w.local.machine("near", disks=[{"capacity": MIB}])
        cli(w, "disk", "import", url, "near", "--bus", "nvme")
        server.shutdown()
    assert w.local.get("/images/far")["capacity"] == 2 * MIB
    with open(raw, "rb") as f:
        assert content(w, machine, 1) == f.read()
    w.local.do(f"/machines/{machine}?disks=delete", method="DELETE")
    w.local.delete("/images/far")


# ---- Exports ----

def test_exports_of_folders(w):
    local = w.local
    source = source_machine(w, "leaving", os="debian12-64")
    before = content(w, source)
    for kind, end in (("ovf", ".ovf"), ("vmx", ".vmx"), ("libvirt", ".xml")):
        task = local.do(f"/machines/{source}/export", {"format": kind})
        answer = local.raw("GET", task["result"]["download"], api="")
        path = os.path.join(w.daemon.folder, "got.tar")
        with open(path, "wb") as f:
            f.write(answer.body)
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert all(n.startswith("leaving/") for n in names), names
            if kind == "libvirt":
                assert b'file="leaving-disk0' in tar.extractfile("leaving/leaving.xml").read()
            assert any(n.endswith(end) for n in names) and len(names) >= 2, names
        folder = os.path.join(w.daemon.folder, "out-" + kind)
        cli(w, "export", "leaving", "--format", kind, "--output", folder)
        assert sorted("leaving/" + n for n in os.listdir(folder)) == sorted(names)
        cli(w, "export", "leaving", "--format", kind, "--output", folder, status=4)
        # What has left comes back: the folder, read by the same host.
        description = [n for n in os.listdir(folder) if n.endswith(end)][0]
        task = local.do("/imports", {"kind": "appliance", "name": "back-" + kind,
                                     "path": os.path.join(folder, description)})
        back = task["result"]["object"].partition(":")[2]
        assert content(w, back) == before, kind
        local.do(f"/machines/{back}?disks=delete", method="DELETE")
    # Into a datastore.
    default = local.get("/datastores")["items"][0]["id"]
    task = local.do(f"/machines/{source}/export", {"format": "vmx", "datastore": "default"})
    assert task["result"]["path"] == "exports/leaving-vmx" and task["result"]["datastore"] == default
    listed = local.get(f"/datastores/{default}/files?path=exports/leaving-vmx")["items"]
    assert any(f["name"].endswith(".vmx") for f in listed), listed
    local.wait(local.post(f"/machines/{source}/export", {"format": "vmx", "datastore": default}),
               "failed")
    assert "exports/leaving.ova is in" in cli(w, "export", "leaving", "--datastore", "default")
    refused(422, local.post, f"/machines/{source}/export", {"format": "ova", "datastore": "none"},
            field="/datastore")
    assert not [n for n in os.listdir(store(w)) if n.startswith(".")]
    local.do(f"/machines/{source}?disks=delete", method="DELETE")
    local.delete("/images/leaving-image")


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, harness.tests_of(globals()), World))
