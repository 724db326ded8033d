#!/usr/bin/env python3
"""The API for strangers: npm's tools validate openapi.json and generate a client of it in TypeScript,
which is compiled and then drives a mulliond."""
import argparse
import os
import shutil
import subprocess
import sys

import client
import harness
from client import Client, Daemon

SOURCES = os.path.join(client.HERE, "generated")
DOCUMENT = os.path.join(client.ROOT, "src", "api", "rest", "openapi.json")


def run(command, cwd, **env):
    got = subprocess.run(command, cwd=cwd, env=dict(os.environ, **env), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert got.returncode == 0, f"{' '.join(command)}: {got.stdout[-3000:]}"
    return got.stdout


def install(folder):
    """The tools, once for each lock file."""
    os.makedirs(folder, exist_ok=True)
    stamp = os.path.join(folder, "installed.json")
    with open(os.path.join(SOURCES, "package-lock.json"), encoding="utf-8") as f:
        wanted = f.read()
    for name in os.listdir(SOURCES):
        shutil.copy(os.path.join(SOURCES, name), folder)
    if os.path.exists(stamp) and open(stamp, encoding="utf-8").read() == wanted:
        return
    run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
    with open(stamp, "w", encoding="utf-8") as f:
        f.write(wanted)


def tool(folder, *path):
    return os.path.join(folder, "node_modules", *path)


def test_document_is_valid(folder, build):
    run(["node", "validate.mjs", DOCUMENT], folder)


def test_generated_client(folder, build):
    run(["node", tool(folder, "openapi-typescript", "bin", "cli.js"), DOCUMENT, "-o", "api.ts"],
        folder)
    run(["node", tool(folder, "typescript", "bin", "tsc"), "--strict", "--target", "es2022",
         "--module", "nodenext", "--moduleResolution", "nodenext", "--skipLibCheck", "--outDir",
         "out", "client.ts"], folder)
    with Daemon(build) as daemon:
        token = Client(daemon).post("/tokens", {"name": "generated", "user": "admin"})["token"]
        host, port = daemon.address
        said = run(["node", os.path.join("out", "client.js")], folder,
                   MULLION_URL=f"https://{host}:{port}/", MULLION_TOKEN=token,
                   NODE_EXTRA_CA_CERTS=daemon.certificate)
        assert "the generated client is served" in said


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.path.join(client.ROOT, "build"))
    args = parser.parse_args()
    folder = os.path.join(os.path.abspath(args.build), "host-client")
    install(folder)
    return harness.run([test_document_is_valid, test_generated_client], folder, args.build)


if __name__ == "__main__":
    sys.exit(main())
