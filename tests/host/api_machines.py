"""The API: machines, their consoles and disks; ETags, idempotency keys, lists, events."""
import json
import os
import socket
import ssl

from api_world import DOCUMENT, refused
from client import Client


def test_machine_life(w):
    local, operator = w.local, w.people["operator"]
    machine = operator.machine("life", tags=["web"], description="of a test",
                               disks=[{"capacity": 64 << 20}])
    path = "/machines/" + machine
    got = local.get(path)
    assert got["state"] == "stopped" and got["memory"] == 64 << 20 and got["tags"] == ["web"]
    refused(409, local.post, "/machines", {"name": "life"}, field="/name")
    for action in ("stop", "pause", "resume", "reset"):
        refused(409, local.post, f"{path}/{action}")
    refused(409, local.post, path + "/console", {"type": "serial"})
    refused(409, local.get, path + "/screenshot")
    operator.do(path + "/start")
    got = local.get(path)
    assert got["state"] == "running" and got["engine"] in ("soft", "kvm") and got["uptime"] >= 0
    refused(409, local.post, path + "/start")
    refused(409, local.delete, path + "?disks=delete")
    # What a running machine cannot take is pending.
    got = operator.patch(path, {"cpus": 2, "description": "other"})
    assert got["pending"] and got["cpus"] == 1 and got["pending_config"]["cpus"] == 2
    operator.do(path + "/pause")
    assert local.get(path)["state"] == "paused"
    operator.do(path + "/resume")
    operator.do(path + "/reset")
    assert local.raw("GET", path + "/screenshot").body.startswith(b"\x89PNG")
    operator.post(path + "/keys", {"keys": ["esc"]})
    operator.post(path + "/keys", {"text": "aB1!\n"})
    operator.post(path + "/keys", {"text": "\u00e9", "keymap": "fr"})
    assert "SeaBIOS" in operator.until(path + "/screen", lambda s: "SeaBIOS" in s["text"])["text"]
    refused(422, operator.post, path + "/keys", {})
    refused(409, operator.post, path + "/keys", {"text": "\u00e9"})
    refused(409, operator.post, path + "/keys", {"text": "a", "keymap": "no-such"})
    refused(409, operator.post, path + "/keys", {"keys": ["no-such-key"]})
    # SeaBIOS does not listen to the power button.
    task = operator.wait(operator.post(path + "/stop", {"timeout": 1}), "failed")
    assert task["error"]["type"].endswith("/conflict")
    assert local.get(path)["state"] == "running"
    operator.do(path + "/restart", {"force": True})
    got = local.get(path)
    assert got["state"] == "running" and got["cpus"] == 2 and not got["pending"]
    operator.do(path + "/stop", {"force": True})
    assert local.get(path)["state"] == "stopped"
    assert "cpu" in local.get(path + "/stats")["series"]
    assert local.raw("GET", path + "/console-log").status == 200
    refused(422, local.delete, path)
    operator.do(path + "?disks=delete", method="DELETE")
    refused(404, local.get, path)
    assert machine not in os.listdir(
        os.path.join(w.daemon.data, "datastores", "default", "machines"))


def test_machine_bodies(w):
    local = w.local
    for body, status, field in (
            ({}, 422, "/name"), ({"name": ""}, 422, "/name"), ({"name": "../x"}, 422, "/name"),
            ({"name": "a" * 64}, 422, "/name"), ({"name": "x", "cpus": 0}, 422, "/cpus"),
            ({"name": "x", "cpus": 65}, 422, "/cpus"), ({"name": "x", "memory": 1}, 422, "/memory"),
            ({"name": "x", "memory": 1 << 60}, 422, "/memory"), ({"name": "x", "memory": "1"}, 422, "/memory"),
            ({"name": "x", "image": "none"}, 422, "/image"), ({"name": "x", "iso": "none"}, 422, "/iso"),
            ({"name": "x", "disks": [{"capacity": 1}]}, 422, "/disks/0/capacity"),
            ({"name": "x", "disks": [{"capacity": (1 << 20) + 1}]}, 422, "/disks/0/capacity"),
            ({"name": "x", "disks": [{"capacity": 1 << 20}] * 17}, 422, "/disks"),
            ({"name": "x", "networks": [{"network": "none"}]}, 422, "/networks/0/network"),
            ({"name": "x", "folder": "a"}, 422, "/folder"), ({"name": "x", "folder": "/a/"}, 422, "/folder"),
            ({"name": "x", "what": 1}, 422, "/what"), ({"name": "x", "datastore": "no"}, 422, "/datastore"),
            ({"name": "x", "config": {"nonsense": 1}}, 422, "/config"),
            ({"name": "x", "config": {"consoles": []}}, 422, "/config"),
            ({"name": "x", "cloud_init": {"user": "U"}}, 422, "/cloud_init"),
            ({"name": "x", "cloud_init": {"password": "p"}}, 422, "/cloud_init"),
            ({"name": "x", "resources": {"cpu": {"limit": 0}}}, 422, "/resources/cpu/limit"),
            ({"name": "x", "resources": {"what": {}}}, 422, "/resources/what"),
            ({"name": "x", "pool": "00000000-0000-4000-8000-000000000000"}, 422, "/pool"),
            ({"name": "x", "template": "t"}, 422, "/template")):
        refused(status, local.post, "/machines", body, field=field)
    assert local.get("/machines?q=x")["total"] == 0


