/*
 * `mullion attach`, `detach` and `parts`: what comes to and goes from a running machine. The
 * machine's process may open nothing, so files, taps and passt are opened here, with the rights of
 * who asks, and handed over its control socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/options.h"
#include "device/net/netdev.h"
#include "image/file.h"
#include "image/image.h"

#define WAIT_SECONDS 30
#define PART_NAME_MAX 32

static const char attach_usage[] =
    "Usage: mullion attach MACHINE --disk FILE[,PROPERTY=VALUE]...\n"
    "       mullion attach MACHINE --net user[,...] | --net tap=INTERFACE[,mac=MAC]\n"
    "       mullion attach MACHINE --cpus N\n"
    "       mullion attach MACHINE --memory SIZE\n"
    "\n"
    "Adds a disk, a network card, N virtual CPUs or so much memory to a running machine, and\n"
    "prints the part's name, for mullion detach. Disks and cards are as for mullion run; vCPUs "
    "and\n"
    "memory need room: mullion run --cpus 1,max=4 --memory 1G,max=4G.\n";

static const char detach_usage[] =
    "Usage: mullion detach MACHINE PART [--force] [--timeout SECONDS]\n"
    "       mullion detach MACHINE --cpus N [--timeout SECONDS]\n"
    "\n"
    "Asks the guest to let go of a part (see mullion parts), or of N virtual CPUs, and waits "
    "until\n"
    "it has (30 seconds at most). With --force a disk or card goes within two seconds, whatever the\n"
    "guest does with it.\n";

static const char parts_usage[] = "Usage: mullion parts MACHINE\n"
                                  "\n"
                                  "Lists what can be detached from a running machine.\n";

/* ---- Opening ---- */

struct hand_over {
    json_t *files; /* names, for a disk */
    unsigned count;
    int fd[MULL_GIVEN_MAX];
};

static void close_all(struct hand_over *h)
{
    for (unsigned i = 0; i < h->count; i++)
        close(h->fd[i]);
    h->count = 0;
    json_decref(h->files);
}

/* @return -1: opened; else the exit status */
static int add_file(struct hand_over *h, const char *path, int flags, bool must)
{
    if (h->count == MULL_GIVEN_MAX)
        return cli_fail(VMM_STATUS_HOST_ERROR, "%s: more than %d files", path, MULL_GIVEN_MAX);
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT && !must)
        return -1;
    if (fd < 0)
        return cli_fail(VMM_STATUS_HOST_ERROR, "%s: %s", path, strerror(errno));
    h->fd[h->count++] = fd;
    return json_array_append_new(h->files, json_string(path))
               ? cli_fail(VMM_STATUS_HOST_ERROR, "%s: file names must be UTF-8", path)
               : -1;
}

/* The image and all that it is chained to, by the names it is asked for by. */
static int open_disk(struct hand_over *h, json_t *disk)
{
    const char *path = json_string_value(json_object_get(disk, "path"));
    bool readonly = json_is_true(json_object_get(disk, "readonly"));
    int direct = json_is_true(json_object_get(disk, "direct")) ? O_DIRECT : 0;
    struct mull_error err = {0};
    struct mull_image *image;
    struct mull_image_options options = {.path = path,
                                         .format =
                                             json_string_value(json_object_get(disk, "format")),
                                         .readonly = true,
                                         .guest_disk = true,
                                         .no_lock = true};
    if (mull_image_open(&options, &image, &err))
        return cli_fail(VMM_STATUS_HOST_ERROR, "--disk: %s", err.message);
    int status = add_file(h, path, (readonly ? O_RDONLY : O_RDWR) | direct, true);
    char changes[4200];
    snprintf(changes, sizeof(changes), "%s.cbt", path);
    if (status < 0)
        status = add_file(h, changes, readonly ? O_RDONLY : O_RDWR, false);
    for (struct mull_image *at = image->backing; at && status < 0; at = at->backing)
        status = add_file(h, at->path, O_RDONLY | direct, true);
    mull_image_close(image);
    return status;
}

