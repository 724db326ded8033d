/* Memory that a device lends (mull_region_set_ram: a frame buffer): stores of all sizes and strings, read back;
 * who looks learns that something was written, and only then; it moves and hides while both CPUs draw. */
#define IRQ_HANDLER
#include "micro.inc"
#define FRAME 0xd1000000
#define AWAY 0x100000          /* where it moves to, above */
#define SIZE_Q 0x2000          /* 64 KiB in quadwords */
#define WINDOW 0x60000         /* its first page for ring 3 */
#define DO_LOOK 0
#define DO_MOVE 1
#define DO_BACK 2
#define DO_HIDE 3
#define DO_SHOW 4
.macro DEVICE what
    mov $\what, %al
    outb %al, $PORT_FRAME
.endm
/* Was it written since the last look? */
.macro WRITTEN yes
    DEVICE DO_LOOK
    inb $PORT_FRAME, %al
    movzbl %al, %eax
    CHECK %rax, \yes
.endm
.macro USER site
    lea 9100f(%rip), %r12
    mov $200, %ecx
    TO_USER \site
9100:
.endm
PRELUDE
main:
    mov $FRAME, %ebx
    DEVICE DO_LOOK             /* from here on it is watched */
    WRITTEN 0
    movq $0, (%rbx)
    WRITTEN 1
    WRITTEN 0
    /* Each size. */
    movb $0x11, (%rbx)
    WRITTEN 1
    movw $0x2222, 2(%rbx)
    movl $0x44444444, 4(%rbx)
    movabs $0x8877665544332211, %rax
    mov %rax, 8(%rbx)
    movq %rax, %xmm0
    punpcklqdq %xmm0, %xmm0
    movups %xmm0, 0x18(%rbx)
    WRITTEN 1
    CHECK (%rbx), 0x4444444422220011
    CHECK 0x20(%rbx), 0x8877665544332211
    movzbl 9(%rbx), %eax
    CHECK %rax, 0x22
    movzwl 10(%rbx), %eax
    CHECK %rax, 0x4433
    MOVE
    WRITTEN 0                  /* reading is not writing */
    CHECK 8(%rbx), 0x8877665544332211
    /* Reading and writing at once. */
    addl $1, 4(%rbx)
    WRITTEN 1
    lock incl 4(%rbx)
    WRITTEN 1
    mov $7, %eax
    xchg %eax, 4(%rbx)
    CHECK %rax, 0x44444446
    WRITTEN 1
    /* Across two of its pages. */
    movabs $0x0102030405060708, %rax
    mov %rax, 0xffd(%rbx)
    WRITTEN 1
    CHECK 0xffd(%rbx), 0x0102030405060708
    movzbl 0x1000(%rbx), %eax
    CHECK %rax, 0x05
    /* Strings: all of it, from RAM and back, over itself, backwards. */
    mov %rbx, %rdi
    mov $0x10000, %ecx
    mov $0x5a, %al
    rep stosb
    WRITTEN 1
    CHECK 0xfff8(%rbx), 0x5a5a5a5a5a5a5a5a
    mov $FREE, %edi
    mov $SIZE_Q, %ecx
1:  mov %rcx, (%rdi,%rcx,8)
    dec %ecx
    jnz 1b
    mov $FREE+8, %esi
    mov %rbx, %rdi
    mov $SIZE_Q, %ecx
    rep movsq
    WRITTEN 1
    CHECK (%rbx), 1
    CHECK 0xfff8(%rbx), SIZE_Q
    lea 0x1000(%rbx), %rsi
    mov %rbx, %rdi
    mov $0x1e00, %ecx
    rep movsq
    CHECK (%rbx), 0x201
    mov %rbx, %rsi
    mov $FREE, %edi
    mov $0x10000, %ecx
    WRITTEN 1
    rep movsb
    WRITTEN 0
    CHECK FREE+0x8000, 0x1201
    std
    lea 0xfffc(%rbx), %rdi
    mov $0x4000, %ecx
    mov $0xc0ffee00, %eax
    rep stosl
    cld
    CHECK 0x8000(%rbx), 0xc0ffee00c0ffee00
    WRITTEN 1
    /* A line in each page, many times: each look finds the last. */
    mov $50, %r8d
