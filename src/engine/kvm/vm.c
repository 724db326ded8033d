/*
 * A virtual machine in the kernel: memory slots with their dirty log, interrupt messages and the
 * routes by which the kernel knows which EOIs the I/O APIC must see. vCPUs are in vcpu.c.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Pages that Intel processors without "unrestricted guest" need for real mode; between the I/O
 * APIC's and the flash's addresses, where nothing else is (api.rst 4.12, 4.36). */
#define IDENTITY_MAP_ADDRESS 0xfeffc000ull
#define TSS_ADDRESS 0xfeffd000ull

/* A GSI route for each vector that a level-triggered I/O APIC entry may use. */
#define EOI_ROUTES 256u

#define MSI_ADDRESS 0xfee00000u
#define MSI_DATA_LEVEL (1u << 15)
#define MSI_BROADCAST (0xffu << 12)

static int set_slot(struct mull_vm *vm, unsigned slot, uint32_t flags)
{
    const struct mull_ram *ram = &vm->ram[slot];
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags | (ram->readonly ? KVM_MEM_READONLY : 0),
        .guest_phys_addr = ram->gpa,
        .memory_size = ram->size,
        .userspace_addr = (uint64_t)(uintptr_t)ram->host,
    };

    return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) ? -errno : 0;
}

/* ---- Dirty tracking: the kernel's log is merged into the memory's ---- */

static void fetch_log(struct mull_vm *vm, unsigned slot)
{
    const struct mull_ram *ram = &vm->ram[slot];
    uint64_t pages = ram->size >> MULL_PAGE_SHIFT;
    uint64_t *bits = calloc((pages + 63) / 64, sizeof(*bits));
    struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bits};
    bool all = !bits || ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log);

    for (uint64_t i = 0; i < pages; i += 64) {
        /* Without a log every page may have been written: better saved twice than not at all. */
        uint64_t word = all ? ~0ull : bits[i / 64];

        if (i + 64 > pages)
            word &= (1ull << (pages - i)) - 1;
        for (; word; word &= word - 1)
            mull_memory_mark_dirty(
                ram, ram->gpa + ((i + (unsigned)__builtin_ctzll(word)) << MULL_PAGE_SHIFT));
    }
    free(bits);
}

static void watch_sync(void *opaque, const struct mull_ram *ram)
{
    struct mull_vm *vm = opaque;

    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; vm->dirty_log && i < vm->ram_count; i++)
        if (&vm->ram[i] == ram && !ram->readonly)
            fetch_log(vm, i);
    pthread_mutex_unlock(&vm->lock);
}

static void watch_tracking(void *opaque, bool on)
{
    struct mull_vm *vm = opaque;

    pthread_mutex_lock(&vm->lock);
    if (vm->dirty_log != on) {
        for (unsigned i = 0; i < vm->ram_count; i++) {
            int r = vm->ram[i].readonly || !vm->ram[i].size ? 0 : set_slot(vm, i, on ? KVM_MEM_LOG_DIRTY_PAGES : 0);

            if (r)
                mull_log(vm->config.log, MULL_LOG_ERROR, "kvm: dirty log of memory slot %u: %s", i,
                         strerror(-r));
        }
        vm->dirty_log = on;
    }
    pthread_mutex_unlock(&vm->lock);
}

static int watch_plugged(void *opaque, unsigned index, struct mull_error *err)
{
    struct mull_vm *vm = opaque;

    pthread_mutex_lock(&vm->lock);
    int r = set_slot(vm, index, vm->dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    pthread_mutex_unlock(&vm->lock);
    return r ? mull_fail(err, -r, "kvm: memory at %#llx: %s",
                         (unsigned long long)vm->ram[index].gpa, strerror(-r))
             : 0;
}

/* A slot of size 0 is deleted (api.rst 4.35). */
static void watch_unplugged(void *opaque, unsigned index)
{
    struct mull_vm *vm = opaque;
    struct kvm_userspace_memory_region region = {.slot = index,
                                                 .guest_phys_addr = vm->ram[index].gpa};

    pthread_mutex_lock(&vm->lock);
    if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region))
        mull_log(vm->config.log, MULL_LOG_ERROR, "kvm: cannot take memory away: %s",
                 strerror(errno));
    pthread_mutex_unlock(&vm->lock);
}

static void watch_code_written(void *opaque, uint64_t gpa, uint64_t len) {}

