/*
 * `mullion balloon`: how much memory a running machine's guest keeps.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/client.h"

#define TRIM_WAITS 500 /* of 20 ms */
#define FRESH_WAITS 50 /* of 20 ms: a guest that is busy or paused does not answer */

static const char usage[] =
    "Usage: mullion balloon MACHINE [SIZE | --trim]\n"
    "\n"
    "Lets a machine's guest keep SIZE of its memory (with K, M, G or T; a "
    "bare number is MiB) and give\n"
    "the rest back to the host; without SIZE shows what it keeps, and its "
    "own numbers. With --trim\n"
    "the guest says which pages are free, and the host gets these back; the "
    "guest keeps what it has.\n"
    "The machine was started with --balloon on.\n";

/* @return bytes; 0: no size */
static uint64_t parse_size(const char *text)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    unsigned shift = 20;
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit)
        shift = 10 + 10 * (unsigned)(unit - units);
    if (*text < '0' || *text > '9' || (*end && (!unit || end[1])) ||
        n > (uint64_t)INT64_MAX >> shift)
        return 0;
    return n << shift;
}

static int set_size(struct client *client, const char *text)
{
    uint64_t size = parse_size(text);
    if (!size)
        return cli_fail(VMM_STATUS_USAGE, "balloon: '%s': give a size like 512M", text);
    json_t *result =
        client_call_with(client, "balloon.set", json_pack("{s:I}", "memory", (json_int_t)size));
    json_decref(result);
    return result ? 0 : VMM_STATUS_HOST_ERROR;
}

static json_t *ask(struct client *client)
{
    return client_call_with(client, "balloon.stats", json_pack("{s:b}", "refresh", 0));
}

static int trim(struct client *client)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    json_t *stats = ask(client), *result;
    json_int_t before = json_integer_value(json_object_get(stats, "trimmed"));

    json_decref(stats);
    result = client_call(client, "balloon.trim");
    json_decref(result);
    if (!result)
        return VMM_STATUS_HOST_ERROR;
    for (unsigned i = 0; i < TRIM_WAITS; i++) {
        nanosleep(&pause, NULL);
        stats = ask(client);
        if (!stats)
            return VMM_STATUS_HOST_ERROR;
        bool done = !json_is_true(json_object_get(stats, "trimming"));
        json_int_t now = json_integer_value(json_object_get(stats, "trimmed"));
        json_decref(stats);
        if (done) {
            printf("given back: %.1f MiB\n", (double)(now - before) / 1048576);
            return 0;
        }
    }
    return cli_fail(VMM_STATUS_HOST_ERROR,
                    "balloon: the guest has not answered within %d s; it still may",
                    TRIM_WAITS / 50);
}

static void print_size(const char *name, json_t *value)
{
    printf("%s: %.1f MiB\n", name, (double)json_integer_value(value) / 1048576);
}

static int show(struct client *client)
{
    static const char *const sizes[] = {"free", "available", "caches", "total"};
    const struct timespec pause = {.tv_nsec = 20000000};
    json_t *result = client_call(client, "balloon.stats");
    if (!result)
        return VMM_STATUS_HOST_ERROR;
    /* The first call has asked the guest; it answers soon. */
    bool driver = json_is_true(json_object_get(result, "driver")), fresh = false;
    for (unsigned i = 0; i < FRESH_WAITS && driver && !fresh; i++) {
        nanosleep(&pause, NULL);
        json_decref(result);
        result = ask(client);
        if (!result)
            return VMM_STATUS_HOST_ERROR;
        fresh = json_is_true(json_object_get(result, "fresh"));
    }
    print_size("memory", json_object_get(result, "memory"));
    print_size("target", json_object_get(result, "target"));
    print_size("actual", json_object_get(result, "actual"));
    print_size("free pages reported", json_object_get(result, "reported"));
    if (!driver)
        puts("the guest has no driver for the balloon");
    json_t *stats = json_object_get(result, "stats"), *value;
    const char *name;
    json_object_foreach(stats, name, value)
    {
        bool size = false;
        for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
            size = size || !strcmp(name, sizes[i]);
        printf("guest %s: ", name);
        if (size)
            printf("%.1f MiB\n", (double)json_integer_value(value) / 1048576);
        else
            printf("%" PRId64 "\n", (int64_t)json_integer_value(value));
    }
    json_decref(result);
    return 0;
}

int cli_balloon(int argc, char **argv)
{
    struct client client;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc < 2 || argc > 3 || argv[1][0] == '-') {
        fputs(usage, stderr);
        return VMM_STATUS_USAGE;
    }
    int status = client_connect(&client, argv[1]);
    if (status >= 0)
        return status;
    if (argc == 3)
        status = strcmp(argv[2], "--trim") ? set_size(&client, argv[2]) : trim(&client);
    else
        status = show(&client);
    client_close(&client);
    return status;
}
