/*
 * The client of guest agents (src/host/agent.c) against an agent of our own on a Unix socket, which
 * answers as qemu-guest-agent does, late, wrongly, or not at all.
 */
#include <errno.h>
#include <pthread.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/agent.h"

/* ---- The agent in the guest ---- */

struct fake {
    char folder[32], path[64];
    int listener;
    pthread_t thread;
    const char *stale;    /* sent before the answer to a sync: what an earlier peer had asked for */
    bool silent;          /* answers nothing */
    bool endless;         /* answers without a line's end */
    unsigned status_asks; /* guest-exec-status says "running" so many times */
    const char *file;     /* what guest-file-read gives */
    char written[256];
    size_t at;
};

static void answer(int fd, json_t *value)
{
    json_t *whole = json_pack("{s:o}", "return", value);
    char *text = json_dumps(whole, JSON_COMPACT);

    dprintf(fd, "%s\n", text);
    free(text);
    json_decref(whole);
}

/* "aGkK" is "hi\n", "b29wcwo=" "oops\n". */
static void do_command(struct fake *f, int fd, const char *command, const json_t *arguments)
{
    if (!strcmp(command, "guest-sync-delimited")) {
        if (f->stale)
            dprintf(fd, "%s", f->stale);
        dprintf(fd, "\xff{\"return\": %lld}\n",
                (long long)json_integer_value(json_object_get(arguments, "id")));
    } else if (!strcmp(command, "guest-exec")) {
        answer(fd, json_pack("{s:i}", "pid", 42));
    } else if (!strcmp(command, "guest-exec-status") && f->status_asks) {
        f->status_asks--;
        answer(fd, json_pack("{s:b}", "exited", 0));
    } else if (!strcmp(command, "guest-exec-status")) {
        answer(fd, json_pack("{s:b, s:i, s:s, s:s}", "exited", 1, "exitcode", 3, "out-data", "aGkK",
                             "err-data", "b29wcwo="));
    } else if (!strcmp(command, "guest-file-open")) {
        answer(fd, json_integer(7));
    } else if (!strcmp(command, "guest-file-read")) {
        bool end = f->at > 0;

        f->at++;
        answer(fd,
               json_pack("{s:i, s:s, s:b}", "count", 3, "buf-b64", end ? "" : f->file, "eof", end));
    } else if (!strcmp(command, "guest-file-write")) {
        snprintf(f->written, sizeof(f->written), "%s",
                 json_string_value(json_object_get(arguments, "buf-b64")));
        answer(fd, json_pack("{s:i}", "count", 3));
    } else if (!strcmp(command, "guest-file-close")) {
        answer(fd, json_object());
    } else if (!strcmp(command, "guest-network-get-interfaces")) {
        answer(fd, json_pack("[{s:s, s:[{s:s}]}, {s:s, s:[{s:s}, {s:s}]}]", "name", "lo",
                             "ip-addresses", "ip-address", "127.0.0.1", "name", "eth0",
                             "ip-addresses", "ip-address", "10.0.2.15", "ip-address", "fe80::1"));
    } else if (strcmp(command, "guest-shutdown")) {
        dprintf(fd, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no %s here\"}}\n",
                command);
    }
}

static void *serve(void *opaque)
{
    struct fake *f = opaque;
    int fd = accept(f->listener, NULL, NULL);
    FILE *in = fdopen(fd, "r");
    char *line = NULL;
    size_t room = 0;

    while (f->endless && write(fd, "{\"return\": [0, 0, 0, 0, 0, 0, 0, 0", 34) > 0)
        usleep(1000);
    while (getline(&line, &room, in) > 0) {
        json_t *request = json_loads(line + (line[0] == '\xff'), 0, NULL);

        assert_non_null(request);
        if (!f->silent)
            do_command(f, fd, json_string_value(json_object_get(request, "execute")),
                       json_object_get(request, "arguments"));
        json_decref(request);
    }
    free(line);
    fclose(in);
    return NULL;
}

static void start(struct fake *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(f->folder, "/tmp/mullion-agent-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/socket", f->folder);
    strcpy(address.sun_path, f->path);
    f->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(f->listener, 1), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
}

static void finish(struct fake *f, struct host_agent *agent)
{
    host_agent_close(agent);
    pthread_join(f->thread, NULL);
    close(f->listener);
    unlink(f->path);
    rmdir(f->folder);
}

static struct host_agent *connected(struct fake *f)
{
    struct host_agent *agent;
    struct mull_error err = {0};

    start(f);
    assert_int_equal(host_agent_open(f->path, 10000, &agent, &err), 0);
    return agent;
}

/* ---- Tests ---- */

static void skips_what_an_earlier_peer_had_asked_for(void **state)
{
    struct fake f = {.stale = "{\"return\": 5}\ngarbage \xff\x01 {\n{\"return\": {\"pid\": 9}}\n"};
    struct host_agent *agent = connected(&f);
    struct mull_error err = {0};

    json_t *list = host_agent_addresses(agent, &err);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_array_get(list, 0)), "10.0.2.15");
    json_decref(list);
    finish(&f, agent);
}

