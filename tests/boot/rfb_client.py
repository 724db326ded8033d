"""A small RFB 3.8 client for tests: raw and ZRLE, on a Unix socket."""
import socket
import struct
import zlib


class Client:
    def __init__(self, path, shared=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.inflate = zlib.decompressobj()
        assert self.read(12) == b"RFB 003.008\n"
        self.socket.sendall(b"RFB 003.008\n")
        assert self.read(self.read(1)[0]) == b"\1"
        self.socket.sendall(b"\1")
        assert self.read(4) == b"\0\0\0\0"
        self.socket.sendall(bytes([shared]))
        self.width, self.height = struct.unpack(">HH", self.read(4))
        self.format = self.read(16)
        self.name = self.read(struct.unpack(">I", self.read(4))[0]).decode()

    def read(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError("the server has closed")
            data += part
        return data

    def encodings(self, *numbers):
        self.socket.sendall(struct.pack(f">BBH{len(numbers)}i", 2, 0, len(numbers), *numbers))

    def key(self, symbol):
        self.socket.sendall(b"".join(struct.pack(">BBHI", 4, down, 0, symbol)
                                     for down in (1, 0)))

    def update(self, incremental=False):
        """One update. @return {(x, y): pixel bytes (RGB)} as rows of a bytearray"""
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))
        assert self.read(1) == b"\0"
        _, count = struct.unpack(">BH", self.read(3))
        picture = bytearray(self.width * self.height * 3)
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
            if encoding == 0:
                data = self.read(width * height * 4)
                self.put(picture, x, y, width, height, data, 4)
            elif encoding == 16:
                size = struct.unpack(">I", self.read(4))[0]
                self.zrle(picture, x, y, width, height, self.inflate.decompress(self.read(size)))
            else:
                raise ValueError(f"encoding {encoding}")
        return bytes(picture)

    def put(self, picture, x, y, width, height, data, step):
        for row in range(height):
            for column in range(width):
                at = (row * width + column) * step
                to = ((y + row) * self.width + x + column) * 3
                picture[to:to + 3] = data[at:at + 3][::-1]

    def zrle(self, picture, x, y, width, height, data):
        at = 0
        for ty in range(0, height, 64):
            for tx in range(0, width, 64):
                w, h = min(64, width - tx), min(64, height - ty)
                kind = data[at]
                at += 1
                if kind == 0:
                    pixels = data[at:at + w * h * 3]
                    at += w * h * 3
                else:
                    palette = [data[at + 3 * i:at + 3 * i + 3] for i in range(kind)]
                    at += 3 * kind
                    bits = 0 if kind == 1 else 1 if kind == 2 else 2 if kind <= 4 else 4
                    line = (w * bits + 7) // 8
                    pixels = bytearray()
                    for row in range(h):
                        number = int.from_bytes(data[at:at + line], "big")
                        for i in range(w):
                            index = number >> (line * 8 - bits * (i + 1)) & ((1 << bits) - 1)
                            pixels += palette[index]
                        at += line
                self.put(picture, x + tx, y + ty, w, h, pixels, 3)
        assert at == len(data), (at, len(data))
