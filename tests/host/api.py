#!/usr/bin/env python3
"""The host's API (docs/host.md), held to its OpenAPI document: every path and every error, who may
do what, and what attackers try. Each answer of each test is checked against the document."""
import argparse
import hashlib
import json
import os
import random
import re
import resource
import signal
import socket
import ssl
import string
import subprocess
import sys
import threading
import time

import client
from client import PATIENCE, Client, Daemon, Refused, Tests
from schema import Document

DOCUMENT = None
GIB = 1 << 30


def checked(raw):
    def call(self, method, path, body=None, headers=None, api="/api/v1"):
        answer = raw(self, method, path, body, headers, api)
        if api == "/api/v1" and DOCUMENT:
            DOCUMENT.check_answer(method, path, answer)
        return answer
    return call


Client.raw = checked(Client.raw)


def refused(status, function, *args, problem=None, field=None, **kw):
    """It must be refused with this status. @return the problem"""
    try:
        got = function(*args, **kw)
    except Refused as e:
        assert e.answer.status == status, f"{args}: {e} instead of {status}"
        if status != 304 and e.answer.headers["Content-Type"].startswith("application/problem"):
            found = e.answer.json
            assert problem is None or found["type"].endswith("/" + problem), found
            assert field is None or found.get("field") == field, found
            assert found["status"] == status and found["detail"]
            return found
        return None
    raise AssertionError(f"{args}: was allowed: {got}")


class World:
    """One daemon for the tests that do not end it; people with every role."""

    def __init__(self, build):
        self.build = build
        self.daemon = Daemon(build).start()
        self.local = Client(self.daemon)
        self.admin_password = self.daemon.password
        self.people = {}
        for role in ("administrator", "operator", "viewer", "none"):
            name = "one-" + role
            self.local.post("/users", {"name": name, "role": role, "password": "secret-" + role})
            token = self.local.post("/tokens", {"name": "t", "user": name})["token"]
            self.people[role] = Client(self.daemon, tls=True, token=token)


# ---- What everybody sees ----

def test_about_and_document(w):
    anybody = Client(w.daemon, tls=True)
    assert anybody.get("/")["api"] == "v1"
    assert anybody.get("/openapi.json")["openapi"].startswith("3.1")
    answer = anybody.raw("GET", "/", api="")
    for name, value in (("X-Frame-Options", "DENY"), ("X-Content-Type-Options", "nosniff"),
                        ("Referrer-Policy", "no-referrer")):
        assert answer.headers[name] == value
    policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'self'" in policy
    assert "unsafe-eval" not in policy and "script-src 'self';" in policy
    host = w.local.get("/host")
    assert host["cpus"] >= 1 and host["memory"]["total"] > GIB // 16
    assert w.local.patch("/host", {"name": "blue"})["name"] == "blue"
    assert anybody.get("/")["name"] == "blue"
    for name in ("hour", "day", "month", "year"):
        stats = w.local.get(f"/host/stats?range={name}")
        assert len(stats["series"]["cpu"]) == {"hour": 180, "day": 288, "month": 360, "year": 366}[name]
    refused(400, w.local.get, "/host/stats?range=week")
    text = w.local.raw("GET", "/metrics", api="").text
    assert 'mullion_machines{state="stopped"}' in text
    assert anybody.raw("GET", "/metrics", api="").status == 401


def test_unknown_paths_and_methods(w):
    refused(404, w.local.get, "/nothing", problem="not-found")
    refused(404, w.local.get, "/machines/x/y/z/1/2/3/4/5/6")
    refused(405, w.local.call, "PUT", "/machines")
    refused(404, w.local.get, "//machines")
    refused(400, w.local.get, "/machines?limit=0")
    refused(400, w.local.get, "/machines?limit=1001")
    refused(400, w.local.get, "/machines?limit=x")
    refused(400, w.local.get, "/machines?colour=red")
    refused(400, w.local.get, "/machines?cursor=zz")
    assert w.local.raw("HEAD", "/machines").status == 200


