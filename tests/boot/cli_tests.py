"""Tests of the command line that boot nothing: what must be refused, and how."""
import json
import os
import socket
import subprocess

from guest import Mullion, Skipped, expect, expect_gone

TESTS = {}


def test(function):
    TESTS["cli-" + function.__name__.replace("_", "-")] = function
    return function


def call(ctx, *arguments, env=None):
    return subprocess.run([ctx.program, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=20 * ctx.patience, env=env, check=False)


def refused(ctx, options, *parts, status=1, env=None):
    """`mullion run OPTIONS` ends with @status and one line that has all @parts; nothing is left."""
    own = ctx.path("run")  # where the process may leave something, and others may not
    os.makedirs(own, mode=0o700, exist_ok=True)
    env = dict(os.environ if env is None else env, MULLION_RUNTIME_DIR=own, TMPDIR=own)
    before = set(os.listdir(ctx.folder)), set(os.listdir(own))
    with Mullion(ctx.program, options, env=env) as m:
        m.expect_status(status, 20 * ctx.patience)
        text = m.errors.decode()
        lines = [line for line in text.splitlines() if line]
        expect(len(lines) == 1 and lines[0].startswith("mullion: "), f"stderr: {text!r}")
        for part in parts:
            expect(part in text, f"'{part}' is not in {text!r}")
    after = set(os.listdir(ctx.folder)), set(os.listdir(own))
    expect(after[0] <= before[0] and after[1] <= before[1],
           f"left behind: {after[0] - before[0]} {after[1] - before[1]}")


def kernel(ctx):
    return ["--engine", "soft", "--kernel", ctx.kernel()]


@test
def help_and_version(ctx):
    for arguments in (["--help"], ["run", "--help"], ["engines", "--help"], ["help"],
                      ["help", "run"]):
        result = call(ctx, *arguments)
        expect(result.returncode == 0 and "Usage: mullion" in result.stdout and
               not result.stderr, f"{arguments}: {result}")
    result = call(ctx, "--version")
    expect(result.returncode == 0 and result.stdout.startswith("mullion "), f"{result}")
    vmm = subprocess.run([os.path.join(os.path.dirname(ctx.program), "mullion-vmm"), "--help"],
                         capture_output=True, text=True, timeout=10, check=False)
    expect(vmm.returncode == 0 and "Usage: mullion-vmm" in vmm.stdout, f"{vmm}")


@test
def usage_errors(ctx):
    for arguments in ([], ["nonsense"], ["--nonsense"], ["run"], ["run", "--nonsense"],
                      ["run", "--kernel"], ["run", "--kernel", "k", "extra", "words"],
                      ["run", "--kernel", "k", "--cpus", "many"],
                      ["run", "--kernel", "k", "--memory", "big"],
                      ["run", "--kernel", "k", "--memory", "12Q"],
                      ["run", "--kernel", "k", "--memory", "-5M"],
                      ["run", "--kernel", "k", "--engine", "steam"],
                      ["run", "--kernel", "k", "--disk", "d,colour=red"],
                      ["run", "--kernel", "k", "--disk", "d,readonly=maybe"],
                      ["run", "--kernel", "k", "--disk", "d,bus=floppy"],
                      ["run", "--kernel", "k", "--disk", "d,bus=or"],
                      ["run", "--cdrom", "c.iso,bus=virtio"],
                      ["run", "--kernel", "k", "--net", "carrier-pigeon"],
                      ["run", "--kernel", "k", "--net", "user,mac=1"],
                      ["run", "--kernel", "k", "--vsock", "cid=7"],
                      ["run", "--kernel", "k", "--vsock", "path=v,cid=seven"],
                      ["run", "--kernel", "k", "--console", "telex"],
                      ["run", "--kernel", "k", "--console", "stdio", "--console", "stdio"],
                      ["engines", "--format", "xml"], ["engines", "extra"], ["help", "nonsense"]):
        result = call(ctx, *arguments)
        expect(result.returncode == 2, f"{arguments}: status {result.returncode}")
        expect(result.stderr and not result.stdout, f"{arguments}: {result}")
        if arguments:
            expect(len(result.stderr.splitlines()) == 1, f"{arguments}: {result.stderr}")


@test
def engines(ctx):
    result = call(ctx, "engines", "--format", "json")
    expect(result.returncode == 0, f"{result}")
    data = json.loads(result.stdout)
    names = [e["name"] for e in data["engines"]]
    expect(sorted(names) == ["kvm", "soft"], f"engines {names}")
    soft = next(e for e in data["engines"] if e["name"] == "soft")
    expect(soft["available"] is True, f"{soft}")
    expect(data["auto"] in names and data["reason"], f"auto {data['auto']}: {data['reason']}")
    text = call(ctx, "engines")
    expect(text.returncode == 0 and "auto" in text.stdout, f"{text}")


@test
def kernel_missing(ctx):
    refused(ctx, ["--kernel", "/nonexistent/vmlinuz"], "kernel /nonexistent/vmlinuz",
            "no such file")


@test
def kernel_truncated(ctx):
    with open(ctx.kernel(), "rb") as f:
        data = f.read()
    for size in (0, 100, 0x1f0, 0x203, 0x230, 4096, 100000, len(data) // 2):
        path = ctx.path("vmlinuz")
        with open(path, "wb") as f:
            f.write(data[:size])
        refused(ctx, ["--kernel", path], path)


@test
def kernel_of_another_kind(ctx):
    path = ctx.path("text")
    with open(path, "w", encoding="ascii") as f:
        f.write("This is not a kernel.\n" * 100)
    refused(ctx, ["--kernel", path], "not an x86 kernel")
    refused(ctx, ["--kernel", ctx.folder], "not a regular file")
    refused(ctx, ["--kernel", "/bin/busybox"], "PVH")


@test
def initrd_missing(ctx):
    refused(ctx, kernel(ctx) + ["--initrd", "/nonexistent/initrd"], "initrd /nonexistent/initrd",
            "no such file")


@test
def initrd_larger_than_memory(ctx):
    path = ctx.path("initrd")
    with open(path, "wb") as f:
        f.truncate(300 << 20)
    refused(ctx, kernel(ctx) + ["--initrd", path, "--memory", "256M"], "initrd", "--memory")


@test
def memory_out_of_range(ctx):
    for size in ("0", "1M", "4096T", "99999999999999999999T", "1T"):
        refused(ctx, kernel(ctx) + ["--memory", size], "--memory")
    refused(ctx, kernel(ctx) + ["--memory", "32M"], "--memory", "MiB")


@test
def cpus_out_of_range(ctx):
    for cpus in ("0", "65", "-1", "99999999999999999999"):
        refused(ctx, kernel(ctx) + ["--cpus", cpus], "--cpus", "1 to 64")


@test
def command_line_too_long(ctx):
    refused(ctx, kernel(ctx) + ["--append", "x" * 3000], "--append")


@test
def disk_missing(ctx):
    refused(ctx, kernel(ctx) + ["--disk", "/nonexistent/disk"], "/nonexistent/disk")


@test
def disk_unreadable(ctx):
    path = ctx.path("disk.img")
    with open(path, "wb") as f:
        f.truncate(1 << 20)
    os.chmod(path, 0)
    if os.geteuid() == 0:
        # root may read everything: a folder cannot be read as a disk by anybody
        refused(ctx, kernel(ctx) + ["--disk", ctx.folder], ctx.folder)
    else:
        refused(ctx, kernel(ctx) + ["--disk", path], path, "ermission")


@test
def disk_in_use(ctx):
    path, _ = ctx.make_disk("disk.img", 2)
    options = ctx.boot("check", words="mullion.then=wait") + ["--disk", path]
    with Mullion(ctx.program, options) as m:
        m.wait_for("check: waiting", 60 * ctx.patience)
        refused(ctx, kernel(ctx) + ["--disk", path], path)


@test
def disk_format_unknown(ctx):
    path, _ = ctx.make_disk("disk.img", 2)
    refused(ctx, kernel(ctx) + ["--disk", f"{path},format=floppy"], "floppy")


@test
def config_file(ctx):
    path, folder = ctx.path("m/machine.json"), ctx.path("m")
    os.mkdir(folder)
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"name": "web", "kernel": "vmlinuz", "memory": 64 << 20, "cpus": 2,
                   "disks": [{"path": "a.vmdk", "bus": "pvscsi"}, {"path": "/b.img"}],
                   "networks": [{"type": "none", "model": "e1000"}],
                   "consoles": [{"type": "stdio"}]}, f)
    result = call(ctx, "run", "--config", path, "--print-config", "--memory", "128", "--net",
                  "user")
    expect(result.returncode == 0 and not result.stderr, f"{result}")
    said = json.loads(result.stdout)
    expect(said["kernel"] == f"{folder}/vmlinuz" and said["memory"] == 128 << 20 and
           said["disks"] == [{"path": f"{folder}/a.vmdk", "bus": "pvscsi"}, {"path": "/b.img"}] and
           said["networks"] == [{"type": "user"}] and said["cpus"] == 2, result.stdout)
    home = dict(os.environ, XDG_DATA_HOME=ctx.path("data"))
    os.makedirs(ctx.path("data/mullion/machines"))
    os.rename(folder, ctx.path("data/mullion/machines/web"))
    result = call(ctx, "run", "web", "--print-config", env=home)
    expect(result.returncode == 0 and json.loads(result.stdout)["name"] == "web", f"{result}")
    refused(ctx, ["db"], "db", "no such machine", env=home)
    refused(ctx, ["../web"], "not a machine's name", env=home)
    refused(ctx, ["--config", ctx.path("none.json")], "none.json", "No such file")
    refused(ctx, ["--config", ctx.folder], "Is a directory")
    for text, part in (("[]", "must be a JSON object"), ("{", "line 1"),
                       ('{"colour": 1}', "colour"), ('{"kernel": {}}', "kernel"),
                       ('{"disks": "x"}', "disks"), ('{"disks": [1]}', "disks[0]"),
                       ('{"consoles": [{"type": "stdio"}, {"type": "stdio"}]}', "stdio")):
        with open(ctx.path("x.json"), "w", encoding="utf-8") as f:
            f.write(text)
        refused(ctx, ["--config", ctx.path("x.json")], part)


