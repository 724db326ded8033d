/* Unit tests of the CPUID policy and of the KVM paravirtual interface. */
#include "platform_world.h"

#include "platform/cpuid.h"
#include "platform/kvmpv.h"

static struct mull_cpuid template(bool amd)
{
    struct mull_cpuid t = {0};
    const char *vendor = amd ? "AuthenticAMD" : "GenuineIntel";
    struct mull_cpuid_entry zero = {.eax = 0x10};

    memcpy(&zero.ebx, vendor, 4);
    memcpy(&zero.edx, vendor + 4, 4);
    memcpy(&zero.ecx, vendor + 8, 4);
    t.entry[t.count++] = zero;
    t.entry[t.count++] = (struct mull_cpuid_entry){.leaf = 1, .ebx = 0x00000800, .edx = 1 << 28};
    t.entry[t.count++] = (struct mull_cpuid_entry){
        .leaf = 4, .subleaf = 0, .indexed = true, .eax = 0x21 | 5 << 14 | 63u << 26};
    t.entry[t.count++] =
        (struct mull_cpuid_entry){.leaf = 4, .subleaf = 3, .indexed = true, .eax = 0x63};
    t.entry[t.count++] = (struct mull_cpuid_entry){.leaf = 0x40000001, .eax = ~0u};
    t.entry[t.count++] = (struct mull_cpuid_entry){.leaf = 0x80000000, .eax = 0x8000001e};
    t.entry[t.count++] = (struct mull_cpuid_entry){.leaf = 0x80000001, .ecx = 8};
    t.entry[t.count++] = (struct mull_cpuid_entry){.leaf = 0x80000008, .eax = 48, .ecx = 0x4003};
    t.entry[t.count++] = (struct mull_cpuid_entry){.leaf = 0x8000001e, .eax = 99, .ebx = 0x101};
    return t;
}

static const struct mull_cpuid_entry *find(const struct mull_cpuid *t, uint32_t leaf,
                                           uint32_t subleaf)
{
    const struct mull_cpuid_entry *found = NULL;

    for (unsigned i = 0; i < t->count; i++)
        if (t->entry[i].leaf == leaf && (!t->entry[i].indexed || t->entry[i].subleaf == subleaf)) {
            assert_null(found); /* once */
            found = &t->entry[i];
        }
    assert_non_null(found);
    return found;
}

static void test_topology(void **state)
{
    const struct mull_cpuid_policy policy = {
        .cpus = 6, .tsc_hz = 2596120000, .kvm_features = MULL_KVMPV_FEATURES};
    struct mull_cpuid t = template(true);

    assert_int_equal(mull_cpuid_apply(&policy, 5, &t, NULL), 0);
    assert_int_equal(find(&t, 1, 0)->ebx, 0x05060800);
    assert_int_equal(find(&t, 1, 0)->ecx, 1u << 31 | 1u << 24 | 1u << 21);
    assert_true(find(&t, 1, 0)->edx & 1u << 28);
    assert_int_equal(find(&t, 4, 0)->eax, 0x21 | 5 << 26);
    assert_int_equal(find(&t, 4, 3)->eax, 0x63 | 5 << 14 | 5 << 26);
    assert_int_equal(find(&t, 0xb, 0)->ebx, 1);
    assert_int_equal(find(&t, 0xb, 1)->eax, 3);
    assert_int_equal(find(&t, 0xb, 1)->ebx, 6);
    assert_int_equal(find(&t, 0xb, 1)->edx, 5);
    assert_int_equal(find(&t, 0xb, 2)->ebx, 0);
    assert_int_equal(find(&t, 0x80000001, 0)->ecx, 2);
    assert_int_equal(find(&t, 0x80000008, 0)->ecx, 0x3005);
    assert_int_equal(find(&t, 0x8000001e, 0)->eax, 5);
    assert_int_equal(find(&t, 0x8000001e, 0)->ebx, 5);
    assert_int_equal(find(&t, 6, 0)->eax, 4);
    assert_int_equal(find(&t, 0x80000007, 0)->edx, 1 << 8);
    assert_int_equal(mull_cpuid_apply(&policy, 6, &t, NULL), -22);

    const struct mull_cpuid_policy one = {.cpus = 1, .has_lapic = true, .tsc_hz = 3000000000u};
    t = template(false);
    assert_int_equal(mull_cpuid_apply(&one, 0, &t, NULL), 0);
    assert_int_equal(find(&t, 1, 0)->edx & 1u << 28, 0);
    assert_int_equal(find(&t, 1, 0)->ecx, 1u << 31);    /* the engine speaks for its own APIC */
    assert_int_equal(find(&t, 0x8000001e, 0)->eax, 99); /* AMD's leaf is not Intel's */
    assert_int_equal(find(&t, 0x40000001, 0)->eax, 0x01002aeb);
}

