#!/usr/bin/env python3
"""Partition tables as sfdisk makes and reads them; files of ext4 without mounting; the recipe for
other file systems; tables and file systems that lie.

usage: files.py IMAGE-TOOL      exit status 77 where sfdisk, mke2fs, mtools or qemu-img is missing
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

TOOL = os.path.abspath(sys.argv[1])
SIZE = 64 << 20
os.environ["PATH"] += ":/usr/sbin:/sbin"


def run(*args, ok=(0,), stdin=None, binary=False):
    p = subprocess.run([str(a) for a in args], input=stdin, stdout=subprocess.PIPE,
                       stderr=None if binary else subprocess.STDOUT, timeout=120, check=False)
    if p.returncode not in ok:
        raise SystemExit("FAIL (%d): %s\n%s" % (p.returncode, " ".join(map(str, args)),
                                                p.stdout.decode(errors="replace")))
    return p.stdout if binary else p.stdout.decode(errors="replace")


def ours(*args, ok=(0,), binary=False):
    return run(TOOL, *args, ok=ok, binary=binary)


def partition(path, script):
    with open(path, "wb") as f:
        f.truncate(SIZE)
    run("sfdisk", "-q", path, stdin=script.encode())


def same_as_sfdisk(path):
    theirs = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    table = json.loads(ours("partitions", path, "--format", "json"))
    assert table["table"] == {"gpt": "gpt", "dos": "mbr"}[theirs["label"]], table
    want = []
    for p in theirs["partitions"]:
        number = int(p["node"][len(path):].lstrip("p"))
        kind = p["type"] if theirs["label"] == "gpt" else "0x%02x" % int(p["type"], 16)
        want.append((number, p["start"] * 512, p["size"] * 512, kind, p.get("name", "")))
    got = [(p["number"], p["start"], p["length"], p["type"], p["name"])
           for p in table["partitions"]]
    assert sorted(got) == sorted(want), (got, want)
    return table


def tables():
    partition("gpt.raw", 'label: gpt\nsize=1M, type=21686148-6449-6E6F-744E-656564454649\n'
              'size=20M, name="Bödén √", type=linux\nsize=30M, type=swap\n')
    same_as_sfdisk("gpt.raw")
    partition("mbr.raw", "label: dos\n1: size=4M, type=83, bootable\n2: size=40M, type=5\n"
              "5: size=5M, type=83\n6: size=6M, type=82\n7: size=7M, type=c\n")
    table = same_as_sfdisk("mbr.raw")
    assert [p["number"] for p in table["partitions"]] == [1, 2, 5, 6, 7], table
    with open("gpt.raw", "r+b") as f:  # the backup stands in
        f.seek(512 + 40)
        f.write(b"\xff" * 8)
    table = json.loads(ours("partitions", "gpt.raw", "--format", "json"))
    assert table["from-backup"] and len(table["partitions"]) == 3, table
    # noise: an answer, whatever it is, in no time
    r = random.Random(9)
    with open("mbr.raw", "rb") as f:
        good = f.read()
    for i in range(20):
        bad = bytearray(good)
        for _ in range(30):
            bad[r.choice((r.randrange(440, 510), r.randrange(4 << 20, (4 << 20) + 512)))] = \
                r.randrange(256)
        with open("bad.raw", "wb") as f:
            f.write(bad)
        ours("partitions", "bad.raw")
    # an extended partition that leads back to itself
    with open("loop.raw", "wb") as f:
        f.truncate(SIZE)
        f.seek(446)
        f.write(bytes([0, 0, 0, 0, 5, 0, 0, 0]) + (1).to_bytes(4, "little") +
                (1000).to_bytes(4, "little"))
        for at in (510, 1022):
            f.seek(at)
            f.write(b"\x55\xaa")
        f.seek(512 + 446)
        f.write(bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + b"\1\0\0\0\1\0\0\0")
        f.write(bytes([0, 0, 0, 0, 5, 0, 0, 0]) + b"\0\0\0\1\1\0\0\0")
    ours("partitions", "loop.raw")


def files():
    os.makedirs("tree/etc/deep")
    os.makedirs("tree/empty")
    r = random.Random(2)
    contents = {"etc/hostname": b"mullion\n", "etc/deep/blob": r.randbytes(3 << 20),
                "etc/ünïcode": b"x" * 5000, "zero": b"\0" * 200000}
    for name, data in contents.items():
        with open("tree/" + name, "wb") as f:
            f.write(data)
    with open("tree/sparse", "wb") as f:
        f.truncate(5 << 20)
        f.seek(3 << 20)
        f.write(b"middle")
    os.symlink("etc/hostname", "tree/link")
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", "tree", "fs.raw", "30M")
    partition("disk.raw", "label: gpt\nsize=1M\nsize=30M, name=root\nsize=20M, name=dos\n")
    table = json.loads(ours("partitions", "disk.raw", "--format", "json"))["partitions"]
    ours("copy", "fs.raw", "disk.raw", "--from", "raw", "--target-format", "raw", "--to-offset",
         table[1]["start"])
    run("mformat", "-i", "dos.raw", "-C", "-T", str(20 << 11), "::")
    with open("hello", "wb") as f:
        f.write(b"hello from a FAT\n")
    run("mcopy", "-i", "dos.raw", "hello", "::/hello.txt")
    ours("copy", "dos.raw", "disk.raw", "--from", "raw", "--target-format", "raw", "--to-offset",
         table[2]["start"])
    for fmt in ("qcow2", "vmdk"):
        image = "disk." + fmt
        run("qemu-img", "convert", "-f", "raw", "-O", fmt, "disk.raw", image)
        table = json.loads(ours("partitions", image, "--format", "json"))["partitions"]
        assert [p.get("content") for p in table] == [None, "ext4", "vfat"], table
        names = {e["name"]: e for e in json.loads(ours("ls", image, "--format", "json"))}
        assert set(names) == {"etc", "empty", "zero", "sparse", "link", "lost+found"}, names
        assert names["etc"]["mode"][0] == "d" and names["link"]["mode"][0] == "l", names
        assert names["sparse"]["size"] == 5 << 20
        assert "hostname" in ours("ls", image, "/etc", "--partition", "2")
        assert "ünïcode" in ours("ls", image, "etc")
        for name, data in contents.items():
            assert ours("cat", image, "/" + name, binary=True) == data, name
        with open("tree/sparse", "rb") as f:
            assert ours("cat", image, "sparse", binary=True) == f.read()
        assert ours("cat", image, "/link", binary=True) == b"mullion\n"
        assert "no such file" in ours("ls", image, "/none", ok=(1,))
        assert "not a regular file" in ours("cat", image, "/etc", ok=(1,))
        assert "no such partition" in ours("ls", image, "--partition", "9", ok=(1,))
        assert "FILES ON DISKS" in ours("ls", image, "--partition", "3", ok=(1,))
        # the recipe: a partition by itself, for whoever knows its file system
        part = table[2]
        ours("convert", image, "part.raw", "--to", "raw", "--offset", part["start"], "--length",
             part["length"])
        assert run("mtype", "-i", "part.raw", "::/hello.txt") == "hello from a FAT\n"
        # and any disk for a program that reads NBD
        out = ours("serve", image, "--run", 'qemu-img convert -f raw -O raw "$uri" copy.raw')
        assert not out, out
        with open("copy.raw", "rb") as a, open("disk.raw", "rb") as b:
            assert a.read() == b.read()
    # a whole disk without a table
    assert "hostname" in ours("ls", "fs.raw", "/etc")
    r = random.Random(3)
    with open("fs.raw", "rb") as f:
        good = f.read()
    for i in range(15):
        bad = bytearray(good)
        for _ in range(200):
            bad[r.randrange(1024, 400000)] = r.randrange(256)
        with open("bad.raw", "wb") as f:
            f.write(bad)
        for path in ("/", "/etc/deep"):
            ours("ls", "bad.raw", path, ok=(0, 1))
        ours("cat", "bad.raw", "/etc/deep/blob", ok=(0, 1), binary=True)


def main():
    for tool in ("sfdisk", "mke2fs", "mformat", "qemu-img"):
        if not shutil.which(tool):
            print(tool, "is missing: scripts/setup test")
            return 77
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)
        tables()
        files()
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
