#!/usr/bin/env python3
"""What a guest can do that has taken over its machine's process: nothing. mullion-vmm-hostile is the installed
program with one more method on its control channel (hostile.h), which makes any system call; once it
has locked itself in, it reaches no file outside, no network, no other process, no privilege, and its
machine goes on. --no-sandbox first shows for most of it that the kernel would have allowed it. On the soft
engine, or on that which MULLION_ENGINE names."""
import errno
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

PATIENCE = 60
ENGINE = os.environ.get("MULLION_ENGINE", "soft")
HERE = os.path.dirname(os.path.abspath(__file__))
AT_FDCWD = -100
REFUSED = (-errno.EPERM, -errno.EACCES)

# Numbers of x86-64's system calls: asm/unistd_64.h.
CALL = dict(open=2, fork=57, vfork=58, execve=59, ptrace=101, setuid=105, setgid=106, setsid=112, mount=165,
            chroot=161, kill=62, tkill=200, tgkill=234, socket=41, connect=42, bind=49, listen=50, socketpair=53,
            ioctl=16, fcntl=72, sendto=44, getsockopt=55, setsockopt=54, clone=56, clone3=435, unshare=272,
            setns=308, add_key=248, request_key=249, keyctl=250, openat=257, openat2=437, perf_event_open=298,
            name_to_handle_at=303, open_by_handle_at=304, process_vm_readv=310, process_vm_writev=311, bpf=321,
            execveat=322, userfaultfd=323, io_uring_setup=425, io_uring_register=427, pidfd_open=434,
            pidfd_getfd=438, rt_sigqueueinfo=129, rt_tgsigqueueinfo=297, setresuid=117, capset=126, prctl=157,
            prlimit64=302, init_module=175, reboot=169, swapon=167, memfd_create=319, mknod=133, symlink=88,
            link=86, rename=82, chmod=90, chown=92, mkdir=83, truncate=76, readlink=89, getdents64=217,
            inotify_init1=294, fanotify_init=300, getpid=39, close=3, open_tree=428, move_mount=429, fsopen=430,
            seccomp=317, personality=135, get_robust_list=274, modify_ldt=154, iopl=172, process_madvise=440,
            unlink=87, unlinkat=263, rmdir=84)


def hexed(data):
    return {"bytes": data.hex()}


