"""The API: uploads, images, exports; datastores, the portal's files, networks."""
import hashlib
import os
import random
import subprocess

from api_world import refused
from client import Client, Daemon


def upload(who, name, data, sha=True, piece=100000):
    made = who.post("/uploads", {"name": name, "size": len(data),
                                 **({"sha256": hashlib.sha256(data).hexdigest()} if sha else {})})
    path, at = "/uploads/" + made["id"], 0
    while at < len(data):
        got = who.call("PATCH", path, data[at:at + piece],
                       {"Upload-Offset": str(at), "Content-Type": "application/octet-stream"})
        at += piece
        assert got["offset"] == min(at, len(data))
    return made["id"]


def test_uploads_images_exports(w):
    operator, local = w.people["operator"], w.local
    disk = os.path.join(w.daemon.folder, "disk.raw")
    data = bytes(random.Random(1).randbytes(1 << 20)) + bytes(1 << 20)
    ident = upload(operator, "../../my disk.raw", data)
    task = operator.do("/imports", {"upload": ident, "kind": "image", "name": "golden"})
    assert task["result"]["object"] == "image:golden"
    refused(404, operator.get, "/uploads/" + ident)
    image = local.get("/images/golden")
    assert image["format"] == "qcow2" and image["capacity"] == 2 << 20
    machine = operator.machine("gilded", image="golden", disks=[{"capacity": 4 << 20}])
    task = operator.do(f"/machines/{machine}/export", {"format": "raw"})
    answer = operator.raw("GET", task["result"]["download"], api="")
    assert answer.status == 200 and answer.body[:2 << 20] == data and len(answer.body) == 4 << 20
    path = task["result"]["download"][len("/api/v1"):]
    part = operator.raw("GET", path, headers={"Range": "bytes=10-19"})
    assert part.status == 206 and part.body == data[10:20]
    assert part.headers["Content-Range"] == f"bytes 10-19/{4 << 20}"
    assert operator.raw("GET", path, headers={"Range": "bytes=-5"}).body == bytes(5)
    assert operator.raw("GET", path, headers={"Range": f"bytes={5 << 20}-"}).status == 416
    # The OVA that we export is one that we import.
    task = operator.do(f"/machines/{machine}/export", {"format": "ova"})
    ova = operator.raw("GET", task["result"]["download"], api="").body
    ident = upload(operator, "gilded.ova", ova)
    task = operator.do("/imports", {"upload": ident, "kind": "appliance", "name": "second"})
    second = task["result"]["object"][8:]
    got = local.get("/machines/" + second)
    assert got["name"] == "second" and got["state"] == "stopped" and task["result"]["verified"]
    assert local.get(f"/machines/{second}/disks")["items"][0]["capacity"] == 4 << 20
    operator.do(f"/machines/{second}/start")
    operator.do(f"/machines/{second}/stop", {"force": True})
    for ident in (machine, second):
        operator.do(f"/machines/{ident}?disks=delete", method="DELETE")
    iso = upload(operator, "cd.iso", b"\0" * 32768 + b"\1CD001\1" + bytes(100000 - 7))
    operator.do("/imports", {"upload": iso, "kind": "iso", "name": "cd"})
    machine = operator.machine("reader", iso="cd")
    refused(409, operator.delete, "/images/cd")
    operator.do(f"/machines/{machine}", method="DELETE")
    operator.delete("/images/cd")
    operator.delete("/images/golden")
    assert not os.path.exists(disk)


