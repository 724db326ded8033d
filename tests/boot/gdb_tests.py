"""Tests of the GDB remote stub, with gdb itself and with a peer that speaks its protocol by hand."""
import json
import os
import re
import shutil
import socket
import subprocess
import time

from guest import Failed, Mullion, Skipped, expect
from guest_tests import pvh_kernel

TESTS = {}


def test(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


class Peer:
    """Speaks the remote serial protocol, without acknowledgements."""

    def __init__(self, connection, patience):
        self.socket = connection
        self.socket.settimeout(60 * patience)
        self.buffer = b""
        self.socket.sendall(b"+")
        expect(self.ask("QStartNoAckMode") == "OK", "no QStartNoAckMode")
        self.ask("qSupported:swbreak+;hwbreak+")

    @classmethod
    def connect(cls, path, patience):
        deadline = time.monotonic() + 20 * patience
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(path)
                return cls(connection, patience)
            except OSError:
                connection.close()
                if time.monotonic() > deadline:
                    raise Failed("no gdb socket") from None
                time.sleep(0.05)

    def tell(self, packet):
        data = packet.encode()
        self.socket.sendall(b"$%s#%02x" % (data, sum(data) & 0xff))

    def hear(self):
        while True:
            match = re.search(rb"\$([^#]*)#[0-9a-f]{2}", self.buffer)
            if match:
                self.buffer = self.buffer[match.end():]
                return match[1].decode()
            data = self.socket.recv(65536)
            if not data:
                raise Failed("the stub hung up")
            self.buffer += data

    def ask(self, packet):
        self.tell(packet)
        return self.hear()

    def register(self, number, size=8):
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}"))[:size], "little")

    def word(self, address):
        return int.from_bytes(bytes.fromhex(self.ask(f"m{address:x},4")), "little")


    def run_until(self, done):
        """Let it run for a while, again and again, until @done() says that it has."""
        deadline = time.monotonic() + 60
        while True:
            self.tell("vCont;c")
            time.sleep(0.2)
            self.socket.sendall(b"\x03")
            stop = self.hear()
            expect(stop.startswith("T02"), f"interrupted: {stop}")
            if done():
                return
            expect(time.monotonic() < deadline, "it does not run")


RAX, RCX, RSP, RIP, CS = 0, 2, 7, 16, 18  # numbers in the target description

# A kernel of PVH: counts at 300000h with one instruction, at 300010h with another, for ever.
#   200000: mov $300000h, %esp; xor %eax, %eax
#   200007: incl (%esp)
#   20000a: inc %eax
#   20000b: mov %eax, 300010h
#   200010: mov 300010h, %ecx
#   200016: jmp 200007
COUNTER = bytes.fromhex("bc00003000" "31c0" "ff0424" "40" "a310003000" "8b0d10003000" "ebef")


def counter(ctx, cpus=1):
    kernel = ctx.path("kernel")
    pvh_kernel(kernel, COUNTER)
    return ["--engine", ctx.engine, "--kernel", kernel, "--cpus", str(cpus), "--memory", "64M",
            "--gdb", f"unix={ctx.path('gdb')},wait=on"]


def linux(ctx, cpus, more=()):
    return ctx.boot("check", words="nokaslr") + [
        "--memory", "256M", "--cpus", str(cpus), "--gdb", f"unix={ctx.path('gdb')},wait=on", *more]


def run_gdb(ctx, commands, timeout=120):
    """@return what gdb said"""
    if not shutil.which("gdb"):
        raise Skipped("no gdb: scripts/setup test")
    path = ctx.path("gdb")
    deadline = time.monotonic() + 20 * ctx.patience
    while not os.path.exists(path):
        expect(time.monotonic() < deadline, "no gdb socket")
        time.sleep(0.05)
    words = ["gdb", "-q", "-nx", "-batch", "-ex", "set pagination off", "-ex",
             "set confirm off", "-ex", "set architecture i386:x86-64", "-ex",
             f"target remote {path}"]
    for c in commands:
        words += ["-ex", c]
    try:
        run = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                             timeout=timeout * ctx.patience)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"gdb hangs: {e.stdout!r}") from None
    return run.stdout


# ---- With gdb, on Linux ----

