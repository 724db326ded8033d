/* Large files to and from a host, which may be stopped and gone on with. */
#ifndef MULL_CLI_API_TRANSFER_H
#define MULL_CLI_API_TRANSFER_H

#include "cli/api/command.h"

/** Upload a file, going on where an earlier upload of the same file ended, with a progress bar on a
 *  terminal. @return the upload's id, malloc'ed; NULL: *status is set */
char *transfer_upload(struct host_call *call, const char *file, int *status);

/** Download what is small to @file ("-": standard output), without a bar; a file that is not whole
 * is removed.
 *  @return the exit status */
int transfer_save(struct host_call *call, const char *path, const char *file);

/** Download to @file ("-": standard output), whole or not at all. @return the exit status */
int transfer_download(struct host_call *call, const char *path, const char *file);

#endif
