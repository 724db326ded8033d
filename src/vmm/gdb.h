/*
 * The GDB remote stub's sockets: listens where --gdb says, carries one conversation at a time, and
 * connects it to the machine. Everything happens in the machine's loop.
 */
#ifndef MULL_VMM_GDB_H
#define MULL_VMM_GDB_H

#include "machine/machine.h"

struct vmm_gdb;

/**
 * @param where  [ADDRESS:]PORT or unix=PATH, with ",wait=on": the machine's first instruction waits
 *               for the debugger; NULL: listen nowhere. Without ADDRESS only this host can connect
 * @return 0 and *out, or a negative errno
 */
int vmm_gdb_create(struct mull_machine *machine, const struct mull_log *log, const char *where,
                   struct vmm_gdb **out, struct mull_error *err);

/** The path of the Unix socket, or NULL. */
const char *vmm_gdb_path(const struct vmm_gdb *gdb);

/** Is a debugger connected? */
bool vmm_gdb_busy(const struct vmm_gdb *gdb);

/** Speak with the peer of a connected socket. @bytes: what it has said already.
 *  @return 0, *fd is ours then; or a negative errno: there is a debugger already */
int vmm_gdb_adopt(struct vmm_gdb *gdb, int fd, const char *bytes, size_t len,
                  struct mull_error *err);

/** Close everything and let the machine go. The loop no longer runs or this is its thread. NULL is
 *  allowed. */
void vmm_gdb_destroy(struct vmm_gdb *gdb);

#endif
