/*
 * Guest physical memory: RAM (private, or in one memfd), the map of MMIO and I/O-port regions, and
 * the one access API through which everything but an engine reaches guest memory. Every access is
 * bounded and overflow-checked, each byte is read once, and a write tells whoever watches the page
 * (an engine with translations of it, dirty tracking). Knows nothing of CPUs, devices or PCI.
 */
#ifndef MULL_MEMORY_MEMORY_H
#define MULL_MEMORY_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/log.h"

#define MULL_PAGE_SHIFT 12
#define MULL_PAGE_SIZE 4096ull
#define MULL_PAGE_MASK (~(MULL_PAGE_SIZE - 1))

/** The cpu argument of an access that no vCPU makes (DMA, the monitor). */
#define MULL_CPU_NONE (~0u)

/* Flags of one page of RAM (struct mull_ram.flags). A page with any flag is written slowly. */
#define MULL_PAGE_CODE 0x01u  /* the soft engine holds translations of this page */
#define MULL_PAGE_CLEAN 0x02u /* dirty tracking is on and the page was not written since */
#define MULL_PAGE_ROM 0x04u   /* the guest's writes are dropped: mull_memory_set_rom() */
#define MULL_PAGE_SLOW (MULL_PAGE_CODE | MULL_PAGE_CLEAN | MULL_PAGE_ROM)

/** One contiguous range of guest RAM. Fixed once the machine runs, but for those that
 *  mull_memory_reserve_hot() has made room for. */
struct mull_ram {
    uint64_t gpa;           /* page aligned */
    uint64_t size;          /* bytes, page aligned; 0: nothing is plugged here */
    uint8_t *host;          /* where it is mapped; for engines only, never for devices */
    uint64_t file_offset;   /* in the memfd */
    bool readonly;          /* ROM: guest writes are dropped */
    _Atomic uint8_t *flags; /* one byte a page */
};

/** What a memory-mapped or I/O-port region does. Both functions may be called by several vCPU
 *  threads at once; a device takes its own lock. Offsets and sizes are within the region and
 *  between min_size and max_size (powers of two, at most 8); wider or narrower guest accesses are
 *  split or widened before. Values are little-endian numbers in the low bytes. */
struct mull_region_ops {
    uint64_t (*read)(void *opaque, unsigned cpu, uint64_t offset, unsigned size);
    void (*write)(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value);
    uint8_t min_size; /* 0: 1 */
    uint8_t max_size; /* 0: 8 for MMIO, 4 for ports */
};

struct mull_memory;
struct mull_region;

#define MULL_NOWHERE UINT64_MAX
#define MULL_DEVICE_RAM_MAX 4

/**
 * Memory of a device that guests see through a region whose functions only copy: a frame buffer. An
 * engine may read and write it itself, past these functions, where the region is to be seen, but no
 * code runs from there.
 */
struct mull_device_ram {
    struct mull_ram ram;  /* host (page aligned), size, flags (only MULL_PAGE_CLEAN); no gpa */
    _Atomic uint64_t gpa; /* page aligned, or MULL_NOWHERE; region.c keeps it */
};

/**
 * Registers of a region to which the guest writes only to say that there is something to do, and
 * that an engine may turn into an event by itself (KVM_IOEVENTFD), past the region's functions.
 */
struct mull_doorbells {
    int fd;          /* an eventfd; one for all of them */
    uint64_t offset; /* of the first, in the region */
    uint32_t step, count;
    atomic_bool armed; /* region.c's: the engine raises fd, and nobody says which one it was */
    uint64_t place;    /* region.c's: where the region was when the engine was told */
};

/** Who must hear of writes to watched pages. One watcher a memory: the engine. */
struct mull_memory_watch {
    void *opaque;
    /* RAM at [gpa, gpa + len), inside one page with MULL_PAGE_CODE, was written by other than the
     * engine's own vCPUs. Any thread. */
    void (*code_written)(void *opaque, uint64_t gpa, uint64_t len);
    /* Pages became CLEAN again: drop cached write permission. Any thread; returns when every vCPU
     * has. */
    void (*protect)(void *opaque);
    /* Dirty tracking starts or stops (before the pages become CLEAN); may be NULL. An engine that
     * does not see the guest's writes itself (kvm) starts its own log here ... */
    void (*tracking)(void *opaque, bool on);
    /* ... and here, before a fetch, reports what it has found with mull_memory_mark_dirty(); may
     * be NULL. */
    void (*sync)(void *opaque, const struct mull_ram *ram);
    /* Range number @index of mull_memory_ram() was plugged: it can be used when this returns 0.
     * No vCPU runs. NULL: the watcher cannot have that. */
    int (*plugged)(void *opaque, unsigned index, struct mull_error *err);
    /* It goes: nothing of it may be known or used when this returns. No vCPU runs. */
    void (*unplugged)(void *opaque, unsigned index);
    /* Memory of a device is no longer where it was: drop what is cached of where such memory is.
     * May be NULL. Any thread; returns when every vCPU has. */
    void (*moved)(void *opaque);
    /* The A20 gate has moved: look at mull_memory_a20(). NULL: for the watcher it is always on. Any
     * thread; where that is a vCPU's, its next instruction sees the change. */
    void (*a20)(void *opaque);
    /* The first of these doorbells is at @gpa from now on, or (@on false) no longer. May be NULL. Any
     * thread. @return whether writes there raise the eventfd and nothing else; if not, they go
     * through the region's functions as ever */
    bool (*doorbells)(void *opaque, const struct mull_doorbells *bells, uint64_t gpa, bool on);
};