class Machine:
    """A process with a machine of SeaBIOS and an empty disk, and its control channel."""

    def __init__(self, program, folder, *options):
        self.disk = os.path.join(folder, "disk.raw")
        self.control_path, self.serial_path = (os.path.join(folder, name) for name in ("control", "serial"))
        with open(self.disk, "wb") as f:
            f.truncate(1 << 20)
        config = tempfile.TemporaryFile()
        config.write(json.dumps({"name": "hostile", "engine": ENGINE, "memory": 32 << 20,
                                 "disks": [{"path": self.disk, "format": "raw"}],
                                 "consoles": [{"type": "unix", "path": self.serial_path}]}).encode())
        config.seek(0)
        self.control, theirs = socket.socketpair()
        self.control.settimeout(PATIENCE)
        self.process = subprocess.Popen(
            [program, "--config-fd", str(config.fileno()), "--control-fd", str(theirs.fileno()),
             "--control", self.control_path, *options],
            pass_fds=[config.fileno(), theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        config.close()
        self.lines = self.control.makefile("rb")

    def ask(self, method, **params):
        request = {"jsonrpc": "2.0", "id": 1, "method": method}
        if params:
            request["params"] = params
        self.control.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(self.lines.readline())
        assert "result" in answer, answer
        return answer["result"]

    def call(self, name, *args):
        return self.ask("test.try", call=CALL[name], args=list(args))["result"]

    def ring(self, opcode, **kw):
        return self.ask("test.try", ring=opcode, **kw)["result"]

    def goes_on(self):
        """The guest's clock still runs."""
        before, end = self.ask("status"), time.monotonic() + PATIENCE
        assert before["state"] == "running", before
        while self.ask("status")["uptime"] == before["uptime"]:
            assert time.monotonic() < end, "the machine has stopped"
            time.sleep(0.01)

    def sockets(self):
        return [p for p in (self.control_path, self.serial_path) if os.path.exists(p)]

    def end(self):
        assert len(self.sockets()) == 2, self.sockets()
        self.ask("quit")
        assert self.process.wait(PATIENCE) == 0, self.process.returncode
        assert not self.sockets(), "its process has ended, and its sockets are there"

    def kill(self):
        """As whoever has taken it over may: its sockets go nevertheless."""
        assert len(self.sockets()) == 2, self.sockets()
        self.process.kill()
        end = time.monotonic() + PATIENCE
        while self.sockets():
            assert time.monotonic() < end, self.sockets()
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.lines.close()
        self.control.close()


def refused(got, what):
    assert got in REFUSED, f"{what}: {got} {errno.errorcode.get(-got, '')}"


class Outside:
    """What is not the machine's: a file, another's disk, processes, listeners."""

    def __init__(self, folder):
        self.secret = os.path.join(folder, "inventory.db")
        self.other_disk = os.path.join(folder, "other.qcow2")
        for path in (self.secret, self.other_disk):
            with open(path, "w", encoding="ascii") as f:
                f.write("not yours")
        self.path = os.path.join(folder, "unix.sock")
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.path)
        self.unix.listen()
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.victim = subprocess.Popen(["sleep", "600"])

    def tcp_address(self):
        return struct.pack("<H", socket.AF_INET) + struct.pack(">H", self.tcp.getsockname()[1]) + \
            socket.inet_aton("127.0.0.1") + bytes(8)

    def unharmed(self):
        assert self.victim.poll() is None, "another process was hit"
        for path in (self.secret, self.other_disk):
            with open(path, encoding="ascii") as f:
                assert f.read() == "not yours", path
        assert select.select([self.unix, self.tcp], [], [], 0)[0] == [], "somebody connected"

    def close(self):
        self.victim.kill()
        self.victim.wait()
        self.unix.close()
        self.tcp.close()


def test_open_without_sandbox(machine, outside):
    """The test's own test: what is refused below is refused by the sandbox."""
    fd = machine.call("openat", AT_FDCWD, outside.secret, os.O_RDWR, 0)
    assert fd >= 0, fd
    assert machine.call("close", fd) == 0
    assert machine.call("kill", outside.victim.pid, 0) == 0
    fd = machine.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    assert fd >= 0, fd
    assert machine.call("close", fd) == 0


def test_no_files(machine, outside):
    for path in ("/etc/passwd", outside.secret, outside.other_disk, machine.disk, "/proc/self/mem", "/"):
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_PATH):
            refused(machine.call("open", path, flags, 0o600), f"open {path}")
            refused(machine.call("openat", AT_FDCWD, path, flags, 0o600), f"openat {path}")
            refused(machine.call("openat2", AT_FDCWD, path, hexed(struct.pack("<QQQ", flags, 0, 0)), 24),
                    f"openat2 {path}")
    fresh = outside.secret + ".new"
    refused(machine.call("rename", outside.secret, fresh), "rename")
    refused(machine.call("link", outside.secret, fresh), "link")
    refused(machine.call("symlink", outside.secret, fresh), "symlink")
    refused(machine.call("mkdir", fresh, 0o700), "mkdir")
    refused(machine.call("mknod", fresh, 0o100600, 0), "mknod")
    refused(machine.call("chmod", outside.secret, 0o777), "chmod")
    refused(machine.call("chown", outside.secret, 1, 1), "chown")
    refused(machine.call("truncate", outside.secret, 0), "truncate")
    refused(machine.call("readlink", "/proc/self/exe", hexed(bytes(64)), 64), "readlink")
    refused(machine.call("getdents64", 0, hexed(bytes(64)), 64), "getdents64")
    refused(machine.call("name_to_handle_at", AT_FDCWD, "/", hexed(bytes(64)), hexed(bytes(4)), 0), "handle")
    refused(machine.call("open_by_handle_at", AT_FDCWD, hexed(bytes(64)), 0), "open by handle")
    for path in (outside.secret, outside.path, machine.control_path):
        refused(machine.call("unlink", path), "unlink")
        refused(machine.call("unlinkat", AT_FDCWD, path, 0), "unlinkat")
    refused(machine.call("rmdir", os.path.dirname(outside.secret)), "rmdir")
    refused(machine.call("inotify_init1", 0), "inotify_init1")
    refused(machine.call("fanotify_init", 0, 0), "fanotify_init")


