"""Runs the tests of the host: functions named test_*, which are given a world (a daemon and what the tests need
beside it) and say by TAP how they went. Also in a namespace of the tests' own, where the host allows that."""
import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback

from client import ROOT


class Skip(Exception):
    """The host cannot run this test; the reason is said."""


def tests_of(names):
    """@return the tests of a module's names, in their order"""
    return [f for name, f in names.items() if name.startswith("test_")]


def say_log(world):
    daemon = getattr(world, "daemon", None)
    if daemon:
        print("# " + daemon.messages()[-2000:].replace("\n", "\n# "))


def run(tests, *world, reason=None):
    """@param world  what each test is given; @param reason  why none can be run. @return the exit status"""
    failed = 0
    print(f"1..{len(tests)}", flush=True)
    for i, test in enumerate(tests, 1):
        begin = time.monotonic()
        try:
            if reason:
                raise Skip(reason)
            test(*world)
            print(f"ok {i} - {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Skip as why:
            print(f"ok {i} - {test.__name__} # SKIP {why}", flush=True)
        except Exception:  # a test may break in any way
            failed += 1
            print("".join("# " + line + "\n" for line in traceback.format_exc().splitlines()), end="")
            say_log(*world[:1])
            print(f"not ok {i} - {test.__name__}", flush=True)
    return 1 if failed else 0


def words(text, guest=False):
    """The command line of a program of tests."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    if guest:
        parser.add_argument("--guest", help="folder of scripts/guest-assets (BUILD/guest)")
    parser.add_argument("only", nargs="*", help="parts of tests' names")
    args = parser.parse_args()
    args.build = os.path.abspath(args.build)
    if guest:
        args.guest = os.path.abspath(args.guest or os.path.join(args.build, "guest"))
    return args


def chosen(tests, only):
    return [f for f in tests if not only or any(o in f.__name__ for o in only)]


def main(text, tests, make_world, guest=False):
    """@param make_world  of the build folder, and with @guest of the guests'; what it makes has a remove()"""
    args = words(text, guest)
    world = make_world(args.build, args.guest) if guest else make_world(args.build)
    try:
        return run(chosen(tests, args.only), world)
    finally:
        world.remove()


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def be_first():
    """As the first process of a PID namespace: wait for what others leave, until the tests, in a child, are done."""
    tests = os.fork()
    if not tests:
        return
    while True:
        pid, status = os.wait()
        if pid == tests:
            os._exit(os.waitstatus_to_exitcode(status) & 0xff)


def main_inside(text, tests, make_world, unshare, why_not):
    """The same in namespaces of their own.

    @param make_world  of the build folder and the guests' folder
    @param unshare     the words of unshare(1) that make them
    @param why_not     says why there can be none; None: there can"""
    inside = "MULLION_TESTS_INSIDE"
    args = words(text, guest=True)
    tests = chosen(tests, args.only)
    if not os.environ.get(inside):
        reason = why_not()
        if reason:
            return run(tests, None, reason=reason)
        return subprocess.run([*unshare, sys.executable, *sys.argv], env=dict(os.environ, **{inside: "1"}),
                              preexec_fn=die_with_parent, check=False).returncode
    if os.getpid() == 1:
        be_first()
    world = make_world(args.build, args.guest)
    try:
        return run(tests, world)
    finally:
        world.remove()