/* The kernel protects pages again when it hands its log out (watch_sync). */
static void watch_protect(void *opaque) {}

/* ---- Doorbells: the kernel raises an eventfd where the guest writes, and it goes on ---- */

static int ioeventfd(struct mull_vm *vm, int fd, uint64_t gpa, uint32_t flags)
{
    /* Length 0: of any size, which spares the kernel decoding the instruction (api.rst 4.59). */
    struct kvm_ioeventfd bell = {.addr = gpa, .fd = fd, .flags = flags};

    return ioctl(vm->fd, KVM_IOEVENTFD, &bell) ? -errno : 0;
}

static bool watch_doorbells(void *opaque, const struct mull_doorbells *bells, uint64_t gpa, bool on)
{
    struct mull_vm *vm = opaque;
    int ret = vm->host.ioeventfd ? 0 : -ENOTSUP;
    uint32_t done = 0;

    if (!on)
        done = bells->count;
    for (; on && !ret && done < bells->count; done += !ret)
        ret = ioeventfd(vm, bells->fd, gpa + (uint64_t)bells->step * done, 0);
    if (on && !ret)
        return true;
    while (done--)
        ioeventfd(vm, bells->fd, gpa + (uint64_t)bells->step * done, KVM_IOEVENTFD_FLAG_DEASSIGN);
    if (ret)
        mull_log(vm->config.log, MULL_LOG_DEBUG, "kvm: no KVM_IOEVENTFD: %s", strerror(-ret));
    return false;
}

/* ---- Interrupt messages ---- */

static int vm_msi(struct mull_vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address,
        .address_hi = (uint32_t)(address >> 32),
        .data = data,
    };

    return ioctl(vm->fd, KVM_SIGNAL_MSI, &msi) < 0 ? -errno : 0;
}

/* The kernel reports an EOI where a route says "level-triggered, this vector, this CPU" (api.rst
 * 4.97, KVM_CAP_SPLIT_IRQCHIP). The route's destination is everybody: more reports than needed
 * are harmless, a missed one would leave an interrupt line dead. */
static void vm_eoi_vectors(struct mull_vm *vm, const uint64_t vectors[4])
{
    struct kvm_irq_routing *table =
        calloc(1, sizeof(*table) + EOI_ROUTES * sizeof(table->entries[0]));

    if (!table) {
        mull_log(vm->config.log, MULL_LOG_ERROR, "kvm: no memory for interrupt routes");
        return;
    }
    for (unsigned v = 16; v < 256 && table->nr < vm->reserved_gsis; v++) {
        struct kvm_irq_routing_entry *e = &table->entries[table->nr];

        if (!(vectors[v / 64] >> (v % 64) & 1))
            continue;
        e->gsi = table->nr++;
        e->type = KVM_IRQ_ROUTING_MSI;
        e->u.msi.address_lo = MSI_ADDRESS | MSI_BROADCAST;
        e->u.msi.data = v | MSI_DATA_LEVEL;
    }
    if (ioctl(vm->fd, KVM_SET_GSI_ROUTING, table))
        mull_log(vm->config.log, MULL_LOG_ERROR, "kvm: KVM_SET_GSI_ROUTING: %s", strerror(errno));
    free(table);
}

/* ---- Life ---- */

static int create_in_kernel(struct mull_vm *vm, struct mull_error *err)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {EOI_ROUTES}};
    struct kvm_enable_cap x2apic = {.cap = KVM_CAP_X2APIC_API,
                                    .args = {KVM_X2APIC_API_USE_32BIT_IDS}};
    struct kvm_enable_cap msrs = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                  .args = {KVM_MSR_EXIT_REASON_UNKNOWN}};
    uint64_t identity = IDENTITY_MAP_ADDRESS;
    int xsave;

    do {
        vm->fd = ioctl(vm->host.fd, KVM_CREATE_VM, 0);
    } while (vm->fd < 0 && errno == EINTR);
    if (vm->fd < 0)
        return mull_fail(err, errno, "kvm: KVM_CREATE_VM: %s%s", strerror(errno),
                         errno == EBUSY ? ": another hypervisor holds the processor" : "");
    ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity); /* only old Intel processors need both */
    ioctl(vm->fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);
    vm->reserved_gsis = EOI_ROUTES;
    if (ioctl(vm->fd, KVM_ENABLE_CAP, &split)) {
        vm->reserved_gsis = split.args[0] = 24;
        if (ioctl(vm->fd, KVM_ENABLE_CAP, &split))
            return mull_fail(err, errno, "kvm: KVM_CAP_SPLIT_IRQCHIP: %s", strerror(errno));
    }
    if (ioctl(vm->fd, KVM_ENABLE_CAP, &x2apic))
        mull_log(vm->config.log, MULL_LOG_DEBUG, "kvm: no KVM_CAP_X2APIC_API: %s", strerror(errno));
    if (vm->host.user_msrs && ioctl(vm->fd, KVM_ENABLE_CAP, &msrs))
        mull_log(vm->config.log, MULL_LOG_DEBUG, "kvm: no KVM_CAP_X86_USER_SPACE_MSR: %s",
                 strerror(errno));
    xsave = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    vm->xsave_size =
        xsave > (int)sizeof(struct kvm_xsave) ? (size_t)xsave : sizeof(struct kvm_xsave);
    return 0;
}

