/*
 * `mullion import` and what it shares with `mullion export`: machines from other formats.
 */
#include "cli/import.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/store.h"

static const char usage[] =
    "Usage: mullion import [OPTION]... FILE|FOLDER|URL\n"
    "\n"
    "Makes a machine of an OVA, an OVF or VMX with its disks, a libvirt domain's XML, or a disk.\n"
    "\n"
    "  --name NAME          the machine's name; without it the source's\n"
    "  --into FOLDER        where machines are (~/.local/share/mullion/machines)\n"
    "  --disk-format F      of the new disks: qcow2, raw, vmdk, vhdx, vhd, vdi (qcow2)\n"
    "  --in-place           use the disks where they are, as they are\n"
    "  --network NAME=user|none|tap=INTERFACE\n"
    "                       what a network card (by its network's name or its number) is "
    "connected to\n"
    "  --property KEY=VALUE an appliance's property\n"
    "  --configuration ID   one of an OVF's deployment options\n"
    "  --system ID          one of several virtual systems\n"
    "  --accept-eula        accept the licence without being asked\n"
    "  --no-verify          go on where manifest or signature are wrong\n"
    "  --require-signature  refuse what nobody trusted has signed\n"
    "  --trust FILE         certificates of authorities to trust (PEM)\n"
    "  --outside            follow names that lead out of the package's folder\n"
    "  --dry-run            write the machine's description, make nothing\n"
    "  --format table|json  how the result is written (table)\n"
    "  --help               show this text\n"
    "\n"
    "Exit status: 0 made, 1 not made, 2 wrong usage. Nothing is left of what was not made.\n"
    "Example: mullion import appliance.ova && mullion run appliance\n";

/* ---- What import and export share ---- */

int package_getopt(const char *command, int argc, char **argv, const struct option *options)
{
    opterr = 0;
    int c = getopt_long(argc, argv, ":", options, NULL);
    if (c == ':' || c == '?')
        cli_fail(VMM_STATUS_USAGE, "%s: %s; see mullion %s --help", argv[optind - 1],
                 c == ':' ? "needs a value" : "no such option", command);
    return c == ':' ? '?' : c;
}

int package_bar_step(void *opaque, const char *what, uint64_t done, uint64_t total)
{
    struct package_bar *b = opaque;
    if (strcmp(b->what, what)) {
        package_bar_end(b);
        snprintf(b->what, sizeof(b->what), "%s", what);
        image_bar_begin(&b->bar, b->what);
        b->begun = true;
    }
    return image_bar_step(&b->bar, done, total);
}

void package_bar_end(struct package_bar *b)
{
    if (b->begun)
        image_bar_end(&b->bar);
    b->begun = false;
    b->what[0] = '\0';
}

void report_print(const struct mull_report *r, FILE *out)
{
    static const char *const heads[] = {"not carried over", "changed", "kept, without effect"};
    for (unsigned kind = 0; kind < 3; kind++) {
        bool head = false;
        for (unsigned i = 0; i < r->count; i++) {
            if (r->note[i].kind != (enum mull_note_kind)kind)
                continue;
            if (!head)
                fprintf(out, "%s:\n", heads[kind]);
            head = true;
            fprintf(out, "  %s: %s\n", r->note[i].item, r->note[i].text);
        }
    }
    if (r->failed)
        fputs("and more, which there was no room to list\n", out);
}

int report_parse_output(const char *option, const char *value, bool *json)
{
    *json = !strcmp(value, "json");
    if (*json || !strcmp(value, "table"))
        return -1;
    return cli_fail(VMM_STATUS_USAGE, "%s %s: give table or json", option, value);
}

json_t *report_json(const struct mull_report *r)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < r->count; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s+, s:s}", "kind", mull_note_name(r->note[i].kind),
                                        "item", r->note[i].item, "", "text", r->note[i].text));
    return list;
}

/* ---- Options ---- */

enum {
    NAME = 256,
    INTO,
    DISK_FORMAT,
    IN_PLACE,
    NETWORK,
    PROPERTY,
    CONFIGURATION,
    SYSTEM,
    ACCEPT_EULA,
    NO_VERIFY,
    REQUIRE_SIGNATURE,
    TRUST,
    OUTSIDE,
    DRY_RUN,
    FORMAT,
    HELP
};

static const struct option known[] = {
    {"name", required_argument, NULL, NAME},
    {"into", required_argument, NULL, INTO},
    {"disk-format", required_argument, NULL, DISK_FORMAT},
    {"in-place", no_argument, NULL, IN_PLACE},
    {"network", required_argument, NULL, NETWORK},
    {"property", required_argument, NULL, PROPERTY},
    {"configuration", required_argument, NULL, CONFIGURATION},
    {"system", required_argument, NULL, SYSTEM},
    {"accept-eula", no_argument, NULL, ACCEPT_EULA},
    {"no-verify", no_argument, NULL, NO_VERIFY},
    {"require-signature", no_argument, NULL, REQUIRE_SIGNATURE},
    {"trust", required_argument, NULL, TRUST},
    {"outside", no_argument, NULL, OUTSIDE},
    {"dry-run", no_argument, NULL, DRY_RUN},
    {"format", required_argument, NULL, FORMAT},
    {"help", no_argument, NULL, HELP},
    {0},
};

struct options {
    struct mull_import import;
    char *into; /* owned */
    bool json;
};

static int add_pair(const char *option, char *text, struct mull_pair *list, unsigned *count)
{
    char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return cli_fail(VMM_STATUS_USAGE, "%s %s: give NAME=VALUE", option, text);
    if (*count == MULL_IMPORT_PAIRS)
        return cli_fail(VMM_STATUS_USAGE, "%s: more than %d", option, MULL_IMPORT_PAIRS);
    *equals = '\0';
    list[(*count)++] = (struct mull_pair){text, equals + 1};
    return -1;
}