def test_operators_cannot_name_files_of_the_host(w):
    operator = w.people["operator"]
    machine = operator.machine("confined", disks=[{"capacity": 1 << 20}])
    path = "/machines/" + machine
    for config in ({"kernel": "/etc/shadow"}, {"initrd": "../../../../host.db"},
                   {"disks": [{"path": "/dev/sda"}]}, {"disks": [{"path": "a/../../x"}]},
                   {"cdroms": [{"path": w.daemon.data + "/host.db"}]}, {"nvram": "/tmp/x"},
                   {"firmware": "/etc/passwd"}, {"disks": [{"path": "http://host/x"}]},
                   {"shares": [{"path": "/", "tag": "all"}]},
                   {"networks": [{"type": "tap", "interface": "eth0"}]}):
        refused(403, operator.patch, path, {"config": config})
        refused(403, operator.post, "/machines", {"name": "other", "config": config})
    refused(403, operator.post, "/imports", {"kind": "image", "path": "/etc/shadow"})
    refused(403, operator.post, "/imports", {"kind": "image", "url": "http://localhost/"})
    operator.patch(path, {"config": {"cdroms": [{}]}})
    operator.do(path + "?disks=delete", method="DELETE")


def test_etags(w):
    machine = w.local.machine("tagged")
    path = "/machines/" + machine
    answer = w.local.raw("GET", path)
    etag = answer.headers["ETag"]
    assert w.local.raw("GET", path, headers={"If-None-Match": etag}).status == 304
    changed = w.local.raw("PATCH", path, {"description": "1"}, {"If-Match": etag})
    assert changed.status == 200 and changed.headers["ETag"] != etag
    refused(412, w.local.patch, path, {"description": "2"}, headers={"If-Match": etag})
    assert w.local.raw("GET", path, headers={"If-None-Match": etag}).status == 200
    refused(412, w.local.delete, path, headers={"If-Match": etag})
    w.local.do(path, method="DELETE")
    # Objects of other kinds have them, too.
    w.local.post("/groups", {"name": "tagged"})
    pool = w.local.post("/pools", {"name": "tagged"})["id"]
    network = w.local.post("/networks", {"name": "tagged", "type": "user"})["id"]
    store = w.local.get("/datastores?q=default")["items"][0]["id"]
    for path, change in (("/groups/tagged", {"description": "1"}), ("/pools/" + pool, {"name": "t2"}),
                         ("/networks/" + network, {"name": "t2"}), ("/users/one-none", {"full_name": "1"}),
                         ("/datastores/" + store, {"name": "default"})):
        etag = w.local.raw("GET", path).headers["ETag"]
        assert w.local.raw("GET", path, headers={"If-None-Match": etag}).status == 304, path
        changed = w.local.raw("PATCH", path, change, {"If-Match": etag})
        assert changed.status == 200 and changed.headers["ETag"] != etag, path
        refused(412, w.local.patch, path, change, headers={"If-Match": etag})
    for path in ("/groups/tagged", "/pools/" + pool, "/networks/" + network):
        refused(412, w.local.delete, path, headers={"If-Match": '"0"'})
        w.local.delete(path)


