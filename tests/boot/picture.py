"""Reads the pictures that Mullion writes: PNG (RFC 2083) of eight bits a colour, without filters."""
import struct
import zlib

from guest import expect


def read_png(path):
    """@return (width, height, RGB)"""
    with open(path, "rb") as f:
        data = f.read()
    expect(data[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG")
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, *rest = struct.unpack(">IIBBBBB", body)
            expect(rest == [8, 2, 0, 0, 0], f"another kind of PNG: {rest}")
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    lines, step = zlib.decompress(packed), 3 * width + 1
    expect(len(lines) == height * step, "pixels are missing")
    expect(not any(lines[::step]), "lines are filtered")
    return width, height, b"".join(lines[y * step + 1:(y + 1) * step] for y in range(height))
