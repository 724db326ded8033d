#!/usr/bin/env python3
"""Kill mulliond with SIGKILL at random moments of creating, deleting, importing and starting
machines: afterwards the inventory, the files and the running processes agree, what was answered is
kept, and nothing is left over. --times says how often (30)."""
import argparse
import http.client
import json
import os
import random
import signal
import sys
import threading
import time

import client
from client import PATIENCE, Client, Daemon, Refused

GONE = (OSError, http.client.HTTPException, Refused, AssertionError, ValueError)


class Worker(threading.Thread):
    """Does things to machines of its own until the daemon goes; remembers what it was told."""

    def __init__(self, daemon, number, seed, ova):
        super().__init__(daemon=True)
        self.host, self.number, self.ova = daemon, number, ova
        self.random = random.Random(seed)
        self.kept, self.deleted, self.wanted = {}, set(), None
        self.serial = 0

    def run(self):
        try:
            local = Client(self.host)
            while True:
                self.step(local)
        except GONE:
            pass

    def step(self, local):
        self.serial += 1
        name = f"m{self.number}-{self.serial}-{self.random.randrange(1 << 30)}"
        what = self.random.choice(["create", "create", "import", "start", "delete", "delete"])
        if what == "create":
            machine = local.machine(name, disks=[{"capacity": 4 << 20}])
            self.kept[machine] = name
        elif what == "import":
            task = local.do("/imports", {"kind": "appliance", "path": self.ova, "name": name})
            self.kept[task["result"]["object"][8:]] = name
        elif self.kept and what == "start" and self.random.random() < 0.5:
            machine = self.random.choice(sorted(self.kept))
            local.do(f"/machines/{machine}/start")
        elif self.kept:
            machine = self.random.choice(sorted(self.kept))
            self.wanted = machine
            if local.get("/machines/" + machine)["state"] != "stopped":
                local.do(f"/machines/{machine}/stop", {"force": True})
            task = local.delete(f"/machines/{machine}?disks=delete")
            del self.kept[machine]  # from here on it goes, whatever happens
            local.wait(task)
            self.deleted.add(machine)
        self.wanted = None


def vmm_processes(daemon):
    """PIDs of mullion-vmm that were started with sockets of this daemon's."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        for word in words:
            text = word.decode(errors="replace")
            if text.startswith(daemon.runtime + "/") and text.endswith("/control.sock"):
                found[text.split("/")[-2]] = int(pid)
    return found


def verify(daemon, workers):
    """Everything agrees."""
    local = Client(daemon)
    end = time.monotonic() + PATIENCE
    while local.get("/tasks?state=running")["total"] or local.get("/tasks?state=queued")["total"]:
        assert time.monotonic() < end, "tasks go on"
        time.sleep(0.02)
    machines = {m["id"]: m for m in local.get("/machines?limit=1000")["items"]}
    for worker in workers:
        for machine, name in worker.kept.items():
            if machine != worker.wanted:
                assert machine in machines and machines[machine]["name"] == name, f"lost {name}"
        for machine in worker.deleted:
            assert machine not in machines, f"{machine} is back"
    for machine in machines.values():
        assert machine["state"] in ("stopped", "running"), machine
        assert machine["task"] is None, machine
    store = os.path.join(daemon.data, "datastores", "default")
    folders = set(os.listdir(os.path.join(store, "machines")))
    assert folders == set(machines), f"folders {folders ^ set(machines)} have no row, or no files"
    assert not [n for n in os.listdir(store) if n.startswith(".")], os.listdir(store)
    for machine in machines:
        folder = os.path.join(store, "machines", machine)
        with open(os.path.join(folder, "machine.json"), encoding="utf-8") as f:
            config = json.load(f)
        for disk in config["disks"]:
            assert os.path.getsize(os.path.join(folder, disk["path"])) > 0
        listed = local.get(f"/machines/{machine}/disks")["items"]
        assert len(listed) == len(config["disks"]) and listed[0]["capacity"] == 4 << 20, listed
    running = {m for m in machines if machines[m]["state"] == "running"}
    alive = vmm_processes(daemon)
    assert set(alive) == running, f"processes {alive}, rows {running}"
    runtime = {n for n in os.listdir(daemon.runtime) if len(n) == 36}
    assert runtime == running, f"runtime folders {runtime}, rows {running}"
    assert local.get("/tasks?state=running")["total"] == 0
    return machines


def clear(daemon, machines):
    """Back to a few machines, so that rounds stay short."""
    local = Client(daemon)
    for machine in sorted(machines)[6:]:
        if machines[machine]["state"] == "running":
            local.do(f"/machines/{machine}/stop", {"force": True})
        local.do(f"/machines/{machine}?disks=delete", method="DELETE")


def make_ova(daemon):
    local = Client(daemon)
    machine = local.machine("source", disks=[{"capacity": 4 << 20}])
    task = local.do(f"/machines/{machine}/export", {"format": "ova"})
    path = os.path.join(daemon.folder, "source.ova")
    with open(path, "wb") as f:
        f.write(local.raw("GET", task["result"]["download"], api="").body)
    local.do(f"/machines/{machine}?disks=delete", method="DELETE")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.path.join(client.ROOT, "build"))
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    rng = random.Random(args.seed)
    print(f"1..1\n# seed {args.seed}", flush=True)
    daemon = Daemon(args.build).start()
    try:
        ova = make_ova(daemon)
        kept = [{} for _ in range(3)]
        for i in range(args.times):
            workers = [Worker(daemon, n, rng.random(), ova) for n in range(3)]
            for worker, old in zip(workers, kept):
                worker.kept = dict(old)
                worker.start()
            time.sleep(rng.uniform(0.0, 0.6))
            daemon.kill()
            for worker in workers:
                worker.join(PATIENCE)
            daemon.start()
            try:
                machines = verify(daemon, workers)
            except AssertionError:
                print(f"# round {i}: {daemon.messages()[-3000:]}")
                raise
            clear(daemon, machines)
            left = {m["id"] for m in Client(daemon).get("/machines?limit=1000")["items"]}
            kept = [{m: n for m, n in w.kept.items() if m in left and m != w.wanted}
                    for w in workers]
        print(f"ok 1 - crash_{args.times}_times", flush=True)
        return 0
    except AssertionError as e:
        print(f"# {e}\nnot ok 1 - crash_{args.times}_times", flush=True)
        return 1
    finally:
        for pid in vmm_processes(daemon).values():
            os.kill(pid, signal.SIGKILL)
        daemon.remove()


if __name__ == "__main__":
    sys.exit(main())
