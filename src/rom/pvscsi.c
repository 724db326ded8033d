/*
 * The UEFI driver for VMware's PVSCSI adapter, in the option ROM of device/storage/pvscsi.c:
 * distributions' OVMF has none, so that it would not find its disks. One request at a time; the
 * firmware's SCSI bus and disk drivers do the rest. It runs in the guest and trusts the adapter as
 * much as any driver does.
 */
#include "efi.h"

#define VENDOR 0x15adu
#define DEVICE 0x07c0u
#define TARGETS 16u

#define REG_COMMAND 0x0000u
#define REG_COMMAND_DATA 0x0004u
#define REG_COMMAND_STATUS 0x0008u
#define REG_INTR_STATUS 0x100cu
#define REG_INTR_MASK 0x2010u
#define REG_KICK_NON_RW 0x3014u

#define CMD_ADAPTER_RESET 1u
#define CMD_SETUP_RINGS 3u
#define CMD_RESET_BUS 4u
#define CMD_RESET_DEVICE 5u
#define INTR_COMPLETION 0x3u
#define RING_PAGES 32u

#define FLAG_NO_DATA 0x04u
#define FLAG_TO_HOST 0x08u
#define FLAG_TO_DEVICE 0x10u
#define TAG_SIMPLE 0x20u

#define HOST_OK 0x00u
#define HOST_SELECTION_TIMEOUT 0x11u
#define HOST_DATA_UNDERRUN 0x0cu
#define HOST_DATA_RUN 0x12u

#define PAGE 4096u
#define SENSE_MAX 252u

struct request {
    uint64_t context, data, data_len, sense;
    uint32_t sense_len, flags;
    uint8_t cdb[16], cdb_len, lun[8], tag, bus, target;
    uint16_t cpu_hint;
    uint8_t unused[58];
};
_Static_assert(sizeof(struct request) == 128, "layout");

struct completion {
    uint64_t context, data_len;
    uint32_t sense_len;
    uint16_t host_status, scsi_status;
    uint32_t pad[2];
};
_Static_assert(sizeof(struct completion) == 32, "layout");

/* A page each; what the adapter writes is volatile. */
struct shared {
    struct {
        uint32_t req_prod, req_cons, req_log2;
        uint32_t cmp_prod, cmp_cons, cmp_log2;
        uint8_t rest[PAGE - 24];
    } state;
    struct request req[PAGE / sizeof(struct request)];
    struct completion cmp[PAGE / sizeof(struct completion)];
    uint8_t sense[PAGE];
};
#define SHARED_PAGES (sizeof(struct shared) / PAGE)

struct adapter {
    struct efi_ext_scsi scsi; /* must be first */
    struct efi_scsi_mode mode;
    struct efi_pci_io *pci;
    uint64_t attributes; /* before */
    volatile struct shared *shared;
    uint64_t address; /* of `shared`, for the adapter */
    void *mapping, *exit_event;
};

static const struct efi_guid binding_guid = EFI_DRIVER_BINDING_GUID;
static const struct efi_guid pci_guid = EFI_PCI_IO_GUID;
static const struct efi_guid scsi_guid = EFI_EXT_SCSI_PASS_THRU_GUID;

static struct efi_boot_services *boot;
static struct efi_driver_binding binding;

/* The compiler calls these two. */
void *memset(void *to, int byte, size_t size);
void *memcpy(void *to, const void *from, size_t size);

void *memset(void *to, int byte, size_t size)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    void *at = to;

    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

static void reg_write(struct adapter *a, uint32_t reg, uint32_t value)
{
    a->pci->mem_write(a->pci, EFI_PCI_UINT32, 0, reg, 1, &value);
}

static void command(struct adapter *a, uint32_t code, const uint32_t *data, unsigned count)
{
    reg_write(a, REG_COMMAND, code);
    for (unsigned i = 0; i < count; i++)
        reg_write(a, REG_COMMAND_DATA, data[i]);
}

/* ---- Requests ---- */

static bool is_target(const uint8_t *target, uint64_t lun)
{
    for (unsigned i = 1; i < EFI_SCSI_TARGET_BYTES; i++)
        if (target[i])
            return false;
    return target[0] < TARGETS && lun == 0;
}

/* Wait until the adapter has answered. @return false: it has not within the packet's time */
static bool wait(struct adapter *a, uint64_t timeout)
{
    uint64_t waited = 0, limit = timeout / 10; /* microseconds */

    for (unsigned i = 0; a->shared->state.cmp_prod == a->shared->state.cmp_cons; i++) {
        if (i < 10000) {
            __builtin_ia32_pause();
            continue;
        }
        if (limit && waited >= limit)
            return false;
        boot->stall(20);
        waited += 20;
    }
    return true;
}

