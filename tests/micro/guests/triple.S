/* No IDT: the exception cannot be delivered, nor the fault about that, nor the double fault. */
#include "micro.inc"
PRELUDE
main:
    mov $0x1234, %eax
    CHECK %rax, 0x1234
    movw $0, idtr
    lidt idtr
    ud2
    LOG %rax
    DONE
