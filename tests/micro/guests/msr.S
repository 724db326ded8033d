/* MSRs: what is written is read again; what is reserved, not canonical or unknown faults. */
#include "micro.inc"
.macro ROUND_TRIP msr, low, high=0
    mov $\msr, %ecx
    rdmsr
    mov %eax, %esi
    mov %edx, %edi
    mov $\low, %eax
    mov $\high, %edx
    wrmsr
    mov $-1, %eax
    mov $-1, %edx
    MOVE
    rdmsr
    shl $32, %rdx
    or %rdx, %rax
    CHECK %rax, (\high<<32)+\low
    mov %esi, %eax
    mov %edi, %edx
    wrmsr
.endm
.macro REFUSED msr, low, high=0
    mov $\msr, %ecx
    mov $\low, %eax
    mov $\high, %edx
    FAULTING GP, 0, wrmsr
.endm
PRELUDE
main:
    ROUND_TRIP 0xc0000081, 0x11223344, 0x00230010 /* STAR */
    ROUND_TRIP 0xc0000082, 0x12345678, 0xffff8000 /* LSTAR */
    ROUND_TRIP 0xc0000083, 0x12345678, 0xffff8000 /* CSTAR */
    ROUND_TRIP 0xc0000084, 0x00047700             /* SFMASK */
    ROUND_TRIP 0xc0000100, 0x12345678, 0x00007fff /* FS base */
    ROUND_TRIP 0xc0000101, 0x12345678, 0xffff8000 /* GS base */
    ROUND_TRIP 0xc0000102, 0x12345678, 0xffff8001 /* KERNEL_GS_BASE */
    ROUND_TRIP 0x174, 0x10                        /* SYSENTER */
    ROUND_TRIP 0x175, 0x12345678
    ROUND_TRIP 0x176, 0x87654321
    ROUND_TRIP 0x277, 0x00070106, 0x00070406      /* PAT */
    ROUND_TRIP 0x2ff, 0xc06                       /* MTRR default type */
    ROUND_TRIP 0x200, 0xc0000000                  /* MTRR */
    ROUND_TRIP 0x201, 0xc0000800, 0xff
    ROUND_TRIP 0x250, 0x06060606, 0x06060606
    /* FS and GS bases are what they say. */
    mov $0xc0000100, %ecx
    mov $FREE, %eax
    xor %edx, %edx
    wrmsr
    movq $0x1234, FREE+0x10
    CHECK %fs:0x10, 0x1234
    mov $0xc0000102, %ecx
    mov $FREE+0x10, %eax
    wrmsr
    swapgs
    CHECK %gs:0, 0x1234
    swapgs
    /* EFER. */
    mov $0xc0000080, %ecx
    rdmsr
    CHECK %rax, 0xd01
    CHECK %rdx, 0
    REFUSED 0xc0000080, 0xd01, 1
    REFUSED 0xc0000080, 0xc01        /* LME cannot change while paging is on */
    REFUSED 0xc0000082, 0, 0x80000000 /* not canonical */
    REFUSED 0xc0000101, 0, 0x80000000
    REFUSED 0xc0000102, 0, 0x80000000
    REFUSED 0x2ff, 0x2
    REFUSED 0x4000, 0                /* unknown */
    mov $0x4000, %ecx
    FAULTING GP, 0, rdmsr
    /* One that only the bus knows. */
    mov $MSR_BUS, %ecx
    mov $0x11223344, %eax
    mov $0x55667788, %edx
    wrmsr
    xor %eax, %eax
    xor %edx, %edx
    rdmsr
    CHECK %rax, 0x11223344
    CHECK %rdx, 0x55667788
    /* The upper halves of RAX and RDX are cleared. */
    mov $-1, %rax
    mov $-1, %rdx
    mov $0x174, %ecx
    rdmsr
    CHECK %rax, 0
    CHECK %rdx, 0
    DONE
