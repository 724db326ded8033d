"""Tests that boot a guest: TESTS maps names to functions of a Context."""
import hashlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import termios
import time

from guest import STALLS, Failed, Mullion, Skipped, expect, expect_gone

TESTS = {}


def test(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


# ---- Whole boots: each kernel with 1 and 2 vCPUs ----

def expect_sound(m):
    """The guest's kernel had nothing to complain about."""
    complaints = m.complaints()
    expect(not complaints, "; ".join(complaints))
    tainted = m.checks().get("tainted")
    expect(tainted == "0" or (tainted == "16384" and m.stalled < STALLS.total),
           f"tainted {tainted}{m.tail()}")


def boot(ctx, version, cpus, words=""):
    disk, digest = ctx.make_disk("disk.img", 8)
    mac = "02:00:00:4d:75:%02x" % cpus
    options = ctx.boot("check", version, words) + ["--memory", "256M", "--cpus", str(cpus),
                                                   "--disk", f"{disk},format=raw"]
    if ctx.user_net():
        options += ["--net", f"user,mac={mac}"]
    with Mullion(ctx.program, options) as m:
        m.wait_for("check: init reached", 60 * ctx.patience)
        children = m.descendants()
        m.wait_for("check: done", 60 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        got = m.checks()
        expect_sound(m)
        expect(got["kernel"].startswith(version.partition("-")[0]), f"kernel {got['kernel']}")
        expect(got["cpus"] == str(cpus), f"{got['cpus']} CPUs in the guest")
        expect(180 << 10 < int(got["memory"]) < 256 << 10, f"{got['memory']} KiB in the guest")
        expect(got["disk"] == f"{8 << 20} {digest}", f"disk: {got['disk']}")
        with open(disk, "rb") as f:
            f.seek(1 << 20)
            written = hashlib.sha256(f.read(1 << 20)).hexdigest()
        expect(got["wrote"] == written, "what the guest wrote is not in the file")
        if ctx.user_net():
            expect(got["mac"] == mac, f"MAC {got['mac']}")
            expect(got["address"], "no address from passt")
        expect(b"mullion:" not in m.errors, f"said on stderr: {m.errors!r}")
        expect_gone(children)


for _version in ("6.12", "6.1"):
    for _cpus in (1, 2):
        TESTS[f"boot-{_version}-{_cpus}cpu"] = \
            lambda ctx, v=_version, c=_cpus: boot(ctx, v, c)


def boot_loop(ctx):
    """ctx.loop boots in a row with 2 vCPUs, of both kernels in turn."""
    for i in range(ctx.loop):
        version = ("6.12", "6.1")[i % 2]
        with Mullion(ctx.program, ctx.boot("check", version) +
                     ["--memory", "256M", "--cpus", "2"]) as m:
            m.wait_for("check: done", 120 * ctx.patience)
            m.expect_status(0, 60 * ctx.patience)
            expect_sound(m)
            expect(m.checks()["cpus"] == "2" and m.checks()["clock"] in ("tsc", "kvm-clock"),
                   f"boot {i}: {m.checks()}")
            print(f"boot {i + 1} of {ctx.loop}: {version}, {m.took:.1f} s", flush=True)


LOOP = {"boot-loop": boot_loop}


# ---- 32-bit guests ----

def boot_i386(ctx, version, cpus):
    ctx.need_i386(version)
    boot(ctx, version, cpus, "noisapnp")  # which waits for cards of the nineties


for _version, _cpus in (("6.1-686-pae", 1), ("6.1-686-pae", 2), ("6.1-686", 2)):
    TESTS[f"boot-{_version}-{_cpus}cpu"] = \
        lambda ctx, v=_version, c=_cpus: boot_i386(ctx, v, c)


@test
def i386_programs(ctx):
    """Programs of an i386 system under a 64-bit kernel."""
    ctx.need_i386("6.1-686-pae")
    initrd = ctx.path("initrd")
    scripts = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts")
    guest = os.path.join(scripts, "guest")
    subprocess.run([os.path.join(scripts, "mkinitrd"), "--busybox",
                    os.path.join(ctx.guest, "6.1-686-pae", "busybox"), "--init",
                    os.path.join(guest, "init"), "--add",
                    f"etc/mullion/check={os.path.join(guest, 'check')}", "--output", initrd],
                   check=True)
    options = ["--engine", ctx.engine, "--kernel", ctx.kernel("6.1"), "--initrd", initrd,
               "--memory", "256M", "--cpus", "2", "--append",
               "console=ttyS0 quiet panic=-1 mullion.do=check"]
    with Mullion(ctx.program, options) as m:
        m.wait_for("check: done", 60 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        got = m.checks()
        expect(got["kernel"].startswith("6.1"), f"kernel {got['kernel']}")
        expect(got["cpus"] == "2", f"{got['cpus']} CPUs in the guest")


@test
def memory_above_4g(ctx):
    with open("/proc/meminfo", encoding="ascii") as f:
        total = int(f.readline().split()[1]) >> 10
    if total < 6144:
        raise Skipped(f"the host has {total} MiB")
    options = ctx.boot("check") + ["--memory", "4608M"]
    with Mullion(ctx.program, options) as m:
        m.expect_status(0, 60 * ctx.patience)
        got = int(m.checks()["memory"]) >> 10
        expect(4300 < got < 4608, f"{got} MiB in the guest")


@test
def four_cpus(ctx):
    with Mullion(ctx.program, ctx.boot("check") + ["--cpus", "4"]) as m:
        m.expect_status(0, 90 * ctx.patience)
        expect(m.checks()["cpus"] == "4", m.checks()["cpus"])


@test
def load_on_two_cpus(ctx):
    disk, _ = ctx.make_disk("disk.img", 64)
    options = ctx.boot("check", words="mullion.then=load") + ["--cpus", "2", "--disk", f"{disk},format=raw"]
    with Mullion(ctx.program, options) as m:
        m.wait_for("check: load done", 180 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)


# ---- Devices ----

@test
def disk_readonly(ctx):
    disk, digest = ctx.make_disk("disk.img", 4)
    with open(disk, "rb") as f:
        before = hashlib.sha256(f.read()).hexdigest()
    with Mullion(ctx.program, ctx.boot("check") + ["--disk", f"{disk},readonly=on,format=raw"]) as m:
        m.expect_status(0, 60 * ctx.patience)
        got = m.checks()
        expect(got["disk"] == "readonly", f"disk: {got['disk']}")
        expect(digest.encode() in m.output, "the content is wrong")
    with open(disk, "rb") as f:
        expect(hashlib.sha256(f.read()).hexdigest() == before, "the file has changed")


@test
def console_input(ctx):
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=echo"),
                 stdin=subprocess.PIPE) as m:
        m.wait_for("check: echo ready", 60 * ctx.patience)
        for i in range(20):
            m.send(b"line %d of twenty\n" % i)
            m.wait_for(f"check: heard line {i} of twenty", 20 * ctx.patience)
        m.send(b"end\n")
        m.expect_status(0, 30 * ctx.patience)


@test
def console_unix(ctx):
    path = ctx.path("console")
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=echo") +
                 ["--console", f"unix={path}"]) as m:
        deadline = time.monotonic() + 10
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60 * ctx.patience)
            s.connect(path)
            seen = b""
            while b"check: echo ready" not in seen:
                seen += s.recv(4096)
            s.sendall(b"over a socket\nend\n")
            while b"check: heard over a socket" not in seen:
                seen += s.recv(4096)
        m.expect_status(0, 30 * ctx.patience)
    expect(not os.path.exists(path), "the socket was left behind")