def test_idempotency(w):
    key = {"Idempotency-Key": "one-of-a-kind"}
    first = w.local.raw("POST", "/machines", {"name": "once", "networks": []}, key)
    again = w.local.raw("POST", "/machines", {"name": "once", "networks": []}, key)
    assert first.status == again.status == 202
    assert first.json["id"] == again.json["id"]
    assert first.headers["Location"] == again.headers["Location"]
    refused(422, w.local.post, "/machines", {"name": "twice"}, headers=key)
    # Another's key is another key.
    refused(409, w.people["operator"].post, "/machines", {"name": "once"}, headers=key)
    w.local.wait(first.json)
    w.local.do("/machines/" + first.json["object"][8:], method="DELETE")
    for path, body in (("/groups", {"name": "once"}), ("/pools", {"name": "once"}),
                       ("/networks", {"name": "once", "type": "user"}), ("/uploads", {"name": "once", "size": 5})):
        key = {"Idempotency-Key": "for" + path}
        total = w.local.get(path)["total"]
        first, again = (w.local.raw("POST", path, body, key) for _ in range(2))
        assert first.status == again.status == 201 and first.json == again.json, path
        assert first.headers["ETag"] == again.headers["ETag"], path
        assert w.local.get(path)["total"] == total + 1, path
        w.local.delete(path + "/" + (first.json.get("id") or "once"))
    # Secrets are not kept for that: each answer has another.
    first, again = (w.local.raw("POST", "/tokens", {"name": "once"}, {"Idempotency-Key": "secret"}) for _ in range(2))
    assert first.json["token"] != again.json["token"]
    for answer in (first, again):
        w.local.delete("/tokens/" + answer.json["id"])


def test_lists(w):
    made = [w.local.machine(f"list-{i:02}", tags=["even" if i % 2 == 0 else "odd"],
                            memory=(64 + i) << 20) for i in range(7)]
    names, cursor = [], ""
    while True:
        page = w.local.get(f"/machines?q=LIST-&limit=3{cursor}")
        assert page["total"] == 7 and len(page["items"]) <= 3
        names += [m["name"] for m in page["items"]]
        if not page["next"]:
            break
        cursor = "&cursor=" + page["next"]
    assert names == [f"list-{i:02}" for i in range(7)]
    page = w.local.get("/machines?q=list-&sort=-memory&fields=name,memory&limit=2")
    assert page["items"][0] == {"name": "list-06", "memory": 70 << 20}
    more = w.local.get("/machines?q=list-&sort=-memory&limit=2&cursor=" + page["next"])
    assert [m["name"] for m in more["items"]] == ["list-04", "list-03"]
    assert w.local.get("/machines?tag=even&q=list-")["total"] == 4
    assert w.local.get("/machines?state=running&q=list-")["total"] == 0
    for machine in made:
        w.local.do("/machines/" + machine, method="DELETE")


def test_events_audit_tasks(w):
    stream = w.people["viewer"].websocket("/api/v1/events/stream")
    hidden = w.people["none"].websocket("/api/v1/events/stream")
    for s in (stream, hidden):
        assert json.loads(s.message())["type"] == "subscribed"
    machine = w.local.machine("heard")
    seen = []
    while not any(e["type"] == "machine.created" and e["object_name"] == "heard" for e in seen):
        seen.append(json.loads(stream.message()))
    changed = [e for e in seen if e["type"] == "changed" and e["object"] == "machine:" + machine]
    assert changed and changed[0]["data"]["name"] == "heard"
    for event in seen:
        DOCUMENT.check({"$ref": "#/components/schemas/Event"}, event, "event")
    hidden.sock.settimeout(0.3)
    try:
        heard = json.loads(hidden.message())
        raise AssertionError(f"was told {heard}")
    except (socket.timeout, TimeoutError, ssl.SSLError):
        pass
    newest = w.local.get("/events?limit=2")["items"]
    assert newest[0]["id"] > newest[1]["id"]
    older = w.local.get(f"/events?after={newest[1]['id']}")["items"]
    assert older[0]["id"] == newest[0]["id"]
    replayed = w.local.websocket(f"/api/v1/events/stream?after={newest[1]['id']}")
    assert json.loads(replayed.message())["id"] == newest[0]["id"]
    page = w.local.get("/events?type=machine.created&limit=1")
    assert page["items"][0]["type"] == "machine.created" and page["next"]
    found = w.local.get("/events?q=HEARD%20was&limit=1")
    assert "heard was" in found["items"][0]["text"] and 1 <= found["total"] < w.local.get("/events?limit=1")["total"]
    assert w.local.get("/events?q=text%22:")["total"] == 0  # what is said, not how it is kept
    for path in ("/events", "/audit"):
        oldest, newest_ = (w.local.get(f"{path}?limit=3&sort={s}") for s in ("id", "-id"))
        assert [e["id"] for e in oldest["items"]] == sorted(e["id"] for e in oldest["items"])
        assert oldest["items"][-1]["id"] < newest_["items"][-1]["id"]
        assert w.local.get(f"{path}?limit=1&sort=id&cursor={oldest['next']}")["items"][0]["id"] > \
            oldest["items"][-1]["id"]
        refused(400, w.local.get, path + "?sort=text")
    posts = w.local.get("/audit?q=/MACHINES&method=POST")
    assert posts["total"] >= len(posts["items"]) and all("/machines" in a["path"] for a in posts["items"])
    assert w.local.get("/audit?path=/api/v1/machines&method=POST")["items"][0]["status"] in (202, 409, 422, 403, 501)
    w.local.do("/machines/" + machine, method="DELETE")
    assert w.local.get("/tasks?type=machine.delete")["items"][0]["state"] == "succeeded"
    done = w.local.get("/tasks?state=succeeded&limit=1")["items"][0]
    refused(409, w.local.post, f"/tasks/{done['id']}/cancel")
    for s in (stream, hidden, replayed):
        s.close()


