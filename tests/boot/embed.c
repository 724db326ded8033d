/*
 * A program with a virtual machine in it: what `make install` leaves must be enough to build and
 * run this, with the shared and with the static library. Arguments: kernel, initrd, console file.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <vmhi/machine.h>

static void print(void *opaque, enum vmhi_log_level level, const char *line)
{
    (void)opaque, (void)level;
    fprintf(stderr, "log: %s\n", line);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    int console = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    char config[4096];
    snprintf(
        config, sizeof(config),
        "{\"name\": \"embedded\", \"kernel\": \"%s\", \"initrd\": \"%s\", \"engine\": \"soft\","
        "\"cmdline\": \"console=ttyS0 quiet panic=-1 mullion.do=check\", \"cpus\": 2,"
        "\"consoles\": [{\"type\": \"fd\", \"in\": -1, \"out\": %d}]}",
        argv[1], argv[2], console);
    struct vmhi_machine_options options = {
        .size = sizeof(options), .config = config, .log = print, .log_level = VMHI_LOG_WARN};
    struct vmhi_machine *machine;
    struct vmhi_error error;

    /* What must fail, with a reason. */
    struct vmhi_machine_options bad = options;
    bad.config = "{\"kernel\": \"/nonexistent\"}";
    if (vmhi_machine_create(&bad, &machine, &error) >= 0 || !strstr(error.message, "/nonexistent"))
        return 10;
    bad.size = 1;
    if (vmhi_machine_create(&bad, &machine, &error) >= 0)
        return 11;

    /* Two machines in one process; one is never started. */
    struct vmhi_machine *idle;
    if (vmhi_machine_create(&options, &idle, &error) ||
        vmhi_machine_create(&options, &machine, &error)) {
        fprintf(stderr, "create: %s\n", error.message);
        return 12;
    }
    struct vmhi_machine_info info = {.size = sizeof(info)};
    if (vmhi_machine_info(machine, &info) || info.state != VMHI_STATE_CREATED || info.cpus != 2)
        return 13;
    if (vmhi_machine_start(machine, &error)) {
        fprintf(stderr, "start: %s\n", error.message);
        return 14;
    }
    if (vmhi_machine_pause(machine, &error) || vmhi_machine_info(machine, &info) ||
        info.state != VMHI_STATE_PAUSED || vmhi_machine_resume(machine, &error))
        return 15;
    if (vmhi_machine_wait(machine, &error) != VMHI_END_POWEROFF) {
        fprintf(stderr, "end: %s\n", error.message);
        return 16;
    }
    vmhi_machine_destroy(machine);
    vmhi_machine_destroy(idle);
    printf("libmullion %s\n", vmhi_version());
    return 0;
}
