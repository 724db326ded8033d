/*
 * Hand-written cases, assembled into the test. Each is run from the same state:
 *   rax 8123456789abcdef  rcx 5             rdx 0fedcba987654321  rbx data + 400
 *   rsp stack + 800       rbp data + 600    rsi data + 800        rdi data + c00
 *   r8  4 bytes before the end of data page 0 (page 1 follows)
 *   r9  4 bytes before the hole (data page 2)
 *   r10 in the read-only page               r11 4 bytes before the end of it (page 4 follows)
 *   r12 data + 500        r13 data + 700    r14 8 bytes before the end of the data
 *   r15 7ffffffffffffff8: just under the addresses that are not canonical
 * USER and KERNEL say where a case makes sense; BOTH: in either. Labels 7, 8 and 9 are taken.
 */
        .intel_syntax noprefix

        .set    USER, 1
        .set    KERNEL, 2
        .set    BOTH, 3

        .macro  BEGIN name, where=BOTH, bits=64
        .if     \bits == 32
        .code32
        .else
        .code64
        .endif
        .pushsection .rodata.diff_names, "a"
7:      .asciz  "\name"
        .popsection
        .pushsection .data.rel.ro.diff_cases, "aw"
        .quad   7b, 8f
        .long   9f - 8f, \bits, \where, 0
        .popsection
8:
        .endm
        .macro  END
9:
        .endm

        /* Keep the result in RAX and the flags: in the memory at RSI, which moves on. */
        .macro  KEEP
        mov     [rsi], rax
        lahf
        seto    al
        mov     [rsi + 8], ax
        lea     rsi, [rsi + 10]
        .endm
        .macro  KEEP32
        mov     [esi], eax
        lahf
        seto    al
        mov     [esi + 4], ax
        lea     esi, [esi + 6]
        .endm

        .pushsection .data.rel.ro.diff_cases, "aw"
        .globl  diff_cases
        .hidden diff_cases
        .balign 8
diff_cases:
        .popsection
        .section .rodata.diff_code, "a"

/* ---- Arithmetic ---- */

        .macro  ALU op, reg_a, reg_b, name
        BEGIN   "\op \name"
        .irp    a, 0, 1, 0x7f7f7f7f7f7f7f7f, 0x8000000080008080, 0xffffffffffffffff
        .irp    b, 1, 0x8000000080008080
        movabs  rax, \a
        movabs  rdx, \b
        \op     \reg_a, \reg_b
        KEEP
        .endr
        .endr
        END
        BEGIN   "\op \name with memory"
        \op     [rbx], \reg_a
        KEEP
        \op     \reg_a, [r12]
        KEEP
        \op     [r8], \reg_a
        KEEP
        \op     \reg_b, [r11]
        KEEP
        \op     [r9], \reg_b
        END
        BEGIN   "\op \name, immediate"
        \op     \reg_a, 1
        KEEP
        \op     \reg_a, -1
        KEEP
        \op     \reg_b, 0x7f
        KEEP
        END
        .endm
        .irp    op, add, or, adc, sbb, and, sub, xor, cmp, test
        ALU     \op, al, dl, "8"
        ALU     \op, ax, dx, "16"
        ALU     \op, eax, edx, "32"
        ALU     \op, rax, rdx, "64"
        .endr

        .macro  UNARY op, reg, size, name
        BEGIN   "\op \name"
        .irp    a, 0, 1, 0x7f7f7f7f7f7f7f7f, 0x8000000080008080, 0xffffffffffffffff
        movabs  rax, \a
        \op     \reg
        KEEP
        .endr
        \op     \size ptr [rbx]
        KEEP
        lock \op \size ptr [r8]
        KEEP
        \op     \size ptr [r10]
        END
        .endm
        .irp    op, inc, dec, neg, not
        UNARY   \op, al, byte, "8"
        UNARY   \op, ax, word, "16"
        UNARY   \op, eax, dword, "32"
        UNARY   \op, rax, qword, "64"
        .endr

        .macro  SHIFT op, reg, carry, name
        BEGIN   "\op \name by cl, \carry"
        .irp    n, 0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255
        movabs  rax, 0x8123456789abcdef
        mov     ecx, \n
        \carry
        \op     \reg, cl
        KEEP
        .endr
        END
        .endm
        .irp    op, rol, ror, rcl, rcr, shl, shr, sar
        .irp    carry, clc, stc
        SHIFT   \op, al, \carry, "8"
        SHIFT   \op, ax, \carry, "16"
        SHIFT   \op, eax, \carry, "32"
        SHIFT   \op, rax, \carry, "64"
        .endr
        BEGIN   "\op immediate and memory"
        \op     al, 1
        KEEP
        \op     ah, 9
        KEEP
        \op     qword ptr [rbx], 33
        KEEP
        \op     dword ptr [r8], cl
        KEEP
        \op     word ptr [r8 + 3], 1
        KEEP
        \op     byte ptr [r10], cl
        END
        .endr
        .irp    op, shld, shrd
        BEGIN   "\op"
        .irp    n, 0, 1, 15, 16, 17, 31, 32, 63, 64
        mov     ecx, \n
        \op     rax, rdx, cl
        KEEP
        \op     eax, edx, \n
        KEEP
        .endr
        \op     [r8], edx, cl
        KEEP
        \op     [r9], edx, cl
        END
        .endr

        .irp    op, mul, imul
        BEGIN   "\op"
        .irp    a, 0, 1, 0x7fffffffffffffff, 0x8000000080008080, 0xffffffffffffffff
        movabs  rax, \a
        \op     al
        mov     [rsi + 16], rdx
        KEEP
        movabs  rax, \a
        mov     edx, 0x8001
        \op     dx
        mov     [rsi + 16], rdx
        KEEP
        movabs  rax, \a
        \op     rax
        mov     [rsi + 16], rdx
        KEEP
        .endr
        \op     dword ptr [r8]
        \op     ah
        \op     qword ptr [r9]
        END
        .endr
        BEGIN   "imul with two and three operands"
        imul    rax, rdx
        KEEP
        imul    ax, dx, -3
        KEEP
        imul    eax, [r8], 0x12345678
        KEEP
        imul    r9, rax, -1
        KEEP
        imul    rcx, [r14 + 4]
        END

        .macro  DIVIDE name, op, high, low, divisor
        BEGIN   "\name"
        movabs  rdx, \high
        movabs  rax, \low
        movabs  rbx, \divisor
        \op     rbx
        mov     [rsi], rdx
        mov     [rsi + 8], rax
        END
        .endm
        DIVIDE  "div", div, 5, 0x123456789abcdef0, 0x123456789
        DIVIDE  "div by zero", div, 0, 1, 0
        DIVIDE  "div overflows", div, 2, 0, 2
        DIVIDE  "div just fits", div, 1, 0xffffffffffffffff, 2
        DIVIDE  "idiv", idiv, 0xffffffffffffffff, 0xfffffffffffffff0, 7
        DIVIDE  "idiv of the least number by -1", idiv, 0xffffffffffffffff, 0x8000000000000000, -1
        DIVIDE  "idiv just fits", idiv, 0xffffffffffffffff, 0x8000000000000000, 1
        BEGIN   "div in 8 bits"
        mov     eax, 0x1234
        mov     bl, 0x56
        div     bl
        END
        BEGIN   "div in 8 bits overflows"
        mov     eax, 0x5678
        mov     bl, 0x56
        div     bl
        END
        BEGIN   "idiv in 16 bits, of memory"
        mov     edx, 0xffff
        mov     eax, 0xff00
        mov     word ptr [r8 + 3], 0x1f
        idiv    word ptr [r8 + 3]
        END
        BEGIN   "div in 32 bits by itself overflows"
        div     edx
        END
        BEGIN   "div by memory in the hole"
        xor     edx, edx
        div     qword ptr [r9]
        END
        BEGIN   "signs and widths"
        movsx   rbx, al
        movsx   r8d, ax
        movsxd  r9, eax
        movzx   r10d, dl
        movzx   r11, dx
        cbw
        cwde
        cdqe
        cwd
        cdq
        cqo
        END
        BEGIN   "adcx, adox"
        stc
        adcx    rax, rdx
        adox    rax, [rbx]
        adcx    eax, [r8]
        KEEP
        END

