/*
 * The admin commands of the NVMe controller (NVM Express 1.4, chapter 5): queues, identification,
 * log pages, features, events.
 */
#include <stdio.h>
#include <string.h>

#include "device/storage/nvme_internal.h"

enum feature {
    ARBITRATION = 1,
    POWER = 2,
    TEMPERATURE = 4,
    ERROR_RECOVERY = 5,
    WRITE_CACHE = 6,
    QUEUES = 7,
    COALESCING = 8,
    VECTOR = 9,
    ATOMICITY = 10,
    EVENTS = 11,
};
#define KELVIN_NOW 310u
#define KELVIN_WARNING 343u

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v);
    put16(p + 2, v >> 16);
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

static void put_text(uint8_t *p, unsigned size, const char *text)
{
    for (unsigned i = 0; i < size; i++)
        p[i] = *text ? (uint8_t)*text++ : ' ';
}

/* ---- Queues (5.3 to 5.6) ---- */

static bool new_queue(struct nvme_request *r, bool taken)
{
    const struct nvme_command *c = &r->command;
    uint32_t id = c->dw10 & 0xffff, size = (c->dw10 >> 16) + 1;

    if (!id || id >= NVME_QUEUES || taken)
        nvme_complete(r, NVME_INVALID_QUEUE, 0);
    else if (size < 2 || size > NVME_MAX_ENTRIES)
        nvme_complete(r, NVME_INVALID_SIZE, 0);
    else if (!(c->dw11 & 1)) /* there are only contiguous ones */
        nvme_complete(r, NVME_INVALID_FIELD, 0);
    else if (!c->prp1 || (c->prp1 & (NVME_PAGE - 1)))
        nvme_complete(r, NVME_INVALID_PRP, 0);
    else
        return true;
    return false;
}

static void create_cq(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    const struct nvme_command *c = &r->command;
    uint32_t id = c->dw10 & 0xffff, vector = c->dw11 >> 16;

    if (!new_queue(r, id < NVME_QUEUES && n->cq[id].valid))
        return;
    if (vector >= (mull_pci_msix_enabled(&n->pci) ? NVME_QUEUES : 1)) {
        nvme_complete(r, NVME_INVALID_VECTOR, 0);
        return;
    }
    n->cq[id] = (struct nvme_cq){.valid = true,
                                 .interrupts = c->dw11 & 2,
                                 .phase = true,
                                 .base = c->prp1,
                                 .size = (c->dw10 >> 16) + 1,
                                 .vector = (uint16_t)vector};
    nvme_complete(r, NVME_OK, 0);
}

static void create_sq(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    const struct nvme_command *c = &r->command;
    uint32_t id = c->dw10 & 0xffff, cq = c->dw11 >> 16;

    if (!new_queue(r, id < NVME_QUEUES && n->sq[id].valid))
        return;
    if (!cq || cq >= NVME_QUEUES || !n->cq[cq].valid) {
        nvme_complete(r, NVME_INVALID_CQ, 0);
        return;
    }
    n->sq[id] = (struct nvme_sq){
        .valid = true, .base = c->prp1, .size = (c->dw10 >> 16) + 1, .cq = (uint16_t)cq};
    nvme_complete(r, NVME_OK, 0);
}

static void delete_cq(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    uint32_t id = r->command.dw10 & 0xffff;

    if (!id || id >= NVME_QUEUES || !n->cq[id].valid) {
        nvme_complete(r, NVME_INVALID_QUEUE, 0);
        return;
    }
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        if (n->sq[i].valid && n->sq[i].cq == id) {
            nvme_complete(r, NVME_QUEUE_DELETION, 0);
            return;
        }
    memset(&n->cq[id], 0, sizeof(n->cq[id]));
    nvme_complete(r, NVME_OK, 0);
}

