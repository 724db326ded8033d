/*
 * The map of MMIO and I/O-port regions. Regions may overlap: the map is kept flattened, a sorted
 * array of ranges that each belong to the newest region there, so that an access costs one binary
 * search. Knows nothing of what lies behind a region.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "memory/memory_internal.h"

struct mull_region {
    struct mull_memory *mem;
    struct mull_space_map *map;
    struct mull_region *older, *newer;
    uint64_t base, size;
    struct mull_region_ops ops;
    void *opaque;
    const char *name;
    bool visible;
    struct mull_device_ram *ram;  /* NULL: none */
    struct mull_doorbells *bells; /* NULL: none */
};

/* Where the visible region may change while walking up the addresses. */
struct mull_edge {
    uint64_t at;
};

static int compare_edges(const void *a, const void *b)
{
    const struct mull_edge *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

static uint64_t region_last(const struct mull_region *region)
{
    return region->base + (region->size - 1);
}

static struct mull_region *newest_at(const struct mull_space_map *map, uint64_t at)
{
    for (struct mull_region *r = map->newest; r; r = r->older)
        if (r->visible && at - r->base < r->size)
            return r;
    return NULL;
}

/* Make `range` from the list. Allocates nothing, so that moving a region cannot fail. */
static void flatten(struct mull_space_map *map)
{
    unsigned edges = 0;
    map->ranges = 0;
    for (const struct mull_region *r = map->oldest; r; r = r->newer) {
        if (!r->visible)
            continue;
        map->edge[edges++].at = r->base;
        if (region_last(r) != UINT64_MAX)
            map->edge[edges++].at = region_last(r) + 1;
    }
    qsort(map->edge, edges, sizeof(map->edge[0]), compare_edges);
    for (unsigned i = 0; i < edges; i++) {
        if (i > 0 && map->edge[i].at == map->edge[i - 1].at)
            continue;
        struct mull_region *owner = newest_at(map, map->edge[i].at);
        if (!owner)
            continue;
        unsigned next = i + 1;
        while (next < edges && map->edge[next].at == map->edge[i].at)
            next++;
        uint64_t last = next < edges ? map->edge[next].at - 1 : UINT64_MAX;
        struct mull_range *previous = map->ranges ? &map->range[map->ranges - 1] : NULL;
        if (previous && previous->region == owner && previous->last + 1 == map->edge[i].at)
            previous->last = last;
        else
            map->range[map->ranges++] = (struct mull_range){map->edge[i].at, last, owner};
    }
}

/* Where the engine may go past a region's functions: where all of it can be seen. */
static uint64_t whole_place(const struct mull_region *region)
{
    const struct mull_space_map *map = region->map;

    for (unsigned i = 0; region->visible && i < map->ranges; i++)
        if (map->range[i].region == region && map->range[i].first == region->base &&
            map->range[i].last == region_last(region) && !(region->base & (MULL_PAGE_SIZE - 1)))
            return region->base;
    return MULL_NOWHERE;
}

static void ring_at(struct mull_memory *mem, struct mull_doorbells *bells, uint64_t place)
{
    const struct mull_memory_watch *watch = &mem->watch;

    if (bells->place == place)
        return;
    if (atomic_load(&bells->armed))
        watch->doorbells(watch->opaque, bells, bells->place + bells->offset, false);
    bells->place = place;
    /* Before the first write can come: whoever is woken must know what it may mean. */
    atomic_store(&bells->armed, watch->doorbells && place != MULL_NOWHERE);
    if (atomic_load(&bells->armed) &&
        !watch->doorbells(watch->opaque, bells, place + bells->offset, true))
        atomic_store(&bells->armed, false);
}

static void place_bells(struct mull_memory *mem)
{
    for (const struct mull_region *r = mem->map[MULL_SPACE_MMIO].oldest; r; r = r->newer)
        if (r->bells)
            ring_at(mem, r->bells, whole_place(r));
}

void mull_region_set_doorbells(struct mull_region *region, struct mull_doorbells *bells)
{
    struct mull_memory *mem = region->mem;

    pthread_rwlock_wrlock(&mem->map_lock);
    bells->place = MULL_NOWHERE;
    atomic_store(&bells->armed, false);
    region->bells = bells;
    place_bells(mem);
    pthread_rwlock_unlock(&mem->map_lock);
}

void mull_regions_set_watch(struct mull_memory *mem, const struct mull_memory_watch *watch)
{
    pthread_rwlock_wrlock(&mem->map_lock);
    for (const struct mull_region *r = mem->map[MULL_SPACE_MMIO].oldest; r; r = r->newer)
        if (r->bells)
            ring_at(mem, r->bells, MULL_NOWHERE);
    mem->watch = watch ? *watch : (struct mull_memory_watch){0};
    place_bells(mem);
    pthread_rwlock_unlock(&mem->map_lock);
}

/* After flatten(), with the lock: also regions that did not move may be covered now. */
static void place_special(struct mull_memory *mem)
{
    bool moved = false;

    for (const struct mull_region *r = mem->map[MULL_SPACE_MMIO].oldest; r; r = r->newer) {
        if (!r->ram)
            continue;
        uint64_t place = whole_place(r), before = atomic_exchange(&r->ram->gpa, place);
        moved |= before != place && before != MULL_NOWHERE;
    }
    place_bells(mem);
    if (moved && mem->watch.moved)
        mem->watch.moved(mem->watch.opaque);
}

static void forget_ram(struct mull_memory *mem, struct mull_region *region)
{
    struct mull_device_ram *ram = region->ram;

    region->ram = NULL;
    for (unsigned i = 0; ram && i < MULL_DEVICE_RAM_MAX; i++)
        if (mem->device_ram[i] == ram)
            mem->device_ram[i] = NULL;
    if (ram && atomic_exchange(&ram->gpa, MULL_NOWHERE) != MULL_NOWHERE && mem->watch.moved)
        mem->watch.moved(mem->watch.opaque);
}

/* Room for one more region: each adds at most two edges, so at most two ranges. */
static int reserve(struct mull_space_map *map)
{
    if (2 * (map->regions + 1) <= map->capacity)
        return 0;
    unsigned capacity = map->capacity ? map->capacity * 2 : 64;
    struct mull_range *range = realloc(map->range, capacity * sizeof(*range));
    if (range)
        map->range = range;
    struct mull_edge *edge = realloc(map->edge, capacity * sizeof(*edge));
    if (edge)
        map->edge = edge;
    if (!range || !edge)
        return -ENOMEM;
    map->capacity = capacity;
    return 0;
}

static bool valid_size(uint8_t size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

static uint64_t space_last(enum mull_space space)
{
    return space == MULL_SPACE_PORT ? 0xffff : UINT64_MAX;
}

static bool fits(const struct mull_memory *mem, const struct mull_space_map *map, uint64_t base,
                 uint64_t size)
{
    uint64_t last =
        space_last(map == &mem->map[MULL_SPACE_PORT] ? MULL_SPACE_PORT : MULL_SPACE_MMIO);
    return base <= last && size - 1 <= last - base;
}

int mull_region_add(struct mull_memory *mem, enum mull_space space, uint64_t base, uint64_t size,
                    const struct mull_region_ops *ops, void *opaque, const char *name,
                    struct mull_region **out, struct mull_error *err)
{
    struct mull_space_map *map = &mem->map[space];
    struct mull_region_ops sizes = *ops;
    if (!sizes.min_size)
        sizes.min_size = 1;
    if (!sizes.max_size)
        sizes.max_size = space == MULL_SPACE_PORT ? 4 : 8;
    if (size == 0 || !fits(mem, map, base, size) || !ops->read || !ops->write ||
        !valid_size(sizes.min_size) || !valid_size(sizes.max_size) ||
        sizes.min_size > sizes.max_size)
        return mull_fail(err, EINVAL,
                         "region %s: 0x%" PRIx64 "+0x%" PRIx64 " or its access sizes are not valid",
                         name, base, size);
    struct mull_region *region = calloc(1, sizeof(*region));
    if (!region)
        return mull_fail(err, ENOMEM, "region %s: out of memory", name);
    *region = (struct mull_region){
        .mem = mem,
        .map = map,
        .base = base,
        .size = size,
        .ops = sizes,
        .opaque = opaque,
        .name = name,
        .visible = true,
    };

    pthread_rwlock_wrlock(&mem->map_lock);
    int rc = reserve(map);
    if (rc == 0) {
        region->older = map->newest;
        if (map->newest)
            map->newest->newer = region;
        else
            map->oldest = region;
        map->newest = region;
        map->regions++;
        flatten(map);
        place_special(mem);
    }
    pthread_rwlock_unlock(&mem->map_lock);
    if (rc) {
        free(region);
        return mull_fail(err, -rc, "region %s: out of memory", name);
    }
    if (out)
        *out = region;
    return 0;
}

void mull_region_move(struct mull_region *region, uint64_t base, bool visible)
{
    struct mull_memory *mem = region->mem;
    pthread_rwlock_wrlock(&mem->map_lock);
    bool ok = fits(mem, region->map, base, region->size);
    if (ok)
        region->base = base;
    region->visible = visible && ok; /* a BAR can be programmed beyond the end of the space */
    flatten(region->map);
    place_special(mem);
    pthread_rwlock_unlock(&mem->map_lock);
}

int mull_region_set_ram(struct mull_region *region, struct mull_device_ram *ram)
{
    struct mull_memory *mem = region->mem;
    int code = -ENOSPC;

    pthread_rwlock_wrlock(&mem->map_lock);
    for (unsigned i = 0; code && i < MULL_DEVICE_RAM_MAX; i++) {
        if (mem->device_ram[i])
            continue;
        atomic_store(&ram->gpa, MULL_NOWHERE);
        region->ram = ram;
        mem->device_ram[i] = ram;
        place_special(mem);
        code = 0;
    }
    pthread_rwlock_unlock(&mem->map_lock);
    return code;
}

void mull_device_ram_remove(struct mull_memory *mem, struct mull_device_ram *ram)
{
    pthread_rwlock_wrlock(&mem->map_lock);
    for (struct mull_region *r = mem->map[MULL_SPACE_MMIO].oldest; r; r = r->newer)
        if (r->ram == ram)
            forget_ram(mem, r);
    pthread_rwlock_unlock(&mem->map_lock);
}

struct mull_device_ram *const _Atomic *mull_memory_device_ram(const struct mull_memory *mem)
{
    return (struct mull_device_ram *const _Atomic *)mem->device_ram;
}

void mull_region_remove(struct mull_region *region)
{
    if (!region)
        return;
    struct mull_memory *mem = region->mem;
    struct mull_space_map *map = region->map;
    pthread_rwlock_wrlock(&mem->map_lock);
    if (region->older)
        region->older->newer = region->newer;
    else
        map->oldest = region->newer;
    if (region->newer)
        region->newer->older = region->older;
    else
        map->newest = region->older;
    map->regions--;
    flatten(map);
    forget_ram(mem, region);
    if (region->bells)
        ring_at(mem, region->bells, MULL_NOWHERE);
    place_special(mem);
    pthread_rwlock_unlock(&mem->map_lock);
    free(region);
}

void mull_regions_destroy(struct mull_memory *mem)
{
    for (unsigned i = 0; i < 2; i++) {
        struct mull_region *r = mem->map[i].oldest;
        while (r) {
            struct mull_region *next = r->newer;
            free(r);
            r = next;
        }
        free(mem->map[i].range);
        free(mem->map[i].edge);
    }
}

/* What an access needs of a region, copied out so that no lock is held while a device works. */
struct target {
    struct mull_region_ops ops;
    void *opaque;
    uint64_t size;   /* of the region */
    uint64_t offset; /* of the address in it */
    uint64_t room;   /* bytes from the address to the end of the range (0: 2^64) */
};

/* @return false: nobody there, and target->room says for how many bytes. */
static bool find(struct mull_memory *mem, enum mull_space space, uint64_t address,
                 struct target *target)
{
    const struct mull_space_map *map = &mem->map[space];
    bool found = false;
    pthread_rwlock_rdlock(&mem->map_lock);
    unsigned low = 0, high = map->ranges; /* the first range that ends at or after the address */
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (map->range[middle].last < address)
            low = middle + 1;
        else
            high = middle;
    }
    target->room = 0;
    if (low < map->ranges) {
        const struct mull_range *range = &map->range[low];
        if (range->first <= address) {
            const struct mull_region *region = range->region;
            target->ops = region->ops;
            target->opaque = region->opaque;
            target->size = region->size;
            target->offset = address - region->base;
            target->room = range->last - address + 1;
            found = true;
        } else {
            target->room = range->first - address;
        }
    }
    pthread_rwlock_unlock(&mem->map_lock);
    return found;
}

/* The largest naturally aligned piece that starts at the target and is no longer than @size. */
static unsigned piece_size(const struct target *target, unsigned size)
{
    unsigned piece = target->ops.max_size;
    while (piece > 1 && (piece > size || (target->room && piece > target->room) ||
                         (target->offset & (piece - 1))))
        piece /= 2;
    return piece;
}

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

static uint64_t read_piece(const struct target *target, unsigned cpu, unsigned size)
{
    if (size >= target->ops.min_size)
        return target->ops.read(target->opaque, cpu, target->offset, size);
    unsigned wide = target->ops.min_size;
    uint64_t offset = target->offset & ~(uint64_t)(wide - 1);
    if (target->size < wide || offset > target->size - wide)
        return UINT64_MAX;
    return target->ops.read(target->opaque, cpu, offset, wide) >> ((target->offset - offset) * 8);
}

/* A write narrower than the device takes arrives with zeros around it: reading the rest first
 * could have side effects. */
static void write_piece(const struct target *target, unsigned cpu, unsigned size, uint64_t value)
{
    value &= size_mask(size);
    if (size >= target->ops.min_size) {
        target->ops.write(target->opaque, cpu, target->offset, size, value);
        return;
    }
    unsigned wide = target->ops.min_size;
    uint64_t offset = target->offset & ~(uint64_t)(wide - 1);
    if (target->size < wide || offset > target->size - wide)
        return;
    target->ops.write(target->opaque, cpu, offset, wide, value << ((target->offset - offset) * 8));
}

uint64_t mull_space_read(struct mull_memory *mem, enum mull_space space, unsigned cpu,
                         uint64_t address, unsigned size)
{
    uint64_t result = 0;
    if (size > 8)
        size = 8;
    for (unsigned done = 0; done < size;) {
        struct target target;
        unsigned piece = 1;
        uint64_t value = UINT64_MAX;
        uint64_t at = address + done;
        if (at <= space_last(space) && find(mem, space, at, &target)) {
            piece = piece_size(&target, size - done);
            value = read_piece(&target, cpu, piece);
        }
        result |= (value & size_mask(piece)) << (done * 8);
        done += piece;
    }
    return result;
}

void mull_space_write(struct mull_memory *mem, enum mull_space space, unsigned cpu,
                      uint64_t address, unsigned size, uint64_t value)
{
    if (size > 8)
        size = 8;
    for (unsigned done = 0; done < size;) {
        struct target target;
        unsigned piece = 1;
        uint64_t at = address + done;
        if (at <= space_last(space) && find(mem, space, at, &target)) {
            piece = piece_size(&target, size - done);
            write_piece(&target, cpu, piece, value >> (done * 8));
        }
        done += piece;
    }
}
