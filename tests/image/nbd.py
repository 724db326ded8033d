#!/usr/bin/env python3
"""NBD both ways: `mullion image serve` with other projects' clients, other projects' servers with
our client; TLS; clients that mean harm.

usage: nbd.py IMAGE-TOOL      exit status 77 where qemu-img, nbdinfo, nbdcopy or nbdkit is missing
"""
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOOL = os.path.abspath(sys.argv[1])
SIZE = 24 << 20
PATIENCE = 120


def run(*args, ok=(0,)):
    p = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, errors="replace", timeout=PATIENCE,
                       check=False)
    if ok is not None and p.returncode not in ok:
        raise SystemExit("FAIL (%d): %s\n%s" % (p.returncode, " ".join(map(str, args)), p.stdout))
    return p.stdout


def ours(*args, ok=(0,)):
    return run(TOOL, *args, ok=ok)


def make_raw(path, seed=1):
    r = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(SIZE)
        for at in range(0, SIZE, 3 << 20):
            f.seek(at + 4096 * r.randrange(100))
            f.write(r.randbytes(300000))


def same(a, b):
    with open(a, "rb") as x, open(b, "rb") as y:
        if x.read() != y.read():
            raise SystemExit("FAIL: %s and %s differ" % (a, b))


class Server:
    """`mullion image serve` as a process; its URI in self.uri."""

    def __init__(self, *args):
        self.process = subprocess.Popen([TOOL, "serve", *args], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True)
        self.uri = self.process.stdout.readline().strip()
        if not self.uri.startswith("nbd"):
            raise SystemExit("FAIL: serve %s: %r" % (args, self.uri))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        self.process.stdout.close()
        assert status == 0, "serve ended with %d" % status


def unix(name):
    return "unix:" + os.path.join(os.getcwd(), name)


def serve_reads():
    """Every client reads the same bytes, of every format; holes show."""
    for fmt in ("raw", "qcow2", "vmdk"):
        image = "disk." + fmt
        with Server(image, "--from", fmt, "--listen", unix("s"), "--name", "a disk/ü") as s:
            info = json.loads(run("nbdinfo", "--json", s.uri))["exports"][0]
            assert info["export-size"] == SIZE and info["is_read_only"], info
            assert info["can_multi_conn"] and info["can_df"] and info["can_cache"], info
            contexts = [c if isinstance(c, str) else c["context"] for c in info["contexts"]]
            assert "base:allocation" in contexts and "qemu:allocation-depth" in contexts, info
            assert info["block_size_maximum"] == 32 << 20, info
            run("nbdcopy", s.uri, "copy.raw")
            same("copy.raw", "disk.raw")
            run("nbdcopy", "--synchronous", s.uri, "copy.raw")
            same("copy.raw", "disk.raw")
            run("qemu-img", "convert", "-f", "raw", "-O", "raw", s.uri, "copy.raw")
            same("copy.raw", "disk.raw")
            ours("convert", s.uri, "copy.raw", "--to", "raw")
            same("copy.raw", "disk.raw")
            holes = [e for e in json.loads(run("nbdinfo", "--map", "--json", s.uri))
                     if e["type"] & 2]
            assert sum(e["length"] for e in holes) > SIZE // 2, holes
            assert os.stat("copy.raw").st_blocks * 512 < SIZE // 2
            out = run("qemu-io", "-f", "raw", "-c", "write 0 4096", s.uri, ok=None)
            assert "ermi" in out or "read-only" in out.lower(), out
    with Server("disk.raw", "--listen", "127.0.0.1:0", "--name", "tcp") as s:
        assert s.uri.startswith("nbd://127.0.0.1:"), s.uri
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", s.uri, "disk.raw")
        assert "export=\"tcp\"" in run("nbdinfo", "--list", s.uri.replace("tcp", ""))
        assert "no such export" in ours("info", s.uri + "x", ok=(1,))
        run("nbdinfo", s.uri + "x", ok=(1,))
    assert not os.path.exists("s"), "the socket is still there"