static void put_request(struct adapter *a, uint8_t target, const struct efi_scsi_packet *packet,
                        uint64_t data, uint64_t length)
{
    uint32_t prod = a->shared->state.req_prod;
    struct request r = {
        .context = 1,
        .data = data,
        .data_len = length,
        .sense = a->address + offsetof(struct shared, sense),
        .sense_len = SENSE_MAX,
        .flags = !length                              ? FLAG_NO_DATA
                 : packet->direction == EFI_SCSI_READ ? FLAG_TO_HOST
                                                      : FLAG_TO_DEVICE,
        .cdb_len = packet->cdb_length,
        .tag = TAG_SIMPLE,
        .target = target,
    };

    memcpy(r.cdb, packet->cdb, packet->cdb_length);
    memcpy((void *)&a->shared->req[prod % (PAGE / sizeof(r))], &r, sizeof(r));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    a->shared->state.req_prod = prod + 1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    reg_write(a, REG_KICK_NON_RW, 0);
}

static efi_status take_completion(struct adapter *a, struct efi_scsi_packet *packet)
{
    uint32_t cons = a->shared->state.cmp_cons;
    struct completion c;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    memcpy(&c, (const void *)&a->shared->cmp[cons % (PAGE / sizeof(c))], sizeof(c));
    a->shared->state.cmp_cons = cons + 1;
    reg_write(a, REG_INTR_STATUS, INTR_COMPLETION);

    if (packet->direction == EFI_SCSI_READ)
        packet->in_length = (uint32_t)c.data_len;
    else
        packet->out_length = (uint32_t)c.data_len;
    packet->target_status = (uint8_t)c.scsi_status;
    if (packet->sense_length > c.sense_len)
        packet->sense_length = (uint8_t)c.sense_len;
    if (packet->sense)
        memcpy(packet->sense, (const void *)a->shared->sense, packet->sense_length);
    switch (c.host_status) {
    case HOST_OK:
        packet->host_status = EFI_SCSI_OK;
        return EFI_SUCCESS;
    case HOST_DATA_UNDERRUN:
    case HOST_DATA_RUN: /* there was less than asked for */
        packet->host_status = EFI_SCSI_DATA_RUN;
        return EFI_SUCCESS;
    case HOST_SELECTION_TIMEOUT: /* nobody there */
        packet->host_status = EFI_SCSI_SELECTION_TIMEOUT;
        return EFI_TIMEOUT;
    default:
        packet->host_status = EFI_SCSI_OTHER;
        return EFI_DEVICE_ERROR;
    }
}

static void set_up_rings(struct adapter *a);

static efi_status carry_out(struct adapter *a, uint8_t target, struct efi_scsi_packet *packet)
{
    bool read = packet->direction == EFI_SCSI_READ;
    void *buffer = read ? packet->in : packet->out, *mapping = NULL;
    uint32_t length = read ? packet->in_length : packet->out_length;
    uint64_t bytes = length, device = 0;

    if (length && a->pci->map(a->pci, read ? EFI_PCI_DEVICE_WRITES : EFI_PCI_DEVICE_READS, buffer,
                              &bytes, &device, &mapping) != EFI_SUCCESS)
        return EFI_OUT_OF_RESOURCES;
    efi_status status = EFI_BAD_BUFFER_SIZE;
    if (bytes < length) {
        *(read ? &packet->in_length : &packet->out_length) = (uint32_t)bytes;
        packet->host_status = EFI_SCSI_DATA_RUN;
    } else {
        put_request(a, target, packet, device, length);
        if (wait(a, packet->timeout)) {
            status = take_completion(a, packet);
        } else { /* what comes late must find nobody's buffer */
            set_up_rings(a);
            packet->host_status = EFI_SCSI_TIMEOUT_COMMAND;
            status = EFI_TIMEOUT;
        }
    }
    if (mapping)
        a->pci->unmap(a->pci, mapping);
    return status;
}

static efi_status EFIAPI pass_thru(struct efi_ext_scsi *self, uint8_t *target, uint64_t lun,
                                   struct efi_scsi_packet *packet, void *event)
{
    if (!packet || !is_target(target, lun) || !packet->cdb || packet->cdb_length > 16 ||
        packet->direction > EFI_SCSI_WRITE || (packet->sense_length && !packet->sense) ||
        (packet->in_length && !packet->in) || (packet->out_length && !packet->out))
        return EFI_INVALID_PARAMETER;
    uint64_t tpl = boot->raise_tpl(TPL_NOTIFY);
    efi_status status = carry_out((struct adapter *)self, target[0], packet);
    boot->restore_tpl(tpl);
    return status;
}

/* ---- Targets ---- */