def test_consoles(w):
    machine = w.local.machine("console")
    path = "/machines/" + machine
    w.local.patch(path, {"config": {"cdroms": [{}]}})
    w.local.do(path + "/start")
    ticket = w.people["operator"].post(path + "/console", {"type": "vnc"})
    nobody = Client(w.daemon, tls=True)  # a ticket is enough
    vnc = nobody.websocket(ticket["url"])
    data = b""
    while len(data) < 12:
        data += vnc.message()
    assert data.startswith(b"RFB 003.00")
    try:
        nobody.websocket(ticket["url"])
        raise AssertionError("a ticket was good twice")
    except ConnectionError as e:
        assert "401" in str(e)
    refused(403, w.people["viewer"].post, path + "/console", {"type": "serial"})
    ticket = w.local.post(path + "/console", {"type": "serial"})
    serial = nobody.websocket(ticket["url"])
    serial.send(b"hello")
    w.local.do(path + "/stop", {"force": True})
    for s in (vnc, serial):  # both end with the machine
        try:
            while True:
                s.message()
        except ConnectionError:
            s.close()
    w.local.do(path, method="DELETE")


def test_disks_and_snapshots(w):
    machine = w.local.machine("disky", disks=[{"capacity": 16 << 20}])
    path = f"/machines/{machine}/disks"
    disk = w.local.get(path)["items"][0]
    assert disk["name"] == "disk0" and disk["capacity"] == 16 << 20 and disk["format"] == "qcow2"
    w.local.do(path, {"capacity": 8 << 20, "bus": "sata", "format": "vmdk"})
    assert [d["format"] for d in w.local.get(path)["items"]] == ["qcow2", "vmdk"]
    w.local.do(path + "/disk0", {"capacity": 32 << 20}, method="PATCH")
    assert w.local.get(path)["items"][0]["capacity"] == 32 << 20
    w.local.wait(w.local.patch(path + "/disk0", {"capacity": 16 << 20}), "failed")
    refused(404, w.local.patch, path + "/disk7", {"capacity": 1 << 20})
    refused(422, w.local.post, path, {"capacity": 1 << 20, "format": "zip"})
    w.local.do(path + "/disk0/snapshots", {"name": "before"})
    assert w.local.get(path + "/disk0/snapshots")["items"][0]["name"] == "before"
    w.local.do(path + "/disk0/snapshots/before/apply")
    w.local.do(path + "/disk0/snapshots/before", method="DELETE")
    assert w.local.get(path + "/disk0/snapshots")["total"] == 0
    w.local.wait(w.local.post(path + "/disk1/snapshots", {"name": "no"}), "failed")
    w.local.do(path + "/disk1", method="DELETE")
    assert w.local.get(path)["total"] == 1
    w.local.do(f"/machines/{machine}?disks=keep", method="DELETE")
    image = w.local.get("/images/disky-disk0")
    assert image["capacity"] == 32 << 20 and image["state"] == "ready"
    w.local.delete("/images/disky-disk0")
    refused(404, w.local.get, "/images/disky-disk0")