def serve_writes():
    """What others write, flush, trim and zero is in the image afterwards."""
    for fmt in ("raw", "qcow2", "vhdx", "vmdk"):
        image = "w." + fmt
        ours("convert", "disk.raw", image, "--from", "raw", "--to", fmt)
        run("cp", "disk.raw", "model.raw")
        r = random.Random(fmt)
        cmds = []
        with open("model.raw", "r+b") as f:
            for i in range(40):
                at, n = r.randrange(SIZE // 512 - 400) * 512, r.choice([512, 4096, 65536, 200 * 512])
                kind = r.choice(["write -P %d" % (i + 1), "write -f -P %d" % (i + 1), "write -z",
                                 "write -z -u", "write -z -n"])
                if kind.endswith("-n"):
                    continue  # fast zeroing may be refused: tried below
                cmds += ["-c", "%s %d %d" % (kind, at, n)]
                f.seek(at)
                f.write(bytes([i + 1 if "-P" in kind else 0]) * n)
        with Server(image, "--from", fmt, "--listen", unix("s"), "--writable") as s:
            info = json.loads(run("nbdinfo", "--json", s.uri))["exports"][0]
            assert info["can_trim"] and info["can_zero"] and info["can_fast_zero"], info
            assert info["can_fua"] and info["can_flush"], info
            run("qemu-io", "-f", "raw", *cmds, "-c", "flush", s.uri)
            run("qemu-img", "compare", "-f", "raw", "-F", "raw", s.uri, "model.raw")
            run("qemu-io", "-f", "raw", "-c", "discard 1M 1M", "-c", "write -z -n 4M 1M",
                s.uri, ok=None)
        if fmt in ("qcow2", "vhdx", "vmdk"):
            run("qemu-img", "check", "-f", fmt, image)
        # what was asked for after the comparison changes two ranges at most
        ours("convert", image, "after.raw", "--from", fmt, "--to", "raw")
        with open("after.raw", "rb") as a, open("model.raw", "rb") as b:
            x, y = a.read(), b.read()
        for lo, hi in ((0, 1 << 20), (2 << 20, 4 << 20), (5 << 20, SIZE)):
            assert x[lo:hi] == y[lo:hi], (fmt, lo)
        # the other way round: nbdcopy fills an image of ours
        ours("create", "t." + fmt, str(SIZE), "--to", fmt)
        with Server("t." + fmt, "--from", fmt, "--listen", unix("s"), "--writable") as s:
            run("nbdcopy", "--flush", "disk.raw", s.uri)
        ours("compare", "disk.raw", "t." + fmt, "--from", "raw", "--from-b", fmt)


def bitmaps():
    """Changed blocks as clients see them: a bitmap of qemu's, and ours beside a raw image."""
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw", "b.qcow2")
    run("qemu-img", "bitmap", "--add", "b.qcow2", "since")
    run("cp", "disk.raw", "b.raw")
    ours("bitmap", "add", "b.raw", "since", "--from", "raw")
    for image, fmt in (("b.qcow2", "qcow2"), ("b.raw", "raw")):
        if not any(b["name"] == "since" for b in json.loads(
                ours("bitmap", "list", image, "--from", fmt, "--format", "json"))):
            raise SystemExit("FAIL: %s has no bitmap" % image)
        with Server(image, "--from", fmt, "--listen", unix("s"), "--writable") as s:
            run("qemu-io", "-f", "raw", "-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 1", s.uri)
        with Server(image, "--from", fmt, "--listen", unix("s"), "--bitmap", "since") as s:
            for context in ("qemu:dirty-bitmap:since", "mullion:changes:since"):
                out = json.loads(run("nbdinfo", "--json", "--map=" + context, s.uri))
                dirty = [(e["offset"], e["length"]) for e in out if e["type"] == 1]
                assert dirty == [(1 << 20, 65536), (5 << 20, 65536)], (image, out)
                assert sum(e["length"] for e in out) == SIZE, out
        assert "no bitmap" in ours("serve", image, "--from", fmt, "--listen", unix("s"),
                                   "--bitmap", "none", ok=(1,))


def run_command():
    """--run: the command gets the URI, its status is ours; --once ends with the last client."""
    out = ours("serve", "disk.qcow2", "--run", 'nbdinfo --size "$uri"; exit 7', ok=(7,))
    assert out.strip() == str(SIZE), out
    s = Server("disk.qcow2", "--listen", unix("s"), "--once")
    run("nbdinfo", "--size", s.uri)
    assert s.process.wait(PATIENCE) == 0
    s.process.stdout.close()


def certificates():
    """An authority, a server for localhost, a client; and a stranger's authority."""
    def openssl(*args):
        run("openssl", *args)

    for who in ("ca", "stranger"):
        os.mkdir("pki-" + who)
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
                "/CN=" + who, "-keyout", who + "-key.pem", "-out", "pki-%s/ca-cert.pem" % who)
    for who in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + who, "-keyout",
                "pki-ca/%s-key.pem" % who, "-out", who + ".csr")
        with open("ext", "w", encoding="ascii") as f:
            f.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", who + ".csr", "-CA", "pki-ca/ca-cert.pem", "-CAkey",
                "ca-key.pem", "-CAcreateserial", "-days", "30", "-extfile", "ext", "-out",
                "pki-ca/%s-cert.pem" % who)
    with open("keys.psk", "w", encoding="ascii") as f:
        f.write("alice:%s\nbob:%s\n" % ("a1" * 32, "b2" * 32))
    with open("wrong.psk", "w", encoding="ascii") as f:
        f.write("alice:%s\n" % ("c3" * 32))


