/*
 * Shares, reservations and limits as the inventory has them: what a caller may say of machines and
 * pools, the tree they make (shares.h), and whether what is promised can be kept. Lock held
 * everywhere. Units: percent of one CPU, bytes, bytes a second, requests a second.
 */
#ifndef MULL_HOST_RESOURCES_H
#define MULL_HOST_RESOURCES_H

#include "host/cgroups.h"
#include "host/host.h"
#include "host/shares.h"

/** What is divided, each on its own; several share their resource's shares. */
enum dimension {
    DIM_CPU,
    DIM_MEMORY,
    DIM_DISK, /* bytes of reads and writes; in the order of mullion-vmm's limits.set */
    DIM_DISK_READ,
    DIM_DISK_WRITE,
    DIM_IOPS,
    DIM_IOPS_READ,
    DIM_IOPS_WRITE,
    DIM_NETWORK,
    DIM_NETWORK_IN,
    DIM_NETWORK_OUT,
    DIMENSIONS,
};

/** What a machine's process counts. */
enum counter {
    COUNT_READ_BYTES,
    COUNT_READS,
    COUNT_WRITTEN_BYTES,
    COUNT_WRITES,
    COUNT_IN_BYTES,
    COUNT_IN_PACKETS,
    COUNT_OUT_BYTES,
    COUNT_OUT_PACKETS,
    COUNTERS,
};

/** What a running machine takes, and may take (balance.c). */
struct vm_resources {
    json_t *usage; /* what its process has said last (vmm/resources.h); NULL: nothing yet */
    uint64_t usage_ns;
    uint64_t count[COUNTERS];
    double rate[COUNTERS];            /* a second, between the last two answers */
    uint64_t kept[COUNTERS], kept_ns; /* of the last statistics (stats.c) */
    double cpu;                       /* percent of one CPU */
    uint64_t cpu_used, cpu_held;      /* ns */
    uint64_t waited[2];               /* requests of disks, frames of networks */
    bool held, waits[2];              /* since the answer before: its limits were in the way */
    uint64_t granted[DIMENSIONS];     /* SHARES_NONE: no limit */
    uint64_t applied[DIMENSIONS];
    bool known;                      /* applied is what its process has */
    bool balloon;                    /* the guest has a driver */
    uint64_t memory, actual;         /* of the guest: all, and what the balloon has left it */
    uint64_t target, target_applied; /* what the balloon shall leave it; 0: not known */
    bool merge, merging;             /* wanted; tried */
    /* Where the host has control groups for machines: */
    struct cgroup_amounts group, group_applied;
    bool placed;
};

/**
 * All of a machine's or a pool's resources: {cpu, memory, disk, network}, each with shares ("low",
 * "normal", "high" or a number), reservation, limits (null: none); of a pool also "expandable".
 *
 * @param old    what there was, or NULL
 * @param patch  what a caller says; null members are as if nothing had been said; NULL: nothing
 * @return a new object; NULL with @p
 */
json_t *resources_merge(const json_t *old, json_t *patch, bool pool, struct host_problem *p);

/** Does it fit the machine it is of? */
int resources_check(const json_t *resources, json_t *config, struct host_problem *p);

/** What the host has for machines; SHARES_NONE where nobody knows. */
uint64_t resources_capacity(struct host *host, enum dimension dim);

/** Pools (parents first), then machines. */
struct resources_tree {
    struct share *share;
    json_t **doc; /* borrowed */
    unsigned count;
};

/** A document that the inventory does not have yet, in the place of the one of its id. */
struct resources_change {
    enum host_kind kind;
    json_t *doc;
    bool starts; /* a machine: as if it ran */
};

/** The tree of one dimension. Machines: those that have a process, or all (@everyone). Demands are
 * the caller's to fill in. @param change  or NULL. @return 0, or -1: no memory */
int resources_tree(struct host *host, enum dimension dim, bool everyone,
                   const struct resources_change *change, struct resources_tree *out);
void resources_tree_free(struct resources_tree *tree);

/** Can what a machine or pool is promised be kept, with this change? -1 with @p, which names the
 *  numbers. */
int resources_admit(struct host *host, const struct resources_change *change,
                    struct host_problem *p);

/** What is reserved of the host's: of running machines and of pools. */
uint64_t resources_reserved(struct host *host, enum dimension dim);

/** A limit of a document; SHARES_NONE: none. */
uint64_t resources_limit(const json_t *doc, enum dimension dim);

#endif
