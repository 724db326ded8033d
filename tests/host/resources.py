#!/usr/bin/env python3
"""Resource pools, shares, reservations and limits: what the host promises, what it refuses, and that
running machines are held to it."""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import client
import harness
from client import Client, Daemon, Refused
from schema import Document

with open(os.path.join(client.ROOT, "src", "api", "rest", "openapi.json"), encoding="utf-8") as document:
    DOCUMENT = Document(json.load(document))


def checked(raw):
    def call(self, method, path, body=None, headers=None, api="/api/v1"):
        answer = raw(self, method, path, body, headers, api)
        if api == "/api/v1":
            DOCUMENT.check_answer(method, path, answer)
        return answer
    return call


Client.raw = checked(Client.raw)

MIB = 1 << 20
NONE = {"limit": None, "shares": "normal", "reservation": 0}


def refused(status, function, *args, field=None, says=(), **kw):
    try:
        got = function(*args, **kw)
    except Refused as e:
        assert e.answer.status == status, f"{args}: {e} instead of {status}"
        problem = e.answer.json
        assert field is None or problem.get("field") == field, problem
        for text in says:
            assert text in problem["detail"], problem
        return problem
    raise AssertionError(f"{args}: was allowed: {got}")


class World:
    def __init__(self, build):
        self.build = build
        self.folder = tempfile.mkdtemp(prefix="mullion-r")
        self.daemon = Daemon(build, options={"machines_cpu": 200, "machines_memory": 1024}).start()
        self.local = Client(self.daemon)
        # A boot sector that does nothing, as fast as it can.
        spin = os.path.join(self.folder, "spin.img")
        with open(spin, "wb") as f:
            f.write((b"\xeb\xfe" + bytes(508) + b"\x55\xaa").ljust(MIB, b"\0"))
        self.local.do("/imports", {"kind": "image", "path": spin, "name": "spin"})

    def spinning(self, name, **kw):
        machine = self.local.machine(name, image="spin", config={"firmware": "bios"}, **kw)
        self.local.do(f"/machines/{machine}/start")
        return machine

    def forget(self, *machines):
        for machine in machines:
            if self.local.get("/machines/" + machine)["state"] != "stopped":
                self.local.do(f"/machines/{machine}/stop", {"force": True})
            disks = "?disks=delete" if self.local.get("/machines/" + machine)["config"].get("disks") else ""
            self.local.do("/machines/" + machine + disks, method="DELETE")

    def call(self, machine, method, **params):
        """One call of the control channel of a machine's process."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(client.PATIENCE)
            s.connect(os.path.join(self.daemon.runtime, machine, "control.sock"))
            with s.makefile("rw") as f:
                f.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n")
                f.flush()
                return json.loads(f.readline())["result"]

    def mullion(self, *words, status=0):
        run = subprocess.run(
            [os.path.join(self.build, "mullion"), *words], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=client.PATIENCE * 2,
            env=dict(os.environ, MULLION_RUNTIME_DIR=self.daemon.runtime, XDG_CONFIG_HOME=self.folder))
        assert run.returncode == status, f"{words}: {run.returncode}, {run.stdout}{run.stderr}"
        return run.stdout + run.stderr

    def remove(self):
        self.daemon.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- What can be said ----

def test_pools(w):
    local = w.local
    prod = local.post("/pools", {"name": "prod", "cpu": {"shares": "high", "limit": 150}})
    assert prod["cpu"] == {"shares": "high", "reservation": 0, "limit": 150, "expandable": True}, prod
    assert prod["memory"]["limit"] is None and prod["disk"]["read_iops_limit"] is None
    web = local.post("/pools", {"name": "web", "parent": "prod", "memory": {"shares": 5000}})
    assert web["parent"] == prod["id"] and web["memory"]["shares"] == 5000
    path = "/pools/" + prod["id"]
    assert local.get(path)["pools"] == 1 and local.get(path)["machines"] == 0
    for body, field in (({"cpu": {"shares": 0}}, "/cpu/shares"), ({"cpu": {"shares": "huge"}}, "/cpu/shares"),
                        ({"cpu": {"limit": 1}}, "/cpu/limit"), ({"cpu": {"limit": -1}}, "/cpu/limit"),
                        ({"cpu": {"reservation": 200}}, "/cpu/reservation"),
                        ({"disk": {"expandable": True}}, "/disk/expandable"),
                        ({"memory": {"limit": 1 << 60}}, "/memory/limit"),
                        ({"network": {"in_limit": 5}}, "/network/in_limit"), ({"what": 1}, "/what"),
                        ({"name": ".x"}, "/name"), ({"parent": "none"}, "/parent")):
        refused(422, local.patch, path, body, field=field)
    refused(409, local.patch, path, {"parent": "web"}, field="/parent")
    refused(409, local.patch, path, {"parent": "prod"}, field="/parent")
    refused(409, local.post, "/pools", {"name": "web"}, field="/name")
    changed = local.patch(path, {"cpu": {"limit": None, "shares": None}, "disk": {"limit": 1 << 20}})
    assert changed["cpu"]["limit"] is None and changed["cpu"]["shares"] == "normal"
    assert changed["disk"]["limit"] == 1 << 20
    assert local.patch(path, {"disk": None})["disk"]["limit"] is None
    refused(409, local.delete, path, says=("1 pools",))
    machine = local.machine("in-web", pool="web", resources={"cpu": {"shares": 7}})
    got = local.get("/machines/" + machine)
    assert got["pool"] == web["id"] and got["resources"]["cpu"]["shares"] == 7 and got["granted"] is None
    assert got["resources"]["memory"] == NONE, got["resources"]
    refused(409, local.delete, "/pools/" + web["id"], says=("1 machines",))
    assert local.patch("/machines/" + machine, {"pool": None, "resources": None})["pool"] is None
    assert local.get("/machines/" + machine)["resources"]["cpu"] == NONE
    refused(422, local.patch, "/machines/" + machine, {"pool": "none"}, field="/pool")
    refused(422, local.patch, "/machines/" + machine, {"resources": {"memory": {"reservation": 65 * MIB}}},
            field="/resources/memory/reservation")
    refused(422, local.patch, "/machines/" + machine, {"resources": {"cpu": {"limit": 2}}},
            field="/resources/cpu/limit")
    local.delete("/pools/" + web["id"])
    local.delete(path)
    w.forget(machine)
    deep = None
    for i in range(16):
        deep = local.post("/pools", {"name": f"deep{i}", "parent": deep})["id"]
    refused(409, local.post, "/pools", {"name": "deep16", "parent": deep}, field="/parent")
    left = {p["id"]: p for p in local.get("/pools")["items"]}
    while deep:
        deep = (local.delete("/pools/" + deep), left[deep]["parent"])[1]
    assert local.get("/pools")["items"] == []


def test_who_may(w):
    """A grant on a pool is one on what is in it; amounts are the administrator's."""
    local = w.local
    outer = local.post("/pools", {"name": "outer"})
    inner = local.post("/pools", {"name": "inner", "parent": outer["id"]})
    machine = local.machine("granted", pool=inner["id"])
    for user, role in (("ann", "none"), ("op", "operator")):
        local.post("/users", {"name": user, "role": role, "password": "secret-enough"})
    ann, op = (Client(w.daemon, tls=True, token=local.post("/tokens", {"name": "t", "user": user})["token"])
               for user in ("ann", "op"))
    refused(404, ann.get, "/machines/" + machine)
    assert ann.get("/pools")["items"] == []
    grant = local.post("/grants", {"subject": "user:ann", "role": "operator", "object": "pool:" + outer["id"]})
    assert ann.get("/machines/" + machine)["pool"] == inner["id"]
    assert {p["name"] for p in ann.get("/pools")["items"]} == {"outer", "inner"}
    refused(403, ann.patch, "/machines/" + machine, {"resources": {"cpu": {"limit": 50}}}, field="/resources")
    refused(403, op.patch, "/machines/" + machine, {"resources": {"cpu": {"limit": 50}}}, field="/resources")
    refused(403, op.post, "/pools", {"name": "mine"})
    assert op.patch("/machines/" + machine, {"pool": None})["pool"] is None
    refused(404, ann.get, "/machines/" + machine)
    local.delete("/grants/" + grant["id"])
    w.forget(machine)
    for pool in (inner, outer):
        local.delete("/pools/" + pool["id"])


