"""The API: what everybody sees, who may do what, sessions, passwords."""
import os
import random
import re
import string
import subprocess
import time

from api_world import GIB, each_operation, refused
from client import Client


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
