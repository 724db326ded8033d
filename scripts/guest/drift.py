# Compares the guest's clocks with the host's over the console: says "check: ping", the host answers
# with a line, and the guest says what its clocks were before and after. The host works it out.
import os
import sys
import termios
import time

CLOCKS = (time.CLOCK_MONOTONIC_RAW, time.CLOCK_MONOTONIC, time.CLOCK_REALTIME)
fd = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
mode = termios.tcgetattr(fd)
mode[3] &= ~(termios.ECHO | termios.ICANON)
termios.tcsetattr(fd, termios.TCSANOW, mode)
number = 0
while True:
    number += 1
    before = [time.clock_gettime_ns(c) for c in CLOCKS]
    os.write(fd, b"check: ping %d\n" % number)
    answer = b""
    while not answer.endswith(b"\n"):
        answer += os.read(fd, 1)
    after = [time.clock_gettime_ns(c) for c in CLOCKS]
    os.write(fd, b"check: was %d %s\n" % (number, b" ".join(b"%d" % n for n in before + after)))
    if answer.strip() == b"end":
        sys.exit(0)
