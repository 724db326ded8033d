"""Tests of what `make install` leaves: programs that find each other, and a library to build with."""
import os
import subprocess

from guest import Mullion, expect

TESTS = {}


def test(function):
    TESTS["install-" + function.__name__.replace("_", "-")] = function
    return function


def install(ctx):
    """Install into the test's folder. @return (root, prefix in it)"""
    root = ctx.path("root")
    build = os.path.dirname(ctx.program)
    subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", root],
                   check=True, stdout=subprocess.DEVNULL)
    prefix = subprocess.run(["find", root, "-path", "*/bin/mullion"], capture_output=True,
                            text=True, check=True).stdout.strip()
    return root, os.path.dirname(os.path.dirname(prefix))


def symbols(arguments):
    lines = subprocess.run(["nm", *arguments], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines if len(line.split()) >= 3 and
            line.split()[-2] in "TDBRVWi"}


@test
def programs(ctx):
    _, prefix = install(ctx)
    for page in ("man1/mullion-engines.1", "man1/mullion-export.1", "man1/mullion-gdb.1",
                 "man1/mullion-import.1", "man1/mullion-run.1", "man1/mullion-stats.1",
                 "man1/mullion-top.1", "man1/mullion.1", "man8/mullion-vmm.8"):
        expect(os.path.exists(os.path.join(prefix, "share", "man", page)), f"no {page}")
    with Mullion(os.path.join(prefix, "bin", "mullion"), ctx.boot("check")) as m:
        m.expect_status(0, 60 * ctx.patience)
        expect(m.checks()["done"] == "", "the guest did not end its check")


def build_and_run(ctx, static):
    root, prefix = install(ctx)
    pc = subprocess.run(["find", root, "-name", "mullion.pc"], capture_output=True, text=True,
                        check=True).stdout.strip()
    env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(pc))
    words = subprocess.run(["pkg-config", f"--define-variable=prefix={prefix}", "--cflags",
                            "--libs", *(["--static"] if static else []), "mullion"], env=env,
                           capture_output=True, text=True, check=True).stdout.split()
    libdir = os.path.dirname(os.path.dirname(pc))
    if static:
        words = [f"-l:libmullion.a" if w == "-lmullion" else w for w in words]
    program = ctx.path("embed")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "embed.c")
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-o", program, source, *words], check=True)
    console = ctx.path("console")
    result = subprocess.run([program, ctx.kernel(), ctx.initrd(), console], capture_output=True,
                            text=True, timeout=90 * ctx.patience, check=False,
                            env=dict(os.environ, LD_LIBRARY_PATH=libdir))
    with open(console, "rb") as f:
        text = f.read()
    expect(result.returncode == 0 and result.stdout.startswith("libmullion "), f"{result}")
    expect(b"check: cpus 2" in text and b"check: done" in text, f"console: {text[-500:]}")
    return libdir


@test
def shared_library(ctx):
    libdir = build_and_run(ctx, False)
    names = symbols(["-D", "--defined-only", os.path.join(libdir, "libmullion.so")])
    expect("vmhi_machine_create" in names, "the library offers nothing")
    expect(all(n.startswith(("vmhi_", "VMHI_")) for n in names), f"private symbols: {names}")


@test
def static_library(ctx):
    libdir = build_and_run(ctx, True)
    names = symbols(["--defined-only", "--extern-only", os.path.join(libdir, "libmullion.a")])
    expect("vmhi_machine_create" in names and all(n.startswith("vmhi_") for n in names),
           f"private symbols: {sorted(names)[:20]}")
