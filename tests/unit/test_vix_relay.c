/*
 * The way of guest operations' messages (src/host/vix_relay.c) through the control channel of a
 * machine's process: one of our own, which answers late, wrongly, or never.
 */
#include <errno.h>
#include <jansson.h>
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

#include "host/vix_relay.h"

struct process {
    char folder[32], path[64];
    int listener;
    pthread_t thread;
    unsigned late;      /* how often there is no answer yet */
    const char *answer; /* of tools.receive: a member's value in JSON, NULL: never */
    const char *error;  /* of tools.send */
    unsigned sent, asked, dropped;
    char message[64]; /* what was sent, in base64 */
};

static void reply(struct process *p, FILE *peer, const char *method, json_t *params)
{
    if (!strcmp(method, "tools.send")) {
        p->sent++;
        snprintf(p->message, sizeof(p->message), "%.63s",
                 json_string_value(json_object_get(params, "message")));
        if (p->error)
            fprintf(peer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"message\":\"%s\"}}\n",
                    p->error);
        else
            fputs("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"id\":7}}\n", peer);
    } else if (!strcmp(method, "tools.receive")) {
        p->asked += json_integer_value(json_object_get(params, "id")) == 7;
        if (p->answer && p->asked > p->late)
            fprintf(peer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"answer\":%s}}\n", p->answer);
        else
            fputs("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n", peer);
    } else {
        p->dropped += !strcmp(method, "tools.drop");
        fputs("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n", peer);
    }
    fflush(peer);
}

static void *serve(void *opaque)
{
    struct process *p = opaque;
    int fd = accept(p->listener, NULL, NULL);
    FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, in) > 0) {
        json_t *request = json_loads(line, 0, NULL);
        reply(p, out, json_string_value(json_object_get(request, "method")),
              json_object_get(request, "params"));
        json_decref(request);
    }
    free(line);
    fclose(in);
    fclose(out);
    return NULL;
}

/* One message. @return what came of it; the process has ended */
static int ask(struct process *p, int timeout_ms, char *answer, size_t *size,
               struct mull_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct vix_relay relay;
    struct vix_channel channel;

    strcpy(p->folder, "/tmp/mull-relay-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->path, sizeof(p->path), "%s/control", p->folder);
    strcpy(address.sun_path, p->path);
    p->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(p->listener, 4), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, serve, p), 0);
    assert_int_equal(vix_relay_open(&relay, p->path, &channel, err), 0);
    int ret = channel.call(channel.opaque, "a\0b", 3, timeout_ms, answer, size, err);
    vix_relay_close(&relay);
    pthread_join(p->thread, NULL);
    close(p->listener);
    unlink(p->path);
    rmdir(p->folder);
    return ret;
}

static char answer[VIX_MESSAGE_MAX];

static void waits_for_an_answer(void **state)
{
    struct process p = {.late = 5, .answer = "\"T0sAIQ==\""};
    struct mull_error err = {0};
    size_t size = 0;

    assert_int_equal(ask(&p, 60000, answer, &size, &err), 0);
    assert_string_equal(p.message, "YQBi");
    assert_int_equal(size, 4);
    assert_memory_equal(answer, "OK\0!", 4);
    assert_int_equal(p.asked, 6);
    assert_int_equal(p.dropped, 0);
    p = (struct process){.answer = "\"\""};
    assert_int_equal(ask(&p, 60000, answer, &size, &err), 0);
    assert_int_equal(size, 0);
}

static void gives_up(void **state)
{
    struct process p = {0};
    struct mull_error err = {0};
    size_t size;

    assert_int_equal(ask(&p, 30, answer, &size, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.message, "do not answer"));
    assert_int_equal(p.dropped, 1); /* nobody keeps the password */
    p = (struct process){.error = "no open-vm-tools run in the guest"};
    assert_int_equal(ask(&p, 60000, answer, &size, &err), -EPROTO);
    assert_non_null(strstr(err.message, "no open-vm-tools run"));
    assert_int_equal(p.asked, 0);
}

static void refuses_what_makes_no_sense(void **state)
{
    static const char *const wrong[] = {"\"!!\"", "\"T0s\"", NULL};
    struct mull_error err = {0};
    size_t size;

    for (unsigned i = 0; wrong[i]; i++) {
        struct process p = {.answer = wrong[i]};
        assert_int_equal(ask(&p, 60000, answer, &size, &err), -EPROTO);
    }
    /* More than a guest can have said. */
    size_t most = VIX_MESSAGE_MAX / 3 * 4 + 16;
    char *large = malloc(most + 3);
    memset(large, 'A', most + 2);
    large[0] = large[most + 1] = '"';
    large[most + 2] = '\0';
    struct process p = {.answer = large};
    assert_int_equal(ask(&p, 60000, answer, &size, &err), -EPROTO);
    free(large);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_for_an_answer),
        cmocka_unit_test(gives_up),
        cmocka_unit_test(refuses_what_makes_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