static void test_hypervisor_and_timing(void **state)
{
    const struct mull_cpuid_policy policy = {
        .cpus = 2, .tsc_hz = 2596123456, .kvm_features = MULL_KVMPV_FEATURES};
    struct mull_cpuid t = template(false);

    for (unsigned i = 0; i < t.count; i++) /* an engine without features of a kernel */
        if (t.entry[i].leaf == 0x40000001)
            t.entry[i] = t.entry[--t.count];
    assert_int_equal(mull_cpuid_apply(&policy, 1, &t, NULL), 0);
    assert_int_equal(find(&t, 0, 0)->eax, 0x16);
    assert_memory_equal(&find(&t, 0x40000000, 0)->ebx, "KVMKVMKVM\0\0\0", 12);
    assert_int_equal(find(&t, 0x40000000, 0)->eax, 0x40000010);
    assert_int_equal(find(&t, 0x40000001, 0)->eax, MULL_KVMPV_FEATURES);
    assert_int_equal(find(&t, 0x40000010, 0)->eax, 2596123);
    assert_int_equal(find(&t, 0x40000010, 0)->ebx, 1000000);
    assert_int_equal(find(&t, 0x16, 0)->eax, 2596);
    assert_int_equal(find(&t, 0x15, 0)->ecx, 1000000000);
}

/* As many physical address bits as are of use, at least 40, and never more than the engine has. */
static void test_address_bits(void **state)
{
    static const struct {
        uint32_t has;
        uint64_t end;
        uint32_t told;
    } cases[] = {
        {0x3030, 0, 0x3030},
        {0x3030, 1, 0x3028},
        {0x3030, 1ull << 40, 0x3028},
        {0x3030, (1ull << 40) + 1, 0x3029},
        {0x2e2e, 1ull << 50, 0x2e2e},
        {0x3024, 1ull << 39, 0x3024},
        {0x343034, 1ull << 46, 0x302e},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mull_cpuid_policy policy = {
            .cpus = 1, .tsc_hz = 1000000000, .address_end = cases[i].end};
        struct mull_cpuid t = template(true);
        for (unsigned k = 0; k < t.count; k++)
            if (t.entry[k].leaf == 0x80000008)
                t.entry[k].eax = cases[i].has;
        assert_int_equal(mull_cpuid_apply(&policy, 0, &t, NULL), 0);
        assert_int_equal(find(&t, 0x80000008, 0)->eax, cases[i].told);
    }
}

/* As Linux computes it: whole kHz in 32 bits, which must not overflow. */
static void test_ratio(void **state)
{
    static const uint64_t rates[] = {2596120000, 3000000000, 1999999999, 2400001234, 999999937,
                                     4200000000, 2095076923, 3792873000, 1000000000, 800000000};

    for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        uint32_t n, d;
        mull_cpuid_tsc_ratio(rates[i], &n, &d);
        assert_true(n > 0 && d > 0);
        assert_true((uint64_t)n * 1000000 <= UINT32_MAX);
        int64_t khz = 1000000 * n / d;
        int64_t off = khz - (int64_t)(rates[i] / 1000);
        assert_true(off >= -1 && off <= 1);
    }
}

/* A guest's reading of kvmclock at a TSC value (Linux, pvclock.h). */
static uint64_t kvmclock(const uint8_t *page, uint64_t tsc)
{
    uint64_t stamp, system;
    uint32_t mul, version;
    int8_t shift = (int8_t)page[28];

    memcpy(&version, page, 4);
    assert_int_equal(version & 1, 0);
    memcpy(&stamp, page + 8, 8);
    memcpy(&system, page + 16, 8);
    memcpy(&mul, page + 24, 4);
    uint64_t delta = tsc - stamp;
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return system + (uint64_t)((unsigned __int128)delta * mul >> 32);
}

