/*
 * Where a user's machines are: a folder for each, with machine.json and its disks. Knows files and
 * names, nothing of what a machine is.
 */
#ifndef MULL_CLI_STORE_H
#define MULL_CLI_STORE_H

#include <jansson.h>

#include "base/error.h"

/** The folder of all machines: $XDG_DATA_HOME/mullion/machines. @return malloc'ed, or NULL with
 *  @err filled in */
char *machine_store_folder(struct mull_error *err);

/** The description of the machine of that name. @param path  malloc'ed */
int machine_store_find(const char *name, char **path, struct mull_error *err);

/** Read a description; relative file names in it become relative to where we are.
 *  @param out  an object, a new reference */
int machine_file_read(const char *path, json_t **out, struct mull_error *err);

#endif
