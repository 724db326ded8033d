/*
 * What memory.c (RAM) and region.c (the map of MMIO and ports) share. Nobody else includes it.
 */
#ifndef MULL_MEMORY_INTERNAL_H
#define MULL_MEMORY_INTERNAL_H

#include <pthread.h>

#include "memory/memory.h"

#define MULL_RAM_MAX 8 /* besides MULL_RAM_HOT */

/** One piece of the flattened map: addresses first..last belong to `region`. */
struct mull_range {
    uint64_t first, last;
    struct mull_region *region;
};

/** An address space of regions: the list in order of age, and what is visible of it, sorted. */
struct mull_space_map {
    struct mull_region *oldest, *newest;
    struct mull_range *range;
    unsigned ranges;
    unsigned capacity; /* of `range`; always enough for every region that is in the list */
    unsigned regions;
    struct mull_edge *edge; /* scratch for flattening, 2 * regions entries */
};

/** What a range that can be plugged keeps while it is not. */
struct mull_hot_place {
    uint8_t *host; /* addresses that lead nowhere; NULL: none */
    uint64_t size;
    uint64_t file_offset, file_size; /* its part of the memfd */
};

struct mull_memory {
    const struct mull_log *log;
    int fd;
    uint64_t file_size;
    struct mull_ram ram[MULL_RAM_MAX + MULL_RAM_HOT];
    unsigned ram_count;
    unsigned hot;                     /* the first range that can be plugged; 0: none can */
    struct mull_hot_place place[MULL_RAM_HOT];
    _Atomic bool dirty_tracking;
    _Atomic bool a20_off;
    struct mull_memory_watch watch;
    pthread_rwlock_t map_lock; /* both maps; never held across a region's callback */
    struct mull_space_map map[2];
    struct mull_device_ram *_Atomic device_ram[MULL_DEVICE_RAM_MAX];
};

/** The watcher of memory changes: tell the old one to forget all doorbells, then the new one where
 *  they are. */
void mull_regions_set_watch(struct mull_memory *mem, const struct mull_memory_watch *watch);

/** Free both maps with their regions. */
void mull_regions_destroy(struct mull_memory *mem);

#endif