def test_no_network(machine, outside):
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET,
                   socket.AF_VSOCK):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            refused(machine.call("socket", family, kind, 0), f"socket {family}")
    unix = struct.pack("<H", socket.AF_UNIX) + outside.path.encode() + b"\0"
    for address in (outside.tcp_address(), unix):
        for fd in range(3, 30):  # whatever is open
            refused(machine.call("connect", fd, hexed(address), len(address)), f"connect {fd}")
            refused(machine.call("bind", fd, hexed(address), len(address)), f"bind {fd}")
            refused(machine.call("sendto", fd, "x", 1, socket.MSG_FASTOPEN, hexed(address), len(address)),
                    f"sendto {fd} MSG_FASTOPEN")
    refused(machine.call("listen", 3, 1), "listen")
    refused(machine.call("socketpair", socket.AF_UNIX, socket.SOCK_STREAM, 0, hexed(bytes(8))), "socketpair")


def test_no_other_process(machine, outside):
    pid = outside.victim.pid
    for who in (pid, os.getpid(), -1, 1):
        refused(machine.call("kill", who, 0), f"kill {who}")
        refused(machine.call("tkill", who, 0), f"tkill {who}")
        refused(machine.call("tgkill", who, who, 0), f"tgkill {who}")
        refused(machine.call("rt_sigqueueinfo", who, 0, hexed(bytes(128))), "rt_sigqueueinfo")
        refused(machine.call("rt_tgsigqueueinfo", who, who, 0, hexed(bytes(128))), "rt_tgsigqueueinfo")
    # The upper half of an argument that the kernel does not look at.
    refused(machine.call("tgkill", pid | 1 << 32, pid, 0), "tgkill")
    own = machine.process.pid
    assert machine.call("tgkill", own, own, 0) == 0
    refused(machine.call("kill", pid, int(signal.SIGKILL)), "kill")
    for fd in range(0, 30):
        for command in (8, 10, 15):  # F_SETOWN, F_SETSIG, F_SETOWN_EX
            refused(machine.call("fcntl", fd, command, pid), f"fcntl {command}")
            refused(machine.call("fcntl", fd, command | 1 << 40, pid), f"fcntl {command}")
        for command in (0x8901, 0x8902, 0x5412, 0x541c):  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
            refused(machine.call("ioctl", fd, command, hexed(struct.pack("<i", pid))), f"ioctl {command:x}")
        refused(machine.call("getsockopt", fd, socket.SOL_SOCKET, 77, hexed(bytes(4)), hexed(b"\4\0\0\0")),
                "SO_PEERPIDFD")
        refused(machine.call("setsockopt", fd, socket.SOL_SOCKET, 76, hexed(b"\1\0\0\0"), 4), "SO_PASSPIDFD")
    refused(machine.call("ptrace", 16, pid, 0, 0), "ptrace")
    refused(machine.call("get_robust_list", pid, hexed(bytes(8)), hexed(bytes(8))), "get_robust_list")
    io = hexed(struct.pack("<QQ", 0x400000, 8))
    refused(machine.call("process_vm_readv", pid, io, 1, io, 1, 0), "process_vm_readv")
    refused(machine.call("process_vm_writev", pid, io, 1, io, 1, 0), "process_vm_writev")
    refused(machine.call("process_madvise", 3, io, 1, 4, 0), "process_madvise")
    refused(machine.call("pidfd_open", pid, 0), "pidfd_open")
    refused(machine.call("pidfd_getfd", 3, 0, 0), "pidfd_getfd")
    refused(machine.call("prlimit64", pid, 7, 0, hexed(bytes(16))), "prlimit64")
    refused(machine.call("fork"), "fork")
    refused(machine.call("vfork"), "vfork")
    refused(machine.call("clone", int(signal.SIGCHLD), 0, 0, 0, 0), "clone")
    assert machine.call("clone3", hexed(bytes(88)), 88) == -errno.ENOSYS
    argv = hexed(bytes(8))
    refused(machine.call("execve", "/bin/true", argv, argv), "execve")
    refused(machine.call("execveat", AT_FDCWD, "/bin/true", argv, argv, 0), "execveat")