@test
def console_virtio(ctx):
    options = ["--engine", ctx.engine, "--kernel", ctx.kernel(), "--initrd", ctx.initrd(),
               "--append", "console=hvc0 quiet panic=-1 mullion.do=check", "--console",
               "stdio,device=virtio"]
    with Mullion(ctx.program, options) as m:
        m.wait_for("check: done", 60 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)


@test
def port_forward(ctx):
    ctx.need_user_net()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=serve") +
                 ["--net", f"user,forward=tcp:127.0.0.1:{port}:8000"]) as m:
        m.wait_for("check: serving", 60 * ctx.patience)
        answer, deadline = b"", time.monotonic() + 20 * ctx.patience
        while not answer and time.monotonic() < deadline:  # the guest may not listen yet
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as s:
                    s.sendall(b"hello\n")  # passt of 2023 opens the other side with our first byte
                    while data := s.recv(4096):
                        answer += data
            except OSError:
                pass
            m.pump(0.2)
        expect(answer == b"hello from the guest\n", f"answer {answer!r}")
        m.expect_status(0, 30 * ctx.patience)


# ---- How a machine ends ----

@test
def reset_boots_again(ctx):
    disk, _ = ctx.make_disk("disk.img", 8)
    options = ctx.boot("check", words="mullion.then=reboot-once") + \
        ["--disk", f"{disk},format=raw", "--cpus", "2"]
    if ctx.user_net():
        options += ["--net", "user"]
    with Mullion(ctx.program, options) as m:
        m.wait_for("check: second boot", 120 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
        expect(m.output.count(b"check: init reached") == 2, "not two boots")


@test
def reset_with_no_reboot(ctx):
    with Mullion(ctx.program,
                 ctx.boot("check", words="mullion.then=reboot") + ["--no-reboot"]) as m:
        m.expect_status(3, 60 * ctx.patience)


@test
def guest_panic(ctx):
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=panic")) as m:
        m.expect_status(5, 60 * ctx.patience)
        expect(b"panicked" in m.errors, "stderr does not say so")


def pvh_kernel(path, code):
    """A tiny ELF kernel: 32-bit @code at 2 MiB, entered by PVH."""
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x200000)
    ehdr = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x200000, 64, 0,
                                                     0, 64, 56, 2, 0, 0, 0)
    at = 64 + 2 * 56
    load = struct.pack("<IIQQQQQQ", 1, 7, at + len(note), 0x200000, 0x200000, len(code),
                       len(code), 4096)
    notes = struct.pack("<IIQQQQQQ", 4, 4, at, 0, 0, len(note), len(note), 4)
    with open(path, "wb") as f:
        f.write(ehdr + load + notes + note + code)


