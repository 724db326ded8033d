/* Hand-written cases: strings, stack, control flow, odd encodings, code that changes itself, 32-bit code. See cases.inc. */
#include "cases.inc"

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