/* ---- Bits ---- */

        .irp    op, bt, bts, btr, btc
        BEGIN   "\op"
        .irp    n, 0, 1, 15, 16, 31, 32, 63, 64, -1
        mov     rcx, \n
        \op     ax, cx
        KEEP
        \op     rax, rcx
        KEEP
        .endr
        END
        BEGIN   "\op of memory beyond the operand"
        .irp    n, 0, 7, 64, -1, -64, 1000, -1000
        mov     rcx, \n
        \op     [r12], rcx
        KEEP
        \op     [r12], cx
        KEEP
        .endr
        END
        BEGIN   "\op of memory by an immediate"
        \op     dword ptr [rbx], 37
        KEEP
        \op     qword ptr [r8], 63
        KEEP
        END
        BEGIN   "\op of memory reaches the hole"
        mov     ecx, 64
        \op     [r9 - 4], ecx
        END
        BEGIN   "\op by an upper bit of a 32-bit register"
        mov     rcx, 0x100000003
        \op     [r12], ecx
        KEEP
        END
        .endr
        .irp    op, bsf, bsr, tzcnt, lzcnt, popcnt
        BEGIN   "\op"
        \op     rbx, rax
        KEEP
        xor     ecx, ecx
        \op     rdx, rcx
        KEEP
        \op     r9d, ecx
        KEEP
        \op     r10w, cx
        KEEP
        mov     dword ptr [r8], 0
        \op     r11d, [r8]
        KEEP
        END
        .endr
        .irp    op, andn, bextr, bzhi, pdep, pext, shlx, shrx, sarx
        BEGIN   "\op"
        mov     ecx, 0x1305
        .ifc    \op,andn
        andn    rbx, rax, rdx
        andn    ebx, ecx, [r8]
        .else
        .ifc    \op,pdep
        pdep    rbx, rax, rdx
        pdep    ebx, ecx, [r8]
        .else
        .ifc    \op,pext
        pext    rbx, rax, rdx
        pext    r9d, ecx, [r8]
        .else
        \op     rbx, rax, rcx
        \op     ebx, [r8], ecx
        .endif
        .endif
        .endif
        KEEP
        END
        .endr
        .irp    op, blsi, blsr, blsmsk
        BEGIN   "\op"
        \op     rbx, rax
        KEEP
        \op     r9d, [r8]
        KEEP
        END
        .endr
        BEGIN   "mulx, rorx, bswap, movbe, crc32"
        mulx    r9, r10, rax
        mulx    ebx, ebx, [r8]
        rorx    rbx, rax, 13
        bswap   rax
        bswap   r11d
        movbe   [r8], eax
        movbe   cx, [r13]
        crc32   eax, cl
        crc32   rdx, qword ptr [rdi]
        END

/* ---- Moves ---- */

        .irp    cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
        BEGIN   "set\cc, cmov\cc, j\cc"
        .irp    f, 0x00, 0x01, 0x40, 0x80, 0x04, 0x81, 0xd5
        mov     ah, \f
        sahf
        set\cc  [rsi]
        cmov\cc edx, ecx
        cmov\cc r9, [rdi]
        j\cc    1f
        mov     [rsi + 1], dl
1:      lea     rsi, [rsi + 2]
        .endr
        mov     al, 0x7f
        add     al, 1
        set\cc  dh
        set\cc  r13b
        j\cc    1f
        mov     [rsi], dh
