/*
 * The Intel 82574L: registers, interrupts, PHY, EEPROM and state. One queue each way, no flash, no
 * manageability, no time stamps on frames. Sections are those of the 82574 datasheet. Frames are
 * handled in e1000e_rings.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/net/e1000e_internal.h"

#define VENDOR 0x8086
#define DEVICE 0x10d3
#define PCI_CLASS_ETHERNET 0x020000
#define REGISTER_BAR_SIZE 0x20000
#define IO_BAR_SIZE 32
#define MSIX_BAR 3

enum {
    STATUS = 0x0008,
    EECD = 0x0010,
    EERD = 0x0014,
    MDIC = 0x0020,
    ITR = 0x00c4,
    ICS = 0x00c8,
    IMS = 0x00d0,
    IMC = 0x00d8,
    EIAC = 0x00dc,
    IAM = 0x00e0,
    IVAR = 0x00e4,
    EITR = 0x00e8,
    LEDCTL = 0x0e00,
    PBA = 0x1000,
    EEWR = 0x102c,
    FWSM = 0x5b54,
    FACTPS = 0x5b30,
    SYSTIML = 0xb600,
    SYSTIMH = 0xb604,
    TIMINCA = 0xb608,
};

#define CTRL_MASTER_OFF 0x00000004u
#define CTRL_RST 0x04000000u
#define CTRL_PHY_RST 0x80000000u
#define CTRL_EXT_EE_RST 0x00002000u
#define CTRL_EXT_EIAME 0x01000000u
#define CTRL_EXT_IAME 0x08000000u
#define STATUS_FD 0x1u
#define STATUS_LU 0x2u
#define STATUS_1000 0x80u
#define STATUS_MASTER 0x00080000u
#define EECD_PRESENT 0x300u /* there, and read */
#define NVM_START 1u
#define NVM_DONE 2u
#define MDIC_READY 0x10000000u
#define MDIC_ERROR 0x40000000u
#define INT_ASSERTED 0x80000000u
#define INT_BITS 0x01ffffffu
#define PBA_SIZE 40u /* KiB of packet buffer */

/* PHY registers (IEEE 802.3, 22.2.4; the BM PHY's own from 16 on). */
enum {
    PHY_CONTROL = 0,
    PHY_STATUS = 1,
    PHY_ID1 = 2,
    PHY_ID2 = 3,
    PHY_ABILITY = 4,
    PHY_PARTNER = 5,
    PHY_1000_CONTROL = 9,
    PHY_1000_STATUS = 10,
    PHY_EXT_STATUS = 15,
    PHY_SPECIFIC = 16,
    PHY_SPECIFIC_STATUS = 17,
    PHY_PAGE = 22,
};

void e1000e_count(struct e1000e *e, unsigned offset, uint32_t n)
{
    uint32_t *r = &e->reg[offset / 4];
    *r = *r > UINT32_MAX - n ? UINT32_MAX : *r + n; /* they stick at their end (10.2.7) */
}

void e1000e_count64(struct e1000e *e, unsigned offset, uint32_t n)
{
    uint64_t value = e->reg[offset / 4] | (uint64_t)e->reg[offset / 4 + 1] << 32;

    value += n;
    e->reg[offset / 4] = (uint32_t)value;
    e->reg[offset / 4 + 1] = (uint32_t)(value >> 32);
}

/* ---- Interrupts (7.4) ---- */

/* May vector @v be used now (7.4.4)? Else the timer looks again. */
static bool throttled(struct e1000e *e, unsigned v, uint32_t interval)
{
    uint64_t now = interval & 0xffff ? mull_now_ns() : 0;

    if (!now)
        return false;
    if (now < e->quiet_until[v]) {
        mull_timer_arm(e->throttle, e->quiet_until[v]);
        return true;
    }
    e->quiet_until[v] = now + (interval & 0xffff) * 256ull;
    return false;
}

static void send_messages(struct e1000e *e)
{
    static const uint8_t shift[5] = {0, 4, 8, 12, 16}; /* of RxQ0, RxQ1, TxQ0, TxQ1, other */
    uint32_t automask = e1000e_get(e, E1000E_CTRL_EXT) & CTRL_EXT_EIAME ? e1000e_get(e, IAM) : 0;

    for (unsigned i = 0; i < 5; i++) {
        uint32_t bit = E1000E_RXQ0 << i, route = e1000e_get(e, IVAR) >> shift[i];
        unsigned vector = route & 7;
        if (!(e->unsent & e->icr & e->ims & bit))
            continue;
        if (!(route & 8) || vector >= E1000E_VECTORS ||
            throttled(e, vector, e1000e_get(e, EITR + 4 * vector)))
            continue;
        e->unsent &= ~bit;
        e->icr &= ~(e1000e_get(e, EIAC) & bit);
        e->ims &= ~(automask & bit);
        mull_pci_msix_send(&e->nic.pci, vector);
    }
}