static int add_memory(struct mull_vm *vm, struct mull_error *err)
{
    vm->ram = mull_memory_ram(vm->config.memory, &vm->ram_count);
    for (unsigned i = 0; i < vm->ram_count; i++) {
        int r;

        if (!vm->ram[i].size)
            continue;
        if (vm->ram[i].readonly && !vm->host.readonly_memory)
            return mull_fail(err, ENOTSUP, "kvm: this kernel has no read-only memory for ROM");
        r = set_slot(vm, i, 0);
        if (r)
            return mull_fail(err, -r, "kvm: memory at %#llx, %llu MiB: %s",
                             (unsigned long long)vm->ram[i].gpa,
                             (unsigned long long)(vm->ram[i].size >> 20), strerror(-r));
    }
    return 0;
}

static void vm_destroy(struct mull_vm *vm)
{
    static const struct mull_memory_watch nobody;

    if (!vm)
        return;
    mull_memory_set_watch(vm->config.memory, &nobody);
    if (vm->fd >= 0)
        close(vm->fd);
    mull_kvm_close(&vm->host);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}

static int vm_create(const struct mull_vm_config *config, struct mull_vm **out,
                     struct mull_error *err)
{
    struct mull_vm *vm = calloc(1, sizeof(*vm));
    int r;

    if (!vm)
        return mull_fail(err, ENOMEM, "kvm: no memory for a virtual machine");
    vm->config = *config;
    vm->fd = -1;
    vm->clock_offset = INT64_MIN;
    pthread_mutex_init(&vm->lock, NULL);
    r = mull_kvm_open(&vm->host, err);
    if (!r && config->cpus > vm->host.max_cpus)
        r = mull_fail(err, EINVAL, "kvm: %u vCPUs: this kernel allows at most %u", config->cpus,
                      vm->host.max_cpus);
    if (!r)
        r = create_in_kernel(vm, err);
    if (!r)
        r = add_memory(vm, err);
    if (r) {
        vm_destroy(vm);
        return r;
    }
    vm->watch = (struct mull_memory_watch){
        .opaque = vm,
        .code_written = watch_code_written,
        .protect = watch_protect,
        .tracking = watch_tracking,
        .sync = watch_sync,
        .plugged = watch_plugged,
        .unplugged = watch_unplugged,
        .doorbells = watch_doorbells,
    };
    mull_memory_set_watch(config->memory, &vm->watch);
    *out = vm;
    return 0;
}

const struct mull_engine mull_engine_kvm = {
    .name = "kvm",
    .has_lapic = true,
    .probe = mull_kvm_probe,
    .cpuid = mull_kvm_cpuid,
    .vm_create = vm_create,
    .vm_destroy = vm_destroy,
    .msi = vm_msi,
    .eoi_vectors = vm_eoi_vectors,
    .vcpu_create = mull_kvm_vcpu_create,
    .vcpu_destroy = mull_kvm_vcpu_destroy,
    .vcpu_run = mull_kvm_vcpu_run,
    .vcpu_signal = mull_kvm_vcpu_signal,
    .vcpu_get = mull_kvm_vcpu_get,
    .vcpu_set = mull_kvm_vcpu_set,
    .vcpu_debug = mull_kvm_vcpu_debug,
    .vcpu_translate = mull_kvm_vcpu_translate,
    .vcpu_stats = mull_kvm_vcpu_stats,
};
