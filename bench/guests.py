"""Runs one guest on Mullion or on QEMU and watches its console: what the benches share."""
import json
import os
import selectors
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PROGRAMS = ["clock", "code", "float", "memory", "pair", "sha256", "system", "vector"]


class Guest:
    """A running guest. Lines of its console come with the time since its start."""

    def __init__(self, command):
        self.command = command
        self.start = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self.rest = b""
        self.log = []

    def lines(self, timeout):
        """Yield (seconds, line) until the console closes. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not self.selector.select(left):
                raise TimeoutError
            data = self.process.stdout.read(65536)
            now = time.monotonic() - self.start
            if data is None:
                continue
            if not data:
                return
            *whole, self.rest = (self.rest + data).split(b"\n")
            for line in whole:
                text = line.decode(errors="replace").strip("\r")
                self.log.append(text)
                yield now, text

    def wait_for(self, marker, timeout):
        """Seconds from the start to a line that contains @marker, and the line."""
        for now, line in self.lines(timeout):
            if marker in line:
                return now, line
        raise EOFError(f"ended before '{marker}'")

    def wait_for_prompt(self, marker, timeout):
        """Seconds from the start to @marker on a line that has not ended. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        seen = b""
        while marker not in seen:
            left = deadline - time.monotonic()
            if left <= 0 or not self.selector.select(left):
                raise TimeoutError
            data = self.process.stdout.read(65536)
            if data == b"":
                raise EOFError(f"ended before '{marker.decode()}'")
            seen = seen[-len(marker):] + (data or b"")
        return time.monotonic() - self.start

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.terminate()  # a second one pulls the plug of Mullion
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Setup:
    """Where things are, and how each hypervisor is started."""

    def __init__(self, args):
        self.build = os.path.abspath(args.build)
        self.kernel = os.path.join(self.build, "guest", args.kernel, "vmlinuz")
        self.initrd = os.path.join(self.build, "guest", args.kernel, "initrd")
        self.engine = args.engine
        self.memory = args.memory

    def peers(self, names):
        known = {"mullion": self.mullion, "microvm": self.microvm, "q35": self.q35}
        return {name: known[name] for name in names}

    def mullion(self, append, cpus, initrd=None):
        return [os.path.join(self.build, "mullion"), "run", "--engine", self.engine, "--kernel",
                self.kernel, "--initrd", initrd or self.initrd, "--memory", f"{self.memory}M",
                "--cpus", str(cpus), "--append", append, "--no-reboot"]

    def qemu(self, machine, append, cpus, initrd):
        return ["qemu-system-x86_64", "-accel", "tcg", "-M", machine, "-cpu", "max", "-m",
                str(self.memory), "-smp", str(cpus), "-kernel", self.kernel, "-initrd",
                initrd or self.initrd, "-append", append, "-display", "none", "-nodefaults",
                "-serial", "stdio", "-no-reboot", "-no-user-config"]

    def microvm(self, append, cpus, initrd=None):
        return self.qemu("microvm", append, cpus, initrd)

    def q35(self, append, cpus, initrd=None):
        return self.qemu("q35", append, cpus, initrd)

    def whole(self, peer, firmware, disk, variables, cpus):
        """The command that boots @disk as a PC does. @param variables  a copy of OVMF's"""
        if peer == "mullion":
            return [os.path.join(self.build, "mullion"), "run", "--engine", self.engine, "--memory",
                    f"{self.memory}M", "--cpus", str(cpus), "--firmware", firmware, "--disk",
                    f"{disk},format=raw", "--no-reboot"]
        command = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m",
                   str(self.memory), "-smp", str(cpus), "-display", "none", "-nodefaults", "-vga",
                   "std", "-serial", "stdio", "-no-reboot", "-no-user-config", "-drive",
                   f"file={disk},format=raw,if=virtio"]
        if firmware == "uefi":
            command += ["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd",
                        "-drive", f"if=pflash,format=raw,file={variables}"]
        return command

    def bench_initrd(self):
        """An initrd with the workloads, built statically where they are missing or old."""
        folder = os.path.join(self.build, "bench")
        os.makedirs(folder, exist_ok=True)
        source = os.path.join(HERE, "guest")
        add = ["--add", f"etc/mullion/bench={source}/script"]
        for name in PROGRAMS:
            target = os.path.join(folder, name)
            inputs = [os.path.join(source, f) for f in (f"{name}.c", "bench.h")]
            if not os.path.exists(target) or any(
                    os.path.getmtime(i) > os.path.getmtime(target) for i in inputs):
                subprocess.run(["gcc", "-static", "-O2", "-o", target, inputs[0], "-lm"],
                               check=True)
            add += ["--add", f"bench/{name}={target}"]
        busybox = os.path.join(self.build, "guest", "6.1-686-pae", "busybox")
        if os.path.exists(busybox):
            add += ["--add", f"bench/busybox32={busybox}"]
        initrd = os.path.join(folder, "initrd-" + os.path.basename(os.path.dirname(self.kernel)))
        guest = os.path.join(ROOT, "scripts", "guest")
        subprocess.run([os.path.join(ROOT, "scripts", "mkinitrd"), "--modules",
                        os.path.join(os.path.dirname(self.kernel), "modules"), "--init",
                        os.path.join(guest, "init"), *add, "--output", initrd], check=True)
        return initrd


def add_arguments(parser):
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--kernel", default="6.12", help="6.12 or 6.1")
    parser.add_argument("--engine", default="soft", help="Mullion's engine (soft)")
    parser.add_argument("--memory", type=int, default=512, help="MiB (512)")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="mullion,microvm,q35",
                        help="what to compare, by comma")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one run (300)")
    parser.add_argument("--json", action="store_true", help="numbers for programs")


def host_line():
    model = "?"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {os.cpu_count()} CPUs, Linux {os.uname().release}"


def median(values):
    return statistics.median(values) if values else None


def table(title, rows, peers, unit="s"):
    """Print rows {name: {peer: value}} with the ratio of each other peer to the first."""
    print(f"\n{title}")
    head = f"{'':<14}" + "".join(f"{p:>12}" for p in peers)
    head += "".join(f"{'/' + p:>12}" for p in peers[1:])
    print(head)
    for name, values in rows.items():
        line = f"{name:<14}"
        for p in peers:
            v = values.get(p)
            line += f"{'-':>12}" if v is None else f"{v:>10.3f} {unit}"
        first = values.get(peers[0])
        for p in peers[1:]:
            v = values.get(p)
            line += f"{first / v:>11.2f}x" if first is not None and v else f"{'-':>12}"
        print(line)


def emit(args, data):
    if args.json:
        json.dump(data, sys.stdout, indent=2)
        print()


def process_tree(pid):
    """@pid and all processes below it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as f:
                    parent = int(f.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
    found, queue = [], [pid]
    while queue:
        p = queue.pop()
        found.append(p)
        queue += children.get(p, [])
    return found


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                fields = f.read().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


def memory_kib(pids, guest_mib):
    """(resident KiB of all processes, of which guest RAM): Pss, so that shared libraries count
    once. Guest RAM is the mapping that has its size, or a memfd."""
    total = guest = 0
    for pid in pids:
        is_ram = False
        try:
            with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as f:
                for line in f:
                    words = line.split()
                    if "-" in words[0] and not words[0].endswith(":"):
                        low, high = (int(x, 16) for x in words[0].split("-"))
                        is_ram = high - low == guest_mib << 20 or "memfd:" in line and \
                            "ram" in line
                    elif words[0] == "Pss:":
                        total += int(words[1])
                        guest += int(words[1]) if is_ram else 0
        except OSError:
            pass
    return total, guest