static void update(struct e1000e *e)
{
    if (mull_pci_msix_enabled(&e->nic.pci)) {
        send_messages(e);
        return;
    }
    bool level = e->icr & e->ims;
    if (level == e->asserted || (level && throttled(e, 0, e1000e_get(e, ITR))))
        return;
    e->asserted = level;
    mull_pci_intx(&e->nic.pci, level);
    if (level)
        mull_pci_msi_send(&e->nic.pci);
}

void e1000e_raise(struct e1000e *e, uint32_t causes)
{
    if ((causes & E1000E_LSC) && mull_pci_msix_enabled(&e->nic.pci))
        causes |= E1000E_OTHER;
    e->icr |= causes;
    e->unsent |= causes;
    update(e);
}

static void throttle_ended(void *opaque)
{
    struct e1000e *e = opaque;

    pthread_mutex_lock(&e->nic.lock);
    update(e);
    pthread_mutex_unlock(&e->nic.lock);
}

/* Causes read or written away; with IAME that masks, too (10.2.4.1). */
static void acknowledge(struct e1000e *e, uint32_t causes)
{
    if (e->asserted && (e1000e_get(e, E1000E_CTRL_EXT) & CTRL_EXT_IAME))
        e->ims &= ~e1000e_get(e, IAM);
    e->icr &= ~causes;
    e->unsent &= ~causes;
    update(e);
}

static uint32_t read_icr(struct e1000e *e)
{
    uint32_t value = e->icr | (e->asserted ? INT_ASSERTED : 0);
    acknowledge(e, ~0u);
    return value;
}

/* ---- PHY (chapter 8) and EEPROM (chapter 6) ---- */

static void reset_phy(struct e1000e *e)
{
    static const uint16_t initial[32] = {
        [PHY_CONTROL] = 0x1140,      [PHY_STATUS] = 0x7949,     [PHY_ID1] = 0x0141,
        [PHY_ID2] = 0x0cb1,          [PHY_ABILITY] = 0x0de1,    [PHY_PARTNER] = 0x45e1,
        [PHY_1000_CONTROL] = 0x0e00, [PHY_EXT_STATUS] = 0x3000, [PHY_SPECIFIC] = 0x0078,
    };

    memcpy(e->phy, initial, sizeof(e->phy));
    e->phy_page = 0;
}

static uint16_t read_phy(const struct e1000e *e, unsigned r)
{
    bool up = e->nic.link_up;

    if (r == PHY_PAGE)
        return e->phy_page;
    if (r >= 16 && e->phy_page)
        return 0;
    switch (r) {
    case PHY_STATUS: /* link, negotiation complete */
        return e->phy[r] | (up ? 0x24 : 0);
    case PHY_1000_STATUS: /* the partner can do 1000BASE-T, receivers are fine */
        return up ? 0x3c00 : 0;
    case PHY_SPECIFIC_STATUS: /* 1000 Mb/s, full duplex, resolved, link */
        return up ? 0xac00 : 0;
    default:
        return e->phy[r];
    }
}

static void write_phy(struct e1000e *e, unsigned r, uint16_t value)
{
    if (r == PHY_PAGE) {
        e->phy_page = (uint8_t)value;
    } else if (r == PHY_CONTROL) {
        if (value & 0x8000)
            reset_phy(e);
        else
            e->phy[r] = value & (uint16_t)~0x0200; /* negotiation has ended already */
        if ((value & 0x8200) && e->nic.link_up)
            e1000e_raise(e, E1000E_LSC);
    } else if ((r >= PHY_ABILITY && r != PHY_PARTNER && r != PHY_1000_STATUS &&
                r != PHY_EXT_STATUS && r != PHY_SPECIFIC_STATUS) &&
               (r < 16 || !e->phy_page)) {
        e->phy[r] = value;
    }
}

static uint32_t mdic(struct e1000e *e, uint32_t value)
{
    unsigned r = value >> 16 & 31, phy = value >> 21 & 31, op = value >> 26 & 3;

    value &= ~(MDIC_READY | MDIC_ERROR);
    if (phy != 1)
        return value | MDIC_READY | MDIC_ERROR;
    if (op == 1)
        write_phy(e, r, (uint16_t)value);
    else if (op == 2)
        value = (value & 0xffff0000u) | read_phy(e, r);
    return value | MDIC_READY;
}

