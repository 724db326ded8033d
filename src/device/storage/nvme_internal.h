/*
 * What the parts of the NVMe controller share: nvme.c (registers and life), nvme_queue.c (queues),
 * nvme_admin.c and nvme_io.c (commands). Section numbers are those of NVM Express 1.4.
 */
#ifndef MULL_DEVICE_STORAGE_NVME_INTERNAL_H
#define MULL_DEVICE_STORAGE_NVME_INTERNAL_H

#include <pthread.h>

#include "device/storage/nvme.h"

#define NVME_QUEUES 17 /* number 0 is the admin queue */
#define NVME_MAX_ENTRIES 1024u
#define NVME_PAGE 4096u
#define NVME_BLOCK 512u
#define NVME_MAX_PAGES 256u /* of a transfer: MDTS, 1 MiB */
#define NVME_IN_FLIGHT 512u
#define NVME_EVENTS 4 /* asynchronous event requests that may wait */
#define NVME_ERRORS 4 /* entries of the error log */
#define NVME_RANGES 256
#define NVME_FEATURES 12

/* Controller configuration and status (3.1.5, 3.1.6). */
#define CC_ENABLE 1u
#define CC_SHUTDOWN 0xc000u
#define CSTS_READY 1u
#define CSTS_FATAL 2u
#define CSTS_SHUT_BUSY 4u
#define CSTS_SHUT_DONE 8u
#define CSTS_SHUT 12u

/* Status: type << 8 | code (4.6.1). DNR: trying again does not help. */
#define NVME_DNR 0x4000u
#define NVME_OK 0x000u
#define NVME_INVALID_OPCODE (0x001u | NVME_DNR)
#define NVME_INVALID_FIELD (0x002u | NVME_DNR)
#define NVME_TRANSFER_ERROR 0x004u
#define NVME_INTERNAL 0x006u
#define NVME_ABORTED 0x007u
#define NVME_INVALID_NAMESPACE (0x00bu | NVME_DNR)
#define NVME_INVALID_PRP (0x013u | NVME_DNR)
#define NVME_OUT_OF_RANGE (0x080u | NVME_DNR)
#define NVME_CAPACITY 0x081u
#define NVME_INVALID_CQ (0x100u | NVME_DNR)
#define NVME_INVALID_QUEUE (0x101u | NVME_DNR)
#define NVME_INVALID_SIZE (0x102u | NVME_DNR)
#define NVME_EVENT_LIMIT 0x105u
#define NVME_INVALID_VECTOR (0x108u | NVME_DNR)
#define NVME_INVALID_LOG (0x109u | NVME_DNR)
#define NVME_QUEUE_DELETION (0x10cu | NVME_DNR)
#define NVME_NOT_CHANGEABLE (0x10eu | NVME_DNR)
#define NVME_WRITE_FAULT 0x280u
#define NVME_READ_ERROR 0x281u
#define NVME_READ_ONLY (0x182u | NVME_DNR)

struct nvme;

/* A command as it lies in a queue (4.2). */
struct nvme_command {
    uint8_t opcode, flags;
    uint16_t id;
    uint32_t nsid;
    uint64_t reserved, metadata;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13, dw14, dw15;
};

struct nvme_request;

struct nvme_sq {
    bool valid;
    uint64_t base;
    uint32_t size, head, tail;
    uint16_t cq;
    uint32_t in_flight;           /* not saved: a quiet controller has none */
    struct nvme_request *deleter; /* waits for the last of them; or NULL */
};

struct nvme_cq {
    bool valid, interrupts, phase;
    bool due; /* completions of which no interrupt has told yet; not saved */
    uint64_t base;
    uint32_t size, head, tail;
    uint16_t vector;
    uint32_t in_flight; /* commands whose completion goes here; not saved */
};

