/*
 * `mullion gdb MACHINE`: GDB's remote protocol on standard input and output, for
 *     (gdb) target remote | mullion gdb MACHINE
 * The machine's control socket carries it, so that nothing has to listen.
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"

static const char usage[] = "Usage: mullion gdb MACHINE\n"
                            "\n"
                            "Connects GDB's remote protocol on standard input and output to a "
                            "running machine, which stops.\n"
                            "MACHINE is a name, or the path of a control socket. In gdb:\n"
                            "\n"
                            "  target remote | mullion gdb MACHINE\n";

/* @return false: that side has ended */
static bool copy(int from, int to)
{
    char bytes[16384];
    ssize_t n = read(from, bytes, sizeof(bytes));

    if (n < 0 && errno == EINTR)
        return true;
    for (ssize_t done = 0; n > 0 && done < n;) {
        ssize_t w = write(to, bytes + done, (size_t)(n - done));
        if (w < 0 && errno != EINTR)
            return false;
        done += w > 0 ? w : 0;
    }
    return n > 0;
}

int cli_gdb(int argc, char **argv)
{
    struct client client;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc != 2 || argv[1][0] == '-') {
        fputs(usage, stderr);
        return VMM_STATUS_USAGE;
    }
    int status = client_connect(&client, argv[1]);
    if (status >= 0)
        return status;
    json_t *result = client_call(&client, "gdb");
    if (!result) {
        client_close(&client);
        return VMM_STATUS_HOST_ERROR;
    }
    json_decref(result);
    /* What came behind the answer: nothing, GDB speaks first. */
    struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                          {.fd = client.rpc.fd, .events = POLLIN}};
    for (;;) {
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            break;
        if (p[1].revents && !copy(client.rpc.fd, STDOUT_FILENO))
            break;
        if (p[0].revents && !copy(STDIN_FILENO, client.rpc.fd))
            break;
    }
    client_close(&client);
    return 0;
}