def tls():
    certificates()
    pki, stranger = os.path.abspath("pki-ca"), os.path.abspath("pki-stranger")
    psk, wrong = os.path.abspath("keys.psk"), os.path.abspath("wrong.psk")
    with Server("disk.qcow2", "--listen", "127.0.0.1:0", "--tls-certificates", pki,
                "--tls-verify-clients") as s:
        assert s.uri.startswith("nbds://"), s.uri
        plain = s.uri.replace("nbds:", "nbd:")
        run("nbdcopy", s.uri + "?tls-certificates=" + pki, "copy.raw")
        same("copy.raw", "disk.raw")
        ours("convert", s.uri + "?tls-certificates=" + pki, "copy.raw", "--to", "raw")
        same("copy.raw", "disk.raw")
        assert "TLS" in ours("info", plain, ok=(1,))
        run("nbdinfo", plain, ok=(1,))
        assert "TLS" in ours("info", s.uri + "?tls-certificates=" + stranger, ok=(1,))
        out = ours("info", s.uri + "?tls-hostname=elsewhere&tls-certificates=" + pki, ok=(1,))
        assert "name" in out, out
        ours("info", s.uri, ok=(1,))
    with Server("disk.qcow2", "--listen", unix("s"), "--tls-psk", psk, "--tls", "optional") as s:
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", s.uri, "disk.raw")
        secure = s.uri.replace("nbd+unix:///", "nbds+unix://bob@/")
        ours("compare", secure + "&tls-psk-file=" + psk, "disk.raw", "--from-b", "raw")
        run("nbdcopy", secure + "&tls-psk-file=" + psk, "copy.raw")
        same("copy.raw", "disk.raw")
        out = ours("info", secure.replace("bob", "alice") + "&tls-psk-file=" + wrong, ok=(1,))
        assert "TLS" in out, out
        ours("info", secure + "&tls-psk-file=" + wrong, ok=(1,))