/* Commands that are still on their way end first. */
static void delete_sq(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    uint32_t id = r->command.dw10 & 0xffff;

    if (!id || id >= NVME_QUEUES || !n->sq[id].valid || n->sq[id].deleter) {
        nvme_complete(r, NVME_INVALID_QUEUE, 0);
        return;
    }
    if (n->sq[id].in_flight) {
        n->sq[id].tail = n->sq[id].head; /* nothing more begins */
        n->sq[id].deleter = r;
        return;
    }
    memset(&n->sq[id], 0, sizeof(n->sq[id]));
    nvme_complete(r, NVME_OK, 0);
}

/* ---- Identify (5.15) ---- */

static void identify_controller(struct nvme_request *r, uint8_t *p)
{
    const struct nvme *n = r->controller;
    char subsystem[128];

    put16(p, 0x1b36);
    put16(p + 2, 0x1af4);
    put_text(p + 4, 20, n->serial);
    put_text(p + 24, 40, "MULLION DISK");
    put_text(p + 64, 8, "1.0");
    p[72] = 6; /* arbitration burst */
    p[77] = 8; /* MDTS: 2^8 pages */
    put32(p + 80, 0x00010400);
    p[258] = 3; /* abort command limit */
    p[259] = NVME_EVENTS - 1;
    p[260] = 3; /* one firmware slot, read-only */
    p[261] = 4; /* extended Get Log Page */
    p[262] = NVME_ERRORS - 1;
    put16(p + 266, KELVIN_WARNING);
    put16(p + 268, KELVIN_WARNING + 10);
    p[512] = 0x66;        /* queue entries: 64 bytes, */
    p[513] = 0x44;        /* 16 bytes */
    put32(p + 516, 1);    /* namespaces */
    put16(p + 520, 0x0c); /* Dataset Management, Write Zeroes */
    p[525] = 7;           /* a volatile write cache; flushes all namespaces */
    snprintf(subsystem, sizeof(subsystem), "nqn.2014-08.org.nvmexpress:mullion:%s", n->serial);
    memcpy(p + 768, subsystem, strlen(subsystem));
    put16(p + 2048, 2500); /* power state 0: 25 W */
}

static void identify_namespace(struct nvme_request *r, uint8_t *p)
{
    const struct nvme *n = r->controller;

    put64(p, n->blocks);
    put64(p + 8, n->blocks);
    put64(p + 16, n->blocks);
    p[24] = 0x10 | 1; /* NPWG..NOWS are there; thin */
    p[33] = 0x08;     /* Write Zeroes can deallocate */
    put16(p + 64, 7); /* preferred write granularity and alignment: 4 KiB */
    put16(p + 66, 7);
    put16(p + 68, 7);
    put16(p + 70, 7);
    p[99] = n->readonly ? 1 : 0; /* NSATTR: write protected */
    p[128 + 2] = 9;              /* format 0: 512 bytes */
}

/* A UUID from the serial number (RFC 9562, version 8: our own way to make it). */
static void identify_descriptors(struct nvme_request *r, uint8_t *p)
{
    uint64_t hash[2] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u}; /* FNV-1a */

    for (unsigned i = 0; i < 2; i++)
        for (const char *s = r->controller->serial; *s; s++)
            hash[i] = (hash[i] ^ (uint8_t)*s) * 0x100000001b3u;
    p[0] = 3;
    p[1] = 16;
    memcpy(p + 4, hash, 16);
    p[10] = (p[10] & 0x0f) | 0x80;
    p[12] = (p[12] & 0x3f) | 0x80;
}

static void identify(struct nvme_request *r)
{
    uint8_t page[NVME_PAGE] = {0};
    uint32_t nsid = r->command.nsid;

    switch (r->command.dw10 & 0xff) {
    case 0x00:
        if (nsid != 1 && nsid != 0xffffffff) {
            nvme_complete(r, NVME_INVALID_NAMESPACE, 0);
            return;
        }
        identify_namespace(r, page);
        break;
    case 0x01:
        identify_controller(r, page);
        break;
    case 0x02: /* namespaces with a higher number */
        if (nsid >= 0xfffffffe) {
            nvme_complete(r, NVME_INVALID_NAMESPACE, 0);
            return;
        }
        put32(page, nsid == 0);
        break;
    case 0x03:
        if (nsid != 1) {
            nvme_complete(r, NVME_INVALID_NAMESPACE, 0);
            return;
        }
        identify_descriptors(r, page);
        break;
    default:
        nvme_complete(r, NVME_INVALID_FIELD, 0);
        return;
    }
    nvme_answer(r, page, sizeof(page));
}