static void test_kvmclock(void **state)
{
    struct world w;
    struct mull_kvmpv *pv;
    uint8_t page[32], wall[12];
    uint64_t value;

    world_make(&w);
    assert_int_equal(mull_memory_add_ram(w.env.memory, 0, 1 << 20, false, NULL), 0);
    assert_int_equal(mull_kvmpv_create(w.env.memory, w.env.clock, 2, &pv, NULL), 0);
    world_set_time(&w, 5000);
    assert_int_equal(mull_kvmpv_msr_write(pv, 0, 0x4b564d01, 0x2001), 0);
    assert_int_equal(mull_mem_read(w.env.memory, 0x2000, page, 32), 0);
    assert_int_equal(page[29], 1); /* stable */
    for (uint64_t tsc = 15000; tsc < 1ull << 50; tsc = tsc * 5 + 3)
        assert_int_equal(kvmclock(page, tsc), mull_clock_tsc_to_ns(w.env.clock, tsc));
    mull_kvmpv_tsc_offset(pv, 0, 1000000); /* the guest moved its TSC */
    mull_mem_read(w.env.memory, 0x2000, page, 32);
    assert_int_equal(kvmclock(page, 1000000 + 40000), mull_clock_tsc_to_ns(w.env.clock, 40000));

    assert_int_equal(mull_kvmpv_msr_read(pv, 0, 0x4b564d01, &value), 0);
    assert_int_equal(value, 0x2001);
    assert_int_equal(mull_kvmpv_msr_read(pv, 1, 0x12, &value), 0);
    assert_int_equal(value, 0);
    assert_int_equal(mull_kvmpv_msr_write(pv, 0, 0x4b564d01, 0x2003), -1);
    assert_int_equal(mull_kvmpv_msr_write(pv, 0, 0x4b564d01, 0x80000001), 0); /* no RAM: no harm */
    assert_int_equal(mull_kvmpv_msr_write(pv, 0, 0x4b564d02, 1), -1);         /* not offered */
    assert_int_equal(mull_kvmpv_msr_write(pv, 0, 0x4b564d04, 1), -1);
    assert_int_equal(mull_kvmpv_msr_write(pv, 2, 0x4b564d01, 1), -1);

    assert_int_equal(mull_kvmpv_msr_write(pv, 1, 0x4b564d00, 0x3000), 0);
    mull_mem_read(w.env.memory, 0x3000, wall, 12);
    uint64_t boot = mull_clock_boot_wall_ns(w.env.clock);
    uint32_t seconds;
    memcpy(&seconds, wall + 4, 4);
    assert_int_equal(seconds, boot / 1000000000);
    assert_int_equal(wall[0] & 1, 0);

    static struct mull_cpu_state s;
    assert_int_equal(mull_kvmpv_msr_write(pv, 0, 0x4b564d01, 0x2001), 0);
    assert_int_equal(mull_kvmpv_msr_write(pv, 0, 0x4b564d03, 0x4001), 0);
    assert_int_equal(mull_kvmpv_msr_write(pv, 0, 0x4b564d03, 0x4003), -1);
    mull_kvmpv_state_get(pv, 0, &s);
    mull_kvmpv_reset(pv, 0);
    mull_kvmpv_tick(pv, 0);
    mull_mem_set(w.env.memory, 0x2000, 0, 32);
    mull_kvmpv_state_set(pv, 0, &s);
    mull_mem_read(w.env.memory, 0x2000, page, 32);
    assert_int_equal(kvmclock(page, 90000), mull_clock_tsc_to_ns(w.env.clock, 90000));
    mull_kvmpv_resume(pv);
    mull_mem_read(w.env.memory, 0x2000, page, 32);
    assert_int_equal(page[29], 3); /* the guest's watchdog hears that it was stopped */
    mull_kvmpv_tick(pv, 0);
    mull_kvmpv_destroy(pv);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_topology),
        cmocka_unit_test(test_address_bits),
        cmocka_unit_test(test_hypervisor_and_timing),
        cmocka_unit_test(test_ratio),
        cmocka_unit_test(test_kvmclock),
    };
    return cmocka_run_group_tests_name("cpuid", tests, NULL, NULL);
}