# ---- Who may do what ----

# A body that gets past the schema, by operation; others need none.
BODIES = {
    "changeHost": {"autostart": True}, "login": {"user": "x", "password": "y"},
    "createUser": {"name": "made"}, "changeUser": {"role": "viewer"},
    "createGroup": {"name": "made"}, "changeGroup": {"description": "x"},
    "createGrant": {"subject": "user:x", "role": "viewer", "object": "folder:/"},
    "createToken": {"name": "t"}, "createMachine": {"name": "made", "networks": []},
    "changeMachine": {"description": "x"}, "openConsole": {"type": "serial"},
    "sendKeys": {"keys": ["a"]}, "exec": {"command": ["ls"]}, "addDisk": {"capacity": 1 << 20},
    "growDisk": {"capacity": 1 << 30}, "createSnapshot": {"name": "s"},
    "exportMachine": {"format": "ova"}, "import": {"kind": "image", "path": "/x"},
    "createUpload": {"name": "x", "size": 1}, "buildImage": {"name": "debian-12"},
    "createTemplate": {"name": "t", "machine": "00000000-0000-4000-8000-000000000000"},
    "createDatastore": {"name": "d", "path": "/nowhere"}, "changeDatastore": {"name": "d2"},
    "createNetwork": {"name": "n", "type": "user"}, "changeNetwork": {"name": "default"},
    "createPool": {"name": "p"}, "changePool": {"name": "p"},
}


def each_operation():
    for path, item in DOCUMENT.document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method.upper(), operation


def short_lived(w):
    """@return a client whose token was right once and has expired"""
    for seconds in (2, 5, 20, 60):  # on a busy machine it may expire before it is tried
        end = time.time() + seconds
        client = Client(w.daemon, tls=True, token=w.local.post("/tokens", {
            "name": f"old-{seconds}", "user": "one-administrator",
            "expires": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))})["token"])
        answer = client.raw("GET", "/sessions/current")
        if answer.status == 200:
            break
    assert answer.status == 200 and answer.json["role"] == "administrator", answer.body
    time.sleep(max(end - time.time(), 0) + 0.2)
    return client


def test_every_path_without_and_with_wrong_credentials(w):
    nobody = Client(w.daemon, tls=True)
    wrong = Client(w.daemon, tls=True, token="mul_" + "0" * 64)
    odd = Client(w.daemon, tls=True, token="x" * 5000)
    session = Client(w.daemon, tls=True)
    session.cookie = "mullion_session=" + "0" * 64
    old = short_lived(w)
    count = 0
    for path, method, operation in each_operation():
        path = re.sub(r"\{\w+\}", "00000000-0000-4000-8000-000000000000", path)
        body = BODIES.get(operation["operationId"])
        if operation["x-role"] == "anybody":
            continue
        for who in (nobody, wrong, odd, session, old):
            answer = who.raw(method, path, body)
            assert answer.status == 401, f"{method} {path}: {answer.status}"
            assert answer.json["type"].endswith("/unauthenticated")
            count += 1
    assert count > 300


def test_every_path_with_lower_roles(w):
    order = ["none", "viewer", "operator", "administrator"]
    machine = w.local.machine("roles")
    count = 0
    for path, method, operation in each_operation():
        role = operation["x-role"]
        if role == "anybody" or order.index(role) == 0:
            continue
        path = path.replace("/machines/{id}", "/machines/" + machine)
        path = re.sub(r"\{\w+\}", "00000000-0000-4000-8000-000000000000", path)
        for lower in order[:order.index(role)]:
            answer = w.people[lower].raw(method, path, BODIES.get(operation["operationId"]))
            # Who may not even see a machine (or no object is there) learns nothing of it.
            wanted = (403, 404) if "{" in operation.get("x-path", path) or "/machines/" in path or \
                "00000000" in path else (403,)
            assert answer.status in wanted, f"{lower}: {method} {path}: {answer.status}"
            count += 1
    assert count > 80
    w.local.do("/machines/" + machine, method="DELETE")


