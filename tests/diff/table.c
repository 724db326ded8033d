/* The hand-written cases of cases*.S, and the state that they begin with. */
#include <string.h>

#include "diff.h"

struct entry {
    const char *name;
    const uint8_t *code;
    uint32_t size, bits, where, pad;
};
/* The linker knows where the section that the cases are listed in begins and ends. */
extern const struct entry __start_diff_cases[] __attribute__((visibility("hidden")));
extern const struct entry __stop_diff_cases[] __attribute__((visibility("hidden")));

/* 64-bit and 32-bit cases: the same, as far as it fits. */
static const uint64_t registers[16] = {
    0x8123456789abcdefull,
    5,
    0x0fedcba987654321ull,
    DIFF_DATA + 0x400,
    DIFF_STACK + 0x800,
    DIFF_DATA + 0x600,
    DIFF_DATA + 0x800,
    DIFF_DATA + 0xc00,
    DIFF_DATA + DIFF_PAGE - 4,
    DIFF_DATA + DIFF_HOLE *DIFF_PAGE - 4,
    DIFF_DATA + DIFF_READONLY *DIFF_PAGE + 0x100,
    DIFF_DATA + (DIFF_READONLY + 1) * DIFF_PAGE - 4,
    DIFF_DATA + 0x500,
    DIFF_DATA + 0x700,
    DIFF_DATA + DIFF_DATA_PAGES *DIFF_PAGE - 8,
    0x00007ffffffffff8ull,
};

unsigned diff_table_count(void)
{
    return (unsigned)(__stop_diff_cases - __start_diff_cases);
}

bool diff_table_case(struct diff_case *c, unsigned index, bool kernel)
{
    const struct entry *e = &__start_diff_cases[index];
    if (!(e->where & (kernel ? 2 : 1)) || e->size > DIFF_CODE_MAX)
        return false;
    c->name = e->name;
    c->seed = index;
    c->bits = e->bits;
    c->based = e->bits == 16;
    c->offset = 16;
    c->size = e->size;
    c->insns = 1;
    c->start[0] = 0;
    memcpy(c->code, e->code, e->size);
    memcpy(c->gpr, registers, sizeof(registers));
    if (c->bits != 64)
        for (unsigned i = 0; i < 16; i++)
            c->gpr[i] &= 0xffffffffu;
    c->rflags = 0;
    c->fill = 1;
    diff_fill_xsave(c->xsave, 7);
    return true;
}