def kernel_entry(ctx, cpus):
    """From the boot loader's entry through the decompressor to the kernel's, with a watch on the
    place that the kernel's ELF header is unpacked to: e_entry."""
    with Mullion(ctx.program, linux(ctx, cpus)) as m:
        said = run_gdb(ctx, [
            "info threads", "p/x $rip", "stepi", "p/x $rip", "stepi", "p/x $rip", "stepi",
            'echo entry:\\n', "p/x $rip", "p/x $cr0", "p/x $efer",
            "watch *(unsigned long *) 0x1000018", "continue", 'echo watched:\\n',
            "p/x *(unsigned long *) 0x1000018", "delete", "hbreak *$", "continue",
            'echo kernel:\\n', "p/x $rip", "stepi", "p/x $rip", "stepi", "p/x $rip",
            "info threads", "delete", "detach"])
        steps = [int(x, 16) for x in re.findall(r"\$\d+ = (0x[0-9a-f]+)", said)]
        expect(len(steps) >= 10, f"gdb said:\n{said}")
        expect(said.count("Thread ") >= 2 * cpus, f"not {cpus} threads:\n{said}")
        entry = steps[0]
        expect(entry < steps[1] < steps[2] < steps[3] < entry + 32, f"steps {steps}")
        expect(steps[4] & 0x80000001 == 0x80000001 and steps[5] & 0x500 == 0x500,
               f"CR0 {steps[4]:#x}, EFER {steps[5]:#x}")
        expect("Hardware watchpoint 1" in said and "New value" in said, f"no watch:\n{said}")
        expect(0x1000000 <= steps[6] < 0x2000000, f"e_entry {steps[6]:#x}\n{said}")
        expect(steps[7] == steps[6], f"kernel's entry {steps[7]:#x}\n{said}")
        expect(steps[7] < steps[8] < steps[9] < steps[7] + 32, f"steps {steps}")
        expect("detached" in said.lower(), f"no detach:\n{said}")
        m.wait_for("check: done", 60 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        expect(m.checks()["cpus"] == str(cpus), "not all CPUs came up")


for _cpus in (1, 2):
    TESTS[f"gdb-kernel-entry-{_cpus}cpu"] = lambda ctx, c=_cpus: kernel_entry(ctx, c)


@test
def gdb_interrupt_and_threads(ctx):
    """A running kernel with two vCPUs: interrupt, look, step one of them, go on."""
    words = "nokaslr mullion.then=wait"
    options = ctx.boot("check", words=words) + ["--cpus", "2", "--gdb", f"unix={ctx.path('gdb')}"]
    with Mullion(ctx.program, options) as m:
        m.wait_for("check: waiting", 60 * ctx.patience)
        p = Peer.connect(ctx.path("gdb"), ctx.patience)
        expect(p.ask("?").startswith("T05"), "not stopped")
        expect(p.ask("qfThreadInfo") == "m1,2" and p.ask("qsThreadInfo") == "l", "threads")
        for _ in range(5):
            p.tell("vCont;c")
            time.sleep(0.1)
            p.socket.sendall(b"\x03")
            expect(p.hear().startswith("T02thread:"), "not interrupted")
        for thread in (1, 2):
            expect(p.ask(f"Hg{thread}") == "OK", "Hg")
            at = p.register(RIP)
            expect(at >> 47 in (0, 0x1ffff), f"RIP {at:#x}")
            expect(len(p.ask(f"m{p.register(RSP):x},40")) == 128, "the stack is not there")
            code = p.ask(f"m{at:x},10")
            # Its page, read by its physical address, has the same bytes.
            expect(len(code) == 32, "the code is not there")
        expect(p.ask("T2") == "OK" and p.ask("T3").startswith("E"), "T")
        expect(p.ask("D") == "OK", "detach")
        m.process.send_signal(15)
        m.wait_for("reboot: Power down", 30 * ctx.patience)
        m.expect_status(0, 20 * ctx.patience)


@test
def gdb_and_a_debugger_inside(ctx):
    """tests/boot/debugger.c debugs a process on each CPU of the guest; meanwhile we stop at a function of
    those processes."""
    here = os.path.dirname(os.path.abspath(__file__))
    scripts = os.path.join(here, "..", "..", "scripts")
    program, script, initrd = ctx.path("debugger"), ctx.path("script"), ctx.path("initrd")
    # Where no other program of the guest has code: breakpoints hold in every address space.
    subprocess.run(["gcc", "-O2", "-static", "-no-pie", "-Wl,-Ttext-segment=0x70000000", "-o", program,
                    os.path.join(here, "debugger.c")], check=True)
    symbols = subprocess.run(["nm", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    loop = int(re.search(r"^([0-9a-f]+) T child_loop$", symbols, re.M)[1], 16)
    with open(script, "w", encoding="ascii") as f:
        f.write("/bin/debugger 0 & /bin/debugger 1; wait\necho check: done\n")
    subprocess.run([os.path.join(scripts, "mkinitrd"), "--init", os.path.join(scripts, "guest", "init"),
                    "--add", f"bin/debugger={program}", "--add", f"etc/mullion/debug={script}",
                    "--output", initrd], check=True)
    options = ["--engine", ctx.engine, "--kernel", ctx.kernel("6.12"), "--initrd", initrd, "--memory",
               "256M", "--cpus", "2", "--append", "console=ttyS0 quiet panic=-1 mullion.do=debug "
               "mullion.network=off", "--gdb", f"unix={ctx.path('gdb')},wait=on"]
    with Mullion(ctx.program, options) as m:
        p = Peer.connect(ctx.path("gdb"), ctx.patience)
        stops = {1: 0, 2: 0}
        for _ in range(8):
            expect(p.ask(f"Z1,{loop:x},1") == "OK", "Z1")
            stop = re.fullmatch(r"T05thread:([12]);hwbreak:;", p.ask("vCont;c"))
            expect(stop, "no breakpoint")
            thread = int(stop[1])
            stops[thread] += 1
            expect(p.register(RIP) == loop and p.register(CS, 4) & 3 == 3,
                   f"not in user mode: {p.register(RIP):#x}")
            expect(p.ask(f"z1,{loop:x},1") == "OK", "z1")
            expect(p.ask(f"vCont;s:{thread}") == f"T05thread:{thread};" and p.register(RIP) == loop + 5,
                   "no step")
        expect(stops == {1: 4, 2: 4}, f"stops by CPU: {stops}")
        expect(p.ask("D") == "OK", "detach")
        m.wait_for("check: done", 60 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        expect(m.output.count(b"debugger: right") == 2 and not m.complaints(), m.tail())


# ---- By hand, on a kernel of 24 bytes, on any engine ----

@test
def gdb_breakpoints(ctx):
    with Mullion(ctx.program, counter(ctx)) as m:
        p = Peer.connect(ctx.path("gdb"), ctx.patience)
        expect(p.register(RIP) == 0x200000, "not at the entry")
        for kind, reason in (("0", "swbreak"), ("1", "hwbreak")):
            expect(p.ask(f"Z{kind},20000a,1") == "OK", "Z")
            stop = p.ask("vCont;c")
            expect(stop == f"T05thread:1;{reason}:;", stop)
            expect(p.register(RIP) == 0x20000a, "not at the breakpoint")
            expect(p.ask("m20000a,1") == "40", "the breakpoint shows in memory")
            expect(p.ask(f"z{kind},20000a,1") == "OK", "z")
            before = p.word(0x300000)
            expect(p.ask("vCont;s:1") == "T05thread:1;", "step")
            expect(p.register(RIP) == 0x20000b, "stepped elsewhere")
            # Once around the loop.
            expect(p.ask(f"Z{kind},20000a,1") == "OK" and "T05" in p.ask("vCont;c:1") and
                   p.ask(f"z{kind},20000a,1") == "OK", "a second time")
            expect(p.word(0x300000) == before + 1, "not one round")
            expect(p.ask("s") == "T05thread:1;", "step off the breakpoint")
        # No breakpoint: it runs until told to stop.
        p.run_until(lambda: p.word(0x300000) > 1000)
        p.tell("vKill;1")
        expect(p.hear() == "OK", "kill")
        m.expect_status(0, 20 * ctx.patience)


@test
def gdb_on_kvm(ctx):
    """Steps, breakpoints and interrupts on the other engine. (Not every /dev/kvm has watches: one
    without hardware behind it emulates the guest's kernel.)"""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skipped("no /dev/kvm")
    ctx.engine = "kvm"
    with Mullion(ctx.program, counter(ctx, 2)) as m:
        p = Peer.connect(ctx.path("gdb"), ctx.patience)
        for at in (0x200005, 0x200007, 0x20000a, 0x20000b):
            expect(p.ask("vCont;s:1") == "T05thread:1;" and p.register(RIP) == at, f"to {at:#x}")
        expect(p.ask("Z1,200010,1") == "OK", "Z1")
        expect(p.ask("vCont;c") == "T05thread:1;hwbreak:;", "hwbreak")
        expect(p.register(RIP) == 0x200010 and p.word(0x300000) == 1, "not at the breakpoint")
        expect(p.ask("z1,200010,1") == "OK" and p.ask("Z0,20000a,1") == "OK", "Z0")
        expect(p.ask("vCont;c") == "T05thread:1;swbreak:;", "swbreak")
        expect(p.ask("m20000a,1") == "40" and p.word(0x300000) == 2, "memory at the breakpoint")
        for i in range(3):
            expect(p.ask(f"Z2,{0x300100 + 8 * i:x},8") == "OK", "Z2")
        expect(p.ask("Z2,300200,8") == "OK", "a watch beside a software breakpoint")
        expect(p.ask("Z2,300208,8") == "E1c", "a fifth debug register")
        for i in range(3):
            p.ask(f"z2,{0x300100 + 8 * i:x},8")
        expect(p.ask("z2,300200,8") == "OK" and p.ask("z0,20000a,1") == "OK", "z")
        p.run_until(lambda: p.word(0x300000) > 1000)
        p.tell("k")
        m.expect_status(0, 20 * ctx.patience)


@test
def gdb_watchpoints(ctx):
    with Mullion(ctx.program, counter(ctx)) as m:
        p = Peer.connect(ctx.path("gdb"), ctx.patience)
        # (type, address, the name in the answer, RIP behind the instruction)
        for kind, address, name, behind in ((2, 0x300000, "watch", 0x20000a),
                                            (2, 0x300010, "watch", 0x200010),
                                            (4, 0x300000, "awatch", 0x20000a)):
            expect(p.ask(f"Z{kind},{address:x},4") == "OK", "Z")
            for _ in range(3):
                stop = p.ask("vCont;c")
                expect(stop == f"T05thread:1;{name}:{address:x};", stop)
                expect(p.register(RIP) == behind, f"{name}: RIP {p.register(RIP):#x}")
            expect(p.ask(f"z{kind},{address:x},4") == "OK", "z")
        if ctx.engine == "soft":  # the processor has none for reading alone
            expect(p.ask("Z3,300010,4") == "OK", "Z3")
            for _ in range(2):
                expect(p.ask("c") == "T05thread:1;rwatch:300010;", "rwatch")
                expect(p.register(RIP) == 0x200016, "rwatch: RIP")
            expect(p.ask("z3,300010,4") == "OK", "z3")
        # A watch beside what is written says nothing; the machine runs at speed again behind it.
        expect(p.ask("Z2,300020,4") == "OK", "Z")
        before = p.word(0x300000)
        p.run_until(lambda: (p.word(0x300000) - before) & 0xffffffff > 1000)
        p.tell("k")
        m.expect_status(0, 20 * ctx.patience)


@test
def gdb_registers_and_memory(ctx):
    with Mullion(ctx.program, counter(ctx, 2)) as m:
        p = Peer.connect(ctx.path("gdb"), ctx.patience)
        description, at = "", 0
        while True:
            part = p.ask(f"qXfer:features:read:target.xml:{at:x},800")
            description += part[1:]
            at += len(part) - 1
            if part[0] == "l":
                break
        sizes = [int(n) for n in re.findall(r'<reg name="[^"]*" bitsize="(\d+)"', description)]
        expect(len(p.ask("g")) == sum(sizes) // 4, "the g packet is not as described")
        for _ in range(2):
            expect(p.ask("vCont;s:1") == "T05thread:1;", "step")
        expect(p.register(RSP) == 0x300000, "RSP")
        expect(p.ask(f"P{RAX:x}=0040000000000000") == "OK", "P")  # 4000h
        expect(p.ask("Z0,200007,1") == "OK" and "T05" in p.ask("c"), "to the loop's start")
        expect(p.ask("z0,200007,1") == "OK", "z")
        expect(p.ask("vCont;s:1") and p.ask("vCont;s:1"), "two steps")
        expect(p.register(RAX) == 0x4001, "INC %eax")
        expect(p.ask("M300000,4:78563412") == "OK" and p.word(0x300000) == 0x12345678, "M")
        expect(p.ask("X300000,4:abcd") == "OK" and p.word(0x300000) == 0x64636261, "X")
        expect(p.ask("m4000000,4") == "E0e", "reading where there is no RAM")
        expect(p.ask("M4000000,1:00") == "E0e", "writing where there is no RAM")
        expect(p.ask("P12=0000") .startswith("E"), "a selector was written")
        # Code that is written while breakpoints are there: the new bytes run.
        expect(p.ask("M20000a,1:48") == "OK", "M")  # dec %eax
        before = p.register(RAX)
        p.ask("vCont;s:1")
        expect(p.ask("Z0,20000b,1") == "OK" and "T05" in p.ask("c"), "c")
        expect(p.register(RAX) == (before - 1) & 0xffffffff, "old code ran")
        # Mode for physical addresses: there is no paging here, so it is the same memory.
        expect(p.ask("Qqemu.PhyMemMode:1") == "OK" and p.ask("qqemu.PhyMemMode") == "1", "physical")
        expect(p.ask("m200000,5") == "bc00003000", "physical memory")
        p.tell("k")
        m.expect_status(0, 20 * ctx.patience)


@test
def gdb_hostile_peer(ctx):
    """Nonsense is hung up on, and the machine goes on."""
    with Mullion(ctx.program, counter(ctx)) as m:
        Peer.connect(ctx.path("gdb"), ctx.patience).socket.close()
        for data in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n$k#6b", b"$" + b"a" * 100000,
                     b"+$m0,4#zz"):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(20 * ctx.patience)
            s.connect(ctx.path("gdb"))
            try:
                s.sendall(data)
                while s.recv(65536):
                    pass
            except OSError:
                pass
            s.close()
        p = Peer.connect(ctx.path("gdb"), ctx.patience)
        other = socket.socket(socket.AF_UNIX)
        other.settimeout(20 * ctx.patience)
        other.connect(ctx.path("gdb"))
        expect(other.recv(1) == b"", "two debuggers at once")
        p.run_until(lambda: p.word(0x300000) > 1000)
        p.tell("k")
        m.expect_status(0, 20 * ctx.patience)


@test
def gdb_over_the_control_socket(ctx):
    control = ctx.path("control")
    kernel = ctx.path("kernel")
    pvh_kernel(kernel, COUNTER)
    with Mullion(ctx.program, ["--engine", ctx.engine, "--kernel", kernel, "--control", control,
                               "--memory", "64M"]) as m:
        deadline = time.monotonic() + 20 * ctx.patience
        while not os.path.exists(control):
            expect(time.monotonic() < deadline, "no control socket")
            time.sleep(0.05)
        time.sleep(0.2)
        bridge = subprocess.Popen([ctx.program, "gdb", control], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)
        bridge.stdin.write(b"+$?#3f")
        bridge.stdin.flush()
        heard = b""
        while b"#" not in heard:
            data = os.read(bridge.stdout.fileno(), 4096)
            expect(data, "the bridge ended")
            heard += data
        expect(heard.startswith(b"+$T05thread:1;"), f"heard {heard!r}")
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20 * ctx.patience)
        s.connect(control)
        s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"status"}\n')
        status = json.loads(s.makefile().readline())
        expect(status["result"]["state"] == "paused", f"{status}")
        s.sendall(b'{"jsonrpc":"2.0","id":2,"method":"resume"}\n')
        expect("error" in json.loads(s.makefile().readline()), "resumed under the debugger")
        bridge.stdin.close()
        expect(bridge.wait(20 * ctx.patience) == 0, "the bridge failed")
        deadline = time.monotonic() + 20 * ctx.patience
        while True:  # the debugger has gone: the machine runs
            s.sendall(b'{"jsonrpc":"2.0","id":3,"method":"status"}\n')
            if json.loads(s.makefile().readline())["result"]["state"] == "running":
                break
            expect(time.monotonic() < deadline, "still held")
            time.sleep(0.05)
        s.sendall(b'{"jsonrpc":"2.0","id":4,"method":"quit"}\n')
        m.expect_status(0, 20 * ctx.patience)
