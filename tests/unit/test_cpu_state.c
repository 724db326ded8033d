/* The canonical CPU state: value after reset, what a loaded state may not be, and a complete
 * description (every byte of the struct but padding is in some field). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/cpu_state.h"

static void test_reset(void **state)
{
    struct mull_cpu_state *s = aligned_alloc(64, sizeof(*s));
    mull_cpu_state_reset(s, 0, true);
    assert_true(s->rip + s->seg[MULL_CS].base == 0xfffffff0);
    assert_int_equal(s->cr0, 0x60000010);
    assert_int_equal(s->mp_state, MULL_CPU_RUNNABLE);
    assert_true(s->apic_base & 0x100);
    mull_cpu_state_reset(s, 3, false);
    assert_int_equal(s->mp_state, MULL_CPU_WAIT_SIPI);
    assert_false(s->apic_base & 0x100);
    assert_int_equal(s->lapic[0x23], 3);
    assert_int_equal(s->xsave[24] | s->xsave[25] << 8, 0x1f80);
    free(s);
}

static void test_after_load(void **state)
{
    struct mull_cpu_state *s = aligned_alloc(64, sizeof(*s));
    struct mull_error err;
    mull_cpu_state_reset(s, 0, true);
    assert_int_equal(mull_cpu_state_desc.after_load(s, 1, &err), 0);
    s->mp_state = 9;
    assert_true(mull_cpu_state_desc.after_load(s, 1, &err) < 0);
    s->mp_state = 0;
    s->cr4 = 1ull << 40;
    assert_true(mull_cpu_state_desc.after_load(s, 1, &err) < 0);
    s->cr4 = 0;
    s->cr0 = 0x80000000u;
    assert_true(mull_cpu_state_desc.after_load(s, 1, &err) < 0);
    s->cr0 = 0x10;
    s->seg[2].attr = 0x80000000u;
    assert_true(mull_cpu_state_desc.after_load(s, 1, &err) < 0);
    s->seg[2].attr = 0x93;
    s->rflags = ~0ull;
    assert_int_equal(mull_cpu_state_desc.after_load(s, 1, &err), 0);
    assert_int_equal(s->rflags, 0x3f7fd7);
    free(s);
}

static void cover(const struct mull_state_desc *desc, uint8_t *bytes, size_t base)
{
    for (const struct mull_field *f = desc->fields; f->name; f++)
        for (uint32_t i = 0; i < f->count; i++) {
            size_t at = base + f->offset + (size_t)i * f->size;
            if (f->kind == MULL_FIELD_STRUCT) {
                cover(f->nested, bytes, at);
                continue;
            }
            for (uint32_t k = 0; k < f->size; k++) {
                assert_int_equal(bytes[at + k], 0);
                bytes[at + k] = 1;
            }
        }
}

static void test_description(void **state)
{
    uint8_t *bytes = calloc(1, sizeof(struct mull_cpu_state));
    cover(&mull_cpu_state_desc, bytes, 0);
    size_t missing = 0;
    for (size_t i = 0; i < sizeof(struct mull_cpu_state); i++)
        missing += !bytes[i];
    /* pad[] of segments and tables, and the gap before the aligned XSAVE area. */
    size_t gap = offsetof(struct mull_cpu_state, xsave) -
                 (offsetof(struct mull_cpu_state, lapic) + MULL_LAPIC_SIZE);
    assert_int_equal(missing, MULL_SEG_COUNT * 6 + 2 * 6 + gap);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_after_load),
        cmocka_unit_test(test_description),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