@test
def kvm_missing(ctx):
    options = ["--kernel", ctx.kernel(), "--engine", "kvm"]
    if not os.path.exists("/dev/kvm"):
        refused(ctx, options, "kvm")
        return
    # Hide the device in a mount namespace of our own.
    hide = "mount --bind /dev/null /dev/kvm && exec \"$@\""
    if subprocess.run(["unshare", "-m", "sh", "-c", hide, "sh", "true"], capture_output=True,
                      check=False).returncode:
        raise Skipped("there is a /dev/kvm that cannot be hidden")
    result = subprocess.run(["unshare", "-m", "sh", "-c", hide, "sh", ctx.program, "run", *options],
                            capture_output=True, text=True, timeout=20 * ctx.patience,
                            stdin=subprocess.DEVNULL, check=False)
    expect(result.returncode == 1 and "kvm" in result.stderr, f"{result}")
    lines = result.stderr.splitlines()
    expect(len(lines) == 1 and lines[0].startswith("mullion: "), f"stderr: {result.stderr!r}")


@test
def passt_missing(ctx):
    refused(ctx, kernel(ctx) + ["--net", "user"], "passt", env={"PATH": "/nonexistent"})


@test
def port_in_use(ctx):
    ctx.need_user_net()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        refused(ctx, kernel(ctx) + ["--net", f"user,forward=tcp:127.0.0.1:{port}:22"], str(port))