def test_uploads_that_are_wrong(w):
    operator = w.people["operator"]
    refused(507, operator.post, "/uploads", {"name": "x", "size": 1 << 60})
    refused(422, operator.post, "/uploads", {"name": "x", "size": 0})
    refused(422, operator.post, "/uploads", {"name": "x", "size": 1, "sha256": "zz"})
    made = operator.post("/uploads", {"name": "x", "size": 10, "sha256": "0" * 64})
    path, octets = "/uploads/" + made["id"], {"Content-Type": "application/octet-stream"}

    def put(data, offset, **more):
        return operator.call("PATCH", path, data, {"Upload-Offset": str(offset), **octets, **more})

    refused(409, put, b"12345", 5)
    refused(413, put, b"12345678901", 0)
    refused(400, operator.call, "PATCH", path, b"123", octets)
    refused(415, operator.call, "PATCH", path, b"123", {"Upload-Offset": "0"})
    refused(409, operator.post, "/imports", {"upload": made["id"], "kind": "image"})
    assert put(b"12345", 0)["offset"] == 5
    assert operator.get(path)["offset"] == 5
    assert put(b"67890", 5)["offset"] == 10
    task = operator.wait(operator.post("/imports", {"upload": made["id"], "kind": "image",
                                                    "name": "bad"}), "failed")
    assert "SHA-256" in task["error"]["detail"]
    refused(404, operator.get, "/images/bad")
    operator.delete(path)
    refused(404, operator.get, path)
    # An image that names another file is none that stands alone.
    base = os.path.join(w.daemon.folder, "evil.qcow2")
    subprocess.run([os.path.join(w.build, "mullion"), "image", "create", base, "1M", "--format",
                    "qcow2", "--backing", "/etc/passwd", "--backing-format", "raw"], check=False,
                   capture_output=True)
    if os.path.exists(base):
        with open(base, "rb") as f:
            ident = upload(operator, "evil.qcow2", f.read())
        task = operator.wait(operator.post("/imports", {"upload": ident, "kind": "image",
                                                        "name": "evil"}), "failed")
        operator.delete("/uploads/" + ident)
    refused(422, operator.post, "/imports", {"kind": "image"})
    refused(403, operator.post, "/imports", {"kind": "disk", "path": "/x"})
    refused(422, w.local.post, "/imports", {"kind": "image", "path": "relative"})
    w.local.wait(w.local.post("/imports", {"kind": "image", "path": "/nowhere/x"}), "failed")
    w.local.wait(w.local.post("/imports", {"kind": "appliance", "path": "/nowhere/x.ova"}), "failed")
    assert w.local.get("/machines?q=x")["total"] == 0


# ---- Datastores, networks, what is not there ----

def test_datastores_and_traversal(w):
    local = w.local
    folder = os.path.join(w.daemon.folder, "more")
    os.mkdir(folder)
    refused(422, local.post, "/datastores", {"name": "more", "path": "relative"})
    refused(422, local.post, "/datastores", {"name": "more", "path": "/no/such/place"})
    made = local.post("/datastores", {"name": "more", "path": folder})
    path = "/datastores/" + made["id"]
    refused(409, local.post, "/datastores", {"name": "more", "path": "/tmp"})
    with open(os.path.join(folder, "stray"), "w", encoding="utf-8") as f:
        f.write("hello")
    os.symlink("/etc/passwd", os.path.join(folder, "link"))
    os.symlink("/etc", os.path.join(folder, "images", "out"))
    names = {i["name"]: i for i in local.get(path + "/files")["items"]}
    assert names["stray"]["used_by"] is None and "link" not in names
    assert local.raw("GET", path + "/files?path=stray&download=1").body == b"hello"
    for bad in ("../../etc/passwd", "/etc/passwd", "link", "images/out/passwd", "..", "images/../..",
                "%2e%2e/%2e%2e/etc/passwd", "stray/..", "a%00b", "..%2f..%2fhost.db"):
        for more in ("", "&download=1"):
            answer = local.raw("GET", f"{path}/files?path={bad}{more}")
            assert answer.status == 404 or b"root:" not in answer.body and \
                not (more and answer.status == 200), f"{bad}: {answer.status}"
        assert local.raw("DELETE", f"{path}/files?path={bad}").status in (404, 409)
    refused(403, w.people["viewer"].get, path + "/files?path=stray&download=1")
    local.delete(path + "/files?path=stray")
    machine = local.machine("there", datastore="more", disks=[{"capacity": 1 << 20}])
    refused(409, local.delete, path + f"/files?path=machines/{machine}/disk0.qcow2")
    listed = local.get(path + f"/files?path=machines/{machine}")["items"]
    assert {i["used_by"] for i in listed} == {"machine:" + machine}
    refused(409, local.delete, path)
    local.do(f"/machines/{machine}?disks=delete", method="DELETE")
    default = local.get("/datastores?q=default")["items"][0]
    assert local.patch(path, {"default": True})["default"]
    assert not local.get("/datastores/" + default["id"])["default"]
    refused(409, local.delete, path)
    local.patch("/datastores/" + default["id"], {"default": True})
    local.delete(path)


def test_static_files_and_traversal(w):
    folder = os.path.join(w.daemon.folder, "portal")
    os.makedirs(os.path.join(folder, "assets"))
    for name, text in (("index.html", "<p>portal"), ("assets/a.js", "1"), (".secret", "no")):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
    os.symlink("/etc/passwd", os.path.join(folder, "passwd"))
    with Daemon(w.build, arguments=["--portal", folder]) as daemon:
        page = Client(daemon, tls=True)
        assert page.raw("GET", "/", api="").text == "<p>portal"
        assert page.raw("GET", "/machines/some-id", api="").text == "<p>portal"
        answer = page.raw("GET", "/assets/a.js", api="")
        assert answer.headers["Content-Type"].startswith("text/javascript")
        assert "immutable" in answer.headers["Cache-Control"]
        assert page.raw("GET", "/assets/a.js", api="", headers={
            "If-None-Match": answer.headers["ETag"]}).status == 304
        assert page.raw("GET", "/nothing.js", api="").status == 404
        for bad in ("/.secret", "/../host.db", "/%2e%2e/data/host.db", "/..%2fdata/host.db", "/passwd",
                    "/assets/../../data/host.db", "//etc/passwd", "/assets/%00", "/\\..\\x"):
            answer = page.raw("GET", bad, api="")
            assert answer.status in (400, 404) or answer.text == "<p>portal", bad
        assert page.raw("POST", "/", "x", api="").status == 405