/** Create an empty memory. @return 0 and *out, owned by the caller; or a negative errno. */
int mull_memory_create(const struct mull_log *log, struct mull_memory **out,
                       struct mull_error *err);
void mull_memory_destroy(struct mull_memory *mem);

/**
 * Add RAM (zeroed, not committed until touched). Before the machine runs only.
 *
 * @param gpa, size  page aligned; at most 8 ranges, not overlapping
 * @param readonly   ROM: the guest's writes are dropped, mull_mem_load() still fills it
 */
int mull_memory_add_ram(struct mull_memory *mem, uint64_t gpa, uint64_t size, bool readonly,
                        struct mull_error *err);

#define MULL_RAM_HOT 16 /* ranges that can be plugged */

/** Make room for RAM that comes and goes while the machine runs: MULL_RAM_HOT ranges, empty yet, at
 *  the end of mull_memory_ram(). Before an engine looks at the RAM, after all other RAM. */
void mull_memory_reserve_hot(struct mull_memory *mem);

/**
 * Plug zeroed RAM in, and tell the watcher. No vCPU may run, no device be at work.
 *
 * @param slot       0 to MULL_RAM_HOT - 1, empty
 * @param gpa, size  as for mull_memory_add_ram()
 * @return 0 or a negative errno
 */
int mull_memory_plug(struct mull_memory *mem, unsigned slot, uint64_t gpa, uint64_t size,
                     struct mull_error *err);

/** Pull it out again; its content is lost. As for mull_memory_plug(). Empty: nothing happens. */
void mull_memory_unplug(struct mull_memory *mem, unsigned slot);

/**
 * Write-protect pages of RAM against the guest's CPUs, or make them writable again (shadow RAM).
 * The caller keeps this state; an engine that cannot protect pages (kvm) leaves them writable.
 *
 * @param gpa, size  page aligned, inside one range
 * @return 0 or -EINVAL
 * Any thread.
 */
int mull_memory_set_rom(struct mull_memory *mem, uint64_t gpa, uint64_t size, bool rom);

/** The A20 gate of a PC/AT: while it is off, vCPUs see each address without its bit 20, so that real
 *  mode wraps at 1 MiB. Devices and this API see no gate. On at first. Any thread. */
void mull_memory_set_a20(struct mull_memory *mem, bool on);
bool mull_memory_a20(const struct mull_memory *mem);

/** The RAM ranges in order of address, then those that can be plugged. For engines and for saving.
 */
const struct mull_ram *mull_memory_ram(const struct mull_memory *mem, unsigned *count);

/** The RAM range that holds @gpa, or NULL. */
const struct mull_ram *mull_memory_find_ram(const struct mull_memory *mem, uint64_t gpa);

/** Keep RAM in a memfd, for a process that is to share it (vhost-user). Before RAM is added;
 * without this call it depends on what the host gives huge pages to. */
int mull_memory_share(struct mull_memory *mem, struct mull_error *err);

/** The memfd behind all RAM ranges, or -1: the memory is private. Stays the memory's. */
int mull_memory_fd(const struct mull_memory *mem);

/** The next page (number within @ram) at or after @page that may hold something else than zeroes;
 *  UINT64_MAX: none. */
uint64_t mull_memory_next_data(const struct mull_memory *mem, const struct mull_ram *ram,
                               uint64_t page);

/** Give whole pages back to the host: they read as zeroes. @return 0 or a negative errno. */
int mull_memory_discard(struct mull_memory *mem, const struct mull_ram *ram, uint64_t offset,
                        uint64_t len);

/** Let the host keep pages of equal content once (madvise(2), MADV_MERGEABLE), or no longer.
 * @return 0; -ENOTSUP: this memory or this host cannot */
int mull_memory_merge(struct mull_memory *mem, bool on);

/** @watch is copied; NULL: nobody watches any more. */
void mull_memory_set_watch(struct mull_memory *mem, const struct mull_memory_watch *watch);

/* ---- Access: everything but engines ---- */

/** Copy @len bytes of RAM at @gpa to @buf. @return 0, or -EFAULT if any byte is not RAM (nothing
 *  is copied then). Any thread. */
int mull_mem_read(struct mull_memory *mem, uint64_t gpa, void *buf, uint64_t len);

/** Copy @buf to RAM. @return 0, or -EFAULT if any byte is not writable RAM (nothing is written). */
int mull_mem_write(struct mull_memory *mem, uint64_t gpa, const void *buf, uint64_t len);

/** Like mull_mem_write but also fills ROM: for loaders, before the machine runs. */
int mull_mem_load(struct mull_memory *mem, uint64_t gpa, const void *buf, uint64_t len);

