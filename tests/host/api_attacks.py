"""The API: malformed requests, slow clients, limits; a daemon's end, its database, a full disk."""
import os
import random
import re
import resource
import signal
import socket
import time

import client
from api_world import refused
from client import PATIENCE, Client, Daemon


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


def test_upload_goes_on_behind_a_kill(w):
    """What was answered is kept, what is sent twice is refused, the rest makes it whole."""
    daemon = Daemon(w.build).start()
    try:
        local = Client(daemon)
        data = os.urandom(3 << 20)
        path = "/uploads/" + local.post("/uploads", {"name": "disk.raw", "size": len(data)})["id"]
        octets = {"Content-Type": "application/octet-stream"}
        local.call("PATCH", path, data[:2 << 20], {"Upload-Offset": "0", **octets})
        daemon.kill()
        local.close()
        daemon.start()
        assert local.get(path)["offset"] == 2 << 20
        refused(409, local.call, "PATCH", path, data[:1 << 20], {"Upload-Offset": "0", **octets})
        local.call("PATCH", path, data[2 << 20:], {"Upload-Offset": str(2 << 20), **octets})
        local.do("/imports", {"kind": "image", "upload": path.split("/")[2], "name": "whole"})
        machine = local.machine("of-it", image="whole")
        done = local.do(f"/machines/{machine}/export", {"format": "raw"})
        assert local.raw("GET", done["result"]["download"], api="").body == data
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