/* ---- Logs (5.14) ---- */

void nvme_note_error(struct nvme *n, const struct nvme_request *r, uint16_t status)
{
    memmove(n->error + 1, n->error, sizeof(n->error[0]) * (NVME_ERRORS - 1));
    n->error[0] = (struct nvme_error){.count = ++n->errors,
                                      .lba = (uint64_t)r->command.dw11 << 32 | r->command.dw10,
                                      .nsid = r->command.nsid,
                                      .sq = r->sq,
                                      .id = r->command.id,
                                      .status = status};
}

static void log_errors(const struct nvme *n, uint8_t *p)
{
    for (unsigned i = 0; i < NVME_ERRORS; i++, p += 64) {
        put64(p, n->error[i].count);
        put16(p + 8, n->error[i].sq);
        put16(p + 10, n->error[i].id);
        put16(p + 12, (uint32_t)n->error[i].status << 1);
        put64(p + 16, n->error[i].lba);
        put32(p + 24, n->error[i].nsid);
    }
}

static void log_health(const struct nvme *n, uint8_t *p)
{
    put16(p + 1, KELVIN_NOW);
    p[3] = 100; /* spare, and how little is too little */
    p[4] = 10;
    put64(p + 32, (n->read_blocks + 999) / 1000);
    put64(p + 48, (n->written_blocks + 999) / 1000);
    put64(p + 64, n->reads);
    put64(p + 80, n->writes);
    put64(p + 112, n->power_cycles);
    put64(p + 176, n->errors);
}

static void get_log(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    const struct nvme_command *c = &r->command;
    uint8_t page[512] = {0};
    uint64_t dwords = ((uint64_t)(c->dw11 & 0xffff) << 16 | c->dw10 >> 16) + 1;
    uint64_t offset = (uint64_t)c->dw13 << 32 | c->dw12;
    uint32_t size = 512;

    switch (c->dw10 & 0xff) {
    case 0x01:
        size = 64 * NVME_ERRORS;
        log_errors(n, page);
        break;
    case 0x02:
        log_health(n, page);
        break;
    case 0x03:
        page[0] = 1; /* slot 1 is active */
        put_text(page + 8, 8, "1.0");
        break;
    default:
        nvme_complete(r, NVME_INVALID_LOG, 0);
        return;
    }
    if (offset > size || (offset & 3)) {
        nvme_complete(r, NVME_INVALID_FIELD, 0);
        return;
    }
    if (!(c->dw10 & 0x8000)) /* the event is acknowledged */
        n->event_masked = false;
    size -= (uint32_t)offset;
    nvme_answer(r, page + offset, dwords * 4 < size ? (uint32_t)dwords * 4 : size);
}

/* ---- Features (5.21, 5.13) ---- */

void nvme_admin_reset(struct nvme *n)
{
    memset(n->feature, 0, sizeof(n->feature));
    n->feature[ARBITRATION] = 6;
    n->feature[TEMPERATURE] = KELVIN_WARNING;
    n->feature[WRITE_CACHE] = 1;
    n->feature[QUEUES] = (NVME_QUEUES - 2) << 16 | (NVME_QUEUES - 2);
    n->events = 0;
    n->event_pending = 0;
    n->event_masked = false;
}

static bool known_feature(uint32_t id)
{
    return id >= ARBITRATION && id < NVME_FEATURES && id != 3;
}

static uint32_t default_of(const struct nvme *n, uint32_t id)
{
    static const uint32_t values[NVME_FEATURES] = {
        [ARBITRATION] = 6, [TEMPERATURE] = KELVIN_WARNING, [WRITE_CACHE] = 1};
    return id == QUEUES ? n->feature[QUEUES] : values[id];
}

