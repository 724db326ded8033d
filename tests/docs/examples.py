#!/usr/bin/env python3
"""Run the examples of the documentation: in each given Markdown file the blocks that begin with
```console. A line "$ COMMAND" (with the lines "> ..." after it) is run by one bash for the whole file, in a temporary folder, with the
programs of the build first in PATH; it must end with status 0 and print what follows it. There "..."
is any text within a line, blanks are as many as they like, and a line of "..." alone any lines. What
<!-- test: ... --> holds is run as well, and is not for readers; at_end 'COMMAND' there says how to
clean up."""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PATIENCE = 240  # seconds for one command on a busy machine
MARK = "----mullion-example-done----"
PRELUDE = """
at_end() { echo "$1" >> .at-end; }
"""


def steps(text):
    """[(line number, command, expected output or None)] of a Markdown text."""
    found, state = [], None
    for number, line in enumerate(text.split("\n"), 1):
        if state == "hidden":
            if line.strip() == "-->":
                state = None
            else:
                found.append((number, line, None))
        elif state == "block":
            if line == "```":
                state = None
            elif line.startswith("$ "):
                found.append((number, line[2:], []))
            elif line.startswith("> ") and found and found[-1][2] == []:
                found[-1] = (found[-1][0], f"{found[-1][1]}\n{line[2:]}", [])
            elif not found or found[-1][2] is None:
                raise ValueError(f"line {number}: output without a command")
            else:
                found[-1][2].append(line)
        elif line.strip() == "<!-- test:":
            state = "hidden"
        elif line == "```console":
            state = "block"
    return found


def pattern_of(lines):
    """What an output must match as a whole."""
    parts = []
    for line in lines:
        if line == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        words = [r"[^\n]*".join(map(re.escape, w.split("..."))) for w in line.split()]
        parts.append(r"[ \t]*" + r"[ \t]+".join(words) + r"[ \t]*\n")
    return re.compile("".join(parts))


class Shell:
    """One bash that runs a command after the other."""

    def __init__(self, folder, environment):
        self.process = subprocess.Popen(
            ["bash", "--norc"], cwd=folder, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.run(PRELUDE)

    def run(self, command):
        """@return (status, output); the status is None: it does not end"""
        watchdog = threading.Timer(PATIENCE, self.kill)
        watchdog.start()
        try:
            # The commands must not read what is meant for the shell.
            self.process.stdin.write(f"{{ {command}\n}} < /dev/null\necho \"\n{MARK}$?\"\n".encode())
            self.process.stdin.flush()
            out = b""
            while MARK.encode() not in out or not out.endswith(b"\n"):
                data = self.process.stdout.read1(65536)
                if not data:
                    return None, out.decode(errors="replace")
                out += data
        finally:
            watchdog.cancel()
        text, _, status = out.decode(errors="replace").rpartition("\n" + MARK)
        return int(status), text

    def kill(self):
        os.killpg(self.process.pid, 9)


def plain(text):
    """Without what moves a terminal's cursor, and with \\n alone at the ends of lines."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return re.sub(r"\r+\n?", "\n", text)


def run_file(path, environment, keep):
    folder = tempfile.mkdtemp(prefix="mullion-d")
    shell = Shell(folder, environment)
    try:
        with open(path, encoding="utf-8") as f:
            todo = steps(f.read())
        if not todo:
            return f"{path}: holds no examples"
        for number, command, expected in todo:
            began = time.monotonic()
            status, output = shell.run(command)
            if os.environ.get("VERBOSE"):
                print(f"# {time.monotonic() - began:6.1f} s  {command}", flush=True)
            shown = plain(output)
            shown += "" if shown.endswith("\n") or not shown else "\n"
            where = f"{os.path.relpath(path, ROOT)}:{number}: {command}"
            if status is None:
                return f"{where}\ndoes not end, or ends the shell; it said\n{shown[-2000:]}"
            if status:
                return f"{where}\nends with status {status} and says\n{shown[-2000:]}"
            if expected is not None and not pattern_of(expected).fullmatch(shown):
                return f"{where}\nsays\n{shown[-2000:]}instead of\n" + "\n".join(expected)
        return None
    finally:
        if os.path.exists(os.path.join(folder, ".at-end")) and shell.process.poll() is None:
            shell.run("while read -r last; do eval \"$last\"; done < .at-end")
        shell.process.stdin.close()
        shell.process.wait(PATIENCE)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--guest", help="where the guests' disks are (BUILD/guest)")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folders")
    parser.add_argument("files", nargs="*", default=[os.path.join(ROOT, "docs/tour.md")])
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    guest = os.path.abspath(args.guest or os.path.join(build, "guest"))
    small = os.path.join(guest, "small", "small.img")
    print(f"1..{len(args.files)}", flush=True)
    if not os.path.exists(small):
        sys.exit(f"{small} is missing: scripts/guest-small {guest} makes it")
    environment = dict(os.environ, PATH=f"{build}:{os.environ['PATH']}", SMALL_DISK=small, TERM="dumb",
                       LC_ALL="C.UTF-8")
    failed = 0
    for i, path in enumerate(args.files, 1):
        began = time.monotonic()
        problem = run_file(path, environment, args.keep)
        failed += problem is not None
        for line in (problem or "").split("\n") if problem else []:
            print("# " + line)
        print(f"{'not ok' if problem else 'ok'} {i} - {os.path.basename(path)} "
              f"({time.monotonic() - began:.1f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
