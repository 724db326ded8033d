/*
 * `mullion export`: a machine in another format.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/import.h"
#include "cli/store.h"

static const char usage[] =
    "Usage: mullion export [OPTION]... NAME|CONFIG TARGET --format FORMAT\n"
    "\n"
    "Writes a machine, by its name or its machine.json, in another format.\n"
    "\n"
    "  --format ova         one file: descriptor, manifest, streamOptimized disks\n"
    "  --format ova,version=2 | ovf,version=2\n"
    "                       with a descriptor of OVF 2 (1.1, as every reader knows it)\n"
    "  --format ovf|vmx|libvirt\n"
    "                       a new folder with the description and the disks\n"
    "  --format qcow2|raw|vmdk|vhdx|vhd|vdi\n"
    "                       a disk alone\n"
    "  --disk N             which disk, counted from 0\n"
    "  --disk-format F      another format for the disks of a package\n"
    "  --digest sha1|sha256|sha512\n"
    "                       of the manifest (sha256)\n"
    "  --no-manifest        write none\n"
    "  --sign-key FILE --sign-cert FILE\n"
    "                       sign the manifest (PEM)\n"
    "  --report table|json  how what could not be carried over is listed (table)\n"
    "  --help               show this text\n"
    "\n"
    "The machine must not run. Exit status: 0 written, 1 not written, 2 wrong usage.\n"
    "Example: mullion export web-1 web-1.ova --format ova\n";

enum { FORMAT = 256, DISK, DISK_FORMAT, DIGEST, NO_MANIFEST, SIGN_KEY, SIGN_CERT, REPORT, HELP };

static const struct option known[] = {
    {"format", required_argument, NULL, FORMAT},
    {"disk", required_argument, NULL, DISK},
    {"disk-format", required_argument, NULL, DISK_FORMAT},
    {"digest", required_argument, NULL, DIGEST},
    {"no-manifest", no_argument, NULL, NO_MANIFEST},
    {"sign-key", required_argument, NULL, SIGN_KEY},
    {"sign-cert", required_argument, NULL, SIGN_CERT},
    {"report", required_argument, NULL, REPORT},
    {"help", no_argument, NULL, HELP},
    {0},
};

struct options {
    struct mull_export export;
    const char *machine;
    bool json;
};

static int parse_one(struct options *o, int option, const char *value)
{
    struct mull_export *e = &o->export;
    char *end;
    switch (option) {
    case FORMAT:
        e->ovf_version = !strcmp(value, "ova,version=2") || !strcmp(value, "ovf,version=2") ? 2 : 1;
        e->format = e->ovf_version == 1 ? value : *(value + 2) == 'a' ? "ova" : "ovf";
        break;
    case DISK:
        e->disk = (int)strtol(value, &end, 10);
        if (!*value || *end || e->disk < 0 || e->disk >= MULL_CONFIG_DISKS)
            return cli_fail(VMM_STATUS_USAGE, "--disk %s: give the number of a disk", value);
        break;
    case DISK_FORMAT:
        e->disk_format = value;
        break;
    case DIGEST:
        if (!mull_digest_find(value, strlen(value), &e->digest))
            return cli_fail(VMM_STATUS_USAGE, "--digest %s: give sha1, sha256 or sha512", value);
        break;
    case NO_MANIFEST:
        e->no_manifest = true;
        break;
    case SIGN_KEY:
        e->key_file = value;
        break;
    case SIGN_CERT:
        e->cert_file = value;
        break;
    case REPORT:
        return report_parse_output("--report", value, &o->json);
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
    while ((c = package_getopt("export", argc, argv, known)) >= 0) {
        int ret = c == '?' ? VMM_STATUS_USAGE : parse_one(o, c, optarg);
        if (ret >= 0)
            return ret;
    }
    if (argc - optind != 2 || !o->export.format)
        return cli_fail(VMM_STATUS_USAGE, "export: give a machine, TARGET and --format; see "
                                          "mullion export --help");
    if (o->export.no_manifest && o->export.key_file)
        return cli_fail(VMM_STATUS_USAGE, "export: a signature needs the manifest");
    o->machine = argv[optind];
    o->export.target = argv[optind + 1];
    return -1;
}

/* By a path where it looks like one, else by name. */
static int read_machine(const char *machine, struct mull_machine_config *out,
                        struct mull_error *err)
{
    struct stat st;
    char *path = NULL, *text = NULL;
    json_t *json = NULL;
    bool file = strchr(machine, '/') || (!stat(machine, &st) && S_ISREG(st.st_mode));
    int ret = file ? 0 : machine_store_find(machine, &path, err);
    if (!ret)
        ret = machine_file_read(file ? machine : path, &json, err);
    if (!ret && !(text = json_dumps(json, JSON_COMPACT)))
        ret = mull_fail(err, ENOMEM, "no memory");
    if (!ret)
        ret = mull_machine_config_read(text, out, err);
    free(path);
    free(text);
    json_decref(json);
    return ret;
}

static int print_report(const struct options *o)
{
    if (!o->json) {
        report_print(&o->export.report, stdout);
        return fflush(stdout);
    }
    json_t *all = json_pack("{s:s, s:s, s:o}", "target", o->export.target, "format",
                            o->export.format, "report", report_json(&o->export.report));
    int ret = json_dumpf(all, stdout, JSON_INDENT(2)) || putchar('\n') < 0 || fflush(stdout);
    json_decref(all);
    return ret;
}

static int run_export(struct options *o)
{
    struct mull_machine_config config = {0};
    struct mull_error err = {0};
    struct package_bar bar = {0};
    int status = 0, ret = read_machine(o->machine, &config, &err);
    o->export.config = &config;
    o->export.progress = package_bar_step;
    o->export.opaque = &bar;
    o->export.log = &image_log;
    if (!ret)
        ret = mull_export(&o->export, &err);
    package_bar_end(&bar);
    if (ret)
        status = cli_fail(VMM_STATUS_HOST_ERROR, "%s", err.message);
    else if (print_report(o))
        status = cli_fail(VMM_STATUS_HOST_ERROR, "standard output: %s", strerror(errno));
    mull_report_free(&o->export.report);
    mull_machine_config_free(&config);
    return status;
}

int cli_export(int argc, char **argv)
{
    struct options o = {.export = {.disk = -1, .digest = MULL_SHA256}};
    int status = parse(argc, argv, &o);
    return status < 0 ? run_export(&o) : status;
}
