/*
 * Where running machines are found: each has a folder NAME.PID with its control socket in the
 * user's runtime folder: $MULLION_RUNTIME_DIR, $XDG_RUNTIME_DIR/mullion, /run/mullion (root) or
 * /tmp/mullion-UID. Only its owner can look in.
 */
#ifndef MULL_CLI_RUNTIME_H
#define MULL_CLI_RUNTIME_H

#include <limits.h>
#include <stdbool.h>

#define RUNTIME_PATH_MAX 108 /* of a Unix socket */

/** Make the folder for a machine of this process. @return false: there is nowhere to make one, and
 *  @path is empty; else the control socket's path */
bool runtime_make(const char *name, char path[RUNTIME_PATH_MAX]);

/** Remove the folder that runtime_make() made; the socket has gone by then, or goes too. */
void runtime_remove(const char *path);

/** Call @fn for each machine's control socket until it returns false (NULL: none). What dead
 * processes left behind is removed on the way. */
void runtime_list(bool (*fn)(void *opaque, const char *name, int pid, const char *path),
                  void *opaque);

#endif
