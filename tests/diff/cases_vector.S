/* Hand-written cases: x87, MMX, SSE, AVX and AVX-512. See cases.inc. */
#include "cases.inc"

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
