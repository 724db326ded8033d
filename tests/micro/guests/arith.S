/* 64-bit arithmetic with flags, loops, calls, the stack. */
#include "micro.inc"
#define SUM 0x604f992634380f5d /* of 10000 rounds of rax = rol(rax + n, 7) */
PRELUDE
main:
    movabs $0x123456789abcdef0, %rax
    movabs $0x0fedcba987654321, %rbx
    add %rbx, %rax
    CHECK_FLAGS 0x4
    CHECK %rax, 0x2222222222222211
    mov $-1, %rcx
    add $1, %rcx
    CHECK_FLAGS 0x55
    mov $0x7fffffff, %edx
    inc %edx
    CHECK_FLAGS 0x895  /* CF stays */
    CHECK %rdx, 0x80000000
    mov $0x80, %al
    sub $1, %al
    CHECK_FLAGS 0x810
    xor %eax, %eax
    mov $10000, %ecx
1:  add %rcx, %rax
    rol $7, %rax
    dec %ecx
    jnz 1b
    mov %rax, %r14
    MOVE
    CHECK %r14, SUM
    mov $12, %edi
    call fib
    CHECK %rax, 144
    mov $7, %eax
    mov $-3, %ecx
    imul %ecx
    CHECK %rdx, 0xffffffff
    CHECK %rax, 0xffffffeb
    mov $100, %eax
    xor %edx, %edx
    mov $7, %ecx
    div %ecx
    CHECK %rax, 14
    CHECK %rdx, 2
    movabs $0x8000000000000001, %rax
    bsf %rax, %rcx
    bsr %rax, %rdx
    CHECK %rcx, 0
    CHECK %rdx, 63
    bt $63, %rax
    setc %cl
    movzbl %cl, %ecx
    CHECK %rcx, 1
    mov $0x1234, %ax
    xchg %al, %ah
    movzwl %ax, %eax
    CHECK %rax, 0x3412
    bswap %rax
    CHECK %rax, 0x1234000000000000
    enter $32, $0
    movq $0x55, -8(%rbp)
    leave
    CHECK %rsp, STACK
    lea table(%rip), %rbx
    mov $3, %eax
    jmp *(%rbx,%rax,8)
wrong:
    LOG %rsp
third:
    movabs $0x1122334455667788, %rax
    lock cmpxchg %rbx, FREE
    mov %rax, %rcx
    CHECK %rcx, 0
    mov $5, %edx
    lock xadd %rdx, FREE
    CHECK %rdx, 0
    CHECK FREE, 5
    DONE

fib:
    cmp $2, %edi
    mov $1, %eax
    jbe 1f
    push %rdi
    dec %edi
    call fib
    pop %rdi
    push %rax
    sub $2, %edi
    call fib
    pop %rdx
    add %rdx, %rax
1:  ret
    .balign 8
table: .quad wrong, wrong, wrong, third