1:
        END
        .endr
        BEGIN   "cmov reads its operand in any case"
        xor     eax, eax
        cmovne  eax, [r9]
        END
        BEGIN   "cmov clears the upper half in any case"
        mov     rbx, -1
        test    rbx, rbx
        cmove   ebx, eax
        END
        BEGIN   "high bytes"
        mov     ah, dl
        add     ch, ah
        xchg    dh, bl
        sub     bh, ch
        movzx   esi, bh
        cmpxchg dh, ch
        shr     ah, 3
        imul    ch
        test    bh, 0x40
        xadd    ah, dh
        mov     [rdi], ch
        or      bh, [rdi + 1]
        END
        BEGIN   "low bytes of the index registers"
        mov     sil, al
        add     dil, sil
        mov     bpl, dil
        xchg    sil, r9b
        mov     spl, al
        END
        BEGIN   "rsp as operand"
        add     rsp, 8
        mov     rax, rsp
        lea     rcx, [rsp + rdx]
        xchg    rsp, rdx
        add     rdx, 16
        mov     rsp, rdx
        sub     esp, 24
        imul    r9, rsp, 3
        xor     rbx, rsp
        adc     [rsi], rsp
        cmp     rsp, [rsi]
        cmovs   rsp, rax
        bts     rsp, 3
        shld    rsp, rax, 4
        END
        BEGIN   "rsp with bmi"
        andn    rsp, rax, rdx
        mov     rbx, rsp
        rorx    rsp, rbx, 7
        pext    r9, rsp, rax
        shlx    rsp, rbx, rsp
        END
        BEGIN   "all bases"
        .irp    r, rax, rcx, rdx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        mov     \r, rbx
        add     [\r], ecx
        xor     edx, [\r + 8]
        mov     [\r + 0x180], rbx
        .endr
        mov     rsp, rbx
        add     [rsp], ecx
        END
        BEGIN   "all indices"
        .irp    r, rax, rcx, rdx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        mov     \r, 24
        add     [rbx + \r], ebx
        lea     \r, [rbx + \r * 4 + 3]
        mov     \r, 5
        xor     [rbx + \r * 8 - 16], ebx
        .endr
        END
        BEGIN   "displacements alone"
        mov     rax, [0x20000440]
        add     dword ptr [0x20000ffe], 3
        movabs  rax, [0x20000100]
        movabs  [0x20000ffc], rax
        movabs  al, [0x20004100]
        mov     eax, [rip - 8]
        lea     rdx, [rip + 0x1234]
        END
        BEGIN   "fs and gs"
        mov     rax, fs:[8]
        add     gs:[rcx * 8], rax
        mov     rdx, gs:[rcx - 3]
        lea     r9, fs:[rcx]
        movdqu  xmm0, fs:[rcx]
        lock xadd gs:[0x20], rdx
        mov     rcx, 0xffffffffe0000000
        mov     rbx, fs:[rcx]
        END
        BEGIN   "32-bit addresses"
        mov     rbx, 0xffffffff20000400
        mov     eax, [ebx]
        add     [ebx + ecx * 4], ecx
        mov     ecx, -0x10
        lea     rdx, [ebx + ecx]
        lea     r9d, [ebx + ecx - 0x20000500]
        mov     r10, [ebx + ecx + 3]
        mov     ecx, 0xf0000000
        mov     rsi, [ebx + ecx * 2 - 0x10]
        END
        BEGIN   "xlat"
        movzx   eax, cl
        xlatb
        mov     rbx, -5
        mov     al, 7
        lea     rbx, [rdi]
        xlatb
        END
        BEGIN   "lahf, sahf, carry"
        mov     ah, 0xff
        sahf
        cmc
        lahf
        stc
        clc
        sbb     rdx, rdx
        END
        BEGIN   "movs between widths"
        mov     ax, [r8 + 3]
        mov     [r8 + 1], eax
        mov     rcx, [r8 - 2]
        movzx   edx, word ptr [r8 + 3]
        movsxd  rbx, dword ptr [r8 + 2]
        movnti  [r8], rcx
        mov     word ptr [r8 + 3], 0x1234
        mov     qword ptr [r11 + 1], -2
        END

/* ---- Faults ---- */

        BEGIN   "read of the hole"
        mov     rax, [r9 + 4]
        END
        BEGIN   "read into the hole"
        mov     rax, [r9]
        END
        BEGIN   "write into the hole writes nothing"
        mov     [r9], rax
        END
        BEGIN   "write to the read-only page"
        mov     [r10], al
        END
        BEGIN   "write from the read-only page on"
        mov     [r11], rax
        END
        BEGIN   "add to memory in the hole"
        stc
        adc     [r9], rax
        END
        BEGIN   "locked add across the pages"
        lock add [r8], rax
        lock xadd [r8 + 1], rdx
        xchg    [r8 - 1], rcx
        lock cmpxchg [r8 + 3], rdx
        END
        BEGIN   "locked add into the hole"
        lock add [r9], rax
        END
        BEGIN   "xchg into the hole"
        xchg    [r9], rax
        END
        BEGIN   "cmpxchg that fails needs a writable page"
        mov     rax, [r10]
        not     rax
        lock cmpxchg [r10], rdx
        END
        BEGIN   "not canonical"
        mov     rax, [r15 + 0x800]
        END
        BEGIN   "not canonical, stack segment"
        mov     rbp, r15
        mov     rax, [rbp + 0x800]
        END
        BEGIN   "just under what is not canonical"
        movabs  rax, 0x00007ffffffffffc
        mov     rax, [rax]
        END
        BEGIN   "ud2"
        mov     eax, 1
        ud2
        END
        .irp    op, hlt, cli, sti, clts, invd, rdmsr, wrmsr
        BEGIN   "\op is privileged", USER
        \op
        END
        .endr
        BEGIN   "ports are privileged", USER
        mov     edx, 0x3f8
        out     dx, al
        END
        BEGIN   "control registers are privileged", USER
        mov     rax, cr0
        END
        BEGIN   "lgdt is privileged", USER
        lgdt    [rbx]
        END
        BEGIN   "invlpg is privileged", USER
        invlpg  [rbx]
        END

/* ---- Compare and exchange ---- */

        .macro  EXCHANGES size, reg, a
        BEGIN   "cmpxchg \size"
        mov     \reg, [rbx]
        cmpxchg [rbx], \reg
        KEEP
        mov     \a, [rbx]
        cmpxchg [rbx], \reg
        KEEP
        lock cmpxchg [rbx], \reg
        KEEP
        cmpxchg \reg, \reg
        KEEP
        END
        .endm
        EXCHANGES 8, dl, al
        EXCHANGES 16, dx, ax
        EXCHANGES 32, edx, eax
        EXCHANGES 64, rdx, rax
        BEGIN   "cmpxchg clears the upper half"
        mov     rcx, -1
        mov     rax, -1
        mov     dword ptr [rbx], 5
        cmpxchg [rbx], ecx
        mov     r9, rax
        mov     rax, -1
        cmpxchg [rbx], ecx
        END
        BEGIN   "cmpxchg8b, cmpxchg16b"
        mov     eax, [rdi]
        mov     edx, [rdi + 4]
        lock cmpxchg8b [rdi]
        cmpxchg8b [rdi]
        mov     rax, [rdi + 0x10]
        mov     rdx, [rdi + 0x18]
        lock cmpxchg16b [rdi + 0x10]
        cmpxchg16b [rdi + 0x10]
        END
        BEGIN   "cmpxchg8b across the pages"
        lock cmpxchg8b [r8]
        cmpxchg8b [r9]
        END
        BEGIN   "cmpxchg16b must be aligned"
        lock cmpxchg16b [rdi + 8]
        END

