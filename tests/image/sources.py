#!/usr/bin/env python3
"""Disks from web servers and from files that were compressed whole, alone and one in the other.

usage: sources.py IMAGE-TOOL      exit status 77 where qemu-img, xz, zstd, bzip2 or openssl is missing
"""
import bz2
import gzip
import http.server
import json
import lzma
import os
import random
import shutil
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import zlib

TOOL = os.path.abspath(sys.argv[1])
SIZE = 8 << 20
PATIENCE = 120


def run(*args, ok=(0,), env=None):
    p = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, errors="replace", timeout=PATIENCE,
                       check=False, env=env)
    if p.returncode not in ok:
        raise SystemExit("FAIL (%d): %s\n%s" % (p.returncode, " ".join(map(str, args)), p.stdout))
    return p.stdout


def ours(*args, ok=(0,)):
    return run(TOOL, *args, ok=ok)


def make_raw(path, size=SIZE, seed=1):
    r = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        for at in range(0, size - (1 << 20), 2 << 20):
            f.seek(at + 4096 * r.randrange(100))
            f.write(r.randbytes(200000))
            f.write(b"text " * 60000)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


class Handler(http.server.BaseHTTPRequestHandler):
    """Files with ranges, and the ways in which servers misbehave, by the path's first word."""
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20  # headers and body in one go
    generation = 0
    broken = 0

    def log_message(self, *_):
        pass

    def plain(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        kind, _, name = urllib.parse.unquote(self.path).lstrip("/").partition("/")
        if kind == "redirect":
            return self.plain(302, [("Location", "/ok/" + name)])
        if kind == "loop":
            return self.plain(302, [("Location", "/loop/" + name)])
        if kind == "downgrade":
            return self.plain(302, [("Location", Handler.plain_url + "/ok/" + name)])
        if not os.path.exists(name):
            return self.plain(404)
        data = read(name)
        if kind == "flaky":
            Handler.broken += 1
            if Handler.broken % 3 == 1:
                return self.plain(503)
        tag = '"%s-%d"' % (name, Handler.generation)
        wanted = self.headers.get("Range")
        if kind == "changing" and wanted and not wanted.startswith("bytes=0-"):
            tag = '"another"'
        condition = self.headers.get("If-Range")
        if kind == "noranges" or not wanted or (condition and condition != tag):
            return self.plain(200, [("ETag", tag)], data)
        first, last = wanted[len("bytes="):].split("-")
        first, last = int(first), min(int(last), len(data) - 1)
        if kind == "wrongrange":
            first += 1
        if kind == "shrunk" and first:
            return self.plain(206, [("Content-Range", "bytes %d-%d/%d" % (first, last,
                                                                          len(data) - 1))],
                              data[first:last + 1])
        headers = [("Content-Range", "bytes %d-%d/%d" % (first, last, len(data)))]
        if kind != "notag":
            headers.append(("ETag", tag))
        return self.plain(206, headers, data[first:last + 1])


class Web:
    def __init__(self, context=None):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # a client that hangs up
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = "http%s://localhost:%d" % ("s" if context else "", self.server.server_port)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def web():
    plain = Web()
    Handler.plain_url = plain.url
    for kind in ("ok", "redirect", "flaky", "notag"):
        url = plain.url + "/" + kind
        ours("convert", url + "/disk.qcow2", "out.raw", "--to", "raw")
        assert read("out.raw") == read("disk.raw"), kind
    ours("compare", plain.url + "/ok/disk.raw", "disk.raw", "--from", "raw", "--from-b", "raw")
    ours("convert", plain.url + "/ok/disk.vmdk", "out.qcow2", "--to", "qcow2")
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "out.qcow2", "disk.raw")
    info = json.loads(ours("info", plain.url + "/ok/disk.qcow2", "--format", "json"))
    assert info["format"] == "qcow2" and info["virtual-size"] == SIZE, info
    # an overlay whose base lies beside it on the server; and one that names a file of ours
    run("qemu-img", "create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "over lay.qcow2")
    ours("compare", plain.url + "/ok/over%20lay.qcow2", "disk.raw", "--from-b", "raw")
    run("qemu-img", "create", "-f", "qcow2", "-u", "-b", os.path.abspath("disk.raw"), "-F", "raw",
        "thief.qcow2", str(SIZE))
    out = ours("info", "--chain", plain.url + "/ok/thief.qcow2", ok=(1,))
    assert "not one we can follow" in out, out
    for kind, want in (("noranges", "does not serve ranges"), ("changing", "changed"),
                       ("wrongrange", "another range"), ("loop", "redirect"), ("shrunk", "changed"),
                       ("ok/none", "no such file")):
        name = kind if "/" in kind else kind + "/disk.raw"
        out = ours("convert", plain.url + "/" + name, "out.raw", "--to", "raw", ok=(1,))
        if kind not in ("changing", "shrunk"):  # those go wrong while reading: errno speaks
            assert want in out.lower() or want in out, (kind, out)
        else:
            assert "tale" in out, (kind, out)
    out = ours("convert", "disk.raw", plain.url + "/ok/new.raw", "--from", "raw", "--to", "raw",
               ok=(1,))
    assert "only read" in out, out
    out = ours("info", "http://127.0.0.1:1/x", ok=(1,))
    assert "onnect" in out, out
    return plain


def secure(plain):
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
        "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout",
        "server.key", "-out", "server.csr")
    write("ext", b"subjectAltName=DNS:localhost\n")
    run("openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-days", "30", "-extfile", "ext", "-out", "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("server.pem", "server.key")
    server = Web(context)
    ours("convert", server.url + "/redirect/disk.qcow2", "out.raw", "--to", "raw", "--ca-file",
         "ca.pem")
    assert read("out.raw") == read("disk.raw")
    out = ours("info", server.url + "/ok/disk.qcow2", ok=(1,))
    assert "ertificate" in out or "SSL" in out, out
    ours("info", server.url.replace("localhost", "127.0.0.1") + "/ok/disk.qcow2", "--ca-file",
         "ca.pem", ok=(1,))
    out = ours("info", server.url + "/downgrade/disk.qcow2", "--ca-file", "ca.pem", ok=(1,))
    assert "rotocol" in out, out
    server.stop()
    plain.stop()


def pack_all():
    """The same disk, packed in every way that its tools know."""
    data = read("disk.raw")
    half = len(data) // 2
    write("a.gz", gzip.compress(data, 6))
    write("members.gz", gzip.compress(data[:half]) + gzip.compress(data[half:]) + b"\0" * 512)
    write("stored.gz", gzip.compress(data, 0))
    write("a.xz", lzma.compress(data, preset=0))
    for name, command in (("blocks.xz", "xz -0 --block-size=1MiB -c disk.raw"),
                          ("x86.xz", "xz --x86 --lzma2=preset=0 -c disk.raw"),
                          ("a.zst", "zstd -q -c disk.raw"),
                          ("pipe.zst", "cat disk.raw | zstd -q -c"),
                          ("frames.zst", "(head -c %d disk.raw | zstd -q; tail -c +%d disk.raw >t; "
                           "zstd -q -c t; rm t)" % (half, half + 1)),
                          ("long.zst", "zstd -q --long=27 -c disk.raw"),
                          ("a.bz2", "bzip2 -1 -c disk.raw")):
        subprocess.run(command + " > " + name, shell=True, check=True)
    write("streams.xz", lzma.compress(data[:half], preset=0) + b"\0" * 8 +
          lzma.compress(data[half:], preset=0))
    write("streams.bz2", bz2.compress(data[:half], 1) + bz2.compress(data[half:], 1))
    write("known.zst", read("a.zst") + struct.pack("<II", 0x184d2a53, 4) + b"skip")
    return ["a.gz", "members.gz", "stored.gz", "a.xz", "blocks.xz", "x86.xz", "streams.xz",
            "a.zst", "pipe.zst", "frames.zst", "long.zst", "known.zst", "a.bz2", "streams.bz2"]


def packed():
    names = pack_all()
    for name in names:
        start = time.monotonic()
        ours("convert", name, "out.qcow2", "--to", "qcow2")
        run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "out.qcow2", "disk.raw")
        # not from start to end: each piece by itself, last one first
        for offset, length in ((6 << 20, 1 << 20), (5 << 20, 70000), (512, 4096),
                               (SIZE - 512, 512), (3654321 // 512 * 512, 1 << 20)):
            ours("convert", name, "part.raw", "--to", "raw", "--offset", offset, "--length", length)
            assert read("part.raw") == read("disk.raw")[offset:offset + length], (name, offset)
        print("  %s: %.1f s" % (name, time.monotonic() - start), flush=True)
    # a format inside: backwards and forwards in the packed file
    for fmt in ("qcow2", "vmdk", "vhdx"):
        run("qemu-img", "convert", "-f", "raw", "-O", fmt, "disk.raw", "i." + fmt)
        subprocess.run("gzip -kf i.%s; xz -0kf i.%s; zstd -qkf i.%s" % (fmt, fmt, fmt), shell=True,
                       check=True)
        for end in ("gz", "xz", "zst"):
            assert '"%s"' % fmt in ours("info", "i.%s.%s" % (fmt, end), "--format", "json")
            ours("compare", "i.%s.%s" % (fmt, end), "disk.raw", "--from-b", "raw")
    # resumed: the packed file is the source
    ours("convert", "a.xz", "out.raw", "--to", "raw", "--resume")
    # never unpacked where it is a disk by name
    ours("convert", "a.gz", "out.raw", "--from", "raw", "--to", "raw")
    assert read("out.raw")[:1000] == read("a.gz")[:1000]
    return names


def damaged(names):
    r = random.Random(5)
    for name in names:
        data = read(name)
        for cut in (12, len(data) // 2, len(data) - 5):
            if name == "members.gz" and cut == len(data) - 5:
                continue  # only padding is lost
            if name == "known.zst" and cut == len(data) - 5:
                cut = len(data) - 2
            write("bad", data[:cut])
            out = ours("convert", "bad", "out.raw", "--to", "raw", ok=(1,))
            assert "bad" in out, out
        for _ in range(2):
            at = r.randrange(100, len(data) - 100)
            write("bad", data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:])
            out = ours("convert", "bad", "out.raw", "--to", "raw", ok=(0, 1))
            if name.endswith("zst"):  # without checksums it may go unnoticed
                continue
            if "bad" not in out and read("out.raw") != read("disk.raw"):
                raise SystemExit("FAIL: damage of %s went unnoticed at %d" % (name, at))
    # bombs: little that unpacks to much
    zeroes = 256 << 20
    z = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(z.compress(bytes(1 << 24)) for _ in range(zeroes >> 24)) + z.flush()
    write("bomb.gz", bomb)
    subprocess.run("head -c %d /dev/zero | xz -0 > bomb.xz; head -c %d /dev/zero > z; zstd -q -c z "
                   "> bomb.zst; rm z" % (zeroes, zeroes), shell=True, check=True)
    for name in ("bomb.gz", "bomb.xz", "bomb.zst"):
        out = ours("convert", name, "bomb.raw", "--to", "raw", "--max-size", "50M", ok=(1,))
        assert "--max-size" in out, out
        assert not os.path.exists("bomb.raw"), "a target for nothing"
    ours("convert", "bomb.zst", "bomb.raw", "--to", "raw")
    assert os.stat("bomb.raw").st_size == zeroes and os.stat("bomb.raw").st_blocks < 10000


def luks(command, *args):
    """qemu-img measures how fast the host derives keys, and gives up where it cannot tell."""
    for _ in range(50):
        out = run("qemu-img", command, "--object", "secret,id=s,file=key", *args, ok=(0, 1))
        if "accurate CPU usage" not in out:
            break
    assert not out.strip() or "Formatting" in out, out


def encrypted():
    """LUKS by qemu-img, in clear with the key, and never without."""
    write("key", b"open sesame")
    write("wrong", b"open barley")
    for options in ("", ",cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=sha512"):
        luks("convert", "-f", "raw", "-O", "luks", "-o", "key-secret=s,iter-time=100" + options,
             "disk.raw", "disk.luks")
        ours("convert", "disk.luks", "out.raw", "--to", "raw", "--key-file", "key")
        assert read("out.raw") == read("disk.raw"), options
        ours("convert", "disk.luks", "part.raw", "--to", "raw", "--key-file", "key", "--offset",
             1536, "--length", 3 << 20)
        assert read("part.raw") == read("disk.raw")[1536:1536 + (3 << 20)]
        assert "give the key" in ours("convert", "disk.luks", "out.raw", "--to", "raw", ok=(1,))
        assert "opens no key slot" in ours("info", "disk.luks", "--key-file", "wrong", ok=(1,))
    ours("convert", "disk.luks", "out.raw", "--from", "raw", "--to", "raw")
    assert read("out.raw") == read("disk.luks"), "as it is"
    head = bytearray(read("disk.luks"))
    head[7] = 2
    write("two.luks", head)
    assert "version 2" in ours("info", "two.luks", "--key-file", "key", ok=(1,))
    luks("create", "-f", "qcow2", "-o",
         "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100", "e.qcow2", "1M")
    assert "give the key" in ours("convert", "e.qcow2", "out.raw", "--to", "raw", ok=(1,))
    for options in ("", ",data_file=e.data"):
        luks("convert", "-f", "raw", "-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,"
             "encrypt.iter-time=100" + options, "disk.raw", "e.qcow2")
        ours("convert", "e.qcow2", "out.raw", "--to", "raw", "--key-file", "key")
        assert read("out.raw") == read("disk.raw"), "LUKS in QCOW2" + options
        assert "give the key" in ours("info", "e.qcow2", ok=(1,))
        assert "opens no key slot" in ours("info", "e.qcow2", "--key-file", "wrong", ok=(1,))
    r = random.Random(4)
    for _ in range(12):  # headers that lie
        bad = bytearray(read("disk.luks"))
        for _ in range(3):
            bad[r.randrange(6, 592)] = r.choice((0, 1, 0x7f, 0xff))
        bad[164:168] = b"\0\0\1\0"  # rounds of the digest, and of the slots: quickly
        for slot in range(8):
            bad[212 + 48 * slot:216 + 48 * slot] = b"\0\0\1\0"
        write("bad.luks", bad)
        ours("info", "bad.luks", "--key-file", "key", ok=(0, 1))


def discs():
    """A disc is raw, and read only."""
    data = bytearray(1 << 20)
    data[32768:32774] = b"\1CD001"
    data[32808:32840] = b"DEBIAN 12".ljust(32)
    write("disc.iso", data)
    info = json.loads(ours("info", "disc.iso", "--format", "json"))
    assert info["format"] == "iso" and info["format-specific"]["volume"] == "DEBIAN 12", info
    ours("convert", "disc.iso", "out.raw", "--to", "raw")
    assert read("out.raw") == data
    ours("create", "over.qcow2", "--to", "qcow2", "--backing", "disc.iso")
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "over.qcow2", "disc.iso")


def differencing_vdi():
    """VirtualBox's snapshots: no other tool makes or reads them, so by its header's layout."""
    block, blocks = 1 << 20, SIZE >> 20
    run("qemu-img", "convert", "-f", "raw", "-O", "vdi", "disk.raw", "base.vdi")
    base = bytearray(read("base.vdi"))
    base[392:424] = bytes(range(32))  # UUIDs: its own, of its last change
    write("base.vdi", base)
    want = bytearray(read("disk.raw"))
    head = bytearray(base[:512])
    head[76:80] = struct.pack("<I", 4)
    head[340:348] = struct.pack("<II", 512, 4096)
    head[392:424] = bytes(range(100, 132))
    head[424:456] = base[392:424]
    table, data = [], b""
    for i in range(blocks):
        if i % 3 == 0:
            table.append(0xffffffff)
        elif i % 3 == 1:
            table.append(0xfffffffe)
            want[i * block:(i + 1) * block] = bytes(block)
        else:
            table.append(len(data) // block)
            data += bytes([i]) * block
            want[i * block:(i + 1) * block] = bytes([i]) * block
    head[388:392] = struct.pack("<I", len(data) // block)
    overlay = bytes(head) + b"".join(struct.pack("<I", x) for x in table)
    overlay += bytes(4096 - len(overlay)) + data
    os.mkdir("Snapshots")
    for name in ("over.vdi", "Snapshots/{1}.vdi"):
        write(name, overlay)
        ours("convert", name, "out.raw", "--to", "raw")
        assert read("out.raw") == want, name
        assert "base.vdi" in ours("info", "--chain", name)
    second = bytearray(overlay[:4096])  # one more on top: all of it its parent's
    second[388:392] = bytes(4)
    second[392:424] = bytes(range(200, 232))
    second[424:456] = overlay[392:424]
    second[512:512 + 4 * blocks] = b"\xff" * (4 * blocks)
    write("Snapshots/{2}.vdi", second)
    ours("convert", "Snapshots/{2}.vdi", "out.raw", "--to", "raw")
    assert read("out.raw") == want
    assert "only read" in ours("copy", "disk.raw", "over.vdi", "--from", "raw", ok=(1,))
    base[408] ^= 1
    write("base.vdi", base)
    assert "has changed" in ours("info", "--chain", "over.vdi", ok=(1,))
    os.unlink("base.vdi")
    assert "UUID" in ours("convert", "over.vdi", "out.raw", "--to", "raw", ok=(1,))


def main():
    for tool in ("qemu-img", "xz", "zstd", "bzip2", "openssl"):
        if not shutil.which(tool):
            print(tool, "is missing: scripts/setup test")
            return 77
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)
        make_raw("disk.raw")
        for fmt in ("qcow2", "vmdk"):
            run("qemu-img", "convert", "-f", "raw", "-O", fmt, "disk.raw", "disk." + fmt)
        start = time.monotonic()
        encrypted()
        discs()
        differencing_vdi()
        print("encrypted, discs, VDI: %.1f s" % (time.monotonic() - start), flush=True)
        secure(web())
        print("web: %.1f s" % (time.monotonic() - start), flush=True)
        names = packed()
        damaged([n for n in names if n in ("members.gz", "blocks.xz", "streams.xz", "frames.zst",
                                           "pipe.zst", "streams.bz2")])
        print("packed: %.1f s" % (time.monotonic() - start), flush=True)
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
