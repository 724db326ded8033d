# Has the kernel compile BPF programs, run them and free them again: its code comes and goes in the
# same few pages. Each passes packets that begin with its own letter; one that passes another's, or
# not its own, is told.
import ctypes
import socket
import struct

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
there.settimeout(5)
for turn in range(200):
    letter = 65 + turn % 26
    # ldb [0]; jeq #letter, pass, drop; pass: ret #-1; drop: ret #0 (Linux, networking/filter.rst)
    program = struct.pack("HBBI" * 4, 0x30, 0, 0, 0, 0x15, 0, 1, letter, 0x06, 0, 0, 0xffffffff,
                          0x06, 0, 0, 0)
    buffer = ctypes.create_string_buffer(program)
    there.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                     struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer)))
    for other in (letter ^ 1, letter):
        try:
            here.send(bytes([other]))
        except OSError:
            pass # dropped packets of a socket pair are an error of the sender's on some kernels
    got = there.recv(1)
    if got != bytes([letter]):
        print(f"check: failed filter: {got} instead of {chr(letter)}")
    there.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
