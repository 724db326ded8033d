/* Fuzzes the client of guest agents: whatever a guest says on its channel instead of answers. */
#include <jansson.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct guest {
    int listener;
    const uint8_t *data;
    size_t size;
};

/* Answers the synchronization rightly where the input's first byte is even, then says the rest. */
static void *speak(void *opaque)
{
    struct guest *g = opaque;
    char request[4096], answer[128];
    int fd = accept(g->listener, NULL, NULL);
    ssize_t n = fd < 0 ? -1 : recv(fd, request, sizeof(request) - 1, 0);
    if (n > 0 && g->size && !(g->data[0] & 1)) {
        request[n] = '\0';
        const char *id = strstr(request, "\"id\"");
        id = id ? strpbrk(id + 4, "0123456789") : NULL;
        int m = snprintf(answer, sizeof(answer), "\xff{\"return\": %llu}\n",
                         id ? strtoull(id, NULL, 10) : 0);
        send(fd, answer, (size_t)m, MSG_NOSIGNAL);
    }
    if (fd >= 0 && g->size > 1)
        send(fd, g->data + 1, g->size - 1, MSG_NOSIGNAL);
    if (fd >= 0)
        close(fd); /* no more comes: the client need not wait for its time to pass */
    return NULL;
}

static int take(void *opaque, const void *data, size_t length)
{
    return (*(size_t *)opaque += length) > 1u << 20;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct guest g = {socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), data, size};
    struct mull_error err = {0};
    struct host_agent *agent = NULL;
    struct host_agent_result result;
    pthread_t thread;
    size_t total = 0;

    if (size > 1u << 16)
        size = g.size = 1u << 16;
    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/fuzz-agent-%d", getpid());
    unlink(address.sun_path);
    if (g.listener < 0 || bind(g.listener, (struct sockaddr *)&address, sizeof(address)) ||
        listen(g.listener, 1) || pthread_create(&thread, NULL, speak, &g))
        abort();
    if (!host_agent_open(address.sun_path, 1000, &agent, &err)) {
        switch (size ? data[0] >> 1 & 3 : 0) {
        case 0:
            json_decref(host_agent_addresses(agent, &err));
            break;
        case 1: {
            json_t *command = json_pack("[s]", "ls");
            if (!host_agent_exec(agent, command, NULL, 0, 1000, &result, &err))
                host_agent_result_free(&result);
            json_decref(command);
            break;
        }
        case 2:
            host_agent_read_file(agent, "/x", take, &total, &err);
            break;
        default:
            host_agent_shutdown(agent, false, &err);
        }
    }
    host_agent_close(agent);
    pthread_join(thread, NULL);
    close(g.listener);
    unlink(address.sun_path);
    return 0;
}
