/* `mullion console`, `exec`, `copy`: reaching what runs inside a machine. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/api/groups.h"
#include "cli/api/output.h"
#include "cli/api/transfer.h"
#include "cli/terminal.h"

#define EXPECT_MOST 8192
#define QUIET_MS 2000         /* a console is left that says nothing so long after a pipe's end */
#define COPY_MOST (64u << 20) /* of a file sent in one piece */

/* ---- console ---- */

struct console {
    struct api_stream *stream;
    struct terminal terminal;
    struct escape escape;
    bool usable, quit, input_ended;
    bool heard;         /* something since the last look */
    const char *expect; /* it is left when this was heard; or NULL */
    char *tail;         /* what was heard last: EXPECT_MOST bytes */
    size_t tail_length;
    bool met;
};

/* Look for what is expected in what was heard last and @data. */
static void look(struct console *c, const char *data, size_t length)
{
    size_t wanted = strlen(c->expect);

    while (length && !c->met) {
        size_t n = EXPECT_MOST - c->tail_length;

        if (!n) { /* keep as much as could be the beginning of it */
            memmove(c->tail, c->tail + EXPECT_MOST - (wanted - 1), wanted - 1);
            c->tail_length = wanted - 1;
            continue;
        }
        n = n < length ? n : length;
        memcpy(c->tail + c->tail_length, data, n);
        c->tail_length += n;
        data += n;
        length -= n;
        c->met = memmem(c->tail, c->tail_length, c->expect, wanted) != NULL;
    }
}