static efi_status EFIAPI next_target(struct efi_ext_scsi *self, uint8_t **target)
{
    uint8_t *t = *target;
    bool first = true;

    for (unsigned i = 0; i < EFI_SCSI_TARGET_BYTES; i++)
        first &= t[i] == 0xff;
    if (first) {
        memset(t, 0, EFI_SCSI_TARGET_BYTES);
        return EFI_SUCCESS;
    }
    if (!is_target(t, 0))
        return EFI_INVALID_PARAMETER;
    if (t[0] + 1u == TARGETS)
        return EFI_NOT_FOUND;
    t[0]++;
    return EFI_SUCCESS;
}

static efi_status EFIAPI next_target_lun(struct efi_ext_scsi *self, uint8_t **target, uint64_t *lun)
{
    efi_status status = next_target(self, target);

    if (status == EFI_SUCCESS)
        *lun = 0;
    return status;
}

static efi_status EFIAPI build_path(struct efi_ext_scsi *self, uint8_t *target, uint64_t lun,
                                    struct efi_device_path **out)
{
    struct efi_scsi_path *path;

    if (!out)
        return EFI_INVALID_PARAMETER;
    if (!is_target(target, lun))
        return EFI_NOT_FOUND;
    if (boot->allocate_pool(EFI_BOOT_SERVICES_DATA, sizeof(*path), (void **)&path) != EFI_SUCCESS)
        return EFI_OUT_OF_RESOURCES;
    *path = (struct efi_scsi_path){.head = {.type = 3, .subtype = 2, .length = {sizeof(*path), 0}},
                                   .target = target[0]};
    *out = &path->head;
    return EFI_SUCCESS;
}

static efi_status EFIAPI target_lun(struct efi_ext_scsi *self, struct efi_device_path *path,
                                    uint8_t **target, uint64_t *lun)
{
    struct efi_scsi_path scsi;

    if (!path || !target || !*target || !lun)
        return EFI_INVALID_PARAMETER;
    if (path->type != 3 || path->subtype != 2 || path->length[0] != sizeof(scsi))
        return EFI_UNSUPPORTED;
    memcpy(&scsi, path, sizeof(scsi));
    if (scsi.target >= TARGETS || scsi.lun)
        return EFI_NOT_FOUND;
    memset(*target, 0, EFI_SCSI_TARGET_BYTES);
    (*target)[0] = (uint8_t)scsi.target;
    *lun = 0;
    return EFI_SUCCESS;
}

static efi_status EFIAPI reset_channel(struct efi_ext_scsi *self)
{
    command((struct adapter *)self, CMD_RESET_BUS, NULL, 0);
    return EFI_SUCCESS;
}

static efi_status EFIAPI reset_target_lun(struct efi_ext_scsi *self, uint8_t *target, uint64_t lun)
{
    uint32_t data[3] = {0};

    if (!is_target(target, lun))
        return EFI_INVALID_PARAMETER;
    data[0] = target[0];
    command((struct adapter *)self, CMD_RESET_DEVICE, data, 3);
    return EFI_SUCCESS;
}

/* ---- The adapter ---- */

static void set_up_rings(struct adapter *a)
{
    struct {
        uint32_t req_pages, cmp_pages;
        uint64_t state, req[RING_PAGES], cmp[RING_PAGES];
    } setup;

    command(a, CMD_ADAPTER_RESET, NULL, 0);
    memset((void *)a->shared, 0, sizeof(*a->shared));
    memset(&setup, 0, sizeof(setup));
    setup.req_pages = setup.cmp_pages = 1;
    setup.state = a->address / PAGE;
    setup.req[0] = (a->address + offsetof(struct shared, req)) / PAGE;
    setup.cmp[0] = (a->address + offsetof(struct shared, cmp)) / PAGE;
    command(a, CMD_SETUP_RINGS, (const uint32_t *)&setup, sizeof(setup) / 4);
    reg_write(a, REG_INTR_MASK, 0);
}

/* The kernel finds an adapter that no longer knows of this memory. */
static void EFIAPI on_exit(void *event, void *context)
{
    command(context, CMD_ADAPTER_RESET, NULL, 0);
}

static void fill_in(struct adapter *a)
{
    a->mode.adapter = 0xffffffff;
    a->mode.attributes = EFI_SCSI_PHYSICAL | EFI_SCSI_LOGICAL;
    a->scsi.mode = &a->mode;
    a->scsi.pass_thru = pass_thru;
    a->scsi.next_target_lun = next_target_lun;
    a->scsi.build_path = build_path;
    a->scsi.target_lun = target_lun;
    a->scsi.reset_channel = reset_channel;
    a->scsi.reset_target_lun = reset_target_lun;
    a->scsi.next_target = next_target;
}