def test_grants_open_single_machines(w):
    nobody = w.people["none"]
    mine, other = w.local.machine("mine", folder="/a/b"), w.local.machine("other", folder="/ab")
    assert nobody.get("/machines")["total"] == 0
    grant = w.local.post("/grants", {"subject": "user:one-none", "role": "viewer",
                                     "object": "folder:/a"})
    assert [m["id"] for m in nobody.get("/machines")["items"]] == [mine]
    refused(404, nobody.get, "/machines/" + other)
    refused(403, nobody.patch, "/machines/" + mine, {"description": "x"})
    w.local.post("/groups", {"name": "team", "members": ["one-none"]})
    second = w.local.post("/grants", {"subject": "group:team", "role": "operator",
                                      "object": "machine:" + mine})
    assert nobody.patch("/machines/" + mine, {"description": "x"})["description"] == "x"
    refused(403, nobody.post, "/machines", {"name": "more"})
    w.local.delete("/grants/" + grant["id"])
    w.local.delete("/grants/" + second["id"])
    assert nobody.get("/machines")["total"] == 0
    w.local.delete("/groups/team")
    assert w.local.get("/users/one-none")["groups"] == []
    for machine in (mine, other):
        w.local.do("/machines/" + machine, method="DELETE")


def test_users_groups_tokens(w):
    local = w.local
    refused(409, local.post, "/users", {"name": "admin"})
    refused(422, local.post, "/users", {"name": "no/slash"}, field="/name")
    refused(422, local.post, "/users", {"name": "x", "password": "short"}, field="/password")
    refused(422, local.post, "/users", {"name": "x", "groups": ["nowhere"]}, field="/groups")
    local.post("/users", {"name": "eve", "role": "viewer", "password": "first-password"})
    eve = Client(w.daemon, tls=True)
    eve.login("eve", "first-password")
    assert eve.get("/users/eve")["role"] == "viewer"
    refused(404, eve.get, "/users/admin")
    refused(403, eve.patch, "/users/eve", {"role": "administrator"})
    refused(403, eve.patch, "/users/eve", {"password": "second-password"})
    refused(403, eve.patch, "/users/eve", {"password": "second-password", "current_password": "no"})
    eve.patch("/users/eve", {"password": "second-password", "current_password": "first-password"})
    refused(401, Client(w.daemon, tls=True).login, "eve", "first-password")
    refused(403, eve.post, "/tokens", {"name": "t", "role": "administrator"})
    refused(403, eve.post, "/tokens", {"name": "t", "user": "admin"})
    token = eve.post("/tokens", {"name": "t"})
    by_token = Client(w.daemon, tls=True, token=token["token"])
    assert by_token.get("/sessions/current")["user"] == "eve"
    assert "token" not in eve.get("/tokens")["items"][0]
    eve.delete("/tokens/" + token["id"])
    refused(401, by_token.get, "/machines")
    local.patch("/users/eve", {"enabled": False})
    refused(401, eve.get, "/machines")
    refused(401, Client(w.daemon, tls=True).login, "eve", "second-password")
    local.delete("/users/eve")
    refused(404, local.get, "/users/eve")
    # A token never gives more than it was made for, nor makes another that does.
    weak = local.post("/tokens", {"name": "w", "user": "one-administrator", "role": "viewer"})
    weak = Client(w.daemon, tls=True, token=weak["token"])
    refused(403, weak.get, "/users")
    refused(403, weak.post, "/tokens", {"name": "t", "role": "operator"})
    local.patch("/users/one-administrator", {"enabled": False})
    refused(409, local.patch, "/users/admin", {"enabled": False})
    refused(409, local.delete, "/users/admin")
    local.patch("/users/one-administrator", {"enabled": True})
    assert {r["name"] for r in local.get("/roles")["items"]} == \
        {"administrator", "operator", "viewer", "none"}
    local.post("/groups", {"name": "g", "description": "d"})
    refused(409, local.post, "/groups", {"name": "g"})
    refused(422, local.patch, "/groups/g", {"members": ["nobody"]})
    assert local.patch("/groups/g", {"members": ["admin"]})["members"] == ["admin"]
    local.delete("/groups/g")
    refused(422, local.post, "/grants", {"subject": "user:no", "role": "viewer", "object": "folder:/"})
    refused(422, local.post, "/grants", {"subject": "user:admin", "role": "viewer", "object": "x:y"})