/* ---- Strings ---- */

        .irp    df, cld, std
        .irp    s, b, w, d, q
        BEGIN   "\df movs\s"
        \df
        movs\s
        rep movs\s
        movs\s
        END
        BEGIN   "\df stos\s"
        \df
        stos\s
        rep stos\s
        END
        BEGIN   "\df lods\s"
        \df
        lods\s
        rep lods\s
        END
        BEGIN   "\df scas\s"
        \df
        scas\s
        repne scas\s
        mov     ecx, 3
        repe scas\s
        END
        BEGIN   "\df cmps\s"
        \df
        cmps\s
        mov     ecx, 7
        repe cmps\s
        mov     ecx, 7
        repne cmps\s
        END
        BEGIN   "\df rep movs\s across the pages"
        \df
        lea     rdi, [r8 + 1]
        lea     rsi, [r11 + 2]
        rep movs\s
        END
        BEGIN   "\df rep movs\s to itself, ahead"
        \df
        lea     rsi, [rbx]
        lea     rdi, [rbx + 3]
        mov     ecx, 40
        rep movs\s
        END
        BEGIN   "\df rep movs\s to itself, behind"
        \df
        lea     rsi, [rbx + 3]
        lea     rdi, [rbx]
        mov     ecx, 40
        rep movs\s
        END
        BEGIN   "\df rep stos\s across the pages"
        \df
        lea     rdi, [r8 - 9]
        mov     ecx, 20
        rep stos\s
        END
        BEGIN   "\df rep stos\s into the hole"
        \df
        lea     rdi, [r9 - 41]
        mov     ecx, 100
        rep stos\s
        END
        BEGIN   "\df rep movs\s out of the hole"
        \df
        lea     rsi, [r9 - 23]
        mov     ecx, 100
        rep movs\s
        END
        BEGIN   "\df rep movs\s into the read-only page"
        \df
        lea     rdi, [r10 + 16]
        rep movs\s
        END
        BEGIN   "\df rep lods\s into the hole"
        \df
        lea     rsi, [r9 - 17]
        mov     ecx, 10
        rep lods\s
        END
        BEGIN   "\df repe scas\s of many"
        \df
        lea     rdi, [r8]
        mov     ecx, 64
        xor     eax, eax
        rep stos\s
        lea     rdi, [r8]
        mov     ecx, 70
        repe scas\s
        END
        BEGIN   "\df repe cmps\s of many"
        \df
        lea     rdi, [r8 - 16]
        mov     rbx, rdi
        mov     rsi, r12
        mov     ecx, 30
        rep movs\s
        mov     rdi, rbx
        mov     rsi, r12
        mov     ecx, 40
        repe cmps\s
        END
        .endr
        .endr
        BEGIN   "rep with a count of zero"
        xor     ecx, ecx
        mov     rdi, r15
        rep stosb
        rep movsq
        cmp     eax, eax
        repne scasb
        END
        BEGIN   "strings with 32-bit addresses"
        mov     rsi, 0xffffffff20000800
        mov     rdi, 0xffffffff20000c00
        mov     rcx, 0xffffffff00000005
        addr32 rep movsb
        addr32 stosd
        addr32 lodsw
        END
        BEGIN   "32-bit count of zero"
        mov     rcx, 0xffffffff00000000
        mov     rsi, 0xffffffff20000800
        addr32 rep lodsb
        END
        BEGIN   "movs from fs"
        mov     esi, 8
        rep movs byte ptr es:[rdi], byte ptr fs:[rsi]
        lods    eax, dword ptr gs:[rsi]
        END
        BEGIN   "rep stosb of a page"
        mov     edi, 0x20000010
        mov     ecx, 0x1ff0
        rep stosb
        END
        BEGIN   "rep movsq of a page"
        mov     esi, 0x20000000
        mov     edi, 0x20001000
        mov     ecx, 0x200
        rep movsq
        END
        BEGIN   "repne on movs, repne on stos"
        .byte   0xf2, 0xa4
        mov     ecx, 3
        .byte   0xf2, 0x48, 0xab
        END

/* ---- Stack ---- */

        BEGIN   "push and pop"
        push    rax
        push    -5
        push    0x12345678
        push    qword ptr [rbx]
        push    r13
        pop     rdx
        pop     r9
        pop     qword ptr [rdi + 8]
        pop     rcx
        END
        BEGIN   "push and pop of 16 bits"
        push    ax
        pushw   -5
        push    word ptr [rbx]
        pop     dx
        pop     word ptr [rdi]
        END
        BEGIN   "push rsp, pop rsp"
        push    rsp
        pop     rax
        push    rax
        push    rsp
        pop     rsp
        pop     rcx
        push    rbx
        pop     rsp
        END
        BEGIN   "pop sp"
        pushw   0x1234
        pop     sp
        END
        BEGIN   "push and pop relative to rsp"
        push    qword ptr [rsp]
        push    qword ptr [rsp + 8]
        pop     qword ptr [rsp + 16]
        pop     qword ptr [rsp]
        pop     qword ptr [rsp + rcx * 8]
        END
        BEGIN   "push onto nothing"
        mov     esp, 0x30000004
        push    rax
        END
        BEGIN   "pop from nothing"
        mov     esp, 0x30000ffc
        pop     rax
        END
        BEGIN   "pop to the hole"
        pop     qword ptr [r9]
        END
        BEGIN   "pop to the hole relative to rsp"
        mov     rsp, r9
        sub     rsp, 8
        pop     qword ptr [rsp]
        END
        BEGIN   "push with rsp not canonical"
        lea     rsp, [r15 + 0x800]
        push    rax
        END
        BEGIN   "enter and leave"
        enter   0x20, 0
        mov     [rsp], rcx
        enter   8, 1
        leave
        leave
        END
        BEGIN   "enter with levels"
        mov     rbp, rsp
        enter   0x10, 3
        enter   0, 31
        enter   3, 40
        END
        BEGIN   "enter of 16 bits"
        .byte   0x66
        enter   0x20, 2
        .byte   0x66
        leave
        END
        BEGIN   "enter below the stack"
        enter   0x900, 0
        END
        BEGIN   "leave to nowhere"
        mov     rbp, r9
        leave
        END
        BEGIN   "pushf and popf", USER
        stc
        std
        pushfq
        pop     rax
        mov     edx, 0x246
        push    rdx
        popfq
        pushf
        pushfw
        popfw
        END

/* ---- Control ---- */

        BEGIN   "call and ret"
        call    1f
        mov     ecx, 1
        jmp     3f
1:      call    2f
        mov     edx, 2
        ret
