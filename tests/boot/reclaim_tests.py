"""Memory that a host takes from its machines and gives back: mulliond with real guests, whose kernels have a
balloon. The guests do what tests/boot/interfaces says ("balloon")."""
import os
import re
import sys
import time

from guest import Failed, expect
from interface_tests import boot

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "host"))
import client  # noqa: E402

TESTS = {}
MIB = 1 << 20


def test(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


class Guest:
    """One machine of a host, and its serial console."""

    def __init__(self, ctx, local, name, **resources):
        words = boot(ctx, "balloon", modules=["virtio_balloon"])
        value = dict(zip(words[::2], words[1::2]))
        self.ctx, self.local, self.seen = ctx, local, ""
        self.id = local.machine(name, memory=384 * MIB, resources=resources, config={
            "kernel": value["--kernel"], "initrd": value["--initrd"], "cmdline": value["--append"],
            "engine": ctx.engine})
        local.do(f"/machines/{self.id}/start")
        ticket = local.post(f"/machines/{self.id}/console", {"type": "serial"})
        self.console = local.websocket(ticket["url"])
        self.console.sock.settimeout(120 * ctx.patience)

    def wait_for(self, text):
        while text not in self.seen:
            self.seen += self.console.message().decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def ask(self, line, answer):
        self.console.send(line.encode() + b"\n")
        self.wait_for("check: " + answer)

    def get(self):
        return self.local.get("/machines/" + self.id)

    def target(self):
        """MiB that the host leaves it; None: all."""
        granted = self.get()["granted"]
        memory = granted and granted["memory"]
        return memory and memory // MIB

    def resident(self):
        return self.get()["usage"]["memory"] // MIB


def until(ctx, what, condition, seconds=90):
    deadline = time.monotonic() + seconds * ctx.patience
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what()}")
        time.sleep(0.2)


@test
def host_reclaims_memory(ctx):
    """When memory runs low it is taken by shares, never below a reservation, and given back afterwards."""
    build = os.path.dirname(ctx.program)
    with client.Daemon(build, options={"machines_memory": 500}) as daemon:
        local = client.Client(daemon)
        low = Guest(ctx, local, "low", memory={"shares": "low"})
        high = Guest(ctx, local, "high", memory={"shares": "high", "reservation": 320 * MIB})
        for guest in (low, high):
            guest.wait_for("check: part")
        expect(low.target() is None and high.target() is None, "there is enough, and yet something is taken")
        low.ask("fill", "filled")
        high.ask("fill", "filled")

        def sizes():
            return f"low {low.resident()} MiB, left {low.target()}; high {high.resident()} MiB, left {high.target()}"
        until(ctx, lambda: f"memory is taken from the machine with low shares: {sizes()}",
              lambda: (low.target() or 384) < 380)
        ctx.note(sizes())
        expect((high.target() or 384) >= 320, f"taken below its reservation: {sizes()}")
        expect((low.target() or 384) < (high.target() or 384), f"not by shares: {sizes()}")
        types = [e["type"] for e in local.get("/events?limit=1000")["items"]]
        expect("host.memory-short" in types, f"no event: {types}")
        text = local.raw("GET", "/metrics", api="").text
        held = re.search(r'mullion_machine_balloon_bytes{machine="%s",name="low"} (\d+)' % low.id, text)
        expect(held, text)
        # There is room again: all of it comes back.
        for guest in (low, high):
            guest.ask("drop", "dropped")
        until(ctx, lambda: f"memory is given back: {sizes()}",
              lambda: low.target() is None and high.target() is None)
        until(ctx, lambda: "an event that memory is enough",
              lambda: "host.memory-enough" in [e["type"] for e in local.get("/events?limit=1000")["items"]])
        # A limit needs no shortage.
        local.patch("/machines/" + low.id, {"resources": {"memory": {"limit": 256 * MIB}}})
        until(ctx, lambda: f"a limit holds: {sizes()}", lambda: low.target() == 256)
        until(ctx, lambda: "the guest has given it", lambda: re.search(
            r'mullion_machine_balloon_bytes{machine="%s",name="low"} 134217728' % low.id,
            local.raw("GET", "/metrics", api="").text))
        for guest in (low, high):
            guest.console.close()
            local.do(f"/machines/{guest.id}/stop", {"force": True})
