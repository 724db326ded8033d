"""Tests of what a running machine tells of itself: stats, top, perf map."""
import json
import os
import re
import shutil
import subprocess
import time

from guest import Failed, Mullion, expect

TESTS = {}


def test(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


def beyond_ram(pid, mib):
    """MiB of a machine's process in the host's memory without the guest's @mib of RAM."""
    total, is_ram = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as f:
        for line in f:
            words = line.split()
            if not words[0].endswith(":"):
                low, high = (int(x, 16) for x in words[0].split("-"))
                is_ram = high - low == mib << 20 or "memfd:" in line and "ram" in line
            elif words[0] == "Pss:" and not is_ram:
                total += int(words[1])
    return total / 1024


def mullion(ctx, env, *words, status=0):
    run = subprocess.run([ctx.program, *words], env=env, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                         timeout=60 * ctx.patience)
    expect(run.returncode == status, f"mullion {' '.join(words)}: {run.returncode}: {run.stderr}")
    return run.stdout if not status else run.stderr


@test
def stats_and_top(ctx):
    folder = ctx.path("runtime")
    env = dict(os.environ, MULLION_RUNTIME_DIR=folder)
    expect("no machine runs" in mullion(ctx, env, "top", "--count", "1", "--interval", "0.1"),
           "machines without machines")
    options = ctx.boot("check", words="mullion.then=wait") + [
        "--cpus", "2", "--name", "pane", "--memory", "256M"]
    with Mullion(ctx.program, options, env=env) as m:
        m.wait_for("check: waiting", 60 * ctx.patience)
        vcpus = json.loads(mullion(ctx, env, "stats", "pane", "--format", "json"))["vcpus"]
        expect(len(vcpus) == 2, f"{len(vcpus)} vCPUs")
        for name in ("blocks-translated", "tlb-misses", "instructions-in-c", "interrupts", "halts",
                     "cache-bytes"):
            expect(all(v[name] > 0 for v in vcpus), f"{name}: {vcpus}")
        table = mullion(ctx, env, "stats", str(m.process.pid))
        expect(re.search(r"^blocks-translated +\d+ +\d+$", table, re.M), f"table:\n{table}")
        top = json.loads(mullion(ctx, env, "top", "--count", "1", "--interval", "0.3", "--format",
                                 "json"))["machines"]
        expect(len(top) == 1 and top[0]["machine"] == "pane" and top[0]["pid"] == m.process.pid and
               len(top[0]["vcpus"]) == 2 and "tlb_misses" in top[0]["vcpus"][0], f"top: {top}")
        table = mullion(ctx, env, "top", "--count", "2", "--interval", "0.1")
        expect(table.count("pane ") == 2 and "running" in table and "TLBMISS/s" in table,
               f"top:\n{table}")
        expect("no such machine" in mullion(ctx, env, "stats", "nobody", status=1), "nobody")
        # An idle guest gives back what it does not need: that takes it some seconds.
        deadline = time.monotonic() + 60 * ctx.patience
        readable = os.access(f"/proc/{m.vmm_pid()}/smaps", os.R_OK) and os.getuid() == 0
        while readable and (more := beyond_ram(m.vmm_pid(), 256)) >= 24:
            expect(time.monotonic() < deadline, f"{more:.1f} MiB beyond the RAM of an idle guest")
            time.sleep(0.5)
        with Mullion(ctx.program, options, env=env) as other:
            other.wait_for("check: waiting", 60 * ctx.patience)
            expect("2 machines" in mullion(ctx, env, "stats", "pane", status=1), "two of a name")
            other.process.send_signal(15)
            other.expect_status(0, 30 * ctx.patience)
        m.process.kill()
        m.process.wait()
    # The machine ends with its owner; what that left behind is cleared away by the next to look.
    deadline = time.monotonic() + 20 * ctx.patience
    while True:
        mullion(ctx, env, "top", "--count", "1", "--interval", "0.1")
        if not os.listdir(folder):
            break
        expect(time.monotonic() < deadline, f"left behind: {os.listdir(folder)}")
    expect(os.stat(folder).st_mode & 0o777 == 0o700, "others may look in")


@test
def small_code_cache(ctx):
    """A guest that runs many times the code that may be kept: all of it is dropped again and again."""
    folder = ctx.path("runtime")
    env = dict(os.environ, MULLION_RUNTIME_DIR=folder)
    options = ctx.boot("check", words="mullion.then=wait") + ["--cpus", "2", "--name", "pane",
                                                              "--code-cache", "3"]
    with Mullion(ctx.program, options, env=env) as m:
        m.wait_for("check: waiting", 180 * ctx.patience)
        v = json.loads(mullion(ctx, env, "stats", "pane", "--format", "json"))["vcpus"][0]
        expect(v["cache-size"] == 3 << 20 and v["cache-bytes"] <= v["cache-size"] and
               v["cache-flushes"] > 3, f"cache: {v}")
        expect(m.checks()["cpus"] == "2" and not m.complaints(), "; ".join(m.complaints()))


def perf_works(ctx):
    data = ctx.path("probe.data")
    return shutil.which("perf") and subprocess.run(
        ["perf", "record", "-o", data, "-e", "cpu-clock", "true"], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False).returncode == 0


def check_map(path, mapping):
    kinds = set()
    with open(path, encoding="ascii") as f:
        for line in f:
            start, size, name = line.split()
            start, size = int(start, 16), int(size, 16)
            expect(mapping[0] <= start and start + size <= mapping[1] and size,
                   f"{line!r} is not in the code cache {mapping}")
            kinds.add(name.partition(":")[0])
    expect(kinds == {"mullion_glue", "guest_kernel", "guest_user"}, f"kinds {kinds}")


def find_vmm(m):
    """The machine's process, wherever it is below @m's."""
    for pid in m.descendants():
        with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as f:
            if f.read().startswith("mullion-vmm"):
                return pid
    raise Failed("no process of the machine")


@test
def perf_map(ctx):
    data, program = ctx.path("perf.data"), ctx.program
    perf = perf_works(ctx)
    if perf:
        program = ctx.path("mullion-under-perf")
        with open(program, "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\nexec perf record -o {data} -e cpu-clock -- {ctx.program} \"$@\"\n")
        os.chmod(program, 0o700)
    path = None
    try:
        with Mullion(program, ctx.boot("check", words="mullion.then=load") + ["--perf-map"]) as m:
            m.wait_for("check: init reached", 60 * ctx.patience)
            pid = find_vmm(m)
            path = f"/tmp/perf-{pid}.map"
            with open(f"/proc/{pid}/maps", encoding="ascii") as f:
                maps = re.findall(r"^(\w+)-(\w+) r-xs .*/dev/zero", f.read(), re.M)
            expect(len(maps) == 1, f"code caches: {maps}")
            m.wait_for("check: load done", 120 * ctx.patience)
            m.wait(60 * ctx.patience)
        check_map(path, [int(x, 16) for x in maps[0]])
        if perf:
            said = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym"],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", check=False).stdout
            expect("guest_user:" in said and "guest_kernel:" in said,
                   f"perf script: {said[:500]!r}")
    finally:
        if path and os.path.exists(path):
            os.unlink(path)
