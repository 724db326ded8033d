/*
 * What callers do inside guests, by their agents. All of it blocks: workers run it without the
 * lock.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "api/rest/ops.h"
#include "host/guests.h"

void op_guest_exec(struct request *r)
{
    struct host_problem p = {0};
    json_t *out = NULL;
    if (guest_exec(r->host, r->param[0], r->json, &out, &p))
        reply_problem(r, &p);
    else
        reply(r, 200, out);
}

void op_read_guest_file(struct request *r)
{
    struct host_problem p = {0};
    if (guest_read_file(r->host, r->param[0], query(r, "path"), &r->fd, &p)) {
        reply_problem(r, &p);
        return;
    }
    r->status = 200;
    r->type = "application/octet-stream";
}

void op_write_guest_file(struct request *r)
{
    struct host_problem p = {0};
    const char *path = query(r, "path");
    struct stat st;
    void *data = NULL;
    /* The bytes lie in a file: they may be more than a request keeps in memory. */
    if (fstat(r->upload_fd, &st) ||
        (st.st_size && (data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, r->upload_fd,
                                    0)) == MAP_FAILED)) {
        reply_error(r, HOST_UNAVAILABLE, NULL, "no memory");
        return;
    }
    int ret =
        guest_write_file(r->host, r->param[0], path, data ? data : "", (size_t)st.st_size, &p);
    if (data)
        munmap(data, (size_t)st.st_size);
    if (ret)
        reply_problem(r, &p);
    else
        reply(r, 204, NULL);
}