static void let_go(struct adapter *a)
{
    struct efi_pci_io *pci = a->pci;

    if (a->exit_event)
        boot->close_event(a->exit_event);
    if (a->mapping) {
        command(a, CMD_ADAPTER_RESET, NULL, 0);
        pci->unmap(pci, a->mapping);
    }
    if (a->shared)
        pci->free_buffer(pci, SHARED_PAGES, (void *)a->shared);
    pci->attributes(pci, EFI_PCI_SET, a->attributes, NULL);
    boot->free_pool(a);
}

static efi_status take(struct adapter *a)
{
    struct efi_pci_io *pci = a->pci;
    uint64_t bytes = sizeof(*a->shared);
    void *memory = NULL;
    efi_status status;

    /* Above 4 GiB, too; a firmware that cannot is content without. */
    if (pci->attributes(pci, EFI_PCI_ENABLE,
                        EFI_PCI_MEMORY | EFI_PCI_BUS_MASTER | EFI_PCI_DUAL_ADDRESS_CYCLE, NULL))
        pci->attributes(pci, EFI_PCI_ENABLE, EFI_PCI_MEMORY | EFI_PCI_BUS_MASTER, NULL);
    status = pci->allocate_buffer(pci, 0, EFI_BOOT_SERVICES_DATA, SHARED_PAGES, &memory, 0);
    if (status != EFI_SUCCESS)
        return status;
    a->shared = memory;
    status = pci->map(pci, EFI_PCI_COMMON_BUFFER, memory, &bytes, &a->address, &a->mapping);
    if (status != EFI_SUCCESS || bytes < sizeof(*a->shared))
        return EFI_OUT_OF_RESOURCES;
    set_up_rings(a);
    return boot->create_event(EVT_SIGNAL_EXIT_BOOT_SERVICES, TPL_CALLBACK, on_exit, a,
                              &a->exit_event);
}

/* ---- The driver ---- */

static efi_status EFIAPI supported(struct efi_driver_binding *self, efi_handle controller,
                                   void *remaining)
{
    struct efi_pci_io *pci;
    uint32_t id = 0;
    efi_status status = boot->open_protocol(controller, &pci_guid, (void **)&pci, self->handle,
                                            controller, EFI_OPEN_BY_DRIVER);

    if (status != EFI_SUCCESS)
        return status;
    status = pci->config_read(pci, EFI_PCI_UINT32, 0, 1, &id);
    boot->close_protocol(controller, &pci_guid, self->handle, controller);
    return status != EFI_SUCCESS || id != (VENDOR | DEVICE << 16) ? EFI_UNSUPPORTED : EFI_SUCCESS;
}

static efi_status EFIAPI start(struct efi_driver_binding *self, efi_handle controller,
                               void *remaining)
{
    struct adapter *a;
    efi_status status = boot->allocate_pool(EFI_BOOT_SERVICES_DATA, sizeof(*a), (void **)&a);

    if (status != EFI_SUCCESS)
        return status;
    memset(a, 0, sizeof(*a));
    status = boot->open_protocol(controller, &pci_guid, (void **)&a->pci, self->handle, controller,
                                 EFI_OPEN_BY_DRIVER);
    if (status != EFI_SUCCESS) {
        boot->free_pool(a);
        return status;
    }
    fill_in(a);
    status = a->pci->attributes(a->pci, EFI_PCI_GET, 0, &a->attributes);
    if (status == EFI_SUCCESS)
        status = take(a);
    if (status == EFI_SUCCESS)
        status = boot->install_protocol(&controller, &scsi_guid, 0, &a->scsi);
    if (status != EFI_SUCCESS) {
        let_go(a);
        boot->close_protocol(controller, &pci_guid, self->handle, controller);
    }
    return status;
}

static efi_status EFIAPI stop(struct efi_driver_binding *self, efi_handle controller,
                              uint64_t children, efi_handle *child)
{
    struct adapter *a;
    efi_status status = boot->open_protocol(controller, &scsi_guid, (void **)&a, self->handle,
                                            controller, EFI_OPEN_GET_PROTOCOL);

    if (status == EFI_SUCCESS)
        status = boot->uninstall_protocol(controller, &scsi_guid, &a->scsi);
    if (status != EFI_SUCCESS)
        return status;
    let_go(a);
    return boot->close_protocol(controller, &pci_guid, self->handle, controller);
}

efi_status EFIAPI efi_main(efi_handle image, struct efi_system_table *system);

__attribute__((section(".entry"))) efi_status EFIAPI efi_main(efi_handle image,
                                                              struct efi_system_table *system)
{
    boot = system->boot;
    binding.supported = supported;
    binding.start = start;
    binding.stop = stop;
    binding.version = 0x10;
    binding.image = binding.handle = image;
    return boot->install_protocol(&image, &binding_guid, 0, &binding);
}