def test_sessions_and_csrf(w):
    someone = Client(w.daemon, tls=True)
    refused(401, someone.login, "admin", "wrong")
    refused(401, someone.login, "nobody", "wrong")
    answer = someone.login("admin", w.admin_password)
    for word in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/"):
        assert word in answer.headers["Set-Cookie"]
    csrf = someone.csrf
    assert someone.get("/sessions/current")["csrf_token"] == csrf
    for bad in (None, "", "0" * 64, csrf[:-1]):
        someone.csrf = bad
        refused(403, someone.post, "/groups", {"name": "by-csrf"})
        refused(403, someone.delete, "/sessions/current")
    refused(404, w.local.get, "/groups/by-csrf")
    someone.csrf = csrf
    refused(403, someone.post, "/groups", {"name": "x"}, headers={"Origin": "https://evil.example"})
    someone.delete("/sessions/current")
    refused(401, someone.get, "/machines")


def test_passwords_are_nowhere(w):
    secret = "Zq9-unheard-of-" + "".join(random.choices(string.ascii_letters, k=12))
    w.local.post("/users", {"name": "quiet", "password": secret})
    someone = Client(w.daemon, tls=True)
    someone.login("quiet", secret)
    answers = [w.local.raw("POST", "/users", "{\"password\": \"" + secret + "\", ",
                           {"Content-Type": "application/json"}).text,
               w.local.raw("POST", "/users", {"name": 1, "password": secret}).text,
               w.local.raw("PATCH", "/users/quiet", {"password": [secret]}).text,
               someone.raw("POST", "/sessions", {"user": secret, "password": secret}).text]
    for path in ("/users/quiet", "/users", "/events", "/audit", "/tasks"):
        answers.append(w.local.raw("GET", path).text)
    assert not any(secret in text for text in answers)
    lists = subprocess.run(["ps", "axww", "-o", "args", "e"], capture_output=True, text=True,
                           check=False).stdout
    assert secret not in lists and w.admin_password not in lists
    hidden = [secret.encode(), w.admin_password.encode(), someone.cookie.split("=")[1].encode(),
              w.people["viewer"].token.encode()]
    for folder, _, names in os.walk(w.daemon.folder):
        for name in names:
            path = os.path.join(folder, name)
            if name == "initial-password" or not os.path.isfile(path):
                continue
            with open(path, "rb") as f:
                data = f.read()
            assert not any(h in data for h in hidden), path
    w.local.delete("/users/quiet")


# ---- Machines ----

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


# ---- Transfers ----

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
    refused(409, local.delete, path)
    refused(409, local.patch, path, {"name": "third"})
    for body, method, where in (({"command": ["ls"]}, "POST", "/exec"),
                                (None, "GET", "/files?path=/x"), ("x", "PUT", "/files?path=/x")):
        refused(409, local.call, method, f"/machines/{machine}{where}", body)
    local.do("/machines/" + machine, method="DELETE")
    assert local.patch(path, {"name": "third"})["name"] == "third"
    refused(422, local.patch, path, {"dhcp": True, "vlan": 5})
    local.delete(path)
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


# ---- Attacks ----

