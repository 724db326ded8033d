/*
 * ICH9 LPC interface bridge, D31:F0 (Intel I/O Controller Hub 9 data sheet, chapter 13). Routes
 * PIRQ lines to ISA interrupts, keeps what firmware writes to PMBASE and RCBA (the ACPI registers
 * are at PMBASE's usual place whatever is written), and has the APM ports B2h and B3h, behind which
 * there is no system management mode: SMI_EN says to firmware that it is not needed.
 */
#include "platform/lpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/acpi_pm.h"

#define SLOT 31u
#define REG_PMBASE 0x40u
#define REG_ACPI_CNTL 0x44u
#define REG_PIRQ_A 0x60u
#define REG_SERIRQ 0x64u
#define REG_PIRQ_E 0x68u
#define REG_GEN_PMCON 0xa0u
#define REG_BIOS_CNTL 0xdcu
#define REG_RCBA 0xf0u
#define PIRQ_OFF 0x80u

#define APM_PORT 0xb2u
#define SMI_PORT (MULL_PM1_EVENT_PORT + 0x30u) /* SMI_EN, SMI_STS */
#define SMI_APMC_EN 0x20u

struct mull_lpc {
    struct mull_device device;
    struct mull_pci_function pci;
    struct mull_irq isa[16];
    pthread_mutex_t lock;
    uint8_t lines;      /* PCI lines that are asserted */
    uint16_t isa_level; /* ISA lines as last set by us */
    uint8_t apm[2];
    struct mull_region *region[2];
};

/* Set the ISA lines from the PCI lines and the routing. The lock is held. */
static void route(struct mull_lpc *lpc)
{
    uint16_t level = 0;

    for (unsigned i = 0; i < 4; i++) {
        uint8_t to = lpc->pci.config[REG_PIRQ_A + i];
        if ((lpc->lines >> i & 1) && !(to & PIRQ_OFF))
            level |= (uint16_t)(1u << (to & 15));
    }
    for (unsigned i = 0; i < 16; i++)
        if ((level ^ lpc->isa_level) >> i & 1)
            mull_irq_set(&lpc->isa[i], level >> i & 1);
    lpc->isa_level = level;
}

void mull_lpc_set(struct mull_lpc *lpc, unsigned line, bool level)
{
    pthread_mutex_lock(&lpc->lock);
    lpc->lines = (uint8_t)((lpc->lines & ~(1u << line)) | (unsigned)level << line);
    route(lpc);
    pthread_mutex_unlock(&lpc->lock);
}

static void config_written(struct mull_pci_function *f, unsigned offset, unsigned size)
{
    struct mull_lpc *lpc = (struct mull_lpc *)((char *)f - offsetof(struct mull_lpc, pci));

    if (offset + size <= REG_PIRQ_A || offset >= REG_PIRQ_E + 4)
        return;
    pthread_mutex_lock(&lpc->lock);
    route(lpc);
    pthread_mutex_unlock(&lpc->lock);
}

static const struct mull_pci_ops pci_ops = {.config_written = config_written};

static uint64_t apm_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return __atomic_load_n(&((struct mull_lpc *)opaque)->apm[offset & 1], __ATOMIC_RELAXED);
}

static void apm_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    __atomic_store_n(&((struct mull_lpc *)opaque)->apm[offset & 1], (uint8_t)value,
                     __ATOMIC_RELAXED);
}

static uint64_t smi_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return offset == 0 ? SMI_APMC_EN : 0;
}

static void smi_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value) {}

static const struct mull_region_ops apm_ops = {apm_read, apm_write, 1, 1};
static const struct mull_region_ops smi_ops = {smi_read, smi_write, 4, 4};

static void reset(struct mull_device *device)
{
    struct mull_lpc *lpc = (struct mull_lpc *)device;

    mull_pci_function_reset(&lpc->pci);
    lpc->apm[0] = lpc->apm[1] = 0;
    pthread_mutex_lock(&lpc->lock);
    route(lpc);
    pthread_mutex_unlock(&lpc->lock);
}

static void destroy(struct mull_device *device)
{
    struct mull_lpc *lpc = (struct mull_lpc *)device;

    for (unsigned i = 0; i < 2; i++)
        mull_region_remove(lpc->region[i]);
    mull_pci_function_fini(&lpc->pci);
    pthread_mutex_destroy(&lpc->lock);
    free(lpc);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_lpc *lpc = object;

    lpc->lines &= 15;
    pthread_mutex_lock(&lpc->lock);
    route(lpc);
    pthread_mutex_unlock(&lpc->lock);
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct mull_lpc, pci, &mull_pci_function_desc),
    MULL_FIELD(struct mull_lpc, lines),
    MULL_FIELD(struct mull_lpc, isa_level),
    MULL_FIELD_BLOB(struct mull_lpc, apm),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "ich9-lpc", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};
static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

struct mull_device *mull_lpc_device(struct mull_lpc *lpc)
{
    return &lpc->device;
}

static void set_up_registers(struct mull_pci_function *f)
{
    f->config[REG_PMBASE] = (MULL_PM1_EVENT_PORT & 0x80) | 1;
    f->config[REG_PMBASE + 1] = MULL_PM1_EVENT_PORT >> 8;
    f->wmask[REG_PMBASE] = 0x80;
    f->wmask[REG_PMBASE + 1] = 0xff;
    f->wmask[REG_ACPI_CNTL] = 0x87;
    for (unsigned i = 0; i < 4; i++) {
        f->config[REG_PIRQ_A + i] = f->config[REG_PIRQ_E + i] = PIRQ_OFF;
        f->wmask[REG_PIRQ_A + i] = f->wmask[REG_PIRQ_E + i] = 0x8f;
    }
    f->config[REG_SERIRQ] = 0x10;
    f->wmask[REG_SERIRQ] = 0xdf;
    memset(f->wmask + 0x80, 0xff, 0x18); /* decode ranges */
    memset(f->wmask + REG_GEN_PMCON, 0xff, 0x10);
    f->wmask[REG_BIOS_CNTL] = 0x03;
    f->wmask[REG_RCBA] = 1;
    f->wmask[REG_RCBA + 1] = 0xc0;
    f->wmask[REG_RCBA + 2] = f->wmask[REG_RCBA + 3] = 0xff;
}

int mull_lpc_create(const struct mull_lpc_config *config, struct mull_pci_bus *bus,
                    struct mull_lpc **out, struct mull_error *err)
{
    struct mull_lpc *lpc = calloc(1, sizeof(*lpc));
    int code;

    *out = NULL;
    if (!lpc)
        return mull_fail(err, ENOMEM, "ISA bridge: no memory");
    lpc->device = (struct mull_device){.ops = &ops, .name = "lpc", .object = lpc};
    memcpy(lpc->isa, config->isa, sizeof(lpc->isa));
    pthread_mutex_init(&lpc->lock, NULL);
    mull_pci_function_init(&lpc->pci, &pci_ops, 0x8086, 0x2918, 0x1af4, 0x1100, 0x060100, 2);
    set_up_registers(&lpc->pci);
    if ((code = mull_pci_bus_attach(bus, &lpc->pci, SLOT << 3, err)) < 0 ||
        (code = mull_region_add(config->memory, MULL_SPACE_PORT, APM_PORT, 2, &apm_ops, lpc,
                                "APM ports", &lpc->region[0], err)) < 0 ||
        (code = mull_region_add(config->memory, MULL_SPACE_PORT, SMI_PORT, 8, &smi_ops, lpc,
                                "SMI registers", &lpc->region[1], err)) < 0) {
        destroy(&lpc->device);
        return code;
    }
    *out = lpc;
    return 0;
}
