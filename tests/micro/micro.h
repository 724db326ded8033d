/*
 * Micro-guests: tiny programs in assembly, each in guests/NAME.S with what it must log beside the
 * code that logs it. The same program runs on every engine. The numbers here are shared with
 * guests/micro.inc.
 */
#ifndef TESTS_MICRO_H
#define TESTS_MICRO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MICRO_RAM_SIZE 0x400000u
#define MICRO_LOAD 0x10000u
#define MICRO_STACK 0x80000u
#define MICRO_TABLES 0x100000u     /* page tables that the harness makes ... */
#define MICRO_TABLES_END 0x110000u /* ... and, up to here, what guests add */
#define MICRO_MMIO 0xd0000000u
#define MICRO_NOWHERE 0xe0000000u
#define MICRO_CPUID_LIST 0x200000u /* see cpuid.S */
#define MICRO_CPUID_ANSWERS 0x201000u

/* Ports. */
#define MICRO_PORT_LOG_LOW 0xe0   /* 4 bytes: low half of a logged number */
#define MICRO_PORT_LOG_HIGH 0xe4  /* 4 bytes: high half; logs it */
#define MICRO_PORT_LOG 0xe8       /* 1, 2, 4 bytes: logs the number */
#define MICRO_PORT_DONE 0xf0      /* the end */
#define MICRO_PORT_IRQ 0xf1       /* this CPU gets an external interrupt, value: vector */
#define MICRO_PORT_NMI 0xf2       /* CPU `value` gets an NMI */
#define MICRO_PORT_IRQ_LATER 0xf3 /* the same, from another thread, some milliseconds later */
#define MICRO_PORT_NMI_LATER 0xf4
#define MICRO_PORT_MOVE 0xf5       /* stop, save, go on from the saved state */
#define MICRO_PORT_MOVE_LATER 0xf6 /* from another thread, some milliseconds later */
#define MICRO_PORT_INIT 0xf7       /* INIT to CPU `value` */
#define MICRO_PORT_SIPI 0xf8       /* 2 bytes: CPU | vector << 8 */
#define MICRO_PORT_CPU 0xfa        /* read: the number of this CPU */
#define MICRO_PORT_FRAME 0xf9      /* with `frame`: see micro_frame_do(); read: what a look found */
#define MICRO_PORT_LINE 0xfb       /* with `pc`: input (bits 0 to 4) is as bit 7 says */
#define MICRO_PORT_MSI 0xfc        /* 4 bytes: the data of a message to CPU 0's local APIC */
#define MICRO_PORT_DMA 0xec /* 4 bytes: a device adds one to the 32-bit number at this address */
#define MICRO_PORT_DEVICE 0x200 /* 16 ports of memory that logs its accesses */
#define MICRO_MSR 0x12340001u   /* an MSR that only the bus knows */

/* Logged for an access to the device: kind, size, offset; then the value. */
#define MICRO_LOG_ACCESS(kind, size, offset)                                                       \
    (0xacce000000000000ull | (uint64_t)(kind) << 40 | (uint64_t)(size) << 32 | (offset))
#define MICRO_PORT_READ 1
#define MICRO_PORT_WRITE 2
#define MICRO_MMIO_READ 3
#define MICRO_MMIO_WRITE 4
/* Logged where an I/O APIC would hear of an EOI. */
#define MICRO_LOG_EOI(vector) (0xe010000000000000ull | (vector))

enum micro_start {
    MICRO_LONG, /* 64-bit kernel mode, 4 GiB identity-mapped */
    MICRO_PVH,  /* 32-bit protected mode without paging */
    MICRO_REAL, /* 16-bit real mode at 1000:0000 */
};

/* What a guest needs of the CPU: skipped where the engine's CPUID does not have it. */
#define MICRO_NEEDS_SMEP 0x01u
#define MICRO_NEEDS_SMAP 0x02u
#define MICRO_NEEDS_XSAVE 0x04u
#define MICRO_NEEDS_AVX 0x08u
#define MICRO_NEEDS_FSGSBASE 0x10u
#define MICRO_NEEDS_PCID 0x20u
#define MICRO_NEEDS_RDTSCP 0x40u
#define MICRO_NEEDS_INVPCID 0x80u
#define MICRO_NEEDS_GIGAPAGES 0x100u
#define MICRO_NEEDS_UMIP 0x200u
#define MICRO_NEEDS_TSC_ADJUST 0x400u
#define MICRO_NEEDS_MONITOR 0x800u
/* Only an engine whose vCPUs see the A20 gate. */
#define MICRO_NEEDS_A20 0x4000u
/* Not on a /dev/kvm that emulates kernel code: its emulator does not know this. */
#define MICRO_NEEDS_HARDWARE 0x8000u

/* How a guest ends. */
enum micro_end {
    MICRO_DONE,     /* MICRO_PORT_DONE */
    MICRO_SHUTDOWN, /* triple fault */
};

struct micro_guest {
    const char *name;
    const uint8_t *code;
    const size_t *code_size;
    const uint64_t *expect;
    const size_t *expect_count;
    enum micro_start start;
    enum micro_end end;
    unsigned cpus; /* 0: 1 */
    uint32_t needs;
    bool frame; /* has the frame buffer of frame.h */
    bool pc;    /* has the chips of pc.h instead of the bare interrupt line */
    bool cpuid; /* asks for every leaf; the answers are looked at */
    /* The end state is not compared between engines: it depends on time or on the other CPU. */
    bool loose;
};

extern const struct micro_guest micro_guests[];
extern const unsigned micro_guest_count;

#endif
