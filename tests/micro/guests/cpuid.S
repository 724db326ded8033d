/* CPUID: what the engine was given is what the guest sees. The harness puts the leaves to ask for at
 * FREE: their number, then pairs; the answers go behind FREE + 1000h, and it looks at them. */
#include "micro.inc"
PRELUDE
main:
    mov FREE, %r8d
    mov $FREE+8, %esi
    mov $FREE+0x1000, %edi
1:  test %r8d, %r8d
    jz 2f
    movabs $0xffffffffffffffff, %rdx
    mov %rdx, %rbx
    mov (%rsi), %eax
    mov 4(%rsi), %ecx
    cpuid
    mov %eax, (%rdi)
    mov %ebx, 4(%rdi)
    mov %ecx, 8(%rdi)
    mov %edx, 12(%rdi)
    shr $32, %rdx                    /* the upper halves are cleared */
    shr $32, %rbx
    or %rbx, %rdx
    jnz 3f
    add $8, %esi
    add $16, %edi
    dec %r8d
    jmp 1b
2:  xor %edx, %edx
3:  CHECK %rdx, 0
    /* OSXSAVE follows CR4. */
    mov $1, %eax
    cpuid
    and $1<<27, %ecx
    CHECK %rcx, 0
    DONE
