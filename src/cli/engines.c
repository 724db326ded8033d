/*
 * `mullion engines`: what can run virtual CPUs on this host, how fast, and which one `auto` takes.
 */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "engine/engine.h"

static const char usage[] =
    "Usage: mullion engines [--format text|json]\n"
    "\n"
    "Shows the engines of this build: whether each works here, its measured speed, and which one\n"
    "--engine auto takes and why.\n"
    "\n"
    "  --format F  'text' (default) or 'json'\n"
    "  --help      show this text\n";

static void print_speed(const char *what, double value, const char *unit)
{
    if (value > 0)
        printf("  %-22s %.*f %s\n", what, value < 10 ? 2 : 0, value, unit);
}

static void print_text(const struct mull_engine *chosen, const char *why)
{
    for (unsigned i = 0; mull_engines[i]; i++) {
        struct mull_engine_report r = {0};
        mull_engines[i]->probe(true, &r);
        printf("%-5s %s%s%s\n", mull_engines[i]->name, r.available ? "available" : "not available",
               *r.why ? ": " : "", r.why);
        print_speed("kernel-mode speed", r.kernel_mips, "million instructions/s");
        print_speed("user-mode speed", r.user_mips, "million instructions/s");
        print_speed("exit to the host", r.exit_us, "us");
    }
    if (chosen)
        printf("auto  %s\n", why);
    else
        puts("auto  finds no engine that works here");
}

static int print_json(const struct mull_engine *chosen, const char *why)
{
    json_t *list = json_array();
    for (unsigned i = 0; mull_engines[i]; i++) {
        struct mull_engine_report r = {0};
        mull_engines[i]->probe(true, &r);
        json_array_append_new(list, json_pack("{s:s, s:b, s:s, s:f, s:f, s:f}", "name",
                                              mull_engines[i]->name, "available", r.available,
                                              "reason", r.why, "kernel_mips", r.kernel_mips,
                                              "user_mips", r.user_mips, "exit_us", r.exit_us));
    }
    json_t *root = json_pack("{s:o, s:s?, s:s}", "engines", list, "auto",
                             chosen ? chosen->name : NULL, "reason", why);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text)
        return cli_fail(VMM_STATUS_HOST_ERROR, "engines: no memory");
    puts(text);
    free(text);
    return 0;
}

int cli_engines(int argc, char **argv)
{
    static const struct option known[] = {
        {"format", required_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {0}};
    bool json = false;
    int c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "h", known, NULL)) >= 0) {
        if (c == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        if (c != 'f')
            return cli_fail(VMM_STATUS_USAGE, "%s: no such option; see mullion engines --help",
                            argv[optind - 1]);
        json = !strcmp(optarg, "json");
        if (!json && strcmp(optarg, "text"))
            return cli_fail(VMM_STATUS_USAGE, "--format %s: give 'text' or 'json'", optarg);
    }
    if (optind < argc)
        return cli_fail(VMM_STATUS_USAGE, "%s: not expected; see mullion engines --help",
                        argv[optind]);
    char why[256] = "";
    const struct mull_engine *chosen = mull_engine_find("auto", why, sizeof(why), NULL);
    if (json)
        return print_json(chosen, why);
    print_text(chosen, why);
    return 0;
}
