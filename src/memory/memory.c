/*
 * Guest RAM: ranges of private memory or of one memfd, the access API for devices and loaders, and
 * dirty tracking. Knows who watches written pages only through struct mull_memory_watch; see
 * memory.h.
 */
#include "memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/memory_internal.h"

/* Unmapped space on both sides of each range, so that a stray access of ours traps; a huge page, to
 * which ranges are aligned. */
#define GUARD_SIZE 0x200000ull

/* Is one of @words the value in brackets in a file of the host's huge page settings? */
static bool huge_pages_set(const char *file, const char *const *words)
{
    char path[128], text[128];

    snprintf(path, sizeof(path), "/sys/kernel/mm/transparent_hugepage/%s", file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return false;
    text[n] = 0;
    for (; *words; words++) {
        if (strstr(text, *words))
            return true;
    }
    return false;
}

/* Random accesses over much memory are up to three times slower on small pages. Hosts give huge
 * pages to private memory as a rule, to a memfd seldom. */
static bool private_is_faster(void)
{
    static const char *const shared[] = {"[always]", "[within_size]", "[advise]", "[force]", NULL};
    static const char *const private[] = {"[always]", "[madvise]", NULL};

    return !huge_pages_set("shmem_enabled", shared) && huge_pages_set("enabled", private);
}

int mull_memory_create(const struct mull_log *log, struct mull_memory **out, struct mull_error *err)
{
    struct mull_memory *mem = calloc(1, sizeof(*mem));
    if (!mem)
        return mull_fail(err, ENOMEM, "guest memory: out of memory");
    mem->log = log;
    int rc = pthread_rwlock_init(&mem->map_lock, NULL);
    if (rc) {
        free(mem);
        return mull_fail(err, rc, "guest memory: cannot create a lock: %s", strerror(rc));
    }
    mem->fd = -1;
    *out = mem;
    return private_is_faster() ? 0 : mull_memory_share(mem, err);
}

int mull_memory_share(struct mull_memory *mem, struct mull_error *err)
{
    if (mem->fd >= 0)
        return 0;
    if (mem->ram_count)
        return mull_fail(err, EBUSY, "guest memory: share it before it has RAM");
    mem->fd = memfd_create("mullion-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (mem->fd < 0)
        return mull_fail(err, errno, "guest memory: memfd_create: %s", strerror(errno));
    /* A peer that shares the memfd must not cut it short under our feet. */
    (void)fcntl(mem->fd, F_ADD_SEALS, F_SEAL_SHRINK);
    return 0;
}

static void release_range(struct mull_ram *ram)
{
    if (ram->host)
        munmap(ram->host - GUARD_SIZE, ram->size + 2 * GUARD_SIZE);
    free((void *)ram->flags);
    *ram = (struct mull_ram){0};
}

/* Where a range was plugged before. */
static void forget_place(struct mull_memory *mem, unsigned slot)
{
    struct mull_hot_place *place = &mem->place[slot];

    if (place->host)
        munmap(place->host - GUARD_SIZE, place->size + 2 * GUARD_SIZE);
    place->host = NULL;
}

void mull_memory_destroy(struct mull_memory *mem)
{
    if (!mem)
        return;
    mull_regions_destroy(mem);
    for (unsigned i = 0; i < mem->ram_count; i++)
        release_range(&mem->ram[i]);
    for (unsigned i = 0; i < MULL_RAM_HOT; i++)
        forget_place(mem, i);
    if (mem->fd >= 0)
        close(mem->fd);
    pthread_rwlock_destroy(&mem->map_lock);
    free(mem);
}

/* Map [offset, offset + size) of the memfd, or private memory (@fd -1), between two guards: huge
 * pages need an aligned start. */
static uint8_t *map_ram(int fd, uint64_t offset, uint64_t size)
{
    uint8_t *area = mmap(NULL, size + 3 * GUARD_SIZE, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return NULL;
    size_t excess = (GUARD_SIZE - ((uintptr_t)area & (GUARD_SIZE - 1))) & (GUARD_SIZE - 1);
    if (excess)
        munmap(area, excess);
    area += excess;
    munmap(area + size + 2 * GUARD_SIZE, GUARD_SIZE - excess);
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
    uint8_t *host =
        mmap(area + GUARD_SIZE, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, (off_t)offset);
    if (host == MAP_FAILED) {
        int saved = errno;
        munmap(area, size + 2 * GUARD_SIZE);
        errno = saved;
        return NULL;
    }
    /* Both are advice: what the host does not offer is not needed. */
    (void)madvise(host, size, MADV_DONTDUMP);
    (void)madvise(host, size, MADV_HUGEPAGE);
    return host;
}

static int check_range(const struct mull_memory *mem, uint64_t gpa, uint64_t size,
                       struct mull_error *err)
{
    if (((gpa | size) & ~MULL_PAGE_MASK) || size == 0 || gpa + size < gpa || size > INT64_MAX / 2)
        return mull_fail(err, EINVAL,
                         "guest memory: range 0x%" PRIx64 "+0x%" PRIx64
                         " is empty, too large or not page aligned",
                         gpa, size);
    for (unsigned i = 0; i < mem->ram_count; i++)
        if (gpa < mem->ram[i].gpa + mem->ram[i].size && mem->ram[i].gpa < gpa + size)
            return mull_fail(err, EEXIST,
                             "guest memory: range 0x%" PRIx64 "+0x%" PRIx64 " overlaps another",
                             gpa, size);
    return 0;
}

/* Map a range and fill in its description, @offset bytes into the memfd if there is one. */
static int make_range(struct mull_memory *mem, struct mull_ram *ram, uint64_t gpa, uint64_t size,
                      uint64_t offset, struct mull_error *err)
{
    if (mem->fd >= 0 && offset + size > mem->file_size) {
        if (ftruncate(mem->fd, (off_t)(offset + size)) < 0)
            return mull_fail(err, errno,
                             "guest memory: cannot size RAM to %" PRIu64
                             " MiB: %s; use less --memory",
                             (offset + size) >> 20, strerror(errno));
        mem->file_size = offset + size;
    }
    _Atomic uint8_t *flags = calloc(size >> MULL_PAGE_SHIFT, 1);
    if (!flags)
        return mull_fail(err, ENOMEM, "guest memory: no memory for page flags");
    uint8_t *host = map_ram(mem->fd, offset, size);
    if (!host) {
        int code = errno;
        free((void *)flags);
        return mull_fail(err, code,
                         "guest memory: cannot map %" PRIu64 " MiB of RAM: %s; use less --memory",
                         size >> 20, strerror(code));
    }
    *ram = (struct mull_ram){
        .gpa = gpa, .size = size, .host = host, .file_offset = offset, .flags = flags};
    return 0;
}

int mull_memory_add_ram(struct mull_memory *mem, uint64_t gpa, uint64_t size, bool readonly,
                        struct mull_error *err)
{
    struct mull_ram ram;
    int ret = check_range(mem, gpa, size, err);
    if (ret)
        return ret;
    if (mem->ram_count >= MULL_RAM_MAX)
        return mull_fail(err, ENOSPC, "guest memory: more than %d ranges of RAM", MULL_RAM_MAX);
    ret = make_range(mem, &ram, gpa, size, mem->file_size, err);
    if (ret)
        return ret;
    ram.readonly = readonly;
    unsigned at = 0;
    while (at < mem->ram_count && mem->ram[at].gpa < gpa)
        at++;
    memmove(&mem->ram[at + 1], &mem->ram[at], (mem->ram_count - at) * sizeof(mem->ram[0]));
    mem->ram[at] = ram;
    mem->ram_count++;
    return 0;
}

/* ---- RAM that comes and goes ---- */

void mull_memory_reserve_hot(struct mull_memory *mem)
{
    if (mem->hot)
        return;
    mem->hot = mem->ram_count;
    mem->ram_count += MULL_RAM_HOT;
}

int mull_memory_plug(struct mull_memory *mem, unsigned slot, uint64_t gpa, uint64_t size,
                     struct mull_error *err)
{
    if (!mem->hot || slot >= MULL_RAM_HOT || mem->ram[mem->hot + slot].size)
        return mull_fail(err, EINVAL, "guest memory: slot %u is taken, or not there", slot);
    struct mull_ram *ram = &mem->ram[mem->hot + slot];
    int ret = check_range(mem, gpa, size, err);
    if (ret)
        return ret;
    if (mem->watch.opaque && !mem->watch.plugged)
        return mull_fail(err, ENOTSUP, "guest memory: the engine cannot have more while it runs");
    /* The part of the memfd that the slot had before does again if it is large enough. */
    struct mull_hot_place *place = &mem->place[slot];
    if (place->file_size < size) {
        place->file_offset = mem->file_size;
        place->file_size = mem->fd >= 0 ? size : 0;
    }
    forget_place(mem, slot);
    ret = make_range(mem, ram, gpa, size, place->file_offset, err);
    if (!ret && mem->watch.plugged)
        ret = mem->watch.plugged(mem->watch.opaque, mem->hot + slot, err);
    if (ret)
        release_range(ram);
    return ret;
}

void mull_memory_unplug(struct mull_memory *mem, unsigned slot)
{
    if (!mem->hot || slot >= MULL_RAM_HOT || !mem->ram[mem->hot + slot].size)
        return;
    struct mull_ram *ram = &mem->ram[mem->hot + slot];
    if (mem->watch.unplugged)
        mem->watch.unplugged(mem->watch.opaque, mem->hot + slot);
    mull_memory_discard(mem, ram, 0, ram->size);
    /* Its addresses stay taken until the slot is used again: a transfer that somebody has held back
     * with vectors into it must fail, not write into what came in its place. */
    struct mull_hot_place *place = &mem->place[slot];
    if (mmap(ram->host, ram->size, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED) {
        place->host = ram->host;
        place->size = ram->size;
        ram->host = NULL;
    }
    release_range(ram);
}

const struct mull_ram *mull_memory_ram(const struct mull_memory *mem, unsigned *count)
{
    *count = mem->ram_count;
    return mem->ram;
}

const struct mull_ram *mull_memory_find_ram(const struct mull_memory *mem, uint64_t gpa)
{
    for (unsigned i = 0; i < mem->ram_count; i++)
        if (gpa - mem->ram[i].gpa < mem->ram[i].size)
            return &mem->ram[i];
    return NULL;
}

uint64_t mull_memory_next_data(const struct mull_memory *mem, const struct mull_ram *ram,
                               uint64_t page)
{
    if (page >= ram->size >> MULL_PAGE_SHIFT)
        return UINT64_MAX;
    if (mem->fd < 0)
        return page;
    off_t at = lseek(mem->fd, (off_t)(ram->file_offset + (page << MULL_PAGE_SHIFT)), SEEK_DATA);
    if (at < 0)
        return errno == ENXIO ? UINT64_MAX : page; /* ENXIO: a hole up to the end */
    uint64_t found = ((uint64_t)at - ram->file_offset) >> MULL_PAGE_SHIFT;
    return found < ram->size >> MULL_PAGE_SHIFT ? found : UINT64_MAX;
}

int mull_memory_discard(struct mull_memory *mem, const struct mull_ram *ram, uint64_t offset,
                        uint64_t len)
{
    if (((offset | len) & ~MULL_PAGE_MASK) || offset > ram->size || len > ram->size - offset)
        return -EINVAL;
    int r = mem->fd < 0 ? madvise(ram->host + offset, len, MADV_DONTNEED)
                        : fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    (off_t)(ram->file_offset + offset), (off_t)len);
    return r < 0 ? -errno : 0;
}

int mull_memory_merge(struct mull_memory *mem, bool on)
{
    if (mem->fd >= 0) /* the host merges private memory alone */
        return -ENOTSUP;
    for (unsigned i = 0; i < mem->ram_count; i++)
        if (mem->ram[i].size &&
            madvise(mem->ram[i].host, mem->ram[i].size, on ? MADV_MERGEABLE : MADV_UNMERGEABLE))
            return -ENOTSUP;
    return 0;
}

int mull_memory_fd(const struct mull_memory *mem)
{
    return mem->fd;
}

void mull_memory_set_watch(struct mull_memory *mem, const struct mull_memory_watch *watch)
{
    mull_regions_set_watch(mem, watch);
}

void mull_memory_set_a20(struct mull_memory *mem, bool on)
{
    if (atomic_exchange(&mem->a20_off, !on) == !on)
        return;
    if (mem->watch.a20)
        mem->watch.a20(mem->watch.opaque);
}

bool mull_memory_a20(const struct mull_memory *mem)
{
    return !atomic_load(&mem->a20_off);
}

/* ---- Access ---- */

/* The part of [gpa, gpa + len) that starts at gpa and lies in one range. */
static const struct mull_ram *first_part(const struct mull_memory *mem, uint64_t gpa, uint64_t len,
                                         uint64_t *part)
{
    const struct mull_ram *ram = mull_memory_find_ram(mem, gpa);
    uint64_t room = ram ? ram->size - (gpa - ram->gpa) : 0;
    *part = len < room ? len : room;
    return ram;
}

static bool all_ram(const struct mull_memory *mem, uint64_t gpa, uint64_t len, bool writable)
{
    if (gpa + len < gpa)
        return false;
    while (len) {
        uint64_t part;
        const struct mull_ram *ram = first_part(mem, gpa, len, &part);
        if (!ram || (writable && ram->readonly))
            return false;
        gpa += part;
        len -= part;
    }
    return true;
}

/* [gpa, gpa + len), inside @ram, was written: mark its pages dirty and tell of code in them. Coming
 * after the write, it cannot lose a write to a concurrent fetch or translation: those set their
 * flag first and look at the page afterwards. */
static void wrote(struct mull_memory *mem, const struct mull_ram *ram, uint64_t gpa, uint64_t len)
{
    atomic_thread_fence(memory_order_seq_cst);
    while (len) {
        uint64_t part = MULL_PAGE_SIZE - (gpa & ~MULL_PAGE_MASK);
        if (part > len)
            part = len;
        _Atomic uint8_t *flags = &ram->flags[(gpa - ram->gpa) >> MULL_PAGE_SHIFT];
        uint8_t set = atomic_load_explicit(flags, memory_order_relaxed);
        if (set & MULL_PAGE_CLEAN)
            mull_memory_mark_dirty(ram, gpa);
        if ((set & MULL_PAGE_CODE) && mem->watch.code_written)
            mem->watch.code_written(mem->watch.opaque, gpa, part);
        gpa += part;
        len -= part;
    }
}

int mull_mem_read(struct mull_memory *mem, uint64_t gpa, void *buf, uint64_t len)
{
    if (!all_ram(mem, gpa, len, false))
        return -EFAULT;
    uint8_t *to = buf;
    while (len) {
        uint64_t part;
        const struct mull_ram *ram = first_part(mem, gpa, len, &part);
        memcpy(to, ram->host + (gpa - ram->gpa), part);
        to += part;
        gpa += part;
        len -= part;
    }
    return 0;
}

/* Copy @buf, or @byte where it is NULL. */
static int store(struct mull_memory *mem, uint64_t gpa, const void *buf, uint8_t byte, uint64_t len,
                 bool rom)
{
    if (!all_ram(mem, gpa, len, !rom))
        return -EFAULT;
    const uint8_t *from = buf;
    while (len) {
        uint64_t part;
        const struct mull_ram *ram = first_part(mem, gpa, len, &part);
        uint8_t *to = ram->host + (gpa - ram->gpa);
        if (from) {
            memcpy(to, from, part);
            from += part;
        } else {
            memset(to, byte, part);
        }
        wrote(mem, ram, gpa, part);
        gpa += part;
        len -= part;
    }
    return 0;
}

int mull_mem_write(struct mull_memory *mem, uint64_t gpa, const void *buf, uint64_t len)
{
    return store(mem, gpa, buf, 0, len, false);
}

int mull_mem_load(struct mull_memory *mem, uint64_t gpa, const void *buf, uint64_t len)
{
    return store(mem, gpa, buf, 0, len, true);
}

int mull_mem_set(struct mull_memory *mem, uint64_t gpa, uint8_t byte, uint64_t len)
{
    return store(mem, gpa, NULL, byte, len, false);
}

/* The host address of an aligned value: one range holds it, because ranges are page aligned. */
static void *aligned(struct mull_memory *mem, uint64_t gpa, unsigned size, bool writable,
                     const struct mull_ram **ram)
{
    if (gpa & (size - 1))
        return NULL;
    *ram = mull_memory_find_ram(mem, gpa);
    if (!*ram || (writable && (*ram)->readonly))
        return NULL;
    return (*ram)->host + (gpa - (*ram)->gpa);
}

#define SINGLE_ACCESS(bits)                                                                        \
    int mull_mem_read##bits(struct mull_memory *mem, uint64_t gpa, uint##bits##_t *value)          \
    {                                                                                              \
        const struct mull_ram *ram;                                                                \
        const _Atomic uint##bits##_t *p = aligned(mem, gpa, bits / 8, false, &ram);                \
        *value = p ? atomic_load_explicit(p, memory_order_acquire) : 0;                            \
        return p ? 0 : -EFAULT;                                                                    \
    }                                                                                              \
    int mull_mem_write##bits(struct mull_memory *mem, uint64_t gpa, uint##bits##_t value)          \
    {                                                                                              \
        const struct mull_ram *ram;                                                                \
        _Atomic uint##bits##_t *p = aligned(mem, gpa, bits / 8, true, &ram);                       \
        if (!p)                                                                                    \
            return -EFAULT;                                                                        \
        atomic_store_explicit(p, value, memory_order_release);                                     \
        wrote(mem, ram, gpa, bits / 8);                                                            \
        return 0;                                                                                  \
    }

SINGLE_ACCESS(16)
SINGLE_ACCESS(32)
SINGLE_ACCESS(64)

int mull_mem_iov(struct mull_memory *mem, uint64_t gpa, uint64_t len, bool writable,
                 struct iovec *iov, int max)
{
    if (!all_ram(mem, gpa, len, writable))
        return -EFAULT;
    int count = 0;
    while (len) {
        uint64_t part;
        const struct mull_ram *ram = first_part(mem, gpa, len, &part);
        if (count >= max)
            return -E2BIG;
        iov[count].iov_base = ram->host + (gpa - ram->gpa);
        iov[count].iov_len = part;
        count++;
        gpa += part;
        len -= part;
    }
    return count;
}

void mull_mem_wrote(struct mull_memory *mem, uint64_t gpa, uint64_t len)
{
    if (!all_ram(mem, gpa, len, false))
        return;
    while (len) {
        uint64_t part;
        const struct mull_ram *ram = first_part(mem, gpa, len, &part);
        wrote(mem, ram, gpa, part);
        gpa += part;
        len -= part;
    }
}

/* ---- Dirty tracking ---- */

static void protect(struct mull_memory *mem)
{
    if (mem->watch.protect)
        mem->watch.protect(mem->watch.opaque);
}

static void tracking(struct mull_memory *mem, bool on)
{
    if (mem->watch.tracking)
        mem->watch.tracking(mem->watch.opaque, on);
}

int mull_memory_set_rom(struct mull_memory *mem, uint64_t gpa, uint64_t size, bool rom)
{
    const struct mull_ram *ram = mull_memory_find_ram(mem, gpa);
    if (!ram || ((gpa | size) & ~MULL_PAGE_MASK) || size > ram->size - (gpa - ram->gpa))
        return -EINVAL;
    for (uint64_t at = gpa - ram->gpa; at < gpa - ram->gpa + size; at += MULL_PAGE_SIZE) {
        _Atomic uint8_t *flags = &ram->flags[at >> MULL_PAGE_SHIFT];
        if (rom)
            atomic_fetch_or(flags, MULL_PAGE_ROM);
        else
            atomic_fetch_and(flags, (uint8_t)~MULL_PAGE_ROM);
    }
    if (rom)
        protect(mem);
    return 0;
}

bool mull_device_ram_written(struct mull_memory *mem, struct mull_device_ram *ram)
{
    bool written = false;

    for (uint64_t i = 0; i < ram->ram.size >> MULL_PAGE_SHIFT; i++)
        if (!(atomic_load_explicit(&ram->ram.flags[i], memory_order_relaxed) & MULL_PAGE_CLEAN)) {
            atomic_fetch_or(&ram->ram.flags[i], MULL_PAGE_CLEAN);
            written = true;
        }
    if (written)
        protect(mem);
    return written;
}

void mull_memory_dirty_start(struct mull_memory *mem)
{
    tracking(mem, true);
    atomic_store(&mem->dirty_tracking, true);
    for (unsigned i = 0; i < mem->ram_count; i++)
        for (uint64_t page = 0; page < mem->ram[i].size >> MULL_PAGE_SHIFT; page++)
            atomic_fetch_or(&mem->ram[i].flags[page], MULL_PAGE_CLEAN);
    protect(mem);
}

void mull_memory_dirty_stop(struct mull_memory *mem)
{
    tracking(mem, false);
    atomic_store(&mem->dirty_tracking, false);
    for (unsigned i = 0; i < mem->ram_count; i++)
        for (uint64_t page = 0; page < mem->ram[i].size >> MULL_PAGE_SHIFT; page++)
            atomic_fetch_and(&mem->ram[i].flags[page], (uint8_t)~MULL_PAGE_CLEAN);
}

/* A vCPU that runs may finish a store behind it that it had begun before: see "Dirty tracking" in
 * docs/soft-engine-threads.md. */
void mull_memory_dirty_fetch(struct mull_memory *mem, const struct mull_ram *ram, uint8_t *bitmap)
{
    uint64_t pages = ram->size >> MULL_PAGE_SHIFT;
    bool found = false;
    memset(bitmap, 0, (pages + 7) / 8);
    if (!atomic_load(&mem->dirty_tracking))
        return;
    if (mem->watch.sync)
        mem->watch.sync(mem->watch.opaque, ram);
    for (uint64_t page = 0; page < pages; page++) {
        if (atomic_load_explicit(&ram->flags[page], memory_order_relaxed) & MULL_PAGE_CLEAN)
            continue;
        atomic_fetch_or(&ram->flags[page], MULL_PAGE_CLEAN);
        bitmap[page / 8] |= (uint8_t)(1u << (page % 8));
        found = true;
    }
    if (found)
        protect(mem);
}

void mull_memory_mark_dirty(const struct mull_ram *ram, uint64_t gpa)
{
    uint64_t offset = gpa - ram->gpa;
    if (offset < ram->size)
        atomic_fetch_and(&ram->flags[offset >> MULL_PAGE_SHIFT], (uint8_t)~MULL_PAGE_CLEAN);
}