2:      mov     ebx, 3
        ret     8
3:
        END
        BEGIN   "ret with an immediate"
        lea     rax, [rip + 1f]
        push    rax
        ret     0xfff8
1:
        END
        BEGIN   "indirect jumps and calls"
        lea     rax, [rip + 1f]
        jmp     rax
        ud2
1:      lea     rax, [rip + 2f]
        mov     [rbx], rax
        call    qword ptr [rbx]
        jmp     4f
2:      lea     rax, [rip + 3f]
        mov     [r8], rax
        jmp     qword ptr [r8]
        ud2
3:      ret
4:
        END
        BEGIN   "call through rsp"
        lea     rax, [rip + 1f]
        push    rax
        call    qword ptr [rsp]
        ud2
1:      pop     rcx
        pop     rdx
        END
        BEGIN   "jump to an address that is not canonical"
        add     r15, 0x800
        jmp     r15
        END
        BEGIN   "call of an address that is not canonical"
        add     r15, 0x800
        call    r15
        END
        BEGIN   "ret to an address that is not canonical"
        add     r15, 0x800
        push    r15
        ret
        END
        BEGIN   "jump into the hole"
        jmp     r9
        END
        BEGIN   "jump to data", USER
        jmp     rbx
        END
        BEGIN   "call with no stack"
        mov     esp, 0x30000000
        call    1f
1:
        END
        BEGIN   "ret with no stack"
        mov     esp, 0x30001000
        ret
        END
        BEGIN   "call through the hole"
        call    qword ptr [r9]
        END
        BEGIN   "loops"
        xor     eax, eax
1:      inc     eax
        loop    1b
        mov     ecx, 9
2:      add     al, 0x20
        loopne  2b
        mov     ecx, 9
3:      cmp     al, al
        loope   3b
        mov     rcx, 0x100000001
4:      inc     edx
        addr32 loop 4b
        END
        BEGIN   "jrcxz and jecxz"
        jrcxz   1f
        mov     eax, 1
1:      mov     rcx, 0x100000000
        jrcxz   2f
        jecxz   3f
2:      ud2
3:      xor     ecx, ecx
        jrcxz   4f
        ud2
4:
        END
        BEGIN   "fibonacci"
        mov     ecx, 60
        xor     eax, eax
        mov     edx, 1
1:      xadd    rax, rdx
        dec     ecx
        jnz     1b
        END
        BEGIN   "recursion"
        mov     edi, 9
        call    1f
        jmp     9f
1:      cmp     edi, 2
        jb      2f
        push    rdi
        dec     edi
        call    1b
        pop     rdi
        push    rax
        sub     edi, 2
        call    1b
        pop     rdx
        add     eax, edx
        ret
2:      mov     eax, edi
        ret
        END

/* ---- x87 and MMX ---- */

        BEGIN   "x87 arithmetic"
        fninit
        fld1
        fldpi
        fadd    st, st(1)
        fld     qword ptr [rbx]
        fmul
        fild    dword ptr [r8]
        fdivp
        fld     tbyte ptr [r12]
        fsubr   dword ptr [rdi]
        fchs
        fsqrt
        fxch
        fstp    qword ptr [rsi]
        fst     dword ptr [rsi + 8]
        fstp    tbyte ptr [r8 - 2]
        END
        BEGIN   "x87 integers"
        fninit
        fild    qword ptr [rbx]
        fild    word ptr [rbx]
        fiadd   dword ptr [rbx + 4]
        fistp   qword ptr [rsi]
        fist    word ptr [rsi + 8]
        fisttp  dword ptr [rsi + 12]
        fbld    [rdi]
        fbstp   [r8 - 1]
        fnstcw  [rsi + 20]
        fnstsw  ax
        fnstsw  [rsi + 22]
        END
        BEGIN   "x87 compares"
        fninit
        fldz
        fld1
        fcomi   st, st(1)
        KEEP
        fucomip st, st(1)
        KEEP
        fld     qword ptr [rbx]
        fcom    qword ptr [rdi]
        fnstsw  ax
        ftst
        fxam
        fnstsw  [rsi]
        fcmovb  st, st(1)
        fcmovnu st, st(1)
        END
        BEGIN   "x87 functions"
        fninit
        fld1
        fld     dword ptr [rcx + rbx]
        fsin
        fldl2t
        fyl2x
        fptan
        f2xm1
        fscale
        fprem
        frndint
        fxtract
        fpatan
        END
        BEGIN   "x87 exception, unmasked"
        fninit
        mov     word ptr [rsi], 0x37b
        fldcw   [rsi]
        fld1
        fldz
        fdivp
        mov     eax, 1
        fwait
        mov     eax, 2
        END
        BEGIN   "x87 exception meets memory in the hole"
        fninit
        mov     word ptr [rsi], 0x37b
        fldcw   [rsi]
        fld1
        fldz
        fdivp
        fld     qword ptr [r9]
        END
        BEGIN   "x87 store that an unmasked exception prevents"
        fninit
        mov     word ptr [rsi], 0x37e
        fldcw   [rsi]
        fld     tbyte ptr [r12]
        fldpi
        fscale
        fistp   word ptr [r8 + 3]
        mov     eax, 1
        fnclex
        fld1
        fistp   qword ptr [r8]
        END
        BEGIN   "x87 stack overflow"
        fninit
        .rept   9
        fld1
        .endr
        fnstsw  ax
        fnclex
        fincstp
        ffree   st(3)
        END
        BEGIN   "x87 store to the hole"
        fninit
        fld1
        fstp    tbyte ptr [r9]
        END
        BEGIN   "mmx"
        movq    mm0, [rbx]
        movd    mm1, eax
        paddw   mm0, mm1
        punpcklbw mm0, [r8]
        pmulhw  mm0, mm1
        movq    [r8 + 1], mm0
        movntq  [rsi], mm1
        pshufw  mm2, mm0, 0x1b
        movq2dq xmm3, mm2
        cvtpi2ps xmm4, mm1
        maskmovq mm0, mm1
        emms
        END

