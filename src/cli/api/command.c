/*
 * Parsing, help and manual pages of the commands that ask a host. See command.h.
 */
#include "cli/api/command.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api/groups.h"
#include "cli/api/place.h"

/* What every command takes; the others by its flags. */
static const struct host_option anywhere[] = {
    {"host", "URL", "the host: https://NAME:PORT or unix:PATH ($MULLION_HOST)", HOST_TEXT, false},
    {"context", "NAME", "a host by the name that mullion context add gave it", HOST_CONTEXT, false},
    {"help", NULL, "show this text", HOST_TEXT, false},
    {0},
};
static const struct host_option listing[] = {
    {"format", "table|json|csv", "for people, programs or spreadsheets (table)", HOST_TEXT, false},
    {0},
};
static const struct host_option waiting[] = {
    {"wait", NULL, "return when it is done: the default", HOST_TEXT, false},
    {"no-wait", NULL, "return at once and print the task's id", HOST_TEXT, false},
    {"wait-timeout", "SECONDS", "how long to wait; the task goes on", HOST_TEXT, false},
    {0},
};

static const struct host_command *const groups[] = {
    host_machine_commands,
    host_power_commands,
    host_guest_commands,
    host_screen_commands,
    host_image_commands,
    host_network_commands,
    host_pool_commands,
    host_storage_commands,
    host_template_commands,
    host_user_commands,
    host_task_commands,
    host_context_commands,
    host_shell_commands,
    NULL,
};

const struct host_command *const *host_commands(void)
{
    return groups;
}

/* How many of argv are the command's words; 0: it is another. */
static int match(const char *words, int argc, char **argv)
{
    int n = 0;

    while (*words) {
        size_t length = strcspn(words, " ");

        if (n == argc || strlen(argv[n]) != length || strncmp(argv[n], words, length))
            return 0;
        words += length + (words[length] == ' ');
        n++;
    }
    return n;
}

const struct host_command *host_command_find(int argc, char **argv, int *words)
{
    for (unsigned g = 0; groups[g]; g++)
        for (const struct host_command *c = groups[g]; c->words; c++)
            if ((*words = match(c->words, argc, argv)))
                return c;
    return NULL;
}

