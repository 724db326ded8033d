/*
 * What the parts of the IDE controller share: ide.c (registers and life) and ide_channel.c
 * (commands and their data).
 */
#ifndef MULL_DEVICE_STORAGE_IDE_INTERNAL_H
#define MULL_DEVICE_STORAGE_IDE_INTERNAL_H

#include <pthread.h>

#include "device/storage/ata.h"
#include "device/storage/ide.h"

#define IDE_CHANNELS 2
#define IDE_BUFFER 8192u /* the most that READ MULTIPLE moves in a block */

#define CONTROL_NIEN 0x02u /* no interrupts */
#define CONTROL_SRST 0x04u
#define CONTROL_HOB 0x80u /* read what was written before the last */

#define BM_START 0x01u
#define BM_TO_MEMORY 0x08u
#define BM_ACTIVE 0x01u
#define BM_ERROR 0x02u
#define BM_INTERRUPT 0x04u
#define BM_CAPABLE 0x60u /* as software says */

/* What an ATAPI drive's interrupt is about, in its count register. */
#define REASON_COMMAND 1u
#define REASON_TO_HOST 2u

struct ide;
struct ide_channel;

/* A drive's registers; [1] is what was written before. */
struct ide_registers {
    uint8_t features[2], count[2], low[2], mid[2], high[2];
    uint8_t status, error;
};

enum ide_phase {
    IDE_IDLE,
    IDE_WAITING,   /* a command was written; the loop, or the bus master, starts it */
    IDE_PACKET,    /* the drive wants a packet */
    IDE_RUNNING,   /* the request is on its way */
    IDE_DATA,      /* the guest reads or writes the buffer */
    IDE_DATA_DONE, /* it has; the loop goes on */
};
#define IDE_PHASES 6

struct ide_request {
    struct mull_ata_request ata; /* must be first */
    struct ide_channel *channel;
    bool active;
    bool forgotten; /* a reset came; the guest hears no more of it */
    uint64_t prd;   /* bus-master DMA: the next entry */
    bool prd_end;
};

struct ide_channel {
    struct ide *ide;
    unsigned index;
    struct mull_irq line;
    struct mull_ata_drive drive[2];
    struct ide_request request;
    bool posted;
    /* State. */
    struct ide_registers reg[2];
    uint8_t device, control, command;
    bool irq;
    uint8_t phase; /* enum ide_phase */
    uint8_t packet[16];
    uint8_t bm_command, bm_status;
    uint32_t bm_table;
    /* PIO. */
    uint8_t buffer[IDE_BUFFER];
    uint32_t at, block_end;  /* where the guest is, and the end of this block */
    uint32_t staged;         /* bytes of the buffer in use */
    uint32_t block;          /* bytes between two interrupts */
    bool to_guest, streamed; /* more than the buffer's content may follow */
    bool first;              /* the block is not announced by an interrupt */
    uint8_t end_status, end_error;
    /* Of the transfer, for a saved state only. */
    uint64_t offset, left;
};

struct ide {
    struct mull_device device;
    struct mull_pci_function pci;
    struct mull_device_env env;
    pthread_mutex_t lock;
    bool paused;
    unsigned complaints;
    struct mull_region *ports[2 * IDE_CHANNELS];
    struct ide_channel channel[IDE_CHANNELS];
};

/* ide_channel.c; the lock is held in all of these. */

static inline unsigned ide_selected(const struct ide_channel *c)
{
    return c->device >> 4 & 1;
}

/** The interrupt line as the registers are now. */
void ide_update_line(struct ide_channel *c);

/** The command register was written. */
void ide_command(struct ide_channel *c, uint8_t code);

/** The bus master was started or stopped. */
void ide_bus_master(struct ide_channel *c, bool start);

/** The data register: @size 1, 2 or 4 bytes. */
uint32_t ide_data_read(struct ide_channel *c, unsigned size);
void ide_data_write(struct ide_channel *c, unsigned size, uint32_t value);

/** Both drives as after a reset; what is on its way is forgotten. */
void ide_channel_reset(struct ide_channel *c);

/** Go on with what waits for the loop's thread. */
void ide_channel_run(struct ide_channel *c);

/** Note in the state what the request knows (before a save), and the other way round. */
void ide_channel_note(struct ide_channel *c);
void ide_channel_restore(struct ide_channel *c);

#endif
