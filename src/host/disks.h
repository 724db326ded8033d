/*
 * Disks: files in a machine's folder. What takes long is a task; machines must not run meanwhile.
 */
#ifndef MULL_HOST_DISKS_H
#define MULL_HOST_DISKS_H

#include "host/machines.h"

/** Make an image file: empty, or a copy of another, at least @capacity bytes large. Lock not held.
 *  @param task  NULL: nobody is told how far it is
 *  @param from  NULL: empty. @param from_format  NULL: told from its content */
int disk_make(struct task *task, const char *path, const char *format, uint64_t capacity,
              const char *from, const char *from_format, struct mull_error *err);

/** What a file's image is: format, capacity, bytes on the disk. Lock need not be held.
 *  @param alone  refuse one that needs another file
 *  @return a new {format, capacity, size}, or NULL with @err */
json_t *disk_describe(const char *path, const char *format, bool alone, struct mull_error *err);

/** A machine's disks as callers see them: a new array. Lock held. */
json_t *disks_list(struct host *host, json_t *machine);
/** Which of a machine's disks that name is, or -1. */
int disk_index(json_t *machine, const char *name);

/** Describe a disk for a stopped machine: a new {path, format, bus} whose file is not there yet.
 *  Lock held. @param bus  "": the usual one */
json_t *disk_new(struct host *host, json_t *machine, const char *format, const char *bus,
                 struct host_problem *p);
/** Give it to the machine. Lock held. */
int disk_append(struct host *host, const char *id, json_t *disk, struct host_problem *p);

/* Each begins a task. Lock held. */
json_t *disk_add(struct host *host, const char *user, json_t *machine, json_t *body,
                 struct host_problem *p);
json_t *disk_grow(struct host *host, const char *user, json_t *machine, int disk, uint64_t capacity,
                  struct host_problem *p);
json_t *disk_remove(struct host *host, const char *user, json_t *machine, int disk,
                    struct host_problem *p);

enum snapshot_action { SNAPSHOT_CREATE, SNAPSHOT_APPLY, SNAPSHOT_DELETE };
json_t *disk_snapshot(struct host *host, const char *user, json_t *machine, int disk,
                      enum snapshot_action action, const char *name, struct host_problem *p);
/** A disk's own snapshots. Lock held. @return a new array, or NULL with @p */
json_t *disk_snapshots(struct host *host, json_t *machine, int disk, struct host_problem *p);

#endif