int host_fail(int status, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    fputs("mullion: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

int host_failed(const struct host_call *call, const struct mull_error *err)
{
    int status = call->api ? api_status(call->api) : API_FAILED;

    return host_fail(status ? status : API_FAILED, "%s", err->message);
}

/* ---- Parsing ---- */

unsigned host_command_tables(const struct host_command *c, const struct host_option *out[4])
{
    unsigned n = 0;

    if (c->options)
        out[n++] = c->options;
    if (c->flags & HOST_LISTS)
        out[n++] = listing;
    if (c->flags & HOST_WAITS)
        out[n++] = waiting;
    out[n++] = anywhere;
    return n;
}

static const struct host_option *find_option(const struct host_command *c, const char *name,
                                             size_t length)
{
    const struct host_option *tables[4];
    unsigned n = host_command_tables(c, tables);

    for (unsigned t = 0; t < n; t++)
        for (const struct host_option *o = tables[t]; o->name; o++)
            if (strlen(o->name) == length && !strncmp(o->name, name, length))
                return o;
    return NULL;
}

/* Is @value one of "a|b|c"? Upper-case values are only described: anything is. */
static bool allowed(const char *values, const char *value)
{
    size_t length = strlen(value);

    if (!islower((unsigned char)*values) || !strchr(values, '|'))
        return true;
    for (; *values; values += strcspn(values, "|"), values += *values == '|')
        if (strcspn(values, "|") == length && !strncmp(values, value, length))
            return true;
    return false;
}

static int wrong(const struct host_call *call, const char *what, const char *why)
{
    return host_fail(API_USAGE, "%s: %s; see mullion %s --help", what, why, call->command->words);
}

const char *host_option(const struct host_call *call, const char *name)
{
    for (unsigned i = call->options; i-- > 0;)
        if (!strcmp(call->option[i].name, name))
            return call->option[i].value;
    return NULL;
}

const char *host_option_next(const struct host_call *call, const char *name, unsigned *at)
{
    while (*at < call->options) {
        unsigned i = (*at)++;

        if (!strcmp(call->option[i].name, name))
            return call->option[i].value;
    }
    return NULL;
}

/* @return -1: go on */
static int parse_option(struct host_call *call, int argc, char **argv, int *at)
{
    const char *text = argv[*at] + 2, *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : strlen(text);
    const struct host_option *o = find_option(call->command, text, length);

    if (!o)
        return wrong(call, argv[*at], "no such option");
    if (!o->value && equals)
        return wrong(call, argv[*at], "takes no value");
    const char *value = equals ? equals + 1 : "";
    if (o->value && !equals) {
        if (*at + 1 >= argc)
            return wrong(call, argv[*at], "needs a value");
        value = argv[++*at];
    }
    if (o->value && !allowed(o->value, value))
        return host_fail(API_USAGE, "--%s %s: give %s", o->name, value, o->value);
    if (!o->many && host_option(call, o->name))
        return wrong(call, argv[*at], "is there twice");
    if (call->options == HOST_OPTIONS_MAX)
        return wrong(call, argv[*at], "more options than there may be");
    call->option[call->options].name = o->name;
    call->option[call->options++].value = value;
    return -1;
}

/* @return -1: go on */
static int parse_words(struct host_call *call, int argc, char **argv)
{
    bool only_arguments = false;

    for (int i = 0; i < argc; i++) {
        if (!only_arguments && !strcmp(argv[i], "--")) {
            only_arguments = true;
        } else if (!only_arguments && !strncmp(argv[i], "--", 2)) {
            int ret = parse_option(call, argc, argv, &i);

            if (ret >= 0)
                return ret;
        } else if (!only_arguments && !strcmp(argv[i], "-h")) {
            host_command_help(call->command, stdout);
            return API_DONE;
        } else if (!only_arguments && argv[i][0] == '-' && argv[i][1]) {
            return wrong(call, argv[i], "no such option");
        } else if (call->arguments == HOST_ARGUMENTS_MAX) {
            return wrong(call, argv[i], "more arguments than there may be");
        } else {
            call->argument[call->arguments++] = argv[i];
            only_arguments = only_arguments || (call->command->flags & HOST_REST &&
                                                call->arguments > call->command->least);
        }
    }
    if (!host_option(call, "help"))
        return -1;
    host_command_help(call->command, stdout);
    return API_DONE;
}

static int parse(struct host_call *call, int argc, char **argv)
{
    int ret = parse_words(call, argc, argv);
    const char *format, *seconds;
    char *end = NULL;

    if (ret >= 0)
        return ret;
    if (call->arguments < call->command->least || call->arguments > call->command->most)
        return host_fail(API_USAGE, "usage: mullion %s %s; see mullion %s --help",
                         call->command->words, call->command->arguments, call->command->words);
    format = host_option(call, "format");
    call->format = !format || !strcmp(format, "table") ? FORMAT_TABLE
                   : !strcmp(format, "json")           ? FORMAT_JSON
                                                       : FORMAT_CSV;
    call->no_wait = host_option(call, "no-wait");
    if (call->no_wait && host_option(call, "wait"))
        return wrong(call, "--wait", "not with --no-wait");
    seconds = host_option(call, "wait-timeout");
    call->timeout = seconds ? strtod(seconds, &end) : 0;
    if (seconds && (*end || end == seconds || !(call->timeout > 0 && call->timeout < 1e7)))
        return host_fail(API_USAGE, "--wait-timeout %s: give seconds", seconds);
    call->host = host_option(call, "host");
    call->context = host_option(call, "context");
    return -1;
}

int host_connect(struct host_call *call)
{
    struct mull_error err = {0};

    if (call->api)
        return -1;
    int ret = host_place_find(call->host, call->context, &call->place, &err);
    if (!ret)
        ret = api_open(host_place_target(call->place), &call->api, &err);
    return ret ? host_fail(API_FAILED, "%s", err.message) : -1;
}

int host_command_run(const struct host_command *command, int argc, char **argv)
{
    struct host_call *call = calloc(1, sizeof(*call));
    if (!call)
        return host_fail(API_FAILED, "no memory");
    call->command = command;
    int status = parse(call, argc, argv);
    if (status < 0 && !(command->flags & HOST_OFFLINE))
        status = host_connect(call);
    if (status < 0)
        status = command->run(call);
    if (fflush(stdout) && !status)
        status = host_fail(API_FAILED, "standard output: cannot be written");
    api_close(call->api);
    host_place_free(call->place);
    free(call);
    return status;
}

/* ---- Help ---- */

static void help_options(const struct host_option *options, FILE *out)
{
    for (const struct host_option *o = options; o->name; o++) {
        char head[64];

        snprintf(head, sizeof(head), "--%s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        fprintf(out, strlen(head) > 22 ? "  %s\n  %-22s %s\n" : "  %-22s%s %s\n", head, "",
                o->help);
    }
}

void host_command_help(const struct host_command *c, FILE *out)
{
    const struct host_option *tables[4];
    unsigned n = host_command_tables(c, tables);

    fprintf(out, "Usage: mullion %s [OPTION]...%s%s\n\n%c%s.\n", c->words, *c->arguments ? " " : "",
            c->arguments, toupper((unsigned char)c->summary[0]), c->summary + 1);
    if (c->text)
        fprintf(out, "%s\n", c->text);
    fputc('\n', out);
    for (unsigned t = 0; t < n; t++)
        help_options(tables[t], out);
}

/* Text of a manual page: a dot or quote at a line's start would be a request. */
static void roff(const char *text, FILE *out)
{
    bool start = true;

    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
        start = *text == '\n';
    }
    fputc('\n', out);
}

void host_command_manual(const struct host_command *c, FILE *out)
{
    const struct host_option *tables[4];
    unsigned n = host_command_tables(c, tables);

    fputs(".Dd $Mdocdate$\n.Dt MULLION-", out);
    for (const char *p = c->words; *p; p++)
        fputc(*p == ' ' ? '-' : toupper((unsigned char)*p), out);
    fprintf(out, "%s 1\n.Os Mullion\n.Sh NAME\n.Nm mullion %s\n.Nd ",
            c->flags & HOST_BOTH ? "-HOST" : "", c->words);
    roff(c->summary, out);
    fprintf(out, ".Sh SYNOPSIS\n.Nm mullion %s\n.Op Ar option ...\n", c->words);
    if (*c->arguments)
        fprintf(out, ".Ar %s\n", c->arguments);
    fprintf(out, ".Sh DESCRIPTION\n%c", toupper((unsigned char)c->summary[0]));
    roff(c->summary + 1, out);
    if (c->text) {
        fputs(".Pp\n", out);
        roff(c->text, out);
    }
    fputs(".Bl -tag -width Ds\n", out);
    for (unsigned t = 0; t < n; t++)
        for (const struct host_option *o = tables[t]; o->name; o++) {
            fprintf(out, ".It Fl -%s%s%s\n", o->name, o->value ? " Ar " : "",
                    o->value ? o->value : "");
            roff(o->help, out);
        }
    fputs(
        ".El\n.Sh EXIT STATUS\n0 done, 1 the host says no, 2 wrong usage, 3 no such object, 4 its "
        "state forbids it,\n5 not allowed, 6 no host answers, 7 it takes longer than\n"
        ".Fl -wait-timeout .\n.Sh SEE ALSO\n",
        out);
    if (c->flags & HOST_BOTH)
        fprintf(out, ".Xr mullion-%s 1 ,\n", c->words);
    fputs(".Xr mullion 1 ,\n.Xr mulliond 8\n", out);
}
