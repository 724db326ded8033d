#!/usr/bin/env python3
"""Runs a command in a network namespace of its own with a tap interface and a web server:
    unshare --net tap_net.py WHICH COMMAND...
serves net_tests.content(WHICH) on HOST:PORT; the tap is TAP. Ends with the command's status."""
import subprocess
import sys

import net_tests


def main():
    for command in ("link set lo up", f"tuntap add dev {net_tests.TAP} mode tap vnet_hdr",
                    f"addr add {net_tests.TAP_HOST}/24 dev {net_tests.TAP}",
                    f"link set {net_tests.TAP} up"):
        subprocess.run(["ip", *command.split()], check=True)
    with net_tests.Server(net_tests.content(sys.argv[1]), net_tests.TAP_HOST, net_tests.TAP_PORT):
        return subprocess.run(sys.argv[2:], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
