/*
 * What comes and goes: uploads in pieces, imports of uploads, files and URLs, exports to download.
 * Lock held, but where it is said.
 */
#ifndef MULL_HOST_TRANSFERS_H
#define MULL_HOST_TRANSFERS_H

#include "host/auth.h"
#include "host/host.h"
#include "host/tasks.h"

#define UPLOADS_MAX 64
#define UPLOAD_HOURS 24
#define DOWNLOAD_HOURS 24

struct mull_report;

json_t *upload_render(struct host *host, json_t *doc);
/** Begin one. @return its document, borrowed; NULL with @p */
json_t *upload_create(struct host *host, const struct principal *who, json_t *body,
                      struct host_problem *p);
/** The file to write to from @offset on, for a writer who then has it alone until upload_close().
 *  @return a descriptor, or -1 with @p */
int upload_open(struct host *host, json_t *doc, uint64_t offset, struct host_problem *p);
void upload_close(struct host *host, const char *id, int fd);
int upload_delete(struct host *host, json_t *doc, struct host_problem *p);
/** Remove what is too old; every minute, and at the start. */
void transfers_expire(struct host *host);

/** Begin a task: its document, borrowed; NULL with @p. */
json_t *import_start(struct host *host, const struct principal *who, json_t *body,
                     struct host_problem *p);
json_t *export_start(struct host *host, const struct principal *who, json_t *machine, json_t *body,
                     struct host_problem *p);

/** Where a task's exports to download are, malloc'ed. */
char *export_folder(struct host *host, const char *id);

/* ---- What imports, exports and builds share ---- */

/** Check what a stranger gives as a disk, and copy it to @made: as QCOW2, or an ISO as it is. Lock
 * not held. @return 0, or -1 with @p */
int transfer_take_disk(struct task *task, const char *source, const char *made, bool iso,
                       struct host_problem *p);

/** A time from now, as JSON. */
json_t *transfer_expires(double hours);
/** Progress of a package, told as a task's. @param opaque  the task */
int transfer_step(void *opaque, const char *what, uint64_t done, uint64_t total);
/** What could not be carried over, as callers see it. */
json_t *transfer_report(const struct mull_report *report);

/** An export's file, malloc'ed, and the name it is saved under (borrowed). */
char *download_path(struct host *host, json_t *doc, const char **name);

#endif