static void runs_a_command_to_its_end(void **state)
{
    struct fake f = {.status_asks = 3};
    struct host_agent *agent = connected(&f);
    struct host_agent_result result;
    struct mull_error err = {0};
    json_t *command = json_pack("[s, s]", "/bin/echo", "hi");

    assert_int_equal(host_agent_exec(agent, command, NULL, 0, 10000, &result, &err), 0);
    assert_int_equal(result.status, 3);
    assert_string_equal(result.output, "hi\n");
    assert_string_equal(result.errors, "oops\n");
    host_agent_result_free(&result);
    json_decref(command);
    finish(&f, agent);
}

static void says_that_a_command_goes_on(void **state)
{
    struct fake f = {.status_asks = 1000};
    struct host_agent *agent = connected(&f);
    struct host_agent_result result;
    struct mull_error err = {0};
    json_t *command = json_pack("[s]", "/bin/yes");

    assert_int_equal(host_agent_exec(agent, command, NULL, 0, 50, &result, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.message, "goes on"));
    json_decref(command);
    finish(&f, agent);
}

static int gather(void *opaque, const void *data, size_t length)
{
    strncat(opaque, data, length);
    return 0;
}

static void copies_files_both_ways(void **state)
{
    struct fake f = {.file = "aGkK"};
    struct host_agent *agent = connected(&f);
    struct mull_error err = {0};
    char text[64] = "";

    assert_int_equal(host_agent_read_file(agent, "/etc/hostname", gather, text, &err), 0);
    assert_string_equal(text, "hi\n");
    assert_int_equal(host_agent_write_file(agent, "/tmp/x", "hi\n", 3, &err), 0);
    assert_string_equal(f.written, "aGkK");
    finish(&f, agent);
}

static void refuses_what_is_no_base64(void **state)
{
    struct fake f = {.file = "***"};
    struct host_agent *agent = connected(&f);
    struct mull_error err = {0};
    char text[64] = "";

    assert_true(host_agent_read_file(agent, "/etc/hostname", gather, text, &err) < 0);
    assert_string_equal(text, "");
    finish(&f, agent);
}

static void passes_the_agents_error_on(void **state)
{
    struct fake f = {0};
    struct host_agent *agent = connected(&f);
    struct mull_error err = {0};

    assert_null(host_agent_call(agent, "guest-nonsense", NULL, 5000, &err));
    assert_non_null(strstr(err.message, "no guest-nonsense here"));
    json_t *list = host_agent_addresses(agent, &err); /* and goes on */
    assert_non_null(list);
    json_decref(list);
    finish(&f, agent);
}

static void takes_silence_after_a_shutdown_for_success(void **state)
{
    struct fake f = {0};
    struct host_agent *agent = connected(&f);
    struct mull_error err = {0};

    assert_int_equal(host_agent_shutdown(agent, false, &err), 0);
    finish(&f, agent);
}

static void gives_up_on_a_silent_agent(void **state)
{
    struct fake f = {.silent = true};
    struct host_agent *agent;
    struct mull_error err = {0};

    start(&f);
    assert_int_equal(host_agent_open(f.path, 100, &agent, &err), -ETIMEDOUT);
    assert_null(agent);
    assert_non_null(strstr(err.message, "qemu-guest-agent"));
    finish(&f, NULL);
}

static void gives_up_on_an_answer_without_end(void **state)
{
    struct fake f = {.endless = true};
    struct host_agent *agent;
    struct mull_error err = {0};

    signal(SIGPIPE, SIG_IGN);
    start(&f);
    assert_true(host_agent_open(f.path, 300, &agent, &err) < 0);
    finish(&f, NULL);
}

static void says_where_there_is_no_channel(void **state)
{
    struct host_agent *agent;
    struct mull_error err = {0};

    assert_int_equal(host_agent_open("/nonexistent/agent.sock", 100, &agent, &err), -ENOENT);
    assert_non_null(strstr(err.message, "/nonexistent/agent.sock"));
}

/* Nobody accepts, and as many wait already as may. */
static void gives_up_where_nobody_accepts(void **state)
{
    char folder[] = "/tmp/mull-agent-XXXXXX", path[64];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct host_agent *agent;
    struct mull_error err = {0};
    int waiting[8], count = 0;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/agent", folder);
    strcpy(address.sun_path, path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    for (; count < 8; count++) {
        waiting[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(waiting[count], (struct sockaddr *)&address, sizeof(address))) {
            close(waiting[count]);
            break;
        }
    }
    assert_in_range(count, 1, 7);
    assert_int_equal(host_agent_open(path, 100, &agent, &err), -ETIMEDOUT);
    while (count)
        close(waiting[--count]);
    close(listener);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(skips_what_an_earlier_peer_had_asked_for),
        cmocka_unit_test(runs_a_command_to_its_end),
        cmocka_unit_test(says_that_a_command_goes_on),
        cmocka_unit_test(copies_files_both_ways),
        cmocka_unit_test(refuses_what_is_no_base64),
        cmocka_unit_test(passes_the_agents_error_on),
        cmocka_unit_test(takes_silence_after_a_shutdown_for_success),
        cmocka_unit_test(gives_up_on_a_silent_agent),
        cmocka_unit_test(gives_up_on_an_answer_without_end),
        cmocka_unit_test(says_where_there_is_no_channel),
        cmocka_unit_test(gives_up_where_nobody_accepts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