def our_client():
    """Servers of others, read and written by us."""
    sock = os.path.join(os.getcwd(), "q")
    uri = "nbd+unix:///e?socket=" + sock

    def server(*command):
        p = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while not os.path.exists(sock) and time.monotonic() < end and p.poll() is None:
            time.sleep(0.02)
        return p

    def stop(p):
        p.terminate()
        p.wait(PATIENCE)
        if os.path.exists(sock):
            os.unlink(sock)

    p = server("qemu-nbd", "-f", "qcow2", "-x", "e", "-k", sock, "-r", "-t", "disk.qcow2")
    ours("convert", uri, "copy.raw", "--to", "raw")
    same("copy.raw", "disk.raw")
    assert os.stat("copy.raw").st_blocks * 512 < SIZE // 2, "holes were lost"
    assert "lets nobody write" in ours("convert", "disk.raw", uri, "--from", "raw", "--to", "raw",
                                       ok=(1,))
    ours("convert", uri, "c.qcow2", "--to", "qcow2,compress=zstd")
    ours("compare", "c.qcow2", "disk.raw", "--from-b", "raw")
    stop(p)
    # written: raw over NBD, and a qcow2 that lies in an export
    run("qemu-img", "create", "-f", "qcow2", "e.qcow2", str(SIZE))
    p = server("qemu-nbd", "-f", "qcow2", "-x", "e", "-k", sock, "-t", "e.qcow2")
    ours("convert", "disk.qcow2", uri, "--to", "raw")
    stop(p)
    run("qemu-img", "compare", "e.qcow2", "disk.raw")
    p = server("qemu-nbd", "-f", "raw", "-x", "e", "-k", sock, "-t", "disk.qcow2")
    assert '"raw"' in ours("info", uri, "--format", "json"), "an export's content was believed"
    ours("compare", uri, "disk.raw", "--from", "qcow2", "--from-b", "raw")
    stop(p)
    # nbdkit: odd block sizes, no structured replies, errors
    p = server("nbdkit", "-f", "-U", sock, "--filter=blocksize-policy", "file", "disk.raw",
               "blocksize-minimum=4096", "blocksize-preferred=64K", "blocksize-maximum=256K",
               "blocksize-error-policy=error")
    ours("compare", uri, "disk.raw", "--from-b", "raw")
    stop(p)
    p = server("nbdkit", "-f", "-U", sock, "--no-sr", "file", "disk.raw")
    ours("compare", uri, "disk.raw", "--from-b", "raw")
    stop(p)
    p = server("nbdkit", "-f", "-U", sock, "--mask-handshake=0", "--no-sr", "file", "disk.raw")
    out = ours("info", uri, ok=(1,))
    assert "too old" in out, out
    stop(p)
    p = server("nbdkit", "-f", "-U", sock, "--filter=error", "file", "disk.raw",
               "error-pread=EIO", "error-pread-rate=100%", "error-pread-file=" +
               os.path.join(os.getcwd(), "broken"))
    open("broken", "w", encoding="ascii").close()
    out = ours("convert", uri, "copy.raw", "--to", "raw", ok=(1,))
    assert "Input/output error" in out, out
    stop(p)
    # a server that goes away in the middle
    p = server("nbdkit", "-f", "-U", sock, "--filter=delay", "file", "disk.raw", "rdelay=1")
    q = subprocess.Popen([TOOL, "convert", uri, "copy.raw", "--to", "raw"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(0.5)
    p.kill()
    p.wait()
    out = q.communicate(timeout=PATIENCE)[0]
    assert q.returncode == 1 and "e" in out, out
    os.unlink(sock)
    assert "cannot connect" in ours("info", uri, ok=(1,))


GREETING = struct.Struct(">QQH")
OPTION = 0x49484156454f5054


def recv_all(s, n):
    data = b""
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def connect(path, flags=3):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(PATIENCE)
    s.connect(path)
    recv_all(s, 18)
    if flags is not None:
        s.sendall(struct.pack(">I", flags))
    return s


def option(s, number, data=b""):
    s.sendall(struct.pack(">QII", OPTION, number, len(data)) + data)


def reply(s):
    _, opt, kind, n = struct.unpack(">QIII", recv_all(s, 20))
    return opt, kind, recv_all(s, n)


def go(s, name=b""):
    option(s, 7, struct.pack(">I", len(name)) + name + struct.pack(">H", 0))
    while reply(s)[1] != 1:
        pass


def request(s, command, offset, length, data=b"", flags=0, handle=1):
    s.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, handle, offset, length) + data)


def simple(s):
    magic, error, handle = struct.unpack(">IIQ", recv_all(s, 16))
    assert magic == 0x67446698
    return error, handle


def gone(s):
    """The server has hung up."""
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        pass
    s.close()