def test_malformed_bodies(w):
    kind = {"Content-Type": "application/json"}
    for body in ("", "{", "[]", "null", "{}x", '{"name": "a", "name": "b"}', "\xff\xfe", '"x"',
                 '{"name": "a\\u0000b"}', "{" * 10000, "[" * 100000, '{"a":' * 70 + "1" + "}" * 70,
                 '{"name": 1e999999}', "1" * 10000):
        answer = w.local.raw("POST", "/machines", body.encode("latin-1"), kind)
        assert answer.status in (400, 422), f"{body[:20]}: {answer.status}"
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert w.local.raw("POST", "/machines", b"{}", {"Content-Type": "text/plain"}).status == 415
    assert w.local.raw("POST", "/machines", b" " * ((1 << 20) + 1), kind).status == 413
    # Longer than it says it is, without saying, and larger heads than there is room for.
    assert w.local.raw("GET", "/api/v1/machines?q=" + "a" * 100000, api="").status == 414
    answer = None
    try:
        answer = w.local.raw("GET", "/api/v1/machines", headers={"X-Much": "b" * 100000}, api="")
    except (OSError, client.http.client.HTTPException):
        pass
    assert answer is None or answer.status in (413, 431)
    w.local.close()
    assert w.local.get("/machines")["total"] >= 0