def test_command_line(w):
    w.mullion("pool", "create", "gold", "--cpu-shares", "high", "--memory-limit", "512M", "--iops-limit", "900",
              "--cpu-expandable", "off")
    w.mullion("pool", "create", "silver", "--parent", "gold", "--network-in-limit", "2M")
    pools = {p["name"]: p for p in json.loads(w.mullion("pool", "list", "--format", "json"))}
    assert pools["gold"]["memory"]["limit"] == 512 * MIB and pools["gold"]["disk"]["iops_limit"] == 900
    assert pools["gold"]["cpu"]["expandable"] is False and pools["gold"]["cpu"]["shares"] == "high"
    assert pools["silver"]["parent"] == pools["gold"]["id"] and pools["silver"]["network"]["in_limit"] == 2 * MIB
    w.mullion("pool", "edit", "silver", "--network-in-limit", "none", "--parent", "none", "--name", "bronze")
    assert json.loads(w.mullion("pool", "info", "bronze", "--format", "json"))["network"]["in_limit"] is None
    assert "high" in w.mullion("pool", "list")
    machine = w.local.machine("edited")
    w.mullion("edit", "edited", "--pool", "gold", "--cpu-shares", "250", "--cpu-limit", "50",
              "--memory-reservation", "16M", "--disk-read-limit", "1M")
    got = w.local.get("/machines/" + machine)
    assert got["pool"] == pools["gold"]["id"] and got["resources"]["cpu"] == {
        "shares": 250, "reservation": 0, "limit": 50}, got
    assert got["resources"]["memory"]["reservation"] == 16 * MIB
    assert got["resources"]["disk"]["read_limit"] == MIB
    assert "1 machines" in w.mullion("pool", "delete", "gold", status=4)
    w.mullion("edit", "edited", "--pool", "none", "--cpu-limit", "none")
    for wrong in (("--cpu-shares", "0"), ("--cpu-limit", "x"), ("--memory-limit", "much")):
        w.mullion("edit", "edited", *wrong, status=2)
    w.mullion("pool", "delete", "gold", "bronze")
    assert "--read-iops-limit" in w.mullion("pool", "create", "--help")
    w.forget(machine)