static int parse_one(struct options *o, int option, char *value)
{
    struct mull_import *import = &o->import;
    switch (option) {
    case NAME:
        import->name = value;
        break;
    case INTO:
        import->into = value;
        break;
    case DISK_FORMAT:
        import->disk_format = value;
        break;
    case IN_PLACE:
        import->in_place = true;
        break;
    case NETWORK:
        return add_pair("--network", value, import->network, &import->network_count);
    case PROPERTY:
        return add_pair("--property", value, import->property, &import->property_count);
    case CONFIGURATION:
        import->configuration = value;
        break;
    case SYSTEM:
        import->system = value;
        break;
    case ACCEPT_EULA:
        import->accept_licences = true;
        break;
    case NO_VERIFY:
        import->no_verify = true;
        break;
    case REQUIRE_SIGNATURE:
        import->require_signature = true;
        break;
    case TRUST:
        import->ca_file = value;
        break;
    case OUTSIDE:
        import->outside = true;
        break;
    case DRY_RUN:
        import->dry_run = true;
        break;
    case FORMAT:
        return report_parse_output("--format", value, &o->json);
    default:
        fputs(usage, stdout);
        return 0;
    }
    return -1;
}

static int parse(int argc, char **argv, struct options *o)
{
    int c;
    optind = 0;
    while ((c = package_getopt("import", argc, argv, known)) >= 0) {
        int ret = c == '?' ? VMM_STATUS_USAGE : parse_one(o, c, optarg);
        if (ret >= 0)
            return ret;
    }
    if (argc - optind != 1)
        return cli_fail(VMM_STATUS_USAGE,
                        "import: give one FILE, FOLDER or URL; see mullion import "
                        "--help");
    o->import.source = argv[optind];
    return -1;
}

/* ---- The command ---- */

/* Show the licences and ask, where there is somebody to ask. */
static bool accepted(const struct mull_appliance *a)
{
    for (unsigned i = 0; i < a->licence_count; i++)
        fprintf(stderr, "%s\n\n", a->licence[i]);
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return false;
    char answer[16] = "";
    fputs("Do you accept this licence? [yes/no] ", stderr);
    return fgets(answer, sizeof(answer), stdin) && !strcmp(answer, "yes\n");
}

static void print_signer(const struct mull_import *import)
{
    if (import->has_signer && import->signer.trusted)
        printf("signed by %s\n", import->signer.name);
    else if (import->has_signer)
        printf("signed by %s, whom nobody you trust vouches for: %s\n", import->signer.name,
               import->signer.why);
    else if (import->verified)
        puts("every file is as the manifest says; the manifest is not signed");
}

/* How the machine is started: by its name where that finds it. */
static void print_how(const struct options *o)
{
    const struct mull_import *import = &o->import;
    char open[256];
    mull_appliance_open_properties(&import->appliance, open, sizeof(open));
    if (*open)
        printf("properties without a value: %s\n", open);
    printf("machine '%s' is in %s\nrun it with: mullion run ", import->appliance.config.name,
           import->config_path);
    if (o->into)
        printf("%s\n", import->appliance.config.name);
    else
        printf("--config %s\n", import->config_path);
}

static int print_json(const struct options *o)
{
    const struct mull_import *import = &o->import;
    json_t *all = json_pack("{s:s, s:b, s:o}", "name", import->appliance.config.name, "verified",
                            import->verified, "report", report_json(&import->appliance.report));
    json_object_set_new(all, import->dry_run ? "description" : "config",
                        import->dry_run ? json_loads(import->config_path, 0, NULL)
                                        : json_string(import->config_path));
    if (import->has_signer)
        json_object_set_new(all, "signer",
                            json_pack("{s:s, s:b}", "name", import->signer.name, "trusted",
                                      import->signer.trusted));
    int ret = json_dumpf(all, stdout, JSON_INDENT(2)) || putchar('\n') < 0 || fflush(stdout);
    json_decref(all);
    return ret;
}

static int print_result(const struct options *o)
{
    const struct mull_import *import = &o->import;
    if (o->json)
        return print_json(o);
    if (import->dry_run) {
        puts(import->config_path);
        report_print(&import->appliance.report, stderr);
        return fflush(stdout);
    }
    print_signer(import);
    report_print(&import->appliance.report, stdout);
    print_how(o);
    return fflush(stdout);
}

static int run_import(struct options *o)
{
    struct mull_import *import = &o->import;
    struct mull_error err = {0};
    struct package_bar bar = {0};
    if (!import->into && !(import->into = o->into = machine_store_folder(&err)))
        return cli_fail(VMM_STATUS_HOST_ERROR, "%s", err.message);
    import->progress = package_bar_step;
    import->opaque = &bar;
    import->log = &image_log;
    int ret = mull_import(import, &err);
    package_bar_end(&bar);
    if (ret == -EACCES && import->appliance.licence_count && accepted(&import->appliance)) {
        mull_import_free(import);
        import->accept_licences = true;
        ret = mull_import(import, &err);
        package_bar_end(&bar);
    }
    int status = 0;
    if (ret)
        status = cli_fail(VMM_STATUS_HOST_ERROR, "%s", err.message);
    else if (print_result(o))
        status = cli_fail(VMM_STATUS_HOST_ERROR, "standard output: %s", strerror(errno));
    mull_import_free(import);
    return status;
}

int cli_import(int argc, char **argv)
{
    struct options *o = calloc(1, sizeof(*o));
    if (!o)
        return cli_fail(VMM_STATUS_HOST_ERROR, "no memory");
    int status = parse(argc, argv, o);
    if (status < 0)
        status = run_import(o);
    free(o->into);
    free(o);
    return status;
}