def test_raw_nonsense(w):
    rng = random.Random(3)
    for i in range(60):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(0.1)
            s.connect(w.daemon.socket)
            good = b"GET /api/v1/machines HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde"
            data = bytearray(good if i % 2 else rng.randbytes(200))
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            s.sendall(bytes(data))
            s.shutdown(socket.SHUT_WR)
            try:
                while s.recv(65536):
                    pass
            except (socket.timeout, ConnectionError):
                pass
    for request in (b"POST /api/v1/machines HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
                    b"GET /api/v1/events/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Version: 7\r\nSec-WebSocket-Key: x\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(w.daemon.socket)
            s.sendall(request)
            assert s.recv(4096).startswith(b"HTTP/1.1 4")
    stream = w.local.websocket("/api/v1/events/stream")
    stream.sock.sendall(b"\xff" * 64)  # no frame of this world
    stream.sock.settimeout(PATIENCE)
    try:
        while stream.sock.recv(4096):
            pass
    except ConnectionError:
        pass
    assert w.local.get("/host")["cpus"]


def test_thousand_connections_and_slow_clients(w):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    address, sockets = w.daemon.address, []
    try:
        for i in range(1000):
            s = socket.create_connection(address, timeout=PATIENCE)
            s.sendall(b"\x16\x03" if i % 2 else b"")  # half of them begin to speak TLS, slowly
            sockets.append(s)
        other = Client(w.daemon, tls=True, token=w.people["viewer"].token)
        begin = time.monotonic()
        assert other.get("/machines")["total"] >= 0
        assert w.local.get("/machines")["total"] >= 0
        assert time.monotonic() - begin < 20
    finally:
        for s in sockets:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # The local socket with clients that never finish their requests.
    slow = []
    for _ in range(200):
        s = socket.socket(socket.AF_UNIX)
        s.connect(w.daemon.socket)
        s.sendall(b"POST /api/v1/machines HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        slow.append(s)
    assert w.local.get("/machines")["total"] >= 0
    for s in slow:
        s.close()
    with open(f"/proc/{w.daemon.process.pid}/status", encoding="utf-8") as f:
        rss = int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
    assert rss < 300 << 10, f"{rss} KiB"


def test_rate_limits(w):
    with Daemon(w.build, options={"requests_per_second": 20, "logins_per_minute": 3}) as daemon:
        someone = Client(daemon, tls=True)
        statuses = [someone.raw("POST", "/sessions", {"user": "admin", "password": "x"}).status
                    for _ in range(6)]
        assert statuses[:3] == [401] * 3 and statuses[-1] == 429, statuses
        answers = [someone.raw("GET", "/") for _ in range(200)]
        limited = [a for a in answers if a.status == 429]
        assert limited and int(limited[0].headers["Retry-After"]) >= 1
        local = Client(daemon)
        assert all(local.raw("GET", "/").status == 200 for _ in range(200))


# ---- One daemon, one database ----

def test_second_daemon_is_refused(w):
    second = Daemon(w.build, data=w.daemon.data)
    try:
        second.spawn()
        assert second.process.wait(PATIENCE) == 1
        assert "another mulliond" in second.messages()
        assert w.local.get("/")["api"] == "v1"
    finally:
        second.remove()


def test_database_versions(w):
    import sqlite3
    daemon = Daemon(w.build)
    try:
        daemon.start()
        machine = Client(daemon).machine("kept")
        daemon.stop()
        path = os.path.join(daemon.data, "host.db")
        db = sqlite3.connect(path)
        newest = db.execute("PRAGMA user_version").fetchone()[0]
        # As version 1 left it: no statistics, no index.
        db.executescript("DROP TABLE stats; DROP INDEX events_object; PRAGMA user_version=1")
        db.close()
        daemon.start()
        assert Client(daemon).get("/machines/" + machine)["name"] == "kept"
        assert "series" in Client(daemon).get("/host/stats")
        daemon.stop()
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA user_version").fetchone()[0] == newest
        db.execute(f"PRAGMA user_version={newest + 1}")
        db.commit()
        db.close()
        before = open(path, "rb").read()
        daemon.spawn()
        assert daemon.process.wait(PATIENCE) == 1
        assert "newer version" in daemon.messages()
        assert open(path, "rb").read() == before
    finally:
        daemon.remove()


def kill_orphan(pid):
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end and \
            " Z " not in open(f"/proc/{pid}/stat", encoding="utf-8").read():
        time.sleep(0.02)


def test_end_stops_or_keeps_machines(w):
    daemon = Daemon(w.build).start()
    try:
        local = Client(daemon)
        machine = local.machine("runs", autostart={"enabled": True}, disks=[{"capacity": 1 << 20}])
        local.do(f"/machines/{machine}/start")
        pid = daemon.machines_alive()[machine]
        daemon.stop()
        os.kill(pid, 0)
        daemon.start()
        assert Client(daemon).get("/machines/" + machine)["state"] == "running"
        assert daemon.machines_alive()[machine] == pid
        # It ends while nobody looks: the next daemon says how.
        daemon.stop()
        kill_orphan(pid)
        daemon.start()
        got = Client(daemon).get("/machines/" + machine)
        assert got["state"] == "crashed" and got["state_reason"], got
        # The daemon went between its wish to end a process and the end: that is no crash.
        Client(daemon).do(f"/machines/{machine}/start")
        pid = daemon.machines_alive()[machine]
        daemon.kill()
        with open(os.path.join(daemon.runtime, machine, "stopping"), "w", encoding="utf-8"):
            kill_orphan(pid)
        daemon.start()
        got = Client(daemon).get("/machines/" + machine)
        assert got["state"] == "stopped" and not got["state_reason"], got
        # It went before the process of a start was there, or in the middle of clearing up.
        daemon.kill()
        for name in (machine, machine + ".gone"):
            os.mkdir(os.path.join(daemon.runtime, name))
            with open(os.path.join(daemon.runtime, name, "life"), "w", encoding="utf-8"):
                pass
        daemon.start()
        got = Client(daemon).get("/machines/" + machine)
        assert got["state"] == "stopped" and not got["state_reason"], got
        assert not [n for n in os.listdir(daemon.runtime) if n.startswith(machine)]
        # A clean end: the next start is the host's, and starts what wants to be.
        Client(daemon).do(f"/machines/{machine}/start")
        daemon.process.send_signal(signal.SIGUSR1)
        # SeaBIOS ignores the button: do not wait for the patience of a guest.
        os.kill(daemon.machines_alive()[machine], signal.SIGKILL)
        assert daemon.process.wait(2 * PATIENCE) == 0
        daemon.start()
        Client(daemon).until("/machines/" + machine, lambda m: m["state"] == "running")
        Client(daemon).do(f"/machines/{machine}/stop", {"force": True})
        daemon.stop()
    finally:
        daemon.remove()


def test_full_disk(w):
    """No file may grow beyond what there is: what does not fit fails, and nothing else."""
    daemon = Daemon(w.build).start()
    try:
        Client(daemon).machine("before", disks=[{"capacity": 1 << 20}])
        daemon.stop()
        size = os.path.getsize(os.path.join(daemon.data, "host.db"))
        daemon.start(preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (size + 400000, size + 400000)))
        local = Client(daemon)
        failed = made = 0
        for i in range(400):
            answer = local.raw("POST", "/groups", {"name": f"g{i}", "description": "d" * 1000})
            assert answer.status in (201, 507, 500), answer.text
            made += answer.status == 201
            failed += answer.status != 201
            if failed > 3:
                break
        assert failed and made
        groups = local.get("/groups?limit=1000")["total"]
        assert groups == made
        assert local.get("/machines")["items"][0]["name"] == "before"
        daemon.kill()
        daemon.start()
        assert Client(daemon).get("/groups?limit=1000")["total"] == made
        Client(daemon).machine("after")
        daemon.stop()
    finally:
        daemon.remove()


def test_every_list(w):
    for path, method, operation in each_operation():
        if method == "GET" and operation["operationId"].startswith("list") and "{" not in path:
            page = w.local.get(path + "?limit=1000")
            assert len(page["items"]) == page["total"] or page["next"], path
    network = w.local.get("/networks?q=default")["items"][0]
    assert w.local.get("/networks/" + network["id"])["name"] == "default"
    assert w.local.get("/networks/" + network["id"] + "/ports")["items"] == []
    assert w.local.get("/networks/" + network["id"] + "/leases")["items"] == []
    w.local.post("/groups", {"name": "looked-at"})
    assert w.local.get("/groups/looked-at")["members"] == []
    w.local.delete("/groups/looked-at")


def test_every_answer_is_described(w):
    """Last: what the tests have seen of the document."""
    missing = []
    for path, method, operation in each_operation():
        statuses = {s for p, m, s in DOCUMENT.seen if (p, m) == (path, method.lower())}
        good = {s for s in operation["responses"] if s[0] in "123"}
        later = "501" in operation["responses"] and "501" in statuses
        sockets = "101" in good
        if not statuses & good and not later and not sockets:
            missing.append(f"{method} {path}: {sorted(statuses)}")
    allowed = {"POST /tasks/{id}/cancel",
               # resources.py has pools
               "POST /pools",
               # library.py has templates
               "DELETE /templates/{id}", "GET /templates/{id}", "POST /templates",
               # guests.py has a guest that answers
               "POST /machines/{id}/exec", "GET /machines/{id}/files", "PUT /machines/{id}/files",
               "POST /images"}
    missing = [m for m in missing if m.split(":")[0] not in allowed and "pools/" not in m]
    assert not missing, missing


def main():
    global DOCUMENT
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.path.join(client.ROOT, "build"))
    parser.add_argument("only", nargs="*", help="parts of tests' names")
    args = parser.parse_args()
    with open(os.path.join(client.ROOT, "src", "api", "rest", "openapi.json"), encoding="utf-8") as f:
        DOCUMENT = Document(json.load(f))
    world = World(os.path.abspath(args.build))
    try:
        tests = [f for name, f in globals().items() if name.startswith("test_")]
        status = Tests(tests, args.only).run(world)
    finally:
        world.daemon.remove()
    return status


if __name__ == "__main__":
    sys.exit(main())
