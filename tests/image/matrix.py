#!/usr/bin/env python3
"""Images both ways between Mullion and qemu-img: what one writes the other reads, byte for byte.

usage: matrix.py IMAGE-TOOL [FORMAT...]      exit status 77 where qemu-img is missing
"""
import json, os, random, shutil, subprocess, sys, tempfile

TOOL = os.path.abspath(sys.argv[1])
ONLY = sys.argv[2:]
EXAMPLE = None
if ONLY[:1] == ["--example"]:
    EXAMPLE, ONLY = os.path.abspath(ONLY[1]), ONLY[2:]
RUNS = 0


def run(*args, ok=(0,), stdin=""):
    global RUNS
    RUNS += 1
    p = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       text=True, input=stdin)
    if p.returncode not in ok:
        raise SystemExit("FAIL (%d): %s\n%s" % (p.returncode, " ".join(map(str, args)), p.stdout))
    return p.stdout


def ours(*args, ok=(0,)):
    return run(TOOL, *args, ok=ok)


def qemu(*args, ok=(0,)):
    return run("qemu-img", *args, ok=ok)


def make_raw(path, size, seed, density=0.3):
    """A disk with data of different kinds between holes."""
    r = random.Random(seed)
    text = (b"The quick brown fox jumps over the lazy dog. " * 200)[:4096]
    with open(path, "wb") as f:
        f.truncate(size)
        at = 0
        while at < size:
            n = min(size - at, r.choice([512, 4096, 65536, 100 * 512, 1 << 20]))
            if r.random() < density:
                f.seek(at)
                kind = r.random()
                if kind < 0.4:
                    f.write(r.randbytes(n))
                elif kind < 0.8:
                    f.write((text * (n // 4096 + 1))[:n])
                else:
                    f.write(b"\0" * n)
            at += n


def qfmt(name):
    return {"vhd": "vpc"}.get(name, name)


def check_qemu(path, fmt):
    if fmt in ("qcow2", "vmdk", "vhdx", "vdi"):
        qemu("check", "-f", qfmt(fmt), path)


def same(a, afmt, b, bfmt):
    qemu("compare", "-f", qfmt(afmt), "-F", qfmt(bfmt), a, b)
    ours("compare", a, b, "--from", afmt, "--from-b", bfmt)


def both_ways(raw, fmt, qemu_opts, our_opts, compress=False):
    """qemu-img's image read by us, ours read by qemu-img."""
    theirs, mine, back = "theirs." + fmt, "mine." + fmt, "back.raw"
    qemu("convert", "-f", "raw", "-O", qfmt(fmt), *(["-c"] if compress else []),
         *(["-o", qemu_opts] if qemu_opts else []), raw, theirs)
    same(raw, "raw", theirs, fmt)
    ours("convert", theirs, back, "--to", "raw")
    same(raw, "raw", back, "raw")
    ours("convert", raw, mine, "--from", "raw", "--to", fmt + ("," + our_opts if our_opts else ""))
    same(raw, "raw", mine, fmt)
    check_qemu(mine, fmt)
    out = json.loads(ours("info", mine, "--format", "json"))
    assert out["format"] == fmt, out
    if fmt == "qcow2":
        ours("check", mine)
        ours("check", theirs)
    # ours, written into by qemu; theirs, written into by us
    for path in (mine, theirs):
        if "stream" in (our_opts or ""):
            break
        edit(path, fmt, raw)
    for p in os.listdir("."):
        if p.startswith(("theirs", "mine", "back")):
            os.unlink(p)


def edit(path, fmt, raw):
    """The same writes, discards and zeroes by us and, to a raw copy, by qemu-io."""
    run("cp", "--sparse=always", raw, "copy.raw")
    size = os.path.getsize(raw)
    r = random.Random(size + len(path))
    script = []
    for i in range(60):
        off = r.randrange(size // 512) * 512
        n = min(size - off, r.choice([512, 4096, 65536, 200 * 512]))
        kind = r.random()
        script.append(("write", off, n, i + 1) if kind < 0.7 else ("zero", off, n, 0))
    ours_cmds = "".join("%s %d %d %d\n" % s for s in script)
    p = subprocess.run([TOOL, "io", path, "--from", fmt], input=ours_cmds, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode:
        raise SystemExit("FAIL io %s: %s" % (path, p.stdout))
    with open("copy.raw", "r+b") as f:
        for kind, off, n, value in script:
            f.seek(off)
            f.write(bytes([value]) * n)
    same("copy.raw", "raw", path, fmt)
    check_qemu(path, fmt)
    if qfmt(fmt) not in ("parallels",):
        cmds = []
        with open("copy.raw", "r+b") as f:
            for i in range(20):
                off = r.randrange(size // 512) * 512
                n = min(size - off, 4096)
                cmds += ["-c", "write -P %d %d %d" % (i + 100, off, n)]
                f.seek(off)
                f.write(bytes([i + 100]) * n)
        run("qemu-io", "-f", qfmt(fmt), *cmds, path)
        same("copy.raw", "raw", path, fmt)
    os.unlink("copy.raw")


def backing(raw, fmt, qemu_opts, our_opts, base_fmt="raw"):
    """Overlays made by either, written by either."""
    base = "base." + base_fmt
    qemu("convert", "-f", "raw", "-O", qfmt(base_fmt), raw, base)
    size = os.path.getsize(raw)
    ours("create", "mine." + fmt, size + (1 << 20), "--to", fmt + ("," + our_opts if our_opts else ""),
         "--backing", base, "--backing-format", base_fmt)
    qemu("create", "-f", qfmt(fmt), *(["-o", qemu_opts] if qemu_opts else []), "-b", base, "-F",
         qfmt(base_fmt), "theirs." + fmt, size + (1 << 20))
    shutil.copyfile(raw, "big.raw")
    with open("big.raw", "r+b") as f:
        f.truncate(size + (1 << 20))
    for path in ("mine." + fmt, "theirs." + fmt):
        same("big.raw", "raw", path, fmt)
        edit(path, fmt, "big.raw")
    if fmt == "qcow2":
        # commit, rebase
        ours("convert", "mine.qcow2", "flat.raw", "--to", "raw")
        ours("rebase", "mine.qcow2", "--backing", "")
        same("flat.raw", "raw", "mine.qcow2", fmt)
        check_qemu("mine.qcow2", fmt)
        ours("convert", "theirs.qcow2", "flat.raw", "--to", "raw")
        ours("commit", "theirs.qcow2")
        same("flat.raw", "raw", base, base_fmt)
        same("flat.raw", "raw", "theirs.qcow2", fmt)
        check_qemu("theirs.qcow2", fmt)
        ours("check", "theirs.qcow2")
    for p in os.listdir("."):
        if p.startswith(("theirs", "mine", "back", "base", "big", "flat")):
            os.unlink(p)


def resize(fmt, our_opts, sizes=("+3M", "300M", "4M", "2G", "4M", "5M")):
    """Grown and shrunk, what qemu-img then sees; what would be lost is not cut off unasked."""
    name = "size." + fmt
    ours("create", name, "5M", "--to", fmt + ("," + our_opts if our_opts else ""))
    io(name, fmt, "write 0 5242880 7\n")
    model = 5 << 20
    shutil.rmtree("model.raw", ignore_errors=True)
    with open("model.raw", "wb") as f:
        f.write(b"\7" * model)
    out = ours("resize", name, "4M", "--from", fmt, ok=(1,))
    assert "1024 KiB of data, from byte 4194304" in out, out
    for size in sizes:
        ours("resize", name, size, "--shrink", "--from", fmt)
        info = json.loads(ours("info", name, "--from", fmt, "--format", "json"))
        with open("model.raw", "r+b") as f:
            f.truncate(info["virtual-size"])
        check_qemu(name, fmt)
        if fmt != "raw":
            ours("check", name, ok=(0, 63))
        ours("compare", "model.raw", name, "--from", "raw", "--from-b", fmt)
        if os.path.getsize("model.raw") <= 300 << 20:
            same("model.raw", "raw", name, fmt)
        at = info["virtual-size"] - 65536  # the new end is written to, and the next turn cuts it off
        io(name, fmt, "write %d 65536 9\n" % at)
        with open("model.raw", "r+b") as f:
            f.seek(at)
            f.write(b"\x09" * 65536)
        ours("compare", "model.raw", name, "--from", "raw", "--from-b", fmt)
    ours("resize", name, "6M", "--from", fmt)
    ours("resize", name, "5M", "--from", fmt)  # nothing is lost: not asked
    for p in os.listdir("."):
        if p.startswith(("size", "model")):
            os.unlink(p)


def io(path, fmt, script):
    run(TOOL, "io", path, "--from", fmt, stdin=script)


def snapshots(opts):
    name = "snap.qcow2"
    make_raw("a.raw", 8 << 20, 1)
    make_raw("b.raw", 8 << 20, 2)
    ours("convert", "a.raw", name, "--from", "raw", "--to", "qcow2" + opts)
    ours("snapshot", "create", name, "first")
    check_qemu(name, "qcow2")
    ours("check", name)
    edit(name, "qcow2", "a.raw")
    check_qemu(name, "qcow2")
    ours("convert", name, "second.raw", "--to", "raw")
    qemu("snapshot", "-c", "second", name)
    edit(name, "qcow2", "second.raw")
    ours("check", name)
    ours("convert", name, "out.raw", "--snapshot", "first", "--to", "raw")
    same("out.raw", "raw", "a.raw", "raw")
    ours("snapshot", "apply", name, "first")
    check_qemu(name, "qcow2")
    ours("check", name)
    same(name, "qcow2", "a.raw", "raw")
    ours("snapshot", "apply", name, "second")
    same(name, "qcow2", "second.raw", "raw")
    check_qemu(name, "qcow2")
    ours("snapshot", "delete", name, "first")
    check_qemu(name, "qcow2")
    ours("check", name)
    names = [s["name"] for s in json.loads(ours("snapshot", "list", name, "--format", "json"))]
    assert names == ["second"], names
    qemu("snapshot", "-a", "second", name)
    same(name, "qcow2", "second.raw", "raw")
    edit(name, "qcow2", "second.raw")
    ours("snapshot", "delete", name, "second")
    check_qemu(name, "qcow2")
    ours("check", name)
    for p in os.listdir("."):
        os.unlink(p)


def bitmaps():
    name = "map.qcow2"
    qemu("create", "-f", "qcow2", name, "64M")
    qemu("bitmap", "--add", "-g", "64k", name, "b0")
    script = "write 65536 4096 1\nwrite 1048576 200000 2\nzero 33554432 65536 0\n"
    subprocess.run([TOOL, "io", name, "--from", "qcow2"], input=script, text=True, check=True)
    check_qemu(name, "qcow2")
    ours("check", name)
    info = json.loads(qemu("info", "--output=json", name))
    b = info["format-specific"]["data"]["bitmaps"]
    assert len(b) == 1 and "in-use" not in b[0]["flags"], b
    p = subprocess.Popen(["qemu-nbd", "-r", "-f", "qcow2", "-B", "b0", "-k", os.path.abspath("s"), name])
    try:
        for _ in range(100):
            if os.path.exists("s"):
                break
            import time
            time.sleep(0.05)
        out = json.loads(qemu("map", "--output=json", "--image-opts",
                              "driver=nbd,server.type=unix,server.path=s,x-dirty-bitmap=qemu:dirty-bitmap:b0"))
    finally:
        p.terminate()
        p.wait()
    dirty = [(e["start"], e["length"]) for e in out if not e["data"]]
    assert dirty == [(65536, 65536), (1048576, 262144), (33554432, 65536)], dirty
    for p in os.listdir("."):
        os.unlink(p)


QCOW2 = [
    ("compat=0.10", "compat=0.10"),
    ("compat=1.1", ""),
    ("cluster_size=512", "cluster_size=512"),
    ("cluster_size=4k,refcount_bits=1", "cluster_size=4k,refcount_bits=1"),
    ("cluster_size=2M", "cluster_size=2M"),
    ("refcount_bits=64,cluster_size=1k", "refcount_bits=64,cluster_size=1k"),
    ("lazy_refcounts=on", "lazy_refcounts=on"),
    ("extended_l2=on", "extended_l2=on"),
    ("extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=16k"),
    ("data_file=theirs.data", "data_file=mine.data"),
    ("data_file=theirs.data,data_file_raw=on", "data_file=mine.data,data_file_raw=on"),
]


def test_qcow2(raw):
    for q, o in QCOW2:
        print("qcow2", q or "-", flush=True)
        both_ways(raw, "qcow2", q, o)
        resize("qcow2", o) if "data_file" not in o else None
    for q, o in (("", "compress=zlib"), ("compression_type=zstd", "compress=zstd"),
                 ("cluster_size=512", "compress=zlib,cluster_size=512"),
                 ("cluster_size=2M", "compress=zlib,cluster_size=2M"),
                 ("extended_l2=on", "compress=zlib,extended_l2=on")):
        print("qcow2 compressed", q or "-", flush=True)
        both_ways(raw, "qcow2", q, o, compress=True)
    for q, o in QCOW2[:9]:
        print("qcow2 backing", q, flush=True)
        backing(raw, "qcow2", q, o)
    backing(raw, "qcow2", "", "", base_fmt="qcow2")
    for o in ("", ",extended_l2=on", ",cluster_size=1k", ",compress=zlib", ",compat=0.10"):
        print("qcow2 snapshots", o or "-", flush=True)
        here = os.getcwd()
        os.mkdir("snapshots")
        os.chdir("snapshots")
        snapshots(o)
        os.chdir(here)
        os.rmdir("snapshots")
    os.mkdir("bitmaps")
    os.chdir("bitmaps")
    bitmaps()
    os.chdir("..")
    os.rmdir("bitmaps")


def test_raw(raw):
    both_ways(raw, "raw", "", "")
    resize("raw", "")
    if EXAMPLE:
        run(EXAMPLE, raw, "example.qcow2")
        same(raw, "raw", "example.qcow2", "qcow2")
        os.unlink("example.qcow2")
    # part of a disk
    ours("convert", raw, "part.raw", "--from", "raw", "--to", "raw", "--offset", "1M", "--length", "3M")
    with open(raw, "rb") as a, open("part.raw", "rb") as b:
        a.seek(1 << 20)
        assert a.read(3 << 20) == b.read()
    ours("compare", raw, "part.raw", ok=(1,))
    os.unlink("part.raw")


VMDK = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]


def test_vmdk(raw):
    for s in VMDK:
        print("vmdk", s, flush=True)
        both_ways(raw, "vmdk", "subformat=" + s, "subformat=" + s)
    print("vmdk streamOptimized", flush=True)
    both_ways(raw, "vmdk", "subformat=streamOptimized", "subformat=streamOptimized")
    for s in VMDK[2:]:
        print("vmdk 5 GiB", s, flush=True)
        with open("huge.raw", "wb") as f:
            f.truncate(5 << 30)
            for mb in (0, 2046, 2047, 2048, 2049, 4094, 4095, 5119):
                f.seek(mb << 20)
                f.write(random.Random(mb).randbytes(300000))
        both_ways("huge.raw", "vmdk", "subformat=" + s, "subformat=" + s)
        os.unlink("huge.raw")
    for s in VMDK + ["vmfs", "vmfsSparse"]:
        print("vmdk resize", s, flush=True)
        resize("vmdk", "subformat=" + s, ("+3M", "300M", "4M", "5G", "4M", "5M") if "twoGb" in s else
               ("+3M", "300M", "4M", "2G", "4M", "5M"))
    # qemu-img knows ESX's kinds, but makes none
    for s in ("vmfs", "vmfsSparse"):
        print("vmdk", s, flush=True)
        ours("convert", raw, "esx.vmdk", "--from", "raw", "--to", "vmdk,subformat=" + s)
        same(raw, "raw", "esx.vmdk", "vmdk")
        edit("esx.vmdk", "vmdk", raw)
        ours("check", "esx.vmdk")
        for p in os.listdir("."):
            if p.startswith("esx"):
                os.unlink(p)
    # chains
    for s in ("monolithicSparse", "twoGbMaxExtentSparse", "vmfsSparse"):
        print("vmdk chain", s, flush=True)
        qemu("convert", "-f", "raw", "-O", "vmdk", raw, "base.vmdk")
        shutil.copyfile(raw, "big.raw")
        last = "base.vmdk"
        for i in range(3):
            name = "delta%d.vmdk" % i
            ours("create", name, "--to", "vmdk,subformat=" + s, "--backing", last)
            if s == "monolithicSparse" and i == 1:
                os.unlink(name)
                qemu("create", "-f", "vmdk", "-b", last, "-F", "vmdk", name)
            same("big.raw", "raw", name, "vmdk")
            edit(name, "vmdk", "big.raw")
            ours("check", name)
            ours("convert", name, "big.raw", "--to", "raw")
            last = name
        ours("commit", last)
        same("big.raw", "raw", last, "vmdk")
        same("big.raw", "raw", "delta1.vmdk", "vmdk")
        # a parent that was written to is not the parent any more
        run(TOOL, "io", "delta1.vmdk", "--from", "vmdk", stdin="write 0 512 1\n")
        out = ours("info", "--chain", "delta2.vmdk", ok=(1,))
        assert "has changed" in out, out
        for p in os.listdir("."):
            if p.startswith(("delta", "base", "big")):
                os.unlink(p)
    # names that lead elsewhere
    for name in ("/etc/passwd", "../x", "a/../../x"):
        with open("evil.vmdk", "w") as f:
            f.write("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
                    "createType=\"monolithicFlat\"\nRW 2 FLAT \"%s\" 0\n" % name)
        out = ours("info", "evil.vmdk", ok=(1,))
        assert "outside" in out, out
    with open("elsewhere", "wb") as f:
        f.write(b"x" * 1024)
    with open("evil.vmdk", "w") as f:
        f.write("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
                "createType=\"monolithicFlat\"\nRW 2 FLAT \"%s\" 0\n" % os.path.abspath("elsewhere"))
    ours("convert", "evil.vmdk", "evil.raw", "--to", "raw", ok=(1,))
    ours("convert", "evil.vmdk", "evil.raw", "--to", "raw", "--anywhere")
    ours("info", "evil.vmdk", "--anywhere")
    ours("compare", "evil.vmdk", "elsewhere", "--from-b", "raw", "--anywhere")
    for name in ("evil.vmdk", "evil.raw", "elsewhere"):
        os.unlink(name)


def chain(raw, fmt, opts=""):
    """Three images, each on the one below, where qemu-img cannot follow."""
    ours("convert", raw, "base." + fmt, "--from", "raw", "--to", fmt + opts)
    shutil.copyfile(raw, "model.raw")
    last = "base." + fmt
    for i in range(3):
        name = "delta%d.%s" % (i, fmt)
        ours("create", name, "--to", fmt, "--backing", last)
        size = os.path.getsize("model.raw")
        r = random.Random(i)
        script = []
        for j in range(80):
            off = r.randrange(size // 512) * 512
            n = min(size - off, r.choice([512, 1024, 4096, 65536, 2 << 20]))
            script.append(("write", off, n, j + 1) if r.random() < 0.7 else ("zero", off, n, r.randrange(2)))
        run(TOOL, "io", name, stdin="".join("%s %d %d %d\n" % s for s in script))
        with open("model.raw", "r+b") as f:
            for kind, off, n, value in script:
                f.seek(off)
                f.write(bytes([value if kind == "write" else 0]) * n)
        ours("compare", "model.raw", name, "--from", "raw")
        ours("check", name)
        last = name
    if fmt == "vhdx":
        run(TOOL, "io", "delta1." + fmt, stdin="write 0 512 1\n")
        out = ours("info", "--chain", "delta2." + fmt, ok=(1,))
        assert "has changed" in out, out
    for p in os.listdir("."):
        if p.startswith(("delta", "base", "model")):
            os.unlink(p)


def test_vhdx(raw):
    for q, o in (("", ""), ("subformat=fixed", "subformat=fixed"), ("block_size=1M", "block_size=1M"),
                 ("block_size=256M", "block_size=256M")):
        print("vhdx", q or "-", flush=True)
        both_ways(raw, "vhdx", q, o)
    resize("vhdx", "block_size=1M")
    resize("vhdx", "subformat=fixed", ("+3M", "4M", "40M", "5M"))
    print("vhdx chain", flush=True)
    chain(raw, "vhdx", ",block_size=1M")
    chain(raw, "vhdx")


def test_vhd(raw):
    for q, o in (("", ""), ("subformat=fixed", "subformat=fixed"),
                 ("force_size=on", "block_size=512k"), ("force_size=on,subformat=fixed", "")):
        print("vhd", q or "-", flush=True)
        both_ways(raw, "vhd", q, o)
    resize("vhd", "")
    resize("vhd", "block_size=64k")
    resize("vhd", "subformat=fixed", ("+3M", "4M", "40M", "5M"))
    print("vhd chain", flush=True)
    chain(raw, "vhd", ",block_size=64k")
    chain(raw, "vhd")


def test_vdi(raw):
    for q, o in (("", ""), ("static=on", "subformat=fixed")):
        print("vdi", q or "-", flush=True)
        both_ways(raw, "vdi", q, o)
        resize("vdi", o, ("+3M", "4M", "40M", "5M") if o else ("+3M", "300M", "4M", "2G", "4M", "5M"))


# What we make, for readers that share no code with us or qemu-img: content by 7-Zip, the rest by
# the libyal tools. 7-Zip (26.02) opens no VHDX, not qemu-img's either, and no zstd clusters.
OTHERS = [
    ("qcow2", "", "QCOW", "qcowinfo"),
    ("qcow2", "compat=0.10", "QCOW", "qcowinfo"),
    ("qcow2", "cluster_size=4k", "QCOW", "qcowinfo"),
    ("qcow2", "compress=zlib", "QCOW", "qcowinfo"),
    ("vmdk", "subformat=monolithicSparse", "VMDK", "vmdkinfo"),
    ("vmdk", "subformat=monolithicFlat", "VMDK", "vmdkinfo"),
    ("vmdk", "subformat=twoGbMaxExtentSparse", "VMDK", "vmdkinfo"),
    ("vmdk", "subformat=twoGbMaxExtentFlat", "VMDK", "vmdkinfo"),
    ("vmdk", "subformat=streamOptimized", "VMDK", "vmdkinfo"),
    ("vmdk", "subformat=vmfs", None, "vmdkinfo"),
    ("vmdk", "subformat=vmfsSparse", None, "vmdkinfo"),
    ("vhd", "", "VHD", "vhdiinfo"),
    ("vhd", "block_size=64k", "VHD", "vhdiinfo"),
    ("vhd", "subformat=fixed", "VHD", "vhdiinfo"),
    ("vhdx", "", None, "vhdiinfo"),
    ("vhdx", "subformat=fixed", None, "vhdiinfo"),
    ("vdi", "", "VDI", None),
    ("vdi", "subformat=fixed", "VDI", None),
]


def test_others(raw):
    size = os.path.getsize(raw)
    missing = {t for t in ("7z", "qcowinfo", "vmdkinfo", "vhdiinfo") if not shutil.which(t)}
    if missing:
        print("other readers: without", ", ".join(sorted(missing)))
    with open(raw, "rb") as f:
        want = f.read()
    for fmt, opts, kind, info in OTHERS:
        print("other readers", fmt, opts or "-", flush=True)
        name = "other." + fmt
        ours("convert", raw, name, "--from", "raw", "--to", fmt + ("," + opts if opts else ""))
        for written in (False, True):
            if kind and "7z" not in missing:
                p = subprocess.run(["7z", "e", "-so", "-t" + kind, name], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
                if p.returncode or p.stdout != want:
                    raise SystemExit("FAIL 7z %s %s: %d, %d bytes\n%s" %
                                     (fmt, opts, p.returncode, len(p.stdout), p.stderr.decode()))
            if info and info not in missing:
                out = run(info, name)
                assert "(%d bytes)" % size in out, out
            if written or "stream" in opts:
                break
            # The same once more, after it was opened again and written to where it had nothing.
            at = next(a for a in range(0, size - 65536, 65536) if not any(want[a:a + 65536]))
            io(name, fmt, "write %d 65536 5\n" % at)
            want = want[:at] + b"\5" * 65536 + want[at + 65536:]
        with open(raw, "rb") as f:
            want = f.read()
        for p in os.listdir("."):
            if p.startswith("other"):
                os.unlink(p)


def test_parallels(raw):
    for q in ("", "cluster_size=64k"):
        print("parallels", q or "-", flush=True)
        qemu("convert", "-f", "raw", "-O", "parallels", *(["-o", q] if q else []), raw, "p.hds")
        ours("compare", raw, "p.hds", "--from", "raw")
        os.unlink("p.hds")


# What else qemu-img can be asked for: read, written, and still right for qemu-img.
ODD = [
    ("qcow2", "preallocation=metadata"), ("qcow2", "preallocation=falloc,cluster_size=4k"),
    ("qcow2", "data_file=odd.data,data_file_raw=on"), ("qcow2", "extended_l2=on,preallocation=metadata"),
    ("vmdk", "adapter_type=ide,hwversion=6"), ("vmdk", "adapter_type=lsilogic,subformat=twoGbMaxExtentSparse"),
    ("vmdk", "adapter_type=buslogic,subformat=monolithicFlat"), ("vmdk", "adapter_type=legacyESX"),
    ("vmdk", "compat6=on"), ("vmdk", "zeroed_grain=on"), ("vmdk", "hwversion=17,toolsversion=12345"),
    ("vhdx", "log_size=4M"), ("vhdx", "block_state_zero=off"), ("vhdx", "block_size=8M,log_size=2M"),
]


def test_odd(raw):
    for fmt, opts in ODD:
        print("odd", fmt, opts, flush=True)
        name = "odd." + fmt
        shutil.copyfile(raw, "model.raw")
        qemu("convert", "-f", "raw", "-O", fmt, "-o", opts, raw, name)
        same(raw, "raw", name, fmt)
        edit(name, fmt, "model.raw")
        ours("check", name)
        check_qemu(name, fmt)
        for p in os.listdir("."):
            if p.startswith(("odd", "model")):
                os.unlink(p)
    # qemu-img's formats that we do not know say so, rather than being taken for raw
    qemu("create", "-f", "qed", "odd.qed", "4M")
    out = ours("info", "odd.qed", ok=(1,))
    assert "QED" in out, out
    os.unlink("odd.qed")
    tracked(raw)


def tracked(raw):
    """VMware's change-tracking file: kept while only read, given up with the first write."""
    ours("convert", raw, "odd.vmdk", "--from", "raw", "--to", "vmdk,subformat=monolithicFlat")
    with open("odd.vmdk", "r+") as f:
        text = f.read().replace("version=1", "version=3") + 'changeTrackPath="odd-ctk.vmdk"\n'
        f.seek(0)
        f.write(text)
    with open("odd-ctk.vmdk", "wb") as f:
        f.write(b"whatever VMware has written")
    assert "odd-ctk.vmdk" in ours("info", "odd.vmdk")
    ours("compare", raw, "odd.vmdk", "--from", "raw")
    with open("odd.vmdk") as f:
        assert f.read() == text, "only read"
    io("odd.vmdk", "vmdk", "write 0 512 7\n")
    with open("odd.vmdk") as f:
        now = f.read()
    assert '\n#hangeTrackPath="odd-ctk.vmdk"' in now and "version=1\n" in now, now
    with open("odd-ctk.vmdk", "rb") as f:
        assert f.read() == b"whatever VMware has written"
    for p in os.listdir("."):
        if p.startswith("odd"):
            os.unlink(p)


TESTS = {"odd": test_odd, "vhd": test_vhd, "vdi": test_vdi, "others": test_others, "parallels": test_parallels, "vhdx": test_vhdx, "raw": test_raw, "qcow2": test_qcow2, "vmdk": test_vmdk}


def main():
    if not shutil.which("qemu-img"):
        print("qemu-img is missing")
        return 77
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/tmp")) as tmp:
        os.chdir(tmp)
        make_raw("disk.raw", 9 * 1048576 + 5 * 512, 42)
        for name in ONLY or TESTS:
            TESTS[name]("disk.raw")
        os.chdir("/")
    print("%d commands, all as expected" % RUNS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
