#!/usr/bin/env python3
"""Assemble one micro-guest into a C file: its flat binary and the numbers it must log.

usage: assemble.py CC OBJCOPY NAME SOURCE INCLUDE_DIR LINKER_SCRIPT PRIVATE_DIR OUTPUT

CC may be several words: a compiler behind ccache, one with options.
"""
import os
import shlex
import subprocess
import sys


def section(objcopy, elf, name, path):
    subprocess.run([objcopy, "-O", "binary", "-j", name, elf, path], check=True)
    with open(path, "rb") as f:
        return f.read()


def main():
    cc, objcopy, name, source, include, script, private, output = sys.argv[1:]
    os.makedirs(private, exist_ok=True)
    elf = os.path.join(private, name + ".elf")
    subprocess.run([*shlex.split(cc), "-nostdlib", "-static", "-no-pie", "-m64", "-I", include,
                    "-Wl,-T," + script, "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096",
                    "-Wl,--no-warn-rwx-segments", "-x", "assembler-with-cpp", source, "-o", elf],
                   check=True)
    code = section(objcopy, elf, ".text", os.path.join(private, name + ".text"))
    expect = section(objcopy, elf, ".expect", os.path.join(private, name + ".expect"))
    with open(output, "w") as f:
        f.write("/* Made by assemble.py from %s. */\n#include <stddef.h>\n#include <stdint.h>\n" %
                os.path.basename(source))
        f.write("const uint8_t micro_%s_code[] = {" % name)
        f.write(",".join(str(b) for b in code))
        f.write("};\nconst size_t micro_%s_code_size = sizeof(micro_%s_code);\n" % (name, name))
        f.write("const uint64_t micro_%s_expect[] = {" % name)
        for i in range(0, len(expect) - 7, 8):
            f.write("%#xull," % int.from_bytes(expect[i:i + 8], "little"))
        f.write("0};\nconst size_t micro_%s_expect_count = %d;\n" % (name, len(expect) // 8))


main()
