/*
 * `mullion image`: disk images without a machine. Finds the subcommand; sizes, format options and
 * the progress bar for all of them.
 */
#include "cli/image.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "Usage: mullion image COMMAND [OPTION]...\n"
    "\n"
    "Works with disk images: raw, qcow2, vmdk, vhdx, vhd, vdi, parallels (read).\n"
    "\n"
    "  create FILE [SIZE] [--to FORMAT[,OPTION=VALUE]...] [--backing FILE [--backing-format F]]\n"
    "  convert SOURCE TARGET --to FORMAT[,subformat=S][,compress=zlib|zstd]... [--from FORMAT]\n"
    "          [--snapshot NAME] [--threads N] [--offset N] [--length N] [--sync] [--resume]\n"
    "  copy SOURCE TARGET [--offset N] [--length N] [--to-offset N] [--from F] [--target-format "
    "F]\n"
    "  info FILE [--chain] [--from FORMAT] [--format table|json]\n"
    "  check FILE [--repair] [--from FORMAT] [--format table|json]\n"
    "  compare A B [--from FORMAT] [--from-b FORMAT]\n"
    "  map FILE [--from FORMAT] [--format table|json]\n"
    "  measure FILE --to FORMAT [--from FORMAT] [--format table|json]\n"
    "  resize FILE [+|-]SIZE [--shrink] [--from FORMAT]\n"
    "  snapshot list|create|apply|delete FILE [NAME] [--format table|json]\n"
    "  commit FILE [--from FORMAT]\n"
    "  bitmap add|remove|clear FILE NAME [--granularity N] | merge FILE INTO FROM | list FILE\n"
    "  changes FILE [--since BITMAP] [--format table|json]\n"
    "  rebase FILE [--backing FILE] [--backing-format F] [--unsafe]\n"
    "  partitions FILE [--format table|json]\n"
    "  ls FILE [PATH] [--partition N] [--format table|json]      (ext2, ext3, ext4)\n"
    "  cat FILE PATH [--partition N]\n"
    "  serve FILE [--listen HOST:PORT|unix:PATH] [--name NAME] [--writable] [--once] [--run CMD]\n"
    "        [--tls-certificates DIR | --tls-psk FILE] [--tls required|optional]\n"
    "        [--tls-verify-clients] [--bitmap NAME]... [--max-clients N] [--memory SIZE]\n"
    "\n"
    "A FILE that is read may be a URL: nbd://HOST:PORT/EXPORT, nbd+unix:///EXPORT?socket=PATH,\n"
    "nbds://... (TLS). --ca-file FILE, --max-size SIZE and --key-file FILE are for such sources.\n"
    "\n"
    "Commands that read take --anywhere: names of extents and data files inside the image may "
    "lead\n"
    "anywhere, to devices too. Sizes take K, M, G, T, P. Formats are detected; raw is written only "
    "when you say so.\n"
    "Example: mullion image convert disk.vmdk disk.qcow2 --to qcow2,compress=zstd\n";

static const struct {
    const char *name;
    int (*fn)(int argc, char **argv);
} commands[] = {
    {"create", image_create},         {"convert", image_convert}, {"info", image_info},
    {"check", image_check},           {"compare", image_compare}, {"map", image_map},
    {"measure", image_measure},       {"resize", image_resize},   {"snapshot", image_snapshot},
    {"commit", image_commit},         {"rebase", image_rebase},   {"bitmap", image_bitmap},
    {"changes", image_changes},       {"serve", image_serve},     {"copy", image_copy},
    {"partitions", image_partitions}, {"ls", image_ls},           {"cat", image_cat},
};

/* Options that every command takes, because it may open such a source. */
static struct mull_source_options source_options;

const struct mull_source_options *image_source(void)
{
    return &source_options;
}

static bool take_source_options(int *argc, char **argv)
{
    int to = 1;

    for (int i = 1; i < *argc; i++) {
        char **rest = i + 1 < *argc ? &argv[i + 1] : NULL;
        if (rest && !strcmp(argv[i], "--ca-file")) {
            source_options.ca_file = *rest;
        } else if (rest && !strcmp(argv[i], "--key-file")) {
            source_options.key_file = *rest;
        } else if (rest && !strcmp(argv[i], "--max-size")) {
            if (!image_parse_size(*rest, &source_options.max_size)) {
                image_fail(1, "--max-size %s: not a size", *rest);
                return false;
            }
        } else {
            argv[to++] = argv[i];
            continue;
        }
        i++;
    }
    argv[to] = NULL;
    *argc = to;
    return true;
}

static void log_line(void *opaque, enum mull_log_level level, const char *line)
{
    fprintf(stderr, "mullion image: %s\n", line);
}

const struct mull_log image_log = {.level = MULL_LOG_WARN, .sink = log_line};

