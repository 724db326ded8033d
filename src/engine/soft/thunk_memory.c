/*
 * Makes and frees a vCPU's cache of thunks: one memfd mapped twice, so that no page is both
 * writable and executable. Runs libc, so with the guest's vectors parked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/soft/thunk.h"

static int fail(struct soft_cpu *cpu, struct mull_error *error, const char *what)
{
    int err = errno ? errno : ENOMEM;
    return mull_fail(error, err, "soft engine: cannot %s for vCPU %u: %s", what, cpu->index,
                     strerror(err));
}

int soft_exec_init(struct soft_cpu *cpu, struct mull_error *err)
{
    struct soft_thunks *t = aligned_alloc(64, (sizeof(*t) + 63) & ~(size_t)63);
    if (!t)
        return fail(cpu, err, "allocate the instruction cache");
    memset(t, 0, sizeof(*t));
    int fd = memfd_create("mullion-thunks", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, SOFT_THUNK_CODE_SIZE)) {
        int r = fail(cpu, err, "create code memory");
        if (fd >= 0)
            close(fd);
        free(t);
        return r;
    }
    t->write = mmap(NULL, SOFT_THUNK_CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    t->code = mmap(NULL, SOFT_THUNK_CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    int r = 0;
    if (t->write == MAP_FAILED || t->code == MAP_FAILED) {
        r = fail(cpu, err, "map executable memory");
        if (t->write != MAP_FAILED)
            munmap(t->write, SOFT_THUNK_CODE_SIZE);
        if (t->code != MAP_FAILED)
            munmap(t->code, SOFT_THUNK_CODE_SIZE);
        free(t);
    } else {
        cpu->thunks = t;
    }
    close(fd);
    return r;
}

void soft_exec_fini(struct soft_cpu *cpu)
{
    struct soft_thunks *t = cpu->thunks;
    if (!t)
        return;
    munmap(t->write, SOFT_THUNK_CODE_SIZE);
    munmap(t->code, SOFT_THUNK_CODE_SIZE);
    free(t);
    cpu->thunks = NULL;
}
