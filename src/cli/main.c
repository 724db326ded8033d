/*
 * The `mullion` command: finds the subcommand and lets it do the work.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/api/command.h"
#include "cli/api/place.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/image.h"

static const char usage[] =
    "Usage: mullion COMMAND [OPTION]...\n"
    "\n"
    "Runs virtual machines, with or without hardware virtualization.\n"
    "\n"
    "One machine, here and now:\n"
    "  run                          run a virtual machine\n"
    "  import, export               from and to OVA, OVF, VMX, libvirt XML and disks\n"
    "  screen, screenshot, sendkey  what a machine shows, and keys for it\n"
    "  attach, detach, parts        add disks, cards, CPUs, memory; take them away\n"
    "  balloon                      how much memory its guest keeps\n"
    "  stats, top, gdb              look into running machines\n"
    "  engines                      what can run virtual CPUs here, and how fast\n"
    "  image                        make, convert, check and inspect disk images\n"
    "\n"
    "Machines that a host keeps (mullion host start):\n"
    "  host start|stop|status|passwd  begin and end your own host\n"
    "  launch, create               make a machine\n"
    "  list, info                   see what there is\n"
    "  start, stop, restart, pause, resume, reset\n"
    "  console, exec, copy          reach what runs in it\n"
    "  edit, rename, delete         change it\n"
    "  disk, network, pool, datastore, image list|add|build|remove\n"
    "  user, group, grant, token, whoami\n"
    "  task, event                  what the host does and what has happened\n"
    "  context                      the hosts that you know; or --host URL with each command\n"
    "\n"
    "  completion   completion for bash, zsh and fish\n"
    "  help         show this text, or 'help COMMAND' for a command's\n"
    "  --version    show the version\n"
    "  --help       show this text; also after each command\n"
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
    {"attach", cli_attach},
    {"detach", cli_detach},
    {"parts", cli_parts},
    {"screen", cli_screen},
    {"screenshot", cli_screenshot},
    {"sendkey", cli_sendkey},
    {"balloon", cli_balloon},
    {"host", cli_host},
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

const char *cli_command_name(unsigned index)
{
    return index < sizeof(commands) / sizeof(commands[0]) ? commands[index].name : NULL;
}

/* What is both a host's command and this program's own is a host's where one is named or runs here,
 * but for machines of `mullion run`. */
static bool is_local(const struct host_command *command, int argc, char **argv)
{
    bool local = false, named = false;

    if (!(command->flags & HOST_BOTH))
        return false;
    for (int i = 1; i < argc; i++) {
        local = local || !strcmp(argv[i], "--local");
        named = named || !strncmp(argv[i], "--host", 6) || !strncmp(argv[i], "--context", 9);
    }
    if (!local && !named && command->kind == HOST_MACHINE && argc > 1 && *argv[1] != '-')
        local = client_knows(argv[1]);
    return local || (!named && !host_place_here());
}

/* Without --local, which only says where to look. */
static int drop_local(int argc, char **argv)
{
    int n = 0;

    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--local"))
            argv[n++] = argv[i];
    argv[n] = NULL;
    return n;
}

static void help_group(const char *word)
{
    printf("Usage: mullion %s COMMAND [OPTION]...\n\n", word);
    for (unsigned g = 0; host_commands()[g]; g++)
        for (const struct host_command *c = host_commands()[g]; c->words; c++)
            if (!strncmp(c->words, word, strlen(word)) && c->words[strlen(word)] == ' ')
                printf("  %s %s\n      %s\n", c->words + strlen(word) + 1, c->arguments,
                       c->summary);
}

/* The first word of commands that have two? */
static bool is_group(const char *word)
{
    for (unsigned g = 0; host_commands()[g]; g++)
        for (const struct host_command *c = host_commands()[g]; c->words; c++)
            if (!strncmp(c->words, word, strlen(word)) && c->words[strlen(word)] == ' ')
                return true;
    return false;
}

static int help(int argc, char **argv)
{
    char option[] = "--help";
    int words;

    if (argc < 2) {
        fputs(usage, stdout);
        return 0;
    }
    const struct host_command *command = host_command_find(argc - 1, argv + 1, &words);
    if (command && !is_local(command, argc - 1, argv + 1)) {
        host_command_help(command, stdout);
        return 0;
    }
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].fn(2, (char *[]){argv[1], option, NULL});
    if (is_group(argv[1])) {
        help_group(argv[1]);
        return 0;
    }
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
    int words;
    const struct host_command *on_host = host_command_find(argc - 1, argv + 1, &words);
    if (on_host && !is_local(on_host, argc - 1, argv + 1))
        return host_command_run(on_host, argc - 1 - words, argv + 1 + words);
    argc = drop_local(argc, argv);
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(command, commands[i].name))
            return commands[i].fn(argc - 1, argv + 1);
    if (is_group(command)) {
        bool asked = argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"));

        if (asked || argc == 2)
            help_group(command);
        return asked ? 0
               : argc == 2
                   ? VMM_STATUS_USAGE
                   : cli_fail(VMM_STATUS_USAGE, "%s %s: no such command; see mullion %s --help",
                              command, argv[2], command);
    }
    return cli_fail(VMM_STATUS_USAGE, "%s: no such %s; see mullion --help", command,
                    *command == '-' ? "option" : "command");
}