2:  lea 0x100(%rbx), %rdi
    mov $16, %r9d
3:  mov $64, %ecx
    mov %r8d, %eax
    rep stosl
    add $0x1000-0x100, %rdi
    dec %r9d
    jnz 3b
    DEVICE DO_LOOK
    inb $PORT_FRAME, %al
    cmp $1, %al
    jne wrong
    dec %r8d
    jnz 2b
    CHECK 0xf100(%rbx), 0x0000000100000001

    /* Elsewhere, from the next instruction on; nobody is at the old place. */
    movq $0x77, (%rbx)
    DEVICE DO_MOVE
    CHECK (%rbx), 0xffffffffffffffff
    CHECK AWAY(%rbx), 0x77
    movq $0x78, (%rbx)
    DEVICE DO_LOOK
    movq $0x79, AWAY(%rbx)
    WRITTEN 1
    MOVE
    CHECK AWAY(%rbx), 0x79
    DEVICE DO_BACK
    CHECK (%rbx), 0x79
    CHECK AWAY(%rbx), 0xffffffffffffffff
    DEVICE DO_HIDE
    DEVICE DO_LOOK
    CHECK (%rbx), 0xffffffffffffffff
    movq $0x80, (%rbx)
    WRITTEN 0
    DEVICE DO_SHOW
    CHECK (%rbx), 0x79

    /* In ring 3, where accesses remember their page. */
    USER_PAGES
    movq $FRAME, %rax
    or $0x67, %rax
    mov %rax, PT0+(WINDOW>>12)*8
    invlpg WINDOW
    mov $WINDOW, %ebp
    USER read_site
    CHECK %rax, 0x79
    DEVICE DO_MOVE
    USER read_site
    CHECK %rax, 0xffffffffffffffff
    mov $0x7a, %edx
    USER write_site
    CHECK AWAY(%rbx), 0x79
    DEVICE DO_BACK
    USER write_site
    USER read_site
    CHECK %rax, 0x7a
    WRITTEN 1
    DEVICE DO_HIDE
    mov $0x7b, %edx
    USER write_site
    DEVICE DO_SHOW
    USER read_site
    CHECK %rax, 0x7a
    WRITTEN 0
    USER write_site
    WRITTEN 1
    CHECK (%rbx), 0x7b

    /* While the other CPU draws. */
    COPY_TRAMPOLINE
    mov $1, %al
    outb %al, $PORT_INIT
    mov $(TRAMPOLINE>>12)<<8|1, %eax
    outw %ax, $PORT_SIPI
4:  pause
    cmpl $1, drawn
    jb 4b
    mov $100, %r8d
5:  DEVICE DO_LOOK
    DEVICE DO_MOVE
    DEVICE DO_LOOK
    DEVICE DO_HIDE
    DEVICE DO_SHOW
    DEVICE DO_BACK
    dec %r8d
    jnz 5b
    movl $1, stop
6:  pause
    cmpl $1, stopped
    jne 6b
    mov %rbx, %rdi
    mov $SIZE_Q, %ecx
    mov $0x33, %eax
    rep stosq
    mov $SIZE_Q, %ecx
7:  cmpq $0x33, -8(%rbx,%rcx,8)
    jne wrong
    dec %ecx
    jnz 7b
    WRITTEN 1
    DONE
wrong:
    LOG %rcx
    DONE

    AP_TRAMPOLINE
8:  mov $FRAME, %edi
    mov $SIZE_Q, %ecx
    mov $0x11, %eax
    rep stosq
    incl drawn
    cmpl $0, stop
    je 8b
    movl $1, stopped
9:  hlt
    jmp 9b
irq_handler:
    add $16, %rsp
    iretq
    .balign 8
drawn: .long 0
stop: .long 0
stopped: .long 0

    .balign 4096
user_start:
read_site:
    mov (%rbp), %rax
    sub $1, %ecx
    jnz read_site
    jmp back
write_site:
    mov %rdx, (%rbp)
    sub $1, %ecx
    jnz write_site
back:
    mov %r12, %r14
    ud2
    .balign 4096
user_end:
