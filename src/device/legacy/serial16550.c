/*
 * A 16550A UART (National Semiconductor PC16550D data sheet, 1995): eight I/O ports, two 16-byte
 * FIFOs, one interrupt line gated by OUT2 as on a PC. Bytes move at once, whatever the divisor
 * says; a full back end keeps THRE clear. Knows ports and a chardev, not who reads or types.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/devices.h"

/* Register offsets; the names are the data sheet's. */
enum { REG_RBR_THR, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, REG_COUNT };

enum { IER_RDI = 0x01, IER_THRI = 0x02, IER_RLSI = 0x04, IER_MSI = 0x08, IER_MASK = 0x0f };
enum {
    IIR_MSI = 0x00,
    IIR_NONE = 0x01,
    IIR_THRI = 0x02,
    IIR_RDI = 0x04,
    IIR_RLSI = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFO = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04, FCR_MASK = 0xc9 };
enum { LCR_DLAB = 0x80 };
enum {
    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    MCR_MASK = 0x1f
};
enum { LSR_DR = 0x01, LSR_OE = 0x02, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum {
    MSR_DCTS = 0x01,
    MSR_DDSR = 0x02,
    MSR_TERI = 0x04,
    MSR_DDCD = 0x08,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80
};

#define FIFO_SIZE 16
/* With the receive interrupt off (or gated by OUT2, as while a driver probes), this many reads of
 * LSR without a write mean that the guest polls for input. Before that input stays in the back end: a
 * driver's probing would throw it away. UEFI looks at MSR and MCR each time, too. */
#define POLLS_FOR_INPUT 16

struct fifo {
    uint8_t bytes[FIFO_SIZE];
    uint8_t first, count;
};

struct serial {
    struct mull_device device;
    pthread_mutex_t lock; /* everything below; held around mull_chardev_write() and the line */
    struct mull_memory *memory;
    struct mull_region *region;
    struct mull_irq irq;
    struct mull_chardev *chardev;
    bool line; /* what the interrupt line is now */

    uint8_t ier, fcr, lcr, mcr, lsr_errors, msr, scr, dll, dlm;
    bool thre_pending; /* the transmitter-empty interrupt, cleared by reading IIR or writing THR */
    uint8_t polls;
    struct fifo rx, tx;
};

static unsigned fifo_size(const struct serial *s)
{
    return s->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static void fifo_push(struct fifo *f, uint8_t byte)
{
    f->bytes[(f->first + f->count) % FIFO_SIZE] = byte;
    f->count++;
}

static uint8_t fifo_pop(struct fifo *f)
{
    uint8_t byte = f->bytes[f->first];
    f->first = (f->first + 1) % FIFO_SIZE;
    f->count--;
    return byte;
}

static unsigned rx_trigger(const struct serial *s)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* The highest-priority interrupt, as IIR shows it (data sheet, table IV). The character timeout
 * is due at once: all of a burst is there when the first byte is, so there is nothing to wait
 * for. */
static uint8_t pending_interrupt(const struct serial *s)
{
    if ((s->ier & IER_RLSI) && s->lsr_errors)
        return IIR_RLSI;
    if ((s->ier & IER_RDI) && s->rx.count)
        return s->rx.count >= rx_trigger(s) ? IIR_RDI : IIR_TIMEOUT;
    if ((s->ier & IER_THRI) && s->thre_pending)
        return IIR_THRI;
    if ((s->ier & IER_MSI) && (s->msr & 0x0f))
        return IIR_MSI;
    return IIR_NONE;
}

/* OUT2 gates the interrupt on a PC. */
static bool wanted_line(const struct serial *s)
{
    return (s->mcr & MCR_OUT2) && !(s->mcr & MCR_LOOP) && pending_interrupt(s) != IIR_NONE;
}

static void update_line(struct serial *s)
{
    bool line = wanted_line(s);
    if (line != s->line) {
        s->line = line;
        mull_irq_set(&s->irq, line);
    }
}

/* The modem lines as they are now: looped back, or a peer that is always ready. */
static uint8_t modem_lines(const struct serial *s)
{
    if (!(s->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
           (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void update_modem(struct serial *s)
{
    uint8_t was = s->msr, now = modem_lines(s), changed = was ^ now;
    uint8_t delta = (changed & MSR_CTS ? MSR_DCTS : 0) | (changed & MSR_DSR ? MSR_DDSR : 0) |
                    (changed & MSR_DCD ? MSR_DDCD : 0) |
                    ((was & MSR_RI) && !(now & MSR_RI) ? MSR_TERI : 0);
    s->msr = now | (was & 0x0f) | delta;
}

static void receive_byte(struct serial *s, uint8_t byte)
{
    if (s->rx.count >= fifo_size(s))
        s->lsr_errors |= LSR_OE;
    else
        fifo_push(&s->rx, byte);
}

/* Move what the transmitter holds to the back end, as far as that takes it. */
static void transmit(struct serial *s)
{
    bool had = s->tx.count;

    while (s->tx.count) {
        uint8_t byte = s->tx.bytes[s->tx.first];
        if (s->mcr & MCR_LOOP)
            receive_byte(s, byte);
        else if (s->chardev && !mull_chardev_write(s->chardev, &byte, 1))
            return;
        fifo_pop(&s->tx);
    }
    if (had)
        s->thre_pending = true;
}

static void write_thr(struct serial *s, uint8_t byte)
{
    s->thre_pending = false;
    /* A full transmitter loses the byte, as the real one does. */
    if (s->tx.count < fifo_size(s))
        fifo_push(&s->tx, byte);
    transmit(s);
}

static void write_fcr(struct serial *s, uint8_t value)
{
    /* Turning the FIFOs on or off empties both (data sheet, 8.5), but a byte that was received
     * stays when they are turned on: no real line would have delivered it so soon after a driver
     * (Linux) had enabled its interrupt. */
    if ((value ^ s->fcr) & FCR_ENABLE)
        value |= FCR_CLEAR_TX | (value & FCR_ENABLE ? 0 : FCR_CLEAR_RX);
    if (value & FCR_CLEAR_RX)
        s->rx.count = 0;
    if ((value & FCR_CLEAR_TX) && s->tx.count) {
        s->tx.count = 0;
        s->thre_pending = true;
    }
    s->fcr = value & FCR_ENABLE ? value & FCR_MASK : 0;
}

static void write_ier(struct serial *s, uint8_t value)
{
    /* Enabling the interrupt while the transmitter is empty raises it (data sheet, 8.6). */
    if ((value & ~s->ier & IER_THRI) && !s->tx.count)
        s->thre_pending = true;
    s->ier = value & IER_MASK;
}

static void write_register(struct serial *s, unsigned reg, uint8_t value)
{
    bool dlab = s->lcr & LCR_DLAB;

    switch (reg) {
    case REG_RBR_THR:
        if (dlab)
            s->dll = value;
        else
            write_thr(s, value);
        break;
    case REG_IER:
        if (dlab)
            s->dlm = value;
        else
            write_ier(s, value);
        break;
    case REG_IIR_FCR:
        write_fcr(s, value);
        break;
    case REG_LCR:
        s->lcr = value;
        break;
    case REG_MCR:
        s->mcr = value & MCR_MASK;
        update_modem(s);
        break;
    case REG_SCR:
        s->scr = value;
        break;
    default: /* LSR and MSR: for factory tests only */
        break;
    }
}

static uint8_t read_iir(struct serial *s)
{
    uint8_t iir = pending_interrupt(s);
    if (iir == IIR_THRI)
        s->thre_pending = false;
    return iir | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct serial *s)
{
    uint8_t lsr = s->lsr_errors | (s->rx.count ? LSR_DR : 0);
    if (!s->tx.count)
        lsr |= LSR_THRE | LSR_TEMT;
    s->lsr_errors = 0;
    return lsr;
}

static uint8_t read_register(struct serial *s, unsigned reg)
{
    bool dlab = s->lcr & LCR_DLAB;
    uint8_t value;

    switch (reg) {
    case REG_RBR_THR:
        if (dlab)
            return s->dll;
        return s->rx.count ? fifo_pop(&s->rx) : 0;
    case REG_IER:
        return dlab ? s->dlm : s->ier;
    case REG_IIR_FCR:
        return read_iir(s);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        return read_lsr(s);
    case REG_MSR:
        value = s->msr;
        s->msr &= 0xf0;
        return value;
    default:
        return s->scr;
    }
}

/* How many bytes the receiver takes from outside now. */
static size_t receive_room(const struct serial *s)
{
    if (s->mcr & MCR_LOOP)
        return 0;
    bool interrupt = (s->ier & IER_RDI) && (s->mcr & MCR_OUT2);
    if (!interrupt && s->polls < POLLS_FOR_INPUT)
        return 0;
    return s->rx.count < fifo_size(s) ? fifo_size(s) - s->rx.count : 0;
}

/* Does the back end have to hear that input is welcome again? Once the FIFO is empty, not after
 * every byte. */
static bool wants_input(const struct serial *s, size_t room_before)
{
    return receive_room(s) && (!room_before || !s->rx.count);
}

static uint64_t serial_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct serial *s = opaque;
    if (offset >= REG_COUNT)
        return 0xff;

    pthread_mutex_lock(&s->lock);
    size_t room = receive_room(s);
    unsigned had = s->rx.count;
    if (offset == REG_LSR && s->polls < POLLS_FOR_INPUT)
        s->polls++;
    uint8_t value = read_register(s, (unsigned)offset);
    update_line(s);
    bool resume = (had != s->rx.count || !room) && wants_input(s, room);
    pthread_mutex_unlock(&s->lock);

    if (resume && s->chardev)
        mull_chardev_resume(s->chardev);
    return value;
}

static void serial_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct serial *s = opaque;
    if (offset >= REG_COUNT)
        return;

    pthread_mutex_lock(&s->lock);
    size_t room = receive_room(s);
    s->polls = 0;
    write_register(s, (unsigned)offset, (uint8_t)value);
    update_line(s);
    bool resume = !room && receive_room(s);
    pthread_mutex_unlock(&s->lock);

    if (resume && s->chardev)
        mull_chardev_resume(s->chardev);
}

static const struct mull_region_ops serial_region_ops = {
    .read = serial_read, .write = serial_write, .min_size = 1, .max_size = 1};

/* ---- The chardev's calls ---- */

static size_t serial_can_receive(void *opaque)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->lock);
    size_t room = receive_room(s);
    pthread_mutex_unlock(&s->lock);
    return room;
}

static void serial_receive(void *opaque, const uint8_t *bytes, size_t len)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < len; i++)
        receive_byte(s, bytes[i]);
    update_line(s);
    pthread_mutex_unlock(&s->lock);
}

static void serial_writable(void *opaque)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->lock);
    transmit(s);
    update_line(s);
    pthread_mutex_unlock(&s->lock);
}

/* ---- The device ---- */

static void set_power_on(struct serial *s)
{
    s->ier = s->fcr = s->lcr = s->mcr = s->lsr_errors = s->scr = 0;
    s->dll = 1; /* 115200 baud */
    s->dlm = 0;
    s->thre_pending = false;
    s->polls = 0;
    memset(&s->rx, 0, sizeof(s->rx));
    memset(&s->tx, 0, sizeof(s->tx));
    s->msr = modem_lines(s);
}

static void serial_reset(struct mull_device *device)
{
    struct serial *s = (struct serial *)device;
    pthread_mutex_lock(&s->lock);
    set_power_on(s);
    update_line(s);
    pthread_mutex_unlock(&s->lock);
}

/* After a restore: the line follows the state whatever it was, and the transmitter goes on. */
static void serial_resume(struct mull_device *device)
{
    struct serial *s = (struct serial *)device;
    pthread_mutex_lock(&s->lock);
    transmit(s);
    s->line = wanted_line(s);
    mull_irq_set(&s->irq, s->line);
    pthread_mutex_unlock(&s->lock);
    if (s->chardev)
        mull_chardev_resume(s->chardev);
}

static void serial_destroy(struct mull_device *device)
{
    struct serial *s = (struct serial *)device;
    if (s->chardev)
        mull_chardev_attach(s->chardev, NULL);
    if (s->region)
        mull_region_remove(s->region);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static int fifo_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct fifo *f = object;
    if (f->first >= FIFO_SIZE || f->count > FIFO_SIZE)
        return mull_fail(err, EINVAL,
                         "serial: saved FIFO holds %u bytes from %u; not a valid state", f->count,
                         f->first);
    return 0;
}

static int serial_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct serial *s = object;
    s->ier &= IER_MASK;
    s->fcr = s->fcr & FCR_ENABLE ? s->fcr & FCR_MASK : 0;
    s->mcr &= MCR_MASK;
    s->lsr_errors &= LSR_OE;
    return 0;
}

static const struct mull_state_desc fifo_desc = {
    .name = "fifo16",
    .version = 1,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELD_BLOB(struct fifo, bytes),
                                          MULL_FIELD(struct fifo, first),
                                          MULL_FIELD(struct fifo, count), MULL_FIELDS_END},
    .after_load = fifo_loaded,
};

static const struct mull_state_desc serial_desc = {
    .name = "serial16550",
    .version = 1,
    .oldest = 1,
    .fields =
        (const struct mull_field[]){
            MULL_FIELD(struct serial, ier), MULL_FIELD(struct serial, fcr),
            MULL_FIELD(struct serial, lcr), MULL_FIELD(struct serial, mcr),
            MULL_FIELD(struct serial, lsr_errors), MULL_FIELD(struct serial, msr),
            MULL_FIELD(struct serial, scr), MULL_FIELD(struct serial, dll),
            MULL_FIELD(struct serial, dlm), MULL_FIELD(struct serial, thre_pending),
            MULL_FIELD(struct serial, polls), MULL_FIELD_NESTED(struct serial, rx, &fifo_desc),
            MULL_FIELD_NESTED(struct serial, tx, &fifo_desc), MULL_FIELDS_END},
    .after_load = serial_loaded,
};

static const struct mull_device_ops serial_ops = {
    .state = &serial_desc,
    .reset = serial_reset,
    .resume = serial_resume,
    .destroy = serial_destroy,
};

int mull_serial_create(const struct mull_device_env *env, const struct mull_serial_config *cfg,
                       struct mull_device **out, struct mull_error *err)
{
    struct serial *s = calloc(1, sizeof(*s));
    if (!s)
        return mull_fail(err, ENOMEM, "serial port 0x%x: out of memory", cfg->port);

    s->device.ops = &serial_ops;
    s->device.object = s;
    if (cfg->name)
        snprintf(s->device.name, sizeof(s->device.name), "%s", cfg->name);
    else
        snprintf(s->device.name, sizeof(s->device.name), "serial.%x", cfg->port);
    pthread_mutex_init(&s->lock, NULL);
    s->memory = env->memory;
    s->irq = cfg->irq;
    s->chardev = cfg->chardev;
    set_power_on(s);

    int rc = mull_region_add(env->memory, MULL_SPACE_PORT, cfg->port, REG_COUNT, &serial_region_ops,
                             s, "serial16550", &s->region, err);
    if (rc) {
        pthread_mutex_destroy(&s->lock);
        free(s);
        return rc;
    }
    if (s->chardev) {
        const struct mull_chardev_frontend frontend = {.opaque = s,
                                                       .can_receive = serial_can_receive,
                                                       .receive = serial_receive,
                                                       .writable = serial_writable};
        mull_chardev_attach(s->chardev, &frontend);
    }
    *out = &s->device;
    return 0;
}