/* ---- SSE and AVX ---- */

        BEGIN   "sse"
        movups  xmm0, [r8]
        movaps  xmm1, [rbx]
        addps   xmm0, xmm1
        mulsd   xmm2, [r8]
        sqrtss  xmm3, dword ptr [r11]
        cvtsi2sd xmm4, rax
        cvttsd2si rcx, xmm4
        cvtss2si edx, dword ptr [rdi]
        shufps  xmm0, xmm1, 0x4e
        comiss  xmm0, xmm1
        KEEP
        movntps [rdi], xmm0
        movhps  [r8 - 2], xmm1
        movmskps eax, xmm0
        stmxcsr [rsi]
        ldmxcsr [rsi]
        END
        .irp    op, movaps, movdqa, addps, pand, pshufb
        BEGIN   "\op must be aligned"
        \op     xmm0, [rbx + 1]
        END
        BEGIN   "\op must be aligned, also across the pages"
        \op     xmm0, [r8]
        END
        .endr
        BEGIN   "movaps store must be aligned"
        movaps  [rbx + 8], xmm0
        END
        BEGIN   "vmovaps ymm must be aligned"
        vmovaps ymm0, [rbx + 16]
        END
        BEGIN   "unaligned avx"
        vaddps  ymm0, ymm1, [r8]
        vmovups [r8 - 7], ymm0
        vpaddb  xmm2, xmm3, [r11]
        vbroadcastss ymm4, dword ptr [r8 + 1]
        vinserti128 ymm5, ymm5, [r8 - 9], 1
        vextracti128 [r8 - 3], ymm5, 1
        vzeroupper
        vzeroall
        END
        BEGIN   "avx store into the hole writes nothing"
        vmovups [r9 - 20], ymm0
        END
        BEGIN   "unmasked sse exception"
        mov     dword ptr [rsi], 0x1d80
        ldmxcsr [rsi]
        xorps   xmm0, xmm0
        divss   xmm1, xmm0
        END
        BEGIN   "ldmxcsr with reserved bits"
        mov     dword ptr [rsi], -1
        ldmxcsr [rsi]
        END
        BEGIN   "fma, f16c"
        vfmadd213ps ymm0, ymm1, [r8]
        vfnmsub231sd xmm2, xmm3, qword ptr [r8]
        vcvtph2ps ymm4, [r8]
        vcvtps2ph [r8 - 5], ymm4, 3
        END
        BEGIN   "aes, clmul, sha, gfni"
        aesenc  xmm0, [rbx]
        vaesdeclast xmm1, xmm2, [r8]
        aeskeygenassist xmm3, xmm4, 0x1b
        pclmulqdq xmm5, [rdi], 0x11
        sha256rnds2 xmm6, xmm7
        sha1rnds4 xmm8, [rbx], 2
        sha256msg1 xmm9, [rdi]
        END
        BEGIN   "pcmpxstrx"
        pcmpistri xmm0, [r8], 0x0c
        KEEP
        pcmpestrm xmm1, [r8 + 1], 0x40
        KEEP
        vpcmpestri xmm2, [rdi], 0x18
        KEEP
        mov     [rsi], ecx
        END
        BEGIN   "maskmovdqu"
        maskmovdqu xmm0, xmm1
        lea     rdi, [r8]
        maskmovdqu xmm2, xmm3
        END
        .macro  MASKED name, at
        BEGIN   "vmaskmov \name"
        vpcmpeqd ymm1, ymm1, ymm1
        vpsrldq ymm1, ymm1, 8
        vmaskmovps ymm0, ymm1, [\at]
        vpmaskmovq xmm2, xmm1, [\at]
        vmaskmovpd [\at], ymm1, ymm0
        vpmaskmovd [\at], xmm1, xmm2
        END
        .endm
        MASKED  "in a page", rbx
        MASKED  "across the pages", r8
        MASKED  "masked at the hole", r9-4
        MASKED  "into the hole", r9
        BEGIN   "vmaskmov of nothing"
        vpxor   ymm1, ymm1, ymm1
        vmaskmovps ymm0, ymm1, [r9]
        vmaskmovps [r9], ymm1, ymm0
        vmaskmovps ymm2, ymm1, [r15 + 0x800]
        END
        .macro  GATHERED name, base, scale
        BEGIN   "gather \name"
        vpcmpeqd ymm1, ymm1, ymm1
        vpgatherdd ymm0, [\base + ymm6 * \scale], ymm1
        vpcmpeqd ymm1, ymm1, ymm1
        vgatherqpd ymm2, [\base + ymm14 * \scale], ymm1
        vpcmpeqd xmm1, xmm1, xmm1
        vpgatherdq ymm3, [\base + xmm6 * \scale], ymm1
        vpsrldq xmm1, xmm1, 4
        vpgatherqd xmm4, [\base + ymm14 * \scale], xmm1
        END
        .endm
        GATHERED "in a page", rbx, 4
        GATHERED "across the pages", r8-40, 2
        GATHERED "into the hole", r9-60, 4

/* ---- AVX-512 ---- */

        BEGIN   "avx-512 in a page"
        vaddps  zmm0, zmm1, [rbx]
        vmovdqu8 zmm2 {k1}, [rdi]
        vpternlogd zmm3, zmm4, [rbx] {1to16}, 0x96
        vpermd  zmm5, zmm6, [rdi]
        vpconflictd zmm7, zmm0
        vcompressps [rsi] {k2}, zmm0
        vpexpandd zmm8 {k3} {z}, [rsi]
        kmovq   k4, rax
        kaddq   k5, k4, k1
        kortestq k4, k5
        KEEP
        kmovd   k6, [rdi]
        kmovw   [rdi], k4
        vpcmpub k3 {k1}, zmm2, [rbx], 2
        vcvtps2pd zmm16, [rbx]
        vpmovdb [rsi + 64] {k2}, zmm17
        vscatterdps [rbx + zmm6 * 4] {k4}, zmm9
        END
        .macro  MASKED512 name, at, mask
        BEGIN   "avx-512 \name"
        mov     rax, \mask
        kmovq   k1, rax
        vmovdqu32 zmm0 {k1}, [\at]
        vmovdqu8 zmm1 {k1} {z}, [\at]
        vaddpd  zmm2 {k1}, zmm3, [\at]
        vmovdqu16 [\at] {k1}, zmm4
        vpcompressd [\at] {k1}, zmm5
        vexpandps zmm7 {k1}, [\at]
        vpaddd  zmm8 {k1}, zmm9, [\at] {1to16}
        vpmovqd [\at] {k1}, zmm10
        vbroadcasti32x4 zmm11 {k1}, [\at]
        vmovss  xmm12 {k1}, [\at]
        vmovsd  [\at] {k1}, xmm13
        END
        .endm
        MASKED512 "masked, across the pages", r8-13, 0x5a5a5a5a5a5a5a5a
        MASKED512 "all, across the pages", r8-13, -1
        MASKED512 "masked before the hole", r9-60, 0x00ff
        MASKED512 "masked into the hole", r9-28, 0xffffffff
        MASKED512 "nothing in the hole", r9+64, 0
        MASKED512 "nothing not canonical", r15+0x800, 0
        MASKED512 "one in the hole", r9-4, 2
        BEGIN   "avx-512 gathers and scatters into the hole"
        mov     eax, 0xffff
        kmovw   k1, eax
        vpgatherdd zmm0 {k1}, [r9 - 80 + zmm6 * 4]
        END
        BEGIN   "avx-512 scatters into the hole"
        mov     eax, 0x7ffe
        kmovw   k1, eax
        vscatterdpd [r9 - 80 + ymm6 * 4] {k1}, zmm1
        END
        BEGIN   "avx-512 rounding"
        vaddpd  zmm0, zmm1, zmm2 {ru-sae}
        vcvtps2udq zmm3, zmm4 {rz-sae}
        vcmpps  k1, zmm5, zmm6, 0x11 {sae}
        END

