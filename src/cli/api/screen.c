/* `mullion screen`, `screenshot`, `sendkey` and `top` of machines that a host keeps. Those of a
 * machine of one's own are in cli/screen.c and cli/stats.c. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/api/groups.h"
#include "cli/api/output.h"
#include "cli/api/transfer.h"

/* ---- The screen ---- */

static int screen(struct host_call *call)
{
    int status;
    char *id = host_find(call, "/machines", "machine", call->argument[0], &status);
    json_t *shown =
        id ? host_send(call, "GET", api_path(call->api, "/machines/%s/screen", id), NULL, &status)
           : NULL;

    free(id);
    if (!shown)
        return status;
    fputs(json_string_value(json_object_get(shown, "text")), stdout);
    json_decref(shown);
    return API_DONE;
}

static int screenshot(struct host_call *call)
{
    const char *name = host_option(call, "output");
    char own[256];
    int status;

    if (!name) {
        snprintf(own, sizeof(own), "%s.png", call->argument[0]);
        name = own;
    }
    char *id = host_find(call, "/machines", "machine", call->argument[0], &status);
    char *path = id ? api_path(call->api, "/machines/%s/screenshot", id) : NULL;
    free(id);
    if (path)
        status = transfer_save(call, path, name);
    free(path);
    return status;
}

static int sendkey(struct host_call *call)
{
    const char *text = host_option(call, "text"), *keymap = host_option(call, "keymap");
    int status;

    if (!text == (call->arguments < 2))
        return host_fail(API_USAGE, "sendkey: give keys or --text; see mullion sendkey --help");
    json_t *body = json_object();
    if (text) {
        json_object_set_new(body, "text", json_string(text));
        if (keymap)
            json_object_set_new(body, "keymap", json_string(keymap));
    } else {
        json_t *keys = json_array();

        for (unsigned i = 1; i < call->arguments; i++)
            json_array_append_new(keys, json_string(call->argument[i]));
        json_object_set_new(body, "keys", keys);
    }
    char *id = host_find(call, "/machines", "machine", call->argument[0], &status);
    if (!id) {
        json_decref(body);
        return status;
    }
    json_decref(
        host_send(call, "POST", api_path(call->api, "/machines/%s/keys", id), body, &status));
    free(id);
    return status;
}

/* ---- top ---- */

static int by_cpu(const void *a, const void *b)
{
    double x = json_number_value(
               json_object_get(json_object_get(*(json_t *const *)a, "usage"), "cpu")),
           y = json_number_value(
               json_object_get(json_object_get(*(json_t *const *)b, "usage"), "cpu"));

    return (x < y) - (x > y);
}

/* The busiest first. @param items  taken */
static json_t *sorted(json_t *items)
{
    size_t n = json_array_size(items);
    json_t **all = calloc(n + 1, sizeof(*all)), *out = json_array();

    for (size_t i = 0; all && i < n; i++)
        all[i] = json_array_get(items, i);
    if (all)
        qsort(all, n, sizeof(*all), by_cpu);
    for (size_t i = 0; all && i < n; i++)
        json_array_append(out, all[i]);
    free(all);
    json_decref(items);
    return out;
}

static int top(struct host_call *call)
{
    static const struct column columns[] = {
        {"NAME", "name", COLUMN_TEXT},
        {"STATE", "state", COLUMN_TEXT},
        {"CPUS", "cpus", COLUMN_TEXT},
        {"CPU", "usage.cpu", COLUMN_PERCENT},
        {"MEMORY", "usage.memory", COLUMN_SIZE},
        {"OF", "memory", COLUMN_SIZE},
        {"UPTIME", "uptime", COLUMN_SECONDS},
        {"ENGINE", "engine", COLUMN_TEXT},
        {0},
    };
    const char *interval = host_option(call, "interval"), *count = host_option(call, "count");
    json_t *seconds = interval ? host_number("interval", interval, 1, 3600) : json_integer(2);
    json_t *times = count ? host_number("count", count, 1, 1000000) : json_integer(0);
    bool screen = isatty(STDOUT_FILENO) && call->format == FORMAT_TABLE && !count;
    int status = seconds && times ? API_DONE : API_USAGE;

    for (json_int_t i = 0, n = json_integer_value(times); !status && (!n || i < n); i++) {
        struct mull_error err = {0};

        if (i)
            nanosleep(&(struct timespec){json_integer_value(seconds), 0}, NULL);
        json_t *items = api_list(call->api, "/machines?limit=1000&state=running", &err);
        if (!items) {
            status = host_failed(call, &err);
            break;
        }
        if (screen)
            fputs("\033[H\033[2J", stdout);
        items = sorted(items);
        status = output_list(call, items, columns);
        json_decref(items);
        if (fflush(stdout))
            break;
    }
    json_decref(seconds);
    json_decref(times);
    return status;
}

/* ---- The table ---- */

#define LOCAL                                                                                      \
    {                                                                                              \
        "local", NULL, "a machine of mullion run, not a host's", HOST_TEXT, false                  \
    }

static const struct host_option screen_options[] = {LOCAL, {0}};

static const struct host_option shot_options[] = {
    {"output", "FILE.png", "where to write it (NAME.png); - is standard output", HOST_FILE, false},
    LOCAL,
    {0},
};

static const struct host_option key_options[] = {
    {"text", "TEXT", "type characters, new lines and tabs, instead", HOST_TEXT, false},
    {"keymap", "LAYOUT", "of the guest's keyboard, for --text (us)", HOST_TEXT, false},
    LOCAL,
    {0},
};

static const struct host_option top_options[] = {
    {"interval", "SECONDS", "between two looks (2)", HOST_TEXT, false},
    {"count", "N", "how many looks; without it until it is stopped", HOST_TEXT, false},
    LOCAL,
    {0},
};

const struct host_command host_screen_commands[] = {
    {"screen", "MACHINE", "print what a machine shows in a text mode",
     "A machine of mullion run is found by its name first.", screen_options, 1, 1, HOST_MACHINE,
     HOST_BOTH, screen},
    {"screenshot", "MACHINE", "write a picture of what a machine shows",
     "A machine of mullion run is found by its name first.", shot_options, 1, 1, HOST_MACHINE,
     HOST_BOTH, screenshot},
    {"sendkey", "MACHINE KEY...", "press a machine's keys, one after the other",
     "Keys: a to z, 0 to 9, ret, esc, tab, spc, backspace, up, down, left, right, home, end, pgup, "
     "pgdn, insert, delete, f1 to f12; several at once as in ctrl-alt-delete. A machine of mullion "
     "run is found by its name first.",
     key_options, 1, HOST_ARGUMENTS_MAX, HOST_MACHINE, HOST_BOTH, sendkey},
    {"top", "", "show what machines use, the busiest first",
     "With --local: the counters of the engines of machines of mullion run; also where no host "
     "runs.",
     top_options, 0, 0, HOST_TEXT, HOST_LISTS | HOST_BOTH, top},
    {0},
};
