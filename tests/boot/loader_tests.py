"""Boot protocols and boot loaders other than Linux's own: multiboot."""
import os
import re
import subprocess

from guest import Mullion, expect

TESTS = {}


def test(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


@test
def multiboot_xen(ctx):
    """Debian's Xen by multiboot 2, with a Debian kernel and its initrd as modules."""
    xen = os.path.join(ctx.guest, "xen", "xen")
    expect(os.path.exists(xen), f"{xen} is missing: scripts/guest-assets makes it")
    options = ["--engine", ctx.engine, "--memory", "768M", "--kernel", xen, "--append",
               "console=com1 com1=115200,8n1 dom0_mem=512M", "--module",
               f"{ctx.kernel('6.1-amd64')},args=console=hvc0 quiet panic=-1 mullion.do=check",
               "--module", ctx.initrd("6.1-amd64"), "--no-reboot"]
    with Mullion(ctx.program, options) as m:
        m.wait_for(r"Xen version 4\.", 60 * ctx.patience)
        m.wait_for("check: done", 240 * ctx.patience)
        m.expect_status(0, 60 * ctx.patience)
        text = m.output.decode(errors="replace")
        expect(re.search(r"Command line: console=com1 com1=115200,8n1 dom0_mem=512M", text),
               f"Xen's command line{m.tail()}")
        got = m.checks()
        expect(got["tainted"] == "0" and 300 << 10 < int(got["memory"]) < 512 << 10,
               f"{got}{m.tail()}")


@test
def multiboot_refused(ctx):
    """Modules for a kernel that takes none, and files that are not there."""
    for words, what in (
            (["--module", ctx.initrd()], "takes no modules"),
            (["--module", ctx.path("none")], "takes no modules"),
            (["--module", ""], "give FILE")):
        r = subprocess.run([ctx.program, "run", "--kernel", ctx.kernel(), *words],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, check=False, timeout=60)
        expect(r.returncode in (1, 2) and what in r.stderr, f"{words}: {r.returncode} {r.stderr}")