# ---- What is promised ----

def test_admission(w):
    local = w.local
    first = w.spinning("first", resources={"memory": {"reservation": 64 * MIB}, "cpu": {"reservation": 100}})
    assert local.get("/host")["capacity"] == {"cpu": {"total": 200, "reserved": 100},
                                              "memory": {"total": 1024 * MIB, "reserved": 64 * MIB}}
    second = local.machine("second", cpus=2, image="spin", config={"firmware": "bios"},
                           resources={"cpu": {"reservation": 150}})
    task = local.wait(local.post(f"/machines/{second}/start"), "failed")
    detail = task["error"]["detail"]
    assert task["error"]["status"] == 409 and "second" in detail, detail
    assert "150 %" in detail and "250 %" in detail and "200 %" in detail, detail
    assert local.get("/machines/" + second)["state"] == "stopped"
    # A running machine cannot promise itself more either.
    local.patch("/machines/" + second, {"resources": {"cpu": {"reservation": 100}}})
    local.do(f"/machines/{second}/start")
    refused(409, local.patch, "/machines/" + second, {"resources": {"cpu": {"reservation": 101}}},
            says=("101 %", "201 %"))
    # Pools: what they keep is taken from the host, whether machines run in them or not.
    refused(409, local.post, "/pools", {"name": "p", "cpu": {"reservation": 1}}, says=("pool p", "201 %"))
    refused(409, local.post, "/pools", {"name": "p", "memory": {"reservation": 1024 * MIB}},
            says=("1088.0 MiB", "1024.0 MiB"))
    pool = local.post("/pools", {"name": "p", "memory": {"reservation": 100 * MIB, "expandable": False,
                                                         "limit": 200 * MIB}})
    third = local.machine("third", memory=128 * MIB, pool="p", image="spin", config={"firmware": "bios"},
                          resources={"memory": {"reservation": 101 * MIB}})
    task = local.wait(local.post(f"/machines/{third}/start"), "failed")
    assert "the pool p" in task["error"]["detail"] and "expandable" in task["error"]["detail"], task
    local.patch("/pools/" + pool["id"], {"memory": {"expandable": True}})
    local.do(f"/machines/{third}/start")
    refused(409, local.patch, "/pools/" + pool["id"], {"memory": {"expandable": False}}, says=("pool p",))
    refused(409, local.patch, "/pools/" + pool["id"], {"memory": {"limit": 100 * MIB}}, says=("limit",))
    w.forget(first, second, third)
    local.delete("/pools/" + pool["id"])
    assert local.get("/host")["capacity"]["cpu"]["reserved"] == 0


# ---- What is kept ----

def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_cpu_limit(w):
    """A machine that runs takes a new limit at once, and does not use more."""
    machine = w.spinning("held")
    path = "/machines/" + machine
    w.local.until(path, lambda m: m["granted"] == {"cpu": None, "memory": None, "disk": None, "network": None})
    w.local.patch(path, {"resources": {"cpu": {"limit": 10}}})
    w.local.until(path, lambda m: m["granted"]["cpu"] == 10)
    pid = w.daemon.machines_alive()[machine]
    held = w.call(machine, "usage")["cpu"]["held"]
    begin, used = time.monotonic(), cpu_seconds(pid)
    time.sleep(2.5)
    used, took = cpu_seconds(pid) - used, time.monotonic() - begin
    assert used <= 0.1 * took * 1.05 + 0.05, f"{used:.3f} s of CPU in {took:.3f} s"
    if used < 0.05 * took:
        print(f"# this machine is busy: {used:.3f} s of CPU in {took:.3f} s")
    else:
        assert w.call(machine, "usage")["cpu"]["held"] > held
    w.local.patch(path, {"resources": {"cpu": None}})
    w.local.until(path, lambda m: m["granted"]["cpu"] is None)
    w.forget(machine)