/* A command on its way. */
struct nvme_request {
    struct mull_dma dma; /* must be first */
    struct nvme *controller;
    struct nvme_request *next; /* in the list of idle ones */
    struct nvme_command command;
    uint16_t sq;
    uint32_t generation; /* of the controller when it began */
    uint16_t error;      /* a status that the transfer found by itself */
    /* The guest's pages (4.3). */
    uint32_t left; /* bytes not described yet */
    unsigned page; /* how many were */
    uint64_t list; /* the next entry of the PRP list */
    unsigned ranges, range;
    struct {
        uint32_t attributes, blocks;
        uint64_t lba;
    } deallocate[NVME_RANGES];
};

struct nvme_error {
    uint64_t count, lba;
    uint32_t nsid;
    uint16_t sq, id, status;
};

struct nvme {
    struct mull_device device;
    struct mull_pci_function pci;
    struct mull_device_env env;
    pthread_mutex_t lock;
    struct mull_block *block;
    bool readonly;
    char serial[21];
    uint64_t blocks;
    unsigned complaints;
    struct nvme_request *idle;
    unsigned in_flight;
    uint32_t generation; /* counts resets: what began before is not told any more */
    bool posted;         /* the loop will look at the queues */
    bool paused;
    bool stopping;                /* disabled while commands were on their way */
    struct nvme_request shutdown; /* the flush before the lights go out */
    bool shutting;

    /* Registers and state. */
    uint32_t cc, csts, aqa, interrupt_mask;
    uint64_t asq, acq;
    struct nvme_sq sq[NVME_QUEUES];
    struct nvme_cq cq[NVME_QUEUES];
    uint32_t feature[NVME_FEATURES];
    uint16_t event_id[NVME_EVENTS]; /* commands that wait for an event */
    uint8_t events;                 /* how many */
    uint32_t event_pending;         /* what they will be told, 0: nothing */
    bool event_masked;              /* until its log is read */
    struct nvme_error error[NVME_ERRORS];
    uint64_t errors;
    uint64_t read_blocks, written_blocks, reads, writes, power_cycles;
};

/* nvme_queue.c; the lock is held. */

/** Look at the queues soon, in the loop's thread. */
void nvme_post(struct nvme *n);

/** Begin the commands that wait. Loop's thread. */
void nvme_run(struct nvme *n);

/** The head or tail of a queue was written. */
void nvme_doorbell(struct nvme *n, unsigned index, uint32_t value);

/** End a command: @status and @result go to the completion queue. */
void nvme_complete(struct nvme_request *r, uint16_t status, uint32_t result);

/** Forget that a command is on its way: it waits for an event. */
void nvme_take_back(struct nvme_request *r);

/** End such an admin command. @return false: there is no room for its completion now */
bool nvme_complete_id(struct nvme *n, uint16_t id, uint16_t status, uint32_t result);

/** The interrupt lines as the queues are now. */
void nvme_interrupts(struct nvme *n);

/** Forget all queues; what is on its way ends silently. */
void nvme_forget(struct nvme *n);

/** The guest's buffers of @bytes are asked for from the PRPs of the command. */
void nvme_expect(struct nvme_request *r, uint32_t bytes);

/** Copy an answer to the guest's buffers and end the command. */
void nvme_answer(struct nvme_request *r, const void *data, uint32_t len);

/** The `then` of transfers. */
void nvme_data_done(struct mull_dma *d, int result);

/* nvme_admin.c, nvme_io.c: carry a command out. */
void nvme_admin_command(struct nvme_request *r);
void nvme_io_command(struct nvme_request *r);
/** Features after a reset. */
void nvme_admin_reset(struct nvme *n);
/** Tell of an event: @type (5.2), @info, @log its log page. */
void nvme_event(struct nvme *n, uint8_t type, uint8_t info, uint8_t log);
/** Tell the guest of an event if it wants to hear of it. */
void nvme_tell_events(struct nvme *n);
/** Note a command that failed. */
void nvme_note_error(struct nvme *n, const struct nvme_request *r, uint16_t status);

#endif
