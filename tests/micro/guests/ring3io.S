/* Ring 3 and ports: IOPL, the permission map; software interrupts by their gates' privilege. */
#include "micro.inc"
PRELUDE
main:
    USER_PAGES
    TO_USER user_start, SEL_USER, 0x3002

kernel1:
    /* A permission map behind the TSS that lets ports 200h to 207h be used. */
    movw $0x68, tss+0x66
    movb $0, tss+0x68+0x40
    movw $0x68+0x42, gdt+SEL_TSS /* the limit */
    movb $0x89, gdt+SEL_TSS+5
    mov $SEL_TSS, %eax
    ltr %ax
    TO_USER user2

kernel2:
    DONE

    .balign 4096
user_start:
    CHECK %rsp, USER_STACK
    MOVE
    mov $PORT_DEVICE, %edx
    mov $0x12, %al
    outb %al, %dx
    EXPECT ACCESS+PORT_WRITE+SIZE(1)+0
    EXPECT 0x12
    sti                          /* IOPL 3 */
    cli
    pushfq
    andq $~0x3000, (%rsp)
    popfq                        /* ring 3 cannot change IOPL: ignored */
    pushfq
    popq %rax
    CHECK %rax, 0x3002
    FAULTING GP, (0x21<<3)+2, int $0x21 /* a gate of ring 0 */
    int $0x80
    EXPECT 0x1200080
    CHECK %rsp, USER_STACK
    TO_KERNEL kernel1
user2:
    mov $PORT_DEVICE+4, %edx
    mov $0x12345678, %eax
    outl %eax, %dx
    EXPECT ACCESS+PORT_WRITE+SIZE(4)+4
    EXPECT 0x12345678
    mov $PORT_DEVICE+6, %edx     /* half of it */
    FAULTING GP, 0, outl %eax, %dx
    mov $PORT_DEVICE+8, %edx
    FAULTING GP, 0, inb %dx, %al
    FAULTING GP, 0, inb $0xff, %al
    mov $0x300, %edx             /* beyond the map */
    FAULTING GP, 0, inb %dx, %al
    FAULTING GP, 0, sti
    TO_KERNEL kernel2
    .balign 4096
user_end:
