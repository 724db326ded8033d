/*
 * Copies of a machine's files: disks as they are (sharing blocks where the file system can), as
 * QCOW2, or as an overlay that stands on the original. Knows files and formats, not the inventory.
 */
#ifndef MULL_HOST_CLONE_H
#define MULL_HOST_CLONE_H

#include "host/tasks.h"

/** Copy one file byte by byte, holes as holes. Lock not held.
 *  @param what  for the task's step */
int clone_file(struct task *task, const char *from, const char *to, const char *what,
               struct mull_error *err);

/**
 * Copy a disk: its file where one raw or QCOW2 file is all of it, else its content as QCOW2. Lock
 * not held.
 *
 * @param format  NULL: told from its content
 * @param folder  where the copy goes
 * @param stem    its name without the end: "disk0"
 * @param linked  make an overlay on @from, which then must stay as it is
 * @return a new {path, format} with the copy's name in @folder; NULL with @err
 */
json_t *clone_disk(struct task *task, const char *from, const char *format, const char *folder,
                   const char *stem, bool linked, struct mull_error *err);

/** Copy the other files of a machine's folder that its configuration names: kernels, firmware,
 *  variables, CD-ROMs. */
int clone_others(struct task *task, const json_t *config, const char *from, const char *to,
                 struct mull_error *err);

#endif