int image_fail(int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("mullion image: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return status;
}

bool image_parse_size(const char *text, uint64_t *out)
{
    static const char units[] = "BKMGTPE";
    char *end;

    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno)
        return false;
    if (*end) {
        const char *unit = strchr(units, toupper((unsigned char)*end));
        unsigned shift = unit ? 10 * (unsigned)(unit - units) : 64;
        if (shift >= 64 || (shift && n >> (64 - shift)))
            return false;
        n <<= shift;
        end++;
        if (*end == 'i')
            end++;
        if (*end == 'B' || *end == 'b')
            end++;
    }
    *out = n;
    return !*end;
}

bool image_parse_output(const char *text, bool *json)
{
    *json = !strcmp(text, "json");
    if (*json || !strcmp(text, "table"))
        return true;
    image_fail(1, "--format %s: use table or json", text);
    return false;
}

static bool truth(const char *value)
{
    return !strcmp(value, "on") || !strcmp(value, "true") || !strcmp(value, "yes") ||
           !strcmp(value, "1");
}

static bool set_option(struct image_target *t, const char *key, const char *value)
{
    struct mull_create_options *c = &t->create;
    uint64_t n;

    if (!strcmp(key, "subformat")) {
        c->subformat = value;
        if (!strcmp(value, "streamOptimized"))
            t->compress = true;
    } else if (!strcmp(key, "compress") || !strcmp(key, "compression_type")) {
        t->compress = !strcmp(key, "compression_type") ? t->compress : strcmp(value, "off") != 0;
        if (!strcmp(value, "zlib") || !strcmp(value, "zstd"))
            c->compression = value;
        else if (!truth(value) && strcmp(value, "off"))
            return false;
    } else if (!strcmp(key, "cluster_size") || !strcmp(key, "block_size")) {
        if (!image_parse_size(value, &n) || n > UINT32_MAX)
            return false;
        c->unit = (uint32_t)n;
    } else if (!strcmp(key, "compat") || !strcmp(key, "version")) {
        c->version = value;
    } else if (!strcmp(key, "refcount_bits")) {
        c->refcount_bits = atoi(value);
        return c->refcount_bits > 0;
    } else if (!strcmp(key, "lazy_refcounts")) {
        c->lazy_refcounts = truth(value);
    } else if (!strcmp(key, "extended_l2")) {
        c->extended_l2 = truth(value);
    } else if (!strcmp(key, "data_file")) {
        c->data_file = value;
    } else if (!strcmp(key, "data_file_raw")) {
        c->data_file_raw = truth(value);
    } else {
        return false;
    }
    return true;
}

bool image_parse_target(char *text, struct image_target *out)
{
    char *save, *word = strtok_r(text, ",", &save);

    memset(out, 0, sizeof(*out));
    out->format = word ? mull_format_find(word) : NULL;
    if (!out->format) {
        image_fail(1, "--to %s: no such format", word ? word : "");
        return false;
    }
    if (!out->format->create) {
        image_fail(1, "--to %s: this format is only read", word);
        return false;
    }
    while ((word = strtok_r(NULL, ",", &save))) {
        char *value = strchr(word, '=');
        if (value)
            *value++ = 0;
        if (!set_option(out, word, value ? value : "on")) {
            image_fail(1, "option %s=%s: not one of format %s", word, value ? value : "on",
                       out->format->name);
            return false;
        }
    }
    return true;
}

/* The one thing that must be process-wide: a signal has no argument. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

void image_bar_begin(struct image_bar *bar, const char *what)
{
    struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    bar->what = what;
    bar->shown = isatty(STDERR_FILENO);
    bar->permille = -1;
    interrupted = 0;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

int image_bar_step(void *opaque, uint64_t done, uint64_t total)
{
    struct image_bar *bar = opaque;
    int permille = total ? (int)((double)done / (double)total * 1000) : 1000;

    if (bar->shown && permille != bar->permille) {
        char line[41];
        int full = permille * 40 / 1000;
        for (int i = 0; i < 40; i++)
            line[i] = i < full ? '#' : '.';
        line[40] = 0;
        fprintf(stderr, "\r%s [%s] %3d.%d %%", bar->what, line, permille / 10, permille % 10);
        fflush(stderr);
        bar->permille = permille;
    }
    return interrupted;
}

void image_bar_end(struct image_bar *bar)
{
    if (bar->shown)
        fputc('\n', stderr);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

int mull_cli_image(int argc, char **argv)
{
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? 1 : 0;
    }
    for (int i = 2; i < argc; i++)
        if (!strcmp(argv[i], "--help")) {
            fputs(usage, stdout);
            return 0;
        }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(argv[1], commands[i].name)) {
            optind = 0;
            argc--;
            argv++;
            if (!take_source_options(&argc, argv))
                return 1;
            return commands[i].fn(argc, argv);
        }
    return image_fail(1, "%s: no such command; see mullion image --help", argv[1]);
}
