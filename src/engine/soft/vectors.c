/*
 * The guest's vector and x87 state between the host's registers and the canonical XSAVE area.
 */
#include "engine/soft/system.h"

#define XSAVE_MXCSR 24
#define XSAVE_HEADER 512
#define XSTATE_AVX 4u
#define MXCSR_DEFAULT 0x1f80u
/* XRSTOR faults on what the host's processor lacks: bit 17, AMD's misaligned mode. */
#define MXCSR_VALID 0xffffu

void soft_vectors_park(struct soft_cpu *cpu)
{
    static const uint32_t host_mxcsr = MXCSR_DEFAULT;

    if (!cpu->vectors_live)
        return;
    cpu->vectors_live = false;
    /* XSAVEOPT leaves out what did not change since soft_vectors_load(): nobody writes to s.xsave
     * in between. What is in its initial state has its XSTATE_BV bit clear. */
    if (cpu->features.xsaveopt)
        __asm__ volatile("xsaveopt64 %0"
                         : "+m"(cpu->s.xsave)
                         : "a"((uint32_t)cpu->xsave_mask), "d"((uint32_t)(cpu->xsave_mask >> 32))
                         : "memory");
    else
        __asm__ volatile("xsave64 %0"
                         : "+m"(cpu->s.xsave)
                         : "a"((uint32_t)cpu->xsave_mask), "d"((uint32_t)(cpu->xsave_mask >> 32))
                         : "memory");
    __asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(host_mxcsr));
    if (cpu->xsave_mask & XSTATE_AVX)
        __asm__ volatile("vzeroupper");
}

/* XRSTOR faults on reserved bits: nothing that came from outside may make the host fault. */
static void check_area(struct soft_cpu *cpu)
{
    uint32_t *mxcsr = (uint32_t *)(cpu->s.xsave + XSAVE_MXCSR);
    uint64_t *header = (uint64_t *)(cpu->s.xsave + XSAVE_HEADER);

    *mxcsr &= cpu->features.known ? cpu->features.mxcsr : MXCSR_VALID;
    header[0] &= cpu->xsave_mask;
    header[1] = 0; /* standard format */
}

void soft_vectors_load(struct soft_cpu *cpu)
{
    if (cpu->vectors_live)
        return;
    check_area(cpu);
    cpu->vectors_live = true;
    __asm__ volatile("xrstor64 %0"
                     :
                     : "m"(cpu->s.xsave), "a"((uint32_t)cpu->xsave_mask),
                       "d"((uint32_t)(cpu->xsave_mask >> 32))
                     : "memory");
}

void soft_vectors_sanitize(struct soft_cpu *cpu)
{
    uint64_t *header = (uint64_t *)(cpu->s.xsave + XSAVE_HEADER);

    for (unsigned i = 2; i < 8; i++)
        header[i] = 0;
    check_area(cpu);
}
