/* Hand-written cases: arithmetic, bits, moves, and the faults of memory operands. See cases.inc. */
#include "cases.inc"

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
