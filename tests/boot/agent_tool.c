/*
 * Speaks to the agent of a guest for the boot tests: agent_tool SOCKET exec|read|write|addresses
 * ...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/agent.h"

#define INPUT_MAX (1u << 20)

static int fail(const struct mull_error *err)
{
    fprintf(stderr, "agent_tool: %s\n", err->message);
    return 200;
}

static int print(void *opaque, const void *data, size_t length)
{
    return fwrite(data, 1, length, stdout) == length ? 0 : -1;
}

static int run(struct host_agent *agent, int argc, char **argv, const char *input, size_t length)
{
    struct host_agent_result result;
    struct mull_error err = {0};
    json_t *command = json_array();

    for (int i = 0; i < argc; i++)
        json_array_append_new(command, json_string(argv[i]));
    int ret = host_agent_exec(agent, command, input, length, 60000, &result, &err);
    json_decref(command);
    if (ret)
        return fail(&err);
    fwrite(result.output, 1, result.output_length, stdout);
    fwrite(result.errors, 1, result.errors_length, stderr);
    ret = result.status;
    host_agent_result_free(&result);
    return ret;
}

int main(int argc, char **argv)
{
    struct host_agent *agent;
    struct mull_error err = {0};
    char *input = malloc(INPUT_MAX);
    int status;

    if (argc < 3 || !input)
        return 2;
    size_t length = fread(input, 1, INPUT_MAX, stdin);
    if (host_agent_open(argv[1], 60000, &agent, &err)) {
        status = fail(&err);
    } else if (!strcmp(argv[2], "exec")) {
        status = run(agent, argc - 3, argv + 3, input, length);
    } else if (!strcmp(argv[2], "read") && argc == 4) {
        status = host_agent_read_file(agent, argv[3], print, NULL, &err) ? fail(&err) : 0;
    } else if (!strcmp(argv[2], "write") && argc == 4) {
        status = host_agent_write_file(agent, argv[3], input, length, &err) ? fail(&err) : 0;
    } else {
        json_t *list = host_agent_addresses(agent, &err);

        status = list ? json_dumpf(list, stdout, 0) : fail(&err);
        json_decref(list);
    }
    host_agent_close(agent);
    free(input);
    return status;
}