static void fill_eeprom(struct e1000e *e)
{
    const uint8_t *mac = e->nic.permanent_mac;
    uint16_t sum = 0;

    for (unsigned i = 0; i < 3; i++)
        e->eeprom[i] = (uint16_t)(mac[2 * i] | mac[2 * i + 1] << 8);
    e->eeprom[0x03] = 0x0420;
    e->eeprom[0x0a] = 0x026b; /* initialization control 1 (6.1.1.9) */
    e->eeprom[0x0b] = 0;
    e->eeprom[0x0c] = VENDOR;
    e->eeprom[0x0d] = DEVICE;
    e->eeprom[0x0e] = VENDOR;
    for (unsigned i = 0; i < 63; i++)
        sum = (uint16_t)(sum + e->eeprom[i]);
    e->eeprom[63] = (uint16_t)(0xbaba - sum); /* 6.1.1.16 */
}

static uint32_t read_eeprom(const struct e1000e *e, uint32_t value)
{
    uint32_t address = value >> 2 & 0x3fff;

    if (!(value & NVM_START))
        return value;
    return (address < 64 ? (uint32_t)e->eeprom[address] : 0xffff) << 16 | address << 2 | NVM_DONE;
}

/* ---- Registers ---- */

static void reset_registers(struct e1000e *e)
{
    const uint8_t *mac = e->nic.permanent_mac;

    memset(e->reg, 0, sizeof(e->reg));
    e->reg[E1000E_CTRL / 4] = 0x00100201;
    e->reg[EECD / 4] = EECD_PRESENT;
    e->reg[LEDCTL / 4] = 0x07061302;
    e->reg[PBA / 4] = (PBA_SIZE / 2) << 16 | PBA_SIZE / 2;
    e->reg[E1000E_RXCSUM / 4] = 0x300;
    e->reg[FACTPS / 4] = 0x20000000;
    e->reg[E1000E_RA / 4] =
        mac[0] | (uint32_t)mac[1] << 8 | (uint32_t)mac[2] << 16 | (uint32_t)mac[3] << 24;
    e->reg[E1000E_RA / 4 + 1] = mac[4] | (uint32_t)mac[5] << 8 | 0x80000000u;
    e->icr = e->ims = e->unsent = 0;
    e->nic.sent = 0;
    e->kicked = false;
    memset(&e->context, 0, sizeof(e->context));
    memset(e->quiet_until, 0, sizeof(e->quiet_until));
    update(e);
}

static uint64_t systim(const struct e1000e *e)
{
    uint32_t rate = e->time_rate;
    uint32_t period = rate >> 24 ? rate >> 24 : 1;
    uint64_t ticks = (mull_clock_now(e->nic.env.clock) - e->time_start) / 40; /* of 25 MHz */

    return e->time_base + ticks / period * (rate & 0xffffff);
}

static void set_systim(struct e1000e *e, uint64_t value)
{
    e->time_base = value;
    e->time_start = mull_clock_now(e->nic.env.clock);
}

static uint32_t read_status(const struct e1000e *e)
{
    return STATUS_FD | STATUS_1000 | (e->nic.link_up ? STATUS_LU : 0) |
           (e1000e_get(e, E1000E_CTRL) & CTRL_MASTER_OFF ? 0 : STATUS_MASTER);
}

static uint32_t reg_get(struct e1000e *e, uint64_t offset)
{
    uint32_t value = offset < E1000E_REGS_END ? e->reg[offset / 4] : 0;

    switch (offset) {
    case STATUS:
        return read_status(e);
    case E1000E_ICR:
        return read_icr(e);
    case ICS:
    case IMC:
        return 0;
    case IMS:
        return e->ims;
    case SYSTIML:
        return (uint32_t)systim(e);
    case SYSTIMH:
        return (uint32_t)(systim(e) >> 32);
    case TIMINCA:
        return e->time_rate;
    default:
        if (offset >= E1000E_STATS && offset < E1000E_STATS_END)
            e->reg[offset / 4] = 0; /* cleared by reading */
        return value;
    }
}

static void set_ctrl(struct e1000e *e, uint32_t value)
{
    if (value & CTRL_PHY_RST)
        reset_phy(e);
    if (value & CTRL_RST) {
        reset_registers(e);
        return;
    }
    e->reg[E1000E_CTRL / 4] = value & ~(CTRL_PHY_RST | CTRL_RST);
    if ((value & CTRL_PHY_RST) && e->nic.link_up)
        e1000e_raise(e, E1000E_LSC);
}

/* A ring's head and tail stay inside it whatever the driver writes. */
static bool set_ring(struct e1000e *e, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case E1000E_RDLEN:
    case E1000E_TDLEN:
        e->reg[offset / 4] = value & 0xfff80;
        return true;
    case E1000E_RDBAL:
    case E1000E_TDBAL:
        e->reg[offset / 4] = value & ~15u;
        return true;
    case E1000E_RDH:
    case E1000E_TDH:
        e->reg[offset / 4] = value & 0xffff;
        return true;
    case E1000E_RDT:
        e->reg[offset / 4] = value & 0xffff;
        mull_nic_refilled(&e->nic);
        return true;
    case E1000E_TDT:
        e->reg[offset / 4] = value & 0xffff;
        e->kicked = true;
        mull_nic_post(&e->nic);
        return true;
    default:
        return false;
    }
}

static void set_other(struct e1000e *e, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case EECD:
        value = (value & 0xffff) | EECD_PRESENT;
        break;
    case EERD:
        value = read_eeprom(e, value);
        break;
    case EEWR: /* it is write-protected */
        value = (value & ~NVM_START) | NVM_DONE;
        break;
    case MDIC:
        value = mdic(e, value);
        break;
    case PBA:
        value &= 0xffff;
        value |= (value < PBA_SIZE ? PBA_SIZE - value : 0) << 16;
        break;
    case E1000E_CTRL_EXT:
        value &= ~CTRL_EXT_EE_RST;
        break;
    case E1000E_RCTL:
    case E1000E_TCTL:
        e->kicked = true;
        e->nic.starved = true; /* what waited for the receiver can be looked at */
        mull_nic_post(&e->nic);
        break;
    case STATUS:
    case FWSM:
    case FACTPS:
        return;
    default:
        break;
    }
    if (offset < E1000E_REGS_END)
        e->reg[offset / 4] = value;
}

static void reg_set(struct e1000e *e, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case E1000E_CTRL:
    case E1000E_CTRL + 4: /* the same once more (10.1) */
        set_ctrl(e, value);
        return;
    case E1000E_ICR:
        acknowledge(e, value);
        return;
    case ICS:
        e1000e_raise(e, value & INT_BITS);
        return;
    case IMS:
        e->ims |= value & INT_BITS;
        update(e);
        return;
    case IMC:
        e->ims &= ~value;
        update(e);
        return;
    case SYSTIML:
        set_systim(e, (systim(e) & ~0xffffffffull) | value);
        return;
    case SYSTIMH:
        set_systim(e, (uint32_t)systim(e) | (uint64_t)value << 32);
        return;
    case TIMINCA:
        set_systim(e, systim(e));
        e->time_rate = value;
        return;
    default:
        break;
    }
    if (!set_ring(e, offset, value))
        set_other(e, offset, value);
}

static uint64_t bar_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct e1000e *e = opaque;

    pthread_mutex_lock(&e->nic.lock);
    uint64_t value = reg_get(e, offset);
    pthread_mutex_unlock(&e->nic.lock);
    return value;
}

static void bar_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct e1000e *e = opaque;

    pthread_mutex_lock(&e->nic.lock);
    reg_set(e, offset, (uint32_t)value);
    pthread_mutex_unlock(&e->nic.lock);
}

/* The registers by two I/O ports: address, data (10.1.1). */
static uint64_t io_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct e1000e *e = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&e->nic.lock);
    if (offset == 0)
        value = e->io_address;
    else if (offset == 4)
        value = reg_get(e, e->io_address);
    pthread_mutex_unlock(&e->nic.lock);
    return value;
}

static void io_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct e1000e *e = opaque;

    pthread_mutex_lock(&e->nic.lock);
    if (offset == 0)
        e->io_address = (uint32_t)value & (REGISTER_BAR_SIZE - 4);
    else if (offset == 4)
        reg_set(e, e->io_address, (uint32_t)value);
    pthread_mutex_unlock(&e->nic.lock);
}

static const struct mull_region_ops bar_ops = {bar_read, bar_write, 4, 4};
static const struct mull_region_ops io_ops = {io_read, io_write, 4, 4};

/* ---- Work ---- */

static void work(struct mull_nic *nic)
{
    struct e1000e *e = (struct e1000e *)nic;

    if (!e->kicked)
        return;
    e->kicked = false;
    e1000e_transmit(e);
    mull_nic_flush(nic);
}

static void link_changed(struct mull_nic *nic)
{
    e1000e_raise((struct e1000e *)nic, E1000E_LSC);
}

static const struct mull_nic_ops nic_ops = {
    .receive = e1000e_receive, .received = e1000e_received, .work = work, .link = link_changed};

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct e1000e *e = (struct e1000e *)device;

    mull_pci_function_reset(&e->nic.pci);
    pthread_mutex_lock(&e->nic.lock);
    e->io_address = 0;
    e->asserted = false;
    set_systim(e, 0);
    reset_phy(e);
    reset_registers(e);
    pthread_mutex_unlock(&e->nic.lock);
}

static void resume(struct mull_device *device)
{
    struct e1000e *e = (struct e1000e *)device;

    pthread_mutex_lock(&e->nic.lock);
    e->kicked = true;
    update(e);
    pthread_mutex_unlock(&e->nic.lock);
    mull_nic_resume(device);
}

static void destroy(struct mull_device *device)
{
    struct e1000e *e = (struct e1000e *)device;

    mull_timer_destroy(e->throttle);
    mull_nic_fini(&e->nic);
    free(e);
}

static int loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct e1000e *e = object;

    e->icr &= INT_BITS;
    e->ims &= INT_BITS;
    e->io_address &= REGISTER_BAR_SIZE - 4;
    memset(e->quiet_until, 0, sizeof(e->quiet_until));
    return 0;
}

static const struct mull_field context_fields[] = {
    MULL_FIELD(struct e1000e_context, ipcss),   MULL_FIELD(struct e1000e_context, ipcso),
    MULL_FIELD(struct e1000e_context, ipcse),   MULL_FIELD(struct e1000e_context, tucss),
    MULL_FIELD(struct e1000e_context, tucso),   MULL_FIELD(struct e1000e_context, tucse),
    MULL_FIELD(struct e1000e_context, command), MULL_FIELD(struct e1000e_context, header),
    MULL_FIELD(struct e1000e_context, mss),     MULL_FIELDS_END};
static const struct mull_state_desc context_desc = {
    .name = "e1000e-context", .version = 1, .oldest = 1, .fields = context_fields};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct e1000e, nic.pci, &mull_pci_function_desc),
    MULL_FIELD_ARRAY(struct e1000e, reg),
    MULL_FIELD_ARRAY(struct e1000e, phy),
    MULL_FIELD(struct e1000e, phy_page),
    MULL_FIELD(struct e1000e, icr),
    MULL_FIELD(struct e1000e, ims),
    MULL_FIELD(struct e1000e, unsent),
    MULL_FIELD(struct e1000e, asserted),
    MULL_FIELD(struct e1000e, io_address),
    MULL_FIELD_NESTED(struct e1000e, context, &context_desc),
    MULL_FIELD(struct e1000e, time_base),
    MULL_FIELD(struct e1000e, time_start),
    MULL_FIELD(struct e1000e, time_rate),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "e1000e", .version = 1, .oldest = 1, .fields = fields, .after_load = loaded};
static const struct mull_device_ops device_ops = {.state = &desc,
                                                  .reset = reset,
                                                  .quiesce = mull_nic_quiesce,
                                                  .resume = resume,
                                                  .destroy = destroy};

static int add_to_pci(struct e1000e *e, struct mull_memory *memory, struct mull_error *err)
{
    struct mull_pci_function *f = &e->nic.pci;

    mull_pci_function_init(f, NULL, VENDOR, DEVICE, VENDOR, 0, PCI_CLASS_ETHERNET, 0);
    f->intx_pin = 1;
    int ret = mull_pci_add_bar(f, 0, REGISTER_BAR_SIZE, false, false, false, &bar_ops, e, "82574L",
                               memory, err);
    if (!ret)
        ret = mull_pci_add_bar(f, 2, IO_BAR_SIZE, true, false, false, &io_ops, e, "82574L", memory,
                               err);
    if (!ret)
        ret = mull_pci_add_msi(f, err);
    return ret ? ret : mull_pci_add_msix(f, MSIX_BAR, E1000E_VECTORS, memory, err);
}

int mull_e1000e_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                       const struct mull_nic_config *cfg, struct mull_device **out,
                       struct mull_error *err)
{
    struct e1000e *e = calloc(1, sizeof(*e));

    if (!e)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    int ret = mull_nic_init(&e->nic, env, cfg, &device_ops, &nic_ops, err);
    e->throttle = mull_timer_create(env->loop, throttle_ended, e);
    if (!ret && !e->throttle)
        ret = mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    if (!ret) {
        fill_eeprom(e);
        reset_phy(e);
        ret = add_to_pci(e, env->memory, err);
    }
    if (!ret)
        ret = mull_nic_attach(&e->nic, bus, cfg, err);
    if (ret) {
        destroy(&e->nic.device);
        return ret;
    }
    reset_registers(e);
    *out = &e->nic.device;
    return 0;
}