def test_pool_limit(w):
    """What a pool has is divided among its machines by their shares, as soon as they run."""
    local = w.local
    pool = local.post("/pools", {"name": "small", "cpu": {"limit": 40}, "disk": {"limit": 4 * MIB,
                                                                                   "iops_limit": 100}})
    machines = [w.spinning(name, pool="small", resources={"cpu": {"shares": shares}, "disk": {"shares": shares}})
                for name, shares in (("big", 300), ("little", 100))]

    def granted():
        return [local.get("/machines/" + m)["granted"] or {} for m in machines]
    end = time.monotonic() + client.PATIENCE
    while True:
        got = granted()
        if all(g.get("cpu") and g.get("disk") for g in got) and sum(g["cpu"] for g in got) <= 40:
            break
        assert time.monotonic() < end, got
        time.sleep(0.05)
    assert got[0]["cpu"] >= got[1]["cpu"] and got[0]["disk"] >= got[1]["disk"], got
    assert sum(g["disk"] for g in got) <= 4 * MIB, got
    # Whoever leaves it has no limit any more, and what it had is the other's.
    local.patch("/machines/" + machines[1], {"pool": None})
    local.until("/machines/" + machines[1], lambda m: m["granted"]["cpu"] is None)
    local.until("/machines/" + machines[0], lambda m: m["granted"]["cpu"] == 40)
    # A new daemon finds all of it again.
    w.daemon.kill()
    w.daemon.start()
    local.close()
    local.until("/machines/" + machines[0], lambda m: (m["granted"] or {}).get("cpu") == 40)
    text = local.raw("GET", "/metrics", api="").text
    for name in ("mullion_disk_reads_total", "mullion_machine_cpu_held_seconds_total"):
        assert f'{name}{{machine="{machines[0]}"' in text, text
    w.forget(*machines)
    local.delete("/pools/" + pool["id"])


def test_control_groups(w):
    """Where the host has control groups for machines, each is in its own, with weights by shares: in a tree of
    files that stands for the kernel's."""
    tree = os.path.join(w.folder, "cgroup")
    os.mkdir(tree)
    for name, text in (("cgroup.controllers", "cpu io memory\n"), ("cgroup.subtree_control", ""),
                       ("memory.min", "0")):
        with open(os.path.join(tree, name), "w", encoding="ascii") as f:
            f.write(text)

    def read(machine, name):
        with open(os.path.join(tree, "vm-" + machine, name), encoding="ascii") as f:
            return f.read()
    with Daemon(w.build, options={"cgroup": tree, "machines_cpu": 100}) as daemon:
        local = Client(daemon)
        machines = [local.machine(name, disks=[{"capacity": MIB}],
                                  resources={"cpu": {"shares": shares}, "disk": {"shares": shares},
                                             "memory": {"reservation": shares * MIB // 10}})
                    for name, shares in (("big", 300), ("little", 100))]
        for machine in machines:
            os.mkdir(os.path.join(tree, "vm-" + machine))
            for name in ("cgroup.procs", "cpu.weight", "cpu.max", "io.weight", "memory.min"):
                open(os.path.join(tree, "vm-" + machine, name), "w", encoding="ascii").close()
            local.do(f"/machines/{machine}/start")
        alive = daemon.machines_alive()
        wanted = [{"cgroup.procs": str(alive[machines[0]]), "cpu.weight": "75", "io.weight": "default 7500",
                   "cpu.max": "max 100000", "memory.min": str(30 * MIB)},
                  {"cgroup.procs": str(alive[machines[1]]), "cpu.weight": "25", "io.weight": "default 2500",
                   "cpu.max": "max 100000", "memory.min": str(10 * MIB)}]
        end = time.monotonic() + client.PATIENCE
        while True:
            got = [{name: read(m, name) for name in of} for m, of in zip(machines, wanted)]
            if got == wanted:
                break
            assert time.monotonic() < end, got
            time.sleep(0.05)
        # The kernel divides: nobody needs a limit.
        for machine in machines:
            local.until("/machines/" + machine, lambda m: m["granted"] and m["granted"]["cpu"] is None)
            local.do(f"/machines/{machine}/stop", {"force": True})


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, harness.tests_of(globals()), World))
