/* What many commands do: find objects, send, wait for tasks, ask. See command.h. */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli/api/command.h"
#include "cli/image.h"

#define POLL_FIRST_MS 20
#define POLL_MOST_MS 500

/* ---- Objects ---- */

static bool is_uuid(const char *text)
{
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    size_t i = 0;

    for (; shape[i] && text[i]; i++)
        if (shape[i] == '-' ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
            return false;
    return !shape[i] && !text[i];
}

char *host_find(struct host_call *call, const char *list, const char *what, const char *name,
                int *status)
{
    struct mull_error err = {0};
    char *query = api_path(call->api, "?name=%s&limit=2&fields=id,name", name), *path = NULL;

    *status = API_FAILED;
    if (is_uuid(name)) {
        free(query);
        return strdup(name);
    }
    if (!query || asprintf(&path, "%s%s", list, query) < 0) {
        free(query);
        host_fail(API_FAILED, "no memory");
        return NULL;
    }
    json_t *answer = api_call(call->api, "GET", path, NULL, &err);
    const json_t *items = json_object_get(answer, "items");
    const char *id = json_string_value(json_object_get(json_array_get(items, 0), "id"));
    char *copy = NULL;
    if (!answer)
        *status = host_failed(call, &err);
    else if (json_array_size(items) > 1)
        *status = host_fail(API_CONFLICT, "%s %s: there are several; give an id", what, name);
    else if (!id)
        *status = host_fail(API_NOT_FOUND, "%s %s: there is none; see mullion %slist", what, name,
                            strcmp(what, "machine") ? what : "");
    else
        copy = strdup(id);
    json_decref(answer);
    free(query);
    free(path);
    return copy;
}

json_t *host_send(struct host_call *call, const char *method, char *path, json_t *body, int *status)
{
    struct mull_error err = {0};
    json_t *answer = NULL;

    if (path)
        answer = api_call(call->api, method, path, body, &err);
    else
        json_decref(body);
    if (!path)
        *status = host_fail(API_FAILED, "no memory");
    else
        *status = answer ? API_DONE : host_failed(call, &err);
    free(path);
    return answer;
}

/* ---- Tasks ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    interrupted = 1;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool ended(const json_t *task)
{
    const char *state = json_string_value(json_object_get(task, "state"));

    return !state || (strcmp(state, "queued") && strcmp(state, "running"));
}

static int task_result(const json_t *task)
{
    const char *state = json_string_value(json_object_get(task, "state"));
    const json_t *error = json_object_get(task, "error");
    const char *why = json_string_value(json_object_get(error, "detail"));

    if (state && !strcmp(state, "succeeded"))
        return API_DONE;
    if (state && !strcmp(state, "cancelled"))
        return host_fail(API_FAILED, "cancelled");
    return host_fail(json_integer_value(json_object_get(error, "status")) == 409 ? API_CONFLICT
                                                                                 : API_FAILED,
                     "%s", why ? why : "the task failed, and the host does not say why");
}

static void show(struct image_bar *bar, char step[64], const json_t *task, double since)
{
    const char *now_at = json_string_value(json_object_get(task, "step"));
    double percent = json_number_value(json_object_get(task, "progress"));

    if (now() - since < 1) /* what is short needs no bar */
        return;
    snprintf(step, 64, "%s", now_at && *now_at ? now_at : "working");
    bar->what = step;
    image_bar_step(bar, (uint64_t)(percent * 10), 1000);
}

/* Ask until it has ended, the time has passed or the user has had enough. */
static json_t *follow(struct host_call *call, const char *id, int *status)
{
    struct image_bar bar = {.shown = isatty(STDERR_FILENO), .permille = -1};
    struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    double since = now();
    char step[64] = "";
    long wait_ms = POLL_FIRST_MS;
    json_t *task;

    interrupted = 0;
    sigaction(SIGINT, &act, NULL);
    for (;;) {
        task = host_send(call, "GET", api_path(call->api, "/tasks/%s", id), NULL, status);
        if (!task || ended(task))
            break;
        show(&bar, step, task, since);
        if (interrupted || (call->timeout > 0 && now() - since > call->timeout)) {
            if (bar.permille >= 0)
                fputc('\n', stderr);
            bar.permille = -1;
            *status = host_fail(API_TIMEOUT, "task %s goes on; see mullion task info %s", id, id);
            json_decref(task);
            task = NULL;
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = wait_ms * 1000000}, NULL);
        wait_ms = wait_ms * 3 / 2 < POLL_MOST_MS ? wait_ms * 3 / 2 : POLL_MOST_MS;
    }
    if (bar.permille >= 0)
        fputc('\n', stderr);
    signal(SIGINT, SIG_DFL);
    return task;
}

int host_wait(struct host_call *call, json_t *answer, json_t **out)
{
    const char *id = json_string_value(json_object_get(answer, "id"));
    int status = API_DONE;
    json_t *task = NULL;

    if (out)
        *out = NULL;
    if (!answer)
        return API_FAILED;
    if (!id || !json_object_get(answer, "progress")) { /* done already */
        if (out)
            *out = json_incref(answer);
    } else if (call->no_wait) {
        puts(id);
    } else if ((task = follow(call, id, &status))) {
        status = task_result(task);
        if (out && !status)
            *out = json_incref(task);
    }
    json_decref(task);
    json_decref(answer);
    return status;
}

/* ---- Values ---- */

json_t *host_size(const char *option, const char *text)
{
    uint64_t bytes;

    if (image_parse_size(text, &bytes) && bytes <= INT64_MAX)
        return json_integer((json_int_t)bytes);
    host_fail(API_USAGE, "--%s %s: give a size like 512M or 20G", option, text);
    return NULL;
}

json_t *host_number(const char *option, const char *text, long least, long most)
{
    char *end;

    errno = 0;
    long n = strtol(text, &end, 10);
    if (!errno && end != text && !*end && n >= least && n <= most)
        return json_integer(n);
    host_fail(API_USAGE, "--%s %s: give a number from %ld to %ld", option, text, least, most);
    return NULL;
}

/* ---- The terminal ---- */

bool host_confirm(const char *question)
{
    char answer[16] = "";

    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return false;
    fprintf(stderr, "%s [yes/no] ", question);
    return fgets(answer, sizeof(answer), stdin) &&
           (!strcmp(answer, "yes\n") || !strcmp(answer, "y\n"));
}

char *host_secret(const char *prompt)
{
    struct termios saved, silent;
    bool terminal = isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &saved);
    char *line = NULL;
    size_t room = 0;

    if (terminal) {
        fprintf(stderr, "%s: ", prompt);
        silent = saved;
        silent.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    }
    ssize_t length = getline(&line, &room, stdin);
    if (terminal) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &saved);
        fputc('\n', stderr);
    }
    if (length <= 0) {
        free(line);
        return NULL;
    }
    line[strcspn(line, "\r\n")] = '\0';
    return line;
}