static int open_network(struct hand_over *h, json_t *net)
{
    const char *tap = json_string_value(json_object_get(net, "interface"));
    struct mull_passt_config passt = {0};
    struct mull_error err = {0};
    json_t *forward;
    size_t i;
    int ret = 0;

    if (tap) {
        h->fd[0] = mull_tap_open(tap, &err);
        h->count = h->fd[0] >= 0;
        return h->count ? -1 : cli_fail(VMM_STATUS_HOST_ERROR, "--net: %s", err.message);
    }
    json_array_foreach(json_object_get(net, "forward"), i, forward)
    {
        if (!ret)
            ret = mull_passt_parse_forward(&passt, json_string_value(forward), &err);
    }
    if (!ret)
        ret = mull_passt_start(&passt, &h->fd[0], &h->fd[1], &err);
    h->count = ret ? 0 : 2;
    return ret ? cli_fail(VMM_STATUS_HOST_ERROR, "--net: %s", err.message) : -1;
}

/* ---- Commands ---- */

static int usage_error(const char *usage)
{
    fputs(usage, stderr);
    return VMM_STATUS_USAGE;
}

/* The options --disk, --net, --cpus and --memory, as the method's parameters. */
static int read_part(const char *option, const char *value, struct hand_over *h, json_t **params)
{
    json_t *list = json_array(), *one = NULL;
    const char *key = NULL;
    int status;

    if (!strcmp(option, "--disk")) {
        key = "disk";
        status = options_disk(list, value);
        one = json_array_get(list, 0);
        if (status < 0)
            status = open_disk(h, one);
        if (status < 0)
            json_object_set(one, "files", h->files);
    } else if (!strcmp(option, "--net")) {
        key = "network";
        status = options_net(list, value);
        one = json_array_get(list, 0);
        if (status < 0)
            status = one ? open_network(h, one)
                         : cli_fail(VMM_STATUS_USAGE, "--net: give user or tap=INTERFACE");
    } else {
        bool memory = !strcmp(option, "--memory");
        json_t *config = json_object();
        key = memory ? "memory" : "cpus";
        status = memory ? options_memory(config, value) : options_cpus(config, value);
        if (status < 0 && json_object_size(config) != 1)
            status =
                cli_fail(VMM_STATUS_USAGE, "%s %s: give what is added, without max", option, value);
        json_array_append_new(list, json_incref(json_object_get(config, key)));
        one = json_array_get(list, 0);
        json_decref(config);
    }
    if (status < 0)
        *params = json_pack("{s:O}", key, one);
    json_decref(list);
    return status;
}

int cli_attach(int argc, char **argv)
{
    static const char *const known[] = {"--disk", "--net", "--cpus", "--memory", NULL};
    struct client client;
    struct hand_over h = {0};
    json_t *params = NULL;
    unsigned i = 0;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(attach_usage, stdout);
        return 0;
    }
    while (argc == 4 && known[i] && strcmp(known[i], argv[2]))
        i++;
    if (argc != 4 || argv[1][0] == '-' || !known[i])
        return usage_error(attach_usage);
    h.files = json_array();
    int status = read_part(argv[2], argv[3], &h, &params);
    if (status < 0)
        status = client_connect(&client, argv[1]);
    if (status < 0) {
        json_t *result = client_call_handing(&client, "attach", params, h.fd, h.count);
        const char *id = json_string_value(json_object_get(result, "id"));
        if (id && *id)
            puts(id);
        status = result ? 0 : VMM_STATUS_HOST_ERROR;
        json_decref(result);
        client_close(&client);
    } else {
        json_decref(params);
    }
    close_all(&h);
    return status;
}

/* What the list of parts says of one. */
struct part_state {
    bool there, refused;
    int status;
};

static bool look(struct client *client, const char *id, struct part_state *state)
{
    json_t *result = client_call(client, "parts"), *part;
    size_t i;

    *state = (struct part_state){0};
    json_array_foreach(json_object_get(result, "parts"), i, part)
    {
        const char *name = json_string_value(json_object_get(part, "id"));
        if (!name || strcmp(name, id))
            continue;
        state->there = true;
        state->refused = json_is_true(json_object_get(part, "refused"));
        state->status = (int)json_integer_value(json_object_get(part, "status"));
    }
    json_decref(result);
    return result != NULL;
}

/* The guest's word for a refusal (ACPI 6.4, table 6.50). */
static const char *reason(int status)
{
    return status == 0x81   ? "it cannot let go of such a part"
           : status == 0x82 ? "the part is in use"
           : status == 0x83 ? "another part needs it"
                            : "it gives no reason";
}

