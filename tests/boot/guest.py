"""Runs `mullion run` for the boot tests: console in and out, expectations with time limits, and the
check that nothing is left behind."""
import os
import pty
import re
import select
import signal
import subprocess
import termios
import threading
import time


class Failed(Exception):
    """A test's expectation did not hold."""


class Skipped(Exception):
    """The host cannot run this test; the reason is said."""


def expect(condition, what):
    if not condition:
        raise Failed(what)


class Stalls:
    """Notices when the host itself stands still: a thread that sleeps 0.1 s wakes up much later."""
    LONG = 5

    def __init__(self):
        self.total = self.longest = 0
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        last = time.monotonic()
        while True:
            time.sleep(0.1)
            now = time.monotonic()
            if now - last > self.LONG:
                self.total += now - last
                self.longest = max(self.longest, now - last)
            last = now


STALLS = Stalls()


class Mullion:
    """One `mullion run`. Its console is a pipe, or a pseudo-terminal."""

    def __init__(self, program, arguments, terminal=False, stdin=None, env=None):
        self.command = [program, "run", *arguments]
        self.output = b""
        self.errors = b""
        self.started = time.monotonic()
        err_read, err_write = os.pipe()
        if terminal:
            self.master, slave = pty.openpty()
            self.before = termios.tcgetattr(slave)
            self.slave = slave
            self.process = subprocess.Popen(self.command, stdin=slave, stdout=slave,
                                            stderr=err_write, env=env, start_new_session=True,
                                            preexec_fn=lambda: self.take_terminal(slave))
            self.out_fd = self.in_fd = self.master
        else:
            self.master = self.slave = None
            self.process = subprocess.Popen(self.command, env=env, stdout=subprocess.PIPE,
                                            stderr=err_write,
                                            stdin=stdin or subprocess.DEVNULL)
            self.out_fd = self.process.stdout.fileno()
            self.in_fd = self.process.stdin.fileno() if self.process.stdin else None
        os.close(err_write)
        self.err_fd = err_read
        self.closed = set()
        self.stalled = STALLS.total

    @staticmethod
    def take_terminal(slave):
        import fcntl
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    def pump(self, timeout):
        """Read what there is, waiting @timeout seconds at most. @return False: nothing came."""
        fds = [fd for fd in (self.out_fd, self.err_fd) if fd not in self.closed]
        if not fds:
            return False
        ready, _, _ = select.select(fds, [], [], timeout)
        for fd in ready:
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            if not data:
                self.closed.add(fd)
            elif fd == self.out_fd:
                self.output += data
            else:
                self.errors += data
        return bool(ready)

    def wait_for(self, pattern, timeout=90, start=0):
        """Wait for a regular expression on the console from offset @start. @return the match"""
        deadline = time.monotonic() + timeout - STALLS.total
        expression = re.compile(pattern.encode())
        while True:
            match = expression.search(self.output, start)
            if match:
                return match
            left = deadline + STALLS.total - time.monotonic()
            if left <= 0:
                raise Failed(f"no '{pattern}' on the console within {timeout} s{self.tail()}"
                             f"{self.where()}")
            if not self.pump(min(left, 1)) and self.process.poll() is not None and \
                    len(self.closed) == 2:
                raise Failed(f"ended with {self.process.returncode} before '{pattern}'"
                             f"{self.tail()}")

    def send(self, data):
        os.write(self.in_fd, data)

    def wait(self, timeout=90):
        """Wait for the end. @return the exit status"""
        deadline = time.monotonic() + timeout - STALLS.total
        while self.process.poll() is None:
            if time.monotonic() > deadline + STALLS.total:
                raise Failed(f"still runs after {timeout} s{self.tail()}{self.where()}")
            self.pump(0.05)
        while self.pump(0):
            pass
        self.took = time.monotonic() - self.started
        return self.process.returncode

    def expect_status(self, status, timeout=90):
        got = self.wait(timeout)
        expect(got == status, f"exit status {got} instead of {status}{self.tail()}")

    def checks(self):
        """The guest's "check: key value" lines as a dictionary."""
        found = {}
        for line in self.output.decode(errors="replace").splitlines():
            match = re.match(r"check: (\S+)(?: (.*))?$", line.strip())
            if match:
                found[match[1]] = (match[2] or "").strip()
        return found

    def complaints(self):
        """What the guest's log says of its machine (lines "check: complaint" and "check: dmesg").
        A kernel that sees no tick for long, because the host stood still, complains with right."""
        found = re.findall(r"^check: (?:complaint|dmesg) [^\r\n]*", self.output.decode(
            errors="replace"), re.M)
        if STALLS.total > self.stalled:
            found = [f for f in found if not re.search(
                r"lockup|stall|Call Trace|blocked for more", f)]
        return found

    def tail(self):
        lines = self.output.decode(errors="replace").splitlines()[-15:]
        errors = self.errors.decode(errors="replace").splitlines()[-5:]
        return "\n    console: ".join([""] + lines) + "\n    stderr: ".join([""] + errors)

    def where(self):
        """Where the vCPUs are and what they have counted: for a test that waits in vain."""
        machine = str(self.process.pid)
        if "--control" in self.command:
            machine = self.command[self.command.index("--control") + 1]
        try:
            stats = subprocess.run([self.command[0], "stats", machine], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                                   check=False, timeout=20).stdout
            # Without acknowledgements: RIP, CR3 and RFLAGS of each thread, and its state.
            packets = ["QStartNoAckMode", "qfThreadInfo"]
            for n in range(1, 5):
                packets += [f"Hg{n}", "p10", "p11", "p7", f"qThreadExtraInfo,{n}"]
            text = "".join(f"${p}#{sum(p.encode()) & 0xff:02x}" for p in packets)
            bridge = subprocess.Popen([self.command[0], "gdb", machine], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            bridge.stdin.write(b"+" + text.encode())
            bridge.stdin.flush()
            said, deadline = b"", time.monotonic() + 10
            while said.count(b"#") < len(packets) and time.monotonic() < deadline:
                if select.select([bridge.stdout], [], [], 1)[0]:
                    data = os.read(bridge.stdout.fileno(), 65536)
                    if not data:
                        break
                    said += data
            bridge.kill()
            bridge.wait()
        except (OSError, subprocess.SubprocessError) as e:
            return f"\n    where: {e}"
        return "\n    where: ".join([""] + stats.splitlines() + [said.decode(errors="replace")])

    def vmm_pid(self):
        """The process of the machine: our child's child."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(path, encoding="ascii") as f:
            children = f.read().split()
        expect(children, "mullion run has no child")
        return int(children[0])

    def descendants(self):
        """All processes that this run has started so far."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            try:
                with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
                    children = [int(c) for c in f.read().split()]
            except OSError:
                children = []
            found += children
            queue += children
        return found

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for fd in (self.master, self.slave, self.err_fd):
            if fd is not None:
                os.close(fd)
        if self.process.stdout:
            self.process.stdout.close()
        if self.process.stdin:
            self.process.stdin.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def alive(pid):
    """Does @pid run (a zombie does not)?"""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def expect_gone(pids, seconds=5):
    deadline = time.monotonic() + seconds
    while any(alive(p) for p in pids):
        if time.monotonic() > deadline:
            names = []
            for p in pids:
                if alive(p):
                    with open(f"/proc/{p}/comm", encoding="ascii", errors="replace") as f:
                        names.append(f"{p} ({f.read().strip()})")
            raise Failed(f"left behind: {', '.join(names)}")
        time.sleep(0.05)
