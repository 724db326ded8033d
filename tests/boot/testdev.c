/*
 * A bare-metal test kernel (multiboot, 32 bits) in the style of the x86 community's: drives the
 * test devices, writes "PASS: ..." or "FAIL: ..." for each check to the serial port, and ends the
 * machine by isa-debug-exit with the number of failures.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

#define STACK 4096

__asm__(".section .multiboot, \"a\"\n"
        ".long 0x1badb002, 0x3, -(0x1badb002 + 0x3)\n"
        ".text\n"
        ".globl _start\n"
        "_start:\n"
        "mov $stack_end, %esp\n"
        "push %ebx\n"
        "push %eax\n"
        "call run\n");

__attribute__((used, aligned(16))) static u8 stack[STACK];
__asm__(".globl stack_end\n.set stack_end, stack + 4096\n");

static void out8(u16 port, u8 v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "d"(port));
}

static void out16(u16 port, u16 v)
{
    __asm__ volatile("outw %0, %1" : : "a"(v), "d"(port));
}

static void out32(u16 port, u32 v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "d"(port));
}

static u8 in8(u16 port)
{
    u8 v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "d"(port));
    return v;
}

static u16 in16(u16 port)
{
    u16 v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "d"(port));
    return v;
}

static u32 in32(u16 port)
{
    u32 v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "d"(port));
    return v;
}

static void print(u16 port, const char *s)
{
    for (; *s; s++)
        out8(port, (u8)*s);
}

static u32 failures;

static void check(int good, const char *what)
{
    print(0x3f8, good ? "PASS: " : "FAIL: ");
    print(0x3f8, what);
    print(0x3f8, "\r\n");
    failures += !good;
}

/* ---- fw_cfg: items by their keys, bytes from port 511h ---- */

static u32 fw_cfg(u16 key, unsigned bytes)
{
    u32 v = 0;
    out16(0x510, key);
    for (unsigned i = 0; i < bytes; i++)
        v |= (u32)in8(0x511) << 8 * i;
    return v;
}

static void test_fw_cfg(void)
{
    check(fw_cfg(0, 4) == 0x554d4551, "fw_cfg signature"); /* "QEMU" */
    check(fw_cfg(5, 2) == 2, "fw_cfg CPU count");
    check(fw_cfg(3, 4) == 64u << 20, "fw_cfg memory size");
}

/* ---- pc-testdev ---- */

static void test_ports(void)
{
    out32(0xe0, 0x12345678);
    check(in32(0xe0) == 0x12345678, "test port, 32 bits");
    out8(0xe1, 0xab);
    out16(0xe2, 0xcdef);
    check(in8(0xe1) == 0xab && in16(0xe2) == 0xcdef && in32(0xe0) == 0xcdefab78,
          "test port, 8 and 16 bits");
    out32(0xe4, 0x200000);
    check(1, "page flush");
}

static void test_memory(void)
{
    volatile u32 *m = (u32 *)0xff000000;
    m[0] = 0xdeadbeef;
    m[0x3fff] = 0x01020304;
    ((volatile u8 *)m)[1] = 0x55;
    check(m[0] == 0xdead55ef && m[0x3fff] == 0x01020304 && m[1] == 0, "test memory");
}

/* A line seen at the 8259A's request register. */
static void test_lines(void)
{
    out8(0x20, 0x11), out8(0x21, 0x20), out8(0x21, 4), out8(0x21, 1), out8(0x21, 0xff);
    out8(0x20, 0x0a);
    u8 before = in8(0x20);
    out8(0x2005, 1);
    u8 during = in8(0x20);
    out8(0x2005, 0);
    check(!(before & 0x20) && (during & 0x20), "interrupt line 5");
}

/* ---- pci-testdev ---- */

static u32 pci(u32 slot, u32 reg)
{
    out32(0xcf8, 0x80000000 | slot << 11 | reg);
    return in32(0xcfc);
}

static void test_pci(void)
{
    u32 slot = 0;
    while (slot < 32 && pci(slot, 0) != 0x00051b36)
        slot++;
    check(slot < 32, "pci-testdev is there");
    volatile u8 *m = (u8 *)(pci(slot, 0x10) & ~15u);
    u16 io = (u16)(pci(slot, 0x14) & ~3u);
    unsigned tests = 0;
    for (; tests < 16; tests++) {
        m[0] = (u8)tests;
        u8 width = m[1];
        if (width != 1 && width != 2 && width != 4)
            break;
        u32 offset = *(volatile u32 *)(m + 4), data = *(volatile u32 *)(m + 8);
        for (unsigned i = 0; i < 7; i++)
            m[offset] = (u8)data;
        m[offset + 1] = (u8)data;
        check(*(volatile u32 *)(m + 12) == 7, "pci-testdev counts writes to memory");
    }
    check(tests == 3 && m[16] == 0, "pci-testdev has three tests");
    out8(io, 0);
    u32 offset = in32((u16)(io + 4));
    out8((u16)(io + offset), in8((u16)(io + 8)));
    check(in32((u16)(io + 12)) == 1 && in8((u16)(io + 16)) == 'p',
          "pci-testdev counts writes to ports");
}

__attribute__((used, noreturn)) static void run(u32 magic, const u32 *info)
{
    check(magic == 0x2badb002, "multiboot magic");
    check((info[0] & 0x41) == 0x41 && info[1] == 639 && info[2] == 63 << 10, "multiboot memory");
    test_fw_cfg();
    test_ports();
    test_memory();
    test_lines();
    test_pci();
    check(in8(0x402) == 0xe9, "debug port");
    print(0x402, "said to the debug port\n");
    out8(0xf4, (u8)failures);
    for (;;)
        __asm__ volatile("hlt");
}
