/* Ports and memory-mapped I/O in all sizes, strings, read-modify-write, and nobody there. */
#include "micro.inc"
#define P PORT_DEVICE
#define ON_PORT(dir, size, off) ACCESS+dir+SIZE(size)+off
PRELUDE
main:
    mov $P, %edx
    mov $0x11, %al
    outb %al, %dx
    EXPECT ON_PORT(PORT_WRITE, 1, 0)
    EXPECT 0x11
    add $2, %edx
    mov $0x2233, %ax
    outw %ax, %dx
    EXPECT ON_PORT(PORT_WRITE, 2, 2)
    EXPECT 0x2233
    add $2, %edx
    mov $0x44556677, %eax
    outl %eax, %dx
    EXPECT ON_PORT(PORT_WRITE, 4, 4)
    EXPECT 0x44556677
    mov $-1, %rax
    inb %dx, %al
    EXPECT ON_PORT(PORT_READ, 1, 4)
    EXPECT 0x77
    CHECK %rax, 0xffffffffffffff77
    inw %dx, %ax
    EXPECT ON_PORT(PORT_READ, 2, 4)
    EXPECT 0x6677
    CHECK %rax, 0xffffffffffff6677
    inl %dx, %eax
    EXPECT ON_PORT(PORT_READ, 4, 4)
    EXPECT 0x44556677
    CHECK %rax, 0x44556677
    mov $0x300, %edx             /* nobody there */
    outl %eax, %dx
    inl %dx, %eax
    CHECK %rax, 0xffffffff
    mov $-2, %rax
    inb $0x60, %al
    CHECK %rax, -1

    /* Strings. */
    mov $P+8, %edx
    lea data(%rip), %rsi
    mov $3, %ecx
    cld
    rep outsw
    EXPECT ON_PORT(PORT_WRITE, 2, 8)
    EXPECT 0x0201
    EXPECT ON_PORT(PORT_WRITE, 2, 8)
    EXPECT 0x0403
    EXPECT ON_PORT(PORT_WRITE, 2, 8)
    EXPECT 0x0605
    lea data+6(%rip), %rax
    sub %rsi, %rax
    CHECK %rax, 0
    mov $FREE+0xffe, %edi        /* across a page */
    mov $2, %ecx
    rep insl
    EXPECT ON_PORT(PORT_READ, 4, 8)
    EXPECT 0x00000605
    EXPECT ON_PORT(PORT_READ, 4, 8)
    EXPECT 0x00000605
    CHECK FREE+0xffe, 0x0000060500000605
    CHECK %rdi, FREE+0x1006
    CHECK %rcx, 0
    std
    lea data+7(%rip), %rsi
    mov $2, %ecx
    rep outsb
    cld
    EXPECT ON_PORT(PORT_WRITE, 1, 8)
    EXPECT 0x08
    EXPECT ON_PORT(PORT_WRITE, 1, 8)
    EXPECT 0x07
    mov $0, %ecx
    rep insb                     /* none */
    insb
    EXPECT ON_PORT(PORT_READ, 1, 8)
    EXPECT 0x07
    CHECK %rdi, FREE+0x1007
    MOVE

    /* MMIO. */
    mov $MMIO, %ebx
    movb $0x12, (%rbx)
    EXPECT ON_PORT(MMIO_WRITE, 1, 0)
    EXPECT 0x12
    movw $0x3456, 2(%rbx)
    EXPECT ON_PORT(MMIO_WRITE, 2, 2)
    EXPECT 0x3456
    movl $0x789abcde, 4(%rbx)
    EXPECT ON_PORT(MMIO_WRITE, 4, 4)
    EXPECT 0x789abcde
    movabs $0x1122334455667788, %rax
    mov %rax, 8(%rbx)
    EXPECT ON_PORT(MMIO_WRITE, 8, 8)
    EXPECT 0x1122334455667788
    movzbl 9(%rbx), %eax
    EXPECT ON_PORT(MMIO_READ, 1, 9)
    EXPECT 0x77
    CHECK %rax, 0x77
    movswq 2(%rbx), %rax
    EXPECT ON_PORT(MMIO_READ, 2, 2)
    EXPECT 0x3456
    CHECK %rax, 0x3456
    mov 4(%rbx), %eax
    EXPECT ON_PORT(MMIO_READ, 4, 4)
    EXPECT 0x789abcde
    CHECK %rax, 0x789abcde
    mov 8(%rbx), %rax
    EXPECT ON_PORT(MMIO_READ, 8, 8)
    EXPECT 0x1122334455667788
    CHECK %rax, 0x1122334455667788
    orl $1, 4(%rbx)
    EXPECT ON_PORT(MMIO_READ, 4, 4)
    EXPECT 0x789abcde
    EXPECT ON_PORT(MMIO_WRITE, 4, 4)
    EXPECT 0x789abcdf
    MOVE
    testl $1, 4(%rbx)
    EXPECT ON_PORT(MMIO_READ, 4, 4)
    EXPECT 0x789abcdf
    setnz %al
    movzbl %al, %eax
    CHECK %rax, 1
    xchg %eax, 4(%rbx)
    EXPECT ON_PORT(MMIO_READ, 4, 4)
    EXPECT 0x789abcdf
    EXPECT ON_PORT(MMIO_WRITE, 4, 4)
    EXPECT 1
    CHECK %rax, 0x789abcdf
    pushq 8(%rbx)
    EXPECT ON_PORT(MMIO_READ, 8, 8)
    EXPECT 0x1122334455667788
    popq %rax
    CHECK %rax, 0x1122334455667788
    cmpb $0x77, 9(%rbx)
    EXPECT ON_PORT(MMIO_READ, 1, 9)
    EXPECT 0x77
    CHECK_FLAGS 0x44
    /* String copies out of and into the device. */
    mov %ebx, %esi
    add $8, %esi
    mov $FREE, %edi
    mov $2, %ecx
    rep movsl
    EXPECT ON_PORT(MMIO_READ, 4, 8)
    EXPECT 0x55667788
    EXPECT ON_PORT(MMIO_READ, 4, 12)
    EXPECT 0x11223344
    CHECK FREE, 0x1122334455667788
    mov $FREE, %esi
    lea 16(%rbx), %edi
    mov $2, %ecx
    rep movsw
    EXPECT ON_PORT(MMIO_WRITE, 2, 16)
    EXPECT 0x7788
    EXPECT ON_PORT(MMIO_WRITE, 2, 18)
    EXPECT 0x5566
    lea 24(%rbx), %edi
    mov $2, %ecx
    mov $0xab, %al
    rep stosb
    EXPECT ON_PORT(MMIO_WRITE, 1, 24)
    EXPECT 0xab
    EXPECT ON_PORT(MMIO_WRITE, 1, 25)
    EXPECT 0xab
    /* Nobody there. */
    mov $NOWHERE, %ebx
    movq $0, (%rbx)
    mov (%rbx), %rax
    CHECK %rax, -1
    DONE
    .balign 8
data: .byte 1, 2, 3, 4, 5, 6, 7, 8
