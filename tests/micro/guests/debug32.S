/* A debugger in 32-bit mode: single steps, breakpoints while other pages run translated, watches
 * inside repeated string instructions and behind MOV SS, ports. */
#include "micro32.inc"
    PRELUDE32
main:
    /* TF: one instruction, then the trap. */
    mov $2f, %ebp
    pushf
    orl $0x100, (%esp)
    popf
    nop
1:  nop
2:  EXPECT_FAULT32 DB, 0, 1b
    mov %db6, %eax
    and $0xe00f, %eax
    CHECK32 %eax, 0x4000
    xor %eax, %eax
    mov %eax, %db6
    /* A breakpoint in a function of another page, in a loop whose page has none. */
    mov $function, %eax
    mov %eax, %db0
    mov $0x402, %eax
    mov %eax, %db7
    xor %ebx, %ebx
    mov $50, %ecx
1:  add %ecx, %ebx
    cmp $25, %ecx
    jne 2f
    mov $function+1, %ebp        /* skips the counter */
    call function
    EXPECT_FAULT32 DB, 0, function
2:  loop 1b
    CHECK32 %ebx, 1275
    CHECK32 %edx, 0
    xor %eax, %eax
    mov %eax, %db7
    call function
    CHECK32 %edx, 1
    /* A watch of four bytes in the middle of a copy: two traps, and the copy is whole. */
    mov $buffer+8, %eax
    mov %eax, %db1
    mov $0x00d00408, %eax        /* G1, RW1 = 1, LEN1 = 4 */
    mov %eax, %db7
    mov $text, %esi
    mov $buffer, %edi
    mov $16, %ecx
    mov $2f, %ebp
1:  rep movsb
2:  EXPECT_FAULT32 DB, 0, 1b
    CHECK32 %ecx, 7
    mov $2f, %ebp
1:  rep movsb
2:  EXPECT_FAULT32 DB, 0, 1b
    CHECK32 %ecx, 6
    xor %eax, %eax
    mov %eax, %db7
    rep movsb
    mov buffer+12, %eax
    CHECK32 %eax, 0x100f0e0d
    /* Reads are none; a push is one. */
    mov $0x00d00408, %eax
    mov %eax, %db7
    mov buffer+8, %eax
    mov %esp, %edx
    mov $buffer+12, %esp
    mov $2f, %ebp
    push $0x55
1:  mov %edx, %esp
2:  EXPECT_FAULT32 DB, 0, 1b
    mov %edx, %esp
    xor %eax, %eax
    mov %eax, %db7
    /* MOV SS holds the trap of its own watch back for one instruction. */
    mov $selector, %eax
    mov %eax, %db2
    mov $0x07000420, %eax        /* G2, RW2 = 3, LEN2 = 2 */
    mov %eax, %db7
    mov $2f, %ebp
    mov selector, %ss
    mov %esp, %edx
1:  mov $0, %edx
2:  EXPECT_FAULT32 DB, 0, 1b
    cmp %esp, %edx
    CHECK_FLAG e, 1              /* that one instruction was done */
    mov %db6, %eax
    and $0xf, %eax
    CHECK32 %eax, 4
    /* A port, with CR4.DE. */
    mov %cr4, %eax
    or $8, %eax
    mov %eax, %cr4
    xor %eax, %eax
    mov %eax, %db6
    mov $PORT_DEVICE, %eax
    mov %eax, %db3
    mov $0x20000480, %eax        /* G3, RW3 = 2 */
    mov %eax, %db7
    mov $PORT_DEVICE, %edx
    mov $2f, %ebp
    EXPECT ACCESS+PORT_WRITE+SIZE(1)+0
    EXPECT 0x42
    mov $0x42, %al
    outb %al, %dx
1:  nop
2:  EXPECT_FAULT32 DB, 0, 1b
    mov %db6, %eax
    and $0xf, %eax
    CHECK32 %eax, 8
    xor %eax, %eax
    mov %eax, %db7
    /* ICEBP. */
    mov $2f, %ebp
    .byte 0xf1
1:  nop
2:  EXPECT_FAULT32 DB, 0, 1b
    MOVE
    outb %al, $PORT_DONE
    hlt
selector: .word SEL_DATA, 0
    .balign 4
text: .byte 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
    .balign 16
buffer: .fill 16, 1, 0
    .balign 4096
function:
    inc %edx                     /* one byte */
    ret