@test
def triple_fault(ctx):
    kernel = ctx.path("kernel")
    pvh_kernel(kernel, b"\x0f\x0b")  # ud2, and no IDT
    with Mullion(ctx.program, ["--engine", ctx.engine, "--kernel", kernel]) as m:
        m.expect_status(4, 20 * ctx.patience)
        expect(b"triple fault" in m.errors, "stderr does not say so")


@test
def jump_into_mmio(ctx):
    kernel = ctx.path("kernel")
    # mov eax, 0xfed00000 (HPET); jmp eax
    pvh_kernel(kernel, b"\xb8\x00\x00\xd0\xfe\xff\xe0")
    with Mullion(ctx.program, ["--engine", ctx.engine, "--kernel", kernel]) as m:
        status = m.wait(20 * ctx.patience)
        expect(status in (1, 4), f"exit status {status}{m.tail()}")


@test
def jump_into_nothing(ctx):
    kernel = ctx.path("kernel")
    pvh_kernel(kernel, b"\xb8\x00\x00\x00\xd0\xff\xe0")  # mov eax, 0xd0000000; jmp eax
    with Mullion(ctx.program, ["--engine", ctx.engine, "--kernel", kernel]) as m:
        status = m.wait(20 * ctx.patience)
        expect(status in (1, 4), f"exit status {status}{m.tail()}")


@test
def register_nonsense(ctx):
    """Writes to every register: the machine may end as it likes, the host process must not crash
    and must still listen."""
    here = os.path.dirname(os.path.abspath(__file__))
    kernel, obj, raw = ctx.path("kernel"), ctx.path("nonsense.o"), ctx.path("nonsense.bin")
    subprocess.run(["gcc", "-m32", "-c", "-o", obj, os.path.join(here, "nonsense.S")], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x200000", "--oformat=binary", "-o", raw, obj],
                   check=True, stderr=subprocess.DEVNULL)
    with open(raw, "rb") as f:
        pvh_kernel(kernel, f.read())
    disk, _ = ctx.make_disk("disk.img", 4)
    options = ["--engine", ctx.engine, "--kernel", kernel, "--no-reboot", "--disk",
               f"{disk},format=raw", "--console", "stdio", "--console",
               "none,device=virtio", "--cpus", "2"]
    if ctx.user_net():
        options += ["--net", "user"]
    with Mullion(ctx.program, options) as m:
        try:
            status = m.wait(60 * ctx.patience)
        except Failed:
            m.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            m.process.send_signal(signal.SIGTERM)
            status = m.wait(10 * ctx.patience)
        expect(status in (0, 3, 4, 5, 143), f"exit status {status}{m.tail()}")
        return status