def test_networks_and_what_is_not_there(w):
    local = w.local
    able = "network-nat" not in local.get("/host")["missing"]
    for body, field in (({"type": "nat", "subnet": "10.0.0.1/24"}, "/subnet"),
                        ({"type": "nat", "subnet": "127.0.0.0/24"}, "/subnet"),
                        ({"type": "nat", "subnet6": "2001:db8::/64"}, "/subnet6"),
                        ({"type": "nat", "domain": "a\nserver=/x/1.2.3.4"}, "/domain"),
                        ({"type": "nat", "domain": "a,b"}, "/domain"),
                        ({"type": "nat", "mtu": 1279}, "/mtu"),
                        ({"type": "nat", "reservations": {"a\nb": "10.64.0.9"}}, "/reservations"),
                        ({"type": "nat", "reservations": {"a": "8.8.8.8"}}, "/reservations"),
                        ({"type": "nat", "reservations": {"a": "10.64.0.9,x"}}, "/reservations"),
                        ({"type": "nat", "vlan": 5}, "/vlan"),
                        ({"type": "user", "subnet": "10.0.0.0/24"}, "/subnet"),
                        ({"type": "isolated", "bridge": "br0"}, "/bridge"),
                        ({"type": "bridge"}, "/bridge"),
                        ({"type": "bridge", "bridge": "a b"}, "/bridge"),
                        ({"type": "bridge", "bridge": "lo"}, "/bridge"),
                        ({"type": "bridge", "bridge": "nothing"}, "/bridge")):
        if able or body["type"] == "user":
            refused(422, local.post, "/networks", dict(body, name="n"), field=field)
        else:
            assert "CAP_NET_ADMIN" in refused(409, local.post, "/networks", dict(body, name="n"))["detail"] \
                or field in ("/vlan", "/bridge")
    made = local.post("/networks", {"name": "second", "type": "user"})
    path = "/networks/" + made["id"]
    refused(409, local.post, "/networks", {"name": "second", "type": "user"})
    machine = local.machine("wired", networks=[{"network": "second", "model": "e1000e"}])
    assert local.get("/machines/" + machine)["config"]["networks"][0]["name"] == "second"
    assert local.get("/machines/" + machine)["networks"] == ["second"]
    assert [m["id"] for m in local.get("/machines?network=second")["items"]] == [machine]
    assert local.get("/machines?network=first")["total"] == 0
    refused(409, local.delete, path)
    refused(409, local.patch, path, {"name": "third"})
    for body, method, where in (({"command": ["ls"]}, "POST", "/exec"),
                                (None, "GET", "/files?path=/x"), ("x", "PUT", "/files?path=/x")):
        refused(409, local.call, method, f"/machines/{machine}{where}", body)
    local.do("/machines/" + machine, method="DELETE")
    assert local.patch(path, {"name": "third"})["name"] == "third"
    refused(422, local.patch, path, {"dhcp": True, "vlan": 5})
    local.delete(path)
    told = local.get("/events?object=network:" + made["id"])["items"]
    assert [(e["type"], e["object_name"]) for e in told] == [
        ("network.deleted", "third"), ("network.changed", "third"), ("network.created", "second")], told
    for card in ({"type": "host", "name": "nothing"}, {"type": "tap", "interface": "x", "fd": 5},
                 {"type": "user", "mac": "01:00:00:00:00:01"}, {"type": "user", "vlan": 5}):
        refused(422, local.post, "/machines", {"name": "odd", "config": {"networks": [card]}})
    own = [local.machine(f"card-{i}", networks=[{}, {}]) for i in range(2)]
    cards = [c for m in own for c in local.get("/machines/" + m)["config"]["networks"]]
    assert len({c["mac"] for c in cards}) == 4
    refused(409, local.post, "/machines", {"name": "odd", "networks": [{"mac": cards[0]["mac"].upper()}]})
    kept = local.patch("/machines/" + own[0], {"config": {"networks": [{"type": "user", "name": "default"}]}})
    assert kept["config"]["networks"][0]["mac"] == cards[0]["mac"]
    for m in own:
        local.do("/machines/" + m, method="DELETE")
    refused(422, local.post, "/images", {"name": "unheard-of"}, field="/name")
