/*
 * The `mullion` command: finds the subcommand and lets it do the work.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/image.h"

static const char usage[] =
    "Usage: mullion COMMAND [OPTION]...\n"
    "\n"
    "Runs virtual machines, with or without hardware virtualization.\n"
    "\n"
    "Commands:\n"
    "  run        run a virtual machine\n"
    "  engines    show what can run virtual CPUs here, and how fast\n"
    "  image      make, convert, check and inspect disk images\n"
    "  gdb        connect GDB to a running machine\n"
    "  stats      show a running machine's counters\n"
    "  top        show what the running machines do\n"
    "  import     make a machine of an OVA, OVF, VMX, libvirt XML or disk\n"
    "  export     write a machine in one of those formats\n"
    "  screen     print what a machine shows in a text mode\n"
    "  screenshot write a picture of what it shows\n"
    "  sendkey    press keys on its keyboard\n"
    "  help       show this text, or 'help COMMAND' for a command's\n"
    "\n"
    "  --version  show the version\n"
    "  --help     show this text; also after each command\n"
    "\n"
    "Example: mullion run --kernel vmlinuz --initrd initrd.img --disk disk.img --net user\n";

static const struct {
    const char *name;
    int (*fn)(int argc, char **argv);
} commands[] = {
    {"run", cli_run},
    {"engines", cli_engines},
    {"gdb", cli_gdb},
    {"stats", cli_stats},
    {"top", cli_top},
    {"image", mull_cli_image},
    {"import", cli_import},
    {"export", cli_export},
    {"screen", cli_screen},
    {"screenshot", cli_screenshot},
    {"sendkey", cli_sendkey},
};

int cli_fail(int status, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("mullion: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

static int help(int argc, char **argv)
{
    char option[] = "--help";
    if (argc < 2) {
        fputs(usage, stdout);
        return 0;
    }
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].fn(2, (char *[]){argv[1], option, NULL});
    return cli_fail(VMM_STATUS_USAGE, "%s: no such command; see mullion --help", argv[1]);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs(usage, stderr);
        return VMM_STATUS_USAGE;
    }
    const char *command = argv[1];
    if (!strcmp(command, "--version") || !strcmp(command, "-V")) {
        puts("mullion " MULLION_VERSION);
        return 0;
    }
    if (!strcmp(command, "--help") || !strcmp(command, "-h") || !strcmp(command, "help"))
        return help(argc - 1, argv + 1);
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(command, commands[i].name))
            return commands[i].fn(argc - 1, argv + 1);
    return cli_fail(VMM_STATUS_USAGE, "%s: no such %s; see mullion --help", command,
                    *command == '-' ? "option" : "command");
}