/** Fill with one byte. */
int mull_mem_set(struct mull_memory *mem, uint64_t gpa, uint8_t byte, uint64_t len);

/** Single loads and stores of naturally aligned little-endian values: acquire and release order,
 *  never torn. @return 0 or -EFAULT (not RAM, or not aligned; *value is then 0). */
int mull_mem_read16(struct mull_memory *mem, uint64_t gpa, uint16_t *value);
int mull_mem_read32(struct mull_memory *mem, uint64_t gpa, uint32_t *value);
int mull_mem_read64(struct mull_memory *mem, uint64_t gpa, uint64_t *value);
int mull_mem_write16(struct mull_memory *mem, uint64_t gpa, uint16_t value);
int mull_mem_write32(struct mull_memory *mem, uint64_t gpa, uint32_t value);
int mull_mem_write64(struct mull_memory *mem, uint64_t gpa, uint64_t value);

/**
 * Host vectors for I/O system calls (readv, sendmsg), so that bulk data is not copied twice. The
 * vectors may only be handed to the kernel or to bulk copies: never parse guest data through them,
 * because the guest can change it at any time. After a transfer *into* them call mull_mem_wrote().
 *
 * @param writable  the transfer writes guest memory (ROM is then refused)
 * @param iov, max  filled with at most max vectors
 * @return the number of vectors, or -EFAULT, or -E2BIG
 */
int mull_mem_iov(struct mull_memory *mem, uint64_t gpa, uint64_t len, bool writable,
                 struct iovec *iov, int max);

/** Tell the watchers that [gpa, gpa + len) was written through vectors. */
void mull_mem_wrote(struct mull_memory *mem, uint64_t gpa, uint64_t len);

/* ---- Dirty tracking ---- */

/** Start: every page counts as clean, and the engine's cached write permissions are dropped. */
void mull_memory_dirty_start(struct mull_memory *mem);
void mull_memory_dirty_stop(struct mull_memory *mem);

/** Fetch and clear: set bit i of @bitmap if page i of @ram was written since the last fetch.
 *  @param bitmap  (ram->size / 4096 + 7) / 8 bytes */
void mull_memory_dirty_fetch(struct mull_memory *mem, const struct mull_ram *ram, uint8_t *bitmap);

/** Engines call this before a write to a page with MULL_PAGE_CLEAN: the page is dirty now. */
void mull_memory_mark_dirty(const struct mull_ram *ram, uint64_t gpa);

/* ---- MMIO and I/O ports ---- */

enum mull_space { MULL_SPACE_MMIO, MULL_SPACE_PORT };

/**
 * Put a region into the map. A later region covers an earlier one where both overlap; MMIO is not
 * looked at where there is RAM.
 *
 * @param name  static string, for messages
 * @param out   handle for moving and removing it; may be NULL
 * Any thread.
 */
int mull_region_add(struct mull_memory *mem, enum mull_space space, uint64_t base, uint64_t size,
                    const struct mull_region_ops *ops, void *opaque, const char *name,
                    struct mull_region **out, struct mull_error *err);

/** Move, hide or show a region (a PCI BAR that the guest programs). Any thread. */
void mull_region_move(struct mull_region *region, uint64_t base, bool visible);

/**
 * Say that a region's bytes are @ram, which stays the device's and must live until the region is
 * removed, or mull_device_ram_remove() called. Before the machine runs.
 *
 * @return 0; -ENOSPC: there are MULL_DEVICE_RAM_MAX already, all goes through the region's
 * functions
 */
int mull_region_set_ram(struct mull_region *region, struct mull_device_ram *ram);

/** The region goes on by its functions; @ram is not looked at any more. No vCPU runs. */
void mull_device_ram_remove(struct mull_memory *mem, struct mull_device_ram *ram);

/** The MULL_DEVICE_RAM_MAX places of such memory, each NULL or in use. For engines. */
struct mull_device_ram *const _Atomic *mull_memory_device_ram(const struct mull_memory *mem);

/** Was @ram written by an engine since the last call? From the first call on that is watched. Any
 *  thread. */
bool mull_device_ram_written(struct mull_memory *mem, struct mull_device_ram *ram);

/** Tell the engine of a region's doorbells. @bells stays the device's, with the fields that are not
 *  region.c's filled in, and must live until the region is removed. Any thread. */
void mull_region_set_doorbells(struct mull_region *region, struct mull_doorbells *bells);

/** Take a region out and free it. A call in progress on another thread may still end after. */
void mull_region_remove(struct mull_region *region);

/**
 * A guest access outside RAM. Nobody there: reads give all ones, writes vanish.
 *
 * @param cpu   the vCPU's index
 * @param size  1 to 8 (MMIO), 1, 2 or 4 (ports)
 */
uint64_t mull_space_read(struct mull_memory *mem, enum mull_space space, unsigned cpu,
                         uint64_t address, unsigned size);
void mull_space_write(struct mull_memory *mem, enum mull_space space, unsigned cpu,
                      uint64_t address, unsigned size, uint64_t value);

#endif