/* ---- Odd encodings ---- */

        BEGIN   "rex that does not count"
        .byte   0x48, 0x66, 0x01, 0xd0 /* add ax, dx */
        .byte   0x48, 0x2e, 0x01, 0xd0 /* add eax, edx */
        .byte   0x41, 0xf2, 0x90       /* nop */
        .byte   0xf3, 0x41, 0x90       /* xchg r8d, eax */
        .byte   0x41, 0x90             /* xchg r8d, eax */
        END
        BEGIN   "segment overrides that do not count"
        .byte   0x2e, 0x8b, 0x03 /* mov eax, cs:[rbx] */
        .byte   0x36, 0x8b, 0x0b /* mov ecx, ss:[rbx] */
        .byte   0x65, 0x3e, 0x8b, 0x13
        END
        BEGIN   "the other opcode for the same"
        .byte   0x8b, 0xc2 /* mov eax, edx */
        .byte   0x03, 0xc2 /* add eax, edx */
        .byte   0x81, 0xc0, 0x01, 0, 0, 0
        .byte   0xc7, 0xc1, 0x78, 0x56, 0x34, 0x12
        .byte   0xf6, 0xc8, 0x40 /* test al, 0x40: /1 is /0 */
        .byte   0xc0, 0xf0, 0x03 /* shl al, 3: /6 is /4 */
        .byte   0x0f, 0x1f, 0x40, 0x12
        .byte   0xf3, 0x0f, 0x1e, 0xfa
        END
        BEGIN   "sib without base"
        mov     ecx, 0x100
        .byte   0x8b, 0x04, 0x0d, 0, 0, 0, 0x20             /* [rcx + disp32] */
        .byte   0x41, 0x8b, 0x14, 0x0d, 4, 0, 0, 0x20       /* REX.B does not count */
        .byte   0x67, 0x41, 0x8b, 0x1c, 0x0d, 8, 0, 0, 0x20 /* nor with 32-bit addresses */
        .byte   0x8b, 0x34, 0x25, 0, 0, 0, 0x20             /* [disp32] */
        END
        BEGIN   "15 bytes"
        .byte   0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66
        .byte   0x01, 0xd0
        END
        BEGIN   "16 bytes"
        .byte   0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66
        .byte   0x01, 0xd0
        END
        .irp    byte, 0x06, 0x0e, 0x16, 0x1e, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce
        BEGIN   "opcode \byte is none"
        .byte   \byte, 0xc0, 0, 0, 0, 0, 0, 0
        END
        .endr
        .irp    byte, 0xd4, 0xd5, 0xd6, 0xea
        BEGIN   "opcode \byte is none"
        .byte   \byte, 0x0a, 0, 0, 0, 0, 0, 0
        END
        .endr
        BEGIN   "lock where it may not be"
        lock
        mov     eax, ecx
        END
        BEGIN   "lock of a register"
        .byte   0xf0, 0x01, 0xc8
        END
        BEGIN   "rdfsbase, rdgsbase, wrgsbase"
        rdfsbase rax
        rdgsbase rdx
        rdgsbase ecx
        mov     r9d, 0x20000100
        wrgsbase r9
        mov     rbx, gs:[0x20]
        END
        BEGIN   "pause, nop, hints"
        pause
        nop
        nop     word ptr [r9 + 4]
        prefetcht0 [r9 + 4]
        endbr64
        rdsspq  rax
        lfence
        sfence
        mfence
        clflush [rbx]
        END
        BEGIN   "clflush in the hole"
        clflush [r9 + 4]
        END

/* ---- Code that writes to itself ---- */

        BEGIN   "store over the next instruction"
        mov     byte ptr [rip + 1f + 1], 0x42
2:
1:      mov     dl, 0x11
        mov     [rsi], dl
        END
        BEGIN   "store over an instruction already executed"
        xor     edx, edx
        mov     ecx, 5
1:      mov     eax, 1
        add     edx, eax
        inc     dword ptr [rip + 1b + 1]
2:      loop    1b
        END
        BEGIN   "store over the instruction itself"
        mov     ecx, 3
1:      mov     dword ptr [rip + 1b], 0x90909090
2:      loop    1b
        END
        BEGIN   "store a branch into a loop"
        mov     ecx, 10
1:      inc     edx
        cmp     ecx, 4
        jne     3f
        mov     word ptr [rip + 1b], 0x04eb
2:
3:      loop    1b
        END
        BEGIN   "rep movs of code"
        lea     rsi, [rip + 1f]
        lea     rdi, [rip + 2f]
        mov     rbx, rdi
        mov     ecx, 4
        cld
        rep movsb
        jmp     rbx
1:      inc     eax
        inc     edx
2:      ud2
        ud2
        END
        BEGIN   "rep stosb over what follows"
        lea     rdi, [rip + 1f]
        mov     ecx, 6
        mov     al, 0x90
        rep stosb
1:      ud2
        ud2
        ud2
        inc     edx
        END
        BEGIN   "locked store into code"
        lock add byte ptr [rip + 1f + 1], 3
2:
1:      mov     dl, 0x11
        xchg    [rip + 1b + 1], dl
3:      mov     bl, [rip + 1b + 1]
4:
        END
        BEGIN   "vector store into code"
        movdqu  xmm0, [rip + 1f]
        movdqu  [rip + 2f], xmm0
        jmp     2f