static int wait_gone(struct client *client, const char *machine, const char *id, long seconds)
{
    struct timespec start, now, pause = {.tv_nsec = 50000000};
    struct part_state state;

    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        if (!look(client, id, &state))
            return VMM_STATUS_HOST_ERROR;
        if (!state.there)
            return -1;
        if (state.refused)
            return cli_fail(VMM_STATUS_HOST_ERROR, "%s: the guest keeps %s: %s", machine, id,
                            reason(state.status));
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec >= seconds)
            return cli_fail(VMM_STATUS_HOST_ERROR,
                            "%s: the guest has not let go of %s within %ld s; it is still asked "
                            "to (mullion parts shows whether it has)",
                            machine, id, seconds);
        nanosleep(&pause, NULL);
    }
}

static int detach_one(struct client *client, const char *machine, const char *id, bool force,
                      long seconds)
{
    json_t *result =
        client_call_with(client, "detach", json_pack("{s:s, s:b}", "id", id, "force", (int)force));
    json_decref(result);
    return result ? wait_gone(client, machine, id, seconds) : VMM_STATUS_HOST_ERROR;
}

/* The highest vCPU that is there. */
static bool last_cpu(struct client *client, char id[PART_NAME_MAX])
{
    json_t *result = client_call(client, "parts"), *part;
    size_t i;
    long last = -1;

    json_array_foreach(json_object_get(result, "parts"), i, part)
    {
        const char *name = json_string_value(json_object_get(part, "id"));
        if (name && !strncmp(name, "cpu", 3) && atol(name + 3) > last)
            last = atol(name + 3);
    }
    json_decref(result);
    if (last >= 0)
        snprintf(id, PART_NAME_MAX, "cpu%ld", last);
    return last >= 0;
}

struct detach_options {
    const char *part;
    long cpus, seconds;
    bool force;
};

static bool read_number(const char *text, long *out)
{
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    return *text && !*end && !errno && *out > 0;
}

static bool read_detach(int argc, char **argv, struct detach_options *o)
{
    *o = (struct detach_options){.seconds = WAIT_SECONDS};
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--force"))
            o->force = true;
        else if (!strcmp(argv[i], "--timeout") && i + 1 < argc &&
                 read_number(argv[i + 1], &o->seconds))
            i++;
        else if (!strcmp(argv[i], "--cpus") && i + 1 < argc && read_number(argv[i + 1], &o->cpus))
            i++;
        else if (argv[i][0] != '-' && !o->part)
            o->part = argv[i];
        else
            return false;
    }
    return argc > 2 && argv[1][0] != '-' && !o->part == !!o->cpus;
}

int cli_detach(int argc, char **argv)
{
    struct client client;
    struct detach_options o;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(detach_usage, stdout);
        return 0;
    }
    if (!read_detach(argc, argv, &o))
        return usage_error(detach_usage);
    int status = client_connect(&client, argv[1]);
    if (status >= 0)
        return status;
    if (o.part)
        status = detach_one(&client, argv[1], o.part, o.force, o.seconds);
    for (long i = 0; i < o.cpus && status < 0; i++) {
        char id[PART_NAME_MAX];
        status = last_cpu(&client, id) ? detach_one(&client, argv[1], id, false, o.seconds)
                                       : VMM_STATUS_HOST_ERROR;
    }
    client_close(&client);
    return status < 0 ? 0 : status;
}

int cli_parts(int argc, char **argv)
{
    struct client client;
    json_t *part;
    size_t i;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(parts_usage, stdout);
        return 0;
    }
    if (argc != 2 || argv[1][0] == '-')
        return usage_error(parts_usage);
    int status = client_connect(&client, argv[1]);
    if (status >= 0)
        return status;
    json_t *result = client_call(&client, "parts");
    json_array_foreach(json_object_get(result, "parts"), i, part)
    {
        json_int_t size = json_integer_value(json_object_get(part, "size"));
        printf("%s", json_string_value(json_object_get(part, "id")));
        if (size)
            printf(" %lld MiB", (long long)size >> 20);
        if (json_is_true(json_object_get(part, "refused")))
            printf(" kept: %s", reason((int)json_integer_value(json_object_get(part, "status"))));
        else if (json_is_true(json_object_get(part, "asked")))
            printf(" asked to go");
        putchar('\n');
    }
    status = result ? 0 : VMM_STATUS_HOST_ERROR;
    json_decref(result);
    client_close(&client);
    return status;
}
