#!/usr/bin/env python3
"""Boots unmodified Debian kernels with build/mullion and checks what the guest sees and what the
host is told; then gives the command line everything it must refuse.

Prints one line a test, "ok NAME" or "not ok NAME: why", and a sum. Options choose the tests, the
engine, how often, and a host kept busy meanwhile.
"""
import argparse
import concurrent.futures
import fnmatch
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import appliance_tests  # noqa: E402
import cli_tests  # noqa: E402
import debian_tests  # noqa: E402
import firmware_tests  # noqa: E402
import disk_tests  # noqa: E402
import gdb_tests  # noqa: E402
import guest_tests  # noqa: E402
import hotplug_tests  # noqa: E402
import insight_tests  # noqa: E402
import interface_tests  # noqa: E402
import install_tests  # noqa: E402
import loader_tests  # noqa: E402
import net_tests  # noqa: E402
import reclaim_tests  # noqa: E402
import screen_tests  # noqa: E402
import storage_tests  # noqa: E402
import whole_tests  # noqa: E402
from guest import Failed, Skipped  # noqa: E402


class Context:
    """What a test gets: where things are, and a folder of its own."""

    def __init__(self, args, folder):
        self.program = os.path.abspath(os.path.join(args.build, "mullion"))
        self.guest = os.path.abspath(args.guest)
        self.engine = args.engine
        self.folder = folder
        self.patience = args.patience
        self.soak = args.soak
        self.loop = args.loop
        self.verbose = args.verbose

    def note(self, text):
        """Say a figure that a test has measured."""
        if self.verbose:
            print(f"    {text}", flush=True)

    def user_net(self):
        """Can passt isolate itself here? Some containers forbid user namespaces."""
        return shutil.which("passt") and not subprocess.run(
            ["unshare", "--user", "true"], stderr=subprocess.DEVNULL, check=False).returncode

    def need_user_net(self):
        if not self.user_net():
            raise Skipped("no passt, or no user namespaces, which it needs")

    def need_i386(self, version):
        if not os.path.exists(self.kernel(version)):
            raise Skipped("the archive had no i386 kernel: see scripts/guest-assets")

    def kernel(self, version="6.12"):
        return os.path.join(self.guest, version, "vmlinuz")

    def initrd(self, version="6.12"):
        return os.path.join(self.guest, version, "initrd")

    def path(self, name):
        return os.path.join(self.folder, name)

    def boot(self, task, version="6.12", words=""):
        """The options that boot @version into @task."""
        return ["--engine", self.engine, "--kernel", self.kernel(version), "--initrd",
                self.initrd(version), "--append",
                f"console=ttyS0 quiet panic=-1 mullion.do={task} {words}".strip()]

    def make_disk(self, name, mib):
        """A disk whose first MiB has known bytes. @return its path and their SHA-256"""
        path = self.path(name)
        data = hashlib.shake_256(name.encode()).digest(1 << 20)
        with open(path, "wb") as f:
            f.write(data)
            f.truncate(mib << 20)
        return path, hashlib.sha256(data).hexdigest()


def burn():
    while True:
        pass


def run_test(args, name, function):
    """@return (result, why, seconds)"""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mullion-test-") as folder:
        try:
            function(Context(args, folder))
            result, why = "ok", ""
        except Skipped as reason:
            result, why = "skip", str(reason)
        except Failed as reason:
            result, why = "not ok", str(reason)
        except Exception:  # a test that breaks is a test that fails
            result, why = "not ok", traceback.format_exc()
    return result, why, time.monotonic() - start