1:      inc     eax
        inc     ecx
        inc     edx
        inc     ebx
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
2:      ud2
        ud2
        ud2
        ud2
        ud2
        ud2
        ud2
        ud2
        END
        BEGIN   "push into code"
        lea     rbx, [rsp]
        lea     rsp, [rip + 1f + 8]
        movabs  rax, 0x9090909090c2ff90 /* inc edx */
        push    rax
1:      ud2
        ud2
        ud2
        ud2
        mov     rsp, rbx
        END
        BEGIN   "code made on the other page"
        mov     edi, 0x10001800
        mov     dword ptr [rdi], 0xc3c0ff /* inc eax; ret */
        call    rdi
        mov     word ptr [rdi], 0xc2ff /* inc edx */
        call    rdi
        mov     ecx, 4
1:      mov     byte ptr [rdi + 1], 0xc3 /* inc ebx */
        call    rdi
        mov     byte ptr [rdi + 1], 0xc6 /* inc esi */
        call    rdi
        loop    1b
        END
        BEGIN   "code across both pages"
        mov     edi, 0x10000ffd
        mov     dword ptr [rdi], 0x11223344
        mov     byte ptr [rdi - 1], 0xb8 /* mov eax, imm32, across */
        mov     byte ptr [rdi + 4], 0xc3
        lea     rbx, [rdi - 1]
        call    rbx
        mov     edx, eax
        mov     byte ptr [rdi + 3], 0x77
        call    rbx
        END

/* ---- 32-bit code ---- */

        .irp    op, aaa, aas, daa, das
        BEGIN   "\op", USER, 32
        .irp    a, 0, 5, 9, 10, 15, 0x1a, 0x90, 0x99, 0x9a, 0xa0, 0xf5, 0xf9, 0xfa, 0xff
        .irp    f, 0, 0x01, 0x10, 0x11
        mov     ah, \f
        sahf
        mov     eax, 0x12345600 + \a
        \op
        mov     [esi], eax
        setc    [esi + 2]
        lea     esi, [esi + 3]
        .endr
        .endr
        END
        .endr
        BEGIN   "aam, aad", USER, 32
        .irp    a, 0x0000, 0x0509, 0xff99, 0x12ff, 0x8080
        mov     eax, \a
        aam
        mov     [esi], ax
        mov     eax, \a
        aad
        mov     [esi + 2], ax
        mov     eax, \a
        .byte   0xd4, 0x10
        mov     [esi + 4], ax
        mov     eax, \a
        .byte   0xd5, 0xff
        mov     [esi + 6], ax
        add     esi, 8
        .endr
        END
        BEGIN   "aam by zero", USER, 32
        .byte   0xd4, 0x00
        END
        BEGIN   "salc", USER, 32
        stc
        .byte   0xd6
        mov     ah, al
        clc
        .byte   0xd6
        END
        BEGIN   "pusha, popa", USER, 32
        pushad
        pushaw
        popaw
        mov     [esp + 12], eax
        popad
        END
        BEGIN   "bound", USER, 32
        mov     dword ptr [ebx], -3
        mov     dword ptr [ebx + 4], 9
        mov     ecx, 9
        bound   ecx, [ebx]
        mov     ecx, -3
        bound   ecx, [ebx]
        inc     eax
        mov     ecx, 10
        bound   ecx, [ebx]
        END
        BEGIN   "bound of 16 bits", USER, 32
        mov     dword ptr [ebx], 0x0002fffe
        mov     ecx, 0x7fffe
        bound   cx, [ebx]
        dec     ecx
        bound   cx, [ebx]
        END
        BEGIN   "inc and dec, short forms", USER, 32
        .irp    r, eax, ecx, edx, ebx, esp, ebp, esi, edi
        inc     \r
        dec     \r
        inc     \r
        .endr
        .irp    r, ax, cx, dx, bx, sp, bp, si, di
        dec     \r
        .endr
        END
        BEGIN   "16-bit addresses", USER, 32
        mov     ebx, 0x12340400
        mov     esi, 0xffff0010
        lea     eax, [bx + si + 5]
        lea     ecx, [bp + di - 1]
        lea     edx, [di]
        lea     di, [bx]
        mov     ax, [bx + si]
        END
        BEGIN   "16-bit operands and branches", USER, 32
        push    ax
        push    word ptr [ebx]
        pop     dx
        pushw   0x8000
        popw    [edi]
        mov     cx, 3
1:      inc     edx
        addr16 loop 1b
        jcxz    2f
        ud2
2:      call    3f
        jmp     4f
3:      ret
4:
        END
        BEGIN   "16-bit jump", USER, 32
        .byte   0x66, 0xeb, 0x00
        END
        BEGIN   "moves of the accumulator", USER, 32
        mov     eax, [0x20000440]
        mov     [0x20000ffe], eax
        mov     al, [0x20000441]
        mov     ax, [0x20004440]
        xchg    eax, esp
        xchg    eax, esp
        xlatb
        END
        BEGIN   "enter, leave", USER, 32
        enter   0x20, 3
        leave
        enter   4, 0
        leave
        END
        BEGIN   "strings", USER, 32
        rep movsd
        std
        mov     ecx, 7
        rep stosw
        lodsb
        cld
        mov     ecx, 4
        repne scasb
        addr16 stosb
        END
        BEGIN   "alias 82", USER, 32
        .byte   0x82, 0xc0, 0x7f
        .byte   0x82, 0x2b, 0x80
        KEEP32
        END
        BEGIN   "arithmetic with esp", USER, 32
        add     esp, 4
        mov     eax, esp
        xor     [esp + 8], esp
        adc     ecx, [esp + ecx * 4]
        sub     esp, 12
        imul    eax, esp, 5
        KEEP32
        END
        BEGIN   "high bytes", USER, 32
        mov     ah, bl
        add     dh, ch
        xchg    bh, ah
        mov     [edi], bh
        cmpxchg ch, dh
        KEEP32
        END
        BEGIN   "sse and avx", USER, 32
        movups  xmm0, [ebx]
        vaddps  ymm1, ymm0, [edi]
        vpinsrd xmm2, xmm2, eax, 1
        cvtsi2sd xmm3, eax
        vcvttsd2si ecx, xmm3
        vzeroupper
        andn    edx, eax, ecx
        END
        BEGIN   "x87", USER, 32
        fninit
        fild    dword ptr [ebx]
        fldpi
        fmulp
        fistp   dword ptr [esi]
        END

        .pushsection .data.rel.ro.diff_cases, "aw"
        .globl  diff_cases_end
        .hidden diff_cases_end
diff_cases_end:
        .popsection
        .section .note.GNU-stack, "", @progbits