def hostile():
    path = os.path.join(os.getcwd(), "s")
    ours("convert", "disk.raw", "h.qcow2", "--from", "raw", "--to", "qcow2")
    with Server("h.qcow2", "--listen", "unix:" + path, "--writable", "--max-clients", "8",
                "--memory", "40M") as server:
        r = random.Random(7)
        for i in range(60):  # noise at every stage
            s = connect(path, None if i % 3 == 0 else 3)
            if i % 3 == 2:
                go(s)
            try:
                s.sendall(r.randbytes(r.randrange(1, 3000)))
            except (BrokenPipeError, ConnectionResetError):
                pass
            s.shutdown(socket.SHUT_WR)
            gone(s)
        s = connect(path, 0xffffffff)
        gone(s)
        s = connect(path)
        s.sendall(struct.pack(">QII", OPTION, 7, 0xffffffff))
        gone(s)
        s = connect(path)  # options without end
        try:
            for _ in range(1000):
                option(s, 99)
        except (BrokenPipeError, ConnectionResetError):
            pass
        gone(s)
        s = connect(path)  # lengths that lie
        for number in (6, 7, 9, 10):
            for data in (b"", b"\xff" * 6, struct.pack(">IH", 0xfffffff0, 1), b"\0" * 7,
                         struct.pack(">II", 0, 0xffffffff), struct.pack(">III", 0, 1, 0xffffffff)):
                option(s, number, data)
                assert reply(s)[1] & 1 << 31, (number, data)
        option(s, 5)
        assert reply(s)[1] == (1 << 31) + 2  # no TLS here
        option(s, 8)
        assert reply(s)[1] == 1
        option(s, 10, struct.pack(">III", 0, 1, 15) + b"base:allocation")
        assert reply(s)[1] == 4 and reply(s)[1] == 1
        option(s, 2)
        assert reply(s)[1] == 1
        gone(s)
        s = connect(path)
        go(s)
        for command, offset, length, flags, want in (
                (0, SIZE, 1, 0, 22), (0, 2**64 - 1, 4096, 0, 22), (0, 0, 0, 0, 22),
                (0, 0, 0x7fffffff, 0, 22), (1, SIZE - 1, 2, 0, 28), (4, SIZE, 512, 0, 28),
                (6, 2**63, 512, 0, 28), (7, 0, 512, 0, 22), (99, 0, 0, 0, 22),
                (0, 0, 512, 0x8000, 22), (3, 0, 0, 2, 22), (0, 0, 512, 4, 22)):
            request(s, command, offset, length, b"\1" * (2 if command == 1 else 0), flags, 5)
            assert simple(s) == (want, 5), (command, offset, length)
        request(s, 3, 0, 0, handle=6)
        assert simple(s) == (0, 6)
        request(s, 1, 0, 0x7fffffff)  # far too long: cut off
        gone(s)
        # many that hold a request open, more clients than there may be
        idle = []
        for _ in range(8):
            s = connect(path)
            idle.append(s)
        late = socket.socket(socket.AF_UNIX)
        late.settimeout(PATIENCE)
        late.connect(path)
        gone(late)
        for s in idle[1:]:
            s.close()
        # memory: all ask for more than there is and read slowly
        s = idle[0]
        go(s)
        for i in range(6):
            request(s, 0, 0, 20 << 20, handle=i)
        end = time.monotonic() + PATIENCE
        while True:  # a good client is served meanwhile
            try:
                run("nbdinfo", "--size", server.uri)
                break
            except SystemExit:
                if time.monotonic() > end:
                    raise
        for _ in range(6):
            error, _ = simple(s)
            assert error == 0
            assert len(recv_all(s, 20 << 20)) == 20 << 20
        with open("/proc/%d/status" % server.process.pid, encoding="ascii") as f:
            peak = int([line for line in f if line.startswith("VmHWM")][0].split()[1])
        assert peak < 160 * 1024, "%d KiB" % peak
        request(s, 2, 0, 0)
        gone(s)
    run("qemu-img", "check", "h.qcow2")
    run("qemu-img", "compare", "h.qcow2", "disk.raw")


def main():
    for tool in ("qemu-img", "qemu-io", "qemu-nbd", "nbdinfo", "nbdcopy", "nbdkit", "openssl"):
        if not shutil.which(tool):
            print(tool, "is missing: scripts/setup test")
            return 77
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)
        make_raw("disk.raw")
        for fmt in ("qcow2", "vmdk"):
            run("qemu-img", "convert", "-f", "raw", "-O", fmt, "disk.raw", "disk." + fmt)
        for test in (serve_reads, serve_writes, bitmaps, run_command, tls, our_client, hostile):
            start = time.monotonic()
            test()
            print("%s: %.1f s" % (test.__name__, time.monotonic() - start), flush=True)
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