def test_no_privilege(machine, outside):
    refused(machine.call("mount", "none", "/mnt", "tmpfs", 0, 0), "mount")
    refused(machine.call("fsopen", "tmpfs", 0), "fsopen")
    refused(machine.call("open_tree", AT_FDCWD, "/", 0), "open_tree")
    refused(machine.call("move_mount", 3, "", AT_FDCWD, "/mnt", 4), "move_mount")
    refused(machine.call("chroot", "/"), "chroot")
    for kind in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x4000000, 0x8000000, 0x2000000):
        refused(machine.call("unshare", kind), f"unshare {kind:x}")
        thread = 0x50f00  # CLONE_VM, FS, FILES, SIGHAND, THREAD and SYSVSEM
        refused(machine.call("clone", thread | kind, 0, 0, 0, 0), f"clone {kind:x}")
    refused(machine.call("setns", 3, 0), "setns")
    for name in ("setuid", "setgid"):
        refused(machine.call(name, 0), name)
    refused(machine.call("setresuid", 0, 0, 0), "setresuid")
    refused(machine.call("capset", hexed(struct.pack("<Ii", 0x20080522, 0)), hexed(b"\xff" * 24)), "capset")
    for option in (38, 24, 47, 22, 15 | 1 << 33):  # no_new_privs, bounding set, ambient set, seccomp
        refused(machine.call("prctl", option, 0, 0, 0, 0), f"prctl {option}")
    refused(machine.call("seccomp", 1, 0, hexed(bytes(16))), "seccomp")
    refused(machine.call("bpf", 0, hexed(bytes(72)), 72), "bpf")
    refused(machine.call("perf_event_open", hexed(bytes(128)), 0, -1, -1, 0), "perf_event_open")
    refused(machine.call("userfaultfd", 0), "userfaultfd")
    refused(machine.call("keyctl", 0, -3, 0), "keyctl")
    refused(machine.call("add_key", "user", "a", "b", 1, -3), "add_key")
    refused(machine.call("request_key", "user", "a", 0, 0), "request_key")
    refused(machine.call("init_module", hexed(bytes(8)), 8, ""), "init_module")
    refused(machine.call("swapon", "/swap", 0), "swapon")
    refused(machine.call("reboot", 0, 0, 0), "reboot")
    refused(machine.call("personality", 0), "personality")
    refused(machine.call("iopl", 3), "iopl")
    refused(machine.call("modify_ldt", 0, hexed(bytes(16)), 16), "modify_ldt")
    folder = f"/proc/{machine.process.pid}/task"
    for thread in os.listdir(folder):
        with open(f"{folder}/{thread}/status", encoding="ascii") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f)
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if not os.getuid() else [])):
            assert int(status[name], 16) == 0, f"thread {thread} ({status['Name']}): {name} {status[name]}"
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status


def test_ring(machine, outside):
    """io_uring passes seccomp by: the disk's ring itself refuses what is not a disk's."""
    refused(machine.call("io_uring_setup", 8, hexed(bytes(120))), "io_uring_setup")
    for fd in range(3, 30):
        refused(machine.call("io_uring_register", fd, 11, hexed(bytes(16)), 1), "io_uring_register")
    machine.ask("pause")  # nothing else is in the ring
    try:
        # linux/io_uring.h: OPENAT, OPENAT2, CONNECT, SOCKET, UNLINKAT, RENAMEAT, STATX, SENDMSG, MKDIRAT
        for opcode in (18, 28, 16, 45, 36, 35, 21, 9, 37):
            got = machine.ring(opcode, fd=AT_FDCWD if opcode not in (16, 45, 9) else socket.AF_INET,
                               addr=outside.secret, len=0, off=1)
            assert got == -errno.EACCES, f"ring, opcode {opcode}: {got} {errno.errorcode.get(-got, '')}"
    finally:
        machine.ask("resume")


TESTS = [test_no_files, test_no_network, test_no_other_process, test_no_privilege, test_ring]


def has_ring(machine):
    folder = f"/proc/{machine.process.pid}/fd"
    return any("io_uring" in os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder))


def run(number, test, machine, outside):
    try:
        if test is test_ring and not has_ring(machine):
            print(f"ok {number} - {test.__name__} # SKIP this kernel has no io_uring for us")
            return True
        test(machine, outside)
        outside.unharmed()
        machine.goes_on()
    except (AssertionError, OSError, ValueError) as e:
        print(f"# {type(e).__name__}: {e}\nnot ok {number} - {test.__name__}", flush=True)
        return False
    print(f"ok {number} - {test.__name__}", flush=True)
    return True


def main():
    program = sys.argv[1]
    good = True
    print(f"1..{len(TESTS) + 1}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        outside = Outside(folder)
        try:
            with Machine(program, folder, "--no-sandbox") as machine:
                good &= run(1, test_open_without_sandbox, machine, outside)
                machine.kill()
            with Machine(program, folder) as machine:
                for i, test in enumerate(TESTS, 2):
                    good &= run(i, test, machine, outside)
                if good:
                    machine.end()
        finally:
            outside.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
