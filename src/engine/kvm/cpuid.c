/*
 * What the kernel lets a guest see of the processor. Topology and the hypervisor's own features
 * are the platform's to decide: leaf 4000_0001h is passed on as what the kernel could offer.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define CPUID_1_ECX_X2APIC (1u << 21)
#define CPUID_1_ECX_TSC_DEADLINE (1u << 24)
#define CPUID_1_ECX_HYPERVISOR (1u << 31)

/* Leaves that stay even when all their registers are zero: the guest looks at them by index. */
static bool keep_when_zero(uint32_t leaf)
{
    return leaf == 0x4 || leaf == 0x7 || leaf == 0xd || leaf == 0x8000001d;
}

static void massage(const struct mull_kvm_host *host, struct mull_cpuid_entry *e)
{
    if (e->leaf != 1)
        return;
    e->ecx |= CPUID_1_ECX_X2APIC | CPUID_1_ECX_HYPERVISOR; /* the in-kernel LAPIC has x2APIC */
    if (host->tsc_deadline)
        e->ecx |= CPUID_1_ECX_TSC_DEADLINE;
}

int mull_kvm_supported_cpuid(const struct mull_kvm_host *host, struct mull_cpuid *table,
                             struct mull_error *err)
{
    struct kvm_cpuid2 *list;
    unsigned room;
    int r = -1;

    table->count = 0;
    for (room = 128; room <= 1024; room *= 2) { /* api.rst 4.46: E2BIG until it fits */
        list = calloc(1, sizeof(*list) + room * sizeof(list->entries[0]));
        if (!list)
            return mull_fail(err, ENOMEM, "kvm: no memory for the CPUID table");
        list->nent = room;
        r = ioctl(host->fd, KVM_GET_SUPPORTED_CPUID, list);
        if (!r)
            break;
        r = errno;
        free(list);
        if (r != E2BIG)
            break;
    }
    if (r)
        return mull_fail(err, r, "kvm: KVM_GET_SUPPORTED_CPUID: %s", strerror(r));
    for (unsigned i = 0; i < list->nent && i < room; i++) {
        const struct kvm_cpuid_entry2 *in = &list->entries[i];
        struct mull_cpuid_entry e = {
            .leaf = in->function,
            .subleaf = in->index,
            .indexed = in->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .eax = in->eax,
            .ebx = in->ebx,
            .ecx = in->ecx,
            .edx = in->edx,
        };

        if (!(e.eax | e.ebx | e.ecx | e.edx) && !keep_when_zero(e.leaf))
            continue;
        if (table->count == MULL_CPUID_MAX) {
            free(list);
            return mull_fail(err, E2BIG, "kvm: the kernel offers more than %u CPUID leaves",
                             MULL_CPUID_MAX);
        }
        massage(host, &e);
        table->entry[table->count++] = e;
    }
    free(list);
    return 0;
}

int mull_kvm_cpuid(struct mull_cpuid *table, struct mull_error *err)
{
    struct mull_kvm_host host;
    int r = mull_kvm_open(&host, err);

    if (r)
        return r;
    r = mull_kvm_supported_cpuid(&host, table, err);
    mull_kvm_close(&host);
    return r;
}

int mull_kvm_set_cpuid(int vcpu_fd, const struct mull_cpuid *table, struct mull_error *err)
{
    struct kvm_cpuid2 *list;
    int r = 0;

    if (table->count > MULL_CPUID_MAX)
        return mull_fail(err, EINVAL, "kvm: CPUID table of %u leaves: at most %u", table->count,
                         MULL_CPUID_MAX);
    list = calloc(1, sizeof(*list) + table->count * sizeof(list->entries[0]));
    if (!list)
        return mull_fail(err, ENOMEM, "kvm: no memory for the CPUID table");
    list->nent = table->count;
    for (unsigned i = 0; i < table->count; i++) {
        const struct mull_cpuid_entry *e = &table->entry[i];

        list->entries[i] = (struct kvm_cpuid_entry2){
            .function = e->leaf,
            .index = e->subleaf,
            .flags = e->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = e->eax,
            .ebx = e->ebx,
            .ecx = e->ecx,
            .edx = e->edx,
        };
    }
    if (ioctl(vcpu_fd, KVM_SET_CPUID2, list))
        r = mull_fail(err, errno, "kvm: KVM_SET_CPUID2 with %u leaves: %s", table->count,
                      strerror(errno));
    free(list);
    return r;
}