@test
def forward_nonsense(ctx):
    for forward in ("tcp:notaport:22", "icmp:1:1", "tcp:70000:1", "tcp", ""):
        refused(ctx, kernel(ctx) + ["--net", f"user,forward={forward}"], "forward")


@test
def tap_missing(ctx):
    refused(ctx, kernel(ctx) + ["--net", "tap=this-name-is-too-long-for-an-interface"], "tap")


@test
def socket_paths(ctx):
    long = ctx.path("x" * 200)
    refused(ctx, kernel(ctx) + ["--console", f"unix={long}"], long)
    refused(ctx, kernel(ctx) + ["--control", long], "--control")
    refused(ctx, kernel(ctx) + ["--control", "/nonexistent/control"], "--control")
    path = ctx.path("taken")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen()
        refused(ctx, kernel(ctx) + ["--control", path], "in use")
        refused(ctx, kernel(ctx) + ["--console", f"unix={path}"], path)
    with open(ctx.path("file"), "w", encoding="ascii"):
        pass
    refused(ctx, kernel(ctx) + ["--control", ctx.path("file")], "in use")
    expect(os.path.exists(ctx.path("file")), "somebody's file was removed")


@test
def one_bad_part_leaves_no_passt(ctx):
    """passt starts, then the next device is wrong."""
    ctx.need_user_net()
    with Mullion(ctx.program, kernel(ctx) + ["--net", "user", "--net", "tap=" + "x" * 40]) as m:
        children = []
        while m.process.poll() is None:
            children += [c for c in m.descendants() if c not in children]
            m.pump(0.005)
        expect(m.wait() == 1, f"status {m.process.returncode}")
        expect_gone(children)