@test
def sigterm_presses_power_button(ctx):
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=wait")) as m:
        m.wait_for("check: waiting", 60 * ctx.patience)
        m.process.send_signal(signal.SIGTERM)
        m.wait_for("reboot: Power down", 20 * ctx.patience)
        m.expect_status(0, 20 * ctx.patience)


# mov dx, 0x3f8; mov al, 'u'; out dx, al; mov al, 'p'; out dx, al
SAY_UP = b"\x66\xba\xf8\x03\xb0u\xee\xb0p\xee"


def terminate(m, ctx):
    """Signals that come one upon the other count as one: send them until it ends."""
    deadline = time.monotonic() + 5 * ctx.patience
    while m.process.poll() is None and time.monotonic() < deadline:
        m.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    m.expect_status(143, 1)


@test
def second_sigterm_ends_at_once(ctx):
    kernel = ctx.path("kernel")
    pvh_kernel(kernel, SAY_UP + b"\xfa\xf4\xeb\xfd")  # cli; hlt; jmp: a guest that hears nothing
    with Mullion(ctx.program, ["--engine", ctx.engine, "--kernel", kernel]) as m:
        m.wait_for("up", 20 * ctx.patience)
        m.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        expect(m.process.poll() is None, "ended at the first SIGTERM")
        terminate(m, ctx)


@test
def busy_loop_can_be_stopped(ctx):
    kernel = ctx.path("kernel")
    pvh_kernel(kernel, SAY_UP + b"\xfa\xeb\xfe")  # cli; jmp .
    with Mullion(ctx.program, ["--engine", ctx.engine, "--kernel", kernel]) as m:
        m.wait_for("up", 20 * ctx.patience)
        terminate(m, ctx)


# ---- Terminal, monitor, control ----

def expect_restored(m):
    expect(termios.tcgetattr(m.slave) == m.before, "the terminal was not restored")


@test
def terminal_ctrl_a_x(ctx):
    with Mullion(ctx.program, ctx.boot("shell"), terminal=True) as m:
        m.wait_for("Leave: ", 60 * ctx.patience)
        m.wait_for("# ", 20 * ctx.patience)
        expect(termios.tcgetattr(m.slave) != m.before, "not in raw mode")
        at = len(m.output)
        m.send(b"echo $((6*7))fortytwo\r")
        m.wait_for("42fortytwo", 20 * ctx.patience, at)
        children = m.descendants()
        m.send(b"\x01x")
        m.expect_status(0, 10 * ctx.patience)
        expect_restored(m)
        expect_gone(children)


@test
def terminal_monitor(ctx):
    with Mullion(ctx.program, ctx.boot("shell") + ["--name", "pane"], terminal=True) as m:
        m.wait_for("# ", 60 * ctx.patience)
        m.send(b"\x01c")
        m.wait_for(r"\(mullion\) ")
        m.send(b"info\r")
        m.wait_for("state: running", 10)
        m.wait_for("name: pane", 10)
        m.send(b"pausx\x7fe\r")
        at = len(m.output)
        m.wait_for(r"\(mullion\) ", 10, at)
        at = len(m.output)
        m.send(b"info\r")
        m.wait_for("state: paused", 10, at)
        at = len(m.output)
        m.send(b"resume\r")
        m.wait_for(r"\(mullion\) ", 10, at)
        at = len(m.output)
        m.send(b"nonsense\r")
        m.wait_for("no such command", 10, at)
        m.send(b"help\r")
        m.wait_for("powerdown", 10, at)
        m.send(b"stats\r\x01c")
        at = len(m.output)
        m.send(b"echo back$((1+1))\r")
        m.wait_for("back2", 20 * ctx.patience, at)
        m.send(b"\x01cquit\r")
        m.expect_status(0, 10 * ctx.patience)
        expect_restored(m)


@test
def terminal_restored_after_sigkill(ctx):
    with Mullion(ctx.program, ctx.boot("shell"), terminal=True) as m:
        m.wait_for("# ", 60 * ctx.patience)
        children = m.descendants()
        os.kill(m.vmm_pid(), signal.SIGKILL)
        m.expect_status(1, 10 * ctx.patience)
        expect(b"killed by signal 9" in m.errors, f"stderr: {m.errors!r}")
        expect_restored(m)
        expect_gone(children)