static void print(void *opaque, const void *data, size_t length)
{
    struct console *c = opaque;
    const char *p = data;

    c->heard = true;
    if (c->expect)
        look(c, data, length);

    while (length) {
        ssize_t n = write(STDOUT_FILENO, p, length);

        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return;
        p += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
}

/* Keys of a terminal go through the escape key, a pipe's bytes as they are. */
static int pass_input(struct console *c)
{
    unsigned char in[4096], out[2 * sizeof(in)];
    ssize_t got = read(STDIN_FILENO, in, sizeof(in));
    size_t length = 0;

    if (got <= 0) {
        c->input_ended = got == 0 || (errno != EINTR && errno != EAGAIN);
        return 0;
    }
    if (!c->usable)
        return api_stream_send(c->stream, in, (size_t)got);
    for (ssize_t i = 0; i < got && !c->quit; i++) {
        size_t count = 0;
        enum escape_key key = escape_key(&c->escape, in[i], out + length, &count);

        length += count;
        c->quit = key == ESCAPE_QUIT;
        if (key == ESCAPE_HELP || key == ESCAPE_MONITOR)
            fputs("\r\nCtrl-A x leaves the console, Ctrl-A Ctrl-A sends Ctrl-A.\r\n", stderr);
    }
    return api_stream_send(c->stream, out, length);
}

static double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* How long to wait for the next event. */
static int patience(const struct console *c, double deadline)
{
    double left = deadline ? (deadline - seconds_now()) * 1000 : -1;
    int most = c->input_ended && !c->expect ? QUIET_MS : -1;

    if (!deadline)
        return most;
    left = left < 0 ? 0 : left > 1e6 ? 1e6 : left;
    return most >= 0 && most < left ? most : (int)left + 1;
}

/* @param deadline  or 0. @return 0, -ETIMEDOUT or another -errno */
static int talk(struct console *c, double deadline)
{
    int ret = 0;

    while (!ret && !c->quit && !c->met) {
        struct pollfd p[2] = {{.fd = api_stream_fd(c->stream), .events = POLLIN},
                              {.fd = c->input_ended ? -1 : STDIN_FILENO, .events = POLLIN}};

        c->heard = false;
        ret = api_stream_receive(c->stream, print, c);
        if (ret)
            break;
        if (c->met)
            break;
        int ready = poll(p, 2, patience(c, deadline));
        if (ready < 0 && errno != EINTR)
            break;
        if (deadline && seconds_now() >= deadline)
            ret = -ETIMEDOUT;
        else
            c->quit = !ready && !c->heard && c->input_ended && !c->expect;
        if (p[1].revents)
            ret = pass_input(c);
    }
    return ret;
}

static int console_log(struct host_call *call, const char *id)
{
    struct mull_error err = {0};
    char *path = api_path(call->api, "/machines/%s/console-log", id);
    int64_t got = path ? api_download(call->api, path, stdout, NULL, NULL, &err) : -ENOMEM;

    free(path);
    return got < 0 ? host_failed(call, &err) : API_DONE;
}

static int attach(struct host_call *call, const char *id, struct console *c, double deadline)
{
    struct mull_error err = {0};
    int status;
    json_t *ticket = host_send(call, "POST", api_path(call->api, "/machines/%s/console", id),
                               json_pack("{s:s}", "type", "serial"), &status);
    const char *url = json_string_value(json_object_get(ticket, "url"));

    if (!ticket)
        return status;
    if (!url || api_stream_open(call->api, url, &c->stream, &err)) {
        json_decref(ticket);
        return host_failed(call, &err);
    }
    json_decref(ticket);
    c->usable = terminal_usable(STDIN_FILENO) && !terminal_raw(&c->terminal, STDIN_FILENO);
    if (c->usable)
        fputs("Ctrl-A x leaves the console.\r\n", stderr);
    int ret = talk(c, deadline);
    terminal_restore(&c->terminal);
    api_stream_close(c->stream);
    if (ret == -ETIMEDOUT)
        return host_fail(API_TIMEOUT, "console: its --timeout has passed");
    if (ret && ret != -EPIPE)
        return host_fail(API_FAILED, "console: %s", strerror(-ret));
    if (c->expect && !c->met && !c->quit)
        return host_fail(API_FAILED, "console: it ended without saying '%s'", c->expect);
    if (c->usable)
        fputc('\n', stderr);
    return API_DONE;
}

static int console(struct host_call *call)
{
    struct console c = {.expect = host_option(call, "expect")};
    const char *seconds = host_option(call, "timeout");
    json_t *most = seconds ? host_number("timeout", seconds, 1, 86400) : json_integer(0);
    double deadline = json_integer_value(most) ? seconds_now() + json_number_value(most) : 0;
    int status = API_USAGE;

    json_decref(most);
    if (!most)
        return API_USAGE;
    if (c.expect && (!*c.expect || strlen(c.expect) > EXPECT_MOST / 2))
        return host_fail(API_USAGE, "--expect: give a text of 1 to %u bytes", EXPECT_MOST / 2);
    if (c.expect && !(c.tail = malloc(EXPECT_MOST)))
        return host_fail(API_FAILED, "console: no memory");
    char *id = host_find(call, "/machines", "machine", call->argument[0], &status);
    if (id)
        status = host_option(call, "log") ? console_log(call, id) : attach(call, id, &c, deadline);
    free(id);
    free(c.tail);
    return status;
}

/* ---- A guest's user ---- */

#define PASSWORD_VARIABLE "MULLION_GUEST_PASSWORD"

/* The first line of --password-file. */
static char *password_of(const char *file)
{
    FILE *f = fopen(file, "re");
    char *line = NULL;
    size_t room = 0;
    ssize_t n = f ? getline(&line, &room, f) : -1;

    if (n < 0)
        host_fail(API_USAGE, "%s: %s", file, f ? "it is empty" : strerror(errno));
    else
        line[strcspn(line, "\r\n")] = '\0';
    if (f)
        fclose(f);
    if (n >= 0)
        return line;
    free(line);
    return NULL;
}

/* --user, and the password from where it is: never from the command line, which all can see.
 * @param input  standard input holds something else. @return -1: done; else the exit status */
static int take_user(struct host_call *call, bool input)
{
    const char *user = host_option(call, "user"), *file = host_option(call, "password-file");
    const char *given = getenv(PASSWORD_VARIABLE);
    struct mull_error err = {0};
    char prompt[128], *password;

    if (!user)
        return file ? host_fail(API_USAGE, "--password-file: give --user, too") : -1;
    if (file && strcmp(file, "-") != 0) {
        password = password_of(file);
        if (!password)
            return API_USAGE;
    } else if (!file && given) {
        password = strdup(given);
    } else if (input) {
        return host_fail(API_USAGE, "standard input is not the password's here: give "
                                    "--password-file FILE or " PASSWORD_VARIABLE);
    } else {
        snprintf(prompt, sizeof(prompt), "Password of %.64s in the guest", user);
        password = host_secret(prompt);
    }
    if (!password)
        return host_fail(API_USAGE, "no password was given");
    int ret = api_set_guest_user(call->api, user, password, &err);
    explicit_bzero(password, strlen(password));
    free(password);
    return ret ? host_fail(API_USAGE, "%s", err.message) : -1;
}

/* ---- exec ---- */

static int exec(struct host_call *call)
{
    const char *seconds = host_option(call, "timeout");
    json_t *timeout = seconds ? host_number("timeout", seconds, 1, 86400) : json_integer(60);
    json_t *command = json_array();
    int status = timeout ? take_user(call, host_option(call, "stdin") != NULL) : API_USAGE;

    if (status >= 0) {
        json_decref(timeout);
        json_decref(command);
        return status;
    }
    for (unsigned i = 1; i < call->arguments; i++)
        json_array_append_new(command, json_string(call->argument[i]));
    json_t *body = json_pack("{s:o, s:o}", "command", command, "timeout", timeout);
    if (host_option(call, "stdin")) {
        char *text = NULL;
        size_t room = 0;
        ssize_t n = getdelim(&text, &room, '\0', stdin);

        json_object_set_new(body, "stdin", json_stringn(n > 0 ? text : "", n > 0 ? (size_t)n : 0));
        free(text);
    }
    char *id = host_find(call, "/machines", "machine", call->argument[0], &status);
    if (!id) {
        json_decref(body);
        return status;
    }
    json_t *done =
        host_send(call, "POST", api_path(call->api, "/machines/%s/exec", id), body, &status);
    free(id);
    if (!done)
        return status;
    const char *out = json_string_value(json_object_get(done, "stdout"));
    const char *complaints = json_string_value(json_object_get(done, "stderr"));
    fputs(out ? out : "", stdout);
    fputs(complaints ? complaints : "", stderr);
    status = (int)json_integer_value(json_object_get(done, "status")) & 255;
    json_decref(done);
    return status;
}

/* ---- copy ---- */

/* "MACHINE:PATH": where the path begins; NULL: a file of this side. */
static const char *guest_path(const char *text)
{
    const char *colon = strchr(text, ':');

    return colon && colon != text && !memchr(text, '/', (size_t)(colon - text)) ? colon + 1 : NULL;
}

static char *files_path(struct host_call *call, const char *place, int *status)
{
    const char *path = guest_path(place);
    char *name = strndup(place, (size_t)(path - place - 1));
    char *id = name ? host_find(call, "/machines", "machine", name, status) : NULL;
    char *out = id ? api_path(call->api, "/machines/%s/files?path=%s", id, path) : NULL;

    free(name);
    free(id);
    return out;
}

static int fetch(struct host_call *call, const char *from, const char *to)
{
    int status = API_FAILED;
    char *path = files_path(call, from, &status);

    if (path)
        status = transfer_save(call, path, to);
    free(path);
    return status;
}

static char *whole_file(const char *name, size_t *length)
{
    FILE *f = strcmp(name, "-") ? fopen(name, "re") : stdin;
    char *data = f ? malloc(COPY_MOST + 1) : NULL;

    *length = data ? fread(data, 1, COPY_MOST + 1, f) : 0;
    if (!f || !data || ferror(f)) {
        host_fail(API_FAILED, "%s: %s", name, strerror(errno));
    } else if (*length > COPY_MOST) {
        host_fail(API_FAILED, "%s: larger than %u MiB, the most that a guest agent is sent", name,
                  COPY_MOST >> 20);
    } else {
        if (f != stdin)
            fclose(f);
        return data;
    }
    if (f && f != stdin)
        fclose(f);
    free(data);
    return NULL;
}

static int give(struct host_call *call, const char *from, const char *to)
{
    struct mull_error err = {0};
    int status = API_FAILED;
    size_t length;
    char *data = whole_file(from, &length), *path = data ? files_path(call, to, &status) : NULL;

    if (path) {
        json_t *done = api_send(call->api, "PUT", path, NULL, data, length, &err);

        status = done ? API_DONE : host_failed(call, &err);
        json_decref(done);
    }
    free(path);
    free(data);
    return status;
}

static int copy(struct host_call *call)
{
    const char *from = call->argument[0], *to = call->argument[1];

    if (!guest_path(from) == !guest_path(to))
        return host_fail(API_USAGE, "copy: one of the two must be MACHINE:PATH");
    int status = take_user(call, !strcmp(from, "-"));
    if (status >= 0)
        return status;
    return guest_path(from) ? fetch(call, from, to) : give(call, from, to);
}

/* ---- The table ---- */

static const struct host_option console_options[] = {
    {"log", NULL, "print what it has said last, and end", HOST_TEXT, false},
    {"expect", "TEXT", "leave it as soon as it says this, or has just said it", HOST_TEXT, false},
    {"timeout", "SECONDS", "leave it then, with status 7", HOST_TEXT, false},
    {0},
};

#define USER_OPTIONS                                                                               \
    {"user", "NAME",                                                                               \
     "a user of the guest, whom open-vm-tools ask for; the password is asked for, or read: "       \
     "--password-file, else " PASSWORD_VARIABLE ", else standard input",                           \
     HOST_TEXT, false},                                                                            \
    {                                                                                              \
        "password-file", "FILE", "its first line is the user's password (-: standard input)",      \
            HOST_FILE, false                                                                       \
    }

static const struct host_option copy_options[] = {
    USER_OPTIONS,
    {0},
};

static const struct host_option exec_options[] = {
    {"timeout", "SECONDS", "how long it may run (60)", HOST_TEXT, false},
    {"stdin", NULL, "give it standard input, whole", HOST_TEXT, false},
    USER_OPTIONS,
    {0},
};

const struct host_command host_guest_commands[] = {
    {"console", "MACHINE", "connect to a machine's serial console",
     "On a terminal Ctrl-A x leaves it. What a pipe gives is typed; after its end the console is "
     "left "
     "when it has been quiet for two seconds.",
     console_options, 1, 1, HOST_MACHINE, 0, console},
    {"exec", "MACHINE -- COMMAND [ARGUMENT]...", "run a command in a guest, by its agent",
     "The exit status is the command's. The guest must run qemu-guest-agent, or open-vm-tools, "
     "which "
     "do it as a user of the guest: --user. A command that takes longer than its timeout is ended "
     "by "
     "open-vm-tools; qemu-guest-agent lets it go on.",
     exec_options, 2, HOST_ARGUMENTS_MAX, HOST_MACHINE, HOST_REST, exec},
    {"copy", "FROM TO", "copy a file to or from a guest, by its agent",
     "One of the two is MACHINE:PATH, the other a file here; - is standard input or output. The "
     "guest "
     "must run qemu-guest-agent, or open-vm-tools, which do it as a user of the guest: --user.",
     copy_options, 2, 2, HOST_FILE, 0, copy},
    {0},
};
