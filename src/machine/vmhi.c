/*
 * The public machine interface (vmhi/machine.h) over src/machine: translates structs whose size may
 * differ between the caller's version and ours, and nothing else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/machine.h"
#include "vmhi/machine.h"

struct vmhi_machine {
    struct mull_machine *machine;
    struct mull_log log;
    void (*sink)(void *opaque, enum vmhi_log_level level, const char *line);
    void *sink_opaque;
};

/* Both sides number alike. */
_Static_assert((int)VMHI_STATE_ENDED == (int)MULL_MACHINE_ENDED, "states");
_Static_assert((int)VMHI_END_FAILED == (int)MULL_END_FAILED, "ends");
_Static_assert((int)VMHI_END_EXIT == (int)MULL_END_EXIT, "ends");
_Static_assert((int)VMHI_END_TRIPLE_FAULT == (int)MULL_END_SHUTDOWN, "ends");
_Static_assert((int)VMHI_LOG_DEBUG == (int)MULL_LOG_DEBUG, "log levels");
_Static_assert(sizeof(struct vmhi_error) == sizeof(struct mull_error), "errors");

/* Give *from to the caller and pass @ret on. */
static int report(struct vmhi_error *err, const struct mull_error *from, int ret)
{
    if (err) {
        err->code = from->code;
        memcpy(err->message, from->message, sizeof(err->message));
    }
    return ret;
}

static void log_line(void *opaque, enum mull_log_level level, const char *line)
{
    struct vmhi_machine *m = opaque;
    m->sink(m->sink_opaque, (enum vmhi_log_level)level, line);
}

const char *vmhi_version(void)
{
    return MULLION_VERSION;
}

static int create(const struct vmhi_machine_options *given, struct vmhi_machine **out,
                  struct mull_error *err)
{
    struct vmhi_machine_options o = {0};
    if (given->size < offsetof(struct vmhi_machine_options, log))
        return mull_fail(err, EINVAL, "options: size %zu is too small to be one", given->size);
    memcpy(&o, given, given->size < sizeof(o) ? given->size : sizeof(o));
    if (!o.config)
        return mull_fail(err, EINVAL, "options: config is missing");
    struct vmhi_machine *m = calloc(1, sizeof(*m));
    if (!m)
        return mull_fail(err, ENOMEM, "machine: no memory");
    m->log =
        (struct mull_log){.level = (enum mull_log_level)o.log_level, .sink = log_line, .opaque = m};
    m->sink = o.log;
    m->sink_opaque = o.log_opaque;
    struct mull_machine_config config;
    int ret = mull_machine_config_parse(o.config, &config, err);
    if (!ret)
        ret = mull_machine_create(&config, m->sink ? &m->log : NULL, &m->machine, err);
    mull_machine_config_free(&config);
    if (ret) {
        free(m);
        return ret;
    }
    *out = m;
    return 0;
}

int vmhi_machine_create(const struct vmhi_machine_options *options, struct vmhi_machine **out,
                        struct vmhi_error *err)
{
    struct mull_error e = {0};
    return report(err, &e, create(options, out, &e));
}

int vmhi_machine_start(struct vmhi_machine *m, struct vmhi_error *err)
{
    struct mull_error e = {0};
    return report(err, &e, mull_machine_start(m->machine, &e));
}

int vmhi_machine_pause(struct vmhi_machine *m, struct vmhi_error *err)
{
    struct mull_error e = {0};
    return report(err, &e, mull_machine_pause(m->machine, &e));
}

int vmhi_machine_resume(struct vmhi_machine *m, struct vmhi_error *err)
{
    struct mull_error e = {0};
    return report(err, &e, mull_machine_resume(m->machine, &e));
}

int vmhi_machine_reset(struct vmhi_machine *m, struct vmhi_error *err)
{
    struct mull_error e = {0};
    return report(err, &e, mull_machine_reset(m->machine, &e));
}

int vmhi_machine_power_button(struct vmhi_machine *m, struct vmhi_error *err)
{
    struct mull_error e = {0};
    return report(err, &e, mull_machine_power_button(m->machine, &e));
}

void vmhi_machine_stop(struct vmhi_machine *m)
{
    mull_machine_stop(m->machine);
}

enum vmhi_end vmhi_machine_wait(struct vmhi_machine *m, struct vmhi_error *err)
{
    struct mull_error e = {0};
    return (enum vmhi_end)report(err, &e, (int)mull_machine_wait(m->machine, &e));
}

int vmhi_machine_info(struct vmhi_machine *m, struct vmhi_machine_info *info)
{
    if (info->size < offsetof(struct vmhi_machine_info, name))
        return -EINVAL;
    struct mull_machine_info i;
    mull_machine_info(m->machine, &i);
    struct vmhi_machine_info ours = {
        .size = info->size,
        .state = (enum vmhi_state)i.state,
        .end = (enum vmhi_end)i.end,
        .name = i.name,
        .engine = i.engine,
        .engine_reason = i.engine_why,
        .kernel = i.kernel,
        .cpus = i.cpus,
        .resets = i.resets,
        .memory = i.memory,
        .nanoseconds = i.guest_ns,
    };
    size_t n = info->size < sizeof(ours) ? info->size : sizeof(ours);
    memset((char *)info + n, 0, info->size - n);
    memcpy(info, &ours, n);
    return 0;
}

void vmhi_machine_destroy(struct vmhi_machine *m)
{
    if (!m)
        return;
    mull_machine_destroy(m->machine);
    free(m);
}
