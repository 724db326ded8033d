/* Segments of 32-bit protected mode: limits, expand-down, rights, null, not present, SS; a code
 * segment with a limit of its own and one of 64 KiB; LAR, LSL, VERR, VERW. */
#define EXTRA
#include "micro32.inc"
.macro EXTRA_DESCRIPTORS
    DESCRIPTOR ADDRESS(area), 0xf, 0x93, 4             /* 50: 16 bytes */
    DESCRIPTOR ADDRESS(area)-0x1000, 0xfff, 0x97, 4    /* 58: expand-down, from 1000h on */
    DESCRIPTOR ADDRESS(area)-0x1000, 0xfff, 0x97, 0    /* 60: to FFFFh */
    DESCRIPTOR ADDRESS(area), 0xff, 0x91, 4            /* 68: read-only */
    DESCRIPTOR ADDRESS(area), 0xff, 0x99, 4            /* 70: execute-only */
    DESCRIPTOR ADDRESS(area), 0xff, 0x93, 4            /* 78: for SS */
    DESCRIPTOR LOAD, odd_end-_start-1, 0x9b, 4         /* 80: code to odd_end */
    DESCRIPTOR LOAD, 0xffff, 0x9b, 4                   /* 88: code, 64 KiB */
    DESCRIPTOR 0, 0xfffff, 0xf3, 12                    /* 90: data of ring 3 */
    DESCRIPTOR LOAD, 0xffff, 0x9f, 4                   /* 98: conforming code */
.endm
    PRELUDE32
main:
    mov $0x50, %eax
    mov %eax, %fs
    mov %fs:0xc, %eax
    CHECK32 %eax, 0x44332211
    FAULTING32 GP, 0, mov %fs:0xd, %eax
    FAULTING32 GP, 0, movb %al, %fs:0x10
    FAULTING32 GP, 0, cmpxchg8b %fs:9
    FAULTING32 GP, 0, pushl %fs:0xd
    FAULTING32 GP, 0, movl %eax, %fs:0xfffffffe
    FAULTING32 GP, 0, bts %ebx, %fs:0x10
    /* With the flags alive behind the access. */
    xor %edx, %edx
    stc
    mov %fs:0, %ebx
    adc $0, %edx
    CHECK32 %edx, 1
    /* Over the end in a loop: the count tells where. */
    xor %ecx, %ecx
    mov $2f, %ebp
1:  movb %cl, %fs:(%ecx)
    inc %ecx
    jmp 1b
2:  EXPECT_FAULT32 GP, 0, 1b
    CHECK32 %ecx, 0x10
    movl $0x44332211, area+0xc
    mov $0x58, %eax
    mov %eax, %gs
    mov %gs:0x100c, %eax
    CHECK32 %eax, 0x44332211
    FAULTING32 GP, 0, mov %gs:0xffe, %eax
    FAULTING32 GP, 0, mov %gs:0xfff, %al
    FAULTING32 GP, 0, mov %gs:0xfffffffd, %eax
    mov $0x60, %eax
    mov %eax, %gs
    mov %gs:0x100c, %eax
    CHECK32 %eax, 0x44332211
    FAULTING32 GP, 0, mov %gs:0xffe, %eax
    FAULTING32 GP, 0, mov %gs:0xfffd, %eax
    FAULTING32 GP, 0, mov %gs:0x10000, %eax
    mov $0x68, %eax
    mov %eax, %gs
    mov %gs:0xc, %eax
    CHECK32 %eax, 0x44332211
    FAULTING32 GP, 0, mov %eax, %gs:0xc
    FAULTING32 GP, 0, incl %gs:0xc
    mov $0x70, %eax
    FAULTING32 GP, 0x70, mov %eax, %gs
    xor %eax, %eax
    mov %eax, %gs
    FAULTING32 GP, 0, mov %gs:0, %eax
    mov $SEL32_ABSENT, %eax
    FAULTING32 NP, SEL32_ABSENT, mov %eax, %gs
    FAULTING32 SSF, SEL32_ABSENT, mov %eax, %ss
    mov $0x1230, %eax
    FAULTING32 GP, 0x1230, mov %eax, %gs
    mov $0x68, %eax
    FAULTING32 GP, 0x68, mov %eax, %ss
    mov $0x90, %eax
    FAULTING32 GP, 0x90, mov %eax, %ss
    /* A stack of 256 bytes. */
    mov %esp, %edi
    mov $0x78, %eax
    mov %eax, %ss
    mov $0x80, %esp
    push $0x1234
    pop %edx
    CHECK32 %edx, 0x1234
    FAULTING32 SSF, 0, mov %ss:0xfd, %eax
    FAULTING32 SSF, 0, movl $0, %ss:0x100
    mov $SEL_DATA, %eax
    mov %eax, %ss
    mov %edi, %esp
    /* Code to a limit that is neither 64 KiB nor 4 GiB. */
    ljmp $0x80, $odd-_start
odd:
    mov $2f-_start, %ebp
1:  jmp behind
2:  EXPECT_FAULT32 GP, 0, 1b-_start
    mov $100, %ecx
    xor %eax, %eax
1:  add %ecx, %eax
    loop 1b
    CHECK32 %eax, 5050
    ljmp $0x88, $narrow-_start
odd_end:
behind:
    hlt
    /* 32-bit code in 64 KiB: jumps out of it, direct, indirect, by RET. */
narrow:
    mov $2f-_start, %ebp
1:  jmp _start+0x10000
2:  EXPECT_FAULT32 GP, 0, 1b-_start
    mov $2f-_start, %ebp
    mov $0x12345, %eax
1:  jmp *%eax
2:  EXPECT_FAULT32 GP, 0, 1b-_start
    mov $2f-_start, %ebp
    mov %esp, %edx
    push $0x10000
1:  ret
2:  EXPECT_FAULT32 GP, 0, 1b-_start
    sub %esp, %edx
    CHECK32 %edx, 4
    add $4, %esp
    mov $2f-_start, %ebp
    mov %esp, %edx
1:  call _start+0x10000
2:  EXPECT_FAULT32 GP, 0, 1b-_start
    sub %esp, %edx
    CHECK32 %edx, 0
    call 3f
    CHECK32 %eax, 0x55
    ljmp $SEL_CODE32, $4f
3:  mov $0x55, %eax
    ret
4:  /* What descriptors say. */
    mov $0x50, %eax
    lsl %eax, %ecx
    CHECK32 %ecx, 0xf
    lar %eax, %ecx
    CHECK32 %ecx, 0x409300
    mov $SEL_DATA, %eax
    lsl %eax, %ecx
    CHECK32 %ecx, 0xffffffff
    mov $SEL32_TSS, %eax
    lsl %eax, %ecx
    CHECK32 %ecx, 0x2087
    mov $0x1230, %eax
    mov $7, %ecx
    lsl %eax, %ecx
    CHECK_FLAG z, 0
    CHECK32 %ecx, 7
    mov $0x68, %ecx
    verw %cx
    CHECK_FLAG z, 0
    verr %cx
    CHECK_FLAG z, 1
    mov $0x70, %ecx
    verr %cx
    CHECK_FLAG z, 0
    mov $0x98, %ecx
    verr %cx
    CHECK_FLAG z, 1
    mov $0x50, %ecx
    verw %cx
    CHECK_FLAG z, 1
    MOVE
    mov %fs:0xc, %eax
    CHECK32 %eax, 0x44332211
    outb %al, $PORT_DONE
    hlt
    .balign 16
area:
    .long 0, 0, 0, 0x44332211
    .fill 0x100, 1, 0