@test
def machine_ends_with_its_owner(ctx):
    ctx.need_user_net()
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=wait") +
                 ["--net", "user"]) as m:
        m.wait_for("check: waiting", 60 * ctx.patience)
        children = m.descendants()
        expect(len(children) >= 2, "no passt beside the machine")
        m.process.kill()
        m.process.wait()
        expect_gone(children, 10 * ctx.patience)


@test
def sandbox(ctx):
    """Every thread of the machine's process is locked in."""
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=wait") +
                 ["--cpus", "2"]) as m:
        m.wait_for("check: waiting", 60 * ctx.patience)
        folder = f"/proc/{m.vmm_pid()}/task"
        names = []
        for thread in os.listdir(folder):
            with open(f"{folder}/{thread}/status", encoding="ascii") as f:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in f)
            names.append(status["Name"])
            expect(status["NoNewPrivs"] == "1" and status["Seccomp"] == "2" and
                   int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0,
                   f"thread {status['Name']}: {status}")
        expect({"vcpu0", "vcpu1", "io"} <= set(names), f"threads {names}")
        with open(f"/proc/{m.vmm_pid()}/maps", encoding="ascii") as f:
            expect("mullion-vmm" in f.read(), "not the machine's process")


class Control:
    """A JSON-RPC client."""

    def __init__(self, path, patience):
        deadline = time.monotonic() + 10 * patience
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(path)
                break
            except OSError:
                self.socket.close()
                if time.monotonic() > deadline:
                    raise Failed("no control socket") from None
                time.sleep(0.02)
        self.socket.settimeout(10 * patience)
        self.file = self.socket.makefile("rwb")

    def raw(self, data):
        self.file.write(data + b"\n")
        self.file.flush()
        return json.loads(self.file.readline())

    def call(self, method, **more):
        answer = self.raw(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method,
                                      **more}).encode())
        expect(answer.get("jsonrpc") == "2.0", f"answer {answer}")
        return answer


@test
def control_socket(ctx):
    path = ctx.path("control")
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=wait") +
                 ["--control", path, "--name", "pane", "--cpus", "2"]) as m:
        m.wait_for("check: waiting", 60 * ctx.patience)
        expect(os.stat(path).st_mode & 0o777 == 0o600, "others may connect")
        c = Control(path, ctx.patience)
        status = c.call("status")["result"]
        expect(status["state"] == "running" and status["name"] == "pane" and
               status["cpus"] == 2 and status["engine"] == ctx.engine, f"status {status}")
        expect(len(c.call("stats")["result"]["vcpus"]) in (0, 2), "stats")
        expect("result" in c.call("pause"), "pause")
        up = c.call("status")["result"]
        expect(up["state"] == "paused", f"status {up}")
        time.sleep(0.3)
        expect(c.call("status")["result"]["uptime"] == up["uptime"], "time goes on in a pause")
        expect("result" in c.call("resume"), "resume")
        expect(c.call("nonsense")["error"]["code"] == -32601, "unknown method")
        expect(c.call("status", params={"x": 1})["error"]["code"] == -32602, "parameters")
        expect(c.raw(b"{nonsense")["error"]["code"] == -32700, "parse error")
        expect(c.raw(b"[1]")["error"]["code"] == -32600, "invalid request")
        other = Control(path, ctx.patience)
        other.socket.sendall(b"x" * 70000)  # dropped, and nobody else is
        expect(c.call("status")["result"]["state"] == "running", "a peer disturbs another")
        c.call("reset")
        m.wait_for("check: waiting", 60 * ctx.patience, len(m.output))
        expect(c.call("status")["result"]["resets"] == 1, "resets")
        expect("result" in c.call("powerdown"), "powerdown")
        m.expect_status(0, 30 * ctx.patience)
    expect(not os.path.exists(path), "the socket was left behind")


@test
def pause_under_load(ctx):
    path = ctx.path("control")
    disk, _ = ctx.make_disk("disk.img", 64)
    with Mullion(ctx.program, ctx.boot("check", words="mullion.then=load") +
                 ["--control", path, "--cpus", "2", "--disk", f"{disk},format=raw"]) as m:
        m.wait_for("check: wrote", 60 * ctx.patience)
        c = Control(path, ctx.patience)
        for _ in range(20):
            c.call("pause")
            time.sleep(0.02)
            c.call("resume")
            time.sleep(0.05)
        m.wait_for("check: load done", 180 * ctx.patience)
        m.expect_status(0, 30 * ctx.patience)