static void get_features(struct nvme_request *r)
{
    const struct nvme *n = r->controller;
    uint32_t id = r->command.dw10 & 0xff, select = r->command.dw10 >> 8 & 7;

    if (!known_feature(id) || select > 3) {
        nvme_complete(r, NVME_INVALID_FIELD, 0);
        return;
    }
    uint32_t value = select == 0   ? n->feature[id]
                     : select == 3 ? 4 /* can be changed, not saved */
                                   : default_of(n, id);
    if (id == VECTOR && select == 0)
        value = r->command.dw11 & 0xffff;
    nvme_complete(r, NVME_OK, value);
}

static void set_features(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    uint32_t id = r->command.dw10 & 0xff, value = r->command.dw11;

    if (!known_feature(id) || (r->command.dw10 & 0x80000000u)) {
        nvme_complete(r, NVME_INVALID_FIELD, 0);
        return;
    }
    if (id == QUEUES) { /* as many as there are, whatever is asked for */
        if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff)
            nvme_complete(r, NVME_INVALID_FIELD, 0);
        else
            nvme_complete(r, NVME_OK, n->feature[QUEUES]);
        return;
    }
    if (id == WRITE_CACHE && !(value & 1) && (n->feature[id] & 1)) {
        n->feature[id] = 0;
        mull_dma_submit(&r->dma, MULL_BLOCK_FLUSH, 0, 0, false, nvme_data_done);
        return;
    }
    n->feature[id] = id == WRITE_CACHE ? value & 1 : value;
    nvme_complete(r, NVME_OK, 0);
}

/* ---- Events (5.2) ---- */

void nvme_tell_events(struct nvme *n)
{
    if (!n->event_pending || !n->events || n->event_masked ||
        !nvme_complete_id(n, n->event_id[0], NVME_OK, n->event_pending & 0xffffff))
        return;
    memmove(n->event_id, n->event_id + 1, sizeof(n->event_id[0]) * (NVME_EVENTS - 1));
    n->events--;
    n->event_masked = true;
    n->event_pending = 0;
}

void nvme_event(struct nvme *n, uint8_t type, uint8_t info, uint8_t log)
{
    if (!(n->csts & CSTS_READY))
        return;
    n->event_pending = 0x80000000u | (uint32_t)log << 16 | (uint32_t)info << 8 | type;
    nvme_post(n);
}

static void event_request(struct nvme_request *r)
{
    struct nvme *n = r->controller;

    if (n->events == NVME_EVENTS) {
        nvme_complete(r, NVME_EVENT_LIMIT, 0);
        return;
    }
    n->event_id[n->events++] = r->command.id;
    nvme_take_back(r);
    nvme_tell_events(n);
}

/* Abort (5.1): what is on its way ends soon by itself; what waits for an event can be aborted. */
static void abort_command(struct nvme_request *r)
{
    struct nvme *n = r->controller;
    uint16_t sq = (uint16_t)r->command.dw10, id = (uint16_t)(r->command.dw10 >> 16);

    for (unsigned i = 0; sq == 0 && i < n->events; i++)
        if (n->event_id[i] == id) {
            bool told = nvme_complete_id(n, id, NVME_ABORTED, 0);
            if (told) {
                n->events--;
                memmove(n->event_id + i, n->event_id + i + 1,
                        sizeof(n->event_id[0]) * (n->events - i));
            }
            nvme_complete(r, NVME_OK, !told);
            return;
        }
    nvme_complete(r, NVME_OK, 1); /* not aborted */
}

void nvme_admin_command(struct nvme_request *r)
{
    switch (r->command.opcode) {
    case 0x00:
        delete_sq(r);
        break;
    case 0x01:
        create_sq(r);
        break;
    case 0x02:
        get_log(r);
        break;
    case 0x04:
        delete_cq(r);
        break;
    case 0x05:
        create_cq(r);
        break;
    case 0x06:
        identify(r);
        break;
    case 0x08:
        abort_command(r);
        break;
    case 0x09:
        set_features(r);
        break;
    case 0x0a:
        get_features(r);
        break;
    case 0x0c:
        event_request(r);
        break;
    default:
        nvme_complete(r, NVME_INVALID_OPCODE, 0);
    }
}