def collect(args):
    """@return the tests by name, in the order in which they run"""
    tests = {}
    for suite in (
            whole_tests,  # has the longest
            cli_tests,
            install_tests,
            guest_tests,
            disk_tests,
            appliance_tests,
            gdb_tests,
            insight_tests,
            interface_tests,
            net_tests,
            reclaim_tests,
            debian_tests,
            firmware_tests,
            screen_tests,
            hotplug_tests,
            storage_tests,
            loader_tests,
    ):
        tests.update(suite.TESTS)
    if args.soak:
        tests.update(debian_tests.LONG)
    if args.whole:
        tests.update(appliance_tests.WHOLE)
        tests.update({"all": whole_tests.ALL, "pairs": whole_tests.PAIRS,
                      "buses": whole_tests.LONG}[args.whole])
    if args.loaders:
        tests.update(loader_tests.LONG)
    if args.clock:
        tests.update(debian_tests.CLOCK)
    if args.loop:
        tests = guest_tests.LOOP
    return tests


def run_named(args, name):
    """One test in a process of its own. @return its name and what run_test() does"""
    return name, *run_test(args, name, collect(args)[name])


def run_all(args, names):
    """Run tests, as many at a time as there are jobs. @return an iterator over run_named()'s"""
    if args.jobs == 1:
        yield from (run_named(args, name) for name in names)
        return
    with concurrent.futures.ProcessPoolExecutor(
            args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(run_named, args, name) for name in names]
        yield from (task.result() for task in concurrent.futures.as_completed(tasks))


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", default=os.path.join(root, "build"))
    parser.add_argument("--guest", help="folder of scripts/guest-assets (BUILD/guest)")
    parser.add_argument("--engine", default="soft")
    parser.add_argument("--patience", type=float, default=1, help="multiplies time limits")
    parser.add_argument("--repeat", type=int, default=1, help="run each test so often")
    parser.add_argument("--jobs", type=int, default=1, help="run so many tests at a time")
    parser.add_argument("--busy", type=int, default=0, metavar="N",
                        help="keep N host CPUs busy meanwhile")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES",
                        help="add stress-ng in a guest with 4 vCPUs for so long")
    parser.add_argument("--whole", nargs="?", const="buses",
                        choices=["buses", "pairs", "all"],
                        help="add boots of a whole Debian from each bus by BIOS and UEFI; all: with "
                        "each number of CPUs and network card, too; pairs: so few of those that "
                        "any two choices come together once")
    parser.add_argument("--loaders", action="store_true",
                        help="add whole passes of memtest86+ and Debian's installer "
                        "(scripts/guest-assets BUILD/guest loaders)")
    parser.add_argument("--loop", type=int, default=0, metavar="N",
                        help="just boot N times in a row, with 2 vCPUs")
    parser.add_argument("--load", action="store_true", help="keep all host CPUs busy meanwhile")
    parser.add_argument("--clock", action="store_true",
                        help="add a minute of comparing the guest's time with the host's")
    parser.add_argument("--verbose", action="store_true", help="show what was measured")
    parser.add_argument("--json", metavar="FILE", help="write the results")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("patterns", nargs="*", default=["*"], help="tests to run (shell patterns)")
    args = parser.parse_args()
    args.guest = args.guest or os.path.join(args.build, "guest")
    tests = collect(args)
    chosen = [n for n in tests if any(fnmatch.fnmatch(n, p) for p in args.patterns)]
    if args.list:
        print("\n".join(chosen))
        return 0
    busy = args.busy or (args.load and os.cpu_count() or 0)
    burners = [multiprocessing.Process(target=burn, daemon=True) for _ in range(busy)]
    for burner in burners:
        burner.start()
    results = []
    for name, result, why, seconds in run_all(args, chosen * args.repeat):
        results.append({"name": name, "result": result, "why": why, "seconds": seconds})
        first, *rest = why.splitlines() or [""]
        print(f"{result} {name} ({seconds:.1f} s){': ' if why else ''}{first}", flush=True)
        for line in rest if result == "not ok" else []:
            print("   ", line, flush=True)
    for burner in burners:
        burner.kill()
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(results, f, indent=1)
    count = {r: sum(t["result"] == r for t in results) for r in ("ok", "not ok", "skip")}
    print(f"{count['ok']} passed, {count['not ok']} failed, {count['skip']} skipped")
    return 1 if count["not ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
