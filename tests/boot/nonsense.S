/*
 * A guest that writes nonsense to every register it can reach: all I/O ports, then the pages of the
 * interrupt controllers, the HPET, PCI configuration space and the windows that devices live in;
 * four times with other values. It ends with a triple fault. 32-bit, no paging, no stack.
 *
 * Left out is what resets the machine or switches it off by design: the test is of everything else.
 */
    .code32
    .text
    mov $values, %esi
pass:
    lodsl
    mov %eax, %ebx                  /* the value of this pass */
    cmp $0x0badc0de, %ebx
    je done

    xor %edx, %edx                  /* ---- ports ---- */
port:
    mov %edx, %ecx
    sub $0x61, %ecx
    cmp $4, %ecx                    /* 61h to 64h: keyboard controller */
    jb next_port
    sub $0x8f - 0x61, %ecx
    cmp $4, %ecx                    /* 8Fh to 92h: fast reset */
    jb next_port
    sub $0x4ff - 0x8f, %ecx
    cmp $8, %ecx                    /* 4FFh to 506h: pvpanic */
    jb next_port
    sub $0x600 - 0x4ff, %ecx
    cmp $16, %ecx                   /* 600h: power management */
    jb next_port
    sub $0xcf6 - 0x600, %ecx
    cmp $4, %ecx                    /* CF6h to CF9h: reset control */
    jb next_port
    mov %ebx, %eax
    outb %al, %dx
    outw %ax, %dx
    outl %eax, %dx
    inb %dx, %al
    inw %dx, %ax
    inl %dx, %eax
next_port:
    inc %edx
    cmp $0x10000, %edx
    jne port

    mov $ranges, %ebp               /* ---- memory-mapped registers ---- */
range:
    mov (%ebp), %edi
    mov 4(%ebp), %ecx
    test %ecx, %ecx
    jz pass
word:
    mov %edi, %eax
    sub $0xfee00300, %eax
    cmp $0x20, %eax                 /* the local APIC's ICR: INIT and NMI to ourselves */
    jb next_word
    mov %ebx, (%edi)
    mov (%edi), %eax
    mov %bx, (%edi)
    mov %bl, 1(%edi)
    movzbl 3(%edi), %eax
next_word:
    add $4, %edi
    dec %ecx
    jnz word
    add $8, %ebp
    jmp range

done:
    ud2

    .balign 4
values:
    .long 0xffffffff, 0, 0x00000001, 0xdeadbeef, 0x0badc0de
ranges:
    .long 0xc0000000, 0x10000       /* BARs, as they were assigned */
    .long 0xfec00000, 0x400         /* I/O APIC */
    .long 0xfed00000, 0x400         /* HPET */
    .long 0xfee00000, 0x400         /* local APIC */
    .long 0xe0000000, 0x8000        /* configuration space, 32 functions */
    .long 0xc0000000, 0x10000       /* BARs, wherever they are now */
    .long 0, 0
